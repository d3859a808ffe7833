//! What the measuring process and its two workers say to each other: lines of JSON over a UNIX socket, with descriptors
//! beside them where a transport needs some.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::options::Wait;
use crate::primitive::{Primitive, Use};
use crate::transport::Transport;

/// The two sides of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Side {
    /// Creates or binds; receives a stream, answers a ping.
    Host,
    /// Opens or connects; sends a stream, begins a ping.
    Guest,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Host => Self::Guest,
            Self::Guest => Self::Host,
        }
    }
}

/// Whose code moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Layer {
    /// This library's transports.
    Ours,
    /// A plain loop over the same system calls.
    Plain,
}

/// What a worker is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Take one side of a link. The host answers [`Reply::Announced`], the guest [`Reply::Joined`].
    Join(Join),
    /// To the host: accept the guest. Answered by [`Reply::Joined`].
    Accept,
    /// Prepare to move messages. Answered by [`Reply::Armed`].
    Run(Run),
    /// Move them. The host gets this first. Answered by [`Reply::Done`].
    Go,
    /// Measure memcpy. Answered by [`Reply::Done`].
    Memcpy(Memcpy),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Join {
    pub(crate) link: Link,
    pub(crate) side: Side,
    pub(crate) layer: Layer,
    pub(crate) meeting: Meeting,
    pub(crate) wait: Wait,
    /// Cut messages into fragments that fit.
    pub(crate) fragmented: bool,
    /// The way that a channel's messages take, whatever their size.
    pub(crate) forced: Option<Forced>,
    /// So many channels, of which the first is used; the host waits for all of them at once.
    pub(crate) channels: Option<u32>,
    /// What the host announced.
    pub(crate) announced: String,
    pub(crate) cpu: Option<usize>,
    pub(crate) input: Option<PathBuf>,
    /// The test hook: flip one byte.
    pub(crate) corrupt: bool,
}

/// What the two sides share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Meeting {
    /// A transport, to move messages.
    Transport(Transport),
    /// What wakes or locks, with numbers in shared memory beside it.
    Primitive(Primitive, Use),
    /// Two cache lines, for the baseline.
    Lines,
    /// Nothing: each measures by itself.
    Nothing,
}

/// A way through a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Forced {
    Ring,
    SingleCopy,
    Cooperative,
}

/// Names for what the two sides share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Link {
    /// A stem for names of objects that nobody else uses.
    pub(crate) stem: String,
    /// A directory for paths.
    pub(crate) directory: PathBuf,
    /// Identifiers of System V objects: forth, then back.
    pub(crate) ids: Vec<i32>,
    /// The two processes, by their sides.
    pub(crate) pids: [u32; 2],
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) motion: Motion,
    pub(crate) size_bytes: usize,
    /// Rotate over buffers that no cache holds.
    pub(crate) cold: bool,
    pub(crate) messages: u64,
    /// The sequence number of the first message; going on where the last run ended keeps cold buffers cold.
    pub(crate) first_sequence: u64,
    pub(crate) check: Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Motion {
    /// Ping-pong.
    RoundTrip,
    /// From the guest to the host.
    OneWay,
    /// The same, made and read in place; or neither, if it is not touched.
    InPlace { is_touched: bool },
    /// From the guest to the host, out of and into registered memory.
    Registered,
}

/// What the receiver looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Check {
    /// Every byte. No time is measured.
    Full,
    /// The sequence number, the trailer, and a word of each page between them.
    Sampled,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Memcpy {
    /// Fill and sum up in place, instead of copying.
    pub(crate) in_place: bool,
    pub(crate) size_bytes: usize,
    pub(crate) cold: bool,
    pub(crate) time_ns: u64,
}

/// What a worker answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Announced(String),
    /// With the longest message that this side can send, in bytes.
    Joined(Option<usize>),
    Armed,
    Done(Sample),
    /// This machine has no such mechanism.
    Unavailable(String),
    Failed(String),
}

/// What one worker measured in one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) cpu_ns: u64,
    /// What this side copied itself, and what the kernel copied in its system calls.
    pub(crate) user_copied_bytes: u64,
    pub(crate) kernel_copied_bytes: u64,
    /// Messages sent, or that arrived.
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    /// The way that most of the messages came which this side received, where a transport has several.
    pub(crate) path: Option<String>,
    /// The first difference from what was sent.
    pub(crate) mismatch: Option<String>,
    /// Round trips: nanoseconds and how often.
    pub(crate) latencies: Vec<(u64, u64)>,
}

/// How many descriptors travel with one line.
pub(crate) const MAX_FDS: usize = 4;
const CHUNK_BYTES: usize = 64 * 1024;

/// One end of the socket.
pub(crate) struct Control {
    socket: OwnedFd,
    unread: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Control {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, unread: Vec::new(), fds: VecDeque::new() }
    }

    /// Sends one line.
    pub(crate) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut line = serde_json::to_vec(message).expect("plain data is JSON");
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)), "at most {MAX_FDS} descriptors");
        }
        let mut sent = 0;
        while sent < line.len() {
            match sendmsg(&self.socket, &[IoSlice::new(&line[sent..])], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            ancillary.clear();
        }
        Ok(())
    }

    /// Waits for one line; `None` is the end.
    pub(crate) fn recv<T: DeserializeOwned>(&mut self) -> rustix::io::Result<Option<T>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            if !self.fill(RecvFlags::empty())? {
                return Ok(None);
            }
        }
    }

    /// Reads what is there, without waiting; false is the end.
    pub(crate) fn poll(&mut self) -> rustix::io::Result<bool> {
        match self.fill(RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(true),
            Err(Errno::CONNRESET) => Ok(false),
            other => other,
        }
    }

    /// A line that was read, if a whole one was. A line that is none of ours is skipped: the other side is this binary.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> Option<T> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        serde_json::from_slice(&line).ok()
    }

    /// The next descriptor that came with a line.
    pub(crate) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    fn fill(&mut self, flags: RecvFlags) -> rustix::io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.unread.extend_from_slice(&chunk[..received.bytes]);
        Ok(received.bytes > 0)
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
