//! The handshake of both sides, one step for each message that came.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::listener::is_own;
use super::packet::{Letter, gone, identify_senders, receive, refuse, send, take_descriptors};
use super::wire::{Greeting, Message};
use super::{Connection, Memory};
use crate::channel::{Peer, Policy};
use crate::io::socket::Socket;
use crate::memory::Region;
use crate::memory::anonymous::{AnonymousMapping, Sealing};
use crate::process::Origin;
use crate::sys::signal_mask::without_signals;
use crate::{Deadline, Error, Result};

/// How long the other side may take for its part of a handshake, which is a few system calls.
pub(super) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// The name of the memory, as `/proc/PID/maps` shows it.
const MEMORY_NAME: &str = "onecopy-channel";

/// The listener's side of a handshake that has begun.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) socket: Socket,
    /// When it was accepted.
    pub(super) since: Instant,
    /// Whether the descriptor of its listener tells of it.
    pub(super) is_watched: bool,
    /// What there is once its hello was answered: all but its word that it is ready.
    answered: Option<(Peer, Region, Greeting)>,
}

impl Pending {
    /// Takes over a socket that was just accepted.
    pub(super) fn new(socket: Socket) -> Result<Self> {
        identify_senders(&socket, true)?;
        Ok(Self { socket, since: Instant::now(), is_watched: false, answered: None })
    }

    /// When it has taken too long.
    pub(super) fn expires(&self) -> Instant {
        self.since + HANDSHAKE_TIME
    }

    /// Goes as far as the messages go that come until `deadline`. `Ok(false)` when more have to come; once it is `Ok(true)`,
    /// [`Pending::finish`] gives the connection.
    ///
    /// # Errors
    ///
    /// Why the other side is turned away; it was told.
    pub(super) fn advance(&mut self, policy: &Policy, memory: Memory, deadline: Deadline) -> Result<bool> {
        loop {
            let letter = match receive(&self.socket, deadline) {
                Err(error) if error.is_out_of_time() => return Ok(false),
                other => other?,
            };
            if self.answered.is_some() {
                return self.hear_ready(&letter).map(|()| true);
            }
            self.answered = Some(self.answer(letter, policy, memory)?);
        }
    }

    fn answer(&self, letter: Letter, policy: &Policy, memory: Memory) -> Result<(Peer, Region, Greeting)> {
        let hello = match letter.message {
            Ok(Message::Hello(hello)) if letter.fds.is_empty() => Ok(hello),
            Ok(Message::Refuse(text)) => return Err(refused_by(&self.socket, None, &text)),
            Ok(_) => Err("its message is not the one whose turn it is".to_owned()),
            Err(problem) => Err(problem),
        };
        let origin = hello.as_ref().map_or(Origin::UNKNOWN, |hello| hello.origin);
        let peer = Peer::identify(letter.sender, letter.pidfd, origin, self.socket.object())?;
        admit(&self.socket, policy, &peer)?;
        let hello = hello.map_err(|problem| corrupt(&self.socket, &peer, problem))?;
        let (memory, greeting) = self.prepare(policy, memory).inspect_err(|error| {
            // What this side lacks for good the other one need not try for again and again.
            if !is_own(error) {
                refuse(&self.socket, format!("it can open no channel: {error}"));
            }
        })?;
        let accept = Message::Accept(greeting);
        // It is no stranger, and passes memory as soon as it has this one.
        take_descriptors(&self.socket, true)?;
        send(&self.socket, &accept, Some(memory.as_fd()))?;
        Ok((peer, memory.into_region(), hello))
    }

    /// The memory of a connection, and what is said of it.
    fn prepare(&self, policy: &Policy, Memory { bytes, prepare }: Memory) -> Result<(AnonymousMapping, Greeting)> {
        let memory = AnonymousMapping::create_sparse(MEMORY_NAME, bytes, Sealing::Final)?;
        prepare(&memory)?;
        Ok((memory, own_greeting(&self.socket, policy, bytes)?))
    }

    fn hear_ready(&self, letter: &Letter) -> Result<()> {
        let Some((peer, ..)) = &self.answered else { return Ok(()) };
        if !peer.is_same_process(letter.sender, letter.pidfd.as_ref()) {
            return Err(corrupt(&self.socket, peer, "another process answered in its place".into()));
        }
        match &letter.message {
            Ok(Message::Ready) if letter.fds.is_empty() => Ok(()),
            Ok(Message::Refuse(text)) => Err(refused_by(&self.socket, Some(peer), text)),
            Ok(_) => Err(corrupt(&self.socket, peer, "its message is not the one whose turn it is".into())),
            Err(problem) => Err(corrupt(&self.socket, peer, problem.clone())),
        }
    }

    /// The connection, once [`Pending::advance`] said that it stands.
    pub(super) fn finish(self, policy: &Policy) -> Result<Connection> {
        let Some((peer, region, hello)) = self.answered else { return Err(gone(&self.socket)) };
        Connection::begin(self.socket, peer, region, policy, hello, true)
    }
}

/// The other side's handshake: over a socket that is connected to a listener.
///
/// # Errors
///
/// [`Error::PeerGone`] when the listener closed before it answered; [`Error::Refused`] when either side does not admit the
/// other; [`Error::Corrupt`] for what is no answer; [`Error::TimedOut`].
pub(super) fn join(socket: Socket, policy: &Policy, deadline: Deadline) -> Result<Connection> {
    let mut fds = Vec::new();
    match meet(&socket, policy, deadline, &mut fds) {
        Ok((peer, region, accept)) => Connection::begin(socket, peer, region, policy, accept, false),
        // Whatever the error is: the other side can choose it.
        Err(error) => {
            close_aside(socket, fds);
            Err(error)
        }
    }
}

/// Closes what a stranger has passed, and the socket in which there may be more of it, on a thread of their own: that may take as long as he
/// likes, see [`take_descriptors`].
fn close_aside(socket: Socket, fds: Vec<OwnedFd>) {
    // Without a thread it is done here.
    let _ = without_signals(|| std::thread::Builder::new().name("onecopy-close".into()).spawn(|| drop((socket, fds))));
}

/// [`join`] up to the connection. `fds` are what came with the answer.
fn meet(
    socket: &Socket,
    policy: &Policy,
    deadline: Deadline,
    fds: &mut Vec<OwnedFd>,
) -> Result<(Peer, Region, Greeting)> {
    identify_senders(socket, true)?;
    send(socket, &Message::Hello(own_greeting(socket, policy, 0)?), None)?;
    let mut letter = receive(socket, deadline)?;
    *fds = letter.fds;
    let origin = match &letter.message {
        Ok(Message::Accept(accept)) => accept.origin,
        _ => Origin::UNKNOWN,
    };
    let peer = Peer::identify(letter.sender, letter.pidfd.take(), origin, socket.object())?;
    admit(socket, policy, &peer)?;
    let accept = match letter.message {
        Ok(Message::Accept(accept)) => accept,
        Ok(Message::Refuse(text)) => return Err(refused_by(socket, Some(&peer), &text)),
        Ok(_) => return Err(corrupt(socket, &peer, "its message is not the one whose turn it is".into())),
        Err(problem) => return Err(corrupt(socket, &peer, problem)),
    };
    let memory = match fds.len() {
        1 => fds.remove(0),
        count => {
            let problem = format!("its answer came with {count} descriptors instead of that of the memory");
            return Err(corrupt(socket, &peer, problem));
        }
    };
    let region = AnonymousMapping::from_fd(memory)
        .and_then(|memory| check_memory(memory, accept.memory_bytes))
        .map_err(|error| corrupt(socket, &peer, error.to_string()))?;
    send(socket, &Message::Ready, None)?;
    Ok((peer, region, accept))
}

/// Memory that a listener passed: as long as it says, writable, and with every seal, so that it stays so.
fn check_memory(memory: AnonymousMapping, told_bytes: u64) -> Result<Region> {
    use rustix::fs::{SealFlags, fcntl_get_seals};
    let wanted = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let seals = fcntl_get_seals(&memory).map_err(|errno| Error::os("fcntl(F_GET_SEALS)", MEMORY_NAME, errno))?;
    let region = memory.into_region();
    let reason = if region.len() as u64 != told_bytes {
        format!("it has {} bytes, and {told_bytes} were told", region.len())
    } else if !region.is_writable() || seals.contains(SealFlags::WRITE) {
        "it is not writable".to_owned()
    } else if !seals.contains(wanted) {
        "it is not sealed for good".to_owned()
    } else {
        return Ok(region);
    };
    Err(Error::Invalid { object: "the memory that was passed".into(), reason })
}

fn own_greeting(socket: &Socket, policy: &Policy, memory_bytes: usize) -> Result<Greeting> {
    let origin = Origin::current().map_err(|error| Error::os("open(/proc/self)", socket.object(), error))?;
    Ok(Greeting {
        origin,
        attachable: policy.is_attachable(),
        limit_bytes: policy.limit_bytes() as u64,
        memory_bytes: memory_bytes as u64,
    })
}

/// Turns `peer` away, and says so to both sides, unless the policy admits it.
fn admit(socket: &Socket, policy: &Policy, peer: &Peer) -> Result<()> {
    policy.check(peer).map_err(|reason| {
        refuse(socket, reason.clone());
        Error::Refused { object: socket.object().into(), reason }
    })
}

fn corrupt(socket: &Socket, peer: &Peer, problem: String) -> Error {
    refuse(socket, problem.clone());
    Error::Corrupt { object: socket.object().into(), detail: format!("from {peer}: {problem}") }
}

/// The other side turned this one away.
fn refused_by(socket: &Socket, peer: Option<&Peer>, text: &str) -> Error {
    let who = peer.map_or_else(|| "the other side".to_owned(), ToString::to_string);
    Error::Refused { object: socket.object().into(), reason: format!("{who} refuses this process: {text}") }
}
