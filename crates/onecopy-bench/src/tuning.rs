//! How long things take: the budget of each row.

use std::time::Duration;

/// A test hook: the time in seconds that the timed runs of one row share.
const SECONDS: &str = "ONECOPY_BENCH_SECONDS";
/// A test hook: how long a process may leave an order unanswered, in seconds.
const PATIENCE: &str = "ONECOPY_BENCH_PATIENCE";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Timed runs of each row.
    pub(crate) runs: u32,
    /// What one of them should take.
    pub(crate) run_time: Duration,
    /// Pairs of runs of each row of the workload layer, ours and a plain one. Many short ones rather than few long ones: what
    /// else a machine does changes within a second, and so hits both runs of a pair, or few pairs of many.
    pub(crate) pairs: u32,
    /// How long a process may be silent beyond the time that its order should take. A busy machine takes seconds to
    /// schedule a process; a dead one is noticed at once, without this.
    pub(crate) patience: Duration,
}

impl Tuning {
    /// The same budget for more and shorter runs.
    pub(crate) fn in_pairs(self) -> Self {
        Self { run_time: self.run_time * self.runs / self.pairs, runs: self.pairs, ..self }
    }

    pub(crate) fn new(quick: bool) -> Self {
        let (runs, run_ms) = if quick { (3, 50) } else { (5, 250) };
        let run_time = match seconds(SECONDS) {
            Some(budget) => budget / runs,
            None => Duration::from_millis(run_ms),
        };
        let pairs = if quick { 5 } else { 21 };
        Self { runs, run_time, pairs, patience: seconds(PATIENCE).unwrap_or(Duration::from_secs(20)) }
    }
}

fn seconds(name: &str) -> Option<Duration> {
    let seconds = std::env::var(name).ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
