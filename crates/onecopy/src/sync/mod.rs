//! What processes wait for, and what only one of them may hold.
//!
//! What the mechanisms have in common stands in two pairs of verbs. A [`Lock`] is acquired and released. What wakes is
//! notified ([`Notify`]) and waited for ([`Wait`]). Each mechanism has a type of its own with all that is special to it
//! (undo, ranges, several operations at once, the repair of what a dead owner left), in a module named after it.

pub mod barrier;
pub mod condvar;
pub mod eventfd;
pub mod file_lock;
pub mod futex;
mod lock_file;
pub mod mutex;
pub mod named_semaphore;
mod overdue;
pub mod record_lock;
pub mod rwlock;
pub mod semaphore;
pub mod shared;
pub mod sysv_semaphore;

use crate::process::own_id;
use crate::{Deadline, Error, Result};

/// Whether others may hold a lock meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody else holds it.
    #[default]
    Exclusive,
    /// Others may hold it in the same mode, as readers do.
    Shared,
}

/// In which state a lock was acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "what the lock protects may need repair"]
pub enum Acquired {
    /// Whoever held it before has released it.
    Clean,
    /// Whoever held it before has died with it, so what it protects may be half changed. The lock is held and works on.
    OwnerDied,
}

/// What one process holds at a time, or several in [`Mode::Shared`].
///
/// One value is one holder: what it holds must be released before it can be acquired once more. What happens to a lock
/// whose holder dies is told by each mechanism.
pub trait Lock {
    /// Acquires the lock, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when somebody else holds it; [`Error::Unsupported`] for
    /// [`Mode::Shared`] where the mechanism has no such thing; [`Error::Invalid`] when this value holds it already.
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired>;

    /// Releases what was acquired.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when this value does not hold it; what the mechanism's own call fails with.
    fn release(&mut self) -> Result<()>;

    /// What the lock is called in errors: its address.
    fn object(&self) -> &str;

    /// Acquires the lock for as long as the guard lives, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire_by`].
    fn guard_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Guard<'_>>
    where
        Self: Sized,
    {
        let acquired = self.acquire_by(mode, deadline)?;
        Ok(Guard { lock: self, acquired })
    }
}

/// Holds a [`Lock`] until it is dropped.
#[must_use = "dropping the guard releases the lock"]
pub struct Guard<'a> {
    lock: &'a mut dyn Lock,
    acquired: Acquired,
}

impl Guard<'_> {
    /// In which state the lock was acquired.
    pub fn acquired(&self) -> Acquired {
        self.acquired
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Whoever needs to know calls `release`.
        let _ = self.lock.release();
    }
}

impl std::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("lock", &self.lock.object()).field("acquired", &self.acquired).finish()
    }
}

/// What lets others go on that wait.
pub trait Notify {
    /// Lets `count` waits go on: those that wait now, or those that come, as far as the mechanism keeps count.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] where a counter or a queue is full until `deadline`;
    /// [`Error::Os`] with EOVERFLOW where it can only overflow.
    fn notify_by(&mut self, count: u32, deadline: Deadline) -> Result<()>;

    /// What is notified is called in errors: its address.
    fn object(&self) -> &str;
}

/// What waits until it is notified.
pub trait Wait {
    /// Waits for one notification, until `deadline`, and takes it.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`], with nothing taken.
    fn wait_by(&mut self, deadline: Deadline) -> Result<()>;

    /// What is waited for is called in errors: its address.
    fn object(&self) -> &str;
}

impl<L: Lock + ?Sized> Lock for Box<L> {
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        (**self).acquire_by(mode, deadline)
    }

    fn release(&mut self) -> Result<()> {
        (**self).release()
    }

    fn object(&self) -> &str {
        (**self).object()
    }
}

impl<N: Notify + ?Sized> Notify for Box<N> {
    fn notify_by(&mut self, count: u32, deadline: Deadline) -> Result<()> {
        (**self).notify_by(count, deadline)
    }

    fn object(&self) -> &str {
        (**self).object()
    }
}

impl<W: Wait + ?Sized> Wait for Box<W> {
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        (**self).wait_by(deadline)
    }

    fn object(&self) -> &str {
        (**self).object()
    }
}

/// Whether a value holds its lock. A child made by fork has a copy of the value, and the lock is its parent's.
#[derive(Debug, Default)]
struct Held {
    /// The process that took it; 0 is none.
    pid: u32,
}

impl Held {
    fn taken() -> Self {
        Self { pid: own_id() }
    }

    fn is_held(&self) -> bool {
        self.pid == own_id()
    }

    fn take(&mut self) {
        *self = Self::taken();
    }

    fn give_up(&mut self) {
        self.pid = 0;
    }
}

/// What [`Lock::acquire_by`] reports when its value holds the lock.
fn held_already(object: &str) -> Error {
    Error::Invalid { object: object.into(), reason: "is held by this value already: release it first".into() }
}

/// What [`Lock::release`] reports when its value does not hold the lock.
fn not_held(object: &str) -> Error {
    Error::Invalid { object: object.into(), reason: "is not held by this value".into() }
}

/// What [`Lock::acquire_by`] reports for [`Mode::Shared`] where there is no such thing.
fn no_shared_mode(object: &str) -> Error {
    Error::Unsupported { object: object.into(), reason: "one holds it at a time: it has no shared mode".into() }
}
