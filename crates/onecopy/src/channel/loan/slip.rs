//! What stands in the ring for a loan, and the packet by which its memory comes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};

use crate::channel::link::Link;
use crate::io::socket::Socket;
use crate::memory::Region;
use crate::memory::anonymous::exclusive::map_to_read;
use crate::sys::recvmsg::{Received, control_words, recvmsg};
use crate::{Deadline, Error, Result};

/// Which part of the sender's memory is a message, and by which ticket it goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::channel) struct Slip {
    pub(in crate::channel) ticket: u32,
    pub(in crate::channel) offset: usize,
    pub(in crate::channel) bytes: usize,
}

impl Slip {
    /// Longer than an [`Offer`](crate::channel::desk::Offer), by which the receiver tells them apart.
    const BYTES: usize = 24;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let words = [u64::from(self.ticket), self.offset as u64, self.bytes as u64];
        bytes.as_chunks_mut().0.iter_mut().zip(words).for_each(|(chunk, word)| *chunk = word.to_le_bytes());
        bytes
    }

    /// `None` is no slip.
    pub(in crate::channel) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks() else { return None };
        let [ticket, offset, bytes] = words else { return None };
        let number = |word: &[u8; 8]| u64::from_le_bytes(*word);
        Some(Self {
            ticket: u32::try_from(number(ticket)).ok()?,
            offset: usize::try_from(number(offset)).ok()?,
            bytes: usize::try_from(number(bytes)).ok()?,
        })
    }
}

/// The packet that brings the memory for loans: this byte and a descriptor. No half of a side has it for its tone.
pub(in crate::channel) const PACKET: u8 = b'l';

/// Passes the memory for loans to the other side.
pub(super) fn send_memory(link: &Link, memory: &OwnedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [memory.as_fd()];
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space is for one");
    let sent = link.polling.socket().send_by(&[IoSlice::new(&[PACKET])], &mut control, Deadline::Now);
    sent.map(drop).map_err(|error| if error.is_peer_gone() { link.gone("it has closed") } else { error })
}

/// Maps the memory that the first packet of `socket` brings, and leaves the packet there; `None` is another packet, or none.
///
/// # Errors
///
/// [`Error::Os`], and then it may be had later: EMFILE when there are too many descriptors, ENOMEM. [`Error::Invalid`] for what
/// is no memory for loans.
pub(in crate::channel) fn peek_memory(socket: &Socket) -> Result<Option<Region>> {
    let mut byte = [0];
    let mut control = [0; control_words(size_of::<i32>())];
    let mut received = Received::default();
    let peeked = recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        false,
        libc::MSG_PEEK | libc::MSG_DONTWAIT,
        &mut received,
    );
    if peeked != Ok(1) || byte != [PACKET] {
        // The end and errors are for whoever takes packets.
        return Ok(None);
    }
    match (received.fds.pop(), received.flags & libc::MSG_CTRUNC) {
        (Some(fd), 0) => map_to_read(&fd, socket.object()).map(Some),
        // The kernel had no number left for it.
        (None, libc::MSG_CTRUNC) => Err(socket.error("recvmsg", Errno::MFILE)),
        _ => {
            let reason = "memory for loans came without a descriptor, or with several".into();
            Err(Error::Invalid { object: socket.object().into(), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::desk::Offer;

    #[test]
    fn slips_survive_the_way_and_are_no_offers() {
        let slip = Slip { ticket: 63, offset: 1 << 40, bytes: 7 };
        assert_eq!(Slip::from_bytes(&slip.to_bytes()), Some(slip));
        assert_eq!(Offer::from_bytes(&slip.to_bytes()), None);
        assert_eq!(Slip::from_bytes(&Offer { number: 1, bytes: 2 }.to_bytes()), None);
        for len in [0, 8, 23, 25, 32] {
            assert_eq!(Slip::from_bytes(&vec![0; len]), None);
        }
        assert_eq!(Slip::from_bytes(&[0xff; 24]), None);
    }
}
