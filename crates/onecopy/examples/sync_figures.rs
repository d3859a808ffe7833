//! What a mutex in shared memory costs: `cargo run --release -p onecopy --example sync_figures`.
//!
//! Locks and unlocks it without anybody else, and a bare pthread mutex with the same attributes, in turns, and prints the
//! ratio of the two; it fails when that is above [`MOST`]. Both count as they go, and the counts are checked.
//!
//! # Safety
//!
//! The bare mutex lies in memory of this program alone, is initialised before it is used, and never moves.
#![expect(unsafe_code, reason = "the baseline is the C library's mutex")]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::time::Instant;

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::sync::mutex::Mutex;
use onecopy::sync::shared::Place;

/// Locks and unlocks in a run.
const LOCKS: u64 = 200_000;
/// Pairs of runs: the ratio is the median of theirs, since others may use the machine.
const PAIRS: usize = 101;
/// What it may cost, beside the bare call.
const MOST: f64 = 1.05;

/// A robust, process-shared, checking mutex, as the library's, and a count.
struct Bare {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    count: UnsafeCell<u64>,
}

impl Bare {
    fn new() -> Box<Self> {
        // SAFETY: zeros are a mutex and a count.
        let bare = Box::new(unsafe { MaybeUninit::<Self>::zeroed().assume_init() });
        let mut attributes = MaybeUninit::uninit();
        let attr = attributes.as_mut_ptr();
        // SAFETY: `attr` is writable.
        assert_eq!(unsafe { libc::pthread_mutexattr_init(attr) }, 0);
        // SAFETY: initialised above.
        assert_eq!(unsafe { libc::pthread_mutexattr_setpshared(attr, libc::PTHREAD_PROCESS_SHARED) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutexattr_setrobust(attr, libc::PTHREAD_MUTEX_ROBUST) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutexattr_settype(attr, libc::PTHREAD_MUTEX_ERRORCHECK) }, 0);
        // SAFETY: as above; nobody uses the mutex yet.
        assert_eq!(unsafe { libc::pthread_mutex_init(bare.mutex.get(), attr) }, 0);
        bare
    }

    #[inline(never)]
    fn run(&self) {
        for _ in 0..LOCKS {
            // SAFETY: see above.
            assert_eq!(unsafe { libc::pthread_mutex_lock(self.mutex.get()) }, 0);
            // SAFETY: the mutex is held.
            unsafe { *self.count.get() += 1 };
            // SAFETY: see above.
            assert_eq!(unsafe { libc::pthread_mutex_unlock(self.mutex.get()) }, 0);
        }
    }
}

#[inline(never)]
fn run(mutex: &Mutex<u64>) {
    for _ in 0..LOCKS {
        *mutex.lock().expect("nobody has died") += 1;
    }
}

fn nanos_each(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / LOCKS as f64
}

fn main() {
    let memory = AnonymousMapping::create("figures", 4096).unwrap();
    let mutex = Mutex::create(&Place::new(memory.into_region()).unwrap(), 0).unwrap();
    let bare = Bare::new();
    let mut pairs: Vec<(f64, f64)> = (0..PAIRS)
        .map(|pair| {
            if pair % 2 == 0 {
                let ours = nanos_each(|| run(&mutex));
                (ours, nanos_each(|| bare.run()))
            } else {
                let plain = nanos_each(|| bare.run());
                (nanos_each(|| run(&mutex)), plain)
            }
        })
        .collect();
    let wanted = LOCKS * PAIRS as u64;
    assert_eq!(*mutex.lock().expect("nobody has died"), wanted);
    // SAFETY: nobody else has it.
    assert_eq!(unsafe { *bare.count.get() }, wanted);
    pairs.sort_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
    let (ours, plain) = pairs[PAIRS / 2];
    let ratio = ours / plain;
    println!("mutex, uncontended: {ours:.1} ns to lock and unlock, pthread {plain:.1} ns, ratio {ratio:.3}");
    assert!(ratio <= MOST, "{ratio:.3} of the bare call, at most {MOST} is wanted");
}
