//! Messages in parts: what `--frame` needs to move a message of any size in bounded memory.

use onecopy::stream::framed::{FramedReceiver, FramedSender, Part};
use onecopy::stream::{ByteReader, ByteWriter};
use onecopy::{Deadline, Receiver, Result, Sender};

/// How long a part is: what is read ahead of the sender, and the buffer of the receiver.
pub(crate) const PART_BYTES: usize = 256 * 1024;

/// Sends messages whole or in parts.
pub(crate) trait PartSender: Sender {
    /// Sends a part of a message; `last` ends it.
    fn send_part(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()>;

    /// Waits until everything that was sent will arrive even though this side closes.
    fn finish(self: Box<Self>, deadline: Deadline) -> Result<()>;
}

/// Receives messages whole or in parts.
pub(crate) trait PartReceiver: Receiver {
    /// Receives a part of a message; `None` is the end.
    fn recv_part(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>>;
}

impl<W: ByteWriter> PartSender for FramedSender<W> {
    fn send_part(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()> {
        self.send_part_by(part, last, deadline)
    }

    fn finish(mut self: Box<Self>, deadline: Deadline) -> Result<()> {
        self.flush_by(deadline)?;
        self.into_inner().finish_by(deadline)
    }
}

impl<R: ByteReader> PartReceiver for FramedReceiver<R> {
    fn recv_part(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>> {
        self.recv_part_by(buffer, deadline)
    }
}
