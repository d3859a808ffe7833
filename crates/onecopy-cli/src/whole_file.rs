//! A file that goes over a channel as a whole: from the one that the sender reads to the one that the receiver writes the kernel copies
//! it, once, and no byte of it comes through either process.
//!
//! | Message | From | When |
//! |---|---|---|
//! | [`Invitation`] | the receiver | first of all, if its output is a regular file; at random, so that no data looks like an offer |
//! | [`Offer`] | the sender | in line with its data, if it has an invitation and its input is a regular file |
//! | [`Report`] | the receiver | from time to time while the kernel copies, and at last |
//!
//! The receiver takes a copy of the sender's descriptor (pidfd_getfd(2), Linux 5.6), for which it needs the permission that cross-memory
//! attach needs. Wherever the copy ends, at the end of the file or where something is in its way, the sender goes on from there
//! in messages, the end mark at last. So a receiver that cannot do it, and a sender that knows nothing of it, are as good as any.
//!
//! Only a file of the file system to which the receiver writes is copied: one that somebody else serves could keep it waiting beyond
//! its `--timeout`.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;

use onecopy::channel::{ChannelReceiver, Peer, View};
use onecopy::{Channel, Deadline, Sender as _};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::failure::Failure;
use crate::output::Output;

/// How much is copied by a system call, and so between two reports, where somebody watches the progress or has no time without end.
const WATCHED_BYTES: u64 = 64 << 20;
/// The same elsewhere: what the kernel does at most. It is the faster the longer it is left alone: new files of 4 GiB took 1.4 to 2.4 s so,
/// in turns with 3.0 to 4.2 by 64 MiB at a time, and 1.6 to 2.5 for `cp`.
const MOST_BYTES: u64 = 0x7fff_f000;

/// That a receiver takes files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invitation([u8; Self::BYTES]);

impl Invitation {
    const BYTES: usize = 16;

    /// Sends one, if `output` is a regular file.
    pub(crate) fn send(channel: &mut Channel, output: &Output, deadline: Deadline) -> Result<Option<Self>, Failure> {
        if output.device().is_none() {
            return Ok(None);
        }
        // The keys of the standard library's maps, which nobody is to guess either.
        let [high, low] = [0, 1].map(|number: u64| u128::from(RandomState::new().hash_one(number)));
        let bytes = (high << 64 | low).to_ne_bytes();
        channel.sender().send_by(&bytes, deadline)?;
        Ok(Some(Self(bytes)))
    }

    /// That of the receiver, if it has sent one by now.
    pub(crate) fn find(receiver: &mut ChannelReceiver) -> Option<Self> {
        // What is wrong with the channel the next message tells.
        let message = receiver.recv_by(Deadline::Now).ok()??;
        message[..].try_into().ok().map(Self)
    }
}

/// A file of the sender's, from somewhere to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) invitation: Invitation,
    /// The sender's number for it.
    pub(crate) fd: u64,
    pub(crate) offset: u64,
    /// How much may be copied between two reports.
    pub(crate) piece_bytes: u64,
}

/// How much may be copied between two reports to a side that watches, or has a deadline.
pub(crate) fn piece_bytes(is_watched: bool, deadline: Deadline) -> u64 {
    if is_watched || deadline != Deadline::Never { WATCHED_BYTES } else { MOST_BYTES }
}

impl Offer {
    const BYTES: usize = Invitation::BYTES + 24;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.invitation.0);
        bytes[16..24].copy_from_slice(&self.fd.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.offset.to_le_bytes());
        bytes[32..].copy_from_slice(&self.piece_bytes.to_le_bytes());
        bytes
    }

    /// `None` is data.
    pub(crate) fn from_message(invitation: Option<Invitation>, message: &View) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        if message.len() != Self::BYTES {
            return None;
        }
        message.read_at(0, &mut bytes).ok()?;
        let word = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let invitation = invitation.filter(|invitation| bytes[..Invitation::BYTES] == invitation.0)?;
        Some(Self { invitation, fd: word(16)?, offset: word(24)?, piece_bytes: word(32)? })
    }

    /// A descriptor of this process's for it, if it may have one, and if `output` can be written from there.
    fn open(self, peer: &Peer, output: &Output) -> Option<File> {
        let fd = RawFd::try_from(self.fd).ok()?;
        let file = File::from(pidfd_getfd(peer.pidfd()?, fd, PidfdGetfdFlags::empty()).ok()?);
        let data = file.metadata().ok().filter(|data| data.is_file() && Some(data.dev()) == output.device())?;
        (data.len() > self.offset).then_some(file)
    }
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) bytes: u64,
    /// Whether there is nothing to come: the end, or no way.
    pub(crate) is_last: bool,
}

impl Report {
    const BYTES: usize = 9;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [u8::from(self.is_last); Self::BYTES];
        bytes[..8].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, [is_last]) = bytes.split_first_chunk::<8>()? else { return None };
        Some(Self { bytes: u64::from_le_bytes(*count), is_last: *is_last != 0 })
    }
}

/// Copies what was offered, as far as that goes, and tells `advance` and the sender of each piece.
pub(crate) fn copy(
    offer: Offer,
    channel: &mut Channel,
    output: &mut Output,
    deadline: Deadline,
    most_bytes: u64,
    mut advance: impl FnMut(usize),
) -> Result<(), Failure> {
    let file = offer.open(channel.peer(), output);
    // At least a little, whatever the sender says.
    let most = most_bytes.min(offer.piece_bytes).max(1 << 20) as usize;
    let mut bytes = 0;
    // Whatever is in its way meets the messages that come instead, and is told then.
    while let Some(file) = &file
        && !deadline.has_passed()
        && let Ok(count @ 1..) = output.copy_from(file, offer.offset + bytes, most)
    {
        bytes += count as u64;
        advance(count);
        channel.sender().send_by(&Report { bytes, is_last: false }.to_bytes(), deadline)?;
    }
    Ok(channel.sender().send_by(&Report { bytes, is_last: true }.to_bytes(), deadline)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_way_and_nothing_else_is_one() {
        for is_last in [false, true] {
            let report = Report { bytes: 1 << 40, is_last };
            assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        }
        assert_eq!([&[0; 8][..], &[0; 10], &[]].map(Report::from_bytes), [None; 3]);
    }
}
