//! A process as another one can be told of it, in a form that says whether its number means anything there.

use std::io;

use super::{ProcessHandle, start_ticks};

/// A process by its number, in its own pid namespace, and its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) pid: u32,
    /// When the process started, in clock ticks: its number may be used again, and then this differs.
    pub(crate) start_ticks: u64,
    /// Where its number and its start time mean something: see [`Origin::here`]. 0 is unknown.
    pub(crate) place: u64,
}

impl Origin {
    /// A process of which nothing is known, and which is never called gone.
    pub(crate) const UNKNOWN: Self = Self { pid: 0, start_ticks: 0, place: 0 };

    /// This process.
    pub(crate) fn current() -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self { pid, start_ticks: start_ticks(pid)?, place: here()? })
    }

    /// The place of this process: a number for this machine since it started, and for the namespaces in which pids and start
    /// times are told here. 0 when that cannot be told.
    pub(crate) fn here() -> u64 {
        here().unwrap_or(0)
    }

    /// Whether the process is known to be gone. It may go at any time after the answer.
    pub(crate) fn is_gone(&self, here: u64) -> bool {
        if self.place == 0 || self.place != here {
            return false;
        }
        match ProcessHandle::open(self.pid) {
            Ok(process) => process.start_ticks() != self.start_ticks,
            Err(error) => error.raw_os_error() == Some(libc::ESRCH),
        }
    }
}

fn here() -> io::Result<u64> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id")?;
    let pids = std::fs::read_link("/proc/self/ns/pid")?;
    // Kernels without time namespaces have no such link, and no differences either.
    let times = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    let bytes = boot.iter().chain(pids.as_os_str().as_encoded_bytes()).chain(times.as_os_str().as_encoded_bytes());
    Ok(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_here_and_another_start_time_or_number_is_gone() {
        let own = Origin::current().unwrap();
        assert_ne!(own.place, 0);
        assert!(!own.is_gone(own.place));
        assert!(Origin { start_ticks: own.start_ticks + 1, ..own }.is_gone(own.place));
        assert!(Origin { pid: 1 << 22, ..own }.is_gone(own.place), "above every pid");
    }

    #[test]
    fn a_process_of_another_place_is_never_called_gone() {
        let own = Origin::current().unwrap();
        let elsewhere = Origin { pid: 1 << 22, start_ticks: 1, place: own.place ^ 1 };
        assert!(!elsewhere.is_gone(own.place));
        assert!(!Origin { place: 0, ..elsewhere }.is_gone(0));
    }
}
