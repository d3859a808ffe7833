//! The address of any IPC object: one line of text that says which mechanism it is, and which object of it.

mod error;
mod host;
mod name;
mod parse;
mod part;
mod percent;
mod process;
mod region;
mod signal;
mod sysv;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

pub use error::ParseAddressError;
pub(crate) use error::printable;
pub use host::HostPort;
pub use name::{ChannelName, FilePath, PosixName, UnixName};
pub use process::{DescriptorName, MemoryRange, Pid};
pub use region::{BarrierName, FileRange, RegionName};
pub use signal::{SignalName, SignalNumber};
pub use sysv::SysvName;

/// `path` as an address shows it, also one that no address can hold: without what would break a line or hide something.
pub(crate) fn path_text(path: &Path) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = percent::encode(&mut text, path.as_os_str().as_bytes());
    text
}

/// The address of any IPC object.
///
/// It parses from text and prints as text, and what it prints parses to the same address. In paths and names `?`, `%`,
/// control characters and bytes that are no UTF-8 are percent-encoded; IPv6 addresses stand in brackets.
///
/// ```
/// use onecopy::{Address, PosixName};
///
/// let address: Address = "mq:/jobs".parse()?;
/// assert_eq!(address, Address::PosixMq(PosixName::new("/jobs")?));
/// assert_eq!("mutex:/state".parse::<Address>()?.to_string(), "mutex:shm:/state");
///
/// let error = "tcp:localhost".parse::<Address>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "tcp:localhost: port missing at column 14; write tcp:HOST:PORT, for example tcp:localhost:7000"
/// );
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A descriptor that is open: a pipe, an eventfd, a memfd. `fd:N`, `fd:PID:N`.
    Descriptor(DescriptorName),
    /// A FIFO: `fifo:/path`.
    Fifo(FilePath),
    /// A pseudoterminal, by the link to its slave: `pty:/link`.
    Pty(FilePath),
    /// A UNIX stream socket: `unix:/path`, `unix:@abstract`.
    UnixStream(UnixName),
    /// A UNIX datagram socket: `unix-dgram:/path`.
    UnixDgram(UnixName),
    /// A UNIX socket of sequenced packets: `unix-seqpacket:/path`.
    UnixSeqpacket(UnixName),
    /// TCP: `tcp:HOST:PORT`.
    Tcp(HostPort),
    /// UDP: `udp:HOST:PORT`.
    Udp(HostPort),
    /// SCTP: `sctp:HOST:PORT`.
    Sctp(HostPort),
    /// A POSIX message queue: `mq:/name`.
    PosixMq(PosixName),
    /// A System V message queue: `sysv-mq:KEY`, `sysv-mq:id=N`.
    SysvMq(SysvName),
    /// POSIX shared memory: `shm:/name`.
    PosixShm(PosixName),
    /// System V shared memory: `sysv-shm:KEY`, `sysv-shm:id=N`.
    SysvShm(SysvName),
    /// A file, mapped: `mmap:/path`.
    FileMapping(FilePath),
    /// The memory of another process: `mem:PID:ADDRESS+LENGTH`.
    Memory(MemoryRange),
    /// A POSIX named semaphore: `sem:/name`.
    NamedSemaphore(PosixName),
    /// A POSIX unnamed semaphore: `sem:REGION`.
    Semaphore(RegionName),
    /// A set of System V semaphores: `sysv-sem:KEY`, `sysv-sem:id=N`.
    SysvSemaphore(SysvName),
    /// A futex word: `futex:REGION`.
    Futex(RegionName),
    /// A traditional record lock: `record:/path?start=S&len=L`.
    RecordLock(FileRange),
    /// A record lock of an open file description: `ofd:/path?start=S&len=L`.
    OfdLock(FileRange),
    /// A file lock: `flock:/path`.
    FileLock(FilePath),
    /// A mutex: `mutex:REGION`.
    Mutex(RegionName),
    /// A condition variable: `condvar:REGION`.
    Condvar(RegionName),
    /// A barrier: `barrier:REGION?parties=N`.
    Barrier(BarrierName),
    /// A read-write lock: `rwlock:REGION`.
    Rwlock(RegionName),
    /// A signal: `signal:PID?sig=USR1` to send it, `signal:self?sig=USR1,RTMIN+1` to receive.
    Signal(SignalName),
    /// A channel: `channel:NAME`, `channel:/path`.
    Channel(ChannelName),
}

impl Address {
    /// Parses an address that came as an argument or from the environment, where paths may hold bytes that are no UTF-8.
    ///
    /// # Errors
    ///
    /// As [`Address::from_str`]; the error shows such bytes percent-encoded.
    pub fn from_os_str(text: &OsStr) -> Result<Self, ParseAddressError> {
        let mut encoded = String::new();
        for chunk in text.as_bytes().utf8_chunks() {
            encoded.push_str(chunk.valid());
            // Writing to a String does not fail.
            let _ = percent::encode_all(&mut encoded, chunk.invalid());
        }
        encoded.parse()
    }

    /// The word before the first colon.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Descriptor(_) => "fd",
            Self::Fifo(_) => "fifo",
            Self::Pty(_) => "pty",
            Self::UnixStream(_) => "unix",
            Self::UnixDgram(_) => "unix-dgram",
            Self::UnixSeqpacket(_) => "unix-seqpacket",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Sctp(_) => "sctp",
            Self::PosixMq(_) => "mq",
            Self::SysvMq(_) => "sysv-mq",
            Self::PosixShm(_) => "shm",
            Self::SysvShm(_) => "sysv-shm",
            Self::FileMapping(_) => "mmap",
            Self::Memory(_) => "mem",
            Self::NamedSemaphore(_) | Self::Semaphore(_) => "sem",
            Self::SysvSemaphore(_) => "sysv-sem",
            Self::Futex(_) => "futex",
            Self::RecordLock(_) => "record",
            Self::OfdLock(_) => "ofd",
            Self::FileLock(_) => "flock",
            Self::Mutex(_) => "mutex",
            Self::Condvar(_) => "condvar",
            Self::Barrier(_) => "barrier",
            Self::Rwlock(_) => "rwlock",
            Self::Signal(_) => "signal",
            Self::Channel(_) => "channel",
        }
    }

    /// The shared memory that this address names, or in which its object lies.
    #[must_use]
    pub fn region(&self) -> Option<RegionName> {
        match self {
            Self::PosixShm(name) => Some(RegionName::PosixShm(name.clone())),
            Self::SysvShm(name) => Some(RegionName::SysvShm(name.clone())),
            Self::FileMapping(path) => Some(RegionName::FileMapping(path.clone())),
            Self::Descriptor(descriptor) => Some(RegionName::Descriptor(*descriptor)),
            Self::Semaphore(region)
            | Self::Futex(region)
            | Self::Mutex(region)
            | Self::Condvar(region)
            | Self::Rwlock(region) => Some(region.clone()),
            Self::Barrier(barrier) => Some(barrier.region().clone()),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest: &dyn fmt::Display = match self {
            Self::Descriptor(descriptor) => descriptor,
            Self::Fifo(path) | Self::Pty(path) | Self::FileMapping(path) | Self::FileLock(path) => path,
            Self::UnixStream(name) | Self::UnixDgram(name) | Self::UnixSeqpacket(name) => name,
            Self::Tcp(host) | Self::Udp(host) | Self::Sctp(host) => host,
            Self::PosixMq(name) | Self::PosixShm(name) | Self::NamedSemaphore(name) => name,
            Self::SysvMq(name) | Self::SysvShm(name) | Self::SysvSemaphore(name) => name,
            Self::Memory(range) => range,
            Self::RecordLock(range) | Self::OfdLock(range) => range,
            Self::Semaphore(region)
            | Self::Futex(region)
            | Self::Mutex(region)
            | Self::Condvar(region)
            | Self::Rwlock(region) => region,
            Self::Barrier(barrier) => barrier,
            Self::Signal(signal) => signal,
            Self::Channel(name) => name,
        };
        write!(f, "{}:{rest}", self.scheme())
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        parse::address(text)
    }
}
