//! What is measured beside transports: the mechanisms that wake and that lock, by the names of the command line.

use std::fmt;

use onecopy::Mechanism;
use serde::{Deserialize, Serialize};

/// A mechanism of synchronisation. The names are those of the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Primitive {
    /// A POSIX semaphore with a name.
    PosixNamedSemaphore,
    /// A POSIX semaphore in shared memory.
    PosixUnnamedSemaphore,
    /// A System V semaphore.
    SysvSemaphore,
    /// A counter behind a descriptor.
    Eventfd,
    /// A word of shared memory.
    Futex,
    /// A lock on a range of a file.
    RecordLock,
    /// A lock on a file.
    FileLock,
    /// A process-shared, robust mutex.
    Mutex,
    /// A process-shared condition variable.
    Condvar,
    /// A process-shared barrier.
    Barrier,
    /// A process-shared read-write lock.
    Rwlock,
    /// A signal that coalesces.
    SignalStandard,
    /// A signal that is queued.
    SignalRealtime,
}

/// What a primitive is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Use {
    /// One process wakes the other and is woken.
    Wake,
    /// A process takes it and gives it back, and nobody else wants it.
    Uncontended,
    /// Both processes want it all the time.
    Contended,
}

impl Primitive {
    /// All of them, in the order of the mechanisms.
    pub const ALL: &'static [Self] = &[
        Self::PosixNamedSemaphore,
        Self::PosixUnnamedSemaphore,
        Self::SysvSemaphore,
        Self::Eventfd,
        Self::Futex,
        Self::RecordLock,
        Self::FileLock,
        Self::Mutex,
        Self::Condvar,
        Self::Barrier,
        Self::Rwlock,
        Self::SignalStandard,
        Self::SignalRealtime,
    ];

    /// The row of the thirty.
    #[must_use]
    pub fn mechanism(self) -> Mechanism {
        match self {
            Self::PosixNamedSemaphore => Mechanism::PosixNamedSemaphore,
            Self::PosixUnnamedSemaphore => Mechanism::PosixUnnamedSemaphore,
            Self::SysvSemaphore => Mechanism::SysvSemaphore,
            Self::Eventfd => Mechanism::Eventfd,
            Self::Futex => Mechanism::Futex,
            Self::RecordLock => Mechanism::RecordLock,
            Self::FileLock => Mechanism::FileLock,
            Self::Mutex => Mechanism::Mutex,
            Self::Condvar => Mechanism::Condvar,
            Self::Barrier => Mechanism::Barrier,
            Self::Rwlock => Mechanism::Rwlock,
            Self::SignalStandard => Mechanism::SignalStandard,
            Self::SignalRealtime => Mechanism::SignalRealtime,
        }
    }

    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.mechanism().name()
    }

    /// What it can be used for: a semaphore both wakes and locks.
    pub(crate) fn uses(self) -> &'static [Use] {
        match self {
            Self::PosixNamedSemaphore | Self::PosixUnnamedSemaphore | Self::SysvSemaphore => {
                &[Use::Wake, Use::Uncontended, Use::Contended]
            }
            Self::RecordLock | Self::FileLock | Self::Mutex | Self::Rwlock => &[Use::Uncontended, Use::Contended],
            Self::Eventfd
            | Self::Futex
            | Self::Condvar
            | Self::Barrier
            | Self::SignalStandard
            | Self::SignalRealtime => &[Use::Wake],
        }
    }

    /// Whether it lives in shared memory without a name, which both processes get as a descriptor.
    pub(crate) fn is_in_memory(self) -> bool {
        matches!(
            self,
            Self::PosixUnnamedSemaphore | Self::Futex | Self::Mutex | Self::Condvar | Self::Barrier | Self::Rwlock
        )
    }
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
