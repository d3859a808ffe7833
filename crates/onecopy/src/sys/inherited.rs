//! A descriptor that this process inherited, by its number.
//!
//! # Safety
//!
//! A number alone says nothing about who owns it, so the descriptor is duplicated and the original left as it is. A number
//! that is not open is an error of the kernel's, so any number may be asked for.
#![expect(unsafe_code, reason = "rustix and nix take borrowed descriptors, and a number is none")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// The first number that a duplicate may get: 0, 1 and 2 are the standard streams.
const FIRST: i32 = 3;

/// A duplicate of descriptor `number`, closed on exec.
pub(crate) fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call changes nothing but the table of descriptors, where it makes a new entry.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FIRST) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_open_is_ebadf() {
        assert_eq!(duplicate(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(duplicate(1 << 30).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(duplicate(2).is_ok());
    }
}
