//! `PIDFD_GET_INFO` (Linux 6.13): what the kernel tells about a process to anybody.
//!
//! # Safety
//!
//! The kernel fills a structure of this file's own, whose size is part of the number of the request.
#![expect(unsafe_code, reason = "neither rustix nor nix has this request")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `struct pidfd_info` as Linux 6.16 has it. A kernel that knows less fills less, and says so in `mask`.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    /// The control group, eleven numbers of ids, and the exit code.
    other: [u64; 7],
    coredump_mask: u32,
    spare: u32,
}

const _: () = assert!(size_of::<Info>() == 72);

/// `_IOWR(0xff, 11, struct pidfd_info)`. Where an architecture composes such numbers in another way it is ENOTTY.
const PIDFD_GET_INFO: u32 = (3 << 30) | ((size_of::<Info>() as u32) << 16) | (0xff << 8) | 11;
const PIDFD_INFO_COREDUMP: u64 = 1 << 4;
const PIDFD_COREDUMP_USER: u32 = 1 << 2;

/// Whether the process is dumpable; nothing where the kernel is older than Linux 6.16, or the process has no memory.
pub(crate) fn is_dumpable(pidfd: BorrowedFd<'_>) -> Option<bool> {
    let mut info = Info { mask: PIDFD_INFO_COREDUMP, ..Info::default() };
    // SAFETY: the kernel reads and writes the 72 bytes that the request's number names, which `info` has.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as libc::Ioctl, &raw mut info) };
    let told = result == 0 && info.mask & PIDFD_INFO_COREDUMP != 0;
    told.then_some(info.coredump_mask & PIDFD_COREDUMP_USER != 0)
}
