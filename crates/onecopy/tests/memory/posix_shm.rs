//! Row 12: POSIX shared memory, and what shm_overview(7) says of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use onecopy::memory::posix_shm::PosixShm;
use onecopy::{Deadline, Error, PosixName};
use rustix::fs::Mode;

use crate::support::{Peer, pattern, role, unique, watchdog};
use crate::{contents, limit_mappings, mapped_at, park, rounds, tell, told, unprivileged, wait_for_line};

const LEN: usize = 100_000;

/// A name that is removed at the end of the test, whatever became of it.
struct Named(PosixName);

impl Named {
    fn new(stem: &str) -> Self {
        Self(PosixName::new(format!("/{}", unique(stem))).unwrap())
    }

    /// The file behind the name, as every other program sees it.
    fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(self.text().trim_start_matches('/'))
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

fn told_name() -> PosixName {
    PosixName::new(told("name")).unwrap()
}

fn peer(test: &str, role: &str, named: &Named) -> Peer {
    Peer::start(&format!("posix_shm::{test}"), role, &[("name", &named.text())])
}

fn shorten(named: &Named, len: u64) {
    OpenOptions::new().write(true).open(named.path()).unwrap().set_len(len).unwrap();
}

#[test]
fn two_processes_share_it_at_different_addresses() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        // Without randomised addresses both processes would map at the same place: take that place first.
        let _first = PosixShm::open(&told_name()).unwrap();
        let ours = PosixShm::open(&told_name()).unwrap();
        let at: Vec<String> = mapped_at(&told("name"));
        assert!(at.iter().any(|address| *address != told("address")), "{at:?}");
        assert_eq!(contents(ours.region()), pattern(LEN, 1));
        ours.region().write_at(LEN - 6, b"answer").unwrap();
        return;
    }
    let named = Named::new("share");
    let ours = PosixShm::create(&named.0, LEN, 0o600).unwrap();
    ours.region().write_at(0, &pattern(LEN, 1)).unwrap();
    let address = mapped_at(&named.text()).remove(0);
    Peer::start(
        "posix_shm::two_processes_share_it_at_different_addresses",
        "peer",
        &[("name", &*named.text()), ("address", &address)],
    )
    .succeed();
    assert!(contents(ours.region()).ends_with(b"answer"));
    assert!(std::fs::read(named.path()).unwrap().ends_with(b"answer"), "it is glibc's file");
}

#[test]
fn a_killed_process_leaves_what_was_named_and_its_bytes() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        let ours = PosixShm::create(&told_name(), LEN, 0o600).unwrap();
        ours.region().write_at(0, &pattern(LEN, 2)).unwrap();
        tell("written");
        let other = PosixName::new(format!("{}-other", told("name"))).unwrap();
        loop {
            PosixShm::create(&other, LEN, 0o600).unwrap();
            PosixShm::unlink(&other).unwrap();
        }
    }
    let named = Named::new("killed");
    let other = Named(PosixName::new(format!("{}-other", named.text())).unwrap());
    let mut peer = peer("a_killed_process_leaves_what_was_named_and_its_bytes", "creator", &named);
    wait_for_line(&mut peer, "written");
    std::thread::sleep(Duration::from_millis(20));
    peer.kill();
    assert_eq!(contents(PosixShm::open(&named.0).unwrap().region()), pattern(LEN, 2));
    let left =
        std::fs::read_dir("/dev/shm").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let stem = named.text().trim_start_matches('/').to_owned();
    let left: Vec<String> = left.filter(|name| name.starts_with(&stem)).collect();
    assert!(left.len() <= 2, "{left:?}");
    if let Ok(found) = PosixShm::open(&other.0) {
        assert_eq!(found.region().len(), LEN, "killed in the middle, it is whole or not there");
    }
}

#[test]
fn creation_is_exclusive_and_a_missing_object_is_named() {
    let named = Named::new("exclusive");
    let missing = PosixShm::open(&named.0).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(2), "ENOENT: {missing}");
    assert!(missing.to_string().contains(&format!("shm:{}", named.text())), "{missing}");
    assert!(missing.to_string().contains("create it first; /dev/shm has what exists"), "{missing}");
    assert_eq!(PosixShm::open_read_only(&named.0).unwrap_err().raw_os_error(), Some(2), "ENOENT");
    assert_eq!(PosixShm::unlink(&named.0).unwrap_err().raw_os_error(), Some(2), "ENOENT");

    let first = PosixShm::create(&named.0, LEN, 0o600).unwrap();
    first.region().write_at(0, b"first").unwrap();
    let taken = PosixShm::create(&named.0, LEN, 0o600).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(17), "EEXIST: {taken}");
    assert!(taken.to_string().contains("open what exists, or remove it first"), "{taken}");
    assert!(contents(PosixShm::open(&named.0).unwrap().region()).starts_with(b"first"));

    PosixShm::unlink(&named.0).unwrap();
    assert!(!named.path().exists());
    assert!(contents(first.region()).starts_with(b"first"), "what is mapped stays");
    assert!(PosixShm::open(&named.0).is_err());
}

#[test]
fn the_mode_is_exact_whatever_the_umask() {
    if role().is_some() {
        rustix::process::umask(Mode::from_raw_mode(0o077));
        drop(PosixShm::create(&told_name(), LEN, 0o646).unwrap());
        return;
    }
    let named = Named::new("mode");
    peer("the_mode_is_exact_whatever_the_umask", "creator", &named).succeed();
    assert_eq!(named.path().metadata().unwrap().permissions().mode() & 0o7777, 0o646);
    let error = PosixShm::create(&named.0, LEN, 0o1777).unwrap_err().to_string();
    assert!(error.contains("mode 1777"), "{error}");
}

#[test]
fn a_right_to_read_gives_a_read_only_region() {
    let named = Named::new("read-only");
    let ours = PosixShm::create(&named.0, LEN, 0o444).unwrap();
    ours.region().write_at(0, b"x").unwrap();
    unprivileged(|| {
        let refused = PosixShm::open(&named.0).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(13), "EACCES: {refused}");
        assert!(refused.to_string().contains("with mode 444; this process is user"), "{refused}");
        let mut theirs = PosixShm::open_read_only(&named.0).unwrap();
        assert!(!theirs.region().is_writable());
        assert!(contents(theirs.region()).starts_with(b"x"));
        let refused = theirs.region().write_at(0, b"y").unwrap_err().to_string();
        assert!(refused.contains("mapped read-only"), "{refused}");
        let error = theirs.grow(2 * LEN).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(9), "EBADF");
        assert!(error.to_string().contains("open for reading alone"), "{error}");
        assert_eq!(theirs.region().len(), LEN);
    });
}

#[test]
fn lengths_that_do_not_fit_are_refused_with_the_numbers() {
    let named = Named::new("lengths");
    let refused = |len| PosixShm::create(&named.0, len, 0o600).unwrap_err().to_string();
    assert!(refused(0).contains("length 0"));
    let free = rustix::fs::statvfs("/dev/shm").unwrap();
    let all = usize::try_from(free.f_blocks * free.f_frsize).unwrap();
    let error = refused(all + 4096);
    assert!(error.contains(&(all + 4096).to_string()), "{error}");
    assert!(error.contains("are free") || error.contains("are available"), "{error}");
    assert!(!named.path().exists(), "a failed creation leaves nothing");
}

#[test]
fn it_grows_and_the_others_follow() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        let mut ours = PosixShm::open(&told_name()).unwrap();
        ours.grow(3 * LEN).unwrap();
        ours.region().write_at(3 * LEN - 3, b"end").unwrap();
        return;
    }
    let named = Named::new("grows");
    let mut ours = PosixShm::create(&named.0, LEN, 0o600).unwrap();
    ours.region().write_at(0, b"begin").unwrap();
    peer("it_grows_and_the_others_follow", "grower", &named).succeed();
    assert_eq!((ours.region().len(), ours.current_len().unwrap()), (LEN, 3 * LEN));
    assert!(ours.region().read_at(LEN, &mut [0]).is_err());
    assert_eq!(ours.refresh().unwrap(), 3 * LEN);
    let found = contents(ours.region());
    assert!(found.starts_with(b"begin") && found.ends_with(b"end"));
    let error = ours.grow(LEN).unwrap_err().to_string();
    assert!(error.contains("300000 bytes are mapped, and 100000 were asked for"), "{error}");
    ours.grow(3 * LEN).unwrap();
}

#[test]
fn a_shortened_object_is_an_error_with_the_numbers() {
    let named = Named::new("shortened");
    let mut ours = PosixShm::create(&named.0, LEN, 0o600).unwrap();
    ours.region().write_at(0, &pattern(LEN, 3)).unwrap();
    shorten(&named, 50_000);
    let mut buffer = [0; 100];
    ours.region().read_at(49_900, &mut buffer).unwrap();
    assert_eq!(buffer[..], pattern(LEN, 3)[49_900..50_000]);
    ours.region().write_at(49_900, &buffer).unwrap();
    for offset in [49_901, 50_000, 80_000] {
        let error = ours.region().read_at(offset, &mut buffer).unwrap_err();
        assert!(matches!(error, Error::Shortened { current_bytes: 50_000, .. }), "{error}");
        let numbers = format!("read of 100 bytes at offset {offset} of shm:{}", named.text());
        assert!(error.to_string().starts_with(&numbers), "{error}");
        let error = ours.region().write_at(offset, &buffer).unwrap_err();
        assert!(error.to_string().ends_with("shortened it from 100000 bytes, which are mapped, to 50000"), "{error}");
    }
    assert!(matches!(ours.refresh().unwrap_err(), Error::Shortened { .. }));
    assert_eq!(ours.current_len().unwrap(), 50_000, "no write made it long again");
    ours.grow(LEN).unwrap();
    ours.region().write_at(LEN - 1, b"x").unwrap();
}

#[test]
fn any_number_of_processes_create_it_at_once_and_share_one() {
    const PEERS: usize = 4;
    let _watchdog = watchdog(Duration::from_secs(60));
    if let Some(role) = role() {
        let index: usize = role.parse().unwrap();
        let mapped: Vec<PosixShm> = (0..20)
            .map(|round| PosixName::new(format!("{}-{round}", told("name"))).unwrap())
            .map(|name| PosixShm::open_or_create(&name, LEN, 0o600).unwrap())
            .collect();
        for ours in &mapped {
            assert_eq!(ours.region().len(), LEN);
            ours.region().write_at(LEN - 1 - index, &[1]).unwrap();
        }
        return;
    }
    let named = Named::new("at-once");
    let names: Vec<Named> =
        (0..20).map(|round| Named(PosixName::new(format!("{}-{round}", named.text())).unwrap())).collect();
    let test = "any_number_of_processes_create_it_at_once_and_share_one";
    let peers: Vec<Peer> = (0..PEERS).map(|index| peer(test, &index.to_string(), &named)).collect();
    peers.into_iter().for_each(Peer::succeed);
    for name in &names {
        assert!(contents(PosixShm::open(&name.0).unwrap().region()).ends_with(&[1; PEERS]), "{}", name.text());
    }
}

#[test]
fn an_existing_object_is_long_enough_or_both_lengths_are_named() {
    let named = Named::new("existing");
    let ours = PosixShm::create(&named.0, LEN, 0o600).unwrap();
    let error = PosixShm::open_or_create(&named.0, LEN + 1, 0o600).unwrap_err().to_string();
    assert!(error.contains("has 100000 bytes, and 100001 were asked for"), "{error}");
    assert_eq!(PosixShm::open_or_create(&named.0, 1, 0o600).unwrap().region().len(), LEN);
    drop(ours);
}

#[test]
fn an_object_that_another_program_still_sizes_is_waited_for() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let named = Named::new("sizing");
    let foreign = File::create_new(named.path()).unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            foreign.set_len(LEN as u64).unwrap();
        });
        assert_eq!(PosixShm::open(&named.0).unwrap().region().len(), LEN);
    });
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[test]
fn an_abandoned_object_is_reported_and_can_be_completed() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let named = Named::new("abandoned");
    File::create_new(named.path()).unwrap();
    let start = Instant::now();
    let error = PosixShm::open(&named.0).unwrap_err().to_string();
    assert!(error.contains("its length is 0") && start.elapsed() >= Duration::from_secs(1), "{error}");
    let error = PosixShm::open_by(&named.0, Deadline::Now).unwrap_err().to_string();
    assert!(error.contains("its length is 0"), "{error}");
    let ours = PosixShm::open_or_create(&named.0, LEN, 0o600).unwrap();
    assert_eq!(ours.current_len().unwrap(), LEN);
}

#[test]
fn opening_waits_for_the_creator_until_its_deadline() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let named = Named::new("appears");
    let start = Instant::now();
    let error = PosixShm::open_by(&named.0, Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(error.is_out_of_time() && start.elapsed() >= Duration::from_millis(50), "{error}");
    assert_eq!(PosixShm::open_by(&named.0, Deadline::Now).unwrap_err().raw_os_error(), Some(2), "ENOENT");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            PosixShm::create(&named.0, LEN, 0o600).unwrap();
        });
        assert_eq!(PosixShm::open_read_only_by(&named.0, Deadline::Never).unwrap().region().len(), LEN);
    });
}

#[test]
fn what_is_no_object_is_refused_by_its_kind() {
    let named = Named::new("kind");
    let refused = || PosixShm::open(&named.0).unwrap_err().to_string();
    symlink("/etc/passwd", named.path()).unwrap();
    assert!(refused().contains("a symbolic link and no regular file"), "{}", refused());
    std::fs::remove_file(named.path()).unwrap();
    std::fs::create_dir(named.path()).unwrap();
    let text = refused();
    std::fs::remove_dir(named.path()).unwrap();
    assert!(text.contains("a directory and no regular file"), "{text}");
}

#[test]
fn plain_copies_are_there_for_those_who_trust_each_other() {
    let named = Named::new("trusting");
    let ours = PosixShm::create(&named.0, LEN, 0o600).unwrap().into_region().trusting_its_length();
    ours.write_at(0, &pattern(LEN, 4)).unwrap();
    assert_eq!(contents(&ours), pattern(LEN, 4));
    assert_eq!(contents(PosixShm::open(&named.0).unwrap().region()), pattern(LEN, 4));
}

#[test]
fn a_peer_that_shortens_it_all_the_time_never_ends_us() {
    let _watchdog = watchdog(Duration::from_secs(300));
    if role().is_some() {
        let file = OpenOptions::new().write(true).open(told("path")).unwrap();
        tell("running");
        for step in 0_u64.. {
            file.set_len(step * 37 % LEN as u64).unwrap();
            if step % 4 == 0 {
                file.set_len(LEN as u64).unwrap();
            }
        }
        park();
    }
    let named = Named::new("attacked");
    let ours = PosixShm::create(&named.0, LEN, 0o600).unwrap();
    let test = "posix_shm::a_peer_that_shortens_it_all_the_time_never_ends_us";
    let mut attacker = Peer::start(test, "attacker", &[("path", named.path().to_str().unwrap())]);
    wait_for_line(&mut attacker, "running");
    crate::copy_against_an_attacker(ours.region(), rounds());
    attacker.kill();
}

#[test]
fn what_cannot_be_mapped_is_not_left_behind() {
    if role().is_some() {
        limit_mappings();
        let error = PosixShm::create(&told_name(), 16 << 20, 0o600).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
        assert!(error.to_string().contains("ulimit -v"), "{error}");
        // Two mappings of it would not fit.
        let _small = PosixShm::create(&told_name(), 3 << 20, 0o600).unwrap();
        return;
    }
    let named = Named::new("unmapped");
    peer("what_cannot_be_mapped_is_not_left_behind", "limited", &named).succeed();
    assert_eq!(std::fs::metadata(named.path()).unwrap().len(), 3 << 20);
}
