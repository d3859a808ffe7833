//! A socket during the handshake: whole messages, each with the process that sent it and what it passed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, UCred};
use rustix::process::{getegid, geteuid, getpid};

use super::wire::{MESSAGE_BYTES, Message};
use crate::io::socket::Socket;
use crate::sys::recvmsg::{RawCredentials, Received, control_words};
use crate::sys::socket_options::{set_pass_pidfd, set_pass_rights};
use crate::sys::sysctl::is_overflow;
use crate::{Deadline, Error, Result};

/// Room for credentials, one descriptor and a pidfd, and for the security label that an inherited socket may have been set to
/// receive.
const CONTROL_WORDS: usize =
    control_words(size_of::<libc::ucred>()) + 2 * control_words(size_of::<i32>()) + control_words(LABEL_BYTES);
const LABEL_BYTES: usize = 256;

/// A message of the other side.
#[derive(Debug)]
pub(super) struct Letter {
    /// What it says; or what is wrong with it.
    pub(super) message: Result<Message, String>,
    pub(super) sender: RawCredentials,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) fds: Vec<OwnedFd>,
}

/// Whether the kernel tells with each message who sent it. Afterwards it does not: each would cost a descriptor.
pub(super) fn identify_senders(socket: &Socket, value: bool) -> Result<()> {
    set_socket_passcred(socket, value).map_err(|errno| socket.error("setsockopt(SO_PASSCRED)", errno))?;
    match set_pass_pidfd(socket.as_fd(), value) {
        // Before Linux 6.5 the process is looked up by its number.
        Ok(()) | Err(Errno::NOPROTOOPT) => Ok(()),
        Err(errno) => Err(socket.error("setsockopt(SO_PASSPIDFD)", errno)),
    }
}

/// Whether descriptors can be passed to this side. Closing one that a stranger passes may take as long as he likes: a TCP socket with SO_LINGER,
/// for instance, waits for its other end, also when the kernel closes what nobody has received.
pub(super) fn take_descriptors(socket: &Socket, value: bool) -> Result<()> {
    match set_pass_rights(socket.as_fd(), value) {
        // Before Linux 6.16 they can in any case.
        Ok(()) | Err(Errno::NOPROTOOPT) => Ok(()),
        Err(errno) => Err(socket.error("setsockopt(SO_PASSRIGHTS)", errno)),
    }
}

/// Sends a message with this process's credentials, its effective ids, and perhaps a descriptor. Never waits: the few messages
/// of a handshake fit any socket.
///
/// # Errors
///
/// [`Error::PeerGone`]; [`Error::Refused`] when this process's own user has no number in its user namespace.
pub(super) fn send(socket: &Socket, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let own = UCred { pid: getpid(), uid: geteuid(), gid: getegid() };
    if is_overflow(own.uid.as_raw()) {
        let reason = format!(
            "this process has the overflow uid {}, which identifies nobody: map its user into this user namespace",
            own.uid
        );
        return Err(Error::Refused { object: socket.object().into(), reason });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    let fits = control.push(SendAncillaryMessage::ScmCredentials(own))
        && (fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    debug_assert!(fits, "the space is for both");
    let sent = socket.send_by(&[IoSlice::new(&message.encode())], &mut control, Deadline::Now);
    sent.map(drop).map_err(|error| if error.is_peer_gone() { gone(socket) } else { error })
}

/// Tells the other side why it is refused, if it still listens.
pub(super) fn refuse(socket: &Socket, reason: String) {
    // It is told for its own good: that it can't be told is its own loss.
    let _ = send(socket, &Message::Refuse(reason), None);
}

/// Waits for a message.
///
/// # Errors
///
/// [`Error::PeerGone`] when the other side has closed; EMFILE when there was no room for what it passed.
pub(super) fn receive(socket: &Socket, deadline: Deadline) -> Result<Letter> {
    let mut bytes = [0; MESSAGE_BYTES];
    let mut received = Received::default();
    let len = match receive_once(socket, &mut bytes, &mut received, deadline) {
        // It has closed without reading all that came, but what it sent before is there.
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => {
            receive_once(socket, &mut bytes, &mut received, Deadline::Now)
        }
        other => other,
    }
    .map_err(|error| if error.is_peer_gone() { gone(socket) } else { error })?;
    if len == 0 {
        return Err(gone(socket));
    }
    let Received { flags, credentials, fds, pidfd, .. } = received;
    let message = match flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) {
        0 => Message::decode(&bytes[..len]),
        // Descriptors of an honest side are one at most: so this one had no number left for it.
        libc::MSG_CTRUNC if fds.is_empty() => return Err(socket.error("recvmsg", Errno::MFILE)),
        _ => Err("what it sent is longer than any message of a handshake".into()),
    };
    // Without credentials it is nobody, who is never admitted.
    let sender = credentials.unwrap_or(RawCredentials { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX });
    Ok(Letter { message, sender, pidfd, fds })
}

fn receive_once(socket: &Socket, bytes: &mut [u8], received: &mut Received, deadline: Deadline) -> Result<usize> {
    socket.recv_control_by(&mut [IoSliceMut::new(bytes)], &mut [0; CONTROL_WORDS], false, 0, received, deadline)
}

pub(super) fn gone(socket: &Socket) -> Error {
    Error::PeerGone { object: socket.object().into(), detail: "it closed the connection during the handshake".into() }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn sockets() -> (Socket, Socket) {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Socket::new(one, "one"), Socket::new(other, "other"))
    }

    #[test]
    fn a_message_names_its_sender_also_when_it_was_sent_before_anybody_asked() {
        let (one, other) = sockets();
        send(&one, &Message::Ready, None).unwrap();
        identify_senders(&other, true).unwrap();
        let letter = receive(&other, Deadline::Now).unwrap();
        assert_eq!(letter.message, Ok(Message::Ready));
        let own =
            RawCredentials { pid: std::process::id().cast_signed(), uid: geteuid().as_raw(), gid: getegid().as_raw() };
        assert_eq!(letter.sender, own);
        // Where the kernel knows SO_PASSPIDFD.
        assert_eq!(letter.pidfd.is_some(), set_pass_pidfd(other.as_fd(), true).is_ok());
        identify_senders(&other, false).unwrap();
        send(&one, &Message::Ready, None).unwrap();
        assert!(receive(&other, Deadline::Now).unwrap().pidfd.is_none());
    }

    #[test]
    fn what_was_said_before_a_close_is_heard_and_then_the_end() {
        let (one, other) = sockets();
        send(&other, &Message::Ready, None).unwrap();
        refuse(&one, "no".into());
        // It closes with a message unread: the kernel reports a reset first.
        drop(one);
        let letter = receive(&other, Deadline::Never).unwrap();
        assert_eq!(letter.message, Ok(Message::Refuse("no".into())));
        assert!(receive(&other, Deadline::Never).unwrap_err().is_peer_gone());
        assert!(send(&other, &Message::Ready, None).unwrap_err().is_peer_gone());
    }

    #[test]
    fn more_descriptors_or_bytes_than_any_message_has_are_no_message() {
        let (one, other) = sockets();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [one.as_fd(); 200];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        one.send_by(&[IoSlice::new(&Message::Ready.encode())], &mut control, Deadline::Now).unwrap();
        one.send_one_by(&[0; MESSAGE_BYTES + 1], Deadline::Now).unwrap();
        for _ in 0..2 {
            let problem = receive(&other, Deadline::Now).unwrap().message.unwrap_err();
            assert!(problem.contains("longer than any message"), "{problem}");
        }
    }
}
