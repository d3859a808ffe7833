//! Row 18: the POSIX named semaphore, and what sem_overview(7) says of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use onecopy::sync::named_semaphore::NamedSemaphore;
use onecopy::sync::{Lock as _, Mode, Notify as _};
use onecopy::{Deadline, Error, PosixName};

use crate::support::{Peer, argument, eventually, role, unique, watchdog};

const MOMENT: Duration = Duration::from_millis(30);
const VALUE_MAX: u32 = 2_147_483_647;

/// A name that is removed at the end of the test.
pub(crate) struct Name(pub(crate) PosixName);

impl Name {
    pub(crate) fn new() -> Self {
        Self(PosixName::new(format!("/{}", unique("sem"))).unwrap())
    }

    fn file(&self) -> PathBuf {
        format!("/dev/shm/sem.{}", &self.0.to_string()[1..]).into()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = NamedSemaphore::unlink(&self.0);
    }
}

#[test]
fn each_post_lets_one_wait_of_another_process_through() {
    if role().is_some() {
        let semaphore = NamedSemaphore::open(&PosixName::new(argument("NAME")).unwrap()).unwrap();
        println!("\nready");
        for _ in 0..3 {
            semaphore.wait_by(Deadline::Never).unwrap();
        }
        println!("three");
        semaphore.wait_by(Deadline::after(Duration::from_secs(60))).unwrap();
        println!("four");
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = Name::new();
    let mut semaphore = NamedSemaphore::create(&name.0, 1, 0o600).unwrap();
    let test = "named_semaphore::each_post_lets_one_wait_of_another_process_through";
    let mut peer = Peer::start(test, "waiter", &[("NAME", &name.0.to_string())]);
    peer.line("ready");
    semaphore.notify_by(2, Deadline::Now).unwrap();
    peer.line("three");
    assert_eq!(semaphore.value().unwrap(), 0);
    semaphore.post().unwrap();
    peer.line("four");
    peer.succeed();
}

#[test]
fn a_wait_ends_at_its_deadline_and_takes_nothing() {
    let name = Name::new();
    let semaphore = NamedSemaphore::create(&name.0, 0, 0o600).unwrap();
    let error = semaphore.wait_by(Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::WouldBlock { operation: "wait", .. }), "{error}");
    let start = Instant::now();
    let error = semaphore.wait_by(Deadline::after(MOMENT)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= MOMENT, "{error}");
    semaphore.post().unwrap();
    assert_eq!(semaphore.value().unwrap(), 1);
    // What is there is taken, however late.
    semaphore.wait_by(Deadline::At(Instant::now())).unwrap();
}

#[test]
fn it_is_created_once_with_its_value_and_mode() {
    let name = Name::new();
    assert_eq!(NamedSemaphore::open(&name.0).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(NamedSemaphore::unlink(&name.0).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let semaphore = NamedSemaphore::create(&name.0, 7, 0o666).unwrap();
    if cfg!(target_env = "gnu") {
        let found = fs::metadata(name.file()).unwrap();
        assert_eq!((found.permissions().mode() & 0o777, found.len()), (0o666, 32), "glibc's layout, without the umask");
    }
    let error = NamedSemaphore::create(&name.0, 1, 0o600).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    assert_eq!(NamedSemaphore::open_or_create(&name.0, 1, 0o600).unwrap().value().unwrap(), 7);
    NamedSemaphore::unlink(&name.0).unwrap();
    let new = NamedSemaphore::open_or_create(&name.0, 2, 0o600).unwrap();
    assert_eq!((new.value().unwrap(), semaphore.value().unwrap()), (2, 7), "the old one goes on without a name");
}

#[test]
fn it_appears_with_its_mode_and_may_be_unlinked_at_once() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = Name::new();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            for _ in 0..15_000 {
                NamedSemaphore::open_or_create(&name.0, 1, 0o666).unwrap();
            }
        });
        while !opening.is_finished() {
            if let Ok(found) = fs::symlink_metadata(name.file()) {
                assert_eq!(found.permissions().mode() & 0o777, 0o666);
            }
            let _ = NamedSemaphore::unlink(&name.0);
        }
    });
}

#[test]
fn many_that_create_it_at_once_get_the_same() {
    if role().is_some() {
        let semaphore = NamedSemaphore::open_or_create(&PosixName::new(argument("NAME")).unwrap(), 100, 0o600).unwrap();
        return semaphore.wait_by(Deadline::Now).unwrap();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = Name::new();
    let test = "named_semaphore::many_that_create_it_at_once_get_the_same";
    let argument = name.0.to_string();
    let peers: Vec<_> = (0..8).map(|_| Peer::start(test, "creator", &[("NAME", &argument)])).collect();
    peers.into_iter().for_each(Peer::succeed);
    assert_eq!(NamedSemaphore::open(&name.0).unwrap().value().unwrap(), 92);
}

#[test]
fn its_limits_are_errors_with_their_numbers() {
    let name = Name::new();
    let error = NamedSemaphore::create(&name.0, VALUE_MAX + 1, 0o600).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("2147483647"), "{error}");
    let error = NamedSemaphore::create(&name.0, 1, 0o1600).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let mut semaphore = NamedSemaphore::create(&name.0, VALUE_MAX - 1, 0o600).unwrap();
    let error = semaphore.notify_by(2, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EOVERFLOW), "{error}");
    assert_eq!(semaphore.value().unwrap(), VALUE_MAX - 1, "none is posted");
    semaphore.notify_by(1, Deadline::Now).unwrap();
    let error = semaphore.post().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EOVERFLOW), "{error}");
    assert!(error.to_string().contains("2147483647"), "{error}");

    let longest = Name(PosixName::new(format!("/{:0<251}", unique("sem"))).unwrap());
    NamedSemaphore::create(&longest.0, 1, 0o600).unwrap();
    let long = PosixName::new(format!("/{:0<252}", unique("sem"))).unwrap();
    for error in [NamedSemaphore::open(&long).unwrap_err(), NamedSemaphore::unlink(&long).unwrap_err()] {
        assert!(error.to_string().contains("252 bytes") && error.to_string().contains("251"), "{error}");
    }
}

#[test]
fn a_file_that_is_too_short_is_refused_and_does_not_kill() {
    if !cfg!(target_env = "gnu") {
        return;
    }
    let name = Name::new();
    fs::write(name.file(), "no semaphore").unwrap();
    let error = NamedSemaphore::open(&name.0).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("12 bytes"), "{error}");
}

/// glibc calls futex(2) with what it finds in one, and aborts when that is refused.
#[test]
fn a_file_that_holds_something_else_is_refused_and_does_not_abort() {
    if !cfg!(all(target_env = "gnu", target_pointer_width = "64", target_endian = "little")) {
        return;
    }
    for (at, part) in [(3, "2147483648"), (8, "always 0 or 128")] {
        let name = Name::new();
        drop(NamedSemaphore::create(&name.0, 0, 0o600).unwrap());
        let mut bytes = fs::read(name.file()).unwrap();
        bytes[at] ^= 0x80 >> (at / 8);
        fs::write(name.file(), bytes).unwrap();
        let error = NamedSemaphore::open(&name.0).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_lock_of_it_is_held_once() {
    let name = Name::new();
    let mut semaphore = NamedSemaphore::create(&name.0, 1, 0o600).unwrap();
    let mut other = NamedSemaphore::open(&name.0).unwrap();
    assert!(matches!(semaphore.release().unwrap_err(), Error::Invalid { .. }));
    let error = semaphore.acquire_by(Mode::Shared, Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let guard = semaphore.guard_by(Mode::Exclusive, Deadline::Now).unwrap();
    assert!(other.acquire_by(Mode::Exclusive, Deadline::after(MOMENT)).unwrap_err().is_out_of_time());
    drop(guard);
    let _ = other.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
    assert!(matches!(other.acquire_by(Mode::Exclusive, Deadline::Now).unwrap_err(), Error::Invalid { .. }));
    other.release().unwrap();
    assert_eq!(semaphore.value().unwrap(), 1);
}

/// A post wakes one waiter. When that one is killed before it has run, the value stays above 0 and the others sleep: sem_wait
/// would do so for ever.
#[test]
fn a_wake_up_that_died_with_its_waiter_is_found_by_another() {
    let test = "named_semaphore::a_wake_up_that_died_with_its_waiter_is_found_by_another";
    if role().is_some() {
        let semaphore = NamedSemaphore::open(&PosixName::new(argument("NAME")).unwrap()).unwrap();
        println!("\nwaiting");
        return semaphore.wait_by(Deadline::Never).unwrap();
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    let name = Name::new();
    let semaphore = NamedSemaphore::create(&name.0, 0, 0o600).unwrap();
    for _ in 0..10 {
        let mut victim = Peer::start(test, "victim", &[("NAME", &name.0.to_string())]);
        victim.line("waiting");
        let other = NamedSemaphore::open(&name.0).unwrap();
        let waiting = std::thread::spawn(move || other.wait_by(Deadline::Never).unwrap());
        std::thread::sleep(Duration::from_millis(2));
        semaphore.post().unwrap();
        victim.kill();
        if semaphore.value().unwrap() == 1 {
            eventually("the post is taken", || semaphore.value().unwrap() == 0);
        }
        // The victim may have taken it before it died.
        std::thread::sleep(Duration::from_millis(2));
        if !waiting.is_finished() {
            semaphore.post().unwrap();
        }
        waiting.join().unwrap();
        let _ = semaphore.wait_by(Deadline::Now);
    }
}
