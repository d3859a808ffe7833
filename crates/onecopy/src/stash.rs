//! The begin of a message, kept between two receives: it did not fit the caller's buffer, or its end did not come in time.

use crate::stream::framed::Part;
use crate::{Error, Result, tally};

/// A stash above this is given back to the allocator once its message was delivered.
const KEPT_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Stash {
    /// From `start` on, what was not delivered yet.
    bytes: Vec<u8>,
    start: usize,
    /// Whether the message ends with it.
    complete: bool,
}

impl Stash {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether there is a message, or the begin of one. An empty message is one when it is complete.
    pub(crate) fn holds_some(&self) -> bool {
        self.complete || self.len() > 0
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Adds to the message.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        tally::append(&mut self.bytes, bytes);
    }

    /// The message ends here.
    pub(crate) fn end(&mut self) {
        self.complete = true;
    }

    /// Adds what `read` puts into room for `bytes`.
    pub(crate) fn push_from<T>(
        &mut self,
        bytes: usize,
        read: impl FnOnce(&mut [u8]) -> Result<T>,
        count: impl FnOnce(&T) -> usize,
    ) -> Result<T> {
        let end = self.bytes.len();
        self.bytes.resize(end + bytes, 0);
        let result = read(&mut self.bytes[end..]);
        self.bytes.truncate(end + result.as_ref().map_or(0, count));
        result
    }

    /// Delivers the message, which is complete; one that does not fit stays.
    pub(crate) fn deliver(&mut self, buffer: &mut [u8], object: &str) -> Result<usize> {
        let message = &self.bytes[self.start..];
        let (message_bytes, buffer_bytes) = (message.len(), buffer.len());
        let Some(target) = buffer.get_mut(..message_bytes) else {
            return Err(Error::BufferTooSmall { object: object.into(), message_bytes, buffer_bytes });
        };
        tally::copy(target, message);
        self.clear();
        Ok(message_bytes)
    }

    /// Delivers as much as fits, if there is anything.
    pub(crate) fn deliver_part(&mut self, buffer: &mut [u8]) -> Option<Part> {
        if !self.holds_some() {
            return None;
        }
        let bytes = self.len().min(buffer.len());
        tally::copy(&mut buffer[..bytes], &self.bytes[self.start..self.start + bytes]);
        self.start += bytes;
        let emptied = self.len() == 0;
        let last = emptied && self.complete;
        if emptied {
            self.clear();
        }
        Some(Part { bytes, last })
    }

    /// The message, which is complete, in memory of its own.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut message = std::mem::take(&mut self.bytes);
        if self.start > 0 {
            message.drain(..self.start);
            tally::count_user(message.len());
        }
        self.clear();
        message
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.complete = false;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_delivered_whole_or_in_parts_or_both() {
        let mut stash = Stash::default();
        assert!(!stash.holds_some() && stash.deliver_part(&mut [0; 8]).is_none());
        stash.push(b"12345");
        stash.end();
        let mut buffer = [0; 2];
        assert!(matches!(stash.deliver(&mut buffer, "o"), Err(Error::BufferTooSmall { message_bytes: 5, .. })));
        assert_eq!(stash.deliver_part(&mut buffer), Some(Part { bytes: 2, last: false }));
        let mut buffer = [0; 8];
        assert_eq!((stash.len(), stash.deliver(&mut buffer, "o").unwrap(), &buffer[..3]), (3, 3, &b"345"[..]));
        assert!(!stash.holds_some());
    }

    #[test]
    fn an_empty_message_is_one_when_it_is_complete() {
        let mut stash = Stash::default();
        stash.end();
        assert!(stash.holds_some());
        assert_eq!(stash.deliver_part(&mut [0; 8]), Some(Part { bytes: 0, last: true }));
        assert!(!stash.holds_some());
    }
}
