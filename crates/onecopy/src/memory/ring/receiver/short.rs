//! The short way for messages that stand in slots alone.

use std::time::Duration;

use super::super::layout::{BULK, FIRST, INLINE_BYTES, INLINE_FIRST_BYTES, INLINE_MESSAGE_BYTES, LAST, OFFER, Record};
use super::RingReceiver;
use crate::atomic::Ordering;
use crate::{Deadline, WaitStrategy};

/// How often a side that may spin looks for a short message before it does anything else: about as long as the answer of a process
/// on a distant core takes, 500 ns.
const EAGER_LOOKS: u32 = 500;

/// A message that stands in one slot, or in two, all of it.
#[derive(Clone, Copy, Debug)]
struct Short {
    bytes: usize,
    slots: u64,
}

pub(super) fn eager_looks(strategy: WaitStrategy) -> u32 {
    if strategy.spin_time() == Some(Duration::ZERO) { 0 } else { EAGER_LOOKS }
}

impl RingReceiver {
    /// Takes the next message into `target` and returns its length, if it stands in slots alone and comes at once: where this side
    /// looks before it sleeps, within [`EAGER_LOOKS`]. Whatever else comes, and whatever is wrong with it, is for the other calls.
    #[inline(always)]
    pub(crate) fn take_short(&mut self, target: &mut [u8; INLINE_MESSAGE_BYTES], deadline: Deadline) -> Option<usize> {
        let short = self.find_short(deadline)?;
        // All of the slots, since that needs no loops whose length is not known before.
        match short.slots {
            1 => self.ring.slot(self.slots).take(0, &mut target[..INLINE_BYTES]),
            _ => self.take_two_slots(target),
        }
        self.give_back(short);
        Some(short.bytes)
    }

    /// The same, into memory that has the length of the message or more.
    #[inline]
    pub(crate) fn take_short_into(&mut self, target: &mut [u8], deadline: Deadline) -> Option<usize> {
        let short = self.find_short(deadline)?;
        let target = target.get_mut(..short.bytes)?;
        match short.slots {
            1 => self.ring.slot(self.slots).take(0, target),
            _ => self.take_two_slots(target),
        }
        self.give_back(short);
        Some(short.bytes)
    }

    /// The next message, if it stands in slots alone and comes at once.
    #[inline]
    fn find_short(&self, deadline: Deadline) -> Option<Short> {
        let record = self.look_for_record(deadline)?;
        if self.message.is_some() || record.has(BULK) || record.has(OFFER) || !record.has(FIRST) {
            return None;
        }
        let short = match record.has(LAST) {
            true => Short { bytes: record.bytes(), slots: 1 },
            false => self.find_second(record)?,
        };
        let is_possible = short.slots > 1 || short.bytes <= INLINE_BYTES;
        (is_possible && short.bytes <= self.limit_bytes).then_some(short)
    }

    /// The message that begins with `record` and goes on in the next slot.
    #[inline]
    fn find_second(&self, record: Record) -> Option<Short> {
        let total = usize::try_from(self.ring.slot(self.slots).words[0].load(Ordering::Relaxed)).ok()?;
        // Published together with the first one: it is there, or a moment away.
        let second = (0..EAGER_LOOKS).find_map(|_| self.ring.record(self.slots.wrapping_add(1)))?;
        let is_its_end = second.has(LAST)
            && !(second.has(FIRST) || second.has(BULK) || second.has(OFFER))
            && second.generation() == record.generation()
            && record.bytes() == INLINE_FIRST_BYTES
            && second.bytes() <= INLINE_BYTES
            && total == INLINE_FIRST_BYTES + second.bytes();
        is_its_end.then_some(Short { bytes: total, slots: 2 })
    }

    /// Copies what stands in the next slot behind the length of the message, and then in the one after it.
    #[inline]
    fn take_two_slots(&self, target: &mut [u8]) {
        let (head, tail) = target.split_at_mut(INLINE_FIRST_BYTES);
        self.ring.slot(self.slots).take(1, head);
        self.ring.slot(self.slots.wrapping_add(1)).take(0, tail);
    }

    #[inline]
    fn give_back(&mut self, short: Short) {
        self.slots = self.slots.wrapping_add(short.slots - 1);
        self.release(self.bulk, true);
    }

    /// The next record, if it is there or comes while this side looks for it without anything else between two looks.
    #[inline]
    fn look_for_record(&self, deadline: Deadline) -> Option<Record> {
        let looks = if deadline == Deadline::Now { 0 } else { self.eager_looks };
        for _ in 0..looks {
            if let Some(record) = self.ring.record(self.slots) {
                return Some(record);
            }
            self.touch_next_slot();
        }
        self.ring.record(self.slots)
    }
}
