//! What a user can choose.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::subject::Subject;

/// What to measure.
///
/// ```
/// use onecopy_bench::{Options, Subject, Transport, Workload};
///
/// let options = Options { only: vec![Subject::Transport(Transport::Pipe)], workloads: vec![Workload::Rtt], ..Options::default() };
/// assert!(options.check().is_ok());
/// assert!(Options { sizes_bytes: vec![7], ..Options::default() }.check().is_err());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The transports; empty means all, and for the workload copies those five that show each way of copying.
    pub only: Vec<Subject>,
    /// The sizes of messages in bytes; empty means the usual ones of each workload.
    pub sizes_bytes: Vec<usize>,
    /// The workloads; empty means rtt, stream, fresh, cpu, copies, the two of loans, registered, and without `quick` many.
    pub workloads: Vec<Workload>,
    /// A file whose bytes are streamed instead of the pattern.
    pub input: Option<PathBuf>,
    /// Fewer sizes and shorter runs: all rows in less than a minute.
    pub quick: bool,
}

/// What two processes do with a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Ping-pong: the time of a round trip.
    Rtt,
    /// One way, back to back: bytes a second.
    Stream,
    /// Ping-pong of one long message at a time: half of the round trip.
    Fresh,
    /// One way, back to back: processor time of both sides for each GiB.
    Cpu,
    /// One way, through this library's traits and by a plain loop over the same system calls, in turns.
    Layer,
    /// One way, back to back: the bytes that each side copied, counted, and its processor time.
    Copies,
    /// One way, in place: the sender fills all of a loan and sends it, the receiver sums all of it up.
    Loan,
    /// The same without filling and summing up: what a loan costs by itself.
    LoanUntouched,
    /// One way, back to back, from one registered buffer into another: bytes a second.
    Registered,
    /// Ping-pong on one of many channels of a process that waits for all of them: what the others add to the cost of a message.
    Many,
    /// What locks, taken by a process that is alone.
    Uncontended,
    /// What locks, wanted by two processes at once.
    Contended,
}

/// How a side waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// By sleeping in the kernel.
    Block,
    /// By looking again and again.
    Spin,
    /// By looking for a while, then sleeping.
    Adaptive,
}

/// A request that can never be fulfilled: wrong usage.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The shortest message: its sequence number.
pub(crate) const MIN_SIZE_BYTES: usize = 8;
/// The shortest message with bytes of a file between the sequence number and the trailer.
const MIN_INPUT_SIZE_BYTES: usize = 32;
/// The longest message: the cold buffers hold two on each side.
pub(crate) const MAX_SIZE_BYTES: usize = 1 << 30;

impl Options {
    /// Whether all of this can be measured.
    ///
    /// # Errors
    ///
    /// A size outside the limits; an input that is no readable file with at least one byte, or that no chosen workload
    /// uses.
    pub fn check(&self) -> Result<(), Usage> {
        let least = if self.input.is_some() { MIN_INPUT_SIZE_BYTES } else { MIN_SIZE_BYTES };
        if let Some(size) = self.sizes_bytes.iter().find(|size| !(least..=MAX_SIZE_BYTES).contains(size)) {
            return Err(Usage::new(format!(
                "a message of {size} bytes cannot be measured: the size must be {least} to {MAX_SIZE_BYTES} bytes"
            )));
        }
        self.check_input()
    }

    fn check_input(&self) -> Result<(), Usage> {
        let Some(path) = &self.input else { return Ok(()) };
        let failed = |reason: String| Err(Usage::new(format!("the input {}: {reason}", path.display())));
        match std::fs::metadata(path) {
            Err(error) => return failed(error.to_string()),
            // To open a FIFO would wait for its writer.
            Ok(metadata) if !metadata.is_file() => return failed("this is no regular file".into()),
            Ok(metadata) if metadata.len() == 0 => return failed("the file is empty".into()),
            Ok(_) => {}
        }
        if let Err(error) = std::fs::File::open(path) {
            return failed(error.to_string());
        }
        match self.workloads.iter().all(|workload| !workload.streams()) && !self.workloads.is_empty() {
            true => failed("none of these workloads streams it; choose stream, cpu, layer or copies".into()),
            false => Ok(()),
        }
    }
}

impl Workload {
    /// All workloads.
    pub const ALL: &'static [Self] = &[
        Self::Rtt,
        Self::Stream,
        Self::Fresh,
        Self::Cpu,
        Self::Layer,
        Self::Copies,
        Self::Loan,
        Self::LoanUntouched,
        Self::Registered,
        Self::Many,
        Self::Uncontended,
        Self::Contended,
    ];

    /// Whether messages are made and read in place.
    pub(crate) fn is_in_place(self) -> bool {
        matches!(self, Self::Loan | Self::LoanUntouched)
    }

    /// Whether it moves data one way.
    fn streams(self) -> bool {
        matches!(self, Self::Stream | Self::Cpu | Self::Layer | Self::Copies)
    }

    /// Whether messages go to and fro.
    pub(crate) fn is_ping_pong(self) -> bool {
        matches!(self, Self::Rtt | Self::Fresh | Self::Many)
    }

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtt => "rtt",
            Self::Stream => "stream",
            Self::Fresh => "fresh",
            Self::Cpu => "cpu",
            Self::Layer => "layer",
            Self::Copies => "copies",
            Self::Loan => "loan",
            Self::LoanUntouched => "loan-untouched",
            Self::Registered => "registered",
            Self::Many => "many",
            Self::Uncontended => "uncontended",
            Self::Contended => "contended",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Workload {
    type Err = Usage;

    fn from_str(name: &str) -> Result<Self, Usage> {
        Self::ALL.iter().copied().find(|workload| workload.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|workload| workload.name()).collect();
            Usage::new(format!("`{name}` is no workload; choose from {}", names.join(", ")))
        })
    }
}

impl Wait {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
        }
    }
}
