//! Messages of one cache line, which fill a slot and leave no room for a record.
//!
//! Their last word stands where the record does, mixed with the number of the slot. The receiver knows by it that the message is
//! there: it is no record of this lap or of the one before, nor the word of the bare message that it took from this slot last. A message
//! of which that would not be true, one in a thousand million, takes two slots, as one of 63 or 65 bytes does.
//!
//! Each side remembers the words of its own, so what it compares with is not in shared memory. A successor would not know them: bare
//! messages go where there is none, in channels.

use super::layout::{Record, SLOTS, Slot};

/// How many bytes a bare message has.
pub(crate) const BARE_BYTES: usize = size_of::<Slot>();

/// The word of the last bare message in each slot, or 0.
#[derive(Debug)]
pub(super) struct BareWords(Box<[u64; SLOTS as usize]>);

impl BareWords {
    pub(super) fn new() -> Self {
        Self(Box::new([0; SLOTS as usize]))
    }

    /// What stands in place of the record number `index` when the last word of the message is `last`, if the receiver can tell it from
    /// what may stand there.
    #[inline]
    pub(super) fn word(&self, index: u64, last: u64) -> Option<u64> {
        let word = last ^ mask(index);
        // The records of the lap before, which it replaces, of its own, which it must not look like, and of the next one, when it is old.
        let looks_like_record = Record::from_bits(word).laps_after_last(index) <= 2;
        (!looks_like_record && word != self.0[place(index)]).then_some(word)
    }

    /// Whether `word`, found in place of the record number `index`, is that of a bare message.
    #[inline]
    pub(super) fn is_new(&self, index: u64, word: u64) -> bool {
        Record::from_bits(word).laps_after_last(index) > 1 && word != self.0[place(index)]
    }

    /// Remembers the word of a message that was sent, or taken.
    #[inline]
    pub(super) fn note(&mut self, index: u64, word: u64) {
        self.0[place(index)] = word;
    }
}

/// The last word of the message whose `word` stood in place of the record number `index`.
#[inline]
pub(super) fn last_word(index: u64, word: u64) -> u64 {
    word ^ mask(index)
}

/// Another number for each index: the same message again is not the same word. The factor is odd, so no two are equal, and 2^64 divided
/// by the golden ratio, so that their high halves, where records have their laps, differ as well.
#[inline]
fn mask(index: u64) -> u64 {
    index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline]
fn place(index: u64) -> usize {
    (index % SLOTS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ring::layout::{FIRST, LAST, lap};

    #[test]
    fn what_the_sender_lets_pass_is_new_once_and_never_a_record() {
        let (mut sent, mut taken) = (BareWords::new(), BareWords::new());
        for index in (0..4 * SLOTS).chain((1 << 40) - SLOTS..(1 << 40) + 2 * SLOTS) {
            for last in [0, 1, u64::MAX, u64::from(lap(index)) << 32] {
                let Some(word) = sent.word(index, last) else { continue };
                assert!(taken.is_new(index, word) && !Record::from_bits(word).is_number(index));
                assert_eq!(last_word(index, word), last);
                sent.note(index, word);
                taken.note(index, word);
                let next = index + SLOTS;
                assert!(!taken.is_new(next, word) && !Record::from_bits(word).is_number(next), "it is old there");
            }
        }
    }

    #[test]
    fn what_could_be_taken_for_something_else_does_not_pass() {
        let mut sent = BareWords::new();
        for index in [0, 1, 7 * SLOTS + 3] {
            for lap in [lap(index).wrapping_sub(1), lap(index), lap(index).wrapping_add(1)] {
                let word = u64::from(lap) << 32 | 5;
                assert_eq!(sent.word(index, last_word(index, word)), None, "a record of lap {lap}");
            }
            let word = sent.word(index, 77).unwrap();
            sent.note(index, word);
            let next = index + SLOTS;
            assert_eq!(sent.word(next, last_word(next, word)), None, "the word that stands there already");
        }
        let record = Record::new(SLOTS, 1, FIRST | LAST, 8).to_bits();
        assert!(!sent.is_new(SLOTS, record) && !sent.is_new(2 * SLOTS, record), "a record is none");
        assert!(!BareWords::new().is_new(0, 0), "nor is a slot of zeros");
    }
}
