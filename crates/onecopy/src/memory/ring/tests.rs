//! What a successor finds after a side was killed between two stores.

use std::sync::Arc;

use super::layout::header_of;
use super::{PIECE_BYTES, RING_BYTES, RingReceiver, RingSender};
use crate::atomic::Ordering;
use crate::memory::Region;
use crate::memory::anonymous::AnonymousMapping;
use crate::{Deadline, Receiver, Sender};

fn region() -> Arc<Region> {
    Arc::new(AnonymousMapping::create("ring", RING_BYTES).unwrap().into_region())
}

/// As SIGKILL ends it: nothing of it runs any more, and its process is found gone.
fn kill(receiver: RingReceiver, region: &Region) {
    std::mem::forget(receiver);
    let largest_pid = (1 << 22) - 1;
    header_of(region).unwrap().roles.receiver.owner.fetch_or(largest_pid, Ordering::AcqRel);
}

#[test]
fn a_receiver_killed_between_giving_back_a_slot_and_its_bytes_leaves_a_ring_that_goes_on() {
    let region = region();
    let mut sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let mut receiver = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let message = |seed: u8| vec![seed; PIECE_BYTES];
    for seed in 0..3 {
        sender.send(&message(seed)).unwrap();
    }
    assert_eq!(receiver.recv().unwrap(), Some(message(0)));
    let received = &header_of(&region).unwrap().received;
    received.bulk.store(0, Ordering::Release);
    kill(receiver, &region);

    let mut successor = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
    for seed in 1..60 {
        assert_eq!(successor.recv().unwrap(), Some(message(seed)));
        sender.send(&message(seed + 2)).unwrap();
    }
    assert_eq!(received.bulk.load(Ordering::Acquire), 60 * PIECE_BYTES as u64);
}

#[test]
fn the_slot_is_given_back_before_its_bytes() {
    let region = region();
    let mut sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let mut receiver = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
    // Seen from another thread, the bytes are never given back while their slot is not.
    let watched = Arc::clone(&region);
    let watching = std::thread::spawn(move || {
        let received = &header_of(&watched).unwrap().received;
        loop {
            let bulk = received.bulk.load(Ordering::SeqCst);
            let slots = received.slots.load(Ordering::SeqCst);
            assert!(bulk <= slots * PIECE_BYTES as u64, "{bulk} bytes of {slots} records");
            if slots >= 2000 {
                return;
            }
        }
    });
    let mut buffer = vec![0; PIECE_BYTES];
    for _ in 0..2000 {
        sender.send(&buffer.clone()).unwrap();
        receiver.recv_into(&mut buffer).unwrap();
    }
    watching.join().unwrap();
}
