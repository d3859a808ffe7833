//! Which parts of a stretch of memory are free: of that for loans, and of those for what is received.

use std::ops::Range;

/// What is taken begins at pairs of cache lines, which are fetched together.
const LINES_BYTES: usize = 128;

/// Free ranges in their order, of which no two touch. There are at most as many as taken ones, and one more.
#[derive(Debug)]
pub(super) struct Extents(Vec<Range<usize>>);

impl Extents {
    /// `bytes` that are free.
    pub(super) fn new(bytes: usize) -> Self {
        Self(std::iter::once(0..bytes).collect())
    }

    /// The lowest free range for `bytes`: what was used before is warm.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Range<usize>> {
        let bytes = rounded(bytes)?;
        let index = self.0.iter().position(|free| free.len() >= bytes)?;
        let free = &mut self.0[index];
        let taken = free.start..free.start + bytes;
        free.start = taken.end;
        if free.start == free.end {
            self.0.remove(index);
        }
        Some(taken)
    }

    /// The lowest free range for `bytes` within a part of all.
    pub(super) fn take_within(&mut self, part: &Range<usize>, bytes: usize) -> Option<Range<usize>> {
        let bytes = rounded(bytes)?;
        let (index, taken) = self.0.iter().enumerate().find_map(|(index, free)| {
            let start = free.start.max(part.start);
            let end = start.checked_add(bytes)?;
            (end <= free.end.min(part.end)).then_some((index, start..end))
        })?;
        let free = self.0[index].clone();
        let left = [free.start..taken.start, taken.end..free.end];
        self.0.splice(index..=index, left.into_iter().filter(|left| !left.is_empty()));
        Some(taken)
    }

    /// Where the range that [`Extents::take`] would take ends.
    #[inline]
    pub(super) fn lowest(&self, bytes: usize) -> Option<usize> {
        let bytes = rounded(bytes)?;
        self.0.iter().find(|free| free.len() >= bytes).map(|free| free.start + bytes)
    }

    /// Takes a range back.
    pub(super) fn give(&mut self, range: Range<usize>) {
        let index = self.0.partition_point(|free| free.start < range.start);
        let joins_below = index > 0 && self.0[index - 1].end == range.start;
        let joins_above = self.0.get(index).is_some_and(|above| above.start == range.end);
        match (joins_below, joins_above) {
            (true, true) => self.0[index - 1].end = self.0.remove(index).end,
            (true, false) => self.0[index - 1].end = range.end,
            (false, true) => self.0[index].start = range.start,
            (false, false) => self.0.insert(index, range),
        }
    }

    /// The longest range that can be taken.
    pub(super) fn longest(&self) -> usize {
        self.0.iter().map(Range::len).max().unwrap_or(0)
    }
}

/// How much is taken for `bytes`; `None` is more than an address space holds.
fn rounded(bytes: usize) -> Option<usize> {
    bytes.max(1).checked_next_multiple_of(LINES_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_room_is_taken_and_neighbours_grow_together() {
        let mut extents = Extents::new(4 * 4096);
        assert_eq!([extents.lowest(1), extents.lowest(4 * 4096 + 1)], [Some(128), None]);
        let taken: Vec<_> = [1, 128, 129, 4096].map(|bytes| extents.take(bytes).unwrap()).into();
        assert_eq!(taken, [0..128, 128..256, 256..512, 512..4608]);
        assert_eq!(extents.longest(), 4 * 4096 - 4608);
        assert_eq!(extents.take(3 * 4096), None);
        extents.give(taken[1].clone());
        assert_eq!(extents.take(0), Some(128..256));
        for index in [0, 2, 1, 3] {
            extents.give(taken[index].clone());
        }
        assert_eq!(extents.0, Extents::new(4 * 4096).0);
        assert_eq!(extents.take(4 * 4096), Some(0..4 * 4096));
        assert_eq!((extents.longest(), extents.take(0), extents.take(usize::MAX)), (0, None, None));
    }

    #[test]
    fn a_part_has_room_of_its_own() {
        let mut extents = Extents::new(8 * 128);
        assert_eq!(extents.take_within(&(512..1024), 128), Some(512..640));
        assert_eq!(extents.take_within(&(512..1024), 500), None, "of which the front is taken");
        assert_eq!(extents.take_within(&(0..512), 513), None);
        assert_eq!(extents.take_within(&(0..512), 512), Some(0..512));
        assert_eq!(extents.take_within(&(512..1024), 384), Some(640..1024));
        assert_eq!((extents.longest(), extents.take_within(&(0..1024), 1)), (0, None));
        [640..1024, 0..512, 512..640].into_iter().for_each(|range| extents.give(range));
        assert_eq!(extents.0, Extents::new(8 * 128).0);
    }

    #[test]
    fn no_two_ranges_overlap_whatever_the_order() {
        let mut extents = Extents::new(1 << 20);
        let mut out: Vec<Range<usize>> = Vec::new();
        let mut state = 7_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let dice = (state >> 33) as usize;
            if out.len() < 64 && dice.is_multiple_of(2) {
                let part = if dice.is_multiple_of(3) { 0..1 << 19 } else { 1 << 19..1 << 20 };
                let bytes = dice / 2 % 30_000;
                let taken =
                    if dice.is_multiple_of(5) { extents.take(bytes) } else { extents.take_within(&part, bytes) };
                if let Some(range) = taken {
                    assert!(out.iter().all(|other| other.end <= range.start || range.end <= other.start));
                    out.push(range);
                }
            } else if !out.is_empty() {
                extents.give(out.swap_remove(dice / 2 % out.len()));
            }
            assert!(extents.0.len() <= out.len() + 1);
        }
        out.into_iter().for_each(|range| extents.give(range));
        assert_eq!(extents.0, Extents::new(1 << 20).0);
    }
}
