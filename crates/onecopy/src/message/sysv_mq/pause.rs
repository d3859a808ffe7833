//! Waiting for a queue of which no descriptor tells.

use std::time::Duration;

use crate::Deadline;

/// How often a call with a deadline gives way to others before it begins to sleep. Measured with 8 KiB messages between two
/// processes: the other side mostly answers within that time, and a sleep of 50 µs costs as much as a hundred messages.
const YIELDS: u32 = 32;
const FIRST_SLEEP: Duration = Duration::from_micros(50);
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// What a caller does between two tries.
#[derive(Default)]
pub(super) struct Pause {
    tries: u32,
}

impl Pause {
    pub(super) fn wait(&mut self, deadline: Deadline) {
        self.tries = self.tries.saturating_add(1);
        if self.tries <= YIELDS {
            std::thread::yield_now();
            return;
        }
        let doublings = (self.tries - YIELDS - 1).min(5);
        let sleep = (FIRST_SLEEP * (1 << doublings)).min(LONGEST_SLEEP);
        std::thread::sleep(deadline.remaining().map_or(sleep, |left| left.min(sleep)));
    }
}
