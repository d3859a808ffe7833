//! Fragments over a mechanism in memory that loses, reorders and mixes on request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;

use super::aside::KEPT_BYTES;
use super::*;
use crate::process::Origin;
use crate::{Deadline, Error, Receiver, Result, Sender};

/// One end of a queue of messages. Never waits: a full or an empty queue is out of time at once.
#[derive(Clone, Debug)]
struct Fake {
    messages: Rc<RefCell<VecDeque<Vec<u8>>>>,
    capacity: usize,
    limit_bytes: usize,
}

impl Fake {
    fn new(limit_bytes: usize) -> Self {
        Self { messages: Rc::default(), capacity: usize::MAX, limit_bytes }
    }

    fn sender(&self) -> FragmentSender<Self> {
        FragmentSender::new(self.clone())
    }

    fn receiver(&self) -> FragmentReceiver<Self> {
        FragmentReceiver::new(self.clone())
    }

    fn lose(&self, index: usize) -> Vec<u8> {
        self.messages.borrow_mut().remove(index).unwrap()
    }

    fn put(&self, index: usize, message: Vec<u8>) {
        self.messages.borrow_mut().insert(index, message);
    }

    fn len(&self) -> usize {
        self.messages.borrow().len()
    }
}

impl Sender for Fake {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        assert!(message.len() <= self.limit_bytes);
        if self.len() >= self.capacity {
            return Err(Error::out_of_time("send", "fake", deadline));
        }
        self.messages.borrow_mut().push_back(message.to_vec());
        Ok(())
    }

    fn limit_bytes(&self) -> Option<usize> {
        Some(self.limit_bytes)
    }

    fn object(&self) -> &str {
        "fake"
    }
}

impl Receiver for Fake {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let Some(message) = self.messages.borrow_mut().pop_front() else {
            return Err(Error::out_of_time("receive", "fake", deadline));
        };
        let (message_bytes, buffer_bytes) = (message.len(), buffer.len());
        if message_bytes > buffer_bytes {
            self.put(0, message);
            return Err(Error::BufferTooSmall { object: "fake".into(), message_bytes, buffer_bytes });
        }
        buffer[..message_bytes].copy_from_slice(&message);
        Ok(Some(message_bytes))
    }

    fn usual_bytes(&self) -> usize {
        1
    }

    fn object(&self) -> &str {
        "fake"
    }
}

/// Seven bytes a fragment.
const LIMIT: usize = HEADER_BYTES + 7;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn detail(error: &Error) -> String {
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    error.to_string()
}

#[test]
fn messages_of_all_sizes_come_whole_and_then_the_end() {
    let fake = Fake::new(LIMIT);
    let mut sender = fake.sender();
    let mut receiver = fake.receiver();
    for len in 0..50 {
        sender.send(&pattern(len)).unwrap();
        assert_eq!(fake.len(), len.div_ceil(7).max(1));
        assert_eq!(receiver.recv().unwrap().unwrap(), pattern(len));
    }
    sender.finish_by(Deadline::Now).unwrap();
    assert_eq!(receiver.recv().unwrap(), None);
    assert!(receiver.recv_by(Deadline::Now).unwrap_err().is_out_of_time(), "the end is told once");
    sender.send(b"after the end").unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), b"after the end");
}

#[test]
fn a_limit_without_room_for_a_byte_is_refused() {
    let error = Fake::new(HEADER_BYTES).sender().send(b"x").unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("64 bytes"), "{error}");
    let small = Fake::new(LIMIT).sender().with_fragment_bytes(HEADER_BYTES + 1);
    assert_eq!(small.payload_bytes().unwrap(), 1);
}

#[test]
fn a_short_buffer_leaves_the_message_first_in_line() {
    let fake = Fake::new(LIMIT);
    fake.sender().send(&pattern(30)).unwrap();
    let mut receiver = fake.receiver();
    for size in [0, 1, 7, 14, 29] {
        let error = receiver.try_recv_into(&mut vec![0; size]).unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message_bytes: 30, .. }), "{error}");
    }
    let mut buffer = [0; 30];
    assert_eq!(receiver.try_recv_into(&mut buffer).unwrap(), Some(30));
    assert_eq!(buffer[..], pattern(30));
}

#[test]
fn parts_join_and_a_receiver_may_take_them_piece_by_piece() {
    let fake = Fake::new(LIMIT);
    let mut sender = fake.sender();
    for (part, last) in [(&b"one "[..], false), (b"", false), (b"two, and more than a fragment", false), (b"", true)] {
        sender.send_part_by(part, last, Deadline::Now).unwrap();
    }
    assert!(matches!(fake.sender().finish_by(Deadline::Now), Ok(())));
    let mut receiver = fake.receiver();
    let mut whole = Vec::new();
    let mut piece = [0; 3];
    loop {
        let part = receiver.recv_part_by(&mut piece, Deadline::Now).unwrap().unwrap();
        whole.extend_from_slice(&piece[..part.bytes]);
        if part.last {
            break;
        }
    }
    assert_eq!(whole, b"one two, and more than a fragment");
}

#[test]
fn an_end_in_the_middle_of_a_message_is_refused() {
    let mut sender = Fake::new(LIMIT).sender();
    sender.send_part_by(b"begin", false, Deadline::Now).unwrap();
    assert!(matches!(sender.finish_by(Deadline::Now), Err(Error::Invalid { .. })));
}

#[test]
fn a_message_that_is_taken_in_part_is_accepted_and_flushed_later() {
    let fake = Fake { capacity: 2, ..Fake::new(LIMIT) };
    let mut sender = fake.sender();
    let mut receiver = fake.receiver();
    sender.try_send(&pattern(40)).unwrap();
    assert!(sender.try_send(b"next").unwrap_err().is_out_of_time());
    let mut buffer = [0; 40];
    while sender.flush_by(Deadline::Now).is_err() {
        assert!(receiver.try_recv_into(&mut buffer).unwrap_err().is_out_of_time(), "out of time keeps what came");
    }
    assert_eq!(receiver.try_recv_into(&mut buffer).unwrap(), Some(40));
    assert_eq!(buffer[..], pattern(40));
    sender.try_send(b"next").unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), b"next");
}

#[test]
fn pieces_after_a_wait_in_vain_begin_with_what_was_kept() {
    let fake = Fake::new(LIMIT);
    let mut sender = fake.sender();
    let mut receiver = fake.receiver();
    sender.send_part_by(&pattern(21)[..14], false, Deadline::Now).unwrap();
    assert!(receiver.try_recv_into(&mut [0; 64]).unwrap_err().is_out_of_time());
    sender.send_part_by(&pattern(21)[14..], true, Deadline::Now).unwrap();
    let mut buffer = [0; 10];
    let mut whole = Vec::new();
    for (bytes, last) in [(10, false), (4, false), (7, true)] {
        assert_eq!(receiver.recv_part_by(&mut buffer, Deadline::Now).unwrap(), Some(Part { bytes, last }));
        whole.extend_from_slice(&buffer[..bytes]);
    }
    assert_eq!(whole, pattern(21));
}

#[test]
fn senders_that_interleave_do_not_mix() {
    let fake = Fake::new(LIMIT);
    let mut senders = [fake.sender(), fake.sender(), fake.sender()];
    for round in 0..4 {
        for (which, sender) in senders.iter_mut().enumerate() {
            sender.send_part_by(&[which as u8; 10], round == 3, Deadline::Now).unwrap();
            sender.flush_by(Deadline::Now).unwrap();
        }
    }
    for sender in &mut senders {
        sender.finish_by(Deadline::Now).unwrap();
    }
    let mut receiver = fake.receiver();
    for which in 0..3 {
        assert_eq!(receiver.recv().unwrap().unwrap(), [which; 40]);
    }
    for _ in 0..3 {
        assert_eq!(receiver.recv().unwrap(), None, "each sender's end is told");
    }
}

#[test]
fn a_lost_fragment_is_named_and_the_next_message_comes() {
    for lost in 0..5 {
        let fake = Fake::new(LIMIT);
        let mut sender = fake.sender();
        sender.send(&pattern(35)).unwrap();
        sender.send(b"next").unwrap();
        fake.lose(lost);
        let mut receiver = fake.receiver();
        let text = detail(&receiver.recv().unwrap_err());
        assert_eq!(receiver.has_passed_over(), lost == 0, "its begin alone");
        assert!(!receiver.has_passed_over(), "told once");
        let missing = match lost {
            0 => "its first 7 bytes".to_owned(),
            4 => "all bytes from 28 on".to_owned(),
            _ => format!("bytes {} to {}", lost * 7, lost * 7 + 6),
        };
        assert!(text.contains(&missing) && text.contains("message 0"), "{text}");
        assert_eq!(receiver.recv().unwrap().unwrap(), b"next");
        assert_eq!(fake.len(), 0);
    }
}

#[test]
fn lost_messages_are_counted_and_the_end_still_comes() {
    let fake = Fake::new(LIMIT);
    let mut sender = fake.sender();
    for text in [b"zero", b"one1", b"two2", b"thre"] {
        sender.send(text).unwrap();
    }
    sender.finish_by(Deadline::Now).unwrap();
    fake.lose(3);
    fake.lose(1);
    let mut receiver = fake.receiver();
    assert_eq!(receiver.recv().unwrap().unwrap(), b"zero");
    assert!(detail(&receiver.recv().unwrap_err()).contains("1 messages"));
    assert_eq!(receiver.recv().unwrap().unwrap(), b"two2");
    assert!(detail(&receiver.recv().unwrap_err()).contains("1 messages"));
    assert_eq!(receiver.recv().unwrap(), None);
}

#[test]
fn reordered_fragments_are_a_loss_and_duplicates_are_nothing() {
    let fake = Fake::new(LIMIT);
    let mut sender = fake.sender();
    sender.send(&pattern(35)).unwrap();
    sender.send(&pattern(20)).unwrap();
    let late = fake.lose(2);
    fake.put(3, late);
    let twice = fake.messages.borrow()[5].clone();
    fake.put(7, twice);
    let mut receiver = fake.receiver();
    assert!(detail(&receiver.recv().unwrap_err()).contains("bytes 14 to 20"));
    assert_eq!(receiver.recv().unwrap().unwrap(), pattern(20));
    assert!(receiver.recv_by(Deadline::Now).unwrap_err().is_out_of_time());
}

#[test]
fn garbage_is_reported_and_harms_no_message() {
    let fake = Fake::new(LIMIT);
    fake.sender().send(&pattern(20)).unwrap();
    fake.put(2, vec![0xaa; LIMIT]);
    fake.put(1, b"short".to_vec());
    let mut changed = fake.messages.borrow()[0].clone();
    changed[20] ^= 1;
    fake.put(0, changed);
    let mut receiver = fake.receiver();
    let mut buffer = [0; 20];
    assert!(detail(&receiver.try_recv_into(&mut buffer).unwrap_err()).contains("header was changed"));
    assert!(detail(&receiver.try_recv_into(&mut buffer).unwrap_err()).contains("5 bytes"));
    assert!(detail(&receiver.try_recv_into(&mut buffer).unwrap_err()).contains("no fragment"));
    assert_eq!(receiver.try_recv_into(&mut buffer).unwrap(), Some(20));
    assert_eq!(buffer[..], pattern(20));
}

#[test]
fn a_message_beyond_the_limit_is_thrown_away_and_the_next_one_comes() {
    let fake = Fake::new(LIMIT);
    let mut sender = fake.sender();
    for len in [101, 100] {
        sender.send(&pattern(len)).unwrap();
    }
    let mut receiver = fake.receiver();
    receiver.set_limit_bytes(100);
    let error = receiver.recv().unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes: 101, limit_bytes: 100, .. }), "{error}");
    assert_eq!(receiver.recv().unwrap().unwrap(), pattern(100));
    sender.send(&pattern(101)).unwrap();
    let error = receiver.try_recv_into(&mut [0; 200]).unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes: 101, .. }), "{error}");
}

#[test]
fn a_watch_that_fails_ends_the_send_and_the_message() {
    let fake = Fake { capacity: 3, ..Fake::new(LIMIT) };
    let mut looks = 0;
    let mut sender = fake.sender().with_watch(move |fake: &mut Fake| {
        looks += 1;
        let object = Sender::object(fake).to_owned();
        if looks < 3 { Ok(()) } else { Err(Error::PeerGone { object, detail: "the test says so".into() }) }
    });
    let error = sender.send(&pattern(40)).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
    fake.messages.borrow_mut().clear();
    // For another receiver the sender begins anew.
    sender.send(b"next").unwrap();
    assert_eq!(fake.receiver().recv().unwrap().unwrap(), b"next");
}

#[test]
fn a_sender_that_lives_is_waited_for() {
    let fake = Fake::new(LIMIT);
    fake.sender().send_part_by(b"begin", false, Deadline::Now).unwrap();
    let mut receiver = fake.receiver();
    let error = receiver.recv_by(Deadline::after(Duration::from_millis(450))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

/// Fragments of a mebibyte, more than may be kept aside.
fn flood(fake: &Fake) -> Vec<u8> {
    let message = pattern(1 << 20).repeat(KEPT_BYTES / (1 << 20) + 4);
    fake.sender().send(&message).unwrap();
    message
}

#[test]
fn too_much_of_another_sender_is_an_error_and_the_own_message_comes() {
    let fake = Fake::new(1 << 20);
    let mut slow = fake.sender();
    slow.send_part_by(b"slow ", false, Deadline::Now).unwrap();
    flood(&fake);
    slow.send_part_by(b"but whole", true, Deadline::Now).unwrap();
    let mut receiver = fake.receiver();
    let mut errors = 0;
    let message = loop {
        match receiver.recv_by(Deadline::Now) {
            Ok(message) => break message.unwrap(),
            Err(error) => {
                assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("67108864"), "{error}");
                errors += 1;
            }
        }
    };
    assert_eq!(message, b"slow but whole");
    assert!(errors >= 4, "each fragment that was thrown away is reported");
}

#[test]
fn what_a_dead_sender_left_holds_nobody_up() {
    let fake = Fake::new(1 << 20);
    let mut dead = fake.sender();
    dead.set_origin(Origin { pid: 1 << 22, start_ticks: 1, place: Origin::here() });
    dead.send_part_by(b"begin", false, Deadline::Now).unwrap();
    let message = flood(&fake);
    let mut receiver = fake.receiver();
    let error = receiver.recv().unwrap_err();
    assert!(error.is_peer_gone() && error.to_string().contains("after 5 bytes"), "{error}");
    assert!(receiver.recv().unwrap().unwrap() == message);
}

#[test]
fn a_dead_sender_is_noticed_by_one_who_never_waits() {
    let fake = Fake::new(LIMIT);
    let mut dead = fake.sender();
    dead.set_origin(Origin { pid: 1 << 22, start_ticks: 1, place: Origin::here() });
    dead.send_part_by(b"begin", false, Deadline::Now).unwrap();
    let mut receiver = fake.receiver();
    let error = loop {
        match receiver.recv_by(Deadline::Now).unwrap_err() {
            error if error.is_out_of_time() => std::thread::sleep(Duration::from_millis(5)),
            error => break error,
        }
    };
    assert!(error.is_peer_gone(), "{error}");
}

proptest! {
    /// Whatever is lost: each message that comes is one that was sent, in order, and the last whole one comes.
    #[test]
    fn loss_never_makes_a_wrong_message(
        lens in prop::collection::vec(0usize..40, 1..8),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let fake = Fake::new(LIMIT);
        let mut sender = fake.sender();
        for (number, len) in lens.iter().enumerate() {
            sender.send(&[&[number as u8][..], &pattern(*len)].concat()).unwrap();
        }
        for index in lost {
            if fake.len() > 0 {
                fake.lose(index.index(fake.len()));
            }
        }
        sender.send(b"!last").unwrap();
        let mut receiver = fake.receiver();
        let mut expected = 0;
        loop {
            match receiver.recv_by(Deadline::Now) {
                Ok(Some(message)) if message == b"!last" => break,
                Ok(Some(message)) => {
                    let number = usize::from(message[0]);
                    prop_assert!(number >= expected);
                    prop_assert_eq!(&message[1..], &pattern(lens[number])[..]);
                    expected = number + 1;
                }
                Ok(None) => prop_assert!(false, "no end was sent"),
                Err(error) => prop_assert!(matches!(error, Error::Corrupt { .. }), "{}", error),
            }
        }
        prop_assert_eq!(fake.len(), 0);
    }
}

/// A mechanism that always has the same message.
struct Endless(Vec<u8>);

impl Receiver for Endless {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        buffer[..self.0.len()].copy_from_slice(&self.0);
        Ok(Some(self.0.len()))
    }
}

#[test]
fn duplicates_without_end_do_not_outlast_the_deadline() {
    let fake = Fake::new(200);
    fake.sender().send(b"once").unwrap();
    let mut receiver = FragmentReceiver::new(Endless(fake.lose(0)));
    assert_eq!(receiver.recv().unwrap().unwrap(), b"once");
    for deadline in [Deadline::Now, Deadline::after(Duration::from_millis(10))] {
        assert!(receiver.recv_by(deadline).unwrap_err().is_out_of_time());
    }
}
