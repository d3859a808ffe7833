//! Waiting for the other side, and waking it.
//!
//! Each side has a word to sleep on:
//!
//! | Value | Meaning | Next |
//! |---|---|---|
//! | 0 ([`AWAKE`]) | nobody sleeps | the side that is about to sleep sets 1 |
//! | 1 ([`ASLEEP`]) | the side sleeps or is about to | whoever changed something sets 0 and wakes; the sleeper sets 0 when it gives up |
//! | 2 ([`ARMED`]) | the side waits for a descriptor or is about to | whoever changed something sets 0 and rings the [`Bell`]; the side sets 0 or 1 itself |
//!
//! The wake-up call is made only when the word says that it is needed. So that none is lost, each side first tells and then
//! looks, and a sequentially consistent order of the four accesses has one of them see the other:
//!
//! | Sleeper | Waker |
//! |---|---|
//! | `word = 1` (SeqCst) | publishes a record, room or its end (SeqCst) |
//! | fence (SeqCst) | |
//! | looks for a record, room or an end | loads `word` (SeqCst) |
//! | futex wait, if `word` is still 1 | if it is 1: `word = 0`, futex wake |
//!
//! A peer can leave out the wake-up call, or move the sleeper to another word (FUTEX_REQUEUE): nobody sleeps longer than
//! [`SLICE`] before looking again, at the peer's process too. A side that has an alarm, a word of its own process that is set and
//! woken when the peer has exited, sleeps on both words at once (futex_waitv, Linux 5.16), and needs no slices to notice that. While it
//! does not sleep it looks for itself now and then whether the alarm is due.

mod futex;

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::bell::Bell;
use crate::atomic::{AtomicU32, Ordering, fence};
use crate::{Deadline, Error, Result, WaitStrategy};

/// The words that the two sides sleep on.
#[derive(Default)]
#[repr(C, align(128))]
pub(crate) struct Sleepers {
    pub(crate) sender: AtomicU32,
    pub(crate) receiver: AtomicU32,
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const ARMED: u32 = 2;

/// The longest sleep before the next look at the peer's process. A death has to be noticed within a second.
const SLICE: Duration = Duration::from_millis(50);
/// Rounds of looking without a pause: the answer to a message comes within them. Measured: 1.29 instead of 1.10 cache-line
/// round trips for 64 bytes when pausing from the start.
const EAGER_ROUNDS: u32 = 2000;
/// Rounds between two looks at the clock, which costs as much as tens of them.
const ROUNDS_PER_LOOK: u32 = 256;

/// A word of this process alone that turns from 0 to 1, with a wake-up, when a peer's process has exited.
#[derive(Default)]
pub(crate) struct Alarm {
    word: AtomicU32,
    has_exited: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Alarm {
    /// One that a side may set by itself, when `has_exited` tells that: it costs no more than a load.
    pub(crate) fn looking(has_exited: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { word: AtomicU32::default(), has_exited: Some(Box::new(has_exited)) }
    }

    /// The peer's process has exited.
    pub(crate) fn set(&self) {
        self.word.store(1, Ordering::SeqCst);
        futex::wake_own(&self.word);
    }

    /// As [`Alarm::is_set`], and sets it if it is time: whoever would set it may have to wait for a processor that the caller has.
    pub(crate) fn look(&self) -> bool {
        if !self.is_set() && self.has_exited.as_ref().is_some_and(|has_exited| has_exited()) {
            self.set();
        }
        self.is_set()
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        // Acquire: what the peer had published is seen by whoever looks for it after this.
        self.word.load(Ordering::Acquire) != 0
    }
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Alarm").field(&self.word).finish()
    }
}

/// What a side waits for.
pub(crate) trait Wait {
    type Event;

    /// Looks for it.
    fn poll(&mut self) -> Result<Option<Self::Event>>;

    /// Fails when the other side is gone.
    fn check_peer(&mut self) -> Result<()>;

    /// Whether every nanosecond counts. A core that looks without pause takes time away from the other side where the two are
    /// threads of one core.
    fn is_urgent(&self) -> bool {
        true
    }

    /// Is called before each sleep.
    fn before_sleep(&mut self) {}

    /// What tells that the other side's process has exited.
    fn alarm(&self) -> Option<&Alarm> {
        None
    }

    /// Whether it may come without a wake-up: then no sleep is longer than a slice.
    fn needs_looks(&self) -> bool {
        self.alarm().is_none()
    }

    /// The word to sleep on.
    fn word(&self) -> &AtomicU32;

    /// The error when it did not come in time.
    fn out_of_time(&self, deadline: Deadline) -> Error;
}

/// Waits until `side` has what it waits for.
pub(crate) fn wait<W: Wait>(side: &mut W, strategy: WaitStrategy, deadline: Deadline) -> Result<W::Event> {
    if let Some(event) = side.poll()? {
        return Ok(event);
    }
    let mut spin_time = strategy.spin_time();
    loop {
        if deadline != Deadline::Now {
            let found = match spin_time {
                Some(Duration::ZERO) => sleep(side, deadline)?,
                time => spin(side, time.unwrap_or(SLICE), deadline)?,
            };
            if let Some(event) = found {
                return Ok(event);
            }
        }
        is_alarmed(side);
        if let Err(gone) = side.check_peer() {
            // What it published before it went is still good.
            return side.poll()?.ok_or(gone);
        }
        if deadline.has_passed() {
            return side.poll()?.ok_or_else(|| side.out_of_time(deadline));
        }
        spin_time = spin_time.map(|_| Duration::ZERO);
    }
}

/// Looks for `time`, or until `deadline`. The clock is looked at for the first time after some rounds: the answer that comes at
/// once is not kept waiting by it.
fn spin<W: Wait>(side: &mut W, time: Duration, deadline: Deadline) -> Result<Option<W::Event>> {
    let mut end = None;
    let mut rounds = if side.is_urgent() { 0 } else { EAGER_ROUNDS };
    loop {
        for _ in 0..ROUNDS_PER_LOOK {
            if let Some(event) = side.poll()? {
                return Ok(Some(event));
            }
            if rounds >= EAGER_ROUNDS {
                std::hint::spin_loop();
            }
        }
        rounds = rounds.saturating_add(ROUNDS_PER_LOOK);
        if is_alarmed(side) {
            return Ok(None);
        }
        let now = Instant::now();
        if now >= *end.get_or_insert_with(|| deadline.earlier(now + time)) {
            return Ok(None);
        }
    }
}

fn sleep<W: Wait>(side: &mut W, deadline: Deadline) -> Result<Option<W::Event>> {
    side.before_sleep();
    side.word().store(ASLEEP, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let mut event = side.poll();
    if let Ok(None) = event {
        let deadline = if side.needs_looks() { deadline.at_most(SLICE) } else { deadline };
        event = match futex::sleep(side.word(), side.alarm(), deadline) {
            // EAGAIN: a word had changed. EINTR: a signal; the caller looks at the clock.
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => side.poll(),
            Err(errno) => Err(Error::os("futex", "the word to sleep on", errno)),
        };
    }
    // Relaxed: a wake-up call for nobody does no harm.
    side.word().store(AWAKE, Ordering::Relaxed);
    event
}

fn is_alarmed<W: Wait>(side: &W) -> bool {
    side.alarm().is_some_and(Alarm::look)
}

/// Has the side of `word`, which is this one, told by the bell of what comes next. False when `is_ready` finds that it is there:
/// nobody tells then.
pub(crate) fn arm(word: &AtomicU32, is_ready: impl FnOnce() -> bool) -> bool {
    word.store(ARMED, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let armed = !is_ready();
    if !armed {
        // Relaxed: a wake-up call for nobody does no harm.
        word.store(AWAKE, Ordering::Relaxed);
    }
    armed
}

/// Wakes the side that sleeps on `word`, if one does; by `bell` if it waits for a descriptor. The caller has stored what it shall
/// see, with SeqCst.
#[inline]
pub(crate) fn wake(word: &AtomicU32, bell: Option<&Bell>) {
    if is_asleep(word) {
        wake_sleeper(word, bell);
    }
}

/// Whether the side of `word` sleeps or is about to, or waits for a descriptor.
#[inline]
pub(crate) fn is_asleep(word: &AtomicU32) -> bool {
    word.load(Ordering::SeqCst) != AWAKE
}

#[cold]
pub(super) fn wake_sleeper(word: &AtomicU32, bell: Option<&Bell>) {
    match (word.swap(AWAKE, Ordering::SeqCst), bell) {
        (ASLEEP, _) => futex::wake(word),
        (ARMED, Some(bell)) => bell.ring(),
        _ => {}
    }
}
