//! Messages with boundaries over any byte stream.
//!
//! A message travels as one or more frames: a header of [`HEADER_BYTES`] bytes, then the payload. The header holds, in
//! little-endian order, the magic number `0x6331` (u16), the version 1 (u8), flags (u8: bit 0 says that the message goes
//! on in the next frame) and the length of the payload (u32, at most [`MAX_FRAME_BYTES`]).
//!
//! One writer at a time: on a pipe with several writers frames could be torn, as
//! [pipe(7)](https://man7.org/linux/man-pages/man7/pipe.7.html) explains.

use std::io::{IoSlice, IoSliceMut};

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ByteReader, ByteWriter};
use crate::{Deadline, Error, Receiver, Result, Sender};

/// The length of a frame's header.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// The longest payload of one frame; a longer message is sent in parts.
pub const MAX_FRAME_BYTES: usize = 1 << 30;
/// The longest message that [`FramedReceiver`] takes unless [`FramedReceiver::set_limit_bytes`] says otherwise.
pub const DEFAULT_LIMIT_BYTES: usize = 1 << 30;

const MAGIC: u16 = 0x6331;
const VERSION: u8 = 1;
const MORE: u8 = 1;
/// How much is read ahead, so that small messages share a system call. Measured with 64-byte messages over a pipe: the
/// default capacity of a pipe and the usual limit of a socket's segment are no larger.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// From this length of the last message on, the next one is read straight into the caller's buffer together with its header:
/// below, one read that brings many messages is worth more than the copy that it costs.
const STRAIGHT_BYTES: usize = 2048;
/// A stash above this is given back to the allocator once its message was delivered.
const KEPT_STASH_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: U16,
    version: u8,
    flags: u8,
    payload_bytes: U32,
}

const _: () = assert!(size_of::<Header>() == 8);

impl Header {
    fn new(payload: &[u8], last: bool) -> Self {
        debug_assert!(payload.len() <= MAX_FRAME_BYTES);
        Self {
            magic: U16::new(MAGIC),
            version: VERSION,
            flags: if last { 0 } else { MORE },
            payload_bytes: U32::new(payload.len() as u32),
        }
    }
}

/// Sends messages over a byte stream.
///
/// A byte stream may take a part of a message and then be full. From its first byte on a message is accepted: the rest is
/// kept here, [`Sender::send_by`] returns success, and the rest goes before the next message or in [`Sender::flush_by`]. So a
/// call that fails for want of time has sent nothing, and no message is ever cut in two. Who sends with a deadline calls
/// `flush_by` before dropping the sender; a receiver reports a message whose end never came.
///
/// A sender whose stream failed in the middle of a message refuses further messages with the same kind of error.
#[derive(Debug)]
pub struct FramedSender<W> {
    stream: W,
    /// Frames, or the end of one, that were accepted and not yet written.
    pending: Vec<u8>,
    written: usize,
    /// A frame was torn by an error of the stream: what follows could not be told apart from its payload.
    torn: bool,
}

impl<W: ByteWriter> FramedSender<W> {
    /// Messages over `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream, pending: Vec::new(), written: 0, torn: false }
    }

    /// Sends a part of a message, as a frame of its own; `last` ends the message. The other side joins the parts: that is
    /// how a message of unknown length is sent in bounded memory.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; [`Error::TooLong`] for a part beyond [`MAX_FRAME_BYTES`].
    pub fn send_part_by(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()> {
        if part.len() > MAX_FRAME_BYTES {
            return Err(Error::TooLong {
                object: self.stream.object().into(),
                message_bytes: part.len(),
                limit_bytes: MAX_FRAME_BYTES,
                remedy: Some("send it in several parts".into()),
            });
        }
        self.flush_by(deadline)?;
        let header = Header::new(part, last);
        let total = HEADER_BYTES + part.len();
        let mut sent = 0;
        while sent < total {
            match self.write_rest(header.as_bytes(), part, sent, deadline) {
                Ok(count) => sent += count,
                Err(error) if sent == 0 => return Err(error),
                Err(error) if error.is_out_of_time() => {
                    self.keep_rest(header.as_bytes(), part, sent);
                    return Ok(());
                }
                Err(error) => {
                    self.torn = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The stream. Bytes that were accepted and not yet written are lost: flush first.
    pub fn into_inner(self) -> W {
        self.stream
    }

    /// The stream, to ask it things; writing to it would tear frames.
    pub fn get_ref(&self) -> &W {
        &self.stream
    }

    fn write_rest(&mut self, header: &[u8], part: &[u8], sent: usize, deadline: Deadline) -> Result<usize> {
        match header.get(sent..) {
            Some(rest) if !rest.is_empty() => {
                self.stream.write_vectored_by(&[IoSlice::new(rest), IoSlice::new(part)], deadline)
            }
            _ => self.stream.write_by(&part[sent - header.len()..], deadline),
        }
    }

    fn keep_rest(&mut self, header: &[u8], part: &[u8], sent: usize) {
        self.pending.clear();
        self.written = 0;
        self.pending.extend_from_slice(header.get(sent..).unwrap_or_default());
        self.pending.extend_from_slice(&part[sent.saturating_sub(header.len())..]);
    }
}

impl<W: ByteWriter> Sender for FramedSender<W> {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.send_part_by(message, true, deadline)
    }

    fn limit_bytes(&self) -> Option<usize> {
        Some(MAX_FRAME_BYTES)
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        if self.torn {
            return Err(Error::PeerGone {
                object: self.stream.object().into(),
                detail: "an earlier message was cut in the middle".into(),
            });
        }
        while self.written < self.pending.len() {
            match self.stream.write_by(&self.pending[self.written..], deadline) {
                Ok(count) => self.written += count,
                Err(error) => {
                    self.torn = !error.is_out_of_time();
                    return Err(error);
                }
            }
        }
        self.pending.clear();
        self.written = 0;
        if self.pending.capacity() > KEPT_STASH_BYTES {
            self.pending = Vec::new();
        }
        Ok(())
    }

    fn object(&self) -> &str {
        self.stream.object()
    }
}

/// A part of a message, as [`FramedReceiver::recv_part_by`] delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// How many bytes came into the buffer.
    pub bytes: usize,
    /// Whether the message ends with them.
    pub last: bool,
}

/// Receives messages from a byte stream.
///
/// Reads ahead, so that several small messages come with one system call; a long message goes straight from the kernel
/// into the caller's buffer.
#[derive(Debug)]
pub struct FramedReceiver<R> {
    stream: R,
    ahead: Vec<u8>,
    ahead_start: usize,
    ahead_end: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Whether a part of the current message was already taken from its frames.
    inside: bool,
    /// The begin of a message that did not fit the caller's buffer or whose end did not come in time.
    stash: Vec<u8>,
    stash_complete: bool,
    limit_bytes: usize,
    /// The payload bytes of the current message so far, to be thrown away because they exceed the limit.
    discarding: Option<usize>,
    /// The length of the latest frame: a guess at the next one's.
    expected: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    left: usize,
    last: bool,
}

impl<R: ByteReader> FramedReceiver<R> {
    /// Messages from `stream`.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            ahead: vec![0; READ_AHEAD_BYTES],
            ahead_start: 0,
            ahead_end: 0,
            frame: None,
            inside: false,
            stash: Vec::new(),
            stash_complete: false,
            limit_bytes: DEFAULT_LIMIT_BYTES,
            discarding: None,
            expected: 0,
        }
    }

    /// Sets the longest message that is taken. A longer one is [`Error::TooLong`], and the one after it is received.
    pub fn set_limit_bytes(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// Receives the next part of a message: as much of it as is there and fits `buffer`, waiting until `deadline` for some. `None`
    /// is the end. The limit of [`FramedReceiver::set_limit_bytes`] does not bind here, since nothing is collected.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`], without [`Error::BufferTooSmall`].
    ///
    /// # Panics
    ///
    /// When `buffer` is empty: no progress would be possible.
    pub fn recv_part_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>> {
        assert!(!buffer.is_empty(), "a part needs room for at least one byte");
        let Some(frame) = self.next_frame(deadline)? else { return Ok(None) };
        let room = frame.left.min(buffer.len());
        let bytes = if room == 0 { 0 } else { self.read_payload(&mut buffer[..room], deadline)? };
        let left = frame.left - bytes;
        let last = left == 0 && frame.last;
        self.frame = (left > 0).then_some(Frame { left, ..frame });
        self.inside = !last;
        Ok(Some(Part { bytes, last }))
    }

    /// The stream. Bytes that were read ahead are lost.
    pub fn into_inner(self) -> R {
        self.stream
    }

    /// The stream, to ask it things; reading from it would tear frames.
    pub fn get_ref(&self) -> &R {
        &self.stream
    }

    /// The frame that is being read, or the next one.
    fn next_frame(&mut self, deadline: Deadline) -> Result<Option<Frame>> {
        if let Some(frame) = self.frame {
            return Ok(Some(frame));
        }
        while self.ahead_end - self.ahead_start < HEADER_BYTES {
            if !self.read_ahead(deadline)? {
                let cut = self.inside || self.ahead_end > self.ahead_start;
                return if cut { Err(self.cut_off("in the middle of a message")) } else { Ok(None) };
            }
        }
        let (header, _) = Header::read_from_prefix(&self.ahead[self.ahead_start..self.ahead_end])
            .map_err(|_| self.cut_off("in the middle of a header"))?;
        let frame = self.check(header)?;
        self.ahead_start += HEADER_BYTES;
        self.expected = frame.left;
        self.frame = Some(frame);
        Ok(Some(frame))
    }

    /// Where the next message is likely to be as long as the last one: reads its header and that much of it with one call, the
    /// payload straight into `buffer`, and returns how much of it is there. What came too much is read ahead.
    fn read_straight(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        let expected = self.expected.min(buffer.len()).min(self.limit_bytes);
        if expected < STRAIGHT_BYTES || self.frame.is_some() || self.ahead_end > self.ahead_start {
            return Ok(0);
        }
        let mut header = [0; HEADER_BYTES];
        let mut buffers =
            [IoSliceMut::new(&mut header), IoSliceMut::new(&mut buffer[..expected]), IoSliceMut::new(&mut self.ahead)];
        let count = self.stream.read_vectored_by(&mut buffers, deadline)?;
        let payload = count.saturating_sub(HEADER_BYTES).min(expected);
        self.ahead_start = 0;
        self.ahead_end = count.saturating_sub(HEADER_BYTES + expected);
        let Some(frame) =
            Header::read_from_bytes(&header[..count.min(HEADER_BYTES)]).ok().and_then(|h| self.check(h).ok())
        else {
            // The end, less than a header, or none at all: `next_frame` says so.
            self.put_back(&buffer[..payload]);
            self.put_back(&header[..count.min(HEADER_BYTES)]);
            return Ok(0);
        };
        let filled = payload.min(frame.left);
        self.put_back(&buffer[filled..payload]);
        self.expected = frame.left;
        let left = frame.left - filled;
        let last = left == 0 && frame.last;
        self.frame = (left > 0 || filled == 0).then_some(Frame { left, ..frame });
        self.inside = filled > 0 && !last;
        Ok(filled)
    }

    /// Puts bytes before those that were read ahead, where nothing was taken from yet.
    fn put_back(&mut self, bytes: &[u8]) {
        let end = self.ahead_end + bytes.len();
        if end > self.ahead.len() {
            self.ahead.resize(end, 0);
        }
        self.ahead.copy_within(..self.ahead_end, bytes.len());
        self.ahead[..bytes.len()].copy_from_slice(bytes);
        self.ahead_end = end;
    }

    fn check(&self, header: Header) -> Result<Frame> {
        let left = header.payload_bytes.get() as usize;
        if header.magic.get() == MAGIC
            && header.version == VERSION
            && header.flags & !MORE == 0
            && left <= MAX_FRAME_BYTES
        {
            return Ok(Frame { left, last: header.flags & MORE == 0 });
        }
        Err(Error::Corrupt {
            object: self.stream.object().into(),
            detail: format!("{:02x?} is no header of a frame; is the writer sending raw bytes?", header.as_bytes()),
        })
    }

    /// Fills the read-ahead buffer; false is the end of file.
    fn read_ahead(&mut self, deadline: Deadline) -> Result<bool> {
        self.ahead.copy_within(self.ahead_start..self.ahead_end, 0);
        self.ahead_end -= self.ahead_start;
        self.ahead_start = 0;
        let count = self.stream.read_by(&mut self.ahead[self.ahead_end..], deadline)?;
        self.ahead_end += count;
        Ok(count > 0)
    }

    /// Reads at least one byte of payload: what was read ahead, else straight from the stream, reading ahead what follows.
    fn read_payload(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        let buffered = &self.ahead[self.ahead_start..self.ahead_end];
        if !buffered.is_empty() {
            let count = buffered.len().min(buffer.len());
            buffer[..count].copy_from_slice(&buffered[..count]);
            self.ahead_start += count;
            return Ok(count);
        }
        let room = buffer.len();
        let mut buffers = [IoSliceMut::new(buffer), IoSliceMut::new(&mut self.ahead)];
        let count = self.stream.read_vectored_by(&mut buffers, deadline)?;
        if count == 0 {
            return Err(self.cut_off("in the middle of a message"));
        }
        self.ahead_start = 0;
        self.ahead_end = count.saturating_sub(room);
        Ok(count.min(room))
    }

    fn cut_off(&self, place: &str) -> Error {
        let missing = self.frame.map_or(String::new(), |frame| format!(", {} bytes of its frame missing", frame.left));
        Error::PeerGone { object: self.stream.object().into(), detail: format!("it ended {place}{missing}") }
    }

    /// Collects the rest of the current message here, up to the limit.
    fn complete_stash(&mut self, deadline: Deadline) -> Result<()> {
        while !self.stash_complete {
            let Some(frame) = self.next_frame(deadline)? else {
                return Err(self.cut_off("in the middle of a message"));
            };
            if self.stash.len() + frame.left > self.limit_bytes {
                return self.discard(deadline);
            }
            let start = self.stash.len();
            self.stash.resize(start + frame.left.clamp(1, READ_AHEAD_BYTES), 0);
            let mut stash = std::mem::take(&mut self.stash);
            let part = self.recv_part_by(&mut stash[start..], deadline);
            stash.truncate(start + part.as_ref().ok().copied().flatten().map_or(0, |part| part.bytes));
            self.stash = stash;
            self.stash_complete = part?.is_some_and(|part| part.last);
        }
        Ok(())
    }

    /// Throws the rest of a message beyond the limit away, then reports it with its length.
    fn discard(&mut self, deadline: Deadline) -> Result<()> {
        let mut total = self.discarding.unwrap_or(self.stash.len());
        self.stash = Vec::new();
        let mut scratch = [0; 16 * 1024];
        loop {
            self.discarding = Some(total);
            match self.recv_part_by(&mut scratch, deadline)? {
                None => return Err(self.cut_off("in the middle of a message")),
                Some(part) => {
                    total += part.bytes;
                    if part.last {
                        break;
                    }
                }
            }
        }
        self.discarding = None;
        Err(Error::TooLong {
            object: self.stream.object().into(),
            message_bytes: total,
            limit_bytes: self.limit_bytes,
            remedy: Some("it was thrown away; set_limit_bytes raises the limit".into()),
        })
    }

    /// Delivers the stashed message, which is complete.
    fn deliver_stash(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let len = self.stash.len();
        let Some(target) = buffer.get_mut(..len) else { return Err(self.too_small(len, buffer.len())) };
        target.copy_from_slice(&self.stash);
        self.stash.clear();
        self.stash_complete = false;
        if self.stash.capacity() > KEPT_STASH_BYTES {
            self.stash = Vec::new();
        }
        Ok(Some(len))
    }

    fn too_small(&self, message_bytes: usize, buffer_bytes: usize) -> Error {
        Error::BufferTooSmall { object: self.stream.object().into(), message_bytes, buffer_bytes }
    }

    /// Receives straight into the caller's buffer; what cannot be finished there goes to the stash.
    fn recv_direct(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let mut filled = self.read_straight(buffer, deadline)?;
        if filled > 0 && !self.inside {
            return Ok(Some(filled));
        }
        loop {
            let Some(frame) =
                self.next_frame(deadline).inspect_err(|_| self.stash.extend_from_slice(&buffer[..filled]))?
            else {
                return Ok(None);
            };
            let fits = filled + frame.left <= buffer.len().min(self.limit_bytes);
            if !fits {
                self.stash.extend_from_slice(&buffer[..filled]);
                let total = filled + frame.left;
                if frame.last && total <= self.limit_bytes {
                    return Err(self.too_small(total, buffer.len()));
                }
                self.inside = true;
                return self.recv_stashed(buffer, deadline);
            }
            let mut nothing = [0];
            let room = &mut buffer[filled..];
            let room = if frame.left == 0 { &mut nothing[..] } else { room };
            match self.recv_part_by(room, deadline) {
                Ok(Some(part)) => filled += part.bytes,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.stash.extend_from_slice(&buffer[..filled]);
                    return Err(error);
                }
            }
            if !self.inside {
                return Ok(Some(filled));
            }
        }
    }

    fn recv_stashed(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.complete_stash(deadline)?;
        self.deliver_stash(buffer)
    }
}

impl<R: ByteReader> Receiver for FramedReceiver<R> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        if self.discarding.is_some() {
            self.discard(deadline)?;
        }
        if self.inside || self.stash_complete {
            return self.recv_stashed(buffer, deadline);
        }
        self.recv_direct(buffer, deadline)
    }

    fn object(&self) -> &str {
        self.stream.object()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::pipe;

    fn over_pipe() -> (FramedSender<pipe::PipeWriter>, FramedReceiver<pipe::PipeReader>) {
        let (reader, writer) = pipe::pair().unwrap();
        (FramedSender::new(writer), FramedReceiver::new(reader))
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index * 7 + index / 251) as u8).collect()
    }

    #[test]
    fn messages_keep_their_boundaries_and_an_empty_one_is_not_the_end() {
        let (mut sender, mut receiver) = over_pipe();
        for message in [&b"first"[..], b"", b"third"] {
            sender.send(message).unwrap();
        }
        drop(sender);
        assert_eq!(receiver.recv().unwrap().unwrap(), b"first");
        assert_eq!(receiver.recv().unwrap().unwrap(), b"");
        assert_eq!(receiver.recv().unwrap().unwrap(), b"third");
        assert_eq!(receiver.recv().unwrap(), None);
    }

    #[test]
    fn a_buffer_that_is_too_small_leaves_the_message_first_in_line() {
        let (mut sender, mut receiver) = over_pipe();
        sender.send(&pattern(300)).unwrap();
        let mut small = [0; 299];
        let error = receiver.recv_into(&mut small).unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message_bytes: 300, buffer_bytes: 299, .. }), "{error}");
        assert_eq!(receiver.recv().unwrap().unwrap(), pattern(300));
    }

    #[test]
    fn a_message_that_the_pipe_takes_in_part_is_accepted_and_flushed_later() {
        let (mut sender, mut receiver) = over_pipe();
        let message = pattern(200_000);
        sender.try_send(&message).unwrap();
        assert!(sender.try_send(b"next").unwrap_err().is_out_of_time());
        let mut buffer = vec![0; message.len()];
        assert!(receiver.try_recv_into(&mut buffer).unwrap_err().is_out_of_time());
        while sender.flush_by(Deadline::Now).is_err() {
            let result = receiver.try_recv_into(&mut buffer);
            assert!(result.is_ok() || result.unwrap_err().is_out_of_time());
        }
        assert_eq!(receiver.recv().unwrap().unwrap(), message);
        sender.try_send(b"next").unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), b"next");
    }

    #[test]
    fn parts_join_to_one_message_even_when_it_outgrows_the_buffer() {
        let (mut sender, mut receiver) = over_pipe();
        for (part, last) in [(&b"one "[..], false), (b"two ", false), (b"", true)] {
            sender.send_part_by(part, last, Deadline::Never).unwrap();
        }
        let mut small = [0; 6];
        let error = receiver.recv_into(&mut small).unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message_bytes: 8, .. }), "{error}");
        assert_eq!(receiver.recv().unwrap().unwrap(), b"one two ");
    }

    #[test]
    fn a_message_beyond_the_limit_is_reported_and_the_next_one_comes() {
        let (mut sender, mut receiver) = over_pipe();
        receiver.set_limit_bytes(100);
        sender.send(&pattern(101)).unwrap();
        sender.send(b"short").unwrap();
        let error = receiver.recv().unwrap_err();
        assert!(matches!(error, Error::TooLong { message_bytes: 101, limit_bytes: 100, .. }), "{error}");
        assert_eq!(receiver.recv().unwrap().unwrap(), b"short");
    }

    #[test]
    fn a_writer_that_goes_in_the_middle_of_a_message_is_an_error() {
        let (mut sender, mut receiver) = over_pipe();
        sender.send_part_by(b"begin", false, Deadline::Never).unwrap();
        drop(sender);
        assert!(receiver.recv().unwrap_err().is_peer_gone());
    }

    #[test]
    fn lengths_that_were_guessed_wrong_lose_and_double_nothing() {
        let (mut sender, mut receiver) = over_pipe();
        let lens = [5000, 5000, 3000, 9000, 0, 5000, 1, 2, 20_000, 4096, 4096, 4097, 2048, 2047, 5000, 5000];
        let mut buffer = vec![0; 9000];
        for window in [1, 2, 3] {
            for chunk in lens.chunks(window) {
                chunk.iter().for_each(|len| sender.send(&pattern(*len)).unwrap());
                for len in chunk {
                    match receiver.recv_into(&mut buffer) {
                        Ok(received) => assert_eq!(buffer[..received.unwrap()], pattern(*len), "of {chunk:?}"),
                        Err(Error::BufferTooSmall { message_bytes: 20_000, .. }) => {
                            assert_eq!(receiver.recv().unwrap().unwrap(), pattern(20_000));
                        }
                        Err(error) => panic!("{error} for {len} of {chunk:?}"),
                    }
                }
            }
        }
        drop(sender);
        assert_eq!(receiver.recv_into(&mut buffer).unwrap(), None);
    }

    #[test]
    fn a_long_message_that_comes_late_is_kept_over_a_deadline() {
        let (mut sender, mut receiver) = over_pipe();
        let mut buffer = vec![0; 8000];
        sender.send(&pattern(6000)).unwrap();
        assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(6000));
        sender.send_part_by(&pattern(6000)[..2500], false, Deadline::Never).unwrap();
        assert!(receiver.try_recv_into(&mut buffer).unwrap_err().is_out_of_time());
        sender.send_part_by(&pattern(6000)[2500..], true, Deadline::Never).unwrap();
        assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(6000));
        assert_eq!(buffer[..6000], pattern(6000));
        receiver.set_limit_bytes(5000);
        sender.send(&pattern(6000)).unwrap();
        sender.send(b"next").unwrap();
        let error = receiver.recv_into(&mut buffer).unwrap_err();
        assert!(matches!(error, Error::TooLong { message_bytes: 6000, limit_bytes: 5000, .. }), "{error}");
        assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(4));
    }

    #[test]
    fn raw_bytes_are_refused_and_shown() {
        let (reader, mut writer) = pipe::pair().unwrap();
        writer.write_all_by(b"GET / HTTP/1.0", Deadline::Never).unwrap();
        let error = FramedReceiver::new(reader).recv().unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}
