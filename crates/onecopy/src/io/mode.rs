//! The permissions of what is created.

use std::os::fd::AsFd;

use rustix::fs::{Mode, fchmod, fstat};
use rustix::io::Errno;

use crate::sys::own_umask::without_umask;
use crate::{Error, Result, process};

/// `mode` as the kernel takes it, refused beyond the nine permission bits.
pub(crate) fn permissions(mode: u32, object: &str) -> Result<Mode> {
    if mode & !0o777 == 0 {
        return Ok(Mode::from_raw_mode(mode));
    }
    let reason = format!("mode {mode:o} has more than the nine permission bits (0 to 777)");
    Err(Error::Invalid { object: object.to_owned(), reason })
}

/// Creates a file with `mode` so that it never has another one, where that can be had. Elsewhere it has what the umask leaves, and is for
/// [`restore`] until then.
pub(crate) fn create_exact<T: Send>(mode: Mode, create: impl Fn() -> T + Sync) -> T {
    let created = if loses_bits(mode) { without_umask(&create) } else { None };
    created.unwrap_or_else(create)
}

/// Gives a new file the bits of `mode` that the umask has taken, if it has.
pub(crate) fn restore(fd: impl AsFd, mode: Mode) -> Result<(), Errno> {
    if Mode::from_raw_mode(fstat(&fd)?.st_mode) == mode { Ok(()) } else { fchmod(fd, mode) }
}

/// Whether the umask would take bits away, and unshare(2) may be tried: a seccomp filter may kill who does, and that is worse. Not where
/// /proc does not tell.
fn loses_bits(mode: Mode) -> bool {
    let Ok(status) = process::status("thread-self") else { return false };
    let value = |key| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let umask = value("Umask:").and_then(|umask| u32::from_str_radix(umask, 8).ok());
    let is_filtered = value("Seccomp:").is_some_and(|seccomp| seccomp != "0");
    !is_filtered && umask.is_some_and(|umask| Mode::from_raw_mode(umask).intersects(mode))
}
