//! What a program would write over shared memory for messages whose sizes both sides know: one counter for what was put in,
//! one for what was taken out, memcpy between them, and a futex for whoever has to wait.
//!
//! It is the equivalent of a plain loop where there is no system call to loop over. It moves as much at a time as our ring
//! does ([`PIECE_BYTES`]), through as large a buffer, and waits in the same ways; it knows nothing of processes that die, of
//! peers that write nonsense, of lengths or of deadlines.
//!
//! # Safety
//!
//! The bytes between the two counters belong to one side at a time: the sender writes only what the receiver has taken out,
//! and the receiver reads only what the sender has put in, as the counters say. Both sides are this program and keep to that.
#![expect(unsafe_code, reason = "copies to and from shared memory")]

use std::ptr;

use onecopy::memory::ring::{PIECE_BYTES, RING_BYTES};
use onecopy::{Deadline, Receiver, Result, Sender};

use super::mapping::{HEAD_BYTES, Mapping};
use crate::options::Wait;

/// As much as our ring holds.
const BUFFER_BYTES: usize = 16 * PIECE_BYTES;
/// The length that is mapped. The memory was made for our ring, which needs more.
pub(crate) const RING_MAPPING_BYTES: usize = HEAD_BYTES + BUFFER_BYTES;

const _: () = assert!(RING_MAPPING_BYTES <= RING_BYTES);

/// One side of the plain ring.
pub(crate) struct Ring {
    mapping: Mapping,
    wait: Wait,
    /// How many bytes this side has put in, or taken out.
    position: u64,
    /// What the other side's counter said when this side last had to look.
    seen: u64,
}

impl Ring {
    /// One side over a mapping of [`RING_MAPPING_BYTES`].
    pub(crate) fn new(mapping: Mapping, wait: Wait) -> Self {
        Self { mapping, wait, position: 0, seen: 0 }
    }

    /// Where this side goes on, and how many bytes follow before the buffer wraps.
    fn place(&self) -> (*mut u8, usize) {
        let offset = (self.position % BUFFER_BYTES as u64) as usize;
        (self.mapping.at(offset), BUFFER_BYTES - offset)
    }
}

impl Sender for Ring {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        for piece in message.chunks(PIECE_BYTES) {
            let mut sent = 0;
            while sent < piece.len() {
                if self.position - self.seen == BUFFER_BYTES as u64 {
                    self.seen = self.mapping.head().taken.wait_past(self.seen, self.wait);
                }
                let room = BUFFER_BYTES - (self.position - self.seen) as usize;
                let (target, before_end) = self.place();
                let count = room.min(before_end).min(piece.len() - sent);
                // SAFETY: `count` bytes at `target` lie in the buffer, and the receiver has taken out what was there; `piece`
                // is private and has `count` bytes from `sent` on.
                unsafe { ptr::copy_nonoverlapping(piece[sent..].as_ptr(), target, count) };
                self.position += count as u64;
                sent += count;
            }
            self.mapping.head().put.raise(self.position);
        }
        Ok(())
    }
}

impl Receiver for Ring {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        let mut received = 0;
        while received < buffer.len() {
            if self.seen == self.position {
                self.seen = self.mapping.head().put.wait_past(self.position, self.wait);
            }
            let there = (self.seen - self.position) as usize;
            let (source, before_end) = self.place();
            let count = there.min(before_end).min(PIECE_BYTES).min(buffer.len() - received);
            // SAFETY: `count` bytes at `source` lie in the buffer, and the sender has put them in; `buffer` is private and has
            // `count` bytes from `received` on.
            unsafe { ptr::copy_nonoverlapping(source, buffer[received..].as_mut_ptr(), count) };
            self.position += count as u64;
            received += count;
            self.mapping.head().taken.raise(self.position);
        }
        Ok(Some(received))
    }
}
