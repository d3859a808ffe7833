//! Row 15: shared anonymous memory, its seals, and what memfd_create(2) and fcntl(2) say of them.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use onecopy::memory::anonymous::{AnonymousMapping, Frozen, Sealing};

use crate::support::{Peer, pattern, role, skip, watchdog};
use crate::{inheriting, mapped_at, park, tell, told, wait_for_line};

const LEN: usize = 1 << 20;

fn peer_with(test: &str, fd: impl Into<OwnedFd>) -> Peer {
    inheriting(&format!("anonymous::{test}"), "peer", &[], fd)
}

#[test]
fn two_processes_share_it_at_different_addresses() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        // Without randomised addresses both processes would map at the same place: take that place first.
        let _first = AnonymousMapping::create("placeholder", LEN).unwrap();
        let mapping = AnonymousMapping::from_inherited(0).unwrap();
        assert_ne!(mapped_at("memfd:two-processes")[0], told("address"));
        let mut found = vec![0; LEN - 10];
        mapping.region().read_at(0, &mut found).unwrap();
        assert_eq!(found, pattern(LEN - 10, 1));
        mapping.region().write_at(3, b"answer").unwrap();
        return;
    }
    let mapping = AnonymousMapping::create("two-processes", LEN).unwrap();
    mapping.region().write_at(0, &pattern(LEN - 10, 1)).unwrap();
    let address = mapped_at("memfd:two-processes").remove(0);
    let test = "anonymous::two_processes_share_it_at_different_addresses";
    inheriting(test, "peer", &[("address", &address)], mapping.try_clone_fd().unwrap()).succeed();
    let mut answer = [0; 6];
    mapping.region().read_at(3, &mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn a_killed_process_leaves_its_bytes_to_the_others_and_nothing_else() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        let mapping = AnonymousMapping::from_inherited(0).unwrap();
        let _own = AnonymousMapping::create("killed-own", LEN).unwrap();
        mapping.region().write_at(7, &pattern(50_000, 2)).unwrap();
        tell("written");
        park();
    }
    let mapping = AnonymousMapping::create("killed", LEN).unwrap();
    let mut peer =
        peer_with("a_killed_process_leaves_its_bytes_to_the_others_and_nothing_else", mapping.try_clone_fd().unwrap());
    wait_for_line(&mut peer, "written");
    peer.kill();
    let mut found = vec![0; 50_000];
    mapping.region().read_at(7, &mut found).unwrap();
    assert_eq!(found, pattern(50_000, 2));
    assert!(!std::path::Path::new("/dev/shm/killed-own").exists(), "the memory has no name");
    let holders = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let named = holders.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    assert!(!named.into_iter().any(|target| target.to_string_lossy().contains("killed-own")));
}

#[test]
fn the_size_is_sealed_and_every_page_allocated() {
    let mapping = AnonymousMapping::create("sealed", 10_000).unwrap();
    assert_eq!(mapping.region().len(), 10_000);
    assert!(mapping.region().is_writable());
    let file = File::from(mapping.try_clone_fd().unwrap());
    assert_eq!(file.set_len(9_999).unwrap_err().raw_os_error(), Some(1), "EPERM");
    assert_eq!(file.set_len(10_001).unwrap_err().raw_os_error(), Some(1), "EPERM");
    let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
    assert!(blocks * 512 >= 10_000, "{blocks} blocks");

    let growable = AnonymousMapping::create_sealed("growable", 10_000, Sealing::Shrink).unwrap();
    let file = File::from(growable.try_clone_fd().unwrap());
    assert_eq!(file.set_len(9_999).unwrap_err().raw_os_error(), Some(1), "EPERM");
    file.set_len(20_000).unwrap();
    assert_eq!(growable.region().len(), 10_000, "the mapping stays as it was");
    assert_eq!(AnonymousMapping::from_fd(file.into()).unwrap().region().len(), 20_000);
}

#[test]
fn huge_pages_that_a_peer_can_give_back_are_refused() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let Ok(huge) = memfd_create("huge", MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB) else {
        return skip("huge_pages_that_a_peer_can_give_back_are_refused", "this kernel has no hugetlbfs");
    };
    ftruncate(&huge, 1 << 30).unwrap();
    fcntl_add_seals(&huge, SealFlags::SHRINK).unwrap();
    let error = AnonymousMapping::from_fd(huge).unwrap_err().to_string();
    assert!(error.contains("MFD_HUGETLB") && error.contains("SIGBUS"), "{error}");
}

#[test]
fn what_is_not_sealed_against_shrinking_is_refused_with_what_was_found() {
    let pipe = onecopy::stream::pipe::pair().unwrap().0;
    let error = AnonymousMapping::from_fd(pipe.as_fd().try_clone_to_owned().unwrap()).unwrap_err().to_string();
    assert!(error.contains("no memfd but pipe:["), "{error}");

    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let error = AnonymousMapping::from_fd(file.into()).unwrap_err().to_string();
    assert!(error.contains("no memfd but /"), "{error}");

    let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
    let bare = rustix::fs::memfd_create("bare", flags).unwrap();
    rustix::fs::ftruncate(&bare, 4096).unwrap();
    rustix::fs::fcntl_add_seals(&bare, rustix::fs::SealFlags::GROW).unwrap();
    let number = bare.as_raw_fd();
    let error = AnonymousMapping::from_fd(bare).unwrap_err().to_string();
    assert!(error.starts_with(&format!("fd:{number}: not sealed against shrinking")), "{error}");
    assert!(error.ends_with("its seals are F_SEAL_GROW"), "{error}");

    let empty = rustix::fs::memfd_create("empty", flags).unwrap();
    rustix::fs::fcntl_add_seals(&empty, rustix::fs::SealFlags::SHRINK).unwrap();
    let error = AnonymousMapping::from_fd(empty).unwrap_err().to_string();
    assert!(error.contains("length 0"), "{error}");

    let error = AnonymousMapping::from_inherited(-1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(9), "EBADF: {error}");
    assert!(error.to_string().contains("fd:-1"), "{error}");
}

#[test]
fn bad_names_and_lengths_are_refused_with_the_numbers() {
    let refused = |name: &str, len| AnonymousMapping::create(name, len).unwrap_err().to_string();
    assert!(refused(&"n".repeat(250), 1).contains("250 bytes, and the limit is 249"));
    assert!(refused("a\0b", 1).contains("NUL"));
    assert!(refused("none", 0).contains("length 0"));
    assert!(refused("all", usize::MAX).contains("18446744073709551615 bytes"));
    assert!(refused("much", 1 << 60).contains("1152921504606846976 bytes of memory"));
    assert!(AnonymousMapping::create(&"n".repeat(249), 1).is_ok());
    assert!(AnonymousMapping::create("", 1).is_ok());
}

#[test]
fn a_read_only_descriptor_gives_a_read_only_region() {
    let mapping = AnonymousMapping::create("read-only", 4096).unwrap();
    let path = format!("/proc/self/fd/{}", mapping.as_fd().as_raw_fd());
    let read_only = AnonymousMapping::from_fd(File::open(path).unwrap().into()).unwrap();
    assert!(!read_only.region().is_writable());
    let error = read_only.region().write_at(0, b"x").unwrap_err().to_string();
    assert!(error.contains("mapped read-only"), "{error}");
    mapping.region().write_at(4095, b"x").unwrap();
    let mut byte = [0];
    read_only.region().read_at(4095, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn it_freezes_once_no_other_process_can_write() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if let Some(role) = role() {
        if role == "reader" {
            let frozen = Frozen::from_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap()).unwrap();
            assert_eq!(frozen.as_slice(), pattern(LEN, 3));
            let file = File::from(frozen.try_clone_fd().unwrap());
            assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(1), "EPERM");
            return;
        }
        let _mapping = AnonymousMapping::from_inherited(0).unwrap();
        tell("mapped");
        park();
    }
    let test = "anonymous::it_freezes_once_no_other_process_can_write";
    let mapping = AnonymousMapping::create("freezes", LEN).unwrap();
    mapping.region().write_at(0, &pattern(LEN, 3)).unwrap();
    let mut writer = inheriting(test, "writer", &[], mapping.try_clone_fd().unwrap());
    wait_for_line(&mut writer, "mapped");
    let refused = mapping.seal_against_writing().unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(16), "EBUSY: {}", refused.error);
    assert!(refused.to_string().contains("unmap it everywhere"), "{refused}");
    let mapping = refused.mapping.unwrap();
    mapping.region().write_at(0, &pattern(1, 3)).unwrap();
    assert!(Frozen::from_fd(mapping.try_clone_fd().unwrap()).is_err());
    writer.kill();
    let frozen = mapping.seal_against_writing().unwrap();
    assert_eq!(frozen.as_slice(), pattern(LEN, 3));
    let again = AnonymousMapping::from_fd(frozen.try_clone_fd().unwrap());
    assert!(again.is_err() || !again.unwrap().region().is_writable());
    inheriting(test, "reader", &[], frozen.try_clone_fd().unwrap()).succeed();
}

#[test]
fn final_seals_forbid_every_other() {
    let mapping = AnonymousMapping::create_sealed("final", 4096, Sealing::Final).unwrap();
    let refused = mapping.seal_against_writing().unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(1), "EPERM: {refused}");
    assert!(refused.to_string().contains("F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW"), "{refused}");
    refused.mapping.unwrap().region().write_at(0, b"still mapped").unwrap();
}

#[test]
fn copies_race_with_a_writer_and_stay_within_bounds() {
    let _watchdog = watchdog(Duration::from_secs(60));
    if role().is_some() {
        let mapping = AnonymousMapping::from_inherited(0).unwrap();
        tell("mapped");
        for byte in (1..=u8::MAX).cycle() {
            mapping.region().write_at(0, &vec![byte; LEN]).unwrap();
        }
    }
    let mapping = AnonymousMapping::create("races", LEN).unwrap();
    let mut peer = peer_with("copies_race_with_a_writer_and_stay_within_bounds", mapping.try_clone_fd().unwrap());
    wait_for_line(&mut peer, "mapped");
    for round in 0..50 {
        let len = [1, 7, 8, 63, 64, 65, 4096, 100_001][round % 8];
        let mut buffer = vec![0xa5; len + 2];
        mapping.region().read_at(round * 3, &mut buffer[1..=len]).unwrap();
        assert_eq!((buffer[0], buffer[len + 1]), (0xa5, 0xa5), "{len} bytes");
    }
    peer.kill();
}

#[test]
fn the_memory_outlives_its_descriptor() {
    let region = AnonymousMapping::create("detached", 4096).unwrap().into_region();
    region.write_at(0, b"here").unwrap();
    let mut found = [0; 4];
    std::thread::scope(|scope| {
        scope.spawn(|| region.read_at(0, &mut found).unwrap());
    });
    assert_eq!(&found, b"here");
    assert_eq!(region.object(), "memfd:detached");
    assert!(!region.is_empty());
}

#[test]
fn a_peer_that_writes_through_the_descriptor_is_seen() {
    let mapping = AnonymousMapping::create("written", 4096).unwrap();
    File::from(mapping.try_clone_fd().unwrap()).write_all(b"by write(2)").unwrap();
    let mut found = [0; 11];
    mapping.region().read_at(0, &mut found).unwrap();
    assert_eq!(&found, b"by write(2)");
}
