//! The sender's account of its loans.

use std::ops::Range;

use super::super::extents::Extents;
use super::slip::Slip;
use super::{DEFAULT_LOAN_LIMIT_BYTES, GivenBack, LOANS};
use crate::atomic::AtomicU32;
use crate::channel::link::Link;
use crate::channel::passing::{Kind, pass};
use crate::memory::anonymous::exclusive::Exclusive;
use crate::memory::ring::RingSender;
use crate::memory::wait::{Alarm, Wait};
use crate::{Deadline, Error, Result};

/// The name of the memory, as `/proc/PID/maps` shows it.
const MEMORY_NAME: &str = "onecopy-loans";
/// How much may be out before the sender looks whether something came back, though there is room: what was used a moment ago is
/// in the cache, and a look takes the other side's line away.
const EAGER_BYTES: usize = 256 << 10;
/// How often the sender looks for what comes back before it takes pages that were not used before: those cost some microseconds
/// at least, 300 for each MiB, and stay taken.
const LOOKS_BEFORE_GROWTH: u32 = 200;
/// Pages are warmed in steps.
const WARM_BYTES: usize = 64 << 10;

/// The memory for the loans of one direction, and who has which part of it.
#[derive(Debug)]
pub(in crate::channel) struct Lender {
    limit_bytes: usize,
    /// From the first loan on.
    memory: Option<Box<Memory>>,
}

#[derive(Debug)]
struct Memory {
    bytes: Exclusive,
    /// How much of it has pages.
    warm_bytes: usize,
    free: Extents,
    /// By the ticket; of those that are not out, anything.
    out: [Range<usize>; LOANS],
    /// The tickets of loans that were sent and did not come back.
    sent: u64,
    sent_bytes: usize,
    /// The ticket of the loan that this side fills.
    held: Option<u32>,
}

impl Default for Lender {
    fn default() -> Self {
        Self { limit_bytes: DEFAULT_LOAN_LIMIT_BYTES, memory: None }
    }
}

impl Lender {
    pub(super) fn set_limit_bytes(&mut self, limit_bytes: usize, object: &str) -> Result<()> {
        let reason = match &self.memory {
            Some(memory) => format!("loans have begun, with a limit of {} bytes: set it before", memory.bytes.len()),
            None if limit_bytes == 0 => "a limit of 0 bytes for loans leaves none: 1 is the least".to_owned(),
            None => {
                self.limit_bytes = limit_bytes;
                return Ok(());
            }
        };
        Err(Error::Invalid { object: object.into(), reason })
    }

    /// Makes the memory, and passes it to the other side, if there is none yet.
    #[inline]
    pub(super) fn prepare(&mut self, len: usize, link: &Link) -> Result<()> {
        if len > self.limit_bytes {
            return Err(Error::TooLong {
                object: link.object.clone(),
                message_bytes: len,
                limit_bytes: self.limit_bytes,
                remedy: Some("set_loan_limit_bytes sets the limit of loans, before the first".into()),
            });
        }
        if self.memory.is_none() {
            self.memory = Some(Box::new(Memory::create(self.limit_bytes, link)?));
        }
        Ok(())
    }

    /// Takes room for `len` bytes, if there is some or comes back at this moment.
    pub(super) fn try_lend(&mut self, len: usize, given_back: &GivenBack) -> Result<Option<Range<usize>>> {
        let Some(memory) = &mut self.memory else { return Ok(None) };
        if memory.sent_bytes >= EAGER_BYTES {
            memory.collect(given_back);
        }
        if memory.would_grow(len) {
            memory.wait_a_moment(len, given_back);
        }
        if let Some(range) = memory.lend(len)? {
            return Ok(Some(range));
        }
        memory.collect(given_back);
        memory.lend(len)
    }

    /// The room of the loan that is neither sent nor dropped is free again.
    #[inline]
    pub(super) fn drop_held(&mut self) {
        if let Some(memory) = &mut self.memory
            && let Some(ticket) = memory.held.take()
        {
            memory.free.give(memory.out[ticket as usize].clone());
        }
    }

    /// What to put into the ring for the loan that this side fills.
    pub(super) fn slip(&self, range: &Range<usize>) -> Slip {
        let ticket = self.memory.as_ref().and_then(|memory| memory.held).expect("a loan is held until it is sent");
        Slip { ticket, offset: range.start, bytes: range.len() }
    }

    /// The loan that this side filled is the other side's now.
    #[inline]
    pub(super) fn sent(&mut self) {
        if let Some(memory) = &mut self.memory
            && let Some(ticket) = memory.held.take()
        {
            memory.sent |= 1 << ticket;
            memory.sent_bytes += memory.out[ticket as usize].len();
        }
    }

    /// The bytes of a loan.
    #[inline]
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| memory.bytes.slice(range))
    }

    #[inline]
    pub(super) fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], |memory| memory.bytes.slice_mut(range))
    }

    #[cold]
    fn all_out(&self, wanted_bytes: usize, object: &str) -> Error {
        let (loans, loaned_bytes, free_bytes) = self
            .memory
            .as_ref()
            .map_or((0, 0, 0), |memory| (memory.sent.count_ones() as usize, memory.sent_bytes, memory.free.longest()));
        let (object, limit_bytes) = (object.to_owned(), self.limit_bytes);
        Error::LoansOut { object, wanted_bytes, loans, limit_loans: LOANS, loaned_bytes, limit_bytes, free_bytes }
    }
}

impl Memory {
    fn create(limit_bytes: usize, link: &Link) -> Result<Self> {
        // So that a loan as long as the limit has room. A limit that is too long for that is refused there.
        let len = limit_bytes.checked_next_multiple_of(rustix::param::page_size()).unwrap_or(limit_bytes);
        let (bytes, fd) = Exclusive::create(MEMORY_NAME, len)?;
        pass(link, Kind::Loans, &fd)?;
        let free = Extents::new(bytes.len());
        let out = [const { 0..0 }; LOANS];
        Ok(Self { bytes, warm_bytes: 0, free, out, sent: 0, sent_bytes: 0, held: None })
    }

    /// Takes room and a ticket, and holds them.
    #[inline]
    fn lend(&mut self, len: usize) -> Result<Option<Range<usize>>> {
        // The lowest that is free.
        let ticket = self.sent.trailing_ones();
        if ticket as usize >= LOANS {
            return Ok(None);
        }
        let Some(range) = self.free.take(len) else { return Ok(None) };
        if range.end > self.warm_bytes
            && let Err(error) = self.warm(range.end)
        {
            self.free.give(range);
            return Err(error);
        }
        let start = range.start;
        self.out[ticket as usize] = range;
        self.held = Some(ticket);
        Ok(Some(start..start + len))
    }

    /// Whether the room for `len` bytes has no pages yet, and what is out might have.
    #[inline]
    fn would_grow(&self, len: usize) -> bool {
        self.sent != 0
            && self.warm_bytes < self.bytes.len()
            && self.free.lowest(len).is_some_and(|end| end > self.warm_bytes)
    }

    #[cold]
    fn wait_a_moment(&mut self, len: usize, given_back: &GivenBack) {
        for _ in 0..LOOKS_BEFORE_GROWTH {
            std::hint::spin_loop();
            self.collect(given_back);
            if !self.would_grow(len) {
                return;
            }
        }
    }

    #[cold]
    fn warm(&mut self, end: usize) -> Result<()> {
        let end = end.next_multiple_of(WARM_BYTES).min(self.bytes.len());
        self.bytes.warm(self.warm_bytes..end)?;
        self.warm_bytes = end;
        Ok(())
    }

    /// Takes back what the other side has given back.
    #[inline]
    fn collect(&mut self, given_back: &GivenBack) {
        let mut tickets = given_back.take(self.sent);
        self.sent &= !tickets;
        while tickets != 0 {
            let range = self.out[tickets.trailing_zeros() as usize].clone();
            self.sent_bytes -= range.len();
            self.free.give(range);
            tickets &= tickets - 1;
        }
    }
}

/// A sender that waits for loans to come back.
pub(super) struct Room<'a> {
    pub(super) lender: &'a mut Lender,
    pub(super) ring: &'a RingSender,
    pub(super) link: &'a Link,
    pub(super) bytes: usize,
}

impl Wait for Room<'_> {
    type Event = Range<usize>;

    fn poll(&mut self) -> Result<Option<Range<usize>>> {
        let is_closed = self.ring.is_receiver_closed();
        match self.lender.try_lend(self.bytes, &self.link.desks.outgoing().loans)? {
            None if is_closed => Err(self.link.gone("it has closed")),
            range => Ok(range),
        }
    }

    fn check_peer(&mut self) -> Result<()> {
        match self.link.peer.is_gone() {
            true => Err(self.link.gone("its process has exited without closing")),
            false => Ok(()),
        }
    }

    fn is_urgent(&self) -> bool {
        false
    }

    fn alarm(&self) -> Option<&Alarm> {
        Some(self.link.peer.alarm())
    }

    fn word(&self) -> &AtomicU32 {
        &self.link.desks.outgoing().loans.sleeper
    }

    fn out_of_time(&self, _: Deadline) -> Error {
        self.lender.all_out(self.bytes, &self.link.object)
    }
}
