//! What a program would write over shared memory for messages whose sizes both sides know: one counter for what was put in,
//! one for what was taken out, memcpy between them, and a futex for whoever has to wait.
//!
//! It is the equivalent of a plain loop where there is no system call to loop over. It moves as much at a time as our ring
//! does ([`PIECE_BYTES`]), through as large a buffer, and waits in the same ways; it knows nothing of processes that die, of
//! peers that write nonsense, of lengths or of deadlines.
//!
//! # Safety
//!
//! [`Mapping`] owns a shared mapping that is longer than [`Head`] and the buffer behind it. The counters and the sleepers are
//! atomics. The bytes between the counters belong to one side at a time: the sender writes only what the receiver has taken
//! out, and the receiver reads only what the sender has put in, as the counters say with Release and Acquire. Both sides are
//! this program and keep to that.
#![expect(unsafe_code, reason = "maps shared memory and copies to and from it")]

use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use onecopy::memory::ring::{PIECE_BYTES, RING_BYTES};
use onecopy::{Deadline, Receiver, Result, Sender};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;

use super::os;
use crate::options::Wait;

/// Where the buffer begins.
const BUFFER_OFFSET: usize = 4096;
/// As much as our ring holds.
const BUFFER_BYTES: usize = 16 * PIECE_BYTES;
/// The length that is mapped. The memory was made for our ring, which needs more.
const PLAIN_BYTES: usize = BUFFER_OFFSET + BUFFER_BYTES;
/// As long as our adaptive wait spins.
const SPIN: Duration = Duration::from_micros(50);
const ROUNDS_PER_LOOK: u32 = 256;

#[repr(C, align(128))]
struct Counter {
    /// Bytes that were put in, or taken out, since the beginning.
    bytes: AtomicU64,
    /// 1 while the side that waits for this counter sleeps on it.
    sleeper: AtomicU32,
}

#[repr(C)]
struct Head {
    put: Counter,
    taken: Counter,
}

const _: () = assert!(size_of::<Head>() <= BUFFER_OFFSET && PLAIN_BYTES <= RING_BYTES);

/// Memory that both sides share.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    attached: bool,
}

impl Mapping {
    /// mmap(2) of a file, a memfd or a POSIX object.
    pub(crate) fn map(fd: impl AsFd) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let base = unsafe { mmap(ptr::null_mut(), PLAIN_BYTES, protection, MapFlags::SHARED, fd, 0) };
        Self::of(base.map_err(|errno| os("mmap", "plain memory", errno))?.cast(), false)
    }

    /// shmat(2) of a System V segment.
    pub(crate) fn attach(id: i32) -> Result<Self> {
        // SAFETY: an attachment at an address that the kernel chooses replaces nothing.
        let base = unsafe { libc::shmat(id, ptr::null(), 0) };
        if base.addr() == usize::MAX {
            return Err(os("shmat", "plain memory", std::io::Error::last_os_error()));
        }
        Self::of(base.cast(), true)
    }

    fn of(base: *mut u8, attached: bool) -> Result<Self> {
        let base = NonNull::new(base).ok_or_else(|| os("mmap", "plain memory", rustix::io::Errno::NOMEM))?;
        Ok(Self { base, attached })
    }

    fn head(&self) -> &Head {
        // SAFETY: the mapping begins with a head, at the begin of a page, and is only accessed as one: atomics, for which any
        // value is valid. It lives as long as `self`.
        unsafe { self.base.cast().as_ref() }
    }

    /// Where byte number `position` lies, and how many follow it before the buffer wraps.
    fn at(&self, position: u64) -> (*mut u8, usize) {
        let offset = (position % BUFFER_BYTES as u64) as usize;
        // SAFETY: `offset` is less than the length of the buffer, which lies inside the mapping behind the head.
        let address = unsafe { self.base.add(BUFFER_OFFSET + offset) };
        (address.as_ptr(), BUFFER_BYTES - offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let base = self.base.as_ptr().cast();
        if self.attached {
            // SAFETY: the attachment belongs to `self`, and no reference into it outlives `self`.
            unsafe { libc::shmdt(base) };
        } else {
            // SAFETY: the mapping belongs to `self`, and no reference into it outlives `self`.
            let _ = unsafe { munmap(base, PLAIN_BYTES) };
        }
    }
}

/// One side of the plain ring.
pub(crate) struct Ring {
    mapping: Mapping,
    wait: Wait,
    /// How many bytes this side has put in, or taken out.
    position: u64,
    /// What the other side's counter said when this side last had to look.
    seen: u64,
}

impl Ring {
    pub(crate) fn new(mapping: Mapping, wait: Wait) -> Self {
        Self { mapping, wait, position: 0, seen: 0 }
    }

    /// Waits until `counter` is past `limit`, and returns it.
    fn wait_past(&self, counter: &Counter, limit: u64) -> u64 {
        let passed = || Some(counter.bytes.load(Ordering::Acquire)).filter(|bytes| *bytes > limit);
        loop {
            if let Some(bytes) = passed().or_else(|| self.spin(passed)) {
                return bytes;
            }
            counter.sleeper.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if passed().is_none() {
                // Woken, interrupted or too late to sleep: the loop looks again.
                let _ = futex::wait(&counter.sleeper, futex::Flags::empty(), 1, None);
            }
            counter.sleeper.store(0, Ordering::Relaxed);
        }
    }

    fn spin(&self, passed: impl Fn() -> Option<u64>) -> Option<u64> {
        if self.wait == Wait::Block {
            return None;
        }
        let end = Instant::now() + SPIN;
        loop {
            if let Some(bytes) = (0..ROUNDS_PER_LOOK).find_map(|_| passed()) {
                return Some(bytes);
            }
            if self.wait == Wait::Adaptive && Instant::now() >= end {
                return None;
            }
        }
    }

    /// Tells the other side, and wakes it if it sleeps.
    fn publish(&self, counter: &Counter) {
        counter.bytes.store(self.position, Ordering::SeqCst);
        if counter.sleeper.load(Ordering::SeqCst) == 1 && counter.sleeper.swap(0, Ordering::SeqCst) == 1 {
            let _ = futex::wake(&counter.sleeper, futex::Flags::empty(), 1);
        }
    }
}

impl Sender for Ring {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        for piece in message.chunks(PIECE_BYTES) {
            let mut sent = 0;
            while sent < piece.len() {
                if self.position - self.seen == BUFFER_BYTES as u64 {
                    self.seen = self.wait_past(&self.mapping.head().taken, self.seen);
                }
                let room = BUFFER_BYTES - (self.position - self.seen) as usize;
                let (target, before_end) = self.mapping.at(self.position);
                let count = room.min(before_end).min(piece.len() - sent);
                // SAFETY: `count` bytes at `target` lie in the buffer, and the receiver has taken out what was there; `piece`
                // is private and has `count` bytes from `sent` on.
                unsafe { ptr::copy_nonoverlapping(piece[sent..].as_ptr(), target, count) };
                self.position += count as u64;
                sent += count;
            }
            self.publish(&self.mapping.head().put);
        }
        Ok(())
    }
}

impl Receiver for Ring {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        let mut received = 0;
        while received < buffer.len() {
            if self.seen == self.position {
                self.seen = self.wait_past(&self.mapping.head().put, self.position);
            }
            let there = (self.seen - self.position) as usize;
            let (source, before_end) = self.mapping.at(self.position);
            let count = there.min(before_end).min(PIECE_BYTES).min(buffer.len() - received);
            // SAFETY: `count` bytes at `source` lie in the buffer, and the sender has put them in; `buffer` is private and has
            // `count` bytes from `received` on.
            unsafe { ptr::copy_nonoverlapping(source, buffer[received..].as_mut_ptr(), count) };
            self.position += count as u64;
            received += count;
            self.publish(&self.mapping.head().taken);
        }
        Ok(Some(received))
    }
}
