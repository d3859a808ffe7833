//! What a successor finds after a side was killed between two stores, and the short way of short messages.

use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::bare::{BARE_BYTES, last_word};
use super::layout::{BULK, FIRST, INLINE_BYTES, INLINE_MESSAGE_BYTES, LAST, Ring, SLOTS, Sizes, header_of, lap};
use super::{PIECE_BYTES, RING_BYTES, RingReceiver, RingSender};
use crate::atomic::Ordering;
use crate::io::socket::Socket;
use crate::memory::Region;
use crate::memory::anonymous::AnonymousMapping;
use crate::memory::bell::Bell;
use crate::{Deadline, Error, Receiver, Sender};

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

#[test]
fn short_messages_of_every_length_are_taken_at_once_and_no_others() {
    let region = region();
    let mut sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let mut receiver = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let mut target = [0; INLINE_MESSAGE_BYTES];
    assert_eq!(receiver.take_short(&mut target, Deadline::Now, || false), None);
    for len in 0..=INLINE_MESSAGE_BYTES {
        let message: Vec<u8> = (0..len).map(|index| (index + len) as u8).collect();
        sender.send(&message).unwrap();
        sender.send(&message).unwrap();
        assert_eq!(receiver.take_short(&mut target, Deadline::Now, || false), Some(len));
        assert_eq!(target[..len], message);
        if len > 0 {
            assert_eq!(
                receiver.take_short_into(&mut target[1..len], Deadline::Now, || false),
                None,
                "it stays for a larger one"
            );
        }
        target.fill(0xee);
        assert_eq!(receiver.take_short_into(&mut target, Deadline::Now, || false), Some(len));
        assert_eq!(target[..len], message);
        assert!(target[len..].iter().all(|&byte| byte == 0xee), "{len}");
    }
    sender.send(&[1; INLINE_MESSAGE_BYTES + 1]).unwrap();
    assert_eq!(receiver.take_short(&mut target, Deadline::Now, || false), None);
    assert_eq!(receiver.recv().unwrap().unwrap().len(), INLINE_MESSAGE_BYTES + 1);
    receiver.set_limit_bytes(80);
    sender.send(&[1; 81]).unwrap();
    assert_eq!(receiver.take_short(&mut target, Deadline::Now, || false), None);
    assert!(matches!(receiver.recv().unwrap_err(), Error::TooLong { .. }));
}

/// The two ends of a ring whose messages may be bare.
fn pair_without_successors() -> (RingSender, RingReceiver) {
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let bell = |socket| Bell::new(Arc::new(Socket::new(socket, "the socket of a test")), b't');
    let region = region();
    let mut sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let mut receiver = RingReceiver::attach(region, Deadline::Now).unwrap();
    sender.set_alarm(Arc::default(), bell(one));
    receiver.set_alarm(Arc::default(), bell(other));
    (sender, receiver)
}

#[test]
fn messages_of_a_cache_line_arrive_whatever_they_end_with_and_however_they_are_received() {
    let (mut sender, mut receiver) = pair_without_successors();
    let mut target = [0; INLINE_MESSAGE_BYTES];
    let mut index = 0;
    for round in 0..10 * SLOTS {
        // Among them such as would look like a record of the lap before, of this one, and of the next.
        let last = match round % 8 {
            laps @ 0..3 => last_word(index, u64::from(lap(index) + laps as u32 - 1) << 32),
            3 => round,
            _ => 0,
        };
        let mut message = [round as u8; BARE_BYTES];
        message[INLINE_BYTES..].copy_from_slice(&last.to_le_bytes());
        sender.send(&message).unwrap();
        let slots = sender.records_under_way();
        assert_eq!(slots, if round % 8 < 3 { 2 } else { 1 }, "{round}");
        index += slots;
        target.fill(0xee);
        match round % 3 {
            0 => assert_eq!(receiver.take_short(&mut target, Deadline::Now, || false), Some(BARE_BYTES)),
            1 => assert_eq!(receiver.take_short_into(&mut target, Deadline::Now, || false), Some(BARE_BYTES)),
            _ => assert_eq!(receiver.recv_into(&mut target).unwrap(), Some(BARE_BYTES)),
        }
        assert_eq!(target[..BARE_BYTES], message, "{round}");
        assert_eq!(receiver.take_short(&mut target, Deadline::Now, || false), None, "{round}: it comes once");
    }
}

#[test]
fn a_bare_message_is_news_and_has_the_length_that_a_limit_is_for() {
    let (mut sender, mut receiver) = pair_without_successors();
    assert!(receiver.arm(), "nothing is there");
    for _ in 0..2 * SLOTS {
        sender.send(&[1; BARE_BYTES]).unwrap();
        assert!(!receiver.arm());
        receiver.set_limit_bytes(BARE_BYTES - 1);
        assert_eq!(receiver.take_short(&mut [0; INLINE_MESSAGE_BYTES], Deadline::Now, || false), None);
        let error = receiver.recv_into(&mut [0; BARE_BYTES]).unwrap_err();
        assert!(matches!(error, Error::TooLong { message_bytes: BARE_BYTES, .. }), "{error}");
        receiver.set_limit_bytes(BARE_BYTES);
        sender.send(&[2; BARE_BYTES]).unwrap();
        let error = receiver.recv_into(&mut [0; BARE_BYTES - 1]).unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message_bytes: BARE_BYTES, .. }), "{error}");
        assert_eq!(receiver.recv().unwrap().unwrap(), [2; BARE_BYTES]);
    }
}

/// A receiver of a stream that finds nothing lets some of it gather; one that has sent something, or received few, does not.
#[test]
fn only_what_follows_a_stream_is_let_gather() {
    let (mut sender, mut receiver) = pair_without_successors();
    let mut target = [0; INLINE_MESSAGE_BYTES];
    let soon = || Deadline::after(Duration::from_secs(10));
    for (messages, is_answer, gathers) in [(1, false, false), (2, false, false), (3, false, true), (3, true, false)] {
        for _ in 0..messages {
            sender.put_one(b"stream");
            assert_eq!(receiver.take_short(&mut target, soon(), || unreachable!("it is there")), Some(6));
        }
        assert_eq!(receiver.follows_stream(is_answer), gathers, "after {messages} messages, {is_answer}");
    }
}

#[test]
fn a_second_slot_that_does_not_fit_the_first_is_not_taken() {
    for (number, forge) in [0, 1, 2, 3, 4].into_iter().zip([
        |record: u64| record + 1,
        |record: u64| record | u64::from(FIRST) << 16,
        |record: u64| record | u64::from(BULK) << 16,
        |record: u64| record & !(u64::from(LAST) << 16),
        |record: u64| record ^ 1 << 24,
    ]) {
        let region = region();
        let mut sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
        let mut receiver = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
        sender.send(&[1; 80]).unwrap();
        let ring = Ring::new(Arc::clone(&region), Sizes::of_region(&region).unwrap());
        let second = &ring.slot(1).record;
        second.store(forge(second.load(Ordering::Relaxed)), Ordering::Release);
        let mut target = [0xee; INLINE_MESSAGE_BYTES];
        assert_eq!(receiver.take_short(&mut target, Deadline::Now, || false), None, "{number}");
        assert_eq!(receiver.take_short_into(&mut target, Deadline::Now, || false), None, "{number}");
        assert!(target.iter().all(|&byte| byte == 0xee), "{number}");
        receiver.recv_into(&mut target).unwrap_err();
    }
}

#[test]
fn a_message_that_has_begun_is_taken_by_its_first_record_and_nothing_else_is() {
    let region = region();
    let mut sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let mut receiver = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
    assert!(receiver.begun().is_none());
    for len in [INLINE_MESSAGE_BYTES + 1, 1024, 5000, 3 * PIECE_BYTES] {
        let message: Vec<u8> = (0..len).map(|index| (index * 7 / 4) as u8).collect();
        sender.send(&message).unwrap();
        let begun = receiver.begun().unwrap();
        assert_eq!(begun.bytes(), len);
        let mut target = vec![0; len];
        receiver.take_begun(begun, &mut target, Deadline::Now).unwrap();
        assert_eq!(target, message);
    }
    sender.send(&[1; INLINE_MESSAGE_BYTES]).unwrap();
    assert!(receiver.begun().is_none(), "it stands in slots alone");
    receiver.recv().unwrap();
    receiver.set_limit_bytes(1000);
    sender.send(&[1; 1001]).unwrap();
    assert!(receiver.begun().is_none());
    assert!(matches!(receiver.recv().unwrap_err(), Error::TooLong { .. }));
}

#[test]
fn what_came_of_a_message_that_has_begun_is_kept_when_the_time_is_up() {
    let region = region();
    let mut sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let mut receiver = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let message: Vec<u8> = (0..2 * RING_BYTES).map(|index| (index / 3) as u8).collect();
    sender.send_by(&message, Deadline::Now).unwrap();
    let mut target = vec![0; message.len()];
    let begun = receiver.begun().unwrap();
    assert!(receiver.take_begun(begun, &mut target, Deadline::Now).unwrap_err().is_out_of_time());
    assert!(receiver.begun().is_none(), "it has begun long ago");
    sender.flush_by(Deadline::Now).unwrap_err();
    let sending = std::thread::spawn(move || sender.flush_by(Deadline::Never));
    assert_eq!(receiver.recv_into(&mut target).unwrap(), Some(message.len()));
    sending.join().unwrap().unwrap();
    assert_eq!(target, message);
}

#[test]
fn a_first_record_of_more_bytes_than_its_message_or_a_piece_is_not_taken() {
    for (bytes, total) in [(1024, 1023), (PIECE_BYTES as u64 + 1, u64::MAX), (0xffff, 0xffff)] {
        let region = region();
        let mut sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
        let mut receiver = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
        sender.send(&[1; 1024]).unwrap();
        let ring = Ring::new(Arc::clone(&region), Sizes::of_region(&region).unwrap());
        let slot = ring.slot(0);
        slot.record.store(slot.record.load(Ordering::Relaxed) & !0xffff | bytes, Ordering::Release);
        slot.words[0].store(total, Ordering::Relaxed);
        assert!(receiver.begun().is_none(), "{bytes} of {total}");
        assert!(matches!(receiver.recv().unwrap_err(), Error::Corrupt { .. }), "{bytes} of {total}");
    }
}
