//! msgsnd(2) and msgrcv(2).
//!
//! # Safety
//!
//! Both calls take a buffer that begins with the type, a long, before the message. [`SysvQueue`] owns one that is long enough
//! for the message it names; the kernel keeps no pointer to it.
#![expect(unsafe_code, reason = "no crate wraps msgsnd and msgrcv")]

use std::io;

use onecopy::{Deadline, Receiver, Result, Sender};

use super::os;

const TYPE_BYTES: usize = size_of::<libc::c_long>();

pub(crate) struct SysvQueue {
    id: i32,
    /// The type, then the message.
    buffer: Vec<u8>,
}

impl SysvQueue {
    pub(crate) fn new(id: i32) -> Self {
        Self { id, buffer: Vec::new() }
    }
}

impl Sender for SysvQueue {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&(1 as libc::c_long).to_ne_bytes());
        self.buffer.extend_from_slice(message);
        // SAFETY: the buffer holds a type and `message.len()` bytes behind it.
        let sent = unsafe { libc::msgsnd(self.id, self.buffer.as_ptr().cast(), message.len(), 0) };
        if sent == 0 { Ok(()) } else { Err(os("msgsnd", "a plain queue", io::Error::last_os_error())) }
    }
}

impl Receiver for SysvQueue {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        self.buffer.resize(TYPE_BYTES + buffer.len(), 0);
        // SAFETY: the buffer has room for a type and `buffer.len()` bytes behind it.
        let received = unsafe { libc::msgrcv(self.id, self.buffer.as_mut_ptr().cast(), buffer.len(), 0, 0) };
        let Ok(len) = usize::try_from(received) else {
            return Err(os("msgrcv", "a plain queue", io::Error::last_os_error()));
        };
        buffer[..len].copy_from_slice(&self.buffer[TYPE_BYTES..TYPE_BYTES + len]);
        Ok(Some(len))
    }
}
