//! The reading side.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::PipeReader;
use super::assembly::{Admission, Assemblies};
use super::frame::{Frame, PAYLOAD_BYTES, Place};
use super::intake::{Filled, Intake, Next};
use super::unfinished::Loss;
use crate::process::Origin;
use crate::stream::ByteReader;
use crate::stream::framed::Part;
use crate::{Deadline, Error, Receiver, Result, tally};

/// How often the processes of unfinished messages are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After so many frames without a pause it is asked whether it is time to look.
const FRAMES_BETWEEN_CLOCKS: u32 = 256;
/// Messages below this are read many at a time.
const SMALL_BYTES: u64 = 2048;

/// Reads the messages that any number of [`MessageWriter`](super::MessageWriter)s write into one pipe or FIFO.
///
/// Messages come in the order in which they end, those of one writer in the order in which it sent them, each whole and once.
/// There is one reader at a time: a pipe gives each byte to one of them.
///
/// What is wrong is an error of one call, and the next call goes on behind it:
///
/// - bytes that are no frame, which another program wrote into the pipe: [`Error::Corrupt`] with their number;
/// - a message whose writer was killed: [`Error::PeerGone`], once, when that is noticed and at the latest at the end of file;
/// - a message of which a part is missing, because it began before this reader came or because another process reads from the
///   pipe: [`Error::Corrupt`];
/// - a message beyond [the limit](MessageReader::set_limit_bytes), or beyond what is left of
///   [that of all messages](MessageReader::set_total_limit_bytes): [`Error::TooLong`].
///
/// No message is ever delivered other than it was sent: frames have checksums, and their places in their messages. Those guard
/// against accidents. A forger who may write to the pipe can write what a writer would have written.
///
/// Nothing is allocated for a message that goes into the caller's buffer, and its bytes are copied once, from the pipe to there,
/// unless a message of another writer ends in the middle. [`Receiver::recv_by`] and [`MessageReader::recv_exchange_by`] copy
/// them once with any number of writers.
#[derive(Debug)]
pub struct MessageReader<R = PipeReader> {
    intake: Intake<R>,
    assemblies: Assemblies,
    /// Messages that have ended and not been delivered: the caller's buffer was too small, or another message goes before them
    /// in parts.
    complete: VecDeque<Complete>,
    /// The writer of the message that is delivered in parts as it comes.
    streaming: Option<u64>,
    /// The writer of the latest frame.
    latest: Option<u64>,
    /// Whether the stream tells how much is in it, without which nobody can be called gone before the end of file.
    can_look: bool,
    here: u64,
    looked: Instant,
    frames_until_clock: u32,
}

#[derive(Debug)]
struct Complete {
    message: Vec<u8>,
    delivered: usize,
    /// Whether a part of the message was delivered, of these bytes or before them.
    begun: bool,
    held_bytes: usize,
}

/// The caller's buffer, and the writer whose message goes straight into it.
struct Direct<'a> {
    buffer: &'a mut [u8],
    owner: Option<u64>,
}

impl Direct<'_> {
    /// No buffer: messages are collected in memory of their own.
    const fn none() -> Direct<'static> {
        Direct { buffer: &mut [], owner: None }
    }
}

/// What one step has brought.
enum Step {
    /// A frame, or a look around.
    Moved,
    /// The end of a message of this writer.
    Ended(u64),
    /// The end of the stream.
    End,
}

impl<R: ByteReader> MessageReader<R> {
    /// Messages from `stream`, the read end of a pipe or a FIFO.
    pub fn new(stream: R) -> Self {
        Self {
            assemblies: Assemblies::new(stream.object()),
            can_look: stream.queued_bytes().is_some(),
            intake: Intake::new(stream),
            complete: VecDeque::new(),
            streaming: None,
            latest: None,
            here: Origin::here(),
            looked: Instant::now(),
            frames_until_clock: FRAMES_BETWEEN_CLOCKS,
        }
    }

    /// Sets the longest message that is collected, in bytes; 1 GiB unless said. A longer one is [`Error::TooLong`], and the others
    /// come.
    pub fn set_limit_bytes(&mut self, limit_bytes: usize) {
        self.assemblies.set_limits(Some(limit_bytes), None);
    }

    /// Sets how much memory all messages together may take that have begun and were not delivered, in bytes; 2 GiB unless said. A
    /// message counts with its full length from its begin on. One that does not fit beside the others is [`Error::TooLong`].
    pub fn set_total_limit_bytes(&mut self, total_limit_bytes: usize) {
        self.assemblies.set_limits(None, Some(total_limit_bytes));
    }

    /// How many messages have begun and not ended.
    pub fn unfinished_messages(&self) -> usize {
        self.assemblies.under_way()
    }

    /// How much messages that have begun, or ended and not been delivered, count against the limit of all.
    pub fn held_bytes(&self) -> usize {
        self.assemblies.held_bytes()
    }

    /// Receives one message and leaves it in `message`, whose memory is used for a message that comes later: in a loop nothing is
    /// allocated, and each byte is copied once, from the pipe to its place, with any number of writers. `false` is the end.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`], without [`Error::BufferTooSmall`].
    pub fn recv_exchange_by(&mut self, message: &mut Vec<u8>, deadline: Deadline) -> Result<bool> {
        let Some(received) = self.recv_by(deadline)? else { return Ok(false) };
        self.assemblies.put_aside(std::mem::replace(message, received));
        Ok(true)
    }

    /// Receives the next part of a message: as much of it as is there and fits `buffer`, waiting until `deadline` for some. `None`
    /// is the end. The message that is delivered comes in bounded memory however long it is; those of other writers that come
    /// meanwhile are collected and go after it.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`], without [`Error::BufferTooSmall`]. When the writer of the message was killed, what was
    /// delivered of it is a fragment; [`MessageReader::is_inside`] tells whether the error is about this message.
    ///
    /// # Panics
    ///
    /// When `buffer` is empty: no progress would be possible.
    pub fn recv_part_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<Part>> {
        assert!(!buffer.is_empty(), "a part needs room for at least one byte");
        loop {
            if let Some(writer) = self.streaming {
                let Some(unfinished) = self.assemblies.unfinished(writer) else {
                    self.streaming = None;
                    continue;
                };
                let bytes = unfinished.fresh().len().min(buffer.len());
                if bytes > 0 {
                    tally::copy(&mut buffer[..bytes], &unfinished.fresh()[..bytes]);
                    unfinished.pass_on(bytes);
                    return Ok(Some(Part { bytes, last: false }));
                }
            } else if let Some(part) = self.part_of_complete(buffer) {
                return Ok(Some(part));
            }
            match self.step(&mut Direct::none(), true, deadline)? {
                Step::Moved if !self.has_fresh() => self.check_time(deadline)?,
                Step::Moved => {}
                Step::End => return Ok(None),
                Step::Ended(writer) => self.put_in_line(writer),
            }
        }
    }

    /// Whether a message was delivered in part by [`MessageReader::recv_part_by`], and more of it is to come.
    pub fn is_inside(&mut self) -> bool {
        match self.streaming {
            Some(writer) => self.assemblies.unfinished(writer).is_some_and(|unfinished| unfinished.was_passed_on()),
            None => self.complete.front().is_some_and(|complete| complete.begun),
        }
    }

    /// The pipe. Bytes that were read ahead, and messages that have begun, are lost.
    pub fn into_inner(self) -> R {
        self.intake.into_inner()
    }

    /// The pipe, to ask it things; reading from it would tear messages.
    pub fn get_ref(&self) -> &R {
        self.intake.get_ref()
    }

    /// A part of the first message in line.
    fn part_of_complete(&mut self, buffer: &mut [u8]) -> Option<Part> {
        let complete = self.complete.front_mut()?;
        let rest = &complete.message[complete.delivered..];
        let bytes = rest.len().min(buffer.len());
        tally::copy(&mut buffer[..bytes], &rest[..bytes]);
        complete.delivered += bytes;
        complete.begun = true;
        let last = complete.delivered == complete.message.len();
        if last && let Some(message) = self.take_complete() {
            self.assemblies.put_aside(message);
        }
        Some(Part { bytes, last })
    }

    /// The first message in line.
    fn take_complete(&mut self) -> Option<Vec<u8>> {
        let complete = self.complete.pop_front()?;
        self.assemblies.release(complete.held_bytes);
        Some(complete.message)
    }

    /// The message of `writer` has ended: it is delivered after those that ended before it, or, when it is delivered in parts,
    /// what is left of it goes first.
    fn put_in_line(&mut self, writer: u64) {
        let Some(unfinished) = self.assemblies.finish(writer) else { return };
        let (held_bytes, begun) = (unfinished.held_bytes, unfinished.was_passed_on());
        let complete = Complete { message: unfinished.into_message(), delivered: 0, begun, held_bytes };
        if self.streaming == Some(writer) {
            self.streaming = None;
            self.complete.push_front(complete);
        } else {
            self.complete.push_back(complete);
        }
    }

    /// Refuses to deliver a message whole of which a part was delivered.
    fn check_whole(&mut self) -> Result<()> {
        if !self.is_inside() {
            return Ok(());
        }
        let reason = "a message that was received in part goes on with recv_part_by".into();
        Err(Error::Invalid { object: self.get_ref().object().into(), reason })
    }

    /// Steps until a message has ended; `None` is the end of the stream.
    fn next_message(&mut self, direct: &mut Direct<'_>, deadline: Deadline) -> Result<Option<u64>> {
        loop {
            match self.step(direct, false, deadline)? {
                Step::Ended(writer) => return Ok(Some(writer)),
                Step::End => return Ok(None),
                Step::Moved => self.check_time(deadline)?,
            }
        }
    }

    /// Fails when the deadline has passed: messages that do not end must not outlast it, however fast their bytes come.
    fn check_time(&self, deadline: Deadline) -> Result<()> {
        if matches!(deadline, Deadline::At(_)) && deadline.has_passed() {
            return Err(Error::out_of_time("receive", self.get_ref().object(), deadline));
        }
        Ok(())
    }

    /// Whether a part of the message that is delivered in parts is there.
    fn has_fresh(&mut self) -> bool {
        let unfinished = self.streaming.and_then(|writer| self.assemblies.unfinished(writer));
        unfinished.is_some_and(|unfinished| !unfinished.fresh().is_empty())
    }

    /// Takes the next frame. `streamed` says that a message that begins is delivered in parts, unless another one is.
    fn step(&mut self, direct: &mut Direct<'_>, streamed: bool, deadline: Deadline) -> Result<Step> {
        self.report_gone()?;
        let patience = self.patience(deadline);
        let frame = match self.intake.next(patience) {
            Ok(Next::Frame(frame)) => frame,
            Ok(Next::Skipped(bytes)) => return Err(self.foreign(bytes)),
            Ok(Next::End) => return self.end(),
            Err(error) if error.is_out_of_time() && !deadline.has_passed() => {
                self.look();
                return Ok(Step::Moved);
            }
            Err(error) if error.is_out_of_time() && self.looked.elapsed() >= LOOK_EVERY => {
                self.look();
                self.report_gone()?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let streamed = streamed && self.streaming.is_none();
        match self.assemblies.admit(&frame, streamed)? {
            Admission::Begins { known } => {
                self.streaming = if streamed { Some(frame.writer) } else { self.streaming };
                let taken = self.take(&frame, direct, deadline);
                if !matches!(taken, Ok(Some(_))) {
                    self.streaming = if streamed { None } else { self.streaming };
                    direct.owner = direct.owner.filter(|owner| *owner != frame.writer);
                    self.assemblies.retract(&frame, known);
                }
                taken.map(|step| step.unwrap_or(Step::Moved))
            }
            Admission::GoesOn => self.take(&frame, direct, deadline).map(|step| step.unwrap_or(Step::Moved)),
            admission => self.drop_payload(&frame, admission == Admission::Foreign, deadline),
        }
    }

    /// Takes the payload of a frame that was admitted, and what comes with it; `None` when it was no frame after all.
    fn take(&mut self, frame: &Frame, direct: &mut Direct<'_>, deadline: Deadline) -> Result<Option<Step>> {
        self.choose_direct(frame, direct);
        let (target, sized) = if direct.owner == Some(frame.writer) {
            let total = self.assemblies.unfinished(frame.writer).and_then(|unfinished| unfinished.total);
            (&mut direct.buffer[frame.offset() as usize..total.unwrap_or(0) as usize], true)
        } else {
            self.assemblies.target(frame)
        };
        let Filled::Bytes { bytes, last } = self.intake.fill(frame, target, sized, deadline)? else { return Ok(None) };
        self.latest = Some(frame.writer);
        let mut filled = 0;
        if let Some(unfinished) = self.assemblies.unfinished(frame.writer) {
            unfinished.filled += bytes as u64;
            filled = unfinished.filled;
        }
        if last {
            self.intake.expect_small(filled < SMALL_BYTES);
        }
        Ok(Some(if last { Step::Ended(frame.writer) } else { Step::Moved }))
    }

    /// Has the message that begins with `frame` go straight into the caller's buffer, if that is free and long enough.
    fn choose_direct(&mut self, frame: &Frame, direct: &mut Direct<'_>) {
        let Place::First { total: Some(total) } = frame.place else { return };
        if direct.owner.is_none() && self.streaming != Some(frame.writer) && total <= direct.buffer.len() as u64 {
            direct.owner = Some(frame.writer);
        }
    }

    /// A frame that is no part of any message.
    fn drop_payload(&mut self, frame: &Frame, is_foreign: bool, deadline: Deadline) -> Result<Step> {
        let mut scratch = [0; PAYLOAD_BYTES];
        let target = &mut scratch[..frame.payload_bytes];
        let filled = self.intake.fill(frame, target, frame.last, deadline)?;
        if is_foreign && filled != Filled::Rejected {
            self.intake.disown(frame);
        }
        Ok(Step::Moved)
    }

    /// The end of the stream. A message that has begun will not be completed.
    fn end(&mut self) -> Result<Step> {
        match self.assemblies.oldest() {
            Some(writer) => Err(self.assemblies.give_up(writer, Loss::Gone)),
            None => Ok(Step::End),
        }
    }

    fn foreign(&self, bytes: u64) -> Error {
        let s = if bytes == 1 { " that is no frame was" } else { "s that are no frame were" };
        let detail = format!("{bytes} byte{s} skipped; does another program write to it?");
        Error::Corrupt { object: self.get_ref().object().into(), detail }
    }

    /// How long a read may wait before the processes of unfinished messages are looked after. When there is but the one whose
    /// frame came last, nobody else writes or the end of file will tell.
    fn patience(&mut self, deadline: Deadline) -> Deadline {
        let watched = self.streaming.is_some() || self.assemblies.has_others_than(self.latest);
        if !watched || !self.can_look {
            return deadline;
        }
        self.frames_until_clock -= 1;
        if self.frames_until_clock == 0 {
            self.frames_until_clock = FRAMES_BETWEEN_CLOCKS;
            if self.looked.elapsed() >= LOOK_EVERY {
                self.look();
            }
        }
        deadline.at_most(LOOK_EVERY)
    }

    /// Looks whose processes are gone.
    fn look(&mut self) {
        self.looked = Instant::now();
        let Self { intake, assemblies, here, .. } = self;
        assemblies.look(*here, || intake.known_end());
    }

    /// Reports a message whose process is gone once everything that it wrote has come.
    fn report_gone(&mut self) -> Result<()> {
        match self.assemblies.buried(self.intake.position()) {
            Some(writer) => Err(self.assemblies.give_up(writer, Loss::Gone)),
            None => Ok(()),
        }
    }

    /// The begin of a message that is in the caller's buffer goes to memory of its own.
    fn settle(&mut self, direct: &Direct<'_>) {
        let Some(unfinished) = direct.owner.and_then(|writer| self.assemblies.unfinished(writer)) else { return };
        let filled = unfinished.filled as usize;
        unfinished.take_over(&direct.buffer[..filled]);
    }

    /// Delivers the first message in line; one that does not fit stays.
    fn deliver(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(complete) = self.complete.front() else { return Ok(None) };
        let (message_bytes, buffer_bytes) = (complete.message.len(), buffer.len());
        let Some(target) = buffer.get_mut(..message_bytes) else {
            let object = self.get_ref().object().into();
            return Err(Error::BufferTooSmall { object, message_bytes, buffer_bytes });
        };
        tally::copy(target, &complete.message);
        if let Some(message) = self.take_complete() {
            self.assemblies.put_aside(message);
        }
        Ok(Some(message_bytes))
    }
}

impl<R: ByteReader> Receiver for MessageReader<R> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.check_whole()?;
        if !self.complete.is_empty() {
            return self.deliver(buffer);
        }
        let mut direct = Direct { buffer, owner: None };
        let ended = self.next_message(&mut direct, deadline);
        match ended {
            Ok(Some(writer)) if direct.owner == Some(writer) => {
                let Some(message) = self.assemblies.finish(writer) else { return Ok(None) };
                self.assemblies.release(message.held_bytes);
                Ok(Some(message.filled as usize))
            }
            Ok(Some(writer)) => {
                self.settle(&direct);
                self.put_in_line(writer);
                self.deliver(direct.buffer)
            }
            other => {
                self.settle(&direct);
                other.map(|_| None)
            }
        }
    }

    fn recv_by(&mut self, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        self.check_whole()?;
        if self.complete.is_empty() {
            let Some(writer) = self.next_message(&mut Direct::none(), deadline)? else { return Ok(None) };
            self.put_in_line(writer);
        }
        Ok(self.take_complete())
    }

    fn object(&self) -> &str {
        self.intake.get_ref().object()
    }
}
