//! The report as one HTML page that needs nothing else.

use std::fmt::Write as _;

use super::table::{bytes, duration, rate};
use super::{Report, Row};

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
        for workload in crate::Workload::ALL {
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

fn line(row: &Row, most: f64) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let good = row.verified == Some(true);
    let share = weight(row).map_or(0.0, |weight| 100.0 * weight / most);
    let cells = [
        escape(&row.mechanism),
        or_dash(row.size_bytes.map(bytes)),
        or_dash(row.cold.map(|cold| if cold { "yes" } else { "no" }.into())),
        or_dash(row.wait.clone()),
        figure(row),
        or_dash(
            row.ratio_to_memcpy.or(row.ratio_to_cache_line).or(row.ratio_to_plain).map(|ratio| format!("{ratio:.2}")),
        ),
        or_dash(row.copies.map(|copies| copies.to_string())),
        or_dash(row.cpu_ns_per_kib.map(|ns| duration(ns * f64::from(1 << 20)))),
        escape(&row.error.clone().unwrap_or_else(|| if good { "yes" } else { "no" }.into())),
    ];
    format!(
        "<tr{}><td>{}</td><td class=\"bar\"><div style=\"width:{share:.1}%\"></div></td></tr>\n",
        if good { "" } else { " class=\"bad\"" },
        cells.join("</td><td>")
    )
}

/// What the bar shows: the throughput, or the median round trip.
fn weight(row: &Row) -> Option<f64> {
    row.bytes_per_s.or(row.latency_ns.map(|latency| latency.p50 as f64))
}

fn figure(row: &Row) -> String {
    match (row.bytes_per_s, row.latency_ns) {
        (Some(bytes_per_s), _) => rate(bytes_per_s),
        (None, Some(latency)) => duration(latency.p50 as f64),
        (None, None) => "-".into(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
