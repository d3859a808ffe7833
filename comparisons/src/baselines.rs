//! What the figures are ratios to: a copy by one process, and a cache line that travels between two spinning processes.
//!
//! # Safety
//!
//! [`Lines`] owns a shared mapping of one page and forms references to two atomics in it only. The other process writes them
//! meanwhile, by atomic stores of the same size; whatever it stores, a number is read.
#![expect(unsafe_code, reason = "maps shared memory and refers to atomics in it")]

use std::hint::black_box;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::endpoint::{Guest, failed};
use crate::order::{Order, Sample};
use crate::payload::{Room, Slots, Source};
use crate::workloads::Latencies;

const PAGE_BYTES: usize = 4096;
/// Four lines apart, so that no prefetcher takes both at once.
const BACK_OFFSET: usize = 256;

/// Copies as many messages as the contenders send.
pub(crate) fn memcpy(order: &Order) -> Sample {
    let slots = Slots::new(order.size_bytes, order.cold);
    let (source, mut room) = (Source::new(slots), Room::new(slots));
    let mut copy = |sequence| {
        room.buffer(sequence).copy_from_slice(black_box(source.bytes(sequence)));
        black_box(&mut room);
    };
    (0..order.messages.min(1000)).for_each(&mut copy);
    let start = Instant::now();
    (0..order.messages).for_each(&mut copy);
    Sample {
        ns: start.elapsed().as_nanos() as f64 / order.messages as f64,
        p99_ns: None,
        sleeps: None,
        remark: None,
        line_ns: None,
    }
}

/// Round trips of a cache line, measured by the host.
pub(crate) fn line_host(order: &Order) -> Result<Sample, String> {
    let fd = memfd_create("onecopy-compare-lines", MemfdFlags::CLOEXEC).map_err(failed("memfd_create"))?;
    ftruncate(&fd, PAGE_BYTES as u64).map_err(failed("ftruncate"))?;
    let lines = Lines::map(&fd).map_err(failed("mmap"))?;
    let guest = Guest::start_with(order, Stdio::from(fd), Stdio::null())?;
    let mut latencies = Latencies::new(order.messages);
    for number in 1..=total(order) {
        lines.line(0).store(number, Ordering::Release);
        await_number(lines.line(BACK_OFFSET), number);
        match number.checked_sub(warm(order)) {
            None => {}
            Some(0) => latencies.start(),
            Some(_) => latencies.record(),
        }
    }
    guest.finish()?;
    Ok(latencies.sample(None))
}

/// The guest's part: it answers.
pub(crate) fn line_guest(order: &Order) -> Result<(), String> {
    let fd: OwnedFd = io::stdin().as_fd().try_clone_to_owned().map_err(failed("dup"))?;
    let lines = Lines::map(fd).map_err(failed("mmap"))?;
    for number in 1..=total(order) {
        await_number(lines.line(0), number);
        lines.line(BACK_OFFSET).store(number, Ordering::Release);
    }
    Ok(())
}

/// Round trips before those that count.
fn warm(order: &Order) -> u64 {
    order.messages / 10 + 1
}

fn total(order: &Order) -> u64 {
    warm(order) + order.messages
}

/// Without a pause: this is the floor of what two cores can do. Acquire pairs with the Release of the other side's store.
fn await_number(line: &AtomicU64, number: u64) {
    while line.load(Ordering::Acquire) != number {}
}

/// One line for each direction.
struct Lines {
    page: NonNull<u8>,
}

impl Lines {
    fn map(fd: impl AsFd) -> rustix::io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let page = unsafe { mmap(ptr::null_mut(), PAGE_BYTES, protection, MapFlags::SHARED, fd, 0) }?;
        NonNull::new(page.cast()).map(|page| Self { page }).ok_or(rustix::io::Errno::NOMEM)
    }

    fn line(&self, offset: usize) -> &AtomicU64 {
        assert!(offset == 0 || offset == BACK_OFFSET, "the two lines of the page");
        // SAFETY: both offsets lie inside the page that `self` owns.
        let line = unsafe { self.page.add(offset) };
        // SAFETY: aligned to 256 bytes, inside a mapping that lives as long as `self`, and accessed as an atomic only.
        unsafe { AtomicU64::from_ptr(line.as_ptr().cast()) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), PAGE_BYTES) };
    }
}
