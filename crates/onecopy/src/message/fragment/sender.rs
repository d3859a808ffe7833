//! Cutting messages into fragments.

use std::fmt;
use std::time::Instant;

use zerocopy::IntoBytes;

use super::LOOK_EVERY;
use super::header::{Fragment, HEADER_BYTES, Kind};
use crate::process::{Origin, own_id};
use crate::sys::random;
use crate::{Deadline, Error, Result, Sender, tally};

/// The length of a fragment, in bytes, over a mechanism that has no limit of its own.
const UNLIMITED_FRAGMENT_BYTES: usize = 64 * 1024;

type Watch<S> = Box<dyn FnMut(&mut S) -> Result<()> + Send>;

/// Sends messages of any size over a mechanism that has a longest message.
///
/// The mechanism may take some fragments of a message and then be full. From its first fragment on a message is accepted: the
/// rest is kept here, [`Sender::send_by`] returns success, and the rest goes before the next message or in
/// [`Sender::flush_by`]. So a call that fails for want of time has sent nothing. Who sends with a deadline calls `flush_by` or
/// [`FragmentSender::finish_by`] before dropping the sender.
///
/// Each fragment is copied once more in user space, to stand behind its header.
///
/// After a fork(2) the child is a sender of its own with the next message; what the parent had begun stays the parent's.
///
/// ```
/// use onecopy::message::fragment::{FragmentReceiver, FragmentSender};
/// use onecopy::message::sysv_mq::SysvQueue;
/// use onecopy::{Deadline, Receiver, Sender, SysvName};
///
/// let queue = SysvQueue::create_private(0o600)?;
/// let mut sender = FragmentSender::new(SysvQueue::open(&SysvName::id(queue.id())?)?);
/// let mut receiver = FragmentReceiver::new(queue);
///
/// let message = vec![7; 10_000];
/// sender.send(&message)?;
/// sender.finish_by(Deadline::Never)?;
/// assert_eq!(receiver.recv()?, Some(message));
/// assert_eq!(receiver.recv()?, None);
/// receiver.get_ref().remove()?;
/// # Ok::<(), onecopy::Error>(())
/// ```
pub struct FragmentSender<S> {
    inner: S,
    /// What goes before the payload of the next fragment.
    next: Fragment,
    /// Whether a fragment of the current message was sent.
    inside: bool,
    /// The process that this sender belongs to: after a fork it is another one.
    pid: u32,
    /// Whether the current message is one that the parent of this process has begun.
    is_parents: bool,
    longest_fragment_bytes: usize,
    /// A fragment on its way.
    frame: Vec<u8>,
    /// The part of an accepted message that the mechanism has not taken yet.
    rest: Option<Rest>,
    watch: Option<Watch<S>>,
    last_look: Option<Instant>,
}

#[derive(Debug)]
struct Rest {
    bytes: Vec<u8>,
    sent: usize,
    last: bool,
}

impl<S: Sender> FragmentSender<S> {
    /// Messages over `inner`.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            next: first_fragment(),
            inside: false,
            pid: own_id(),
            is_parents: false,
            longest_fragment_bytes: usize::MAX,
            frame: Vec::new(),
            rest: None,
            watch: None,
            last_look: None,
        }
    }

    /// Has `watch` look at the mechanism every 200 ms at most while messages are sent, also while a send waits; when it
    /// fails, the send fails with its error. That is how a sender learns that its receiver is gone:
    /// [`posix_mq::receiver_watch`](crate::message::posix_mq::receiver_watch) and
    /// [`sysv_mq::receiver_watch`](crate::message::sysv_mq::receiver_watch) make such functions.
    #[must_use]
    pub fn with_watch(mut self, watch: impl FnMut(&mut S) -> Result<()> + Send + 'static) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }

    /// Makes fragments of at most `bytes`, header included, where the mechanism would take longer ones: for datagrams that
    /// shall fit a packet of the network.
    #[must_use]
    pub fn with_fragment_bytes(mut self, bytes: usize) -> Self {
        self.longest_fragment_bytes = bytes;
        self
    }

    /// How many bytes of a message one fragment takes. Parts whose length is a multiple of it waste no room.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the mechanism's longest message has no room beside the header.
    pub fn payload_bytes(&self) -> Result<usize> {
        let limit_bytes = self.inner.limit_bytes().unwrap_or(UNLIMITED_FRAGMENT_BYTES).min(self.longest_fragment_bytes);
        match limit_bytes.min(u32::MAX as usize).checked_sub(HEADER_BYTES) {
            Some(payload_bytes) if payload_bytes > 0 => Ok(payload_bytes),
            _ => Err(Error::Invalid {
                object: self.inner.object().into(),
                reason: format!(
                    "messages of at most {limit_bytes} bytes have no room for a fragment beside its header of {HEADER_BYTES} \
                     bytes: create it for longer ones"
                ),
            }),
        }
    }

    /// Sends a part of a message; `last` ends the message. The other side joins the parts: that is how a message of unknown
    /// length is sent in bounded memory.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]. After an error for which [`Error::is_out_of_time`] holds, nothing of this part was sent; after
    /// any other one the whole message is given up, and the next part begins a new one. [`Error::PeerGone`] in a child made by
    /// fork(2) for the other parts of a message that its parent has begun.
    pub fn send_part_by(&mut self, part: &[u8], last: bool, deadline: Deadline) -> Result<()> {
        self.flush_rest(deadline)?;
        if self.is_parents {
            self.is_parents = !last;
            return Err(Error::PeerGone {
                object: self.inner.object().into(),
                detail: "an earlier part of this message belongs to the process that forked this one".into(),
            });
        }
        let payload_bytes = self.payload_bytes()?;
        if part.is_empty() && !last {
            return Ok(());
        }
        let mut sent = 0;
        loop {
            let end = part.len().min(sent + payload_bytes);
            match self.send_fragment(&part[sent..end], last && end == part.len(), deadline) {
                Err(error) if error.is_out_of_time() && sent > 0 => {
                    self.rest = Some(Rest { bytes: tally::to_vec(&part[sent..]), sent: 0, last });
                    return Ok(());
                }
                result => result?,
            }
            if end == part.len() {
                return Ok(());
            }
            sent = end;
        }
    }

    /// Sends what is left of accepted messages, then a mark that no more will come from this sender: the other side's receive
    /// returns `None` once. A message may follow all the same.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; [`Error::Invalid`] in the middle of a message sent in parts.
    pub fn finish_by(&mut self, deadline: Deadline) -> Result<()> {
        self.flush_by(deadline)?;
        if self.inside {
            return Err(Error::Invalid {
                object: self.inner.object().into(),
                reason: format!("{} bytes of a message were sent, and its last part was not", self.next.offset),
            });
        }
        self.next.kind = Kind::End;
        self.send_frame(&[], deadline)?;
        self.next.number += 1;
        Ok(())
    }

    /// The mechanism. What was accepted and not yet sent is lost: flush first.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// The mechanism, to ask it things.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Pretends to be another process.
    #[cfg(test)]
    pub(super) fn set_origin(&mut self, origin: Origin) {
        self.next.origin = origin;
    }

    /// In a child made by fork(2), begins anew: what the parent has begun is the parent's to finish.
    fn notice_fork(&mut self) {
        let pid = own_id();
        if pid == self.pid {
            return;
        }
        let rest = self.rest.take();
        self.is_parents |= self.inside && rest.is_none_or(|rest| !rest.last);
        self.inside = false;
        self.next = first_fragment();
        self.pid = pid;
    }

    /// Sends the rest of an accepted message.
    fn flush_rest(&mut self, deadline: Deadline) -> Result<()> {
        self.notice_fork();
        let Some(mut rest) = self.rest.take() else { return Ok(()) };
        let payload_bytes = self.payload_bytes()?;
        while rest.sent < rest.bytes.len() {
            let end = rest.bytes.len().min(rest.sent + payload_bytes);
            let last = rest.last && end == rest.bytes.len();
            if let Err(error) = self.send_fragment(&rest.bytes[rest.sent..end], last, deadline) {
                self.rest = error.is_out_of_time().then_some(rest);
                return Err(error);
            }
            rest.sent = end;
        }
        Ok(())
    }

    /// Sends the next fragment of the current message.
    fn send_fragment(&mut self, payload: &[u8], last: bool, deadline: Deadline) -> Result<()> {
        self.next.kind = Kind::Part { first: !self.inside, last };
        match self.send_frame(payload, deadline) {
            Ok(()) if !last => {
                self.inside = true;
                self.next.offset += payload.len() as u64;
            }
            Ok(()) => self.begin_next(),
            Err(error) => {
                if self.inside && !error.is_out_of_time() {
                    self.begin_next();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn begin_next(&mut self) {
        self.inside = false;
        self.next.number += 1;
        self.next.offset = 0;
    }

    fn send_frame(&mut self, payload: &[u8], deadline: Deadline) -> Result<()> {
        self.frame.clear();
        tally::append(&mut self.frame, self.next.header(payload.len()).as_bytes());
        tally::append(&mut self.frame, payload);
        if self.watch.is_none() {
            return self.inner.send_by(&self.frame, deadline);
        }
        self.look()?;
        match self.inner.send_by(&self.frame, Deadline::Now) {
            Err(error) if error.is_out_of_time() && deadline != Deadline::Now => self.send_after_waiting(deadline),
            result => result,
        }
    }

    /// Sends the frame once the mechanism has room again.
    fn send_after_waiting(&mut self, deadline: Deadline) -> Result<()> {
        loop {
            self.look()?;
            match self.inner.send_by(&self.frame, deadline.at_most(LOOK_EVERY)) {
                Err(error) if error.is_out_of_time() && !deadline.has_passed() => {}
                result => {
                    // Somebody has just received, and may be dead before the next look: then nobody would know of it.
                    self.last_look = None;
                    return result;
                }
            }
        }
    }

    /// Calls the watch, unless it was called a short while ago.
    fn look(&mut self) -> Result<()> {
        if self.last_look.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.last_look = Some(Instant::now());
        self.watch.as_mut().map_or(Ok(()), |watch| watch(&mut self.inner))
    }
}

/// What a new sender begins with: a number of its own, and the process that it belongs to.
fn first_fragment() -> Fragment {
    Fragment {
        sender: random::number(),
        number: 0,
        offset: 0,
        kind: Kind::Part { first: true, last: true },
        origin: Origin::current().unwrap_or(Origin::UNKNOWN),
    }
}

impl<S: Sender> Sender for FragmentSender<S> {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.send_part_by(message, true, deadline)
    }

    fn object(&self) -> &str {
        self.inner.object()
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        self.flush_rest(deadline)?;
        self.inner.flush_by(deadline)
    }
}

impl<S: fmt::Debug> fmt::Debug for FragmentSender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FragmentSender")
            .field("inner", &self.inner)
            .field("next", &self.next)
            .field("inside", &self.inside)
            .field("rest", &self.rest.as_ref().map(|rest| rest.bytes.len() - rest.sent))
            .finish_non_exhaustive()
    }
}
