//! Two reports side by side.

use std::fmt::Write as _;

use super::table::bytes;
use super::{Report, Row};

/// How one row changed.
#[derive(Clone, Debug, PartialEq)]
struct Change<'a> {
    row: &'a Row,
    old: f64,
    new: f64,
    /// How far apart runs of either report lie: less than that is noise.
    noise: f64,
    /// Whether a larger figure is a better one.
    larger_is_better: bool,
}

impl Report {
    /// What changed since `old`: for each row that both have, its ratio to the baseline then and now, and whether they
    /// differ by more than the runs did. Ratios and not figures, so that reports of different machines can be compared; but
    /// for locks, which have no baseline, the nanoseconds.
    #[must_use]
    pub fn compared_with(&self, old: &Self) -> String {
        let changes: Vec<_> = self.rows.iter().filter_map(|row| change(row, old)).collect();
        if changes.is_empty() {
            return "no row of this report is in the old one, too\n".into();
        }
        let commit = old.host.commit.as_deref().unwrap_or("an unnamed commit");
        let mut text = format!("compared with {commit} of {}\n", old.host.kernel);
        let (locks, others): (Vec<_>, Vec<_>) = changes.iter().partition(|change| is_lock(change.row));
        if !others.is_empty() {
            let _ = writeln!(
                text,
                "{:<23} {:<8} {:>7} {:>4} {:>8} {:>7} {:>7} {:>6}",
                "mechanism", "workload", "size", "cold", "wait", "old", "new", "change"
            );
        }
        for change in others {
            let _ = writeln!(text, "{}", line(change));
        }
        if !locks.is_empty() {
            let _ = writeln!(
                text,
                "{:<23} {:<11} {:>9} {:>9} {:>6}",
                "mechanism", "workload", "old ns", "new ns", "change"
            );
        }
        for change in locks {
            let _ = writeln!(text, "{}", lock_line(change));
        }
        text
    }
}

fn change<'a>(row: &'a Row, old: &Report) -> Option<Change<'a>> {
    let before = old.rows.iter().find(|before| before.identity() == row.identity())?;
    let (new, larger_is_better) = ratio(row)?;
    let noise = row.spread.unwrap_or_default().max(before.spread.unwrap_or_default());
    Some(Change { row, old: ratio(before)?.0, new, noise, larger_is_better })
}

fn is_lock(row: &Row) -> bool {
    row.ns_per_acquire.is_some()
}

/// The row's ratio to its baseline, or a lock's nanoseconds, and whether a larger one is better.
fn ratio(row: &Row) -> Option<(f64, bool)> {
    let throughput = row.ratio_to_plain.or(row.ratio_to_memcpy).or(row.ratio_to_one_process).map(|ratio| (ratio, true));
    let time =
        row.ratio_to_memcpy_time.or(row.ratio_to_cache_line).or(row.ratio_to_one_channel).map(|ratio| (ratio, false));
    let lock = row.ns_per_acquire.map(|ns| (ns, false));
    throughput.or(time).or(lock).filter(|(ratio, _)| *ratio > 0.0)
}

impl Change<'_> {
    /// Beyond noise: whether it is better now.
    fn verdict(&self) -> Option<bool> {
        let relative = self.new / self.old - 1.0;
        (relative.abs() > self.noise).then_some((relative > 0.0) == self.larger_is_better)
    }

    fn mark(&self) -> &'static str {
        match self.verdict() {
            None => "",
            Some(true) => "  better",
            Some(false) => "  WORSE",
        }
    }
}

fn line(change: &Change<'_>) -> String {
    let row = change.row;
    format!(
        "{:<23} {:<8} {:>7} {:>4} {:>8} {:>7.2} {:>7.2} {:>6.2}{}",
        row.measured_name(),
        row.workload.as_deref().unwrap_or("-"),
        row.size_bytes.map_or_else(|| "-".into(), bytes),
        row.cold.map_or("-", |cold| if cold { "yes" } else { "no" }),
        row.wait.as_deref().unwrap_or("-"),
        change.old,
        change.new,
        change.new / change.old,
        change.mark()
    )
}

fn lock_line(change: &Change<'_>) -> String {
    format!(
        "{:<23} {:<11} {:>9.1} {:>9.1} {:>6.2}{}",
        change.row.mechanism,
        change.row.workload.as_deref().unwrap_or("-"),
        change.old,
        change.new,
        change.new / change.old,
        change.mark()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    fn change_of(old: f64, new: f64, noise: f64, larger_is_better: bool) -> Option<bool> {
        Change { row: &Row::default(), old, new, noise, larger_is_better }.verdict()
    }

    #[test]
    fn less_than_the_spread_is_no_change() {
        assert_eq!(change_of(1.0, 1.05, 0.1, true), None);
        assert_eq!(change_of(1.0, 1.2, 0.1, true), Some(true));
        assert_eq!(change_of(1.0, 0.8, 0.1, true), Some(false));
    }

    #[test]
    fn a_longer_round_trip_is_worse() {
        assert_eq!(change_of(10.0, 20.0, 0.1, false), Some(false));
        assert_eq!(change_of(10.0, 5.0, 0.1, false), Some(true));
    }

    #[test]
    fn rows_of_many_channels_are_told_apart() {
        let row = |channels| Row {
            mechanism: "channel".into(),
            workload: Some("many".into()),
            channels: Some(channels),
            ratio_to_one_channel: Some(1.0),
            ..Row::default()
        };
        let report = Report { rows: vec![row(10), row(1000)], ..Report::new(Host::this()) };
        let text = report.compared_with(&report);
        let lines = ["\nchannel, 10 of them     many ", "\nchannel, 1000 of them   many "];
        assert!(lines.iter().all(|line| text.contains(line)) && text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn locks_are_compared_by_their_nanoseconds() {
        let report = |ns| {
            let row = Row {
                mechanism: "posix-unnamed-semaphore".into(),
                workload: Some("uncontended".into()),
                ns_per_acquire: Some(ns),
                spread: Some(0.1),
                ..Row::default()
            };
            Report { rows: vec![row], ..Report::new(Host::this()) }
        };
        let text = report(200.0).compared_with(&report(100.0));
        assert!(text.contains("posix-unnamed-semaphore uncontended     100.0     200.0   2.00  WORSE\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
