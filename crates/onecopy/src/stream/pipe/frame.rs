//! What stands in front of each frame of a message, in little-endian order.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::PIPE_BUF;
use crate::process::Origin;

/// The length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// The longest payload of a frame, in bytes: with its header it is as long as a write that the kernel does not tear, and as a page.
pub const PAYLOAD_BYTES: usize = PIPE_BUF - HEADER_BYTES;

/// "1cpm" as the bytes lie in the pipe.
pub(super) const MAGIC: [u8; 4] = *b"1cpm";
const VERSION: u8 = 2;
/// The message begins with this frame.
const FIRST: u8 = 1;
/// It ends with this one.
const LAST: u8 = 2;
/// The place of a first frame whose message has no length yet.
const UNSIZED: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    magic: [u8; 4],
    version: u8,
    flags: u8,
    payload_bytes: U16,
    /// Over all other fields, so that foreign bytes are not taken for a header.
    check: U32,
    /// Over the payload: a header that is one, and what follows it not, is what a copied piece of an old frame looks like, or
    /// a pipe from which somebody else has read some bytes.
    payload_check: U32,
    writer: U64,
    number: U64,
    /// In a first frame the length of the message, else the offset.
    place: U64,
    start_ticks: U64,
    home: U64,
    pid: U32,
    reserved: U32,
}

const _: () = assert!(HEADER_BYTES == 64 && PAYLOAD_BYTES <= u16::MAX as usize);

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The random number of its writer.
    pub(super) writer: u64,
    /// The process that it was written by.
    pub(super) origin: Origin,
    /// The number of the message among the writer's, from 0.
    pub(super) number: u64,
    pub(super) place: Place,
    /// Whether the message ends with this frame.
    pub(super) last: bool,
    pub(super) payload_bytes: usize,
    pub(super) payload_check: u32,
}

/// Where in its message a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At its begin. The length of the message is known, unless it is sent in parts.
    First { total: Option<u64> },
    /// Behind this many bytes of it.
    At(u64),
}

impl Frame {
    /// How many bytes of the message come before this frame.
    pub(super) fn offset(&self) -> u64 {
        match self.place {
            Place::First { .. } => 0,
            Place::At(offset) => offset,
        }
    }

    pub(super) fn header(&self) -> Header {
        let (first, place) = match self.place {
            Place::First { total } => (FIRST, total.unwrap_or(UNSIZED)),
            Place::At(offset) => (0, offset),
        };
        let mut header = Header {
            magic: MAGIC,
            version: VERSION,
            flags: first | if self.last { LAST } else { 0 },
            payload_bytes: U16::new(self.payload_bytes as u16),
            check: U32::ZERO,
            payload_check: U32::new(self.payload_check),
            writer: U64::new(self.writer),
            number: U64::new(self.number),
            place: U64::new(place),
            start_ticks: U64::new(self.origin.start_ticks),
            home: U64::new(self.origin.place),
            pid: U32::new(self.origin.pid),
            reserved: U32::ZERO,
        };
        header.check = U32::new(header.checksum());
        header
    }

    /// What `bytes`, as many as a header has, say; `None` when they are no header.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Header::read_from_bytes(bytes).ok()?;
        if header.magic != MAGIC || header.version != VERSION || header.check.get() != header.checksum() {
            return None;
        }
        let (payload_bytes, place) = (usize::from(header.payload_bytes.get()), header.place.get());
        let last = header.flags & LAST != 0;
        let place = match header.flags {
            _ if payload_bytes > PAYLOAD_BYTES || header.flags > (FIRST | LAST) => return None,
            flags if flags & FIRST != 0 => Place::First { total: (place != UNSIZED).then_some(place) },
            _ => Place::At(place),
        };
        let origin = Origin { pid: header.pid.get(), start_ticks: header.start_ticks.get(), place: header.home.get() };
        let (writer, number) = (header.writer.get(), header.number.get());
        let payload_check = header.payload_check.get();
        let frame = Self { writer, origin, number, place, last, payload_bytes, payload_check };
        frame.is_possible().then_some(frame)
    }

    /// Whether it can be a frame of a message: its bytes lie within it, and its last one ends it.
    fn is_possible(&self) -> bool {
        let Some(end) = self.offset().checked_add(self.payload_bytes as u64) else { return false };
        let within = match self.place {
            Place::First { total: Some(total) } => end <= total && self.last == (end == total),
            Place::First { total: None } | Place::At(_) => true,
        };
        within && end < UNSIZED && self.number < u64::MAX && (self.payload_bytes > 0 || self.last)
    }

    /// Whether `payload` is the one that was sent with this header.
    pub(super) fn fits(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes && checksum(payload) == self.payload_check
    }

    /// Whether this is the frame of `before`'s message that lies at `offset`.
    pub(super) fn continues(&self, before: &Self, offset: u64) -> bool {
        self.place == Place::At(offset)
            && (self.writer, self.number, self.origin) == (before.writer, before.number, before.origin)
    }
}

impl Header {
    fn checksum(&self) -> u32 {
        checksum(Self { check: U32::ZERO, ..*self }.as_bytes())
    }
}

/// Eight sums side by side. Rows of eight words are added and xored to them in turns, and after each four rows the sums are
/// rotated. A word that changed changes its sum for good; bytes that are missing, or that came in between, move all that
/// follows to other sums and rotations. All of it are operations that processors do many at a time, which makes 4 KiB cost a
/// tenth of the system call that moves them. It guards against accidents, not against enemies.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut sums = SUMS;
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    for block in blocks {
        let (rows, _) = block.as_chunks::<ROW_BYTES>();
        sums = absorb(rotated(sums), rows);
    }
    let (rows, rest) = rest.as_chunks::<ROW_BYTES>();
    sums = absorb(rotated(sums), rows);
    if !rest.is_empty() {
        let mut padded = [0; ROW_BYTES];
        padded[..rest.len()].copy_from_slice(rest);
        sums = absorb(rotated(sums), &[padded]);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    let hash = mix(mix(mix(a, b), mix(c, d)), mix(mix(e, f), mix(g, h)));
    let hash = mix(hash, bytes.len() as u64);
    (hash ^ (hash >> 32)) as u32
}

const ROW_BYTES: usize = 64;
const BLOCK_BYTES: usize = 4 * ROW_BYTES;

/// What the sums begin with: they differ, so that exchanged words do not cancel out.
const SUMS: [u64; 8] = {
    let mut sums = [0; 8];
    let mut index = 0;
    while index < sums.len() {
        sums[index] = mix(0xcbf2_9ce4_8422_2325, index as u64);
        index += 1;
    }
    sums
};

#[inline(always)]
fn rotated(sums: [u64; 8]) -> [u64; 8] {
    sums.map(|sum| sum.rotate_left(29))
}

#[inline(always)]
fn absorb(mut sums: [u64; 8], rows: &[[u8; ROW_BYTES]]) -> [u64; 8] {
    for (index, row) in rows.iter().enumerate() {
        let (words, _) = row.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            let word = u64::from_le_bytes(*word);
            *sum = if index % 2 == 0 { sum.wrapping_add(word) } else { *sum ^ word };
        }
    }
    sums
}

/// The multiplier is 2^64 divided by the golden ratio.
const fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Frame {
        Frame {
            writer: u64::MAX / 3,
            origin: Origin { pid: 42, start_ticks: 4711, place: 99 },
            number: 7,
            place: Place::At(1 << 40),
            last: true,
            payload_bytes: payload.len(),
            payload_check: checksum(payload),
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        let places = [Place::At(5), Place::First { total: None }, Place::First { total: Some(5) }];
        for place in places {
            let sent = Frame { place, ..frame(b"bytes") };
            assert_eq!(Frame::parse(sent.header().as_bytes()), Some(sent));
            assert!(sent.fits(b"bytes") && !sent.fits(b"bytez") && !sent.fits(b"byte"));
        }
    }

    #[test]
    fn no_single_changed_bit_goes_unnoticed() {
        let mut header = frame(b"").header();
        let mut payload = [7; 129];
        let check = checksum(&payload);
        for bit in 0..8 * HEADER_BYTES {
            header.as_mut_bytes()[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::parse(header.as_bytes()), None, "bit {bit}");
            header.as_mut_bytes()[bit / 8] ^= 1 << (bit % 8);
        }
        for bit in 0..8 * payload.len() {
            payload[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(checksum(&payload), check, "bit {bit}");
            payload[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn moved_bytes_and_lost_zeros_change_the_sum() {
        let bytes: Vec<u8> = (0..=255).cycle().take(PAYLOAD_BYTES).collect();
        let sum = checksum(&bytes);
        for by in [1, 7, 8, 63, 64, 65, 512] {
            let mut moved = bytes.clone();
            moved.rotate_left(by);
            // The pattern itself repeats after 256 bytes, and 4032 is no multiple of that.
            assert_ne!(checksum(&moved), sum, "{by}");
        }
        let zeros = vec![0; PAYLOAD_BYTES];
        let sums: std::collections::HashSet<u32> = (0..PAYLOAD_BYTES).map(|len| checksum(&zeros[..len])).collect();
        assert_eq!(sums.len(), PAYLOAD_BYTES);
    }

    #[test]
    fn frames_that_cannot_be_are_refused() {
        let refused = [
            Frame { last: false, ..frame(b"") },
            Frame { place: Place::At(u64::MAX - 2), ..frame(b"bytes") },
            Frame { place: Place::First { total: Some(4) }, ..frame(b"bytes") },
            Frame { place: Place::First { total: Some(6) }, ..frame(b"bytes") },
            Frame { place: Place::First { total: Some(5) }, last: false, ..frame(b"bytes") },
            Frame { payload_bytes: PAYLOAD_BYTES + 1, ..frame(b"bytes") },
        ];
        for frame in refused {
            assert_eq!(Frame::parse(frame.header().as_bytes()), None, "{frame:?}");
        }
        for foreign in [&b""[..], b"1cpm", &[0; 64], &[0xff; 64], &[b'1'; 64]] {
            assert_eq!(Frame::parse(foreign), None);
        }
    }
}
