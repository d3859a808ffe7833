//! Signals whose handler does nothing, to interrupt system calls.
//!
//! # Safety
//!
//! The handler is empty, so it is safe at any moment; the disposition of SIGUSR1 belongs to the test's second process.
#![allow(unreachable_pub, reason = "as in the support that all tests share")]
#![expect(unsafe_code, reason = "a handler is installed by sigaction")]

use std::mem::MaybeUninit;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

extern "C" fn nothing(_signal: libc::c_int) {}

/// Makes SIGUSR1 interrupt system calls in this process: a handler without SA_RESTART.
pub fn accept_interrupts() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes are a valid sigaction: the default handler, an empty mask, no flags.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: `action` is initialised, its handler is empty and lives as long as the program.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, action, std::ptr::null_mut()) };
    assert_eq!(result, 0);
}

/// Interrupts every system call in which the main thread and the test's thread of process `pid` wait, for a while.
pub fn interrupt(pid: u32) {
    let process = Pid::from_raw(pid as i32).unwrap();
    for _ in 0..40 {
        kill_process(process, Signal::USR1).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
}
