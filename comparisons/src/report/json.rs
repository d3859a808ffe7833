//! One JSON object.

use serde_json::{Value, json};

use super::figure;
use crate::order::Contender;
use crate::plan::Unit;
use crate::runner::{Figures, Outcome, Row};
use crate::stats::Summary;
use crate::versions;

/// Everything that was measured. Every figure names its unit.
pub(crate) fn object(outcome: &Outcome) -> Value {
    let system = rustix::system::uname();
    let libraries = ["onecopy", "iceoryx2", "ipc-channel", "interprocess"];
    let library_versions: serde_json::Map<String, Value> =
        libraries.iter().map(|library| ((*library).into(), versions::of(library).into())).collect();
    json!({
        "version": 1,
        "host": {"kernel": system.release().to_string_lossy(), "machine": system.machine().to_string_lossy()},
        "libraries": library_versions,
        "rows": outcome.rows.iter().flat_map(row).collect::<Vec<_>>(),
        "left_when_killed": outcome.left.iter().map(|left| match &left.names {
            Ok(names) => json!({"library": left.contender.library(), "names": names}),
            Err(error) => json!({"library": left.contender.library(), "error": error}),
        }).collect::<Vec<_>>(),
    })
}

fn row(row: &Row) -> Vec<Value> {
    row.figures.iter().map(|figures| contender(row, figures)).collect()
}

fn contender(row: &Row, figures: &Figures) -> Value {
    let mut value = json!({
        "library": figures.contender.library(),
        "way": figures.contender.way(),
        "workload": row.case.workload,
        "size_bytes": row.case.size_bytes,
        "cold": row.case.cold,
        "work_us": row.case.work_us,
        "wait": row.case.wait_of(figures.contender),
        "verified": figures.error.is_none(),
    });
    if let Some(error) = &figures.error {
        value["error"] = json!(error);
    }
    if let Some(remark) = figures.samples.iter().find_map(|sample| sample.remark.as_ref()) {
        value["path"] = json!(remark);
    }
    let Some(figure) = figure(row, figures.contender) else { return value };
    value["ns_per_message"] = summary(figure.ns);
    if let Some(p99) = figure.p99_ns {
        value["p99_ns"] = summary(p99);
    }
    if let Some(sleeps) = figure.sleeps {
        value["sleeps_per_round_trip"] = summary(sleeps);
    }
    if figures.contender != row.case.baseline() {
        value[ratio_name(row)] = json!(figure.ratio);
    }
    value
}

fn summary(summary: Summary) -> Value {
    json!({"median": summary.median, "spread": summary.spread, "runs": summary.runs})
}

fn ratio_name(row: &Row) -> &'static str {
    match (row.case.baseline(), row.case.unit()) {
        (Contender::Line, _) => "time_to_cache_line",
        (Contender::Pipe, _) => "time_to_pipe",
        (_, Unit::Time) => "time_to_memcpy",
        (_, Unit::Rate) => "rate_to_memcpy",
    }
}
