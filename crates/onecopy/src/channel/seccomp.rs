//! Noticing a seccomp filter that is installed while a channel is open: it may kill who calls process_vm_readv(2) the next time.
//!
//! The kernel tells the mode of a thread for the price of a system call (0.3 us on the machine of the README, where 64 KiB take 5),
//! so a thread that has just looked does not look again: installing a filter takes longer than that, 12 us there. A filter that
//! another thread installs for all of them may come between a look and a call in any case.
//!
//! A filter that was there when the channel was opened has been tried then, by a child. That a further one came cannot be told
//! from the mode: who adds one in such a process opens the channel with [`Policy::separate`](super::Policy::separate).

use std::time::{Duration, Instant};

use rustix::thread::{SecureComputingMode, secure_computing_mode};

const LOOK_AGAIN: Duration = Duration::from_micros(10);

/// What a half of a channel knows of filters.
#[derive(Debug)]
pub(super) enum Seccomp {
    /// There was none at this time.
    Unfiltered(Option<Instant>),
    /// There was one from the beginning.
    Known,
    /// One has come since.
    Unknown,
}

impl Seccomp {
    pub(super) fn of_this_thread() -> Self {
        if is_filtered() { Self::Known } else { Self::Unfiltered(None) }
    }

    /// Looks now, so that [`Seccomp::has_come`] need not when it is asked soon.
    pub(super) fn look(&mut self) {
        self.has_come();
    }

    /// Whether a filter has come since this began, of which nothing is known.
    pub(super) fn has_come(&mut self) -> bool {
        let Self::Unfiltered(looked) = self else { return matches!(self, Self::Unknown) };
        let now = Instant::now();
        if looked.is_some_and(|looked| now < looked + LOOK_AGAIN) {
            return false;
        }
        *self = if is_filtered() { Self::Unknown } else { Self::Unfiltered(Some(now)) };
        matches!(self, Self::Unknown)
    }
}

/// Whether a filter of system calls is there.
pub(super) fn is_filtered() -> bool {
    secure_computing_mode() != Ok(SecureComputingMode::Disabled)
}
