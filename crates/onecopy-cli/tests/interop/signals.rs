//! kill(1) of procps queues payloads to us; strace shows what we send.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{eventually, onecopy, program, signal_waiter, skip, watchdog};

/// kill(1) of procps, which can queue a payload; a shell's own kill cannot.
fn kill(test: &str) -> Option<&'static str> {
    let program = "/usr/bin/kill";
    let told = Command::new(program).arg("--version").output();
    if told.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("procps")) {
        return Some(program);
    }
    skip(test, "no kill of procps");
    None
}

#[test]
fn payloads_of_kill_arrive_in_order_with_their_sender() {
    let test = "signals::payloads_of_kill_arrive_in_order_with_their_sender";
    let Some(kill) = kill(test) else { return };
    let _watchdog = watchdog(Duration::from_secs(100));
    let waiter = signal_waiter(&["wait", "signal:self?sig=USR1,RTMIN+1,RTMIN+2", "--count", "4"]);
    waiter.signal("STOP");
    let pid = waiter.pid().to_string();
    for (signal, value) in [("RTMIN+2", "1"), ("RTMIN+1", "42"), ("RTMIN+1", "2147483647")] {
        assert!(program(kill, ["-s", signal, "-q", value, &pid]).end().status.success());
    }
    assert!(program(kill, ["-s", "USR1", &pid]).end().status.success());
    waiter.signal("CONT");
    let ended = waiter.end();
    assert!(ended.status.success(), "{ended:?}");
    let text = String::from_utf8(ended.stdout).unwrap();
    let uid = rustix_uid();
    let told: Vec<(&str, String)> = text
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap();
            assert!(words.next().unwrap().starts_with("pid="), "{line}");
            (name, words.collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("USR1", format!("uid={uid}")),
            ("RTMIN+1", format!("uid={uid} value=42")),
            ("RTMIN+1", format!("uid={uid} value=2147483647")),
            ("RTMIN+2", format!("uid={uid} value=1")),
        ]
    );
}

fn rustix_uid() -> String {
    let output = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn strace_shows_the_payload_that_we_send() {
    let test = "signals::strace_shows_the_payload_that_we_send";
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skip(test, "no strace");
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(100));
    let target = program("sleep", ["1000"]).start();
    let pid = target.pid().to_string();
    let tracer = program("strace", ["-p", &pid, "-e", "trace=none"]).start();
    eventually("strace is attached", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.contains("TracerPid:\t0") || tracer.stderr_so_far().windows(4).any(|words| words == b"not ")
    });
    if String::from_utf8_lossy(&tracer.stderr_so_far()).contains("not permitted") {
        skip(test, "strace may not attach");
        return;
    }
    onecopy(["signal", &pid, "RTMIN+1", "--value", "4711"]).end().succeeds();
    let shown = tracer.end().stderr;
    assert!(shown.contains("si_code=SI_QUEUE") && shown.contains("si_int=4711"), "{shown}");
    drop(target);
}
