//! The unnamed semaphore between two processes, in all kinds of memory.

use std::thread;
use std::time::{Duration, Instant};

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::sync::semaphore::Semaphore;
use onecopy::sync::shared::{Place, room_bytes};
use onecopy::sync::{Acquired, Lock as _, Mode, Notify as _};
use onecopy::{Deadline, Error};

use crate::stage::{Turn, in_all_memory};
use crate::support::watchdog;

const ROUNDS: usize = 500;
const WAIT: Duration = Duration::from_millis(30);

fn create(place: &Place) {
    for number in 0..2 {
        Semaphore::create(&place.at(number * room_bytes(0)).unwrap(), 0).unwrap();
    }
}

/// The one that this process waits for, and the other one's.
fn attach(place: &Place, who: usize) -> [Semaphore; 2] {
    [who, 1 - who].map(|number| Semaphore::attach(&place.at(number * room_bytes(0)).unwrap(), Deadline::Now).unwrap())
}

fn assert_empty(place: &Place) {
    assert_eq!(attach(place, 0).map(|semaphore| semaphore.value().unwrap()), [0, 0]);
}

fn post_and_wait(place: &Place, who: usize) {
    let [ours, theirs] = attach(place, who);
    for round in 0..ROUNDS {
        theirs.post().unwrap();
        let deadline = if round % 2 == 0 { Deadline::Never } else { Deadline::after(Duration::from_secs(60)) };
        ours.wait_by(deadline).unwrap();
    }
    Turn::of(place).meet(1);
    let start = Instant::now();
    assert!(matches!(ours.wait_by(Deadline::after(WAIT)), Err(Error::TimedOut { .. })));
    assert!(start.elapsed() >= WAIT);
    assert!(matches!(ours.wait_by(Deadline::Now), Err(Error::WouldBlock { .. })));
}

in_all_memory! { "semaphore", create, post_and_wait, assert_empty }

#[test]
fn it_locks_counts_and_has_a_limit() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let memory = || Place::new(AnonymousMapping::create("semaphore", 4096).unwrap().into_region()).unwrap();
    let place = memory();
    let mut one = Semaphore::create(&place, 1).unwrap();
    let mut other = Semaphore::attach(&place, Deadline::Now).unwrap();
    assert_eq!(one.acquire_by(Mode::Exclusive, Deadline::Now).unwrap(), Acquired::Clean);
    assert!(matches!(one.acquire_by(Mode::Exclusive, Deadline::Now), Err(Error::Invalid { .. })));
    assert!(matches!(other.acquire_by(Mode::Exclusive, Deadline::Now), Err(Error::WouldBlock { .. })));
    assert!(matches!(other.acquire_by(Mode::Shared, Deadline::Now), Err(Error::Unsupported { .. })));
    thread::scope(|scope| {
        let waits = scope.spawn(|| other.acquire_by(Mode::Exclusive, Deadline::Never));
        thread::sleep(Duration::from_millis(10));
        one.release().unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), Acquired::Clean);
    });
    assert!(matches!(one.release(), Err(Error::Invalid { .. })));
    let error = one.notify_by(u32::MAX, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EOVERFLOW), "{error}");
    assert!(Semaphore::create(&memory(), 1 << 31).is_err());
    let full = Semaphore::create(&memory(), (1 << 31) - 1).unwrap();
    assert_eq!(full.post().unwrap_err().raw_os_error(), Some(libc::EOVERFLOW));
}
