//! Socket options that rustix and nix lack.
//!
//! # Safety
//!
//! The functions hand the kernel pointers to values on their own stack, with the lengths of those values.
#![expect(
    unsafe_code,
    reason = "rustix and nix have neither SO_MEMINFO, SO_PASSPIDFD, SO_PASSRIGHTS, SO_PEEK_OFF nor SCTP_NODELAY"
)]

use std::ffi::c_int;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::last_errno;

/// `SO_MEMINFO` of asm-generic/socket.h, the same number on every architecture but SPARC and PA-RISC.
const SO_MEMINFO: c_int = 55;
/// `SK_MEMINFO_VARS` of linux/sock_diag.h on the first kernel that has SO_MEMINFO (4.12); later ones may fill in more.
const MEMINFO_VARS: usize = 9;
/// `SK_MEMINFO_DROPS`.
const MEMINFO_DROPS: usize = 8;

/// How many datagrams the kernel discarded for want of room in this socket's receive buffer, modulo 2^32.
pub(crate) fn dropped_datagrams(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut info = [0_u32; MEMINFO_VARS];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` is writable and `len` bytes long; `len` is writable; the descriptor is open for the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    if result == 0 { Ok(info[MEMINFO_DROPS]) } else { Err(last_errno()) }
}

/// Whether messages come with the pidfd of their sender (Linux 6.5; ENOPROTOOPT before).
pub(crate) fn set_pass_pidfd(socket: BorrowedFd<'_>, value: bool) -> Result<(), Errno> {
    /// `SO_PASSPIDFD` of asm-generic/socket.h, the same number on every architecture but SPARC and PA-RISC.
    const SO_PASSPIDFD: c_int = 76;
    set_number(socket, SO_PASSPIDFD, c_int::from(value))
}

/// Whether descriptors can be passed to this UNIX socket, or sending them fails: EPERM (Linux 6.16; ENOPROTOOPT before). Those that connect to
/// a listening socket find what was set there.
pub(crate) fn set_pass_rights(socket: BorrowedFd<'_>, value: bool) -> Result<(), Errno> {
    /// `SO_PASSRIGHTS` of asm-generic/socket.h, the same number on every architecture but SPARC and PA-RISC.
    const SO_PASSRIGHTS: c_int = 83;
    set_number(socket, SO_PASSRIGHTS, c_int::from(value))
}

/// How many bytes MSG_PEEK passes over on a UNIX socket; `None` is none, and that a look does not count.
pub(crate) fn set_peek_offset(socket: BorrowedFd<'_>, bytes: Option<u16>) -> Result<(), Errno> {
    set_number(socket, libc::SO_PEEK_OFF, bytes.map_or(-1, c_int::from))
}

fn set_number(socket: BorrowedFd<'_>, option: c_int, value: c_int) -> Result<(), Errno> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is readable and `len` bytes long; the descriptor is open for the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Makes SCTP send small messages at once (RFC 6458, 8.1.5).
pub(crate) fn set_sctp_nodelay(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    /// `SCTP_NODELAY` of linux/sctp.h.
    const SCTP_NODELAY: c_int = 3;
    let on: c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` is readable and `len` bytes long; the descriptor is open for the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_SCTP, SCTP_NODELAY, (&raw const on).cast(), len) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
