//! The writing side.

use std::io::IoSlice;

use zerocopy::IntoBytes as _;

use super::PipeWriter;
use super::frame::{Frame, HEADER_BYTES, PAYLOAD_BYTES, Place, checksum};
use crate::process::Origin;
use crate::stream::ByteWriter;
use crate::sys::random;
use crate::{Deadline, Error, Result, Sender, tally};

/// A rest above this is given back to the allocator once it was written.
const KEPT_REST_BYTES: usize = 1 << 20;

/// Writes messages of any size into a pipe or a FIFO that any number of processes write to.
///
/// A message goes in frames, each of them one write of at most [`PIPE_BUF`](super::PIPE_BUF) bytes, which the kernel never
/// tears. A frame names its writer and its place in its message, so that frames of several writers may come in any order and
/// [`MessageReader`](super::MessageReader) still puts each message together. There is no lock: no writer waits for another
/// one, and one that is killed stands in nobody's way.
///
/// The pipe may become full in the middle of a message. From its first frame on a message is accepted: the rest is kept here,
/// [`Sender::send_by`] returns success, and the rest goes before the next message or in [`Sender::flush_by`]. So a call that
/// fails for want of time has written nothing and can be repeated, and no byte is lost or written twice. Who sends with a
/// deadline calls `flush_by` before dropping the writer.
///
/// After a fork(2) the child is a writer of its own with the next message; what the parent had begun stays the parent's.
///
/// ```
/// use onecopy::stream::pipe::{self, MessageReader, MessageWriter};
/// use onecopy::{Receiver, Sender};
///
/// let (reader, writer) = pipe::pair()?;
/// let mut one = MessageWriter::new(writer.try_clone()?);
/// let mut other = MessageWriter::new(writer);
/// let mut reader = MessageReader::new(reader);
/// one.send_part_by(b"two ", false, onecopy::Deadline::Never)?;
/// other.send(b"between")?;
/// one.send_part_by(b"parts", true, onecopy::Deadline::Never)?;
/// assert_eq!(reader.recv()?.as_deref(), Some(&b"between"[..]));
/// assert_eq!(reader.recv()?.as_deref(), Some(&b"two parts"[..]));
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct MessageWriter<W = PipeWriter> {
    stream: W,
    writer: u64,
    origin: Origin,
    /// The process that this writer belongs to: after a fork it is another one.
    pid: u32,
    /// The number of the next message.
    number: u64,
    state: State,
    /// A part that was accepted, of which the first `written` bytes went.
    pending: Vec<u8>,
    written: usize,
    pending_last: bool,
}

/// How far the current message has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none.
    Idle,
    /// This many bytes of it were written, and more parts come.
    Open(u64),
    /// It was lost in the middle; parts of it that come are refused.
    Lost,
}

impl<W: ByteWriter> MessageWriter<W> {
    /// Messages into `stream`, the write end of a pipe or a FIFO. Another stream that takes [`PIPE_BUF`](super::PIPE_BUF)
    /// bytes whole or not at all does as well.
    pub fn new(stream: W) -> Self {
        let (writer, origin) = identity();
        Self {
            stream,
            writer,
            origin,
            pid: std::process::id(),
            number: 0,
            state: State::Idle,
            pending: Vec::new(),
            written: 0,
            pending_last: false,
        }
    }

    /// Sends a part of a message; `last` ends it. The reader joins the parts: that is how a message of unknown length is sent
    /// in bounded memory.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; [`Error::PeerGone`] for a part of a message of which an earlier part was lost.
    pub fn send_part_by(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()> {
        self.flush_by(deadline)?;
        if self.state == State::Lost {
            self.state = if last { State::Idle } else { State::Lost };
            return Err(self.lost(
                "an earlier part of this message was not written, or belongs to the process that forked this one",
            ));
        }
        if part.is_empty() && !last {
            return Ok(());
        }
        let before = self.state;
        let mut sent = 0;
        match self.write_part(part, last, &mut sent, deadline) {
            Ok(()) => Ok(()),
            Err(error) if error.is_out_of_time() && self.state == before => Err(error),
            Err(error) if error.is_out_of_time() => {
                self.keep_rest(&part[sent..], last);
                Ok(())
            }
            Err(error) => {
                self.give_up(last);
                Err(error)
            }
        }
    }

    /// How many bytes were accepted and wait for room in the pipe.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len() - self.written
    }

    /// The pipe. What was accepted and not yet written is lost: flush first.
    pub fn into_inner(self) -> W {
        self.stream
    }

    /// The pipe, to ask it things.
    pub fn get_ref(&self) -> &W {
        &self.stream
    }

    /// Writes `part` frame by frame, and counts in `sent` what went.
    fn write_part(&mut self, part: &[u8], last: bool, sent: &mut usize, deadline: Deadline) -> Result<()> {
        loop {
            let rest = &part[*sent..];
            let payload = &rest[..rest.len().min(PAYLOAD_BYTES)];
            let ends = payload.len() == rest.len();
            let total = (last && self.state == State::Idle).then_some(part.len() as u64);
            self.write_frame(payload, total, last && ends, deadline)?;
            *sent += payload.len();
            if ends {
                return Ok(());
            }
        }
    }

    /// Writes one frame, all of it or nothing.
    fn write_frame(&mut self, payload: &[u8], total: Option<u64>, last: bool, deadline: Deadline) -> Result<()> {
        let (place, offset) = match self.state {
            State::Open(offset) => (Place::At(offset), offset),
            State::Idle | State::Lost => (Place::First { total }, 0),
        };
        let frame = Frame {
            writer: self.writer,
            origin: self.origin,
            number: self.number,
            place,
            last,
            payload_bytes: payload.len(),
            payload_check: checksum(payload),
        };
        let header = frame.header();
        let slices = [IoSlice::new(header.as_bytes()), IoSlice::new(payload)];
        let written = self.stream.write_vectored_by(&slices, deadline)?;
        if written != HEADER_BYTES + payload.len() {
            return Err(self.torn(written, HEADER_BYTES + payload.len()));
        }
        self.state = if last { State::Idle } else { State::Open(offset + payload.len() as u64) };
        self.number += u64::from(last);
        Ok(())
    }

    fn keep_rest(&mut self, rest: &[u8], last: bool) {
        self.pending.clear();
        self.written = 0;
        self.pending_last = last;
        tally::append(&mut self.pending, rest);
    }

    /// The pipe failed. A message of which some frames went will not be completed, and the next one has another number.
    fn give_up(&mut self, last: bool) {
        if self.state != State::Idle {
            self.number += 1;
        }
        self.state = if last { State::Idle } else { State::Lost };
    }

    /// In a child made by fork(2), begins anew: what the parent has begun is the parent's to finish.
    fn notice_fork(&mut self) {
        let pid = std::process::id();
        if pid == self.pid {
            return;
        }
        let unfinished = matches!(self.state, State::Open(_)) && (self.pending_bytes() == 0 || !self.pending_last);
        self.state = if unfinished || self.state == State::Lost { State::Lost } else { State::Idle };
        self.pending.clear();
        self.written = 0;
        self.number = 0;
        self.pid = pid;
        (self.writer, self.origin) = identity();
    }

    fn lost(&self, detail: &str) -> Error {
        Error::PeerGone { object: self.stream.object().into(), detail: detail.into() }
    }

    fn torn(&self, written_bytes: usize, total_bytes: usize) -> Error {
        let reason = "it takes a part of a frame, so it is no pipe: stream::framed puts messages over other streams";
        let source = Error::Invalid { object: self.stream.object().into(), reason: reason.into() };
        Error::PartialWrite { written_bytes, total_bytes, source: Box::new(source) }
    }
}

/// The number of a new writer, and the process that it belongs to.
fn identity() -> (u64, Origin) {
    (random::number(), Origin::current().unwrap_or(Origin::UNKNOWN))
}

impl<W: ByteWriter> Sender for MessageWriter<W> {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.send_part_by(message, true, deadline)
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        self.notice_fork();
        if self.pending_bytes() == 0 {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let (last, mut sent) = (self.pending_last, self.written);
        let result = self.write_part(&pending, last, &mut sent, deadline);
        self.pending = pending;
        self.written = sent;
        if let Err(error) = result {
            if !error.is_out_of_time() {
                self.written = self.pending.len();
                self.give_up(last);
            }
            return Err(error);
        }
        self.pending.clear();
        self.written = 0;
        if self.pending.capacity() > KEPT_REST_BYTES {
            self.pending = Vec::new();
        }
        Ok(())
    }

    fn object(&self) -> &str {
        self.stream.object()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Receiver as _;
    use crate::stream::pipe::{self, MessageReader};

    /// A child made by fork(2) has the parent's memory and another pid: here another pid is put into the memory.
    #[test]
    fn after_a_fork_a_writer_is_another_one_and_leaves_the_parents_message_alone() {
        let (reader, writer) = pipe::pair().unwrap();
        let mut parent = MessageWriter::new(writer.try_clone().unwrap());
        parent.send(b"before").unwrap();
        parent.send_part_by(b"begun ", false, Deadline::Never).unwrap();
        let mut child = MessageWriter { writer: parent.writer, state: parent.state, ..MessageWriter::new(writer) };
        child.pid = 0;
        let error = child.send_part_by(b"by both", true, Deadline::Never).unwrap_err();
        assert!(error.is_peer_gone() && error.to_string().contains("forked"), "{error}");
        child.send(b"the child's").unwrap();
        assert_eq!((child.pid, child.number), (std::process::id(), 1));
        let mut reader = MessageReader::new(reader);
        assert_eq!(reader.recv().unwrap().as_deref(), Some(&b"before"[..]));
        assert_eq!(reader.recv().unwrap().as_deref(), Some(&b"the child's"[..]));
        drop((child, parent));
        let error = reader.recv().unwrap_err();
        assert!(error.is_peer_gone() && error.to_string().contains("message 1 of process"), "{error}");
    }

    #[test]
    fn a_reader_that_went_in_the_middle_of_a_message_loses_that_one_and_no_other() {
        let (reader, writer) = pipe::pair().unwrap();
        let mut writer = MessageWriter::new(writer);
        writer.send_part_by(&[1; 5000], false, Deadline::Never).unwrap();
        drop(reader);
        assert_eq!(
            writer.send_part_by(&[1; 10], false, Deadline::Never).unwrap_err().raw_os_error(),
            Some(libc::EPIPE)
        );
        assert!(writer.send_part_by(&[1; 10], false, Deadline::Never).unwrap_err().is_peer_gone());
        assert!(
            writer.send_part_by(&[1; 10], true, Deadline::Never).unwrap_err().is_peer_gone(),
            "the last of its parts"
        );
        assert_eq!((writer.state, writer.number), (State::Idle, 1));
    }

    #[test]
    fn a_stream_that_takes_a_part_of_a_frame_is_refused() {
        struct Narrow;
        impl ByteWriter for Narrow {
            fn write_vectored_by(&mut self, _: &[IoSlice<'_>], _: Deadline) -> Result<usize> {
                Ok(100)
            }
            fn object(&self) -> &str {
                "narrow"
            }
        }
        let error = MessageWriter::new(Narrow).send(&[0; 100]).unwrap_err();
        assert!(matches!(error, Error::PartialWrite { written_bytes: 100, total_bytes: 164, .. }), "{error}");
    }
}
