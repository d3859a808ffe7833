//! A sender that copies too, as its receiver knows it: which part of a message it should copy.
//!
//! Both sides copy equal halves, and the receiver learns from what each of them got of longer messages, and from how long it has waited
//! after shorter ones. Into a [landing](super::landing) the sender copies at twice the speed of the receiver, who needs a system call of
//! 1.5 us before its first byte. So it gets more there, and of a message of less than 1 MiB perhaps all. That depends on the pages
//! on which the message lies, and on the distance of the two processors, so the receiver measures both ways again and again.

use std::time::Duration;

use super::claims::{Copied, End, LONG_SHARE, Units};

/// How long the sender may keep what it has claimed, when everything else is copied. After that it is taken to be
/// descheduled or stopped, and this side copies by itself.
const PATIENCE: Duration = Duration::from_millis(10);

/// Which part of a message the side at the front copies, as the receiver has learned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    now: u32,
    /// What is as good as another one, where nothing tells.
    usual: u32,
}

impl Share {
    const WHOLE: u32 = 1 << 16;
    /// The most by which it changes with a message: a side that was not there for once comes back.
    const STEP: u32 = Self::WHOLE / 16;
    /// The same where each side copied its share.
    const SMALL_STEP: u32 = Self::WHOLE / 128;

    /// The halves of both sides.
    pub(super) const fn half() -> Self {
        Self::of_front(Self::WHOLE / 2)
    }

    /// Three eighths for the side at `end`.
    pub(super) const fn lesser(end: End) -> Self {
        Self::of_front(if matches!(end, End::Front) { Self::WHOLE / 8 * 3 } else { Self::WHOLE / 8 * 5 })
    }

    const fn of_front(usual: u32) -> Self {
        Self { now: usual, usual }
    }

    /// All for the other side than that at `end`.
    pub(super) const fn none(end: End) -> Self {
        Self::of_front(if matches!(end, End::Front) { 0 } else { Self::WHOLE })
    }

    /// That part of so many units.
    pub(super) fn of(self, count: usize) -> usize {
        ((count as u64 * u64::from(self.now) + u64::from(Self::WHOLE / 2)) / u64::from(Self::WHOLE)) as usize
    }

    /// Draws near to what was the part of the receiver, whose end is `end`: `own` of so many units. Where that was its share, and short, it
    /// gets more if it had to wait for the sender; if not, both get nearer to what is usual. A boundary that is not the same for both directions
    /// is a part that the caches exchange: one page more or less for each 64 KiB made 6.0 us of 5.5, far from each other.
    pub(super) fn learn(&mut self, Copied { own, waited }: Copied, count: usize, end: End) {
        let front = if end == End::Front { own } else { count - own };
        let next = if front != self.of(count) {
            let found = (front as u64 * u64::from(Self::WHOLE) / count as u64) as u32;
            self.now.midpoint(found).clamp(self.now - Self::STEP, self.now + Self::STEP)
        } else if front.max(count - front) > LONG_SHARE {
            return;
        } else if waited {
            if end == End::Front { self.now + Self::SMALL_STEP } else { self.now - Self::SMALL_STEP }
        } else {
            self.usual.clamp(self.now - Self::SMALL_STEP, self.now + Self::SMALL_STEP)
        };
        self.now = next.clamp(Self::WHOLE / 8, Self::WHOLE / 8 * 7);
    }
}

/// From how many bytes on both copy in any case: the sender alone is slower from 1 MiB on, by a half and more. Measured bare, one hot message
/// at a time, alone and by two in the best parts, in us: 64 KiB 1.8 and 2.6, 128 KiB 3.5 and 3.1, 256 KiB 6.8 and 5.4, 1 MiB 24 and
/// 19 where a cache-line round trip takes 130 ns; 4.2 and 3.5, 7.8 and 5.0, 15 and 8.3, 55 and 28 at 480 ns; out of small pages the
/// receiver's part takes twice as long.
const BOTH_BYTES: usize = 1 << 20;
/// How many lengths are told apart: each up to the double of the one before.
const LENGTHS: usize = 8;
/// One message of so many goes the way that was the slower one.
const TRIAL: u32 = 32;

/// How fast each way is for messages of about one length.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// In picoseconds for a byte: by both, and by the sender alone. 0 is not measured yet.
    times: [u64; 2],
    messages: u32,
}

impl Ways {
    /// Whether the sender should copy the next message alone.
    fn is_alone(self) -> bool {
        let is_faster = self.times[1] < self.times[0];
        if self.messages.is_multiple_of(TRIAL) { !is_faster } else { is_faster }
    }

    /// Draws near to what was measured, and slowly where that is longer: perhaps a side did not run.
    fn learn(&mut self, is_alone: bool, bytes: usize, took: Duration) {
        self.messages = self.messages.wrapping_add(1);
        let found = (took.as_nanos() as u64).saturating_mul(1000) / (bytes as u64).max(1);
        let time = &mut self.times[usize::from(is_alone)];
        *time = match *time {
            0 => found,
            known if found < known => known - (known - found) / 4,
            known => known + ((found - known) / 4).min(known / 8),
        };
    }
}

/// A sender that copies too, as its receiver knows it.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) patience: Duration,
    share: Share,
    /// The same for a message that goes into a landing.
    landing_share: Share,
    /// For messages that go into a landing, by their length.
    ways: [Ways; LENGTHS],
    /// In how many messages it has copied.
    pub(super) helped: u64,
}

impl Helper {
    /// That of a receiver that claims from `end` on.
    pub(super) fn new(end: End) -> Self {
        let (share, landing_share) = (Share::half(), Share::lesser(end));
        Self { patience: PATIENCE, share, landing_share, ways: Default::default(), helped: 0 }
    }

    /// How to share a message of `bytes`, which may go into a landing.
    pub(super) fn share(&self, bytes: usize, end: End, is_landing: bool) -> Share {
        match is_landing {
            true if bytes < BOTH_BYTES && self.ways[length(bytes)].is_alone() => Share::none(end),
            true => self.landing_share,
            false => self.share,
        }
    }

    /// Keeps in mind how a message was copied that was shared as [`Helper::share`] said.
    pub(super) fn learn(
        &mut self,
        bytes: usize,
        units: Units,
        copied: Copied,
        took: Duration,
        end: End,
        is_landing: bool,
    ) {
        if copied.own < units.count {
            self.helped += 1;
        }
        let is_alone = units.share_of(end).is_empty();
        if is_landing && bytes < BOTH_BYTES {
            self.ways[length(bytes)].learn(is_alone, bytes, took);
        }
        if !is_alone {
            let share = if is_landing { &mut self.landing_share } else { &mut self.share };
            share.learn(copied, units.count, end);
        }
    }
}

/// Which of the lengths these are: those of half of [`BOTH_BYTES`] and more come last.
fn length(bytes: usize) -> usize {
    (LENGTHS + bytes.max(1).ilog2() as usize).saturating_sub(BOTH_BYTES.ilog2() as usize).min(LENGTHS - 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_share_follows_what_each_side_does_but_slowly() {
        let copied = |own| Copied { own, waited: false };
        let mut share = Share::half();
        assert_eq!((share.of(32), share.of(31), share.of(1)), (16, 16, 1));
        share.learn(copied(16), 32, End::Front);
        assert_eq!(share.of(32), 16);
        share.learn(copied(32), 32, End::Back);
        assert_eq!(share.of(32), 14);
        share.learn(copied(20), 32, End::Front);
        assert_eq!(share.of(32), 16);
        for _ in 0..100 {
            share.learn(copied(320), 320, End::Front);
        }
        assert_eq!(share.of(32), 28, "the other side has a share in any case");
        assert_eq!(share.of(1 << 31), 7 << 28, "as many as can be counted");
        share.learn(copied(280), 320, End::Front);
        assert_eq!(share.of(32), 28, "of a long message only what is taken of another's share tells");
    }

    #[test]
    fn of_short_messages_a_receiver_that_waits_gets_more_and_otherwise_both_get_halves() {
        for (end, more) in [(End::Front, 9..=12), (End::Back, 4..=7)] {
            let mut share = Share::half();
            let mut learn = |waited, times| {
                for _ in 0..times {
                    let front = share.of(16);
                    let own = if end == End::Front { front } else { 16 - front };
                    share.learn(Copied { own, waited }, 16, end);
                }
                share.of(16)
            };
            assert!(more.contains(&learn(true, 20)), "{end:?}");
            assert_eq!(learn(false, 1000), 8, "{end:?}");
        }
    }

    #[test]
    fn the_faster_way_is_taken_and_the_other_one_tried_now_and_then() {
        let mut ways = Ways::default();
        let mut run = |times: [u64; 2]| {
            let mut alone = 0;
            for _ in 0..10 * TRIAL {
                let is_alone = ways.is_alone();
                alone += u32::from(is_alone);
                ways.learn(is_alone, 65_536, Duration::from_nanos(times[usize::from(is_alone)]));
            }
            alone
        };
        let few = 8..=20;
        assert!(few.contains(&(10 * TRIAL - run([2600, 1800]))));
        run([3500, 4200]);
        assert!(few.contains(&run([3500, 4200])), "after the processors have moved");
    }

    #[test]
    fn a_message_that_took_long_for_once_changes_little() {
        let mut ways = Ways::default();
        ways.learn(true, 65_536, Duration::from_nanos(1800));
        let before = ways.times[1];
        ways.learn(true, 65_536, Duration::from_millis(4));
        assert!(ways.times[1] <= before + before / 8);
    }

    #[test]
    fn lengths_are_told_apart_up_to_the_double() {
        assert_eq!([1, 4096, 8191, 8192, 65_536, 131_071, 524_288, 1 << 20].map(length), [0, 0, 0, 1, 4, 4, 7, 7]);
    }
}
