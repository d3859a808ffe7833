//! Hosts and ports: [getaddrinfo(3)](https://man7.org/linux/man-pages/man3/getaddrinfo.3.html), and sockets for what it finds.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, getsockname, socket_with};

use crate::address::HostPort;
use crate::io::socket::Socket;
use crate::{Error, Result};

/// What EINVAL means for an address that is one.
pub(crate) const INTERFACE_MISSING: &str = "a link-local address needs its interface, as in [fe80::1%eth0]:7000";

/// What [`socket_for`] needs to know besides the address.
#[derive(Clone, Copy)]
pub(crate) struct Kind(pub(crate) SocketType, pub(crate) Option<Protocol>);

/// The socket addresses of `name`, in the order in which they should be tried. A name may need the network to resolve,
/// which no deadline ends; a numeric address does not.
pub(crate) fn resolve(name: &HostPort, object: &str) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = name.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, name.port())]);
    }
    let found = (name.host(), name.port())
        .to_socket_addrs()
        .map_err(|error| Error::os("getaddrinfo", object, error).with_remedy("an IP address needs no look-up"))?;
    Ok(found.collect())
}

/// Refuses a peer whom nothing can reach: a port of 0 only has a listener choose one.
pub(crate) fn check_peer(name: &HostPort, object: &str) -> Result<()> {
    if name.port() != 0 {
        return Ok(());
    }
    let reason = "nobody can be reached at port 0: name the port that the other side listens at";
    Err(Error::Invalid { object: object.into(), reason: reason.into() })
}

/// The first success of `attempt` over all addresses of `name`, or else the first failure: the system sorts the best
/// address to the front, so its failure says most.
pub(crate) fn first_of<T>(
    name: &HostPort,
    object: &str,
    mut attempt: impl FnMut(SocketAddr) -> Result<T>,
) -> Result<T> {
    let mut first_error = None;
    for address in resolve(name, object)? {
        match attempt(address) {
            Ok(value) => return Ok(value),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error
        .unwrap_or_else(|| Error::Invalid { object: object.into(), reason: "the host has no address".into() }))
}

/// A new socket of the family of `address`.
pub(crate) fn socket_for(address: SocketAddr, kind: Kind, object: &str) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, kind.0, SocketFlags::CLOEXEC, kind.1).map_err(|errno| Error::os("socket", object, errno))
}

/// Why a port could not be taken.
pub(crate) fn bind_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("bind", object, errno);
    match errno {
        Errno::ADDRINUSE => error.with_remedy("a process listens at this port: end it, or choose another port"),
        Errno::ADDRNOTAVAIL => error.with_remedy("this machine does not have that address"),
        Errno::ACCESS => error.with_remedy(
            "ports below /proc/sys/net/ipv4/ip_unprivileged_port_start need CAP_NET_BIND_SERVICE: choose a higher one",
        ),
        Errno::INVAL => error.with_remedy(INTERFACE_MISSING),
        _ => error,
    }
}

/// The address that a socket is bound to, with its real port.
pub(crate) fn local_of(socket: &Socket) -> Result<SocketAddr> {
    let address = getsockname(socket).map_err(|errno| socket.error("getsockname", errno))?;
    address.try_into().map_err(|errno| socket.error("getsockname", errno))
}

/// A socket address as a name.
pub(crate) fn name_of(address: SocketAddr) -> HostPort {
    let host = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        _ => address.ip().to_string(),
    };
    HostPort { host, port: address.port() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_addresses_are_themselves() {
        for text in ["127.0.0.1:7", "[::1]:7"] {
            let found = resolve(&text.parse().unwrap(), text).unwrap();
            assert_eq!(found, [text.parse::<SocketAddr>().unwrap()]);
            assert_eq!(name_of(found[0]).to_string(), text);
        }
    }

    #[test]
    fn the_first_failure_is_the_one_reported() {
        let name = "127.0.0.1:7".parse().unwrap();
        let error = first_of::<()>(&name, "udp:x", |_| Err(Error::os("bind", "udp:x", rustix::io::Errno::ADDRINUSE)));
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    }
}
