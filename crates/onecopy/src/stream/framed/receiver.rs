//! The receiving side.

use std::io::IoSliceMut;

use zerocopy::{FromBytes, IntoBytes};

use super::{HEADER_BYTES, Header, MAGIC, MAX_FRAME_BYTES, MORE, Part, VERSION};
use crate::stash::Stash;
use crate::stream::ByteReader;
use crate::{Deadline, Error, Receiver, Result, tally};

/// The longest message that [`FramedReceiver`] takes unless [`FramedReceiver::set_limit_bytes`] says otherwise.
pub const DEFAULT_LIMIT_BYTES: usize = 1 << 30;
/// How much is read ahead, so that small messages share a system call. Measured with 64-byte messages over a pipe: the
/// default capacity of a pipe and the usual limit of a socket's segment are no larger.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// From this length of the last message on, the next one is read straight into the caller's buffer together with its header:
/// below, one read that brings many messages is worth more than the copy that it costs.
const STRAIGHT_BYTES: usize = 2048;

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
    stash: Stash,
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
            stash: Stash::default(),
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
        if self.discarding.is_some() {
            self.discard(deadline)?;
        }
        match self.stash.deliver_part(buffer) {
            Some(part) => Ok(Some(part)),
            None => self.next_part(buffer, deadline),
        }
    }

    /// The next part from the stream.
    fn next_part(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>> {
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
        let mut buffers = [
            IoSliceMut::new(&mut header),
            IoSliceMut::new(&mut buffer[..expected]),
            IoSliceMut::new(&mut self.ahead[..HEADER_BYTES]),
        ];
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
        tally::count_user(end);
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
        tally::count_user(self.ahead_end);
        let count = self.stream.read_by(&mut self.ahead[self.ahead_end..], deadline)?;
        self.ahead_end += count;
        Ok(count > 0)
    }

    /// Reads at least one byte of payload: what was read ahead, else straight from the stream, reading ahead what follows.
    fn read_payload(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        let buffered = &self.ahead[self.ahead_start..self.ahead_end];
        if !buffered.is_empty() {
            let count = buffered.len().min(buffer.len());
            tally::copy(&mut buffer[..count], &buffered[..count]);
            self.ahead_start += count;
            return Ok(count);
        }
        let room = buffer.len();
        // Of a stream of long messages only the next header: what comes behind it would be copied twice.
        let ahead = if self.expected < STRAIGHT_BYTES { READ_AHEAD_BYTES } else { HEADER_BYTES };
        let mut buffers = [IoSliceMut::new(buffer), IoSliceMut::new(&mut self.ahead[..ahead])];
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
        while !self.stash.is_complete() {
            let Some(frame) = self.next_frame(deadline)? else {
                return Err(self.cut_off("in the middle of a message"));
            };
            if self.stash.len() + frame.left > self.limit_bytes {
                return self.discard(deadline);
            }
            let mut stash = std::mem::take(&mut self.stash);
            let room = frame.left.clamp(1, READ_AHEAD_BYTES);
            let part =
                stash.push_from(room, |room| self.next_part(room, deadline), |part| part.map_or(0, |part| part.bytes));
            self.stash = stash;
            match part? {
                Some(Part { last: true, .. }) => self.stash.end(),
                Some(Part { bytes: 0, .. }) => self.check_time(deadline)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Throws the rest of a message beyond the limit away, then reports it with its length.
    fn discard(&mut self, deadline: Deadline) -> Result<()> {
        let mut total = self.discarding.unwrap_or(self.stash.len());
        self.stash.clear();
        let mut scratch = [0; 16 * 1024];
        loop {
            self.discarding = Some(total);
            match self.next_part(&mut scratch, deadline)? {
                None => return Err(self.cut_off("in the middle of a message")),
                Some(part) => total += part.bytes,
            }
            if !self.inside {
                break;
            }
            self.discarding = Some(total);
            self.check_time(deadline)?;
        }
        self.discarding = None;
        Err(Error::TooLong {
            object: self.stream.object().into(),
            message_bytes: total,
            limit_bytes: self.limit_bytes,
            remedy: Some("it was thrown away; set_limit_bytes raises the limit".into()),
        })
    }

    /// Fails when the deadline has passed: a message that has no end must not outlast it, however fast its bytes come.
    fn check_time(&self, deadline: Deadline) -> Result<()> {
        if deadline.has_passed() {
            return Err(Error::out_of_time("receive", self.stream.object(), deadline));
        }
        Ok(())
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
            let Some(frame) = self.next_frame(deadline).inspect_err(|_| self.stash.push(&buffer[..filled]))? else {
                return Ok(None);
            };
            let total = filled + frame.left;
            if total > buffer.len().min(self.limit_bytes) {
                self.stash.push(&buffer[..filled]);
                if frame.last && total <= self.limit_bytes {
                    return Err(self.too_small(total, buffer.len()));
                }
                self.inside = true;
                return self.recv_stashed(buffer, deadline);
            }
            let mut nothing = [0];
            let room = if frame.left == 0 { &mut nothing[..] } else { &mut buffer[filled..] };
            let part = match self.next_part(room, deadline) {
                Ok(Some(Part { bytes: 0, last: false })) => self.check_time(deadline).map(|()| 0),
                other => other.map(|part| part.map_or(0, |part| part.bytes)),
            };
            filled += part.inspect_err(|_| self.stash.push(&buffer[..filled]))?;
            if !self.inside {
                return Ok(Some(filled));
            }
        }
    }

    fn recv_stashed(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.complete_stash(deadline)?;
        self.stash.deliver(buffer, self.stream.object()).map(Some)
    }
}

impl<R: ByteReader> Receiver for FramedReceiver<R> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        if self.discarding.is_some() {
            self.discard(deadline)?;
        }
        if self.inside || self.stash.holds_some() {
            return self.recv_stashed(buffer, deadline);
        }
        self.recv_direct(buffer, deadline)
    }

    fn object(&self) -> &str {
        self.stream.object()
    }
}
