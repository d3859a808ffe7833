//! Memory of the library into which a peer writes.
//!
//! What a peer writes by process_vm_writev cannot be called back: it may land after the writer was stopped, or killed. So the
//! peer is only ever told of mappings that nothing else uses, and one whose writer did not end in good order is retired: mapped
//! over without any permission, and its addresses never used again. A late write then fails.
//!
//! # Safety
//!
//! A [`Window`] owns its mapping until it is dropped or retired. References into it are given out by [`Window::bytes`] alone,
//! between the moment when the writer said that it is done and the moment when it is told that it may write again. A peer that
//! writes at other times breaks the protocol; as it may attach to this process, it could as well write any other of its pages.
#![expect(unsafe_code, reason = "maps and retires memory that a peer writes by its address")]

use std::fs::File;
use std::io::Read as _;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::{Error, Result};

/// Where the messages begin: the nonce has a page of its own, so that they are aligned as copies like it.
pub(super) const NONCE_BYTES: usize = 4096;
/// From here on huge pages pay: they make the kernel's copy 12 to 30 % faster from 4 MiB on.
const HUGE_BYTES: usize = 4 << 20;

/// A mapping that a peer writes.
#[derive(Debug)]
pub(super) struct Window {
    base: NonNull<u8>,
    capacity: usize,
    pub(super) nonce: [u64; 2],
}

// SAFETY: the mapping belongs to the process, not to a thread, and a `Window` is its only owner.
unsafe impl Send for Window {}
// SAFETY: through a shared reference it can only be read.
unsafe impl Sync for Window {}

impl Window {
    /// New memory for messages of up to `capacity` bytes, and a little more.
    pub(super) fn new(capacity: usize, object: &str) -> Result<Self> {
        let nonce = random().map_err(|error| Error::os("read", "/dev/urandom", error))?;
        let capacity = capacity.max(1).checked_next_multiple_of(NONCE_BYTES).unwrap_or(usize::MAX - NONCE_BYTES);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), NONCE_BYTES + capacity, protection, MapFlags::PRIVATE) }
            .map_err(|errno| Error::os("mmap", object, errno))?;
        if capacity >= HUGE_BYTES {
            // SAFETY: the mapping made above; the advice changes nothing that it contains. A refusal costs speed only.
            let _ = unsafe { madvise(base, NONCE_BYTES + capacity, Advice::LinuxHugepage) };
        }
        let base = NonNull::new(base.cast::<u8>()).expect("mmap with a null hint never maps address 0");
        // SAFETY: the begin of the mapping, page-aligned and longer than this; nobody else knows it yet.
        unsafe { base.cast::<[u64; 2]>().write(nonce) };
        Ok(Self { base, capacity, nonce })
    }

    /// The longest message that fits.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The address of the nonce, as the peer has to name it.
    pub(super) fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// The message of `len` bytes that the peer has written and will leave alone for as long as the reference lives.
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        let len = len.min(self.capacity);
        // SAFETY: NONCE_BYTES lies within the mapping.
        let start = unsafe { self.base.add(NONCE_BYTES) };
        // SAFETY: `capacity` bytes follow; they are initialised, since new pages are zeros; nobody writes them meanwhile, by
        // the protocol (see the top of this file).
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Takes the memory away from a writer that may still be at it, for good: about 1 ms for 64 MiB.
    pub(super) fn retire(self) {
        let len = NONCE_BYTES + self.capacity;
        // SAFETY: replaces the mapping that `self` owns and nobody borrows from. It is not unmapped afterwards, so that
        // nothing else is ever mapped at its addresses.
        let replaced = unsafe {
            rustix::mm::mmap_anonymous(
                self.base.as_ptr().cast(),
                len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        };
        // If there is no memory left even for that, the pages stay: leaked rather than reused.
        let _ = replaced;
        std::mem::forget(self);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: `self` owns the mapping, and nothing borrows from it. The only error, of a bad range, cannot occur.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), NONCE_BYTES + self.capacity) };
    }
}

fn random() -> std::io::Result<[u64; 2]> {
    let mut bytes = [[0; 8]; 2];
    File::open("/dev/urandom")?.read_exact(bytes.as_flattened_mut())?;
    Ok(bytes.map(u64::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::remote::RemoteProcess;

    #[test]
    fn a_retired_window_is_gone_and_its_addresses_stay_taken() {
        let own = RemoteProcess::open(std::process::id()).unwrap();
        let window = Window::new(100_000, "test").unwrap();
        let (address, nonce) = (window.address(), window.nonce);
        assert!(window.capacity() >= 100_000 && window.bytes(100_000).iter().all(|&byte| byte == 0));
        let mut found = [0; 8];
        own.read_exact(address, &mut found).unwrap();
        assert_eq!(u64::from_ne_bytes(found), nonce[0]);
        window.retire();
        assert_eq!(own.read(address, &mut found).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let number = |digits| u64::from_str_radix(digits, 16).unwrap();
            (number(start)..number(end)).contains(&address)
        });
        assert!(line.is_some_and(|line| line.contains(" ---p ")), "{line:?}");
    }
}
