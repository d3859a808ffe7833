//! Laying a ring out in a new region, whoever comes first.
//!
//! The word `state`:
//!
//! | Value | Meaning | Next |
//! |---|---|---|
//! | 0 | nobody has begun | a process sets its identity (compare-and-swap) and lays the ring out |
//! | an identity | that process lays the ring out | it sets READY; when it has exited, another sets its own identity instead |
//! | READY | the sizes are valid, the slots empty or in use | stays |
//!
//! The word `magic` comes before it, so that the state of a region that holds something else is never interpreted: 0 becomes
//! the magic number by compare-and-swap, if the rest of the header is zeros as well.

use std::sync::Arc;
use std::time::Duration;

use super::layout::{BULK_OFFSET, Header, MAGIC, READY, Ring, SLOTS, Sizes, header_of};
use crate::atomic::{Ordering, fence};
use crate::memory::Region;
use crate::memory::occupied::Occupied;
use crate::process::{Identity, Watch};
use crate::{Deadline, Error, Result};

/// How often a process that waits for another one's layout looks again. It takes microseconds, unless the other was stopped.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Lays a ring out in `region`, which nobody else has yet.
pub(crate) fn lay_out_ring(region: Region) -> Result<()> {
    let own = Identity::current().map_err(|error| Error::os("open", "/proc/self/stat", error))?;
    open(Arc::new(region), &mut Watch::new(own), Deadline::Now).map(drop)
}

/// The ring in `region`, laid out if nobody has done so yet.
pub(super) fn open(region: Arc<Region>, watch: &mut Watch, deadline: Deadline) -> Result<Ring> {
    mark(&region)?;
    loop {
        let header = header_of(&region)?;
        // Acquire pairs with the Release of READY: the sizes and the empty slots are seen.
        let state = header.state.load(Ordering::Acquire);
        if state == READY {
            let sizes = Sizes::of_header(&region, header)?;
            return Ok(Ring::new(region, sizes));
        }
        let free = state == 0 || Identity::from_bits(state).is_none_or(|initialiser| watch.is_gone(initialiser));
        let own = watch.own().to_bits();
        if free && header.state.compare_exchange(state, own, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            let ring = lay_out(Arc::clone(&region))?;
            ring.header().state.store(READY, Ordering::Release);
            return Ok(ring);
        }
        if deadline.has_passed() {
            return Err(Error::out_of_time("open", region.object(), deadline));
        }
        if !free {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// As [`open`], and says that this process uses the bytes as a ring.
pub(super) fn open_occupied(region: Arc<Region>, watch: &mut Watch, deadline: Deadline) -> Result<(Ring, Occupied)> {
    const NAME: &str = "a ring";
    // How long the bulk of one is that exists, it says itself.
    let layout = region.occupy_words(BULK_OFFSET.min(region.len()), NAME)?;
    let ring = open(Arc::clone(&region), watch, deadline)?;
    let occupied = region.occupy_words(BULK_OFFSET + ring.sizes.bulk_bytes as usize, NAME)?;
    drop(layout);
    Ok((ring, occupied))
}

/// Makes the region a ring by its first word, or refuses what it holds.
fn mark(region: &Region) -> Result<()> {
    let header = header_of(region)?;
    // The region's own copies are errors where the object has become shorter than what is mapped of it.
    region.read_at(region.len() - 1, &mut [0])?;
    let mut content = [0; size_of::<Header>()];
    region.read_at(0, &mut content)?;
    // Orders the copy before the next load: who sees words of another process's layout sees the magic number before them.
    fence(Ordering::Acquire);
    let magic = &header.magic;
    match magic.load(Ordering::Acquire) {
        MAGIC => Ok(()),
        0 if content != [0; size_of::<Header>()] => Err(Error::Corrupt {
            object: region.object().into(),
            detail: "it begins with zeros and goes on with something else, and is no ring".into(),
        }),
        0 => match magic.compare_exchange(0, MAGIC, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(MAGIC) => Ok(()),
            Err(other) => Err(foreign(region, other)),
        },
        other => Err(foreign(region, other)),
    }
}

fn foreign(region: &Region, found: u64) -> Error {
    let detail = match (found ^ MAGIC) << 16 {
        0 => format!("a ring of layout version {}, this program knows version {}", found >> 48, MAGIC >> 48),
        _ => format!("it begins with the bytes {:02x?} and is no ring", found.to_le_bytes()),
    };
    Error::Corrupt { object: region.object().into(), detail }
}

/// Sets every word that the two sides will read. The region was zeros, but a process that was killed here may have begun.
fn lay_out(region: Arc<Region>) -> Result<Ring> {
    let sizes = Sizes::of_region(&region)?;
    let ring = Ring::new(region, sizes);
    let header = ring.header();
    let roles = &header.roles;
    for word in [&roles.sender.owner, &roles.sender.status, &roles.receiver.owner, &roles.receiver.status, &roles.ended]
    {
        word.store(0, Ordering::Relaxed);
    }
    for progress in [&header.sent, &header.received] {
        progress.slots.store(0, Ordering::Relaxed);
        progress.bulk.store(0, Ordering::Relaxed);
    }
    header.sleepers.sender.store(0, Ordering::Relaxed);
    header.sleepers.receiver.store(0, Ordering::Relaxed);
    for index in 0..SLOTS {
        ring.slot(index).record.store(0, Ordering::Relaxed);
    }
    header.bulk_bytes.store(sizes.bulk_bytes, Ordering::Relaxed);
    header.piece_bytes.store(sizes.piece_bytes as u64, Ordering::Relaxed);
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::anonymous::AnonymousMapping;
    use crate::memory::ring::RING_BYTES;

    fn region() -> Arc<Region> {
        Arc::new(AnonymousMapping::create("ring", RING_BYTES).unwrap().into_region())
    }

    fn watch() -> Watch {
        Watch::new(Identity::current().unwrap())
    }

    #[test]
    fn a_killed_initialiser_is_taken_over_and_a_living_one_waited_for() {
        let region = region();
        mark(&region).unwrap();
        let header = header_of(&region).unwrap();
        let own = Identity::current().unwrap();
        header.state.store(own.to_bits(), Ordering::Release);
        let error = open(Arc::clone(&region), &mut watch(), Deadline::after(Duration::from_millis(20))).unwrap_err();
        assert!(error.is_out_of_time(), "{error}");

        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = own.to_bits() & !((1 << 22) - 1) | u64::from(child.id());
        header.state.store(dead, Ordering::Release);
        header.roles.sender.owner.store(5, Ordering::Release);
        let ring = open(Arc::clone(&region), &mut watch(), Deadline::Now).unwrap();
        assert_eq!(ring.sizes, Sizes::of_region(&region).unwrap());
        assert_eq!(ring.header().roles.sender.owner.load(Ordering::Acquire), 0, "the layout was made anew");
    }

    #[test]
    fn many_that_come_at_once_find_the_same_ring() {
        for _ in 0..50 {
            let region = region();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| open(Arc::clone(&region), &mut watch(), Deadline::Never).unwrap());
                }
            });
            assert_eq!(header_of(&region).unwrap().state.load(Ordering::Acquire), READY);
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let region = region();
        open(Arc::clone(&region), &mut watch(), Deadline::Now).unwrap();
        let header = header_of(&region).unwrap();
        for (bulk, piece) in [(1 << 40, 16_384), (262_144, 0), (262_144, 64), (0, 16_384), (262_145, 16_384)] {
            header.bulk_bytes.store(bulk, Ordering::Relaxed);
            header.piece_bytes.store(piece, Ordering::Relaxed);
            let error = open(Arc::clone(&region), &mut watch(), Deadline::Now).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        }
    }
}
