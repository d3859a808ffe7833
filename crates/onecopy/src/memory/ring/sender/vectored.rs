//! Messages that lie in several parts: each goes from where it is into the ring.

use std::io::IoSlice;

use super::stores::{self, LEAST_PART_BYTES};
use super::{Rest, RingSender};
use crate::memory::ring::layout::{INLINE_MESSAGE_BYTES, Ring};
use crate::{Deadline, Result, Sender as _, tally};

impl RingSender {
    /// Sends `parts`, of `total` bytes together, one after the other as one message.
    pub(crate) fn send_vectored_by(&mut self, parts: &[IoSlice<'_>], total: usize, deadline: Deadline) -> Result<()> {
        let mut left = Left { parts, offset: 0 };
        if total <= INLINE_MESSAGE_BYTES {
            let (mut message, mut filled) = ([0; INLINE_MESSAGE_BYTES], 0);
            left.take(total, |part| {
                tally::copy(&mut message[filled..filled + part.len()], part);
                filled += part.len();
            });
            return self.send_by(&message[..total], deadline);
        }
        self.flush_by(deadline)?;
        let mut sent = 0;
        while sent < total {
            let put = |ring: &Ring, past_caches, mut position: u64, bytes: usize| {
                left.take(bytes, |part| {
                    stores::put(ring, past_caches && part.len() >= LEAST_PART_BYTES, position, part);
                    position += part.len() as u64;
                });
            };
            match self.send_piece_by(put, total - sent, sent == 0, total as u64, deadline) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.is_out_of_time() && sent > 0 => {
                    let mut bytes = Vec::with_capacity(total - sent);
                    left.take(total - sent, |part| tally::append(&mut bytes, part));
                    self.rest = Some(Rest { bytes, sent: 0, total: total as u64 });
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The parts that are not in the ring yet.
struct Left<'a> {
    parts: &'a [IoSlice<'a>],
    /// How much of the first of them is.
    offset: usize,
}

impl Left<'_> {
    /// Calls `each` with the next `bytes`, part by part.
    fn take(&mut self, mut bytes: usize, mut each: impl FnMut(&[u8])) {
        while bytes > 0
            && let Some(first) = self.parts.first()
        {
            let rest = &first[self.offset..];
            let part = &rest[..rest.len().min(bytes)];
            bytes -= part.len();
            if part.len() == rest.len() {
                (self.parts, self.offset) = (&self.parts[1..], 0);
            } else {
                self.offset += part.len();
            }
            each(part);
        }
    }
}
