//! The result in sentences: where a rival is ahead, first.

use std::fmt::Write as _;

use super::table::duration;
use super::{Figure, best, is_better};
use crate::order::{Contender, Wait};
use crate::plan::Unit;
use crate::runner::{Outcome, Row};

/// A lead of less than this is none, however steady the runs were.
const TIE: f64 = 0.03;

/// How a row ended between the channel and the best of the others.
enum Verdict {
    Ahead,
    Level,
    Behind,
}

/// A row with the best of the channel and the best of the others.
type Pair<'a> = (&'a Row, (Contender, Figure), (Contender, Figure));

pub(crate) fn text(outcome: &Outcome) -> String {
    let mut text = String::from("\n");
    let pairs: Vec<Pair<'_>> = outcome
        .rows
        .iter()
        .filter_map(|row| Some((row, best(row, Contender::is_ours)?, best(row, |contender| !contender.is_ours())?)))
        .collect();
    let (mut ahead, mut level) = (0, Vec::new());
    let is_copying = |contender: Contender| !contender.is_ours() && contender != Contender::IceoryxLoan;
    for (row, ours, theirs) in &pairs {
        match verdict(row.case.unit(), ours.1, theirs.1) {
            Verdict::Ahead => ahead += 1,
            Verdict::Level => level.push(row.case.label()),
            Verdict::Behind => text.push_str(&behind(row, *ours, *theirs)),
        }
    }
    if !pairs.is_empty() {
        let leads = |row: &Row, ours: Figure| {
            best(row, is_copying)
                .is_some_and(|(_, theirs)| matches!(verdict(row.case.unit(), ours, theirs), Verdict::Ahead))
        };
        let copying = pairs.iter().filter(|(row, ours, _)| leads(row, ours.1)).count();
        let _ = writeln!(
            text,
            "The channel is ahead of every rival in {ahead} of {} rows; without loans, which copy nothing, in {copying}.",
            pairs.len()
        );
    }
    if !level.is_empty() {
        let _ = writeln!(text, "No difference that the spread of the runs would allow to see: {}.", level.join("; "));
    }
    text.push_str(&left(outcome));
    text.push_str(&failures(outcome));
    text
}

/// A lead counts when it is larger than half of the larger spread.
fn verdict(unit: Unit, ours: Figure, theirs: Figure) -> Verdict {
    let lead = (ours.ratio / theirs.ratio - 1.0).abs();
    let noise = ours.spread.max(theirs.spread) / 2.0;
    match is_better(unit, ours.ratio, theirs.ratio) {
        _ if lead <= TIE.max(noise) => Verdict::Level,
        true => Verdict::Ahead,
        false => Verdict::Behind,
    }
}

fn behind(row: &Row, ours: (Contender, Figure), theirs: (Contender, Figure)) -> String {
    let why = match theirs.0 {
        Contender::IceoryxLoan => "; its payload is made and read in shared memory, and nothing is copied",
        Contender::IceoryxCopy => "; the receiver's copy lies in its own memory, too",
        Contender::Socket if row.case.wait == Wait::Block && row.case.work_us == 0 => {
            "; who sleeps on a socket is woken when its own message is read, and the answer comes while it wakes"
        }
        _ => "",
    };
    let rival = format!("{} ({})", theirs.0.library(), theirs.0.way());
    // Where each run has a baseline of its own, times alone may say the opposite.
    let figure = |figure: Figure| match row.case.baseline() {
        Contender::Line => format!("{:.2} cache lines", figure.ratio),
        _ => duration(figure.ns.median),
    };
    let [own, their] = [ours, theirs].map(|(_, of)| figure(of));
    format!("{rival} wins {}: {their} a message, the channel {own}{why}.\n", row.case.label())
}

fn left(outcome: &Outcome) -> String {
    let counted = outcome.left.iter().filter_map(|left| {
        let names = left.names.as_ref().ok()?;
        Some(format!("{} {names}", left.contender.library()))
    });
    let counted: Vec<String> = counted.collect();
    if counted.is_empty() {
        return String::new();
    }
    format!("Files left behind when both sides are killed, now removed: {}.\n", counted.join(", "))
}

fn failures(outcome: &Outcome) -> String {
    let mut text = String::new();
    for row in &outcome.rows {
        for figures in &row.figures {
            if let Some(error) = &figures.error {
                let (library, way) = (figures.contender.library(), figures.contender.way());
                let _ = writeln!(text, "failed: {}, {library} ({way}): {error}", row.case.label());
            }
        }
    }
    for left in &outcome.left {
        if let Err(error) = &left.names {
            let _ = writeln!(text, "failed: killing both sides of {}: {error}", left.contender.library());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Summary;

    fn figure(ratio: f64, spread: f64) -> Figure {
        Figure { ns: Summary { median: 100.0, spread, runs: 3 }, p99_ns: None, sleeps: None, ratio, spread }
    }

    #[test]
    fn a_lead_within_the_spread_is_none() {
        let of = |unit, ours, theirs, spread| match verdict(unit, figure(ours, spread), figure(theirs, 0.0)) {
            Verdict::Ahead => "ahead",
            Verdict::Level => "level",
            Verdict::Behind => "behind",
        };
        assert_eq!(of(Unit::Time, 1.0, 2.0, 0.1), "ahead");
        assert_eq!(of(Unit::Rate, 1.0, 2.0, 0.1), "behind");
        assert_eq!(of(Unit::Rate, 1.0, 1.02, 0.0), "level");
        assert_eq!(of(Unit::Time, 1.0, 1.2, 0.5), "level");
    }
}
