//! A program in C that shares our objects by their documented offsets.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use onecopy::memory::posix_shm::PosixShm;
use onecopy::sync::barrier::Barrier;
use onecopy::sync::condvar::{Condvar, Woken};
use onecopy::sync::mutex::{LockError, Mutex};
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::shared::Place;
use onecopy::{Deadline, PosixName};

use crate::support::{Scratch, skip, unique, watchdog};

const ROUNDS: u64 = 300;
/// Which of the two this process is; the program is the other one.
const OURS: usize = 0;

/// The program, compiled; `None` without a compiler.
fn compiled(scratch: &Scratch) -> Option<PathBuf> {
    let program = scratch.path("c_program");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sync/c_program.c");
    let output =
        Command::new("cc").args(["-Wall", "-Werror", "-O1", "-pthread", "-o"]).arg(&program).arg(source).output();
    let output = output.ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

/// Shared memory that both have, and the objects in it.
struct Stage {
    name: PosixName,
    place: Place,
    program: PathBuf,
    _scratch: Scratch,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = PosixShm::unlink(&self.name);
    }
}

impl Stage {
    fn new(test: &str) -> Option<Self> {
        let scratch = Scratch::new();
        let Some(program) = compiled(&scratch) else {
            skip(test, "there is no cc");
            return None;
        };
        let name = PosixName::new(format!("/{}", unique("c"))).unwrap();
        let region = PosixShm::create(&name, 4096, 0o600).unwrap().into_region();
        Some(Self { name, place: Place::new(region).unwrap(), program, _scratch: scratch })
    }

    fn create(&self) {
        Mutex::create(&self.place, [0_u64; 3]).unwrap();
        Condvar::create(&self.at(512)).unwrap();
        Rwlock::create(&self.at(1024), [0_u64; 2]).unwrap();
        Barrier::create(&self.at(1536), 2).unwrap();
    }

    fn at(&self, offset: usize) -> Place {
        self.place.at(offset).unwrap()
    }

    fn start(&self, role: &str) -> Child {
        Command::new(&self.program).arg(self.name.to_string()).arg(role).spawn().unwrap()
    }

    /// The part of this process in what the program does too.
    fn work(&self) {
        let soon = Deadline::after(Duration::from_secs(30));
        // The last one that the program publishes.
        let barrier = Barrier::attach(&self.at(1536), soon).unwrap();
        let mutex = Mutex::<[u64; 3]>::attach(&self.place, Deadline::Now).unwrap();
        let condvar = Condvar::attach(&self.at(512), Deadline::Now).unwrap();
        let rwlock = Rwlock::<[u64; 2]>::attach(&self.at(1024), Deadline::Now).unwrap();
        for _ in 0..ROUNDS {
            let guard = mutex.lock().unwrap();
            let (mut turns, woken) = condvar.wait_while_by(guard, soon, |turns| turns[0] != OURS as u64).unwrap();
            assert_eq!(woken, Woken::Notified);
            turns[0] = 1 - OURS as u64;
            turns[1 + OURS] += 1;
            condvar.notify_one().unwrap();
            drop(turns);
            let pair = rwlock.read_by(soon).unwrap();
            assert_eq!(pair[0], pair[1]);
            drop(pair);
            let mut pair = rwlock.write_by(soon).unwrap();
            pair[0] += 1;
            pair[1] += 1;
            drop(pair);
            barrier.wait_by(soon).unwrap();
        }
        assert_eq!(*mutex.lock().unwrap(), [OURS as u64, ROUNDS, ROUNDS]);
        assert_eq!(*rwlock.read().unwrap(), [2 * ROUNDS; 2]);
    }
}

#[test]
fn it_uses_what_we_create() {
    let _watchdog = watchdog(Duration::from_secs(90));
    let Some(stage) = Stage::new("c_program::it_uses_what_we_create") else { return };
    stage.create();
    let mut program = stage.start("join");
    stage.work();
    assert!(program.wait().unwrap().success());
}

#[test]
fn we_use_what_it_creates() {
    let _watchdog = watchdog(Duration::from_secs(90));
    let Some(stage) = Stage::new("c_program::we_use_what_it_creates") else { return };
    let mut program = stage.start("create");
    stage.work();
    assert!(program.wait().unwrap().success());
}

#[test]
fn its_death_with_the_mutex_is_told() {
    let _watchdog = watchdog(Duration::from_secs(90));
    let Some(stage) = Stage::new("c_program::its_death_with_the_mutex_is_told") else { return };
    stage.create();
    assert!(stage.start("die").wait().unwrap().success());
    let mutex = Mutex::<[u64; 3]>::attach(&stage.place, Deadline::Now).unwrap();
    let Err(LockError::OwnerDied(died)) = mutex.lock() else { panic!("the program has ended") };
    drop(died.repair(|_| ()).unwrap());
    drop(mutex.lock().unwrap());
}
