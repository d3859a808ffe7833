//! Berths: memory that a receiver names before there are messages for it, a [landing](super::landing) for some of them each.
//!
//! A stream of messages of some 100 KiB goes through the ring: its sender waits for nobody, and goes ahead of its receiver. A sender that
//! has a berth does so as well. It copies one message behind the other there, past the caches, and puts into the ring how long each is,
//! which stands in line there with other messages: one copy, of which the receiver has no part. Where there is no berth the message goes
//! through the ring, as it does where that is the [faster](super::ahead) way.
//!
//! A sender asks for berths, by a word in the ring, once it has sent a long stream for which they are the faster way, and again for each
//! [`BERTH_BYTES`] for which there was none. The receiver names some if that sender may write its memory, as for any landing, and more when
//! some are full. A message is cut off the berth in which it came, and given back by itself; so berths have as much memory as the messages
//! that are kept, but none before that is worth its while. What comes through the ring meanwhile uses what is left over of it: the receiver
//! does not need twice as much where the way changes.
//!
//! The words `places[number % PLACES]` are the berth with this number: where it is, and its number. The receiver writes them when the
//! berth before in that place is full, which it knows by a message in a later one: a sender that has used that writes to those before no
//! more. What a peer says is checked: the sender finds the place within what the other side has registered, the receiver cuts messages off
//! berths that it has named, while they last.

use std::collections::VecDeque;
use std::mem;

use super::helper::Helper;
use super::landing::{GRAIN_BYTES, Landing, Landings};
use super::link::Link;
use super::registered::Spot;
use super::sender::DEFAULT_SINGLE_COPY_BYTES;
use crate::atomic::{AtomicU64, Ordering};

/// How long each is. Any message that comes to one fits it.
pub(super) const BERTH_BYTES: usize = 1 << 20;
/// How many are named at a time.
const PLACES: usize = if cfg!(loom) { 2 } else { 3 };
/// What they need together.
pub(super) const BERTHS_BYTES: usize = PLACES * BERTH_BYTES;
/// How much of a stream goes through the ring before its sender asks: by then it has found out how it is the fastest.
pub(super) const STREAM_BYTES: u64 = 64 << 20;

/// Below the number of a berth: a place in units of [`GRAIN_BYTES`], or the length of a message.
const NUMBER_SHIFT: u32 = 20;
const FIELD: u64 = (1 << NUMBER_SHIFT) - 1;

const _: () = assert!(DEFAULT_SINGLE_COPY_BYTES <= BERTH_BYTES && BERTH_BYTES as u64 <= FIELD + 1);

/// The words of one direction.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct BerthWords {
    places: [Place; PLACES],
}

#[derive(Default)]
#[repr(C)]
struct Place {
    /// The number of the registration in which it lies.
    memory: AtomicU64,
    /// Where in that, and the number of the berth. The first one is 1.
    berth: AtomicU64,
}

impl BerthWords {
    fn place(&self, number: u64) -> &Place {
        &self.places[(number % PLACES as u64) as usize]
    }

    fn name(&self, number: u64, spot: Spot) {
        let place = self.place(number);
        let grain = spot.offset / GRAIN_BYTES as u64;
        place.memory.store(spot.number, Ordering::Relaxed);
        // Release: the sender that sees it sees the word before, and writes behind the last look at what lay there.
        place.berth.store(number << NUMBER_SHIFT | grain, Ordering::Release);
    }

    /// Where the berth with this number is, if it is named.
    pub(super) fn spot(&self, number: u64) -> Option<Spot> {
        let place = self.place(number);
        let bits = place.berth.load(Ordering::Acquire);
        let offset = (bits & FIELD) * GRAIN_BYTES as u64;
        (bits >> NUMBER_SHIFT == number).then(|| Spot { number: place.memory.load(Ordering::Relaxed), offset })
    }
}

/// What stands in the ring for a message that its sender has written to a berth, or [asks](Arrived::ASK) for more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) berth: u64,
    pub(super) bytes: usize,
}

impl Arrived {
    /// Shorter than an [`Offer`](super::desk::Offer), by which the receiver tells them apart.
    const BYTES: usize = 8;

    pub(super) const ASK: Self = Self { berth: 0, bytes: 0 };

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        ((self.berth << NUMBER_SHIFT) | self.bytes as u64).to_le_bytes()
    }

    /// `None` is something else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = u64::from_le_bytes(bytes.try_into().ok()?);
        Some(Self { berth: word >> NUMBER_SHIFT, bytes: (word & FIELD) as usize })
    }
}

/// How much of a berth a message of `bytes` takes.
pub(super) fn room_for(bytes: usize) -> usize {
    bytes.next_multiple_of(GRAIN_BYTES)
}

/// The berths that a receiver has named.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// What is left of each.
    berths: VecDeque<Landing>,
    /// How many were full before the first.
    full: u64,
    /// How much has come to them, or could have.
    streamed: u64,
    /// Whether one has become full since some were named, or the sender has asked.
    is_due: bool,
}

impl Named {
    /// The sender has asked for more.
    pub(super) fn ask(&mut self) {
        self.streamed = STREAM_BYTES.max(self.streamed + BERTH_BYTES as u64);
        self.is_due = true;
    }

    /// Names as many as there should be.
    #[inline]
    pub(super) fn name(&mut self, link: &Link, landings: &mut Landings, helper: &Helper) {
        let is_due = mem::take(&mut self.is_due);
        while is_due
            && self.berths.len() < PLACES
            && let Some(landing) = landings.take_berth(link, helper, self.streamed)
        {
            let number = self.full + self.berths.len() as u64 + 1;
            link.desks.incoming().berths.name(number, landing.spot());
            self.berths.push_back(landing);
        }
    }

    /// The message that has come to a berth. Those before are full. `None`: there is no such berth, or so much is not left of it.
    pub(super) fn take(&mut self, Arrived { berth, bytes }: Arrived) -> Option<Landing> {
        let full = berth.checked_sub(self.full + 1).filter(|full| *full < self.berths.len() as u64)?;
        self.berths.drain(..full as usize);
        self.full += full;
        self.is_due |= full > 0;
        self.streamed += room_for(bytes) as u64;
        self.berths.front_mut()?.cut(bytes, room_for(bytes))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_berth_is_found_by_its_number_once_it_is_named() {
        let words = BerthWords::default();
        assert_eq!([0, 1, 2].map(|number| words.spot(number).is_some_and(Spot::is_somewhere)), [false; 3]);
        for number in [1, 2, 1 << 40] {
            let spot = Spot { number: (1 << 40) | 7, offset: 4095 * GRAIN_BYTES as u64 };
            words.name(number, spot);
            assert_eq!(words.spot(number), Some(spot));
            assert_eq!(words.spot(number + PLACES as u64), None, "the next one in its place");
        }
    }

    #[test]
    fn what_stands_in_the_ring_survives_the_way_and_is_nothing_else() {
        let arrived = Arrived { berth: 1 << 40, bytes: BERTH_BYTES - 1 };
        assert_eq!(Arrived::from_bytes(&arrived.to_bytes()), Some(arrived));
        for len in [0, 7, 9, 16, 24] {
            assert_eq!(Arrived::from_bytes(&vec![0; len]), None);
        }
    }

    #[test]
    fn a_message_in_a_berth_that_was_not_named_is_none() {
        let mut named = Named::default();
        for berth in [0, 1, FIELD] {
            assert!(named.take(Arrived { berth, bytes: 1 }).is_none());
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    #![expect(unsafe_code, reason = "has loom watch memory that is not atomic")]

    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::model::Builder;
    use loom::thread;

    use super::*;

    /// The memory of a berth.
    #[derive(Default)]
    struct Memory(UnsafeCell<u64>);

    // SAFETY: loom fails a model in which two threads use it at the same time and one of them writes.
    unsafe impl Sync for Memory {}

    #[derive(Default)]
    struct Shared {
        words: BerthWords,
        memory: [Memory; 2],
        /// The last message.
        ring: AtomicU64,
    }

    fn spot(number: u64) -> Spot {
        Spot { number: number + 100, offset: number % 2 * GRAIN_BYTES as u64 }
    }

    fn send(shared: &Shared, number: u64) {
        let found = loop {
            match shared.words.spot(number) {
                Some(found) => break found,
                None => thread::yield_now(),
            }
        };
        assert_eq!(found, spot(number));
        // SAFETY: as above.
        shared.memory[number as usize % 2].0.with_mut(|memory| unsafe { *memory = number });
        shared.ring.store(number, Ordering::Release);
    }

    #[test]
    fn loom_a_berth_is_written_behind_the_last_look_at_what_lay_there() {
        let mut model = Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::<Shared>::default();
            let theirs = Arc::clone(&shared);
            let sender = thread::spawn(move || (1..=4).for_each(|number| send(&theirs, number)));
            [1, 2].map(|number| shared.words.name(number, spot(number)));
            for number in 1..=4 {
                while shared.ring.load(Ordering::Acquire) < number {
                    thread::yield_now();
                }
                // SAFETY: as above.
                assert_eq!(shared.memory[number as usize % 2].0.with(|memory| unsafe { *memory }), number);
                if number > 1 {
                    // The one before is full.
                    shared.words.name(number + 1, spot(number + 1));
                }
            }
            sender.join().unwrap();
        });
    }
}
