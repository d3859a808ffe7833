//! A ring in memory of a model, and what it must hold: every message once, whole and in order, nobody sleeps for ever, and no piece
//! is written while it is read.
//!
//! # Safety
//!
//! The bulk stands in cells that tell loom of each access: it fails the model when two overlap of which one writes.
#![expect(unsafe_code, reason = "reaches the cells of a model")]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use super::layout::{Header, SLOTS, Sizes, Slot, whole_lines};
use super::{RingReceiver, RingSender};
use crate::io::socket::Socket;
use crate::memory::Region;
use crate::memory::bell::Bell;
use crate::memory::wait::Alarm;
use crate::process::{Identity, Watch};
use crate::{Deadline, Receiver, Result, Sender, WaitStrategy};

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

    pub(super) fn is_on_disk(&self) -> bool {
        false
    }

    pub(super) fn warm(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
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

    pub(super) fn put_bulk_past_caches(&self, position: u64, bytes: &[u8]) {
        self.put_bulk(position, bytes);
    }

    pub(super) fn take_bulk(&self, position: u64, bytes: &mut [u8], _: bool) {
        for (line, part) in self.lines(position, bytes.len()).iter().zip(bytes.chunks_mut(LINE_BYTES)) {
            let len = part.len();
            // SAFETY: loom fails the model when another thread writes the line meanwhile.
            line.0.with(|line| part.copy_from_slice(&unsafe { &*line }[..len]));
        }
    }

    pub(super) fn prefetch_bulk(&self, _: u64, _: usize) {}

    pub(super) fn prefetch_bulk_to_write(&self, _: u64, _: usize) {}

    fn lines(&self, position: u64, len: usize) -> &[Line] {
        let first = (position % self.sizes.bulk_bytes) as usize / LINE_BYTES;
        &self.memory.bulk[first..][..whole_lines(len) as usize / LINE_BYTES]
    }
}

/// The two ends of a ring.
pub(crate) fn pair() -> (RingSender, RingReceiver) {
    let ring = Ring::of(SIZES);
    let watch = || Watch::new(Identity::current().unwrap());
    let mut sender = RingSender::of(ring.clone(), None, watch()).unwrap();
    let mut receiver = RingReceiver::of(ring, None, watch()).unwrap();
    sender.set_wait_strategy(WaitStrategy::Block);
    receiver.set_wait_strategy(WaitStrategy::Block);
    (sender, receiver)
}

/// Every order of what the threads of `model` do, with up to `switches` changes between them that are not for want of anything to do.
fn check(switches: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}

/// Receives messages number 1 and so on, of these lengths.
fn receive(receiver: &mut RingReceiver, lengths: &[usize]) {
    let mut buffer = [0; 1024];
    for (number, &length) in (1..).zip(lengths) {
        let received = receiver.recv_into_by(&mut buffer, Deadline::Never).unwrap();
        assert_eq!(received, Some(length));
        assert!(buffer[..length].iter().all(|&byte| byte == number), "message {number}");
    }
}

/// Messages of these lengths. Nothing wakes the receiver but they: the sender closes when all were received.
fn transfer(lengths: &'static [usize]) {
    transfer_between(pair(), lengths);
}

fn transfer_between((mut sender, mut receiver): (RingSender, RingReceiver), lengths: &'static [usize]) {
    let receiving = thread::spawn(move || {
        receive(&mut receiver, lengths);
        receiver
    });
    for (number, &length) in (1..).zip(lengths) {
        sender.send_by(&vec![number; length], Deadline::Never).unwrap();
    }
    drop(receiving.join().unwrap());
}

#[test]
fn loom_messages_of_one_line_arrive_in_order_and_wake_who_sleeps() {
    check(3, || transfer(&[8, 8, 8]));
}

#[test]
fn loom_messages_of_two_lines_arrive_whole() {
    check(2, || transfer(&[60, 104, 57]));
}

#[test]
fn loom_messages_of_a_whole_line_arrive_in_order_where_records_and_others_of_them_stood() {
    check(2, || {
        let (mut sender, mut receiver) = pair();
        let ((one, _other), (two, _another)) = (bell(), bell());
        sender.set_alarm(Arc::default(), one);
        receiver.set_alarm(Arc::default(), two);
        transfer_between((sender, receiver), &[64, 8, 64, 64]);
    });
}

#[test]
fn loom_messages_in_pieces_arrive_whole_and_no_piece_is_written_while_it_is_read() {
    // More than the bulk has room for, so it comes round.
    check(2, || transfer(&[3 * PIECE_BYTES]));
}

#[test]
fn loom_messages_of_one_piece_lie_where_one_was_that_the_receiver_has_taken() {
    // The second and the third begin the bulk anew where the receiver is done with those before.
    check(2, || transfer(&[PIECE_BYTES, PIECE_BYTES, 2 * LINE_BYTES - 1]));
}

#[test]
fn loom_an_end_is_told_after_what_was_sent() {
    check(3, || {
        let (mut sender, mut receiver) = pair();
        let receiving = thread::spawn(move || {
            receive(&mut receiver, &[8, 60]);
            assert_eq!(receiver.recv_into_by(&mut [0; 8], Deadline::Never).unwrap(), None);
        });
        sender.send_by(&[1; 8], Deadline::Never).unwrap();
        sender.send_by(&[2; 60], Deadline::Never).unwrap();
        drop(sender);
        receiving.join().unwrap();
    });
}

#[test]
fn loom_a_receiver_that_closes_ends_a_sender_that_waits_for_room() {
    check(3, || {
        let (mut sender, receiver) = pair();
        let closing = thread::spawn(move || drop(receiver));
        let sent = (0..3).map(|_| sender.send_by(&[1; 8], Deadline::Never));
        assert!(sent.last().unwrap().unwrap_err().is_peer_gone());
        closing.join().unwrap();
    });
}

/// A bell, and where one hears it.
fn bell() -> (Bell, OwnedFd) {
    let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    (Bell::new(Arc::new(Socket::new(own, "the socket of a model")), b'm'), other)
}

#[test]
fn loom_a_receiver_that_arms_finds_the_message_or_hears_the_bell() {
    check(4, || {
        let (mut sender, mut receiver) = pair();
        let (bell, ear) = bell();
        sender.set_alarm(Arc::default(), bell);
        let arming = thread::spawn(move || (receiver.arm(), receiver));
        sender.send_by(&[1; 8], Deadline::Never).unwrap();
        let (armed, mut receiver) = arming.join().unwrap();
        let is_told = recv(&ear, &mut [0; 1], RecvFlags::DONTWAIT).is_ok();
        assert!(is_told || !armed);
        receive(&mut receiver, &[8]);
    });
}

#[test]
fn loom_the_alarm_of_a_dead_sender_is_told_after_what_it_had_sent() {
    check(3, || {
        let (mut sender, mut receiver) = pair();
        let (alarm, (bell, _)) = (Arc::<Alarm>::default(), bell());
        receiver.set_alarm(Arc::clone(&alarm), bell);
        let receiving = thread::spawn(move || {
            receive(&mut receiver, &[8]);
            assert!(receiver.recv_into_by(&mut [0; 8], Deadline::Never).unwrap_err().is_peer_gone());
        });
        sender.send_by(&[1; 8], Deadline::Never).unwrap();
        alarm.set();
        receiving.join().unwrap();
        drop(sender);
    });
}
