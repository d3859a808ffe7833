//! By which stores a piece goes into the bulk.
//!
//! Ordinary ones take each line away from the receiver, which read it the last time around, and keep it in this core's caches, where
//! the receiver has to fetch it. Non-temporal ones send it to memory. Which is faster depends on how far the cores are from each
//! other, which nobody can be asked and which changes when a process moves. So each sender measures it.
//!
//! What two processes reach, of memcpy, by ordinary and by non-temporal stores in a ring of 256 KiB: near to each other (a cache-line
//! round trip of 112 ns) 0.12 and 0.28 hot and 0.44 and 0.67 cold with messages of 64 KiB, 0.88 and 0.92 cold with 16 MiB; far from
//! each other (550 ns) 0.05 and 0.38 hot and 0.18 and 1.46 cold with 1 MiB. Ordinary ones win where the lines are in a cache that both
//! cores share, as with larger rings: 0.60 and 0.28 near, hot, with 64 KiB in one of 2 MiB.

use std::time::Instant;

use super::Ring;

/// Shorter pieces go by ordinary stores: they are as likely to be waited for as to be one of many.
const LEAST_BYTES: usize = 8 << 10;
/// After how many pieces both are measured anew: about 64 MiB, in which the slower one is not felt even where it takes thirty times
/// as long.
const PERIOD: u32 = 4096;
/// How many pieces are measured, by turns.
const MEASURED: u32 = 6;
/// How many pieces go before the first measurement: several times around a ring, so that it meets no page faults.
const UNMEASURED: u32 = 128;

#[derive(Debug)]
pub(super) struct Stores {
    /// How many pieces of this period were put.
    pieces: u32,
    /// The shortest time of this period, of 1 MiB: by ordinary stores, and past the caches.
    best_ns: [u128; 2],
    /// Which was shorter in the last one.
    past_caches: bool,
}

impl Default for Stores {
    fn default() -> Self {
        // Past the caches: that costs little where it is not the faster way, and much is won where it is.
        Self { pieces: PERIOD - UNMEASURED, best_ns: [0; 2], past_caches: true }
    }
}

impl Stores {
    /// Puts a piece into the bulk at `position`.
    #[inline]
    pub(super) fn put(&mut self, ring: &Ring, position: u64, bytes: &[u8]) {
        if bytes.len() < LEAST_BYTES {
            ring.put_bulk(position, bytes);
        } else if self.pieces < MEASURED {
            self.measure(ring, position, bytes);
        } else {
            self.pieces = (self.pieces + 1) % PERIOD;
            put(ring, position, bytes, self.past_caches);
        }
    }

    #[cold]
    fn measure(&mut self, ring: &Ring, position: u64, bytes: &[u8]) {
        if self.pieces == 0 {
            self.best_ns = [u128::MAX; 2];
        }
        let past_caches = self.pieces.is_multiple_of(2);
        let begin = Instant::now();
        put(ring, position, bytes, past_caches);
        let time_ns = (begin.elapsed().as_nanos() << 20) / bytes.len() as u128;
        let best_ns = &mut self.best_ns[usize::from(past_caches)];
        *best_ns = time_ns.min(*best_ns);
        self.pieces += 1;
        if self.pieces == MEASURED {
            self.past_caches = self.best_ns[1] < self.best_ns[0];
        }
    }
}

#[inline]
fn put(ring: &Ring, position: u64, bytes: &[u8], past_caches: bool) {
    match past_caches {
        true => ring.put_bulk_past_caches(position, bytes),
        false => ring.put_bulk(position, bytes),
    }
}
