//! User namespaces and pid namespaces, made by unshare(1).

use crate::stage::{Said, Target, doctor, doctor_by, possible, words};
use crate::support::program;

#[test]
fn from_a_child_user_namespace_to_its_parent() {
    let target = Target::start(&[]);
    for line in ["unshare -U", "unshare -U -r", "unshare -U -c"] {
        if !possible("from_a_child_user_namespace_to_its_parent", line) {
            return;
        }
        let said = Said::by(doctor_by(&words(line), target.pid()).end());
        said.refuses("user-namespace", "EPERM").reverse(None, "unknown");
    }
}

#[test]
fn between_sibling_user_namespaces() {
    for line in ["unshare -U", "unshare -U -r", "unshare -U -c"] {
        if !possible("between_sibling_user_namespaces", line) {
            return;
        }
        let target = Target::start(&words(line));
        Said::by(doctor_by(&words(line), target.pid()).end()).refuses("user-namespace", "EPERM");
    }
}

#[test]
fn the_owner_of_a_user_namespace_may_and_is_not_reached_from_inside() {
    let line = "unshare -U -r";
    if !possible("the_owner_of_a_user_namespace_may_and_is_not_reached_from_inside", line) {
        return;
    }
    let target = Target::start(&words(line));
    Said::by(doctor(target.pid()).end()).allows().reverse(Some(false), "user-namespace");
}

#[test]
fn capabilities_within_one_user_namespace_are_no_matter_of_namespaces() {
    let test = "capabilities_within_one_user_namespace_are_no_matter_of_namespaces";
    if !possible(test, "unshare -U -r") {
        return;
    }
    // The shell and what it starts are root in their own namespace; the doctor gives all of that up.
    let script = "sleep 100 & trap 'kill $!' EXIT; \
                  setpriv --bounding-set=-all --inh-caps=-all \"$0\" doctor --json --pid $!";
    let said = program("unshare", ["-U", "-r", "sh", "-c", script, env!("CARGO_BIN_EXE_onecopy")]).end();
    Said::by(said).refuses("capabilities", "EPERM").shows("cap_chown").reverse(None, "unknown");
}

#[test]
fn an_outer_number_means_nothing_in_a_pid_namespace() {
    let test = "an_outer_number_means_nothing_in_a_pid_namespace";
    let user = if crate::stage::is_root() { "" } else { "-U -r" };
    let target = Target::start(&[]);
    for proc in ["--mount-proc", ""] {
        let line = format!("unshare {user} -p -f {proc}");
        if !possible(test, &line) {
            return;
        }
        let said = Said::by(doctor_by(&words(&line), target.pid()).end());
        said.refuses("pid-namespace", "ESRCH").shows(&format!("kill({}, 0) is ESRCH", target.pid()));
    }
}

#[test]
fn an_inner_process_is_reached_by_its_outer_number_and_reaches_nobody() {
    let test = "an_inner_process_is_reached_by_its_outer_number_and_reaches_nobody";
    if !possible(test, "unshare -U -r -p -f") {
        return;
    }
    // unshare(1) waits outside for its child, which is the first process inside.
    let outer = program("unshare", ["-U", "-r", "-p", "-f", "sleep", "100"]).start();
    let children = format!("/proc/{0}/task/{0}/children", outer.pid());
    let mut inner = None;
    crate::support::eventually("the process inside has started", || {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        inner = text.trim().parse().ok();
        inner.is_some_and(|pid: u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        })
    });
    let pid = inner.unwrap();
    let said = Said::by(doctor(pid).end());
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    said.allows().reverse(Some(false), "pid-namespace");
    drop(outer.end());
}
