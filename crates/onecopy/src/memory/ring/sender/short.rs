//! The short way for messages that fit in slots.

use super::super::layout::{FIRST, INLINE_BYTES, INLINE_FIRST_BYTES, LAST, Record, SLOTS};
use super::RingSender;
use crate::atomic::Ordering;
use crate::tally;

impl RingSender {
    /// Whether a message that needs so many slots and nothing else could go at once.
    #[inline]
    pub(crate) fn has_slots(&self, slots: u64) -> bool {
        self.rest.is_none() & (self.slots.wrapping_sub(self.slots_taken) + slots <= SLOTS)
    }

    /// Puts a message into the next slot, which is free. Then the caller announces it.
    ///
    /// What need not be there before is done after that: each store before the one that publishes has to leave the core first, and
    /// the receiver waits for it.
    #[inline(always)]
    pub(crate) fn put_one(&mut self, message: &[u8]) {
        let index = self.slots;
        let slot = self.ring.slot(index);
        slot.put(0, message);
        slot.publish(Record::new(index, self.generation as u8, FIRST | LAST, message.len()));
        self.slots = index.wrapping_add(1);
        tally::count_user(message.len());
    }

    /// Puts a message into one slot, if it has the length of one and the receiver can tell that it is there.
    #[inline]
    fn put_bare(&mut self, message: &[u8]) -> bool {
        let (Some(bare), Some((head, last))) = (&mut self.bare, message.split_last_chunk()) else { return false };
        let index = self.slots;
        let word = if head.len() == INLINE_BYTES { bare.word(index, u64::from_le_bytes(*last)) } else { None };
        let Some(word) = word else { return false };
        let slot = self.ring.slot(index);
        slot.put(0, head);
        slot.publish(Record::from_bits(word));
        bare.note(index, word);
        self.slots = index.wrapping_add(1);
        tally::count_user(message.len());
        true
    }

    /// Puts a message that is too long for one slot into the next two, which are free, or into one if it can be bare.
    #[inline]
    pub(crate) fn put_two(&mut self, message: &[u8]) {
        if !self.put_bare(message) {
            self.put_into_two(message);
        }
    }

    /// Puts a message into the next two slots. They are published together: the second one's cache line is under way while the first
    /// one's is, and a message is either there or not.
    #[inline]
    fn put_into_two(&mut self, message: &[u8]) {
        let (index, generation) = (self.slots, self.generation as u8);
        let next = index.wrapping_add(1);
        let (first, second) = (self.ring.slot(index), self.ring.slot(next));
        let (head, tail) = message.split_at(INLINE_FIRST_BYTES);
        first.words[0].store(message.len() as u64, Ordering::Relaxed);
        first.put(1, head);
        second.put(0, tail);
        first.publish(Record::new(index, generation, FIRST, head.len()));
        second.publish(Record::new(next, generation, LAST, tail.len()));
        self.slots = index.wrapping_add(2);
        tally::count_user(message.len());
    }

    /// Puts a message into one slot or two.
    pub(super) fn put_short(&mut self, message: &[u8]) {
        match slots(message) {
            1 => self.put_one(message),
            _ => self.put_two(message),
        }
    }
}

/// How many slots a message needs at most that fits in two.
#[inline]
pub(super) fn slots(message: &[u8]) -> u64 {
    if message.len() <= INLINE_BYTES { 1 } else { 2 }
}
