//! Why a set cannot be made or opened, or an operation not be done, with the limits in force.

use std::io;

use super::{SysvSemaphore, VALUE_MAX};
use crate::Error;
use crate::sys::sysv_sem;

/// semget(2) of a set of `count`.
pub(super) fn getting_error(object: &str, count: usize, error: io::Error) -> Error {
    let code = error.raw_os_error();
    let error = Error::os("semget", object, error);
    let limits = sysv_sem::limits();
    match code {
        Some(libc::EEXIST) => error.with_remedy("a set with this key exists: open it, or remove it first"),
        Some(libc::ENOENT) => {
            error.with_remedy("no set has this key: create it first (`ipcs -s` lists those that exist)")
        }
        Some(libc::EINVAL) => error.with_remedy(format!(
            "a set of {count} was asked for, and kernel.sem (SEMMSL) allows {}",
            limits.in_set
        )),
        Some(libc::ENOSPC) => error.with_remedy(format!(
            "kernel.sem allows {} sets (SEMMNI) with {} semaphores in all (SEMMNS): remove some (`ipcs -s`, `ipcrm -s ID`) or \
             raise it",
            limits.sets, limits.in_all
        )),
        Some(libc::EACCES) => error.with_remedy("the set exists, and its mode lets this user neither read nor change it"),
        Some(libc::ENOSYS) => Error::Unsupported {
            object: object.into(),
            reason: format!("this kernel has no System V semaphores: {error}"),
        },
        _ => error,
    }
}

impl SysvSemaphore {
    /// semtimedop(2) of `operations` steps.
    pub(super) fn operation_error(&self, operations: usize, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::E2BIG) => Error::os("semop", &self.object, error).with_remedy(format!(
                "{operations} operations were asked for, and kernel.sem (SEMOPM) allows {} in one call",
                sysv_sem::limits().operations
            )),
            Some(libc::EFBIG) => Error::os("semop", &self.object, error).with_remedy(self.range()),
            Some(libc::ERANGE) => Error::os("semop", &self.object, error).with_remedy(format!(
                "a value, or what is to be undone, would leave the range up to {VALUE_MAX} (SEMVMX)"
            )),
            _ => self.error("semop", error),
        }
    }

    /// semctl(2) on semaphore `index`.
    pub(super) fn control_error(&self, index: u16, error: io::Error) -> Error {
        let code = error.raw_os_error();
        match (self.error("semctl", error), code) {
            (error @ Error::Os { .. }, Some(libc::EINVAL)) => {
                error.with_remedy(format!("semaphore {index} was asked for, and {}", self.range()))
            }
            (error, Some(libc::ERANGE)) => error.with_remedy(format!("values go from 0 to {VALUE_MAX} (SEMVMX)")),
            (error, _) => error,
        }
    }

    /// An error of a call on this set. An identifier that was good when the set was opened is wrong for one reason only.
    pub(super) fn error(&self, call: &'static str, error: io::Error) -> Error {
        let is_gone = || {
            let code = sysv_sem::stat(self.id).err().and_then(|error| error.raw_os_error());
            matches!(code, Some(libc::EINVAL | libc::EIDRM))
        };
        match error.raw_os_error() {
            Some(libc::EIDRM) => Error::os(call, &self.object, error).with_remedy("the set was removed"),
            Some(libc::EINVAL) if is_gone() => Error::PeerGone {
                object: self.object.clone(),
                detail: format!("the set was removed, {call} says EINVAL"),
            },
            Some(libc::EACCES) => {
                Error::os(call, &self.object, error).with_remedy("the mode of the set does not let this user do that")
            }
            Some(libc::EPERM) => Error::os(call, &self.object, error)
                .with_remedy("only its owner, its creator and root may remove or change a set"),
            _ => Error::os(call, &self.object, error),
        }
    }

    fn range(&self) -> String {
        match self.count {
            Some(1) => "the set has one semaphore, 0".into(),
            Some(count) => format!("the set has {count} semaphores, 0 to {}", count.saturating_sub(1)),
            None => "this user may not see how many semaphores the set has".into(),
        }
    }
}
