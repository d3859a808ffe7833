//! Joining fragments to messages.

use super::Part;
use super::parts::Parts;
use crate::stash::Stash;
use crate::{Deadline, Error, Receiver, Result, tally};

/// The longest message that [`FragmentReceiver`] takes unless [`FragmentReceiver::set_limit_bytes`] says otherwise.
pub const DEFAULT_LIMIT_BYTES: usize = 1 << 30;

/// Receives messages that a [`FragmentSender`](super::FragmentSender) sends.
///
/// Messages of several senders come one after the other; fragments of one that come while another's message is being received
/// are kept aside, up to 64 MiB in all. A sender's end mark is `None`, once; who knows how many senders there are counts
/// them.
///
/// While a message is incomplete, the receiver looks every 200 ms whether the process that sends it still lives. This needs a
/// sender on the same machine, in the same pid namespace; of another one only a deadline tells.
///
/// Over a mechanism that loses messages a loss is [`Error::Corrupt`] with what is missing: the message it belongs to is given
/// up, and the next one is received. So is what comes from programs that send no fragments; that harms no message.
#[derive(Debug)]
pub struct FragmentReceiver<R> {
    parts: Parts<R>,
    /// The begin of a message that did not fit the caller's buffer or whose end did not come in time.
    stash: Stash,
    limit_bytes: usize,
    /// The bytes so far of the current message, to be thrown away because they exceed the limit.
    discarding: Option<usize>,
}

impl<R: Receiver> FragmentReceiver<R> {
    /// Messages from `inner`.
    pub fn new(inner: R) -> Self {
        Self { parts: Parts::new(inner), stash: Stash::default(), limit_bytes: DEFAULT_LIMIT_BYTES, discarding: None }
    }

    /// Sets the longest message that is taken. A longer one is [`Error::TooLong`], and the one after it is received.
    pub fn set_limit_bytes(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// From now on a sender that goes after a message without an end mark is an error for which [`Error::is_peer_gone`]
    /// holds, as one that goes in the middle: for transfers that end with
    /// [`finish_by`](super::FragmentSender::finish_by). With several senders only the one that was received from last is
    /// watched.
    pub fn expect_end(&mut self) {
        self.parts.expect_end();
    }

    /// Receives the next part of a message: as much of it as is there and fits `buffer`, waiting until `deadline` for some.
    /// `None` is the end of a sender. The limit of [`FragmentReceiver::set_limit_bytes`] does not bind here, since nothing is
    /// collected.
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
        self.finish_discarding(deadline)?;
        if let Some(part) = self.stash.deliver_part(buffer) {
            return Ok(Some(part));
        }
        let Some(ready) = self.parts.ready(deadline)? else { return Ok(None) };
        let bytes = ready.bytes.min(buffer.len());
        tally::copy(&mut buffer[..bytes], &self.parts.payload()[..bytes]);
        self.parts.consume(bytes);
        Ok(Some(Part { bytes, last: ready.last && bytes == ready.bytes }))
    }

    /// Whether the last error was about a message whose begin did not come here, as when another receiver had taken it and was killed.
    /// What is left of it is passed over, and the next message comes. Told once.
    pub fn has_passed_over(&mut self) -> bool {
        self.parts.take_headless()
    }

    /// The mechanism. What was received and not delivered is lost.
    pub fn into_inner(self) -> R {
        self.parts.into_inner()
    }

    /// The mechanism, to ask it things.
    pub fn get_ref(&self) -> &R {
        self.parts.inner()
    }

    /// Collects the rest of the current message, or the next one, in the stash, up to the limit; false is the end.
    fn complete_stash(&mut self, deadline: Deadline) -> Result<bool> {
        while !self.stash.is_complete() {
            let ready = match self.parts.ready(deadline) {
                Ok(Some(ready)) => ready,
                Ok(None) => return Ok(false),
                Err(error) => {
                    if !self.parts.is_inside() {
                        self.stash.clear();
                    }
                    return Err(error);
                }
            };
            let stashed = self.stash.len();
            if stashed + ready.bytes > self.limit_bytes {
                self.discarding = Some(stashed);
                self.stash.clear();
                self.finish_discarding(deadline)?;
            }
            self.stash.push(self.parts.payload());
            self.parts.consume(ready.bytes);
            if ready.last {
                self.stash.end();
            }
        }
        Ok(true)
    }

    /// Throws the rest of a message beyond the limit away, if there is one, then reports it with its length.
    fn finish_discarding(&mut self, deadline: Deadline) -> Result<()> {
        let Some(mut total) = self.discarding else { return Ok(()) };
        loop {
            let ready = match self.parts.ready(deadline) {
                Ok(Some(ready)) => ready,
                Ok(None) => break,
                Err(error) => {
                    self.discarding = self.discarding.filter(|_| self.parts.is_inside());
                    return Err(error);
                }
            };
            self.parts.consume(ready.bytes);
            total += ready.bytes;
            self.discarding = Some(total);
            if ready.last {
                break;
            }
            // A message that has no end must not outlast the deadline, however fast its fragments come.
            if deadline.has_passed() {
                return Err(Error::out_of_time("receive", self.object(), deadline));
            }
        }
        self.discarding = None;
        Err(Error::TooLong {
            object: self.object().into(),
            message_bytes: total,
            limit_bytes: self.limit_bytes,
            remedy: Some("it was thrown away; set_limit_bytes raises the limit".into()),
        })
    }

    /// Receives straight into the caller's buffer; what cannot be finished there goes to the stash.
    fn recv_direct(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let mut filled = 0;
        loop {
            let ready = match self.parts.ready(deadline) {
                Ok(Some(ready)) => ready,
                Ok(None) => return Ok(None),
                Err(error) => {
                    if self.parts.is_inside() {
                        self.stash.push(&buffer[..filled]);
                    }
                    return Err(error);
                }
            };
            if filled + ready.bytes > buffer.len().min(self.limit_bytes) {
                self.stash.push(&buffer[..filled]);
                return self.recv_stashed(buffer, deadline);
            }
            tally::copy(&mut buffer[filled..filled + ready.bytes], self.parts.payload());
            self.parts.consume(ready.bytes);
            filled += ready.bytes;
            if ready.last {
                return Ok(Some(filled));
            }
        }
    }

    fn recv_stashed(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        if !self.complete_stash(deadline)? {
            return Ok(None);
        }
        self.stash.deliver(buffer, self.parts.inner().object()).map(Some)
    }

    fn has_begun(&self) -> bool {
        self.stash.holds_some() || self.parts.is_inside()
    }
}

impl<R: Receiver> Receiver for FragmentReceiver<R> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.finish_discarding(deadline)?;
        if self.has_begun() { self.recv_stashed(buffer, deadline) } else { self.recv_direct(buffer, deadline) }
    }

    fn object(&self) -> &str {
        self.parts.inner().object()
    }

    fn recv_by(&mut self, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        self.finish_discarding(deadline)?;
        if !self.complete_stash(deadline)? {
            return Ok(None);
        }
        Ok(Some(self.stash.take()))
    }
}
