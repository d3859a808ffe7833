//! What shared memory says of itself, to whoever only reads its beginning.

mod support;

use std::fs::File;

use onecopy::contents::Contents;
use onecopy::memory::posix_shm::PosixShm;
use onecopy::memory::ring::{RING_BYTES, RingReceiver, RingSender};
use onecopy::sync::mutex::Mutex;
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::semaphore::Semaphore;
use onecopy::sync::shared::Place;
use onecopy::{Deadline, Mechanism, PosixName, Sender as _};

use support::{Peer, argument, role, unique};

/// Shared memory that goes at the end of the test.
struct Memory(PosixName);

impl Memory {
    fn new(bytes: usize) -> (Self, PosixShm) {
        let name = PosixName::new(format!("/{}", unique("contents"))).unwrap();
        let memory = PosixShm::create(&name, bytes, 0o600).unwrap();
        (Self(name), memory)
    }

    fn contents(&self) -> Option<Contents> {
        Contents::of_file(&File::open(format!("/dev/shm{}", self.0)).unwrap()).unwrap()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = PosixShm::unlink(&self.0);
    }
}

#[test]
fn memory_of_something_else_is_none_of_ours() {
    let (memory, shm) = Memory::new(4096);
    assert_eq!(memory.contents(), None, "zeros");
    shm.into_region().write_at(0, b"1copysyn and then something else").unwrap();
    assert_eq!(memory.contents(), None, "a header that is none");
    let (short, _shm) = Memory::new(1);
    assert_eq!(short.contents(), None);
}

#[test]
fn locks_tell_their_state_and_are_never_left_behind() {
    let told = |memory: &Memory| {
        let found = memory.contents().unwrap();
        assert_eq!((found.left_behind(), found.owners()), (None, &[][..]));
        (found.mechanism(), found.state().to_owned())
    };
    let is_told = cfg!(target_env = "gnu");
    let (memory, shm) = Memory::new(4096);
    let mutex = Mutex::create(&Place::new(shm.into_region()).unwrap(), 0_u8).unwrap();
    let guard = mutex.lock().unwrap();
    let (mechanism, state) = told(&memory);
    assert_eq!(mechanism, Some(Mechanism::Mutex));
    assert!(!is_told || state.starts_with("held by thread "), "{state}");
    drop(guard);
    assert!(!is_told || told(&memory).1 == "free");

    let (memory, shm) = Memory::new(4096);
    let rwlock = Rwlock::create(&Place::new(shm.into_region()).unwrap(), 0_u8).unwrap();
    let reading = rwlock.read().unwrap();
    assert!(!is_told || told(&memory) == (Some(Mechanism::Rwlock), "held by 1 readers".into()), "{:?}", told(&memory));
    drop(reading);
    let writing = rwlock.write().unwrap();
    assert!(!is_told || told(&memory).1.starts_with("held for writing by thread "));
    drop(writing);
    assert!(!is_told || told(&memory).1 == "free");

    let (memory, shm) = Memory::new(4096);
    let _semaphore = Semaphore::create(&Place::new(shm.into_region()).unwrap(), 4).unwrap();
    assert_eq!(told(&memory).0, Some(Mechanism::PosixUnnamedSemaphore));
    assert!(!is_told || told(&memory).1 == "value 4");
}

#[test]
fn a_ring_is_left_behind_by_two_that_were_killed_and_by_nobody_else() {
    const TEST: &str = "a_ring_is_left_behind_by_two_that_were_killed_and_by_nobody_else";
    match role().as_deref() {
        Some(side) => {
            let name = PosixName::new(argument("name")).unwrap();
            let region = PosixShm::open(&name).unwrap().into_region();
            let hold: Box<dyn std::any::Any> = if side == "sender" {
                let mut sender = RingSender::attach(region, Deadline::Now).unwrap();
                sender.send(b"one").unwrap();
                Box::new(sender)
            } else {
                Box::new(RingReceiver::attach(region, Deadline::Now).unwrap())
            };
            println!("\nattached");
            std::thread::park();
            drop(hold);
        }
        None => {
            let (memory, _shm) = Memory::new(RING_BYTES);
            let start = |side: &str| {
                let mut peer = Peer::start(TEST, side, &[("name", &memory.0.to_string())]);
                peer.wait_for_line("attached");
                peer
            };
            let left_behind = || memory.contents().unwrap().left_behind().map(str::to_owned);
            let mut sender = start("sender");
            assert_eq!(left_behind(), None, "it lives");
            sender.kill();
            assert_eq!(left_behind(), None, "a receiver may come for the message");
            let mut receiver = start("receiver");
            assert_eq!(left_behind(), None, "the receiver lives");
            let owners = memory
                .contents()
                .unwrap()
                .owners()
                .iter()
                .map(|owner| (owner.role, owner.has_exited))
                .collect::<Vec<_>>();
            assert_eq!(owners, [("sender", true), ("receiver", false)]);
            receiver.kill();
            assert!(left_behind().unwrap().contains("have exited without closing it"));
            // Whoever comes next takes the roles over, and it is in use again.
            let region = PosixShm::open(&memory.0).unwrap().into_region();
            let sender = RingSender::attach(region, Deadline::Now).unwrap();
            assert_eq!(left_behind(), None);
            drop(sender);
            assert_eq!(left_behind(), None, "one that closed may have left messages");
        }
    }
}
