//! Rows 16 and 17, cross-memory attach:
//! [process_vm_readv(2)](https://man7.org/linux/man-pages/man2/process_vm_readv.2.html).
//!
//! One process reads or writes the memory of another with a single copy, without the other's help. What it needs is the
//! number of the process, an address there, and the permission that a debugger needs.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::memory::permission::{Cause, Diagnosis};
use crate::memory::wait::Alarm;
use crate::process::ProcessHandle;
use crate::tally::count_kernel;
use crate::{Error, Result};

/// How many ranges one system call takes on either side; longer lists are split.
pub const IOV_MAX: usize = 1024;

/// How long a process may take to execute another program, or to exit, while its memory cannot be reached.
const BETWEEN_PROGRAMS: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile.
const ASKED_EVERY: Duration = Duration::from_micros(100);

pub(crate) const READ: &str = "process_vm_readv";
pub(crate) const WRITE: &str = "process_vm_writev";

/// A range of addresses in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteRange {
    /// The first address, as the other process sees it.
    pub address: u64,
    /// The length in bytes.
    pub bytes: usize,
}

/// How far a transfer came.
#[derive(Debug)]
#[non_exhaustive]
pub struct Transfer {
    /// How many bytes were copied: from the begin of the ranges on, without a gap.
    pub bytes: usize,
    /// What kept it from copying the rest; `None` when one of the two sides was full.
    pub stopped: Option<Stop>,
}

/// Where and why a transfer ended early.
#[derive(Debug)]
#[non_exhaustive]
pub struct Stop {
    /// The first remote address that was not copied.
    pub address: u64,
    /// Why: EFAULT where nothing is mapped there or the mapping does not allow the access.
    pub error: Error,
}

impl Transfer {
    /// The number of bytes if nothing stopped the transfer.
    ///
    /// # Errors
    ///
    /// [`Error::PartialTransfer`] with the address where it stopped; `total_bytes` is what was wanted.
    pub fn complete(self, total_bytes: usize) -> Result<usize> {
        match self.stopped {
            None => Ok(self.bytes),
            Some(stop) => Err(Error::PartialTransfer {
                transferred_bytes: self.bytes,
                total_bytes,
                address: stop.address,
                source: Box::new(stop.error),
            }),
        }
    }
}

/// Another process, whose memory can be read and written.
///
/// It stays that process: its number may be given to another one once it has exited, so every transfer asks afterwards, by
/// a pidfd, whether it still lives (one poll, about a quarter of the cost of a short transfer). A number is free only after
/// its process has exited, hence a process that lives after the transfer was the one that took part in it. What was read
/// from one that has exited meanwhile is not handed out. Before a write it is asked as well; a process that exits, and whose
/// number is used again, within the microsecond between that question and the write cannot be told before the damage.
///
/// A process that executes another program stays the same process with other memory: an old address may then be read
/// without an error. One with several threads cannot be reached for a moment meanwhile; a transfer waits for the end of it, for
/// at most a second.
///
/// ```
/// use onecopy::memory::remote::RemoteProcess;
///
/// let secret = [1_u8, 2, 3, 4];
/// let process = RemoteProcess::open(std::process::id())?;
/// let mut copy = [0; 4];
/// # if process.read(secret.as_ptr() as u64, &mut copy).is_ok() {
/// process.read_exact(secret.as_ptr() as u64, &mut copy)?;
/// assert_eq!(copy, secret);
/// # }
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct RemoteProcess {
    handle: Arc<ProcessHandle>,
    /// Whether it is this process, or a thread of it.
    own: bool,
    /// Whether its first thread was seen to have ended for good, while others run.
    headless: AtomicBool,
    /// What tells of its end before the pidfd does.
    alarm: Option<Arc<Alarm>>,
}

impl RemoteProcess {
    /// The process that has the number `pid` now, or the thread that has it (Linux 6.9): when the first thread of a process
    /// has exited, its memory is reached only by the number of a thread that lives.
    ///
    /// No permission is checked yet. A transfer of nothing does not check it either: to probe, read one byte.
    ///
    /// # Errors
    ///
    /// An error for which [`Error::is_peer_gone`] holds when there is no such process, or it has exited and was not yet
    /// waited for.
    pub fn open(pid: u32) -> Result<Self> {
        let handle = ProcessHandle::open(pid).map_err(|error| open_error(pid, error))?;
        Ok(Self::of(Arc::new(handle)))
    }

    /// The process of a pidfd that is there already.
    pub(crate) fn of(handle: Arc<ProcessHandle>) -> Self {
        let own = handle.is_own();
        Self { handle, own, headless: AtomicBool::new(false), alarm: None }
    }

    /// The same process, whose memory nobody waits for any more once `alarm` is set.
    pub(crate) fn with_alarm(self, alarm: Arc<Alarm>) -> Self {
        Self { alarm: Some(alarm), ..self }
    }

    /// As [`RemoteProcess::open`], for a process that is known by its start time too ([`RemoteProcess::start_ticks`] on
    /// the side that named it): one that only has the same number is refused.
    ///
    /// # Errors
    ///
    /// As [`RemoteProcess::open`]; [`Error::PeerGone`] when another process has the number now.
    pub fn open_started_at(pid: u32, start_ticks: u64) -> Result<Self> {
        let process = Self::open(pid)?;
        if process.start_ticks() == start_ticks {
            return Ok(process);
        }
        Err(Error::PeerGone {
            object: format!("mem:{pid}"),
            detail: format!(
                "the process that started at tick {start_ticks} has exited, the number belongs to one that started at tick {}",
                process.start_ticks()
            ),
        })
    }

    /// The number of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.handle.pid()
    }

    /// Whether it is this process.
    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    /// When the process started, in clock ticks since the machine did (field 22 of `/proc/PID/stat`).
    #[must_use]
    pub fn start_ticks(&self) -> u64 {
        self.handle.start_ticks()
    }

    /// Whether the process has exited; what it was asked last stays true, so no is an old answer.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.handle.has_exited().unwrap_or(false)
    }

    /// Reads from `address` on into `buffer`: as much as is readable there without a gap.
    ///
    /// # Errors
    ///
    /// When not one byte could be read: EFAULT with the address; [`Error::NotPermitted`] with the reason when the kernel
    /// refuses; an error for which [`Error::is_peer_gone`] holds when the process has exited. A process that exits after
    /// some bytes were read is that error too, since nobody could say whose bytes they were.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<Transfer> {
        if buffer.is_empty() {
            return Ok(Transfer { bytes: 0, stopped: None });
        }
        let copied = self.copy_from(address, buffer);
        self.confirm(READ, copied.bytes)?;
        self.report(READ, copied, copied.end(address), buffer.len())
    }

    /// As [`RemoteProcess::read_exact`], without asking afterwards whether the process still lives: until the caller has asked,
    /// nobody can say whose bytes these are.
    pub(crate) fn read_unconfirmed(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        let copied = self.copy_from(address, buffer);
        self.report(READ, copied, copied.end(address), buffer.len())?.complete(buffer.len()).map(drop)
    }

    fn copy_from(&self, address: u64, buffer: &mut [u8]) -> Copied {
        copy(buffer.len(), |done| {
            let remote = RemoteIoVec { base: (address as usize).wrapping_add(done), len: buffer.len() - done };
            self.readv(&mut [IoSliceMut::new(&mut buffer[done..])], &[remote])
        })
    }

    /// Reads `buffer.len()` bytes from `address` on.
    ///
    /// # Errors
    ///
    /// As [`RemoteProcess::read`], and [`Error::PartialTransfer`] when some could not be read.
    pub fn read_exact(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        self.read(address, buffer)?.complete(buffer.len()).map(drop)
    }

    /// Reads `ranges` one after the other into `buffers` one after the other, until either side is full. Both may have any
    /// number of elements and any length: what exceeds one system call takes several, and is then not one snapshot.
    ///
    /// # Errors
    ///
    /// As [`RemoteProcess::read`].
    pub fn read_vectored(&self, ranges: &[RemoteRange], buffers: &mut [IoSliceMut<'_>]) -> Result<Transfer> {
        let total = total_bytes(buffers.iter().map(|buffer| buffer.len()));
        let mut own: Vec<IoSliceMut<'_>> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut local = &mut own[..];
        self.transfer(READ, ranges, total, |before, remote| {
            IoSliceMut::advance_slices(&mut local, before);
            let count = local.len().min(IOV_MAX);
            self.readv(&mut local[..count], remote)
        })
    }

    /// Writes `bytes` from `address` on: as many as are writable there without a gap.
    ///
    /// The other process does not notice, and nothing checks what it uses that memory for.
    ///
    /// # Errors
    ///
    /// As [`RemoteProcess::read`]; after [`Error::PeerGone`] the bytes went to a process that has exited since.
    /// [`Error::Invalid`] for this process itself: changing memory behind the compiler's back is nothing that safe code may
    /// do.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<Transfer> {
        self.check_other()?;
        self.confirm(WRITE, 0)?;
        let copied = self.copy_to(address, bytes);
        self.confirm(WRITE, copied.bytes)?;
        self.report(WRITE, copied, copied.end(address), bytes.len())
    }

    /// As [`RemoteProcess::write_all`], without asking whether the process lives: for a caller that knows it did a moment ago.
    pub(crate) fn write_unconfirmed(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.check_other()?;
        let copied = self.copy_to(address, bytes);
        self.report(WRITE, copied, copied.end(address), bytes.len())?.complete(bytes.len()).map(drop)
    }

    fn copy_to(&self, address: u64, bytes: &[u8]) -> Copied {
        copy(bytes.len(), |done| {
            let remote = RemoteIoVec { base: (address as usize).wrapping_add(done), len: bytes.len() - done };
            self.writev(&[IoSlice::new(&bytes[done..])], &[remote])
        })
    }

    /// Writes all of `bytes` from `address` on.
    ///
    /// # Errors
    ///
    /// As [`RemoteProcess::write`], and [`Error::PartialTransfer`] when some could not be written.
    pub fn write_all(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.write(address, bytes)?.complete(bytes.len()).map(drop)
    }

    /// Writes `buffers` one after the other to `ranges` one after the other, until either side is full. Both may have any
    /// number of elements and any length.
    ///
    /// # Errors
    ///
    /// As [`RemoteProcess::write`].
    pub fn write_vectored(&self, ranges: &[RemoteRange], buffers: &[IoSlice<'_>]) -> Result<Transfer> {
        self.check_other()?;
        self.confirm(WRITE, 0)?;
        let total = total_bytes(buffers.iter().map(|buffer| buffer.len()));
        let mut own: Vec<IoSlice<'_>> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
        let mut local = &mut own[..];
        self.transfer(WRITE, ranges, total, |before, remote| {
            IoSlice::advance_slices(&mut local, before);
            let count = local.len().min(IOV_MAX);
            self.writev(&local[..count], remote)
        })
    }

    /// Calls `step` until all is copied or it fails. It gets the number of bytes that its last call copied, and the ranges of
    /// the next.
    fn transfer(
        &self,
        call: &'static str,
        ranges: &[RemoteRange],
        local_bytes: usize,
        mut step: impl FnMut(usize, &[RemoteIoVec]) -> Result<usize, Errno>,
    ) -> Result<Transfer> {
        let wanted = local_bytes.min(total_bytes(ranges.iter().map(|range| range.bytes)));
        if wanted == 0 {
            return Ok(Transfer { bytes: 0, stopped: None });
        }
        let mut remote = Cursor::new(ranges);
        let mut last = 0;
        let mut batch = Vec::with_capacity(ranges.len().min(IOV_MAX));
        let copied = copy(wanted, |done| {
            remote.fill(&mut batch, IOV_MAX, wanted - done);
            let result = step(last, &batch);
            last = *result.as_ref().unwrap_or(&0);
            remote.advance(last);
            result
        });
        self.confirm(call, copied.bytes)?;
        self.report(call, copied, remote.address(), wanted)
    }

    /// One process_vm_readv(2), about which nothing is known afterwards but what it returned.
    pub(crate) fn readv(&self, local: &mut [IoSliceMut<'_>], remote: &[RemoteIoVec]) -> Result<usize, Errno> {
        self.between_programs(|| process_vm_readv(self.number(), local, remote)).inspect(|&bytes| count_kernel(bytes))
    }

    /// One process_vm_writev(2), about which nothing is known afterwards but what it returned.
    pub(crate) fn writev(&self, local: &[IoSlice<'_>], remote: &[RemoteIoVec]) -> Result<usize, Errno> {
        self.between_programs(|| process_vm_writev(self.number(), local, remote)).inspect(|&bytes| count_kernel(bytes))
    }

    /// Makes `call`, again and again while the process is there and yet has no memory: when a thread that is not the first one
    /// executes another program, the first one ends before the other takes its number. (A first thread that ended for good
    /// looks the same, so the wait has an end, and is not repeated.)
    fn between_programs(&self, mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
        let mut until = None;
        loop {
            let result = call();
            if result != Err(Errno::ESRCH) || self.headless.load(Ordering::Relaxed) || self.is_ending() {
                return result;
            }
            if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + BETWEEN_PROGRAMS) {
                self.headless.store(true, Ordering::Relaxed);
                return result;
            }
            std::thread::sleep(ASKED_EVERY);
        }
    }

    fn is_ending(&self) -> bool {
        self.alarm.as_ref().is_some_and(|alarm| alarm.look()) || self.has_exited()
    }

    fn number(&self) -> Pid {
        Pid::from_raw(self.pid().cast_signed())
    }

    /// Fails for this process itself.
    pub(super) fn check_other(&self) -> Result<()> {
        if !self.own {
            return Ok(());
        }
        let reason = "this is the writing process itself: it writes to its memory directly".to_owned();
        Err(Error::Invalid { object: format!("mem:{}", self.pid()), reason })
    }

    /// What came of a transfer of `wanted` bytes; `address` is the first that was not copied.
    fn report(&self, call: &'static str, copied: Copied, address: u64, wanted: usize) -> Result<Transfer> {
        let error = |errno| self.error(call, address, wanted - copied.bytes, errno);
        match copied.stopped.map(|errno| Stop { address, error: error(errno) }) {
            Some(stop) if copied.bytes == 0 => Err(stop.error),
            stopped => Ok(Transfer { bytes: copied.bytes, stopped }),
        }
    }

    /// Fails unless the process still lives, after `done` bytes of a transfer.
    pub(crate) fn confirm(&self, call: &'static str, done: usize) -> Result<()> {
        let object = || format!("mem:{}", self.pid());
        match self.handle.has_exited() {
            Ok(false) => Ok(()),
            Ok(true) if done == 0 => Err(Error::os(call, object(), Errno::ESRCH).with_remedy("the process has exited")),
            Ok(true) => Err(Error::PeerGone {
                object: object(),
                detail: format!("it exited during {call}, after which {done} bytes cannot be trusted"),
            }),
            Err(error) => Err(Error::os("poll", object(), error)),
        }
    }

    pub(crate) fn error(&self, call: &'static str, address: u64, bytes: usize, errno: Errno) -> Error {
        let object = format!("mem:{}:{address:#x}+{bytes}", self.pid());
        if let Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::ESRCH = errno {
            let diagnosis = Box::new(Diagnosis::of(self.pid()));
            // A filter may say ESRCH of a process that is there.
            if errno != Errno::ESRCH || diagnosis.of_call(call).cause == Cause::SelfDenied {
                return Error::NotPermitted { call, object, source: errno.into(), diagnosis };
            }
        }
        let error = Error::os(call, object, errno);
        match errno {
            Errno::EFAULT if call == READ => error.with_remedy("nothing readable is mapped there"),
            Errno::EFAULT => error.with_remedy("nothing writable is mapped there"),
            Errno::ESRCH => error.with_remedy("it has no memory: it has exited, or is a kernel thread"),
            _ => error,
        }
    }
}

fn open_error(pid: u32, error: io::Error) -> Error {
    let object = format!("mem:{pid}");
    match error.raw_os_error() {
        Some(libc::ESRCH) => {
            Error::os("pidfd_open", object, error).with_remedy("no process has this number, or it has exited")
        }
        Some(libc::ENOENT | libc::EACCES) => Error::os("open", format!("/proc/{pid}/stat"), error)
            .with_remedy("the start time of the process is needed: is /proc mounted, and without hidepid?"),
        Some(libc::EINVAL) => Error::os("pidfd_open", object, error)
            .with_remedy("a thread's number needs Linux 6.9: use that of its process"),
        _ => Error::os("pidfd_open", object, error),
    }
}

/// How far the calls came that make up a transfer.
#[derive(Clone, Copy, Debug)]
struct Copied {
    bytes: usize,
    stopped: Option<Errno>,
}

impl Copied {
    /// The first address that was not copied of a range that begins at `start`.
    fn end(self, start: u64) -> u64 {
        start.wrapping_add(self.bytes as u64)
    }
}

/// Calls `step` with the number of bytes that are done until that is `wanted`, or it fails.
fn copy(wanted: usize, mut step: impl FnMut(usize) -> Result<usize, Errno>) -> Copied {
    let mut bytes = 0;
    let stopped = loop {
        if bytes == wanted {
            break None;
        }
        match step(bytes) {
            // The kernel answers with 0 where a range wraps around the end of the address space.
            Ok(0) => break Some(Errno::EFAULT),
            // A count below what was asked for is no error by itself: the next call starts there and says why, or goes on
            // after the kernel's limit of 0x7ffff000 bytes a call.
            Ok(count) => bytes += count.min(wanted - bytes),
            Err(Errno::EINTR) => {}
            Err(errno) => break Some(errno),
        }
    };
    Copied { bytes, stopped }
}

/// The sum of lengths, at most what the kernel takes for one.
fn total_bytes(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.fold(0, usize::saturating_add).min(isize::MAX.cast_unsigned())
}

/// The ranges that are still to be copied.
pub(super) struct Cursor<'a> {
    ranges: &'a [RemoteRange],
    /// How much of the first one is done.
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(ranges: &'a [RemoteRange]) -> Self {
        Self { ranges, offset: 0 }
    }

    /// The ranges of the next call: at most `limit_ranges` of them, none empty, at most `limit_bytes` together.
    pub(super) fn fill(&self, batch: &mut Vec<RemoteIoVec>, limit_ranges: usize, limit_bytes: usize) {
        batch.clear();
        let mut left = limit_bytes;
        let mut offset = self.offset;
        for range in self.ranges {
            let len = (range.bytes - offset).min(left);
            if len > 0 {
                batch.push(RemoteIoVec { base: (range.address as usize).wrapping_add(offset), len });
            }
            left -= len;
            offset = 0;
            if left == 0 || batch.len() == limit_ranges {
                break;
            }
        }
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.offset += bytes;
        while let Some(range) = self.ranges.first()
            && self.offset >= range.bytes
        {
            self.offset -= range.bytes;
            self.ranges = &self.ranges[1..];
        }
    }

    /// The first address that is not done: that of a range with a length, since an empty one cannot stop anything.
    pub(super) fn address(&self) -> u64 {
        let mut offset = self.offset;
        for range in self.ranges {
            if range.bytes > offset {
                return range.address.wrapping_add(offset as u64);
            }
            offset = 0;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> RemoteProcess {
        RemoteProcess::open(std::process::id()).unwrap()
    }

    #[test]
    fn any_number_of_ranges_and_buffers_of_any_shape() {
        let source: Vec<u8> = (0..5000_u32).map(|index| (index * 7) as u8).collect();
        let base = source.as_ptr() as u64;
        for count in [1, 1023, 1024, 1025, 2500] {
            // Ranges of two bytes with empty ones between them, buffers of three.
            let ranges: Vec<RemoteRange> = (0..count)
                .flat_map(|index| [(2 * index as u64, 2), (0, 0)])
                .map(|(offset, bytes)| RemoteRange { address: base + offset, bytes })
                .collect();
            let mut target = vec![0; 2 * count];
            let mut buffers: Vec<IoSliceMut<'_>> = target.chunks_mut(3).map(IoSliceMut::new).collect();
            let transfer = own().read_vectored(&ranges, &mut buffers).unwrap();
            assert_eq!(transfer.complete(2 * count).unwrap(), 2 * count);
            assert_eq!(buffers[0].len(), 3.min(2 * count), "the caller's slices stay as they were");
            assert_eq!(target, source[..2 * count]);
        }
    }

    #[test]
    fn the_shorter_side_decides() {
        let source = [7_u8; 64];
        let address = source.as_ptr() as u64;
        let mut target = [0; 100];
        let long = [RemoteRange { address, bytes: isize::MAX.cast_unsigned() }];
        let transfer = own().read_vectored(&long, &mut [IoSliceMut::new(&mut target[..64])]).unwrap();
        assert_eq!((transfer.bytes, transfer.stopped.is_none()), (64, true));
        let short = [RemoteRange { address, bytes: 10 }];
        assert_eq!(own().read_vectored(&short, &mut [IoSliceMut::new(&mut target)]).unwrap().bytes, 10);
        assert_eq!(own().read(0, &mut []).unwrap().bytes, 0);
    }

    #[test]
    fn addresses_that_no_process_has_are_named() {
        for address in [0, 8, 1 << 63, u64::MAX - 4095, u64::MAX] {
            let error = own().read(address, &mut [0; 64]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
            assert!(error.to_string().contains(&format!("{address:#x}+64")), "{error}");
        }
    }

    #[test]
    fn this_process_is_not_written() {
        let target = [0_u8; 4];
        assert!(matches!(own().write(target.as_ptr() as u64, &[1; 4]), Err(Error::Invalid { .. })));
    }
}
