//! What is printed.

pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod words;

use crate::order::{Contender, Workload};
use crate::plan::Unit;
use crate::runner::Row;
use crate::stats::Summary;

/// A contender's figure of a row: what it takes, and what that is beside the baseline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Nanoseconds for a message; for ping-pong of large messages half of the round trip.
    pub(crate) ns: Summary,
    pub(crate) p99_ns: Option<Summary>,
    pub(crate) sleeps: Option<Summary>,
    /// Times as long as the baseline, or times as fast, as the row's unit says.
    pub(crate) ratio: f64,
    /// How far apart the runs lie, (max - min) / median: of their ratios, where each has a baseline of its own, else of their times.
    pub(crate) spread: f64,
}

/// `None` when there is no sample of the contender or of the baseline.
pub(crate) fn figure(row: &Row, contender: Contender) -> Option<Figure> {
    let own = times(row, contender)?;
    let baseline = times(row, row.case.baseline())?;
    let samples = &row.of(contender)?.samples;
    let beside: Vec<f64> = samples.iter().filter_map(|sample| Some(sample.ns / sample.line_ns?)).collect();
    let (ratio, spread) = match (Summary::of(&beside), row.case.unit()) {
        (Some(ratios), _) => (ratios.median, ratios.spread),
        (None, Unit::Time) => (own.0.median / baseline.0.median, own.0.spread),
        (None, Unit::Rate) => (baseline.0.median / own.0.median, own.0.spread),
    };
    let sleeps: Vec<f64> = samples.iter().filter_map(|sample| sample.sleeps).collect();
    Some(Figure { ns: own.0, p99_ns: own.1, sleeps: Summary::of(&sleeps), ratio, spread })
}

fn times(row: &Row, contender: Contender) -> Option<(Summary, Option<Summary>)> {
    let samples = &row.of(contender)?.samples;
    let share = if row.case.workload == Workload::Fresh && contender != row.case.baseline() { 0.5 } else { 1.0 };
    let ns: Vec<f64> = samples.iter().map(|sample| sample.ns * share).collect();
    let p99: Vec<f64> = samples.iter().filter_map(|sample| sample.p99_ns).map(|ns| ns * share).collect();
    Some((Summary::of(&ns)?, Summary::of(&p99)))
}

/// Whether `a` is better than `b` in this row.
pub(crate) fn is_better(unit: Unit, a: f64, b: f64) -> bool {
    match unit {
        Unit::Time => a < b,
        Unit::Rate => a > b,
    }
}

/// The best of some contenders in a row.
pub(crate) fn best(row: &Row, takes_part: impl Fn(Contender) -> bool) -> Option<(Contender, Figure)> {
    let figures = Contender::ALL.into_iter().filter(|contender| takes_part(*contender));
    figures
        .filter_map(|contender| Some((contender, figure(row, contender)?)))
        .reduce(|best, next| if is_better(row.case.unit(), next.1.ratio, best.1.ratio) { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Sample, Wait};
    use crate::plan::Case;
    use crate::runner::Figures;

    #[test]
    fn each_run_is_compared_with_the_cache_line_beside_it() {
        let case = Case { workload: Workload::Rtt, wait: Wait::Spin, size_bytes: 8, cold: false, work_us: 0 };
        let sample = |ns, line_ns| Sample { ns, p99_ns: None, sleeps: None, remark: None, line_ns };
        let figures = |contender, samples| Figures { contender, samples, error: None };
        // The cores moved apart before the second run.
        let own = vec![sample(150.0, Some(100.0)), sample(600.0, Some(500.0)), sample(130.0, Some(100.0))];
        let lines = [100.0, 100.0, 900.0, 100.0].map(|ns| sample(ns, None)).into();
        let row = Row { case, figures: vec![figures(Contender::Channel, own), figures(Contender::Line, lines)] };
        let found = figure(&row, Contender::Channel).unwrap();
        assert_eq!((found.ns.median, found.ratio), (150.0, 1.3));
        assert!((found.spread - 0.3 / 1.3).abs() < 1e-9, "the spread of the ratios: {}", found.spread);
    }
}
