//! A sender that goes ahead of its receiver: by the ring, or to [berths](super::berths).
//!
//! Through the ring both sides copy, and what the receiver has copied is in its caches; to a berth the sender copies alone, past the caches,
//! and the receiver finds all in memory. The ring is the faster way where cores are so near to each other that it goes by ordinary stores,
//! and the berths are where it goes past the caches itself. In us, hot messages of two pinned processes back to back, of which the receiver
//! reads one word a page: 64 KiB through the ring 4.8 and to berths 2.9, 256 KiB 17.7 and 10.4 where a cache-line round trip takes 500 ns, cold
//! 5.1 and 4.3, 19 and 15; where it reads all of them 6.6 and 3.3, 21 and 13, cold 5.8 and 4.4, 21 and 16. Where it takes 130, by bare copies,
//! those of hot 64 KiB 1.7 and 2.6, or 2.2 and 3.0, cold 4.4 and 3.2, or 4.5 and 4.7.
//!
//! The sender of the ring finds out which stores are the faster ones, and measures that again and again. What goes to berths counts as if it
//! had gone past the caches through the ring, so that this goes on.

use std::io::IoSlice;

use super::berths::{Arrived, BERTH_BYTES, STREAM_BYTES, room_for};
use super::landing::HELPED_MESSAGES;
use super::polling::Half;
use super::registered::{Mapped, Spot, Stores};
use super::sender::ChannelSender;
use super::stats::Path;
use crate::{Deadline, Result};

/// Behind how many records an offer is likely to be taken within the time for which a sender waits for that.
const FEW_RECORDS: u64 = 4;

/// What a sender knows of berths.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The number of the one to which it goes, or went, that one, and how much of it is used.
    number: u64,
    berth: Option<Mapped>,
    used: usize,
    /// Whether one could not be mapped or written.
    cannot_write: bool,
    /// How much of a stream has gone through the ring for want of one, since this side asked for more.
    stream_bytes: u64,
    /// How often the receiver has seen that this side may write its memory.
    shown: u64,
}

impl ChannelSender {
    /// Sends a message that nobody is known to wait for.
    pub(super) fn send_ahead(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        let may = (self.prompt.copy_bytes..self.single_copy_bytes).contains(&message.len())
            && self.ring.goes_past_caches()
            && !self.ahead.cannot_write;
        if may && (self.send_to_berth(message, deadline)? || self.asks_for_berths(message, deadline)?) {
            return Ok(());
        }
        self.send_through_ring(message, deadline)
    }

    /// Writes a message to a berth, and says so. False: that cannot be now, and nothing was sent.
    fn send_to_berth(&mut self, message: &[u8], deadline: Deadline) -> Result<bool> {
        let room = room_for(message.len());
        if !self.ring.fits(1) || !self.has_berth(room)? {
            return Ok(false);
        }
        let Some(berth) = &self.ahead.berth else { return Ok(false) };
        if berth.write(self.ahead.used, message, Stores::PastCaches).is_err() {
            self.ahead.cannot_write = true;
            return Ok(false);
        }
        let arrived = Arrived { berth: self.ahead.number, bytes: message.len() };
        self.ring.send_offer(&arrived.to_bytes(), deadline)?;
        self.ahead.used += room;
        self.ring.count_past_caches(message.len());
        self.link.counters.count_sent(Path::SingleCopy, message.len());
        Ok(true)
    }

    /// Whether there is one with so much room: this one, or the next.
    fn has_berth(&mut self, room: usize) -> Result<bool> {
        let ahead = &mut self.ahead;
        if ahead.berth.is_some() && ahead.used + room <= BERTH_BYTES {
            return Ok(true);
        }
        let Some(spot) = self.link.desks.outgoing().berths.spot(ahead.number + 1) else { return Ok(false) };
        ahead.berth = self.link.find(Half::Sender, spot, BERTH_BYTES)?.filter(Mapped::is_writable);
        ahead.cannot_write = ahead.berth.is_none();
        (ahead.number, ahead.used) = (ahead.number + 1, 0);
        Ok(!ahead.cannot_write)
    }

    /// Asks for berths, when a long stream could have gone to some. Before that it sends messages as if they were waited for, so that the
    /// receiver sees that this side may write its memory. False: this one was not sent.
    fn asks_for_berths(&mut self, message: &[u8], deadline: Deadline) -> Result<bool> {
        let ahead = &mut self.ahead;
        ahead.stream_bytes += room_for(message.len()) as u64;
        if ahead.stream_bytes < STREAM_BYTES {
            return Ok(false);
        }
        if ahead.shown >= HELPED_MESSAGES {
            if self.ring.fits(1) {
                self.ahead.stream_bytes -= BERTH_BYTES as u64;
                self.ring.send_offer(&Arrived::ASK.to_bytes(), deadline)?;
            }
            return Ok(false);
        }
        if deadline == Deadline::Now || !self.may_prompt() || self.ring.records_under_way() > FEW_RECORDS {
            return Ok(false);
        }
        let was_sent = self.send_promptly(&[IoSlice::new(message)], Spot::NOWHERE, message.len(), deadline)?;
        match was_sent {
            true => self.ahead.shown += 1,
            false => self.ahead.stream_bytes = 0,
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

    /// Two sides of which the one has named berths, and the other one uses them.
    fn with_berths() -> (Channel, Channel) {
        let (parent, end) = Channel::pair().unwrap();
        let (mut sender, mut receiver) = std::thread::scope(|scope| {
            let child = scope.spawn(|| Channel::adopt_by(end.as_raw_fd(), Deadline::Never).unwrap());
            let parent = parent.accept_by(Deadline::Never).unwrap();
            (parent, child.join().unwrap())
        });
        sender.sender.ring.pin_past_caches();
        receiver.receiver.name_berths(HELPED_MESSAGES);
        sender.send(&[0; BYTES]).unwrap();
        assert_eq!(receiver.recv().unwrap().as_deref(), Some(&[0; BYTES][..]));
        (sender, receiver)
    }

    fn in_berths(channel: &Channel) -> u64 {
        channel.stats().sent(Path::SingleCopy).messages
    }

    /// Has `work` send and receive, with new channels until so many of its messages have gone to berths, which is all of them. Other tests of this process fork at any
    /// time, and what is sent behind a fork does without berths for some 100 MiB.
    fn undisturbed(messages: u64, mut work: impl FnMut(&mut Channel, &mut Channel)) {
        assert!((0..1000).map(|_| with_berths()).any(|(mut sender, mut receiver)| {
            let before = in_berths(&sender);
            work(&mut sender, &mut receiver);
            in_berths(&sender) == before + messages
        }));
    }

    #[test]
    fn a_sender_goes_ahead_in_order_and_without_waiting() {
        undisturbed(4, |sender, receiver| {
            for number in 0..4 {
                sender.sender.send_by(&[number; BYTES], Deadline::Now).unwrap();
                sender.send(&[number]).unwrap();
            }
            for number in 0..4 {
                assert_eq!(receiver.recv().unwrap().as_deref(), Some(&[number; BYTES][..]));
                assert_eq!(receiver.recv().unwrap().as_deref(), Some(&[number][..]));
            }
        });
    }

    #[test]
    fn a_message_of_any_length_has_a_place_of_its_own_for_as_long_as_it_is_kept() {
        const LENGTHS: [usize; 5] = [70_000, 200_000, 500_000, 524_287, 65_536];
        undisturbed(LENGTHS.len() as u64, |sender, receiver| {
            let mut kept = Vec::new();
            for (number, bytes) in (0..).zip(LENGTHS) {
                sender.send(&vec![number; bytes]).unwrap();
                kept.push((number, bytes, receiver.recv().unwrap().unwrap()));
            }
            for (number, bytes, message) in kept {
                assert!(message[..] == vec![number; bytes], "message {number}");
            }
        });
    }

    #[test]
    fn what_came_to_a_berth_is_received_into_memory_of_the_caller_that_is_long_enough() {
        let mut buffer = vec![0; BYTES];
        undisturbed(1, |sender, receiver| {
            sender.send(&[7; BYTES]).unwrap();
            let error = receiver.recv_into(&mut buffer[1..]).unwrap_err();
            assert!(matches!(error, Error::BufferTooSmall { message_bytes: BYTES, .. }), "{error}");
            assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(BYTES));
            assert_eq!(std::mem::replace(&mut buffer, vec![0; BYTES]), [7; BYTES]);
        });
    }

    #[test]
    fn a_message_that_is_too_long_is_thrown_away_and_one_in_no_berth_is_an_error() {
        let (mut sender, mut receiver) = with_berths();
        receiver.receiver.set_limit_bytes(BYTES - 1);
        sender.send(&[1; BYTES]).unwrap();
        let error = receiver.recv().unwrap_err();
        assert!(matches!(error, Error::TooLong { message_bytes: BYTES, .. }), "{error}");
        let berth = sender.sender.ahead.number;
        for (berth, bytes) in [(berth + 1000, 1), (berth, 0), (berth, BERTH_BYTES - 1), (0, 1)] {
            let arrived = Arrived { berth, bytes };
            sender.sender.ring.send_offer(&arrived.to_bytes(), Deadline::Now).unwrap();
            let error = receiver.receiver.recv_into_by(&mut [0; 8], Deadline::Now);
            assert!(error.is_err(), "{arrived:?}");
        }
        sender.send(b"next").unwrap();
        assert!((0..10).any(|_| receiver.recv().is_ok_and(|message| message.as_deref() == Some(b"next"))));
    }
}
