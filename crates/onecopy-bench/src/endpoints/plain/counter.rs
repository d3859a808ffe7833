//! How the plain loops over shared memory wait for each other: a counter that one side raises, and a futex.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use crate::options::Wait;

/// As long as our adaptive wait spins.
const SPIN: Duration = Duration::from_micros(50);
const ROUNDS_PER_LOOK: u32 = 256;

/// A number that one side raises and the other one waits for.
#[repr(C, align(128))]
pub(super) struct Counter {
    value: AtomicU64,
    /// 1 while the side that waits sleeps on it.
    sleeper: AtomicU32,
}

impl Counter {
    /// Waits until the counter is past `limit`, and returns it. Acquire: what the other side did before it raised the counter
    /// is seen.
    pub(super) fn wait_past(&self, limit: u64, wait: Wait) -> u64 {
        let passed = || Some(self.value.load(Ordering::Acquire)).filter(|value| *value > limit);
        loop {
            if let Some(value) = passed().or_else(|| spin(wait, passed)) {
                return value;
            }
            // The sleeper first says that it sleeps and then looks; the other side first raises the counter and then looks
            // for a sleeper. One of them sees the other.
            self.sleeper.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if passed().is_none() {
                // Woken, interrupted or too late to sleep: the loop looks again.
                let _ = futex::wait(&self.sleeper, futex::Flags::empty(), 1, None);
            }
            self.sleeper.store(0, Ordering::Relaxed);
        }
    }

    /// Raises the counter, and wakes whoever sleeps.
    pub(super) fn raise(&self, value: u64) {
        self.value.store(value, Ordering::SeqCst);
        if self.sleeper.load(Ordering::SeqCst) == 1 && self.sleeper.swap(0, Ordering::SeqCst) == 1 {
            let _ = futex::wake(&self.sleeper, futex::Flags::empty(), 1);
        }
    }
}

fn spin(wait: Wait, passed: impl Fn() -> Option<u64>) -> Option<u64> {
    if wait == Wait::Block {
        return None;
    }
    let end = Instant::now() + SPIN;
    loop {
        if let Some(value) = (0..ROUNDS_PER_LOOK).find_map(|_| passed()) {
            return Some(value);
        }
        if wait == Wait::Adaptive && Instant::now() >= end {
            return None;
        }
    }
}
