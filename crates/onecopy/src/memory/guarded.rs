//! Copies from and to a mapped file that somebody may shorten at any moment.
//!
//! A load or store beyond the end of a file is a SIGBUS, and a check beforehand is stale when the copy runs. So the kernel
//! makes these copies, and reports a missing page as an error:
//!
//! - In: pread(2) of the file itself. It sees the same page cache as the mapping does, stops exactly at the end, and costs
//!   no page faults.
//! - Out: process_vm_writev(2) on this process, into the mapping. pwrite(2) would not do: it makes a file that was shortened
//!   long again. Where the call is refused, the bytes go through a pipe, whose read(2) into the mapping fails in the same way.
//!
//! Measured on a tmpfs, hot, in GB/s: 4 KiB in 11, out 4; 1 MiB in 20, out 15 (memcpy: 110 and 58). A short copy takes
//! 0.4 to 0.9 us in and 1.6 to 3.7 us out on a busy machine, the question for the length included. The pipe takes about twice the time. The
//! alternative, a handler for SIGBUS, belongs to the program.
//!
//! # Safety
//!
//! `write_to` and what it calls write only to `target..target + bytes.len()`, which the caller has mapped.
#![expect(unsafe_code, reason = "names the mapping to the kernel by its address")]

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;
use rustix::io::{Errno, pread, write};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::process;
use crate::tally::count_kernel;

/// What a pipe takes without a reader: its default capacity is 64 KiB, and one page for users above their soft limit.
const PIPE_BYTES: usize = 4096;

/// Copies from the file into `buffer` until it is full or the file ends, and returns how many bytes there were.
pub(super) fn read_from(fd: BorrowedFd<'_>, offset: usize, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(fd, &mut buffer[done..], (offset + done) as u64) {
            Ok(0) => break,
            Ok(more) => {
                count_kernel(more);
                done += more;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Copies `bytes` to `target` until all are written or a page is missing, which is EFAULT. The error names the call.
///
/// # Safety
///
/// `target` is the start of at least `bytes.len()` bytes of a shared writable mapping that stays for the whole call. Its pages
/// need not exist.
pub(super) unsafe fn write_to(target: NonNull<u8>, bytes: &[u8]) -> Result<(), (&'static str, Errno)> {
    if ATTACH_WORKS.load(Ordering::Relaxed) {
        // SAFETY: the caller's promise.
        match unsafe { write_attached(target, bytes) } {
            Err(errno) if errno != Errno::FAULT => ATTACH_WORKS.store(false, Ordering::Relaxed),
            result => return result.map_err(|errno| ("process_vm_writev", errno)),
        }
    }
    // SAFETY: the caller's promise. What was written before is written again.
    unsafe { write_piped(target, bytes) }
}

/// Whether process_vm_writev may be called: false from the start under a seccomp filter, which might answer with SIGSYS, or
/// where /proc does not tell of one, and after the first refusal. Relaxed: a stale value costs one refused call.
static ATTACH_WORKS: LazyLock<AtomicBool> = LazyLock::new(|| {
    let is_filtered = |status: String| status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2'));
    AtomicBool::new(process::status("thread-self").is_ok_and(|status| !is_filtered(status)))
});

/// Through cross-memory attach on this process itself.
///
/// # Safety
///
/// As [`write_to`].
unsafe fn write_attached(target: NonNull<u8>, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        // SAFETY: `done < bytes.len()`, so the sum stays within the caller's range.
        let base = unsafe { target.add(done) }.as_ptr() as usize;
        match process_vm_writev(Pid::this(), &[IoSlice::new(rest)], &[RemoteIoVec { base, len: rest.len() }]) {
            Ok(0) => return Err(Errno::FAULT),
            Ok(more) => {
                count_kernel(more);
                done += more;
            }
            Err(errno) => return Err(Errno::from_raw_os_error(errno as i32)),
        }
    }
    Ok(())
}

/// Through a pipe that lives for this call: the kernel fills the mapping on read(2).
///
/// # Safety
///
/// As [`write_to`].
unsafe fn write_piped(target: NonNull<u8>, bytes: &[u8]) -> Result<(), (&'static str, Errno)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| ("pipe2", errno))?;
    for (index, piece) in bytes.chunks(PIPE_BYTES).enumerate() {
        let written = write(&writer, piece).map_err(|errno| ("write", errno))?;
        count_kernel(written);
        debug_assert_eq!(written, piece.len(), "an empty pipe takes a whole page");
        // SAFETY: the piece begins at this offset, inside the caller's range.
        let start = unsafe { target.add(index * PIPE_BYTES) };
        // SAFETY: the piece ends inside the caller's range.
        unsafe { read_exactly(&reader, start, written) }.map_err(|errno| ("read", errno))?;
    }
    Ok(())
}

/// read(2) of `len` bytes that wait in a pipe, to memory that a peer may write too: so no slice is formed.
///
/// # Safety
///
/// As [`write_to`].
unsafe fn read_exactly(pipe: &OwnedFd, target: NonNull<u8>, len: usize) -> Result<(), Errno> {
    let mut done = 0;
    while done < len {
        // SAFETY: `done < len`, so the sum stays within the caller's range.
        let start = unsafe { target.add(done) };
        // SAFETY: the kernel writes at most `len - done` bytes there, within the caller's range.
        let read = unsafe { libc::read(pipe.as_raw_fd(), start.as_ptr().cast(), len - done) };
        match usize::try_from(read) {
            Ok(0) => return Err(Errno::IO),
            Ok(more) => {
                count_kernel(more);
                done += more;
            }
            Err(_) => return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap};

    use super::*;

    const LEN: usize = 64 * 1024;
    /// The file keeps its first page; the mapping stays as long as it was.
    const KEPT: usize = 16 * 1024;

    fn shortened_file() -> (OwnedFd, NonNull<u8>) {
        let fd = memfd_create("guarded", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, LEN as u64).unwrap();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let base = unsafe { mmap(std::ptr::null_mut(), LEN, protection, MapFlags::SHARED, &fd, 0) }.unwrap();
        ftruncate(&fd, KEPT as u64).unwrap();
        (fd, NonNull::new(base.cast()).unwrap())
    }

    #[test]
    fn both_ways_out_write_what_is_there_and_report_what_is_not() {
        type Way = unsafe fn(NonNull<u8>, &[u8]) -> Result<(), (&'static str, Errno)>;
        let attached: Way = |target, bytes| {
            // SAFETY: passed on from the call below.
            unsafe { write_attached(target, bytes) }.map_err(|errno| ("process_vm_writev", errno))
        };
        for way in [attached, write_piped as Way, write_to as Way] {
            let (fd, base) = shortened_file();
            let bytes: Vec<u8> = (0..KEPT).map(|index| (index % 251) as u8).collect();
            // SAFETY: the mapping has `LEN` bytes and is never unmapped.
            assert_eq!(unsafe { way(base, &bytes) }, Ok(()));
            let mut found = vec![0; LEN];
            assert_eq!(read_from(fd.as_fd(), 0, &mut found), Ok(KEPT));
            assert_eq!(found[..KEPT], bytes);
            // SAFETY: as above.
            let error = unsafe { way(base, &vec![7; KEPT + 1]) }.unwrap_err();
            assert_eq!(error.1, Errno::FAULT, "{}", error.0);
            assert_eq!(read_from(fd.as_fd(), KEPT, &mut found), Ok(0), "and the file stays as short as it was");
        }
    }
}
