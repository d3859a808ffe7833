//! Row 2: the FIFO, and what semantics.md and fifo(7) say of it.

use std::mem::MaybeUninit;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use onecopy::stream::{ByteReader, ByteWriter, fifo};
use onecopy::sync::file_lock::FileLock;
use onecopy::{Deadline, Error};
use rustix::fs::inotify;

use crate::exchange::{
    begin_a_message, notice_the_kill, receive_sizes, runs_out_of_time, send_sizes, write_until_gone,
};
use crate::interrupt::{accept_interrupts, interrupt};
use crate::support::{Peer, Scratch, argument, eventually, role, skip, starting_nobody, watchdog};

const SECONDS: Duration = Duration::from_secs(60);

fn fifo_in(scratch: &Scratch) -> PathBuf {
    let path = scratch.path("fifo");
    fifo::create(&path, 0o600).unwrap();
    path
}

fn start(test: &str, role: &str, path: &std::path::Path) -> Peer {
    Peer::start(test, role, &[("PATH", path.to_str().unwrap())])
}

fn given_path() -> PathBuf {
    argument("PATH").into()
}

/// The deadlines take different ways through open(2), and both sides may come first.
fn patience(role: &str) -> Deadline {
    if role.ends_with("blocking") { Deadline::Never } else { Deadline::after(SECONDS) }
}

#[test]
fn messages_of_all_sizes_between_two_processes() {
    if let Some(role) = role() {
        return send_sizes(fifo::open_writer(&given_path(), patience(&role)).unwrap());
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    for writer in ["blocking", "waiting"] {
        for reader in [Deadline::Never, Deadline::after(SECONDS)] {
            for head_start in [Duration::ZERO, Duration::from_millis(30)] {
                let peer = start("fifo::messages_of_all_sizes_between_two_processes", writer, &path);
                std::thread::sleep(head_start);
                receive_sizes(fifo::open_reader(&path, reader).unwrap());
                peer.succeed();
            }
        }
    }
}

#[test]
fn a_killed_writer_is_noticed_in_the_middle_of_a_message() {
    if role().is_some() {
        return begin_a_message(fifo::open_writer(&given_path(), Deadline::Never).unwrap());
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    let mut peer = start("fifo::a_killed_writer_is_noticed_in_the_middle_of_a_message", "writer", &path);
    notice_the_kill(fifo::open_reader(&path, Deadline::Never).unwrap(), || peer.kill());
}

#[test]
fn a_killed_reader_is_an_error_and_never_a_signal() {
    if role().is_some() {
        let mut reader = fifo::open_reader(&given_path(), Deadline::Never).unwrap();
        reader.read_by(&mut [0; 1], Deadline::Never).unwrap();
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    let mut peer = start("fifo::a_killed_reader_is_an_error_and_never_a_signal", "reader", &path);
    write_until_gone(fifo::open_writer(&path, Deadline::after(SECONDS)).unwrap(), || peer.kill());
}

#[test]
fn a_process_killed_while_it_waits_for_the_other_side_leaves_the_fifo_usable() {
    if let Some(role) = role() {
        let deadline = patience(&role);
        if role.starts_with("reader") {
            fifo::open_reader(&given_path(), deadline).unwrap();
        } else {
            fifo::open_writer(&given_path(), deadline).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    let test = "fifo::a_process_killed_while_it_waits_for_the_other_side_leaves_the_fifo_usable";
    for role in ["reader blocking", "reader waiting", "writer blocking", "writer waiting"] {
        let mut peer = start(test, role, &path);
        std::thread::sleep(Duration::from_millis(30));
        peer.kill();
        let error = fifo::open_writer(&path, Deadline::Now).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "{role}: {error}");
    }
    let writer = std::thread::spawn({
        let path = path.clone();
        move || fifo::open_writer(&path, Deadline::Never).unwrap().write_all_by(b"x", Deadline::Never)
    });
    let mut reader = fifo::open_reader(&path, Deadline::after(SECONDS)).unwrap();
    assert_eq!(reader.read_by(&mut [0; 8], Deadline::Never).unwrap(), 1);
    writer.join().unwrap().unwrap();
}

#[test]
fn opening_without_the_other_side_does_not_wait_longer_than_its_deadline() {
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    let error = fifo::open_writer(&path, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "{error}");
    assert!(matches!(fifo::open_reader(&path, Deadline::Now), Err(Error::WouldBlock { .. })));
    runs_out_of_time(|deadline| fifo::open_writer(&path, deadline));
    runs_out_of_time(|deadline| fifo::open_reader(&path, deadline));
}

#[test]
fn the_end_of_file_comes_when_the_last_writer_leaves_and_not_before_the_first_came() {
    let _watchdog = watchdog(SECONDS);
    let _alone = starting_nobody();
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    let opening = std::thread::spawn({
        let path = path.clone();
        move || fifo::open_reader(&path, Deadline::after(SECONDS))
    });
    // A writer that stays silent is a writer that came.
    let mut first = fifo::open_writer(&path, Deadline::after(SECONDS)).unwrap();
    let mut reader = opening.join().unwrap().unwrap();
    assert!(matches!(reader.read_by(&mut [0; 1], Deadline::Now), Err(Error::WouldBlock { .. })));
    let mut second = fifo::open_writer(&path, Deadline::Now).unwrap();
    first.write_all_by(b"first", Deadline::Never).unwrap();
    drop(first);
    let mut buffer = [0; 16];
    assert_eq!(reader.read_by(&mut buffer, Deadline::Now).unwrap(), 5);
    assert!(reader.read_by(&mut buffer, Deadline::Now).unwrap_err().is_out_of_time(), "one writer is left");
    second.write_all_by(b"second", Deadline::Never).unwrap();
    drop(second);
    assert_eq!(reader.read_by(&mut buffer, Deadline::Now).unwrap(), 6);
    assert_eq!(reader.read_by(&mut buffer, Deadline::Now).unwrap(), 0);
    let mut later = fifo::open_writer(&path, Deadline::Now).unwrap();
    later.write_all_by(b"later", Deadline::Never).unwrap();
    assert_eq!(reader.read_by(&mut buffer, Deadline::Never).unwrap(), 5, "the stream goes on");
}

#[test]
fn a_writer_that_comes_and_goes_while_the_reader_opens_is_not_missed() {
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    for round in 0..50_u8 {
        let writer = std::thread::spawn({
            let path = path.clone();
            move || fifo::open_writer(&path, Deadline::after(SECONDS))?.write_all_by(&[round], Deadline::Never)
        });
        let mut reader = fifo::open_reader(&path, Deadline::after(SECONDS)).unwrap();
        let mut byte = [0];
        assert_eq!(reader.read_by(&mut byte, Deadline::Never).unwrap(), 1, "round {round}");
        assert_eq!(byte, [round]);
        assert_eq!(reader.read_by(&mut byte, Deadline::Never).unwrap(), 0);
        writer.join().unwrap().unwrap();
    }
}

#[test]
fn interrupted_opens_go_on_waiting() {
    if let Some(role) = role() {
        accept_interrupts();
        std::fs::write(given_path().with_extension("ready"), "").unwrap();
        return send_sizes(fifo::open_writer(&given_path(), patience(&role)).unwrap());
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    for role in ["blocking", "waiting"] {
        let peer = start("fifo::interrupted_opens_go_on_waiting", role, &path);
        let ready = path.with_extension("ready");
        eventually("the second process", || ready.exists());
        interrupt(peer.pid());
        receive_sizes(fifo::open_reader(&path, Deadline::Never).unwrap());
        peer.succeed();
        std::fs::remove_file(ready).unwrap();
    }
}

#[test]
fn a_fifo_has_exactly_the_mode_that_was_asked_for() {
    if role().is_some() {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        for mode in [0o666, 0o622, 0o200, 0o000] {
            let path = given_path().with_extension(format!("{mode:o}"));
            fifo::create(&path, mode).unwrap();
            let found = std::fs::metadata(&path).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, mode);
            assert!(found.file_type().is_fifo());
        }
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("fifo");
    // The umask is that of the whole process.
    start("fifo::a_fifo_has_exactly_the_mode_that_was_asked_for", "umask", &path).succeed();
    let error = fifo::create(&path, 0o1666).unwrap_err();
    assert!(error.to_string().contains("1666"), "{error}");
    assert!(!path.exists());
}

#[test]
fn another_handle_of_a_reader_sees_the_end_that_its_writer_left() {
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    let opening = std::thread::spawn({
        let path = path.clone();
        move || fifo::open_writer(&path, Deadline::Never).unwrap()
    });
    let reader = fifo::open_reader(&path, Deadline::Never).unwrap();
    drop(opening.join().unwrap());
    // A process that another test starts has a copy of the writer for a moment.
    reader.wait_readable(Deadline::Never).unwrap();
    let mut other = reader.try_clone().unwrap();
    other.wait_readable(Deadline::Never).unwrap();
    assert_eq!(other.read_by(&mut [0; 1], Deadline::Now).unwrap(), 0);
    let writer = fifo::open_writer(&path, Deadline::Now).unwrap();
    assert!(matches!(other.wait_readable(Deadline::Now), Err(Error::WouldBlock { .. })), "the stream goes on");
    drop(writer);
    other.wait_readable(Deadline::Never).unwrap();
}

/// Whoever opens it in between would be refused.
#[test]
fn a_fifo_and_a_lock_file_never_have_another_mode() {
    let test = "fifo::a_fifo_and_a_lock_file_never_have_another_mode";
    if role().is_some() {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        let seen = inotify::WatchFlags::CREATE | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&watch, given_path(), seen).unwrap();
        fifo::create(&given_path().join("fifo"), 0o666).unwrap();
        FileLock::open_or_create(given_path().join("lock"), 0o666).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        for name in [c"fifo", c"lock"] {
            let event = events.next().unwrap();
            assert_eq!((event.events(), event.file_name()), (inotify::ReadFlags::CREATE, Some(name)));
            let found = std::fs::metadata(given_path().join(name.to_str().unwrap())).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, 0o666);
        }
        assert!(events.next().is_err(), "the mode was changed");
        return;
    }
    let may = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !may || !std::fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:\t0") {
        return skip(test, "unshare(2) is forbidden here, or a filter might");
    }
    start(test, "umask", Scratch::new().root()).succeed();
}

#[test]
fn names_that_are_too_long_are_told_the_limit() {
    let error = fifo::create(&Scratch::new().path(&"n".repeat(256)), 0o600).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    assert!(error.to_string().contains("255 bytes"), "{error}");
}

#[test]
fn creating_is_exclusive_and_removing_takes_fifos_only() {
    let scratch = Scratch::new();
    let path = fifo_in(&scratch);
    let error = fifo::create(&path, 0o600).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    fifo::remove(&path).unwrap();
    assert_eq!(fifo::remove(&path).unwrap_err().raw_os_error(), Some(libc::ENOENT));

    let file = scratch.path("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(fifo::remove(&file), Err(Error::Invalid { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(fifo::create(&file, 0o600).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    let error = fifo::create(&scratch.path("no/fifo"), 0o600).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
}

#[test]
fn what_is_no_fifo_is_refused_by_its_kind() {
    let scratch = Scratch::new();
    let file = scratch.path("file");
    std::fs::write(&file, "").unwrap();
    let error = fifo::open_reader(&file, Deadline::Never).unwrap_err();
    assert!(error.to_string().contains("regular file"), "{error}");
    let error = fifo::open_writer(scratch.root(), Deadline::Never).unwrap_err();
    assert!(error.to_string().contains("directory"), "{error}");
    let error = fifo::open_writer(&scratch.path("nothing"), Deadline::after(SECONDS)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
}
