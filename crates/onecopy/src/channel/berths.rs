//! Berths: [landings](super::landing) that a receiver names before there are messages for them.
//!
//! A stream of messages of some 100 KiB goes through the ring: its sender waits for nobody, and goes ahead of its receiver. A sender that
//! has a berth does so as well. It copies the message there, past the caches, and puts the number of the berth into the ring, where that
//! stands in line with the messages: one copy, of which the receiver has no part. Where there is no berth that is free and long enough, the
//! message goes through the ring, as it does where that is the [faster](super::ahead) way.
//!
//! The receiver names berths once it has seen a long stream from a sender that may write its memory, as for any landing; some at a time,
//! each for one message. They are used in their order.
//!
//! The words `places[number % BERTHS]` are the berth with this number: where it is, how long, and its number again. The receiver writes them,
//! when the berth before in that place is used or passed over. A sender passes over berths that are too short for its message, and says so in
//! the ring as well, behind those that it has used: a receiver that learned it earlier would give away what it has not looked at.
//!
//! A sender that has used a berth, or passed over it, writes there no more. What a peer says of berths is checked: the sender finds
//! the place within what the other side has registered, the receiver takes no number but of a berth that it has named.

use std::collections::VecDeque;

use super::desk::Desk;
use super::helper::Helper;
use super::landing::{GRAIN_BYTES, Landing, Landings};
use super::link::Link;
use super::registered::Spot;
use crate::atomic::{AtomicU64, Ordering};

/// How many can be named at a time.
const BERTHS: usize = 16;
/// How much of a stream comes through the ring before berths are named: by then its sender has found out how it is the fastest.
pub(super) const STREAM_BYTES: u64 = 64 << 20;
/// The longest message that is thought of. Longer ones are faster when both sides copy.
const MOST_BYTES: usize = 512 << 10;
/// How much all that are named have together, unless [`LEAST_BERTHS`] have more.
const NAMED_BYTES: usize = 1 << 20;
const LEAST_BERTHS: usize = 3;

const NUMBER_SHIFT: u32 = 32;
const LENGTH_SHIFT: u32 = 16;
const FIELD: u64 = (1 << LENGTH_SHIFT) - 1;

/// The words of one direction.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct BerthWords {
    places: [Place; BERTHS],
}

#[derive(Default)]
#[repr(C)]
struct Place {
    /// The number of the registration in which it lies.
    memory: AtomicU64,
    /// From the lowest bit on: where in that, and how long it is, both in units of [`GRAIN_BYTES`], 16 bits each, and the number of the
    /// berth. A length of 0 is none.
    place: AtomicU64,
}

/// A place for a message, as its sender knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Berth {
    pub(super) number: u32,
    pub(super) spot: Spot,
    pub(super) bytes: usize,
}

impl BerthWords {
    fn place(&self, number: u32) -> &Place {
        &self.places[number as usize % BERTHS]
    }

    fn name(&self, Berth { number, spot, bytes }: Berth) {
        let grains = |bytes: u64| (bytes / GRAIN_BYTES as u64).min(FIELD);
        let place = self.place(number);
        place.memory.store(spot.number, Ordering::Relaxed);
        let bits = grains(spot.offset) | grains(bytes as u64) << LENGTH_SHIFT | u64::from(number) << NUMBER_SHIFT;
        // Release: the sender that sees it sees the word before, and writes behind the last look at what lay there.
        place.place.store(bits, Ordering::Release);
    }

    /// The berth with this number, if it is named.
    pub(super) fn berth(&self, number: u32) -> Option<Berth> {
        let place = self.place(number);
        let bits = place.place.load(Ordering::Acquire);
        let bytes = (bits >> LENGTH_SHIFT & FIELD) as usize * GRAIN_BYTES;
        if bytes == 0 || bits >> NUMBER_SHIFT != u64::from(number) {
            return None;
        }
        let spot = Spot { number: place.memory.load(Ordering::Relaxed), offset: (bits & FIELD) * GRAIN_BYTES as u64 };
        Some(Berth { number, spot, bytes })
    }
}

/// What stands in the ring for a message that its sender has written to a berth; of 0 bytes where it has passed over that and those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) number: u32,
    pub(super) bytes: u32,
}

impl Arrived {
    /// Shorter than an [`Offer`](super::desk::Offer), by which the receiver tells them apart.
    const BYTES: usize = 8;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        (u64::from(self.number) << NUMBER_SHIFT | u64::from(self.bytes)).to_le_bytes()
    }

    /// `None` is something else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = u64::from_le_bytes(bytes.try_into().ok()?);
        Some(Self { number: (word >> NUMBER_SHIFT) as u32, bytes: word as u32 })
    }
}

/// The berths that a receiver has named.
#[derive(Debug, Default)]
pub(super) struct Named {
    berths: VecDeque<Landing>,
    /// The number of the first.
    first: u32,
    /// How long a message may be for which one is named.
    room_bytes: usize,
    /// How much has come that could come to one.
    stream_bytes: u64,
}

impl Named {
    /// Keeps in mind that a message of `bytes` came through the ring. From a sender that streams, so that there should be berths.
    pub(super) fn note_stream(&mut self, link: &Link, landings: &mut Landings, helper: &Helper, bytes: usize) {
        if bytes > MOST_BYTES || !link.is_open {
            return;
        }
        self.stream_bytes += bytes as u64;
        if self.stream_bytes < STREAM_BYTES {
            return;
        }
        self.room_bytes = self.room_bytes.max(bytes.next_multiple_of(GRAIN_BYTES));
        self.name_more(link, landings, helper);
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn see_stream(&mut self, bytes: u64) {
        self.stream_bytes = bytes;
    }

    /// The message of `bytes` that has come to the berth with this number, which makes those before it free. `None`: there is no such
    /// berth. Of 0 bytes it is free itself.
    pub(super) fn take(&mut self, Arrived { number, bytes }: Arrived) -> Option<Landing> {
        let passed = number.wrapping_sub(self.first) as usize;
        if passed >= self.berths.len() {
            return None;
        }
        self.drop_first(passed);
        self.first = self.first.wrapping_add(1);
        self.stream_bytes += u64::from(bytes);
        self.berths.pop_front()?.cut(bytes as usize)
    }

    fn drop_first(&mut self, count: usize) {
        self.berths.drain(..count);
        self.first = self.first.wrapping_add(count as u32);
    }

    /// Names some more where half or less are left: each change takes a line away from the sender.
    pub(super) fn name_more(&mut self, link: &Link, landings: &mut Landings, helper: &Helper) {
        let wanted = (NAMED_BYTES / self.room_bytes.max(1)).clamp(LEAST_BERTHS, BERTHS);
        if self.berths.len() > wanted / 2 {
            return;
        }
        while self.berths.len() < wanted
            && let Some(landing) = landings.take_worth(link, self.room_bytes, helper, self.stream_bytes)
        {
            let number = self.first.wrapping_add(self.berths.len() as u32);
            link.desks.incoming().berths.name(Berth { number, spot: landing.spot(), bytes: self.room_bytes });
            self.berths.push_back(landing);
        }
    }
}

/// The first berth from `next` on that is long enough. Those before it are passed over.
pub(super) fn next_berth(desk: &Desk, next: &mut u32, bytes: usize) -> Option<Berth> {
    for _ in 0..BERTHS {
        match desk.berths.berth(*next)? {
            berth if berth.bytes >= bytes => return Some(berth),
            _ => *next = next.wrapping_add(1),
        }
    }
    None
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const GRAIN: u64 = GRAIN_BYTES as u64;

    #[test]
    fn a_berth_is_found_by_its_number_once_it_is_named() {
        let words = BerthWords::default();
        assert_eq!(words.berth(0), None);
        for number in [0, 1, u32::MAX] {
            let spot = Spot { number: 1 << 40 | 7, offset: 4095 * GRAIN };
            let berth = Berth { number, spot, bytes: MOST_BYTES };
            words.name(berth);
            assert_eq!(words.berth(number), Some(berth));
            assert_eq!(words.berth(number.wrapping_add(BERTHS as u32)), None, "the next one in its place");
        }
    }

    #[test]
    fn a_sender_passes_over_what_is_too_short_for_its_message() {
        let desk = Desk::default();
        let spot = Spot { number: 1, offset: 0 };
        for number in 0..5 {
            let bytes = if number < 3 { 64 << 10 } else { 128 << 10 };
            desk.berths.name(Berth { number, spot, bytes });
        }
        let mut next = 0;
        let find = |next: &mut u32, bytes| next_berth(&desk, next, bytes).map(|berth| berth.number);
        assert_eq!(find(&mut next, 64 << 10), Some(0));
        assert_eq!(find(&mut next, 100 << 10), Some(3));
        assert_eq!((find(&mut next, 1), next), (Some(3), 3));
        assert_eq!((find(&mut next, MOST_BYTES), next), (None, 5));
    }

    #[test]
    fn what_stands_in_the_ring_survives_the_way_and_is_nothing_else() {
        let arrived = Arrived { number: u32::MAX, bytes: 7 };
        assert_eq!(Arrived::from_bytes(&arrived.to_bytes()), Some(arrived));
        for len in [0, 7, 9, 16, 24] {
            assert_eq!(Arrived::from_bytes(&vec![0; len]), None);
        }
    }

    #[test]
    fn a_message_in_a_berth_that_was_not_named_is_none() {
        let mut named = Named::default();
        for number in [0, 1, u32::MAX] {
            assert!(named.take(Arrived { number, bytes: 1 }).is_none());
        }
    }
}
