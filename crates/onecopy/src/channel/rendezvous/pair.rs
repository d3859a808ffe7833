//! A parent and the child that it starts: a connection without a name.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::handshake::{Pending, join};
use super::{Connection, Memory};
use crate::channel::Policy;
use crate::io::socket::Socket;
use crate::sys::inherited::duplicate;
use crate::{Deadline, Error, Result};

/// What errors call a pair.
const OBJECT: &str = "channel of a parent and its child";

/// The parent's side of a connection whose other end travels to a child.
///
/// ```no_run
/// use std::process::{Command, Stdio};
/// use onecopy::Deadline;
/// use onecopy::channel::Policy;
/// use onecopy::channel::rendezvous::pair;
///
/// let (parent, end) = pair(&Policy::default(), 65_536)?;
/// let mut child = Command::new("worker").stdin(Stdio::from(end)).spawn().unwrap();
/// let connection = parent.accept_by(Deadline::Never)?; // when the worker has called adopt_inherited(0, ...)
/// assert_eq!(connection.peer().pid(), child.id());
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct Parent {
    pending: Pending,
    policy: Policy,
    memory: Memory,
}

/// A connection with `memory_bytes` of shared memory, whose other end one descriptor names that a child inherits or a socket
/// passes. It is closed on exec, so that no other child gets it by chance: give it to
/// [`Command::stdin`](std::process::Command::stdin).
///
/// # Errors
///
/// EMFILE and ENFILE when there are too many descriptors.
pub fn pair(policy: &Policy, memory_bytes: usize) -> Result<(Parent, OwnedFd)> {
    pair_for(policy, Memory::zeros(memory_bytes))
}

/// As [`pair`], for a connection with such memory.
pub(in crate::channel) fn pair_for(policy: &Policy, memory: Memory) -> Result<(Parent, OwnedFd)> {
    let (own, end) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::os("socketpair", OBJECT, errno))?;
    let pending = Pending::new(Socket::new(own, OBJECT))?;
    Ok((Parent { pending, policy: policy.clone(), memory }, end))
}

impl Parent {
    /// Waits until `deadline` for the child to adopt its end.
    ///
    /// # Errors
    ///
    /// [`Error::PeerGone`] when every copy of the end is closed: the child has exited, and this process keeps none (a
    /// [`Command`](std::process::Command) keeps what was given to it); [`Error::Refused`] when either side does not admit
    /// the other; [`Error::TimedOut`] and [`Error::WouldBlock`], and then the end can't be adopted any more.
    pub fn accept_by(mut self, deadline: Deadline) -> Result<Connection> {
        match self.pending.advance(&self.policy, self.memory, deadline)? {
            true => self.pending.finish(&self.policy),
            false => Err(Error::out_of_time("accept", OBJECT, deadline)),
        }
    }
}

/// The child's side of a [`pair`], which it inherited or was passed.
///
/// # Errors
///
/// [`Error::PeerGone`] when the parent has gone; [`Error::Refused`] when either side does not admit the other;
/// [`Error::Corrupt`] when something else is on the other side; ENOTSOCK when it is no socket; [`Error::TimedOut`].
pub fn adopt_by(end: OwnedFd, policy: &Policy, deadline: Deadline) -> Result<Connection> {
    join(Socket::new(end, OBJECT), policy, deadline)
}

/// As [`adopt_by`], from the number of an inherited descriptor, which stays open until the process ends: 0 is standard input.
///
/// # Errors
///
/// EBADF when no such descriptor is open; otherwise as [`adopt_by`].
pub fn adopt_inherited_by(number: i32, policy: &Policy, deadline: Deadline) -> Result<Connection> {
    let end = duplicate(number).map_err(|error| Error::os("fcntl(F_DUPFD_CLOEXEC)", OBJECT, error))?;
    adopt_by(end, policy, deadline)
}
