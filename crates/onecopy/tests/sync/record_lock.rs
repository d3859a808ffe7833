//! Row 23: record locks of both kinds, and what fcntl(2) says of them.

use std::cell::RefCell;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onecopy::address::{FilePath, FileRange};
use onecopy::open::{BoxedLock, OpenOptions, open_lock};
use onecopy::sync::record_lock::{OfdLock, RecordLock};
use onecopy::sync::{Lock as _, Mode};
use onecopy::{Address, Deadline, Error};

use crate::support::fork::in_child;
use crate::support::{Peer, Scratch, argument, eventually, role, watchdog};

const MOMENT: Duration = Duration::from_millis(30);
const KINDS: [&str; 2] = ["record", "ofd"];

fn range(path: &Path, start: u64, len: u64) -> FileRange {
    FileRange::new(FilePath::new(path).unwrap(), start, len).unwrap()
}

fn traditional(path: &Path, start: u64, len: u64) -> RecordLock {
    RecordLock::open_or_create(&range(path, start, len), 0o600).unwrap()
}

fn ofd(path: &Path, start: u64, len: u64) -> OfdLock {
    OfdLock::open_or_create(&range(path, start, len), 0o600).unwrap()
}

fn by_address(address: &str) -> BoxedLock {
    open_lock(&address.parse::<Address>().unwrap(), &OpenOptions::default()).unwrap()
}

fn take(lock: &mut dyn onecopy::sync::Lock, mode: Mode) {
    let _ = lock.acquire_by(mode, Deadline::Now).unwrap();
}

fn is_taken(lock: &mut dyn onecopy::sync::Lock, mode: Mode) -> bool {
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

/// In the second process: takes the lock of each line that comes, as `ADDRESS MODE`, and holds them all. `wait` waits.
fn hold_what_is_said() {
    let mut held = Vec::new();
    println!("\nready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let mut lock = by_address(words.next().unwrap());
        let mode = if words.next() == Some("shared") { Mode::Shared } else { Mode::Exclusive };
        match lock.acquire_by(mode, if words.next().is_some() { Deadline::Never } else { Deadline::Now }) {
            Ok(_) => println!("held"),
            Err(error) => println!("not held: {error}"),
        }
        held.push(lock);
    }
}

/// Whether process `pid` waits for a lock of the traditional kind (proc_locks(5)).
fn waits_in_the_kernel(pid: u32) -> bool {
    let is_it =
        |line: &str| line.contains("-> POSIX") && line.split_ascii_whitespace().any(|word| word == pid.to_string());
    fs::read_to_string("/proc/locks").unwrap().lines().any(is_it)
}

fn holder(test: &str) -> Peer {
    let mut peer = Peer::start_listening(&format!("record_lock::{test}"), "holder", &[]);
    peer.line("ready");
    peer
}

fn holds(peer: &mut Peer, line: &str) {
    peer.say(line);
    peer.line("held");
}

#[test]
fn ranges_of_two_processes_exclude_each_other_where_they_overlap() {
    if role().is_some() {
        return hold_what_is_said();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    for kind in KINDS {
        let scratch = Scratch::new();
        let path = scratch.path("table");
        let address = |rest: &str| format!("{kind}:{}{rest}", path.display());
        let mut peer = holder("ranges_of_two_processes_exclude_each_other_where_they_overlap");
        holds(&mut peer, &format!("{} exclusive", address("?start=10&len=10")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        holds(&mut peer, &format!("{} shared", address("?start=30&len=1")));
        for (rest, exclusive, shared) in [
            ("?len=10", false, false),
            ("?start=20&len=10", false, false),
            ("?len=11", true, true),
            ("?start=19&len=1", true, true),
            ("?start=29&len=3", true, false),
            ("?start=31", false, false),
            ("?start=20", true, false),
            ("", true, true),
        ] {
            let mut lock = by_address(&address(rest));
            assert_eq!(is_taken(&mut lock, Mode::Exclusive), exclusive, "{kind}{rest}");
            assert_eq!(is_taken(&mut lock, Mode::Shared), shared, "{kind}{rest}");
        }
        // The kinds exclude each other.
        let other = if kind == "ofd" { "record" } else { "ofd" };
        assert!(is_taken(&mut by_address(&format!("{other}:{}?start=15", path.display())), Mode::Shared));
        let mut whole = by_address(&address(""));
        let start = Instant::now();
        let error = whole.acquire_by(Mode::Shared, Deadline::after(MOMENT)).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= MOMENT, "{error}");
        peer.succeed();
        take(&mut whole, Mode::Exclusive);
    }
}

#[test]
fn who_holds_it_is_told_as_far_as_the_kernel_knows() {
    if role().is_some() {
        return hold_what_is_said();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("table");
    let lock = traditional(&path, 0, 0);
    let other = ofd(&path, 0, 0);
    assert_eq!((lock.holder(Mode::Exclusive).unwrap(), other.holder(Mode::Exclusive).unwrap()), (None, None));
    let mut peer = holder("who_holds_it_is_told_as_far_as_the_kernel_knows");
    holds(&mut peer, &format!("record:{}?start=7&len=3 shared", path.display()));
    for found in [lock.holder(Mode::Exclusive).unwrap().unwrap(), other.holder(Mode::Exclusive).unwrap().unwrap()] {
        assert_eq!((found.process, found.mode), (Some(peer.pid()), Mode::Shared));
        assert_eq!((found.start, found.len), (7, 3));
    }
    assert_eq!(lock.holder(Mode::Shared).unwrap(), None, "both may share it");
    peer.kill();
    let mut peer = holder("who_holds_it_is_told_as_far_as_the_kernel_knows");
    holds(&mut peer, &format!("ofd:{}?start=5 exclusive", path.display()));
    let found = lock.holder(Mode::Shared).unwrap().unwrap();
    assert_eq!((found.process, found.mode, found.start, found.len), (None, Mode::Exclusive, 5, 0));
    peer.kill();
    // In one process: the kernel would say nothing of our own.
    let mut own = traditional(&path, 100, 10);
    take(&mut own, Mode::Exclusive);
    let found = lock.holder(Mode::Shared).unwrap().unwrap();
    assert_eq!((found.process, found.start, found.len), (Some(std::process::id()), 100, 10));
    assert_eq!(own.holder(Mode::Exclusive).unwrap(), None, "not itself");
}

/// What other processes see of the locks on a file: an open file description is another holder, too. Nothing is closed until
/// the end, since that would release what this process holds.
struct Others<'a>(&'a Path, RefCell<Vec<OfdLock>>);

impl<'a> Others<'a> {
    fn of(path: &'a Path) -> Self {
        Self(path, RefCell::default())
    }

    fn see(&self, byte: u64) -> Option<Mode> {
        let lock = ofd(self.0, byte, 1);
        let found = lock.holder(Mode::Exclusive).unwrap().map(|holder| holder.mode);
        self.1.borrow_mut().push(lock);
        found
    }
}

#[test]
fn two_of_the_traditional_kind_in_one_process_do_not_release_each_other() {
    let scratch = Scratch::new();
    let path = scratch.path("table");
    let mut first = traditional(&path, 0, 10);
    let mut second = traditional(&path, 5, 10);
    let others = Others::of(&path);
    let seen = |byte| others.see(byte);
    take(&mut first, Mode::Shared);
    take(&mut second, Mode::Shared);
    drop(traditional(&path, 0, 0));
    assert_eq!([0, 7, 14].map(seen), [Some(Mode::Shared); 3], "an open and a drop release nothing");
    first.release().unwrap();
    assert_eq!([0, 4].map(seen), [None; 2]);
    assert_eq!([5, 9, 14].map(seen), [Some(Mode::Shared); 3], "the other one holds that too");
    take(&mut first, Mode::Shared);
    drop(second);
    assert_eq!([0, 9].map(seen), [Some(Mode::Shared); 2]);
    assert_eq!(seen(10), None);
    drop(first);
    assert_eq!(seen(0), None);
}

#[test]
fn two_of_the_traditional_kind_in_one_process_exclude_each_other() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("table");
    let mut first = traditional(&path, 0, 10);
    let mut second = traditional(&path, 9, 1);
    let mut beside = traditional(&path, 10, 0);
    take(&mut first, Mode::Exclusive);
    take(&mut beside, Mode::Exclusive);
    assert!(is_taken(&mut second, Mode::Shared));
    assert!(second.acquire_by(Mode::Exclusive, Deadline::after(MOMENT)).unwrap_err().is_out_of_time());
    let waiting = std::thread::spawn(move || {
        let _ = second.acquire_by(Mode::Exclusive, Deadline::Never).unwrap();
        second
    });
    std::thread::sleep(MOMENT);
    assert!(!waiting.is_finished());
    first.release().unwrap();
    let second = waiting.join().unwrap();
    assert_eq!(second.held(), Some(Mode::Exclusive));
    assert_eq!(Others::of(&path).see(0), None);
    assert!(is_taken(&mut first, Mode::Shared));
}

/// Many threads of two processes take and release ranges that overlap; each writes what nobody else may change meanwhile.
#[test]
fn threads_and_processes_never_overlap() {
    let test = "record_lock::threads_and_processes_never_overlap";
    if role().is_some() {
        return change_and_look(Path::new(&argument("PATH")), 100);
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    let scratch = Scratch::new();
    let path = scratch.path("table");
    fs::write(&path, [0; 64]).unwrap();
    let peers: Vec<_> = (0..2).map(|_| Peer::start(test, "other", &[("PATH", path.to_str().unwrap())])).collect();
    peers.into_iter().for_each(Peer::succeed);
}

fn change_and_look(path: &Path, rounds: usize) {
    use std::os::unix::fs::FileExt as _;
    // One descriptor that stays open: to close one would release everything.
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let file = &file;
            scope.spawn(move || {
                for round in 0..rounds {
                    let start = (round as u64 * 7 + thread * 3) % 48;
                    let mut lock = traditional(path, start, 16);
                    match lock.acquire_by(Mode::Exclusive, Deadline::Never) {
                        // Two threads of one process and two of the other look like a cycle to the kernel.
                        Err(error) if error.raw_os_error() == Some(libc::EDEADLK) => {
                            let _ = lock.acquire_by(Mode::Exclusive, Deadline::after(MOMENT * 2000)).unwrap();
                        }
                        result => drop(result.unwrap()),
                    }
                    let mark = [(u64::from(std::process::id()) * 4 + thread) as u8; 16];
                    file.write_at(&mark, start).unwrap();
                    std::thread::yield_now();
                    let mut found = [0; 16];
                    file.read_at(&mut found, start).unwrap();
                    assert_eq!(found, mark, "thread {thread}, round {round}");
                    lock.release().unwrap();
                }
            });
        }
    });
}

#[test]
fn a_foreign_close_releases_the_traditional_kind_and_not_the_other() {
    let scratch = Scratch::new();
    let path = scratch.path("table");
    let (mut record, mut description) = (traditional(&path, 0, 1), ofd(&path, 1, 1));
    take(&mut record, Mode::Exclusive);
    take(&mut description, Mode::Exclusive);
    let others = Others::of(&path);
    assert_eq!([0, 1].map(|byte| others.see(byte)), [Some(Mode::Exclusive); 2]);
    fs::read(&path).unwrap();
    assert_eq!([0, 1].map(|byte| others.see(byte)), [None, Some(Mode::Exclusive)]);
}

#[test]
fn a_cycle_of_waits_is_edeadlk_with_the_traditional_kind() {
    if role().is_some() {
        return hold_what_is_said();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("table");
    let (mut first, mut second) = (traditional(&path, 0, 1), traditional(&path, 1, 1));
    take(&mut first, Mode::Exclusive);
    let mut peer = holder("a_cycle_of_waits_is_edeadlk_with_the_traditional_kind");
    holds(&mut peer, &format!("record:{}?start=1&len=1 exclusive", path.display()));
    peer.say(&format!("record:{}?len=1 exclusive wait", path.display()));
    eventually("the other process waits", || waits_in_the_kernel(peer.pid()));
    let error = second.acquire_by(Mode::Exclusive, Deadline::Never).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EDEADLK), "{error}");
    assert!(error.to_string().contains("release"), "{error}");
    assert_eq!((first.held(), second.held()), (Some(Mode::Exclusive), None));
    // By a deadline there is no such look.
    assert!(second.acquire_by(Mode::Exclusive, Deadline::after(MOMENT)).unwrap_err().is_out_of_time());
    first.release().unwrap();
    peer.line("held");
    peer.succeed();
    take(&mut second, Mode::Exclusive);
}

#[test]
fn two_of_one_process_that_both_convert_is_edeadlk() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("table");
    let locks = [traditional(&path, 0, 10), traditional(&path, 5, 10)].map(|mut lock| {
        take(&mut lock, Mode::Shared);
        lock
    });
    let converting = locks.map(|mut lock| {
        std::thread::spawn(move || {
            let Err(error) = lock.convert_by(Mode::Exclusive, Deadline::Never) else {
                assert_eq!(lock.held(), Some(Mode::Exclusive));
                return true;
            };
            assert_eq!(error.raw_os_error(), Some(libc::EDEADLK), "{error}");
            assert_eq!(lock.held(), Some(Mode::Shared), "as before");
            lock.release().unwrap();
            false
        })
    });
    let mut converted = converting.map(|thread| thread.join().unwrap());
    converted.sort_unstable();
    assert_eq!(converted, [false, true], "the second of them was refused, and the first got it");
}

#[test]
fn a_conversion_that_fails_keeps_the_lock() {
    let scratch = Scratch::new();
    let path = scratch.path("table");
    let (mut record, mut description) = (traditional(&path, 0, 9), ofd(&path, 0, 9));
    assert!(matches!(record.convert_by(Mode::Shared, Deadline::Now).unwrap_err(), Error::Invalid { .. }));
    assert!(matches!(description.convert_by(Mode::Shared, Deadline::Now).unwrap_err(), Error::Invalid { .. }));
    take(&mut record, Mode::Shared);
    take(&mut description, Mode::Shared);
    assert!(record.convert_by(Mode::Exclusive, Deadline::after(MOMENT)).unwrap_err().is_out_of_time());
    assert!(description.convert_by(Mode::Exclusive, Deadline::Now).unwrap_err().is_out_of_time());
    assert_eq!((record.held(), description.held()), (Some(Mode::Shared), Some(Mode::Shared)));
    description.release().unwrap();
    record.convert_by(Mode::Exclusive, Deadline::Never).unwrap();
    assert!(is_taken(&mut description, Mode::Shared));
    record.convert_by(Mode::Shared, Deadline::Now).unwrap();
    take(&mut description, Mode::Shared);
    record.release().unwrap();
    description.convert_by(Mode::Exclusive, Deadline::Never).unwrap();
    assert!(is_taken(&mut record, Mode::Shared));
}

#[test]
fn a_value_holds_it_once_and_a_right_to_write_is_asked_for() {
    let scratch = Scratch::new();
    for kind in KINDS {
        let mut lock = by_address(&format!("{kind}:{}", scratch.path("table").display()));
        assert!(matches!(lock.release().unwrap_err(), Error::Invalid { .. }));
        take(&mut lock, Mode::Shared);
        let error = lock.acquire_by(Mode::Shared, Deadline::Now).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        lock.release().unwrap();
        // A directory is never open for writing.
        let mut lock = by_address(&format!("{kind}:{}", scratch.root().display()));
        let error = lock.acquire_by(Mode::Exclusive, Deadline::Now).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
        assert!(error.to_string().contains("right to write"), "{error}");
        take(&mut lock, Mode::Shared);
    }
    for error in [
        RecordLock::open(&range(&scratch.path("none"), 0, 0)).unwrap_err(),
        OfdLock::open(&range(&scratch.path("none"), 0, 0)).unwrap_err(),
    ] {
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    }
    assert!(RecordLock::open_or_create(&range(&scratch.path("x"), 0, 0), 0o4600).is_err());
    // The last byte that can be locked.
    let mut last = traditional(&scratch.path("table"), i64::MAX as u64, 1);
    take(&mut last, Mode::Exclusive);
}

#[test]
fn a_child_that_inherits_the_descriptor_holds_the_lock_of_its_description() {
    if role().is_some() {
        println!("\nhere");
        return std::thread::sleep(Duration::from_secs(60));
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("table");
    let (mut ours, mut other) = (ofd(&path, 0, 0), ofd(&path, 0, 0));
    take(&mut ours, Mode::Exclusive);
    let descriptor = ours.as_fd().try_clone_to_owned().unwrap();
    let test = "record_lock::a_child_that_inherits_the_descriptor_holds_the_lock_of_its_description";
    let mut peer = Peer::configure(test, "child", &[], |command| {
        command.stdin(descriptor);
    });
    peer.line("here");
    drop(ours);
    assert!(is_taken(&mut other, Mode::Shared));
    peer.kill();
    take(&mut other, Mode::Exclusive);
}

/// In the child of a process whose other threads open and close locks: its own lock outlives its copy of another one.
fn lock_beside_a_copy(path: &Path, copy: &mut Option<RecordLock>) -> bool {
    let mut own = traditional(path, 20, 10);
    take(&mut own, Mode::Exclusive);
    copy.iter_mut().for_each(|copy| take(copy, Mode::Shared));
    drop(copy.take());
    // The kernel has it still; what this opens and closes releases it.
    own.held().is_some() && is_taken(&mut ofd(path, 20, 10), Mode::Exclusive)
}

/// Ends the threads of a test, however that ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_child_does_not_wait_for_a_thread_that_it_lacks() {
    if role().is_some() {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        let mut kept = Some(traditional(&path, 0, 10));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let _ = traditional(&path, 50, 10).acquire_by(Mode::Shared, Deadline::Now);
                    }
                });
            }
            (0..200).for_each(|_| in_child(|| lock_beside_a_copy(&path, &mut kept)));
        });
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(90));
    Peer::start("record_lock::a_child_does_not_wait_for_a_thread_that_it_lacks", "parent", &[]).succeed();
}
