//! The mutex between two processes, in all kinds of memory.

use std::thread;
use std::time::{Duration, Instant};

use onecopy::memory::anonymous::{AnonymousMapping, for_children};
use onecopy::sync::condvar::Condvar;
use onecopy::sync::mutex::{LockError, Mutex, Protocol};
use onecopy::sync::shared::{Place, room_bytes};
use onecopy::sync::{Acquired, Lock as _, Mode};
use onecopy::{Deadline, Error};

use crate::Numbers;
use crate::stage::{Turn, fork, in_all_memory};
use crate::support::watchdog;

const ACCOUNTS: usize = 8;
const EACH: i64 = 100;
const ROUNDS: u64 = 2000;

type Ledger = [i64; ACCOUNTS];

fn create(place: &Place) {
    Mutex::create(place, [EACH; ACCOUNTS]).unwrap();
}

fn attach(place: &Place) -> Mutex<Ledger> {
    Mutex::attach(place, Deadline::Now).unwrap()
}

fn assert_whole(place: &Place) {
    let mutex = attach(place);
    let ledger = mutex.try_lock().expect("nobody holds it any more");
    assert_eq!(ledger.iter().sum::<i64>(), EACH * ACCOUNTS as i64);
    assert_ne!(*ledger, [EACH; ACCOUNTS], "nobody has done anything");
}

/// Moves money between accounts, and looks each time whether all of it is there.
fn move_money(place: &Place, who: usize) {
    let (mutex, turn) = (attach(place), Turn::of(place));
    turn.meet(1);
    let mut numbers = Numbers(77 + who as u64);
    for round in 0..ROUNDS {
        let mut ledger = match round % 3 {
            0 => mutex.lock().unwrap(),
            1 => mutex.lock_by(Deadline::after(Duration::from_secs(60))).unwrap(),
            _ => loop {
                match mutex.try_lock() {
                    Ok(guard) => break guard,
                    Err(error) => assert!(matches!(error.failed(), Some(Error::WouldBlock { .. })), "{error}"),
                }
                thread::yield_now();
            },
        };
        assert_eq!(ledger.iter().sum::<i64>(), EACH * ACCOUNTS as i64, "round {round}");
        let (from, to) = (numbers.below(ACCOUNTS as u64) as usize, numbers.below(ACCOUNTS as u64) as usize);
        let amount = numbers.below(50) as i64 + 1;
        ledger[from] -= amount;
        if round % 64 == 0 {
            thread::yield_now();
        }
        ledger[to] += amount;
    }
    turn.meet(2);
    keep_deadlines(&mutex, &turn, who);
}

/// Number 1 holds it for as long as number 0 tries.
fn keep_deadlines(mutex: &Mutex<Ledger>, turn: &Turn, who: usize) {
    if who == 1 {
        let guard = mutex.lock().unwrap();
        turn.set(10);
        turn.wait_for(11);
        return drop(guard);
    }
    turn.wait_for(10);
    let (start, wait) = (Instant::now(), Duration::from_millis(30));
    let error = mutex.lock_by(Deadline::after(wait)).unwrap_err();
    assert!(start.elapsed() >= wait);
    assert!(matches!(error.failed(), Some(Error::TimedOut { .. })), "{error}");
    let error = mutex.try_lock().unwrap_err();
    assert!(matches!(error.failed(), Some(Error::WouldBlock { .. })), "{error}");
    turn.set(11);
    drop(mutex.lock().unwrap());
}

in_all_memory! { "mutex", create, move_money, assert_whole }

fn fresh<T: onecopy::sync::mutex::Plain>(value: T) -> (Place, Mutex<T>) {
    let place = Place::new(AnonymousMapping::create("mutex", 4096).unwrap().into_region()).unwrap();
    let mutex = Mutex::create(&place, value).unwrap();
    (place, mutex)
}

#[test]
fn locking_what_this_thread_holds_is_an_error() {
    let _watchdog = watchdog(Duration::from_secs(60));
    for protocol in [Protocol::Plain, Protocol::InheritPriority] {
        let place = Place::new(AnonymousMapping::create("mutex", 4096).unwrap().into_region()).unwrap();
        let mutex = Mutex::create_with(&place, 5_u32, protocol).unwrap();
        let again = Mutex::<u32>::attach(&place, Deadline::Now).unwrap();
        assert_eq!((mutex.protocol(), again.protocol()), (protocol, protocol));
        let guard = mutex.lock().unwrap();
        for deadline in [Deadline::Never, Deadline::after(Duration::from_secs(5))] {
            for handle in [&mutex, &again] {
                let error = handle.lock_by(deadline).unwrap_err();
                assert!(error.to_string().contains("this thread holds it already"), "{error}");
            }
        }
        assert!(again.lock().is_err() && again.try_lock().is_err());
        assert_eq!(*guard, 5);
        drop(guard);
        drop(again.lock().unwrap());
    }
}

#[test]
fn priority_is_inherited_when_asked_for_and_deadlines_hold() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let place = Place::new(AnonymousMapping::create("mutex", 4096).unwrap().into_region()).unwrap();
    let mutex = Mutex::create_with(&place, 0_u64, Protocol::InheritPriority).unwrap();
    let guard = mutex.lock().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (start, wait) = (Instant::now(), Duration::from_millis(30));
            let error = mutex.lock_by(Deadline::after(wait)).unwrap_err();
            assert!(matches!(error.failed(), Some(Error::TimedOut { .. })), "{error}");
            assert!(start.elapsed() >= wait);
        });
    });
    drop(guard);
    let error = Mutex::open_or_create(&place, 0_u64, Deadline::Now).unwrap_err();
    assert!(error.to_string().contains("made with priority inheritance, and is expected without"), "{error}");
}

#[test]
fn a_dead_owner_is_reported_with_the_guard_and_the_value_can_be_repaired() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (place, mutex) = fresh([1_u64, 2]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = mutex.lock().unwrap();
            guard[0] = 99;
            std::mem::forget(guard);
        });
    });
    let Err(LockError::OwnerDied(died)) = mutex.lock() else { panic!("its owner has ended") };
    assert_eq!(*died.value(), [99, 2]);
    let guard = died.repair(|value| value[0] = 1).unwrap();
    assert_eq!(*guard, [1, 2]);
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), [1, 2]);
    assert_eq!(*Mutex::<[u64; 2]>::attach(&place, Deadline::Now).unwrap().lock().unwrap(), [1, 2]);
}

#[test]
fn what_nobody_repairs_is_given_up_for_good() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (_place, mutex) = fresh(0_u8);
    thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(mutex.lock().unwrap()));
    });
    assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_))), "and dropped");
    for deadline in [Deadline::Never, Deadline::Now, Deadline::after(Duration::from_secs(5))] {
        let error = mutex.lock_by(deadline).unwrap_err();
        assert_eq!(error.failed().unwrap().raw_os_error(), Some(libc::ENOTRECOVERABLE), "{error}");
        assert!(error.to_string().contains("gave it up without repair"), "{error}");
    }
}

#[test]
fn memory_of_a_lock_that_another_thread_holds_stays_mapped() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = crate::support::unique("kept");
    let region = AnonymousMapping::create(&name, 4096).unwrap().into_region();
    let mutex = Mutex::create(&Place::new(region).unwrap(), 0_u8).unwrap();
    let is_mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains(&name);
    let (dropped, is_dropped) = std::sync::mpsc::channel::<()>();
    let holder = thread::scope(|scope| {
        let (locked, is_locked) = std::sync::mpsc::channel();
        let mutex = &mutex;
        scope.spawn(move || {
            std::mem::forget(mutex.lock().unwrap());
            locked.send(()).unwrap();
        });
        is_locked.recv().unwrap();
        thread::spawn(move || is_dropped.recv().unwrap_err())
    });
    drop(mutex);
    drop(dropped);
    holder.join().unwrap();
    assert!(is_mapped(), "the list of a thread may lead there");
}

#[test]
fn a_forgotten_guard_is_given_back_by_its_own_thread() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (place, mutex) = fresh(3_u8);
    std::mem::forget(mutex.lock().unwrap());
    drop(mutex);
    let again = Mutex::<u8>::attach(&place, Deadline::Now).unwrap();
    assert_eq!(*again.try_lock().unwrap(), 3);
}

#[test]
fn a_child_of_a_fork_holds_nothing() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (_place, mutex) = fresh(1_u64);
    let guard = mutex.lock().unwrap();
    let child = fork(|| {
        let error = mutex.try_lock().unwrap_err();
        assert!(matches!(error.failed(), Some(Error::WouldBlock { .. })), "{error}");
    });
    let (_, status) = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
    drop(guard);
    drop(mutex.try_lock().unwrap());
}

/// `ROBUST_LIST_LIMIT` of linux/futex.h.
const MOST_OF_A_THREAD: usize = 2048;

/// Beyond these the kernel would leave mutexes locked when the thread dies.
#[test]
fn a_thread_holds_as_many_as_the_kernel_looks_through_when_it_dies() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let room = room_bytes(1);
    let place = Place::new(for_children((MOST_OF_A_THREAD + 3) * room).unwrap()).unwrap();
    let mutexes: Vec<_> =
        (0..MOST_OF_A_THREAD + 2).map(|index| Mutex::create(&place.at(index * room).unwrap(), 0_u8).unwrap()).collect();
    let condvar = Condvar::create(&place.at((MOST_OF_A_THREAD + 2) * room).unwrap()).unwrap();
    let (many, beyond) = mutexes.split_at(MOST_OF_A_THREAD);
    let is_refused = || {
        let text = beyond[0].lock().unwrap_err().to_string();
        assert_eq!(text, beyond[0].try_lock().unwrap_err().to_string());
        assert!(text.contains("2048"), "{text}");
    };
    let mut guards: Vec<_> = many.iter().map(|mutex| mutex.lock().unwrap()).collect();
    is_refused();
    // A wait gives one back and takes it again.
    let (guard, _) = condvar.wait_by(guards.pop().unwrap(), Deadline::after(Duration::from_millis(1))).unwrap();
    guards.push(guard);
    is_refused();
    guards.pop();
    let mut last = beyond[0].lock().unwrap();
    *last += 1;
    thread::scope(|scope| scope.spawn(|| drop(beyond[1].lock().unwrap())).join().unwrap());
    // A child holds none of them, and the kernel gives what it does hold to the next.
    let child = fork(|| {
        std::mem::forget(many[MOST_OF_A_THREAD - 1].lock().unwrap());
        std::mem::forget(beyond[1].lock().unwrap());
    });
    let (_, status) = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
    drop(last);
    assert!(matches!(beyond[1].lock(), Err(LockError::OwnerDied(_))));
    drop(guards);
    let guards: Vec<_> = many[1..].iter().map(|mutex| mutex.lock()).collect();
    assert!(guards[..MOST_OF_A_THREAD - 2].iter().all(Result::is_ok));
    assert!(matches!(guards[MOST_OF_A_THREAD - 2], Err(LockError::OwnerDied(_))));
}

#[test]
fn as_a_plain_lock_it_is_acquired_and_released() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (place, mut one) = fresh(0_u32);
    let mut other = Mutex::<u32>::attach(&place, Deadline::Now).unwrap();
    assert_eq!(one.acquire_by(Mode::Exclusive, Deadline::Now).unwrap(), Acquired::Clean);
    assert!(matches!(one.acquire_by(Mode::Exclusive, Deadline::Never), Err(Error::Invalid { .. })));
    thread::scope(|scope| {
        let taken = scope.spawn(|| other.acquire_by(Mode::Exclusive, Deadline::Now));
        assert!(matches!(taken.join().unwrap(), Err(Error::WouldBlock { .. })));
    });
    assert!(matches!(other.release(), Err(Error::Invalid { .. })), "it is the other handle that holds it");
    thread::scope(|scope| {
        let error = scope.spawn(|| one.release()).join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    });
    one.release().unwrap();
    assert!(matches!(one.release(), Err(Error::Invalid { .. })));
    assert!(matches!(one.acquire_by(Mode::Shared, Deadline::Now), Err(Error::Unsupported { .. })));
    let guard = one.guard_by(Mode::Exclusive, Deadline::Now).unwrap();
    assert_eq!(guard.acquired(), Acquired::Clean);
    drop(guard);
    thread::scope(|scope| {
        // A handle of its own, whose owner ends with it.
        let mut third = Mutex::<u32>::attach(&place, Deadline::Now).unwrap();
        scope.spawn(move || {
            let _ = third.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
            std::mem::forget(third);
        });
    });
    assert_eq!(other.acquire_by(Mode::Exclusive, Deadline::Never).unwrap(), Acquired::OwnerDied);
    other.release().unwrap();
    assert_eq!(one.acquire_by(Mode::Exclusive, Deadline::Never).unwrap(), Acquired::Clean, "it works on");
    one.release().unwrap();
}
