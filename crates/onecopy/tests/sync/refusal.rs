//! What lies in shared memory and is not the object that is expected there.

use std::time::Duration;

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::posix_shm::PosixShm;
use onecopy::sync::mutex::Mutex;
use onecopy::sync::shared::Place;
use onecopy::{Deadline, Error, PosixName};

use crate::stage::{Memory, Shared, adopted};
use crate::support::{Peer, Scratch, role, skip, unique, watchdog};

fn memory() -> Place {
    Place::new(AnonymousMapping::create("refusal", 4096).unwrap().into_region()).unwrap()
}

/// What attaching and opening say once `bytes` stand at `offset` of a mutex.
fn refused(offset: usize, bytes: &[u8]) -> String {
    let place = memory();
    drop(Mutex::create(&place, 5_u64).unwrap());
    place.region().write_at(offset, bytes).unwrap();
    let attached = Mutex::<u64>::attach(&place, Deadline::Now).unwrap_err();
    let opened = Mutex::open_or_create(&place, 5_u64, Deadline::Now).unwrap_err();
    let created = Mutex::create(&place, 5_u64).unwrap_err();
    for error in [&attached, &opened, &created] {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    attached.to_string()
}

#[test]
fn what_is_none_of_ours_is_refused_with_what_was_found_and_expected() {
    for (offset, bytes, part) in [
        (0, &b"onecopyR"[..], "0x6f6e65636f707952"),
        (8, &2_u32.to_le_bytes(), "the version of its layout is 2, and 1 is expected"),
        (12, &4_u32.to_le_bytes(), "a condition variable lies there, and no mutex"),
        (12, &77_u32.to_le_bytes(), "something of kind 77 lies there, and no mutex"),
        (24, &1_u64.to_le_bytes(), "its total size is 1, and 200 is expected"),
        (36, &24_u32.to_le_bytes(), "the size of its object is 24, and"),
        (44, &4_u32.to_le_bytes(), "the alignment of its payload is 4, and 8 is expected"),
        (48, &16_u64.to_le_bytes(), "the size of its payload is 16, and 8 is expected"),
        (56, b"musl\0\0\0\0", "it was made with musl"),
        (64, &12_u64.to_le_bytes(), "it belongs to the pid namespace 12, and this process to"),
        (72, b"00000000", "before the machine was started"),
        (16, &(1_u64 << 40).to_le_bytes(), "its state is 0x10000000000"),
    ] {
        let refusal = refused(offset, bytes);
        assert!(refusal.contains(part), "{refusal:?} lacks {part:?}");
    }
}

#[test]
fn other_bytes_are_not_overwritten() {
    for (offset, bytes) in [(0, &b"some text"[..]), (100, b"x"), (130, b"in the object"), (199, b"y")] {
        let place = memory();
        place.region().write_at(offset, bytes).unwrap();
        let error = Mutex::open_or_create(&place, 5_u64, Deadline::Now).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let mut found = vec![0; bytes.len()];
        place.region().read_at(offset, &mut found).unwrap();
        assert_eq!(found, bytes);
    }
    // What looks like a creator that is gone, in front of something else.
    let place = memory();
    place.region().write_at(16, &(u64::MAX >> 42).to_le_bytes()).unwrap();
    place.region().write_at(40, b"data").unwrap();
    assert!(matches!(Mutex::create(&place, 5_u64), Err(Error::Corrupt { .. })));
}

#[test]
fn another_value_or_place_is_refused() {
    let place = memory();
    drop(Mutex::create(&place, 5_u64).unwrap());
    assert!(Mutex::<[u8; 8]>::attach(&place, Deadline::Now).unwrap_err().to_string().contains("alignment"));
    assert!(Mutex::<[u64; 2]>::attach(&place, Deadline::Now).unwrap_err().to_string().contains("size of its payload"));
    assert!(Mutex::<u64>::attach(&place.at(64).unwrap(), Deadline::Now).is_err());
}

#[test]
fn memory_that_others_may_write_needs_the_word_of_the_caller() {
    let name = PosixName::new(format!("/{}", unique("open"))).unwrap();
    let region = PosixShm::create(&name, 4096, 0o666).unwrap().into_region();
    PosixShm::unlink(&name).unwrap();
    let error = Place::new(region).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("mode 666"), "{error}");
    let scratch = Scratch::new();
    drop(FileMapping::create(&scratch.path("read"), 4096, 0o600).unwrap());
    let read_only = FileMapping::open_read_only(&scratch.path("read")).unwrap().into_region();
    assert!(Place::new(read_only).unwrap_err().to_string().contains("read-only"));
}

#[test]
fn a_file_that_became_too_short_is_an_error_and_no_crash() {
    let scratch = Scratch::new();
    let path = scratch.path("short");
    let place = Place::new(FileMapping::create(&path, 4096, 0o600).unwrap().into_region()).unwrap();
    drop(Mutex::create(&place, 5_u64).unwrap());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = Mutex::<u64>::attach(&place, Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::Shortened { .. }), "{error}");
}

#[test]
fn a_hole_in_a_file_is_filled_before_it_is_used() {
    use std::os::unix::fs::MetadataExt as _;
    let scratch = Scratch::new();
    let path = scratch.path("sparse");
    let options = std::fs::OpenOptions::new().read(true).write(true).create_new(true).to_owned();
    let file = std::os::unix::fs::OpenOptionsExt::mode(&mut options.to_owned(), 0o600).open(&path).unwrap();
    file.set_len(8192).unwrap();
    let place = Place::new(FileMapping::open(&path).unwrap().into_region()).unwrap();
    drop(Mutex::create(&place, 5_u64).unwrap());
    assert!(file.metadata().unwrap().blocks() * 512 >= 4096);
}

#[test]
fn a_lock_of_another_pid_namespace_is_refused() {
    let test = "refusal::a_lock_of_another_pid_namespace_is_refused";
    if role().is_some() {
        let error = Mutex::<u64>::attach(&adopted(), Deadline::Now).unwrap_err();
        assert!(error.to_string().contains("pid namespace"), "{error}");
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let shared = Shared::new(Memory::PosixShm);
    drop(Mutex::create(&shared.place, 5_u64).unwrap());
    match Peer::in_own_namespaces(test, "other", &[("AT", shared.address())]) {
        Some(peer) => peer.succeed(),
        None => skip(test, "this user may make no namespaces"),
    }
}
