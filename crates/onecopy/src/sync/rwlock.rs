//! Row 28, the read-write lock:
//! [pthread_rwlock_rdlock(3p)](https://man7.org/linux/man-pages/man3/pthread_rwlock_rdlock.3p.html), process-shared.
//!
//! Many read the value beside it, or one writes it:
//!
//! ```
//! use onecopy::memory::anonymous::for_children;
//! use onecopy::sync::rwlock::Rwlock;
//! use onecopy::sync::shared::Place;
//!
//! let table = Rwlock::create(&Place::new(for_children(4096)?)?, [0_u32; 8])?;
//! table.write()?[3] = 7;
//! let (one, other) = (table.read()?, table.read()?);
//! assert_eq!(one[3] + other[3], 14);
//! # Ok::<(), onecopy::Error>(())
//! ```
//!
//! With glibc a writer that waits lets no new reader in (PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP): so a thread
//! that reads and locks once more to read can wait for itself. With musl readers can keep a writer waiting.
//!
//! **It has no owner.** A holder that is killed holds it for ever: a call with a deadline ends then, one without does not. POSIX
//! has no robust kind; where processes may die, use a [`mutex`](super::mutex). A waiter that is killed can leave glibc's lock (2.36)
//! such that others go round and round in it, whatever their deadline: then, a second after it, the lock is declared broken, and
//! everybody is told. Who waits without a deadline looks again each second.
//!
//! # Safety
//!
//! The slot keeps the lock and its value mapped, and all who can write them are trusted, by the promise of the [`Place`]. Whoever
//! reaches the value holds the lock: to write, alone.
#![expect(unsafe_code, reason = "locks pthread read-write locks, and reaches what they protect")]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use libc::pthread_rwlock_t;
use rustix::io::Errno;

use super::mutex::Plain;
use super::overdue::timer_slack;
use super::shared::{Kind, Place, Slot, Spec, Wish, settled};
use super::{Acquired, Held, Lock, Mode, held_already, not_held};
use crate::sys::pthread;
use crate::{Deadline, Error, Result};

/// Between two looks of a wait without a deadline.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A read-write lock in shared memory, and the value that it protects.
pub struct Rwlock<T> {
    value: NonNull<T>,
    /// The thread for which [`Lock`] has taken it. The C library tells a writer from a reader by the thread that unlocks: another one
    /// would leave it locked for ever, and so would that thread's copy in a child made by fork.
    held: Option<(Held, ThreadId)>,
    slot: Slot,
}

// SAFETY: the lock belongs to no thread while nobody holds it; the value is `Send`.
unsafe impl<T: Plain> Send for Rwlock<T> {}
// SAFETY: the value is reached by one writer, or by readers, who may be several threads since it is `Sync`.
unsafe impl<T: Plain + Sync> Sync for Rwlock<T> {}

/// Makes the object anew.
///
/// # Safety
///
/// Room for one, which is valid.
unsafe fn reset(object: NonNull<u8>) -> Result<(), Errno> {
    // SAFETY: as the caller's.
    unsafe { pthread::rwlock_init(object.cast().as_ptr()) }
}

impl<T: Plain> Rwlock<T> {
    /// Creates a lock with `value` where nothing is yet.
    ///
    /// # Errors
    ///
    /// As [`Mutex::create`](super::mutex::Mutex::create).
    pub fn create(place: &Place, value: T) -> Result<Self> {
        Self::open(place, &Self::spec(), Wish::Create, settled(), Some(value))
    }

    /// Attaches to one that exists, waiting until `deadline` for it to be created.
    ///
    /// # Errors
    ///
    /// As [`Mutex::attach`](super::mutex::Mutex::attach); [`Error::PeerGone`] when a death has broken it.
    pub fn attach(place: &Place, deadline: Deadline) -> Result<Self> {
        Self::open(place, &Self::spec(), Wish::Attach, deadline, None)
    }

    /// Attaches to it if it exists, and creates it with `value` otherwise.
    ///
    /// # Errors
    ///
    /// As [`Rwlock::create`] and [`Rwlock::attach`].
    pub fn open_or_create(place: &Place, value: T, deadline: Deadline) -> Result<Self> {
        Self::open(place, &Self::spec(), Wish::Either, deadline, Some(value))
    }

    fn spec() -> Spec {
        Spec::of::<pthread_rwlock_t, T>(Kind::Rwlock, Some(0))
    }

    fn open(place: &Place, spec: &Spec, wish: Wish, deadline: Deadline, value: Option<T>) -> Result<Self> {
        let slot = Slot::open(place, spec, wish, deadline, |slot| {
            // SAFETY: room for one, aligned to 64, that nobody else uses before the slot is ready.
            unsafe { reset(slot.object()) }.map_err(|errno| Error::os("pthread_rwlock_init", slot.name(), errno))?;
            value.as_ref().map_or(Ok(()), |value| slot.write_payload(value.as_bytes()))
        })?;
        Ok(Self { value: slot.payload().cast(), held: None, slot })
    }

    fn raw(&self) -> *mut pthread_rwlock_t {
        self.slot.object().cast().as_ptr()
    }

    /// Locks it to read, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when this thread holds it to write; EAGAIN when more read than it counts; [`Error::PeerGone`] when a
    /// death has broken it.
    pub fn read(&self) -> Result<ReadGuard<'_, T>> {
        self.read_by(Deadline::Never)
    }

    /// Locks it to read, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when it stays locked to write; otherwise as [`Rwlock::read`].
    pub fn read_by(&self, deadline: Deadline) -> Result<ReadGuard<'_, T>> {
        self.lock_by(Mode::Shared, deadline)?;
        Ok(ReadGuard { lock: self, held: Held::taken(), _of_this_thread: PhantomData })
    }

    /// Locks it to write, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`Rwlock::read`].
    pub fn write(&self) -> Result<WriteGuard<'_, T>> {
        self.write_by(Deadline::Never)
    }

    /// Locks it to write, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when others hold it all the time; otherwise as [`Rwlock::read`].
    pub fn write_by(&self, deadline: Deadline) -> Result<WriteGuard<'_, T>> {
        self.lock_by(Mode::Exclusive, deadline)?;
        Ok(WriteGuard { lock: self, held: Held::taken(), _of_this_thread: PhantomData })
    }

    fn lock_by(&self, mode: Mode, deadline: Deadline) -> Result<()> {
        self.slot.check_whole()?;
        let mut tried = self.try_by(mode, Deadline::Now);
        loop {
            // One that was made anew is free, though others may hold it.
            self.slot.check_whole()?;
            match tried {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY | Errno::TIMEDOUT) if deadline.has_passed() => {
                    return Err(Error::out_of_time("lock", self.slot.name(), deadline));
                }
                Err(Errno::BUSY | Errno::TIMEDOUT) => {}
                Err(Errno::DEADLK) => {
                    let reason = "this thread holds it already".to_owned();
                    return Err(Error::Invalid { object: self.slot.name().to_owned(), reason });
                }
                Err(errno) => return Err(Error::os("pthread_rwlock_clockwrlock", self.slot.name(), errno)),
            }
            let slice = deadline.at_most(LOOK_AGAIN);
            let due = slice.earlier(Instant::now() + LOOK_AGAIN);
            tried = self.slot.watched(due + timer_slack(), reset, || self.try_by(mode, slice));
        }
    }

    fn try_by(&self, mode: Mode, deadline: Deadline) -> Result<(), Errno> {
        match mode {
            // SAFETY: the slot keeps it, see above.
            Mode::Shared => unsafe { pthread::rwlock_read_by(self.raw(), deadline) },
            // SAFETY: as above.
            Mode::Exclusive => unsafe { pthread::rwlock_write_by(self.raw(), deadline) },
        }
    }

    /// The thread of this process for which [`Lock`] has taken it.
    fn owner(&self) -> Option<ThreadId> {
        self.held.as_ref().filter(|(held, _)| held.is_held()).map(|(_, owner)| *owner)
    }

    fn unlock(&self) -> Result<()> {
        // SAFETY: the slot keeps it, see above, and this handle holds it.
        unsafe { pthread::rwlock_unlock(self.raw()) }
            .map_err(|errno| Error::os("pthread_rwlock_unlock", self.slot.name(), errno))
    }

    /// What it is called in errors.
    #[must_use]
    pub fn object(&self) -> &str {
        self.slot.name()
    }
}

impl Rwlock<()> {
    /// As [`Rwlock::attach`], and created if `create` and missing: for whoever does not use the value, whatever it is.
    pub(crate) fn of_any_value(place: &Place, create: bool, deadline: Deadline) -> Result<Self> {
        let wish = if create { Wish::Either } else { Wish::Attach };
        Self::open(place, &Spec { any_payload: true, ..Self::spec() }, wish, deadline, Some(()))
    }
}

impl<T> fmt::Debug for Rwlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rwlock").field("object", &self.slot.name()).finish_non_exhaustive()
    }
}

/// What [`Lock::acquire_by`] takes is released on the same thread.
impl<T: Plain> Lock for Rwlock<T> {
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        if self.owner().is_some() {
            return Err(held_already(self.slot.name()));
        }
        self.lock_by(mode, deadline)?;
        self.held = Some((Held::taken(), thread::current().id()));
        Ok(Acquired::Clean)
    }

    fn release(&mut self) -> Result<()> {
        match self.owner() {
            None => return Err(not_held(self.slot.name())),
            Some(owner) if owner != thread::current().id() => {
                let reason = "the thread that locked it is the one that can unlock it".to_owned();
                return Err(Error::Invalid { object: self.slot.name().to_owned(), reason });
            }
            Some(_) => self.unlock()?,
        }
        self.held = None;
        Ok(())
    }

    fn object(&self) -> &str {
        self.slot.name()
    }
}

/// Holds a [`Rwlock`] to read, until it is dropped. Its copy in a child made by fork holds nothing, and is not to be read from.
#[must_use = "dropping the guard unlocks it"]
pub struct ReadGuard<'a, T: Plain> {
    lock: &'a Rwlock<T>,
    held: Held,
    _of_this_thread: PhantomData<*const ()>,
}

/// Holds a [`Rwlock`] to write, until it is dropped. Its copy in a child made by fork holds nothing, and is not to be used.
#[must_use = "dropping the guard unlocks it"]
pub struct WriteGuard<'a, T: Plain> {
    lock: &'a Rwlock<T>,
    held: Held,
    _of_this_thread: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives shared references to the value, and no way to unlock.
unsafe impl<T: Plain + Sync> Sync for ReadGuard<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Plain + Sync> Sync for WriteGuard<'_, T> {}

impl<T: Plain> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped while the lock is borrowed, aligned, and valid for every bit pattern; nobody writes while it is held.
        unsafe { self.lock.value.as_ref() }
    }
}

impl<T: Plain> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as for a reader.
        unsafe { self.lock.value.as_ref() }
    }
}

impl<T: Plain> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        let mut value = self.lock.value;
        // SAFETY: as in `deref`; the guard is borrowed alone, and nobody else holds the lock.
        unsafe { value.as_mut() }
    }
}

impl<T: Plain> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        if self.held.is_held() {
            // It does not fail for a lock that is held.
            let _ = self.lock.unlock();
        }
    }
}

impl<T: Plain> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        if self.held.is_held() {
            // As above.
            let _ = self.lock.unlock();
        }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
