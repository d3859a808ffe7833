//! Internet sockets: /proc/net/tcp and its like, of this network namespace.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use onecopy::{Address, HostPort, Mechanism};

use super::nameless;
use super::object::{Object, State};
use super::processes::Processes;

/// `TCP_ESTABLISHED`, `TCP_CLOSE` (of UDP: not connected) and `TCP_LISTEN`.
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// Those that others can send to; and those with a peer, where `with_connected`.
pub(super) fn objects(with_connected: bool, processes: &Processes) -> Vec<Object> {
    let tables = [("tcp", Mechanism::Tcp), ("tcp6", Mechanism::Tcp), ("udp", Mechanism::Udp), ("udp6", Mechanism::Udp)];
    let mut objects = Vec::new();
    for (name, mechanism) in tables {
        let table = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
        for socket in table.lines().skip(1).filter_map(parse) {
            let is_open = socket.state == if mechanism == Mechanism::Tcp { LISTEN } else { CLOSE };
            if is_open {
                objects.extend(bound(&socket, mechanism, processes));
            } else if with_connected && socket.state == ESTABLISHED {
                objects.extend(connected(&socket, mechanism, processes));
            }
        }
    }
    objects.extend(sctp(processes));
    objects
}

struct InetSocket {
    local: SocketAddr,
    peer: SocketAddr,
    state: u8,
    queued: u64,
    uid: u32,
    inode: u64,
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`.
fn parse(line: &str) -> Option<InetSocket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    Some(InetSocket {
        local: address(fields.get(1)?)?,
        peer: address(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        queued: u64::from_str_radix(fields.get(4)?.split_once(':')?.1, 16).ok()?,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: each word of 32 bits as this machine reads it.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = (0..host.len() / 8)
        .filter_map(|index| u32::from_str_radix(host.get(index * 8..index * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let ip = match words.as_slice() {
        [word] => IpAddr::V4(Ipv4Addr::from(*word)),
        [..] if words.len() == 4 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn bound(socket: &InetSocket, mechanism: Mechanism, processes: &Processes) -> Option<Object> {
    let host = HostPort::new(socket.local.ip().to_string(), socket.local.port()).ok()?;
    let (address, state, what, figure) = match mechanism {
        Mechanism::Tcp => (Address::Tcp(host), "listening", "to accept", "waiting_connections"),
        _ => (Address::Udp(host), "bound", "bytes to read", "queued_bytes"),
    };
    let mut object = Object::new(mechanism, address).figure(figure, socket.queued);
    object.words = if socket.queued == 0 { state.into() } else { format!("{state}, {} {what}", socket.queued) };
    object.uid = Some(socket.uid);
    object.users = processes.users_of_socket(socket.inode);
    object.state = State::Used;
    Some(object)
}

fn connected(socket: &InetSocket, mechanism: Mechanism, processes: &Processes) -> Option<Object> {
    let object = nameless::object(mechanism, processes.users_of_socket(socket.inode), processes)?;
    let object =
        object.says(format!("{} connected to {}", socket.local, socket.peer)).figure("queued_bytes", socket.queued);
    Some(Object { uid: Some(socket.uid), ..object })
}

/// `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS`, of a kernel that has SCTP.
fn sctp(processes: &Processes) -> Vec<Object> {
    let table = fs::read_to_string("/proc/net/sctp/eps").unwrap_or_default();
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (port, uid, inode) =
            (fields.get(5)?.parse().ok()?, fields.get(6)?.parse().ok()?, fields.get(7)?.parse().ok()?);
        let host = HostPort::new(fields.get(8)?, port).ok()?;
        // `SCTP_SS_LISTENING`.
        if fields.get(3)? != &"10" {
            return None;
        }
        let mut object = Object::new(Mechanism::Sctp, Address::Sctp(host)).says("listening");
        object.uid = Some(uid);
        object.users = processes.users_of_socket(inode);
        object.state = State::Used;
        Some(object)
    };
    table.lines().skip(1).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_of_both_families_are_read() {
        assert_eq!(address("0100007F:1F90"), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(address("00000000000000000000000001000000:0016"), Some("[::1]:22".parse().unwrap()));
        for text in ["", ":", "0100007F", "01:1F90", "0100007F:1F9000"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
