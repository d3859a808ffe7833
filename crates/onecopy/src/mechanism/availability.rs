//! Whether this kernel has a mechanism and lets this process use it, by the cheapest call that tells: one of the mechanism's
//! own wherever that leaves nothing behind.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Access, FlockOperation, MemfdFlags, access, fcntl_lock, flock, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{getpid, test_kill_process};
use rustix::pty::{OpenptFlags, openpt};
use rustix::thread::futex;

use super::Mechanism;
use crate::memory::permission::Diagnosis;
use crate::message::posix_mq::PosixQueue;
use crate::message::sysv_mq::SysvQueue;
use crate::sys::{sysv_sem, sysv_shm};
use crate::{Error, PosixName, SysvName};

/// A key and a name that hardly anybody uses. It does no harm if somebody does.
const UNLIKELY_KEY: i32 = 0x6f6e_6370;
const UNLIKELY_NAME: &str = "/onecopy-availability";

pub(super) fn of(mechanism: Mechanism) -> Result<(), String> {
    match mechanism {
        Mechanism::Pty => call(mechanism, "posix_openpt", openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)),
        Mechanism::UnixStream => socket(mechanism, AddressFamily::UNIX, SocketType::STREAM, None),
        Mechanism::UnixDgram => socket(mechanism, AddressFamily::UNIX, SocketType::DGRAM, None),
        Mechanism::UnixSeqpacket => socket(mechanism, AddressFamily::UNIX, SocketType::SEQPACKET, None),
        Mechanism::Tcp => internet(mechanism, SocketType::STREAM, None),
        Mechanism::Udp => internet(mechanism, SocketType::DGRAM, None),
        Mechanism::Sctp => internet(mechanism, SocketType::STREAM, Some(ipproto::SCTP)),
        Mechanism::PosixMq => opens(mechanism, PosixName::new(UNLIKELY_NAME).and_then(|name| PosixQueue::open(&name))),
        // One option of the kernel switches all three kinds of System V objects, a seccomp filter each of them.
        Mechanism::SysvMq => opens(mechanism, SysvName::key(UNLIKELY_KEY).and_then(|name| SysvQueue::open(&name))),
        Mechanism::SysvShm => looks(mechanism, "shmget", sysv_shm::get(UNLIKELY_KEY, sysv_shm::ANY_SIZE, 0)),
        Mechanism::SysvSemaphore => looks(mechanism, "semget", sysv_sem::get(UNLIKELY_KEY, sysv_sem::ANY_COUNT, 0)),
        Mechanism::PosixShm | Mechanism::PosixNamedSemaphore => {
            call(mechanism, "access of /dev/shm", access("/dev/shm", Access::WRITE_OK | Access::EXEC_OK))
        }
        Mechanism::AnonymousMapping => {
            call(mechanism, "memfd_create", memfd_create("onecopy-availability", MemfdFlags::CLOEXEC))
        }
        Mechanism::CmaRead | Mechanism::CmaWrite => attach(mechanism),
        Mechanism::Eventfd => call(mechanism, "eventfd", eventfd(0, EventfdFlags::CLOEXEC)),
        Mechanism::Pipe => call(mechanism, "pipe2", pipe_with(PipeFlags::CLOEXEC)),
        // What all of these sleep on; the words lie in memory that was asked for above.
        Mechanism::PosixUnnamedSemaphore
        | Mechanism::Futex
        | Mechanism::Mutex
        | Mechanism::Condvar
        | Mechanism::Barrier
        | Mechanism::Rwlock => call(mechanism, "futex", futex::wake(&AtomicU32::new(0), futex::Flags::PRIVATE, 1)),
        Mechanism::RecordLock => lock(mechanism, "fcntl", |file| fcntl_lock(file, ALONE)),
        Mechanism::FileLock => lock(mechanism, "flock", |file| flock(file, ALONE)),
        Mechanism::SignalStandard | Mechanism::SignalRealtime => call(mechanism, "kill", test_kill_process(getpid())),
        // What every Linux kernel has, and what only a path could try.
        Mechanism::Fifo | Mechanism::FileMapping => Ok(()),
    }
}

/// Nobody else has the file that is tried: it never waits.
const ALONE: FlockOperation = FlockOperation::NonBlockingLockExclusive;

/// Locks a file that only this process has; where there are no such files, nothing is known.
fn lock(mechanism: Mechanism, name: &str, take: impl FnOnce(OwnedFd) -> Result<(), Errno>) -> Result<(), String> {
    match memfd_create("onecopy-availability", MemfdFlags::CLOEXEC) {
        Ok(file) => call(mechanism, name, take(file)),
        Err(_) => Ok(()),
    }
}

/// Over IPv4, or over IPv6 where that is all there is.
fn internet(mechanism: Mechanism, kind: SocketType, protocol: Option<Protocol>) -> Result<(), String> {
    socket(mechanism, AddressFamily::INET, kind, protocol)
        .or_else(|error| socket(mechanism, AddressFamily::INET6, kind, protocol).map_err(|_| error))
}

fn socket(
    mechanism: Mechanism,
    family: AddressFamily,
    kind: SocketType,
    protocol: Option<Protocol>,
) -> Result<(), String> {
    call(mechanism, "socket", socket_with(family, kind, SocketFlags::CLOEXEC, protocol))
}

fn call<T>(mechanism: Mechanism, call: &str, result: Result<T, Errno>) -> Result<(), String> {
    match result {
        // A shortage says nothing about the kernel.
        Ok(_) | Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Ok(()),
        Err(errno) => Err(refused(mechanism, call, &errno.into())),
    }
}

/// Judges an attempt to open an object that is probably not there: its absence shows that the kernel looked.
fn opens<T>(mechanism: Mechanism, result: crate::Result<T>) -> Result<(), String> {
    match result {
        Err(Error::Os { call, source, .. }) if matches!(source.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            Err(refused(mechanism, call, &source))
        }
        _ => Ok(()),
    }
}

/// The same, of an attempt that only asks for an identifier.
fn looks(mechanism: Mechanism, call: &str, result: io::Result<i32>) -> Result<(), String> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            Err(refused(mechanism, call, &error))
        }
        _ => Ok(()),
    }
}

/// Attaches to this process itself: from a child where a seccomp filter may answer by killing who asks.
fn attach(mechanism: Mechanism) -> Result<(), String> {
    let own = Diagnosis::of(std::process::id());
    let (call, verdict) = match mechanism {
        Mechanism::CmaWrite => ("process_vm_writev", own.write),
        _ => ("process_vm_readv", own.read),
    };
    match (verdict.allowed, verdict.errno) {
        (Some(false), Some(errno)) => Err(refused(mechanism, call, &io::Error::from_raw_os_error(errno))),
        (Some(false), None) => Err(format!("{call} is refused here: {}", verdict.evidence.join(", "))),
        // A shortage says nothing about the kernel.
        _ => Ok(()),
    }
}

fn refused(mechanism: Mechanism, call: &str, source: &io::Error) -> String {
    let text = source.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let name = source.raw_os_error().map_or_else(String::new, |errno| format!(" ({})", errno_name(errno)));
    match mechanism {
        Mechanism::Sctp => format!("this kernel has no SCTP{name}"),
        _ => format!("{call} is refused here: {words}{name}"),
    }
}

/// The symbol of an errno: `ENOSYS`.
fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}
