//! The tables.

use std::fmt::Write as _;

use super::{best, figure};
use crate::order::{Contender, Workload};
use crate::plan::Unit;
use crate::runner::{Outcome, Row};
use crate::versions;

const LABEL_COLUMNS: usize = 24;
const BASE_COLUMNS: usize = 12;
const CELL_COLUMNS: usize = 12;
const PAIR_COLUMNS: usize = 20;

const RTT_TITLE: &str =
    "Median round trip, times that of a cache line (spinning) or of a pipe (blocking): less is better";
/// What the last of three figures says.
const SLEEPS: &str = "a blocking side that sleeps less than once has found the answer on its way to sleep,
and one that sleeps more often was woken before the answer was there";
const TIME_TITLE: &str =
    "A message, times as long as a cache line's round trip (1 KiB) or a hot copy (fresh): less is better";
const RATE_TITLE: &str = "Throughput, times that of a copy by one process: more is better";

/// The tables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Rtt,
    Time,
    Rate,
}

impl Part {
    fn of(row: &Row) -> Self {
        match (row.case.workload, row.case.unit()) {
            (Workload::Rtt, _) => Self::Rtt,
            (_, Unit::Time) => Self::Time,
            (_, Unit::Rate) => Self::Rate,
        }
    }
}

/// All tables, with what each ratio is.
pub(crate) fn text(outcome: &Outcome) -> String {
    let mut text = header(outcome);
    for (title, part) in [(RTT_TITLE, Part::Rtt), (TIME_TITLE, Part::Time), (RATE_TITLE, Part::Rate)] {
        let rows: Vec<&Row> = outcome.rows.iter().filter(|row| Part::of(row) == part).collect();
        if !rows.is_empty() {
            let _ = writeln!(text, "\n{title}");
            table(&mut text, &rows);
        }
    }
    percentiles(&mut text, outcome);
    text
}

fn header(outcome: &Outcome) -> String {
    let libraries = ["onecopy", "iceoryx2", "ipc-channel", "interprocess"];
    let libraries = libraries.map(|library| format!("{library} {}", versions::of(library))).join(", ");
    let runs = match runs(outcome) {
        (1, 1) => "one run".into(),
        (least, most) if least == most => format!("the median of {least} runs"),
        (least, most) => format!("the median of {least} to {most} runs"),
    };
    format!("{libraries}\nEach figure is {runs}, with (max - min) / median in %; * is the best of its row.\n")
}

/// The least and the most runs of a contender, of those that have any.
fn runs(outcome: &Outcome) -> (usize, usize) {
    // A cache line is looked at between all others.
    let figures =
        outcome.rows.iter().flat_map(|row| &row.figures).filter(|figures| figures.contender != Contender::Line);
    let counts = figures.map(|figures| figures.samples.len()).filter(|count| *count > 0);
    (counts.clone().min().unwrap_or_default(), counts.max().unwrap_or_default())
}

fn table(text: &mut String, rows: &[&Row]) {
    let columns: Vec<Contender> =
        Contender::ALL.into_iter().filter(|contender| rows.iter().any(|row| row.of(*contender).is_some())).collect();
    for (base, name) in [("baseline", Contender::library as fn(Contender) -> &'static str), ("", Contender::way)] {
        let _ = write!(text, "{:LABEL_COLUMNS$}{base:>BASE_COLUMNS$}", "");
        for contender in &columns {
            let _ = write!(text, "{:>CELL_COLUMNS$}", shortened(name(*contender)));
        }
        text.push('\n');
    }
    for row in rows {
        let _ = write!(text, "{:LABEL_COLUMNS$}{:>BASE_COLUMNS$}", row.case.label(), base(row));
        let best = best(row, |_| true).map(|(contender, _)| contender);
        for contender in &columns {
            let _ = write!(text, "{:>CELL_COLUMNS$}", cell(row, *contender, best));
        }
        text.push('\n');
    }
}

/// What a column has room for.
fn shortened(name: &str) -> &str {
    if name == "interprocess" { "interproc." } else { name }
}

fn base(row: &Row) -> String {
    let Some(figure) = figure(row, row.case.baseline()) else { return "failed".into() };
    match row.case.unit() {
        Unit::Time => duration(figure.ns.median),
        Unit::Rate => format!("{:.1} GB/s", row.case.size_bytes as f64 / figure.ns.median),
    }
}

fn cell(row: &Row, contender: Contender, best: Option<Contender>) -> String {
    let Some(figures) = row.of(contender) else { return "-".into() };
    if figures.error.is_some() {
        return "failed".into();
    }
    let Some(figure) = figure(row, contender) else { return "-".into() };
    let mark = if best == Some(contender) { "*" } else { "" };
    let digits = if figure.ratio < 9.995 { 2 } else { 0 };
    let spread = if figure.ns.runs > 1 { format!(" {:2.0}%", figure.spread * 100.0) } else { String::new() };
    format!("{mark}{:.digits$}{spread}", figure.ratio)
}

pub(crate) fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 9999.5 => format!("{ns:.0} ns"),
        ns => format!("{:.0} us", ns / 1e3),
    }
}

/// The tails of the round trips, in absolute figures: a tail has no baseline. And how often the host slept in one.
fn percentiles(text: &mut String, outcome: &Outcome) {
    let rows: Vec<&Row> = outcome.rows.iter().filter(|row| row.case.workload == Workload::Rtt).collect();
    let Some(first) = rows.first() else { return };
    let columns = Contender::ALL.into_iter().filter(|contender| first.of(*contender).is_some());
    let columns: Vec<Contender> = columns.collect();
    let _ = writeln!(
        text,
        "\nRound trips, median and 99th percentile, in us, and how often the host slept in each: {SLEEPS}"
    );
    let _ = write!(text, "{:LABEL_COLUMNS$}", "");
    for contender in &columns {
        let name = format!("{} {}", shortened(contender.library()), contender.way());
        let _ = write!(text, "{name:>PAIR_COLUMNS$}");
    }
    text.push('\n');
    for row in &rows {
        let _ = write!(text, "{:LABEL_COLUMNS$}", row.case.label());
        for contender in &columns {
            let found = figure(row, *contender)
                .and_then(|figure| Some((figure.ns.median, figure.p99_ns?.median, figure.sleeps?.median)));
            let cell = found.map_or_else(
                || "-".into(),
                |(p50, p99, sleeps)| format!("{:.2} {:.2} {sleeps:.1}", p50 / 1e3, p99 / 1e3),
            );
            let _ = write!(text, "{cell:>PAIR_COLUMNS$}");
        }
        text.push('\n');
    }
}
