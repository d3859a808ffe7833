//! The short way for messages that stand in the bulk: their first record is looked at once.

use super::super::layout::{BULK, FIRST, INLINE_MESSAGE_BYTES, LAST, whole_lines};
use super::{Fate, Message, RingReceiver};
use crate::atomic::Ordering;
use crate::{Deadline, Result};

/// A message in the bulk whose first record is there.
#[derive(Debug)]
pub(crate) struct Begun(Message);

impl Begun {
    /// How long the message is, within the limit of its receiver.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.0.total
    }
}

impl RingReceiver {
    /// The next message, if it has begun and is to be delivered, and no earlier call has received a part of it. Whatever else is there,
    /// and whatever is wrong with it, is for the other calls.
    #[inline]
    pub(crate) fn begun(&self) -> Option<Begun> {
        let record = self.ring.record(self.slots)?;
        if self.message.is_some() || !record.has(FIRST | BULK) {
            return None;
        }
        let total = usize::try_from(self.ring.slot(self.slots).words[0].load(Ordering::Relaxed)).ok()?;
        let is_possible = record.bytes() <= total.min(self.ring.sizes.piece_bytes) && total <= self.limit_bytes;
        let message = Message { total, received: 0, generation: record.generation(), fate: Fate::Deliver };
        is_possible.then_some(Begun(message))
    }

    /// Receives the next message into what `place` says for its length, if it is there as one piece of up to `most` bytes, and was put
    /// there by ordinary stores. Whatever else is there, and whatever is wrong with it, is for the other calls.
    #[inline]
    pub(crate) fn take_piece<'a>(&mut self, most: usize, place: impl FnOnce(usize) -> &'a mut [u8]) -> Option<usize> {
        let record = self.ring.record(self.slots)?;
        let bytes = record.bytes();
        let most = most.min(self.limit_bytes).min(self.ring.sizes.piece_bytes);
        let is_one = record.is_just_up_to(FIRST | LAST | BULK, most) & self.message.is_none();
        let total = self.ring.slot(self.slots).words[0].load(Ordering::Relaxed);
        if !is_one || bytes <= INLINE_MESSAGE_BYTES || total != bytes as u64 {
            return None;
        }
        let position = self.position(record).ok()?;
        self.ring.take_bulk(position, place(bytes), false);
        self.prefetch_next();
        self.release(position.wrapping_add(whole_lines(bytes)), true);
        Some(bytes)
    }

    /// Receives a message that has begun into `target`.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`](crate::Receiver::recv_into_by).
    ///
    /// # Panics
    ///
    /// When `target` has not the length of the message.
    #[inline]
    pub(crate) fn take_begun(&mut self, begun: Begun, target: &mut [u8], deadline: Deadline) -> Result<()> {
        assert_eq!(target.len(), begun.bytes());
        self.fill(begun.0, target, deadline)
    }
}
