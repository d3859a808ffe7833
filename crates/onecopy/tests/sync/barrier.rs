//! The barrier between two processes, in all kinds of memory.

use std::thread;
use std::time::{Duration, Instant};

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::sync::barrier::Barrier;
use onecopy::sync::mutex::Mutex;
use onecopy::sync::shared::{Place, room_bytes};
use onecopy::{Deadline, Error};

use crate::stage::in_all_memory;
use crate::support::fork::in_child;
use crate::support::{Peer, role, watchdog};

const ROUNDS: u64 = 500;
const WAIT: Duration = Duration::from_millis(30);

/// How often each has arrived, and how often it led.
type Table = [[u64; 2]; 2];

fn create(place: &Place) {
    Barrier::create(place, 2).unwrap();
    Mutex::create(&place.at(room_bytes(0)).unwrap(), [[0_u64; 2]; 2]).unwrap();
}

fn table(place: &Place) -> Mutex<Table> {
    Mutex::attach(&place.at(room_bytes(0)).unwrap(), Deadline::Now).unwrap()
}

fn assert_whole(place: &Place) {
    let table = *table(place).lock().unwrap();
    assert_eq!(table[0], [ROUNDS + 1; 2]);
    assert_eq!(table[1].iter().sum::<u64>(), ROUNDS, "one leader a round: {:?}", table[1]);
}

fn meet_often(place: &Place, who: usize) {
    let (barrier, table) = (Barrier::attach(place, Deadline::Now).unwrap(), table(place));
    assert_eq!(barrier.parties(), 2);
    for round in 0..ROUNDS {
        table.lock().unwrap()[0][who] += 1;
        let deadline = if round % 8 == 0 { Deadline::after(Duration::from_secs(60)) } else { Deadline::Never };
        let leads = barrier.wait_by(deadline).unwrap();
        let mut table = table.lock().unwrap();
        let theirs = table[0][1 - who];
        // The other one may be on its way to the next round.
        assert!(theirs == round + 1 || theirs == round + 2, "round {round}: {table:?}");
        table[1][who] += u64::from(leads);
    }
    barrier.wait().unwrap();
    if who == 0 {
        let start = Instant::now();
        assert!(matches!(barrier.wait_by(Deadline::Now), Err(Error::WouldBlock { .. })), "it has not arrived");
        assert!(matches!(barrier.wait_by(Deadline::after(WAIT)), Err(Error::TimedOut { .. })));
        assert!(start.elapsed() >= WAIT);
        assert!(matches!(barrier.wait_by(Deadline::Now), Err(Error::WouldBlock { .. })), "nor has the other one");
        // From here on the other one arrives.
        table.lock().unwrap()[0][0] += 1;
        barrier.wait_by(Deadline::Never).unwrap();
    } else {
        while table.lock().unwrap()[0][0] <= ROUNDS {
            thread::sleep(Duration::from_micros(200));
        }
        table.lock().unwrap()[0][1] += 1;
        barrier.wait().unwrap();
    }
}

in_all_memory! { "barrier", create, meet_often, assert_whole }

#[test]
fn the_number_of_parties_is_checked() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let place = Place::new(AnonymousMapping::create("barrier", 4096).unwrap().into_region()).unwrap();
    for parties in [0, i32::MAX as u32, u32::MAX] {
        for refused in [Barrier::create(&place, parties), Barrier::open_or_create(&place, parties, Deadline::Now)] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
            assert!(
                error.to_string().contains(&format!("{parties} parties are not between 1 and 2147483646")),
                "{error}"
            );
        }
    }
    assert_eq!(Barrier::create(&place.at(1024).unwrap(), i32::MAX as u32 - 1).unwrap().parties(), i32::MAX as u32 - 1);
    let alone = Barrier::create(&place, 1).unwrap();
    assert!(alone.wait_by(Deadline::Now).unwrap() && alone.wait().unwrap(), "the only one leads");
    let error = Barrier::open_or_create(&place, 3, Deadline::Now).unwrap_err();
    assert!(error.to_string().contains("1 parties meet at it, and 3 are expected"), "{error}");
}

#[test]
fn a_handle_that_is_dropped_leaves_its_arrival() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let place = Place::new(AnonymousMapping::create("barrier", 4096).unwrap().into_region()).unwrap();
    let barrier = Barrier::create(&place, 2).unwrap();
    assert!(barrier.wait_by(Deadline::after(Duration::from_millis(5))).is_err());
    drop(barrier);
    let other = Barrier::attach(&place, Deadline::Now).unwrap();
    other.wait().unwrap();
}

#[test]
fn an_arrival_of_its_parent_is_not_the_childs() {
    const LONG: Duration = Duration::from_secs(20);
    if role().is_some() {
        let place = Place::new(AnonymousMapping::create("barrier", 4096).unwrap().into_region()).unwrap();
        let barrier = Barrier::create(&place, 2).unwrap();
        assert!(barrier.wait_by(Deadline::after(Duration::from_millis(5))).is_err());
        in_child(|| {
            matches!(barrier.wait_by(Deadline::Now), Err(Error::WouldBlock { .. }))
                && barrier.wait_by(Deadline::after(LONG)).is_ok()
        });
        barrier.wait_by(Deadline::after(LONG)).unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    Peer::start("barrier::an_arrival_of_its_parent_is_not_the_childs", "parent", &[]).succeed();
}
