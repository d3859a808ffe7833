//! What wakes and what locks: one object for each direction, or one lock, opened by address as a program would.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::rc::Rc;

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::open::{self, BoxedNotify, BoxedWait, OpenOptions};
use onecopy::sync::sysv_semaphore::SysvSemaphore;
use onecopy::sync::{Notify, Wait as _};
use onecopy::{Address, Deadline, Error, Result, SysvName};
use rustix::event::{EventfdFlags, eventfd};

use super::{KEYS, Prepared, missing, os, random_key};
use crate::control::{Join, Link, Side};
use crate::janitor::{Janitor, Leftover};
use crate::primitive::{Primitive, Use};
use crate::workloads::lines::{self, Lines};
use crate::workloads::lock::Contest;
use crate::workloads::wake::Bell;

/// Room for any object that lives in shared memory.
const REGION_BYTES: usize = 4096;

/// What both processes share: numbers in memory first, then descriptors of the objects that have no name.
pub(crate) fn prepare(primitive: Primitive, usage: Use, link: &mut Link, janitor: &Rc<Janitor>) -> Result<Prepared> {
    let objects = if usage == Use::Wake && primitive != Primitive::Barrier { 2 } else { 1 };
    let mut fds = vec![lines::create().map_err(|errno| os("memfd_create", "two cache lines", errno))?];
    let mut prepared = Prepared::default();
    if matches!(primitive, Primitive::RecordLock | Primitive::FileLock) {
        // A lock on a file that is gone excludes nobody.
        prepared.keep_directory(link, janitor)?;
    }
    for index in 0..objects {
        match primitive {
            _ if primitive.is_in_memory() => {
                let memory = AnonymousMapping::create("onecopy-bench", REGION_BYTES)?;
                fds.push(memory.as_fd().try_clone_to_owned().map_err(|error| os("dup", "a memfd", error))?);
            }
            Primitive::Eventfd => {
                fds.push(eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| os("eventfd", "an eventfd", errno))?);
            }
            Primitive::SysvSemaphore => {
                let set = create_sysv(usage)?;
                link.ids.push(set.id());
                prepared.remove_at_the_end(janitor.guard(Leftover::SysvSemaphore(set.id())));
            }
            Primitive::PosixNamedSemaphore => {
                let name = format!("/{}-{index}", link.stem);
                prepared.remove_when_joined(janitor.guard(Leftover::NamedSemaphore(name)));
            }
            _ => {}
        }
    }
    let copies = fds.iter().map(OwnedFd::try_clone).collect::<std::io::Result<_>>();
    prepared.host = copies.map_err(|error| os("dup", "the objects", error))?;
    prepared.guest = fds;
    Ok(prepared)
}

/// A set of one semaphore that is ours alone: free as a lock, or with nothing posted yet.
fn create_sysv(usage: Use) -> Result<SysvSemaphore> {
    let value = u16::from(usage != Use::Wake);
    let mut attempt = 0;
    loop {
        attempt += 1;
        match SysvSemaphore::create(&SysvName::key(random_key())?, &[value], 0o600) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && attempt < KEYS => {}
            created => return created,
        }
    }
}

/// Opens both directions of what wakes.
pub(crate) fn bell(primitive: Primitive, join: &Join, fds: &[OwnedFd]) -> Result<Bell> {
    let numbers = numbers(fds)?;
    let [forth, back] = match primitive {
        Primitive::Barrier => [0, 0],
        _ => [0, 1],
    };
    let (mine, theirs) = match join.side {
        Side::Host => (forth, back),
        Side::Guest => (back, forth),
    };
    let options = options();
    // To wait comes first: a signal that came before it was blocked would end the process.
    let mine = open::open_wait(&address(primitive, join, fds, Toward::Me(mine))?, &options)?;
    let theirs: BoxedNotify = match primitive {
        Primitive::Barrier => {
            Box::new(Meet(open::open_wait(&address(primitive, join, fds, Toward::Other(theirs))?, &options)?))
        }
        _ => open::open_notify(&address(primitive, join, fds, Toward::Other(theirs))?, &options)?,
    };
    Ok(Bell { theirs, mine, numbers })
}

/// Opens the lock.
pub(crate) fn contest(primitive: Primitive, contended: bool, join: &Join, fds: &[OwnedFd]) -> Result<Contest> {
    let lock = open::open_lock(&address(primitive, join, fds, Toward::Other(0))?, &options())?;
    Ok(Contest::new(lock, contended, numbers(fds)?))
}

/// At a barrier whoever wakes the other waits for it, too.
struct Meet(BoxedWait);

impl Notify for Meet {
    fn notify_by(&mut self, count: u32, deadline: Deadline) -> Result<()> {
        (0..count).try_for_each(|_| self.0.wait_by(deadline))
    }

    fn object(&self) -> &str {
        self.0.object()
    }
}

/// Which object, and whose process a signal goes to.
#[derive(Clone, Copy)]
enum Toward {
    Me(usize),
    Other(usize),
}

/// The address of an object, as a user would write it.
fn address(primitive: Primitive, join: &Join, fds: &[OwnedFd], toward: Toward) -> Result<Address> {
    let (Toward::Me(index) | Toward::Other(index)) = toward;
    let link = &join.link;
    let number = || fds.get(1 + index).map(OwnedFd::as_raw_fd).ok_or_else(|| missing("a descriptor"));
    let file = link.directory.join("lock").display().to_string();
    let text = match primitive {
        Primitive::PosixNamedSemaphore => format!("sem:/{}-{index}", link.stem),
        Primitive::PosixUnnamedSemaphore => format!("sem:fd:{}", number()?),
        Primitive::SysvSemaphore => {
            format!("sysv-sem:id={}", link.ids.get(index).ok_or_else(|| missing("the identifier of a set"))?)
        }
        Primitive::Eventfd => format!("fd:{}", number()?),
        Primitive::Futex => format!("futex:fd:{}", number()?),
        Primitive::RecordLock => format!("record:{file}"),
        Primitive::FileLock => format!("flock:{file}"),
        Primitive::Mutex => format!("mutex:fd:{}", number()?),
        Primitive::Condvar => format!("condvar:fd:{}", number()?),
        Primitive::Barrier => format!("barrier:fd:{}?parties=2", number()?),
        Primitive::Rwlock => format!("rwlock:fd:{}", number()?),
        Primitive::SignalStandard => signal(join, toward, "USR1"),
        Primitive::SignalRealtime => signal(join, toward, "RTMIN"),
    };
    text.parse().map_err(|error| Error::Invalid { object: text.clone(), reason: format!("{error}") })
}

fn signal(join: &Join, toward: Toward, name: &str) -> String {
    match toward {
        Toward::Me(_) => format!("signal:self?sig={name}"),
        Toward::Other(_) => format!("signal:{}?sig={name}", join.link.pids[join.side.other() as usize]),
    }
}

fn options() -> OpenOptions {
    OpenOptions { deadline: Deadline::Never, ..OpenOptions::default() }
}

fn numbers(fds: &[OwnedFd]) -> Result<Lines> {
    let fd = fds.first().ok_or_else(|| missing("memory for two cache lines"))?;
    Lines::map(fd).map_err(|errno| os("mmap", "two cache lines", errno))
}
