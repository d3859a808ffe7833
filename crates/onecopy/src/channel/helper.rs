//! A sender that copies too, as its receiver knows it: which part of a message it should copy.
//!
//! Both sides copy equal halves, and the receiver learns from what each of them got of longer messages, and from how long it has waited
//! after shorter ones. Into a [landing](super::landing) the sender copies at twice the speed of the receiver, who needs a system call of
//! 1.5 us before its first byte, and so it gets more. Of a message of less than 1 MiB one side alone may be the faster one. That depends
//! on who has what mapped and in its cache, on the pages on which the message lies, and on the distance of the two processors. So the
//! receiver measures each way again and again.

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

    /// All for the side at `end`.
    const fn all(end: End) -> Self {
        Self::of_front(if matches!(end, End::Front) { Self::WHOLE } else { 0 })
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

/// From how many bytes on both copy in any case: one side alone is slower from 1 MiB on, by a half and more. Measured bare into a landing, one
/// hot message at a time, by the sender alone and by two in the best parts, in us: 64 KiB 1.8 and 2.6, 128 KiB 3.5 and 3.1, 256 KiB 6.8
/// and 5.4, 1 MiB 24 and 19 where a cache-line round trip takes 130 ns; 4.2 and 3.5, 7.8 and 5.0, 15 and 8.3, 55 and 28 at 480 ns; out
/// of small pages the receiver's part takes twice as long. By calls of the receiver alone and of both, 64 KiB: 4.1 and 3.4; 4.4 and 4.6.
const BOTH_BYTES: usize = if cfg!(loom) { 1 } else { 1 << 20 };
/// How many lengths are told apart: each up to the double of the one before.
const LENGTHS: usize = 8;
/// One message of so many goes a way that was slower.
const TRIAL: u32 = 32;

/// Who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Both,
    Sender,
    Receiver,
}

impl Way {
    const ALL: [Self; 3] = [Self::Both, Self::Sender, Self::Receiver];

    fn of(units: Units, end: End) -> Self {
        match units.share_of(end).len() {
            0 => Self::Sender,
            all if all == units.count => Self::Receiver,
            _ => Self::Both,
        }
    }
}

/// How fast each way is for messages of about one length.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// In picoseconds for a byte. 0 is not measured yet.
    times: [u64; Way::ALL.len()],
    messages: u32,
}

impl Ways {
    /// For the next message.
    fn next(self) -> Way {
        let [first, others @ ..] = {
            let mut ways = Way::ALL;
            ways.sort_by_key(|way| self.times[*way as usize]);
            ways
        };
        let (trial, is_trial) = (self.messages / TRIAL, self.messages.is_multiple_of(TRIAL));
        if is_trial { others[trial as usize % others.len()] } else { first }
    }

    fn learn(&mut self, way: Way, bytes: usize, took: Duration) {
        self.messages = self.messages.wrapping_add(1);
        draw_near(&mut self.times[way as usize], bytes, took);
    }
}

/// Has `time`, in picoseconds for a byte or 0, draw near to what was measured, and slowly where that is longer: perhaps a side did not run.
pub(super) fn draw_near(time: &mut u64, bytes: usize, took: Duration) {
    let found = (took.as_nanos() as u64).saturating_mul(1000) / (bytes as u64).max(1);
    *time = match *time {
        0 => found,
        known if found < known => known - (known - found) / 4,
        known => known + ((found - known) / 4).min(known / 8),
    };
}

/// What a side reaches without system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// The sender has the place for the message mapped.
    pub(super) target: bool,
    /// The receiver has the message mapped.
    pub(super) source: bool,
}

impl Reach {
    const KINDS: usize = 4;

    fn index(self) -> usize {
        usize::from(self.target) + 2 * usize::from(self.source)
    }

    /// Whether the sender is much the faster one.
    fn favours_sender(self) -> bool {
        self.target && !self.source
    }
}

/// A sender that copies too, as its receiver knows it.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) patience: Duration,
    share: Share,
    /// The same where the sender is faster.
    sender_share: Share,
    ways: [[Ways; LENGTHS]; Reach::KINDS],
    /// In how many messages it has copied, by cross-memory attach.
    pub(super) helped: u64,
}

impl Helper {
    /// That of a receiver that claims from `end` on.
    pub(super) fn new(end: End) -> Self {
        let (share, sender_share) = (Share::half(), Share::lesser(end));
        Self { patience: PATIENCE, share, sender_share, ways: Default::default(), helped: 0 }
    }

    /// How to share a message of `bytes`.
    pub(super) fn share(&self, bytes: usize, end: End, reach: Reach) -> Share {
        let way = if bytes < BOTH_BYTES { self.ways[reach.index()][length(bytes)].next() } else { Way::Both };
        match way {
            Way::Both if reach.favours_sender() => self.sender_share,
            Way::Both => self.share,
            Way::Sender => Share::all(end.other()),
            Way::Receiver => Share::all(end),
        }
    }

    /// Keeps in mind how a message was copied that was shared as [`Helper::share`] said.
    pub(super) fn learn(&mut self, bytes: usize, units: Units, copied: Copied, took: Duration, end: End, reach: Reach) {
        if copied.own < units.count && !reach.target {
            self.helped += 1;
        }
        let way = Way::of(units, end);
        if bytes < BOTH_BYTES {
            self.ways[reach.index()][length(bytes)].learn(way, bytes, took);
        }
        if way == Way::Both {
            let share = if reach.favours_sender() { &mut self.sender_share } else { &mut self.share };
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
    fn the_fastest_way_is_taken_and_the_others_are_tried_now_and_then() {
        let mut ways = Ways::default();
        let mut run = |times: [u64; 3]| {
            let mut taken = [0; 3];
            for _ in 0..20 * TRIAL {
                let way = ways.next();
                taken[way as usize] += 1;
                ways.learn(way, 65_536, Duration::from_nanos(times[way as usize]));
            }
            taken
        };
        let rare = 8..=14;
        let [both, sender, receiver] = run([2600, 1800, 4100]);
        assert!(rare.contains(&both) && rare.contains(&receiver) && sender > 20 * TRIAL - 30, "{both} {receiver}");
        run([3500, 4200, 4400]);
        let [both, sender, receiver] = run([3500, 4200, 4400]);
        assert!(rare.contains(&sender) && rare.contains(&receiver), "{both}, after the processors have moved");
    }

    #[test]
    fn a_message_that_took_long_for_once_changes_little() {
        let mut ways = Ways::default();
        ways.learn(Way::Sender, 65_536, Duration::from_nanos(1800));
        let before = ways.times[Way::Sender as usize];
        ways.learn(Way::Sender, 65_536, Duration::from_millis(4));
        assert!(ways.times[Way::Sender as usize] <= before + before / 8);
    }

    #[test]
    fn lengths_are_told_apart_up_to_the_double() {
        assert_eq!([1, 4096, 8191, 8192, 65_536, 131_071, 524_288, 1 << 20].map(length), [0, 0, 0, 1, 4, 4, 7, 7]);
    }
}
