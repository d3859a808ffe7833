//! System V semaphores: [semget(2)](https://man7.org/linux/man-pages/man2/semget.2.html).
//!
//! # Safety
//!
//! A set is named by a plain number, so anyone may call this; no memory is passed.
#![expect(unsafe_code, reason = "neither rustix nor nix has System V semaphores")]

use std::io;

/// As a wish, 0 fits every set that exists.
pub(crate) const ANY_COUNT: i32 = 0;

/// The identifier of the set with `key`; `flags` are IPC_CREAT, IPC_EXCL and a mode.
pub(crate) fn get(key: i32, count: i32, flags: i32) -> io::Result<i32> {
    // SAFETY: semget has no preconditions: every key, count and flag that the kernel does not like is an error.
    let id = unsafe { libc::semget(key, count, flags) };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(id) }
}
