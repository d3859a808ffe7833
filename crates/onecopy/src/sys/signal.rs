//! Signals by number: rustix and nix know the standard ones only.
//!
//! # Safety
//!
//! The functions take numbers and descriptors, and hand the kernel pointers to values on their own stack only. To block a
//! signal changes when this thread receives it, and nothing that memory safety rests on.
#![expect(unsafe_code, reason = "real-time signals have no type in rustix and nix")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use rustix::io::Errno;

use super::last_errno;

/// `siginfo_t` as sigqueue(3) fills it: a number, `SI_QUEUE`, the sender and a payload.
#[repr(C)]
struct Queued {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u8; 96],
}

const _: () = assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>());

/// What a thread blocks.
pub(crate) struct Mask(libc::sigset_t);

/// Blocks `signals` in this thread, beside what it blocks already, which is returned.
pub(crate) fn block(signals: &[i32]) -> Result<Mask, Errno> {
    let (signals, mut before) = (set(signals), set(&[]));
    // SAFETY: two initialised sets.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, &raw mut before) } {
        0 => Ok(Mask(before)),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Has this thread block just what it did before.
pub(crate) fn restore(before: &Mask) {
    // SAFETY: an initialised set, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before.0, ptr::null_mut()) };
}

/// A descriptor from which `signals` are read, without waiting.
pub(crate) fn signalfd(signals: &[i32]) -> Result<OwnedFd, Errno> {
    let set = set(signals);
    // SAFETY: `set` is an initialised set; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call above has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process behind `pidfd`: as kill(2) does, or with a payload as sigqueue(3) does.
pub(crate) fn send(pidfd: BorrowedFd<'_>, signal: i32, value: Option<i32>) -> Result<(), Errno> {
    let queued = value.map(|value| Queued {
        signal,
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        pid: std::process::id() as i32,
        uid: rustix::process::getuid().as_raw(),
        // A sigval is a union of an int and a pointer: the int lies where the pointer begins.
        value: u64::from_ne_bytes(both_halves(value)),
        rest: [0; 96],
    });
    let info = queued.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `info` is null or points to a value of the size of a siginfo_t that lives until the end of this function.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    if sent == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Has `command` begin with no signal blocked.
pub(crate) fn unblock_all_in(command: &mut Command) {
    // SAFETY: between fork and exec `unblock_all` makes two calls that signal-safety(7) allows there, on a set on its own
    // stack; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(unblock_all) };
}

fn unblock_all() -> io::Result<()> {
    let none = set(&[]);
    // SAFETY: `none` is an initialised set, and the old mask is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The int first in memory, then zeros.
fn both_halves(value: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_ne_bytes());
    bytes
}

fn set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set is initialised; a number without a signal is refused with EINVAL and adds nothing.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: initialised by the first call.
    unsafe { set.assume_init() }
}
