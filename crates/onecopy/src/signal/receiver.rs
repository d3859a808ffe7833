//! The receiving side: a descriptor.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::{Errno, ReadWriteFlags, preadv2, read};
use zerocopy::{FromBytes, IntoBytes as _};

use crate::address::{Address, SignalName, SignalNumber};
use crate::io::wait::{retry, wait_for};
use crate::process;
use crate::sync::Wait;
use crate::sys::signal;
use crate::{Deadline, Error, Result};

/// readv(2) without a position, as preadv2(2) writes it.
const NO_OFFSET: u64 = u64::MAX;

/// A signal that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub number: SignalNumber,
    /// The process that sent it, as this process's pid namespace counts; 0 is one that has no number there, or the kernel, or
    /// unknown: beyond RLIMIT_SIGPENDING a standard signal with a payload, and a real-time one by kill(2), arrive without both.
    pub pid: u32,
    /// Its real user; the overflow uid (65534) is one that this user namespace does not know. Where the pid is 0 this says
    /// nothing, and is not root.
    pub uid: u32,
    /// The payload, if it has one.
    pub value: Option<i32>,
    code: i32,
}

impl Received {
    /// Whether it was queued with a payload: then its sender wrote [`Received::pid`] and [`Received::uid`] itself.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.code == libc::SI_QUEUE
    }

    /// What it came by (`si_code` of sigaction(2)): SI_USER, SI_QUEUE, SI_TIMER and others.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }
}

/// `struct signalfd_siginfo`, as far as it is used here.
#[derive(Clone, Copy, Default, FromBytes, zerocopy::IntoBytes)]
#[repr(C)]
struct Info {
    signal: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    not_used: [u32; 6],
    value: i32,
    rest: [u64; 10],
}

const _: () = assert!(size_of::<Info>() == size_of::<libc::signalfd_siginfo>());
const _: () = assert!(std::mem::offset_of!(Info, value) == std::mem::offset_of!(libc::signalfd_siginfo, ssi_int));
const _: () = assert!(std::mem::offset_of!(Info, uid) == std::mem::offset_of!(libc::signalfd_siginfo, ssi_uid));

impl Info {
    fn received(&self) -> Result<Received> {
        let number = SignalNumber::new(self.signal as i32)?;
        // Timers and message queues attach a payload, too; tgkill(2) (SI_TKILL) and what is above 0 have none.
        let has_value = matches!(self.code, libc::SI_QUEUE | libc::SI_TIMER | libc::SI_MESGQ);
        Ok(Received { number, pid: self.pid, uid: self.uid, value: has_value.then_some(self.value), code: self.code })
    }
}

/// Blocks `signals` in this thread and in those that it starts from now on, for a [`SignalReceiver`] to receive. The first
/// thing in `main`, before any other thread exists.
///
/// # Errors
///
/// None that are known of.
pub fn block(signals: &[SignalNumber]) -> Result<()> {
    block_beside(signals).map(drop)
}

/// As [`block`], and returns what was blocked before.
fn block_beside(signals: &[SignalNumber]) -> Result<signal::Mask> {
    signal::block(&raw(signals)).map_err(|errno| Error::os("pthread_sigmask", "signal:self", errno))
}

fn raw(signals: &[SignalNumber]) -> Vec<i32> {
    signals.iter().map(|signal| signal.get()).collect()
}

/// Has `command` start its process with no signal blocked, whatever this process blocks.
///
/// ```
/// use onecopy::address::SignalNumber;
/// use onecopy::signal;
///
/// signal::block(&[SignalNumber::named("USR1")?])?;
/// let mut command = std::process::Command::new("grep");
/// let output = signal::unblock_in(command.args(["SigBlk", "/proc/self/status"])).output()?;
/// assert!(output.stdout.ends_with(b"0000000000000000\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn unblock_in(command: &mut Command) -> &mut Command {
    signal::unblock_all_in(command);
    command
}

/// Receives signals of this process, and those that are sent to the thread that reads.
///
/// Dropping it leaves the signals blocked: one that is pending would end the process otherwise.
///
/// ```no_run
/// use onecopy::address::SignalNumber;
/// use onecopy::signal::{self, SignalReceiver};
///
/// let wanted = [SignalNumber::named("USR1")?, SignalNumber::named("RTMIN+1")?];
/// signal::block(&wanted)?; // first thing in main
/// let mut receiver = SignalReceiver::open(&wanted)?;
/// let signal = receiver.recv()?;
/// println!("{} of process {}, with {:?}", signal.number, signal.pid, signal.value);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct SignalReceiver {
    fd: OwnedFd,
    object: String,
}

impl SignalReceiver {
    /// Blocks `signals` in this thread, and receives them.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when another thread of this process does not block them, with its name: it would take them;
    /// [`Error::Invalid`] for none at all, and for SIGKILL and SIGSTOP; EMFILE. This thread blocks what it did before then.
    pub fn open(signals: &[SignalNumber]) -> Result<Self> {
        let name = SignalName::received(signals.iter().copied())?;
        let before = block_beside(name.signals())?;
        Self::of_blocked(&name).inspect_err(|_| signal::restore(&before))
    }

    fn of_blocked(name: &SignalName) -> Result<Self> {
        let object = Address::Signal(name.clone()).to_string();
        check_threads(name.signals(), &object)?;
        let fd =
            signal::signalfd(&raw(name.signals())).map_err(|errno| Error::os("signalfd", object.clone(), errno))?;
        Ok(Self { fd, object })
    }

    /// Waits for a signal.
    ///
    /// # Errors
    ///
    /// None that are known of.
    pub fn recv(&mut self) -> Result<Received> {
        self.recv_by(Deadline::Never)
    }

    /// As [`SignalReceiver::recv`], waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when none came.
    pub fn recv_by(&mut self, deadline: Deadline) -> Result<Received> {
        let mut info = Info::default();
        let words = ("wait", "read", self.object.as_str());
        retry(self.fd.as_fd(), PollFlags::IN, deadline, words, || self.read_at_once(info.as_mut_bytes()))?;
        info.received()
    }

    /// O_NONBLOCK belongs to all who hold the descriptor, and one of them may have cleared it.
    fn read_at_once(&self, bytes: &mut [u8]) -> Result<usize, Errno> {
        match preadv2(&self.fd, &mut [IoSliceMut::new(bytes)], NO_OFFSET, ReadWriteFlags::NOWAIT) {
            // Before Linux 6.10 a read of it knows no RWF_NOWAIT. Then another thread may take it between the look and the read.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::SPIPE) => {
                match wait_for(self.fd.as_fd(), PollFlags::IN, Deadline::Now, "wait", &self.object) {
                    Ok(()) => read(&self.fd, bytes),
                    Err(_) => Err(Errno::AGAIN),
                }
            }
            result => result,
        }
    }
}

impl AsFd for SignalReceiver {
    /// Readable when a signal is pending. In a child that inherited it, it tells of that child's signals.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Wait for SignalReceiver {
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        self.recv_by(deadline).map(drop)
    }

    fn object(&self) -> &str {
        &self.object
    }
}

/// Refuses when a thread would take one of the signals. A thread that is started later inherits the mask of its starter.
fn check_threads(signals: &[SignalNumber], object: &str) -> Result<()> {
    let wanted = signals.iter().fold(0, |mask: u64, signal| mask | 1 << (signal.get() - 1));
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for task in tasks {
        // A thread that ends meanwhile takes nothing.
        let thread = task.file_name();
        let Some((name, blocked)) = thread.to_str().and_then(settled_mask) else { continue };
        if blocked & wanted != wanted {
            return Err(Error::Refused {
                object: object.into(),
                reason: format!(
                    "thread {} ({name}) does not block it, and would take it in its place: block the signals before the first \
                     thread is started",
                    thread.display(),
                ),
            });
        }
    }
    Ok(())
}

/// The name of a thread and the signals that it blocks; `None` for one that has ended, as the first of a process may while others go
/// on. The C library blocks all while it starts a thread, the two of its own too, which nobody else may block; what the thread blocks is
/// known when it has run for a moment.
fn settled_mask(thread: &str) -> Option<(String, u64)> {
    /// Signals 32 and 33, by which glibc and musl cancel threads and change their users.
    const INTERNAL: u64 = 0b11 << 31;
    /// One that sleeps blocks them for good.
    const ASLEEP: Duration = Duration::from_millis(200);
    /// One that is being started waits for a processor, on a busy machine for long.
    const AWAKE: Duration = Duration::from_secs(10);
    let begin = Instant::now();
    loop {
        let text = process::status(format_args!("self/task/{thread}")).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let state = field("State:").unwrap_or_default();
        if state.starts_with(['Z', 'X']) {
            return None;
        }
        let blocked = field("SigBlk:").and_then(|mask| u64::from_str_radix(mask, 16).ok())?;
        let patience = if state.starts_with('S') { ASLEEP } else { AWAKE };
        if blocked & INTERNAL != INTERNAL || begin.elapsed() >= patience {
            return Some((field("Name:").unwrap_or("without a name").into(), blocked));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}
