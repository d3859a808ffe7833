//! Memory of the library into which a peer writes.
//!
//! What a peer writes by process_vm_writev cannot be called back: it may land after the writer was stopped, or killed. So the
//! peer is only ever told of buffers of the library, and one whose writer did not end in good order is retired: mapped over
//! without any permission, and its addresses never used again. A late write then fails.
//!
//! The bytes are lent out by [`Window::bytes`] alone, between the moment when the writer said that it is done and the moment
//! when it is told that it may write again. A peer that writes at other times breaks the protocol; as it may attach to this
//! process, it could as well write any other of its pages.

use crate::memory::buffer::Buffer;
use crate::memory::nonce::{self, NONCE_BYTES};
use crate::{Error, Result};

/// Where the messages begin: the nonce has a page of its own before them, so that they are aligned as copies like it.
pub(super) const MESSAGE_OFFSET: usize = 4096;

/// A buffer that a peer writes, and the number by which the peer knows it.
#[derive(Debug)]
pub(super) struct Window {
    buffer: Buffer,
    pub(super) nonce: nonce::Value,
}

impl Window {
    /// Memory for messages of up to `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Result<Self> {
        let nonce = nonce::random().map_err(|errno| Error::os("getrandom", "the nonce of a window", errno))?;
        let mut buffer = Buffer::warm(capacity.saturating_add(MESSAGE_OFFSET))?;
        buffer[..NONCE_BYTES].copy_from_slice(nonce.map(u64::to_ne_bytes).as_flattened());
        Ok(Self { buffer, nonce })
    }

    /// The longest message that fits.
    pub(super) fn capacity(&self) -> usize {
        self.buffer.len() - MESSAGE_OFFSET
    }

    /// The address of the nonce, as the peer has to name it.
    pub(super) fn address(&self) -> u64 {
        self.buffer.as_ptr().expose_provenance() as u64
    }

    /// The message of `len` bytes that the peer has written and will leave alone for as long as the reference lives.
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        &self.buffer[MESSAGE_OFFSET..][..len.min(self.capacity())]
    }

    /// Takes the memory away from a writer that may still be at it, for good.
    pub(super) fn retire(self) {
        self.buffer.retire();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::memory::remote::RemoteProcess;

    #[test]
    fn a_retired_window_is_gone_and_its_addresses_stay_taken() {
        let own = RemoteProcess::open(std::process::id()).unwrap();
        let window = Window::new(100_000).unwrap();
        let (address, nonce) = (window.address(), window.nonce);
        assert!(window.capacity() >= 100_000);
        let mut found = [0; 8];
        own.read_exact(address, &mut found).unwrap();
        assert_eq!(u64::from_ne_bytes(found), nonce[0]);
        window.retire();
        assert_eq!(own.read(address, &mut found).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        assert!(is_retired(address));
    }

    /// Whether `address` lies in memory that nobody may use.
    pub(crate) fn is_retired(address: u64) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let covers = |line: &str| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let number = |digits| u64::from_str_radix(digits, 16).ok();
            Some((number(start)?..number(end)?).contains(&address) && line.contains(" ---p "))
        };
        maps.lines().any(|line| covers(line).unwrap_or(false))
    }
}
