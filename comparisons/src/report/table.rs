//! The tables.

use std::fmt::Write as _;

use super::{best, figure};
use crate::order::{Contender, Wait, Workload};
use crate::plan::Unit;
use crate::runner::{Outcome, Row};
use crate::versions;

const LABEL_COLUMNS: usize = 20;
const BASE_COLUMNS: usize = 12;
const CELL_COLUMNS: usize = 11;

/// All tables, with what each ratio is.
pub(crate) fn text(outcome: &Outcome) -> String {
    let mut text = header(outcome);
    let is_rtt = |row: &Row| row.case.workload == Workload::Rtt;
    let parts: [(&str, Box<dyn Fn(&Row) -> bool>); 3] = [
        ("Median round trip, times the round trip of a cache line: less is better", Box::new(move |row| is_rtt(row))),
        (
            "A message, times as long as the baseline (round trip of a cache line; from 64 KiB on a hot copy): less is better",
            Box::new(move |row| !is_rtt(row) && row.case.unit() == Unit::Time),
        ),
        (
            "Throughput, times that of a copy by one process: more is better",
            Box::new(|row| row.case.unit() == Unit::Rate),
        ),
    ];
    for (title, belongs) in parts {
        let rows: Vec<&Row> = outcome.rows.iter().filter(|row| belongs(row)).collect();
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
    let runs = if outcome.rounds == 1 { "one run".into() } else { format!("the median of {} runs", outcome.rounds) };
    format!("{libraries}\nEach figure is {runs}, with (max - min) / median in %; * is the best of its row.\n")
}

fn table(text: &mut String, rows: &[&Row]) {
    let columns: Vec<Contender> =
        Contender::ALL.into_iter().filter(|contender| rows.iter().any(|row| row.of(*contender).is_some())).collect();
    for name in [Contender::library, Contender::way] {
        let _ = write!(
            text,
            "{:LABEL_COLUMNS$}{:>BASE_COLUMNS$}",
            "",
            if name(Contender::Line) == "baseline" { "baseline" } else { "" }
        );
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
    let spread = if figure.ns.runs > 1 { format!(" {:2.0}%", figure.ns.spread * 100.0) } else { String::new() };
    format!("{mark}{:.digits$}{spread}", figure.ratio)
}

pub(crate) fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 9999.5 => format!("{ns:.0} ns"),
        ns => format!("{:.0} us", ns / 1e3),
    }
}

/// The tails of the round trips, in absolute figures: a tail has no baseline.
fn percentiles(text: &mut String, outcome: &Outcome) {
    let rows: Vec<&Row> = outcome.rows.iter().filter(|row| row.case.workload == Workload::Rtt).collect();
    if rows.is_empty() {
        return;
    }
    let columns = Contender::ALL.into_iter().filter(|contender| rows[0].of(*contender).is_some());
    text.push_str("\nRound trips, p50 and p99\n");
    for contender in columns {
        let _ = write!(text, "{:<14}{:<8}", contender.library(), contender.way());
        for row in &rows {
            let cell = figure(row, contender).and_then(|figure| Some((figure.ns.median, figure.p99_ns?.median)));
            let cell = cell.map_or_else(|| "failed".into(), |(p50, p99)| pair(row.case.wait, p50, p99));
            let _ = write!(text, "{cell:>16}");
        }
        text.push('\n');
    }
    let _ = write!(text, "{:22}", "");
    for row in &rows {
        let _ = write!(text, "{:>16}", row.case.label().replace("rtt ", "").replace("ing", ""));
    }
    text.push('\n');
}

fn pair(wait: Wait, p50: f64, p99: f64) -> String {
    match wait {
        Wait::Spin => format!("{p50:.0} {p99:.0} ns"),
        Wait::Block => format!("{:.1} {:.1} us", p50 / 1e3, p99 / 1e3),
    }
}
