//! Messages that the other side waits for: of a length that goes through the ring, and faster from where they are.
//!
//! A stream of messages of some 100 KiB is best put into the ring, since its sender waits for nobody, and both sides copy at the same
//! time. Where one message is waited for, both copy at the same time only if they do so without the ring. So it is offered as
//! longer ones are, where this side has received one message since it sent the last such one, as in question and answer. A receiver
//! that does not begin with it at once gets it through the ring, and so do those that follow.

use std::io::IoSlice;
use std::time::Duration;

use super::link::Link;
use super::registered::Spot;
use super::sender::ChannelSender;
use crate::{Deadline, Error, Result};

/// From how many bytes on. Measured by two pinned processes, half of a round trip of hot messages through the ring and so, in us: 64 KiB
/// 5.6 and 3.6, 128 KiB 10 and 7.4, 256 KiB 18 and 6.8 where a cache-line round trip takes 130 ns; 5.6 and 5.5, 256 KiB 18 and 11.4
/// at 510 ns; 32 KiB are slower so at both, 3.4 and 13. Two bare calls of 32 KiB at the same time, with no more than the words that
/// start and end them, take 2.8 and 4.3 for 64 KiB.
const DEFAULT_COPY_BYTES: usize = 64 << 10;
/// How long the receiver may take to begin. It takes less than a microsecond if it waits.
const PATIENCE: Duration = Duration::from_micros(50);
/// How many messages go through the ring after one that nobody waited for.
const PAUSE: u32 = 20;

/// What a sender knows of whether it is waited for.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) copy_bytes: usize,
    /// How many messages this side had received when it sent the last one that was long enough.
    received: u64,
    /// The same for the last one that did not stand in slots alone.
    received_by_ring: u64,
    pause: u32,
}

impl Default for Prompt {
    fn default() -> Self {
        Self { copy_bytes: DEFAULT_COPY_BYTES, received: 0, received_by_ring: 0, pause: 0 }
    }
}

impl Prompt {
    /// Whether the message that is to be sent now, which is long enough, is likely to be waited for.
    fn is_answer(&mut self, link: &Link) -> bool {
        let received = link.counters.received_messages();
        let is_answer = received.wrapping_sub(self.received) == 1;
        self.received = received;
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        is_answer
    }

    /// Whether the message that goes through the ring now is likely to be waited for.
    #[inline]
    pub(super) fn is_answer_by_ring(&mut self, link: &Link) -> bool {
        let received = link.counters.received_messages();
        received.wrapping_sub(std::mem::replace(&mut self.received_by_ring, received)) == 1
    }

    fn was_in_vain(&mut self) {
        self.pause = PAUSE;
    }
}

impl ChannelSender {
    /// Whether a message of so many bytes should be offered before it goes through the ring.
    pub(super) fn is_awaited(&mut self, bytes: usize) -> bool {
        bytes >= self.prompt.copy_bytes && self.may_prompt() && self.prompt.is_answer(&self.link)
    }

    /// Whether both sides may copy such a message, and the receiver looks for it or is busy.
    pub(super) fn may_prompt(&self) -> bool {
        self.link.attach.is_ok()
            && self.link.trusted
            && self.refused.is_none()
            && !self.cannot_help
            && self.strategy.spin_time() != Some(Duration::ZERO)
            && !self.ring.is_receiver_asleep()
    }

    /// Has both sides copy `message`, if the receiver begins at once. False: it does not, and nothing was sent.
    pub(super) fn send_promptly(
        &mut self,
        message: &[IoSlice<'_>],
        spot: Spot,
        bytes: usize,
        deadline: Deadline,
    ) -> Result<bool> {
        match self.offer_for_now(message, spot, bytes, deadline)?.finish_within(PATIENCE, deadline) {
            Err(Error::WouldDeadlock { .. }) => {}
            Err(error) if error.is_out_of_time() && !deadline.has_passed() => {}
            sent => return sent,
        }
        self.prompt.was_in_vain();
        Ok(false)
    }
}
