//! Row 13: System V shared memory, and what shmget(2), shmat(2) and shmctl(2) say of it.
//!
//! # Safety
//!
//! One thread moves to an IPC namespace of its own, where it ends.
#![expect(unsafe_code, reason = "lowers the limits in an IPC namespace of its own")]

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use onecopy::SysvName;
use onecopy::memory::sysv_shm::SysvShm;

use crate::support::{Peer, eventually, pattern, role, skip, watchdog};
use crate::{contents, mapped_at, park, tell, told, unprivileged, wait_for_line};

const LEN: usize = 100_000;

/// A key that no other test and no other run uses.
pub(crate) fn unused_name() -> SysvName {
    SysvName::key(unused_key()).unwrap()
}

fn unused_key() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(0);
    // A process number has at most 22 bits.
    0x4000_0000 | std::process::id().cast_signed() << 8 | NEXT.fetch_add(1, Ordering::Relaxed) & 0xff
}

/// A key whose segment is removed at the end of the test, whatever became of it.
struct Keyed(i32);

impl Keyed {
    fn new() -> Self {
        Self(unused_key())
    }

    fn name(&self) -> SysvName {
        SysvName::key(self.0).unwrap()
    }
}

impl Drop for Keyed {
    fn drop(&mut self) {
        let _ = SysvShm::remove_named(&self.name());
    }
}

fn peer(test: &str, role: &str, keyed: &Keyed, address: &str) -> Peer {
    Peer::start(&format!("sysv_shm::{test}"), role, &[("key", &keyed.0.to_string()), ("address", address)])
}

fn told_name() -> SysvName {
    SysvName::key(told("key").parse().unwrap()).unwrap()
}

#[test]
fn two_processes_share_it_at_different_addresses() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        // Without randomised addresses both processes would map at the same place: take that place first.
        let _first = SysvShm::open(&told_name()).unwrap();
        let ours = SysvShm::open(&told_name()).unwrap();
        let at = mapped_at("SYSV");
        assert!(at.iter().any(|address| *address != told("address")), "{at:?}");
        assert_eq!(ours.attach_count().unwrap(), 3);
        assert_eq!(contents(ours.region()), pattern(LEN, 1));
        ours.region().write_at(LEN - 6, b"answer").unwrap();
        return;
    }
    let keyed = Keyed::new();
    let ours = SysvShm::create(&keyed.name(), LEN, 0o600).unwrap();
    ours.region().write_at(0, &pattern(LEN, 1)).unwrap();
    let address = mapped_at(&format!("SYSV{:08x}", keyed.0)).remove(0);
    peer("two_processes_share_it_at_different_addresses", "peer", &keyed, &address).succeed();
    assert!(contents(ours.region()).ends_with(b"answer"));
    assert_eq!(ours.attach_count().unwrap(), 1);
}

#[test]
fn a_killed_process_is_no_longer_counted_and_its_bytes_stay() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        let ours = SysvShm::create(&told_name(), LEN, 0o600).unwrap();
        ours.region().write_at(0, &pattern(LEN, 2)).unwrap();
        tell("written");
        park();
    }
    let keyed = Keyed::new();
    let mut peer = peer("a_killed_process_is_no_longer_counted_and_its_bytes_stay", "creator", &keyed, "");
    wait_for_line(&mut peer, "written");
    let ours = SysvShm::open(&keyed.name()).unwrap();
    assert_eq!(ours.attach_count().unwrap(), 2);
    peer.kill();
    eventually("the killed process is detached", || ours.attach_count().unwrap() == 1);
    assert_eq!(contents(ours.region()), pattern(LEN, 2));
    drop(ours);
    assert_eq!(
        contents(SysvShm::open(&keyed.name()).unwrap().region()),
        pattern(LEN, 2),
        "it stays until it is removed"
    );
}

#[test]
fn creation_is_exclusive_and_a_missing_segment_is_named() {
    let keyed = Keyed::new();
    let missing = SysvShm::open(&keyed.name()).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(2), "ENOENT: {missing}");
    assert!(missing.to_string().contains(&format!("sysv-shm:{:#x}", keyed.0)), "{missing}");
    assert!(missing.to_string().contains("create it first; `ipcs -m` lists"), "{missing}");
    let ours = SysvShm::create(&keyed.name(), LEN, 0o600).unwrap();
    let taken = SysvShm::create(&keyed.name(), LEN, 0o600).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(17), "EEXIST: {taken}");
    assert_eq!(SysvShm::open_or_create(&keyed.name(), 1, 0o600).unwrap().id(), ours.id());

    let none = SysvShm::open(&SysvName::id(i32::MAX).unwrap()).unwrap_err();
    assert_eq!(none.raw_os_error(), Some(22), "EINVAL: {none}");
    assert!(none.to_string().contains("no such segment"), "{none}");
    let by_id = SysvShm::create(&SysvName::id(ours.id()).unwrap(), LEN, 0o600).unwrap_err().to_string();
    assert!(by_id.contains("the kernel gives identifiers"), "{by_id}");
    let zero = SysvShm::create(&unused_name(), 0, 0o600).unwrap_err().to_string();
    assert!(zero.contains("length 0"), "{zero}");
    let much = SysvShm::create(&unused_name(), 1 << 60, 0o600).unwrap_err().to_string();
    assert!(much.contains("1152921504606846976 bytes"), "{much}");
    let mode = SysvShm::create(&unused_name(), 1, 0o1000).unwrap_err().to_string();
    assert!(mode.contains("mode 1000"), "{mode}");
}

#[test]
fn a_longer_wish_than_the_segment_names_both_lengths() {
    let keyed = Keyed::new();
    let _ours = SysvShm::create(&keyed.name(), LEN, 0o600).unwrap();
    let error = SysvShm::open_or_create(&keyed.name(), LEN + 1, 0o600).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(22), "EINVAL: {error}");
    assert!(error.to_string().contains("exists with 100000 bytes, and 100001 were asked for"), "{error}");
}

#[test]
fn a_removed_segment_stays_until_the_last_one_detaches() {
    let keyed = Keyed::new();
    let ours = SysvShm::create(&keyed.name(), LEN, 0o600).unwrap();
    assert!(!ours.is_removed().unwrap());
    ours.remove().unwrap();
    assert!(ours.is_removed().unwrap());
    let by_id = SysvName::id(ours.id()).unwrap();
    let theirs = SysvShm::open(&by_id).unwrap();
    ours.region().write_at(7, b"still here").unwrap();
    assert_eq!(contents(theirs.region())[7..17], *b"still here");
    assert_eq!(ours.attach_count().unwrap(), 2);
    let next = SysvShm::create(&keyed.name(), 1, 0o600).unwrap();
    assert_ne!(next.id(), ours.id(), "the key was free at once");
    drop((ours, theirs));
    assert_eq!(SysvShm::open(&by_id).unwrap_err().raw_os_error(), Some(22), "EINVAL: it has vanished");
}

#[test]
fn a_right_to_read_gives_a_read_only_region() {
    let keyed = Keyed::new();
    let ours = SysvShm::create(&keyed.name(), LEN, 0o444).unwrap();
    unprivileged(|| {
        let refused = SysvShm::open(&keyed.name()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(13), "EACCES: {refused}");
        assert!(refused.to_string().contains("with mode 444; this process is user"), "{refused}");
        let theirs = SysvShm::open_read_only(&keyed.name()).unwrap();
        assert!(!theirs.region().is_writable());
        assert_eq!(contents(theirs.region()), vec![0; LEN], "a new segment is all zeros");
        let refused = theirs.region().write_at(0, b"y").unwrap_err().to_string();
        assert!(refused.contains("mapped read-only"), "{refused}");
    });
    drop(ours);
}

#[test]
fn the_key_can_come_from_a_path() {
    let scratch = crate::support::Scratch::new();
    std::fs::write(scratch.path("key"), "").unwrap();
    let name = SysvName::path(scratch.path("key"), 7).unwrap();
    let ours = SysvShm::create(&name, LEN, 0o600).unwrap();
    let theirs = SysvShm::open(&name);
    ours.remove().unwrap();
    assert_eq!(theirs.unwrap().id(), ours.id());
}

#[test]
fn any_number_of_processes_create_it_at_once_and_share_one() {
    const PEERS: usize = 4;
    let _watchdog = watchdog(Duration::from_secs(60));
    if let Some(role) = role() {
        let ours = SysvShm::open_or_create(&told_name(), LEN, 0o600).unwrap();
        ours.region().write_at(role.parse().unwrap(), &[1]).unwrap();
        return;
    }
    let keyed = Keyed::new();
    let test = "any_number_of_processes_create_it_at_once_and_share_one";
    let peers: Vec<Peer> = (0..PEERS).map(|index| peer(test, &index.to_string(), &keyed, "")).collect();
    peers.into_iter().for_each(Peer::succeed);
    assert!(contents(SysvShm::open(&keyed.name()).unwrap().region()).starts_with(&[1; PEERS]));
}

#[test]
fn a_segment_that_another_one_removes_meanwhile_is_made_anew() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let keyed = Keyed::new();
    let open = || SysvShm::open_or_create(&keyed.name(), LEN, 0o600).unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| (0..3000).for_each(|_| drop(open())));
        while !opening.is_finished() {
            let _ = open().remove();
        }
    });
}

#[test]
fn the_limits_are_named_with_their_numbers() {
    let limited = std::thread::spawn(|| {
        // SAFETY: no descriptor is shared through this flag; the thread alone leaves the namespace of the others.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWIPC) }
            .map_err(|errno| format!("no IPC namespace: {errno}"))?;
        let set = |limit: &str, value: &str| {
            std::fs::write(format!("/proc/sys/kernel/{limit}"), value).map_err(|error| format!("{limit}: {error}"))
        };
        set("shmmax", "8192")?;
        let long = SysvShm::create(&unused_name(), 8193, 0o600).unwrap_err();
        set("shmmni", "1")?;
        let _only = SysvShm::create(&unused_name(), 4096, 0o600).unwrap();
        let second = SysvShm::create(&unused_name(), 4096, 0o600).unwrap_err();
        set("shmmni", "10")?;
        set("shmall", "2")?;
        let pages = SysvShm::create(&unused_name(), 8192, 0o600).unwrap_err();
        Ok::<_, String>((long, second, pages))
    });
    match limited.join().unwrap() {
        Ok((long, second, pages)) => {
            assert_eq!(long.raw_os_error(), Some(22), "EINVAL: {long}");
            assert!(long.to_string().contains("8193 bytes were asked for"), "{long}");
            assert!(long.to_string().contains("/proc/sys/kernel/shmmax allows 8192"), "{long}");
            assert_eq!(second.raw_os_error(), Some(28), "ENOSPC: {second}");
            assert!(second.to_string().contains("shmmni allows 1 segments"), "{second}");
            assert_eq!(pages.raw_os_error(), Some(28), "ENOSPC: {pages}");
            assert!(pages.to_string().contains("shmall 2 pages"), "{pages}");
        }
        Err(reason) => skip("the_limits_are_named_with_their_numbers", &reason),
    }
}
