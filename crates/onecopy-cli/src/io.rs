//! Reading and writing descriptors whole: over interrupts, short counts and descriptors that somebody made non-blocking.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Result, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use onecopy::Deadline;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How much is read and written at once. Measured with 1 GiB through a UNIX socket: smaller ones cost throughput, larger
/// ones fall out of the cache.
///
/// Into and out of a [`Buffer`](onecopy::memory::buffer::Buffer), which begins with a page: a vector of this length begins 16 bytes behind
/// one, and some processors copy the kernel's pages there at a fifth of their speed. 1 GiB through a UNIX socket took 1.0 to 1.7 s on one of
/// those, and 0.42 to 0.50 elsewhere in a page.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// By what statfs(2) calls them, the file systems that one machine alone has mounted and whose files its kernel serves: tmpfs, ramfs, ext2
/// to ext4, XFS, Btrfs, F2FS, ZFS, bcachefs.
pub(crate) const LOCAL_FILE_SYSTEMS: [i64; 8] =
    [0x0102_1994, 0x8584_58f6, 0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e];

/// Reads what is there, waiting until `deadline` for the first byte; 0 is the end, and [`ErrorKind::TimedOut`] that none came.
pub(crate) fn read_some(mut file: &File, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
    loop {
        if deadline != Deadline::Never {
            wait(file, PollFlags::IN, deadline)?;
        }
        match file.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(file, PollFlags::IN, deadline)?,
            result => return result,
        }
    }
}

/// Reads until `buffer` is full or the input ends; a short count is the end.
pub(crate) fn read_full(file: &File, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_some(file, &mut buffer[filled..], deadline)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Another descriptor for the same open file.
pub(crate) fn copy_of(fd: impl AsFd) -> Result<File> {
    fd.as_fd().try_clone_to_owned().map(File::from)
}

pub(crate) fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.file_type().is_fifo())
}

/// Makes `buffer` as long as that, if there is memory for it; if not, says what the limit may be.
pub(crate) fn resize(buffer: &mut Vec<u8>, len: usize) -> std::result::Result<(), &'static str> {
    let reserved = buffer.try_reserve_exact(len.saturating_sub(buffer.len()));
    reserved.map_err(|_| "`ulimit -v` shows the limit, a container may have its own")?;
    buffer.resize(len, 0);
    Ok(())
}

/// Writes all of `bytes`.
pub(crate) fn write_all(mut file: &File, bytes: &[u8]) -> Result<()> {
    write_by(file, bytes.len(), |written| file.write(&bytes[written..]))
}

/// Writes `len` bytes by `write`, which is told how many are written, until all are.
pub(crate) fn write_by(file: &File, len: usize, mut write: impl FnMut(usize) -> Result<usize>) -> Result<()> {
    let mut written = 0;
    while written < len {
        match write(written) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(file, PollFlags::OUT, Deadline::Never)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait(file: &File, events: PollFlags, deadline: Deadline) -> Result<()> {
    let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
    match poll(&mut [PollFd::new(file, events)], timeout.as_ref()) {
        Ok(0) => Err(ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// `/proc/self/status`, which proc_pid_status(5) describes. The name in it may be any bytes.
pub(crate) fn own_status() -> Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read("/proc/self/status")?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_for_which_there_is_no_memory_is_an_error() {
        let mut buffer = vec![1; 3];
        assert!(resize(&mut buffer, usize::MAX / 2).is_err());
        assert_eq!(buffer, [1; 3]);
        resize(&mut buffer, 5).unwrap();
        assert_eq!(buffer, [1, 1, 1, 0, 0]);
    }
}
