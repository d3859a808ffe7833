//! Which process sent a fragment, in a form that says whether its number means anything here.

use std::time::Instant;

use super::LOOK_EVERY;
use crate::process::{ProcessHandle, start_ticks};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) pid: u32,
    /// When the process started, in clock ticks: its number may be used again, and then this differs.
    pub(super) start_ticks: u64,
    /// Where its number and its start time mean something: see [`place`]. 0 is unknown.
    pub(super) place: u64,
}

impl Origin {
    /// This process.
    pub(super) fn own() -> Self {
        let pid = std::process::id();
        match start_ticks(pid) {
            Ok(start_ticks) => Self { pid, start_ticks, place: place() },
            Err(_) => Self { pid, start_ticks: 0, place: 0 },
        }
    }

    /// Whether the process is known to be gone. It may go at any time after the answer.
    fn is_gone(&self, here: u64) -> bool {
        if self.place == 0 || self.place != here {
            return false;
        }
        match ProcessHandle::open(self.pid) {
            Ok(process) => process.start_ticks() != self.start_ticks,
            Err(error) => error.raw_os_error() == Some(libc::ESRCH),
        }
    }
}

/// A number for this machine since it started, and for the namespaces in which pids and start times are told here.
pub(super) fn place() -> u64 {
    let Ok(boot) = std::fs::read("/proc/sys/kernel/random/boot_id") else { return 0 };
    let Ok(pids) = std::fs::read_link("/proc/self/ns/pid") else { return 0 };
    // Kernels without time namespaces have no such link, and no differences either.
    let times = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    let bytes = boot.iter().chain(pids.as_os_str().as_encoded_bytes()).chain(times.as_os_str().as_encoded_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A sender for whose next fragment the receiver waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pub(super) origin: Origin,
    /// Since when nothing came, or when the process was last looked at.
    waiting_since: Option<Instant>,
    /// When the process was found gone, or its last fragment came after that.
    gone_since: Option<Instant>,
}

impl Watched {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, waiting_since: None, gone_since: None }
    }

    /// A fragment of it came.
    pub(super) fn progress(&mut self) {
        self.waiting_since = None;
        if let Some(since) = &mut self.gone_since {
            *since = Instant::now();
        }
    }

    /// Whether the process was found gone. What it sent before may still wait in the mechanism.
    pub(super) fn was_gone(&self) -> bool {
        self.gone_since.is_some()
    }

    /// Looks whether the process is gone, unless it was looked at less than [`LOOK_EVERY`] ago.
    pub(super) fn look_seldom(&mut self, here: u64) {
        if self.waiting_since.get_or_insert_with(Instant::now).elapsed() >= LOOK_EVERY {
            self.look(here);
        }
    }

    /// Looks whether the process is gone.
    pub(super) fn look(&mut self, here: u64) {
        let now = Instant::now();
        self.waiting_since = Some(now);
        if self.gone_since.is_none() && self.origin.is_gone(here) {
            self.gone_since = Some(now);
        }
    }

    /// Whether it has been gone so long that what it sent must have come. Only matters while other senders keep the mechanism
    /// from running empty.
    pub(super) fn is_long_gone(&self) -> bool {
        self.gone_since.is_some_and(|since| since.elapsed() >= 2 * LOOK_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_here_and_another_start_time_or_number_is_gone() {
        let own = Origin::own();
        assert_ne!(own.place, 0);
        assert!(!own.is_gone(own.place));
        assert!(Origin { start_ticks: own.start_ticks + 1, ..own }.is_gone(own.place));
        assert!(Origin { pid: 1 << 22, ..own }.is_gone(own.place), "above every pid");
    }

    #[test]
    fn a_process_of_another_place_is_never_called_gone() {
        let own = Origin::own();
        let elsewhere = Origin { pid: 1 << 22, start_ticks: 1, place: own.place ^ 1 };
        assert!(!elsewhere.is_gone(own.place));
        assert!(!Origin { place: 0, ..elsewhere }.is_gone(0));
    }
}
