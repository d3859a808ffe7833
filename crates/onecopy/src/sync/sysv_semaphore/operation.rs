//! What one call does to the semaphores of a set.

/// One step of [`SysvSemaphore::operate_by`](super::SysvSemaphore::operate_by).
///
/// ```
/// use onecopy::sync::sysv_semaphore::Operation;
///
/// // One of what the first counts and two of what the second counts, given back if this process dies.
/// let both = [Operation::new(0, -1).with_undo(), Operation::new(1, -2).with_undo()];
/// # let _ = both;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    index: u16,
    change: i16,
    flags: i32,
}

impl Operation {
    /// Adds `change` to semaphore `index` of the set: above 0 that never waits, below 0 it waits until the value is large
    /// enough, and 0 waits until the value is 0.
    #[must_use]
    pub const fn new(index: u16, change: i16) -> Self {
        Self { index, change, flags: 0 }
    }

    /// Waits until semaphore `index` is 0, and changes nothing.
    #[must_use]
    pub const fn wait_for_zero(index: u16) -> Self {
        Self::new(index, 0)
    }

    /// The same, and the kernel undoes it when this process ends, however it ends (SEM_UNDO).
    #[must_use]
    pub const fn with_undo(mut self) -> Self {
        self.flags |= libc::SEM_UNDO;
        self
    }

    /// The same, but when this step would have to wait, the whole call fails with
    /// [`Error::WouldBlock`](crate::Error::WouldBlock) (IPC_NOWAIT). [`Deadline::Now`](crate::Deadline::Now) does that to all.
    #[must_use]
    pub const fn without_waiting(mut self) -> Self {
        self.flags |= libc::IPC_NOWAIT;
        self
    }

    /// As the kernel takes it.
    pub(super) fn raw(self) -> libc::sembuf {
        libc::sembuf { sem_num: self.index, sem_op: self.change, sem_flg: self.flags as libc::c_short }
    }
}
