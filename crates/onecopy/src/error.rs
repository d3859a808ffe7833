//! The error of every operation in this library.

use std::io;

use crate::Deadline;
use crate::memory::permission::Diagnosis;

/// The result of an operation of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed: the object, the numbers, and the remedy where there is one.
///
/// A failure of the operating system keeps the system call, the address of the object and the `errno`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{call} on {object}: {source}{}", hint(remedy))]
    Os {
        /// The system call, as its man page names it.
        call: &'static str,
        /// The address of the object.
        object: String,
        /// What the kernel answered; [`io::Error::raw_os_error`] is the `errno`.
        source: io::Error,
        /// What would help, where that is known.
        remedy: Option<String>,
    },
    /// The kernel does not let this process reach the memory of another one.
    #[error("{call} on {object}: {source} ({})", diagnosis.of_call(call))]
    NotPermitted {
        /// The system call, as its man page names it.
        call: &'static str,
        /// The address of the memory.
        object: String,
        /// What the kernel answered; [`io::Error::raw_os_error`] is the `errno`.
        source: io::Error,
        /// Which rule refused, the evidence, and what would help: found out after the refusal.
        diagnosis: Box<Diagnosis>,
    },
    /// The operation would have had to wait, and [`Deadline::Now`] forbids that. Nothing was transferred.
    #[error("{operation} on {object} would have to wait")]
    WouldBlock {
        /// What was asked for: "send", "receive", "open".
        operation: &'static str,
        /// The address of the object, and behind it what was missing, where that is known.
        object: String,
    },
    /// The deadline passed. Nothing was transferred.
    #[error("{operation} on {object} timed out")]
    TimedOut {
        /// What was asked for: "send", "receive", "open".
        operation: &'static str,
        /// The address of the object, and behind it what was missing, where that is known.
        object: String,
    },
    /// A part of the bytes went, then the rest failed.
    #[error("{written_bytes} of {total_bytes} bytes were written, then {source}")]
    PartialWrite {
        /// How many bytes went.
        written_bytes: usize,
        /// How many there were.
        total_bytes: usize,
        /// What stopped the rest.
        source: Box<Error>,
    },
    /// A part of another process's memory was copied, then the rest failed.
    #[error("{transferred_bytes} of {total_bytes} bytes were transferred, up to address {address:#x}, then {source}")]
    PartialTransfer {
        /// How many bytes were copied.
        transferred_bytes: usize,
        /// How many were wanted.
        total_bytes: usize,
        /// The first address in the other process that was not copied.
        address: u64,
        /// What stopped the rest.
        source: Box<Error>,
    },
    /// Both sides wait in a send, and nobody receives. Nothing was sent.
    #[error(
        "send of {message_bytes} bytes on {object} would wait for ever: the other side sends too, and neither receives \
         (exchange does both at once; split gives each direction to a thread)"
    )]
    WouldDeadlock {
        /// The address of the object.
        object: String,
        /// The length of the message.
        message_bytes: usize,
    },
    /// There is no memory left to lend, since the other side has not given back what it was lent before.
    #[error(
        "loan of {wanted_bytes} bytes on {object}: the other side has {loans} of {limit_loans} loans, which take {loaned_bytes} \
         of {limit_bytes} bytes, and {free_bytes} are free in one piece (it gives a loan back when it drops its view; \
         before the first one set_loan_limit_bytes sets how many bytes there are)"
    )]
    LoansOut {
        /// The address of the object.
        object: String,
        /// The length that was asked for.
        wanted_bytes: usize,
        /// How many loans are with the other side.
        loans: usize,
        /// How many can be.
        limit_loans: usize,
        /// How much memory these loans take.
        loaned_bytes: usize,
        /// How much there is for all loans.
        limit_bytes: usize,
        /// The longest loan that there is room for.
        free_bytes: usize,
    },
    /// A message is longer than the mechanism carries. Nothing was sent.
    #[error(
        "message of {message_bytes} bytes does not fit {object}, whose limit is {limit_bytes} bytes{}",
        hint(remedy)
    )]
    TooLong {
        /// The address of the object.
        object: String,
        /// The length of the message.
        message_bytes: usize,
        /// The longest message that fits.
        limit_bytes: usize,
        /// How the limit can be raised or avoided.
        remedy: Option<String>,
    },
    /// The caller's buffer is shorter than the message, which stays first in line.
    #[error(
        "buffer of {buffer_bytes} bytes is too small for the next message of {object}, which has {message_bytes} bytes"
    )]
    BufferTooSmall {
        /// The address of the object.
        object: String,
        /// The length of the message that waits.
        message_bytes: usize,
        /// The length of the buffer.
        buffer_bytes: usize,
    },
    /// The process on the other side is gone, and took with it what the text says.
    #[error("the other side of {object} is gone: {detail}")]
    PeerGone {
        /// The address of the object.
        object: String,
        /// What was lost, with its numbers.
        detail: String,
    },
    /// Another process has the place that was asked for: each ring has one sender and one receiver.
    #[error("{object} has a {role} already: process {pid}")]
    Occupied {
        /// The address of the object.
        object: String,
        /// The place: "sender" or "receiver".
        role: &'static str,
        /// The process that has it, as its own pid namespace counts.
        pid: u32,
    },
    /// A process was not admitted: by the policy of this side, or by that of the other one.
    #[error("{object}: {reason}")]
    Refused {
        /// The address of the object.
        object: String,
        /// Who was found, who is admitted, and the remedy.
        reason: String,
    },
    /// What came in, or what lies in shared memory, is not what this library wrote there.
    #[error("{object} holds something else than expected: {detail}")]
    Corrupt {
        /// The address of the object.
        object: String,
        /// What was found, and what was expected.
        detail: String,
    },
    /// Somebody has shortened the object since it was mapped, and the range reaches beyond its new end.
    #[error(
        "{operation} of {range_bytes} bytes at offset {offset} of {object}: somebody has shortened it from {mapped_bytes} \
         bytes, which are mapped, to {current_bytes}"
    )]
    Shortened {
        /// What was asked for: "read" or "write".
        operation: &'static str,
        /// The address of the object.
        object: String,
        /// Where the range begins.
        offset: usize,
        /// The length of the range.
        range_bytes: usize,
        /// The length of the mapping.
        mapped_bytes: usize,
        /// The length that the object has now. It may change again at any time.
        current_bytes: u64,
    },
    /// An argument that can never be right.
    #[error("{object}: {reason}")]
    Invalid {
        /// The object, or the argument.
        object: String,
        /// What is wrong with it, with the number and the limit.
        reason: String,
    },
    /// This kernel or machine does not have what was asked for.
    #[error("{object}: {reason}")]
    Unsupported {
        /// The object.
        object: String,
        /// What is missing, in the kernel's own words where it said something.
        reason: String,
    },
}

fn hint(remedy: &Option<String>) -> String {
    remedy.as_ref().map_or_else(String::new, |text| format!(" ({text})"))
}

/// What helps against failures that mean the same everywhere. Who knows more says that instead.
fn usual_remedy(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EMFILE => Some("this process has as many descriptors as RLIMIT_NOFILE allows: raise it with `ulimit -n`"),
        libc::ENFILE => Some("the system has as many open files as /proc/sys/fs/file-max allows"),
        libc::EACCES => Some("its mode, or that of a directory on the way, does not let this user do that"),
        libc::ENAMETOOLONG => {
            Some("each name on the way may have 255 bytes (NAME_MAX; fewer on some file systems), and the path 4095")
        }
        _ => None,
    }
}

/// What keeps a thread from being started, where it is no lack of memory.
fn thread_remedy(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EAGAIN => Some("`ulimit -u` limits the threads of this user, and pids.max those of a container"),
        libc::EPERM | libc::ENOSYS => Some("a filter of system calls (seccomp) of this process forbids new threads"),
        _ => None,
    }
}

impl Error {
    /// No thread could be started.
    pub(crate) fn no_thread(call: &'static str, object: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let remedy = thread_remedy(&source).map(str::to_owned);
        Self::Os { call, object: object.into(), source, remedy }
    }

    /// A failed system call.
    pub(crate) fn os(call: &'static str, object: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let remedy = usual_remedy(&source).map(str::to_owned);
        Self::Os { call, object: object.into(), source, remedy }
    }

    /// The same error with a remedy, where the variant has room for one.
    pub(crate) fn with_remedy(mut self, text: impl Into<String>) -> Self {
        if let Self::Os { remedy, .. } | Self::TooLong { remedy, .. } = &mut self {
            *remedy = Some(text.into());
        }
        self
    }

    /// What an operation that ran out of `deadline` reports.
    pub(crate) fn out_of_time(operation: &'static str, object: impl Into<String>, deadline: Deadline) -> Self {
        let object = object.into();
        match deadline {
            Deadline::Now => Self::WouldBlock { operation, object },
            Deadline::At(_) | Deadline::Never => Self::TimedOut { operation, object },
        }
    }

    /// The `errno` of a failed system call.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Os { source, .. } | Self::NotPermitted { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the operation could be tried again later: it would have had to wait, or ran out of time.
    #[must_use]
    pub fn is_out_of_time(&self) -> bool {
        matches!(self, Self::WouldBlock { .. } | Self::TimedOut { .. } | Self::LoansOut { .. })
    }

    /// Whether the other side is gone: closed, exited or killed.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        match self {
            Self::PeerGone { .. } => true,
            Self::PartialWrite { source, .. } | Self::PartialTransfer { source, .. } => source.is_peer_gone(),
            Self::Os { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::EPIPE | libc::ECONNRESET | libc::ECONNREFUSED | libc::ESRCH | libc::EIDRM)
            ),
            _ => false,
        }
    }
}

/// For programs whose own functions return [`io::Result`]: the kind is the nearest one, and the text and the error itself stay.
///
/// ```
/// use std::io;
/// use onecopy::{Deadline, stream::{ByteReader as _, pipe}};
///
/// fn one_byte(reader: &mut pipe::PipeReader) -> io::Result<usize> {
///     Ok(reader.read_by(&mut [0; 1], Deadline::Now)?)
/// }
/// let (mut reader, _writer) = pipe::pair()?;
/// let error = one_byte(&mut reader).unwrap_err();
/// assert_eq!((error.kind(), &*error.to_string()), (io::ErrorKind::WouldBlock, "receive on pipe would have to wait"));
/// # Ok::<(), onecopy::Error>(())
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

impl Error {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Os { source, .. } | Self::NotPermitted { source, .. } => source.kind(),
            Self::PartialWrite { source, .. } | Self::PartialTransfer { source, .. } => source.kind(),
            Self::WouldBlock { .. } => io::ErrorKind::WouldBlock,
            Self::TimedOut { .. } | Self::LoansOut { .. } => io::ErrorKind::TimedOut,
            Self::WouldDeadlock { .. } => io::ErrorKind::Deadlock,
            Self::TooLong { .. } | Self::BufferTooSmall { .. } | Self::Invalid { .. } => io::ErrorKind::InvalidInput,
            Self::PeerGone { .. } => io::ErrorKind::BrokenPipe,
            Self::Occupied { .. } => io::ErrorKind::ResourceBusy,
            Self::Refused { .. } => io::ErrorKind::PermissionDenied,
            Self::Corrupt { .. } => io::ErrorKind::InvalidData,
            Self::Shortened { .. } => io::ErrorKind::UnexpectedEof,
            Self::Unsupported { .. } => io::ErrorKind::Unsupported,
        }
    }
}
