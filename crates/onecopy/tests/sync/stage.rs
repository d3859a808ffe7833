//! Two processes with an object in each kind of shared memory.
//!
//! # Safety
//!
//! The process that forks runs one test on one thread; what its child does depends on no other thread, and it ends by `_exit`.
#![expect(unsafe_code, reason = "fork, without which nobody inherits a mapping that has no descriptor")]

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use onecopy::memory::Region;
use onecopy::memory::anonymous::{AnonymousMapping, for_children};
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::posix_shm::PosixShm;
use onecopy::memory::sysv_shm::SysvShm;
use onecopy::open::{OpenOptions, open_region};
use onecopy::sync::mutex::Mutex;
use onecopy::sync::shared::Place;
use onecopy::{Address, Deadline, PosixName, SysvName};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::support::{Peer, Scratch, argument, role, unique, watchdog};

const LEN: usize = 4096;
/// Where each stage has a word by which its processes take turns.
const TURN_OFFSET: usize = LEN - 256;

/// Where an object can lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Inherited,
    Memfd,
    PosixShm,
    SysvShm,
    File,
}

/// Memory that is removed at the end of the test, and how a second process finds it.
pub(crate) struct Shared {
    pub(crate) place: Place,
    fd: Option<OwnedFd>,
    address: String,
    _end: End,
}

enum End {
    Nothing,
    Unlink(PosixName),
    Remove(SysvShm),
    Directory { _scratch: Scratch },
}

impl Drop for End {
    fn drop(&mut self) {
        match self {
            Self::Unlink(name) => drop(PosixShm::unlink(name)),
            Self::Remove(segment) => drop(segment.remove()),
            Self::Nothing | Self::Directory { .. } => {}
        }
    }
}

impl Shared {
    pub(crate) fn new(memory: Memory) -> Self {
        match memory {
            Memory::Inherited => Self::of(for_children(LEN).unwrap(), None, String::new(), End::Nothing),
            Memory::Memfd => {
                let mapping = AnonymousMapping::create("stage", LEN).unwrap();
                let fd = mapping.try_clone_fd().unwrap();
                Self::of(mapping.into_region(), Some(fd), "fd:0".to_owned(), End::Nothing)
            }
            Memory::PosixShm => {
                let name = PosixName::new(format!("/{}", unique("lock"))).unwrap();
                let region = PosixShm::create(&name, LEN, 0o600).unwrap().into_region();
                Self::of(region, None, format!("shm:{name}"), End::Unlink(name))
            }
            Memory::SysvShm => {
                let segment = new_segment();
                let address = SysvName::id(segment.id()).unwrap();
                let region = SysvShm::open(&address).unwrap().into_region();
                Self::of(region, None, format!("sysv-shm:{address}"), End::Remove(segment))
            }
            Memory::File => {
                let scratch = Scratch::new();
                let path = scratch.path("lock");
                let region = FileMapping::create(&path, LEN, 0o600).unwrap().into_region();
                let end = End::Directory { _scratch: scratch };
                Self::of(region, None, format!("mmap:{}", path.display()), end)
            }
        }
    }

    fn of(region: Region, fd: Option<OwnedFd>, address: String, end: End) -> Self {
        Self { place: Place::new(region).unwrap(), fd, address, _end: end }
    }

    /// How a second process finds it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A second process that finds the memory by [`adopted`].
    pub(crate) fn peer(&self, test: &str, role: &str) -> Peer {
        Peer::configure(test, role, &[("AT", &self.address)], |command| {
            if let Some(fd) = &self.fd {
                command.stdin(Stdio::from(fd.as_fd().try_clone_to_owned().unwrap()));
            }
        })
    }
}

/// A segment under a key that nobody has.
fn new_segment() -> SysvShm {
    for key in 0x6f63_7379.. {
        if let Ok(segment) = SysvShm::create(&SysvName::key(key).unwrap(), LEN, 0o600) {
            return segment;
        }
    }
    unreachable!()
}

/// The memory that the test gave to this second process.
pub(crate) fn adopted() -> Place {
    let address: Address = argument("AT").parse().unwrap();
    // So that it does not lie where it lies in the other process.
    std::mem::forget(AnonymousMapping::create("filler", 64 * LEN).unwrap());
    let options = OpenOptions { create: false, ..OpenOptions::default() };
    Place::new(open_region(&address, LEN, &options).unwrap()).unwrap()
}

/// Runs `work` in two processes, as number 0 and number 1, at once, on the memory in which `set_up` made something, and then
/// `check`.
pub(crate) fn two_processes(
    test: &str,
    memory: Memory,
    set_up: impl Fn(&Place),
    work: impl Fn(&Place, usize),
    check: impl Fn(&Place),
) {
    match role().as_deref() {
        Some("forks") => return forked(&set_up, &work, &check),
        Some(_) => return work(&adopted(), 1),
        None => {}
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    if memory == Memory::Inherited {
        return Peer::start(test, "forks", &[]).succeed();
    }
    let shared = Shared::new(memory);
    Turn::create(&shared.place);
    set_up(&shared.place);
    let peer = shared.peer(test, "second");
    work(&shared.place, 0);
    peer.succeed();
    check(&shared.place);
}

fn forked(set_up: &impl Fn(&Place), work: &impl Fn(&Place, usize), check: &impl Fn(&Place)) {
    let shared = Shared::new(Memory::Inherited);
    Turn::create(&shared.place);
    set_up(&shared.place);
    let child = fork(|| work(&shared.place, 1));
    work(&shared.place, 0);
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child");
    check(&shared.place);
}

/// Runs `work` in a child.
pub(crate) fn fork(work: impl FnOnce()) -> Pid {
    // SAFETY: see above.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
        // SAFETY: ends the process; whatever it has in memory is a copy.
        unsafe { libc::_exit(i32::from(!done)) };
    }
    Pid::from_raw(child).expect("fork")
}

/// A number by which the processes of a stage wait for each other. It has a lock of its own.
pub(crate) struct Turn(Mutex<u64>);

impl Turn {
    fn create(place: &Place) {
        Mutex::create(&place.at(TURN_OFFSET).unwrap(), 0_u64).unwrap();
    }

    pub(crate) fn of(place: &Place) -> Self {
        Self(Mutex::attach(&place.at(TURN_OFFSET).unwrap(), Deadline::Now).unwrap())
    }

    pub(crate) fn set(&self, turn: u64) {
        *self.0.lock().unwrap() = turn;
    }

    pub(crate) fn add(&self) -> u64 {
        let mut turn = self.0.lock().unwrap();
        *turn += 1;
        *turn
    }

    /// Waits until the number is at least `turn`.
    pub(crate) fn wait_for(&self, turn: u64) {
        while *self.0.lock().unwrap() < turn {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until both processes have come here for the `round`th time, from 1 on.
    pub(crate) fn meet(&self, round: u64) {
        self.add();
        self.wait_for(2 * round);
    }
}

/// One test for each kind of memory: `$set_up` makes the object, `$work` runs in two processes at once, `$check` looks.
macro_rules! in_all_memory {
    ($module:literal, $set_up:expr, $work:expr, $check:expr) => {
        crate::stage::in_all_memory! { @each $module, $set_up, $work, $check,
            in_inherited_memory Inherited, in_a_memfd Memfd, in_posix_shared_memory PosixShm,
            in_a_system_v_segment SysvShm, in_a_file File
        }
    };
    (@each $module:literal, $set_up:expr, $work:expr, $check:expr, $($name:ident $memory:ident),*) => {
        $(
            #[test]
            fn $name() {
                let test = concat!($module, "::", stringify!($name));
                crate::stage::two_processes(test, crate::stage::Memory::$memory, $set_up, $work, $check);
            }
        )*
    };
}
pub(crate) use in_all_memory;
