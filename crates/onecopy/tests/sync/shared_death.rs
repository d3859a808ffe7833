//! Condition variables, barriers, read-write locks, semaphores and futexes whose users are killed at any time: no call that has a
//! deadline hangs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use onecopy::sync::barrier::Barrier;
use onecopy::sync::condvar::{Condvar, Counted};
use onecopy::sync::futex::Futex;
use onecopy::sync::mutex::{LockError, Mutex, MutexGuard};
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::semaphore::Semaphore;
use onecopy::sync::shared::{HEADER_BYTES, Place, room_bytes};
use onecopy::sync::{Notify, Wait};
use onecopy::{Deadline, Error};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{CpuSet, futex, sched_getcpu, sched_setaffinity};

use crate::stage::{Memory, Shared, fork};
use crate::support::{Peer, argument, eventually, role, wait_until_asleep, watchdog};
use crate::{Numbers, rounds};

/// No call of these tests may take longer than this beyond its deadline: far more than what the library promises.
const HANG: Duration = Duration::from_secs(30);

/// How many processes share the rounds: most of the time they wait for what is a second overdue.
const AT_ONCE: u64 = 5;

/// Runs `body` in second processes of one thread, which may fork, once for each round.
fn in_rounds(test: &str, body: fn(&Place, u64)) {
    if role().is_some() {
        let first: u64 = argument("FIRST").parse().unwrap();
        for round in (first..rounds() as u64).step_by(AT_ONCE as usize) {
            let shared = Shared::new(Memory::Inherited);
            body(&shared.place, round);
        }
        return println!("{test}: {} calls said that it is broken", BROKEN.load(Ordering::Relaxed));
    }
    let _watchdog = watchdog(Duration::from_secs(1200));
    let peers: Vec<_> =
        (0..AT_ONCE).map(|first| Peer::start(test, "rounds", &[("FIRST", &first.to_string())])).collect();
    peers.into_iter().for_each(|peer| peer.succeed_within(Duration::from_secs(1100)));
}

fn end(child: Pid) {
    kill_process(child, Signal::KILL).unwrap();
    waitpid(Some(child), WaitOptions::empty()).unwrap();
}

/// Calls `call`, which has a deadline of `wait`, and demands that it comes back.
fn comes_back<T>(what: &str, wait: Duration, call: impl FnOnce(Deadline) -> T) -> T {
    let start = Instant::now();
    let result = call(Deadline::after(wait));
    assert!(start.elapsed() < wait + HANG, "{what} took {:?}", start.elapsed());
    result
}

fn is_accepted(error: &Error) -> bool {
    BROKEN.fetch_add(usize::from(error.is_peer_gone()), Ordering::Relaxed);
    error.is_out_of_time() || error.is_peer_gone()
}

/// How often an object was found broken.
static BROKEN: AtomicUsize = AtomicUsize::new(0);

fn pause(numbers: &mut Numbers) {
    thread::sleep(Duration::from_micros(numbers.below(1500)));
}

/// A mutex that works on whoever died with it.
fn locked(mutex: &Mutex<u64>) -> MutexGuard<'_, u64> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(LockError::OwnerDied(died)) => died.repair(|_| ()).unwrap(),
        Err(LockError::Failed(error)) => panic!("{error}"),
    }
}

fn of_condvar(place: &Place) -> (Condvar, Mutex<u64>) {
    let condvar = Condvar::open_or_create(place, Deadline::Now).unwrap();
    (condvar, Mutex::open_or_create(&place.at(room_bytes(0)).unwrap(), 0, Deadline::Now).unwrap())
}

/// Waits, whoever has died.
fn wait_once(condvar: &Condvar, mutex: &Mutex<u64>) {
    let guard = locked(mutex);
    match comes_back("a wait", Duration::from_millis(2), |deadline| condvar.wait_by(guard, deadline)) {
        Ok(_) => {}
        Err(LockError::OwnerDied(died)) => drop(died.repair(|_| ()).unwrap()),
        Err(LockError::Failed(error)) => assert!(is_accepted(&error), "{error}"),
    }
}

/// Waiters are killed while they sleep, so that the C library's own calls would hang from the second notification on.
fn kill_waiters_of_a_condvar(place: &Place, round: u64) {
    let mut numbers = Numbers(round + 1);
    let (condvar, mutex) = of_condvar(place);
    let waits = || {
        let (condvar, mutex) = of_condvar(place);
        loop {
            let guard = locked(&mutex);
            match condvar.wait_by(guard, Deadline::Never) {
                Ok(_) => {}
                Err(LockError::OwnerDied(died)) => drop(died.repair(|_| ()).unwrap()),
                Err(LockError::Failed(_)) => return,
            }
        }
    };
    let children = [fork(waits), fork(waits)];
    pause(&mut numbers);
    end(children[0]);
    for step in 0..4 {
        let notified = comes_back("a notification", Duration::ZERO, |_| {
            if step % 2 == 0 { condvar.notify_one() } else { condvar.notify_all() }
        });
        notified.unwrap_or_else(|error| assert!(is_accepted(&error), "{error}"));
        wait_once(&condvar, &mutex);
    }
    end(children[1]);
}

#[test]
fn a_condition_variable_whose_waiters_are_killed_hangs_nobody() {
    let test = "shared_death::a_condition_variable_whose_waiters_are_killed_hangs_nobody";
    in_rounds(test, kill_waiters_of_a_condvar);
}

/// The C library's notifications wait for a waiter that was notified while it was stopped, as they do for a dead one.
#[test]
fn a_condition_variable_whose_waiter_is_stopped_is_whole_when_that_goes_on() {
    const STOP: Duration = Duration::from_millis(2500);
    let test = "shared_death::a_condition_variable_whose_waiter_is_stopped_is_whole_when_that_goes_on";
    if role().is_none() {
        let _watchdog = watchdog(Duration::from_secs(100));
        return Peer::start(test, "stops", &[]).succeed_within(Duration::from_secs(90));
    }
    let shared = Shared::new(Memory::Inherited);
    let (condvar, mutex) = of_condvar(&shared.place);
    let waits = || {
        let (condvar, mutex) = of_condvar(&shared.place);
        loop {
            drop(condvar.wait_by(locked(&mutex), Deadline::Never).expect("nobody died"));
        }
    };
    let waiters = [fork(waits), fork(waits), fork(waits)];
    waiters.iter().for_each(|waiter| eventually("a waiter sleeps", || is_asleep(*waiter)));
    kill_process(waiters[0], Signal::STOP).unwrap();
    let start = Instant::now();
    let waker = fork(|| {
        thread::sleep(STOP);
        kill_process(waiters[0], Signal::CONT).unwrap();
    });
    (0..6).for_each(|_| condvar.notify_one().unwrap());
    println!("{test}: 6 notifications took {:?} beside a waiter that was stopped for {STOP:?}", start.elapsed());
    waitpid(Some(waker), WaitOptions::empty()).unwrap();
    condvar.notify_all().unwrap();
    drop(condvar.wait_by(locked(&mutex), Deadline::after(Duration::from_millis(2))).unwrap());
    waiters.into_iter().for_each(end);
}

/// Two who were notified wait for the mutex. Its owner wakes the first, locks it again before that one runs, and kills it. Whether
/// the owner then knew of no waiter.
fn take_a_wake_up_along(place: &Place) -> bool {
    let (condvar, mutex) = of_condvar(place);
    let waits = |nice| {
        let child = fork(|| {
            rustix::process::nice(nice).unwrap();
            let waited = condvar.wait_while_by(locked(&mutex), Deadline::Never, |notified| *notified == 0);
            if let Err(error) = waited {
                assert!(error.failed().is_some_and(is_accepted), "{error}");
            }
        });
        wait_until_asleep(child.as_raw_pid().cast_unsigned());
        child
    };
    let [first, second] = [10, 0].map(waits);
    let mut guard = locked(&mutex);
    *guard = 1;
    for child in [first, second] {
        condvar.notify_one().unwrap();
        eventually("it sleeps again", || is_asleep(child));
    }
    drop(guard);
    let guard = locked(&mutex);
    end(first);
    let mut word = [0; 4];
    place.region().read_at(room_bytes(0) + HEADER_BYTES, &mut word).unwrap();
    drop(guard);
    let mut ended = None;
    eventually("the second waiter has it", || {
        ended = waitpid(Some(second), WaitOptions::NOHANG).unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().1.exit_status(), Some(0), "the second waiter");
    u32::from_ne_bytes(word) & futex::WAITERS == 0
}

/// Whether its first thread sleeps just now: one that was woken does not until it has run.
fn is_asleep(child: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_pid())).unwrap();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

#[test]
fn a_waiter_that_takes_a_wake_up_along_hangs_nobody() {
    let test = "shared_death::a_waiter_that_takes_a_wake_up_along_hangs_nobody";
    if role().is_none() {
        let _watchdog = watchdog(Duration::from_secs(200));
        return Peer::start(test, "alone", &[]).succeed_within(Duration::from_secs(120));
    }
    // So that whoever is woken runs when the owner sleeps.
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).unwrap();
    let rounds = (1..).scan(0, |taken, round| {
        *taken += usize::from(take_a_wake_up_along(&Shared::new(Memory::Inherited).place));
        (*taken < 3).then_some(round)
    });
    println!("{test}: taken along 3 times in {} rounds", rounds.last().unwrap_or(0) + 1);
}

fn kill_the_waker_of_a_condvar(place: &Place, round: u64) {
    let mut numbers = Numbers(round + 1);
    let (condvar, mutex) = of_condvar(place);
    let waker = fork(|| {
        let (condvar, _) = of_condvar(place);
        while condvar.notify_one().and_then(|()| condvar.notify_all()).is_ok() {}
    });
    let end_at = Instant::now() + Duration::from_micros(numbers.below(3000));
    let mut killed = None;
    for _ in 0..6 {
        let guard = locked(&mutex);
        match comes_back("a wait", Duration::from_millis(2), |deadline| condvar.wait_by(guard, deadline)) {
            Ok(_) => {}
            Err(LockError::OwnerDied(_)) => panic!("nobody has died with the mutex"),
            Err(LockError::Failed(error)) => assert!(is_accepted(&error), "{error}"),
        }
        if Instant::now() >= end_at && killed.is_none() {
            end(waker);
            killed = Some(());
        }
    }
    if killed.is_none() {
        end(waker);
    }
    comes_back("a notification", Duration::ZERO, |_| condvar.notify_one())
        .unwrap_or_else(|error| assert!(is_accepted(&error), "{error}"));
}

#[test]
fn a_condition_variable_whose_waker_is_killed_hangs_nobody() {
    let test = "shared_death::a_condition_variable_whose_waker_is_killed_hangs_nobody";
    in_rounds(test, kill_the_waker_of_a_condvar);
}

/// What waits for a waker that is killed, and the waker for waiters that are.
fn kill_around(mut ours: impl Notify + Wait, place: &Place, open: fn(&Place) -> Box<dyn Both>, round: u64) {
    let mut numbers = Numbers(round + 1);
    let waits = fork(|| {
        let mut theirs = open(place);
        while theirs.wait_by(Deadline::Never).is_ok() {}
    });
    let posts = fork(|| {
        let mut theirs = open(place);
        while theirs.notify_by(1, Deadline::Never).is_ok() {
            thread::sleep(Duration::from_micros(50));
        }
    });
    pause(&mut numbers);
    for victim in [waits, posts] {
        end(victim);
        let posted = comes_back("a post", Duration::from_millis(2), |deadline| ours.notify_by(1, deadline));
        posted.unwrap_or_else(|error| assert!(is_accepted(&error), "{error}"));
        let waited = comes_back("a wait", Duration::from_millis(2), |deadline| ours.wait_by(deadline));
        waited.unwrap_or_else(|error| assert!(is_accepted(&error), "{error}"));
    }
}

trait Both: Notify + Wait {}
impl<T: Notify + Wait> Both for T {}

fn semaphore(place: &Place) -> Box<dyn Both> {
    Box::new(Semaphore::open_or_create(place, 0, Deadline::Now).unwrap())
}

fn word(place: &Place) -> Box<dyn Both> {
    Box::new(Futex::open_or_create(place, 0, Deadline::Now).unwrap())
}

fn counted(place: &Place) -> Box<dyn Both> {
    Box::new(Counted::open(place, true, Deadline::after(HANG)).unwrap())
}

#[test]
fn a_semaphore_whose_users_are_killed_hangs_nobody() {
    in_rounds("shared_death::a_semaphore_whose_users_are_killed_hangs_nobody", |place, round| {
        kill_around(Semaphore::create(place, 0).unwrap(), place, semaphore, round);
    });
}

#[test]
fn a_futex_whose_users_are_killed_hangs_nobody() {
    in_rounds("shared_death::a_futex_whose_users_are_killed_hangs_nobody", |place, round| {
        kill_around(Futex::create(place, 0).unwrap(), place, word, round);
    });
}

#[test]
fn counted_notifications_whose_users_are_killed_hang_nobody() {
    in_rounds("shared_death::counted_notifications_whose_users_are_killed_hang_nobody", |place, round| {
        kill_around(Counted::open(place, true, Deadline::Now).unwrap(), place, counted, round);
    });
}

/// Readers and writers are killed with the lock and while they wait for it.
fn kill_users_of_a_rwlock(place: &Place, round: u64) {
    let mut numbers = Numbers(round + 1);
    let lock = Rwlock::create(place, 0_u64).unwrap();
    let uses = |write: bool| {
        let lock = Rwlock::<u64>::attach(place, Deadline::Now).unwrap();
        move || -> Result<(), Error> {
            loop {
                if write { *lock.write()? += 1 } else { drop(lock.read()?) }
            }
        }
    };
    let children = [false, true, true].map(|write| fork(|| drop(uses(write)())));
    pause(&mut numbers);
    for child in children {
        end(child);
        for _ in 0..2 {
            comes_back("a reader", Duration::from_millis(1), |deadline| lock.read_by(deadline).map(drop))
                .unwrap_or_else(|error| assert!(is_accepted(&error), "{error}"));
            comes_back("a writer", Duration::from_millis(1), |deadline| lock.write_by(deadline).map(drop))
                .unwrap_or_else(|error| assert!(is_accepted(&error), "{error}"));
        }
    }
}

#[test]
fn a_read_write_lock_whose_users_are_killed_hangs_nobody() {
    in_rounds("shared_death::a_read_write_lock_whose_users_are_killed_hangs_nobody", kill_users_of_a_rwlock);
}

fn kill_parties_of_a_barrier(place: &Place, round: u64) {
    let mut numbers = Numbers(round + 1);
    let barrier = Barrier::create(place, 3).unwrap();
    let meets = || {
        let barrier = Barrier::attach(place, Deadline::Now).unwrap();
        while barrier.wait().is_ok() {}
    };
    let children = [fork(meets), fork(meets)];
    for _ in 0..numbers.below(20) {
        comes_back("a meeting", HANG, |deadline| barrier.wait_by(deadline)).unwrap();
    }
    pause(&mut numbers);
    for child in children {
        end(child);
        comes_back("a meeting", Duration::from_millis(2), |deadline| barrier.wait_by(deadline).map(drop))
            .unwrap_or_else(|error| assert!(error.is_out_of_time(), "{error}"));
    }
    // Two of the dead may have arrived in this round, and then it was one more.
    let met = || comes_back("a meeting", Duration::from_millis(2), |deadline| barrier.wait_by(deadline));
    assert!(met().and_then(|_| met()).is_err_and(|error| error.is_out_of_time()), "nobody is left");
}

#[test]
fn a_barrier_whose_parties_are_killed_hangs_nobody() {
    in_rounds("shared_death::a_barrier_whose_parties_are_killed_hangs_nobody", kill_parties_of_a_barrier);
}
