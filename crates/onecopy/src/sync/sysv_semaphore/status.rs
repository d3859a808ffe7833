//! What the kernel knows of a set.

use crate::sys::sysv_sem::Status;

/// What semctl(2) says of a set. Others may have changed all of it meanwhile, but for the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetStatus {
    /// How many semaphores it has.
    pub count: usize,
    /// When a process operated on it last, in seconds since 1970; 0 is never: nobody has initialised it, or not by semop(2).
    pub last_operation_time_s: i64,
    /// When it was created, or its owner, mode or values were set, in seconds since 1970.
    pub last_change_time_s: i64,
    /// Who may read and change it, as in chmod(2).
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its owner's group.
    pub gid: u32,
}

impl SetStatus {
    #[allow(clippy::useless_conversion, reason = "the mode has 16 bits with glibc on x86-64 and 32 elsewhere")]
    pub(super) fn of(found: &Status) -> Self {
        Self {
            count: usize::try_from(found.count).unwrap_or(usize::MAX),
            last_operation_time_s: found.operation_time,
            last_change_time_s: found.change_time,
            mode: u32::from(found.permissions.mode) & 0o777,
            uid: found.permissions.uid,
            gid: found.permissions.gid,
        }
    }
}
