//! The writing side.

use std::io::IoSlice;

use zerocopy::{FromZeros as _, IntoBytes as _};

use super::frame::{Frame, HEADER_BYTES, Header, PAYLOAD_BYTES, Place, checksum};
use super::{PIPE_BUF, PipeWriter};
use crate::process::Origin;
use crate::stream::ByteWriter;
use crate::sys::random;
use crate::{Deadline, Error, Result, Sender, tally};

/// A rest above this is given back to the allocator once it was written.
const KEPT_REST_BYTES: usize = 1 << 20;
/// The most frames of a page that one call writes. Measured: with more of them reader and writer on a core each wait longer for one
/// another, with less of them those that share a core change places more often.
const PAGES_AT_ONCE: usize = 4;

/// Writes messages of any size into a pipe or a FIFO that any number of processes write to.
///
/// A message goes in frames of at most [`PIPE_BUF`](super::PIPE_BUF) bytes, which the kernel never tears. A frame names its writer
/// and its place in its message, so that frames of several writers may come in any order and
/// [`MessageReader`](super::MessageReader) still puts each message together. There is no lock: no writer waits for another
/// one, and one that is killed stands in nobody's way.
///
/// A frame is a write of its own, which pipe(7) promises to keep whole. Of a long message a few frames of exactly a page share a
/// write: Linux puts each into a page of the pipe, and others' bytes come before or behind it, though POSIX does not promise that.
/// The kernel is asked once, with a pipe that nobody else has; where it does otherwise, and on streams that do not say that they
/// [keep pages whole](ByteWriter::keeps_pages_whole), every frame is a write.
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
    /// How many frames of a page one call may write.
    pages_at_once: usize,
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
            pages_at_once: if stream.keeps_pages_whole() { PAGES_AT_ONCE } else { 1 },
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

    /// Writes `part` in frames, and counts in `sent` what went.
    fn write_part(&mut self, part: &[u8], last: bool, sent: &mut usize, deadline: Deadline) -> Result<()> {
        let total = (last && self.state == State::Idle).then_some(part.len() as u64);
        loop {
            let rest = &part[*sent..];
            let full = (rest.len() / PAYLOAD_BYTES).min(self.pages_at_once);
            if full > 1 {
                *sent += self.write_pages(rest, full, total, last, deadline)?;
            } else {
                let payload = &rest[..rest.len().min(PAYLOAD_BYTES)];
                self.write_frame(payload, total, last && payload.len() == rest.len(), deadline)?;
                *sent += payload.len();
            }
            if *sent == part.len() {
                return Ok(());
            }
        }
    }

    /// Writes one frame, all of it or nothing.
    fn write_frame(&mut self, payload: &[u8], total: Option<u64>, last: bool, deadline: Deadline) -> Result<()> {
        let header = self.frame(0, payload, total, last).header();
        let slices = [IoSlice::new(header.as_bytes()), IoSlice::new(payload)];
        let written = self.stream.write_vectored_by(&slices, deadline)?;
        if written != HEADER_BYTES + payload.len() {
            return Err(self.torn(written, HEADER_BYTES + payload.len()));
        }
        self.advance(payload.len(), last);
        Ok(())
    }

    /// Writes the first of `full` frames of `rest`, each as long as a page, by one call: as many as there is room for. Returns how
    /// much of `rest` went.
    fn write_pages(
        &mut self,
        rest: &[u8],
        full: usize,
        total: Option<u64>,
        last: bool,
        deadline: Deadline,
    ) -> Result<usize> {
        let mut headers = [Header::new_zeroed(); PAGES_AT_ONCE];
        let mut slices = [IoSlice::new(&[]); 2 * PAGES_AT_ONCE];
        for (index, (header, payload)) in headers[..full].iter_mut().zip(rest.chunks(PAYLOAD_BYTES)).enumerate() {
            let ends = last && (index + 1) * PAYLOAD_BYTES == rest.len();
            *header = self.frame(index * PAYLOAD_BYTES, payload, total, ends).header();
        }
        for ((pair, header), payload) in slices.chunks_mut(2).zip(&headers).zip(rest.chunks(PAYLOAD_BYTES)) {
            pair.copy_from_slice(&[IoSlice::new(header.as_bytes()), IoSlice::new(payload)]);
        }
        let written = self.stream.write_vectored_by(&slices[..2 * full], deadline)?;
        if written == 0 || written % PIPE_BUF != 0 {
            return Err(self.torn(written, full * PIPE_BUF));
        }
        let payload_bytes = written / PIPE_BUF * PAYLOAD_BYTES;
        self.advance(payload_bytes, last && payload_bytes == rest.len());
        Ok(payload_bytes)
    }

    /// The frame of `payload`, which begins `ahead` bytes behind what was written.
    fn frame(&self, ahead: usize, payload: &[u8], total: Option<u64>, last: bool) -> Frame {
        let place = match (self.state, ahead) {
            (State::Open(offset), _) => Place::At(offset + ahead as u64),
            (State::Idle | State::Lost, 0) => Place::First { total },
            (State::Idle | State::Lost, _) => Place::At(ahead as u64),
        };
        Frame {
            writer: self.writer,
            origin: self.origin,
            number: self.number,
            place,
            last,
            payload_bytes: payload.len(),
            payload_check: checksum(payload),
        }
    }

    /// The next `payload_bytes` of the message were written; `last` says that they end it.
    fn advance(&mut self, payload_bytes: usize, last: bool) {
        let offset = if let State::Open(offset) = self.state { offset } else { 0 };
        self.state = if last { State::Idle } else { State::Open(offset + payload_bytes as u64) };
        self.number += u64::from(last);
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

    /// A stream that takes some pages of a write, and is full in between.
    struct Pages {
        frames: std::rc::Rc<std::cell::RefCell<Vec<Vec<u8>>>>,
        takes: Vec<usize>,
    }

    impl ByteWriter for Pages {
        fn write_vectored_by(&mut self, buffers: &[IoSlice<'_>], _: Deadline) -> Result<usize> {
            let takes = self.takes.pop().unwrap_or(usize::MAX);
            if takes == 0 {
                return Err(Error::WouldBlock { operation: "send", object: "pages".into() });
            }
            let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
            let taken = bytes.len().min(takes);
            self.frames.borrow_mut().extend(bytes[..taken].chunks(PIPE_BUF).map(<[u8]>::to_vec));
            Ok(taken)
        }

        fn keeps_pages_whole(&self) -> bool {
            true
        }

        fn object(&self) -> &str {
            "pages"
        }
    }

    #[test]
    fn pages_that_did_not_go_with_the_others_go_next_and_the_frames_are_the_same() {
        let message: Vec<u8> = (0..10 * PAYLOAD_BYTES + 77).map(|at| (at * 7 + at / 251) as u8).collect();
        for takes in [vec![], vec![PIPE_BUF, 2 * PIPE_BUF], vec![0, PIPE_BUF, 0, 3 * PIPE_BUF, 0, PIPE_BUF]] {
            let frames = std::rc::Rc::default();
            let mut writer = MessageWriter::new(Pages { frames: std::rc::Rc::clone(&frames), takes });
            for message in [&message[..], &message[..3 * PAYLOAD_BYTES]] {
                writer.send_by(message, Deadline::Now).unwrap();
                while writer.flush_by(Deadline::Now).is_err() {}
                let mut got = Vec::new();
                let frames = std::mem::take(&mut *frames.borrow_mut());
                for (index, bytes) in frames.iter().enumerate() {
                    let frame = Frame::parse(&bytes[..HEADER_BYTES]).unwrap();
                    assert!(frame.fits(&bytes[HEADER_BYTES..]) && frame.offset() == got.len() as u64, "{frame:?}");
                    assert_eq!(frame.last, index + 1 == frames.len());
                    assert_eq!(frame.number + 1, writer.number);
                    got.extend_from_slice(&bytes[HEADER_BYTES..]);
                }
                assert!(got == message);
            }
        }
    }

    #[test]
    fn a_stream_that_takes_a_part_of_a_page_is_refused() {
        let pages = Pages { frames: std::rc::Rc::default(), takes: vec![PIPE_BUF + 100] };
        let error = MessageWriter::new(pages).send(&[0; 3 * PAYLOAD_BYTES]).unwrap_err();
        assert!(matches!(error, Error::PartialWrite { written_bytes: 4196, total_bytes: 12_288, .. }), "{error}");
    }
}
