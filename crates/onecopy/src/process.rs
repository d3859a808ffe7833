//! Which process: its number alone is used again, its number with its start time is not.

mod forks;
mod lock;
mod origin;
mod own;

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sys::own_thread::may_be_own;

pub(crate) use forks::{forks, has_forked_since};
pub(crate) use lock::ProcessLock;
pub(crate) use origin::Origin;
pub(crate) use own::own_id;

/// `PIDFD_THREAD` of Linux 6.9 (its value is that of O_EXCL): the descriptor stands for one thread.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);

/// A pidfd: it stands for one process, and its number says nothing about which, so a recycled pid is not taken for it.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    pid: u32,
    start_ticks: u64,
    fd: OwnedFd,
    /// Whether it stands for a thread that is not the first of its process.
    is_thread: bool,
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ProcessHandle {
    /// Opens the process, or thread, that has the number `pid` now.
    ///
    /// # Errors
    ///
    /// ESRCH when there is none or it has exited; EINVAL for a thread that is not its process's first before Linux 6.9;
    /// what opening `/proc/PID/stat` says.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let (fd, is_thread) = pidfd(pid)?;
        let stat = start_ticks(pid);
        // The file belonged to this very process if that still lives: only then could nobody else have had its number.
        if has_exited(fd.as_fd())? {
            return Err(Errno::SRCH.into());
        }
        Ok(Self { pid, start_ticks: stat?, fd, is_thread })
    }

    /// The same where /proc may not show the process: its start time is 0 then.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for /proc.
    pub(crate) fn open_hidden(pid: u32) -> io::Result<Self> {
        let (fd, is_thread) = pidfd(pid)?;
        Ok(Self { is_thread, ..Self::from_pidfd(pid, fd)? })
    }

    /// Takes over a pidfd that the kernel passed, of the process that has the number `pid` here; 0 is one that has none here.
    /// The start time is 0 where it cannot be read.
    ///
    /// # Errors
    ///
    /// ESRCH when the process has exited.
    pub(crate) fn from_pidfd(pid: u32, fd: OwnedFd) -> io::Result<Self> {
        let start_ticks = if pid == 0 { 0 } else { start_ticks(pid).unwrap_or(0) };
        // As above: the file belonged to this process if that still lives.
        if has_exited(fd.as_fd())? {
            return Err(Errno::SRCH.into());
        }
        Ok(Self { pid, start_ticks, fd, is_thread: false })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is this process, or a thread of it.
    pub(crate) fn is_own(&self) -> bool {
        self.pid == std::process::id() || (self.is_thread && may_be_own(self.pid))
    }

    /// When it started, in clock ticks since the machine did.
    pub(crate) fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Whether it has exited. While it has not, its number belongs to nobody else.
    pub(crate) fn has_exited(&self) -> io::Result<bool> {
        has_exited(self.fd.as_fd())
    }
}

/// The descriptor, and whether it stands for a thread that is not the first of its process.
fn pidfd(pid: u32) -> io::Result<(OwnedFd, bool)> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    match pidfd_open(number, PidfdFlags::empty()) {
        // A thread, but not the first of its process: EINVAL, or ENOENT from Linux 6.16 on.
        Err(Errno::INVAL | Errno::NOENT) => Ok((pidfd_open(number, PIDFD_THREAD)?, true)),
        other => Ok((other?, false)),
    }
}

fn has_exited(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    // Twice: while another thread than the first executes a program, the pidfd may seem ready for an instant (seen on Linux
    // 6.18, once in 100,000 looks just then).
    Ok(is_ready(pidfd)? && is_ready(pidfd)?)
}

fn is_ready(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&at_once)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A process in one word, which a compare-and-swap in shared memory can set: 22 bits of its pid (no pid is longer:
/// `PID_MAX_LIMIT`), 16 of its pid namespace, 26 of its start time.
///
/// Namespaces are numbered in order, so two that live at the same time share their last 16 bits only where there are more
/// than 65,536. A process that is taken for another one would have to have its pid and to have started a multiple of 7.7
/// days before or after it, to the hundredth of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64);

const PID_BITS: u32 = 22;
const NAMESPACE_BITS: u32 = 16;
const START_BITS: u32 = 26;
const _: () = assert!(PID_BITS + NAMESPACE_BITS + START_BITS == u64::BITS);

impl Identity {
    /// This process.
    pub(crate) fn current() -> io::Result<Self> {
        let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
        Ok(Self::new(std::process::id(), namespace, start_ticks(std::process::id())?))
    }

    fn new(pid: u32, namespace: u64, start_ticks: u64) -> Self {
        let namespace = namespace & ((1 << NAMESPACE_BITS) - 1);
        let start = start_ticks & ((1 << START_BITS) - 1);
        Self(u64::from(pid) | namespace << PID_BITS | start << (PID_BITS + NAMESPACE_BITS))
    }

    /// The process that this word stands for, if it stands for one: it may come from a peer and be anything.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        Some(Self(bits)).filter(|identity| identity.pid() != 0)
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The pid, as its own namespace counts.
    pub(crate) fn pid(self) -> u32 {
        (self.0 & ((1 << PID_BITS) - 1)) as u32
    }

    fn namespace(self) -> u64 {
        self.0 >> PID_BITS & ((1 << NAMESPACE_BITS) - 1)
    }

    /// Whether this is still the process that asked for it, and not a child made by fork that has a copy.
    pub(crate) fn is_current(self) -> bool {
        self.pid() == std::process::id()
    }

    /// Whether the pid of one means anything to the other.
    pub(crate) fn shares_namespace_with(self, other: Self) -> bool {
        self.namespace() == other.namespace()
    }

    /// Whether this is the process with its pid that has started then.
    pub(crate) fn has_started_at(self, start_ticks: u64) -> bool {
        self == Self::new(self.pid(), self.namespace(), start_ticks)
    }
}

/// Tells whether other processes still live, and keeps the pidfd of the one that it was asked about last.
#[derive(Debug)]
pub(crate) struct Watch {
    own: Identity,
    known: Option<(Identity, ProcessHandle)>,
    last_look: Option<Instant>,
}

/// Between two looks at the same process: calls that do not wait may come in a tight loop.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

impl Watch {
    pub(crate) fn new(own: Identity) -> Self {
        Self { own, known: None, last_look: None }
    }

    /// The process that watches.
    pub(crate) fn own(&self) -> Identity {
        self.own
    }

    /// Whether `other` has exited for certain. A process of another pid namespace, and one whose start time this process may
    /// not see (/proc mounted with hidepid), count as living for as long as nothing contradicts.
    pub(crate) fn is_gone(&mut self, other: Identity) -> bool {
        if !other.shares_namespace_with(self.own) {
            return false;
        }
        match &self.known {
            Some((known, handle)) if *known == other => {
                let now = Instant::now();
                if self.last_look.is_some_and(|last| now - last < LOOK_INTERVAL) {
                    return false;
                }
                self.last_look = Some(now);
                handle.has_exited().unwrap_or(false)
            }
            _ => self.look_up(other),
        }
    }

    fn look_up(&mut self, other: Identity) -> bool {
        match ProcessHandle::open(other.pid()) {
            Ok(handle) if other.has_started_at(handle.start_ticks()) => {
                self.known = Some((other, handle));
                self.last_look = Some(Instant::now());
                false
            }
            Ok(_) => true,
            Err(error) => error.raw_os_error() == Some(libc::ESRCH),
        }
    }
}

/// When the process `pid` started, in clock ticks since the machine did: field 22 of `/proc/PID/stat`, which proc_pid_stat(5)
/// describes. Processes of different time namespaces read different numbers there, and are given the same one.
pub(crate) fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    let ticks = parse_start_ticks(&stat);
    let ticks = ticks.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))?;
    Ok(ticks.wrapping_add_signed(-boottime_offset_ticks()))
}

/// By how much the clocks of this process's time namespace differ from the machine's: time_namespaces(7). 0 where there are none, which
/// is before Linux 5.6. Of an offset that is not in whole ticks the kernel's sum may be one more.
fn boottime_offset_ticks() -> i64 {
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    // The file tells of the namespace that children get. One that was unshared, and not entered, is not ours.
    match parse_boottime_offset(&offsets) {
        0 => 0,
        ticks => match [fs::read_link("/proc/self/ns/time"), fs::read_link("/proc/self/ns/time_for_children")] {
            [Ok(ours), Ok(theirs)] if ours == theirs => ticks,
            _ => 0,
        },
    }
}

/// `boottime SECONDS NANOSECONDS`, in ticks of the hundredth of a second that the kernel counts in towards programs.
fn parse_boottime_offset(offsets: &str) -> i64 {
    let line = offsets.lines().find_map(|line| line.trim_start().strip_prefix("boottime"));
    let mut numbers = line.unwrap_or_default().split_ascii_whitespace().map_while(|number| number.parse::<i64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(seconds), Some(nanoseconds)) => seconds.saturating_mul(100).saturating_add(nanoseconds / 10_000_000),
        _ => 0,
    }
}

/// `/proc/ID/status` of a process, or of a thread of this one as `self/task/TID`, which proc_pid_status(5) describes. The name in it may be any bytes, and of a longer one
/// the kernel takes 15, within a character if need be.
pub(crate) fn status(id: impl Display) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(format!("/proc/{id}/status"))?).into_owned())
}

/// The name in field 2 may hold blanks and parentheses, so the fields are counted from its last closing one.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_shifts_nothing() {
        let stat = b"7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 100";
        assert_eq!(parse_start_ticks(stat), Some(4711));
        assert_eq!(parse_start_ticks(b"7 (short) S 1"), None);
        assert_eq!(parse_start_ticks(b""), None);
    }

    #[test]
    fn the_status_of_a_thread_with_any_name_is_read() {
        std::thread::spawn(|| {
            rustix::thread::set_name(c"\xc3\xa9\xff\xc3").unwrap();
            let status = status(rustix::thread::gettid()).unwrap();
            assert!(status.starts_with("Name:\t\u{e9}\u{fffd}") && status.contains("\nTgid:\t"), "{status}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_offset_of_a_time_namespace_is_read_in_ticks() {
        assert_eq!(
            parse_boottime_offset("monotonic           0         0\nboottime       100000         0\n"),
            10_000_000
        );
        assert_eq!(parse_boottime_offset("monotonic 5 0\nboottime -3 20000000\n"), -298);
        assert_eq!(parse_boottime_offset(""), 0);
    }

    #[test]
    fn this_process_lives_and_the_unused_number_does_not() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        assert!(!own.has_exited().unwrap());
        assert_eq!(own.start_ticks(), start_ticks(std::process::id()).unwrap());
        for pid in [0, 1 << 22, u32::MAX] {
            let error = ProcessHandle::open(pid).unwrap_err();
            assert!(matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)), "pid {pid}: {error}");
        }
    }

    #[test]
    fn an_identity_is_one_process_and_not_its_successor() {
        let own = Identity::current().unwrap();
        assert_eq!(own.pid(), std::process::id());
        assert!(own.is_current() && !Identity::new(own.pid() ^ 1, own.namespace(), 0).is_current());
        assert_eq!(Identity::from_bits(own.to_bits()), Some(own));
        assert_eq!(Identity::from_bits(u64::MAX << PID_BITS), None);
        let start = start_ticks(own.pid()).unwrap();
        let mut watch = Watch::new(own);
        assert!(!watch.is_gone(own) && !watch.is_gone(own));
        let namespace = own.namespace();
        assert!(watch.is_gone(Identity::new(own.pid(), namespace, start + 1)), "the same pid, another start");
        assert!(watch.is_gone(Identity::new((1 << PID_BITS) - 1, namespace, start)), "a pid that nobody has");
        assert!(!watch.is_gone(Identity::new(own.pid(), namespace + 1, start + 1)), "another namespace: unknown");
    }
}
