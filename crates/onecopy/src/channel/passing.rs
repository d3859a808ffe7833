//! Memory that goes over the socket of a channel, as a packet of one byte and a descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};

use super::link::Link;
use crate::io::socket::Socket;
use crate::memory::Region;
use crate::memory::anonymous::exclusive::map_to_read;
use crate::memory::anonymous::registered::Theirs;
use crate::sys::recvmsg::{Received, control_words, recvmsg};
use crate::{Deadline, Error, Result};

/// What the memory is for. No half of a side has one of these bytes for its tone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All [`loans`](super::loan) of a direction.
    Loans = b'l' as isize,
    /// One [`RegisteredBuffer`](super::RegisteredBuffer).
    Registered = b'b' as isize,
}

impl Kind {
    /// The first byte of the packet.
    pub(super) fn tone(self) -> u8 {
        self as u8
    }

    pub(super) fn of(tone: u8) -> Option<Self> {
        [Self::Loans, Self::Registered].into_iter().find(|kind| kind.tone() == tone)
    }
}

/// What a packet brought.
#[derive(Debug)]
pub(super) enum Passed {
    /// [`Error::Os`], and then it may be had later: EMFILE when there are too many descriptors, ENOMEM. [`Error::Invalid`] for what
    /// is no such memory.
    Loans(Result<Region>),
    Registered(Result<Theirs>),
}

/// Passes memory to the other side.
pub(super) fn pass(link: &Link, kind: Kind, memory: &OwnedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [memory.as_fd()];
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space is for one");
    let sent = link.polling.socket().send_by(&[IoSlice::new(&[kind.tone()])], &mut control, Deadline::Now);
    sent.map(drop).map_err(|error| if error.is_peer_gone() { link.gone("it has closed") } else { error })
}

/// Maps the memory that the first packet of `socket` brings, for loans if it is no longer than `limit_bytes`, and leaves the packet there;
/// `None` is another packet, or none.
pub(super) fn peek(socket: &Socket, limit_bytes: usize) -> Option<Passed> {
    let mut byte = [0];
    let mut control = [0; control_words(size_of::<i32>())];
    let mut received = Received::default();
    let mut look = || {
        let (mut bytes, flags) = ([IoSliceMut::new(&mut byte)], libc::MSG_PEEK | libc::MSG_DONTWAIT);
        recvmsg(socket.as_fd(), &mut bytes, &mut control, false, flags, &mut received)
    };
    let mut peeked = look();
    // The kernel tells the first of these once, of a side that has closed with bytes unread: what it had sent is there all the same.
    while matches!(peeked, Err(Errno::CONNRESET | Errno::INTR)) {
        peeked = look();
    }
    // The end and errors are for whoever takes packets.
    let kind = peeked.is_ok_and(|bytes| bytes == 1).then(|| Kind::of(byte[0]))??;
    let memory = descriptor(received, socket);
    Some(match kind {
        Kind::Loans => Passed::Loans(memory.and_then(|fd| map_to_read(&fd, limit_bytes, socket.object()))),
        Kind::Registered => Passed::Registered(memory.and_then(|fd| Theirs::map(&fd, socket.object()))),
    })
}

fn descriptor(mut received: Received, socket: &Socket) -> Result<OwnedFd> {
    match (received.fds.pop(), received.flags & libc::MSG_CTRUNC) {
        (Some(fd), 0) => Ok(fd),
        // The kernel had no number left for it.
        (None, libc::MSG_CTRUNC) => Err(socket.error("recvmsg", Errno::MFILE)),
        _ => {
            let reason = "memory came without a descriptor, or with several".into();
            Err(Error::Invalid { object: socket.object().into(), reason })
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

    use super::*;
    use crate::memory::anonymous::registered::{Children, Own, Rights};

    /// Passes `fd` as if it was memory of this kind.
    fn pass_by(socket: &Socket, kind: Kind, fd: &OwnedFd) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        socket.send_by(&[IoSlice::new(&[kind.tone()])], &mut control, Deadline::Now).unwrap();
    }

    #[test]
    fn memory_is_found_though_the_other_side_has_closed_with_bytes_unread() {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (own, other) = (Socket::new(own, "channel:x"), Socket::new(other, "channel:x"));
        let (_memory, fd) = Own::create(4096, Rights::ReadWrite, Children::Without).unwrap();
        pass_by(&other, Kind::Registered, &fd);
        send(&own, b"m", SendFlags::empty()).unwrap();
        drop(other);
        for _ in 0..2 {
            assert!(matches!(peek(&own, 0), Some(Passed::Registered(Ok(_)))));
        }
    }

    /// A peer has as much of it as it likes, and the addresses of this process are all that it has.
    #[test]
    fn memory_for_loans_beyond_the_limit_takes_no_addresses() {
        const LIMIT: usize = 1 << 30;
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (own, other) = (Socket::new(own, "channel:x"), Socket::new(other, "channel:x"));
        for (bytes, fits) in [(LIMIT, true), (LIMIT + 1, false), (1 << 46, false), (1 << 50, false)] {
            pass_by(&other, Kind::Loans, &sparse(bytes));
            match peek(&own, LIMIT) {
                Some(Passed::Loans(Ok(memory))) => assert!(fits && memory.len() == bytes),
                Some(Passed::Loans(Err(error))) => assert!(!fits && matches!(error, Error::Invalid { .. }), "{error}"),
                other => panic!("{other:?}"),
            }
            recv(&own, &mut [0; 1], RecvFlags::empty()).unwrap();
        }
    }

    fn sparse(bytes: usize) -> OwnedFd {
        let memory = memfd_create("loans", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, bytes as u64).unwrap();
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        memory
    }
}
