//! What a pair of processes is told to do, and what it answers.

use serde::{Deserialize, Serialize};

/// The libraries, each in a configuration of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// The channel, received as its warm `Message`.
    Channel,
    /// The channel, received into memory of the caller.
    ChannelInto,
    /// Publish and subscribe, copied into the loan and out of the sample.
    IceoryxCopy,
    /// Publish and subscribe, made in the loan and read in the sample.
    IceoryxLoan,
    /// The channel of bytes.
    IpcBytes,
    /// Shared memory passed through a channel.
    IpcShared,
    /// A local socket.
    Socket,
    /// An unnamed pipe for each direction.
    Pipe,
    /// The baseline for throughput: one process copies.
    Memcpy,
    /// The baseline for latency: a cache line for each direction.
    Line,
}

impl Contender {
    /// Those that are compared, in the order of the columns.
    pub(crate) const ALL: [Self; 8] = [
        Self::Channel,
        Self::ChannelInto,
        Self::IceoryxCopy,
        Self::IceoryxLoan,
        Self::IpcBytes,
        Self::IpcShared,
        Self::Socket,
        Self::Pipe,
    ];

    pub(crate) fn library(self) -> &'static str {
        match self {
            Self::Channel | Self::ChannelInto => "onecopy",
            Self::IceoryxCopy | Self::IceoryxLoan => "iceoryx2",
            Self::IpcBytes | Self::IpcShared => "ipc-channel",
            Self::Socket | Self::Pipe => "interprocess",
            Self::Memcpy | Self::Line => "baseline",
        }
    }

    pub(crate) fn way(self) -> &'static str {
        match self {
            Self::Channel => "recv",
            Self::ChannelInto => "recv_into",
            Self::IceoryxCopy => "copy",
            Self::IceoryxLoan => "loan",
            Self::IpcBytes => "bytes",
            Self::IpcShared => "shared",
            Self::Socket => "socket",
            Self::Pipe => "pipe",
            Self::Memcpy => "memcpy",
            Self::Line => "cache line",
        }
    }

    /// Whether it is one of the channel's own.
    pub(crate) fn is_ours(self) -> bool {
        self.library() == "onecopy"
    }
}

/// How a side waits for the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wait {
    Spin,
    Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Ping-pong of small messages
    Rtt,
    /// One way, back to back
    Stream,
    /// One large message at a time, ping-pong: half of the round trip
    Fresh,
    /// Both sides are killed in the middle of a stream, and the names are counted that stay
    Killed,
}

/// One run of one contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) contender: Contender,
    pub(crate) workload: Workload,
    pub(crate) wait: Wait,
    pub(crate) size_bytes: usize,
    pub(crate) cold: bool,
    /// How long the guest works before it answers.
    pub(crate) work_us: u32,
    /// How many messages of the timed pass.
    pub(crate) messages: u64,
    /// Part of every name that the run makes.
    pub(crate) tag: String,
    /// Where files may be made.
    pub(crate) directory: String,
    /// The cores of host and guest.
    pub(crate) cores: [usize; 2],
    /// How the guest finds the host, for who draws its name at run time.
    #[serde(default)]
    pub(crate) meeting: String,
}

/// The first argument of a process that is one side of a run.
pub(crate) const HOST: &str = "--host-of";
pub(crate) const GUEST: &str = "--guest-of";

impl Order {
    pub(crate) fn for_host(&self) -> [String; 2] {
        [HOST.into(), self.text()]
    }

    pub(crate) fn for_guest(&self) -> [String; 2] {
        [GUEST.into(), self.text()]
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data is JSON")
    }
}

/// What the host has measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Nanoseconds for a message of a stream or of a baseline; for ping-pong the median round trip.
    pub(crate) ns: f64,
    /// The 99th percentile of the round trips.
    pub(crate) p99_ns: Option<f64>,
    /// How often the host gave its processor up for a round trip, in the timed pass.
    pub(crate) sleeps: Option<f64>,
    pub(crate) remark: Option<String>,
    /// How long a cache line took just before and after this run, where that is the baseline: who ordered the run knows.
    #[serde(skip)]
    pub(crate) line_ns: Option<f64>,
}
