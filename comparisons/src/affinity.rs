//! Which cores the two processes run on.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The first and the last core that this process may use: on most machines they are no siblings of one core.
pub(crate) fn pair() -> Result<[usize; 2], String> {
    let set = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    match (allowed.next(), allowed.next_back()) {
        (Some(first), Some(last)) => Ok([first, last]),
        _ => Err("two processes with a core each need two cores, and this process may use one".into()),
    }
}

/// Keeps this process on one core.
pub(crate) fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| format!("core {cpu}: {error}"))
}
