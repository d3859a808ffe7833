//! What is measured: the mechanisms that move data, by the names of the command line.

use std::fmt;

use onecopy::Mechanism;
use onecopy::message::udp;
use serde::{Deserialize, Serialize};

use crate::options::Wait;

/// A way to move messages from one process to another that `bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Row 1: a pipe.
    Pipe,
    /// Row 2: a FIFO.
    Fifo,
    /// Row 3: a pseudoterminal.
    Pty,
    /// Row 4: a UNIX stream socket.
    UnixStream,
    /// Row 5: a UNIX datagram socket.
    UnixDgram,
    /// Row 6: a UNIX socket with sequenced packets.
    UnixSeqpacket,
    /// Row 7: TCP over the loopback interface.
    Tcp,
    /// Row 8: UDP over the loopback interface.
    Udp,
    /// Row 9: SCTP over the loopback interface.
    Sctp,
    /// Row 10: a POSIX message queue.
    PosixMq,
    /// Row 11: a System V message queue.
    SysvMq,
    /// Row 12: a ring in POSIX shared memory.
    PosixShm,
    /// Row 13: a ring in System V shared memory.
    SysvShm,
    /// Row 14: a ring in a mapped file.
    FileMapping,
    /// Row 15: a ring in a memfd.
    AnonymousMapping,
    /// Row 16: the receiver reads the sender's memory.
    CmaRead,
    /// Row 17: the sender writes the receiver's memory.
    CmaWrite,
    /// The channel, which chooses its way by the size of each message.
    Channel,
    /// The channel where neither side may attach to the other: everything goes through its ring.
    ChannelNoCma,
    /// The channel with messages that are made and read in place.
    ChannelLoan,
    /// The channel, out of and into registered memory.
    ChannelRegistered,
}

impl Transport {
    /// All that can be measured, in the order of the mechanisms, and the channel last.
    pub const ALL: &'static [Self] = &[
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
        Self::Channel,
        Self::ChannelNoCma,
        Self::ChannelLoan,
        Self::ChannelRegistered,
    ];

    /// The mechanism behind it; the channel is none of them, and uses several.
    #[must_use]
    pub fn mechanism(self) -> Option<Mechanism> {
        Some(match self {
            Self::Pipe => Mechanism::Pipe,
            Self::Fifo => Mechanism::Fifo,
            Self::Pty => Mechanism::Pty,
            Self::UnixStream => Mechanism::UnixStream,
            Self::UnixDgram => Mechanism::UnixDgram,
            Self::UnixSeqpacket => Mechanism::UnixSeqpacket,
            Self::Tcp => Mechanism::Tcp,
            Self::Udp => Mechanism::Udp,
            Self::Sctp => Mechanism::Sctp,
            Self::PosixMq => Mechanism::PosixMq,
            Self::SysvMq => Mechanism::SysvMq,
            Self::PosixShm => Mechanism::PosixShm,
            Self::SysvShm => Mechanism::SysvShm,
            Self::FileMapping => Mechanism::FileMapping,
            Self::AnonymousMapping => Mechanism::AnonymousMapping,
            Self::CmaRead => Mechanism::CmaRead,
            Self::CmaWrite => Mechanism::CmaWrite,
            Self::Channel | Self::ChannelNoCma | Self::ChannelLoan | Self::ChannelRegistered => return None,
        })
    }

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelNoCma => "channel-no-cma",
            Self::ChannelLoan => "channel-loan",
            Self::ChannelRegistered => "channel-registered",
            _ => self.mechanism().map_or("channel", Mechanism::name),
        }
    }

    /// How many times the bytes of a message are copied on their way from the sender's memory to the receiver's.
    ///
    /// Of memory that both map the mechanism says that it depends: through the ring it is two, as in a channel, unless that
    /// takes another way. A System V queue takes and gives
    /// a message right behind its type, so each side copies it there or from there, too.
    #[must_use]
    pub fn copies(self) -> u32 {
        let beside_a_type = if self == Self::SysvMq { 2 } else { 0 };
        let known = self.mechanism().and_then(|mechanism| mechanism.info().copies.short.parse().ok());
        known.unwrap_or(2) + beside_a_type
    }

    /// Whether it is the channel, in whichever form.
    pub(crate) fn is_channel(self) -> bool {
        matches!(self, Self::Channel | Self::ChannelNoCma | Self::ChannelLoan | Self::ChannelRegistered)
    }

    /// Whether messages can be lost on the way, so that the receiver has to count them.
    pub(crate) fn is_lossy(self) -> bool {
        self == Self::Udp
    }

    /// The longest message, where longer ones cannot be cut into fragments: a fragment that is lost would take the whole
    /// message with it.
    pub(crate) fn hard_limit_bytes(self) -> Option<usize> {
        (self == Self::Udp).then_some(udp::IPV4_LIMIT_BYTES)
    }

    /// Whether messages beyond the mechanism's limit are cut into fragments.
    pub(crate) fn is_fragmented(self) -> bool {
        matches!(self, Self::UnixDgram | Self::UnixSeqpacket | Self::Sctp | Self::PosixMq | Self::SysvMq)
    }

    /// The ways of waiting that this transport offers, the usual one first.
    pub(crate) fn waits(self) -> &'static [Wait] {
        match self {
            Self::PosixShm
            | Self::SysvShm
            | Self::FileMapping
            | Self::AnonymousMapping
            | Self::CmaRead
            | Self::CmaWrite
            | Self::Channel
            | Self::ChannelNoCma
            | Self::ChannelLoan
            | Self::ChannelRegistered => &[Wait::Adaptive, Wait::Spin, Wait::Block],
            _ => &[Wait::Block],
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
