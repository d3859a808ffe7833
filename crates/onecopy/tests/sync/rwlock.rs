//! The read-write lock between two processes, in all kinds of memory.

use std::thread;
use std::time::{Duration, Instant};

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::shared::Place;
use onecopy::sync::{Lock as _, Mode};
use onecopy::{Deadline, Error};

use crate::Numbers;
use crate::stage::{Turn, in_all_memory};
use crate::support::watchdog;

type Ledger = [i64; 8];
const ALL: i64 = 800;
const WAIT: Duration = Duration::from_millis(30);

fn create(place: &Place) {
    Rwlock::create(place, [100_i64; 8]).unwrap();
}

fn attach(place: &Place) -> Rwlock<Ledger> {
    Rwlock::attach(place, Deadline::Now).unwrap()
}

fn assert_whole(place: &Place) {
    let lock = attach(place);
    let ledger = lock.write_by(Deadline::Now).unwrap();
    assert_eq!(ledger.iter().sum::<i64>(), ALL);
    assert_ne!(*ledger, [100; 8], "nobody has done anything");
}

fn read_and_write(place: &Place, who: usize) {
    let (lock, turn) = (attach(place), Turn::of(place));
    turn.meet(1);
    let mut numbers = Numbers(5 + who as u64);
    for round in 0..2000 {
        if round % 4 != 0 {
            let ledger = lock.read_by(Deadline::after(Duration::from_secs(60))).unwrap();
            assert_eq!(ledger.iter().sum::<i64>(), ALL, "round {round}");
            continue;
        }
        let mut ledger = lock.write().unwrap();
        let (from, to) = (numbers.below(8) as usize, numbers.below(8) as usize);
        ledger[from] -= 3;
        if round % 64 == 0 {
            thread::yield_now();
        }
        ledger[to] += 3;
    }
    turn.meet(2);
    keep_deadlines(&lock, &turn, who);
}

/// Number 1 holds it to read, then to write, while number 0 tries.
fn keep_deadlines(lock: &Rwlock<Ledger>, turn: &Turn, who: usize) {
    if who == 1 {
        let guard = lock.read().unwrap();
        turn.set(10);
        turn.wait_for(11);
        drop(guard);
        let guard = lock.write().unwrap();
        turn.set(12);
        turn.wait_for(13);
        return drop(guard);
    }
    turn.wait_for(10);
    drop(lock.read_by(Deadline::Now).unwrap());
    assert_times_out(|deadline| lock.write_by(deadline).map(drop));
    turn.set(11);
    turn.wait_for(12);
    assert_times_out(|deadline| lock.read_by(deadline).map(drop));
    assert_times_out(|deadline| lock.write_by(deadline).map(drop));
    turn.set(13);
    drop(lock.write().unwrap());
}

fn assert_times_out(lock: impl Fn(Deadline) -> Result<(), Error>) {
    let start = Instant::now();
    assert!(matches!(lock(Deadline::after(WAIT)), Err(Error::TimedOut { .. })));
    assert!(start.elapsed() >= WAIT);
    assert!(matches!(lock(Deadline::Now), Err(Error::WouldBlock { .. })));
}

in_all_memory! { "rwlock", create, read_and_write, assert_whole }

#[test]
fn as_a_plain_lock_it_has_both_modes() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let place = Place::new(AnonymousMapping::create("rwlock", 4096).unwrap().into_region()).unwrap();
    let mut one = Rwlock::create(&place, 7_u32).unwrap();
    let mut other = Rwlock::<u32>::attach(&place, Deadline::Now).unwrap();
    let _ = one.acquire_by(Mode::Shared, Deadline::Now).unwrap();
    assert!(matches!(one.acquire_by(Mode::Shared, Deadline::Now), Err(Error::Invalid { .. })));
    let _ = other.acquire_by(Mode::Shared, Deadline::Now).unwrap();
    other.release().unwrap();
    assert!(matches!(other.acquire_by(Mode::Exclusive, Deadline::Now), Err(Error::WouldBlock { .. })));
    one.release().unwrap();
    assert!(matches!(one.release(), Err(Error::Invalid { .. })));
    let _ = other.acquire_by(Mode::Exclusive, Deadline::Never).unwrap();
    assert!(one.read_by(Deadline::Never).unwrap_err().to_string().contains("this thread holds it already"));
    other.release().unwrap();
    assert_eq!(*one.read().unwrap(), 7);
}

/// glibc takes another thread's unlock of a writer for a reader's, and then nobody gets it any more.
#[test]
fn only_the_thread_that_locked_it_unlocks_it() {
    let place = Place::new(AnonymousMapping::create("thread", 4096).unwrap().into_region()).unwrap();
    let mut lock = Rwlock::create(&place, 0_u64).unwrap();
    for mode in [Mode::Exclusive, Mode::Shared] {
        let _ = lock.acquire_by(mode, Deadline::Now).unwrap();
        let refused = thread::scope(|scope| scope.spawn(|| lock.release()).join().unwrap());
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        let other = Rwlock::<u64>::attach(&place, Deadline::Now).unwrap();
        assert!(other.write_by(Deadline::Now).is_err(), "{mode:?}");
        lock.release().unwrap();
        assert!(other.write_by(Deadline::Now).is_ok(), "{mode:?}");
    }
}
