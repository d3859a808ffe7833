//! The baseline for latency: a cache line travels from one spinning process to the other, and another one back.
//!
//! # Safety
//!
//! [`Lines`] owns a shared mapping of one page and forms references to two atomics in it only. The other process writes them
//! meanwhile, by atomic stores of the same size; whatever it stores, a number is read.
#![expect(unsafe_code, reason = "maps shared memory and refers to atomics in it")]

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{Go, Laps, Outcome, Stopwatch};
use crate::control::{Run, Side};

const PAGE_BYTES: usize = 4096;
/// Four lines apart, so that no prefetcher takes both at once.
const BACK_OFFSET: usize = 256;

/// Memory for two lines, to be passed to both processes.
pub(crate) fn create() -> rustix::io::Result<OwnedFd> {
    let fd = memfd_create("onecopy-bench-lines", MemfdFlags::CLOEXEC)?;
    ftruncate(&fd, PAGE_BYTES as u64)?;
    Ok(fd)
}

/// One line for each direction.
pub(crate) struct Lines {
    page: NonNull<u8>,
}

impl Lines {
    pub(crate) fn map(fd: impl AsFd) -> rustix::io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let page = unsafe { mmap(ptr::null_mut(), PAGE_BYTES, protection, MapFlags::SHARED, fd, 0) }?;
        NonNull::new(page.cast()).map(|page| Self { page }).ok_or(rustix::io::Errno::NOMEM)
    }

    /// The line that `side` writes.
    pub(crate) fn told_by(&self, side: Side) -> &AtomicU64 {
        self.line(if side == Side::Guest { 0 } else { BACK_OFFSET })
    }

    fn line(&self, offset: usize) -> &AtomicU64 {
        assert!(offset == 0 || offset == BACK_OFFSET, "the two lines of the page");
        // SAFETY: both offsets lie inside the page that `self` owns.
        let line = unsafe { self.page.add(offset) };
        // SAFETY: aligned to 256 bytes, inside a mapping that lives as long as `self`, and accessed as an atomic only.
        unsafe { AtomicU64::from_ptr(line.as_ptr().cast()) }
    }

    /// Round trips: the guest begins and measures, the host answers.
    pub(crate) fn play(&self, side: Side, run: &Run, go: Go<'_>) -> Outcome {
        let (there, back) = (self.told_by(Side::Guest), self.told_by(Side::Host));
        let mut laps = Laps::new();
        go()?;
        let watch = Stopwatch::start();
        laps.start();
        // Numbers begin at 1, since the memory begins with 0.
        for number in run.first_sequence + 1..=run.first_sequence + run.messages {
            if side == Side::Host {
                await_number(there, number);
                back.store(number, Ordering::Release);
                continue;
            }
            there.store(number, Ordering::Release);
            await_number(back, number);
            laps.lap();
        }
        Ok(laps.put_into(watch.stop(run.messages, 0, None)))
    }
}

/// Without a pause: this is the floor of what two cores can do. Acquire pairs with the Release of the other side's store.
///
/// Where other programs want these cores, two sides that never sleep may run in turns for ever: one spins until its slice is over,
/// then the other one does. Who has looked for a millisecond or so lets the others have the core.
fn await_number(line: &AtomicU64, number: u64) {
    const LOOKS: u32 = 1 << 20;
    const NAP: Duration = Duration::from_micros(50);
    loop {
        for _ in 0..LOOKS {
            if line.load(Ordering::Acquire) == number {
                return;
            }
        }
        std::thread::sleep(NAP);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), PAGE_BYTES) };
    }
}
