//! POSIX shared memory and named semaphores: the files of /dev/shm, [shm_overview(7)](https://man7.org/linux/man-pages/man7/shm_overview.7.html).

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use onecopy::address::{BarrierName, RegionName};
use onecopy::contents::Contents;
use onecopy::{Address, Mechanism, PosixName};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::leftover::{FileId, Leftover, Outcome, Spot};
use super::object::{Object, State};
use super::processes::Processes;
use super::text::bytes;

const DIRECTORY: &str = "/dev/shm";
/// What begins the name of a semaphore's file (sem_overview(7)).
const SEMAPHORE: &[u8] = b"sem.";

/// All of them, with what lies in the memory where it is one of our structures.
///
/// Memory counts as left behind when such a structure proves it, or the name (the rules stand in the library's module `contents`), and
/// nobody is seen to have it open or mapped. Anything else that nobody uses may be somebody's data.
pub(super) fn objects(processes: &Processes) -> Vec<Object> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Vec::new() };
    entries.flatten().filter_map(|entry| object(entry.file_name(), &entry.path(), processes)).collect()
}

fn object(name: OsString, path: &Path, processes: &Processes) -> Option<Object> {
    let id = FileId::of(path).filter(FileId::is_regular)?;
    let file = open(path);
    let users = processes.users_of_file(id.inode);
    let contents = contents(path, file.as_ref());
    let name = name.into_vec();
    let mut object = if let Some(name) = name.strip_prefix(SEMAPHORE) {
        let address = Address::NamedSemaphore(posix_name(name)?);
        let object = Object::new(Mechanism::PosixNamedSemaphore, address).owned_by(id.uid, id.mode);
        semaphore(object.used_by(users, processes), file.as_ref())
    } else {
        let object = memory(posix_name(&name)?, contents.as_ref()).owned_by(id.uid, id.mode);
        let mut object = object.used_by(users, processes);
        object.figures.push(("size_bytes", id.bytes));
        object.words = bytes(id.bytes);
        object
    };
    if let Some(contents) = &contents {
        describe(&mut object, contents, processes);
    }
    let proof = contents.as_ref().and_then(Contents::left_behind).filter(|_| object.users.is_empty());
    if let Some(proof) = proof {
        object.state = State::Stale(proof.to_owned());
        object.leftover = Some(Leftover::Memory(Memory { path: path.to_owned(), id }));
    }
    Some(object)
}

/// What the name says, and else what lies in the file, unless it is a semaphore's.
fn contents(path: &Path, file: Option<&File>) -> Option<Contents> {
    let name = path.file_name()?;
    let is_memory = !name.as_bytes().starts_with(SEMAPHORE);
    let named = Contents::of_file_name(name).ok().flatten();
    named.or_else(|| file.filter(|_| is_memory).and_then(|file| Contents::of_file(file).ok().flatten()))
}

fn posix_name(name: &[u8]) -> Option<PosixName> {
    PosixName::new(OsString::from_vec([b"/", name].concat())).ok()
}

/// Without following a link that somebody may have put there, and without waiting.
fn open(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).ok().map(File::from)
}

/// The address by which it is used: that of the lock in it, where there is one.
fn memory(name: PosixName, contents: Option<&Contents>) -> Object {
    let region = RegionName::PosixShm(name.clone());
    let lock = contents.and_then(Contents::mechanism).and_then(|mechanism| {
        let address = match mechanism {
            Mechanism::PosixUnnamedSemaphore => Address::Semaphore(region),
            Mechanism::Futex => Address::Futex(region),
            Mechanism::Mutex => Address::Mutex(region),
            Mechanism::Condvar => Address::Condvar(region),
            Mechanism::Rwlock => Address::Rwlock(region),
            Mechanism::Barrier => Address::Barrier(BarrierName::new(region, contents?.parties()?).ok()?),
            _ => return None,
        };
        Some((mechanism, address))
    });
    let mut object = match lock {
        Some((mechanism, address)) => Object::new(mechanism, address),
        None => Object::new(Mechanism::PosixShm, Address::PosixShm(name)),
    };
    object.memory = Some(Mechanism::PosixShm);
    object
}

fn describe(object: &mut Object, contents: &Contents, processes: &Processes) {
    object.words = [&*object.words, contents.name()].join(", ");
    if !contents.state().is_empty() {
        object.words = format!("{} {}", object.words, contents.state());
    }
    for owner in contents.owners() {
        let exited = if owner.has_exited { " (exited)" } else { "" };
        object.words += &format!(", {} {}{exited}", owner.role, owner.pid);
        object.noted.push(owner.pid);
        if !owner.has_exited && processes.get(owner.pid).is_some_and(|process| process.open.is_none()) {
            // It says so itself, though its mappings cannot be seen.
            object.users.push(processes.user(owner.pid));
            object.state = State::Used;
        }
    }
}

/// The value of glibc's semaphore, and above it how many wait, are its first eight bytes.
fn semaphore(object: Object, file: Option<&File>) -> Object {
    let mut words = [0; 8];
    let is_read = file.is_some_and(|file| file.read_exact_at(&mut words, 0).is_ok());
    if !is_read || cfg!(not(target_env = "gnu")) {
        return object;
    }
    let [value, waiters] =
        [words[..4].try_into(), words[4..].try_into()].map(|half| half.map_or(0, u32::from_ne_bytes));
    let object = object.figure("value", value.into()).figure("waiters", waiters.into());
    let waiting = if waiters == 0 { String::new() } else { format!(", {waiters} waiting") };
    object.says(format!("value {value}{waiting}"))
}

/// Memory that a structure in it, or its name, proves to be left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    path: PathBuf,
    id: FileId,
}

impl Memory {
    /// Removes it if the same file still proves that. A process that opens it between the look and the removal is
    /// left with memory that no other process finds; it is told so by nobody coming.
    pub(super) fn remove(&self) -> Outcome {
        let proved = contents(&self.path, open(&self.path).as_ref());
        if proved.is_none_or(|contents| contents.left_behind().is_none()) {
            return Outcome::Alive;
        }
        Spot::of(&self.path).map_or(Outcome::Alive, |spot| spot.unlink(&self.id))
    }
}
