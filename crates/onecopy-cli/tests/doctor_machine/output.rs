//! The form of the report: lines, columns, colours, fields, exit codes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use onecopy::Mechanism;

use crate::support::{Scratch, skip, watchdog};
use crate::{ONECOPY, doctor, json, limited, named, text};

#[test]
fn the_summary_fits_a_terminal() {
    let _watchdog = watchdog(Duration::from_secs(60));
    // As it is here, and with several limits low.
    for command in [doctor(&[]), limited("--nofile=64:64", &[]), limited("--memlock=0:0", &[])] {
        let summary = text(command);
        assert!(summary.lines().count() <= 24, "{} lines:\n{summary}", summary.lines().count());
        for line in summary.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
            assert!(line.trim_end() == line, "{line:?}");
        }
    }
}

#[test]
fn the_verdict_comes_first_then_what_is_refused_then_what_is_low() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let summary = text(limited("--nofile=64:64", &[]));
    assert!(summary.contains("mechanisms work here. Cross-memory attach "), "{summary}");
    let place = |words: &str| summary.find(words);
    let low = place("\nLow limits").expect("a low limit");
    assert!(place("\nRefused").is_none_or(|refused| refused < low), "{summary}");
    assert!(place("mechanisms work here").unwrap() < low, "{summary}");
    let refused = json(doctor(&["--json"]));
    let refused = refused["mechanisms"].as_array().unwrap().iter().filter(|row| row["available"] == false);
    for row in refused {
        assert!(summary.contains(row["name"].as_str().unwrap()), "{row} is not told:\n{summary}");
    }
}

#[test]
fn all_of_it_is_there_on_request() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let all = text(doctor(&["--all"]));
    for mechanism in Mechanism::ALL {
        let line = all.lines().find(|line| line.split_whitespace().next() == Some(mechanism.name()));
        let line = line.unwrap_or_else(|| panic!("nothing of {mechanism}"));
        assert!(line.contains(" works") || line.contains(" refused"), "{line}");
    }
    for limit in onecopy::limits::limits() {
        assert!(all.lines().any(|line| line.trim_start().starts_with(limit.name)), "nothing of {}", limit.name);
    }
    for words in ["reading a child", "writing a parent", "own pid namespace", "CAP_SYS_PTRACE", "cpu.max", "seccomp"] {
        assert!(all.contains(words), "nothing of {words}");
    }
    for line in all.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn the_object_has_every_mechanism_and_the_four_transfers() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let object = json(doctor(&["--json"]));
    assert_eq!(object["version"], 1);
    let rows = object["mechanisms"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, Mechanism::ALL.map(Mechanism::name));
    for mechanism in Mechanism::ALL {
        let row = named(&object["mechanisms"], mechanism.name());
        assert_eq!(row["row"], mechanism.row());
        assert_eq!(row["available"] == true, row["reason"].is_null(), "{row}");
        if !matches!(mechanism, Mechanism::CmaRead | Mechanism::CmaWrite) {
            assert_eq!(row["available"], mechanism.availability().is_ok(), "{row}");
        }
    }
    let attach = &object["cross_memory_attach"];
    let mut works = true;
    for transfer in ["parent_reads_child", "parent_writes_child", "child_reads_parent", "child_writes_parent"] {
        let one = &attach[transfer];
        assert_eq!(one["works"] == true, one["reason"].is_null(), "{transfer}: {one}");
        works &= one["works"] == true;
    }
    assert_eq!(attach["works"], works, "{attach}");
    assert_eq!(named(&object["mechanisms"], "cma-read")["available"], attach["parent_reads_child"]["works"]);
    assert_eq!(named(&object["mechanisms"], "cma-write")["available"], attach["parent_writes_child"]["works"]);
}

#[test]
fn the_surroundings_are_what_the_kernel_tells() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let object = json(doctor(&["--json"]));
    let around = &object["surroundings"];
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(around["kernel"], release.trim());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |label: &str| status.lines().find_map(|line| line.strip_prefix(label)).unwrap().trim();
    assert_eq!(around["seccomp_mode"].to_string(), field("Seccomp:"));
    let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap();
    assert_eq!(around["cap_sys_ptrace"], capabilities >> 19 & 1 == 1);

    let mut command = Command::new("unshare");
    command.args(["-Urpf", "--mount-proc", ONECOPY, "doctor", "--json"]);
    match command.output() {
        Ok(output) if output.status.success() => {
            let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let around = &object["surroundings"];
            assert_eq!((&around["own_pid_namespace"], &around["own_user_namespace"]), (&true.into(), &true.into()));
            assert!(around["notes"].as_array().unwrap().len() >= 2, "{around}");
            assert_eq!(object["cross_memory_attach"]["works"], true, "{object}");
        }
        _ => skip("output::the_surroundings_are_what_the_kernel_tells", "no user and pid namespace for this user"),
    }
}

#[test]
fn colour_is_for_terminals_alone() {
    let _watchdog = watchdog(Duration::from_secs(60));
    for arguments in [&[][..], &["--all"], &["--json"]] {
        assert!(!text(doctor(arguments)).contains('\x1b'), "{arguments:?}");
    }
    // script(1) gives it a terminal.
    let Some(coloured) = on_a_terminal("") else {
        return skip("output::colour_is_for_terminals_alone", "no script(1)");
    };
    assert!(coloured.contains("\x1b[1m"), "{coloured:?}");
    let plain = on_a_terminal("NO_COLOR=1").expect("script");
    assert!(!plain.contains('\x1b'), "{plain:?}");
    assert!(!on_a_terminal("TERM=dumb").expect("script").contains('\x1b'));
    let without = ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];
    let same = without.iter().fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(same, plain, "the words do not depend on colour");
}

fn on_a_terminal(variable: &str) -> Option<String> {
    let scratch = Scratch::new();
    let command = format!("{variable} {} doctor", shell_word(Path::new(ONECOPY)));
    let mut script = Command::new("script");
    script
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .current_dir(scratch.root());
    let output = script.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shell_word(path: &Path) -> String {
    format!("'{}'", path.display())
}

#[test]
fn exit_codes_are_those_of_every_verb() {
    let _watchdog = watchdog(Duration::from_secs(60));
    for wrong in [&["--every"][..], &["--all", "extra"], &["--probe", "1,2"]] {
        let output = doctor(wrong).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{wrong:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{output:?}");
    }
    let foreign = doctor(&["--probe", "4194304,4096,4096"]).output().unwrap();
    assert_eq!(foreign.status.code(), Some(2), "no process but its parent: {foreign:?}");
    let help = doctor(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("onecopy doctor --all") && !help.contains("--probe"), "{help}");
}
