//! Atomics of loom, with what it lacks: the order of sequentially consistent accesses, and futexes.
//!
//! Loom orders SeqCst fences as the language does, and SeqCst accesses otherwise: in part as it happens to run them. So here they are
//! AcqRel, and a fence is set where a SeqCst load follows a SeqCst store of the same thread: there, and nowhere else, the algorithms
//! of this library rely on their order. A load or a store that is weaker gets no fence, so that a model fails where it would have to
//! be stronger.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{Ordering, fence};

loom::thread_local! {
    /// Whether this thread has made a SeqCst store that no fence has followed yet.
    static HAS_STORED: Cell<bool> = Cell::new(false);
}

fn before_load(ordering: Ordering) {
    if ordering == Ordering::SeqCst && HAS_STORED.with(|stored| stored.replace(false)) {
        fence(Ordering::SeqCst);
    }
}

fn after_store(ordering: Ordering) {
    if ordering == Ordering::SeqCst {
        HAS_STORED.with(|stored| stored.set(true));
    }
}

/// For a load.
fn acquire(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::Acquire } else { ordering }
}

/// For a store.
fn release(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::Release } else { ordering }
}

/// For both in one.
fn both(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::AcqRel } else { ordering }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        impl $name {
            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                before_load(ordering);
                self.word.load(acquire(ordering))
            }

            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                // Loom lets another thread read what a read-modify-write left there before this store, though it has seen this store:
                // it forgets that nothing comes between the two parts of that. For what this one overwrites it has to be one too.
                self.word.swap(value, release(ordering));
                after_store(ordering);
            }

            pub(crate) fn swap(&self, value: $value, ordering: Ordering) -> $value {
                before_load(ordering);
                let old = self.word.swap(value, both(ordering));
                after_store(ordering);
                old
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.word.fmt(f)
            }
        }
    };
}

/// A word of 64 bits.
#[derive(Default)]
pub(crate) struct AtomicU64 {
    word: loom::sync::atomic::AtomicU64,
}

atomic!(AtomicU64, u64);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self { word: loom::sync::atomic::AtomicU64::new(value) }
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        before_load(success);
        let result = self.word.compare_exchange(current, new, both(success), acquire(failure));
        if result.is_ok() {
            after_store(success);
        }
        result
    }

    pub(crate) fn fetch_add(&self, value: u64, ordering: Ordering) -> u64 {
        before_load(ordering);
        let old = self.word.fetch_add(value, both(ordering));
        after_store(ordering);
        old
    }

    pub(crate) fn fetch_or(&self, value: u64, ordering: Ordering) -> u64 {
        before_load(ordering);
        let old = self.word.fetch_or(value, both(ordering));
        after_store(ordering);
        old
    }
}

/// A word of 32 bits, on which threads can sleep.
#[derive(Default)]
pub(crate) struct AtomicU32 {
    word: loom::sync::atomic::AtomicU32,
    sleepers: Mutex<Vec<Arc<Sleeper>>>,
}

atomic!(AtomicU32, u32);

#[derive(Default)]
struct Sleeper {
    is_woken: Mutex<bool>,
    condition: Condvar,
}

/// futex_waitv(2): sleeps until one of `words` is woken, if all of them have the values that go with them. For as long as it
/// takes: who sleeps in vain is what a model must not have.
pub(crate) fn sleep_on(words: &[(&AtomicU32, u32)]) {
    let own = Arc::<Sleeper>::default();
    for (word, value) in words {
        // The lock orders the look at the word and the calls that wake, as the kernel's does.
        let mut sleepers = word.sleepers.lock().unwrap();
        if word.word.load(Ordering::Relaxed) != *value {
            return;
        }
        sleepers.push(Arc::clone(&own));
    }
    let mut is_woken = own.is_woken.lock().unwrap();
    while !*is_woken {
        is_woken = own.condition.wait(is_woken).unwrap();
    }
}

/// futex_wake(2).
pub(crate) fn wake_all(word: &AtomicU32) {
    let sleepers = std::mem::take(&mut *word.sleepers.lock().unwrap());
    for sleeper in sleepers {
        *sleeper.is_woken.lock().unwrap() = true;
        sleeper.condition.notify_one();
    }
}
