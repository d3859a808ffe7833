//! Row 19, the POSIX unnamed semaphore: [sem_overview(7)](https://man7.org/linux/man-pages/man7/sem_overview.7.html), sem_init(3)
//! with a counter that processes share.
//!
//! ```
//! use onecopy::Deadline;
//! use onecopy::memory::anonymous::for_children;
//! use onecopy::sync::semaphore::Semaphore;
//! use onecopy::sync::shared::Place;
//!
//! let semaphore = Semaphore::create(&Place::new(for_children(4096)?)?, 2)?;
//! semaphore.wait_by(Deadline::Now)?;
//! assert_eq!(semaphore.value()?, 1);
//! semaphore.post()?; // perhaps by a child
//! # Ok::<(), onecopy::Error>(())
//! ```
//!
//! **It has no owner.** Used as a lock, it stays taken when its holder is killed, and nobody is told; one more
//! [`Semaphore::post`] repairs it. A waiter that is killed leaves the value right, but may have been the one that a post woke:
//! so a wait looks again each second.
//!
//! # Safety
//!
//! The slot keeps the semaphore mapped, and all who can write it are trusted, by the promise of the [`Place`].
#![expect(unsafe_code, reason = "posts and waits for semaphores")]

use std::time::Duration;

use libc::sem_t;
use rustix::io::Errno;

use super::shared::{Kind, Place, Slot, Spec, Wish, settled};
use super::{Acquired, Held, Lock, Mode, Notify, Wait, held_already, no_shared_mode, not_held};
use crate::sys::posix_sem::VALUE_MAX;
use crate::sys::pthread;
use crate::{Deadline, Error, Result};

/// How long a wait sleeps before it looks whether a wake-up went to a process that died of it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A semaphore in shared memory.
#[derive(Debug)]
pub struct Semaphore {
    slot: Slot,
    /// Whether [`Lock`] has taken one.
    held: Held,
}

impl Semaphore {
    /// Creates a semaphore with `value` where nothing is yet.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a value above 2147483647; otherwise as [`Mutex::create`](super::mutex::Mutex::create).
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
    /// As [`Semaphore::create`] and [`Semaphore::attach`].
    pub fn open_or_create(place: &Place, value: u32, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Either, deadline, value)
    }

    fn open(place: &Place, wish: Wish, deadline: Deadline, value: u32) -> Result<Self> {
        let spec = Spec::of::<sem_t, ()>(Kind::Semaphore, Some(0));
        let slot = Slot::open(place, &spec, wish, deadline, |slot| {
            if value > VALUE_MAX {
                let reason = format!("the value {value} is above the highest, which is {VALUE_MAX}");
                return Err(Error::Invalid { object: slot.name().to_owned(), reason });
            }
            // SAFETY: room for one, aligned to 64, that nobody else uses before the slot is ready.
            unsafe { pthread::semaphore_init(slot.object().cast().as_ptr(), value) }
                .map_err(|errno| Error::os("sem_init", slot.name(), errno))
        })?;
        Ok(Self { slot, held: Held::default() })
    }

    fn raw(&self) -> *mut sem_t {
        self.slot.object().cast().as_ptr()
    }

    /// Adds 1, which lets one waiter through.
    ///
    /// # Errors
    ///
    /// EOVERFLOW at 2147483647.
    pub fn post(&self) -> Result<()> {
        // SAFETY: the slot keeps it, see above.
        unsafe { pthread::semaphore_post(self.raw()) }.map_err(|errno| {
            let error = Error::os("sem_post", self.slot.name(), errno);
            match errno {
                Errno::OVERFLOW => error.with_remedy(format!("its value is {VALUE_MAX}, the highest")),
                _ => error,
            }
        })
    }

    /// Takes 1, waiting until `deadline` while the value is 0.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`], with nothing taken.
    pub fn wait_by(&self, deadline: Deadline) -> Result<()> {
        let mut slice = Deadline::Now;
        loop {
            // SAFETY: the slot keeps it, see above.
            match unsafe { pthread::semaphore_wait_by(self.raw(), slice) } {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN | Errno::TIMEDOUT) if deadline.has_passed() => {
                    return Err(Error::out_of_time("wait", self.slot.name(), deadline));
                }
                Err(Errno::AGAIN | Errno::TIMEDOUT) => slice = deadline.at_most(LOOK_AGAIN),
                Err(errno) => return Err(Error::os("sem_wait", self.slot.name(), errno)),
            }
        }
    }

    /// The value. Others may change it at any time; 0 while somebody waits.
    ///
    /// # Errors
    ///
    /// None that the man page knows.
    pub fn value(&self) -> Result<u32> {
        // SAFETY: the slot keeps it, see above.
        unsafe { pthread::semaphore_value(self.raw()) }
            .map_err(|errno| Error::os("sem_getvalue", self.slot.name(), errno))
    }

    /// What it is called in errors.
    #[must_use]
    pub fn object(&self) -> &str {
        self.slot.name()
    }
}

/// Used as a lock, the semaphore begins with the value 1. Nothing is told of a holder that died: see the module. A child made by fork
/// does not hold what its parent holds.
impl Lock for Semaphore {
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        match mode {
            _ if self.held.is_held() => return Err(held_already(self.slot.name())),
            Mode::Shared => return Err(no_shared_mode(self.slot.name())),
            Mode::Exclusive => {}
        }
        Semaphore::wait_by(self, deadline)?;
        self.held.take();
        Ok(Acquired::Clean)
    }

    fn release(&mut self) -> Result<()> {
        if !self.held.is_held() {
            return Err(not_held(self.slot.name()));
        }
        self.post()?;
        self.held.give_up();
        Ok(())
    }

    fn object(&self) -> &str {
        self.slot.name()
    }
}

impl Notify for Semaphore {
    /// Posts `count` times, or not at all where that would be too many. Where others post meanwhile, some may have gone
    /// before one is too many.
    fn notify_by(&mut self, count: u32, _deadline: Deadline) -> Result<()> {
        let value = self.value()?;
        if count > VALUE_MAX - value.min(VALUE_MAX) {
            let remedy = format!("its value is {value}, and {count} more would be above {VALUE_MAX}");
            return Err(Error::os("sem_post", self.slot.name(), Errno::OVERFLOW).with_remedy(remedy));
        }
        (0..count).try_for_each(|_| self.post())
    }

    fn object(&self) -> &str {
        self.slot.name()
    }
}

impl Wait for Semaphore {
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        Semaphore::wait_by(self, deadline)
    }

    fn object(&self) -> &str {
        self.slot.name()
    }
}
