//! How a ring lies in its region.
//!
//! | Offset | What | Who writes it |
//! |---|---|---|
//! | 0 | [`Header`]: magic, sizes, the two roles, progress, sleepers | as its fields say |
//! | 1024 | [`SLOTS`] slots of one cache line, each a [`Record`] with room for a short message, or a [bare](super::bare) one | the sender |
//! | 20480 | the bulk: the bytes of longer messages, in pieces | the sender |
//!
//! # Safety
//!
//! A [`Ring`] keeps its region mapped. It was checked at attach that the region is writable and long enough for the header and
//! the slots, and that the object behind it has that length; from then on those who may write the object are trusted not to
//! shorten it. Header and slots hold atomics alone, for which any value that a peer writes is valid. The bulk is reached
//! through the copies of [`copy`](crate::memory::copy).
#![expect(unsafe_code, reason = "sees the head of a region as a structure of atomics")]

#[cfg(not(loom))]
use std::mem::offset_of;
#[cfg(not(loom))]
use std::sync::Arc;

use super::bare::BARE_BYTES;
use crate::atomic::{AtomicU64, Ordering};
use crate::memory::Region;
#[cfg(not(loom))]
use crate::memory::copy::{copy_in_lines, copy_in_wide_lines, copy_out_lines, copy_out_past_caches};
#[cfg(not(loom))]
use crate::memory::hints::{prefetch, prefetch_to_write};
use crate::memory::role::Roles;
use crate::memory::wait::Sleepers;
use crate::{Error, Result, tally};

/// The region that most rings should have, in bytes: 2 MiB for what is under way, and what the ring needs for itself.
///
/// That is twice what the second cache of a core holds on many machines. A line that one core has written last and another one reads
/// comes slowly from the first one's own caches, and fast from the cache that both share, to which it goes when the first one has
/// written so much more. Measured with streams of 64 KiB by ordinary stores where a cache-line round trip takes 110 ns and a core has
/// 1 MiB: hot 8.7 GB/s in 256 KiB, 14 in 1 MiB, 25 in 1.5 MiB and 40 in 2 MiB; cold 8.4, 14, 15.5 and 15. Where it takes 490, and
/// non-temporal stores are the faster ones, the length makes no difference.
pub const RING_BYTES: usize = BULK_OFFSET + 128 * PIECE_BYTES;
/// The smallest region that holds a ring, in bytes.
pub const MIN_RING_BYTES: usize = BULK_OFFSET + 4 * SMALL_PIECE_BYTES;
/// How many bytes of a long message are published at a time. Measured by `examples/ring_figures.rs` on streams of hot 64 KiB
/// messages: where the two cores are far apart (a cache-line round trip of 500 ns) 8 KiB reach 20, 16 KiB 30 and 32 KiB 35
/// GB/s, where they are near (110 ns) all reach 59; the longer the piece, the later the receiver of a single message starts.
pub const PIECE_BYTES: usize = 16 * 1024;
/// The same in a region in which there would be room for less than eight of them.
const SMALL_PIECE_BYTES: usize = 4096;

/// The magic number "onecRing" less its last two bytes, which are the version of this layout.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"onecRi\0\0") | VERSION << 48;
const VERSION: u64 = 1;

/// How many messages, or pieces of messages, can be under way. A model has to come round soon.
pub(super) const SLOTS: u64 = if cfg!(loom) { 2 } else { 256 };
#[cfg(not(loom))]
const SLOT_OFFSET: usize = 1024;
/// What a ring needs beside its bulk, in bytes.
pub(crate) const BULK_OFFSET: usize = 20 * 1024;
/// Pieces begin at whole cache lines.
const LINE_BYTES: u64 = 64;

/// Cache lines are fetched in pairs, so words that different sides write stand 128 bytes apart.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Header {
    /// [`MAGIC`], or 0 in a new region.
    pub(super) magic: AtomicU64,
    /// 0, then the identity of the process that lays the ring out, then [`READY`].
    pub(super) state: AtomicU64,
    pub(super) bulk_bytes: AtomicU64,
    pub(super) piece_bytes: AtomicU64,
    pub(super) roles: Roles,
    /// Where the sender is, for its successor: nobody else reads it but to decide about a wake-up.
    pub(super) sent: Progress,
    /// Where the receiver is. The sender reads it when its last copy of it leaves no room.
    pub(super) received: Progress,
    pub(super) sleepers: Sleepers,
}

/// How far one side is. Both count up for ever; what they count wraps in its place.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Progress {
    pub(super) slots: AtomicU64,
    pub(super) bulk: AtomicU64,
}

pub(super) const READY: u64 = 1 << 63;

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Header>() <= SLOT_OFFSET && SLOT_OFFSET + SLOTS as usize * size_of::<Slot>() <= BULK_OFFSET);
    assert!(offset_of!(Header, state) == 8 && offset_of!(Header, bulk_bytes) == 16);
    assert!(offset_of!(Header, piece_bytes) == 24 && offset_of!(Header, roles) == 128);
    assert!(offset_of!(Header, sent) == 256 && offset_of!(Header, received) == 384);
    assert!(offset_of!(Header, sleepers) == 512 && size_of::<Header>() == 640);
    assert!(offset_of!(Roles, receiver) == 16 && offset_of!(Roles, ended) == 32);
    assert!(size_of::<Slot>() == LINE_BYTES as usize && align_of::<Slot>() == LINE_BYTES as usize);
    assert!(PIECE_BYTES <= u16::MAX as usize && PIECE_BYTES.is_multiple_of(LINE_BYTES as usize));
    assert!(PIECE_BYTES.is_power_of_two() && SMALL_PIECE_BYTES.is_power_of_two());
};

/// One cache line: a record, and with it either a short message (or a part of one) or where the piece lies.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Slot {
    pub(super) record: AtomicU64,
    pub(super) words: [AtomicU64; 7],
}

/// How many bytes a slot has for a message.
pub(crate) const INLINE_BYTES: usize = 56;
/// The same in the first slot of a message that needs several: it tells the length of the whole message as well.
pub(super) const INLINE_FIRST_BYTES: usize = INLINE_BYTES - 8;
/// The longest message that goes through slots alone, two of them.
pub(crate) const INLINE_MESSAGE_BYTES: usize = INLINE_FIRST_BYTES + INLINE_BYTES;

impl Slot {
    /// Publishes what was put. A plain store: it leaves the core together with the words, where a stronger one would wait for them,
    /// and a receiver that looks at the line in between would take the line away, for a second way to and fro.
    #[inline]
    pub(super) fn publish(&self, record: Record) {
        self.record.store(record.to_bits(), Ordering::Release);
    }

    /// The record that stands here, of whatever lap, or the word of a bare message.
    #[inline]
    pub(super) fn any_record(&self) -> Record {
        // Acquire pairs with the store in `publish`: the words and the bulk are seen as they were then.
        Record::from_bits(self.record.load(Ordering::Acquire))
    }

    /// The record number `index`, which belongs here, once it is published.
    #[inline]
    pub(super) fn record(&self, index: u64) -> Option<Record> {
        let record = self.any_record();
        record.is_number(index).then_some(record)
    }

    /// Has its cache line come here, for the case that a record will soon be looked for.
    #[inline]
    pub(super) fn touch(&self) {
        // Nobody needs what it says: compilers leave a load of an atomic in its place all the same, and if one did not, that would
        // cost time and nothing else.
        let _ = self.record.load(Ordering::Relaxed);
    }

    /// Puts `bytes` into the words from `first_word` on. Relaxed: the record that is stored after them publishes them. The caller
    /// counts them.
    #[inline]
    pub(super) fn put(&self, first_word: usize, bytes: &[u8]) {
        let words = &self.words[first_word..];
        let (whole, rest) = bytes.as_chunks::<8>();
        for index in 0..INLINE_BYTES / 8 {
            let (Some(word), Some(chunk)) = (words.get(index), whole.get(index)) else { break };
            word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
        if let Some(word) = words.get(whole.len())
            && !rest.is_empty()
        {
            word.store(last_word(bytes, rest), Ordering::Relaxed);
        }
    }

    /// The reverse of [`Slot::put`]. Relaxed: the Acquire load of the record ordered the words.
    #[inline]
    pub(super) fn take(&self, first_word: usize, bytes: &mut [u8]) {
        let words = &self.words[first_word..];
        tally::count_user(bytes.len());
        let (whole, rest) = bytes.as_chunks_mut::<8>();
        let count = whole.len();
        for (word, chunk) in words.iter().zip(whole) {
            *chunk = word.load(Ordering::Relaxed).to_le_bytes();
        }
        if !rest.is_empty() {
            let last = words[count].load(Ordering::Relaxed).to_le_bytes();
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// A word of the last bytes of a message, which are `rest`, fewer than 8. Without a copy of so many bytes as nobody knows before: that
/// is a call.
#[inline]
fn last_word(bytes: &[u8], rest: &[u8]) -> u64 {
    if let Some(last) = bytes.last_chunk::<8>() {
        return u64::from_le_bytes(*last) >> (64 - 8 * rest.len());
    }
    match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last)) << (8 * rest.len() - 32);
            u64::from(u32::from_le_bytes(*first)) | last
        }
        _ => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// The word that publishes a slot: in 32 bits the lap, by which the receiver knows it from what stood there before, then 8
/// bits of the sender's generation, 8 flags and 16 bits of length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record(u64);

/// The first record of a message.
pub(super) const FIRST: u8 = 1;
/// The last record of a message.
pub(super) const LAST: u8 = 2;
/// No message, but what stands in line with them: see [`RingSender::send_offer`](super::RingSender).
pub(super) const OFFER: u8 = 8;
/// The bytes have gone past the caches: a hint.
pub(super) const STREAMED: u8 = 16;
/// The whole slot is the message, see [`bare`](super::bare): the flag of no record in shared memory.
pub(super) const BARE: u8 = 32;
/// The bytes lie in the bulk. The words are the length of the whole message and the position of the piece.
pub(super) const BULK: u8 = 4;

impl Record {
    #[inline]
    pub(super) fn new(index: u64, generation: u8, flags: u8, bytes: usize) -> Self {
        debug_assert!(bytes <= PIECE_BYTES);
        Self(u64::from(lap(index)) << 32 | u64::from(generation) << 24 | u64::from(flags) << 16 | bytes as u64)
    }

    #[inline]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline]
    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    /// How many laps it is after the one before that of the record number `index`: 0 for what stood there before, 1 for that record.
    #[inline]
    pub(super) fn laps_after_last(self, index: u64) -> u32 {
        ((self.0 >> 32) as u32).wrapping_sub((index / SLOTS) as u32)
    }

    /// Whether this is the record number `index` and not an older one in the same slot.
    #[inline]
    pub(super) fn is_number(self, index: u64) -> bool {
        self.laps_after_last(index) == 1
    }

    /// Stands for the record that a bare message has not.
    #[inline]
    pub(super) fn of_bare(index: u64) -> Self {
        Self::new(index, 0, FIRST | LAST | BARE, BARE_BYTES)
    }

    /// Whether it is [`Record::of_bare`]. A peer can write that too, and then the slot is the message all the same.
    #[inline]
    pub(super) fn is_bare(self) -> bool {
        self.is_just(FIRST | LAST | BARE) && self.bytes() == BARE_BYTES
    }

    #[inline]
    pub(super) fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }

    #[inline]
    pub(super) fn has(self, flags: u8) -> bool {
        (self.0 >> 16) as u8 & flags == flags
    }

    /// Whether it has these flags and no others, and not more than `most` bytes, which 16 bits can tell: by one comparison.
    #[inline]
    pub(super) fn is_just_up_to(self, flags: u8, most: usize) -> bool {
        debug_assert!(most <= usize::from(u16::MAX), "{most} would take in other flags");
        (self.0 & 0x00ff_ffff).wrapping_sub(u64::from(flags) << 16) <= most as u64
    }

    /// Whether it has these flags and no others.
    #[inline]
    pub(super) fn is_just(self, flags: u8) -> bool {
        (self.0 >> 16) as u8 == flags
    }

    #[inline]
    pub(super) fn bytes(self) -> usize {
        self.0 as u16 as usize
    }
}

/// The number of the round of a record, from 1 on: a slot of zeros was never written.
#[inline]
pub(super) fn lap(index: u64) -> u32 {
    ((index / SLOTS) as u32).wrapping_add(1)
}

/// Where the next piece begins after one of `bytes` at a whole line.
#[inline]
pub(super) fn whole_lines(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(LINE_BYTES)
}

/// The sizes that depend on the region: kept privately, since the copies in the header can change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) bulk_bytes: u64,
    pub(super) piece_bytes: usize,
}

impl Sizes {
    pub(super) fn of_region(region: &Region) -> Result<Self> {
        let Some(room) = region.len().checked_sub(BULK_OFFSET).filter(|room| *room >= 4 * SMALL_PIECE_BYTES) else {
            return Err(Error::Invalid {
                object: region.object().into(),
                reason: format!(
                    "a ring needs {MIN_RING_BYTES} bytes, the region has {}: create one of {RING_BYTES}",
                    region.len()
                ),
            });
        };
        let piece_bytes = if room >= 8 * PIECE_BYTES { PIECE_BYTES } else { SMALL_PIECE_BYTES };
        Ok(Self { bulk_bytes: (room / piece_bytes * piece_bytes) as u64, piece_bytes })
    }

    /// How far into a piece of the ring `position` lies. Their length is a power of two, so that is no division.
    #[inline]
    pub(super) fn offset_in_piece(self, position: u64) -> usize {
        position as usize & (self.piece_bytes - 1)
    }

    /// Whether at least a quarter is free, with so many slots in use and so many bytes of the bulk.
    pub(super) fn is_much_room(self, slots: u64, bulk_bytes: u64) -> bool {
        slots <= SLOTS / 4 * 3 && bulk_bytes <= self.bulk_bytes / 4 * 3
    }

    /// The sizes that the header tells, if they can be true of `region`.
    pub(super) fn of_header(region: &Region, header: &Header) -> Result<Self> {
        let bulk_bytes = header.bulk_bytes.load(Ordering::Relaxed);
        let piece_bytes = header.piece_bytes.load(Ordering::Relaxed);
        let fits = bulk_bytes <= (region.len() - BULK_OFFSET) as u64;
        let known = [PIECE_BYTES, SMALL_PIECE_BYTES].into_iter().find(|&bytes| bytes as u64 == piece_bytes);
        match known {
            Some(piece_bytes)
                if fits && bulk_bytes >= 4 * piece_bytes as u64 && bulk_bytes.is_multiple_of(piece_bytes as u64) =>
            {
                Ok(Self { bulk_bytes, piece_bytes })
            }
            _ => Err(Error::Corrupt {
                object: region.object().into(),
                detail: format!(
                    "a ring whose bulk has {bulk_bytes} bytes in pieces of {piece_bytes}, in a region of {} bytes",
                    region.len()
                ),
            }),
        }
    }
}

#[cfg(loom)]
pub(super) use super::model::Ring;

/// A region that holds a ring.
#[cfg(not(loom))]
#[derive(Clone, Debug)]
pub(super) struct Ring {
    region: Arc<Region>,
    pub(super) sizes: Sizes,
}

#[cfg(not(loom))]
impl Ring {
    /// `region` as a ring of these sizes, which were checked against it.
    pub(super) fn new(region: Arc<Region>, sizes: Sizes) -> Self {
        assert!(region.is_writable() && BULK_OFFSET as u64 + sizes.bulk_bytes <= region.len() as u64);
        Self { region, sizes }
    }

    pub(super) fn object(&self) -> &str {
        self.region.object()
    }

    pub(super) fn is_on_disk(&self) -> bool {
        self.region.is_on_disk()
    }

    /// Takes the pages of so many bytes from `offset` of the bulk on.
    pub(super) fn warm(&self, offset: u64, bytes: u64) -> Result<()> {
        self.region.warm(BULK_OFFSET + offset as usize, bytes as usize)
    }

    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: the region is writable and longer than the header, checked in `new`; a mapping begins at a page, so it
        // is aligned; atomics tolerate what peers write; the reference lives no longer than `self`, which keeps the mapping.
        unsafe { self.region.base().cast::<Header>().as_ref() }
    }

    /// The slot of the record number `index`.
    #[inline]
    pub(super) fn slot(&self, index: u64) -> &Slot {
        let offset = SLOT_OFFSET + (index % SLOTS) as usize * size_of::<Slot>();
        // SAFETY: all slots end before BULK_OFFSET, and the region is longer than that, checked in `new`.
        let slot = unsafe { self.region.base().add(offset) };
        // SAFETY: within the region; 64 divides the offset; a slot is atomics; lives as long as `self`.
        unsafe { slot.cast::<Slot>().as_ref() }
    }

    /// Copies `bytes` into the bulk at `position`. They do not cross its end.
    #[inline]
    pub(super) fn put_bulk(&self, position: u64, bytes: &[u8]) {
        let shared = self.bulk(position, bytes.len());
        // SAFETY: `bulk` has checked the range; the region is writable and stays mapped; `bytes` is private.
        unsafe { copy_out_lines(shared, bytes) };
    }

    /// As [`Ring::put_bulk`], past the caches.
    #[inline]
    pub(super) fn put_bulk_past_caches(&self, position: u64, bytes: &[u8]) {
        let shared = self.bulk(position, bytes.len());
        // SAFETY: `bulk` has checked the range; the region is writable and stays mapped; `bytes` is private.
        unsafe { copy_out_past_caches(shared, bytes) };
    }

    /// Copies from the bulk at `position`, by wide lines or narrow ones. The range does not cross its end.
    #[inline]
    pub(super) fn take_bulk(&self, position: u64, bytes: &mut [u8], is_wide: bool) {
        let shared = self.bulk(position, bytes.len());
        match is_wide {
            // SAFETY: `bulk` has checked the range; the region stays mapped; `bytes` is private.
            true => unsafe { copy_in_wide_lines(bytes, shared) },
            // SAFETY: as above.
            false => unsafe { copy_in_lines(bytes, shared) },
        }
    }

    /// Has the first `bytes` at `position` of the bulk brought into this core's cache.
    #[inline]
    pub(super) fn prefetch_bulk(&self, position: u64, bytes: usize) {
        let offset = position % self.sizes.bulk_bytes;
        let len = (bytes as u64).min(self.sizes.bulk_bytes - offset) as usize;
        prefetch(self.bulk(offset, len), len);
    }

    /// The same, to be written.
    #[inline]
    pub(super) fn prefetch_bulk_to_write(&self, position: u64, bytes: usize) {
        let offset = position % self.sizes.bulk_bytes;
        let len = (bytes as u64).min(self.sizes.bulk_bytes - offset) as usize;
        prefetch_to_write(self.bulk(offset, len), len);
    }

    /// The address of `position` in the bulk.
    ///
    /// # Panics
    ///
    /// When `len` bytes from there cross the end: the callers have checked that they do not.
    #[inline]
    fn bulk(&self, position: u64, len: usize) -> *mut u8 {
        let offset = position % self.sizes.bulk_bytes;
        assert!(len as u64 <= self.sizes.bulk_bytes - offset, "a piece crosses the end of the bulk");
        // SAFETY: `BULK_OFFSET + bulk_bytes` lies within the region, checked in `new`, and `offset` is less.
        unsafe { self.region.base().add(BULK_OFFSET + offset as usize) }.as_ptr()
    }
}

impl Ring {
    /// The record number `index`, once it is published.
    #[inline]
    pub(super) fn record(&self, index: u64) -> Option<Record> {
        self.slot(index).record(index)
    }
}

/// The header of a region that may hold anything, or nothing yet.
pub(super) fn header_of(region: &Region) -> Result<&Header> {
    Sizes::of_region(region)?;
    region.check_writable()?;
    // SAFETY: long enough and writable, checked by the two lines above; aligned, since a mapping begins at a page; atomics
    // tolerate what peers write; the reference borrows the region.
    Ok(unsafe { region.base().cast::<Header>().as_ref() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comparison_tells_flags_and_length() {
        for (flags, bytes) in [(FIRST, 0), (LAST, 9), (FIRST | LAST, 57), (FIRST | LAST | OFFER, 8), (BULK | LAST, 8)] {
            let record = Record::new(7, 200, flags, bytes);
            assert!(!record.is_just_up_to(FIRST | LAST, 56), "{record:?}");
            assert!(record.is_just(flags) && record.is_just_up_to(flags, bytes), "{record:?}");
            assert!(bytes == 0 || !record.is_just_up_to(flags, bytes - 1), "{record:?}");
        }
        for bytes in 0..=56 {
            assert!(Record::new(7, 200, FIRST | LAST, bytes).is_just_up_to(FIRST | LAST, 56));
        }
    }

    #[test]
    fn a_record_keeps_its_parts_and_its_place() {
        for index in [0, 1, 255, 256, 1 << 33, (1 << 40) - 1] {
            let record = Record::new(index, 0xfe, FIRST | BULK, PIECE_BYTES);
            assert!(record.is_number(index) && !record.is_number(index + SLOTS));
            assert_eq!((record.generation(), record.bytes()), (0xfe, PIECE_BYTES));
            assert!(record.has(FIRST) && record.has(FIRST | BULK) && !record.has(LAST) && !record.has(FIRST | LAST));
        }
        assert!(!Record::from_bits(0).is_number(0), "a region of zeros holds no record");
    }

    #[test]
    fn a_slot_returns_what_was_put_into_it() {
        let slot = Slot { record: AtomicU64::new(0), words: Default::default() };
        let source: Vec<u8> = (1..=56).collect();
        for first_word in [0, 1] {
            for len in 0..=INLINE_BYTES - 8 * first_word {
                slot.put(first_word, &source[..len]);
                let mut target = vec![0; len];
                slot.take(first_word, &mut target);
                assert_eq!(target, source[..len]);
            }
        }
    }
}
