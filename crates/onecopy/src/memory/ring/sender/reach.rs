//! How much of the bulk a stream of short messages goes through before it comes back to its begin: what is [near](super::near), or all; and
//! whether the lines of the next message are asked for in advance.
//!
//! Where a core takes a line that another one has read from that one's caches, the fewer lines the better: they are in the first cache of
//! both. Where it comes from a cache that both share, those that have gone there by themselves meanwhile come sooner, and of themselves. So that
//! depends on the machine, and on where on it the two run. Streams of 1 KiB, in ns a message, through 8 KiB and through 2 MiB: 61 and 181 where
//! a cache-line round trip takes 100 on a processor with AVX-512. On an AMD of Zen 3, where a core has 512 KiB of second cache, through 8 KiB,
//! through 2 MiB, and through 2 MiB asked for in advance: 90, 65 and 78 where it takes 140, 300, 330 and 250 where it takes 570.
//!
//! Nobody can be asked, so each sender measures it: how long the messages take that go into the room of which a look back has told that it is
//! free. That includes what the caller does meanwhile, and the middle one of many such times counts.

use std::time::{Duration, Instant};

/// How much goes each way in a measurement, beside what goes before to put the lines where that way leaves them.
const MEASURED_BYTES: u64 = 1 << 20;
/// How much is timed together: many messages, so that the wait for a receiver that is slower is a part of each such time.
const TIMED_BYTES: u64 = 64 << 10;
/// How much goes before the first measurement, of the length of the bulk, as for [`Stores`](super::stores::Stores).
const UNMEASURED_ROUNDS: u64 = 2;
/// How much goes between two measurements: each time twice as much, as long as they say the same. Now and then one is wrong, and the first
/// one most often. A way that takes three times as long costs 15 % of the time at first, and half a percent in the end.
const PAUSE_BYTES: [u64; 2] = [16 << 20, 1 << 30];
/// In how many eighths of the time another way has to be done to be the faster one.
const EIGHTHS: u64 = 7;

/// How a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through what is near, asked for in advance.
    Near,
    /// Through all of the bulk.
    Whole,
    /// The same, asked for in advance.
    WholeAhead,
}

impl Way {
    /// The two others.
    fn others(self) -> [Self; 2] {
        match self {
            Self::Near => [Self::Whole, Self::WholeAhead],
            Self::Whole => [Self::WholeAhead, Self::Near],
            Self::WholeAhead => [Self::Whole, Self::Near],
        }
    }
}

/// Which way is the fastest one.
#[derive(Debug)]
pub(super) struct Reach {
    way: Way,
    /// Which of the others is tried next, or now.
    candidate: usize,
    bulk_bytes: u64,
    /// How much goes so before it and another one are measured.
    left_bytes: u64,
    pause_bytes: u64,
    /// How much was free where the next message begins, when this side last looked.
    room_bytes: u64,
    /// When it did, while it measures.
    begin: Option<Instant>,
    is_trial: bool,
    /// How much has gone by the present way, or by the other one.
    passed_bytes: u64,
    /// What is being timed.
    timed_bytes: u64,
    time: Duration,
    /// How many ps a byte took, by the present way and by the other one.
    ps: [Vec<u64>; 2],
}

impl Reach {
    /// For a bulk of so many bytes.
    pub(super) fn new(bulk_bytes: u64) -> Self {
        Self {
            way: Way::Near,
            candidate: 0,
            bulk_bytes,
            left_bytes: if cfg!(loom) { u64::MAX } else { UNMEASURED_ROUNDS * bulk_bytes },
            pause_bytes: PAUSE_BYTES[0],
            room_bytes: 0,
            begin: None,
            is_trial: false,
            passed_bytes: 0,
            timed_bytes: 0,
            time: Duration::ZERO,
            ps: Default::default(),
        }
    }

    /// How messages go now.
    #[inline]
    pub(super) fn way(&self) -> Way {
        if self.is_trial { self.way.others()[self.candidate] } else { self.way }
    }

    /// Counts what has gone since this side last looked, of whose room `left_bytes` are left, up to the end of a message of
    /// `message_bytes` behind which there is room for so many more.
    #[inline]
    pub(super) fn count(&mut self, left_bytes: u64, message_bytes: u64, room_bytes: u64) {
        let bytes = self.room_bytes.saturating_sub(left_bytes) + message_bytes;
        self.room_bytes = room_bytes;
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        if self.left_bytes == 0 {
            let now = Instant::now();
            if let Some(begin) = self.begin.replace(now) {
                self.measure(now - begin, bytes);
            }
        }
    }

    #[cold]
    fn measure(&mut self, time: Duration, bytes: u64) {
        self.timed_bytes += bytes;
        self.time += time;
        if self.timed_bytes < TIMED_BYTES {
            return;
        }
        let bytes = std::mem::take(&mut self.timed_bytes);
        let ps = 1000 * std::mem::take(&mut self.time).as_nanos() as u64 / bytes;
        self.passed_bytes += bytes;
        if !self.is_trial {
            self.ps[0].push(ps);
            if self.passed_bytes >= MEASURED_BYTES {
                (self.is_trial, self.passed_bytes) = (true, 0);
            }
            return;
        }
        // The lines lie as this way leaves them, and have pages, when it has been through all.
        if self.passed_bytes > self.bulk_bytes {
            self.ps[1].push(ps);
        }
        if self.passed_bytes >= self.bulk_bytes + MEASURED_BYTES {
            let [present, other] = self.ps.each_mut().map(|ps| middle(ps));
            self.decide(other < present / 8 * EIGHTHS);
        }
    }

    /// Ends a measurement, by which the other way is faster, or not.
    fn decide(&mut self, changes: bool) {
        let [least, most] = PAUSE_BYTES;
        (self.way, self.candidate) = if changes { (self.way(), 0) } else { (self.way, 1 - self.candidate) };
        self.pause_bytes = if changes { least } else { most.min(2 * self.pause_bytes) };
        self.left_bytes = self.pause_bytes;
        (self.begin, self.is_trial, self.passed_bytes) = (None, false, 0);
        (self.timed_bytes, self.time) = (0, Duration::ZERO);
        self.ps = Default::default();
    }
}

/// The middle one of the times. That they are in another order then does not matter.
fn middle(ps: &mut [u64]) -> u64 {
    let middle = ps.len() / 2;
    if ps.is_empty() { 0 } else { *ps.select_nth_unstable(middle).1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BULK: u64 = 2 << 20;
    const WINDOW: u64 = TIMED_BYTES;

    /// As long as the next measurement takes, by windows that take so many ns near and through all of the bulk, and some much longer.
    fn measure(reach: &mut Reach, ns: [u64; 3]) {
        let mut window = 0;
        reach.left_bytes = 0;
        while reach.left_bytes == 0 {
            window += 1;
            let time = ns[reach.way() as usize] * if window % 5 == 0 { 50 } else { 8 };
            reach.measure(Duration::from_nanos(time), WINDOW);
        }
    }

    /// Both others are tried.
    fn measure_all(reach: &mut Reach, ns: [u64; 3]) -> Way {
        measure(reach, ns);
        measure(reach, ns);
        reach.way()
    }

    #[test]
    fn the_fastest_way_is_found_out_whatever_the_caller_does_meanwhile() {
        let mut reach = Reach::new(BULK);
        assert_eq!(reach.way(), Way::Near);
        assert_eq!(measure_all(&mut reach, [900, 680, 780]), Way::Whole);
        assert_eq!(measure_all(&mut reach, [950, 900, 950]), Way::Whole);
        assert_eq!(measure_all(&mut reach, [890, 900, 890]), Way::Whole, "nearly as fast");
        assert_eq!(measure_all(&mut reach, [3000, 3300, 2500]), Way::WholeAhead);
        assert_eq!(measure_all(&mut reach, [500, 680, 780]), Way::Near, "the better one of two that are better");
        assert_eq!(measure_all(&mut reach, [500, 680, 300]), Way::WholeAhead);
    }

    #[test]
    fn a_way_that_is_slower_is_tried_seldom() {
        let mut reach = Reach::new(BULK);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            measure(&mut reach, [500, 1500, 1000]);
            assert_eq!(reach.way(), Way::Near);
            pauses.push(reach.left_bytes >> 20);
        }
        assert_eq!(pauses, [32, 64, 128, 256, 512, 1024]);
    }

    #[test]
    fn what_has_gone_is_counted_by_the_room_that_is_left() {
        let mut reach = Reach::new(BULK);
        let all = reach.left_bytes;
        reach.count(0, 1024, 7168);
        reach.count(0, 1024, 7168);
        reach.count(512, 64, 0);
        assert_eq!(all - reach.left_bytes, 1024 + 8192 + 7168 - 512 + 64);
    }
}
