//! What this process writes over a lock that it uses, by safe code: nothing.

use std::sync::Arc;

use onecopy::memory::anonymous::{AnonymousMapping, for_children};
use onecopy::memory::attach::{PullSender, PushReceiver};
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::posix_shm::PosixShm;
use onecopy::memory::ring::{MIN_RING_BYTES, RingReceiver, RingSender};
use onecopy::memory::sysv_shm::SysvShm;
use onecopy::memory::{Region, attach};
use onecopy::sync::mutex::Mutex;
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::semaphore::Semaphore;
use onecopy::sync::shared::{HEADER_BYTES, OBJECT_ROOM_BYTES, Place, room_bytes};
use onecopy::{Deadline, Error, PosixName, SysvName};

use crate::support::{Scratch, unique};

/// Where the value of a lock lies.
const VALUE_OFFSET: usize = HEADER_BYTES + OBJECT_ROOM_BYTES;

fn place(len: usize) -> Place {
    Place::new(AnonymousMapping::create("overlap", len).unwrap().into_region()).unwrap()
}

fn assert_refused<T>(result: Result<T, Error>, part: &str) {
    let Err(error) = result else { panic!("not refused: {part}") };
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(part), "{error}");
}

#[test]
fn no_lock_is_made_in_the_bytes_of_another() {
    let place = place(8192);
    let big = Mutex::create(&place, [0_u8; 1000]).unwrap();
    for offset in [64, 192, 256, 1024, VALUE_OFFSET + 1000 - 40] {
        let within = place.at(offset).unwrap();
        assert_refused(Semaphore::create(&within, 1), "reach into bytes 0..1192, where this process uses a mutex");
        assert_refused(Mutex::open_or_create(&within, 0_u64, Deadline::Now), "where this process uses a mutex");
    }
    let behind = place.at(room_bytes(1000)).unwrap();
    let lock = Rwlock::create(&behind, [7_u64; 4]).unwrap();
    drop(big);
    // Nor is one that reaches into what comes behind it.
    assert_refused(Mutex::<[u8; 1100]>::attach(&place, Deadline::Now), "where this process uses a read-write lock");
    assert_eq!(*lock.read().unwrap(), [7; 4]);
    drop(lock);
    // What nobody uses is memory like other memory.
    place.region().write_at(0, &[0; 4096]).unwrap();
    Mutex::create(&place.at(256).unwrap(), 0_u64).unwrap();
}

#[test]
fn what_a_process_uses_is_not_overwritten_by_way_of_any_mapping() {
    let scratch = Scratch::new();
    let (path, link) = (scratch.path("lock"), scratch.path("link"));
    let name = PosixName::new(format!("/{}", unique("overlap"))).unwrap();
    let memfd = AnonymousMapping::create("overlap", 4096).unwrap();
    let fd = memfd.try_clone_fd().unwrap();
    let file = FileMapping::create(&path, 4096, 0o600).unwrap().into_region();
    std::fs::hard_link(&path, &link).unwrap();
    let segment =
        (0x6f63_6f76..).find_map(|key| SysvShm::create(&SysvName::key(key).unwrap(), 4096, 0o600).ok()).unwrap();
    let id = SysvName::id(segment.id()).unwrap();
    let shm = PosixShm::create(&name, 4096, 0o600).unwrap().into_region();
    let again_shm = PosixShm::open(&name).unwrap().into_region();
    PosixShm::unlink(&name).unwrap();
    let again_segment = SysvShm::open(&id).unwrap().into_region();
    segment.remove().unwrap();
    let again_memfd = AnonymousMapping::from_fd(fd).unwrap().into_region();
    let again_file = FileMapping::open(&link).unwrap().into_region();
    for (region, again) in [
        (for_children(4096).unwrap(), None),
        (memfd.into_region(), Some(again_memfd)),
        (shm, Some(again_shm)),
        (segment.into_region(), Some(again_segment)),
        (file, Some(again_file)),
    ] {
        let object = region.object().to_owned();
        let place = Place::new(region).unwrap();
        let ledger = Mutex::create(&place.at(512).unwrap(), [1_u64; 4]).unwrap();
        let end = 512 + VALUE_OFFSET + 32;
        let mut guard = ledger.lock().unwrap();
        for region in std::iter::once(&**place.region()).chain(&again) {
            for (offset, len) in [(512, 1), (511, 2), (0, 4096), (640 + 24, 16), (end - 1, 1), (end - 1, 100)] {
                assert_refused(
                    region.write_at(offset, &vec![0x41; len]),
                    "bytes 512..736, where this process uses a mutex",
                );
            }
            region.write_at(0, &[1; 512]).unwrap();
            region.write_at(end, &[1; 100]).unwrap();
            region.write_at(600, &[]).unwrap();
        }
        guard[0] += 1;
        drop(guard);
        // The same lock, by way of the other mapping: one mutex, whose bytes both handles keep.
        let second = again.map(|region| Place::new(region).unwrap().at(512).unwrap());
        let other = second.map(|place| Mutex::<[u64; 4]>::attach(&place, Deadline::Now).unwrap());
        drop(ledger);
        if let Some(other) = other {
            assert_refused(place.region().write_at(600, &[1]), "where this process uses a mutex");
            assert_eq!(*other.lock().unwrap(), [2, 1, 1, 1], "{object}");
        }
        place.region().write_at(600, &[1]).unwrap();
    }
}

#[test]
fn a_mutex_that_a_thread_holds_is_kept_though_its_handle_is_dropped_by_another() {
    let place = place(4096);
    let mutex = Mutex::create(&place, 0_u64).unwrap();
    std::thread::scope(|scope| {
        std::mem::forget(mutex.lock().unwrap());
        scope.spawn(move || drop(mutex));
    });
    // The list of this thread leads there.
    assert_refused(place.region().write_at(HEADER_BYTES, &[0; 64]), "where this process uses a mutex");
}

#[test]
fn a_mutex_of_a_kind_that_lets_its_owner_lock_it_twice_is_refused() {
    // Where the C library keeps the kind of a mutex.
    let kind_offset = HEADER_BYTES + if cfg!(target_env = "gnu") { 16 } else { 0 };
    for change in [1_u32, 3] {
        let place = place(4096);
        drop(Mutex::create(&place, 0_u64).unwrap());
        let mut kind = [0; 4];
        place.region().read_at(kind_offset, &mut kind).unwrap();
        // From PTHREAD_MUTEX_ERRORCHECK to PTHREAD_MUTEX_RECURSIVE, or to a normal one.
        place.region().write_at(kind_offset, &(u32::from_ne_bytes(kind) ^ change).to_ne_bytes()).unwrap();
        for opened in [Mutex::<u64>::attach(&place, Deadline::Now), Mutex::open_or_create(&place, 0, Deadline::Now)] {
            let error = opened.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("kind"), "{error}");
        }
    }
}

#[test]
fn a_ring_and_a_lock_do_not_lie_in_the_same_bytes() {
    let region: Arc<Region> = Arc::new(AnonymousMapping::create("overlap", 2 * MIN_RING_BYTES).unwrap().into_region());
    let place = Place::new(Arc::clone(&region)).unwrap();
    let inner = place.at(MIN_RING_BYTES - 4096).unwrap();
    let mutex = Mutex::create(&inner, 1_u64).unwrap();
    assert_refused(RingSender::attach(Arc::clone(&region), Deadline::Now), "where this process uses a mutex");
    assert_refused(RingReceiver::attach(Arc::clone(&region), Deadline::Now), "where this process uses a mutex");
    drop(mutex);
    region.write_at(0, &vec![0; MIN_RING_BYTES]).unwrap();
    let sender = RingSender::attach(Arc::clone(&region), Deadline::Now).unwrap();
    let receiver = RingReceiver::attach(Arc::clone(&region), Deadline::Now).unwrap();
    drop(receiver);
    assert_refused(Mutex::create(&inner, 1_u64), "where this process uses a ring");
    drop(sender);
    Mutex::create(&inner, 1_u64).unwrap();
}

#[test]
fn the_words_of_a_transport_and_a_lock_do_not_lie_in_the_same_bytes() {
    let region: Arc<Region> =
        Arc::new(AnonymousMapping::create("overlap", attach::CONTROL_BYTES).unwrap().into_region());
    let inner = Place::new(Arc::clone(&region)).unwrap().at(256).unwrap();
    let mutex = Mutex::create(&inner, 1_u64).unwrap();
    assert_refused(PullSender::attach(Arc::clone(&region)), "where this process uses a mutex");
    drop(mutex);
    region.write_at(0, &[0; attach::CONTROL_BYTES]).unwrap();
    let receiver = PushReceiver::attach(Arc::clone(&region)).unwrap();
    region.write_at(256, &[0; 256]).unwrap();
    assert_refused(Mutex::create(&inner, 1_u64), "where this process uses the words of a transport");
    drop(receiver);
}
