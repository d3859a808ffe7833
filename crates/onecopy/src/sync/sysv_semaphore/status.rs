//! What the kernel knows of a set.

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
    pub(super) fn of(found: &libc::semid_ds) -> Self {
        Self {
            count: usize::try_from(found.sem_nsems).unwrap_or(usize::MAX),
            last_operation_time_s: found.sem_otime,
            last_change_time_s: found.sem_ctime,
            mode: u32::from(found.sem_perm.mode) & 0o777,
            uid: found.sem_perm.uid,
            gid: found.sem_perm.gid,
        }
    }
}
