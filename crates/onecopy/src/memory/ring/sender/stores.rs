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
//! Short messages are measured by themselves, from [`LEAST_BYTES`] on. Streams of 4 and 8 KiB by ordinary stores and by non-temporal ones
//! through a bare ring take 0.11 to 0.22 and 0.30, 0.19 and 0.46 us each where a cache-line round trip takes 105 ns, and 1.9 and 0.31, 3.3
//! and 0.5 where it takes 520.
//!
//! When the cores move away from each other ordinary stores are soon ten times slower. So the stores of a piece now and then are timed
//! alone, without what is waited for: if they have become much slower since they were chosen, both kinds are measured at once.

use std::time::{Duration, Instant};

use super::Ring;

/// Shorter messages go by ordinary stores, and lie near. Measured by a bare ring of two threads, near and by non-temporal stores into 2 MiB, in
/// ns: 1 KiB 160 and 190, 2 KiB 390 and 225 where a cache-line round trip takes 550; 62 and 195, 110 and 230 where it takes 105.
pub(super) const LEAST_BYTES: u64 = 2 << 10;
/// Messages of up to this are measured by themselves.
const SHORT_BYTES: u64 = 8 << 10;
/// Shorter parts of a piece go by ordinary stores: each that does not is waited for.
pub(super) const LEAST_PART_BYTES: usize = 8 << 10;
/// How many parts of a round of the bulk are timed: others may use the machine, so the longest does not count.
const SAMPLES: u32 = 4;
/// How many samples by the others are not counted: they find the lines where the present ones left them.
const UNCOUNTED_SAMPLES: u32 = 2 * SAMPLES;
/// How much goes before the first measurement, of the length of the bulk: it meets no page faults.
const UNMEASURED_ROUNDS: u64 = 2;
/// How much goes between two pieces whose stores alone are timed: streams of hot 64 KiB lose 3 % of their speed with half of it.
const LOOK_BYTES: u64 = 512 << 10;
/// Of how many such times the middle one counts: something else may have delayed one.
const LOOKS: usize = 3;
/// How many times as long as when they were chosen stores may take that are still the right ones. Measured, in ps a byte: near 22 to 41
/// hot, 52 to 146 cold; far 380 to 410 by ordinary stores, and by non-temporal ones 18 to 48 hot, 39 to 66 cold.
const TOLERANCE: u64 = 3;

/// How to find out which are the faster ones.
#[derive(Debug)]
struct Rules {
    /// Which are taken to be.
    past_caches: bool,
    /// How much goes between two measurements: each time twice as much, as long as they say the same. The slower one goes on for so long
    /// as is not felt.
    pause_bytes: [u64; 2],
    /// After how many times as long as a round by the present stores takes the others are given up, which have three to go.
    patience: u32,
    /// In how many quarters of the time non-temporal ones must be done to be the faster ones: into lines that are in the cache they
    /// are as fast as others for a while.
    quarters: u32,
}

/// Long messages go past the caches at first: that costs little where it is not the faster way, and much is won where it is.
const LONG: Rules = Rules { past_caches: true, pause_bytes: [16 << 20, 512 << 20], patience: 4, quarters: 3 };
/// Short ones are as likely to be waited for as to be one of many. What ordinary stores take for those varies much where the cores are near to
/// each other, and non-temporal ones are not to be taken for the faster ones there; where the cores are far apart they take a quarter.
const SHORT: Rules = Rules { past_caches: false, pause_bytes: [64 << 20, 512 << 20], patience: 2, quarters: 2 };

/// Which stores are the faster ones, for messages of each length.
#[derive(Debug)]
pub(super) struct Stores {
    /// For those that would lie near.
    short: Choice,
    long: Choice,
}

impl Stores {
    /// For a bulk of so many bytes.
    pub(super) fn new(bulk_bytes: u64) -> Self {
        Self { short: Choice::new(&SHORT, bulk_bytes), long: Choice::new(&LONG, bulk_bytes) }
    }

    #[inline]
    fn of(&self, total: u64) -> Option<&Choice> {
        let choice = if total <= SHORT_BYTES { &self.short } else { &self.long };
        (total >= LEAST_BYTES).then_some(choice)
    }

    #[inline]
    fn of_mut(&mut self, total: u64) -> Option<&mut Choice> {
        let choice = if total <= SHORT_BYTES { &mut self.short } else { &mut self.long };
        (total >= LEAST_BYTES).then_some(choice)
    }

    /// Whether the next piece of a message of `total` bytes goes past the caches.
    #[inline]
    pub(super) fn go_past_caches(&self, total: u64) -> bool {
        self.of(total).is_some_and(|choice| choice.past_caches != choice.is_trial())
    }

    /// The time, if the next piece of a message of `total` bytes is one to be measured.
    #[inline]
    pub(super) fn begin(&self, total: u64) -> Option<Instant> {
        self.of(total).filter(|choice| choice.left_bytes == 0).map(|_| Instant::now())
    }

    /// Counts a piece of so many bytes that was sent since `begin`.
    #[inline]
    pub(super) fn end(&mut self, begin: Option<Instant>, total: u64, bytes: usize) {
        let Some(choice) = self.of_mut(total) else { return };
        match begin {
            Some(begin) => choice.measure(begin.elapsed(), bytes),
            None => choice.left_bytes = choice.left_bytes.saturating_sub(bytes as u64),
        }
    }

    /// The time, if the stores of the next piece, of so many bytes, are to be timed.
    #[inline]
    pub(super) fn begin_look(&self, total: u64, bytes: usize) -> Option<Instant> {
        self.of(total).filter(|choice| choice.is_look_due(bytes)).map(|_| Instant::now())
    }

    /// Looks at how long the stores of that piece took.
    #[cold]
    pub(super) fn end_look(&mut self, begin: Instant, total: u64, bytes: usize) {
        if let Some(choice) = self.of_mut(total) {
            choice.look(begin.elapsed(), bytes);
        }
    }
}

impl Stores {
    /// Whether those past the caches were the faster ones for long messages, and not both are being measured.
    #[inline]
    pub(super) fn long_past_caches(&self) -> bool {
        self.long.left_bytes > 0 && self.long.past_caches
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn pin_past_caches(&mut self) {
        (self.long.past_caches, self.long.left_bytes) = (true, u64::MAX);
    }
}

/// Puts a piece into the bulk at `position`, or a part of one.
#[inline]
pub(super) fn put(ring: &Ring, past_caches: bool, position: u64, bytes: &[u8]) {
    match past_caches {
        true => ring.put_bulk_past_caches(position, bytes),
        false => ring.put_bulk(position, bytes),
    }
}

/// Which stores are the faster ones.
#[derive(Debug)]
struct Choice {
    rules: &'static Rules,
    past_caches: bool,
    bulk_bytes: u64,
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

impl Choice {
    fn new(rules: &'static Rules, bulk_bytes: u64) -> Self {
        Self {
            rules,
            past_caches: rules.past_caches,
            bulk_bytes,
            left_bytes: UNMEASURED_ROUNDS * bulk_bytes,
            pause_bytes: rules.pause_bytes[0],
            samples: 0,
            sample_bytes: 0,
            sample_time: Duration::ZERO,
            rounds: Default::default(),
            trial_time: Duration::ZERO,
            usual_ps: None,
            looks_ps: Vec::with_capacity(LOOKS),
        }
    }

    /// Whether the others are being tried.
    #[inline]
    fn is_trial(&self) -> bool {
        self.samples >= SAMPLES
    }

    #[inline]
    fn is_look_due(&self, bytes: usize) -> bool {
        self.left_bytes > 0 && self.left_bytes % LOOK_BYTES < bytes as u64
    }

    /// Looks at how long the stores of a piece took. If they have become much slower than when they were chosen the cores have moved
    /// away from each other, and both are measured soon.
    fn look(&mut self, time: Duration, bytes: usize) {
        self.looks_ps.push(1000 * time.as_nanos() as u64 / bytes as u64);
        if self.looks_ps.len() < LOOKS {
            return;
        }
        self.looks_ps.sort_unstable();
        let now = self.looks_ps[LOOKS / 2];
        self.looks_ps.clear();
        if now > TOLERANCE * *self.usual_ps.get_or_insert(now) {
            (self.left_bytes, self.pause_bytes) = (0, self.rules.pause_bytes[0]);
        }
    }

    #[cold]
    fn measure(&mut self, time: Duration, bytes: usize) {
        self.sample_bytes += bytes as u64;
        self.sample_time += time;
        if self.is_trial() {
            self.trial_time += time;
            if self.trial_time > self.rules.patience * self.rounds[0].total {
                return self.decide(false);
            }
        }
        if self.sample_bytes < self.bulk_bytes / u64::from(SAMPLES) {
            return;
        }
        if !self.is_trial() {
            self.rounds[0].add(self.sample_time);
        } else if self.samples >= SAMPLES + UNCOUNTED_SAMPLES {
            self.rounds[1].add(self.sample_time);
        }
        (self.sample_bytes, self.sample_time) = (0, Duration::ZERO);
        self.samples += 1;
        if self.samples == 2 * SAMPLES + UNCOUNTED_SAMPLES {
            let [present, others] = self.rounds.map(Round::usual_time);
            let enough = if self.past_caches { present } else { present / 4 * self.rules.quarters };
            self.decide(others < enough);
        }
    }

    /// Ends a measurement, by which the others are faster, or not.
    fn decide(&mut self, changes: bool) {
        let [least, most] = self.rules.pause_bytes;
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

    fn look(choice: &mut Choice, micros: &[u64]) {
        for &micros in micros {
            assert!(choice.left_bytes > 0);
            choice.look(Duration::from_micros(micros), PIECE);
        }
    }

    #[test]
    fn both_are_measured_at_once_when_the_present_ones_have_become_much_slower() {
        let mut choice = Choice::new(&LONG, 2 << 20);
        look(&mut choice, &[1, 1, 1, 2, 50, 1, 2, 3, 2, 50, 1, 2, 1, 50, 50]);
        assert_eq!(choice.left_bytes, 0);
        // The same are chosen again: they are what is usual then.
        choice.decide(false);
        look(&mut choice, &[50, 50, 50, 60, 1, 140, 60, 140, 140, 1, 1, 1, 140, 140, 140]);
        assert!(choice.left_bytes > 0);
        look(&mut choice, &[160, 160, 160]);
        assert_eq!(choice.left_bytes, 0);
    }

    #[test]
    fn one_piece_of_many_is_timed_and_none_while_both_are_measured() {
        let (total, mut stores, mut timed) = (1 << 20, Stores::new(2 << 20), 0);
        for _ in 0..(4 << 20) / PIECE {
            timed += u64::from(stores.begin_look(total, PIECE).is_some());
            assert!(stores.begin(total).is_none());
            stores.end(None, total, PIECE);
        }
        assert_eq!((timed, stores.long.left_bytes), ((4 << 20) / LOOK_BYTES, 0));
        assert!(stores.begin_look(total, PIECE).is_none() && stores.begin(total).is_some());
    }

    /// As many ns for each message, by ordinary stores and by non-temporal ones, for `rounds` of the bulk.
    fn send(stores: &mut Stores, total: u64, ns: [u64; 2], rounds: u64) {
        for _ in 0..rounds * (2 << 20) / total {
            let time = Duration::from_nanos(ns[usize::from(stores.go_past_caches(total))]);
            match stores.begin(total) {
                Some(_) => stores.of_mut(total).unwrap().measure(time, total as usize),
                None => stores.end(None, total, total as usize),
            }
        }
    }

    #[test]
    fn what_is_faster_is_found_out_for_short_messages_and_for_long_ones() {
        let mut stores = Stores::new(2 << 20);
        let chosen = |stores: &Stores| [1024, 4096, 16384].map(|total| stores.go_past_caches(total));
        assert_eq!(chosen(&stores), [false, false, true]);
        send(&mut stores, 4096, [1400, 350], 7);
        assert_eq!(chosen(&stores), [false, true, true]);
        send(&mut stores, 16384, [500, 1500], 7);
        assert_eq!(chosen(&stores), [false, true, false]);
        send(&mut stores, 1024, [500, 5], 100);
        assert_eq!(chosen(&stores), [false, true, false]);
    }
}
