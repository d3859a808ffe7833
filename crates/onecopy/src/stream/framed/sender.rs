//! The sending side.

use std::io::IoSlice;

use zerocopy::IntoBytes;

use super::{HEADER_BYTES, Header, MAX_FRAME_BYTES};
use crate::process::own_id;
use crate::stream::ByteWriter;
use crate::{Deadline, Error, Result, Sender, tally};

/// A rest above this is given back to the allocator once it was sent.
const KEPT_REST_BYTES: usize = 1 << 20;

/// Sends messages over a byte stream.
///
/// A byte stream may take a part of a message and then be full. From its first byte on a message is accepted: the rest is
/// kept here, [`Sender::send_by`] returns success, and the rest goes before the next message or in [`Sender::flush_by`]. So a
/// call that fails for want of time has sent nothing, and no message is ever cut in two. Who sends with a deadline calls
/// `flush_by` before dropping the sender; a receiver reports a message whose end never came.
///
/// A sender whose stream failed in the middle of a message refuses further messages with the same kind of error. So does its copy in a
/// child made by fork(2) in the middle of a message: the rest is the parent's to send, and what the child sent would come in the middle of it.
#[derive(Debug)]
pub struct FramedSender<W> {
    stream: W,
    /// Frames, or the end of one, that were accepted and not yet written.
    pending: Vec<u8>,
    written: usize,
    /// Why the rest of a frame does not come from here: what follows could not be told apart from its payload.
    torn: Option<&'static str>,
    /// Whether the last part that was accepted did not end its message.
    inside: bool,
    /// The process that this sender belongs to.
    pid: u32,
}

const CUT: &str = "an earlier message was cut in the middle";
const PARENTS: &str = "the rest of an earlier message belongs to the process that forked this one";

impl<W: ByteWriter> FramedSender<W> {
    /// Messages over `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream, pending: Vec::new(), written: 0, torn: None, inside: false, pid: own_id() }
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
        if part.is_empty() && !last {
            return Ok(());
        }
        let header = Header::new(part, last);
        let was_inside = std::mem::replace(&mut self.inside, !last);
        let total = HEADER_BYTES + part.len();
        let mut sent = 0;
        while sent < total {
            match self.write_rest(header.as_bytes(), part, sent, deadline) {
                Ok(count) => sent += count,
                Err(error) if sent == 0 => {
                    self.inside = was_inside;
                    return Err(error);
                }
                Err(error) if error.is_out_of_time() => {
                    self.keep_rest(header.as_bytes(), part, sent);
                    return Ok(());
                }
                Err(error) => {
                    self.torn = Some(CUT);
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

    /// In a child made by fork(2), leaves the rest of a message to the parent.
    fn notice_fork(&mut self) {
        let pid = own_id();
        if pid == self.pid {
            return;
        }
        self.pid = pid;
        if self.inside || self.written < self.pending.len() {
            self.torn = Some(PARENTS);
        }
    }

    fn keep_rest(&mut self, header: &[u8], part: &[u8], sent: usize) {
        self.pending.clear();
        self.written = 0;
        tally::append(&mut self.pending, header.get(sent..).unwrap_or_default());
        tally::append(&mut self.pending, &part[sent.saturating_sub(header.len())..]);
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
        self.notice_fork();
        if let Some(detail) = self.torn {
            return Err(Error::PeerGone { object: self.stream.object().into(), detail: detail.into() });
        }
        while self.written < self.pending.len() {
            match self.stream.write_by(&self.pending[self.written..], deadline) {
                Ok(count) => self.written += count,
                Err(error) => {
                    self.torn = (!error.is_out_of_time()).then_some(CUT);
                    return Err(error);
                }
            }
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
