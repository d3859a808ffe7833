//! Row 14: shared mappings of files, and what mmap(2) and msync(2) say of them.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onecopy::memory::file_mapping::FileMapping;
use onecopy::{Deadline, Error};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Peer, Scratch, pattern, role, unique, watchdog};
use crate::{contents, limit_mappings, mapped_at, park, rounds, tell, told, unprivileged, wait_for_line};

const LEN: usize = 100_000;

fn peer(test: &str, path: &Path, address: &str) -> Peer {
    let arguments = [("path", path.to_str().unwrap()), ("address", address)];
    Peer::start(&format!("file_mapping::{test}"), "peer", &arguments)
}

fn told_path() -> PathBuf {
    PathBuf::from(told("path"))
}

fn refused(path: &Path) -> String {
    FileMapping::open(path).unwrap_err().to_string()
}

#[test]
fn two_processes_share_it_at_different_addresses() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        // Without randomised addresses both processes would map at the same place: take that place first.
        let _first = FileMapping::open(&told_path()).unwrap();
        let ours = FileMapping::open(&told_path()).unwrap();
        let at = mapped_at(&told("path"));
        assert!(at.iter().any(|address| *address != told("address")), "{at:?}");
        assert_eq!(contents(ours.region()), pattern(LEN, 1));
        ours.region().write_at(LEN - 6, b"answer").unwrap();
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("shared file");
    let ours = FileMapping::create(&path, LEN, 0o600).unwrap();
    ours.region().write_at(0, &pattern(LEN, 1)).unwrap();
    let address = mapped_at(path.to_str().unwrap()).remove(0);
    peer("two_processes_share_it_at_different_addresses", &path, &address).succeed();
    assert!(contents(ours.region()).ends_with(b"answer"));
    assert!(std::fs::read(&path).unwrap().ends_with(b"answer"));
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"by write(2)", 0).unwrap();
    assert!(contents(ours.region()).starts_with(b"by write(2)"));
}

#[test]
fn a_killed_process_leaves_the_file_and_its_bytes() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        let ours = FileMapping::create(&told_path(), LEN, 0o600).unwrap();
        ours.region().write_at(0, &pattern(LEN, 2)).unwrap();
        tell("written");
        let other = told_path().with_extension("other");
        loop {
            FileMapping::create(&other, LEN, 0o600).unwrap();
            FileMapping::remove(&other).unwrap();
        }
    }
    let scratch = Scratch::new();
    let path = scratch.path("killed");
    let mut peer = peer("a_killed_process_leaves_the_file_and_its_bytes", &path, "");
    wait_for_line(&mut peer, "written");
    std::thread::sleep(Duration::from_millis(20));
    peer.kill();
    assert_eq!(contents(FileMapping::open(&path).unwrap().region()), pattern(LEN, 2));
    for entry in std::fs::read_dir(scratch.root()).unwrap().flatten() {
        assert!(entry.file_name() == "killed" || entry.file_name() == "killed.other", "{entry:?}");
        assert_eq!(entry.metadata().unwrap().len(), LEN as u64, "killed in the middle, it is whole or not there");
    }
}

#[test]
fn creation_is_exclusive_and_a_missing_file_is_named() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let missing = FileMapping::open(&path).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(2), "ENOENT: {missing}");
    assert!(missing.to_string().contains(&format!("mmap:{}", path.display())), "{missing}");
    assert_eq!(FileMapping::remove(&path).unwrap_err().raw_os_error(), Some(2), "ENOENT");
    let lost = FileMapping::create(&scratch.path("no/directory"), LEN, 0o600).unwrap_err();
    assert_eq!(lost.raw_os_error(), Some(2), "ENOENT: {lost}");

    let ours = FileMapping::create(&path, LEN, 0o600).unwrap();
    ours.region().write_at(0, b"first").unwrap();
    assert_eq!(FileMapping::create(&path, LEN, 0o600).unwrap_err().raw_os_error(), Some(17), "EEXIST");
    assert!(contents(FileMapping::open(&path).unwrap().region()).starts_with(b"first"));
    let error = FileMapping::open_or_create(&path, LEN + 1, 0o600).unwrap_err().to_string();
    assert!(error.contains("has 100000 bytes, and 100001 were asked for"), "{error}");
    assert_eq!(FileMapping::open_or_create(&path, 1, 0o600).unwrap().region().len(), LEN);
    FileMapping::remove(&path).unwrap();
    assert!(contents(ours.region()).starts_with(b"first"), "what is mapped stays");
    assert_eq!(FileMapping::open_or_create(&path, 1, 0o600).unwrap().region().len(), 1);
}

#[test]
fn what_is_no_regular_file_is_refused_by_its_kind() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    assert!(refused(scratch.root()).contains("a directory and no regular file"), "{}", refused(scratch.root()));
    let fifo = scratch.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::from_raw_mode(0o600)).unwrap();
    assert!(refused(&fifo).contains("a FIFO and no regular file"), "{}", refused(&fifo));
    let error = FileMapping::open_read_only(&fifo).unwrap_err().to_string();
    assert!(error.contains("a FIFO and no regular file"), "{error}");
    let socket = scratch.path("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(refused(&socket).contains("a socket and no regular file"), "{}", refused(&socket));
    assert!(refused(Path::new("/dev/null")).contains("a device and no regular file"));
    assert!(refused(Path::new("")).contains("empty"), "{}", refused(Path::new("")));
    std::os::unix::fs::symlink(scratch.path("target"), scratch.path("link")).unwrap();
    FileMapping::create(&scratch.path("target"), LEN, 0o600).unwrap();
    assert_eq!(FileMapping::open(&scratch.path("link")).unwrap().region().len(), LEN, "links are followed");
}

#[test]
fn flushing_reaches_the_disk_by_ranges_within_the_region() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let ours = FileMapping::create(&path, LEN, 0o600).unwrap();
    ours.region().write_at(0, &pattern(LEN, 3)).unwrap();
    ours.flush().unwrap();
    for (offset, len) in [(0, 0), (0, 1), (4095, 2), (LEN - 1, 1), (LEN, 0), (5000, LEN - 5000)] {
        ours.flush_range(offset, len).unwrap();
    }
    let error = ours.flush_range(LEN - 1, 2).unwrap_err().to_string();
    assert!(error.contains("flush of 2 bytes at offset 99999 reaches beyond its 100000 bytes"), "{error}");
    assert!(ours.flush_range(usize::MAX, 2).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), pattern(LEN, 3));
    OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    ours.flush().unwrap();
}

#[test]
fn a_file_shortened_by_somebody_else_is_an_error_with_the_numbers() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        OpenOptions::new().write(true).open(told_path()).unwrap().set_len(10_000).unwrap();
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let ours = FileMapping::create(&path, LEN, 0o600).unwrap();
    ours.region().write_at(0, &pattern(LEN, 4)).unwrap();
    peer("a_file_shortened_by_somebody_else_is_an_error_with_the_numbers", &path, "").succeed();
    let mut buffer = vec![0; 10_000];
    ours.region().read_at(0, &mut buffer).unwrap();
    assert_eq!(buffer, pattern(LEN, 4)[..10_000]);
    for offset in [1, 9_999, 10_000, 90_000] {
        let error = ours.region().read_at(offset, &mut buffer).unwrap_err();
        assert!(matches!(error, Error::Shortened { mapped_bytes: LEN, current_bytes: 10_000, .. }), "{error}");
        let numbers = format!("read of 10000 bytes at offset {offset} of mmap:");
        assert!(error.to_string().starts_with(&numbers), "{error}");
        let error = ours.region().write_at(offset, &buffer).unwrap_err();
        assert!(matches!(error, Error::Shortened { operation: "write", range_bytes: 10_000, .. }), "{error}");
    }
    assert_eq!(ours.current_len().unwrap(), 10_000, "no write made it long again");
    ours.region().read_at(LEN, &mut []).unwrap();
}

#[test]
fn a_peer_that_shortens_it_all_the_time_never_ends_us() {
    let _watchdog = watchdog(Duration::from_secs(300));
    if role().is_some() {
        let file = OpenOptions::new().write(true).open(told_path()).unwrap();
        tell("running");
        for step in 0_u64.. {
            file.set_len(step * 37 % LEN as u64).unwrap();
            if step % 4 == 0 {
                file.set_len(LEN as u64).unwrap();
            }
        }
        park();
    }
    let scratch = Scratch::new();
    let path = scratch.path("attacked");
    let ours = FileMapping::create(&path, LEN, 0o600).unwrap();
    let mut attacker = peer("a_peer_that_shortens_it_all_the_time_never_ends_us", &path, "");
    wait_for_line(&mut attacker, "running");
    crate::copy_against_an_attacker(ours.region(), rounds());
    attacker.kill();
}

#[test]
fn it_grows_and_the_others_follow() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let mut ours = FileMapping::create(&path, LEN, 0o600).unwrap();
    let mut theirs = FileMapping::open(&path).unwrap();
    ours.grow(3 * LEN).unwrap();
    ours.region().write_at(3 * LEN - 3, b"end").unwrap();
    assert_eq!((theirs.region().len(), theirs.current_len().unwrap()), (LEN, 3 * LEN));
    assert_eq!(theirs.refresh().unwrap(), 3 * LEN);
    assert!(contents(theirs.region()).ends_with(b"end"));
    let error = theirs.grow(1).unwrap_err().to_string();
    assert!(error.contains("300000 bytes are mapped, and 1 were asked for"), "{error}");
}

#[test]
fn the_mode_is_exact_and_a_right_to_read_is_enough_to_read() {
    if role().is_some() {
        rustix::process::umask(Mode::from_raw_mode(0o077));
        let ours = FileMapping::create(&told_path(), LEN, 0o444).unwrap();
        ours.region().write_at(0, b"x").unwrap();
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("file");
    peer("the_mode_is_exact_and_a_right_to_read_is_enough_to_read", &path, "").succeed();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o444);
    std::fs::set_permissions(scratch.root(), PermissionsExt::from_mode(0o755)).unwrap();
    unprivileged(|| {
        let refused = FileMapping::open(&path).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(13), "EACCES: {refused}");
        assert!(refused.to_string().contains("with mode 444; this process is user"), "{refused}");
        let theirs = FileMapping::open_read_only(&path).unwrap();
        assert!(contents(theirs.region()).starts_with(b"x"));
        assert!(theirs.region().write_at(0, b"y").is_err());
        theirs.flush().unwrap();
    });
}

#[test]
fn a_limit_on_the_length_of_files_is_an_error_and_no_signal() {
    if role().is_some() {
        let limit = Rlimit { current: Some(50_000), ..getrlimit(Resource::Fsize) };
        setrlimit(Resource::Fsize, limit).unwrap();
        let error = FileMapping::create(&told_path(), LEN, 0o600).unwrap_err().to_string();
        assert!(error.contains("100000 bytes are more than the 50000"), "{error}");
        assert!(error.contains("ulimit -f"), "{error}");
        assert!(!told_path().exists());
        let mut ours = FileMapping::create(&told_path(), 50_000, 0o600).unwrap();
        assert!(ours.grow(LEN).is_err());
        assert_eq!(ours.current_len().unwrap(), 50_000);
        return;
    }
    let scratch = Scratch::new();
    peer("a_limit_on_the_length_of_files_is_an_error_and_no_signal", &scratch.path("file"), "").succeed();
}

/// On a tmpfs, which refuses at once: another file system could take all that is free first, if our own check were broken.
#[test]
fn what_cannot_be_mapped_is_not_left_behind() {
    if role().is_some() {
        limit_mappings();
        let error = FileMapping::create(&told_path(), 16 << 20, 0o600).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
        return;
    }
    let scratch = Scratch::new();
    peer("what_cannot_be_mapped_is_not_left_behind", &scratch.path("file"), "").succeed();
    assert!(!scratch.path("file").exists());
}

#[test]
fn room_that_the_file_system_does_not_have_is_refused_with_the_free_bytes() {
    let path = Path::new("/dev/shm").join(unique("no-room"));
    let disk = rustix::fs::statvfs("/dev/shm").unwrap();
    let len = usize::try_from(disk.f_blocks * disk.f_frsize).unwrap() + 4096;
    let error = FileMapping::create(&path, len, 0o600).unwrap_err();
    assert!(!path.exists(), "a failed creation leaves nothing");
    assert_eq!(error.raw_os_error(), Some(28), "ENOSPC: {error}");
    assert!(error.to_string().contains(&format!("{len} bytes were asked for, and ")), "{error}");
    assert!(error.to_string().contains("bytes are free"), "{error}");
    let error = FileMapping::create(&path, 0, 0o600).unwrap_err().to_string();
    assert!(error.contains("length 0"), "{error}");
}

#[test]
fn opening_waits_for_the_creator_until_its_deadline() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let start = Instant::now();
    let error = FileMapping::open_by(&path, Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(error.is_out_of_time() && start.elapsed() >= Duration::from_millis(50), "{error}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            FileMapping::create(&path, LEN, 0o600).unwrap();
        });
        assert_eq!(FileMapping::open_read_only_by(&path, Deadline::Never).unwrap().region().len(), LEN);
    });
}
