//! Connecting to a host and port with a deadline, waiting for a listener that comes later.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{connect, getpeername, getsockname};

use crate::address::HostPort;
use crate::io::inet::{INTERFACE_MISSING, check_peer, resolve};
use crate::io::socket::set_nonblocking;
use crate::io::wait::{Backoff, wait_for};
use crate::{Deadline, Error, Result};

const UNHEARD: &str = "nobody listens there";

/// A blocking socket connected to `peer`; `new_socket` makes one for an address. Each address of a host name is tried, with an
/// equal share of the time, and all of them again and again while one of them refuses: its listener may come.
///
/// # Errors
///
/// [`Error::TimedOut`] when nobody listened in time; for [`Deadline::Now`] ECONNREFUSED at once, and [`Error::WouldBlock`]
/// when the other side did not answer in that moment; what the network says, at once.
pub(crate) fn connect_by(
    peer: &HostPort,
    object: &str,
    deadline: Deadline,
    new_socket: impl Fn(SocketAddr) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    check_peer(peer, object)?;
    let addresses = resolve(peer, object)?;
    let attempt = |address, share| {
        let socket = new_socket(address)?;
        connect_once(&socket, address, object, share)?;
        Ok(socket)
    };
    let mut backoff = Backoff::new();
    loop {
        match try_all(&addresses, object, deadline, attempt) {
            Err(error) if is_refused(&error) && deadline != Deadline::Now => {
                backoff.pause_for(UNHEARD, deadline, "connect", object)?;
            }
            result => return result.map_err(explain),
        }
    }
}

/// The first success; else a refusal, which gives hope, before any other failure, and the first of them.
fn try_all<T>(
    addresses: &[SocketAddr],
    object: &str,
    deadline: Deadline,
    attempt: impl Fn(SocketAddr, Deadline) -> Result<T>,
) -> Result<T> {
    let mut failure = None;
    for (tried, &address) in addresses.iter().enumerate() {
        match attempt(address, share(deadline, addresses.len() - tried)) {
            Ok(value) => return Ok(value),
            Err(error) if failure.is_none() || is_refused(&error) => failure = Some(error),
            Err(_) => {}
        }
    }
    Err(failure.unwrap_or_else(|| Error::Invalid { object: object.into(), reason: "the host has no address".into() }))
}

/// An equal part of the time that is left for one of `parts` addresses, so that one that never answers leaves time for others.
fn share(deadline: Deadline, parts: usize) -> Deadline {
    match deadline.remaining() {
        Some(left) if !left.is_zero() => Deadline::after(left / u32::try_from(parts).unwrap_or(u32::MAX)),
        _ => deadline,
    }
}

fn connect_once(socket: &OwnedFd, address: SocketAddr, object: &str, deadline: Deadline) -> Result<()> {
    let failed = |errno| Error::os("connect", object, errno);
    set_nonblocking(socket, true, object)?;
    match connect(socket, &address) {
        Ok(()) => {}
        // An interrupted connect goes on by itself, as a non-blocking one does (connect(2)).
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait_for(socket.as_fd(), PollFlags::OUT, deadline, "connect", object)?;
            socket_error(socket).and_then(|result| result).map_err(failed)?;
        }
        Err(errno) => return Err(failed(errno)),
    }
    if is_connected_to_itself(socket) {
        return Err(failed(Errno::CONNREFUSED));
    }
    set_nonblocking(socket, false, object)
}

/// Whether nobody listened and the kernel happened to choose the peer's port for this side too: TCP then connects the socket to
/// itself. Who tries often enough, as we do, meets that with every port of the ephemeral range.
fn is_connected_to_itself(socket: &OwnedFd) -> bool {
    match (getsockname(socket), getpeername(socket)) {
        (Ok(local), Ok(Some(peer))) => local == peer,
        _ => false,
    }
}

fn is_refused(error: &Error) -> bool {
    error.raw_os_error() == Some(libc::ECONNREFUSED)
}

fn explain(error: Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => error.with_remedy(UNHEARD),
        Some(libc::EINVAL) => error.with_remedy(INTERFACE_MISSING),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketType, bind, socket};

    use super::*;

    #[test]
    fn a_socket_connected_to_itself_is_a_refusal() {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&fd, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let own = getsockname(&fd).unwrap().try_into().unwrap();
        let error = connect_once(&fd, own, "tcp:x", Deadline::Never).unwrap_err();
        assert!(is_refused(&error), "{error}");
    }

    fn addresses() -> [SocketAddr; 3] {
        [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn failing(errnos: [Errno; 3]) -> Option<i32> {
        let attempt = |address: SocketAddr, _| {
            Err::<(), _>(Error::os("connect", "tcp:x", errnos[usize::from(address.port()) - 1]))
        };
        try_all(&addresses(), "tcp:x", Deadline::Never, attempt).unwrap_err().raw_os_error()
    }

    #[test]
    fn a_refusal_counts_more_than_an_address_that_cannot_be_reached() {
        assert_eq!(failing([Errno::NETUNREACH, Errno::CONNREFUSED, Errno::ACCESS]), Some(libc::ECONNREFUSED));
        assert_eq!(failing([Errno::NETUNREACH, Errno::ACCESS, Errno::HOSTUNREACH]), Some(libc::ENETUNREACH));
    }

    #[test]
    fn an_address_that_does_not_answer_leaves_time_for_the_others() {
        let deadline = Deadline::after(Duration::from_secs(30));
        let attempt = |address: SocketAddr, share: Deadline| match address.port() {
            3 => Ok(share.remaining().unwrap()),
            _ => Err(Error::out_of_time("connect", "tcp:x", share)),
        };
        assert!(try_all(&addresses(), "tcp:x", deadline, attempt).unwrap() > Duration::from_secs(20));
        assert!(share(deadline, 3).remaining().unwrap() <= Duration::from_secs(10));
        assert_eq!(share(Deadline::Now, 3), Deadline::Now);
        assert_eq!(share(Deadline::Never, 3), Deadline::Never);
    }
}
