//! Waiting for the other side, and waking it.
//!
//! Each side has a word to sleep on:
//!
//! | Value | Meaning | Next |
//! |---|---|---|
//! | 0 ([`AWAKE`]) | nobody sleeps | the side that is about to sleep sets 1 |
//! | 1 ([`ASLEEP`]) | the side sleeps or is about to | whoever changed something sets 0 and wakes; the sleeper sets 0 when it gives up |
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
//! [`SLICE`] before looking again, at the peer's process too.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex;

use crate::{Deadline, Error, Result, WaitStrategy};

/// The words that the two sides sleep on.
#[repr(C, align(128))]
pub(super) struct Sleepers {
    pub(super) sender: AtomicU32,
    pub(super) receiver: AtomicU32,
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// The longest sleep before the next look at the peer's process. A death has to be noticed within a second.
const SLICE: Duration = Duration::from_millis(50);
/// Rounds of looking without a pause: the answer to a message comes within them. Measured: 1.29 instead of 1.10 cache-line
/// round trips for 64 bytes when pausing from the start.
const EAGER_ROUNDS: u32 = 2000;
/// Rounds between two looks at the clock, which costs as much as tens of them.
const ROUNDS_PER_LOOK: u32 = 256;

/// What a side waits for.
pub(super) trait Wait {
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

    /// The word to sleep on.
    fn word(&self) -> &AtomicU32;

    /// The error when it did not come in time.
    fn out_of_time(&self, deadline: Deadline) -> Error;
}

/// Waits until `side` has what it waits for.
pub(super) fn wait<W: Wait>(side: &mut W, strategy: WaitStrategy, deadline: Deadline) -> Result<W::Event> {
    if let Some(event) = side.poll()? {
        return Ok(event);
    }
    let mut spin_time = strategy.spin_time();
    loop {
        if deadline != Deadline::Now {
            let found = match spin_time {
                Some(Duration::ZERO) => sleep(side, deadline.at_most(SLICE))?,
                time => spin(side, time.unwrap_or(SLICE), deadline)?,
            };
            if let Some(event) = found {
                return Ok(event);
            }
        }
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
        let now = Instant::now();
        if now >= *end.get_or_insert_with(|| deadline.earlier(now + time)) {
            return Ok(None);
        }
    }
}

fn sleep<W: Wait>(side: &mut W, until: Deadline) -> Result<Option<W::Event>> {
    side.before_sleep();
    side.word().store(ASLEEP, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let mut event = side.poll();
    if let Ok(None) = event {
        let timeout = until.timespec();
        match futex::wait(side.word(), futex::Flags::empty(), ASLEEP, timeout.as_ref()) {
            // EAGAIN: the word had changed. EINTR: a signal; the caller looks at the clock.
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => event = side.poll(),
            Err(errno) => event = Err(Error::os("futex", "the word to sleep on", errno)),
        }
    }
    // Relaxed: a wake-up call for nobody does no harm.
    side.word().store(AWAKE, Ordering::Relaxed);
    event
}

/// Wakes the side that sleeps on `word`, if one does. The caller has stored what it shall see, with SeqCst.
#[inline]
pub(super) fn wake(word: &AtomicU32) {
    if is_asleep(word) {
        wake_sleeper(word);
    }
}

/// Whether the side of `word` sleeps or is about to.
#[inline]
pub(super) fn is_asleep(word: &AtomicU32) -> bool {
    word.load(Ordering::SeqCst) == ASLEEP
}

#[cold]
pub(super) fn wake_sleeper(word: &AtomicU32) {
    if word.swap(AWAKE, Ordering::SeqCst) == ASLEEP {
        // The only errors are of a bad address, which cannot occur.
        let _ = futex::wake(word, futex::Flags::empty(), 1);
    }
}
