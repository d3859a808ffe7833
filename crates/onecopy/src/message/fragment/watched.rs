//! The sender of an unfinished message, for whose next fragment the receiver waits.

use std::time::Instant;

use super::LOOK_EVERY;
use crate::process::Origin;

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
