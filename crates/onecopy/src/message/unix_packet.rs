//! What UNIX datagrams and sequenced packets have in common: messages of bounded length, received whole with whoever sent
//! them and the descriptors that came along.

use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};

use super::inbox::{Inbox, too_small};
use crate::io::socket::Socket;
use crate::stream::unix::{Credentials, MAX_DESCRIPTORS};
use crate::sys::recvmsg::{Received, control_words};
use crate::{Deadline, Error, Result, UnixName, tally};

/// The longest message that this library sends in one piece, in bytes, however large the send buffer is.
///
/// The kernel keeps a message in one piece of physical memory, up to its last few pages, and finds at most 4 MiB in one piece
/// (`MAX_PAGE_ORDER`, with pages of 4 KiB).
pub(super) const PIECE_LIMIT_BYTES: usize = 4 << 20;
/// What the kernel keeps of the send buffer for itself (`unix_dgram_sendmsg`).
const SEND_BUFFER_OVERHEAD_BYTES: usize = 32;
/// The longest message that can arrive where pages have 4 KiB: one piece of 4 MiB, less its administration, and 45 pages at
/// most (`MAX_SKB_FRAGS`), rounded up.
const LONGEST_BYTES: usize = PIECE_LIMIT_BYTES + (256 << 10);
const CREDENTIAL_WORDS: usize = control_words(size_of::<libc::ucred>());
const ALL_WORDS: usize = CREDENTIAL_WORDS + control_words(MAX_DESCRIPTORS * size_of::<i32>());

#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: Socket,
    inbox: Inbox<Received>,
    /// What came with the last message that was received.
    last: Received,
    /// Whether the name of the sender is asked for.
    with_name: bool,
    /// Whether credentials are asked for with every message: once they were asked for with one.
    with_credentials: bool,
    /// Whether a message may be longer than [`LONGEST_BYTES`], so that its length must be asked for first.
    looks_first: bool,
}

/// What a receiver wants besides the bytes. Each costs time: the kernel writes control data slowly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Bytes,
    Credentials,
    Descriptors,
}

impl PacketSocket {
    /// Takes over a socket. `with_name`: whether the names of senders are of interest.
    pub(super) fn new(fd: OwnedFd, object: impl Into<String>, with_name: bool) -> Self {
        Self::over(Socket::new(fd, object), with_name)
    }

    fn over(socket: Socket, with_name: bool) -> Self {
        let looks_first = rustix::param::page_size() > 4096;
        let (inbox, last) = (Inbox::new(LONGEST_BYTES), Received::default());
        Self { socket, inbox, last, with_name, with_credentials: false, looks_first }
    }

    pub(super) fn try_clone(&self) -> Result<Self> {
        Ok(Self::over(self.socket.try_clone()?, self.with_name))
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn object(&self) -> &str {
        self.socket.object()
    }

    /// Sends one message, and duplicates of `fds` with it.
    pub(super) fn send_by(&self, message: &[u8], fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<()> {
        self.check_piece(message, self.object())?;
        if fds.len() > MAX_DESCRIPTORS {
            let reason = format!(
                "{} descriptors do not fit one message, whose limit is {MAX_DESCRIPTORS}: send several",
                fds.len()
            );
            return Err(Error::Invalid { object: self.object().into(), reason });
        }
        let sent = match fds {
            [] => self.socket.send_one_by(message, deadline).map(drop),
            fds => self.send_control(message, SendAncillaryMessage::ScmRights(fds), deadline),
        };
        sent.map_err(|error| self.explain_send(error, message, self.object()))
    }

    fn send_control(&self, message: &[u8], part: SendAncillaryMessage<'_, '_>, deadline: Deadline) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(part);
        self.socket.send_by(&[IoSlice::new(message)], &mut control, deadline).map(drop)
    }

    pub(super) fn check_piece(&self, message: &[u8], object: &str) -> Result<()> {
        if message.len() > PIECE_LIMIT_BYTES { Err(self.too_long(message, object)) } else { Ok(()) }
    }

    pub(super) fn explain_send(&self, error: Error, message: &[u8], object: &str) -> Error {
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => self.too_long(message, object),
            Some(libc::ENOBUFS) => error.with_remedy(format!(
                "the kernel found no {} bytes of physical memory in one piece: send fragments",
                message.len()
            )),
            Some(libc::ETOOMANYREFS) => error.with_remedy(
                "more descriptors wait to be received than RLIMIT_NOFILE allows: have them received first",
            ),
            _ => error,
        }
    }

    fn too_long(&self, message: &[u8], object: &str) -> Error {
        let limit_bytes = self.limit_bytes().unwrap_or(PIECE_LIMIT_BYTES);
        let remedy = if limit_bytes < PIECE_LIMIT_BYTES {
            "enlarge the send buffer, up to /proc/sys/net/core/wmem_max, or send it in fragments"
        } else {
            "the kernel keeps a message in one piece of memory: send it in fragments"
        };
        Error::TooLong { object: object.into(), message_bytes: message.len(), limit_bytes, remedy: Some(remedy.into()) }
    }

    /// The longest message that can be sent with the send buffer as it is now.
    pub(super) fn limit_bytes(&self) -> Option<usize> {
        let buffer = socket_send_buffer_size(&self.socket).ok()?;
        Some(buffer.saturating_sub(SEND_BUFFER_OVERHEAD_BYTES).min(PIECE_LIMIT_BYTES))
    }

    pub(super) fn set_send_buffer_bytes(&self, bytes: usize) -> Result<usize> {
        set_socket_send_buffer_size(&self.socket, bytes)
            .map_err(|errno| self.socket.error("setsockopt(SO_SNDBUF)", errno))?;
        socket_send_buffer_size(&self.socket).map_err(|errno| self.socket.error("getsockopt(SO_SNDBUF)", errno))
    }

    /// Receives one message. `is_end` says of a call that stored no bytes whether it was the end instead.
    pub(super) fn recv_by(
        &mut self,
        buffer: &mut [u8],
        wanted: Wanted,
        is_end: impl Fn(&Received) -> bool,
        deadline: Deadline,
    ) -> Result<Option<usize>> {
        if self.looks_first && !self.inbox.has_one_waiting() {
            self.look(buffer.len(), deadline)?;
        }
        self.with_credentials |= wanted == Wanted::Credentials;
        let wanted = if wanted == Wanted::Bytes && self.with_credentials { Wanted::Credentials } else { wanted };
        let call = Call { socket: &self.socket, with_name: self.with_name, wanted, flags: 0 };
        let received = self.inbox.recv(buffer, &mut self.last, self.socket.object(), |slices, received| {
            let bytes = call.make(slices, received, deadline)?;
            if bytes == 0 && is_end(received) {
                return Ok(None);
            }
            if received.flags & libc::MSG_TRUNC != 0 {
                let error = call.socket.error("recvmsg", Errno::MSGSIZE);
                return Err(error.with_remedy("the message was cut off and is lost"));
            }
            if wanted != Wanted::Descriptors {
                // Without room for control data the kernel reports all of them as cut off.
                received.flags = 0;
            }
            Ok(Some(bytes))
        });
        if wanted != Wanted::Descriptors {
            // Those of a message that waited in line.
            self.last.fds.clear();
        }
        received
    }

    /// Who sent the message that was received last; `None` when that was not asked for.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.last.credentials.map(|raw| Credentials { pid: raw.pid, uid: raw.uid, gid: raw.gid })
    }

    /// The name from which the message was sent that was received last; `None` for a socket without one.
    pub(super) fn sender(&self) -> Option<UnixName> {
        let bytes = self.last.name.to_bytes();
        match bytes.split_first()? {
            (0, name) => UnixName::abstract_name(OsStr::from_bytes(name)).ok(),
            _ => UnixName::path(OsStr::from_bytes(&bytes)).ok(),
        }
    }

    /// Puts the message that was received last back, first in line.
    pub(super) fn put_back(&mut self, message: &[u8]) {
        self.inbox.put_back(tally::to_vec(message), std::mem::take(&mut self.last));
    }

    /// Asks how long the next message is, and refuses one that would not fit, which then stays in the kernel.
    fn look(&self, buffer_bytes: usize, deadline: Deadline) -> Result<()> {
        let flags = libc::MSG_PEEK | libc::MSG_TRUNC;
        let call = Call { socket: &self.socket, with_name: false, wanted: Wanted::Bytes, flags };
        let next_bytes = call.make(&mut [], &mut Received::default(), deadline)?;
        if next_bytes > buffer_bytes.max(self.inbox.longest_bytes()) {
            return Err(too_small(self.object(), next_bytes, buffer_bytes));
        }
        Ok(())
    }

    /// Receives one message and the descriptors that came with it.
    ///
    /// When not all of them fit this process, those that came are closed, and the message stays first in line without them.
    pub(super) fn recv_with_fds_by(
        &mut self,
        buffer: &mut [u8],
        is_end: impl Fn(&Received) -> bool,
        deadline: Deadline,
    ) -> Result<Option<(usize, Vec<OwnedFd>)>> {
        let Some(len) = self.recv_by(buffer, Wanted::Descriptors, is_end, deadline)? else { return Ok(None) };
        let fds = std::mem::take(&mut self.last.fds);
        if self.last.flags & libc::MSG_CTRUNC == 0 {
            return Ok(Some((len, fds)));
        }
        let came = fds.len();
        self.last.flags = 0;
        self.put_back(&buffer[..len]);
        Err(self.socket.error("recvmsg", Errno::MFILE).with_remedy(format!(
            "more descriptors were passed than this process has room for: {came} came and were closed, the message itself \
             can still be received; raise RLIMIT_NOFILE"
        )))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Has the kernel tell who sends each message (SO_PASSCRED). Its other effect: a socket without a name that sends gets one
/// in the abstract namespace, five hexadecimal digits, for as long as it lives.
pub(super) fn pass_credentials(fd: &OwnedFd, object: &str) -> Result<()> {
    setsockopt(fd, sockopt::PassCred, &true).map_err(|errno| Error::os("setsockopt(SO_PASSCRED)", object, errno))
}

/// One recvmsg(2).
struct Call<'s> {
    socket: &'s Socket,
    with_name: bool,
    wanted: Wanted,
    flags: i32,
}

impl Call<'_> {
    fn make(&self, slices: &mut [IoSliceMut<'_>], received: &mut Received, deadline: Deadline) -> Result<usize> {
        match self.wanted {
            Wanted::Bytes => self.make_with(&mut [], slices, received, deadline),
            Wanted::Credentials => self.make_with(&mut [0; CREDENTIAL_WORDS], slices, received, deadline),
            Wanted::Descriptors => self.make_with(&mut [0; ALL_WORDS], slices, received, deadline),
        }
    }

    fn make_with(
        &self,
        control: &mut [u64],
        slices: &mut [IoSliceMut<'_>],
        received: &mut Received,
        deadline: Deadline,
    ) -> Result<usize> {
        self.socket.recv_control_by(slices, control, self.with_name, self.flags, received, deadline)
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn where_messages_may_be_of_any_length_one_that_does_not_fit_stays_in_the_kernel() {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        let sender = PacketSocket::new(one, "one", false);
        let mut receiver = PacketSocket::new(other, "other", false);
        (receiver.inbox, receiver.looks_first) = (Inbox::new(100), true);
        for len in [0, 50, 100, 101, 5000] {
            let message = vec![7; len];
            sender.send_by(&message, &[], Deadline::Now).unwrap();
            for size in [0, 49, 99] {
                let result = receiver.recv_by(&mut vec![0; size], Wanted::Bytes, |_| false, Deadline::Now);
                match result {
                    Ok(Some(got)) => {
                        assert!(got == len && len <= size, "message of {len} bytes in {size}");
                        sender.send_by(&message, &[], Deadline::Now).unwrap();
                    }
                    Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                        assert_eq!((message_bytes, buffer_bytes), (len, size));
                    }
                    other => panic!("{other:?}"),
                }
            }
            let mut buffer = vec![0; len];
            assert_eq!(receiver.recv_by(&mut buffer, Wanted::Bytes, |_| false, Deadline::Now).unwrap(), Some(len));
            assert_eq!(buffer, message);
        }
    }
}
