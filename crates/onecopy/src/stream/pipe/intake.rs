//! Bytes in, frames out.
//!
//! A header is read before its payload, so that the payload goes from the pipe straight to its place in its message. What follows
//! a frame is read with it by the same call: the next header, and, where the last frames came in a row, the next frames of the
//! message, each payload behind the other in its place and each header aside. When the guess was wrong, because a frame
//! of another writer came in between, and only then, bytes are moved.

use std::io::IoSliceMut;
use std::ops::Range;

use super::frame::{Frame, HEADER_BYTES, MAGIC, PAYLOAD_BYTES};
use crate::stream::ByteReader;
use crate::{Deadline, Result, tally};

/// How much is read ahead where messages are small, so that many of them share a system call: what a pipe holds by default.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// The most frames of one message that are guessed to follow: with them a call empties a pipe of the default capacity.
const GUESSES: usize = 15;
/// Foreign bytes are reported together up to this many, so that the report of an endless stream of them comes some time.
const REPORTED_TOGETHER_BYTES: u64 = 1 << 20;

type HeaderBytes = [u8; HEADER_BYTES];

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A frame, whose payload [`Intake::fill`] takes.
    Frame(Frame),
    /// So many bytes were no frame.
    Skipped(u64),
    End,
}

/// What came into the place of a frame's payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many bytes of the message, of this frame and of those that were guessed; `last` says that they end it.
    Bytes { bytes: usize, last: bool },
    /// The payload is not that of the header: the bytes are looked through for another frame.
    Rejected,
}

#[derive(Debug)]
pub(super) struct Intake<R> {
    stream: R,
    /// What was read and not yet used lies from `start` to `end`.
    ahead: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes the stream has given.
    taken: u64,
    /// How many of them were no frame, and not reported yet.
    skipped: u64,
    /// How many frames of a message are guessed to follow one.
    guesses: usize,
    /// Whether the stream is read ahead of its headers.
    bulk: bool,
    headers: Box<[HeaderBytes; GUESSES]>,
}

impl<R: ByteReader> Intake<R> {
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            ahead: vec![0; READ_AHEAD_BYTES],
            start: 0,
            end: 0,
            taken: 0,
            skipped: 0,
            guesses: 0,
            bulk: false,
            headers: Box::new([[0; HEADER_BYTES]; GUESSES]),
        }
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.stream
    }

    pub(super) fn into_inner(self) -> R {
        self.stream
    }

    /// Whether messages are small from now on, so that to read many of them at once is worth the copy that it costs.
    pub(super) fn expect_small(&mut self, small: bool) {
        self.bulk = small;
    }

    /// How many bytes of the stream were used.
    pub(super) fn position(&self) -> u64 {
        self.taken - (self.end - self.start) as u64
    }

    /// How many bytes of the stream there are until now, where it can tell.
    pub(super) fn known_end(&self) -> Option<u64> {
        self.stream.queued_bytes().map(|queued| self.taken + queued)
    }

    /// The next frame, which stays next until its payload is taken.
    pub(super) fn next(&mut self, deadline: Deadline) -> Result<Next> {
        loop {
            let found = self.find();
            if self.skipped > 0 && (found.is_some() || self.skipped >= REPORTED_TOGETHER_BYTES) {
                return Ok(Next::Skipped(std::mem::take(&mut self.skipped)));
            }
            if let Some(frame) = found {
                return Ok(Next::Frame(frame));
            }
            // A report does not wait for what comes next.
            let deadline = if self.skipped > 0 { Deadline::Now } else { deadline };
            match self.read_ahead(deadline) {
                Ok(0) => self.skip(self.end - self.start),
                Ok(_) => continue,
                Err(error) if self.skipped > 0 && error.is_out_of_time() => {}
                Err(error) => return Err(error),
            }
            return Ok(match std::mem::take(&mut self.skipped) {
                0 => Next::End,
                skipped => Next::Skipped(skipped),
            });
        }
    }

    /// Takes the payload of `frame`, which is next, into the begin of `target`, the place for its message from there on. `sized`
    /// says that the message ends with `target`.
    ///
    /// An error leaves the frame where it was.
    pub(super) fn fill(&mut self, frame: &Frame, target: &mut [u8], sized: bool, deadline: Deadline) -> Result<Filled> {
        let (from, bytes) = (self.start + HEADER_BYTES, frame.payload_bytes);
        if self.end - from >= bytes {
            return Ok(self.take_ahead(frame, &mut target[..bytes]));
        }
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&self.ahead[self.start..from]);
        let mut got = self.end - from;
        tally::copy(&mut target[..got], &self.ahead[from..self.end]);
        (self.start, self.end) = (0, 0);
        let plan = self.plan(frame, target.len(), sized);
        loop {
            match self.read_planned(&plan, target, got, deadline) {
                Ok(count) if count > 0 && got + count < bytes => got += count,
                Ok(count) if count > 0 => return Ok(self.settle(&plan, &header, target, got + count - bytes)),
                result => {
                    self.put_back(&[&header, &target[..got]]);
                    // What is missing at the end of the stream will never come.
                    return result.map(|_| self.reject());
                }
            }
        }
    }

    /// Takes a payload that was read ahead.
    fn take_ahead(&mut self, frame: &Frame, target: &mut [u8]) -> Filled {
        let from = self.start + HEADER_BYTES;
        let payload = &self.ahead[from..from + target.len()];
        if !frame.fits(payload) {
            return self.reject();
        }
        tally::copy(target, payload);
        self.start = from + target.len();
        Filled::Bytes { bytes: target.len(), last: frame.last }
    }

    /// The frame that begins what was read and not yet used; what is none is skipped.
    fn find(&mut self) -> Option<Frame> {
        while self.start < self.end {
            let bytes = &self.ahead[self.start..self.end];
            let begin = bytes.len().min(MAGIC.len());
            if bytes[..begin] == MAGIC[..begin] {
                let header = bytes.get(..HEADER_BYTES)?;
                if let Some(frame) = Frame::parse(header) {
                    return Some(frame);
                }
            }
            self.skip_one();
        }
        None
    }

    /// Skips to where the next frame could begin.
    fn skip_one(&mut self) {
        let next = self.ahead[self.start..self.end].iter().skip(1).position(|byte| *byte == MAGIC[0]);
        self.skip(next.map_or(self.end - self.start, |next| next + 1));
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.skipped += bytes as u64;
        self.bulk |= bytes > 0;
    }

    /// What seemed to be a frame is none.
    fn reject(&mut self) -> Filled {
        self.skip_one();
        Filled::Rejected
    }

    /// Counts the frame that was taken last as foreign bytes.
    pub(super) fn disown(&mut self, frame: &Frame) {
        self.skipped += (HEADER_BYTES + frame.payload_bytes) as u64;
    }

    /// Reads at least the rest of a header; 0 is the end.
    fn read_ahead(&mut self, deadline: Deadline) -> Result<usize> {
        let held = self.end - self.start;
        self.ahead.copy_within(self.start..self.end, 0);
        tally::count_user(held);
        (self.start, self.end) = (0, held);
        let until = if self.bulk { self.ahead.len() } else { HEADER_BYTES };
        let count = self.stream.read_by(&mut self.ahead[held..until], deadline)?;
        self.end += count;
        self.taken += count as u64;
        Ok(count)
    }

    /// What one call reads from the payload of `frame` on.
    fn plan(&self, frame: &Frame, target_bytes: usize, sized: bool) -> Plan {
        let behind = if frame.last { 0 } else { target_bytes - frame.payload_bytes };
        // Without the length of the message, no frame but a full one can be guessed.
        let pieces = if sized { behind.div_ceil(PAYLOAD_BYTES) } else { behind / PAYLOAD_BYTES };
        let guesses = pieces.min(self.guesses);
        let ends = frame.last || (sized && guesses == pieces);
        let tail_bytes = if ends && self.bulk { READ_AHEAD_BYTES } else { HEADER_BYTES };
        Plan { frame: *frame, target_bytes, sized, guesses, tail_bytes }
    }

    fn read_planned(&mut self, plan: &Plan, target: &mut [u8], got: usize, deadline: Deadline) -> Result<usize> {
        let (payload, mut behind) = target.split_at_mut(plan.frame.payload_bytes);
        let mut slices = Vec::with_capacity(2 + 2 * plan.guesses);
        slices.push(IoSliceMut::new(&mut payload[got..]));
        for header in &mut self.headers[..plan.guesses] {
            let (piece, rest) = behind.split_at_mut(behind.len().min(PAYLOAD_BYTES));
            slices.extend([IoSliceMut::new(header), IoSliceMut::new(piece)]);
            behind = rest;
        }
        slices.push(IoSliceMut::new(&mut self.ahead[..plan.tail_bytes]));
        let count = self.stream.read_vectored_by(&mut slices, deadline)?;
        self.taken += count as u64;
        Ok(count)
    }

    /// The payload of the planned frame is there, and `left` bytes behind it: keeps what was guessed right.
    fn settle(&mut self, plan: &Plan, header: &HeaderBytes, target: &[u8], mut left: usize) -> Filled {
        let (frame, mut bytes) = (&plan.frame, plan.frame.payload_bytes);
        if !frame.fits(&target[..bytes]) {
            self.spill(plan, target, 0, left);
            self.put_back(&[header, &target[..bytes]]);
            return self.reject();
        }
        let mut last = frame.last;
        for guess in 0..plan.guesses {
            if left == 0 {
                break;
            }
            let piece = plan.piece(guess);
            let complete = left >= HEADER_BYTES + piece.len();
            let next =
                Frame::parse(&self.headers[guess]).filter(|next| complete && !last && plan.expects(next, &piece));
            let Some(next) = next.filter(|next| next.fits(&target[piece.clone()])) else {
                self.guesses = if complete { 0 } else { self.guesses };
                self.spill(plan, target, guess, left);
                return Filled::Bytes { bytes, last };
            };
            left -= HEADER_BYTES + piece.len();
            (bytes, last) = (piece.end, next.last);
        }
        self.end = left;
        self.guess_more(plan, bytes);
        Filled::Bytes { bytes, last }
    }

    /// All guesses were right, or none was made.
    fn guess_more(&mut self, plan: &Plan, bytes: usize) {
        if plan.guesses > 0 {
            self.guesses = (2 * self.guesses).min(GUESSES);
        } else if !plan.frame.last && self.end >= HEADER_BYTES {
            let next = Frame::parse(&self.ahead[..HEADER_BYTES]);
            let offset = plan.frame.offset() + bytes as u64;
            self.guesses = usize::from(next.is_some_and(|next| next.continues(&plan.frame, offset)));
        }
    }

    /// Brings the `left` bytes that were read from `guess` on back into the order in which they came.
    fn spill(&mut self, plan: &Plan, target: &[u8], guess: usize, mut left: usize) {
        let headers = self.headers.clone();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * (plan.guesses - guess));
        for guess in guess..plan.guesses {
            for part in [&headers[guess][..], &target[plan.piece(guess)]] {
                let part = &part[..part.len().min(left)];
                left -= part.len();
                parts.push(part);
            }
        }
        self.end = left;
        self.put_back(&parts);
    }

    /// Puts `parts` before what was read and not yet used.
    fn put_back(&mut self, parts: &[&[u8]]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let held = self.start..self.end;
        self.end = bytes + held.len();
        if self.ahead.len() < self.end {
            self.ahead.resize(self.end, 0);
        }
        self.ahead.copy_within(held, bytes);
        let mut at = 0;
        for part in parts {
            self.ahead[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.start = 0;
        tally::count_user(self.end);
    }
}

/// What one call reads: the rest of a payload, then frames of its message, as many as are guessed to follow, then more.
#[derive(Debug)]
struct Plan {
    frame: Frame,
    target_bytes: usize,
    sized: bool,
    guesses: usize,
    tail_bytes: usize,
}

impl Plan {
    /// Where in the target the payload of a guessed frame goes.
    fn piece(&self, guess: usize) -> Range<usize> {
        let start = self.frame.payload_bytes + guess * PAYLOAD_BYTES;
        start..(start + PAYLOAD_BYTES).min(self.target_bytes)
    }

    /// Whether `next` is the frame that was guessed for `piece`.
    fn expects(&self, next: &Frame, piece: &Range<usize>) -> bool {
        next.payload_bytes == piece.len()
            && next.continues(&self.frame, self.frame.offset() + piece.start as u64)
            && (!self.sized || next.last == (piece.end == self.target_bytes))
    }
}
