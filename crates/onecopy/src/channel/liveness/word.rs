//! The word by which the death of a side shows before the kernel has taken its memory apart.
//!
//! | Value | Meaning | Next |
//! |---|---|---|
//! | 0 | the side has not come so far, or cannot: its pidfd tells | the side sets the next one |
//! | the id of its keeper thread, and WAITERS | it is on the list of that thread | CLOSED by the side, marked by the kernel |
//! | OWNER_DIED is set | the kernel has ended that thread | |
//! | CLOSED | the side has closed, and tells by other means | |
//!
//! There is one for each side, behind the desks. The entry of the list that belongs to it lies in the page before them, which is this
//! process's alone: no peer can change where the kernel, or this process, goes from there. A peer can write the word itself, which
//! comes to the same as when it closes; or keep it from being marked, and then its pidfd tells.
//!
//! # Safety
//!
//! A [`Word`] keeps its region mapped, and has checked that it is long enough and lies behind a private page.
#![expect(unsafe_code, reason = "sees words of a region, and of the page before it, as atomics")]

use std::ffi::c_long;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustix::thread::futex;

use crate::channel::desk::DESKS_BYTES;
use crate::memory::Region;

/// Each has lines of its own.
const WORD_BYTES: usize = 128;
/// How much both need behind the desks.
pub(in crate::channel) const WORDS_BYTES: usize = 2 * WORD_BYTES;

const CLOSED: u32 = futex::WAITERS;
/// `FUTEX_TID_MASK` of linux/futex.h.
const TID_MASK: u32 = !(futex::WAITERS | futex::OWNER_DIED);

const _: () = assert!(DESKS_BYTES.is_multiple_of(WORD_BYTES) && DESKS_BYTES + WORDS_BYTES <= 4096);

/// The word of a side.
#[derive(Clone, Debug)]
pub(in crate::channel) struct Word {
    memory: Arc<Region>,
    offset: usize,
}

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing yet, or that the side lives: by this value.
    Silent(u32),
    Dead,
    Closed,
}

impl State {
    fn of(value: u32) -> Self {
        match value {
            _ if value & futex::OWNER_DIED != 0 => Self::Dead,
            _ if value == 0 || value & TID_MASK != 0 => Self::Silent(value),
            _ => Self::Closed,
        }
    }
}

impl Word {
    /// How far each lies behind its entry.
    pub(super) fn distance_bytes() -> c_long {
        rustix::param::page_size() as c_long
    }

    /// The words of this side and of the other one.
    ///
    /// # Panics
    ///
    /// When the memory was not made for this.
    pub(in crate::channel) fn both(memory: &Arc<Region>, is_listener: bool) -> (Self, Self) {
        assert!(memory.len() >= DESKS_BYTES + WORDS_BYTES && memory.is_writable() && memory.private_page().is_some());
        let [listener, connector] =
            [0, WORD_BYTES].map(|at| Self { memory: Arc::clone(memory), offset: DESKS_BYTES + at });
        if is_listener { (listener, connector) } else { (connector, listener) }
    }

    /// Whether both are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory) && self.offset == other.offset
    }

    pub(super) fn shared(&self) -> &AtomicU32 {
        // SAFETY: the region is longer, checked in `both`.
        let word = unsafe { self.memory.base().add(self.offset) };
        // SAFETY: within the region and aligned, since a mapping begins at a page; an atomic tolerates what peers write; the reference
        // lives no longer than `self`, which keeps the mapping.
        unsafe { word.cast::<AtomicU32>().as_ref() }
    }

    pub(super) fn state(&self) -> State {
        // Acquire: what the side had published is seen by whoever looks for it after this.
        State::of(self.shared().load(Ordering::Acquire))
    }

    /// Says that this side lives for as long as its thread `tid`, on whose list it is.
    pub(super) fn begin(&self, tid: u32) {
        self.shared().store(tid | futex::WAITERS, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.shared().store(CLOSED, Ordering::Release);
    }

    /// Wakes the other side's thread, if it waits for the value that was there before.
    pub(super) fn wake(&self) {
        // The only errors are of a bad address, which cannot occur.
        let _ = futex::wake(self.shared(), futex::Flags::empty(), 1);
    }

    /// The entry of the list: the address of the next one.
    pub(super) fn entry(&self) -> &AtomicUsize {
        let page = self.memory.private_page().expect("checked when this was made");
        // SAFETY: the page lies before a region that is longer than its first page, or as long, and the offset lies in that.
        let entry = unsafe { page.add(self.offset) };
        // SAFETY: within the page and aligned; zeros or what this process stored there; mapped for as long as `self` keeps the region.
        unsafe { entry.cast::<AtomicUsize>().as_ref() }
    }

    pub(super) fn entry_address(&self) -> usize {
        std::ptr::from_ref(self.entry()).expose_provenance()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::memory::anonymous::AnonymousMapping;

    /// Both words of a channel that nobody has.
    pub(in crate::channel::liveness) fn words() -> (Word, Word) {
        let memory = AnonymousMapping::create("words", rustix::param::page_size()).unwrap().into_region();
        Word::both(&Arc::new(memory.behind_private_page().unwrap()), true)
    }

    #[test]
    fn each_value_has_its_meaning_whatever_else_a_peer_writes() {
        let (own, other) = words();
        assert_eq!(own.state(), State::Silent(0));
        own.begin(7);
        assert_eq!((own.state(), other.state()), (State::Silent(7 | futex::WAITERS), State::Silent(0)));
        own.close();
        assert_eq!(own.state(), State::Closed);
        for dead in [futex::OWNER_DIED, futex::OWNER_DIED | futex::WAITERS, u32::MAX] {
            assert_eq!(State::of(dead), State::Dead);
        }
    }

    #[test]
    fn an_entry_lies_at_the_same_distance_before_each_word() {
        let (own, other) = words();
        for word in [own, other] {
            let address = std::ptr::from_ref(word.shared()).addr();
            assert_eq!(word.entry_address() + Word::distance_bytes() as usize, address);
        }
    }
}
