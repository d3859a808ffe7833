//! `onecopy doctor` of a machine: what it says fits a terminal and is what the kernel says.

#[path = "../../../onecopy/tests/support/mod.rs"]
mod support;

mod filtered;
mod limits;
mod output;

use std::process::{Command, Output, Stdio};

use serde_json::Value;

const ONECOPY: &str = env!("CARGO_BIN_EXE_onecopy");

/// The command with what suits a test, before it runs.
fn doctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(ONECOPY);
    command.arg("doctor").args(arguments).stdin(Stdio::null());
    command
}

/// It succeeds and says nothing on stderr. Returns its stdout.
#[track_caller]
fn text(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the command");
    assert!(status.success() && stderr.is_empty(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("UTF-8")
}

#[track_caller]
fn json(command: Command) -> Value {
    serde_json::from_str(&text(command)).expect("one JSON object")
}

/// The element of an array with this name.
#[track_caller]
fn named<'a>(array: &'a Value, name: &str) -> &'a Value {
    let found = array.as_array().expect("an array").iter().find(|element| element["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {array}"))
}

/// The command with arguments of prlimit(1) before it.
fn limited(limit: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.args([limit, "--", ONECOPY, "doctor"]).args(arguments).stdin(Stdio::null());
    command
}
