//! The buffer that a thread has dropped last, for its next one: no other thread is asked, and nothing is locked.

use std::cell::Cell;

use super::pages::Pages;
use super::pool_limit_bytes;

/// The largest that is kept so. For more the copy takes so long that a lock is not felt.
const MOST_BYTES: usize = 64 << 10;

thread_local! {
    static SPARE: Cell<Option<Pages>> = const { Cell::new(None) };
}

/// The pages that are kept, if there are so many bytes of them.
#[inline]
pub(super) fn take(bytes: usize) -> Option<Pages> {
    if bytes > MOST_BYTES {
        return None;
    }
    let pages = give_up()?;
    if pages.bytes() == bytes {
        return Some(pages);
    }
    keep(pages);
    None
}

/// Keeps `pages` in the place of others, which it returns.
#[inline]
pub(super) fn keep(pages: Pages) -> Option<Pages> {
    if pages.bytes() > MOST_BYTES || pool_limit_bytes() == 0 {
        return Some(pages);
    }
    let mut pages = Some(pages);
    // A thread that ends keeps nothing any more: the pages stay here then.
    let _ = SPARE.try_with(|spare| pages = spare.replace(pages.take()));
    pages
}

/// What is kept, which is not any more.
#[inline]
pub(super) fn give_up() -> Option<Pages> {
    SPARE.try_with(Cell::take).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::super::pages::PAGE_BYTES;
    use super::*;

    #[test]
    fn a_thread_keeps_the_last_small_one_and_gives_it_for_its_size_alone() {
        let (first, second) = (Pages::map(PAGE_BYTES).unwrap(), Pages::map(2 * PAGE_BYTES).unwrap());
        let bases = [first.base(), second.base()];
        assert!(keep(first).is_none());
        assert_eq!(keep(second).unwrap().base(), bases[0], "it goes to the pool");
        assert!(take(PAGE_BYTES).is_none(), "another size");
        assert_eq!(take(2 * PAGE_BYTES).unwrap().base(), bases[1]);
        assert!(take(2 * PAGE_BYTES).is_none(), "it was taken");
        assert!(keep(Pages::map(MOST_BYTES + 1).unwrap()).is_some(), "too large");
        std::thread::spawn(|| assert!(take(2 * PAGE_BYTES).is_none(), "another thread")).join().unwrap();
    }
}
