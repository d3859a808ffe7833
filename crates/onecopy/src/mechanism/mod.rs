//! The thirty mechanisms as data: what each is, who may reach it, what it costs and where it bites.

mod attach;
mod availability;
mod channel;
mod memory;
mod message;
mod signal;
mod stream;
mod sync;

pub use channel::CHANNEL;

use std::fmt;
use std::str::FromStr;

use crate::address::{SignalName, printable};
use crate::suggest::nearest;
use crate::{Address, Error};

/// A way that Linux gives two processes to communicate or to synchronise.
///
/// ```
/// use onecopy::mechanism::{Kind, Mechanism};
///
/// let queue: Mechanism = "posix-mq".parse()?;
/// assert_eq!(queue.info().kinds, [Kind::Transfer]);
/// assert_eq!("mq:/jobs".parse::<onecopy::Address>()?.mechanism(), Some(queue));
/// assert_eq!(Mechanism::ALL.len(), 30);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Mechanism {
    /// A pipe.
    Pipe,
    /// A pipe with a name in the file system.
    Fifo,
    /// A pseudoterminal.
    Pty,
    /// A UNIX stream socket.
    UnixStream,
    /// A UNIX datagram socket.
    UnixDgram,
    /// A UNIX socket of sequenced packets.
    UnixSeqpacket,
    /// An Internet stream socket.
    Tcp,
    /// An Internet datagram socket.
    Udp,
    /// An Internet socket of sequenced packets.
    Sctp,
    /// A POSIX message queue.
    PosixMq,
    /// A System V message queue.
    SysvMq,
    /// POSIX shared memory.
    PosixShm,
    /// System V shared memory.
    SysvShm,
    /// A file, mapped shared.
    FileMapping,
    /// Shared memory without a name.
    AnonymousMapping,
    /// Cross-memory attach, reading.
    CmaRead,
    /// Cross-memory attach, writing.
    CmaWrite,
    /// A POSIX semaphore with a name.
    PosixNamedSemaphore,
    /// A POSIX semaphore in shared memory.
    PosixUnnamedSemaphore,
    /// A set of System V semaphores.
    SysvSemaphore,
    /// A counter behind a descriptor.
    Eventfd,
    /// A word to sleep on.
    Futex,
    /// A lock on a range of a file.
    RecordLock,
    /// A lock on a whole file.
    FileLock,
    /// A process-shared, robust mutex.
    Mutex,
    /// A process-shared condition variable.
    Condvar,
    /// A process-shared barrier.
    Barrier,
    /// A process-shared read-write lock.
    Rwlock,
    /// A standard signal.
    SignalStandard,
    /// A real-time signal.
    SignalRealtime,
}

/// What a mechanism is for. Some serve two purposes: a semaphore wakes, and it locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Moves data through the kernel.
    Transfer,
    /// Memory that several processes map.
    Memory,
    /// Reads or writes another process's memory.
    Attach,
    /// Wakes a process that waits.
    Wake,
    /// Keeps processes out of each other's way.
    Lock,
}

impl Kind {
    /// The word for it, as `--json` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Memory => "memory",
            Self::Attach => "attach",
            Self::Wake => "wake",
            Self::Lock => "lock",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An answer in two lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// For a column of a table: a word or two, `-` where the question makes no sense.
    pub short: &'static str,
    /// For a reader: sentences.
    pub long: &'static str,
}

/// What there is to know about a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Its name in addresses' neighbourhood: `posix-mq`, `unix-stream`.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What it is for.
    pub kinds: &'static [Kind],
    /// How its addresses are written, the usual one first.
    pub addresses: &'static [&'static str],
    /// What names the destination.
    pub destination: &'static str,
    /// Who may reach it.
    pub access: &'static str,
    /// How often the bytes of a message are copied, and by whom.
    pub copies: Answer,
    /// Whether boundaries between messages survive.
    pub boundaries: Answer,
    /// What happens when it is full; for a lock, when it is taken.
    pub full: &'static str,
    /// What happens when it is empty.
    pub empty: &'static str,
    /// What is left after everybody died.
    pub remains: Answer,
    /// Where it bites.
    pub traps: &'static [&'static str],
    /// Its man pages.
    pub man_pages: &'static [&'static str],
    /// A command to try.
    pub try_it: &'static str,
    /// The module of this library that has it.
    pub module: &'static str,
}

impl Mechanism {
    /// All thirty, in the order of the classic taxonomy: data transfer, shared memory, cross-memory attach,
    /// synchronisation, signals.
    pub const ALL: [Self; 30] = [
        Self::Pipe,
        Self::Fifo,
        Self::Pty,
        Self::UnixStream,
        Self::UnixDgram,
        Self::UnixSeqpacket,
        Self::Tcp,
        Self::Udp,
        Self::Sctp,
        Self::PosixMq,
        Self::SysvMq,
        Self::PosixShm,
        Self::SysvShm,
        Self::FileMapping,
        Self::AnonymousMapping,
        Self::CmaRead,
        Self::CmaWrite,
        Self::PosixNamedSemaphore,
        Self::PosixUnnamedSemaphore,
        Self::SysvSemaphore,
        Self::Eventfd,
        Self::Futex,
        Self::RecordLock,
        Self::FileLock,
        Self::Mutex,
        Self::Condvar,
        Self::Barrier,
        Self::Rwlock,
        Self::SignalStandard,
        Self::SignalRealtime,
    ];

    /// Its row in [`Mechanism::ALL`], from 1 to 30.
    #[must_use]
    pub fn row(self) -> usize {
        usize::from(self as u8) + 1
    }

    /// Its name: `pipe`, `posix-mq`, `cma-read`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// What there is to know about it.
    #[must_use]
    pub fn info(self) -> &'static Info {
        match self {
            Self::Pipe => &stream::PIPE,
            Self::Fifo => &stream::FIFO,
            Self::Pty => &stream::PTY,
            Self::UnixStream => &stream::UNIX,
            Self::UnixDgram => &message::UNIX_DGRAM,
            Self::UnixSeqpacket => &message::UNIX_SEQPACKET,
            Self::Tcp => &stream::TCP,
            Self::Udp => &message::UDP,
            Self::Sctp => &message::SCTP,
            Self::PosixMq => &message::POSIX_MQ,
            Self::SysvMq => &message::SYSV_MQ,
            Self::PosixShm => &memory::POSIX_SHM,
            Self::SysvShm => &memory::SYSV_SHM,
            Self::FileMapping => &memory::FILE_MAPPING,
            Self::AnonymousMapping => &memory::ANONYMOUS,
            Self::CmaRead => &attach::READ,
            Self::CmaWrite => &attach::WRITE,
            Self::PosixNamedSemaphore => &sync::NAMED_SEMAPHORE,
            Self::PosixUnnamedSemaphore => &sync::UNNAMED_SEMAPHORE,
            Self::SysvSemaphore => &sync::SYSV_SEMAPHORE,
            Self::Eventfd => &sync::EVENTFD,
            Self::Futex => &sync::FUTEX,
            Self::RecordLock => &sync::RECORD_LOCK,
            Self::FileLock => &sync::FILE_LOCK,
            Self::Mutex => &sync::MUTEX,
            Self::Condvar => &sync::CONDVAR,
            Self::Barrier => &sync::BARRIER,
            Self::Rwlock => &sync::RWLOCK,
            Self::SignalStandard => &signal::STANDARD,
            Self::SignalRealtime => &signal::REALTIME,
        }
    }

    /// Whether this kernel has it and lets this process use it: a cheap probe where one is possible. It tells nothing
    /// about a particular object or peer.
    ///
    /// # Errors
    ///
    /// What is missing, with the kernel's reason: "this kernel has no SCTP (ESOCKTNOSUPPORT)".
    pub fn availability(self) -> Result<(), String> {
        availability::of(self)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::Invalid`] with the names that are near.
    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some(found) = Self::ALL.into_iter().find(|mechanism| mechanism.name() == name) {
            return Ok(found);
        }
        let near = suggestions(name);
        let list = if near.is_empty() { Self::ALL.map(Self::name).to_vec() } else { near };
        let object = if name.is_empty() { "an empty name".into() } else { printable(name) };
        Err(Error::Invalid { object, reason: format!("no such mechanism; {}", one_of(&list)) })
    }
}

fn one_of(names: &[&str]) -> String {
    match names {
        [only] => format!("did you mean {only}?"),
        [first, second] => format!("did you mean {first} or {second}?"),
        _ => format!("one of {}", names.join(", ")),
    }
}

/// The names that somebody who wrote `word` may have meant.
fn suggestions(word: &str) -> Vec<&'static str> {
    let lower = word.to_ascii_lowercase();
    let meant: Vec<&str> =
        OTHER_NAMES.iter().filter(|(other, _)| *other == lower).flat_map(|(_, names)| *names).copied().collect();
    if meant.is_empty() { nearest(&lower, Mechanism::ALL.map(Mechanism::name)) } else { meant }
}

/// Words that people use for mechanisms.
const OTHER_NAMES: &[(&str, &[&str])] = &[
    ("unix", &["unix-stream", "unix-dgram", "unix-seqpacket"]),
    ("uds", &["unix-stream", "unix-dgram", "unix-seqpacket"]),
    ("socket", &["unix-stream", "unix-seqpacket", "tcp"]),
    ("socketpair", &["unix-stream"]),
    ("mq", &["posix-mq", "sysv-mq"]),
    ("queue", &["posix-mq", "sysv-mq"]),
    ("mqueue", &["posix-mq"]),
    ("shm", &["posix-shm", "sysv-shm"]),
    ("memory", &["posix-shm", "sysv-shm", "anonymous-mapping"]),
    ("mmap", &["file-mapping", "anonymous-mapping"]),
    ("memfd", &["anonymous-mapping"]),
    ("mem", &["cma-read", "cma-write"]),
    ("cma", &["cma-read", "cma-write"]),
    ("process_vm_readv", &["cma-read"]),
    ("process_vm_writev", &["cma-write"]),
    ("sem", &["posix-named-semaphore", "posix-unnamed-semaphore", "sysv-semaphore"]),
    ("semaphore", &["posix-named-semaphore", "posix-unnamed-semaphore", "sysv-semaphore"]),
    ("sysv-sem", &["sysv-semaphore"]),
    ("fcntl", &["record-lock"]),
    ("record", &["record-lock"]),
    ("ofd", &["record-lock"]),
    ("lockf", &["record-lock"]),
    ("flock", &["file-lock"]),
    ("signal", &["signal-standard", "signal-realtime"]),
    ("kill", &["signal-standard"]),
    ("sigqueue", &["signal-realtime"]),
    ("terminal", &["pty"]),
    ("tty", &["pty"]),
];

impl Address {
    /// The mechanism that the address belongs to. `None` for a descriptor, which may be a pipe, an eventfd or a memfd,
    /// and for a channel, which uses several.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism> {
        Some(match self {
            Self::Descriptor(_) | Self::Channel(_) => return None,
            Self::Fifo(_) => Mechanism::Fifo,
            Self::Pty(_) => Mechanism::Pty,
            Self::UnixStream(_) => Mechanism::UnixStream,
            Self::UnixDgram(_) => Mechanism::UnixDgram,
            Self::UnixSeqpacket(_) => Mechanism::UnixSeqpacket,
            Self::Tcp(_) => Mechanism::Tcp,
            Self::Udp(_) => Mechanism::Udp,
            Self::Sctp(_) => Mechanism::Sctp,
            Self::PosixMq(_) => Mechanism::PosixMq,
            Self::SysvMq(_) => Mechanism::SysvMq,
            Self::PosixShm(_) => Mechanism::PosixShm,
            Self::SysvShm(_) => Mechanism::SysvShm,
            Self::FileMapping(_) => Mechanism::FileMapping,
            Self::Memory(_) => Mechanism::CmaRead,
            Self::NamedSemaphore(_) => Mechanism::PosixNamedSemaphore,
            Self::Semaphore(_) => Mechanism::PosixUnnamedSemaphore,
            Self::SysvSemaphore(_) => Mechanism::SysvSemaphore,
            Self::Futex(_) => Mechanism::Futex,
            Self::RecordLock(_) | Self::OfdLock(_) => Mechanism::RecordLock,
            Self::FileLock(_) => Mechanism::FileLock,
            Self::Mutex(_) => Mechanism::Mutex,
            Self::Condvar(_) => Mechanism::Condvar,
            Self::Barrier(_) => Mechanism::Barrier,
            Self::Rwlock(_) => Mechanism::Rwlock,
            Self::Signal(signal) => of_signals(signal),
        })
    }
}

/// A mixture, which only a receiver can have, counts as what it begins with.
fn of_signals(name: &SignalName) -> Mechanism {
    match name.signals().first() {
        Some(signal) if signal.is_real_time() => Mechanism::SignalRealtime,
        _ => Mechanism::SignalStandard,
    }
}
