//! System V semaphores: [semget(2)](https://man7.org/linux/man-pages/man2/semget.2.html), semop(2), semctl(2).
//!
//! # Safety
//!
//! A set is named by a plain number, so anyone may call these functions; a wrong number is an error of the kernel. The kernel
//! keeps no pointer. Two commands read or write as many values as the set has, which no argument limits: see [`Values`].
#![expect(unsafe_code, reason = "neither rustix nor nix has System V semaphores")]

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
#[cfg(target_env = "gnu")]
use std::mem::offset_of;
use std::ptr;

use rustix::event::Timespec;

/// As a wish, 0 fits every set that exists.
pub(crate) const ANY_COUNT: i32 = 0;

/// The four numbers of /proc/sys/kernel/sem, each the kernel's own default where it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// SEMMSL: semaphores of one set.
    pub(crate) in_set: usize,
    /// SEMMNS: semaphores of all sets.
    pub(crate) in_all: usize,
    /// SEMOPM: operations of one call.
    pub(crate) operations: usize,
    /// SEMMNI: sets.
    pub(crate) sets: usize,
}

/// The limits of this IPC namespace.
pub(crate) fn limits() -> Limits {
    let text = std::fs::read_to_string("/proc/sys/kernel/sem").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    let mut next = |fallback| numbers.next().flatten().unwrap_or(fallback);
    Limits { in_set: next(32_000), in_all: next(1_024_000_000), operations: next(500), sets: next(32_000) }
}

/// The kernel's `struct semid64_ds`, which libc declares for glibc alone.
#[repr(C)]
pub(crate) struct Status {
    pub(crate) permissions: libc::ipc_perm,
    /// When a process operated on it last, in seconds since 1970.
    pub(crate) operation_time: i64,
    #[cfg(target_arch = "x86_64")]
    unused_1: u64,
    /// When it was created or changed.
    pub(crate) change_time: i64,
    #[cfg(target_arch = "x86_64")]
    unused_2: u64,
    /// How many semaphores it has.
    pub(crate) count: u64,
    unused: [u64; 2],
}

#[cfg(target_env = "gnu")]
const _: () = {
    assert!(size_of::<Status>() == size_of::<libc::semid_ds>());
    assert!(offset_of!(Status, change_time) == offset_of!(libc::semid_ds, sem_ctime));
    assert!(offset_of!(Status, count) == offset_of!(libc::semid_ds, sem_nsems));
};

/// The last argument of semctl(2), which the caller has to define.
#[repr(C)]
union Argument {
    value: c_int,
    status: *mut Status,
    values: *mut u16,
}

/// The values of a set, with room for those of any set: the identifier may have come to name another one.
#[derive(Debug)]
pub(crate) struct Values(Vec<u16>);

impl Values {
    /// The most semaphores that a set has unless kernel.sem was raised above what semop(2) can number.
    const ROOM: usize = 1 << 16;

    /// `values`, and zeros.
    pub(crate) fn new(values: &[u16]) -> Self {
        let mut all = vec![0; Self::ROOM.max(limits().in_set).max(values.len())];
        all[..values.len()].copy_from_slice(values);
        Self(all)
    }

    /// The first `count`.
    pub(crate) fn into_first(mut self, count: usize) -> Vec<u16> {
        self.0.truncate(count);
        self.0
    }
}

/// The identifier of the set with `key`; `flags` are IPC_CREAT, IPC_EXCL and a mode.
pub(crate) fn get(key: i32, count: i32, flags: i32) -> io::Result<i32> {
    // SAFETY: semget has no preconditions: every key, count and flag that the kernel does not like is an error.
    answer(unsafe { libc::semget(key, count, flags) })
}

/// semtimedop(2); no `timeout` is without limit.
pub(crate) fn operate(id: i32, operations: &mut [libc::sembuf], timeout: Option<&Timespec>) -> io::Result<()> {
    let timeout = timeout.map_or(ptr::null(), ptr::from_ref);
    let count = operations.len();
    // The system call itself: musl declares the function only on request, and this is one on all 64-bit Linux.
    // SAFETY: the kernel reads `count` operations from the slice, and a timespec of two 64-bit integers, or null.
    let result = unsafe { libc::syscall(libc::SYS_semtimedop, id, operations.as_mut_ptr(), count, timeout) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// semctl(2) with a command that needs no more: GETVAL, GETPID, GETNCNT, GETZCNT.
pub(crate) fn ask(id: i32, index: i32, command: c_int) -> io::Result<i32> {
    debug_assert!([libc::GETVAL, libc::GETPID, libc::GETNCNT, libc::GETZCNT].contains(&command));
    // SAFETY: these commands take no further argument.
    answer(unsafe { libc::semctl(id, index, command) })
}

/// Sets one value (SETVAL).
pub(crate) fn set_value(id: i32, index: i32, value: i32) -> io::Result<()> {
    // SAFETY: SETVAL takes the value itself.
    answer(unsafe { libc::semctl(id, index, libc::SETVAL, Argument { value }) }).map(drop)
}

/// The values of the set, and zeros (GETALL).
pub(crate) fn values(id: i32) -> io::Result<Values> {
    let mut all = Values::new(&[]);
    let values = all.0.as_mut_ptr();
    // SAFETY: the kernel writes one value for each semaphore of the set, and `Values` has room for the largest.
    answer(unsafe { libc::semctl(id, 0, libc::GETALL, Argument { values }) })?;
    Ok(all)
}

/// Sets all values of the set (SETALL).
pub(crate) fn set_values(id: i32, mut all: Values) -> io::Result<()> {
    let values = all.0.as_mut_ptr();
    // SAFETY: the kernel reads one value for each semaphore of the set, and `Values` holds that many for the largest.
    answer(unsafe { libc::semctl(id, 0, libc::SETALL, Argument { values }) }).map(drop)
}

/// What the kernel knows of a set (IPC_STAT).
pub(crate) fn stat(id: i32) -> io::Result<Status> {
    let mut info = MaybeUninit::uninit();
    // SAFETY: `info` is writable and as large as the answer.
    answer(unsafe { libc::semctl(id, 0, libc::IPC_STAT, Argument { status: info.as_mut_ptr() }) })?;
    // SAFETY: filled in by the call above, which succeeded.
    Ok(unsafe { info.assume_init() })
}

/// Sets the permissions of a set (IPC_SET).
#[allow(clippy::useless_conversion, reason = "the field has 16 bits on x86-64 and 32 on aarch64")]
pub(crate) fn set_mode(id: i32, mode: u16) -> io::Result<()> {
    let mut info = stat(id)?;
    info.permissions.mode = mode.into();
    // SAFETY: `info` is an initialised structure, from which the kernel takes the owner and the mode.
    answer(unsafe { libc::semctl(id, 0, libc::IPC_SET, Argument { status: &raw mut info }) }).map(drop)
}

/// Removes a set (IPC_RMID).
pub(crate) fn remove(id: i32) -> io::Result<()> {
    // SAFETY: IPC_RMID takes no further argument, and every wrong id is an error.
    answer(unsafe { libc::semctl(id, 0, libc::IPC_RMID) }).map(drop)
}

fn answer(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
