//! The short way for messages that fit in slots.

use super::super::layout::{FIRST, INLINE_BYTES, INLINE_FIRST_BYTES, LAST, Record, SLOTS};
use super::RingSender;
use crate::atomic::Ordering;
use crate::tally;

impl RingSender {
    /// Whether a message that fits in slots alone could go at once.
    #[inline]
    pub(crate) fn has_room_for_short(&self, message: &[u8]) -> bool {
        self.rest.is_none() && self.slots.wrapping_sub(self.slots_taken) + slots(message) <= SLOTS
    }

    /// Puts a message into the next slot, or the next two, for which there is room. Two are published together: the second one's
    /// cache line is under way while the first one's is, and a message is either there or not. Then the caller announces it.
    ///
    /// What need not be there before is done after that: each store before the one that publishes has to leave the core first, and
    /// the receiver waits for it.
    #[inline]
    pub(crate) fn put_short(&mut self, message: &[u8]) {
        let (ring, index, generation) = (&self.ring, self.slots, self.generation as u8);
        let slot = ring.slot(index);
        if message.len() <= INLINE_BYTES {
            slot.put(0, message);
            slot.publish(Record::new(index, generation, FIRST | LAST, message.len()));
            self.slots = index.wrapping_add(1);
        } else {
            let (head, tail) = message.split_at(INLINE_FIRST_BYTES);
            let next = index.wrapping_add(1);
            let (first, second) =
                (Record::new(index, generation, FIRST, head.len()), Record::new(next, generation, LAST, tail.len()));
            let next_slot = ring.slot(next);
            slot.words[0].store(message.len() as u64, Ordering::Relaxed);
            slot.put(1, head);
            next_slot.put(0, tail);
            slot.publish(first);
            next_slot.publish(second);
            self.slots = index.wrapping_add(2);
        }
        tally::count_user(message.len());
    }
}

/// How many slots a message needs that fits in two.
#[inline]
pub(super) fn slots(message: &[u8]) -> u64 {
    if message.len() <= INLINE_BYTES { 1 } else { 2 }
}
