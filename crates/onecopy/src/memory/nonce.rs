//! Numbers drawn at random that stand at a known address of this process, for others to find there.
//!
//! Who reads the number together with some bytes, by one process_vm_readv(2), knows that the bytes came from this process as it
//! is now: a process that was given its pid since, one that executed another program, and a child made by fork do not have the
//! number there. One call reads one address space, whatever happens to the process meanwhile.
//!
//! # Safety
//!
//! The numbers lie in pages that are mapped once and never unmapped, so a reference to a slot is valid for as long as the
//! process. They are atomics. A peer that may attach to this process could change them; it could change everything else too.
#![expect(unsafe_code, reason = "maps the pages of the numbers")]

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::process::ProcessLock;
use crate::{Error, Result};

/// What a reader compares.
pub(crate) type Value = [u64; 2];

/// The length of a [`Value`].
pub(crate) const NONCE_BYTES: usize = size_of::<Value>();

type Slot = [AtomicU64; 2];

/// How many numbers are mapped at once: a page of them.
const SLOTS: usize = 4096 / size_of::<Slot>();

/// Slots that hold no number: all zeros.
static FREE: ProcessLock<Vec<&'static Slot>> = ProcessLock::new();

/// A number that stands in the memory of this process for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Nonce {
    slot: &'static Slot,
    value: Value,
}

impl Nonce {
    /// Draws a number.
    pub(crate) fn draw() -> Result<Self> {
        let value = random().map_err(|errno| Error::os("getrandom", "the nonce of a window", errno))?;
        let slot = free_slot().map_err(|errno| Error::os("mmap", "the nonce of a window", errno))?;
        // Relaxed: whoever learns of the number learns of it from this process, and later.
        slot[0].store(value[0], Ordering::Relaxed);
        slot[1].store(value[1], Ordering::Relaxed);
        Ok(Self { slot, value })
    }

    /// Where it stands.
    pub(crate) fn address(&self) -> u64 {
        ptr::from_ref(self.slot).expose_provenance() as u64
    }

    pub(crate) fn value(&self) -> Value {
        self.value
    }

    /// What tells by itself whether it is still there.
    pub(crate) fn mark(&self) -> Mark {
        Mark { word: &self.slot[0], value: self.value[0] }
    }

    /// Whether it is still there: in a child made by fork it is not.
    #[inline]
    pub(crate) fn is_intact(&self) -> bool {
        // Relaxed: the kernel cleared it before the child could run.
        (self.slot[0].load(Ordering::Relaxed) == self.value[0])
            & (self.slot[1].load(Ordering::Relaxed) == self.value[1])
    }
}

/// Half of a number, which tells as well as all of it whether it is still there, and sooner: by a word whose address is known. For
/// where that is asked with each message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    word: &'static AtomicU64,
    value: u64,
}

impl Mark {
    /// As [`Nonce::is_intact`].
    #[inline]
    pub(crate) fn is_intact(self) -> bool {
        // Relaxed: as there.
        self.word.load(Ordering::Relaxed) == self.value
    }
}

impl Drop for Nonce {
    fn drop(&mut self) {
        for word in self.slot {
            word.store(0, Ordering::Relaxed);
        }
        // What is done with the bytes that the number stood for comes after this. A reader loads the bytes first and the number
        // last; a number that is still there tells it that nothing was done with them before.
        fence(Ordering::SeqCst);
        FREE.lock().push(self.slot);
    }
}

/// A random number, never 0, which free slots hold.
pub(crate) fn random() -> Result<Value, Errno> {
    loop {
        let mut bytes = [0; NONCE_BYTES];
        // The kernel gives up to 256 bytes at once, once it has any to give.
        let filled = getrandom(&mut bytes, GetRandomFlags::empty());
        match filled {
            Ok(NONCE_BYTES) if bytes != [0; NONCE_BYTES] => {
                let (words, _) = bytes.as_chunks::<8>();
                return Ok([u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])]);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn free_slot() -> Result<&'static Slot, Errno> {
    let mut free = FREE.lock();
    if free.is_empty() {
        free.extend(new_page()?);
    }
    Ok(free.pop().expect("a page of slots was just added"))
}

/// A page of zeros that stays for good, and that a child made by fork sees as zeros.
fn new_page() -> Result<&'static [Slot; SLOTS], Errno> {
    let (bytes, protection) = (size_of::<[Slot; SLOTS]>(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
    let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }?;
    // SAFETY: the mapping made above, which nobody uses yet.
    unsafe { madvise(base, bytes, Advice::LinuxWipeOnFork) }?;
    // SAFETY: page-aligned zeros of this length, valid for atomics, that are never unmapped.
    Ok(unsafe { &*base.cast::<[Slot; SLOTS]>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_where_it_says_until_it_is_dropped() {
        let nonces: Vec<Nonce> = (0..2 * SLOTS).map(|_| Nonce::draw().unwrap()).collect();
        let read = |slot: &Slot| [slot[0].load(Ordering::Relaxed), slot[1].load(Ordering::Relaxed)];
        let mut addresses: Vec<u64> = nonces.iter().map(Nonce::address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), nonces.len(), "each has a place of its own");
        for nonce in nonces {
            assert_eq!(read(nonce.slot), nonce.value());
            assert_ne!(nonce.value(), [0; 2]);
            let (slot, value, mark) = (nonce.slot, nonce.value(), nonce.mark());
            assert!(nonce.is_intact() && mark.is_intact());
            drop(nonce);
            // Another thread may have drawn a number since, into the same slot.
            assert_ne!(read(slot), value);
            assert!(!mark.is_intact());
        }
    }
}
