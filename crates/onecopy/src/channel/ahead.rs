//! A sender that goes ahead of its receiver: by the ring, or to [berths](super::berths).
//!
//! Through the ring both sides copy, and what the receiver has copied is in its caches; to a berth the sender copies alone, past the caches,
//! and the receiver finds all in memory. The ring is the faster way where cores are so near to each other that it goes by ordinary stores,
//! and the berths are where it goes past the caches itself. In us, hot messages of two pinned processes back to back, of which the receiver
//! reads one word a page: 64 KiB through the ring 4.8 and to berths 2.9, 256 KiB 17.7 and 10.4 where a cache-line round trip takes 500 ns, cold
//! 5.1 and 4.3, 19 and 15; where it reads all of them 6.6 and 3.3, 21 and 13, cold 5.8 and 4.4, 21 and 16. Where it takes 130, by bare copies,
//! those of hot 64 KiB 1.7 and 2.6, or 2.2 and 3.0, cold 4.4 and 3.2, or 4.5 and 4.7.
//!
//! The sender of the ring finds out which stores are the faster ones, and goes on to measure that. So does one that has berths, by some
//! messages that it puts into the ring now and then.

use std::io::IoSlice;

use super::berths::{Arrived, Berth, STREAM_BYTES, next_berth};
use super::landing::HELPED_MESSAGES;
use super::polling::Half;
use super::registered::{Mapped, Spot, Stores};
use super::sender::ChannelSender;
use super::stats::Path;
use crate::{Deadline, Result};

/// Behind how many records an offer is likely to be taken within the time for which a sender waits for that.
const FEW_RECORDS: u64 = 4;
/// How much goes to berths between two measurements of the ring, which take 8 MiB: each time twice as much, as long as they say the same.
const PAUSE_BYTES: [u64; 2] = [32 << 20, 512 << 20];

/// What a sender knows of berths.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The number of the next one.
    next: u32,
    /// Whether there were any.
    has_berths: bool,
    /// Whether one could not be mapped or written.
    cannot_write: bool,
    /// How much goes to them before the ring is measured again, and the next time.
    left_to_berths: u64,
    pause_bytes: u64,
    /// How much goes through the ring before the receiver is to see that this side may write its memory.
    left_bytes: u64,
    /// How often it has seen that.
    shown: u64,
}

impl Default for Ahead {
    fn default() -> Self {
        let [pause_bytes, _] = PAUSE_BYTES;
        Self {
            next: 0,
            has_berths: false,
            cannot_write: false,
            left_to_berths: 0,
            pause_bytes,
            left_bytes: STREAM_BYTES,
            shown: 0,
        }
    }
}

impl Ahead {
    /// Whether the ring is to be measured again after `bytes` more that went to a berth.
    fn is_ring_due(&mut self, bytes: u64) -> bool {
        if self.left_to_berths > bytes {
            self.left_to_berths -= bytes;
            return false;
        }
        let [_, most] = PAUSE_BYTES;
        self.left_to_berths = self.pause_bytes;
        self.pause_bytes = most.min(2 * self.pause_bytes);
        true
    }
}

impl ChannelSender {
    /// Sends a message that nobody is known to wait for.
    pub(super) fn send_ahead(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        let bytes = message.len();
        if bytes < self.prompt.copy_bytes || bytes >= self.single_copy_bytes || self.ahead.cannot_write {
            return self.send_through_ring(message, deadline);
        }
        let berth = self.next_berth(bytes, deadline)?;
        self.ahead.has_berths |= berth.is_some();
        let is_sent = match (berth, self.ring.goes_past_caches()) {
            (Some(berth), Some(true)) => self.send_to_berth(message, berth, deadline)?,
            (None, _) if !self.ahead.has_berths => self.shows_itself(message, deadline)?,
            (_, Some(false)) => {
                [self.ahead.pause_bytes, _] = PAUSE_BYTES;
                false
            }
            _ => false,
        };
        if is_sent { Ok(()) } else { self.send_through_ring(message, deadline) }
    }

    /// The next berth that is long enough. The receiver is told of those that are passed over.
    fn next_berth(&mut self, bytes: usize, deadline: Deadline) -> Result<Option<Berth>> {
        let mut next = self.ahead.next;
        let berth = next_berth(self.link.desks.outgoing(), &mut next, bytes);
        if next != self.ahead.next {
            if !self.ring.fits(1) {
                return Ok(None);
            }
            let passed = Arrived { number: next.wrapping_sub(1), bytes: 0 };
            self.ring.send_offer(&passed.to_bytes(), deadline)?;
            self.ahead.next = next;
        }
        Ok(berth)
    }

    /// Writes a message to a berth, and says so. False: that cannot be now, and nothing was sent.
    fn send_to_berth(&mut self, message: &[u8], berth: Berth, deadline: Deadline) -> Result<bool> {
        if !self.ring.fits(1) {
            return Ok(false);
        }
        let mapped = self.link.find(Half::Sender, berth.spot, message.len())?.filter(Mapped::is_writable);
        let next = berth.number.wrapping_add(1);
        if mapped.is_none_or(|mapped| mapped.write(0, message, Stores::PastCaches).is_err()) {
            self.ahead.cannot_write = true;
            return Ok(false);
        }
        let arrived = Arrived { number: berth.number, bytes: message.len() as u32 };
        self.ring.send_offer(&arrived.to_bytes(), deadline)?;
        self.ahead.next = next;
        if self.ahead.is_ring_due(message.len() as u64) {
            self.ring.measure_stores();
        }
        self.link.counters.count_sent(Path::SingleCopy, message.len());
        Ok(true)
    }

    /// Sends a message of a long stream as one that is waited for, so that the receiver sees that this side may write its memory. False: it
    /// was not sent.
    fn shows_itself(&mut self, message: &[u8], deadline: Deadline) -> Result<bool> {
        let ahead = &mut self.ahead;
        ahead.left_bytes = ahead.left_bytes.saturating_sub(message.len() as u64);
        let is_time = ahead.left_bytes == 0 && ahead.shown < HELPED_MESSAGES && deadline != Deadline::Now;
        if !is_time || !self.may_prompt() || self.ring.records_under_way() > FEW_RECORDS {
            return Ok(false);
        }
        let was_sent = self.send_promptly(&[IoSlice::new(message)], Spot::NOWHERE, message.len(), deadline)?;
        match was_sent {
            true => self.ahead.shown += 1,
            false => self.ahead.left_bytes = STREAM_BYTES,
        }
        Ok(was_sent)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::{Channel, Error, Receiver as _, Sender as _};

    const BYTES: usize = 200_000;

    #[test]
    fn the_ring_is_measured_after_the_first_message_and_then_less_and_less_often() {
        let mut ahead = Ahead::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            pauses.push((0..).take_while(|_| !ahead.is_ring_due(1 << 20)).count());
        }
        assert_eq!(pauses, [0, 31, 63, 127, 255, 511, 511]);
    }

    /// Two sides of which the one has named berths, and the other one uses them.
    fn with_berths() -> (Channel, Channel) {
        let (parent, end) = Channel::pair().unwrap();
        let (mut sender, mut receiver) = std::thread::scope(|scope| {
            let child = scope.spawn(|| Channel::adopt_by(end.as_raw_fd(), Deadline::Never).unwrap());
            let parent = parent.accept_by(Deadline::Never).unwrap();
            (parent, child.join().unwrap())
        });
        sender.sender.ring.pin_past_caches();
        sender.sender.ahead.left_to_berths = u64::MAX;
        receiver.receiver.see_stream(HELPED_MESSAGES, STREAM_BYTES);
        sender.send(&[0; BYTES]).unwrap();
        assert_eq!(receiver.recv().unwrap().as_deref(), Some(&[0; BYTES][..]));
        (sender, receiver)
    }

    fn in_berths(channel: &Channel) -> u64 {
        channel.stats().sent(Path::SingleCopy).messages
    }

    /// Other tests of this process fork at any time, and then there is no berth for a while.
    fn until(mut done: impl FnMut() -> bool) {
        assert!((0..1000).any(|_| done()));
    }

    #[test]
    fn a_sender_goes_ahead_in_order_and_without_waiting() {
        let (mut sender, mut receiver) = with_berths();
        until(|| {
            let before = in_berths(&sender);
            for number in 0..4 {
                sender.sender.send_by(&[number; BYTES], Deadline::Now).unwrap();
                sender.send(&[number]).unwrap();
            }
            for number in 0..4 {
                assert_eq!(receiver.recv().unwrap().as_deref(), Some(&[number; BYTES][..]));
                assert_eq!(receiver.recv().unwrap().as_deref(), Some(&[number][..]));
            }
            in_berths(&sender) == before + 4
        });
    }

    #[test]
    fn longer_messages_get_longer_berths_and_none_is_lost_that_is_kept() {
        let (mut sender, mut receiver) = with_berths();
        let mut kept = Vec::new();
        for (number, bytes) in (0..).zip([70_000, 200_000, 500_000, 524_287, 65_536]) {
            until(|| {
                let before = in_berths(&sender);
                sender.send(&vec![number; bytes]).unwrap();
                kept.push((number, bytes, receiver.recv().unwrap().unwrap()));
                in_berths(&sender) > before
            });
        }
        for (number, bytes, message) in kept {
            assert!(message[..] == vec![number; bytes], "message {number}");
        }
    }

    #[test]
    fn what_came_to_a_berth_is_received_into_memory_of_the_caller_that_is_long_enough() {
        let (mut sender, mut receiver) = with_berths();
        let mut buffer = vec![0; BYTES];
        until(|| {
            let before = in_berths(&sender);
            sender.send(&[7; BYTES]).unwrap();
            let error = receiver.recv_into(&mut buffer[1..]).unwrap_err();
            assert!(matches!(error, Error::BufferTooSmall { message_bytes: BYTES, .. }), "{error}");
            assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(BYTES));
            assert_eq!(std::mem::replace(&mut buffer, vec![0; BYTES]), [7; BYTES]);
            // So that there are more.
            sender.send(&[8; BYTES]).unwrap();
            drop(receiver.recv().unwrap());
            in_berths(&sender) > before
        });
    }

    #[test]
    fn a_message_that_is_too_long_is_thrown_away_and_one_in_no_berth_is_an_error() {
        let (mut sender, mut receiver) = with_berths();
        receiver.receiver.set_limit_bytes(BYTES - 1);
        sender.send(&[1; BYTES]).unwrap();
        let error = receiver.recv().unwrap_err();
        assert!(matches!(error, Error::TooLong { message_bytes: BYTES, .. }), "{error}");
        let next = sender.sender.ahead.next;
        for arrived in [Arrived { number: next + 1000, bytes: 1 }, Arrived { number: next, bytes: u32::MAX }] {
            sender.sender.ring.send_offer(&arrived.to_bytes(), Deadline::Now).unwrap();
            let error = receiver.receiver.recv_into_by(&mut [0; 8], Deadline::Now);
            assert!(error.is_err(), "{arrived:?}");
        }
        sender.send(b"next").unwrap();
        until(|| receiver.recv().is_ok_and(|message| message.as_deref() == Some(b"next")));
    }
}
