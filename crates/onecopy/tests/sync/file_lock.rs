//! Row 24: the file lock, and what flock(2) says of it.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use onecopy::sync::file_lock::FileLock;
use onecopy::sync::{Lock as _, Mode};
use onecopy::{Deadline, Error};

use crate::support::{Peer, Scratch, argument, eventually, role, watchdog};

const MOMENT: Duration = Duration::from_millis(30);

fn is_taken(lock: &mut FileLock, mode: Mode) -> bool {
    match lock.acquire_by(mode, Deadline::Now) {
        Ok(_) => {
            lock.release().unwrap();
            false
        }
        Err(error) => {
            assert!(matches!(error, Error::WouldBlock { operation: "lock", .. }), "{error}");
            true
        }
    }
}

#[test]
fn one_holds_it_exclusively_or_several_share_it() {
    if role().is_some() {
        let mut lock = FileLock::open(argument("PATH")).unwrap();
        for (mode, word) in [(Mode::Exclusive, "exclusive"), (Mode::Shared, "shared")] {
            let _ = lock.acquire_by(mode, Deadline::Never).unwrap();
            println!("\n{word}");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            lock.release().unwrap();
            println!("released");
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    let mut lock = FileLock::open_or_create(&path, 0o640).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let test = "file_lock::one_holds_it_exclusively_or_several_share_it";
    let mut peer = Peer::start_listening(test, "holder", &[("PATH", path.to_str().unwrap())]);
    peer.line("exclusive");
    assert!(is_taken(&mut lock, Mode::Exclusive) && is_taken(&mut lock, Mode::Shared));
    let start = Instant::now();
    let error = lock.acquire_by(Mode::Shared, Deadline::after(MOMENT)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= MOMENT, "{error}");
    assert!(error.to_string().contains("flock:/"), "{error}");
    peer.say("release");
    peer.line("released");
    peer.line("shared");
    assert!(is_taken(&mut lock, Mode::Exclusive) && !is_taken(&mut lock, Mode::Shared));
    let guard = lock.guard_by(Mode::Shared, Deadline::Never).unwrap();
    peer.say("release");
    peer.line("released");
    peer.succeed();
    drop(guard);
    let _ = lock.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
}

#[test]
fn a_value_holds_it_once() {
    let scratch = Scratch::new();
    let mut lock = FileLock::open_or_create(scratch.path("lock"), 0o600).unwrap();
    assert!(matches!(lock.release().unwrap_err(), Error::Invalid { .. }));
    assert!(matches!(lock.convert_by(Mode::Shared, Deadline::Now).unwrap_err(), Error::Invalid { .. }));
    let _ = lock.acquire_by(Mode::Shared, Deadline::Now).unwrap();
    for mode in [Mode::Shared, Mode::Exclusive] {
        let error = lock.acquire_by(mode, Deadline::Now).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    assert_eq!(lock.held(), Some(Mode::Shared));
    lock.release().unwrap();
    assert_eq!(lock.held(), None);
}

#[test]
fn a_conversion_that_fails_loses_the_lock() {
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    let mut first = FileLock::open_or_create(&path, 0o600).unwrap();
    let mut second = FileLock::open(&path).unwrap();
    let _ = first.acquire_by(Mode::Shared, Deadline::Now).unwrap();
    let _ = second.acquire_by(Mode::Shared, Deadline::Now).unwrap();
    assert!(first.convert_by(Mode::Exclusive, Deadline::Now).unwrap_err().is_out_of_time());
    assert_eq!(first.held(), None);
    // So the second one, which is alone now, can.
    second.convert_by(Mode::Exclusive, Deadline::after(MOMENT)).unwrap();
    second.convert_by(Mode::Exclusive, Deadline::Now).unwrap();
    assert!(is_taken(&mut first, Mode::Shared));
    second.convert_by(Mode::Shared, Deadline::Now).unwrap();
    assert_eq!(second.held(), Some(Mode::Shared));
    let _ = first.acquire_by(Mode::Shared, Deadline::Now).unwrap();
}

#[test]
fn a_child_that_inherits_the_descriptor_holds_the_lock_too() {
    if role().is_some() {
        let mut lock = FileLock::from_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap(), "fd:0");
        println!("\nhere");
        let told = argument("TOLD");
        eventually("the other process has looked", || Path::new(&told).exists());
        // It is held by the description already, so this does not wait; the release is one for all.
        let _ = lock.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
        lock.release().unwrap();
        println!("released");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    let mut ours = FileLock::open_or_create(&path, 0o600).unwrap();
    let mut other = FileLock::open(&path).unwrap();
    let _ = ours.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
    let descriptor = ours.as_fd().try_clone_to_owned().unwrap();
    let test = "file_lock::a_child_that_inherits_the_descriptor_holds_the_lock_too";
    let told = scratch.path("told");
    let mut peer = Peer::configure(test, "child", &[("TOLD", told.to_str().unwrap())], |command| {
        command.stdin(descriptor);
    });
    peer.line("here");
    drop(ours);
    assert!(is_taken(&mut other, Mode::Shared), "the child keeps it");
    fs::write(told, "").unwrap();
    let _ = other.acquire_by(Mode::Exclusive, Deadline::Never).unwrap();
    peer.line("released");
    peer.kill();
}

#[test]
fn a_lock_on_a_removed_file_excludes_nobody_so_the_new_file_is_locked() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    let mut old = FileLock::open_or_create(&path, 0o600).unwrap();
    let _ = old.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
    let mut waiter = FileLock::open_or_create(&path, 0o600).unwrap();
    let mut strict = FileLock::open(&path).unwrap();
    let waiting = std::thread::spawn(move || {
        let error = waiter.acquire_by(Mode::Exclusive, Deadline::after(Duration::from_secs(1))).unwrap_err();
        assert!(error.is_out_of_time(), "the new file is taken: {error}");
        waiter
    });
    std::thread::sleep(MOMENT);
    fs::remove_file(&path).unwrap();
    let mut new = FileLock::open_or_create(&path, 0o600).unwrap();
    let _ = new.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
    old.release().unwrap();
    let mut waiter = waiting.join().unwrap();
    new.release().unwrap();
    let _ = waiter.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
    assert!(is_taken(&mut new, Mode::Shared));
    fs::remove_file(&path).unwrap();
    let error = strict.acquire_by(Mode::Shared, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    waiter.release().unwrap();
    let _ = new.acquire_by(Mode::Shared, Deadline::Now).unwrap();
    assert!(path.exists(), "made anew");
}

#[test]
fn an_acquisition_that_fails_keeps_no_lock() {
    let scratch = Scratch::new();
    let (path, aside) = (scratch.path("lock"), scratch.path("aside"));
    let mut first = FileLock::open_or_create(&path, 0o600).unwrap();
    let mut second = FileLock::open(&path).unwrap();
    // It takes the lock, finds that the path names nothing, and may not make anything there.
    fs::rename(&path, &aside).unwrap();
    let error = second.acquire_by(Mode::Exclusive, Deadline::Now).unwrap_err();
    assert_eq!((error.raw_os_error(), second.held()), (Some(libc::ENOENT), None), "{error}");
    fs::rename(&aside, &path).unwrap();
    let _ = first.acquire_by(Mode::Exclusive, Deadline::Now).unwrap();
}

#[test]
fn a_conversion_goes_on_with_the_new_file_too() {
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    let mut old = FileLock::open_or_create(&path, 0o600).unwrap();
    let _ = old.acquire_by(Mode::Shared, Deadline::Now).unwrap();
    fs::remove_file(&path).unwrap();
    old.convert_by(Mode::Exclusive, Deadline::Now).unwrap();
    assert!(path.exists(), "made anew");
    let mut new = FileLock::open(&path).unwrap();
    assert!(is_taken(&mut new, Mode::Shared));
    old.release().unwrap();
    // Where it may not be made anew, nothing is held any more.
    let _ = new.acquire_by(Mode::Shared, Deadline::Now).unwrap();
    let aside = scratch.path("aside");
    fs::rename(&path, &aside).unwrap();
    let error = new.convert_by(Mode::Exclusive, Deadline::Now).unwrap_err();
    assert_eq!((error.raw_os_error(), new.held()), (Some(libc::ENOENT), None), "{error}");
    let mut there = FileLock::open(&aside).unwrap();
    assert!(!is_taken(&mut there, Mode::Exclusive));
}

#[test]
fn what_cannot_be_opened_is_an_error_and_what_can_be_is_locked() {
    let scratch = Scratch::new();
    let error = FileLock::open(scratch.path("none")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    assert!(FileLock::open_or_create(scratch.path("no/directory"), 0o600).is_err());
    let error = FileLock::open_or_create(scratch.path("lock"), 0o4600).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    symlink(scratch.path("nowhere"), scratch.path("dangling")).unwrap();
    let error = FileLock::open_or_create(scratch.path("dangling"), 0o600).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    // A directory, and a file that may only be written.
    fs::write(scratch.path("write-only"), "").unwrap();
    fs::set_permissions(scratch.path("write-only"), fs::Permissions::from_mode(0o200)).unwrap();
    for path in [scratch.root().to_owned(), scratch.path("write-only")] {
        let mut lock = FileLock::open(&path).unwrap();
        assert!(!is_taken(&mut lock, Mode::Exclusive), "{path:?}");
    }
}
