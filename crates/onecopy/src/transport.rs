//! What every mechanism that moves data has in common.

use crate::{Deadline, Error, Result};

/// Sends whole messages.
///
/// Implemented by every mechanism that moves data: natively where the kernel keeps boundaries, through
/// [`FramedSender`](crate::stream::framed::FramedSender) on byte streams, through a ring in shared memory.
///
/// When a call fails with an error for which [`Error::is_out_of_time`] holds, nothing of the message was sent and the
/// call can be repeated.
///
/// A `&mut` of a sender is one, too, so that a function that takes one can be lent it:
///
/// ```
/// use onecopy::message::{fragment::{FragmentReceiver, FragmentSender}, unix_seqpacket::UnixSeqpacket};
/// use onecopy::{Receiver, Result, Sender};
///
/// fn greet(mut sender: impl Sender) -> Result<()> {
///     sender.send(b"hello")
/// }
/// let (mut ours, mut theirs) = UnixSeqpacket::pair()?;
/// greet(&mut ours)?;
/// greet(FragmentSender::new(&mut ours))?;
/// assert_eq!(theirs.recv()?.as_deref(), Some(&b"hello"[..]));
/// assert_eq!(FragmentReceiver::new(&mut theirs).recv()?.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), onecopy::Error>(())
/// ```
pub trait Sender {
    /// Sends one message, waiting until `deadline` while the mechanism is full.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] for a message beyond [`Sender::limit_bytes`]; [`Error::WouldBlock`] and [`Error::TimedOut`] when
    /// it stayed full; an error for which [`Error::is_peer_gone`] holds when nobody can receive any more.
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()>;

    /// The longest message that one call takes, in bytes; `None` where memory is the only limit.
    fn limit_bytes(&self) -> Option<usize> {
        None
    }

    /// The address of the mechanism, for messages.
    fn object(&self) -> &str {
        "a message transport"
    }

    /// Waits until everything that was accepted has been handed to the kernel.
    ///
    /// Only a byte stream can have accepted a message of which the kernel took a part: see
    /// [`FramedSender`](crate::stream::framed::FramedSender).
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`].
    fn flush_by(&mut self, _deadline: Deadline) -> Result<()> {
        Ok(())
    }

    /// [`Sender::send_by`] without a limit of time.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`].
    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.send_by(message, Deadline::Never)
    }

    /// [`Sender::send_by`] without waiting.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`].
    fn try_send(&mut self, message: &[u8]) -> Result<()> {
        self.send_by(message, Deadline::Now)
    }
}

/// Receives whole messages.
pub trait Receiver {
    /// Receives one message into `buffer`, waiting until `deadline` for one to arrive, and returns its length; `None` is the
    /// end: no message can come any more. A message of length zero is `Some(0)`.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooSmall`] when the message is longer than `buffer`: it stays first in line and can be received with a
    /// larger one. [`Error::WouldBlock`] and [`Error::TimedOut`] when none came; an error for which [`Error::is_peer_gone`]
    /// holds when the other side went away in the middle of a message.
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>>;

    /// The address of the mechanism, for messages.
    fn object(&self) -> &str {
        "a message transport"
    }

    /// The length that a first buffer should have, in bytes: most messages of this mechanism fit.
    fn usual_bytes(&self) -> usize {
        64 * 1024
    }

    /// [`Receiver::recv_into_by`] without a limit of time.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`].
    fn recv_into(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.recv_into_by(buffer, Deadline::Never)
    }

    /// [`Receiver::recv_into_by`] without waiting.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`].
    fn try_recv_into(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.recv_into_by(buffer, Deadline::Now)
    }

    /// Receives one message of any length into memory of its own. For a loop, [`Receiver::recv_into_by`] with a buffer that is
    /// used again is faster: memory that was never touched costs a page fault every 4 KiB.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`], without [`Error::BufferTooSmall`].
    fn recv_by(&mut self, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; self.usual_bytes()];
        loop {
            match self.recv_into_by(&mut buffer, deadline) {
                Ok(None) => return Ok(None),
                Ok(Some(len)) => {
                    buffer.truncate(len);
                    return Ok(Some(buffer));
                }
                Err(Error::BufferTooSmall { message_bytes, .. }) => buffer = vec![0; message_bytes],
                Err(error) => return Err(error),
            }
        }
    }

    /// [`Receiver::recv_by`] without a limit of time.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_by`].
    fn recv(&mut self) -> Result<Option<Vec<u8>>> {
        self.recv_by(Deadline::Never)
    }
}

impl<S: Sender + ?Sized> Sender for Box<S> {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        (**self).send_by(message, deadline)
    }

    fn limit_bytes(&self) -> Option<usize> {
        (**self).limit_bytes()
    }

    fn object(&self) -> &str {
        (**self).object()
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        (**self).flush_by(deadline)
    }
}

impl<S: Sender + ?Sized> Sender for &mut S {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        (**self).send_by(message, deadline)
    }

    fn limit_bytes(&self) -> Option<usize> {
        (**self).limit_bytes()
    }

    fn object(&self) -> &str {
        (**self).object()
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        (**self).flush_by(deadline)
    }
}

impl<R: Receiver + ?Sized> Receiver for &mut R {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        (**self).recv_into_by(buffer, deadline)
    }

    fn object(&self) -> &str {
        (**self).object()
    }

    fn usual_bytes(&self) -> usize {
        (**self).usual_bytes()
    }
}

impl<R: Receiver + ?Sized> Receiver for Box<R> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        (**self).recv_into_by(buffer, deadline)
    }

    fn object(&self) -> &str {
        (**self).object()
    }

    fn usual_bytes(&self) -> usize {
        (**self).usual_bytes()
    }
}
