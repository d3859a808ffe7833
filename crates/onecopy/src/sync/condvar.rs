//! Row 26, the condition variable:
//! [pthread_cond_timedwait(3p)](https://man7.org/linux/man-pages/man3/pthread_cond_timedwait.3p.html), process-shared, with
//! deadlines of the monotonic clock.
//!
//! Who holds a [`Mutex`] waits here until another process has changed what it protects:
//!
//! ```
//! use onecopy::Deadline;
//! use onecopy::memory::anonymous::for_children;
//! use onecopy::sync::condvar::{Condvar, Woken};
//! use onecopy::sync::mutex::Mutex;
//! use onecopy::sync::shared::{Place, room_bytes};
//!
//! let place = Place::new(for_children(4096)?)?;
//! let changed = Condvar::create(&place)?;
//! let jobs = Mutex::create(&place.at(room_bytes(0))?, 1_u32)?; // a child adds some and notifies
//! let guard = jobs.lock().expect("no owner has died");
//! let (mut guard, woken) = changed.wait_while_by(guard, Deadline::Never, |jobs| *jobs == 0).expect("no owner has died");
//! assert_eq!(woken, Woken::Notified);
//! *guard -= 1;
//! # Ok::<(), onecopy::Error>(())
//! ```
//!
//! # Who dies
//!
//! **A waiter that is killed damages glibc's condition variable** (2.36; newer ones less): a later notification or the one after it waits
//! for the dead for ever, and with it every waiter. POSIX has no robust kind. So here all calls end, a second after their
//! deadline at the latest (a notification: a second after it began): where one hangs, the object is
//! declared broken, and everybody who uses it through this library gets an error that says so. It has to be removed and created again.
//! A program that calls pthread_cond_wait itself hangs all the same.
//!
//! A waiter that is only stopped (^Z, a debugger) holds up notifications in the same way, and they go on when it does. While a process
//! that maps the object is stopped, a call waits for up to a minute more before the object is declared broken. One whose control group
//! is frozen is not told from a dead one.
//!
//! A notification may go to a waiter that is killed before it acts on it: then nobody else gets it. So a wait without a
//! deadline looks up once a second, as if it had been woken without a cause, which every use has to expect anyway; with
//! [`Condvar::wait_while_by`] nothing that was changed goes unnoticed for longer than that. One that is killed when the mutex's owner
//! has just woken it to lock that again can leave another waiter asleep though the mutex is free: that one looks again a second after
//! its deadline, or two after it began. Who wants to know of deaths waits on something else: the mutex tells of its owner.
//!
//! # Safety
//!
//! The slot keeps the object mapped, and all who can write it are trusted, by the promise of the [`Place`].
#![expect(unsafe_code, reason = "waits on and signals pthread condition variables")]

use std::ptr::NonNull;
use std::time::{Duration, Instant};

use libc::pthread_cond_t;
use rustix::io::Errno;

use super::mutex::{LockError, Mutex, MutexGuard, Plain};
use super::overdue::timer_slack;
use super::shared::{Kind, Place, Slot, Spec, Wish, room_bytes, settled};
use super::{Notify, Wait};
use crate::sys::pthread;
use crate::{Deadline, Error, Result};

/// Between two looks of a wait without a deadline.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a wait ended. The mutex is held again in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// By a notification, or without a cause.
    Notified,
    /// By its deadline.
    OutOfTime,
}

/// A condition variable in shared memory.
#[derive(Debug)]
pub struct Condvar {
    slot: Slot,
}

/// Makes the object anew.
///
/// # Safety
///
/// Room for one, which is valid.
unsafe fn reset(object: NonNull<u8>) -> Result<(), Errno> {
    // SAFETY: as the caller's.
    unsafe { pthread::cond_init(object.cast().as_ptr()) }
}

impl Condvar {
    /// Creates a condition variable where nothing is yet.
    ///
    /// # Errors
    ///
    /// As [`Mutex::create`].
    pub fn create(place: &Place) -> Result<Self> {
        Self::open(place, Wish::Create, settled())
    }

    /// Attaches to one that exists, waiting until `deadline` for it to be created.
    ///
    /// # Errors
    ///
    /// As [`Mutex::attach`]; [`Error::PeerGone`] when a death has broken it.
    pub fn attach(place: &Place, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Attach, deadline)
    }

    /// Attaches to it if it exists, and creates it otherwise.
    ///
    /// # Errors
    ///
    /// As [`Condvar::create`] and [`Condvar::attach`].
    pub fn open_or_create(place: &Place, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Either, deadline)
    }

    fn open(place: &Place, wish: Wish, deadline: Deadline) -> Result<Self> {
        let spec = Spec::of::<pthread_cond_t, ()>(Kind::Condvar, Some(0));
        let slot = Slot::open(place, &spec, wish, deadline, |slot| {
            // SAFETY: room for one, aligned to 64, that nobody else uses before the slot is ready.
            unsafe { reset(slot.object()) }.map_err(|errno| Error::os("pthread_cond_init", slot.name(), errno))
        })?;
        Ok(Self { slot })
    }

    fn raw(&self) -> *mut pthread_cond_t {
        self.slot.object().cast().as_ptr()
    }

    /// Lets one waiter go on, if there is one. It is best called while the mutex is held.
    ///
    /// # Errors
    ///
    /// [`Error::PeerGone`] when a process that was killed in a wait has broken it.
    pub fn notify_one(&self) -> Result<()> {
        // SAFETY: the slot keeps it, see above.
        self.notified("pthread_cond_signal", || unsafe { pthread::cond_signal(self.raw()) })
    }

    /// Lets all go on that wait now.
    ///
    /// # Errors
    ///
    /// As [`Condvar::notify_one`].
    pub fn notify_all(&self) -> Result<()> {
        // SAFETY: the slot keeps it, see above.
        self.notified("pthread_cond_broadcast", || unsafe { pthread::cond_broadcast(self.raw()) })
    }

    fn notified(&self, call: &'static str, notify: impl FnOnce() -> Result<(), Errno>) -> Result<()> {
        self.slot.check_whole()?;
        let done = self.slot.watched(Instant::now(), reset, notify);
        self.slot.check_whole()?;
        done.map_err(|errno| Error::os(call, self.slot.name(), errno))
    }

    /// Unlocks the mutex, waits until somebody notifies or `deadline` passes, and locks it again, however long that takes.
    /// It may wake without a cause, and does so each second without a deadline.
    ///
    /// All who wait at one time do so with the same mutex: POSIX leaves undefined what else happens, which with glibc and musl is
    /// that some wait on until they look again.
    ///
    /// A guard whose value was not repaired after a death is given up for good, as by unlocking it.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] with the guard when the mutex's last owner died; [`LockError::Failed`], and the mutex is not
    /// held any more: [`Error::PeerGone`] when a death has broken the condition variable.
    pub fn wait_by<'a, T: Plain>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> Result<(MutexGuard<'a, T>, Woken), LockError<'a, T>> {
        if deadline.has_passed() {
            return Ok((guard, Woken::OutOfTime));
        }
        self.slot.check_whole().map_err(LockError::Failed)?;
        let mutex = guard.into_mutex();
        let slice = deadline.at_most(LOOK_AGAIN);
        let due = slice.earlier(Instant::now() + LOOK_AGAIN);
        // SAFETY: the slot keeps it, see above; this thread holds the mutex, of which the guard was just given up.
        let done = self
            .slot
            .watched(due + timer_slack(), reset, || unsafe { pthread::cond_wait_by(self.raw(), mutex.raw(), slice) });
        if let Err(errno @ (Errno::OWNERDEAD | Errno::NOTRECOVERABLE)) = done {
            return Err(mutex.refusal("pthread_cond_timedwait", errno, deadline));
        }
        let guard = mutex.guard();
        self.slot.check_whole().map_err(LockError::Failed)?;
        match done {
            Ok(()) => Ok((guard, Woken::Notified)),
            Err(Errno::TIMEDOUT) if !deadline.has_passed() => Ok((guard, Woken::Notified)),
            Err(Errno::TIMEDOUT) => Ok((guard, Woken::OutOfTime)),
            Err(errno) => Err(LockError::Failed(Error::os("pthread_cond_timedwait", self.slot.name(), errno))),
        }
    }

    /// Waits for as long as `condition` is true, until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Condvar::wait_by`].
    pub fn wait_while_by<'a, T: Plain>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Deadline,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<(MutexGuard<'a, T>, Woken), LockError<'a, T>> {
        while condition(&mut guard) {
            let (again, woken) = self.wait_by(guard, deadline)?;
            guard = again;
            if woken == Woken::OutOfTime {
                let woken = if condition(&mut guard) { Woken::OutOfTime } else { Woken::Notified };
                return Ok((guard, woken));
            }
        }
        Ok((guard, Woken::Notified))
    }

    /// What it is called in errors.
    #[must_use]
    pub fn object(&self) -> &str {
        self.slot.name()
    }
}

/// A condition variable, and behind it a mutex with the number of notifications that nobody has taken yet: what
/// `condvar:REGION` names.
#[derive(Debug)]
pub struct Counted {
    condvar: Condvar,
    count: Mutex<u64>,
}

impl Counted {
    /// Attaches to both, and creates what is missing if `create`, waiting until `deadline` for others to do so.
    ///
    /// # Errors
    ///
    /// As [`Condvar::open_or_create`] and [`Mutex::open_or_create`].
    pub fn open(place: &Place, create: bool, deadline: Deadline) -> Result<Self> {
        let behind = place.at(place.offset() + room_bytes(0))?;
        if create {
            let count = Mutex::open_or_create(&behind, 0, deadline)?;
            return Ok(Self { condvar: Condvar::open_or_create(place, deadline)?, count });
        }
        Ok(Self { condvar: Condvar::attach(place, deadline)?, count: Mutex::attach(&behind, deadline)? })
    }

    /// The count: one word, which is whole at any time. Whoever holds its mutex does so for a moment, and that is waited for
    /// whatever the deadline is.
    fn count_by(&self, deadline: Deadline) -> Result<MutexGuard<'_, u64>> {
        whole(self.count.lock_by(if deadline.has_passed() { settled() } else { deadline }))
    }
}

/// What a dead owner left of a count is a count.
fn whole<'a>(locked: Result<MutexGuard<'a, u64>, LockError<'a, u64>>) -> Result<MutexGuard<'a, u64>> {
    match locked {
        Ok(guard) => Ok(guard),
        Err(LockError::OwnerDied(died)) => died.repair(|_| ()),
        Err(LockError::Failed(error)) => Err(error),
    }
}

impl Notify for Counted {
    fn notify_by(&mut self, count: u32, deadline: Deadline) -> Result<()> {
        let mut waiting = self.count_by(deadline)?;
        *waiting = waiting.saturating_add(count.into());
        match count {
            0 => Ok(()),
            1 => self.condvar.notify_one(),
            _ => self.condvar.notify_all(),
        }
    }

    fn object(&self) -> &str {
        self.condvar.object()
    }
}

impl Wait for Counted {
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        let mut guard = self.count_by(deadline)?;
        while *guard == 0 {
            let (again, woken) = match self.condvar.wait_by(guard, deadline) {
                Err(LockError::OwnerDied(died)) => (died.repair(|_| ())?, Woken::Notified),
                Err(LockError::Failed(error)) => return Err(error),
                Ok(woken) => woken,
            };
            if woken == Woken::OutOfTime && *again == 0 {
                return Err(Error::out_of_time("wait", self.condvar.object(), deadline));
            }
            guard = again;
        }
        *guard -= 1;
        Ok(())
    }

    fn object(&self) -> &str {
        self.condvar.object()
    }
}
