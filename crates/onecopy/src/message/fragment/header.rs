//! What stands in front of each fragment, in little-endian order.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::process::Origin;

/// The length of a fragment's header.
pub const HEADER_BYTES: usize = size_of::<Header>();

/// "1cfr" as the bytes lie in memory.
const MAGIC: u32 = u32::from_le_bytes(*b"1cfr");
const VERSION: u8 = 1;
/// The message begins with this fragment.
const FIRST: u8 = 1;
/// It ends with this one.
const LAST: u8 = 2;
/// There is no message: the sender has sent all that it wants to.
const END: u8 = 4;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    magic: U32,
    version: u8,
    flags: u8,
    reserved: U16,
    /// Over all other fields, so that foreign bytes are not taken for a header.
    check: U32,
    payload_bytes: U32,
    sender: U64,
    number: U64,
    offset: U64,
    start_ticks: U64,
    place: U64,
    pid: U32,
    reserved_too: U32,
}

const _: () = assert!(size_of::<Header>() == 64);

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// The random number of its sender.
    pub(super) sender: u64,
    /// The number of the message among the sender's, from 0.
    pub(super) number: u64,
    /// Where in the message it lies, in bytes.
    pub(super) offset: u64,
    pub(super) kind: Kind,
    pub(super) origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Part { first: bool, last: bool },
    End,
}

impl Kind {
    fn flags(self) -> u8 {
        match self {
            Self::Part { first, last } => (u8::from(first) * FIRST) | (u8::from(last) * LAST),
            Self::End => END,
        }
    }

    fn of(flags: u8) -> Option<Self> {
        match flags {
            END => Some(Self::End),
            0..END => Some(Self::Part { first: flags & FIRST != 0, last: flags & LAST != 0 }),
            _ => None,
        }
    }
}

impl Fragment {
    /// The header of this fragment with a payload of `payload_bytes`.
    pub(super) fn header(&self, payload_bytes: usize) -> Header {
        let mut header = Header {
            magic: U32::new(MAGIC),
            version: VERSION,
            flags: self.kind.flags(),
            reserved: U16::ZERO,
            check: U32::ZERO,
            payload_bytes: U32::new(payload_bytes as u32),
            sender: U64::new(self.sender),
            number: U64::new(self.number),
            offset: U64::new(self.offset),
            start_ticks: U64::new(self.origin.start_ticks),
            place: U64::new(self.origin.place),
            pid: U32::new(self.origin.pid),
            reserved_too: U32::ZERO,
        };
        header.check = U32::new(header.checksum());
        header
    }

    /// Reads what came as one message; the error says what is wrong with it.
    pub(super) fn parse(frame: &[u8]) -> Result<Self, String> {
        let Ok((header, payload)) = Header::read_from_prefix(frame) else {
            return Err(format!(
                "a message of {} bytes, shorter than a fragment's header; is the sender sending whole messages?",
                frame.len()
            ));
        };
        if header.magic.get() != MAGIC {
            let begin = &frame[..8];
            return Err(format!(
                "a message of {} bytes that begins with {begin:02x?} and is no fragment; is the sender sending whole messages?",
                frame.len()
            ));
        }
        if header.version != VERSION {
            return Err(format!("a fragment of version {}, where {VERSION} is known", header.version));
        }
        let kind = Kind::of(header.flags).filter(|_| header.check.get() == header.checksum());
        let Some(kind) = kind else { return Err("a fragment whose header was changed on its way".into()) };
        if header.payload_bytes.get() as usize != payload.len() {
            let expected = header.payload_bytes.get();
            return Err(format!("a fragment with {} of its {expected} bytes", payload.len()));
        }
        if payload.is_empty() && matches!(kind, Kind::Part { last: false, .. }) {
            return Err("a fragment without bytes that does not end its message".into());
        }
        let origin = Origin { pid: header.pid.get(), start_ticks: header.start_ticks.get(), place: header.place.get() };
        let (sender, number, offset) = (header.sender.get(), header.number.get(), header.offset.get());
        if number.checked_add(1).is_none() || offset.checked_add(payload.len() as u64).is_none() {
            return Err(format!("a fragment at byte {offset} of message {number}, which cannot be"));
        }
        Ok(Self { sender, number, offset, kind, origin })
    }
}

impl Header {
    /// [FNV-1a](http://www.isthe.com/chongo/tech/comp/fnv/) over words in place of bytes, folded: eight multiplications. It
    /// guards against accidents, not against enemies.
    fn checksum(&self) -> u32 {
        let words: [U64; 8] = zerocopy::transmute!(Self { check: U32::ZERO, ..*self });
        let hash = words
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| (hash ^ word.get()).wrapping_mul(0x0000_0100_0000_01b3));
        (hash ^ (hash >> 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment() -> Fragment {
        Fragment {
            sender: u64::MAX / 3,
            number: 7,
            offset: 1 << 40,
            kind: Kind::Part { first: false, last: true },
            origin: Origin { pid: 42, start_ticks: 4711, place: 99 },
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        let ends = [true, false].map(|end| Kind::Part { first: end, last: !end });
        for kind in [Kind::End, Kind::Part { first: true, last: true }].into_iter().chain(ends) {
            let sent = Fragment { kind, ..fragment() };
            let mut frame = sent.header(5).as_bytes().to_vec();
            frame.extend_from_slice(b"bytes");
            assert_eq!(Fragment::parse(&frame), Ok(sent));
        }
    }

    #[test]
    fn no_single_changed_bit_goes_unnoticed() {
        let frame = fragment().header(0).as_bytes().to_vec();
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Fragment::parse(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_cut_fragment_and_foreign_messages_are_refused() {
        let endless = Fragment { kind: Kind::Part { first: true, last: false }, ..fragment() };
        assert!(Fragment::parse(endless.header(0).as_bytes()).unwrap_err().contains("without bytes"));
        let frame = fragment().header(5).as_bytes().to_vec();
        assert!(Fragment::parse(&frame).unwrap_err().contains("0 of its 5 bytes"));
        for foreign in [&b""[..], b"hello", &[0; 64], &[0xff; 200]] {
            assert!(Fragment::parse(foreign).is_err());
        }
    }
}
