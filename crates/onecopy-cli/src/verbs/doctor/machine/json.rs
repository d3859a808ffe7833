//! `onecopy doctor --json`.

use onecopy::Mechanism;
use onecopy::limits::Limit;
use serde::Serialize;

use super::probe::errno_name;
use super::{Outcome, Report};
use crate::failure::Failure;
use crate::verbs::explain::json::{InForce, to_text};

#[derive(Serialize)]
struct Object<'a> {
    version: u32,
    verdict: String,
    mechanisms: Vec<OneMechanism<'a>>,
    cross_memory_attach: Transfers,
    limits: Vec<OneLimit>,
    surroundings: Around<'a>,
}

#[derive(Serialize)]
struct OneMechanism<'a> {
    name: &'static str,
    row: usize,
    available: bool,
    reason: Option<&'a str>,
}

/// Who did it to whom: this process and its child.
#[derive(Serialize)]
struct Transfers {
    works: bool,
    parent_reads_child: Transfer,
    parent_writes_child: Transfer,
    child_reads_parent: Transfer,
    child_writes_parent: Transfer,
}

#[derive(Serialize)]
struct Transfer {
    works: bool,
    errno: Option<String>,
    signal: Option<i32>,
    reason: Option<String>,
}

/// A limit; `low_if`, `low_because` and `remedy` are null where no value of it is low.
#[derive(Serialize)]
struct OneLimit {
    #[serde(flatten)]
    in_force: InForce,
    low: bool,
    low_if: Option<String>,
    enough: Option<u64>,
    low_because: Option<&'static str>,
    remedy: Option<String>,
    remedy_needs_root: Option<bool>,
}

#[derive(Serialize)]
struct Around<'a> {
    kernel: &'a str,
    seccomp_mode: Option<u64>,
    seccomp_filters: Option<u64>,
    yama_ptrace_scope: Option<u64>,
    own_user_namespace: Option<bool>,
    own_pid_namespace: Option<bool>,
    own_ipc_namespace: Option<bool>,
    cap_sys_ptrace: Option<bool>,
    cpu_quota_processors: Option<f64>,
    notes: Vec<String>,
}

pub(super) fn text<'a>(report: &'a Report) -> Result<String, Failure> {
    let mechanism = |(mechanism, result): &'a (Mechanism, Result<(), String>)| OneMechanism {
        name: mechanism.name(),
        row: mechanism.row(),
        available: result.is_ok(),
        reason: result.as_ref().err().map(String::as_str),
    };
    to_text(&Object {
        version: 1,
        verdict: report.verdict(),
        mechanisms: report.mechanisms.iter().map(mechanism).collect(),
        cross_memory_attach: transfers(report),
        limits: report.limits.iter().cloned().map(OneLimit::from).collect(),
        surroundings: around(report),
    })
}

fn transfers(report: &Report) -> Transfers {
    let one = |outcome: &Outcome| Transfer {
        works: *outcome == Outcome::Works,
        errno: outcome.errno().map(errno_name),
        signal: if let Outcome::Killed(signal) = outcome { Some(*signal) } else { None },
        reason: (*outcome != Outcome::Works).then(|| outcome.reason(&report.surroundings)),
    };
    let attach = &report.attach;
    Transfers {
        works: attach.all_work(),
        parent_reads_child: one(&attach.reads_child),
        parent_writes_child: one(&attach.writes_child),
        child_reads_parent: one(&attach.reads_parent),
        child_writes_parent: one(&attach.writes_parent),
    }
}

impl From<Limit> for OneLimit {
    fn from(limit: Limit) -> Self {
        let low = limit.is_low();
        let advice = limit.advice.clone();
        Self {
            in_force: limit.into(),
            low,
            low_if: advice.as_ref().map(|advice| advice.low_if.to_string()),
            enough: advice.as_ref().map(|advice| advice.low_if.enough()),
            low_because: advice.as_ref().map(|advice| advice.because),
            remedy_needs_root: advice.as_ref().map(|advice| advice.remedy.as_root),
            remedy: advice.map(|advice| advice.remedy.command),
        }
    }
}

fn around(report: &Report) -> Around<'_> {
    let found = &report.surroundings;
    Around {
        kernel: &found.kernel,
        seccomp_mode: found.seccomp_mode,
        seccomp_filters: found.seccomp_filters,
        yama_ptrace_scope: found.yama,
        own_user_namespace: found.own_user_namespace,
        own_pid_namespace: found.own_pid_namespace,
        own_ipc_namespace: found.own_ipc_namespace,
        cap_sys_ptrace: found.cap_sys_ptrace,
        cpu_quota_processors: found.cpu_quota,
        notes: found.notes(),
    }
}
