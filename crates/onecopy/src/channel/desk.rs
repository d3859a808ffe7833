//! Where the two sides agree on a message that does not go through the ring.
//!
//! There is a desk for each direction. The word `turn` holds a phase in its lowest 3 bits, and above them the number of the
//! message:
//!
//! | Phase | Meaning | Next |
//! |---|---|---|
//! | IDLE | no message | the sender writes where it lies, then ASKED with the next number, and puts an offer into the ring |
//! | ASKED | the sender waits; the receiver may be copying | DONE, REFUSED or SHARED by the receiver; IDLE by the sender, which revokes it |
//! | SHARED | both copy, into `target` of the receiver | DONE by the receiver; IDLE by the sender, between two parts of its own |
//! | DONE | the receiver has its copy | IDLE by the sender |
//! | REFUSED | there is none: `answer` says why | IDLE by the sender |
//!
//! Where either side could change `turn` the change is a compare-and-swap. A receiver that finds its message revoked throws away
//! what it copied. The ring keeps the order: the offer stands in line with the messages, and one whose number is not the one
//! asked for any more is passed over.
//!
//! A sender that has the other direction in its hands as well says so by `waiting`. When it finds the other desk ASKED by such a
//! sender too, neither will ever receive: it says so by the other's `deadlock`, and both give up.
//!
//! While a message is SHARED both sides claim parts of it, see [`claims`](super::claims).
//!
//! What was lent in this direction comes back by `loans`, see [`loan`](super::loan). Places for messages to come are in `berths`, see
//! [`berths`](super::berths).
//!
//! # Safety
//!
//! A [`Desk`] is atomics alone, for which any value that a peer writes is valid. [`Desks`] keeps its region mapped, and has checked
//! that it is long enough.
#![cfg_attr(not(loom), expect(unsafe_code, reason = "sees a region as structures of atomics"))]

use std::io::IoSlice;
#[cfg(not(loom))]
use std::mem::offset_of;
#[cfg(not(loom))]
use std::sync::Arc;

use super::berths::BerthWords;
#[cfg(not(loom))]
use super::claims::End;
use super::loan::GivenBack;
use super::registered::{Spot, SpotWords};
use crate::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use crate::memory::Region;
use crate::memory::hints::prefetch_to_write;
use crate::memory::nonce::Value;
use crate::memory::wait::Sleepers;

/// What the two desks need, in bytes.
pub(super) const DESKS_BYTES: usize = 2 * size_of::<Desk>();

const LINE_BYTES: usize = 64;

/// A value of [`Desk::waiting`].
pub(super) const NO_ROOM: u64 = u64::MAX;

#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Desk {
    turn: AtomicU64,
    pub(super) answer: AtomicU64,
    /// Where the message lies, in the sender.
    pub(super) address: AtomicU64,
    /// How many parts it has, of which a list stands at `address`; 0 for one that stands there itself.
    pub(super) parts: AtomicU64,
    /// Where the sender's nonce stands, and what it is.
    pub(super) nonce_address: AtomicU64,
    pub(super) nonce: [AtomicU64; 2],
    /// Where in the sender's registered memory the message lies, if it does. From here on the words seldom change.
    pub(super) source_spot: SpotWords,
    /// Where the message goes, in the receiver, while it is SHARED.
    pub(super) target: AtomicU64,
    /// Where in the receiver's registered memory that is, if it is there.
    pub(super) target_spot: SpotWords,
    /// How they share it, see [`claims`](super::claims).
    pub(super) unit_bytes: AtomicU64,
    pub(super) front_units: AtomicU64,
    /// How many packets with registered memory of the sender's side have been sent, and taken from the other side's socket.
    pub(super) buffers_passed: AtomicU64,
    pub(super) buffers_taken: AtomicU64,
    pub(super) claims: Claims,
    /// The turn of a message whose sender waits and receives nothing meanwhile, [`NO_ROOM`] for one that has waited for room in the
    /// ring for a while, or 0.
    pub(super) waiting: AtomicU64,
    /// The same, when the other side has seen that it waits in vain: it is sending too.
    pub(super) deadlock: AtomicU64,
    pub(super) sleepers: Sleepers,
    pub(super) loans: GivenBack,
    pub(super) berths: BerthWords,
}

/// Who copies what, see [`claims`](super::claims), on one line: who claims the last has them all.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Claims {
    pub(super) claimed: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) failed: AtomicU64,
}

#[cfg(not(loom))]
const _: () = {
    assert!(offset_of!(Desk, claims) == 128 && offset_of!(Desk, waiting) == 256);
    assert!(offset_of!(Desk, sleepers) == 384 && offset_of!(Desk, loans) == 512);
    assert!(offset_of!(Desk, berths) == 640 && size_of::<Desk>() == 768 && DESKS_BYTES <= 4096);
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Phase {
    Idle = 0,
    Asked = 1,
    Shared = 2,
    Done = 3,
    Refused = 4,
}

/// A value of `turn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn(u64);

impl Turn {
    pub(super) fn new(number: u64, phase: Phase) -> Self {
        Self(number << 3 | phase as u64)
    }

    pub(super) fn with(self, phase: Phase) -> Self {
        Self(self.0 & !7 | phase as u64)
    }

    pub(super) fn load(desk: &Desk) -> Self {
        // SeqCst: a side about to sleep loads it after announcing itself, see `memory::wait`. It also orders what was stored
        // before it.
        Self(desk.turn.load(Ordering::SeqCst))
    }

    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    pub(super) fn is(self, phase: Phase) -> bool {
        self.0 & 7 == phase as u64
    }

    /// Only for the side that alone may change it now.
    pub(super) fn store(self, desk: &Desk) {
        desk.turn.store(self.0, Ordering::SeqCst);
    }

    /// Sets `turn` to this, whatever it is now, and returns what it was.
    pub(super) fn replace(self, desk: &Desk) -> Self {
        Self(desk.turn.swap(self.0, Ordering::SeqCst))
    }

    /// Changes `turn` from this to another phase, unless it has changed meanwhile.
    pub(super) fn change(self, desk: &Desk, to: Phase) -> bool {
        desk.turn.compare_exchange(self.0, self.with(to).0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// An offer, as it stands in the ring: the number of the message and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) number: u64,
    pub(super) bytes: usize,
}

impl Offer {
    pub(super) const BYTES: usize = 16;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&(self.bytes as u64).to_le_bytes());
        bytes
    }

    /// `None` is nothing that this library sends.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let [number, len] = words else { return None };
        let bytes = usize::try_from(u64::from_le_bytes(*len)).ok().filter(|_| rest.is_empty())?;
        Some(Self { number: u64::from_le_bytes(*number), bytes })
    }
}

/// Why a receiver does not take a message: a limit, or with the highest bit an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    TooLong(usize),
    Errno(i32),
}

impl Answer {
    const ERRNO: u64 = 1 << 63;

    pub(super) fn to_bits(self) -> u64 {
        match self {
            Self::TooLong(limit) => limit as u64 & !Self::ERRNO,
            Self::Errno(errno) => u64::from(errno.unsigned_abs()) | Self::ERRNO,
        }
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        match bits & Self::ERRNO {
            0 => Self::TooLong(usize::try_from(bits).unwrap_or(usize::MAX)),
            _ => Self::Errno((bits & 0xfff) as i32),
        }
    }
}

/// The two desks of a channel.
#[cfg(not(loom))]
#[derive(Debug)]
pub(super) struct Desks {
    region: Arc<Region>,
    /// Which of them is for what this side sends.
    outgoing: usize,
}

#[cfg(loom)]
pub(super) use super::model::Desks;

#[cfg(not(loom))]
impl Desks {
    /// # Panics
    ///
    /// When the region is too short, or read-only: it was made for this.
    pub(super) fn new(region: Arc<Region>, is_listener: bool) -> Self {
        assert!(region.len() >= DESKS_BYTES && region.is_writable());
        Self { region, outgoing: usize::from(is_listener) }
    }

    /// From where this side claims what both copy.
    pub(super) fn end(&self) -> End {
        if self.outgoing == 0 { End::Front } else { End::Back }
    }

    pub(super) fn outgoing(&self) -> &Desk {
        self.desk(self.outgoing)
    }

    pub(super) fn incoming(&self) -> &Desk {
        self.desk(1 - self.outgoing)
    }

    fn desk(&self, index: usize) -> &Desk {
        // SAFETY: `index < 2`, and the region is longer than two desks, checked in `new`.
        let desk = unsafe { self.region.base().cast::<Desk>().add(index) };
        // SAFETY: within the region; a mapping begins at a page, and so at a multiple of a desk's alignment; atomics tolerate what
        // peers write; the reference lives no longer than `self`, which keeps the mapping.
        unsafe { desk.as_ref() }
    }
}

/// Writes a word that the turn publishes, if it has changed: otherwise its line stays in the cache of the other side too.
#[inline]
pub(super) fn write(word: &AtomicU64, value: u64) {
    // Relaxed: the change of `turn` publishes it.
    if word.load(Ordering::Relaxed) != value {
        word.store(value, Ordering::Relaxed);
    }
}

impl Desk {
    /// Has the line of the turn brought here, to be changed: a load would leave it with the other side too.
    #[inline]
    pub(super) fn fetch_turn(&self) {
        prefetch_to_write(std::ptr::from_ref(&self.turn).cast(), LINE_BYTES);
    }

    /// The same for that of the claims.
    #[inline]
    pub(super) fn fetch_claims(&self) {
        prefetch_to_write(std::ptr::from_ref(&self.claims).cast(), LINE_BYTES);
    }

    /// Says where a message lies. The caller publishes it by the turn.
    pub(super) fn write_source(&self, message: &[IoSlice<'_>], spot: Spot, nonce_address: u64, nonce: Value) {
        let (address, parts) = match message {
            [whole] => (whole.as_ptr().expose_provenance(), 0),
            parts => (parts.as_ptr().expose_provenance(), parts.len()),
        };
        write(&self.address, address as u64);
        write(&self.parts, parts as u64);
        self.source_spot.store(spot);
        write(&self.nonce_address, nonce_address);
        self.nonce.iter().zip(nonce).for_each(|(word, value)| write(word, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_and_answers_survive_the_way() {
        let offer = Offer { number: 7, bytes: 1 << 40 };
        assert_eq!(Offer::from_bytes(&offer.to_bytes()), Some(offer));
        assert_eq!(Offer::from_bytes(&[0; 15]), None);
        for answer in [Answer::TooLong(0), Answer::TooLong(1 << 40), Answer::Errno(libc::EPERM)] {
            assert_eq!(Answer::from_bits(answer.to_bits()), answer);
        }
        let Answer::Errno(errno) = Answer::from_bits(u64::MAX) else { panic!("an errno") };
        assert!((0..=0xfff).contains(&errno));
    }
}
