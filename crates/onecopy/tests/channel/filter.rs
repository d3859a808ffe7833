//! Seccomp filters on this process itself.
//!
//! # Safety
//!
//! A filter takes system calls away from the calling thread, or from all threads of the process. The processes that do this are
//! second processes of tests, which use those calls through the channel alone, whose errors they are there to see.
#![expect(unsafe_code, reason = "prctl and seccomp install a filter")]

use std::io;

use libc::{SYS_process_vm_readv, SYS_process_vm_writev, c_long, sock_filter};

pub(crate) const READ: c_long = SYS_process_vm_readv;
pub(crate) const WRITE: c_long = SYS_process_vm_writev;

/// Answers `calls` with `answer` from now on, in all threads of this process.
pub(crate) fn install(calls: &[c_long], answer: u32) {
    let code = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is at offset 0 of `struct seccomp_data`.
    let mut program = vec![code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &call in calls {
        program.push(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32));
        program.push(code(libc::BPF_RET | libc::BPF_K, 0, 0, answer));
    }
    program.push(code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: a system call that changes an attribute of this process.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel copies the program, which `program` describes, and checks it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
