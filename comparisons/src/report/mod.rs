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
}

/// `None` when there is no sample of the contender or of the baseline.
pub(crate) fn figure(row: &Row, contender: Contender) -> Option<Figure> {
    let own = times(row, contender)?;
    let baseline = times(row, row.case.baseline())?;
    let ratio = match row.case.unit() {
        Unit::Time => own.0.median / baseline.0.median,
        Unit::Rate => baseline.0.median / own.0.median,
    };
    let sleeps: Vec<f64> = row.of(contender)?.samples.iter().filter_map(|sample| sample.sleeps).collect();
    Some(Figure { ns: own.0, p99_ns: own.1, sleeps: Summary::of(&sleeps), ratio })
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
