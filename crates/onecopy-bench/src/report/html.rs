//! The report as one HTML page that needs nothing else.

use std::fmt::Write as _;

use super::copies::in_words;
use super::table::{bytes, duration, rate};
use super::{Report, Row, SideWork};
use crate::Workload;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}\
                     table{border-collapse:collapse;width:100%}th,td{padding:.25rem .6rem;text-align:right;\
                     border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}\
                     td.bar{min-width:9rem;text-align:left}td.bar div{background:#3b7;height:.7rem}tr.bad td{color:#b00}";

impl Report {
    /// One page: the tables, a bar for each figure, remarks and advice.
    #[must_use]
    pub fn to_html(&self) -> String {
        let host = &self.host;
        let title = format!("onecopy {} on {}", host.onecopy, host.kernel);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
             <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{}, {} cores.</p>\n",
            escape(&host.cpu),
            host.cores,
            title = escape(&title)
        );
        for sentence in self.advice() {
            let _ = writeln!(page, "<p>{}</p>", escape(&sentence));
        }
        for workload in Workload::ALL {
            self.section(workload.name(), &mut page);
        }
        self.skipped(&mut page);
        for warning in &self.warnings {
            let _ = writeln!(page, "<p>warning: {}</p>", escape(warning));
        }
        page.push_str("</body></html>\n");
        page
    }

    fn section(&self, workload: &str, page: &mut String) {
        let rows: Vec<_> = self.rows.iter().filter(|row| row.workload.as_deref() == Some(workload)).collect();
        if rows.is_empty() {
            return;
        }
        if workload == Workload::Copies.name() {
            return copies_section(&rows, page);
        }
        let _ = write!(
            page,
            "<h2>{workload}</h2>\n<table><tr><th>mechanism</th><th>size</th><th>cold</th><th>wait</th><th>figure</th>\
             <th>ratio</th><th>copies</th><th>CPU/GiB</th><th>verified</th><th></th></tr>\n"
        );
        let most = rows.iter().filter_map(|row| weight(row)).fold(0.0, f64::max);
        for row in rows {
            page.push_str(&line(row, most));
        }
        page.push_str("</table>\n");
    }

    fn skipped(&self, page: &mut String) {
        for row in &self.rows {
            if let Some(reason) = &row.skipped {
                let _ = writeln!(page, "<p>skipped: {}: {}</p>", escape(&row.mechanism), escape(reason));
            }
        }
    }
}

/// Who copied how much; the bar shows the copies of both sides.
fn copies_section(rows: &[&Row], page: &mut String) {
    page.push_str(
        "<h2>copies</h2>\n<p>Bytes copied for each byte of payload, in user space + by the kernel, and processor time for each \
         GiB.</p>\n<table><tr><th>mechanism</th><th>size</th><th>sender</th><th>its CPU</th><th>receiver</th>\
         <th>its CPU</th><th>sum</th><th>verified</th><th></th></tr>\n",
    );
    let most = rows.iter().filter_map(|row| row.counted_copies()).fold(0.0, f64::max);
    for row in rows {
        let side = |work: Option<SideWork>| work.map_or(["-".into(), "-".into()], |work| [work.split(), work.cpu()]);
        let ([sender, sender_cpu], [receiver, receiver_cpu]) = (side(row.sender), side(row.receiver));
        let cells = [
            escape(&row.mechanism),
            row.size_bytes.map_or_else(|| "-".into(), bytes),
            sender,
            sender_cpu,
            receiver,
            receiver_cpu,
            row.counted_copies().map_or_else(|| "-".into(), |copies| format!("{copies:.2}")),
            verdict(row),
        ];
        page.push_str(&table_row(row, &cells, row.counted_copies().map_or(0.0, |copies| 100.0 * copies / most)));
    }
    page.push_str("</table>\n");
    for sentence in in_words(rows) {
        let _ = writeln!(page, "<p>{}</p>", escape(&sentence));
    }
}

fn line(row: &Row, most: f64) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let share = weight(row).map_or(0.0, |weight| 100.0 * weight / most);
    let cells = [
        escape(&row.measured_name()),
        or_dash(row.size_bytes.map(bytes)),
        or_dash(row.cold.map(|cold| if cold { "yes" } else { "no" }.into())),
        or_dash(row.wait.clone()),
        figure(row),
        or_dash(
            row.ratio_to_memcpy
                .or(row.ratio_to_memcpy_time)
                .or(row.ratio_to_one_process)
                .or(row.ratio_to_cache_line)
                .or(row.ratio_to_plain)
                .or(row.ratio_to_one_channel)
                .map(|ratio| format!("{ratio:.2}")),
        ),
        or_dash(row.copies.map(|copies| copies.to_string())),
        or_dash(row.cpu_ns_per_kib.map(|ns| duration(ns * f64::from(1 << 20)))),
        verdict(row),
    ];
    table_row(row, &cells, share)
}

/// Whether it verified, or what failed.
fn verdict(row: &Row) -> String {
    let good = if row.verified == Some(true) { "yes" } else { "no" };
    escape(row.error.as_deref().unwrap_or(good))
}

fn table_row(row: &Row, cells: &[String], share: f64) -> String {
    format!(
        "<tr{}><td>{}</td><td class=\"bar\"><div style=\"width:{share:.1}%\"></div></td></tr>\n",
        if row.verified == Some(true) { "" } else { " class=\"bad\"" },
        cells.join("</td><td>")
    )
}

/// What the bar shows: the throughput, or the median round trip.
fn weight(row: &Row) -> Option<f64> {
    row.bytes_per_s.or(row.ns_per_message).or(row.latency_ns.map(|latency| latency.p50 as f64))
}

fn figure(row: &Row) -> String {
    match (row.bytes_per_s, row.latency_ns) {
        (Some(bytes_per_s), _) => rate(bytes_per_s),
        (None, Some(latency)) => duration(latency.p50 as f64),
        (None, None) => row.ns_per_message.map_or_else(|| "-".into(), duration),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
