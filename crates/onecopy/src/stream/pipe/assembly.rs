//! The messages that have begun and not ended, by their writers.

use std::collections::HashMap;

use super::frame::{Frame, Place};
use super::unfinished::{Loss, Unfinished};
use crate::{Error, Result};

/// The longest message that is collected unless [`MessageReader::set_limit_bytes`](super::MessageReader::set_limit_bytes) says
/// otherwise.
pub const DEFAULT_LIMIT_BYTES: usize = 1 << 30;
/// How much all messages that have begun may take, unless
/// [`MessageReader::set_total_limit_bytes`](super::MessageReader::set_total_limit_bytes) says otherwise.
pub const DEFAULT_TOTAL_LIMIT_BYTES: usize = 2 << 30;
/// How many writers are remembered when they have no message under way, in all some dozen kilobytes. Of a forgotten one, an old
/// frame that comes again is not known for one.
const REMEMBERED_WRITERS: usize = 1024;
/// What a message under way costs besides its bytes, so that many that have hardly begun are bounded too.
const OVERHEAD_BYTES: usize = 256;
/// How many buffers are kept for messages that will come, and how long each may be.
const SPARES: usize = 4;
const SPARE_BYTES: usize = 16 << 20;

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It begins a message. `known` says that its writer was heard of before.
    Begins { known: bool },
    /// It goes on with a message.
    GoesOn,
    /// It belongs to a message that was reported as lost.
    GivenUp,
    /// It has come before, or cannot be.
    Foreign,
}

#[derive(Debug)]
struct Writer {
    /// The number of the next message that can begin.
    next: u64,
    /// Whether the message before that was reported as lost, so that the rest of it is no news.
    given_up: bool,
    /// When it was heard of last, in frames.
    seen: u64,
    unfinished: Option<Unfinished>,
}

impl Writer {
    /// What a frame of message `number` is, which is over.
    fn old(&self, number: u64) -> Admission {
        let is_given_up = self.given_up && self.unfinished.is_none() && number + 1 == self.next;
        if is_given_up { Admission::GivenUp } else { Admission::Foreign }
    }
}

#[derive(Debug)]
pub(super) struct Assemblies {
    object: String,
    writers: HashMap<u64, Writer>,
    /// How many of them have a message under way.
    under_way: usize,
    /// How many of those processes were found gone.
    doomed: usize,
    frames: u64,
    held_bytes: usize,
    limit_bytes: usize,
    total_limit_bytes: usize,
    spares: Vec<Vec<u8>>,
}

impl Assemblies {
    pub(super) fn new(object: &str) -> Self {
        Self {
            object: object.into(),
            writers: HashMap::new(),
            under_way: 0,
            doomed: 0,
            frames: 0,
            held_bytes: 0,
            limit_bytes: DEFAULT_LIMIT_BYTES,
            total_limit_bytes: DEFAULT_TOTAL_LIMIT_BYTES,
            spares: Vec::new(),
        }
    }

    pub(super) fn set_limits(&mut self, limit_bytes: Option<usize>, total_limit_bytes: Option<usize>) {
        self.limit_bytes = limit_bytes.unwrap_or(self.limit_bytes);
        self.total_limit_bytes = total_limit_bytes.unwrap_or(self.total_limit_bytes);
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// What to do with `frame`; `streamed` says that a message that begins with it is passed on as it comes. An error reports what
    /// was lost, once: then the same frame is asked for again.
    pub(super) fn admit(&mut self, frame: &Frame, streamed: bool) -> Result<Admission> {
        self.frames += 1;
        match frame.place {
            Place::First { total } => self.admit_first(frame, total, streamed),
            Place::At(offset) => self.admit_next(frame, offset),
        }
    }

    fn admit_first(&mut self, frame: &Frame, total: Option<u64>, streamed: bool) -> Result<Admission> {
        let known = self.writers.get_mut(&frame.writer);
        let is_known = known.is_some();
        if let Some(writer) = known {
            writer.seen = self.frames;
            if frame.number < writer.next {
                return Ok(writer.old(frame.number));
            }
            if writer.unfinished.is_some() {
                return Err(self.give_up(frame.writer, Loss::Abandoned));
            }
            if frame.number > writer.next {
                let missing = writer.next..frame.number;
                writer.next = frame.number;
                return Err(self.corrupt(Loss::Messages(missing).text(frame.number, &frame.origin, 0, None)));
            }
        }
        let needed = if streamed { 0 } else { total.unwrap_or(frame.payload_bytes as u64) };
        let held_bytes = self.reserve(needed, 0).inspect_err(|_| self.ignore(frame))?;
        self.forget_old_writers();
        let unfinished = Unfinished::new(frame, total, held_bytes, streamed);
        let writer =
            Writer { next: frame.number + 1, given_up: false, seen: self.frames, unfinished: Some(unfinished) };
        self.writers.insert(frame.writer, writer);
        self.held_bytes += held_bytes;
        self.under_way += 1;
        Ok(Admission::Begins { known: is_known })
    }

    fn admit_next(&mut self, frame: &Frame, offset: u64) -> Result<Admission> {
        let Some(writer) = self.writers.get_mut(&frame.writer) else {
            return Err(self.missed(frame));
        };
        writer.seen = self.frames;
        let Some(unfinished) = &writer.unfinished else {
            return match frame.number {
                number if number >= writer.next => Err(self.missed(frame)),
                number => Ok(writer.old(number)),
            };
        };
        if frame.number < unfinished.number || (frame.number == unfinished.number && offset < unfinished.filled) {
            return Ok(Admission::Foreign);
        }
        if frame.number > unfinished.number {
            return Err(self.give_up(frame.writer, Loss::Abandoned));
        }
        if offset > unfinished.filled {
            return Err(self.give_up(frame.writer, Loss::Bytes(offset)));
        }
        if !unfinished.can_take(frame) {
            return Err(self.give_up(frame.writer, Loss::Length));
        }
        self.grow(frame)?;
        Ok(Admission::GoesOn)
    }

    /// Has a message of unknown length take what it needs with `frame`, within the limits.
    fn grow(&mut self, frame: &Frame) -> Result<()> {
        let Some(unfinished) = self.unfinished(frame.writer) else { return Ok(()) };
        if unfinished.total.is_some() || unfinished.streamed {
            return Ok(());
        }
        let (needed, held) = (unfinished.filled + frame.payload_bytes as u64, unfinished.held_bytes);
        if needed <= held as u64 {
            return Ok(());
        }
        // By doubling, so that a long message is not moved for each of its frames.
        let ahead = needed.max(2 * held as u64).min(self.limit_bytes as u64).max(needed);
        let granted = self.reserve(ahead, held).or_else(|_| self.reserve(needed, held));
        let granted = granted.inspect_err(|_| {
            self.remove(frame.writer);
            self.ignore(frame);
        })?;
        self.held_bytes = self.held_bytes - held + granted;
        if let Some(unfinished) = self.unfinished(frame.writer) {
            unfinished.held_bytes = granted;
        }
        Ok(())
    }

    /// Checks that a message may take `bytes` in place of the `held` that it has.
    fn reserve(&self, bytes: u64, held: usize) -> Result<usize> {
        let message_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let refuse = |limit_bytes, remedy: String| {
            Err(Error::TooLong { object: self.object.clone(), message_bytes, limit_bytes, remedy: Some(remedy) })
        };
        if message_bytes > self.limit_bytes {
            return refuse(self.limit_bytes, "it is thrown away; set_limit_bytes raises the limit".into());
        }
        let others = self.held_bytes - held + self.under_way * OVERHEAD_BYTES;
        if message_bytes > self.total_limit_bytes.saturating_sub(others) {
            let remedy = format!(
                "it is thrown away: that is for all messages under way, and others have {others} bytes; \
                 set_total_limit_bytes raises it"
            );
            return refuse(self.total_limit_bytes, remedy);
        }
        Ok(message_bytes)
    }

    /// The rest of the message of `frame` is no news.
    fn ignore(&mut self, frame: &Frame) {
        self.forget_old_writers();
        let writer = Writer { next: frame.number + 1, given_up: true, seen: self.frames, unfinished: None };
        self.writers.insert(frame.writer, writer);
    }

    /// The begin of the message of `frame` never came.
    fn missed(&mut self, frame: &Frame) -> Error {
        self.ignore(frame);
        self.corrupt(Loss::Begin.text(frame.number, &frame.origin, frame.offset(), None))
    }

    /// The message of `writer` that is under way will not be completed.
    pub(super) fn give_up(&mut self, writer: u64, loss: Loss) -> Error {
        let Some(lost) = self.remove(writer) else { return self.corrupt("a message is missing".into()) };
        if let Some(writer) = self.writers.get_mut(&writer) {
            writer.given_up = true;
        }
        let detail = loss.text(lost.number, &lost.origin, lost.filled, lost.total);
        let is_gone = loss == Loss::Gone;
        self.put_aside(lost.place);
        if is_gone { Error::PeerGone { object: self.object.clone(), detail } } else { self.corrupt(detail) }
    }

    /// Forgets a message that began with a frame that was none in the end.
    pub(super) fn retract(&mut self, frame: &Frame, known: bool) {
        if let Some(unfinished) = self.remove(frame.writer) {
            self.put_aside(unfinished.place);
        }
        if !known {
            self.writers.remove(&frame.writer);
        } else if let Some(writer) = self.writers.get_mut(&frame.writer) {
            writer.next = frame.number;
        }
    }

    pub(super) fn unfinished(&mut self, writer: u64) -> Option<&mut Unfinished> {
        self.writers.get_mut(&writer)?.unfinished.as_mut()
    }

    /// Where the payload of `frame`, which was admitted, goes, with room for what follows it in its message; and whether the message
    /// ends with that.
    pub(super) fn target(&mut self, frame: &Frame) -> (&mut [u8], bool) {
        let spare = self.spares.pop().unwrap_or_default();
        let Some(unfinished) = self.writers.get_mut(&frame.writer).and_then(|writer| writer.unfinished.as_mut()) else {
            return (&mut [], false);
        };
        if unfinished.place.is_empty() {
            unfinished.place = spare;
        } else {
            self.spares.push(spare);
        }
        unfinished.target(frame.payload_bytes)
    }

    /// The message of `writer`, which has ended; its length still counts until [`Assemblies::release`].
    pub(super) fn finish(&mut self, writer: u64) -> Option<Unfinished> {
        let unfinished = self.remove(writer)?;
        self.held_bytes += unfinished.held_bytes;
        Some(unfinished)
    }

    /// What a message held is free.
    pub(super) fn release(&mut self, held_bytes: usize) {
        self.held_bytes -= held_bytes;
    }

    /// Keeps a buffer for a message that will come.
    pub(super) fn put_aside(&mut self, buffer: Vec<u8>) {
        if self.spares.len() < SPARES && (1..=SPARE_BYTES).contains(&buffer.len()) {
            self.spares.push(buffer);
        }
    }

    /// Whether a message is under way of another writer than `writer`.
    pub(super) fn has_others_than(&mut self, writer: Option<u64>) -> bool {
        let own = writer.is_some_and(|writer| self.unfinished(writer).is_some());
        self.under_way > usize::from(own)
    }

    /// Marks the messages whose processes are gone. What those have written comes before `end`.
    pub(super) fn look(&mut self, here: u64, end: impl Fn() -> Option<u64>) {
        for unfinished in self.writers.values_mut().filter_map(|writer| writer.unfinished.as_mut()) {
            if unfinished.doomed_at.is_none() && unfinished.origin.is_gone(here) {
                unfinished.doomed_at = end();
                self.doomed += usize::from(unfinished.doomed_at.is_some());
            }
        }
    }

    /// A writer that is gone, and of which everything came that is before `position`.
    pub(super) fn buried(&self, position: u64) -> Option<u64> {
        if self.doomed == 0 {
            return None;
        }
        let is_over = |unfinished: &Unfinished| unfinished.doomed_at.is_some_and(|end| position >= end);
        let over = self.writers.iter().find(|(_, writer)| writer.unfinished.as_ref().is_some_and(is_over));
        over.map(|(writer, _)| *writer)
    }

    /// The writer of the message that has been under way without a frame for longest.
    pub(super) fn oldest(&self) -> Option<u64> {
        let under_way = self.writers.iter().filter(|(_, writer)| writer.unfinished.is_some());
        under_way.min_by_key(|(_, writer)| writer.seen).map(|(writer, _)| *writer)
    }

    fn remove(&mut self, writer: u64) -> Option<Unfinished> {
        let unfinished = self.writers.get_mut(&writer)?.unfinished.take()?;
        self.under_way -= 1;
        self.doomed -= usize::from(unfinished.doomed_at.is_some());
        self.held_bytes -= unfinished.held_bytes;
        Some(unfinished)
    }

    /// Forgets half of the writers without a message under way when there are too many of them.
    fn forget_old_writers(&mut self) {
        if self.writers.len() - self.under_way < REMEMBERED_WRITERS {
            return;
        }
        let idle = self.writers.values().filter(|writer| writer.unfinished.is_none());
        let mut seen: Vec<u64> = idle.map(|writer| writer.seen).collect();
        let (_, median, _) = seen.select_nth_unstable(REMEMBERED_WRITERS / 2);
        let median = *median;
        self.writers.retain(|_, writer| writer.unfinished.is_some() || writer.seen > median);
    }

    fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt { object: self.object.clone(), detail }
    }
}
