//! By which stores a piece goes into the bulk.
//!
//! Ordinary ones take each line away from the receiver, which read it the last time around, and keep it in this core's caches, until
//! others push it out into one that both cores share, if they share one. Non-temporal ones send it to memory. Which is faster depends
//! on how far the cores are from each other, which nobody can be asked and which changes when a process moves. So each sender measures
//! it: the time in which it sends as much as the bulk holds, for its part in copying and for that of a receiver that it waits for.
//!
//! What two processes reach, in GB/s, by ordinary and by non-temporal stores in a ring of 2 MiB with messages of 64 KiB: near to each
//! other (a cache-line round trip of 110 ns) 40 and 13 hot, 15 and 10 cold; far from each other (490 ns) 2 and 14 hot, and cold. That
//! is a bare pipeline of two copies; a channel reached 25 to 32 hot and 11 to 13 cold near, and 12 far.

use std::time::{Duration, Instant};

use super::Ring;

/// Shorter pieces go by ordinary stores: they are as likely to be waited for as to be one of many.
const LEAST_BYTES: usize = 8 << 10;
/// How many parts of a round of the bulk are timed: others may use the machine, so the longest does not count.
const SAMPLES: u32 = 4;
/// How many samples by the others are not counted: they find the lines where the present ones left them.
const UNCOUNTED_SAMPLES: u32 = 2 * SAMPLES;
/// How much goes between two measurements: each time twice as much, as long as they say the same. The slower one goes on for so
/// long as is not felt, see [`PATIENCE`].
const PAUSE_BYTES: [u64; 2] = [16 << 20, 512 << 20];
/// How much goes before the first measurement, of the length of the bulk: it meets no page faults.
const UNMEASURED_ROUNDS: u64 = 2;
/// After how many times as long as a round by the present stores takes the others are given up, which have three to go.
const PATIENCE: u32 = 4;

#[derive(Debug)]
pub(super) struct Stores {
    /// Which were the faster ones.
    past_caches: bool,
    /// How much goes by them before both are measured.
    left_bytes: u64,
    pause_bytes: u64,
    /// How many samples of this measurement there are: [`SAMPLES`] by the present ones, [`UNCOUNTED_SAMPLES`] and then [`SAMPLES`]
    /// by the others.
    samples: u32,
    /// The sample that is being taken.
    sample_bytes: u64,
    sample_time: Duration,
    /// What a round took, by the present ones and by the others, and the longest sample of it.
    rounds: [Round; 2],
    /// How long the others have taken until now.
    trial_time: Duration,
}

impl Stores {
    /// For a bulk of so many bytes.
    pub(super) fn new(bulk_bytes: u64) -> Self {
        Self {
            // That costs little where it is not the faster way, and much is won where it is.
            past_caches: true,
            left_bytes: UNMEASURED_ROUNDS * bulk_bytes,
            pause_bytes: PAUSE_BYTES[0],
            samples: 0,
            sample_bytes: 0,
            sample_time: Duration::ZERO,
            rounds: Default::default(),
            trial_time: Duration::ZERO,
        }
    }

    /// Puts a piece into the bulk at `position`.
    #[inline]
    pub(super) fn put(&self, ring: &Ring, position: u64, bytes: &[u8]) {
        let is_trial = self.samples >= SAMPLES;
        match bytes.len() >= LEAST_BYTES && self.past_caches != is_trial {
            true => ring.put_bulk_past_caches(position, bytes),
            false => ring.put_bulk(position, bytes),
        }
    }

    /// The time, if the next piece, of at most so many bytes, is one to be measured.
    #[inline]
    pub(super) fn begin(&self, bytes: usize) -> Option<Instant> {
        (self.left_bytes == 0 && bytes >= LEAST_BYTES).then(Instant::now)
    }

    /// Counts a piece that was sent since `begin`.
    #[inline]
    pub(super) fn end(&mut self, begin: Option<Instant>, bytes: usize, bulk_bytes: u64) {
        match begin {
            Some(begin) => self.measure(begin.elapsed(), bytes, bulk_bytes),
            None if bytes >= LEAST_BYTES => self.left_bytes = self.left_bytes.saturating_sub(bytes as u64),
            None => {}
        }
    }

    #[cold]
    fn measure(&mut self, time: Duration, bytes: usize, bulk_bytes: u64) {
        self.sample_bytes += bytes as u64;
        self.sample_time += time;
        if self.samples >= SAMPLES {
            self.trial_time += time;
            if self.trial_time > PATIENCE * self.rounds[0].total {
                return self.decide(false);
            }
        }
        if self.sample_bytes < bulk_bytes / u64::from(SAMPLES) {
            return;
        }
        if self.samples < SAMPLES {
            self.rounds[0].add(self.sample_time);
        } else if self.samples >= SAMPLES + UNCOUNTED_SAMPLES {
            self.rounds[1].add(self.sample_time);
        }
        (self.sample_bytes, self.sample_time) = (0, Duration::ZERO);
        self.samples += 1;
        if self.samples == 2 * SAMPLES + UNCOUNTED_SAMPLES {
            let [present, others] = self.rounds.map(Round::usual_time);
            // Non-temporal stores into lines that are in the cache are as fast as others for a while.
            let enough = if self.past_caches { present } else { present / 4 * 3 };
            self.decide(others < enough);
        }
    }

    /// Ends a measurement, by which the others are faster, or not.
    fn decide(&mut self, changes: bool) {
        let [least, most] = PAUSE_BYTES;
        self.past_caches ^= changes;
        self.pause_bytes = if changes { least } else { most.min(2 * self.pause_bytes) };
        self.left_bytes = self.pause_bytes;
        (self.samples, self.sample_bytes) = (0, 0);
        (self.sample_time, self.trial_time, self.rounds) = (Duration::ZERO, Duration::ZERO, Default::default());
    }
}

/// The time of the samples of a round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    total: Duration,
    longest: Duration,
}

impl Round {
    fn add(&mut self, sample: Duration) {
        self.total += sample;
        self.longest = self.longest.max(sample);
    }

    /// Without the longest.
    fn usual_time(self) -> Duration {
        self.total - self.longest
    }
}
