//! Two or three sentences: what to use.

use onecopy::mechanism::Kind;

use super::{Report, Row};
use crate::options::{Wait, Workload};
use crate::report::table::{bytes, duration, rate};
use crate::transport::Transport;

/// Up to this a message is small.
const SMALL_BYTES: usize = 1024;
/// From this on a message is large.
const LARGE_BYTES: usize = 64 * 1024;

impl Report {
    /// What to use for small messages and for large ones, and why, as this report shows it. One sentence a line.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        [self.for_small(), self.for_small_while_spinning(), self.for_large(), self.for_the_processor()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn good(&self, workload: Workload) -> impl Iterator<Item = &Row> {
        let is_good = |row: &&Row| row.kind == "transfer" && row.is_measured() && row.verified == Some(true);
        self.rows.iter().filter(move |row| row.is_of(workload) && is_good(row))
    }

    /// The round trips of small messages, with both sides waiting in one way.
    fn small(&self, wait: Wait) -> Vec<&Row> {
        let small = |row: &&Row| row.size_bytes <= Some(SMALL_BYTES) && row.waits_by(wait);
        self.good(Workload::Rtt).filter(small).collect()
    }

    fn for_small(&self) -> Option<String> {
        let rows = self.small(Wait::Block);
        let (best, worst, size) = extremes(&rows, |row| row.latency_ns.map(|latency| latency.p50 as f64))?;
        let of = |row: &Row| duration(row.latency_ns.map_or(0, |latency| latency.p50) as f64);
        let beside = if best.mechanism == worst.mechanism {
            String::new()
        } else {
            format!("; {} is the slowest, with {}", worst.mechanism, of(worst))
        };
        Some(format!(
            "Small messages: {} has the shortest round trip of {} when both sides sleep while they wait, {}{beside}; most of \
             it is two wake-ups.",
            best.mechanism,
            bytes(size),
            of(best)
        ))
    }

    fn for_small_while_spinning(&self) -> Option<String> {
        let rows = self.small(Wait::Spin);
        let (best, _, _) = extremes(&rows, |row| row.latency_ns.map(|latency| latency.p50 as f64))?;
        let ratio = best
            .ratio_to_cache_line
            .map_or_else(String::new, |ratio| format!(", {ratio:.1} times what a cache line needs to and fro"));
        Some(format!(
            "A core for each side to spin on shortens it to {} with {}{ratio}: no system call and no wake-up are left.",
            duration(best.latency_ns.map_or(0, |latency| latency.p50) as f64),
            best.mechanism
        ))
    }

    fn for_large(&self) -> Option<String> {
        let large = |row: &&Row| row.size_bytes >= Some(LARGE_BYTES);
        let rows: Vec<_> = self.good(Workload::Stream).filter(large).filter(|row| row.cold == Some(true)).collect();
        let (worst, best, size) = extremes(&rows, |row| row.bytes_per_s)?;
        let of = |row: &Row| rate(row.bytes_per_s.unwrap_or_default());
        let ratio = best.ratio_to_memcpy.map_or_else(String::new, |ratio| format!(", {ratio:.2} of memcpy"));
        let beside = if best.mechanism == worst.mechanism {
            String::new()
        } else {
            format!("; {} moves {}", worst.mechanism, of(worst))
        };
        Some(format!(
            "Large messages: {} moves messages of {} fastest, {}{ratio}, since {}{beside}.",
            best.mechanism,
            bytes(size),
            of(best),
            reason(best)
        ))
    }

    fn for_the_processor(&self) -> Option<String> {
        let rows: Vec<_> = self.good(Workload::Cpu).collect();
        let (best, worst, size) = extremes(&rows, |row| row.cpu_ns_per_kib)?;
        if best.mechanism == worst.mechanism {
            return None;
        }
        let of = |row: &Row| duration(row.cpu_ns_per_kib.unwrap_or_default() * f64::from(1 << 20));
        Some(format!(
            "Processor time: {} needs least, {} for each GiB in messages of {}; {} needs {}.",
            best.mechanism,
            of(best),
            bytes(size),
            worst.mechanism,
            of(worst)
        ))
    }
}

/// Why a mechanism is fast.
fn reason(row: &Row) -> &'static str {
    let measured = Transport::ALL.iter().find(|transport| transport.name() == row.mechanism);
    let kinds =
        measured.and_then(|transport| transport.mechanism()).map_or(&[][..], |mechanism| mechanism.info().kinds);
    if row.path.as_deref() == Some("cooperative") {
        "both sides copy parts of each message at the same time, straight from one process to the other"
    } else if kinds.contains(&Kind::Attach) || row.path.as_deref() == Some("single-copy") {
        "one side copies each message once, straight from one process to the other"
    } else if kinds.contains(&Kind::Memory) || row.path.is_some() {
        "both sides copy at the same time, through shared memory and without system calls"
    } else {
        "it copies most with each of its system calls"
    }
}

/// The rows with the least and the largest figure, at the largest size that most rows have.
fn extremes<'a>(rows: &[&'a Row], figure: impl Fn(&Row) -> Option<f64>) -> Option<(&'a Row, &'a Row, usize)> {
    let count = |size: usize| rows.iter().filter(|row| row.size_bytes == Some(size)).count();
    let size = rows.iter().filter_map(|row| row.size_bytes).max_by_key(|size| (count(*size), *size))?;
    let figure = |row: &&&Row| figure(row).unwrap_or(f64::MAX);
    let of_size = || rows.iter().filter(|row| row.size_bytes == Some(size));
    let least = of_size().min_by(|a, b| figure(a).total_cmp(&figure(b)))?;
    let largest = of_size().max_by(|a, b| figure(a).total_cmp(&figure(b)))?;
    Some((least, largest, size))
}
