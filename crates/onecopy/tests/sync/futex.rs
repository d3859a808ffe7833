//! The futex word between two processes, in all kinds of memory.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::sync::futex::Futex;
use onecopy::sync::shared::{Place, room_bytes};
use onecopy::{Deadline, Error};

use crate::stage::{Turn, in_all_memory};
use crate::support::{eventually, skip, watchdog};

const ROUNDS: u32 = 500;
const WAIT: Duration = Duration::from_millis(30);

fn create(place: &Place) {
    Futex::create(place, 0).unwrap();
    Futex::create(&place.at(room_bytes(0)).unwrap(), 0).unwrap();
}

fn attach(place: &Place) -> [Futex; 2] {
    [0, room_bytes(0)].map(|offset| Futex::attach(&place.at(offset).unwrap(), Deadline::Now).unwrap())
}

fn assert_empty(place: &Place) {
    let [ball, count] = attach(place);
    assert_eq!(ball.word().load(Ordering::Acquire), 2 * ROUNDS);
    assert_eq!(count.word().load(Ordering::Acquire), 0);
}

/// The word counts up, in turns: the even values are number 0's to change.
fn play(place: &Place, who: usize) {
    let [ball, count] = attach(place);
    for round in 0..ROUNDS {
        let ours = 2 * round + who as u32;
        let mut seen = ball.word().load(Ordering::Acquire);
        while seen != ours {
            ball.wait_by(seen, Deadline::after(Duration::from_secs(60))).unwrap();
            seen = ball.word().load(Ordering::Acquire);
        }
        ball.word().store(ours + 1, Ordering::Release);
        ball.wake(1).unwrap();
    }
    Turn::of(place).meet(1);
    for _ in 0..ROUNDS {
        if who == 0 { count.post(1).unwrap() } else { count.take_by(Deadline::Never).unwrap() }
    }
    Turn::of(place).meet(2);
    let start = Instant::now();
    assert!(matches!(ball.wait_by(2 * ROUNDS, Deadline::after(WAIT)), Err(Error::TimedOut { .. })));
    assert!(start.elapsed() >= WAIT);
    assert!(matches!(count.take_by(Deadline::after(WAIT)), Err(Error::TimedOut { .. })));
    assert!(matches!(count.take_by(Deadline::Now), Err(Error::WouldBlock { .. })));
    ball.wait_by(7, Deadline::Now).unwrap();
}

in_all_memory! { "futex", create, play, assert_empty }

fn pair() -> [Futex; 2] {
    let place = Place::new(AnonymousMapping::create("futex", 4096).unwrap().into_region()).unwrap();
    create(&place);
    attach(&place)
}

#[test]
fn waiters_move_to_another_word() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let [from, to] = pair();
    assert_eq!(from.requeue(5, 1, 1, &to).unwrap(), None, "the word is 0");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| from.wait_by(0, Deadline::after(Duration::from_secs(50))).unwrap());
        }
        let mut touched = 0;
        eventually("one is woken, and one moved", || {
            touched += from.requeue(0, u32::from(touched == 0), u32::from(touched > 0), &to).unwrap().unwrap();
            touched == 2
        });
        assert_eq!(from.wake(9).unwrap(), 0);
        assert_eq!(to.wake(9).unwrap(), 1);
    });
}

#[test]
fn one_of_several_words_wakes() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let [one, other] = pair();
    let start = Instant::now();
    match Futex::wait_any_by(&[(&one, 0), (&other, 0)], Deadline::after(WAIT)) {
        Err(Error::Unsupported { .. }) => return skip("futex::one_of_several_words_wakes", "no futex_waitv"),
        result => assert!(matches!(result, Err(Error::TimedOut { .. }))),
    }
    assert!(start.elapsed() >= WAIT);
    assert!(matches!(Futex::wait_any_by(&[(&one, 0)], Deadline::Now), Err(Error::WouldBlock { .. })));
    assert_eq!(Futex::wait_any_by(&[(&one, 0), (&other, 1)], Deadline::Never).unwrap(), None);
    assert!(matches!(Futex::wait_any_by(&[], Deadline::Never), Err(Error::Invalid { .. })));
    assert!(matches!(Futex::wait_any_by(&[(&one, 0); 129], Deadline::Never), Err(Error::Invalid { .. })));
    thread::scope(|scope| {
        let waits = scope.spawn(|| Futex::wait_any_by(&[(&one, 0), (&other, 0)], Deadline::Never));
        eventually("it sleeps", || other.wake(1).unwrap() == 1);
        assert_eq!(waits.join().unwrap().unwrap(), Some(1));
    });
}

#[test]
fn a_counter_does_not_overflow() {
    let [count, _] = pair();
    count.post(u32::MAX).unwrap();
    assert_eq!(count.post(1).unwrap_err().raw_os_error(), Some(libc::EOVERFLOW));
    count.take_by(Deadline::Now).unwrap();
    assert_eq!(count.word().load(Ordering::Acquire), u32::MAX - 1);
}

#[test]
fn to_wake_none_wakes_none() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let [one, _] = pair();
    thread::scope(|scope| {
        let waits = scope.spawn(|| one.wait_by(0, Deadline::after(Duration::from_secs(50))));
        for _ in 0..50 {
            thread::sleep(Duration::from_millis(1));
            assert_eq!(one.wake(0).unwrap(), 0);
        }
        eventually("it sleeps on", || one.wake(1).unwrap() == 1);
        waits.join().unwrap().unwrap();
    });
}
