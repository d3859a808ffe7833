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
    let is_whole = umask_of_this_thread().is_some_and(|umask| !umask.intersects(mode));
    let created = if is_whole { None } else { without_umask(&create) };
    created.unwrap_or_else(create)
}

/// Gives a new file the bits of `mode` that the umask has taken, if it has.
pub(crate) fn restore(fd: impl AsFd, mode: Mode) -> Result<(), Errno> {
    if Mode::from_raw_mode(fstat(&fd)?.st_mode) == mode { Ok(()) } else { fchmod(fd, mode) }
}

/// `None` where /proc does not tell.
fn umask_of_this_thread() -> Option<Mode> {
    let status = process::status("thread-self").ok()?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(umask.trim(), 8).ok().map(Mode::from_raw_mode)
}
