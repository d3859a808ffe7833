//! The units of a message that both sides copy: each is copied by whoever claims it first.
//!
//! One side claims from the front on, and the other one from the back, each its share first: so each has the same part of every
//! message, and what it copied last time is in its cache still. Which side is which does not depend on who sends: what went one way
//! often comes back. Who is done with its share takes of the other's what is not claimed yet. The receiver learns from that, and from
//! how long it waits then, how to share the next message: see [`helper`](super::helper).
//!
//! | Word | Meaning | Who changes it |
//! |---|---|---|
//! | `claimed` | how many units are claimed from the front (its lower 32 bits) and from the back (its upper ones) | both |
//! | `finished` | how many units the sender has claimed and is done with | the sender |
//! | `failed` | the first of the units that the sender could not write plus 1 (lower 32 bits), and how many those are, or 0 | the sender, before it counts them |
//!
//! The receiver has them all when it has copied what it claimed and the sender is done with all others. It then reads the units that
//! failed. A peer may set the words to anything: then a unit is copied twice, or not at all.
#![cfg_attr(loom, expect(unsafe_code, reason = "reaches the cells of a model"))]

use std::ops::Range;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::desk::Desk;
use crate::atomic::{Ordering, spin_loop};

/// Where the counter for the back begins.
const BACK_SHIFT: u32 = 32;
/// The counter for the front.
const FRONT: u64 = u32::MAX as u64;

/// Of a long share a side claims all but an eighth, and then that: the other side finds something there if this one is much slower. A
/// quarter and a sixteenth are as good. A short one it claims at once: each claim takes a line away from the other side.
const LATE: usize = 8;
pub(super) const LONG_SHARE: usize = 64;
/// Of the other's share it takes a quarter at a time: the other may come at any moment. Less than this many is not worth a call.
const STOLEN: usize = 4;
const LEAST_STOLEN: usize = if cfg!(loom) { 1 } else { 8 };
/// How long a receiver without a share waits for the sender to copy all before it takes of its share, and how much longer for each unit:
/// more than that needs.
const HEAD_START: Duration = if cfg!(loom) { Duration::ZERO } else { Duration::from_micros(20) };
const HEAD_START_UNIT: Duration = if cfg!(loom) { Duration::ZERO } else { Duration::from_nanos(250) };
/// A receiver waits long that waits for this part of the time for which it has copied.
const LONG_WAIT: u32 = 2;

/// The units of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    /// How many there are: less than 2^31, from a receiver of this library.
    pub(super) count: usize,
    /// How many of them are the share of the side at the front.
    pub(super) front: usize,
    /// How many are claimed at once at most.
    pub(super) most: usize,
}

impl Units {
    /// Those that the side at `end` should copy.
    pub(super) fn share_of(self, end: End) -> Range<usize> {
        match end {
            End::Front => 0..self.front,
            End::Back => self.front..self.count,
        }
    }
}

/// No unit is claimed yet. The caller publishes it by the turn.
pub(super) fn open(desk: &Desk) {
    for word in [&desk.claims.claimed, &desk.claims.finished, &desk.claims.failed] {
        word.store(0, Ordering::Relaxed);
    }
}

/// What a receiver has copied itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copied {
    /// How many units.
    pub(super) own: usize,
    /// Whether it waited long for the sender then.
    pub(super) waited: bool,
}

/// From where a side claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Front,
    Back,
}

impl End {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Front => Self::Back,
            Self::Back => Self::Front,
        }
    }
}

/// The receiver's part: reads the units that it gets, and waits for the others for as long as `wait` lets it.
pub(super) fn complete<E: From<Errno>>(
    desk: &Desk,
    all: Units,
    end: End,
    mut read: impl FnMut(Range<usize>) -> Result<(), E>,
    mut wait: impl FnMut() -> Result<(), E>,
) -> Result<Copied, E> {
    // Acquire: the units that the sender counted are written.
    let is_finished = |own| desk.claims.finished.load(Ordering::Acquire) >= (all.count - own) as u64;
    let (mut own, begun) = (0, Instant::now());
    if all.share_of(end).is_empty() {
        let head_start = HEAD_START + HEAD_START_UNIT * all.count.min(1 << 10) as u32;
        while !is_finished(0) && begun.elapsed() < head_start {
            wait()?;
            spin_loop();
        }
    }
    // Not more than there are: a peer may set the counters back.
    while own < all.count
        && let Some(units) = claim(desk, all, end, own)
    {
        own += units.len();
        read(units)?;
    }
    let mut waited = false;
    if !is_finished(own) {
        let copied = Instant::now();
        while !is_finished(own) {
            wait()?;
            spin_loop();
        }
        waited = copied.elapsed() > (copied - begun) / LONG_WAIT;
    }
    let copied = Copied { own, waited };
    let failed = desk.claims.failed.load(Ordering::Acquire);
    let Some(start) = (failed & FRONT).checked_sub(1) else { return Ok(copied) };
    let units = start as usize..(start + (failed >> BACK_SHIFT)) as usize;
    // Of none, nothing failed; where they would begin may lie behind the message.
    if units.is_empty() || units.end > all.count {
        return Err(Errno::EFAULT.into());
    }
    read(units)?;
    Ok(copied)
}

/// The sender's part: writes the units that it gets, up to the first claim that fails.
pub(super) fn take_part(
    desk: &Desk,
    all: Units,
    end: End,
    mut write: impl FnMut(Range<usize>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    if all.share_of(end).is_empty() {
        // The receiver does better without.
        return Ok(());
    }
    let mut own = 0;
    // Not more than there are: a peer may set the counters back.
    while own < all.count
        && let Some(units) = claim(desk, all, end, own)
    {
        own += units.len();
        let written = write(units.clone());
        if written.is_err() {
            desk.claims.failed.store((units.len() as u64) << BACK_SHIFT | (units.start as u64 + 1), Ordering::Release);
        }
        desk.claims.finished.fetch_add(units.len() as u64, Ordering::Release);
        written?;
    }
    Ok(())
}

/// The next units for a side that has had `own`, unless all are claimed: most of what is left of its share, and a part of what is left
/// of the other's.
fn claim(desk: &Desk, all: Units, end: End, own: usize) -> Option<Range<usize>> {
    // Relaxed: these loads and changes order nothing but the claims among themselves. At first without a look, for which the line would
    // have to come here once more.
    let left = if own == 0 { 0..all.count } else { left(desk.claims.claimed.load(Ordering::Relaxed), all.count)? };
    let share = all.share_of(end);
    let share = share.start.max(left.start)..share.end.min(left.end);
    let wanted = match share.len() {
        0 => (left.len() / STOLEN).max(LEAST_STOLEN),
        short @ ..=LONG_SHARE => short,
        long => long - long / LATE,
    };
    let wanted = wanted.min(all.most).min(all.count - own).max(1);
    let step = match end {
        End::Front => wanted as u64,
        End::Back => (wanted as u64) << BACK_SHIFT,
    };
    // The other side may have claimed meanwhile.
    let left = self::left(desk.claims.claimed.fetch_add(step, Ordering::Relaxed), all.count)?;
    let count = wanted.min(left.len());
    Some(match end {
        End::Front => left.start..left.start + count,
        End::Back => left.end - count..left.end,
    })
}

/// The units that nobody has claimed, of so many; `None` when there are none.
fn left(claims: u64, count: usize) -> Option<Range<usize>> {
    let (front, back) = ((claims & FRONT) as usize, (claims >> BACK_SHIFT) as usize);
    let end = count.checked_sub(back)?;
    (front < end).then_some(front..end)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ALL: Units = Units { count: 24, front: 12, most: 3 };

    #[test]
    fn each_side_takes_its_share_and_then_of_the_other_s() {
        let desk = Desk::default();
        let all = Units { count: 256, front: 128, most: 256 };
        let next = |end, own| claim(&desk, all, end, own);
        assert_eq!(next(End::Front, 0), Some(0..112));
        assert_eq!(next(End::Front, 112), Some(112..128));
        assert_eq!(next(End::Front, 128), Some(128..160));
        assert_eq!(next(End::Back, 0), Some(160..256), "what is left of its share, for which it did not look");
        assert_eq!((next(End::Front, 160), next(End::Back, 96)), (None, None));
        assert_eq!(
            claim(&desk, Units { count: 288, ..all }, End::Front, 160),
            Some(160..168),
            "of more units there are more"
        );
    }

    #[test]
    fn of_a_short_share_a_side_claims_all_at_once() {
        let desk = Desk::default();
        let all = Units { count: 16, front: 8, most: 512 };
        assert_eq!(claim(&desk, all, End::Back, 0), Some(8..16));
        assert_eq!(claim(&desk, all, End::Back, 8), Some(0..8), "of a sender that is late not less than is worth it");
        assert_eq!(claim(&desk, all, End::Front, 0), None);
    }

    #[test]
    fn a_peer_that_sets_the_counter_back_again_and_again_makes_nobody_copy_more_than_there_is() {
        let desk = Desk::default();
        let back = |copied: &mut usize, units: Range<usize>| {
            assert!(units.end <= ALL.count);
            *copied += units.len();
            desk.claims.claimed.store(0, Ordering::Relaxed);
            Ok(())
        };
        let (mut written, mut read) = (0, 0);
        take_part(&desk, ALL, End::Front, |units| back(&mut written, units)).unwrap();
        complete::<Errno>(&desk, ALL, End::Back, |units| back(&mut read, units), || Ok(())).unwrap();
        assert_eq!((written, read), (ALL.count, ALL.count));
    }

    #[test]
    fn what_a_peer_says_of_units_that_there_are_not_is_an_error() {
        let desk = Desk::default();
        let read = |units: Range<usize>| -> Result<(), Errno> {
            assert!(units.end <= ALL.count);
            Ok(())
        };
        for (claimed, failed) in [
            (u64::MAX, 1 << 32 | 25),
            (24, u64::MAX),
            (24 << 32, 2 << 32 | 24),
            (12 << 32 | 12, 1 << 32 | 25),
            (24, 25),
        ] {
            desk.claims.claimed.store(claimed, Ordering::Relaxed);
            desk.claims.finished.store(u64::MAX, Ordering::Relaxed);
            desk.claims.failed.store(failed, Ordering::Relaxed);
            assert_eq!(complete(&desk, ALL, End::Back, read, || Ok(())), Err(Errno::EFAULT), "{claimed}, {failed}");
        }
        desk.claims.finished.store(0, Ordering::Relaxed);
        assert_eq!(complete(&desk, ALL, End::Back, read, || Err(Errno::ETIMEDOUT)), Err(Errno::ETIMEDOUT));
    }
}

#[cfg(loom)]
mod model {
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;

    const ALL: Units = Units { count: 3, front: 2, most: 2 };
    /// The sender, which is at the front, should copy all.
    const ALONE: Units = Units { front: 3, ..ALL };

    /// A unit of the receiver's buffer.
    #[derive(Default)]
    struct Unit(UnsafeCell<u8>);

    // SAFETY: loom fails a model in which two threads use it at the same time and one of them writes.
    unsafe impl Sync for Unit {}

    impl Unit {
        fn copy(&self) {
            // SAFETY: as above.
            self.0.with_mut(|byte| unsafe { *byte += 1 });
        }
    }

    /// Each unit is written once, by one side at a time, and is seen by the receiver then, also where the sender fails.
    fn copied_once(all: Units, fails: Option<usize>) {
        let desk = Arc::<Desk>::default();
        let units = Arc::<[Unit; ALL.count]>::default();
        open(&desk);
        let (theirs, helped) = (Arc::clone(&desk), Arc::clone(&units));
        let helping = thread::spawn(move || {
            let mut written = 0;
            take_part(&theirs, all, End::Front, |claimed| {
                if fails == Some(written) {
                    return Err(Errno::EFAULT);
                }
                helped[claimed].iter().for_each(Unit::copy);
                written += 1;
                Ok(())
            })
        });
        let read = |claimed: Range<usize>| {
            units[claimed].iter().for_each(Unit::copy);
            Ok::<(), Errno>(())
        };
        complete(&desk, all, End::Back, read, || Ok(())).unwrap();
        for unit in &*units {
            // SAFETY: as above.
            assert_eq!(unit.0.with(|byte| unsafe { *byte }), 1);
        }
        let _ = helping.join().unwrap();
    }

    #[test]
    fn loom_each_unit_is_copied_once_and_seen() {
        loom::model(|| copied_once(ALL, None));
        loom::model(|| copied_once(ALONE, None));
    }

    #[test]
    fn loom_a_unit_that_the_sender_cannot_write_is_read_by_the_receiver() {
        loom::model(|| copied_once(ALL, Some(0)));
        loom::model(|| copied_once(ALONE, Some(0)));
        loom::model(|| copied_once(ALL, Some(1)));
    }
}
