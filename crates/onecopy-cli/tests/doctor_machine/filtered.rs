//! Under seccomp filters, which a container's runtime sets: the command survives, and says what happened.
//!
//! # Safety
//!
//! The filter is made before the fork, and set in the child between fork and exec by two calls of prctl, which may be made
//! there; they concern the child alone.
#![expect(unsafe_code, reason = "sets a seccomp filter in a child before it runs the command")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use crate::support::watchdog;
use crate::{doctor, json, named, text};

/// A filter that answers process_vm_readv or process_vm_writev, as `calls` says, with `action`.
fn filter(calls: &[libc::c_long], action: u32) -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first word of what a filter sees.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &call in calls {
        program.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 0, 1));
        program.push(statement(libc::BPF_RET | libc::BPF_K, action, 0, 0));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    program
}

/// The command under that filter.
fn under(calls: &[libc::c_long], action: u32, arguments: &[&str]) -> Command {
    let mut command = doctor(arguments);
    let mut program = filter(calls, action);
    let set = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: changes the calling process alone.
        let answer = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        check(answer)?;
        // SAFETY: `filter` describes `program`, which outlives the call; the kernel copies it.
        let answer = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
        check(answer)
    };
    // SAFETY: `set` makes two system calls and allocates nothing.
    unsafe { command.pre_exec(set) };
    command
}

fn check(answer: i32) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const READ: libc::c_long = libc::SYS_process_vm_readv;
const WRITE: libc::c_long = libc::SYS_process_vm_writev;
/// The two ways to kill who makes a call. The second is the one of SCMP_ACT_KILL in a container's profile.
const KILLS: [u32; 2] = [libc::SECCOMP_RET_KILL_PROCESS, libc::SECCOMP_RET_KILL_THREAD];

#[test]
fn a_filter_that_answers_is_told_by_its_errno() {
    let _watchdog = watchdog(Duration::from_secs(60));
    for (errno, name) in
        [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS"), (libc::EACCES, "EACCES"), (libc::ESRCH, "ESRCH")]
    {
        let action = libc::SECCOMP_RET_ERRNO | errno as u32;
        let object = json(under(&[READ, WRITE], action, &["--json"]));
        for transfer in ["parent_reads_child", "parent_writes_child", "child_reads_parent", "child_writes_parent"] {
            let one = &object["cross_memory_attach"][transfer];
            assert_eq!((&one["works"], &one["errno"]), (&false.into(), &name.into()), "{transfer}");
            assert!(one["reason"].as_str().unwrap().contains("seccomp filter"), "{one}");
        }
        for mechanism in ["cma-read", "cma-write"] {
            assert_eq!(named(&object["mechanisms"], mechanism)["available"], false);
        }
        assert_eq!(object["surroundings"]["seccomp_mode"], 2);
        assert!(object["verdict"].as_str().unwrap().contains("Cross-memory attach does not work here: "));
    }
}

#[test]
fn a_filter_that_kills_spares_the_command() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let sets = [&[READ, WRITE][..], &[READ], &[WRITE]];
    for (action, calls) in KILLS.into_iter().flat_map(|action| sets.map(|calls| (action, calls))) {
        let object = json(under(calls, action, &["--json"]));
        let attach = &object["cross_memory_attach"];
        for (call, up, down) in
            [(READ, "child_reads_parent", "parent_reads_child"), (WRITE, "child_writes_parent", "parent_writes_child")]
        {
            // After a read that killed it, the child never came to write.
            let killed = calls.contains(&call) || calls.contains(&READ);
            for transfer in [up, down] {
                assert_eq!(attach[transfer]["works"], !killed, "{transfer}: {attach}");
                assert_eq!(attach[transfer]["signal"].as_i64(), killed.then_some(libc::SIGSYS.into()), "{attach}");
            }
        }
        assert!(object["verdict"].as_str().unwrap().contains("a seccomp filter kills who makes the call (SIGSYS)"));
    }
}

#[test]
fn the_summary_says_who_knows_more() {
    let _watchdog = watchdog(Duration::from_secs(60));
    for action in KILLS.into_iter().chain([libc::SECCOMP_RET_ERRNO | libc::EPERM as u32]) {
        let summary = text(under(&[READ, WRITE], action, &[]));
        let words: Vec<&str> = summary.split_whitespace().collect();
        let joined = words.join(" ");
        assert!(joined.contains("`onecopy doctor --pid PID` names the rule for one process."), "{summary}");
        assert!(summary.contains("cma-read, cma-write: "), "{summary}");
        assert!(summary.lines().count() <= 24, "{summary}");
        assert!(summary.lines().all(|line| line.chars().count() <= 80), "{summary}");
    }
}
