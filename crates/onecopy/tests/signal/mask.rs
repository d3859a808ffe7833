//! A second process whose threads all block all signals, the test harness's too, a thread as it is while it is started, and a process
//! whose first thread has ended.
//!
//! # Safety
//!
//! What runs between fork and exec makes two calls that signal-safety(7) allows there, on a set on its own stack. A thread that
//! [`set_whole`] has block the signals of the C library is not cancelled by it meanwhile, nor does the process change its user. The
//! thread that [`go_on_without_this_thread`] ends is that of a child that does nothing else, and nobody joins it.
#![expect(
    unsafe_code,
    reason = "the mask that a child begins with is set between fork and exec, and one past the C library; ends a first thread"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

/// Has `command` begin with all signals blocked.
pub(crate) fn block_all(command: &mut Command) {
    // SAFETY: `set` allocates nothing and takes no lock.
    unsafe { command.pre_exec(set) };
}

fn set() -> io::Result<()> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set that it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` is initialised, and the old mask is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the calling thread block the signals of `mask`, those of the C library too.
pub(crate) fn set_whole(mask: u64) {
    let none = ptr::null_mut::<u64>();
    // SAFETY: the kernel reads the eight bytes of `mask`, and writes no old mask.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, 8_usize) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Ends the calling thread, the first of its process and the only one, and has another one end the process by the answer of `work`.
pub(crate) fn go_on_without_this_thread(work: impl FnOnce() -> bool + Send + 'static) -> ! {
    std::thread::spawn(|| {
        let ended = format!("/proc/self/task/{}/status", std::process::id());
        while !std::fs::read_to_string(&ended).unwrap().contains("State:\tZ") {
            std::thread::yield_now();
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends the process; whatever it has in memory is a copy.
        unsafe { libc::_exit(i32::from(!done)) }
    });
    loop {
        // SAFETY: ends this thread alone, of which nothing is used any more.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}
