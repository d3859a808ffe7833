//! What the messages hold, and how the receiver checks it.
//!
//! A message begins with its sequence number, and ends with a trailer made from it when it has 16 bytes or more. Between
//! them stands the pattern, or a piece of a file. In a checked pass each message has a pattern of its own, and every byte is
//! compared; in a timed pass the pattern belongs to the buffer, so that the sender touches two words only, and the
//! receiver looks at those and at one word every 4 KiB.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::control::Check;
use crate::pages::Memory;

/// How far apart the words lie that a timed pass looks at.
pub(crate) const SAMPLE_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;
/// The shortest message with a trailer.
const TRAILED_BYTES: usize = 2 * WORD_BYTES;
/// Odd, so that all words of a message differ; it is 2^64 divided by the golden ratio, so that high bits differ, too.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// What a cold workload rotates over, on each side.
pub(crate) const COLD_BYTES: usize = 128 << 20;
/// Messages begin at a cache line.
const ALIGN_BYTES: usize = 64;

/// Where the bytes between sequence number and trailer come from.
#[derive(Debug)]
pub(crate) enum Content {
    Pattern,
    File(Input),
}

impl Content {
    pub(crate) fn open(input: Option<&Path>) -> io::Result<Self> {
        let Some(path) = input else { return Ok(Self::Pattern) };
        Input::open(path).map(Self::File)
    }

    /// How many messages of `size_bytes` carry the whole content once.
    pub(crate) fn pieces(&self, size_bytes: usize) -> u64 {
        match self {
            Self::Pattern => 1,
            Self::File(input) => input.len_bytes.div_ceil((size_bytes - TRAILED_BYTES) as u64),
        }
    }

    /// Fills a whole message but for its stamps. The same `key` gives the same bytes in every process.
    pub(crate) fn fill(&self, key: u64, message: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Pattern => fill_pattern(key, message),
            Self::File(input) => {
                let size = message.len();
                let offset = key % self.pieces(size) * (size - TRAILED_BYTES) as u64;
                input.read(offset, &mut message[WORD_BYTES..size - WORD_BYTES])?;
            }
        }
        Ok(())
    }

    /// The words that a timed pass looks at, for each of `slots` buffers; empty when they can be computed.
    fn samples(&self, slots: &Slots) -> io::Result<Vec<u64>> {
        if matches!(self, Self::Pattern) || sample_offsets(slots.size_bytes).len() == 0 {
            return Ok(Vec::new());
        }
        let mut message = vec![0; slots.size_bytes];
        let mut samples = Vec::new();
        for slot in 0..slots.count {
            self.fill(slot as u64, &mut message)?;
            samples.extend(sample_offsets(slots.size_bytes).map(|offset| word(&message, offset)));
        }
        Ok(samples)
    }
}

/// A file whose bytes are streamed.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    len_bytes: u64,
    /// All of it, when it is not too long for that.
    loaded: Vec<u8>,
}

impl Input {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let len_bytes = file.metadata()?.len();
        let mut loaded = Vec::new();
        if len_bytes <= COLD_BYTES as u64 {
            file.read_to_end(&mut loaded)?;
        }
        Ok(Self { file, len_bytes, loaded })
    }

    /// The bytes from `offset` on, and zeros behind the end.
    fn read(&self, offset: u64, piece: &mut [u8]) -> io::Result<()> {
        let there = self.len_bytes.saturating_sub(offset).min(piece.len() as u64) as usize;
        let (bytes, rest) = piece.split_at_mut(there);
        rest.fill(0);
        match self.loaded.get(offset as usize..offset as usize + there) {
            Some(loaded) => bytes.copy_from_slice(loaded),
            None => self.file.read_exact_at(bytes, offset)?,
        }
        Ok(())
    }
}

/// Writes the sequence number and the trailer.
pub(crate) fn stamp(sequence: u64, message: &mut [u8]) {
    message[..WORD_BYTES].copy_from_slice(&sequence.to_le_bytes());
    if message.len() >= TRAILED_BYTES {
        let start = message.len() - WORD_BYTES;
        message[start..].copy_from_slice(&trailer(sequence).to_le_bytes());
    }
}

/// The sequence number that a message claims to have.
pub(crate) fn sequence(message: &[u8]) -> u64 {
    word(message, 0)
}

/// Compares sequence number and trailer.
pub(crate) fn check_stamps(expected: u64, message: &[u8]) -> Result<(), String> {
    let found = sequence(message);
    if found != expected {
        return Err(format!("message {found} came in the place of message {expected}"));
    }
    if message.len() >= TRAILED_BYTES && word(message, message.len() - WORD_BYTES) != trailer(expected) {
        return Err(format!("the last 8 bytes of message {expected} are not those that were sent"));
    }
    Ok(())
}

/// Compares every byte of a message with what was sent.
pub(crate) fn check_full(content: &Content, expected: u64, message: &[u8]) -> Result<(), String> {
    let mut wanted = vec![0; message.len()];
    content.fill(expected, &mut wanted).map_err(|error| format!("the input cannot be read again: {error}"))?;
    stamp(expected, &mut wanted);
    match message.iter().zip(&wanted).position(|(found, wanted)| found != wanted) {
        None => Ok(()),
        Some(at) => Err(format!("byte {at} of message {expected} is {:#04x} and not {:#04x}", message[at], wanted[at])),
    }
}

/// Buffers of one size, one behind the other: one for a hot workload, as many as fill [`COLD_BYTES`] for a cold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) size_bytes: usize,
    pub(crate) count: usize,
}

impl Slots {
    pub(crate) fn new(size_bytes: usize, cold: bool) -> Self {
        let stride = size_bytes.next_multiple_of(ALIGN_BYTES);
        Self { size_bytes, count: if cold { (COLD_BYTES / stride).max(2) } else { 1 } }
    }

    pub(crate) fn total_bytes(self) -> usize {
        self.count * self.size_bytes.next_multiple_of(ALIGN_BYTES)
    }

    /// Which buffer message number `sequence` uses.
    pub(crate) fn of(self, sequence: u64) -> usize {
        (sequence % self.count as u64) as usize
    }

    pub(crate) fn range(self, slot: usize) -> std::ops::Range<usize> {
        let start = slot * self.size_bytes.next_multiple_of(ALIGN_BYTES);
        start..start + self.size_bytes
    }
}

/// The private memory of one side.
#[derive(Debug)]
pub(crate) struct Arena {
    content: Content,
    memory: Memory,
    /// What the memory was filled for.
    filled: Option<Slots>,
    /// The words of a file that a timed pass looks at, and for what they were read.
    samples: Vec<u64>,
    sampled: Option<Slots>,
}

impl Arena {
    pub(crate) fn new(content: Content) -> Self {
        Self { content, memory: Memory::none(), filled: None, samples: Vec::new(), sampled: None }
    }

    /// The messages of one run, ready to be sent.
    pub(crate) fn outgoing(&mut self, slots: Slots, check: Check) -> Result<Outgoing<'_>, String> {
        if check == Check::Full {
            self.reserve(slots)?;
        } else if self.filled != Some(slots) {
            self.reserve(slots)?;
            for slot in 0..slots.count {
                self.content.fill(slot as u64, &mut self.memory[slots.range(slot)]).map_err(unreadable)?;
            }
            self.filled = Some(slots);
        }
        Ok(Outgoing { slots, check, content: &self.content, memory: &mut self.memory })
    }

    /// Room for the messages of one run, and the check of what arrives.
    pub(crate) fn incoming(&mut self, slots: Slots, check: Check) -> Result<(Room<'_>, Checker<'_>), String> {
        if self.sampled != Some(slots) {
            self.samples = self.content.samples(&slots).map_err(unreadable)?;
            self.sampled = Some(slots);
        }
        self.reserve(slots)?;
        let checker = Checker { slots, check, content: &self.content, samples: &self.samples };
        Ok((Room { slots, memory: &mut self.memory }, checker))
    }

    /// Makes room, every page of it touched, so that no timed run meets a page fault.
    fn reserve(&mut self, slots: Slots) -> Result<(), String> {
        self.filled = None;
        if self.memory.len() < slots.total_bytes() {
            self.memory = Memory::none();
            self.memory = Memory::touched(slots.total_bytes())?;
        }
        Ok(())
    }
}

/// The messages of one run in the sender's memory.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    slots: Slots,
    check: Check,
    content: &'a Content,
    memory: &'a mut [u8],
}

impl Outgoing<'_> {
    /// The memory of the message with this number, as it is.
    pub(crate) fn buffer(&self, sequence: u64) -> &[u8] {
        &self.memory[self.slots.range(self.slots.of(sequence))]
    }

    /// The message with this number.
    pub(crate) fn message(&mut self, sequence: u64) -> Result<&mut [u8], String> {
        let message = &mut self.memory[self.slots.range(self.slots.of(sequence))];
        if self.check == Check::Full {
            self.content.fill(sequence, message).map_err(unreadable)?;
        }
        stamp(sequence, message);
        Ok(message)
    }
}

/// The buffers of one run in the receiver's memory.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    slots: Slots,
    memory: &'a mut [u8],
}

impl Room<'_> {
    /// The buffer for message number `sequence`.
    pub(crate) fn buffer(&mut self, sequence: u64) -> &mut [u8] {
        &mut self.memory[self.slots.range(self.slots.of(sequence))]
    }
}

/// The check of what arrives in one run.
#[derive(Debug)]
pub(crate) struct Checker<'a> {
    slots: Slots,
    check: Check,
    content: &'a Content,
    samples: &'a [u64],
}

impl Checker<'_> {
    /// Compares `message` with message number `sequence`, as thoroughly as the run asks for.
    pub(crate) fn verify(&self, sequence: u64, message: &[u8]) -> Result<(), String> {
        match self.check {
            Check::Full => check_full(self.content, sequence, message),
            Check::Sampled => self.check_samples(sequence, message),
        }
    }

    fn check_samples(&self, sequence: u64, message: &[u8]) -> Result<(), String> {
        check_stamps(sequence, message)?;
        let slot = self.slots.of(sequence);
        let first = slot * sample_offsets(message.len()).len();
        for (index, offset) in sample_offsets(message.len()).enumerate() {
            let wanted = match self.samples.get(first + index) {
                Some(word) => *word,
                None => pattern_word(slot as u64, offset / WORD_BYTES),
            };
            if word(message, offset) != wanted {
                return Err(format!("bytes {offset} to {} of message {sequence} are wrong", offset + WORD_BYTES - 1));
            }
        }
        Ok(())
    }
}

fn unreadable(error: io::Error) -> String {
    format!("the input cannot be read: {error}")
}

fn sample_offsets(size_bytes: usize) -> impl ExactSizeIterator<Item = usize> {
    let last = size_bytes.saturating_sub(TRAILED_BYTES);
    (1..last / SAMPLE_BYTES + 1).map(|page| page * SAMPLE_BYTES)
}

fn trailer(sequence: u64) -> u64 {
    sequence ^ STEP
}

fn pattern_word(key: u64, index: usize) -> u64 {
    // Keys are numbers of messages or buffers: 2^32 words lie between two of them.
    (key << 32).wrapping_add(index as u64).wrapping_add(1).wrapping_mul(STEP)
}

/// Fills a message with the pattern of `key`, without stamps.
pub(crate) fn fill_words(key: u64, message: &mut [u8]) {
    fill_pattern(key, message);
}

/// The sum of all words of a message, modulo 2^64, and of the bytes behind the last whole one.
pub(crate) fn sum_words(message: &[u8]) -> u64 {
    let (words, rest) = message.as_chunks::<WORD_BYTES>();
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

fn fill_pattern(key: u64, message: &mut [u8]) {
    let mut next = pattern_word(key, 0);
    let mut words = message.chunks_exact_mut(WORD_BYTES);
    for word in &mut words {
        word.copy_from_slice(&next.to_le_bytes());
        next = next.wrapping_add(STEP);
    }
    let rest = words.into_remainder();
    let last = next.to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

fn word(message: &[u8], offset: usize) -> u64 {
    let mut word = [0; WORD_BYTES];
    word.copy_from_slice(&message[offset..offset + WORD_BYTES]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, key: u64, size_bytes: usize) -> Vec<u8> {
        let mut message = vec![0; size_bytes];
        Content::Pattern.fill(key, &mut message).unwrap();
        stamp(sequence, &mut message);
        message
    }

    #[test]
    fn one_flipped_bit_anywhere_fails_the_full_check() {
        for size in [8, 15, 16, 17, 64, 4096, 10_001] {
            let mut sent = message(7, 7, size);
            check_full(&Content::Pattern, 7, &sent).unwrap();
            assert!(check_full(&Content::Pattern, 8, &sent).is_err());
            for at in [0, size / 2, size - 1] {
                sent[at] ^= 1;
                let error = check_full(&Content::Pattern, 7, &sent).unwrap_err();
                assert!(error.starts_with(&format!("byte {at} of message 7")), "{error}");
                sent[at] ^= 1;
            }
        }
    }

    #[test]
    fn the_sampled_check_sees_the_order_the_end_and_each_page() {
        for size in [8, 64, 4096, 4112, 65_536, 65_543] {
            let slots = Slots { size_bytes: size, count: 3 };
            let (mut ours, mut theirs) = (Arena::new(Content::Pattern), Arena::new(Content::Pattern));
            let mut outgoing = ours.outgoing(slots, Check::Sampled).unwrap();
            let (_, checker) = theirs.incoming(slots, Check::Sampled).unwrap();
            let mut message = outgoing.message(11).unwrap().to_vec();
            checker.verify(11, &message).unwrap();
            assert!(checker.verify(12, &message).is_err());
            for at in sample_offsets(size).chain([0, size - 1]) {
                message[at] ^= 0x80;
                assert!(checker.verify(11, &message).is_err(), "byte {at} of {size}");
                message[at] ^= 0x80;
            }
        }
    }

    #[test]
    fn a_file_is_carried_piece_by_piece() {
        let path = std::env::temp_dir().join(format!("onecopy-bench-payload-{}", std::process::id()));
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| ((n * n) >> 3) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let content = Content::open(Some(&path)).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(content.pieces(4112), 3);
        let mut carried = Vec::new();
        for key in 0..3 {
            let mut message = vec![1; 4112];
            content.fill(key, &mut message).unwrap();
            carried.extend_from_slice(&message[8..4104]);
        }
        assert_eq!(&carried[..10_000], &bytes);
        assert!(carried[10_000..].iter().all(|byte| *byte == 0));
        let slots = Slots { size_bytes: 8208, count: 2 };
        assert_eq!(content.samples(&slots).unwrap().len(), 4);
    }

    #[test]
    fn cold_buffers_rotate_over_more_than_a_cache() {
        assert_eq!(Slots::new(4096, false).count, 1);
        assert_eq!(Slots::new(4096, true).total_bytes(), COLD_BYTES);
        let large = Slots::new(100 << 20, true);
        assert_eq!((large.count, large.of(0), large.of(3)), (2, 0, 1));
    }
}
