//! The short way for messages that stand in slots alone.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use super::super::bare::BARE_BYTES;
use super::super::layout::{FIRST, INLINE_BYTES, INLINE_FIRST_BYTES, INLINE_MESSAGE_BYTES, LAST, Record};
use super::RingReceiver;
use crate::atomic::Ordering;
use crate::memory::hints::look_again;
use crate::{Deadline, WaitStrategy};

/// How often a side that may spin looks for a message of two lines before it does anything else: a microsecond or two, in which the
/// answer of a process on a distant core comes.
const EAGER_LOOKS: u32 = 4000;
/// How many looks at a single line follow each other as soon as the one before is over, see [`look_again`]: the answer of a process on a
/// near core comes within them.
const FENCED_LOOKS: u32 = 16;
/// How many follow with a pause between two, some 3 us of them: what comes so late comes from a distant core. With
/// them the line is asked for less often while its sender takes it for itself, which may be why that is faster. Measured bare on AMD Zen 3,
/// where a pause takes 29 ns and a cache-line round trip 130 or 520: one of 8 bytes takes 131 and 600 ns with fences alone, 109 and 470
/// with pauses alone, 131 and 455 like this. As a channel, in `bench`, medians of 50 and of 20 runs in turns, with fences alone and like
/// this: 178 and 180 ns, 666 and 614.
const PAUSED_LOOKS: u32 = 100;
/// How long a receiver that has taken all of a stream lets more of it come before it looks again. Close behind the sender it takes each
/// line away from it while that writes it, and waits for each; what has gathered meanwhile is under way all at once. Measured bare on AMD
/// Zen 3 with streams of 1 KiB, in ns a message, without and after 0.5, 0.9, 1.9, 3.7 and 7.4 us: 105, 71, 69, 67, 66 and 66 where a cache-line
/// round trip takes 145, 380, 340, 290, 261, 245 and 242 where it takes 570. Through a channel, without and with it: 56 bytes 89 and 36, where it
/// takes 145; 1 KiB from 128 MiB into as much 264 and 235, and 468 and 416 where it takes 610.
const GATHERING_TIME: Duration = Duration::from_micros(2);
/// How many slots in a row without a wait are a stream. A message has two at most if it is short.
const STREAM_SLOTS: u64 = 3;

/// Whether to look for a short message before anything else.
pub(super) fn is_eager(strategy: WaitStrategy) -> bool {
    strategy.spin_time() != Some(Duration::ZERO)
}

impl RingReceiver {
    /// Takes the next message into `target` and returns its length, if it stands in slots alone and comes at once: where this side
    /// looks before it sleeps, within some microseconds. Whatever else comes, and whatever is wrong with it, is for the other calls.
    ///
    /// Between the look that finds a message of one slot and the end of this are no more stores and branches than must be: its sender
    /// may wait for an answer.
    ///
    /// `is_answer` tells whether this process has sent something since it was last asked: an answer is looked for without a break.
    #[inline]
    pub(crate) fn take_short(
        &mut self,
        target: &mut [u8; INLINE_MESSAGE_BYTES],
        deadline: Deadline,
        is_answer: impl FnOnce() -> bool,
    ) -> Option<usize> {
        let record = self.look_for_record(deadline, is_answer)?;
        if !self.is_whole(record) {
            return self.take_longer(record, target);
        }
        // All of the slot, since that needs no loop whose length is not known before.
        self.ring.slot(self.slots).take(0, &mut target[..INLINE_BYTES]);
        self.takes_two = false;
        self.give_back(1);
        Some(record.bytes())
    }

    /// The same, for a message of a whole slot or of two.
    #[inline]
    fn take_longer(&mut self, record: Record, target: &mut [u8]) -> Option<usize> {
        if self.is_bare(record) {
            self.take_bare(target.get_mut(..BARE_BYTES)?);
            self.takes_two = false;
            self.give_back(1);
            return Some(BARE_BYTES);
        }
        let bytes = self.find_second(record)?;
        self.take_two_slots(target.get_mut(..bytes)?);
        self.takes_two = true;
        self.give_back(2);
        Some(bytes)
    }

    /// The same, into memory that has the length of the message or more.
    #[inline]
    pub(crate) fn take_short_into(
        &mut self,
        target: &mut [u8],
        deadline: Deadline,
        is_answer: impl FnOnce() -> bool,
    ) -> Option<usize> {
        let record = self.look_for_record(deadline, is_answer)?;
        if self.is_whole(record) {
            let target = target.get_mut(..record.bytes())?;
            self.ring.slot(self.slots).take(0, target);
            self.takes_two = false;
            self.give_back(1);
            return Some(record.bytes());
        }
        self.take_longer(record, target)
    }

    /// Whether a message begins and ends with `record`, in its slot, and may be taken.
    #[inline]
    fn is_whole(&self, record: Record) -> bool {
        record.is_just_up_to(FIRST | LAST, self.limit_bytes.min(INLINE_BYTES)) & self.message.is_none()
    }

    /// The same for a bare message.
    #[inline]
    fn is_bare(&self, record: Record) -> bool {
        record.is_bare() & (self.limit_bytes >= BARE_BYTES) & self.message.is_none()
    }

    /// The length of the message that begins with `record` and ends in the next slot, if it may be taken.
    #[inline]
    fn find_second(&self, record: Record) -> Option<usize> {
        if self.message.is_some() || !record.is_just(FIRST) || record.bytes() != INLINE_FIRST_BYTES {
            return None;
        }
        let total = self.ring.slot(self.slots).words[0].load(Ordering::Relaxed);
        // Published together with the first one: it is there, or a moment away.
        let second = (0..EAGER_LOOKS).find_map(|_| self.ring.record(self.slots.wrapping_add(1)))?;
        let bytes = INLINE_FIRST_BYTES + second.bytes();
        let is_its_end = second.is_just(LAST)
            && second.generation() == record.generation()
            && second.bytes() <= INLINE_BYTES
            && total == bytes as u64;
        (is_its_end && bytes <= self.limit_bytes).then_some(bytes)
    }

    /// Copies what stands in the next slot behind the length of the message, and then in the one after it.
    #[inline]
    fn take_two_slots(&self, target: &mut [u8]) {
        let (head, tail) = target.split_at_mut(INLINE_FIRST_BYTES);
        self.ring.slot(self.slots).take(1, head);
        self.ring.slot(self.slots.wrapping_add(1)).take(0, tail);
    }

    #[inline]
    fn give_back(&mut self, slots: u64) {
        self.slots = self.slots.wrapping_add(slots - 1);
        self.release(self.bulk, true);
    }

    /// The next record, if it is there or comes while this side looks for it without anything else between two looks.
    #[inline]
    fn look_for_record(&mut self, deadline: Deadline, is_answer: impl FnOnce() -> bool) -> Option<Record> {
        if let Some(record) = self.record(self.slots) {
            return Some(record);
        }
        if !self.is_eager | (deadline == Deadline::Now) {
            return None;
        }
        if self.follows_stream(is_answer()) {
            let_gather();
        }
        match self.takes_two {
            // The second line of a message that has two is to be under way while the first one is: both are looked at without a stop.
            true => self.look(EAGER_LOOKS, || self.touch_next_slot()),
            false => self.look(FENCED_LOOKS, look_again).or_else(|| self.look(PAUSED_LOOKS, spin_loop)),
        }
        .or_else(|| self.record(self.slots))
    }

    /// Whether the next record, which is not there yet, is likely to be one of a stream.
    #[inline]
    pub(in super::super) fn follows_stream(&mut self, is_answer: bool) -> bool {
        let taken = self.slots.wrapping_sub(std::mem::replace(&mut self.slots_at_wait, self.slots));
        taken >= STREAM_SLOTS && !is_answer
    }

    /// Looks for the next record so often.
    #[inline(always)]
    fn look(&self, looks: u32, between: impl Fn()) -> Option<Record> {
        let (index, slot) = (self.slots, self.ring.slot(self.slots));
        for _ in 0..looks {
            if let Some(record) = self.check_record(index, slot.any_record()) {
                return Some(record);
            }
            between();
        }
        None
    }
}

/// Looks at nothing that a sender writes for a while.
fn let_gather() {
    let begin = Instant::now();
    while begin.elapsed() < GATHERING_TIME {
        spin_loop();
    }
}
