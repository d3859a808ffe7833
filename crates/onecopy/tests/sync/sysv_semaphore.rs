//! Row 20: System V semaphores, and what semop(2) and semctl(2) say of them.
#![expect(unsafe_code, reason = "a set without values is made as a careless program would")]

use std::time::{Duration, Instant};

use onecopy::sync::sysv_semaphore::{Operation, SysvSemaphore};
use onecopy::sync::{Lock as _, Mode, Notify as _, Wait as _};
use onecopy::{Deadline, Error, SysvName};

use crate::support::{Peer, argument, eventually, role, skip, watchdog};

const MOMENT: Duration = Duration::from_millis(30);

/// A set that is removed at the end of the test.
pub(crate) struct Set(pub(crate) SysvSemaphore);

impl Set {
    pub(crate) fn new(values: &[u16]) -> Self {
        Self(SysvSemaphore::create_private(values, 0o600).unwrap())
    }

    /// The argument by which a second process finds it.
    pub(crate) fn argument(&self) -> String {
        self.0.id().to_string()
    }

    fn peer(&self, test: &str, role: &str) -> Peer {
        Peer::start_listening(&format!("sysv_semaphore::{test}"), role, &[("SET", &self.argument())])
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

fn by_id(id: i32) -> SysvSemaphore {
    SysvSemaphore::open(&SysvName::id(id).unwrap()).unwrap()
}

/// In the second process: the set that the test made.
fn inherited() -> SysvSemaphore {
    by_id(argument("SET").parse().unwrap())
}

/// A key that no other test and no other run uses.
fn unique_key(number: u32) -> i32 {
    (0x2100_0000 + std::process::id() * 64 + number).cast_signed()
}

fn by_key(key: i32) -> SysvName {
    SysvName::key(key).unwrap()
}

fn stay() {
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn each_post_lets_one_wait_of_another_process_through() {
    let test = "each_post_lets_one_wait_of_another_process_through";
    if role().is_some() {
        let mut set = inherited();
        for _ in 0..3 {
            set.wait_by(Deadline::Never).unwrap();
        }
        println!("\nthree");
        return set.wait_by(Deadline::after(Duration::from_secs(60))).unwrap();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut set = Set::new(&[1]);
    let mut peer = set.peer(test, "waiter");
    set.0.notify_by(0, Deadline::Now).unwrap();
    set.0.notify_by(2, Deadline::Now).unwrap();
    peer.line("three");
    eventually("the peer waits", || set.0.waiting(0).unwrap() == 1);
    assert_eq!(set.0.last_process(0).unwrap(), Some(peer.pid()));
    set.0.notify_by(1, Deadline::Now).unwrap();
    peer.succeed();
    assert_eq!(set.0.values().unwrap(), [0]);
}

#[test]
fn several_operations_happen_together_or_not_at_all() {
    let test = "several_operations_happen_together_or_not_at_all";
    if role().is_some() {
        let both = [Operation::new(0, -2), Operation::new(1, -1), Operation::new(2, 5)];
        return inherited().operate_by(&both, Deadline::Never).unwrap();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let set = Set::new(&[2, 0, 0]);
    let both = [Operation::new(0, -2), Operation::new(1, -1)];
    assert!(matches!(set.0.operate_by(&both, Deadline::Now).unwrap_err(), Error::WouldBlock { .. }));
    let start = Instant::now();
    let error = set.0.operate_by(&both, Deadline::after(MOMENT)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= MOMENT, "{error}");
    assert_eq!(set.0.values().unwrap(), [2, 0, 0]);
    let peer = set.peer(test, "taker");
    eventually("the peer waits for the second", || set.0.waiting(1).unwrap() == 1);
    // With the first gone, the second alone does not let it go on.
    set.0.operate_by(&[Operation::new(0, -1), Operation::new(1, 1)], Deadline::Now).unwrap();
    eventually("the peer waits for the first", || set.0.waiting(0).unwrap() == 1);
    assert_eq!(set.0.values().unwrap(), [1, 1, 0]);
    set.0.operate_by(&[Operation::new(0, 1)], Deadline::Now).unwrap();
    peer.succeed();
    assert_eq!(set.0.values().unwrap(), [0, 0, 5]);
    // In their order: the second step finds what the first has added.
    set.0
        .operate_by(&[Operation::new(0, 1), Operation::new(0, -1), Operation::wait_for_zero(0)], Deadline::Now)
        .unwrap();
}

#[test]
fn a_process_waits_for_zero() {
    if role().is_some() {
        return inherited().operate_by(&[Operation::wait_for_zero(0), Operation::new(0, 7)], Deadline::Never).unwrap();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let set = Set::new(&[2]);
    let peer = set.peer("a_process_waits_for_zero", "waiter");
    eventually("the peer waits", || set.0.waiting_for_zero(0).unwrap() == 1);
    assert_eq!(set.0.waiting(0).unwrap(), 0);
    set.0.operate_by(&[Operation::new(0, -1)], Deadline::Now).unwrap();
    let later = Deadline::after(Duration::from_secs(60));
    let at_once = [Operation::wait_for_zero(0).without_waiting()];
    assert!(matches!(set.0.operate_by(&at_once, later).unwrap_err(), Error::WouldBlock { .. }), "IPC_NOWAIT");
    set.0.operate_by(&[Operation::new(0, -1)], Deadline::Now).unwrap();
    peer.succeed();
    assert_eq!(set.0.value(0).unwrap(), 7);
}

/// What a process does and then dies of, and what is left of it.
#[test]
fn undo_gives_back_what_a_dead_process_took() {
    let test = "undo_gives_back_what_a_dead_process_took";
    if role().is_some() {
        let set = inherited();
        let take = Operation::new(0, -3).with_undo();
        set.operate_by(&[take, Operation::new(1, -1), Operation::new(2, 4).with_undo()], Deadline::Now).unwrap();
        println!("\ndone");
        return stay();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let set = Set::new(&[5, 5, 0]);
    let mut peer = set.peer(test, "debtor");
    peer.line("done");
    assert_eq!(set.0.values().unwrap(), [2, 4, 4]);
    peer.kill();
    assert_eq!(set.0.values().unwrap(), [5, 4, 0], "given back, kept without undo, taken back");
    // A value is never taken below 0, and setting a value forgets the undo of it.
    let mut peer = set.peer(test, "debtor");
    peer.line("done");
    set.0.operate_by(&[Operation::new(2, -3)], Deadline::Now).unwrap();
    set.0.set_value(0, 9).unwrap();
    peer.kill();
    assert_eq!(set.0.values().unwrap(), [9, 3, 0]);
}

#[test]
fn undo_is_kept_over_exec() {
    use std::os::unix::process::CommandExt as _;
    if role().is_some() {
        inherited().operate_by(&[Operation::new(0, -1).with_undo()], Deadline::Now).unwrap();
        panic!("{}", std::process::Command::new("sleep").arg("60").exec());
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let set = Set::new(&[1]);
    let mut peer = set.peer("undo_is_kept_over_exec", "sleeper");
    let name = format!("/proc/{}/comm", peer.pid());
    eventually("it has become another program", || std::fs::read_to_string(&name).unwrap() == "sleep\n");
    assert_eq!(set.0.value(0).unwrap(), 0);
    peer.kill();
    assert_eq!(set.0.value(0).unwrap(), 1);
}

#[test]
fn its_limits_are_errors_with_their_numbers() {
    let set = Set::new(&[1, 32_767]);
    let failure = |operations: &[Operation]| set.0.operate_by(operations, Deadline::Now).unwrap_err();
    let limit = std::fs::read_to_string("/proc/sys/kernel/sem").unwrap();
    let limit: usize = limit.split_ascii_whitespace().nth(2).unwrap().parse().unwrap();
    let error = failure(&vec![Operation::new(0, 0); limit + 1]);
    assert_eq!(error.raw_os_error(), Some(libc::E2BIG), "{error}");
    assert!(error.to_string().contains(&(limit + 1).to_string()) && error.to_string().contains("SEMOPM"), "{error}");
    let error = failure(&[Operation::new(2, 1)]);
    assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{error}");
    assert!(error.to_string().contains("0 to 1"), "{error}");
    let error = failure(&[Operation::new(0, -1), Operation::new(1, 1)]);
    assert_eq!(error.raw_os_error(), Some(libc::ERANGE), "{error}");
    assert!(error.to_string().contains("32767"), "{error}");
    assert_eq!(set.0.values().unwrap(), [1, 32_767], "nothing is done");
    assert!(matches!(failure(&[]), Error::Invalid { .. }));
    let error = set.0.set_value(0, 32_768).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ERANGE), "{error}");
    for error in [set.0.set_value(2, 0).unwrap_err(), set.0.value(2).unwrap_err(), set.0.waiting(2).unwrap_err()] {
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert!(error.to_string().contains("semaphore 2"), "{error}");
    }
    let error = set.0.set_values(&[1]).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert_eq!(set.0.set_values(&[1, 40_000]).unwrap_err().raw_os_error(), Some(libc::ERANGE));
    set.0.set_values(&[3, 4]).unwrap();
    assert_eq!(set.0.values().unwrap(), [3, 4]);

    for (values, mode) in [(&[][..], 0o600), (&[32_768], 0o600), (&[1], 0o1600)] {
        let error = SysvSemaphore::create_private(values, mode).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    let error = set.0.operate_by(&[Operation::new(0, 1); 3], Deadline::Now).map(|()| set.0.value(0).unwrap());
    assert_eq!(error.unwrap(), 6);
    let mut overflowing = by_id(set.0.id());
    for count in [32_767, 32_768, u32::MAX] {
        let error = overflowing.notify_by(count, Deadline::Now).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ERANGE), "{error}");
    }
}

#[test]
fn a_set_that_is_removed_fails_for_who_waits_and_who_comes() {
    if role().is_some() {
        let error = inherited().operate_by(&[Operation::new(0, -1)], Deadline::Never).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIDRM), "{error}");
        assert!(error.is_peer_gone() && error.to_string().contains("removed"), "{error}");
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let set = Set::new(&[0]);
    let peer = set.peer("a_set_that_is_removed_fails_for_who_waits_and_who_comes", "waiter");
    eventually("the peer waits", || set.0.waiting(0).unwrap() == 1);
    set.0.remove().unwrap();
    peer.succeed();
    for error in [
        set.0.operate_by(&[Operation::new(0, 1)], Deadline::Now).unwrap_err(),
        set.0.value(0).unwrap_err(),
        set.0.remove().unwrap_err(),
        set.0.status().unwrap_err(),
    ] {
        assert!(error.is_peer_gone(), "{error}");
    }
    let error = SysvSemaphore::open(&SysvName::id(set.0.id()).unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
}

#[test]
fn a_set_is_created_once_by_its_key() {
    let key = by_key(unique_key(0));
    assert_eq!(SysvSemaphore::open(&key).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let set = Set(SysvSemaphore::create(&key, &[4, 5], 0o640).unwrap());
    let error = SysvSemaphore::create(&key, &[4], 0o600).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    assert_eq!(SysvSemaphore::open(&key).unwrap().id(), set.0.id());
    assert_eq!(SysvSemaphore::open_or_create(&key, &[9], 0o600).unwrap().values().unwrap(), [4, 5]);
    let error = SysvSemaphore::open_or_create(&key, &[1, 2, 3], 0o600).unwrap_err();
    assert!(error.to_string().contains("with 2 semaphores, and 3"), "{error}");
    let error = SysvSemaphore::create(&SysvName::id(set.0.id()).unwrap(), &[1], 0o600).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let status = set.0.status().unwrap();
    assert_eq!((status.count, status.mode), (2, 0o640));
    assert!(status.last_operation_time_s > 0, "who follows the protocol sees that it is ready");
    // The owner's rights are there while the values are set, and go then.
    let read_only = Set(SysvSemaphore::create_private(&[3, 1], 0o400).unwrap());
    assert_eq!(read_only.0.status().unwrap().mode, 0o400);
    assert_eq!(read_only.0.values().unwrap(), [3, 1]);
}

#[test]
fn a_set_that_this_user_may_not_change_says_so() {
    if is_root() {
        return skip("sysv_semaphore::a_set_that_this_user_may_not_change_says_so", "root may change any set");
    }
    let read_only = Set(SysvSemaphore::create_private(&[3, 1], 0o400).unwrap());
    let error = read_only.0.operate_by(&[Operation::new(0, 1)], Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn many_that_create_it_at_once_get_the_same_with_its_values() {
    if role().is_some() {
        let key = SysvName::key(argument("KEY").parse().unwrap()).unwrap();
        let set = SysvSemaphore::open_or_create(&key, &[0, 100], 0o600).unwrap();
        return set.operate_by(&[Operation::new(1, -1)], Deadline::Now).unwrap();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let key = unique_key(3);
    let test = "sysv_semaphore::many_that_create_it_at_once_get_the_same_with_its_values";
    let argument = key.to_string();
    let peers: Vec<_> = (0..8).map(|_| Peer::start(test, "creator", &[("KEY", &argument)])).collect();
    peers.into_iter().for_each(Peer::succeed);
    let set = Set(SysvSemaphore::open(&by_key(key)).unwrap());
    assert_eq!(set.0.values().unwrap(), [0, 92]);
}

/// A set as semget(2) leaves it.
fn without_values(key: i32, count: i32) -> i32 {
    // SAFETY: semget has no preconditions.
    let id = unsafe { libc::semget(key, count, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert!(id >= 0, "{}", std::io::Error::last_os_error());
    id
}

#[test]
fn who_opens_a_new_set_waits_for_its_values() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let key = unique_key(1);
    let id = without_values(key, 2);
    let opening = std::thread::spawn(move || {
        let set = SysvSemaphore::open(&by_key(key)).unwrap();
        let values = set.values().unwrap();
        (set, values)
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!opening.is_finished(), "its creator may be about to set them");
    let mut adding = [1, 0].map(|index| libc::sembuf { sem_num: index, sem_op: 3, sem_flg: 0 });
    // SAFETY: the array has as many operations as the call is told.
    assert_eq!(unsafe { libc::semop(id, adding.as_mut_ptr(), adding.len()) }, 0);
    let (set, values) = opening.join().unwrap();
    assert_eq!(values, [3, 3]);
    drop(Set(set));
}

#[test]
fn a_set_that_nobody_gave_values_is_opened_as_it_is_and_not_taken_for_a_lock() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let key = unique_key(2);
    without_values(key, 1);
    let key = by_key(key);
    let set = Set(SysvSemaphore::open(&key).unwrap());
    let error = SysvSemaphore::open_or_create(&key, &[1], 0o600).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("nobody"), "{error}");
    assert_eq!(SysvSemaphore::open_or_create(&key, &[0], 0o600).unwrap().values().unwrap(), [0]);
    // As sysv_ipc and others do it: a value, and no operation.
    set.0.set_value(0, 1).unwrap();
    assert_eq!(set.0.status().unwrap().last_operation_time_s, 0);
    let mut lock = SysvSemaphore::open_or_create(&key, &[1], 0o600).unwrap();
    let _ = lock.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
}

#[test]
fn a_lock_of_it_is_held_once() {
    let set = Set::new(&[0, 1]);
    let mut lock = by_id(set.0.id());
    let mut other = by_id(set.0.id());
    assert!(matches!(lock.set_index(2).unwrap_err(), Error::Invalid { .. }));
    lock.set_index(1).unwrap();
    other.set_index(1).unwrap();
    assert!(matches!(lock.release().unwrap_err(), Error::Invalid { .. }));
    let error = lock.acquire_by(Mode::Shared, Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let guard = lock.guard_by(Mode::Exclusive, Deadline::Now).unwrap();
    assert!(other.acquire_by(Mode::Exclusive, Deadline::after(MOMENT)).unwrap_err().is_out_of_time());
    drop(guard);
    let _ = other.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
    assert!(matches!(other.acquire_by(Mode::Exclusive, Deadline::Now).unwrap_err(), Error::Invalid { .. }));
    assert!(matches!(other.set_index(0).unwrap_err(), Error::Invalid { .. }));
    other.release().unwrap();
    assert_eq!(set.0.values().unwrap(), [0, 1]);
}

#[test]
fn a_set_that_another_one_removes_meanwhile_is_made_anew() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = by_key(unique_key(20));
    let open = || SysvSemaphore::open_or_create(&name, &[1, 2], 0o600).unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| (0..3000).for_each(|_| drop(open())));
        while !opening.is_finished() {
            let _ = open().remove();
        }
    });
    let _ = open().remove();
}
