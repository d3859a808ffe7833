//! What the messages hold, and how the receiver checks it.
//!
//! A message begins with its sequence number, and ends with the number's complement when it has 16 bytes or more. Between
//! them stands a pattern. In a full pass each message has a pattern of its own, and every byte is compared; in a sampled pass
//! the pattern belongs to the buffer, so that the sender touches two words only, and the receiver looks at those and at one
//! word every 4 KiB.

use std::mem::MaybeUninit;
use std::ops::Range;

use onecopy::memory::buffer::Buffer;

/// What a cold workload rotates over, on each side.
const COLD_BYTES: usize = 128 << 20;
/// Messages that a receiver keeps in a cold run, at most, when each has memory of its own.
const KEPT_MESSAGES: usize = 8192;
/// How far apart the words lie that a sampled pass looks at.
pub(crate) const SAMPLE_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;
/// The shortest message with its number at the end, too.
const TRAILED_BYTES: usize = 2 * WORD_BYTES;
/// Messages begin at a cache line.
const ALIGN_BYTES: usize = 64;
/// Odd, so that all words of a message differ: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// How many messages the receiver of a cold run keeps, when they come in memory of the library: so that this memory is as
/// cold as the sender's.
pub(crate) fn kept_messages(size_bytes: usize) -> usize {
    (COLD_BYTES / size_bytes).min(KEPT_MESSAGES)
}

/// How thoroughly a message is made and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Full,
    Sampled,
}

/// Buffers of one size, one behind the other: one for a hot workload, as many as fill [`COLD_BYTES`] for a cold one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    size_bytes: usize,
    count: usize,
}

impl Slots {
    pub(crate) fn new(size_bytes: usize, cold: bool) -> Self {
        let count = if cold { (COLD_BYTES / size_bytes.next_multiple_of(ALIGN_BYTES)).max(2) } else { 1 };
        Self { size_bytes, count }
    }

    fn total_bytes(self) -> usize {
        self.count * self.size_bytes.next_multiple_of(ALIGN_BYTES)
    }

    fn of(self, sequence: u64) -> usize {
        // A division takes as long as a good part of the way to the other core.
        if self.count == 1 { 0 } else { (sequence % self.count as u64) as usize }
    }

    fn range(self, sequence: u64) -> Range<usize> {
        let start = self.of(sequence) * self.size_bytes.next_multiple_of(ALIGN_BYTES);
        start..start + self.size_bytes
    }
}

/// Private memory, every page of it touched: on huge pages where the kernel gives them, as a program that moves large buffers asks
/// for them. Memcpy and every contender get the same.
fn memory(slots: Slots) -> Buffer {
    let mut memory = Buffer::warm(slots.total_bytes()).expect("memory for the payload");
    memory.fill(0xa5);
    memory
}

/// The messages in the sender's private memory.
#[derive(Debug)]
pub(crate) struct Source {
    slots: Slots,
    memory: Buffer,
}

impl Source {
    pub(crate) fn new(slots: Slots) -> Self {
        let mut memory = memory(slots);
        for slot in 0..slots.count as u64 {
            fill(slot, &mut memory[slots.range(slot)]);
        }
        Self { slots, memory }
    }

    /// Makes the message with this number.
    #[inline]
    pub(crate) fn make(&mut self, sequence: u64, pass: Pass) {
        let message = &mut self.memory[self.slots.range(sequence)];
        if pass == Pass::Full {
            fill(key(self.slots, sequence, pass), message);
        }
        stamp(sequence, message);
    }

    /// Makes the message with this number straight in memory that a library lends, of which every byte is written.
    pub(crate) fn write(&self, sequence: u64, pass: Pass, target: &mut [MaybeUninit<u8>]) {
        let mut word = first_word(key(self.slots, sequence, pass));
        let mut words = target.chunks_exact_mut(WORD_BYTES);
        for chunk in &mut words {
            write_word(word, chunk);
            word = word.wrapping_add(STEP);
        }
        write_word(word, words.into_remainder());
        write_word(sequence, &mut target[..WORD_BYTES]);
        let end = target.len();
        if end >= TRAILED_BYTES {
            write_word(!sequence, &mut target[end - WORD_BYTES..]);
        }
    }

    /// Puts back the pattern of the buffer that a full pass overwrote.
    pub(crate) fn restore(&mut self, sequence: u64) {
        fill(self.slots.of(sequence) as u64, &mut self.memory[self.slots.range(sequence)]);
    }

    /// The message with this number, as it was made.
    pub(crate) fn bytes(&self, sequence: u64) -> &[u8] {
        &self.memory[self.slots.range(sequence)]
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.slots.size_bytes
    }
}

/// The receiver's private memory, every page of it touched.
#[derive(Debug)]
pub(crate) struct Room {
    slots: Slots,
    memory: Buffer,
}

impl Room {
    pub(crate) fn new(slots: Slots) -> Self {
        Self { slots, memory: memory(slots) }
    }

    /// Where the message with this number is to lie.
    pub(crate) fn buffer(&mut self, sequence: u64) -> &mut [u8] {
        &mut self.memory[self.slots.range(sequence)]
    }

    /// The message with this number.
    pub(crate) fn bytes(&self, sequence: u64) -> &[u8] {
        &self.memory[self.slots.range(sequence)]
    }

    /// How to look at the message with this number.
    pub(crate) fn check(&self, sequence: u64, pass: Pass) -> Check {
        Check { sequence, key: key(self.slots, sequence, pass), pass, size_bytes: self.slots.size_bytes }
    }
}

/// The check of one message, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    sequence: u64,
    key: u64,
    pass: Pass,
    size_bytes: usize,
}

impl Check {
    /// Compares a message with what was sent.
    #[inline]
    pub(crate) fn verify(self, message: &[u8]) -> Result<(), String> {
        if message.len() != self.size_bytes {
            return Err(format!("message {} has {} bytes, not {}", self.sequence, message.len(), self.size_bytes));
        }
        self.check_stamps(message)?;
        match self.pass {
            Pass::Full => self.check_all(message),
            Pass::Sampled => self.check_samples(message),
        }
    }

    #[inline]
    fn check_stamps(self, message: &[u8]) -> Result<(), String> {
        let found = word_at(message, 0);
        if found != self.sequence {
            return Err(format!("message {found} came in the place of message {}", self.sequence));
        }
        if message.len() >= TRAILED_BYTES && word_at(message, message.len() - WORD_BYTES) != !self.sequence {
            return Err(format!("the last 8 bytes of message {} are not those that were sent", self.sequence));
        }
        Ok(())
    }

    fn check_all(self, message: &[u8]) -> Result<(), String> {
        let mut wanted = vec![0; message.len()];
        fill(self.key, &mut wanted);
        stamp(self.sequence, &mut wanted);
        match message.iter().zip(&wanted).position(|(found, wanted)| found != wanted) {
            _ if message == wanted => Ok(()),
            at => Err(format!("byte {} of message {} is wrong", at.unwrap_or_default(), self.sequence)),
        }
    }

    #[inline]
    fn check_samples(self, message: &[u8]) -> Result<(), String> {
        let last = message.len().saturating_sub(TRAILED_BYTES);
        for offset in (SAMPLE_BYTES / 2..=last).step_by(SAMPLE_BYTES) {
            if word_at(message, offset) != word_of(self.key, offset / WORD_BYTES) {
                return Err(format!("bytes {offset} to {} of message {} are wrong", offset + 7, self.sequence));
            }
        }
        Ok(())
    }
}

/// In a full pass the high bit tells the patterns from those of the buffers.
fn key(slots: Slots, sequence: u64, pass: Pass) -> u64 {
    match pass {
        Pass::Full => sequence | 1 << 63,
        Pass::Sampled => slots.of(sequence) as u64,
    }
}

fn first_word(key: u64) -> u64 {
    key.wrapping_add(1).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

fn word_of(key: u64, index: usize) -> u64 {
    first_word(key).wrapping_add(STEP.wrapping_mul(index as u64))
}

fn fill(key: u64, message: &mut [u8]) {
    let mut word = first_word(key);
    let mut words = message.chunks_exact_mut(WORD_BYTES);
    for chunk in &mut words {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    let rest = words.into_remainder();
    rest.copy_from_slice(&word.to_le_bytes()[..rest.len()]);
}

fn stamp(sequence: u64, message: &mut [u8]) {
    message[..WORD_BYTES].copy_from_slice(&sequence.to_le_bytes());
    let end = message.len();
    if end >= TRAILED_BYTES {
        message[end - WORD_BYTES..].copy_from_slice(&(!sequence).to_le_bytes());
    }
}

fn write_word(word: u64, target: &mut [MaybeUninit<u8>]) {
    for (slot, byte) in target.iter_mut().zip(word.to_le_bytes()) {
        slot.write(byte);
    }
}

fn word_at(message: &[u8], offset: usize) -> u64 {
    let mut bytes = [0; WORD_BYTES];
    bytes.copy_from_slice(&message[offset..offset + WORD_BYTES]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(sequence: u64, pass: Pass, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), String> {
        let slots = Slots::new(10_000, false);
        let mut source = Source::new(slots);
        source.make(sequence, pass);
        let mut message = source.bytes(sequence).to_vec();
        change(&mut message);
        Room::new(slots).check(sequence, pass).verify(&message)
    }

    #[test]
    fn what_was_sent_passes() {
        for pass in [Pass::Full, Pass::Sampled] {
            assert_eq!(received(7, pass, |_| ()), Ok(()));
        }
    }

    #[test]
    fn each_wrong_byte_fails_a_full_pass_and_a_sampled_one_sees_the_sampled_words() {
        for at in [0, 8, 2048, 5000, 9991, 9999] {
            assert!(received(7, Pass::Full, |message| message[at] ^= 1).is_err(), "byte {at}");
        }
        for at in [0, 2048, 6144, 9999] {
            assert!(received(7, Pass::Sampled, |message| message[at] ^= 1).is_err(), "byte {at}");
        }
        assert!(received(7, Pass::Sampled, |message| message.truncate(9000)).is_err());
    }

    #[test]
    fn a_message_of_another_number_fails() {
        let slots = Slots::new(64, false);
        let mut source = Source::new(slots);
        source.make(3, Pass::Sampled);
        assert!(Room::new(slots).check(4, Pass::Sampled).verify(source.bytes(3)).is_err());
    }

    #[test]
    #[expect(unsafe_code, reason = "reads what was lent uninitialised")]
    fn a_message_made_in_place_is_the_one_made_in_private_memory() {
        for (size, pass) in [(8, Pass::Sampled), (64, Pass::Full), (1003, Pass::Sampled)] {
            let mut source = Source::new(Slots::new(size, false));
            let mut lent = vec![MaybeUninit::new(0xff); size];
            source.write(5, pass, &mut lent);
            // SAFETY: every byte was initialised when the vector was made.
            let made: Vec<u8> = lent.iter().map(|byte| unsafe { byte.assume_init() }).collect();
            source.make(5, pass);
            assert_eq!(made, source.bytes(5), "{size} bytes");
        }
    }
}
