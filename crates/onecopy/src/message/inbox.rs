//! Receiving a message whole with one system call, however small the caller's buffer is.
//!
//! A datagram leaves the kernel with the call that reads it, and what does not fit is lost. To look first (MSG_PEEK) would
//! cost a second system call for each message. So every call offers the kernel the caller's buffer and, behind it, memory of
//! our own that takes the rest. That memory is only touched by a message that was too long; it then waits here, first in
//! line, for a larger buffer.

use std::io::IoSliceMut;

use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Inbox<M> {
    /// The longest message that can come.
    longest_bytes: usize,
    /// Where the part that does not fit goes; empty until a buffer shorter than `longest_bytes` is offered. Its pages cost
    /// nothing until the kernel writes to them.
    spill: Vec<u8>,
    waiting: Option<(Vec<u8>, M)>,
}

impl<M> Inbox<M> {
    pub(super) fn new(longest_bytes: usize) -> Self {
        Self { longest_bytes, spill: Vec::new(), waiting: None }
    }

    /// The message that waits, or the one that `receive` gets from the kernel, with its length and what `receive` says of
    /// it. `receive` is given the slices to fill and may end the conversation with `None`.
    pub(super) fn recv(
        &mut self,
        buffer: &mut [u8],
        object: &str,
        receive: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<Option<(usize, M)>>,
    ) -> Result<Option<(usize, M)>> {
        if self.waiting.is_some() {
            return self.take_waiting(buffer, object);
        }
        let Some((len, about)) = self.fill(buffer, receive)? else { return Ok(None) };
        if len <= buffer.len() {
            return Ok(Some((len, about)));
        }
        let mut message = buffer.to_vec();
        message.extend_from_slice(&self.spill[..len - buffer.len()]);
        self.waiting = Some((message, about));
        Err(too_small(object, len, buffer.len()))
    }

    /// Puts a message that was received back, first in line.
    pub(super) fn put_back(&mut self, message: Vec<u8>, about: M) {
        self.waiting = Some((message, about));
    }

    fn fill(
        &mut self,
        buffer: &mut [u8],
        receive: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<Option<(usize, M)>>,
    ) -> Result<Option<(usize, M)>> {
        if buffer.len() >= self.longest_bytes {
            return receive(&mut [IoSliceMut::new(buffer)]);
        }
        if self.spill.is_empty() {
            self.spill = vec![0; self.longest_bytes];
        }
        receive(&mut [IoSliceMut::new(buffer), IoSliceMut::new(&mut self.spill)])
    }

    fn take_waiting(&mut self, buffer: &mut [u8], object: &str) -> Result<Option<(usize, M)>> {
        let Some((message, about)) = self.waiting.take() else { return Ok(None) };
        let len = message.len();
        if len > buffer.len() {
            self.waiting = Some((message, about));
            return Err(too_small(object, len, buffer.len()));
        }
        buffer[..len].copy_from_slice(&message);
        Ok(Some((len, about)))
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
    ) -> impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<Option<(usize, &'static str)>> + use<'m> {
        move |slices| {
            let mut rest = message;
            for slice in slices.iter_mut() {
                let len = rest.len().min(slice.len());
                slice[..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
            }
            assert!(rest.is_empty(), "{} bytes would be lost", rest.len());
            Ok(Some((message.len(), "about")))
        }
    }

    #[test]
    fn a_message_of_any_length_survives_a_buffer_of_any_length() {
        for len in 0..=64 {
            let message: Vec<u8> = (0..len).collect();
            for size in 0..=64 {
                let mut inbox = Inbox::new(64);
                let mut buffer = vec![0xff; size];
                match inbox.recv(&mut buffer, "o", deliver(&message)) {
                    Ok(Some((got, "about"))) => assert_eq!(buffer[..got], message),
                    Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                        assert_eq!((message_bytes, buffer_bytes), (message.len(), size));
                        let mut large = [0; 64];
                        let (got, _) = inbox.recv(&mut large, "o", |_| panic!("one waits")).unwrap().unwrap();
                        assert_eq!(large[..got], message);
                    }
                    other => panic!("{other:?}"),
                }
                assert!(inbox.waiting.is_none());
            }
        }
    }

    #[test]
    fn a_waiting_message_outlives_many_small_buffers() {
        let mut inbox = Inbox::new(8);
        for size in [0, 1, 7] {
            let result = inbox.recv(&mut vec![0; size], "o", deliver(b"8 bytes!"));
            assert!(matches!(result, Err(Error::BufferTooSmall { message_bytes: 8, .. })), "{result:?}");
        }
        let mut buffer = [0; 8];
        assert_eq!(inbox.recv(&mut buffer, "o", |_| panic!("one waits")).unwrap(), Some((8, "about")));
        assert_eq!(&buffer, b"8 bytes!");
    }
}
