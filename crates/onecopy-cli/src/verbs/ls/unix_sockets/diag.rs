//! All UNIX sockets of this network namespace, by [sock_diag(7)](https://man7.org/linux/man-pages/man7/sock_diag.7.html): the one
//! source that tells names exactly, peers, and which file a socket is bound to.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with, sockopt::Timeout,
    sockopt::set_socket_timeout,
};

use super::{Sort, UnixSocket, name_of};

/// `SOCK_DIAG_BY_FAMILY`; `NLM_F_REQUEST | NLM_F_DUMP`.
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
/// The kinds of messages that end a dump.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `UDIAG_SHOW_NAME | VFS | PEER | RQLEN | UID`.
const SHOW: u32 = 0x01 | 0x02 | 0x04 | 0x10 | 0x40;
/// The attributes that are asked for.
const NAME: u16 = 0;
const VFS: u16 = 1;
const PEER: u16 = 2;
const QUEUES: u16 = 4;
const UID: u16 = 7;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;
/// What a kernel of today sends at once is at most 32 KiB.
const BUFFER_BYTES: usize = 256 * 1024;

/// All of them. `Err` where the kernel has no such source.
pub(super) fn sockets() -> rustix::io::Result<Vec<UnixSocket>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?;
    // The kernel answers at once, or is no Linux.
    set_socket_timeout(&socket, Timeout::Recv, Some(std::time::Duration::from_secs(5)))?;
    sendto(&socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    receive(&socket)
}

/// `struct nlmsghdr` and `struct unix_diag_req`: sockets in any state.
fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(40_u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([AddressFamily::UNIX.as_raw() as u8, 0, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(SHOW.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

fn receive(socket: &OwnedFd) -> rustix::io::Result<Vec<UnixSocket>> {
    let mut found = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (_, len) = match recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let mut rest = buffer.get(..len).ok_or(Errno::MSGSIZE)?;
        if rest.is_empty() {
            return Err(Errno::PROTO);
        }
        while let Some((kind, payload, after)) = message(rest) {
            match kind {
                DONE => return Ok(found),
                ERROR => return Err(error(payload)),
                _ => found.extend(parse(payload)),
            }
            rest = after;
        }
    }
}

fn error(payload: &[u8]) -> Errno {
    let number = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    Errno::from_raw_os_error(number.saturating_neg())
}

/// The kind and the payload of the first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(16..len)?;
    Some((kind, payload, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// `struct unix_diag_msg` and its attributes.
fn parse(payload: &[u8]) -> Option<UnixSocket> {
    let (fixed, mut rest) = payload.split_at_checked(16)?;
    let sort = Sort::of(fixed[1].into())?;
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let mut socket = UnixSocket::new(word(fixed, 4)?.into(), sort, fixed[2] == LISTEN);
    while let Some((kind, value, after)) = attribute(rest) {
        match kind {
            NAME => socket.name = name_of(value),
            VFS => socket.file = word(value, 4).zip(word(value, 0)).map(|(device, inode)| (split(device), inode)),
            PEER => {
                socket.peer = word(value, 0).map(u64::from);
                socket.is_connected = true;
            }
            QUEUES => socket.queued = word(value, 0),
            UID => socket.uid = word(value, 0),
            _ => {}
        }
        rest = after;
    }
    Some(socket)
}

/// The major and the minor number of a device as the kernel keeps them.
fn split(device: u32) -> (u32, u32) {
    (device >> 20, device & 0xf_ffff)
}

fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
    let value = bytes.get(4..len)?;
    Some((kind, value, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_anywhere_is_no_panic_and_no_endless_loop() {
        let mut whole = Vec::new();
        whole.extend([1, 1, LISTEN, 0]);
        whole.extend(77_u32.to_ne_bytes());
        whole.extend([0; 8]);
        whole.extend(7_u16.to_ne_bytes());
        whole.extend(NAME.to_ne_bytes());
        whole.extend(*b"\0ab\0");
        whole.extend(8_u16.to_ne_bytes());
        whole.extend(UID.to_ne_bytes());
        whole.extend(1000_u32.to_ne_bytes());
        let socket = parse(&whole).unwrap();
        assert_eq!((socket.inode, socket.uid, socket.is_listening), (77, Some(1000), true));
        assert_eq!(socket.name.unwrap().to_string(), "@ab");
        for len in 0..whole.len() {
            let _ = parse(&whole[..len]);
            let _ = message(&whole[..len]);
        }
        let endless = [0; 64];
        assert!(message(&endless).is_none() && attribute(&endless).is_none());
    }

    #[test]
    fn the_kernel_answers_and_knows_a_socket_of_this_process() {
        let path = std::env::temp_dir().join(format!("onecopy-test-diag-{}", std::process::id()));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = sockets();
        let inode = std::os::unix::fs::MetadataExt::ino(&path.symlink_metadata().unwrap());
        std::fs::remove_file(&path).unwrap();
        match found {
            Ok(found) => {
                let own =
                    found.iter().find(|socket| socket.name.as_ref().is_some_and(|name| name.as_path() == Some(&path)));
                let own = own.expect("the listener");
                assert!(own.is_listening && own.file.is_some_and(|(_, found)| u64::from(found) == inode & 0xffff_ffff));
            }
            Err(errno) => {
                println!("SKIP the_kernel_answers_and_knows_a_socket_of_this_process: no sock_diag ({errno})")
            }
        }
    }
}
