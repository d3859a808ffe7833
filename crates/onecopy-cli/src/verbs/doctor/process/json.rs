//! `onecopy doctor --pid --json`.

use onecopy::memory::permission::{Diagnosis, Remedies, Verdict};
use serde::Serialize;

use crate::failure::Failure;

#[derive(Serialize)]
struct Process<'a> {
    version: u32,
    pid: u32,
    name: Option<&'a str>,
    /// Why its memory cannot be used: that of `read`, or of `write` where reading is allowed.
    cause: &'static str,
    read: Direction<'a>,
    write: Direction<'a>,
    reverse: Direction<'a>,
}

/// `allowed` is null where it is unknown; `errno` where there was none.
#[derive(Serialize)]
struct Direction<'a> {
    allowed: Option<bool>,
    errno: Option<String>,
    killed_by_signal: Option<i32>,
    derived: bool,
    cause: &'static str,
    rule: &'static str,
    evidence: &'a [String],
    remedies: Helps,
}

#[derive(Serialize)]
struct Helps {
    host: &'static [&'static str],
    container: &'static [&'static str],
}

pub(super) fn text(diagnosis: &Diagnosis) -> Result<String, Failure> {
    let object = Process {
        version: 1,
        pid: diagnosis.pid,
        name: diagnosis.name.as_deref(),
        cause: diagnosis.cause().name(),
        read: (&diagnosis.read).into(),
        write: (&diagnosis.write).into(),
        reverse: (&diagnosis.reverse).into(),
    };
    match serde_json::to_string_pretty(&object) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure::failed(format!("cannot write JSON: {error}"))),
    }
}

impl<'a> From<&'a Verdict> for Direction<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        Self {
            allowed: verdict.allowed,
            errno: verdict.errno_name(),
            killed_by_signal: verdict.killed_by,
            derived: verdict.derived,
            cause: verdict.cause.name(),
            rule: verdict.cause.rule(),
            evidence: &verdict.evidence,
            remedies: verdict.remedies.into(),
        }
    }
}

impl From<Remedies> for Helps {
    fn from(remedies: Remedies) -> Self {
        Self { host: remedies.host, container: remedies.container }
    }
}
