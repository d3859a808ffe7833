//! The workload rtt of what wakes: the guest wakes the host and waits until it is woken by it.

use std::sync::atomic::Ordering;

use onecopy::Deadline;
use onecopy::sync::{Notify, Wait};

use super::lines::Lines;
use super::{Go, Laps, Outcome, Stopwatch, text};
use crate::control::{Run, Side};

/// What one process wakes the other with, what it waits for, and numbers that tell whether each wake-up was the right one.
pub(crate) struct Bell {
    pub(crate) theirs: Box<dyn Notify>,
    pub(crate) mine: Box<dyn Wait>,
    pub(crate) numbers: Lines,
}

impl Bell {
    pub(crate) fn play(&mut self, side: Side, run: &Run, corrupt: bool, go: Go<'_>) -> Outcome {
        let mut laps = Laps::new();
        let mut mismatch = None;
        go()?;
        let watch = Stopwatch::start();
        laps.start();
        for number in run.first_sequence + 1..=run.first_sequence + run.messages {
            let told = if corrupt && run.is_first_checked(number - 1) { number + 1 } else { number };
            let seen = match side {
                Side::Guest => {
                    self.wake(side, told)?;
                    self.await_wake(side)?
                }
                Side::Host => {
                    let seen = self.await_wake(side)?;
                    self.wake(side, told)?;
                    seen
                }
            };
            if seen != number {
                mismatch.get_or_insert_with(|| format!("wake-up {number} came with the number {seen}"));
            }
            laps.lap();
        }
        Ok(laps.put_into(watch.stop(run.messages, 0, mismatch)))
    }

    /// Release pairs with the Acquire of the side that is woken.
    fn wake(&mut self, side: Side, number: u64) -> Result<(), String> {
        self.numbers.told_by(side).store(number, Ordering::Release);
        self.theirs.notify_by(1, Deadline::Never).map_err(text)
    }

    fn await_wake(&mut self, side: Side) -> Result<u64, String> {
        self.mine.wait_by(Deadline::Never).map_err(text)?;
        Ok(self.numbers.told_by(side.other()).load(Ordering::Acquire))
    }
}
