//! Row 22, the futex: [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html) on a word of 32 bits in shared memory.
//!
//! A process sleeps while the word has a value that it has seen, and another one changes the word and wakes it. What the value
//! means is up to them; [`Futex::post`] and [`Futex::take_by`] make a counter of it.
//!
//! ```
//! use std::sync::atomic::Ordering;
//! use onecopy::Deadline;
//! use onecopy::memory::anonymous::for_children;
//! use onecopy::sync::futex::Futex;
//! use onecopy::sync::shared::Place;
//!
//! let futex = Futex::create(&Place::new(for_children(4096)?)?, 0)?;
//! std::thread::scope(|scope| {
//!     scope.spawn(|| {
//!         futex.word().store(1, Ordering::Release);
//!         futex.wake(1)
//!     });
//!     while futex.word().load(Ordering::Acquire) == 0 {
//!         futex.wait_by(0, Deadline::Never)?;
//!     }
//!     Ok::<_, onecopy::Error>(())
//! })?;
//! # Ok::<(), onecopy::Error>(())
//! ```
//!
//! **When a process is killed** the word stays as it was, and nobody is told. One that dies between its change and its wake-up
//! leaves the others asleep beside the new value, so [`Futex::take_by`] looks again each second.
//! Whoever maps the word can change it, wake its waiters, and move them to another word.
//!
//! # Safety
//!
//! The slot keeps the word mapped. Everybody reaches it atomically.
#![expect(unsafe_code, reason = "reaches a word of shared memory")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::thread::futex::{Flags, Wait as Waiter, WaitFlags, WaitvFlags};
use rustix::thread::{ClockId, futex};
use rustix::time::clock_gettime;

use super::shared::{Kind, Place, Slot, Spec, Wish, settled};
use super::{Notify, Wait};
use crate::{Deadline, Error, Result};

/// The most words that one wait can be for (FUTEX_WAITV_MAX).
pub const WORDS: usize = 128;
/// How long [`Futex::take_by`] sleeps before it looks whether a wake-up is missing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A futex word in shared memory.
#[derive(Debug)]
pub struct Futex {
    slot: Slot,
}

impl Futex {
    /// Creates a word with `value` where nothing is yet.
    ///
    /// # Errors
    ///
    /// As [`Mutex::create`](super::mutex::Mutex::create).
    pub fn create(place: &Place, value: u32) -> Result<Self> {
        Self::open(place, Wish::Create, settled(), value)
    }

    /// Attaches to one that exists, waiting until `deadline` for it to be created.
    ///
    /// # Errors
    ///
    /// As [`Mutex::attach`](super::mutex::Mutex::attach).
    pub fn attach(place: &Place, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Attach, deadline, 0)
    }

    /// Attaches to it if it exists, whatever its value, and creates it with `value` otherwise.
    ///
    /// # Errors
    ///
    /// As [`Futex::create`] and [`Futex::attach`].
    pub fn open_or_create(place: &Place, value: u32, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Either, deadline, value)
    }

    fn open(place: &Place, wish: Wish, deadline: Deadline, value: u32) -> Result<Self> {
        let spec = Spec::of::<u32, ()>(Kind::Futex, Some(0));
        let slot = Slot::open(place, &spec, wish, deadline, |slot| {
            word(slot).store(value, Ordering::Relaxed);
            Ok(())
        })?;
        Ok(Self { slot })
    }

    /// The word. Others change it at any time.
    #[must_use]
    pub fn word(&self) -> &AtomicU32 {
        word(&self.slot)
    }

    /// Sleeps until somebody wakes it, or `deadline` passes, unless the word is not `expected` any more. It may wake without a
    /// cause: the word tells what happened.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when the word still was `expected`.
    pub fn wait_by(&self, expected: u32, deadline: Deadline) -> Result<()> {
        let out_of_time = || Error::out_of_time("wait", self.slot.name(), deadline);
        if self.word().load(Ordering::Acquire) != expected {
            return Ok(());
        }
        if deadline.has_passed() {
            return Err(out_of_time());
        }
        match futex::wait(self.word(), Flags::empty(), expected, deadline.timespec().as_ref()) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(Errno::TIMEDOUT) => Err(out_of_time()),
            Err(errno) => Err(Error::os("futex(FUTEX_WAIT)", self.slot.name(), errno)),
        }
    }

    /// Wakes up to `count` of those who sleep here, and returns how many.
    ///
    /// # Errors
    ///
    /// None that the man page knows.
    pub fn wake(&self, count: u32) -> Result<usize> {
        if count == 0 {
            // The kernel would wake one.
            return Ok(0);
        }
        let count = count.min(i32::MAX.cast_unsigned());
        futex::wake(self.word(), Flags::empty(), count)
            .map_err(|errno| Error::os("futex(FUTEX_WAKE)", self.slot.name(), errno))
    }

    /// If the word is `expected`, wakes up to `wake` of those who sleep here and moves up to `moved` others to `target`, where
    /// they sleep on (FUTEX_CMP_REQUEUE). Returns how many were woken or moved; `None` when the word was something else.
    ///
    /// # Errors
    ///
    /// None that the man page knows.
    pub fn requeue(&self, expected: u32, wake: u32, moved: u32, target: &Self) -> Result<Option<usize>> {
        let [wake, moved] = [wake, moved].map(|count| count.min(i32::MAX.cast_unsigned()));
        match futex::cmp_requeue(self.word(), Flags::empty(), wake, moved, target.word(), expected) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(Error::os("futex(FUTEX_CMP_REQUEUE)", self.slot.name(), errno)),
        }
    }

    /// Sleeps until one of up to [`WORDS`] words is woken, or is not what is expected of it (Linux 5.16). Returns which one;
    /// `None` when a word had already changed, or it woke without a cause.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for no words and for more than [`WORDS`]; [`Error::Unsupported`] before Linux 5.16;
    /// [`Error::WouldBlock`] and [`Error::TimedOut`].
    pub fn wait_any_by(words: &[(&Self, u32)], deadline: Deadline) -> Result<Option<usize>> {
        let Some((first, _)) = words.first().filter(|_| words.len() <= WORDS) else {
            let reason = format!("{} words cannot be waited for at once: 1 to {WORDS} can", words.len());
            return Err(Error::Invalid { object: "futex_waitv".to_owned(), reason });
        };
        let object = first.slot.name();
        if words.iter().any(|(futex, expected)| futex.word().load(Ordering::Acquire) != *expected) {
            return Ok(None);
        }
        if deadline.has_passed() {
            return Err(Error::out_of_time("wait", object, deadline));
        }
        let waiters: Vec<Waiter> = words.iter().map(|(futex, expected)| futex.waiter(*expected)).collect();
        let until = deadline.timespec().map(from_now);
        match futex::waitv(&waiters, WaitvFlags::empty(), until.as_ref(), ClockId::Monotonic) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::TIMEDOUT) => Err(Error::out_of_time("wait", object, deadline)),
            Err(Errno::NOSYS) => {
                let reason = "futex_waitv came with Linux 5.16: wait for one word".to_owned();
                Err(Error::Unsupported { object: object.to_owned(), reason })
            }
            Err(errno) => Err(Error::os("futex_waitv", object, errno)),
        }
    }

    fn waiter(&self, expected: u32) -> Waiter {
        let mut waiter = Waiter::new();
        waiter.val = expected.into();
        waiter.uaddr = futex::WaitPtr::new(self.slot.object().as_ptr().cast());
        waiter.flags = WaitFlags::SIZE_U32;
        waiter
    }

    /// Adds `count` to the word, as a counter, and wakes as many.
    ///
    /// # Errors
    ///
    /// EOVERFLOW when it would be above 2^32 - 1; nothing was added then.
    pub fn post(&self, count: u32) -> Result<()> {
        // Release: whoever takes it sees what was done before.
        let added = self.word().fetch_update(Ordering::Release, Ordering::Relaxed, |word| word.checked_add(count));
        added.map_err(|word| {
            let remedy = format!("the word is {word}, and {count} more would be above {}", u32::MAX);
            Error::os("post", self.slot.name(), Errno::OVERFLOW).with_remedy(remedy)
        })?;
        self.wake(count).map(drop)
    }

    /// Takes 1 from the word, as a counter, waiting until `deadline` while it is 0.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`], with nothing taken.
    pub fn take_by(&self, deadline: Deadline) -> Result<()> {
        loop {
            // Acquire: what was done before the post is seen.
            let taken = self.word().fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| word.checked_sub(1));
            if taken.is_ok() {
                return Ok(());
            }
            match self.wait_by(0, deadline.at_most(LOOK_AGAIN)) {
                Err(error) if error.is_out_of_time() && deadline.has_passed() => {
                    return Err(Error::out_of_time("wait", self.slot.name(), deadline));
                }
                Err(error) if !error.is_out_of_time() => return Err(error),
                _ => {}
            }
        }
    }

    /// What it is called in errors.
    #[must_use]
    pub fn object(&self) -> &str {
        self.slot.name()
    }
}

fn word(slot: &Slot) -> &AtomicU32 {
    let word: NonNull<AtomicU32> = slot.object().cast();
    // SAFETY: mapped while the slot lives, aligned to 64; everybody reaches it atomically.
    unsafe { word.as_ref() }
}

/// The point of the monotonic clock that is `left` away.
fn from_now(left: Timespec) -> Timespec {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = now.tv_nsec + left.tv_nsec;
    let seconds = now.tv_sec.saturating_add(left.tv_sec).saturating_add(nanos / 1_000_000_000);
    Timespec { tv_sec: seconds, tv_nsec: nanos % 1_000_000_000 }
}

impl Notify for Futex {
    /// As [`Futex::post`].
    fn notify_by(&mut self, count: u32, _deadline: Deadline) -> Result<()> {
        self.post(count)
    }

    fn object(&self) -> &str {
        self.slot.name()
    }
}

impl Wait for Futex {
    /// As [`Futex::take_by`].
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        self.take_by(deadline)
    }

    fn object(&self) -> &str {
        self.slot.name()
    }
}
