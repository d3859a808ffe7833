//! Where the pieces of short messages lie: while the receiver keeps up, in the same few lines of the bulk again and again.
//!
//! A core writes lines that are still in its first cache faster than those that it last wrote a whole bulk ago: 2.2 and 7 ns each
//! where the receiver has read them meanwhile. That is so for messages of less than [`LEAST_BYTES`]: 256 of them, which are as many as
//! can be under way, do not leave the second cache of their writer. A stream of longer ones goes faster through the whole bulk: 4 KiB in
//! 0.14 to 0.17 us each and 8 KiB in 0.24, which were 0.32 and 0.77 here, where a cache-line round trip takes 95 ns; 0.35 and 0.56, which
//! were 1.4 and 3.8, where it takes 520. One that is waited for is read while it is written, and comes sooner from here.
//!
//! So a short message whose piece would leave the [`NEAR_BYTES`] in which the last one lies begins at the begin of the bulk again, if
//! the receiver is done with what lies there. Positions count up nevertheless: what lies between is jumped over, and comes free with
//! what lies before it.
//!
//! ```text
//!     taken      from             to = a multiple of the bulk's length          from + the bulk's length
//!       |--in use--|--jumped over--|--in use--| next                               |
//! ```
//!
//! That costs no room. When the next position comes to where the bytes from `taken` on lie, one round later, they are jumped over
//! too, with what is free right before them; then the bulk is in use up to `to`, one round later, and the receiver's word, which
//! may be older than that, counts as `to`: the floor. So never is more than two rounds between the two positions.
//!
//! Most short messages fit where the last one ended: how much is left there is known, and then nothing else need be.
//!
//! On some machines that is so for a message that is waited for, and a stream of short ones goes faster through the whole bulk, too:
//! [`reach`](super::reach) finds out. Then there is nothing to jump over.

use super::RingSender;
use super::reach::Way;
use super::stores::LEAST_BYTES;
use crate::Result;
use crate::atomic::Ordering;
use crate::memory::ring::layout::{BULK, FIRST, LAST, Ring, SLOTS, whole_lines};

/// The part of the bulk that is used again and again. Measured with streams of 1 KiB where there is AVX-512: 61 ns each in 8 KiB, 73 in 16 KiB, 164 in
/// 32 KiB and 181 in 256 KiB where a cache-line round trip takes 100 ns; 235 in 16 KiB and 607 in 64 KiB where it takes 490.
pub(super) const NEAR_BYTES: u64 = if cfg!(loom) { 128 } else { 8 * 1024 };
/// The longest message that lies there, if it is waited for. Measured in ping-pong, half of a round trip there and through the whole bulk, in
/// ns: 2 KiB 310 and 300, 3 KiB 375 and 560, 4 KiB 520 and 750, 5 KiB 566 and 700, 6 KiB 721 and 660, 8 KiB 1000 and 700 where a
/// cache-line round trip takes 83.
const NEAR_MESSAGE_BYTES: u64 = 5 * 1024;
/// How many bytes of one of [`LEAST_BYTES`] or more are published at a time; shorter ones are published as a whole. Measured as above: one of
/// 2.5 KiB took 757 ns by 1 KiB and 820 by 2 KiB, of 4 KiB 968 and 1070; one of 1.5 KiB 590 and 518 as a whole, and streams of them 161 ns
/// a message and 91 to 152.
const NEAR_PIECE_BYTES: usize = if cfg!(loom) { 128 } else { 1024 };
/// How much is fetched before the next message.
const PREFETCHED_BYTES: usize = 1024;
/// In how many slots records may stand before one whose piece lies behind a jump: a receiver that has taken as many finds much room.
const SLOTS_BEFORE_JUMP: u64 = if cfg!(loom) { 2 } else { SLOTS / 4 };

#[inline]
fn near_piece_bytes(total: u64) -> usize {
    if total < LEAST_BYTES && !cfg!(loom) { LEAST_BYTES as usize } else { NEAR_PIECE_BYTES }
}

/// Positions that were jumped over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    from: u64,
    to: u64,
}

/// The longest message that stays near in `ring`. None does in the page cache of a disk, where that was measured to be slower than
/// going round the whole bulk, though nothing but the cores touches the memory: streams of 4 KiB take 750 ns each against 590 in a file
/// on ext4, and 420 against 620 on tmpfs. Why is not known.
pub(super) fn message_bytes(ring: &Ring) -> u64 {
    if ring.is_on_disk() { 0 } else { NEAR_MESSAGE_BYTES }
}

impl RingSender {
    /// Whether a message of `total` bytes lies there.
    #[inline]
    pub(super) fn is_near(&self, total: u64) -> bool {
        total <= self.near_message_bytes && (total < LEAST_BYTES || self.is_awaited)
    }

    /// How long the next piece is, of a message of `total` bytes of which there are so many to come.
    #[inline]
    pub(super) fn piece_bytes(&self, rest_bytes: usize, total: u64) -> usize {
        let piece_bytes = self.ring.sizes.piece_bytes;
        let most = if self.is_near(total) { near_piece_bytes(total) } else { piece_bytes };
        rest_bytes.min(most).min(piece_bytes - self.ring.sizes.offset_in_piece(self.bulk))
    }

    /// How many records a message of `bytes` needs at most, and how much of the bulk: its first piece may end where one of the ring
    /// does, and so may the first behind a jump. All but the last are whole lines. That is enough also if the way to send changes meanwhile.
    #[inline]
    pub(super) fn needs(&self, bytes: usize) -> (u64, u64) {
        let total = bytes as u64;
        let (piece_bytes, more) =
            if self.is_near(total) { (near_piece_bytes(total), 4) } else { (self.ring.sizes.piece_bytes, 2) };
        ((bytes / piece_bytes) as u64 + more, (bytes as u64).saturating_add(whole_lines(1) - 1))
    }

    /// Goes to the begin of the bulk where the next piece would lie farther away, and there is room for all that is to come.
    #[inline]
    pub(super) fn stay_near(&mut self, rest_bytes: usize, total: u64) -> Result<()> {
        if !self.is_near(total) {
            return Ok(());
        }
        let way = if self.is_awaited { Way::Near } else { self.reach.way() };
        let is_whole = way != Way::Near;
        self.near_bytes = if is_whole { self.ring.sizes.bulk_bytes } else { NEAR_BYTES };
        self.asks_ahead = way != Way::Whole;
        let offset = self.bulk % self.ring.sizes.bulk_bytes;
        let last = offset + rest_bytes.min(near_piece_bytes(total)) as u64 - 1;
        if is_whole || offset == 0 || (offset - 1) / NEAR_BYTES == last / NEAR_BYTES {
            return Ok(());
        }
        self.go_to_begin(offset, rest_bytes)
    }

    /// After a piece of a message of `total` bytes: sees how much may follow it.
    #[inline]
    pub(super) fn look_near(&mut self, total: u64) {
        let left_bytes = std::mem::take(&mut self.near_room_bytes);
        if self.is_near(total) {
            let sizes = self.ring.sizes;
            let offset = self.bulk % sizes.bulk_bytes;
            let left_near = offset.next_multiple_of(self.near_bytes) - offset;
            let left_of_piece = sizes.piece_bytes - sizes.offset_in_piece(self.bulk);
            self.near_room_bytes = left_near.min(left_of_piece as u64);
            if !self.is_awaited {
                self.reach.count(left_bytes, total, self.near_room_bytes);
            }
            self.prefetch_near(offset);
        }
    }

    /// Takes the lines in which the next short message will lie away from the receiver, while the caller has something else to do. Measured
    /// with streams of 1 KiB through a channel: 349 ns each without and 253 with it where a cache-line round trip takes 490; no difference
    /// where it takes 50 or 95.
    #[inline]
    fn prefetch_near(&self, offset: u64) {
        if !self.asks_ahead {
            return;
        }
        let position = if offset == self.near_bytes { 0 } else { offset };
        self.ring.prefetch_bulk_to_write(position, PREFETCHED_BYTES);
    }

    /// Whether a message of so many bytes could go at once where the last one ended.
    #[inline]
    pub(crate) fn has_near_room(&self, bytes: usize) -> bool {
        let lines = whole_lines(bytes);
        let fits = ((bytes as u64) < LEAST_BYTES) & (lines <= self.near_room_bytes);
        self.rest.is_none() & fits & self.has_room(1, lines)
    }

    /// Puts a message there. Then the caller announces it.
    #[inline]
    pub(crate) fn put_near(&mut self, message: &[u8]) {
        let lines = whole_lines(message.len());
        self.ring.put_bulk(self.bulk, message);
        let slot = self.ring.slot(self.slots);
        slot.words[0].store(message.len() as u64, Ordering::Relaxed);
        slot.words[1].store(self.bulk, Ordering::Relaxed);
        self.bulk = self.bulk.wrapping_add(lines);
        self.near_room_bytes -= lines;
        self.publish(FIRST | LAST | BULK, message.len());
        self.prefetch_near(self.bulk % self.ring.sizes.bulk_bytes);
    }

    fn go_to_begin(&mut self, offset: u64, rest_bytes: usize) -> Result<()> {
        self.look_at_receiver()?;
        let skipped = self.ring.sizes.bulk_bytes - offset;
        let (slots, bytes) = (self.slots.wrapping_sub(self.slots_taken), self.bulk.wrapping_sub(self.bulk_taken));
        let is_close = slots < SLOTS_BEFORE_JUMP && bytes <= NEAR_BYTES;
        if is_close && self.has_room(0, skipped + whole_lines(rest_bytes)) {
            let (from, to) = (self.bulk, self.bulk.wrapping_add(skipped));
            self.gap = Some(Gap { from, to });
            self.bulk = to;
        }
        Ok(())
    }

    /// Whether there is room, now that this side has looked where the receiver is.
    #[inline]
    pub(super) fn finds_room(&mut self, slots: u64, bulk_bytes: u64) -> Result<bool> {
        self.look_at_receiver()?;
        if !self.has_room(0, bulk_bytes) {
            self.go_beyond_gap();
        }
        Ok(self.has_room(slots, bulk_bytes))
    }

    /// Jumps over what stood before the last jump, if it is still in use.
    fn go_beyond_gap(&mut self) {
        if let Some(Gap { from, to }) = self.gap.take_if(|gap| gap.is_before(self.bulk_taken)) {
            self.bulk = from.wrapping_add(self.ring.sizes.bulk_bytes);
            self.near_room_bytes = 0;
            (self.floor, self.bulk_taken) = (to, to);
        }
    }

    /// How much of the bulk is in use by what the receiver has left, who is at `taken`.
    pub(super) fn bulk_in_use(&self, taken: u64) -> u64 {
        let gap_bytes = self.gap.filter(|gap| gap.is_before(taken)).map_or(0, |gap| gap.to.wrapping_sub(gap.from));
        self.bulk.wrapping_sub(self.above_floor(taken)).wrapping_sub(gap_bytes)
    }

    /// Where the receiver is, who says that it is at `taken`, or the floor.
    #[inline]
    pub(super) fn above_floor(&self, taken: u64) -> u64 {
        if self.bulk.wrapping_sub(taken) > self.bulk.wrapping_sub(self.floor) { self.floor } else { taken }
    }
}

impl Gap {
    /// Whether a receiver at `taken` has it before it.
    fn is_before(&self, taken: u64) -> bool {
        self.from.wrapping_sub(taken).cast_signed() >= 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use super::*;
    use crate::memory::anonymous::AnonymousMapping;
    use crate::memory::ring::layout::PIECE_BYTES;
    use crate::memory::ring::{MIN_RING_BYTES, RING_BYTES, RingReceiver};
    use crate::{Deadline, Receiver, Sender};

    fn ring(bytes: usize) -> (RingSender, RingReceiver) {
        let region = Arc::new(AnonymousMapping::create("near", bytes).unwrap().into_region());
        let sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
        (sender, RingReceiver::attach(region, Deadline::Now).unwrap())
    }

    #[test]
    fn a_receiver_that_keeps_up_finds_short_messages_in_the_first_bytes_of_the_bulk() {
        let (mut sender, mut receiver) = ring(RING_BYTES);
        let mut buffer = [0; 3000];
        for number in 0..1000_u64 {
            let message = &[number as u8; 3000][..200 + number as usize % 2800];
            sender.send(message).unwrap();
            let next = sender.bulk % sender.ring.sizes.bulk_bytes;
            assert!((1..=NEAR_BYTES).contains(&next), "message {number} ends at {next}");
            assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(message.len()));
            assert_eq!(buffer[..message.len()], *message);
        }
        assert!(sender.bulk > 50 * RING_BYTES as u64);
    }

    /// Whatever the two do in which order, every message arrives as it was sent, and none is refused while there is room.
    #[test]
    fn jumps_cost_no_room_and_no_message() {
        for (bytes, seed) in [(RING_BYTES, 1_u64), (RING_BYTES, 2), (MIN_RING_BYTES, 3), (MIN_RING_BYTES, 4)] {
            let (mut sender, mut receiver) = ring(bytes);
            let (mut under_way, mut state) = (VecDeque::new(), seed);
            let (mut number, mut jumps, mut nears) = (0_u64, 0, 0);
            let mut buffer = vec![0; PIECE_BYTES];
            let mut random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            while number < 20_000 {
                // Now the one is faster, now the other.
                let (sends, receives) =
                    if random(8) == 0 { (random(300), random(300)) } else { (random(8), random(9)) };
                for _ in 0..sends {
                    let length = 105 + if random(20) == 0 { random(3 * 4096) } else { random(3000) } as usize;
                    let in_use: u64 = under_way.iter().map(|&(_, length)| whole_lines(length)).sum();
                    let floor = sender.floor;
                    let fits = sender.fits(length);
                    let bulk_bytes = sender.ring.sizes.bulk_bytes;
                    let slots = sender.slots - sender.slots_taken;
                    // What a piece leaves free before the bytes that are jumped over, and what `fits` takes for granted.
                    assert!(
                        fits || in_use + 2 * PIECE_BYTES as u64 > bulk_bytes || slots > SLOTS - 20,
                        "{in_use} {slots}"
                    );
                    jumps += u32::from(sender.floor != floor);
                    if !fits {
                        break;
                    }
                    nears += u32::from(sender.has_near_room(length));
                    sender.send_by(&vec![number as u8; length], Deadline::Now).unwrap();
                    assert_eq!(sender.kept_bytes(), 0, "it fitted");
                    under_way.push_back((number as u8, length));
                    number += 1;
                }
                for _ in 0..receives {
                    let Some((seed, length)) = under_way.pop_front() else { break };
                    assert_eq!(receiver.recv_into_by(&mut buffer, Deadline::Now).unwrap(), Some(length));
                    assert!(buffer[..length].iter().all(|&byte| byte == seed));
                    let left: u64 = under_way.iter().map(|&(_, length)| whole_lines(length)).sum();
                    let in_use = sender.bulk_in_use(receiver_at(&sender));
                    assert!((left..left + 2 * PIECE_BYTES as u64).contains(&in_use), "{in_use} for {left}");
                }
            }
            assert!(jumps > 0, "nothing was in the way of a jump");
            assert!(nears > 5000, "{nears} went at once");
        }
    }

    fn receiver_at(sender: &RingSender) -> u64 {
        sender.ring.header().received.bulk.load(crate::atomic::Ordering::Relaxed)
    }
}
