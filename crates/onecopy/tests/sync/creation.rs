//! Objects that several processes create at once, and creators that are killed.

use std::thread;
use std::time::{Duration, Instant};

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::sync::mutex::Mutex;
use onecopy::sync::shared::{Place, room_bytes};
use onecopy::{Deadline, Error};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

use crate::stage::{Memory, Shared, adopted, fork};
use crate::support::{Peer, role, watchdog};
use crate::{Numbers, rounds};

fn memory(len: usize) -> Place {
    Place::new(AnonymousMapping::create("creation", len).unwrap().into_region()).unwrap()
}

#[test]
fn eight_processes_at_once_make_one() {
    let test = "creation::eight_processes_at_once_make_one";
    if role().is_some() {
        let mutex = Mutex::open_or_create(&adopted(), [7_u64; 4], Deadline::after(Duration::from_secs(30))).unwrap();
        mutex.lock().unwrap()[0] += 1;
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(300));
    for memory in [Memory::Memfd, Memory::PosixShm, Memory::SysvShm, Memory::File] {
        let shared = Shared::new(memory);
        let peers: Vec<Peer> = (0..8).map(|_| shared.peer(test, "creates")).collect();
        peers.into_iter().for_each(Peer::succeed);
        let mutex = Mutex::<[u64; 4]>::attach(&shared.place, Deadline::Now).unwrap();
        assert_eq!(*mutex.lock().unwrap(), [15, 7, 7, 7], "{memory:?}");
    }
}

/// In each round eight children create the same object at the same moment.
#[test]
fn races_to_create_have_one_winner() {
    let _watchdog = watchdog(Duration::from_secs(300));
    for round in 0..rounds() {
        let place = memory(4096);
        let deadline = Deadline::after(Duration::from_secs(30));
        let created = thread::scope(|scope| {
            let racers: Vec<_> = (0..8_u64)
                .map(|racer| {
                    let place = &place;
                    scope.spawn(move || {
                        let mutex = Mutex::open_or_create(place, [racer, 0], deadline).unwrap();
                        let mut value = mutex.lock().unwrap();
                        value[1] += 1;
                        value[0]
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(created.iter().all(|&winner| winner == created[0]), "round {round}: {created:?}");
        assert_eq!(Mutex::<[u64; 2]>::attach(&place, Deadline::Now).unwrap().lock().unwrap()[1], 8);
    }
}

#[test]
fn creating_twice_and_attaching_to_nothing_are_errors() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let place = memory(4096);
    let error = Mutex::<u64>::attach(&place, Deadline::Now).unwrap_err();
    assert!(error.to_string().contains("nothing is there: create it first"), "{error}");
    let (start, wait) = (Instant::now(), Duration::from_millis(30));
    let error = Mutex::<u64>::attach(&place, Deadline::after(wait)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= wait, "{error}");
    let mutex = Mutex::create(&place, 1_u64).unwrap();
    let error = Mutex::create(&place, 2_u64).unwrap_err();
    assert!(error.to_string().contains("there already"), "{error}");
    assert_eq!(*mutex.lock().unwrap(), 1);
    let error = Mutex::create(&place.at(room_bytes(8)).unwrap(), [0_u8; 4000]).unwrap_err();
    assert!(error.to_string().contains("needs 4192 bytes, and 3840 are there"), "{error}");
    assert!(place.at(8).is_err() && place.at(4096).is_err());
}

#[test]
fn whoever_attaches_waits_for_the_creator() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let place = memory(4096);
    thread::scope(|scope| {
        let waits = scope.spawn(|| Mutex::<u64>::attach(&place, Deadline::Never).unwrap());
        thread::sleep(Duration::from_millis(20));
        Mutex::create(&place, 42_u64).unwrap();
        assert_eq!(*waits.join().unwrap().lock().unwrap(), 42);
    });
}

/// The value is long, so that its creator is killed in the middle of writing it: at any time, and the next one makes it whole.
#[test]
fn a_killed_creator_leaves_nothing_half_made() {
    let test = "creation::a_killed_creator_leaves_nothing_half_made";
    if role().is_some() {
        return kill_creators();
    }
    let _watchdog = watchdog(Duration::from_secs(600));
    Peer::start(test, "kills", &[]).succeed_within(Duration::from_secs(200));
}

const WORDS: usize = 16 << 10;

fn kill_creators() {
    let mut numbers = Numbers(99);
    let mut unfinished = 0;
    for _ in 0..rounds() {
        let place = memory(room_bytes(8 * WORDS));
        let child = fork(|| drop(Mutex::create(&place, [u64::MAX; WORDS]).unwrap()));
        // Until it has begun; then it takes some 50 us.
        while state(&place) == 0 {
            std::thread::yield_now();
        }
        let end = Instant::now() + Duration::from_micros(numbers.below(30));
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        // It may have ended, but its number is its own until it is waited for.
        kill_process(child, Signal::KILL).unwrap();
        waitpid(Some(child), WaitOptions::empty()).unwrap();
        match Mutex::<[u64; WORDS]>::attach(&place, Deadline::Now) {
            Ok(mutex) => {
                assert!(mutex.lock().unwrap().iter().all(|&word| word == u64::MAX), "half made");
                continue;
            }
            Err(error) => assert!(error.to_string().contains("has died while it created it"), "{error}"),
        }
        unfinished += 1;
        let mutex = Mutex::open_or_create(&place, [3; WORDS], Deadline::after(Duration::from_secs(30))).unwrap();
        assert!(mutex.lock().unwrap().iter().all(|&word| word == 3), "half made");
    }
    println!("{unfinished} of {} were killed before they had made it", rounds());
}

/// The state word of what lies there.
fn state(place: &Place) -> u64 {
    let mut state = [0; 8];
    place.region().read_at(16, &mut state).unwrap();
    u64::from_le_bytes(state)
}
