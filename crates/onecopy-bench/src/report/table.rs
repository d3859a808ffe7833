//! The report for a terminal of 80 columns.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{Report, Row};
use crate::options::Workload;

/// A figure of a row, and what it sorts by: the best first.
pub(super) type Sorting = fn(&Row) -> f64;

/// A cache line does not take so many times as long but where a core has moved.
const MOVED: f64 = 1.5;

impl Report {
    /// A table for each workload, the best rows first, then what failed, what was skipped, warnings, and what to use.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut sections = vec![self.heading()];
        sections.extend(self.round_trips());
        sections.extend([true, false].into_iter().filter_map(|cold| self.streams(cold)));
        sections.extend(self.fresh());
        sections.extend(self.loans());
        sections.extend(self.registered());
        sections.extend(self.many());
        sections.extend(self.crossings());
        sections.extend(self.processor());
        sections.extend(self.copies());
        sections.extend(self.wakes());
        sections.extend(self.locks());
        sections.extend(self.layers());
        sections.extend(self.remarks());
        let advice = self.advice().iter().map(|sentence| wrap(sentence, "")).collect::<Vec<_>>().join("\n");
        if !advice.is_empty() {
            sections.push(advice);
        }
        sections.join("\n\n") + "\n"
    }

    fn heading(&self) -> String {
        let host = &self.host;
        let mut text = format!("onecopy {} on {}, {} ({} cores)", host.onecopy, host.kernel, host.cpu, host.cores);
        if let Some(line) = self.baselines.cache_line_rtt_ns {
            text.push_str(&format!("\nA cache line to the other core and back: {}", duration(line)));
            let beside = self.rows.iter().filter_map(|row| row.cache_line_rtt_ns);
            let (least, most) =
                beside.fold((line, line), |(least, most), beside| (least.min(beside), most.max(beside)));
            if most > MOVED * least {
                text.push_str(&format!(", {} to {} beside the rows", duration(least), duration(most)));
            }
            text.push('.');
        }
        let cold: Vec<_> = self.baselines.memcpy.iter().filter(|rate| rate.cold).collect();
        if let Some(largest) = cold.last() {
            let (size, speed) = (bytes(largest.size_bytes), rate(largest.bytes_per_s));
            let pages = if host.huge_pages { "huge pages advised" } else { "small pages" };
            text.push_str(&format!("\nmemcpy of {size} out of the cache's reach: {speed}; payloads: {pages}."));
        }
        text.lines().map(|line| wrap(line, "")).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn rows_of(&self, workload: Workload, keep: impl Fn(&Row) -> bool, by: Sorting) -> Vec<&Row> {
        let wanted = |row: &&Row| row.is_of(workload) && row.is_measured() && keep(row);
        let mut rows: Vec<_> = self.rows.iter().filter(wanted).collect();
        rows.sort_by(|a, b| a.size_bytes.cmp(&b.size_bytes).then(by(a).total_cmp(&by(b))));
        rows
    }

    fn round_trips(&self) -> Option<String> {
        let p50 = |row: &Row| row.latency_ns.map_or(f64::MAX, |latency| latency.p50 as f64);
        let rows = self.rows_of(Workload::Rtt, |row| row.kind == "transfer", p50);
        let mut table = Columns::new(&["mechanism", "size", "wait", "p50", "p99", "p99.9", "x line", "copies", "ok"]);
        for row in &rows {
            let latency = row.latency_ns?;
            table.add([
                row.mechanism.clone(),
                size(row),
                row.wait.clone().unwrap_or_default(),
                duration(latency.p50 as f64),
                duration(latency.p99 as f64),
                duration(latency.p999 as f64),
                ratio(row.ratio_to_cache_line),
                number(row.copies),
                verified(row),
            ]);
        }
        table.under("rtt: there and back", &rows)
    }

    fn streams(&self, cold: bool) -> Option<String> {
        let rows =
            self.rows_of(Workload::Stream, |row| row.cold == Some(cold), |row| -row.bytes_per_s.unwrap_or_default());
        let mut table =
            Columns::new(&["mechanism", "size", "a second", "x memcpy", "copies", "CPU/GiB", "spread", "ok"]);
        for row in &rows {
            table.add([
                row.mechanism.clone(),
                size(row),
                rate(row.bytes_per_s.unwrap_or_default()),
                ratio(row.ratio_to_memcpy),
                number(row.copies),
                cpu_per_gib(row),
                percent(row.spread),
                verified(row),
            ]);
        }
        let title = if cold { "stream, cold: one way, out of the cache's reach" } else { "stream, hot: one buffer" };
        table.under(title, &rows)
    }

    fn fresh(&self) -> Option<String> {
        let p50 = |row: &Row| row.latency_ns.map_or(f64::MAX, |latency| latency.p50 as f64);
        let rows = self.rows_of(Workload::Fresh, |_| true, p50);
        let mut table = Columns::new(&["mechanism", "size", "path", "wait", "p50", "p99", "x memcpy", "copies", "ok"]);
        for row in &rows {
            let latency = row.latency_ns?;
            table.add([
                row.mechanism.clone(),
                size(row),
                row.path.clone().unwrap_or_else(|| "-".into()),
                row.wait.clone().unwrap_or_default(),
                duration(latency.p50 as f64),
                duration(latency.p99 as f64),
                ratio(row.ratio_to_memcpy_time),
                number(row.copies),
                verified(row),
            ]);
        }
        table.under("fresh: one long message at a time, half of there and back; x memcpy's time", &rows)
    }

    fn loans(&self) -> Option<String> {
        let mut rows = self.rows_of(Workload::Loan, |_| true, |row| -row.bytes_per_s.unwrap_or_default());
        rows.extend(self.rows_of(Workload::LoanUntouched, |_| true, |row| row.ns_per_message.unwrap_or(f64::MAX)));
        let mut table =
            Columns::new(&["workload", "size", "a second", "x one process", "a message", "x line", "spread", "ok"]);
        for row in &rows {
            table.add_line([
                row.workload.clone().unwrap_or_default(),
                size(row),
                row.bytes_per_s.map_or_else(|| "-".into(), rate),
                ratio(row.ratio_to_one_process),
                row.ns_per_message.map_or_else(|| "-".into(), duration),
                ratio(row.ratio_to_cache_line),
                percent(row.spread),
                verified(row),
            ]);
        }
        table.under("loan: filled, sent and summed up in place; untouched: sent alone", &rows)
    }

    fn registered(&self) -> Option<String> {
        let rows = self.rows_of(Workload::Registered, |_| true, |row| -row.bytes_per_s.unwrap_or_default());
        let mut table = Columns::new(&["size", "path", "a second", "x memcpy", "copies", "CPU/GiB", "spread", "ok"]);
        for row in &rows {
            table.add([
                size(row),
                row.path.clone().unwrap_or_else(|| "-".into()),
                rate(row.bytes_per_s.unwrap_or_default()),
                ratio(row.ratio_to_memcpy),
                number(row.copies),
                cpu_per_gib(row),
                percent(row.spread),
                verified(row),
            ]);
        }
        table.under("registered: one way, hot, from one registered buffer into another", &rows)
    }

    fn many(&self) -> Option<String> {
        let rows = self.rows_of(Workload::Many, |_| true, |row| row.channels.map_or(0.0, f64::from));
        let mut table = Columns::new(&["mechanism", "size", "channels", "p50", "p99", "x one", "ok"]);
        for row in &rows {
            let latency = row.latency_ns?;
            table.add([
                row.mechanism.clone(),
                size(row),
                number(row.channels),
                duration(latency.p50 as f64),
                duration(latency.p99 as f64),
                ratio(row.ratio_to_one_channel),
                verified(row),
            ]);
        }
        table.under("many: there and back on one of the receiver's channels; x that of a single one", &rows)
    }

    fn processor(&self) -> Option<String> {
        let rows = self.rows_of(Workload::Cpu, |_| true, |row| row.cpu_ns_per_kib.unwrap_or(f64::MAX));
        let mut table = Columns::new(&["mechanism", "size", "CPU/GiB", "a second", "x memcpy", "copies", "ok"]);
        for row in &rows {
            table.add([
                row.mechanism.clone(),
                size(row),
                cpu_per_gib(row),
                rate(row.bytes_per_s.unwrap_or_default()),
                ratio(row.ratio_to_memcpy),
                number(row.copies),
                verified(row),
            ]);
        }
        table.under("cpu: processor time of both sides", &rows)
    }

    fn wakes(&self) -> Option<String> {
        let p50 = |row: &Row| row.latency_ns.map_or(f64::MAX, |latency| latency.p50 as f64);
        let rows = self.rows_of(Workload::Rtt, |row| row.kind == "wake", p50);
        let mut table = Columns::new(&["mechanism", "p50", "p99", "p99.9", "x line", "ok"]);
        for row in &rows {
            let latency = row.latency_ns?;
            table.add_line([
                row.mechanism.clone(),
                duration(latency.p50 as f64),
                duration(latency.p99 as f64),
                duration(latency.p999 as f64),
                ratio(row.ratio_to_cache_line),
                verified(row),
            ]);
        }
        table.under("wake: one process wakes the other and is woken, both asleep meanwhile", &rows)
    }

    /// A line for each lock: alone, and when two processes want it.
    fn locks(&self) -> Option<String> {
        let ns = |row: &Row| row.ns_per_acquire.unwrap_or(f64::MAX);
        let alone = self.rows_of(Workload::Uncontended, |_| true, ns);
        let both = self.rows_of(Workload::Contended, |_| true, ns);
        let mut names: Vec<&str> = alone.iter().chain(&both).map(|row| row.mechanism.as_str()).collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        let mut table = Columns::new(&["mechanism", "alone", "ok", "two processes", "ok"]);
        for name in &names {
            let of = |rows: &[&Row]| rows.iter().find(|row| row.mechanism == *name).copied().cloned();
            let (alone, both) = (of(&alone), of(&both));
            table.add_line([
                (*name).to_owned(),
                acquisition(alone.as_ref()),
                alone.as_ref().map_or_else(|| "-".into(), verified),
                acquisition(both.as_ref()),
                both.as_ref().map_or_else(|| "-".into(), verified),
            ]);
        }
        (!names.is_empty()).then(|| table.titled("lock: to take it and give it back"))
    }

    fn layers(&self) -> Option<String> {
        let rows = self.rows_of(Workload::Layer, |_| true, |row| -row.ratio_to_plain.unwrap_or_default());
        let mut table = Columns::new(&["mechanism", "size", "ours", "plain loop", "ours/plain", "spread", "ok"]);
        for row in &rows {
            table.add([
                row.mechanism.clone(),
                size(row),
                rate(row.bytes_per_s.unwrap_or_default()),
                rate(row.plain_bytes_per_s.unwrap_or_default()),
                ratio(row.ratio_to_plain),
                percent(row.spread),
                verified(row),
            ]);
        }
        table.under("layer: through this library, and by the same system calls alone", &rows)
    }

    /// What needs a sentence: failures, skipped rows, losses, warnings.
    fn remarks(&self) -> Option<String> {
        let mut lines = Vec::new();
        for row in &self.rows {
            let channels = row.channels.map(|channels| format!("for {channels} channels"));
            let what = [Some(row.mechanism.clone()), row.workload.clone(), row.size_bytes.map(bytes), channels];
            let what = what.into_iter().flatten().collect::<Vec<_>>().join(" ");
            lines.extend(row.error.as_ref().map(|error| format!("failed: {what}: {error}")));
            lines.extend(row.skipped.as_ref().map(|reason| format!("skipped: {what}: {reason}")));
            lines.extend(
                row.lost
                    .filter(|lost| *lost > 0)
                    .map(|lost| format!("lost: {what}: {lost} of {} messages", row.messages.unwrap_or_default())),
            );
        }
        let mut fragmented: Vec<_> =
            self.rows.iter().filter(|row| row.fragmented == Some(true)).map(|row| row.mechanism.as_str()).collect();
        fragmented.dedup();
        if !fragmented.is_empty() {
            lines.push(format!(
                "note: with two copies more, messages went in fragments, since they are longer than {} can carry",
                fragmented.join(", ")
            ));
        }
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        (!lines.is_empty()).then(|| lines.iter().map(|line| wrap(line, "  ")).collect::<Vec<_>>().join("\n"))
    }
}

/// A table whose first column stands on the left and all others on the right. A line is left free between sizes.
pub(super) struct Columns {
    table: Table,
    count: usize,
    last_size: Option<String>,
}

impl Columns {
    pub(super) fn new(names: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(cells(names.iter().map(|name| (*name).to_owned())));
        Self { table, count: names.len(), last_size: None }
    }

    pub(super) fn add<const N: usize>(&mut self, row: [String; N]) {
        let size = row[1].clone();
        if self.last_size.as_ref().is_some_and(|last| *last != size) {
            self.table.add_row(vec![""; self.count]);
        }
        self.last_size = Some(size);
        self.add_line(row);
    }

    /// A row of a table that is not divided by sizes.
    pub(super) fn add_line<const N: usize>(&mut self, row: [String; N]) {
        self.table.add_row(cells(row));
    }

    /// The table with its title, or nothing when there are no rows.
    pub(super) fn under(self, title: &str, rows: &[&Row]) -> Option<String> {
        (!rows.is_empty()).then(|| self.titled(title))
    }

    /// The table with its title.
    pub(super) fn titled(mut self, title: &str) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<_> = self.table.lines().map(|line| line.trim_end().to_owned()).collect();
        format!("{title}\n{}", lines.join("\n"))
    }
}

fn cells(texts: impl IntoIterator<Item = String>) -> Vec<Cell> {
    let aligned = |(index, text)| {
        let alignment = if index == 0 { CellAlignment::Left } else { CellAlignment::Right };
        Cell::new(text).set_alignment(alignment)
    };
    texts.into_iter().enumerate().map(aligned).collect()
}

pub(super) fn size(row: &Row) -> String {
    row.size_bytes.map_or_else(String::new, bytes)
}

fn number(value: Option<u32>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

pub(super) fn ratio(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn acquisition(row: Option<&Row>) -> String {
    row.and_then(|row| row.ns_per_acquire).map_or_else(|| "-".into(), duration)
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{:.0} %", value * 100.0))
}

fn cpu_per_gib(row: &Row) -> String {
    row.cpu_ns_per_kib.map_or_else(|| "-".into(), |ns| duration(ns * f64::from(1 << 20)))
}

pub(super) fn verified(row: &Row) -> String {
    match (row.verified, row.lost) {
        (Some(true), Some(lost)) if lost > 0 => "lost".into(),
        (Some(true), _) => "yes".into(),
        _ => "NO".into(),
    }
}

/// A size with a binary unit.
pub(super) fn bytes(size_bytes: usize) -> String {
    match size_bytes {
        size if size >= 1 << 30 && size % (1 << 30) == 0 => format!("{} GiB", size >> 30),
        size if size >= 1 << 20 && size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 && size % (1 << 10) == 0 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

/// A throughput with a decimal unit.
pub(super) fn rate(bytes_per_s: f64) -> String {
    match bytes_per_s {
        rate if rate >= 1e10 => format!("{:.1} GB/s", rate / 1e9),
        rate if rate >= 1e9 => format!("{:.2} GB/s", rate / 1e9),
        rate if rate >= 1e6 => format!("{:.0} MB/s", rate / 1e6),
        rate => format!("{:.0} kB/s", rate / 1e3),
    }
}

/// A time with its unit.
pub(super) fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e4 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e6 => format!("{:.0} us", ns / 1e3),
        ns if ns < 1e7 => format!("{:.1} ms", ns / 1e6),
        ns if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.1} s", ns / 1e9),
    }
}

/// Breaks a text into lines of at most 79 columns, the second and all further ones indented.
pub(super) fn wrap(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        if line.trim().is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= 79 {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("{indent}{word}"));
        }
    }
    lines.join("\n")
}
