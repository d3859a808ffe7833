//! Row 25, the mutex: [pthread_mutex_lock(3p)](https://man7.org/linux/man-pages/man3/pthread_mutex_lock.3p.html), process-shared
//! and robust.
//!
//! It protects a value that lies beside it in shared memory. When its owner dies (its thread or process ends, is killed, or
//! executes another program), the kernel gives it to the next one, which is told so and can repair the value:
//!
//! ```
//! use onecopy::memory::anonymous::AnonymousMapping;
//! use onecopy::sync::mutex::{LockError, Mutex};
//! use onecopy::sync::shared::Place;
//!
//! let memory = AnonymousMapping::create("ledger", 4096)?;
//! let ledger = Mutex::create(&Place::new(memory.into_region())?, [100_i64, 0])?;
//! let mut accounts = match ledger.lock() {
//!     Ok(guard) => guard,
//!     // Whoever held it died between the two writes below: what is missing in one account belongs to the other.
//!     Err(LockError::OwnerDied(died)) => died.repair(|accounts| accounts[1] = 100 - accounts[0])?,
//!     Err(LockError::Failed(error)) => return Err(error),
//! };
//! accounts[0] -= 30;
//! accounts[1] += 30;
//! # Ok::<(), onecopy::Error>(())
//! ```
//!
//! # Who holds it
//!
//! The thread that locked it, and it alone can unlock it: a guard cannot be sent to another thread. A thread that locks what it
//! holds gets [`Error::Invalid`]. A guard borrows the mutex, so that this cannot be unmapped while it is held:
//!
//! ```compile_fail,E0505
//! # use onecopy::sync::mutex::Mutex;
//! fn unmapped_while_held(mutex: Mutex<u64>) {
//!     let guard = mutex.lock();
//!     drop(mutex); // and with it the memory
//!     drop(guard);
//! }
//! ```
//!
//! ```compile_fail,E0277
//! # use onecopy::sync::mutex::MutexGuard;
//! fn sent_to_another_thread(guard: MutexGuard<'static, u64>) {
//!     std::thread::spawn(move || drop(guard));
//! }
//! ```
//!
//! A thread holds at most 2048 mutexes at a time, and gets [`Error::Invalid`] for one more: of those beyond, the kernel would
//! not tell anybody that it died. Robust mutexes that it has locked by other means count for the kernel, but not here.
//!
//! A guard that is forgotten leaves the mutex locked until its thread ends. Dropping the [`Mutex`] on that thread unlocks it;
//! dropped on another one it leaves the memory mapped for as long as the process lives, since the kernel and the C library
//! keep addresses in it.
//!
//! A value is plain data: valid for every bit pattern, without pointers, which mean nothing to another process.
//!
//! ```compile_fail,E0277
//! # use onecopy::sync::{mutex::Mutex, shared::Place};
//! fn a_pointer_means_nothing_elsewhere(place: &Place) {
//!     let _ = Mutex::create(place, "text");
//! }
//! ```
//!
//! # Safety
//!
//! The slot keeps the mutex and its value mapped, and all who can write them are trusted, by the promise of the
//! [`Place`]: the mutex was made by `sys::pthread::mutex_init` or the like, which its kind shows, and whoever reaches the value
//! holds it. `held` says whether this handle's mutex is locked by a thread of this process; it is written by the owner alone.
//! While it is set the mapping stays: the C library keeps the mutex in a list of its owner's thread.
#![expect(unsafe_code, reason = "locks pthread mutexes, and reaches what they protect")]

mod count;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libc::pthread_mutex_t;
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::shared::{Kind, Place, Slot, Spec, Wish, settled};
use super::{Acquired, Lock, Mode, no_shared_mode, not_held};
use crate::sys::pthread;
use crate::{Deadline, Error, Result};

/// How long a waiter sleeps at most. A waiter that is killed when it has just been woken takes the wake-up along; the next
/// owner then knows of no waiters, and wakes none until somebody contends again.
const CONTEND_AGAIN: Duration = Duration::from_millis(20);

/// What can lie in shared memory beside its lock: every bit pattern is a value, none of its bytes is padding, and nothing in
/// it is a pointer. Types of one's own derive the traits of zerocopy, of its version 0.8 with the feature `derive`:
///
/// ```
/// use onecopy::sync::mutex::Plain;
/// use zerocopy::{FromBytes, Immutable, IntoBytes};
///
/// #[derive(FromBytes, Immutable, IntoBytes)]
/// #[repr(C)]
/// struct Account {
///     cents: i64,
///     transfers: u64,
/// }
/// fn can_lie_in_shared_memory<T: Plain>() {}
/// can_lie_in_shared_memory::<Account>();
/// ```
pub trait Plain: FromBytes + IntoBytes + Immutable + Send + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + Send + 'static> Plain for T {}

/// Whether the owner of a mutex runs with the priority of whoever waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Protocol {
    /// It keeps its own (PTHREAD_PRIO_NONE).
    #[default]
    Plain = 0,
    /// It inherits the highest one (PTHREAD_PRIO_INHERIT), so that no process of middle priority keeps one of high priority
    /// waiting for one of low priority. Locking is dearer when somebody waits: the kernel hands it over.
    InheritPriority = 1,
}

/// A mutex in shared memory, and the value that it protects, as this process has them mapped.
pub struct Mutex<T> {
    raw: NonNull<pthread_mutex_t>,
    value: NonNull<T>,
    held: AtomicBool,
    slot: Slot,
}

// SAFETY: the mutex belongs to no thread while nobody holds it, and `held` is atomic. The value is `Send`, and reached by the
// owner of the mutex alone. A handle that is dropped while another thread of this process holds it leaves the memory mapped.
unsafe impl<T: Plain> Send for Mutex<T> {}
// SAFETY: as above: of several threads, as of several processes, one has the mutex and with it the value.
unsafe impl<T: Plain> Sync for Mutex<T> {}

impl<T: Plain> Mutex<T> {
    /// Creates a mutex with `value` where nothing is yet.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when one is there already, the place is too short, or something else that this process uses reaches
    /// into it; [`Error::Corrupt`] with what was found when something else lies there; ENOSPC when its file has a hole there that
    /// cannot be filled.
    pub fn create(place: &Place, value: T) -> Result<Self> {
        Self::open(place, Wish::Create, settled(), Some(Protocol::Plain), Some(value))
    }

    /// As [`Mutex::create`], with a choice of protocol.
    ///
    /// # Errors
    ///
    /// As [`Mutex::create`]; ENOTSUP where the C library or the kernel has no such protocol.
    pub fn create_with(place: &Place, value: T, protocol: Protocol) -> Result<Self> {
        Self::open(place, Wish::Create, settled(), Some(protocol), Some(value))
    }

    /// Attaches to a mutex that exists, whatever its protocol, waiting until `deadline` for it to be created.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when nothing is there, and when its creator died before it was complete; [`Error::TimedOut`];
    /// [`Error::Corrupt`] with what was found and what was expected: another kind of object or of mutex, another size or
    /// alignment of the value, another version, C library, pid namespace or start of the machine.
    pub fn attach(place: &Place, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Attach, deadline, None, None)
    }

    /// Attaches to the mutex if it exists, and creates it with `value` otherwise. Any number of processes may do so at once: one
    /// value is used. Waits until `deadline` for another creation to end.
    ///
    /// # Errors
    ///
    /// As [`Mutex::create`] and [`Mutex::attach`].
    pub fn open_or_create(place: &Place, value: T, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Either, deadline, Some(Protocol::Plain), Some(value))
    }

    fn open(
        place: &Place,
        wish: Wish,
        deadline: Deadline,
        protocol: Option<Protocol>,
        value: Option<T>,
    ) -> Result<Self> {
        let spec = Spec::of::<pthread_mutex_t, T>(Kind::Mutex, protocol.map(|protocol| protocol as u32));
        Self::open_as(place, &spec, wish, deadline, value)
    }

    fn open_as(place: &Place, spec: &Spec, wish: Wish, deadline: Deadline, value: Option<T>) -> Result<Self> {
        count::watch_forks();
        let slot = Slot::open(place, spec, wish, deadline, |slot| {
            let raw = slot.object().cast::<pthread_mutex_t>().as_ptr();
            // SAFETY: room for a mutex, aligned to 64, that nobody else uses before the slot is ready.
            unsafe { pthread::mutex_init(raw, spec.detail == Some(Protocol::InheritPriority as u32)) }
                .map_err(|errno| Error::os("pthread_mutex_init", slot.name(), errno))?;
            value.as_ref().map_or(Ok(()), |value| slot.write_payload(value.as_bytes()))
        })?;
        let raw = slot.object().cast();
        Self::check_kind(&slot, raw)?;
        Ok(Self { raw, value: slot.payload().cast(), held: AtomicBool::new(false), slot })
    }

    /// Fails for a mutex that was made otherwise than `init` makes it: one that its owner can lock twice would lend out its value twice.
    fn check_kind(slot: &Slot, raw: NonNull<pthread_mutex_t>) -> Result<()> {
        let wanted = pthread::mutex_kind_of(slot.detail() == Protocol::InheritPriority as u32)
            .map_err(|errno| Error::os("pthread_mutex_init", slot.name(), errno))?;
        // SAFETY: the slot keeps the bytes.
        let found = unsafe { pthread::mutex_kind(raw.as_ptr()) };
        if found == wanted {
            return Ok(());
        }
        let detail = format!(
            "its mutex is of the kind {found:#x}, and {wanted:#x} is expected: process-shared, robust, and checking for errors"
        );
        Err(Error::Corrupt { object: slot.name().to_owned(), detail })
    }

    /// Locks it, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] with the guard when the former owner died with it; [`LockError::Failed`] with
    /// [`Error::Invalid`] when this thread holds it already or holds 2048 others, and with ENOTRECOVERABLE when nobody repaired
    /// what a dead owner left.
    #[inline]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, LockError<'_, T>> {
        self.check_count()?;
        // SAFETY: the slot keeps it, see above.
        match unsafe { pthread::mutex_lock_at_once(self.raw.as_ptr()) } {
            0 => Ok(self.guard()),
            code => self.lock_after(Errno::from_raw_os_error(code)),
        }
    }

    /// Goes on after what a first attempt said.
    #[cold]
    fn lock_after(&self, errno: Errno) -> Result<MutexGuard<'_, T>, LockError<'_, T>> {
        match errno {
            // Somebody holds it, or the C library knows the wall clock alone.
            Errno::TIMEDOUT | Errno::INVAL => self.lock_by(Deadline::Never),
            _ => Err(self.refusal("pthread_mutex_clocklock", errno, Deadline::Never)),
        }
    }

    /// Locks it if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] in [`LockError::Failed`] when somebody does; otherwise as [`Mutex::lock`].
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, LockError<'_, T>> {
        self.lock_by(Deadline::Now)
    }

    /// Locks it, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] in [`LockError::Failed`] when somebody held it all the time; otherwise as [`Mutex::try_lock`].
    pub fn lock_by(&self, deadline: Deadline) -> Result<MutexGuard<'_, T>, LockError<'_, T>> {
        self.check_count()?;
        loop {
            // SAFETY: the slot keeps it, see above.
            match unsafe { pthread::mutex_lock_by(self.raw.as_ptr(), deadline.at_most(CONTEND_AGAIN)) } {
                Ok(()) => return Ok(self.guard()),
                Err(Errno::TIMEDOUT) if !deadline.has_passed() => {}
                Err(errno) => return Err(self.refusal("pthread_mutex_clocklock", errno, deadline)),
            }
        }
    }

    #[inline]
    fn check_count(&self) -> Result<(), LockError<'_, T>> {
        if count::held() < count::MOST { Ok(()) } else { Err(self.too_many()) }
    }

    #[cold]
    fn too_many(&self) -> LockError<'_, T> {
        let reason = format!(
            "this thread holds {} mutexes, as many as the kernel would give to others if it died: unlock one first",
            count::MOST
        );
        LockError::Failed(Error::Invalid { object: self.slot.name().to_owned(), reason })
    }

    /// The guard of what this thread has just locked.
    #[inline]
    pub(super) fn guard(&self) -> MutexGuard<'_, T> {
        count::note_locked();
        // Relaxed: the owner of the mutex alone writes it, and whoever drops the handle has it alone.
        self.held.store(true, Ordering::Relaxed);
        MutexGuard { mutex: self, _of_this_thread: PhantomData }
    }

    #[cold]
    pub(super) fn refusal(&self, call: &'static str, errno: Errno, deadline: Deadline) -> LockError<'_, T> {
        LockError::Failed(match errno {
            Errno::OWNERDEAD => return LockError::OwnerDied(OwnerDied { guard: self.guard() }),
            Errno::BUSY | Errno::TIMEDOUT => Error::out_of_time("lock", self.slot.name(), deadline),
            Errno::DEADLK => {
                let reason = "this thread holds it already".to_owned();
                Error::Invalid { object: self.slot.name().to_owned(), reason }
            }
            Errno::NOTRECOVERABLE => Error::os(call, self.slot.name(), errno).with_remedy(
                "its owner died, and the next one gave it up without repair: remove it, and create it again",
            ),
            _ => Error::os(call, self.slot.name(), errno),
        })
    }

    pub(super) fn raw(&self) -> *mut pthread_mutex_t {
        self.raw.as_ptr()
    }

    fn unlock(&self) -> Result<()> {
        self.held.store(false, Ordering::Relaxed);
        // SAFETY: the slot keeps it, see above.
        match unsafe { pthread::mutex_unlock(self.raw.as_ptr()) } {
            0 => {
                count::note_unlocked();
                Ok(())
            }
            code => {
                let errno = Errno::from_raw_os_error(code);
                // Another thread holds it, and perhaps its copy in the parent of a fork.
                self.held.store(errno == Errno::PERM, Ordering::Relaxed);
                Err(Error::os("pthread_mutex_unlock", self.slot.name(), errno)
                    .with_remedy("the thread that locked it is the one that can unlock it"))
            }
        }
    }

    /// Whether the owner's priority is raised to that of those who wait.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        if self.slot.detail() == 0 { Protocol::Plain } else { Protocol::InheritPriority }
    }

    /// What it is called in errors.
    #[must_use]
    pub fn object(&self) -> &str {
        self.slot.name()
    }
}

impl Mutex<()> {
    /// As [`Mutex::attach`], and created if `create` and missing: for whoever does not use the value, whatever it is.
    pub(crate) fn of_any_value(place: &Place, create: bool, deadline: Deadline) -> Result<Self> {
        let spec = Spec { any_payload: true, ..Spec::of::<pthread_mutex_t, ()>(Kind::Mutex, None) };
        let wish = if create { Wish::Either } else { Wish::Attach };
        Self::open_as(place, &spec, wish, deadline, Some(()))
    }
}

impl<T> Drop for Mutex<T> {
    fn drop(&mut self) {
        // A guard was forgotten, or what `acquire_by` took was not released.
        if !*self.held.get_mut() {
            return;
        }
        // SAFETY: the slot keeps it; nothing borrows the value any more.
        match unsafe { pthread::mutex_unlock(self.raw.as_ptr()) } {
            0 => count::note_unlocked(),
            _ => self.slot.keep_mapped(),
        }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("object", &self.slot.name()).field("held", &self.held).finish_non_exhaustive()
    }
}

/// The lock of its own accord: what [`Lock::acquire_by`] takes is released on the same thread. The value of a dead owner counts
/// as consistent then: whoever uses the lock by this trait repairs what it protects elsewhere.
impl<T: Plain> Lock for Mutex<T> {
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        if mode == Mode::Shared {
            return Err(no_shared_mode(self.slot.name()));
        }
        let (guard, acquired) = match self.lock_by(deadline) {
            Ok(guard) => (guard, Acquired::Clean),
            Err(LockError::OwnerDied(died)) => (died.repair(|_| ())?, Acquired::OwnerDied),
            Err(LockError::Failed(error)) => return Err(error),
        };
        std::mem::forget(guard);
        Ok(acquired)
    }

    fn release(&mut self) -> Result<()> {
        if !*self.held.get_mut() {
            return Err(not_held(self.slot.name()));
        }
        self.unlock()
    }

    fn object(&self) -> &str {
        self.slot.name()
    }
}

/// Holds a [`Mutex`], and reaches its value, until it is dropped.
#[must_use = "dropping the guard unlocks the mutex"]
pub struct MutexGuard<'a, T: Plain> {
    mutex: &'a Mutex<T>,
    _of_this_thread: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives shared references to the value, and no way to unlock.
unsafe impl<T: Plain + Sync> Sync for MutexGuard<'_, T> {}

impl<'a, T: Plain> MutexGuard<'a, T> {
    /// The mutex, whose lock the caller takes over.
    pub(super) fn into_mutex(self) -> &'a Mutex<T> {
        let mutex = self.mutex;
        std::mem::forget(self);
        count::note_unlocked();
        mutex
    }
}

impl<T: Plain> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: mapped while the mutex is borrowed, aligned, and valid for every bit pattern; this thread owns the mutex, so
        // that nobody else writes the value.
        unsafe { self.mutex.value.as_ref() }
    }
}

impl<T: Plain> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        let mut value = self.mutex.value;
        // SAFETY: as in `deref`; the guard is borrowed alone, and there is one guard.
        unsafe { value.as_mut() }
    }
}

impl<T: Plain> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.held.store(false, Ordering::Relaxed);
        // SAFETY: the slot keeps it, see above. It fails in a child of a fork, which has a copy of the guard and no lock.
        if unsafe { pthread::mutex_unlock(self.mutex.raw.as_ptr()) } == 0 {
            count::note_unlocked();
        }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Holds a [`Mutex`] whose last owner died with it: the value may be half changed.
///
/// Dropping it without [`OwnerDied::repair`] gives the mutex up for good: everybody else gets ENOTRECOVERABLE from then on.
#[must_use = "dropping it makes the mutex unusable for all; `repair` does not"]
pub struct OwnerDied<'a, T: Plain> {
    guard: MutexGuard<'a, T>,
}

impl<'a, T: Plain> OwnerDied<'a, T> {
    /// The value as it was left.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.guard
    }

    /// Makes the value whole by `repair`, and declares it so: from then on the mutex works as ever.
    ///
    /// # Errors
    ///
    /// What pthread_mutex_consistent(3) fails with, which it does not for a mutex in that state.
    pub fn repair(mut self, repair: impl FnOnce(&mut T)) -> Result<MutexGuard<'a, T>> {
        repair(&mut self.guard);
        let mutex = self.guard.mutex;
        // SAFETY: the slot keeps it, and this thread holds it.
        unsafe { pthread::mutex_consistent(mutex.raw.as_ptr()) }
            .map_err(|errno| Error::os("pthread_mutex_consistent", mutex.slot.name(), errno))?;
        Ok(self.guard)
    }
}

impl<T: Plain> fmt::Debug for OwnerDied<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerDied").field("object", &self.guard.mutex.slot.name()).finish()
    }
}

/// Why a mutex was not simply locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError<'a, T: Plain> {
    /// It is locked, and its last owner died with it.
    #[error("{}: its owner died with it", .0.guard.mutex.slot.name())]
    OwnerDied(OwnerDied<'a, T>),
    /// It is not locked.
    #[error("{0}")]
    Failed(Error),
}

impl<T: Plain> LockError<'_, T> {
    /// The error when the mutex is not locked.
    #[must_use]
    pub fn failed(&self) -> Option<&Error> {
        match self {
            Self::OwnerDied(_) => None,
            Self::Failed(error) => Some(error),
        }
    }
}
