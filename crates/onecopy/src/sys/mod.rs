//! Thin wrappers for the system calls that neither rustix nor nix covers: one unsafe call, `errno` to error, nothing else.

pub(crate) mod at_fork;
pub(crate) mod futex;
pub(crate) mod inherited;
pub(crate) mod mq;
pub(crate) mod msg;
pub(crate) mod own_thread;
pub(crate) mod own_umask;
pub(crate) mod pidfd_info;
pub(crate) mod posix_sem;
pub(crate) mod pthread;
pub(crate) mod random;
pub(crate) mod recvmsg;
pub(crate) mod robust_list;
pub(crate) mod signal;
pub(crate) mod signal_mask;
pub(crate) mod sigpipe;
pub(crate) mod slices;
pub(crate) mod socket_options;
pub(crate) mod sysctl;
pub(crate) mod sysv;
pub(crate) mod sysv_sem;
pub(crate) mod sysv_shm;

use rustix::io::Errno;

/// What the last call of the C library in this thread failed with.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
