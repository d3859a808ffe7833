//! Messages in parts: what `--frame` needs to move a message of any size in bounded memory.

use onecopy::message::fragment::{FragmentReceiver, FragmentSender};
use onecopy::message::posix_mq::PosixQueue;
use onecopy::message::sysv_mq::SysvQueue;
use onecopy::stream::framed::{FramedReceiver, FramedSender, Part};
use onecopy::stream::pipe::{MessageReader, MessageWriter, PAYLOAD_BYTES};
use onecopy::stream::{ByteReader, ByteWriter};
use onecopy::{Deadline, Error, Receiver, Result, Sender};

/// How long a part is at most: what is read ahead of the sender, and the buffer of the receiver.
pub(crate) const PART_BYTES: usize = 256 * 1024;

/// Sends messages whole or in parts.
pub(crate) trait PartSender: Sender {
    /// Sends a part of a message; `last` ends it.
    fn send_part(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()>;

    /// How long a part should be, in bytes.
    fn part_bytes(&self) -> Result<usize>;

    /// Waits until everything that was sent will arrive even though this side closes. `mark` tells the receiver that no more
    /// messages come, where the mechanism itself does not: it stays in a queue from which nobody takes it.
    fn finish(self: Box<Self>, mark: bool, deadline: Deadline) -> Result<()>;
}

/// Receives messages whole or in parts.
pub(crate) trait PartReceiver: Receiver {
    /// Receives a part of a message; `None` is the end.
    fn recv_part(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>>;

    /// Whether the next messages come after `error`, which is not about the one that is being received. `begun` says that a part
    /// of that was received.
    fn goes_on(&mut self, _error: &Error, _begun: bool) -> bool {
        false
    }

    /// Whether the last error was about what is left of a message whose begin somebody else has taken: whole ones may be behind that.
    fn has_passed_over(&mut self) -> bool {
        false
    }
}

impl<W: ByteWriter> PartSender for FramedSender<W> {
    fn send_part(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()> {
        self.send_part_by(part, last, deadline)
    }

    fn part_bytes(&self) -> Result<usize> {
        Ok(PART_BYTES)
    }

    fn finish(mut self: Box<Self>, _mark: bool, deadline: Deadline) -> Result<()> {
        self.flush_by(deadline)?;
        self.into_inner().finish_by(deadline)
    }
}

impl<W: ByteWriter> PartSender for MessageWriter<W> {
    fn send_part(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()> {
        self.send_part_by(part, last, deadline)
    }

    /// Whole frames.
    fn part_bytes(&self) -> Result<usize> {
        Ok(PAYLOAD_BYTES * (PART_BYTES / PAYLOAD_BYTES))
    }

    fn finish(mut self: Box<Self>, _mark: bool, deadline: Deadline) -> Result<()> {
        self.flush_by(deadline)?;
        self.into_inner().finish_by(deadline)
    }
}

/// What a mechanism tells of what was sent and not received.
pub(crate) trait Backlog {
    /// Whether messages wait for a receiver.
    fn waits(&self) -> bool;
}

impl Backlog for PosixQueue {
    fn waits(&self) -> bool {
        self.queued_messages().map_or(true, |messages| messages > 0)
    }
}

impl Backlog for SysvQueue {
    fn waits(&self) -> bool {
        self.status().map_or(true, |status| status.messages > 0)
    }
}

/// What a socket holds goes with its receiver, and a ring tells of its receiver itself.
impl Backlog for Box<dyn Sender + Send> {
    fn waits(&self) -> bool {
        false
    }
}

impl<S: Sender + Backlog> PartSender for FragmentSender<S> {
    fn send_part(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()> {
        self.send_part_by(part, last, deadline)
    }

    /// Whole fragments.
    fn part_bytes(&self) -> Result<usize> {
        let fragment_bytes = self.payload_bytes()?;
        Ok(fragment_bytes * (PART_BYTES / fragment_bytes).max(1))
    }

    fn finish(mut self: Box<Self>, mark: bool, deadline: Deadline) -> Result<()> {
        self.flush_by(deadline)?;
        if !mark {
            return Ok(());
        }
        match self.finish_by(deadline) {
            // A receiver that left when it had as many messages as it wanted needs no mark.
            Err(error) if error.is_peer_gone() && !self.get_ref().waits() => Ok(()),
            result => result,
        }
    }
}

impl<R: ByteReader> PartReceiver for FramedReceiver<R> {
    fn recv_part(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>> {
        self.recv_part_by(buffer, deadline)
    }
}

impl<R: ByteReader> PartReceiver for MessageReader<R> {
    fn recv_part(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>> {
        self.recv_part_by(buffer, deadline)
    }

    fn goes_on(&mut self, error: &Error, begun: bool) -> bool {
        is_about_one_message(error) && (!begun || self.is_inside())
    }
}

/// Whether a reader of a pipe that several write to goes on behind this error.
pub(crate) fn is_about_one_message(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::PeerGone { .. } | Error::TooLong { .. })
}

impl<R: Receiver> PartReceiver for FragmentReceiver<R> {
    fn recv_part(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>> {
        self.recv_part_by(buffer, deadline)
    }

    fn has_passed_over(&mut self) -> bool {
        Self::has_passed_over(self)
    }
}
