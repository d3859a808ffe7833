//! A child made by fork.
//!
//! # Safety
//!
//! The processes that fork are second processes of tests and have other threads, which the child lacks: one that waits for peers, or
//! one that the test is about. The child uses copies of what the library made, which takes no lock of theirs, and ends by `_exit`.
#![expect(unsafe_code, reason = "fork, which nothing in the standard library does without exec")]

use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, waitpid};

/// Runs `work` in a child, and demands that it is true.
pub fn in_child(work: impl FnOnce() -> bool) {
    // SAFETY: see above: nothing that the child does depends on threads that it lacks.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // One that hangs goes with the test.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends the process; whatever it has in memory is a copy.
        unsafe { libc::_exit(i32::from(!done)) };
    }
    assert!(child > 0, "{}", std::io::Error::last_os_error());
    let (_, status) = waitpid(Pid::from_raw(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child");
}

/// Forks a child that lives on when this process has ended, for as long as the test reads what this one prints: then it does nothing
/// else, and keeps its copies of what is open here.
pub fn leave_a_child() {
    // SAFETY: see above: the child makes nothing but two system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // No event is asked for: that nobody reads any more is told in any case.
        while poll(&mut [PollFd::new(&std::io::stdout(), PollFlags::empty())], None).is_err() {}
        // SAFETY: ends the process; whatever it has in memory is a copy.
        unsafe { libc::_exit(0) };
    }
    assert!(child > 0, "{}", std::io::Error::last_os_error());
}

/// Demands that a child that drops its copy of what `bind` makes at a path leaves the file there, which goes with its owner's.
pub fn child_leaves_the_file<T>(path: &Path, bind: impl FnOnce(&Path) -> T) {
    let mut bound = Some(bind(path));
    in_child(|| {
        drop(bound.take());
        path.symlink_metadata().is_ok()
    });
    drop(bound);
    assert!(path.symlink_metadata().is_err());
}
