//! A file over a channel of which not every byte goes over the channel: the receiver has the kernel copy it, or reads a part of it.
//!
//! | Message | From | When |
//! |---|---|---|
//! | [`Invitation`] | the receiver | first of all; at random, so that no data looks like an offer |
//! | [`Offer`] | the sender | in line with its data, if it has an invitation and its input is a regular file |
//! | [`Report`] | the receiver | from time to time while the kernel copies, at last, and when it has nothing to do but to read |
//! | [`Range`] | the sender | in line with its data, for a report of the last kind |
//!
//! The receiver takes a copy of the sender's descriptor (pidfd_getfd(2), Linux 5.6), for which it needs the permission that cross-memory
//! attach needs, and which it asks for of a process of its own user only. If its output is a regular file of the same file system, the
//! kernel copies from the one to the other, once, and no byte comes through either process. Wherever that ends, at the end of the file
//! or where something is in its way, the sender goes on from there in messages, the end mark at last. So a receiver that cannot do it,
//! and a sender that knows nothing of it, are as good as any.
//!
//! Messages are filled by the sender, and a receiver to /dev/null, or one whose output is faster than the input, has nothing to do
//! meanwhile. It says so, and gets a range instead, which it reads from the file by itself while the sender goes on behind that: two
//! processors read. It says so before it is out of work, so that it need not wait for the range.
//!
//! The receiver reads only from file systems that the kernel of this machine serves: another one could keep it waiting beyond its
//! `--timeout`.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use onecopy::channel::{ChannelReceiver, Peer, View};
use onecopy::memory::buffer::Buffer;
use onecopy::{Address, Channel, Deadline, Sender as _};
use rustix::fs::{OFlags, fcntl_getfl, fstatfs};
use rustix::process::{PidfdGetfdFlags, geteuid, pidfd_getfd};

use crate::channel::MESSAGE_BYTES;
use crate::failure::{Failure, plain};
use crate::io::LOCAL_FILE_SYSTEMS;
use crate::output::Output;

/// How much is copied by a system call, and so between two reports, where somebody watches the progress or has no time without end.
const WATCHED_BYTES: u64 = 64 << 20;
/// The same elsewhere: what the kernel does at most. It is the faster the longer it is left alone: new files of 4 GiB took 1.4 to 2.4 s so,
/// in turns with 3.0 to 4.2 by 64 MiB at a time, and 1.6 to 2.5 for `cp`.
const MOST_BYTES: u64 = 0x7fff_f000;

/// How much a receiver reads at once of a range, and writes. Measured with two processes that read 4 GiB in turns: 0.28 s by 128 and by
/// 256 KiB, 0.30 to 0.35 by 512 KiB into 4 MiB, 0.43 to 0.51 where one reads all.
const PIECE_BYTES: usize = 128 << 10;

/// That a receiver takes files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invitation([u8; Self::BYTES]);

impl Invitation {
    const BYTES: usize = 16;

    /// Sends one.
    pub(crate) fn send(channel: &mut Channel, deadline: Deadline) -> Result<Self, Failure> {
        // The keys of the standard library's maps, which nobody is to guess either.
        let [high, low] = [0, 1].map(|number: u64| u128::from(RandomState::new().hash_one(number)));
        let bytes = (high << 64 | low).to_ne_bytes();
        channel.sender().send_by(&bytes, deadline)?;
        Ok(Self(bytes))
    }

    /// That of the receiver, if it has sent one by now.
    pub(crate) fn find(receiver: &mut ChannelReceiver) -> Option<Self> {
        // What is wrong with the channel the next message tells.
        let message = receiver.recv_by(Deadline::Now).ok()??;
        message[..].try_into().ok().map(Self)
    }

    /// What follows it in `message`, if that is all there is.
    fn words_behind<const N: usize>(self, message: &View) -> Option<[u64; N]> {
        let mut bytes = [0; Offer::BYTES];
        let bytes = bytes.get_mut(..Self::BYTES + 8 * N).filter(|bytes| bytes.len() == message.len())?;
        message.read_at(0, bytes).ok()?;
        let (first, words) = bytes.split_at(Self::BYTES);
        let (words, _) = words.as_chunks::<8>();
        (first == self.0).then(|| std::array::from_fn(|at| u64::from_le_bytes(words[at])))
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
    pub(crate) fn from_message(invitation: Invitation, message: &View) -> Option<Self> {
        let [fd, offset, piece_bytes] = invitation.words_behind(message)?;
        Some(Self { invitation, fd, offset, piece_bytes })
    }

    /// A descriptor of this process's for it, if it may have one, and if there is something to read.
    fn open(self, peer: &Peer) -> Option<File> {
        // Between two users nobody knows as whom the other one has opened what is behind this number by now.
        let pidfd = peer.pidfd().filter(|_| peer.uid() == geteuid().as_raw())?;
        let fd = RawFd::try_from(self.fd).ok()?;
        let file = File::from(pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()).ok()?);
        let data = file.metadata().ok().filter(|data| data.is_file() && data.len() > self.offset);
        data.is_some().then_some(file)
    }
}

/// A part of the file of the last offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    /// At most [`MESSAGE_BYTES`].
    pub(crate) bytes: u64,
}

impl Range {
    const BYTES: usize = Invitation::BYTES + 16;

    pub(crate) fn to_bytes(self, invitation: Invitation) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&invitation.0);
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) bytes: u64,
    pub(crate) kind: Kind,
}

/// What a report is to say besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    More,
    /// There is nothing to come: the end, or no way.
    Last,
    /// The receiver would read a range.
    Asks,
}

impl Report {
    const BYTES: usize = 9;
    const KINDS: [Kind; 3] = [Kind::More, Kind::Last, Kind::Asks];

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [self.kind as u8; Self::BYTES];
        bytes[..8].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, [kind]) = bytes.split_first_chunk::<8>()? else { return None };
        Some(Self { bytes: u64::from_le_bytes(*count), kind: *Self::KINDS.get(usize::from(*kind))? })
    }

    /// Whether the receiver has asked for a range.
    pub(crate) fn asks(receiver: &mut ChannelReceiver) -> bool {
        // What is wrong with the channel the next message tells.
        let message = receiver.recv_by(Deadline::Now).ok().flatten();
        message.and_then(|message| Self::from_bytes(&message)).is_some_and(|report| report.kind == Kind::Asks)
    }
}

/// Copies what was offered, as far as that goes, and tells `advance` and the sender of each piece. Where the output
/// is no file, ranges of it may be read instead.
pub(crate) fn copy(
    offer: Offer,
    channel: &mut Channel,
    output: &mut Output,
    deadline: Deadline,
    most_bytes: u64,
    mut advance: impl FnMut(usize),
) -> Result<Option<Shared>, Failure> {
    let file = offer.open(channel.peer());
    // At least a little, whatever the sender says.
    let most = most_bytes.min(offer.piece_bytes).max(1 << 20) as usize;
    let mut bytes = 0;
    let copied = file.as_ref().filter(|file| file.metadata().is_ok_and(|data| Some(data.dev()) == output.device()));
    // Whatever is in its way meets the messages that come instead, and is told then.
    while let Some(file) = copied
        && !deadline.has_passed()
        && let Ok(count @ 1..) = output.copy_from(file, offer.offset + bytes, most)
    {
        bytes += count as u64;
        advance(count);
        channel.sender().send_by(&Report { bytes, kind: Kind::More }.to_bytes(), deadline)?;
    }
    channel.sender().send_by(&Report { bytes, kind: Kind::Last }.to_bytes(), deadline)?;
    // What writes a file takes longer than what reads one.
    Ok(file.filter(|_| output.device().is_none()).and_then(|file| Shared::new(offer, file)))
}

/// A file that both sides read.
#[derive(Debug)]
pub(crate) struct Shared {
    invitation: Invitation,
    file: File,
    buffer: Buffer,
    /// Whether a range is asked for that has not come yet.
    asked: bool,
}

impl Shared {
    /// If that is worth it, and this process may read it and will not wait for others when it does.
    fn new(offer: Offer, file: File) -> Option<Self> {
        let rest = file.metadata().ok()?.len().saturating_sub(offer.offset);
        let flags = fcntl_getfl(&file).ok().filter(|flags| !flags.contains(OFlags::PATH))?;
        let reads = matches!(flags & OFlags::RWMODE, OFlags::RDONLY | OFlags::RDWR);
        let is_local = fstatfs(&file).is_ok_and(|found| LOCAL_FILE_SYSTEMS.contains(&found.f_type));
        // Without memory the messages still come.
        let buffer = (rest >= MESSAGE_BYTES as u64 && reads && is_local).then(|| Buffer::warm(PIECE_BYTES).ok())??;
        Some(Self { invitation: offer.invitation, file, buffer, asked: false })
    }

    /// Asks for a range, if none is asked for.
    pub(crate) fn ask(&mut self, channel: &mut Channel) {
        let report = Report { bytes: 0, kind: Kind::Asks };
        // What is wrong with the channel the next message tells.
        self.asked = self.asked || channel.sender().send_by(&report.to_bytes(), Deadline::Now).is_ok();
    }

    /// What `message` says is to be read; `None` is data.
    pub(crate) fn range(&mut self, message: &View) -> Option<Range> {
        let [offset, bytes] = self.invitation.words_behind(message)?;
        self.asked = false;
        Some(Range { offset, bytes })
    }

    /// Reads that, to the last byte, and writes it. `address` is what the sender is called in errors.
    pub(crate) fn read(&mut self, range: Range, output: &mut Output, address: &Address) -> Result<(), Failure> {
        if range.bytes > MESSAGE_BYTES as u64 {
            let text = format!(
                "{address}: the sender has {} bytes read at once, and {MESSAGE_BYTES} are the most",
                range.bytes
            );
            return Err(Failure::failed(text));
        }
        let mut done = 0;
        while done < range.bytes {
            let len = self.buffer.len().min((range.bytes - done) as usize);
            let place = range.offset.saturating_add(done);
            match self.file.read_at(&mut self.buffer[..len], place) {
                Ok(0) => {
                    let rest = range.bytes - done;
                    let text = format!(
                        "{address}: the sender's file has ended {rest} bytes before it was to: it was shortened"
                    );
                    return Err(Failure::failed(text));
                }
                Ok(count) => {
                    output.write(&self.buffer[..count])?;
                    done += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let text = format!("{address}: cannot read the sender's file: {}", plain(&error));
                    return Err(Failure::failed(text));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_way_and_nothing_else_is_one() {
        for kind in Report::KINDS {
            let report = Report { bytes: 1 << 40, kind };
            assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        }
        assert_eq!([&[0; 8][..], &[0; 10], &[], &[3; 9]].map(Report::from_bytes), [None; 4]);
    }
}
