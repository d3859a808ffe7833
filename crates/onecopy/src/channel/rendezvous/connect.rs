//! Finding a listener.

use nix::sys::socket::{getsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::SocketType;

use super::handshake::{HANDSHAKE_TIME, join};
use super::{Connection, name};
use crate::address::ChannelName;
use crate::channel::Policy;
use crate::io::socket::Socket;
use crate::io::unix_name::{check_hope, connect_socket};
use crate::io::wait::Backoff;
use crate::{Deadline, Error, Result, UnixName};

/// Connects to the listener of `name`, waiting until `deadline` for one to be there and to accept.
///
/// A name is looked for as this user's first, and then as that of each user that `policy` names. Whoever listens has to be
/// admitted by `policy`: another user's process that took the name is refused.
///
/// # Errors
///
/// [`Error::TimedOut`] with the places that were tried, and who holds them, when nobody listened or accepted in time;
/// [`Deadline::Now`] suffices for neither, and is [`Error::WouldBlock`] when somebody listens and ECONNREFUSED or ENOENT
/// otherwise. [`Error::Refused`] when either side does not admit the other; EACCES without permission to write the socket
/// file; EPROTOTYPE when a socket of another type has the name; [`Error::Corrupt`] when the listener is none of a
/// channel.
pub fn connect_by(name: &ChannelName, policy: &Policy, deadline: Deadline) -> Result<Connection> {
    let mut search = Search { object: name::object(name), places: name::places(name, policy.users())?, found: None };
    let mut backoff = Backoff::new();
    loop {
        for index in 0..search.places.len() {
            if let Some(connection) = search.try_place(index, policy, deadline)? {
                return Ok(connection);
            }
        }
        if deadline == Deadline::Now {
            return Err(search.nobody());
        }
        backoff.pause(deadline, "connect", "").map_err(|_| search.out_of_time(deadline))?;
    }
}

/// A search for a listener.
struct Search {
    object: String,
    places: Vec<UnixName>,
    /// What was found last in a place where somebody was.
    found: Option<String>,
}

impl Search {
    /// A connection to who listens there; nothing when nobody does, or nobody any more.
    fn try_place(&mut self, index: usize, policy: &Policy, deadline: Deadline) -> Result<Option<Connection>> {
        let place = &self.places[index];
        let fd = match connect_socket(SocketType::SEQPACKET, place, &self.object, Deadline::Now) {
            Ok(fd) => fd,
            Err(error) if error.is_out_of_time() => {
                self.found = Some(format!("the queue of the listener at {place} is full"));
                return Ok(None);
            }
            Err(error) => return self.is_absent(index, error).map(|()| None),
        };
        let socket = Socket::new(fd, &self.object);
        let holder = Holder::of(&socket)?;
        match join(socket, policy, holder.patience(policy, deadline)) {
            Ok(connection) => Ok(Some(connection)),
            // It has closed its socket or exited; another one may come.
            Err(error) if error.is_peer_gone() => {
                self.found = Some(format!("{holder} held {place} and is gone"));
                Ok(None)
            }
            Err(error) if error.is_out_of_time() => Err(self.unanswered(index, &holder, policy, deadline)),
            Err(error) => Err(error),
        }
    }

    /// Whether `error` means that nobody has bound the name: then somebody may yet.
    fn is_absent(&self, index: usize, error: Error) -> Result<()> {
        let errno = match error.raw_os_error() {
            Some(libc::ENOENT) => Errno::NOENT,
            Some(libc::ECONNREFUSED) => Errno::CONNREFUSED,
            _ => return Err(error),
        };
        check_hope(&self.places[index], &self.object, errno)
    }

    fn unanswered(&self, index: usize, holder: &Holder, policy: &Policy, deadline: Deadline) -> Error {
        let place = &self.places[index];
        if !deadline.has_passed() {
            let seconds = HANDSHAKE_TIME.as_secs();
            let reason = format!(
                "{holder} holds {place} and did not answer within {seconds} s; this process admits {}",
                policy.admitted()
            );
            return Error::Refused { object: self.object.clone(), reason };
        }
        let object = format!("{} ({holder} holds {place} and has not accepted)", self.object);
        Error::out_of_time("connect", object, deadline)
    }

    fn out_of_time(&self, deadline: Deadline) -> Error {
        let found = self.found.as_ref().map_or_else(String::new, |found| format!("; {found}"));
        let object = format!("{} (nobody listens at {}{found})", self.object, self.tried());
        Error::out_of_time("connect", object, deadline)
    }

    fn nobody(&self) -> Error {
        if self.found.is_some() {
            return self.out_of_time(Deadline::Now);
        }
        Error::os("connect", &self.object, Errno::CONNREFUSED)
            .with_remedy(format!("nobody listens at {}", self.tried()))
    }

    fn tried(&self) -> String {
        self.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }
}

/// Who had the socket listen, as SO_PEERCRED tells. It may have handed the socket to the one that accepts, so it decides
/// nothing; but it is the only one to name as long as nobody has accepted.
struct Holder {
    pid: i32,
    uid: u32,
}

impl Holder {
    fn of(socket: &Socket) -> Result<Self> {
        let found = getsockopt(socket, sockopt::PeerCredentials)
            .map_err(|errno| Error::os("getsockopt(SO_PEERCRED)", socket.object(), errno))?;
        Ok(Self { pid: found.pid(), uid: found.uid() })
    }

    /// How long it is waited for. Root may have set up the socket for an admitted user; any other stranger gets the time of a
    /// handshake.
    fn patience(&self, policy: &Policy, deadline: Deadline) -> Deadline {
        if self.uid == 0 || policy.may_admit(self.uid) { deadline } else { deadline.at_most(HANDSHAKE_TIME) }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} with uid {}", self.pid, self.uid)
    }
}
