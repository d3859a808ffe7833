//! The clocks: one that both processes share, and the processor time of this process.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, the same one in every process.
pub(crate) fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Processor time of this process in nanoseconds. CLOCK_PROCESS_CPUTIME_ID is what getrusage(2) sums up, without the
/// rounding to microseconds.
pub(crate) fn cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// What reading the clock costs, in nanoseconds: the median of many times.
pub(crate) fn cost_ns() -> u64 {
    let mut costs = [0; 1001];
    let mut before = now_ns();
    for cost in &mut costs {
        let now = now_ns();
        *cost = now - before;
        before = now;
    }
    costs.sort_unstable();
    costs[costs.len() / 2]
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
