//! Messages that are read where their sender has made them.
//!
//! # Safety
//!
//! A [`View`] keeps its mapping, and lies within it: checked when it is made. The other side may write there at any time, so bytes
//! are copied out, and a reference is for callers who trust it.
#![expect(unsafe_code, reason = "lends out shared memory on the caller's word")]

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;

use super::loan::{DEFAULT_LOAN_LIMIT_BYTES, LOANS, Slip};
use super::message::{Body, SHORT_BYTES};
use super::stats::Path;
use super::{ChannelReceiver, Message, link::Link};
use crate::memory::Region;
use crate::memory::buffer::Buffer;
use crate::memory::copy::copy_own;
use crate::memory::ring::Arrival;
use crate::{Deadline, Error, Result, tally};

/// A message that was received: where its sender has made it, if that was a [`Loan`](super::Loan), and otherwise a copy.
/// When it is dropped the sender can use the memory again.
///
/// While a view lives its sender leaves the bytes alone, if it plays by the rules. One that does not can change them at any time;
/// so a copy ([`View::read_at`], [`View::copy_to`], [`View::into_message`]) should be looked at once it is made, and not the view
/// twice.
pub struct View(Content);

enum Content {
    Lent { memory: Arc<Region>, offset: usize, bytes: usize, ticket: Ticket },
    Own(Message),
}

/// Gives a loan back when it is dropped.
struct Ticket {
    link: Arc<Link>,
    number: u32,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A child made by fork has a copy of its parent's.
        if self.link.check_owner().is_ok() {
            self.link.desks.incoming().loans.give(self.number);
        }
    }
}

impl View {
    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Lent { bytes, .. } => *bytes,
            Content::Own(message) => message.len(),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it lies in the sender's memory, to be given back.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        matches!(self.0, Content::Lent { .. })
    }

    /// Copies the bytes from `offset` on into `buffer`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the numbers when the range does not lie within the message. [`Error::Unsupported`] in a child made
    /// by fork.
    pub fn read_at(&self, offset: usize, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len()).filter(|end| *end <= self.len());
        let Some(end) = end else {
            let reason =
                format!("read of {} bytes at offset {offset} reaches beyond its {} bytes", buffer.len(), self.len());
            return Err(Error::Invalid { object: "a view of a message".into(), reason });
        };
        match &self.0 {
            Content::Lent { memory, offset: start, ticket, .. } => {
                ticket.link.check_owner()?;
                memory.read_at(start + offset, buffer)
            }
            Content::Own(message) => {
                copy_own(buffer, &message[offset..end]);
                Ok(())
            }
        }
    }

    /// Copies the whole message to the beginning of `buffer`.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooSmall`] with both lengths. [`Error::Unsupported`] in a child made by fork.
    pub fn copy_to(&self, buffer: &mut [u8]) -> Result<()> {
        let buffer_bytes = buffer.len();
        match buffer.get_mut(..self.len()) {
            Some(target) => self.read_at(0, target),
            None => {
                let (object, message_bytes) = ("a view of a message".into(), self.len());
                Err(Error::BufferTooSmall { object, message_bytes, buffer_bytes })
            }
        }
    }

    /// Writes the bytes of `range`, as far as the message goes, to `fd` by one write(2), and returns how many: the kernel takes them
    /// from where they are, also when the other side does not play by the rules.
    ///
    /// # Errors
    ///
    /// As write(2). [`ErrorKind::Unsupported`](std::io::ErrorKind::Unsupported) in a child made by fork.
    pub fn write_to(&self, range: Range<usize>, fd: BorrowedFd<'_>) -> std::io::Result<usize> {
        let end = range.end.min(self.len());
        let offset = range.start.min(end);
        let start = match &self.0 {
            Content::Lent { memory, offset: start, ticket, .. } => {
                let unsupported = |error| std::io::Error::new(std::io::ErrorKind::Unsupported, error);
                ticket.link.check_owner().map_err(unsupported)?;
                // SAFETY: `start + offset` is at most the end of a range that lies within the mapping.
                unsafe { memory.base().add(start + offset) }.as_ptr().cast_const()
            }
            Content::Own(message) => message[offset..].as_ptr(),
        };
        // SAFETY: the kernel reads from `offset` to `end` of the message, which is as long at least, and which `self` keeps.
        let written = unsafe { libc::write(fd.as_raw_fd(), start.cast(), end - offset) };
        let written = usize::try_from(written).map_err(|_| std::io::Error::last_os_error())?;
        tally::count_kernel(written);
        Ok(written)
    }

    /// The message in memory of this process's: a copy, if it is lent, which gives it back.
    ///
    /// # Errors
    ///
    /// ENOMEM. [`Error::Unsupported`] in a child made by fork.
    pub fn into_message(self) -> Result<Message> {
        let len = self.len();
        if len <= SHORT_BYTES && self.is_lent() {
            return Message::short(len, |target| self.copy_to(target));
        }
        if let Content::Own(message) = self.0 {
            return Ok(message);
        }
        let mut buffer = Buffer::warm(len)?;
        self.copy_to(&mut buffer)?;
        Ok(Message::long(Body::Buffer(buffer)))
    }

    /// The bytes, where they are.
    ///
    /// # Safety
    ///
    /// While the slice is used, the other side does not write there: its program is trusted to play by the rules, since it can. In
    /// a child made by fork the slice is not used.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Content::Lent { memory, offset, bytes, .. } => {
                // SAFETY: the range lies within the mapping, checked when the view was made.
                let start = unsafe { memory.base().add(*offset) };
                // SAFETY: as many bytes of a mapping that `self` keeps; a memfd has no uninitialised bytes; nobody writes them
                // meanwhile, by the caller's word.
                unsafe { std::slice::from_raw_parts(start.as_ptr(), *bytes) }
            }
            Content::Own(message) => message,
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} bytes)", self.len())
    }
}

impl ChannelReceiver {
    /// Receives a message and leaves it where its sender has made it, if that was a [`Loan`](super::Loan); any other message is
    /// received as by [`ChannelReceiver::recv_by`]. `None` is the end: the other side has closed.
    ///
    /// A receiver that keeps views keeps its sender from making more than [`LOANS`] loans, or from more memory than its limit.
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::recv_by`]. EMFILE and ENOMEM for the first loan, which then stays first in line.
    pub fn recv_view_by(&mut self, deadline: Deadline) -> Result<Option<View>> {
        self.link.check_owner()?;
        self.disarm();
        if self.keeps() {
            return Ok(self.recv_by(deadline)?.map(|message| View(Content::Own(message))));
        }
        let slip = match self.ring.arrival(deadline)? {
            None => return Ok(None),
            Some(Arrival::Offer(words, len)) => Slip::from_bytes(&words[..len]),
            Some(Arrival::Message(_)) => None,
        };
        match slip {
            Some(slip) => self.take_loan(slip).map(Some),
            None => Ok(self.recv_by(deadline)?.map(|message| View(Content::Own(message)))),
        }
    }

    /// Takes the loan that is first in line.
    pub(super) fn take_loan(&mut self, slip: Slip) -> Result<View> {
        let memory = match self.lent_memory() {
            // It may work later.
            Err(error @ Error::Os { .. }) => return Err(error),
            memory => memory,
        };
        self.ring.take_offer();
        let Slip { ticket: number, offset, bytes } = slip;
        // From here on it goes back whatever happens.
        let ticket = Ticket { link: Arc::clone(&self.link), number };
        let memory = memory?;
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= memory.len());
        if !fits || number as usize >= LOANS {
            let detail = format!("loan {number} of {bytes} bytes at {offset}, of {} bytes in all", memory.len());
            return Err(Error::Corrupt { object: self.link.object.clone(), detail });
        }
        if bytes > self.limit_bytes {
            return Err(Error::TooLong {
                object: self.link.object.clone(),
                message_bytes: bytes,
                limit_bytes: self.limit_bytes,
                remedy: Some("it was given back; set_limit_bytes raises the limit".into()),
            });
        }
        self.link.counters.count_received(Path::Loan, bytes);
        Ok(View(Content::Lent { memory, offset, bytes, ticket }))
    }

    /// Receives a loan as a copy. Without memory for that it stays first in line.
    pub(super) fn take_loan_as_message(&mut self, slip: Slip) -> Result<Message> {
        let is_wanted = (SHORT_BYTES + 1..=self.limit_bytes).contains(&slip.bytes);
        let is_lent = |memory: Arc<Region>| slip.offset.checked_add(slip.bytes).is_some_and(|end| end <= memory.len());
        if !is_wanted || !self.lent_memory().is_ok_and(is_lent) {
            return self.take_loan(slip)?.into_message();
        }
        let mut buffer = Buffer::warm(slip.bytes)?;
        self.take_loan(slip)?.copy_to(&mut buffer)?;
        Ok(Message::long(Body::Buffer(buffer)))
    }

    /// Receives a loan straight into `buffer`.
    pub(super) fn take_loan_into(&mut self, slip: Slip, buffer: &mut [u8]) -> Result<usize> {
        if buffer.len() < slip.bytes && slip.bytes <= self.limit_bytes {
            let (object, message_bytes, buffer_bytes) = (self.link.object.clone(), slip.bytes, buffer.len());
            return Err(Error::BufferTooSmall { object, message_bytes, buffer_bytes });
        }
        let view = self.take_loan(slip)?;
        view.copy_to(buffer)?;
        Ok(view.len())
    }

    #[inline]
    fn lent_memory(&mut self) -> Result<Arc<Region>> {
        if let Some(memory) = &self.lent {
            return Ok(Arc::clone(memory));
        }
        let corrupt = |problem: String| {
            let detail = format!("a loan from memory that {problem}");
            Error::Corrupt { object: self.link.object.clone(), detail }
        };
        let memory = self.link.polling.take_lent()?.ok_or_else(|| corrupt("was not passed".into()))?;
        let (bytes, limit_bytes) = (memory.len(), self.limit_bytes.max(DEFAULT_LOAN_LIMIT_BYTES));
        if bytes > limit_bytes {
            return Err(corrupt(format!("has {bytes} bytes, where {limit_bytes} are the limit")));
        }
        let memory = Arc::new(memory);
        self.lent = Some(Arc::clone(&memory));
        Ok(memory)
    }
}
