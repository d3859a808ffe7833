//! Which cores the two processes run on.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use, in order.
pub(crate) fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Two cores for the two sides, neither the sibling thread of the other where that can be had; `None` when fewer than two
/// are allowed.
pub(crate) fn pair(allowed: &[usize]) -> Option<[usize; 2]> {
    let (&first, others) = allowed.split_first()?;
    let siblings = siblings(first);
    let second = others.iter().find(|cpu| !siblings.contains(cpu)).or(others.first())?;
    Some([first, *second])
}

/// Keeps this process on one core.
pub(crate) fn pin(cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// The hardware threads that share a core with `cpu`.
fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    fs::read_to_string(path).map_or_else(|_| vec![cpu], |list| parse_list(&list))
}

/// A list such as `0-3,8`.
fn parse_list(list: &str) -> Vec<usize> {
    let parse_range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(parse_range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_list("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(parse_list("5"), [5]);
        assert_eq!(parse_list(""), [] as [usize; 0]);
    }

    #[test]
    fn one_core_makes_no_pair() {
        assert_eq!(pair(&[3]), None);
        assert_eq!(pair(&[]), None);
        assert!(pair(&allowed()).is_none_or(|[a, b]| a != b));
    }
}
