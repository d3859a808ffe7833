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
//!
//! When the cores move away from each other ordinary stores are soon ten times slower. So the stores of a piece now and then are timed
//! alone, without what is waited for: if they have become much slower since they were chosen, both kinds are measured at once.

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
/// How much goes between two pieces whose stores alone are timed: streams of hot 64 KiB lose 3 % of their speed with half of it.
const LOOK_BYTES: u64 = 512 << 10;
/// Of how many such times the middle one counts: something else may have delayed one.
const LOOKS: usize = 3;
/// How many times as long as when they were chosen stores may take that are still the right ones. Measured, in ps a byte: near 22 to 41
/// hot, 52 to 146 cold; far 380 to 410 by ordinary stores, and by non-temporal ones 18 to 48 hot, 39 to 66 cold.
const TOLERANCE: u64 = 3;
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
    /// How many ps the present ones took for a byte when they had been chosen.
    usual_ps: Option<u64>,
    /// What they have taken lately, up to [`LOOKS`] times.
    looks_ps: Vec<u64>,
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
            usual_ps: None,
            looks_ps: Vec::with_capacity(LOOKS),
        }
    }

    /// The time, if the stores of the next piece, of so many bytes, are to be timed.
    #[inline]
    pub(super) fn begin_look(&self, bytes: usize) -> Option<Instant> {
        let is_due = bytes >= LEAST_BYTES && self.left_bytes > 0 && self.left_bytes % LOOK_BYTES < bytes as u64;
        is_due.then(Instant::now)
    }

    /// Looks at how long the stores of a piece took. If they have become much slower than when they were chosen the cores have moved
    /// away from each other, and both are measured soon.
    #[cold]
    pub(super) fn look(&mut self, time: Duration, bytes: usize) {
        self.looks_ps.push(1000 * time.as_nanos() as u64 / bytes as u64);
        if self.looks_ps.len() < LOOKS {
            return;
        }
        self.looks_ps.sort_unstable();
        let now = self.looks_ps[LOOKS / 2];
        self.looks_ps.clear();
        if now > TOLERANCE * *self.usual_ps.get_or_insert(now) {
            (self.left_bytes, self.pause_bytes) = (0, PAUSE_BYTES[0]);
        }
    }

    /// Whether so many bytes go past the caches next.
    #[inline]
    pub(super) fn go_past_caches(&self, bytes: usize) -> bool {
        let is_trial = self.samples >= SAMPLES;
        bytes >= LEAST_BYTES && self.past_caches != is_trial
    }

    /// Puts a piece into the bulk at `position`.
    #[inline]
    pub(super) fn put(&self, ring: &Ring, position: u64, bytes: &[u8]) {
        match self.go_past_caches(bytes.len()) {
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
        (self.samples, self.sample_bytes, self.usual_ps) = (0, 0, None);
        self.looks_ps.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 16 << 10;

    fn look(stores: &mut Stores, micros: &[u64]) {
        for &micros in micros {
            assert!(stores.left_bytes > 0);
            stores.look(Duration::from_micros(micros), PIECE);
        }
    }

    #[test]
    fn both_are_measured_at_once_when_the_present_ones_have_become_much_slower() {
        let mut stores = Stores::new(2 << 20);
        look(&mut stores, &[1, 1, 1, 2, 50, 1, 2, 3, 2, 50, 1, 2, 1, 50, 50]);
        assert_eq!(stores.left_bytes, 0);
        // The same are chosen again: they are what is usual then.
        stores.decide(false);
        look(&mut stores, &[50, 50, 50, 60, 1, 140, 60, 140, 140, 1, 1, 1, 140, 140, 140]);
        assert!(stores.left_bytes > 0);
        look(&mut stores, &[160, 160, 160]);
        assert_eq!(stores.left_bytes, 0);
    }

    #[test]
    fn one_piece_of_many_is_timed_and_none_while_both_are_measured() {
        let mut stores = Stores::new(2 << 20);
        let mut timed = 0;
        for _ in 0..(4 << 20) / PIECE {
            timed += u64::from(stores.begin_look(PIECE).is_some());
            stores.end(None, PIECE, 2 << 20);
        }
        assert_eq!((timed, stores.left_bytes), ((4 << 20) / LOOK_BYTES, 0));
        assert!(stores.begin_look(PIECE).is_none() && stores.begin(PIECE).is_some());
    }
}
