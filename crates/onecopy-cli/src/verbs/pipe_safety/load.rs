//! Several processes that write to one pipe at once, and what arrives.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Duration;

use onecopy::stream::ByteReader as _;
use onecopy::stream::pipe::{self, MessageReader, PIPE_BUF, PipeReader};
use onecopy::{Deadline, Error};

use super::writer::{Counts, Mode, Role};
use crate::again;
use crate::failure::{Failure, plain};

/// How much a pipe with room holds: what an ordinary user may ask for.
const ROOM_BYTES: usize = 1 << 20;
/// A pipe whose writers all hang is a bug; the verb ends all the same.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) writers: usize,
    pub(super) messages: usize,
    /// Whether the pipe is kept full.
    pub(super) full: bool,
    pub(super) mode: Mode,
}

/// What was seen of messages of one length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) bytes: usize,
    pub(super) sent: u64,
    /// How many messages' worth of bytes arrived from their writers.
    pub(super) arrived: u64,
    /// How many of them had others' bytes in the middle.
    pub(super) torn: u64,
    pub(super) counts: Counts,
}

impl Seen {
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            bytes: 0,
            sent: self.sent + other.sent,
            arrived: self.arrived + other.arrived,
            torn: self.torn + other.torn,
            counts: Counts {
                writes: self.counts.writes + other.counts.writes,
                eagain: self.counts.eagain + other.counts.eagain,
                partial_writes: self.counts.partial_writes + other.counts.partial_writes,
            },
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.arrived == self.sent
    }
}

impl std::ops::Deref for Seen {
    type Target = Counts;

    fn deref(&self) -> &Counts {
        &self.counts
    }
}

impl Load {
    /// Runs it with messages of `bytes` bytes.
    pub(super) fn run(&self, bytes: usize) -> Result<Seen, Failure> {
        let (reader, writer) = pipe::pair()?;
        // Where a user may not have that much, there is what there is.
        let _ = writer.set_capacity_bytes(if self.full { 4 * PIPE_BUF } else { ROOM_BYTES });
        let mut crew = Crew::start(self, bytes, writer.as_fd().try_clone_to_owned().map_err(failed)?)?;
        drop(writer);
        let (arrived, torn) = match self.mode {
            Mode::Blocking | Mode::Nonblocking => self.read_raw(reader, bytes)?,
            Mode::Messages | Mode::MessagesNonblocking => read_messages(reader, bytes)?,
        };
        let counts = crew.end()?;
        Ok(Seen { bytes, sent: (self.writers * self.messages) as u64, arrived, torn, counts })
    }

    /// Reads all bytes. Each is the number of its writer, and each writer's come in their order, so its messages lie between
    /// multiples of their length; one is torn when another writer's byte comes in the middle.
    fn read_raw(&self, mut reader: PipeReader, bytes: usize) -> Result<(u64, u64), Failure> {
        let mut buffer = vec![0; if self.full { PIPE_BUF } else { ROOM_BYTES }];
        let mut tear = Tear { bytes, places: BTreeMap::new(), last: None, torn: 0 };
        loop {
            let count = reader.read_by(&mut buffer, Deadline::after(PATIENCE))?;
            if count == 0 {
                break;
            }
            tear.add(&buffer[..count]);
        }
        Ok((tear.whole(), tear.torn))
    }
}

/// Finds torn messages.
struct Tear {
    bytes: usize,
    /// How many bytes of each writer came, and whether its current message was torn already.
    places: BTreeMap<u8, (u64, bool)>,
    last: Option<u8>,
    torn: u64,
}

impl Tear {
    fn add(&mut self, bytes: &[u8]) {
        for run in bytes.chunk_by(|one, other| one == other) {
            let tag = run[0];
            if let Some(left) = self.last.replace(tag).filter(|last| *last != tag) {
                self.leave(left);
            }
            let length = self.bytes as u64;
            let (place, torn) = self.places.entry(tag).or_default();
            let begun = *place / length;
            *place += run.len() as u64;
            *torn &= *place / length == begun;
        }
    }

    /// Another writer's bytes come after those of `tag`.
    fn leave(&mut self, tag: u8) {
        let Some((place, torn)) = self.places.get_mut(&tag) else { return };
        if *place % self.bytes as u64 != 0 && !*torn {
            *torn = true;
            self.torn += 1;
        }
    }

    fn whole(&self) -> u64 {
        self.places.values().map(|(place, _)| place / self.bytes as u64).sum()
    }
}

/// Reads messages; torn is one that is not as it was sent.
fn read_messages(reader: PipeReader, bytes: usize) -> Result<(u64, u64), Failure> {
    let mut reader = MessageReader::new(reader);
    let (mut message, mut arrived, mut torn) = (Vec::new(), 0, 0);
    loop {
        match reader.recv_exchange_by(&mut message, Deadline::after(PATIENCE)) {
            Ok(false) => return Ok((arrived, torn)),
            Ok(true) => {
                let is_whole = message.len() == bytes && message.iter().all(|byte| *byte == message[0]);
                arrived += 1;
                torn += u64::from(!is_whole);
            }
            Err(Error::Corrupt { .. } | Error::PeerGone { .. }) => torn += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The writers of one load. Dropping them ends them.
struct Crew(Vec<Child>);

impl Crew {
    /// Starts them, and lets them all write when the last one is there.
    fn start(load: &Load, bytes: usize, pipe: OwnedFd) -> Result<Self, Failure> {
        let (gate, opener) = pipe::pair()?;
        let mut crew = Self(Vec::new());
        for tag in 1..=load.writers as u8 {
            let role = Role { mode: load.mode, tag, bytes, messages: load.messages };
            let child = again::command()
                .map_err(failed)?
                .args(["pipe-safety", "--writer-role", &role.to_argument()])
                .stdin(Stdio::from(gate.as_fd().try_clone_to_owned().map_err(failed)?))
                .stdout(Stdio::from(pipe.try_clone().map_err(failed)?))
                .stderr(Stdio::piped())
                .spawn()
                .map_err(failed)?;
            crew.0.push(child);
        }
        drop(opener);
        Ok(crew)
    }

    /// What they have counted, when they are through.
    fn end(&mut self) -> Result<Counts, Failure> {
        let mut sum = Counts::default();
        for mut child in self.0.drain(..) {
            let mut told = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut told).map_err(failed)?;
            }
            let status = child.wait().map_err(failed)?;
            let counts = Counts::parse(&told).filter(|_| status.success());
            let counts = counts.ok_or_else(|| Failure::failed(format!("a writer has failed: {}", told.trim())))?;
            sum.writes += counts.writes;
            sum.eagain += counts.eagain;
            sum.partial_writes += counts.partial_writes;
        }
        Ok(sum)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn failed(error: impl Into<std::io::Error>) -> Failure {
    Failure::failed(format!("cannot start a writer: {}", plain(&error.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torn(bytes: usize, stream: &[u8]) -> (u64, u64) {
        let mut tear = Tear { bytes, places: BTreeMap::new(), last: None, torn: 0 };
        for byte in stream {
            tear.add(&[*byte]);
        }
        (tear.whole(), tear.torn)
    }

    #[test]
    fn a_message_with_others_bytes_in_the_middle_is_torn_once() {
        assert_eq!(torn(3, b"aaabbbaaabbb"), (4, 0));
        assert_eq!(torn(3, b"aaaaaabbb"), (3, 0));
        assert_eq!(torn(3, b"aabbba"), (2, 1));
        assert_eq!(torn(3, b"abababb"), (2, 2));
        assert_eq!(torn(3, b"aabaaaabb"), (3, 2), "the second of a is whole");
        assert_eq!(torn(3, b"aaab"), (1, 0));
    }

    #[test]
    fn reads_of_any_length_see_the_same() {
        let stream = b"aabbbacccaaabacbcbaacb";
        for length in 1..stream.len() {
            let mut tear = Tear { bytes: 3, places: BTreeMap::new(), last: None, torn: 0 };
            stream.chunks(length).for_each(|chunk| tear.add(chunk));
            assert_eq!((tear.whole(), tear.torn), torn(3, stream), "{length}");
        }
    }
}
