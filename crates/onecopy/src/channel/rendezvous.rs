//! How two processes meet: a socket to each other, memory that only they share, and certainty who the other one is.
//!
//! `channel:NAME` is an abstract UNIX socket whose name holds the user's id, of which nothing is left after SIGKILL;
//! `channel:/path` is a socket file. See [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
//!
//! # Who the other side is
//!
//! The kernel says so with each message of the handshake (SCM_CREDENTIALS, and from Linux 6.5 on SCM_PIDFD): so it is the
//! process that took part, whoever had the socket listen or connect before (SO_PEERCRED). Both sides ask their [`Policy`],
//! and no word of the other side counts. A process that has changed its effective ids, as a set-user-ID program has, is
//! known by those.
//!
//! The listener makes the memory, one memfd for each connection, and seals it for good before the other side sees it: nobody can
//! shorten it. Descriptor and name of it are gone once both have mapped it.
//!
//! No environment variable has any effect on this.

mod connect;
mod handshake;
mod listener;
mod packet;
mod pair;
mod readiness;
mod wire;

use std::os::fd::{AsFd, BorrowedFd};

pub use connect::connect_by;
pub(super) use listener::MOST_AT_ONCE;
pub use listener::{Listener, TurnedAway};
pub(super) use pair::pair_for;
pub use pair::{Parent, adopt_by, adopt_inherited_by, pair};

use self::wire::Greeting;
use super::{Peer, Policy, name};
use crate::Result;
use crate::io::socket::Socket;
use crate::memory::Region;
use crate::memory::anonymous::AnonymousMapping;

/// The memory that a listener, or the parent of a pair, makes for a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) bytes: usize,
    /// What is done with it before the other side has it.
    pub(super) prepare: fn(&AnonymousMapping) -> Result<()>,
}

impl Memory {
    /// So many zeros.
    fn zeros(bytes: usize) -> Self {
        Self { bytes, prepare: |_| Ok(()) }
    }
}

/// Two processes that have met, seen from one of them.
#[derive(Debug)]
pub struct Connection {
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    pub(super) region: Region,
    pub(super) is_listener: bool,
    pub(super) attach: bool,
    pub(super) limit_bytes: usize,
    pub(super) peer_limit_bytes: usize,
}

impl Connection {
    /// The last step of a handshake.
    fn begin(
        socket: Socket,
        peer: Peer,
        region: Region,
        policy: &Policy,
        greeting: Greeting,
        is_listener: bool,
    ) -> Result<Self> {
        packet::identify_senders(&socket, false)?;
        let attach = policy.is_attachable() && greeting.attachable;
        // Between two users nobody attaches.
        let is_same_user = peer.uid() == rustix::process::geteuid().as_raw();
        if let (true, Some(tracer)) = (attach && is_same_user, policy.tracer()) {
            peer.allow(tracer);
        }
        Ok(Self {
            socket,
            peer,
            region,
            is_listener,
            attach,
            limit_bytes: policy.limit_bytes(),
            peer_limit_bytes: usize::try_from(greeting.limit_bytes).unwrap_or(usize::MAX),
        })
    }

    /// The process on the other side.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The memory that both sides share, of the length that the listener chose, and of zeros until one of them writes. The
    /// other side can write it at any time.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Whether this side listened, or is the parent of a pair.
    #[must_use]
    pub fn is_listener(&self) -> bool {
        self.is_listener
    }

    /// Whether both policies allow cross-memory attach. Whether the kernel does, only a transfer can tell.
    #[must_use]
    pub fn may_attach(&self) -> bool {
        self.attach
    }

    /// The longest message that this side takes, in bytes.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// The longest message that the other side takes, in bytes, as it says.
    #[must_use]
    pub fn peer_limit_bytes(&self) -> usize {
        self.peer_limit_bytes
    }
}

impl AsFd for Connection {
    /// The socket to the other side, of sequenced packets. It hangs up when the other side closes its own or exits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
