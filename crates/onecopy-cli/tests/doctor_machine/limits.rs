//! The limits in the report: all that matter, with the values that the kernel and prlimit(1) tell.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{skip, watchdog};
use crate::{ONECOPY, doctor, json, limited, named, text};

/// Each limit that lies in a field of a file below /proc/sys.
const SYSCTLS: [(&str, &str, usize); 21] = [
    ("fs.pipe-max-size", "fs/pipe-max-size", 0),
    ("fs.pipe-user-pages-soft", "fs/pipe-user-pages-soft", 0),
    ("fs.pipe-user-pages-hard", "fs/pipe-user-pages-hard", 0),
    ("fs.mqueue.msg_max", "fs/mqueue/msg_max", 0),
    ("fs.mqueue.msgsize_max", "fs/mqueue/msgsize_max", 0),
    ("fs.mqueue.queues_max", "fs/mqueue/queues_max", 0),
    ("kernel.msgmax", "kernel/msgmax", 0),
    ("kernel.msgmnb", "kernel/msgmnb", 0),
    ("kernel.msgmni", "kernel/msgmni", 0),
    ("kernel.shmmax", "kernel/shmmax", 0),
    ("kernel.shmall", "kernel/shmall", 0),
    ("kernel.shmmni", "kernel/shmmni", 0),
    ("kernel.sem SEMMSL", "kernel/sem", 0),
    ("kernel.sem SEMMNS", "kernel/sem", 1),
    ("kernel.sem SEMOPM", "kernel/sem", 2),
    ("kernel.sem SEMMNI", "kernel/sem", 3),
    ("net.core.somaxconn", "net/core/somaxconn", 0),
    ("net.core.wmem_max", "net/core/wmem_max", 0),
    ("kernel.yama.ptrace_scope", "kernel/yama/ptrace_scope", 0),
    ("user.max_user_namespaces", "user/max_user_namespaces", 0),
    ("kernel.unprivileged_userns_clone", "kernel/unprivileged_userns_clone", 0),
];

/// What the file says; `None` where there is none.
fn in_proc(path: &str, field: usize) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    Some(text.split_whitespace().nth(field).unwrap().parse().unwrap())
}

#[test]
fn values_are_those_of_the_kernel() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let object = json(doctor(&["--json"]));
    for (name, path, field) in SYSCTLS {
        let limit = named(&object["limits"], name);
        assert_eq!(limit["value"].as_u64(), in_proc(path, field), "{limit}");
        assert_eq!(limit["state"], if limit["value"].is_null() { "absent" } else { "limited" }, "{limit}");
        assert!(limit["how_to_raise"].as_str().unwrap().contains("sysctl -w"), "{limit}");
    }
    named(&object["limits"], "kernel.apparmor_restrict_unprivileged_userns");
}

#[test]
fn resource_limits_are_those_of_prlimit() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let object = json(doctor(&["--json"]));
    for (name, resource) in [
        ("RLIMIT_NOFILE", "NOFILE"),
        ("RLIMIT_MSGQUEUE", "MSGQUEUE"),
        ("RLIMIT_SIGPENDING", "SIGPENDING"),
        ("RLIMIT_MEMLOCK", "MEMLOCK"),
    ] {
        let option = format!("--{}", resource.to_lowercase());
        let output = Command::new("prlimit").args([&*option, "--noheadings", "--raw", "-o", "SOFT"]).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let limit = named(&object["limits"], name);
        match told.trim() {
            "unlimited" => assert_eq!((limit["state"].as_str(), &limit["low"]), (Some("unlimited"), &false.into())),
            number => assert_eq!(limit["value"].to_string(), number, "{limit}"),
        }
    }
}

#[test]
fn the_size_of_shared_memory_is_that_of_df() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let output = Command::new("df").args(["-B1", "--output=size", "/dev/shm"]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let object = json(doctor(&["--json"]));
    let limit = named(&object["limits"], "/dev/shm size");
    assert_eq!(limit["value"].as_u64(), told.lines().nth(1).unwrap().trim().parse().ok().filter(|&size| size > 0u64));
}

/// A limit that was lowered is low, with a remedy that sets what is enough, in all three forms.
#[test]
fn a_lowered_limit_is_low_and_has_a_remedy() {
    let _watchdog = watchdog(Duration::from_secs(60));
    for (name, option, low, enough) in [
        ("RLIMIT_NOFILE", "nofile", 64, 1024),
        ("RLIMIT_SIGPENDING", "sigpending", 7, 1024),
        ("RLIMIT_MSGQUEUE", "msgqueue", 4096, 8 << 20),
        ("RLIMIT_MEMLOCK", "memlock", 65_536, 8 << 20),
    ] {
        // A hard limit below what is enough: only root raises that.
        let lowered = format!("--{option}={low}:{low}");
        let object = json(limited(&lowered, &["--json"]));
        let limit = named(&object["limits"], name);
        assert_eq!((&limit["value"], &limit["low"], &limit["enough"]), (&low.into(), &true.into(), &enough.into()));
        assert_eq!(limit["remedy"], format!("prlimit --pid PID --{option}={enough}"));
        assert_eq!(limit["remedy_needs_root"], true);
        assert!(!limit["low_because"].as_str().unwrap().is_empty());

        let summary = text(limited(&lowered, &[]));
        let line = summary.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{summary}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..3], [name, &low.to_string(), "#"], "{line}");
        assert!(line.ends_with(limit["remedy"].as_str().unwrap()), "{line}");
        let all = text(limited(&lowered, &["--all"]));
        assert!(all.contains(&format!("low, as it is below {enough}")), "{all}");
    }
}

/// Below its hard limit a process helps itself, and the remedy does it.
#[test]
fn the_remedy_of_a_soft_limit_works() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let object = json(limited("--nofile=64:", &["--json"]));
    let limit = named(&object["limits"], "RLIMIT_NOFILE");
    if limit["remedy_needs_root"] == true {
        return skip("limits::the_remedy_of_a_soft_limit_works", "the hard limit of RLIMIT_NOFILE is below 1024");
    }
    let remedy = limit["remedy"].as_str().unwrap();
    assert_eq!(remedy, "prlimit --pid $$ --nofile=1024:");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -S -n 64; {remedy} && exec \"$0\" doctor --json"), ONECOPY]);
    let object: Value = json(shell);
    let limit = named(&object["limits"], "RLIMIT_NOFILE");
    assert_eq!((&limit["value"], &limit["low"]), (&1024.into(), &false.into()));
}

/// What Docker gives a container: 64 MiB.
#[test]
fn a_small_shared_memory_is_low() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let run = |form: &str| {
        let script = format!("mount -t tmpfs -o size=64M none /dev/shm && exec \"$0\" doctor {form}");
        Command::new("unshare").args(["-Urm", "sh", "-c", &script, ONECOPY]).output().expect("unshare")
    };
    let output = run("--json");
    if !output.status.success() {
        return skip("limits::a_small_shared_memory_is_low", "no user and mount namespace for this user");
    }
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let limit = named(&object["limits"], "/dev/shm size");
    assert_eq!((&limit["value"], &limit["low"]), (&(64 << 20).into(), &true.into()), "{limit}");
    let summary = String::from_utf8(run("").stdout).unwrap();
    let line = summary.lines().find(|line| line.contains("/dev/shm size")).unwrap_or_else(|| panic!("{summary}"));
    assert!(line.contains("64 MiB  # mount -o remount,size=256M /dev/shm"), "{line}");
}

#[test]
fn low_is_what_the_advice_says() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let object = json(doctor(&["--json"]));
    for limit in object["limits"].as_array().unwrap() {
        let (value, enough) = (limit["value"].as_u64(), limit["enough"].as_u64());
        let expected = match (value, enough, limit["low_if"].as_str()) {
            (Some(value), Some(enough), Some(rule)) if rule.starts_with("above") => value > enough,
            (Some(value), Some(enough), Some(rule)) if rule.ends_with("except 0") => value != 0 && value < enough,
            (Some(value), Some(enough), Some(_)) => value < enough,
            _ => false,
        };
        assert_eq!(limit["low"], expected, "{limit}");
        assert_eq!(limit["remedy"].is_null(), limit["low_if"].is_null(), "{limit}");
    }
}
