//! What a child made by fork has of the locks that its parent holds: nothing.

use onecopy::memory::anonymous::for_children;
use onecopy::sync::named_semaphore::NamedSemaphore;
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::semaphore::Semaphore;
use onecopy::sync::shared::Place;
use onecopy::sync::sysv_semaphore::SysvSemaphore;
use onecopy::sync::{Lock, Mode};
use onecopy::{Deadline, Error, PosixName};

use crate::support::fork::in_child;
use crate::support::{Peer, role, unique, watchdog};

/// Holds `lock` while a child drops its copy of the guard, and tries to release and to acquire it.
fn hold_beside_a_child(lock: &mut impl Lock) {
    let mut guard = Some(lock.guard_by(Mode::Exclusive, Deadline::Now).unwrap());
    in_child(|| {
        drop(guard.take());
        true
    });
    drop(guard);
    let _ = lock.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
    in_child(|| {
        matches!(lock.release(), Err(Error::Invalid { .. }))
            && lock.acquire_by(Mode::Exclusive, Deadline::Now).unwrap_err().is_out_of_time()
    });
    lock.release().unwrap();
}

#[test]
fn a_child_releases_no_semaphore_that_its_parent_holds() {
    if role().is_some() {
        let mut unnamed = Semaphore::create(&Place::new(for_children(4096).unwrap()).unwrap(), 1).unwrap();
        hold_beside_a_child(&mut unnamed);
        let name = PosixName::new(format!("/{}", unique("fork"))).unwrap();
        let mut named = NamedSemaphore::create(&name, 1, 0o600).unwrap();
        NamedSemaphore::unlink(&name).unwrap();
        hold_beside_a_child(&mut named);
        let mut set = SysvSemaphore::create_private(&[1], 0o600).unwrap();
        hold_beside_a_child(&mut set);
        assert_eq!((unnamed.value().unwrap(), named.value().unwrap(), set.value(0).unwrap()), (1, 1, 1));
        set.remove().unwrap();
        return;
    }
    let _watchdog = watchdog(std::time::Duration::from_secs(60));
    Peer::start("fork::a_child_releases_no_semaphore_that_its_parent_holds", "parent", &[]).succeed();
}

#[test]
fn a_child_leaves_the_read_write_lock_that_its_parent_holds() {
    if role().is_some() {
        let place = Place::new(for_children(4096).unwrap()).unwrap();
        let mut lock = Rwlock::create(&place, 7_u64).unwrap();
        let writes = || in_another_thread(&place, |lock| lock.write_by(Deadline::Now).is_ok());
        let reads = || in_another_thread(&place, |lock| lock.read_by(Deadline::Now).is_ok());
        let mut guard = Some(lock.read().unwrap());
        in_child(|| {
            drop(guard.take());
            true
        });
        assert!(reads() && !writes(), "read");
        drop(guard);
        let mut guard = Some(lock.write().unwrap());
        in_child(|| {
            drop(guard.take());
            true
        });
        assert!(!reads() && !writes(), "written");
        drop(guard);
        assert!(writes(), "free");
        hold_beside_a_child(&mut lock);
        assert!(writes(), "free again");
        return;
    }
    let _watchdog = watchdog(std::time::Duration::from_secs(60));
    Peer::start("fork::a_child_leaves_the_read_write_lock_that_its_parent_holds", "parent", &[]).succeed();
}

/// What `look` says of the lock in a thread that holds nothing.
fn in_another_thread(place: &Place, look: impl FnOnce(&Rwlock<u64>) -> bool + Send) -> bool {
    std::thread::scope(|scope| scope.spawn(|| look(&Rwlock::attach(place, Deadline::Now).unwrap())).join().unwrap())
}
