//! Receiving a message whole with one system call, however small the caller's buffer is.
//!
//! A datagram leaves the kernel with the call that reads it, and what does not fit is lost. To look first (MSG_PEEK) would
//! cost a second system call for each message. So every call offers the kernel the caller's buffer and, behind it, memory of
//! our own that takes the rest. That memory is only touched by a message that was too long; it then waits here, first in
//! line, for a larger buffer.

use std::io::IoSliceMut;

use crate::{Error, Result, tally};

#[derive(Debug)]
pub(super) struct Inbox<M> {
    /// The longest message that can come, as far as is known.
    longest_bytes: usize,
    /// Where the part that does not fit goes; empty until a buffer shorter than `longest_bytes` is offered. Its pages cost
    /// nothing until the kernel writes to them.
    spill: Vec<u8>,
    waiting: Option<(Vec<u8>, M)>,
}

impl<M: Default> Inbox<M> {
    pub(super) fn new(longest_bytes: usize) -> Self {
        Self { longest_bytes, spill: Vec::new(), waiting: None }
    }

    /// Receives the message that waits, or else the one that `receive` gets from the kernel, and returns its length; what is
    /// known of it besides goes to `about`. `receive` is given the slices to fill; `None` from it is the end.
    pub(super) fn recv(
        &mut self,
        buffer: &mut [u8],
        about: &mut M,
        object: &str,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut M) -> Result<Option<usize>>,
    ) -> Result<Option<usize>> {
        if self.waiting.is_some() {
            return self.take_waiting(buffer, about, object);
        }
        match self.fill(buffer, |slices| receive(slices, about))? {
            Some(len) if len > buffer.len() => {
                self.keep(buffer, len, std::mem::take(about));
                Err(too_small(object, len, buffer.len()))
            }
            other => Ok(other),
        }
    }

    /// Keeps a message whose beginning fills `buffer` and whose rest went to the spill.
    #[cold]
    fn keep(&mut self, buffer: &[u8], len: usize, about: M) {
        let mut message = tally::to_vec(buffer);
        tally::append(&mut message, &self.spill[..len - buffer.len()]);
        self.waiting = Some((message, about));
    }

    /// The longest message that is received whole whatever the buffer.
    pub(super) fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// Whether a message was left waiting by a buffer that was too small.
    pub(super) fn has_one_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Puts a message that was received back, first in line.
    pub(super) fn put_back(&mut self, message: Vec<u8>, about: M) {
        self.waiting = Some((message, about));
    }

    fn fill<T>(&mut self, buffer: &mut [u8], receive: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<T>) -> Result<T> {
        if buffer.len() >= self.longest_bytes {
            return receive(&mut [IoSliceMut::new(buffer)]);
        }
        if self.spill.is_empty() {
            self.spill = vec![0; self.longest_bytes];
        }
        receive(&mut [IoSliceMut::new(buffer), IoSliceMut::new(&mut self.spill)])
    }

    #[cold]
    fn take_waiting(&mut self, buffer: &mut [u8], about: &mut M, object: &str) -> Result<Option<usize>> {
        let Some((message, its_about)) = self.waiting.take() else { return Ok(None) };
        let len = message.len();
        if len > buffer.len() {
            self.waiting = Some((message, its_about));
            return Err(too_small(object, len, buffer.len()));
        }
        tally::copy(&mut buffer[..len], &message);
        *about = its_about;
        Ok(Some(len))
    }
}

pub(super) fn too_small(object: &str, message_bytes: usize, buffer_bytes: usize) -> Error {
    Error::BufferTooSmall { object: object.into(), message_bytes, buffer_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver<'m>(
        message: &'m [u8],
    ) -> impl FnOnce(&mut [IoSliceMut<'_>], &mut &'static str) -> Result<Option<usize>> + use<'m> {
        move |slices, about| {
            let mut rest = message;
            for slice in slices.iter_mut() {
                let len = rest.len().min(slice.len());
                slice[..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
            }
            assert!(rest.is_empty(), "{} bytes would be lost", rest.len());
            *about = "about";
            Ok(Some(message.len()))
        }
    }

    fn nothing_more(_: &mut [IoSliceMut<'_>], _: &mut &'static str) -> Result<Option<usize>> {
        panic!("one waits")
    }

    #[test]
    fn a_message_of_any_length_survives_a_buffer_of_any_length() {
        for len in 0..=64 {
            let message: Vec<u8> = (0..len).collect();
            for size in 0..=64 {
                let mut inbox = Inbox::new(64);
                let mut buffer = vec![0xff; size];
                let mut about = "";
                match inbox.recv(&mut buffer, &mut about, "o", deliver(&message)) {
                    Ok(Some(got)) => assert_eq!(buffer[..got], message),
                    Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                        assert_eq!((message_bytes, buffer_bytes, about), (message.len(), size, ""));
                        let mut large = [0; 64];
                        let got = inbox.recv(&mut large, &mut about, "o", nothing_more).unwrap().unwrap();
                        assert_eq!(large[..got], message);
                    }
                    other => panic!("{other:?}"),
                }
                assert!(about == "about" && inbox.waiting.is_none());
            }
        }
    }

    #[test]
    fn a_waiting_message_outlives_many_small_buffers() {
        let mut inbox = Inbox::new(8);
        let mut about = "";
        for size in [0, 1, 7] {
            let result = inbox.recv(&mut vec![0; size], &mut about, "o", deliver(b"8 bytes!"));
            assert!(matches!(result, Err(Error::BufferTooSmall { message_bytes: 8, .. })), "{result:?}");
        }
        let mut buffer = [0; 8];
        assert_eq!(inbox.recv(&mut buffer, &mut about, "o", nothing_more).unwrap(), Some(8));
        assert_eq!((&buffer, about), (b"8 bytes!", "about"));
    }
}
