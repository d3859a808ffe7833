//! The workloads uncontended and contended: a lock is taken and given back, and meanwhile a number is counted up in two steps,
//! of which one is lost when two processes count at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onecopy::Deadline;
use onecopy::sync::{Acquired, Lock, Mode};

use super::lines::Lines;
use super::{Go, Outcome, Stopwatch, text};
use crate::control::{Run, Side};

/// How long a side looks for the other one's end before it sleeps a little.
const LOOKS: u32 = 1000;

/// A lock that one or both processes take, and what it protects.
pub(crate) struct Contest {
    pub(crate) lock: Box<dyn Lock>,
    pub(crate) contended: bool,
    /// The count on one line, how many sides have ended their runs on the other.
    pub(crate) ledger: Lines,
    /// What the count and the ends must be by now.
    counted: u64,
    ended: u64,
}

impl Contest {
    pub(crate) fn new(lock: Box<dyn Lock>, contended: bool, ledger: Lines) -> Self {
        Self { lock, contended, ledger, counted: 0, ended: 0 }
    }

    pub(crate) fn play(&mut self, side: Side, run: &Run, corrupt: bool, go: Go<'_>) -> Outcome {
        let count = self.ledger.told_by(Side::Guest);
        let takes_part = self.contended || side == Side::Guest;
        go()?;
        let watch = Stopwatch::start();
        let messages = if takes_part { run.messages } else { 0 };
        for sequence in run.first_sequence..run.first_sequence + messages {
            let acquired = self.lock.acquire_by(Mode::Exclusive, Deadline::Never).map_err(text)?;
            if acquired == Acquired::OwnerDied {
                return Err("the lock's owner has died".into());
            }
            count_up(count, if corrupt && run.is_first_checked(sequence) { 2 } else { 1 });
            self.lock.release().map_err(text)?;
        }
        let mut sample = watch.stop(messages, 0, None);
        self.counted += if self.contended { 2 * run.messages } else { run.messages };
        sample.mismatch = self.check();
        Ok(sample)
    }

    /// Both sides wait for each other's end, and then know what the count must be.
    fn check(&mut self) -> Option<String> {
        let ends = self.ledger.told_by(Side::Host);
        self.ended += 2;
        ends.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0;
        while ends.load(Ordering::Acquire) < self.ended {
            looks += 1;
            if looks > LOOKS {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        // The other side may count again only after this one's next start.
        let counted = self.ledger.told_by(Side::Guest).load(Ordering::Acquire);
        let expected = self.counted;
        (counted != expected).then(|| {
            self.counted = counted;
            format!("{counted} were counted under the lock, and not {expected}: it was held by two at once")
        })
    }
}

/// Two steps: the lock orders them, and nothing else makes them one.
fn count_up(count: &AtomicU64, by: u64) {
    let number = count.load(Ordering::Relaxed);
    count.store(number + by, Ordering::Relaxed);
}
