//! Ctrl-C as a descriptor: the measuring process ends its workers and removes what it created before it goes.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Takes SIGINT, SIGTERM and SIGHUP of this thread while it lives; one that is ignored, as nohup(1) does, stays ignored.
pub(crate) struct Interrupt {
    fd: SignalFd,
    before: SigSet,
}

impl Interrupt {
    pub(crate) fn watch() -> nix::Result<Self> {
        let before = block()?;
        let fd = SignalFd::with_flags(&set(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, before })
    }

    /// The signal that arrived, if one did.
    pub(crate) fn take(&self) -> Option<i32> {
        self.fd.read_signal().ok().flatten().map(|info| info.ssi_signo as i32)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Holds the signals back and returns the mask that was. A worker does the same and never looks at them: Ctrl-C reaches
/// it, too, and it is the measuring process that ends it.
pub(crate) fn block() -> nix::Result<SigSet> {
    set().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)
}

fn set() -> SigSet {
    let ignored = ignored();
    SIGNALS.into_iter().filter(|signal| ignored & (1 << (*signal as i32 - 1)) == 0).collect()
}

/// The ignored signals, as a mask whose bit 0 is signal 1 (proc_pid_status(5)). A signal that is ignored and blocked would
/// come through the descriptor all the same.
fn ignored() -> u64 {
    // A program's name may be any bytes.
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
