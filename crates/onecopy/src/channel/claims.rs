//! The chunks of a message that both sides copy: each is copied by whoever claims it first.
//!
//! | Word | Meaning | Who changes it |
//! |---|---|---|
//! | `claims` | how many chunks are claimed, and so the number of the next | both |
//! | `finished` | how many chunks the sender has claimed and is done with | the sender |
//! | `failed` | the number plus 1 of the one chunk that the sender could not write, or 0 | the sender, before it counts that chunk |
//!
//! The receiver has them all when it has copied what it claimed and the sender is done with all others. It then reads the chunk that
//! failed. A peer may set the words to anything: then a chunk is copied twice, or not at all.
#![cfg_attr(loom, expect(unsafe_code, reason = "reaches the cells of a model"))]

use nix::errno::Errno;

use super::desk::Desk;
use crate::atomic::{Ordering, spin_loop};

/// No chunk is claimed yet. The caller publishes it by the turn.
pub(super) fn open(desk: &Desk) {
    for word in [&desk.claims.0, &desk.finished.0, &desk.failed] {
        word.store(0, Ordering::Relaxed);
    }
}

/// The receiver's part: reads the chunks that it gets, and waits for the others for as long as `wait` lets it.
pub(super) fn complete<E: From<Errno>>(
    desk: &Desk,
    chunks: usize,
    mut read: impl FnMut(usize) -> Result<(), E>,
    mut wait: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    let mut own = 0;
    // Not more often than there are chunks: a peer may set the counter back.
    while own < chunks
        && let Some(index) = claim(desk, chunks)
    {
        read(index)?;
        own += 1;
    }
    let outstanding = (chunks - own) as u64;
    // Acquire: the chunks that the sender counted are written.
    while desk.finished.0.load(Ordering::Acquire) < outstanding {
        wait()?;
        spin_loop();
    }
    match desk.failed.load(Ordering::Acquire).checked_sub(1).map(usize::try_from) {
        None => Ok(()),
        Some(Ok(index)) if index < chunks => read(index),
        Some(_) => Err(Errno::EFAULT.into()),
    }
}

/// The sender's part: writes the chunks that it gets, up to the first that fails.
pub(super) fn take_part(
    desk: &Desk,
    chunks: usize,
    mut write: impl FnMut(usize) -> Result<(), Errno>,
) -> Result<(), Errno> {
    // Not more often than there are chunks: a peer may set the counter back.
    for _ in 0..chunks {
        let Some(index) = claim(desk, chunks) else { break };
        let written = write(index);
        if written.is_err() {
            desk.failed.store(index as u64 + 1, Ordering::Release);
        }
        desk.finished.0.fetch_add(1, Ordering::Release);
        written?;
    }
    Ok(())
}

/// The next chunk, unless all are claimed. A peer may set the counter back, and then a chunk is copied twice.
fn claim(desk: &Desk, chunks: usize) -> Option<usize> {
    // Relaxed: it orders nothing but the claims among themselves.
    let index = desk.claims.0.fetch_add(1, Ordering::Relaxed);
    usize::try_from(index).ok().filter(|index| *index < chunks)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_sets_the_counter_back_again_and_again_makes_nobody_copy_more_than_there_is() {
        let desk = Desk::default();
        let back = |copied: &mut u32| {
            *copied += 1;
            desk.claims.0.store(0, Ordering::Relaxed);
            Ok(())
        };
        let (mut written, mut read) = (0, 0);
        take_part(&desk, 5, |_| back(&mut written)).unwrap();
        complete::<Errno>(&desk, 5, |_| back(&mut read), || Ok(())).unwrap();
        assert_eq!((written, read), (5, 5));
    }

    #[test]
    fn what_a_peer_says_of_chunks_that_there_are_not_is_an_error() {
        let desk = Desk::default();
        let read = |index: usize| -> Result<(), Errno> {
            assert!(index < 5);
            Ok(())
        };
        for (claimed, failed) in [(u64::MAX, 6), (5, u64::MAX), (1 << 32, 1 << 32)] {
            desk.claims.0.store(claimed, Ordering::Relaxed);
            desk.finished.0.store(u64::MAX, Ordering::Relaxed);
            desk.failed.store(failed, Ordering::Relaxed);
            assert_eq!(complete(&desk, 5, read, || Ok(())), Err(Errno::EFAULT), "{claimed}, {failed}");
        }
        desk.finished.0.store(0, Ordering::Relaxed);
        assert_eq!(complete(&desk, 5, read, || Err(Errno::ETIMEDOUT)), Err(Errno::ETIMEDOUT));
    }
}

#[cfg(loom)]
mod model {
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;

    const CHUNKS: usize = 3;

    /// A chunk of the receiver's buffer.
    #[derive(Default)]
    struct Chunk(UnsafeCell<u8>);

    // SAFETY: loom fails a model in which two threads use it at the same time and one of them writes.
    unsafe impl Sync for Chunk {}

    impl Chunk {
        fn copy(&self) {
            // SAFETY: as above.
            self.0.with_mut(|byte| unsafe { *byte += 1 });
        }
    }

    /// Each chunk is written once, by one side at a time, and is seen by the receiver then, also where the sender fails.
    fn copied_once(fails: Option<usize>) {
        let desk = Arc::<Desk>::default();
        let chunks = Arc::<[Chunk; CHUNKS]>::default();
        open(&desk);
        let (theirs, helped) = (Arc::clone(&desk), Arc::clone(&chunks));
        let helping = thread::spawn(move || {
            let mut written = 0;
            take_part(&theirs, CHUNKS, |index| {
                if fails == Some(written) {
                    return Err(Errno::EFAULT);
                }
                helped[index].copy();
                written += 1;
                Ok(())
            })
        });
        let read = |index: usize| {
            chunks[index].copy();
            Ok::<(), Errno>(())
        };
        complete(&desk, CHUNKS, read, || Ok(())).unwrap();
        for chunk in &*chunks {
            // SAFETY: as above.
            assert_eq!(chunk.0.with(|byte| unsafe { *byte }), 1);
        }
        let _ = helping.join().unwrap();
    }

    #[test]
    fn loom_each_chunk_is_copied_once_and_seen() {
        loom::model(|| copied_once(None));
    }

    #[test]
    fn loom_a_chunk_that_the_sender_cannot_write_is_read_by_the_receiver() {
        loom::model(|| copied_once(Some(0)));
        loom::model(|| copied_once(Some(1)));
    }
}
