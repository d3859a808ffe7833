//! Processes that are gone, that have no memory, that are this one; numbers that are none; and how the page looks.

use std::process::Command;

use crate::stage::{Said, Target, doctor};
use crate::support::{eventually, onecopy, skip};

#[test]
fn a_process_that_has_exited_is_gone() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    let stat = format!("/proc/{pid}/stat");
    eventually("it has exited", || std::fs::read_to_string(&stat).unwrap().contains(") Z "));
    Said::by(doctor(pid).end())
        .refuses("gone", "ESRCH")
        .reverse(Some(false), "gone")
        .shows(&format!("process {} has not yet waited for it", std::process::id()));
    child.wait().unwrap();
    // Its number may belong to another process by now, but hardly this soon.
    Said::by(doctor(pid).end()).refuses("gone", "ESRCH").reverse(Some(false), "gone");
    Said::by(doctor(1 << 22).end()).refuses("gone", "ESRCH").shows("no process has the number 4194304");
}

#[test]
fn a_kernel_thread_has_no_memory() {
    if !std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        return skip("a_kernel_thread_has_no_memory", "this pid namespace shows no kernel threads");
    }
    Said::by(doctor(2).end()).refuses("gone", "ESRCH").shows("a thread of the kernel");
}

#[test]
fn numbers_that_no_process_can_have_are_wrong_usage() {
    for number in ["0", "-1", "-2147483648", "4194305", "99999999999", "self", ""] {
        onecopy(["doctor", "--pid", number]).end().fails_with(2, &["--pid", number]);
        onecopy(["doctor", "--pid", number, "--json"]).end().fails_with(2, &["--pid", number]);
    }
}

#[test]
fn the_page_fits_a_terminal() {
    let target = Target::start(&[]);
    for pid in [target.pid(), 1, 1 << 22] {
        let text = onecopy(["doctor", "--pid", &pid.to_string()]).end().succeeds();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with(&format!("Process {pid}")), "{text}");
        assert!(text.lines().count() <= 24 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for direction in ["\nwe read it ", "\nwe write it ", "\nit reads us "] {
            assert!(text.contains(direction), "{text}");
        }
        assert!(!text.contains('\x1b'), "no colours off a terminal");
    }
}
