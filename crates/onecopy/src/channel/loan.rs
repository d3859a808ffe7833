//! Loans: messages that are made in shared memory, and read there.
//!
//! Each direction of a channel has memory of its own for them, from the first loan on: a memfd that its sender alone can write,
//! see [`exclusive`](crate::memory::anonymous::exclusive), of which the receiver gets a read-only mapping. Its descriptor goes
//! over the channel's socket, once, and is closed on both sides when that is mapped; [`polling`](super::polling) says who
//! takes it from there.
//!
//! | Step | Who | How |
//! |---|---|---|
//! | lend | the sender | takes a free range and one of [`LOANS`] tickets; both are known to it alone |
//! | send | the sender | puts a [`Slip`] into the ring: ticket, offset, length. The ring keeps the order |
//! | view | the receiver | checks the slip against its mapping and reads there |
//! | give back | the receiver | sets the ticket's bit of [`GivenBack`] |
//! | collect | the sender | takes the bits when it needs room, as far as it has sent loans with these tickets |
//!
//! A receiver that sets bits too early reads bytes of a later message; bits of loans that were not sent are ignored. So whatever
//! it writes, the sender's memory is the sender's alone while it fills it.

mod lender;
mod slip;

use std::fmt;
use std::ops::{Deref, DerefMut, Range};

pub(super) use lender::Lender;
use lender::Room;
pub(super) use slip::Slip;

use super::ChannelSender;
use super::stats::Path;
use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::memory::wait::{wait, wake};
use crate::{Deadline, Error, Result};

/// How many loans of one direction can be with the other side.
pub const LOANS: usize = 64;
/// How much memory one direction has for loans, unless [`ChannelSender::set_loan_limit_bytes`] says otherwise.
pub const DEFAULT_LOAN_LIMIT_BYTES: usize = 256 << 20;

/// Where the receiver of one direction says which loans it has given back.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct GivenBack {
    /// A bit for each ticket.
    tickets: AtomicU64,
    /// What the sender sleeps on that waits for one. On the same line: who sets a bit has it in its cache to look at this.
    pub(super) sleeper: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(LOANS == u64::BITS as usize && size_of::<GivenBack>() == 128);

impl GivenBack {
    /// For the receiver.
    #[inline]
    pub(super) fn give(&self, ticket: u32) {
        // SeqCst: before the look at the sleeper, see `memory::wait`. It releases what this side has read.
        self.tickets.fetch_or(1 << (ticket % u64::BITS), Ordering::SeqCst);
        wake(&self.sleeper, None);
    }

    /// For the receiver, when it closes: nothing comes back any more.
    pub(super) fn tell_end(&self) {
        wake(&self.sleeper, None);
    }

    /// For the sender: those of `lent` that were given back since.
    #[inline]
    fn take(&self, lent: u64) -> u64 {
        // SeqCst: a sender about to sleep looks after it has announced that.
        if self.tickets.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        // Acquire pairs with `give`: the other side reads there no more. Bits of what was not lent are a peer's mistake.
        self.tickets.swap(0, Ordering::Acquire) & lent
    }
}

/// Memory in which a message is made before [`Loan::send`] sends it, without a copy. Dropped instead, it is free again.
///
/// The other side can read it from the moment on at which it is written, also if it is never sent. It holds anything at first:
/// zeros, or what an earlier loan of this direction held.
///
/// ```
/// # use onecopy::{Channel, Deadline};
/// # let (parent, end) = Channel::pair()?;
/// # let number = std::os::fd::AsRawFd::as_raw_fd(&end);
/// # let child = std::thread::spawn(move || { let _end = end; Channel::adopt_by(number, Deadline::Never) });
/// # let mut sender = parent.accept_by(Deadline::Never)?;
/// # let mut receiver = child.join().unwrap()?; // usually in another process
/// let mut loan = sender.loan(1 << 20)?;
/// loan.fill(7);
/// loan.send()?;
///
/// let view = receiver.recv_view()?.expect("the other side has not closed");
/// let mut first = [0; 8];
/// view.read_at(0, &mut first)?;
/// assert_eq!((view.len(), first), (1 << 20, [7; 8]));
/// drop(view); // the memory can be lent again
/// # Ok::<(), onecopy::Error>(())
/// ```
///
/// # Panics
///
/// In a child made by fork, which does not have its parent's memory for loans, each access does.
pub struct Loan<'a> {
    sender: &'a mut ChannelSender,
    range: Range<usize>,
}

impl<'a> Loan<'a> {
    /// Makes it the first `len` bytes of what it was, if it was longer. The rest comes back with them.
    pub fn truncate(&mut self, len: usize) {
        self.range.end = self.range.end.min(self.range.start.saturating_add(len));
    }

    /// Sends it, waiting for room in the ring for as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`Loan::send_by`], without the loan.
    pub fn send(self) -> Result<()> {
        Ok(self.send_by(Deadline::Never)?)
    }

    /// Sends it: the receiver gets what is in it now, in line with the other messages, and gives the memory back when it has seen it.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`](crate::Sender::send_by); nothing was sent then, and the loan comes back with the error.
    pub fn send_by(self, deadline: Deadline) -> Result<(), Unsent<'a>> {
        match self.sender.send_loan(&self.range, deadline) {
            Ok(()) => Ok(()),
            Err(error) => Err(Unsent { error, loan: self }),
        }
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.sender.lender.bytes(self.range.clone())
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.sender.lender.bytes_mut(self.range.clone())
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        // Nothing, if it was sent.
        self.sender.lender.drop_held();
    }
}

impl fmt::Debug for Loan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loan({} bytes)", self.range.len())
    }
}

/// Why a loan was not sent, and the loan.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Unsent<'a> {
    /// What went wrong.
    pub error: Error,
    /// The loan as it was, to be sent later.
    pub loan: Loan<'a>,
}

impl From<Unsent<'_>> for Error {
    fn from(unsent: Unsent<'_>) -> Self {
        unsent.error
    }
}

impl ChannelSender {
    /// Lends `len` bytes of shared memory for a message, waiting for what the other side has still to give back for as long as it
    /// takes.
    ///
    /// # Errors
    ///
    /// As [`ChannelSender::loan_by`].
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>> {
        self.loan_by(len, Deadline::Never)
    }

    /// Lends `len` bytes of shared memory for a message, waiting until `deadline` for what the other side has still to give back.
    /// Who lends from both sides and waits without a deadline on both, while neither receives, waits for ever.
    ///
    /// Memory that loans have used stays with the channel until it closes.
    ///
    /// # Errors
    ///
    /// [`Error::LoansOut`] with the loans that are out, when the time is up. [`Error::TooLong`] for more than the limit. An error
    /// for which [`Error::is_peer_gone`] holds when the other side has closed or exited. [`Error::Unsupported`] before Linux
    /// 5.1, and in a child made by fork. EMFILE, ENOMEM.
    pub fn loan_by(&mut self, len: usize, deadline: Deadline) -> Result<Loan<'_>> {
        self.link.check_owner()?;
        self.check_receiver()?;
        // One that was forgotten instead of dropped: nothing borrows from it any more.
        self.lender.drop_held();
        self.lender.prepare(len, &self.link)?;
        let range = match self.lender.try_lend(len, &self.link.desks.outgoing().loans)? {
            Some(range) => range,
            None => {
                let strategy = self.strategy;
                let Self { ring, link, lender, .. } = self;
                wait(&mut Room { lender, ring, link, bytes: len }, strategy, deadline)?
            }
        };
        Ok(Loan { sender: self, range })
    }

    /// Sets how much memory there is for loans of this side, [`DEFAULT_LOAN_LIMIT_BYTES`] at first; it is taken when it is used.
    /// A receiver maps no more than what the longest message is that it takes, or [`DEFAULT_LOAN_LIMIT_BYTES`] if that is more.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] after the first loan, and for 0.
    pub fn set_loan_limit_bytes(&mut self, limit_bytes: usize) -> Result<()> {
        self.lender.set_limit_bytes(limit_bytes, &self.link.object)
    }

    fn send_loan(&mut self, range: &Range<usize>, deadline: Deadline) -> Result<()> {
        self.begin(deadline)?;
        let slip = self.lender.slip(range).to_bytes();
        self.put_in_ring(range.len(), deadline, |ring, slice| ring.send_offer(&slip, slice))?;
        self.lender.sent();
        self.link.counters.count_sent(Path::Loan, range.len());
        Ok(())
    }
}
