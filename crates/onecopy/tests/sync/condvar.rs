//! The condition variable between two processes, in all kinds of memory.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use onecopy::Deadline;
use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::sync::condvar::{Condvar, Counted, Woken};
use onecopy::sync::mutex::Mutex;
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::shared::{Place, room_bytes};
use onecopy::sync::{Notify as _, Wait as _};

use crate::stage::{Turn, in_all_memory};
use crate::support::watchdog;

const ROUNDS: u64 = 500;
const WAIT: Duration = Duration::from_millis(30);

/// Whose turn it is, and how often each had it.
type Table = [u64; 3];

fn create(place: &Place) {
    Condvar::create(place).unwrap();
    Mutex::create(&place.at(room_bytes(0)).unwrap(), [0_u64; 3]).unwrap();
}

fn attach(place: &Place) -> (Condvar, Mutex<Table>) {
    let condvar = Condvar::attach(place, Deadline::Now).unwrap();
    (condvar, Mutex::attach(&place.at(room_bytes(0)).unwrap(), Deadline::Now).unwrap())
}

fn assert_whole(place: &Place) {
    assert_eq!(*attach(place).1.lock().unwrap(), [0, ROUNDS, ROUNDS]);
}

/// The two hand the turn to each other: one that is not woken never ends.
fn take_turns(place: &Place, who: usize) {
    let ((condvar, mutex), turn) = (attach(place), Turn::of(place));
    let long = Deadline::after(Duration::from_secs(60));
    for round in 0..ROUNDS {
        let deadline = if round % 2 == 0 { Deadline::Never } else { long };
        let guard = mutex.lock().unwrap();
        let (mut table, woken) = condvar.wait_while_by(guard, deadline, |table| table[0] != who as u64).unwrap();
        assert_eq!(woken, Woken::Notified);
        table[1 + who] += 1;
        table[0] = 1 - who as u64;
        if round % 3 == 0 { condvar.notify_all().unwrap() } else { condvar.notify_one().unwrap() }
    }
    turn.meet(1);
    let start = Instant::now();
    let guard = mutex.lock().unwrap();
    let (guard, woken) = condvar.wait_while_by(guard, Deadline::after(WAIT), |_| true).unwrap();
    assert_eq!(woken, Woken::OutOfTime);
    assert!(start.elapsed() >= WAIT);
    let (_guard, woken) = condvar.wait_by(guard, Deadline::Now).unwrap();
    assert_eq!(woken, Woken::OutOfTime);
}

in_all_memory! { "condvar", create, take_turns, assert_whole }

#[test]
fn counted_notifications_are_taken_one_by_one() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let place = Place::new(AnonymousMapping::create("condvar", 4096).unwrap().into_region()).unwrap();
    assert!(Counted::open(&place, false, Deadline::Now).is_err());
    let mut ours = Counted::open(&place, true, Deadline::Now).unwrap();
    let mut theirs = Counted::open(&place, false, Deadline::Now).unwrap();
    ours.notify_by(2, Deadline::Now).unwrap();
    theirs.wait_by(Deadline::Now).unwrap();
    theirs.wait_by(Deadline::Never).unwrap();
    let start = Instant::now();
    assert!(theirs.wait_by(Deadline::after(WAIT)).unwrap_err().is_out_of_time());
    assert!(start.elapsed() >= WAIT);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| theirs.wait_by(Deadline::Never));
        std::thread::sleep(Duration::from_millis(10));
        ours.notify_by(1, Deadline::Never).unwrap();
        waits.join().unwrap().unwrap();
    });
}

/// Those who take a notification hold the count for a moment, which is no reason not to notify.
#[test]
fn a_count_that_is_held_for_a_moment_is_waited_for() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let place = Place::new(AnonymousMapping::create("moment", 4096).unwrap().into_region()).unwrap();
    let mut counted = Counted::open(&place, true, Deadline::Now).unwrap();
    let count = Mutex::<u64>::attach(&place.at(room_bytes(0)).unwrap(), Deadline::Now).unwrap();
    let held = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let guard = count.lock().unwrap();
            held.wait();
            std::thread::sleep(WAIT);
            drop(guard);
        });
        held.wait();
        counted.notify_by(1, Deadline::Now).unwrap();
    });
    counted.wait_by(Deadline::Now).unwrap();
}

/// Its timers may come as much later than asked for, and nobody has died of that.
#[test]
fn a_thread_whose_timers_have_slack_breaks_nothing() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let memory = || Place::new(AnonymousMapping::create("slack", 4096).unwrap().into_region()).unwrap();
    let place = memory();
    let condvar = Condvar::create(&place).unwrap();
    let mutex = Mutex::create(&place.at(room_bytes(0)).unwrap(), 0_u64).unwrap();
    // The thread that looks at what is overdue begins without slack.
    drop(condvar.wait_by(mutex.lock().unwrap(), Deadline::after(WAIT)).unwrap());
    let lock = Rwlock::create(&memory(), 0_u64).unwrap();
    let written = lock.write().unwrap();
    let with_slack = || {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(2_000_000_000)).unwrap();
        Deadline::after(WAIT)
    };
    std::thread::scope(|scope| {
        let waits =
            scope.spawn(|| condvar.wait_by(mutex.lock().unwrap(), with_slack()).map(|(_, woken)| woken).unwrap());
        let reads = scope.spawn(|| lock.read_by(with_slack()).map(drop).unwrap_err());
        assert_eq!(waits.join().unwrap(), Woken::OutOfTime);
        assert!(reads.join().unwrap().is_out_of_time());
    });
    condvar.notify_all().unwrap();
    drop(written);
    let _ = lock.read().unwrap();
}
