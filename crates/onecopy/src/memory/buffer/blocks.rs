//! Huge pages that buffers shorter than one share.
//!
//! Each takes a run of [`UNIT_BYTES`] units of a block, which is a huge page. A block that nobody uses is [`Pages`] like any other,
//! and goes back to where it came from.
//!
//! **A part that is retired** is mapped over alone: its neighbours stay as they are, on small pages from then on. The rest of its
//! block is given to nobody any more, and when the last neighbour has come back, the block is retired as a whole. So no address of
//! it is ever used again, and no page of it belongs to two buffers.
//!
//! # Safety
//!
//! A unit is either free in its block, retired there, or in one [`Part`], never two of these. A part is less than a block, which
//! keeps its pages for as long as there is one.
#![expect(unsafe_code, reason = "cuts parts out of blocks")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::ptr::NonNull;

use super::pages::{HUGE_BYTES, Pages, take_out};

/// The lengths of buffers that share. A shorter one would keep a whole block for little. Measured with cold streams into them: 64 KiB go at
/// 10.6 to 11.2 GB/s, where they went at 8.7 into small pages.
const SHARING_BYTES: RangeInclusive<usize> = 64 << 10..=HUGE_BYTES - UNIT_BYTES;
const UNIT_BYTES: usize = 64 << 10;
/// How many units a block has: a bit each.
const UNITS: u32 = (HUGE_BYTES / UNIT_BYTES) as u32;

/// A run of units of a block, which is its holder's alone until it is given back to [`Blocks`].
#[derive(Debug)]
pub(super) struct Part {
    base: NonNull<u8>,
    units: u32,
}

// SAFETY: the memory belongs to the process, not to a thread, and the part is its only owner.
unsafe impl Send for Part {}
// SAFETY: through a shared reference nothing can be reached but the address.
unsafe impl Sync for Part {}

impl Part {
    /// The first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The address of the block.
    fn block(&self) -> usize {
        self.base.as_ptr().addr() / HUGE_BYTES * HUGE_BYTES
    }

    fn mask(&self) -> u32 {
        let first = (self.base.as_ptr().addr() - self.block()) / UNIT_BYTES;
        run(self.units) << first
    }

    /// Takes its pages away from whoever may still write there. It has to be given back as retired then.
    pub(super) fn take_out(&self) {
        take_out(self.base, self.units as usize * UNIT_BYTES);
    }
}

/// How many units a buffer of `len` bytes takes, if it is one of those that share.
pub(super) fn units_for(len: usize) -> Option<u32> {
    SHARING_BYTES.contains(&len).then(|| len.div_ceil(UNIT_BYTES) as u32)
}

/// The lowest `units` bits.
fn run(units: u32) -> u32 {
    u32::MAX >> (UNITS - units)
}

#[derive(Debug)]
struct Block {
    pages: Pages,
    /// The units that nobody has.
    free: u32,
    /// The units that were retired.
    retired: u32,
}

impl Block {
    /// How many units a part can have here.
    fn longest(&self) -> u32 {
        if self.retired != 0 {
            return 0;
        }
        // Each step shortens all runs by a unit.
        let (mut rest, mut longest) = (self.free, 0);
        while rest != 0 {
            rest &= rest >> 1;
            longest += 1;
        }
        longest
    }

    /// Where the lowest run of so many free units begins.
    fn place(&self, units: u32) -> Option<u32> {
        (0..=UNITS - units).find(|&first| self.free >> first & run(units) == run(units))
    }
}

/// The blocks of which somebody has a part.
#[derive(Debug)]
pub(super) struct Blocks {
    /// By the address.
    all: BTreeMap<usize, Block>,
    /// Those that have room: for how many units, and the address.
    open: BTreeSet<(u32, usize)>,
}

impl Blocks {
    pub(super) const fn new() -> Self {
        Self { all: BTreeMap::new(), open: BTreeSet::new() }
    }

    /// A part of the block that has hardly more room than that.
    pub(super) fn take(&mut self, units: u32) -> Option<Part> {
        let &(longest, address) = self.open.range((units, 0)..).next()?;
        self.open.remove(&(longest, address));
        let block = self.all.get_mut(&address)?;
        let first = block.place(units)?;
        block.free &= !(run(units) << first);
        let longest = block.longest();
        if longest > 0 {
            self.open.insert((longest, address));
        }
        // SAFETY: units of a block, which is as long as all of them.
        let base = unsafe { block.pages.base().add(first as usize * UNIT_BYTES) };
        Some(Part { base, units })
    }

    /// Takes in a new block, which is one huge page, or as many small ones.
    pub(super) fn add(&mut self, pages: Pages) {
        let address = pages.base().as_ptr().addr();
        assert!(address.is_multiple_of(HUGE_BYTES) && pages.bytes() == HUGE_BYTES, "a block is a huge page");
        self.all.insert(address, Block { pages, free: u32::MAX, retired: 0 });
        self.open.insert((UNITS, address));
    }

    /// Takes a part back, and returns its block when nobody has another part of that.
    pub(super) fn give(&mut self, part: &Part, is_retired: bool) -> Option<Unused> {
        let address = part.block();
        let block = self.all.get_mut(&address)?;
        self.open.remove(&(block.longest(), address));
        if is_retired {
            block.retired |= part.mask();
        } else {
            block.free |= part.mask();
        }
        if block.free | block.retired == u32::MAX {
            let block = self.all.remove(&address)?;
            return Some(if block.retired == 0 { Unused::Whole(block.pages) } else { Unused::Torn(block.pages) });
        }
        let longest = block.longest();
        if longest > 0 {
            self.open.insert((longest, address));
        }
        None
    }
}

/// A block of which nobody has a part any more.
#[derive(Debug)]
pub(super) enum Unused {
    Whole(Pages),
    /// With a part that was retired.
    Torn(Pages),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(count: usize) -> Blocks {
        let mut blocks = Blocks::new();
        (0..count).for_each(|_| blocks.add(Pages::map(HUGE_BYTES).unwrap()));
        blocks
    }

    #[test]
    fn parts_fill_a_block_before_another_is_begun_and_do_not_overlap() {
        let mut blocks = blocks(2);
        let parts: Vec<Part> = [16, 5, 11, 31].map(|units| blocks.take(units).unwrap()).into();
        assert!(blocks.take(2).is_none());
        let first = parts[0].block();
        assert!(parts[..3].iter().all(|part| part.block() == first) && parts[3].block() != first);
        assert_eq!(parts[..3].iter().fold(0, |masks, part| masks ^ part.mask()), u32::MAX, "each unit is in one part");
        assert!(blocks.give(&parts[1], false).is_none());
        assert!(blocks.take(6).is_none());
        assert_eq!(blocks.take(1).unwrap().block(), parts[3].block(), "the smaller hole");
        assert_eq!(blocks.take(5).unwrap().base(), parts[1].base());
    }

    #[test]
    fn a_block_comes_back_with_its_last_part() {
        let mut blocks = blocks(1);
        let parts = [4, 28].map(|units| blocks.take(units).unwrap());
        assert!(blocks.give(&parts[0], false).is_none());
        let Some(Unused::Whole(pages)) = blocks.give(&parts[1], false) else { panic!("a block") };
        assert_eq!(pages.base(), parts[0].base());
        assert!(blocks.all.is_empty() && blocks.open.is_empty());
    }

    #[test]
    fn of_a_block_with_a_retired_part_nothing_is_used_again() {
        let mut blocks = blocks(1);
        let parts = [4, 4, 20].map(|units| blocks.take(units).unwrap());
        assert!(blocks.give(&parts[0], false).is_none());
        parts[1].take_out();
        assert!(blocks.give(&parts[1], true).is_none());
        assert!(blocks.take(4).is_none(), "neither what was free nor what was retired");
        assert!(matches!(blocks.give(&parts[2], false), Some(Unused::Torn(_))));
        assert!(blocks.all.is_empty() && blocks.open.is_empty());
    }
}
