//! A ring in memory of a model, and what it must hold: every message once, whole and in order, nobody sleeps for ever, and no piece
//! is written while it is read.
//!
//! # Safety
//!
//! The bulk stands in cells that tell loom of each access: it fails the model when two overlap of which one writes.
#![expect(unsafe_code, reason = "reaches the cells of a model")]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;

use super::layout::{Header, SLOTS, Sizes, Slot, whole_lines};
use super::{RingReceiver, RingSender};
use crate::memory::Region;
use crate::process::{Identity, Watch};
use crate::{Deadline, Receiver, Sender, WaitStrategy};

const LINE_BYTES: usize = 64;
/// Room for two pieces.
const SIZES: Sizes = Sizes { bulk_bytes: 2 * PIECE_BYTES as u64, piece_bytes: PIECE_BYTES };
const PIECE_BYTES: usize = 2 * LINE_BYTES;

/// The memory of a ring, of which loom follows every word, and each line of the bulk as a whole.
struct Memory {
    header: Header,
    slots: [Slot; SLOTS as usize],
    bulk: Vec<Line>,
}

/// A line of the bulk.
struct Line(UnsafeCell<[u8; LINE_BYTES]>);

// SAFETY: loom fails a model in which two threads use it at the same time and one of them writes.
unsafe impl Sync for Line {}

#[derive(Clone)]
pub(super) struct Ring {
    memory: Arc<Memory>,
    pub(super) sizes: Sizes,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    pub(super) fn new(_: Arc<Region>, sizes: Sizes) -> Self {
        Self::of(sizes)
    }

    fn of(sizes: Sizes) -> Self {
        let bulk =
            (0..sizes.bulk_bytes as usize / LINE_BYTES).map(|_| Line(UnsafeCell::new([0; LINE_BYTES]))).collect();
        Self { memory: Arc::new(Memory { header: Header::default(), slots: Default::default(), bulk }), sizes }
    }

    pub(super) fn object(&self) -> &str {
        "the ring of a model"
    }

    pub(super) fn header(&self) -> &Header {
        &self.memory.header
    }

    pub(super) fn slot(&self, index: u64) -> &Slot {
        &self.memory.slots[(index % SLOTS) as usize]
    }

    pub(super) fn put_bulk(&self, position: u64, bytes: &[u8]) {
        for (line, part) in self.lines(position, bytes.len()).iter().zip(bytes.chunks(LINE_BYTES)) {
            // SAFETY: loom fails the model when another thread reads or writes the line meanwhile.
            line.0.with_mut(|line| unsafe { &mut *line }[..part.len()].copy_from_slice(part));
        }
    }

    pub(super) fn take_bulk(&self, position: u64, bytes: &mut [u8]) {
        for (line, part) in self.lines(position, bytes.len()).iter().zip(bytes.chunks_mut(LINE_BYTES)) {
            let len = part.len();
            // SAFETY: loom fails the model when another thread writes the line meanwhile.
            line.0.with(|line| part.copy_from_slice(&unsafe { &*line }[..len]));
        }
    }

    fn lines(&self, position: u64, len: usize) -> &[Line] {
        let first = (position % self.sizes.bulk_bytes) as usize / LINE_BYTES;
        &self.memory.bulk[first..][..whole_lines(len) as usize / LINE_BYTES]
    }
}

fn pair() -> (RingSender, RingReceiver) {
    let ring = Ring::of(SIZES);
    let watch = || Watch::new(Identity::current().unwrap());
    let mut sender = RingSender::of(ring.clone(), watch()).unwrap();
    let mut receiver = RingReceiver::of(ring, watch()).unwrap();
    sender.set_wait_strategy(WaitStrategy::Block);
    receiver.set_wait_strategy(WaitStrategy::Block);
    (sender, receiver)
}

/// Every order of the steps of a sender of messages of these lengths and of their receiver, with up to `switches` changes between
/// the two that are not for want of anything to do.
fn check(lengths: &'static [usize], switches: usize) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(move || {
        let (mut sender, mut receiver) = pair();
        let receiving = thread::spawn(move || {
            let mut buffer = [0; 1024];
            for (number, &length) in (1..).zip(lengths) {
                let received = receiver.recv_into_by(&mut buffer, Deadline::Never).unwrap();
                assert_eq!(received, Some(length));
                assert!(buffer[..length].iter().all(|&byte| byte == number), "message {number}");
            }
            assert_eq!(receiver.recv_into_by(&mut buffer, Deadline::Never).unwrap(), None);
        });
        for (number, &length) in (1..).zip(lengths) {
            sender.send_by(&vec![number; length], Deadline::Never).unwrap();
        }
        drop(sender);
        receiving.join().unwrap();
    });
}

#[test]
fn loom_short_messages_arrive_in_order_and_wake_who_sleeps() {
    check(&[8, 8, 8, 8, 8], 2);
}
