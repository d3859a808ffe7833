//! A message that has begun and not ended, and how it can be lost.

use std::ops::Range;

use super::frame::{Frame, PAYLOAD_BYTES};
use crate::process::Origin;
use crate::tally;

/// The room that a message of unknown length gets at once: what one call brings from a full pipe of the default capacity.
const WINDOW_BYTES: usize = 16 * PAYLOAD_BYTES;

#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) number: u64,
    pub(super) origin: Origin,
    /// Its length, where its writer knew it.
    pub(super) total: Option<u64>,
    /// How many bytes of it came.
    pub(super) filled: u64,
    /// What came of it, from its byte `base` on, up to `filled`; the rest is room. Empty while the bytes go to the caller's buffer.
    pub(super) place: Vec<u8>,
    base: u64,
    /// How much it counts against the limit of all.
    pub(super) held_bytes: usize,
    /// Whether its bytes are passed on as they come.
    pub(super) streamed: bool,
    /// Its process is gone, and what that had written lies before this position of the stream.
    pub(super) doomed_at: Option<u64>,
}

impl Unfinished {
    pub(super) fn new(frame: &Frame, total: Option<u64>, held_bytes: usize, streamed: bool) -> Self {
        Self {
            number: frame.number,
            origin: frame.origin,
            total,
            filled: 0,
            place: Vec::new(),
            base: 0,
            held_bytes,
            streamed,
            doomed_at: None,
        }
    }

    /// Whether the next frame, which lies where it should, agrees with the length of the message.
    pub(super) fn can_take(&self, frame: &Frame) -> bool {
        let end = self.filled + frame.payload_bytes as u64;
        self.total.is_none_or(|total| end <= total && frame.last == (end == total))
    }

    /// The place from `filled` on for a payload, with what room there is for the frames behind it; and whether the message ends with
    /// that room.
    pub(super) fn target(&mut self, payload_bytes: usize) -> (&mut [u8], bool) {
        let start = (self.filled - self.base) as usize;
        let rest = self.total.map(|total| (total - self.filled) as usize);
        let room = match rest {
            Some(rest) if !self.streamed => rest,
            Some(rest) => rest.min(payload_bytes + WINDOW_BYTES),
            None if self.streamed => payload_bytes + WINDOW_BYTES,
            None => self.held_bytes - start,
        };
        // Of a message that does not end there, whole frames.
        let ends = rest == Some(room);
        let room = if ends { room } else { room - (room - payload_bytes) % PAYLOAD_BYTES };
        if self.place.len() < start + room {
            self.grow_place(start + room);
        }
        (&mut self.place[start..start + room], ends)
    }

    fn grow_place(&mut self, bytes: usize) {
        if self.place.is_empty() {
            // Zeros from the system are there without being written.
            self.place = vec![0; bytes];
        } else {
            self.place.resize(bytes, 0);
        }
    }

    /// Takes over the begin of the message, which went to the caller's buffer.
    pub(super) fn take_over(&mut self, begin: &[u8]) {
        let total = self.total.map_or(begin.len(), |total| total as usize);
        self.grow_place(total.max(self.place.len()));
        tally::copy(&mut self.place[..begin.len()], begin);
    }

    /// What came and was not passed on yet.
    pub(super) fn fresh(&self) -> &[u8] {
        &self.place[..(self.filled - self.base) as usize]
    }

    /// The first `bytes` of [`Unfinished::fresh`] were passed on.
    pub(super) fn pass_on(&mut self, bytes: usize) {
        let fresh = self.fresh().len();
        if bytes < fresh {
            self.place.copy_within(bytes..fresh, 0);
            tally::count_user(fresh - bytes);
        }
        self.base += bytes as u64;
    }

    /// Whether a part of it was passed on.
    pub(super) fn was_passed_on(&self) -> bool {
        self.base > 0
    }

    /// The whole message, or what was not passed on of it.
    pub(super) fn into_message(mut self) -> Vec<u8> {
        self.place.truncate((self.filled - self.base) as usize);
        self.place
    }
}

/// How a message can be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its process is gone, or nobody writes any more.
    Gone,
    /// The next message of its writer came.
    Abandoned,
    /// What lies before this byte is missing.
    Bytes(u64),
    /// It is not as long as it should be.
    Length,
    /// It began before this reader came, or its begin went elsewhere.
    Begin,
    /// Whole messages are missing.
    Messages(Range<u64>),
}

impl Loss {
    /// A sentence about message `number` of the process `origin`, of which `filled` bytes came.
    pub(super) fn text(&self, number: u64, origin: &Origin, filled: u64, total: Option<u64>) -> String {
        let process = process_of(origin);
        let of_total = total.map_or_else(|| " bytes".into(), |total| format!(" of {total} bytes"));
        let begun = format!("message {number} of {process} was left after {filled}{of_total}");
        match self {
            Self::Gone => begun,
            Self::Abandoned => format!("{begun}, and its writer went on with the next one"),
            Self::Bytes(next) => {
                format!(
                    "bytes {filled} to {next} of message {number} of {process} are missing; is there another reader?"
                )
            }
            Self::Length => {
                format!("message {number} of {process} is not as long as it was announced: {filled}{of_total}")
            }
            Self::Begin => {
                format!(
                    "message {number} of {process} has begun without this reader: its first {filled} bytes are missing"
                )
            }
            Self::Messages(missing) if missing.end - missing.start == 1 => {
                format!("message {} of {process} is missing; is there another reader?", missing.start)
            }
            Self::Messages(missing) => format!(
                "messages {} to {} of {process} are missing; is there another reader?",
                missing.start,
                missing.end - 1
            ),
        }
    }
}

/// Who wrote a message, for people.
fn process_of(origin: &Origin) -> String {
    match origin.pid {
        0 => "an unknown process".into(),
        pid => format!("process {pid}"),
    }
}
