//! Creating files past the umask, which belongs to the whole process: [umask(2)](https://man7.org/linux/man-pages/man2/umask.2.html).
//!
//! # Safety
//!
//! A thread that unshares CLONE_FS has an umask, a working directory and a root of its own, as they were until then; its descriptors
//! are those of the process still. It is one that ends with the call, so nobody finds it otherwise than expected.
#![expect(unsafe_code, reason = "rustix cannot know what else a thread unshares")]

use std::thread;

use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::signal_mask::without_signals;

/// What `create` says in a thread whose umask takes nothing away. `None` where there can be none, since there are as many threads
/// as RLIMIT_NPROC allows, for one. For a caller without a seccomp filter, which may kill who unshares.
pub(crate) fn without_umask<T: Send>(create: impl FnOnce() -> T + Send) -> Option<T> {
    let run = || {
        // SAFETY: nothing but what an umask belongs to, in a thread that ends here.
        unsafe { unshare_unsafe(UnshareFlags::FS) }.ok()?;
        umask(Mode::empty());
        Some(create())
    };
    without_signals(|| thread::scope(|scope| thread::Builder::new().spawn_scoped(scope, run).ok()?.join().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_umask_of_the_process_stays() {
        let current = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("Umask")).map(str::to_owned)
        };
        let before = current();
        let within = without_umask(current);
        assert!(within.is_none_or(|within| within.is_none_or(|within| within.ends_with("\t0000"))));
        assert_eq!(current(), before);
    }
}
