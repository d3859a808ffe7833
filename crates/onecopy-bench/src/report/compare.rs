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
    /// differ by more than the runs did. Ratios and not figures, so that reports of different machines can be compared.
    #[must_use]
    pub fn compared_with(&self, old: &Self) -> String {
        let changes: Vec<_> = self.rows.iter().filter_map(|row| change(row, old)).collect();
        if changes.is_empty() {
            return "no row of this report is in the old one, too\n".into();
        }
        let mut text = format!(
            "compared with {} of {}\n{:<17} {:<8} {:>8} {:>5} {:>8}  {:>8} {:>8} {:>6}\n",
            old.host.commit.as_deref().unwrap_or("an unnamed commit"),
            old.host.kernel,
            "mechanism",
            "workload",
            "size",
            "cold",
            "wait",
            "old",
            "new",
            "change"
        );
        for change in &changes {
            let _ = writeln!(text, "{}", line(change));
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

/// The row's ratio to its baseline, and whether a larger one is better.
fn ratio(row: &Row) -> Option<(f64, bool)> {
    let throughput = row.ratio_to_plain.or(row.ratio_to_memcpy).map(|ratio| (ratio, true));
    let time = row.ratio_to_memcpy_time.or(row.ratio_to_cache_line).map(|ratio| (ratio, false));
    throughput.or(time).filter(|(ratio, _)| *ratio > 0.0)
}

impl Change<'_> {
    /// Beyond noise: whether it is better now.
    fn verdict(&self) -> Option<bool> {
        let relative = self.new / self.old - 1.0;
        (relative.abs() > self.noise).then_some((relative > 0.0) == self.larger_is_better)
    }
}

fn line(change: &Change<'_>) -> String {
    let row = change.row;
    let mark = match change.verdict() {
        None => "",
        Some(true) => "  better",
        Some(false) => "  WORSE",
    };
    format!(
        "{:<17} {:<8} {:>8} {:>5} {:>8}  {:>8.2} {:>8.2} {:>6.2}{mark}",
        row.mechanism,
        row.workload.as_deref().unwrap_or("-"),
        row.size_bytes.map_or_else(|| "-".into(), bytes),
        row.cold.map_or("-", |cold| if cold { "yes" } else { "no" }),
        row.wait.as_deref().unwrap_or("-"),
        change.old,
        change.new,
        change.new / change.old
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
