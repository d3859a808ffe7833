//! Putting together a message that the kernel delivers in pieces, each call storing some bytes and saying whether they were
//! the last of their message (MSG_EOR).
//!
//! A message that arrives in one piece and fits goes straight into the caller's buffer. Any other is collected here, so that
//! neither a deadline in the middle nor a buffer that is too small loses a byte.

use std::io::IoSliceMut;

use super::inbox::too_small;
use crate::{Error, Result, tally};

/// What one call may store beyond the caller's buffer.
const SPILL_BYTES: usize = 64 * 1024;

/// What one call brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many bytes were stored; 0 is the end of the connection, since no message here is empty.
    pub(super) bytes: usize,
    /// Whether they were the last of their message.
    pub(super) completes: bool,
}

#[derive(Debug, Default)]
pub(super) struct Assembly {
    spill: Vec<u8>,
    /// The message that was begun, or, when `complete`, the one that waits for a larger buffer.
    begun: Vec<u8>,
    complete: bool,
}

impl Assembly {
    /// Receives one message by calls of `receive`; `None` is the end of the connection.
    pub(super) fn recv(
        &mut self,
        buffer: &mut [u8],
        object: &str,
        mut receive: impl FnMut(&mut [IoSliceMut<'_>]) -> Result<Piece>,
    ) -> Result<Option<usize>> {
        if self.begun.is_empty() {
            let piece = self.fill(buffer, &mut receive)?;
            if piece.bytes == 0 {
                return Ok(None);
            }
            if piece.completes && piece.bytes <= buffer.len() {
                return Ok(Some(piece.bytes));
            }
            self.keep(buffer, piece);
        }
        while !self.complete {
            let piece = self.fill(&mut [], &mut receive)?;
            if piece.bytes == 0 {
                return Err(self.cut_short(object));
            }
            self.keep(&[], piece);
        }
        self.deliver(buffer, object)
    }

    fn fill(
        &mut self,
        buffer: &mut [u8],
        receive: &mut impl FnMut(&mut [IoSliceMut<'_>]) -> Result<Piece>,
    ) -> Result<Piece> {
        if self.spill.is_empty() {
            self.spill = vec![0; SPILL_BYTES];
        }
        receive(&mut [IoSliceMut::new(buffer), IoSliceMut::new(&mut self.spill)])
    }

    fn keep(&mut self, buffer: &[u8], piece: Piece) {
        let direct = piece.bytes.min(buffer.len());
        tally::append(&mut self.begun, &buffer[..direct]);
        tally::append(&mut self.begun, &self.spill[..piece.bytes - direct]);
        self.complete = piece.completes;
    }

    fn cut_short(&mut self, object: &str) -> Error {
        let bytes = std::mem::take(&mut self.begun).len();
        let detail = format!("the connection ended after {bytes} bytes of a message whose rest did not come");
        Error::PeerGone { object: object.into(), detail }
    }

    fn deliver(&mut self, buffer: &mut [u8], object: &str) -> Result<Option<usize>> {
        let len = self.begun.len();
        if len > buffer.len() {
            return Err(too_small(object, len, buffer.len()));
        }
        tally::copy(&mut buffer[..len], &self.begun);
        self.begun = Vec::new();
        self.complete = false;
        Ok(Some(len))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::Deadline;

    /// A kernel that has pieces to deliver: what does not fit a call stays, as the rest of its message. `None` is a moment
    /// without data.
    struct Kernel(VecDeque<Option<(Vec<u8>, bool)>>);

    impl Kernel {
        fn receive(&mut self, slices: &mut [IoSliceMut<'_>]) -> Result<Piece> {
            let Some(next) = self.0.pop_front() else { return Ok(Piece { bytes: 0, completes: false }) };
            let Some((mut data, last)) = next else { return Err(Error::out_of_time("receive", "o", Deadline::Now)) };
            let mut stored = 0;
            for slice in slices {
                let len = slice.len().min(data.len() - stored);
                slice[..len].copy_from_slice(&data[stored..stored + len]);
                stored += len;
            }
            let rest = data.split_off(stored);
            let completes = last && rest.is_empty();
            if !rest.is_empty() {
                self.0.push_front(Some((rest, last)));
            }
            Ok(Piece { bytes: stored, completes })
        }
    }

    fn message(len: usize, seed: u8) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
    }

    /// Receives everything with a first buffer of `size` bytes, and larger ones only where that is demanded.
    fn receive_all(kernel: &mut Kernel, size: usize) -> Vec<Vec<u8>> {
        let mut assembly = Assembly::default();
        let mut messages = Vec::new();
        let mut buffer = vec![0; size];
        loop {
            match assembly.recv(&mut buffer, "o", |slices| kernel.receive(slices)) {
                Ok(None) => return messages,
                Ok(Some(len)) => {
                    messages.push(buffer[..len].to_vec());
                    buffer.truncate(size);
                }
                Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                    assert!(buffer_bytes == buffer.len() && message_bytes > buffer_bytes);
                    buffer.resize(message_bytes, 0);
                }
                Err(error) => assert!(error.is_out_of_time(), "{error}"),
            }
        }
    }

    #[test]
    fn messages_in_any_pieces_arrive_whole_in_buffers_of_any_size() {
        let sent = [message(1, 1), message(1000, 2), message(300_000, 3), message(65_536, 4), message(7, 5)];
        for piece in [1000, 4096, 70_000, usize::MAX] {
            for size in [0, 1, 999, 1000, 65_536, 400_000] {
                let mut pieces = VecDeque::new();
                for message in &sent {
                    let chunks = message.chunks(piece).count();
                    for (at, chunk) in message.chunks(piece).enumerate() {
                        pieces.push_back(Some((chunk.to_vec(), at + 1 == chunks)));
                        pieces.push_back(None);
                    }
                }
                assert_eq!(receive_all(&mut Kernel(pieces), size), sent, "pieces of {piece}, buffer of {size} bytes");
            }
        }
    }

    #[test]
    fn an_end_in_the_middle_of_a_message_is_an_error_with_what_was_lost() {
        let mut kernel = Kernel(VecDeque::from([Some((message(1000, 1), false))]));
        let mut assembly = Assembly::default();
        let error = assembly.recv(&mut [0; 4096], "o", |slices| kernel.receive(slices)).unwrap_err();
        assert!(error.is_peer_gone() && error.to_string().contains("1000 bytes"), "{error}");
        assert_eq!(assembly.recv(&mut [0; 4096], "o", |slices| kernel.receive(slices)).unwrap(), None);
    }
}
