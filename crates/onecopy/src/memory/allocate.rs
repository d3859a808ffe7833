//! Room for shared memory, taken when it is created: a page that cannot be had later is a SIGBUS in whoever touches it.

use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, StatVfs, fallocate, fstatvfs};
use rustix::io::{Errno, pwrite};
use rustix::process::{Resource, geteuid, getrlimit};

use crate::{Error, Result};

/// The longest mapping: `off_t` is signed, and so is every length in a system call.
const MAX_BYTES: usize = isize::MAX as usize;

/// Whether others may already use the bytes that are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The file is new, and nobody else has it.
    Fresh,
    /// Others may have it open, and may extend it at the same time.
    Shared,
}

/// Extends the file to `to` bytes if it is shorter, and gives all of `from..to` pages or blocks. Never shortens it.
pub(super) fn allocate(fd: BorrowedFd<'_>, from: usize, to: usize, usage: Use, object: &str) -> Result<()> {
    check_limit(to, object)?;
    let (start, len) = (from as u64, (to - from) as u64);
    check_room(fd, len, object)?;
    loop {
        return match fallocate(fd, FallocateFlags::empty(), start, len) {
            Ok(()) => Ok(()),
            Err(Errno::INTR) => continue,
            Err(Errno::OPNOTSUPP) if usage == Use::Fresh => write_zeros(fd, from, to, object),
            Err(errno) => Err(no_room(Error::os("fallocate", object, errno), errno, len, fd)),
        };
    }
}

/// Refuses more than is free. The kernel does too, but some file systems first take all there is, and everybody else on the
/// disk meets ENOSPC until they give it back.
fn check_room(fd: BorrowedFd<'_>, wanted_bytes: u64, object: &str) -> Result<()> {
    match fstatvfs(fd) {
        Ok(fs) if lacks_room(&fs, wanted_bytes, geteuid().is_root()) => {
            Err(no_room(Error::os("fstatvfs", object, Errno::NOSPC), Errno::NOSPC, wanted_bytes, fd))
        }
        _ => Ok(()),
    }
}

/// A file system without a limit says that it has no blocks: the kernel's own for memfds does. Some of those that are free may be kept
/// for root.
fn lacks_room(fs: &StatVfs, wanted_bytes: u64, is_root: bool) -> bool {
    let free = if is_root { fs.f_bfree } else { fs.f_bavail };
    fs.f_blocks > 0 && wanted_bytes > free.saturating_mul(fs.f_frsize)
}

/// Refuses what RLIMIT_FSIZE forbids. The kernel does too, but by SIGXFSZ, which ends the process.
pub(super) fn check_limit(len: usize, object: &str) -> Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if len as u64 > limit => Err(Error::os("fallocate", object, Errno::FBIG).with_remedy(format!(
            "{len} bytes are more than the {limit} that this process may give a file: raise `ulimit -f`"
        ))),
        _ => Ok(()),
    }
}

/// What fallocate does, for file systems that lack it. Only while nobody else has the file: it would overwrite their bytes.
fn write_zeros(fd: BorrowedFd<'_>, from: usize, to: usize, object: &str) -> Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut at = from;
    while at < to {
        match pwrite(fd, &ZEROS[..ZEROS.len().min(to - at)], at as u64) {
            Ok(written) => at += written,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(no_room(Error::os("pwrite", object, errno), errno, (to - at) as u64, fd)),
        }
    }
    Ok(())
}

fn no_room(error: Error, errno: Errno, wanted_bytes: u64, fd: BorrowedFd<'_>) -> Error {
    match (errno, fstatvfs(fd)) {
        (Errno::NOSPC, Ok(fs)) => error.with_remedy(format!(
            "{wanted_bytes} bytes were asked for, and {} of its file system's {} bytes are free",
            fs.f_bavail.saturating_mul(fs.f_frsize),
            fs.f_blocks.saturating_mul(fs.f_frsize)
        )),
        (Errno::FBIG, _) => error.with_remedy(format!(
            "{wanted_bytes} bytes were asked for, and the file system allows no file of that length"
        )),
        (Errno::BADF, _) => error.with_remedy("it is open for reading alone: open it for writing"),
        (Errno::OPNOTSUPP, _) => error.with_remedy("this file system cannot allocate room in a file that is in use"),
        _ => error,
    }
}

/// Refuses lengths that no mapping can have.
pub(super) fn check_len(len: usize, object: &str) -> Result<()> {
    let reason = match len {
        0 => "a region of length 0 cannot be mapped: ask for at least 1 byte".to_owned(),
        1..=MAX_BYTES => return Ok(()),
        _ => format!("a region of {len} bytes cannot be mapped: the limit is {MAX_BYTES} bytes"),
    };
    Err(Error::Invalid { object: object.to_owned(), reason })
}

/// Refuses `len` bytes of memory that this machine cannot have free: fallocate would take page after page, until the
/// kernel's out-of-memory killer chose a victim.
pub(super) fn check_memory(len: usize, object: &str) -> Result<()> {
    let Ok(info) = std::fs::read_to_string("/proc/meminfo") else { return Ok(()) };
    let Some(free) = free_bytes(&info) else { return Ok(()) };
    if len as u64 <= free {
        return Ok(());
    }
    Err(Error::os("mmap", object, Errno::NOMEM).with_remedy(format!(
        "{len} bytes of memory were asked for, and {free} bytes are available, swap space included"
    )))
}

/// MemAvailable and SwapFree of /proc/meminfo, in bytes.
fn free_bytes(info: &str) -> Option<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    kib("MemAvailable")?.checked_add(kib("SwapFree")?)?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_machine_are_refused_with_the_numbers() {
        assert!(check_len(1, "x").is_ok());
        assert!(check_len(0, "x").unwrap_err().to_string().contains("length 0"));
        assert!(check_len(usize::MAX, "x").unwrap_err().to_string().contains("18446744073709551615"));
        let error = check_memory(MAX_BYTES, "x").unwrap_err().to_string();
        assert!(error.contains("9223372036854775807") && error.contains("available"), "{error}");
    }

    #[test]
    fn more_than_is_free_is_refused_before_any_of_it_is_taken() {
        let any = rustix::fs::statvfs("/").unwrap();
        let free = StatVfs { f_blocks: 100, f_bfree: 10, f_bavail: 5, f_frsize: 4096, ..any };
        assert!(!lacks_room(&free, 40_960, true) && !lacks_room(&free, 20_480, false));
        assert!(lacks_room(&free, 40_961, true) && lacks_room(&free, 20_481, false));
        assert!(!lacks_room(&StatVfs { f_blocks: 0, f_bfree: 0, f_bavail: 0, ..free }, u64::MAX, false), "no limit");
    }

    #[test]
    fn meminfo_is_read_in_bytes() {
        let info = "MemTotal:  10 kB\nMemAvailable:        7 kB\nSwapTotal: 5 kB\nSwapFree:   3 kB\n";
        assert_eq!(free_bytes(info), Some(10 * 1024));
        assert_eq!(free_bytes("MemFree: 1 kB\n"), None);
    }
}
