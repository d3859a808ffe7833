//! Seccomp filters on the doctor itself.
//!
//! # Safety
//!
//! Between fork and exec the child makes two system calls; the program of the filter was laid out before the fork.
#![expect(unsafe_code, reason = "a filter is installed between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt as _;

use libc::{SYS_process_vm_readv, SYS_process_vm_writev, c_long, sock_filter};

use crate::stage::{Said, Target, doctor};
use crate::support::{Run, onecopy};

/// A filter that answers `calls` with `answer`, for the process `pid` alone if one is named, and lets all others pass.
pub(crate) fn filtered(run: Run, calls: &[c_long], pid: Option<u32>, answer: u32) -> Run {
    let code =
        |code: u32, jt: usize, jf: usize, k: u32| sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k };
    let load = |offset: u32| code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |k: u32, jt: usize, jf: usize| code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let end = |answer: u32| code(libc::BPF_RET | libc::BPF_K, 0, 0, answer);
    // The number of the call is at offset 0 of `struct seccomp_data`, the low half of the first argument at 16.
    let mut program = vec![load(0)];
    for (index, call) in calls.iter().enumerate() {
        program.push(equal(*call as u32, calls.len() - 1 - index, if index + 1 == calls.len() { 1 } else { 0 }));
    }
    // The last comparison goes on here, or past the next instruction to the end.
    program.push(code(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1));
    program.push(end(libc::SECCOMP_RET_ALLOW));
    if let Some(pid) = pid {
        program.extend([load(if cfg!(target_endian = "little") { 16 } else { 20 }), equal(pid, 1, 0)]);
        program.push(end(libc::SECCOMP_RET_ALLOW));
    }
    program.push(end(answer));
    run.with(|command| {
        let install = move || install(&program);
        // SAFETY: `install` makes two system calls and allocates nothing.
        unsafe { command.pre_exec(install) };
    })
}

fn install(program: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: a system call that changes an attribute of this process.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel copies the program, which `program` describes, and checks it.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

const BOTH: [c_long; 2] = [SYS_process_vm_readv, SYS_process_vm_writev];

#[test]
fn a_filter_that_answers_is_named() {
    let target = Target::start(&[]);
    for (errno, name) in
        [(libc::EPERM, "EPERM"), (libc::EACCES, "EACCES"), (libc::ENOSYS, "ENOSYS"), (libc::ESRCH, "ESRCH")]
    {
        let run = filtered(doctor(target.pid()), &BOTH, None, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
        let said = Said::by(run.end());
        said.refuses("self-denied", name).shows("Seccomp: 2 in /proc/self/status").reverse(Some(true), "none");
    }
}

#[test]
fn a_filter_that_kills_is_named_and_spares_the_doctor() {
    let target = Target::start(&[]);
    for answer in [libc::SECCOMP_RET_KILL_PROCESS, libc::SECCOMP_RET_KILL_THREAD, libc::SECCOMP_RET_TRAP] {
        let said = Said::by(filtered(doctor(target.pid()), &BOTH, None, answer).end());
        assert_eq!(said.0["cause"], "self-denied", "{:#}", said.0);
        for direction in ["read", "write"] {
            let verdict = &said.0[direction];
            assert_eq!(
                (&verdict["allowed"], &verdict["cause"]),
                (&false.into(), &"self-denied".into()),
                "{:#}",
                said.0
            );
            assert_eq!((&verdict["errno"], &verdict["killed_by_signal"]), (&().into(), &libc::SIGSYS.into()));
        }
        said.shows("killed by signal 31").reverse(Some(true), "none");
    }
}

#[test]
fn a_filter_on_one_direction_leaves_the_other() {
    let target = Target::start(&[]);
    let answer = libc::SECCOMP_RET_KILL_PROCESS;
    let said = Said::by(filtered(doctor(target.pid()), &BOTH[1..], None, answer).end());
    said.allows_to("read");
    assert_eq!(said.0["write"]["cause"], "self-denied", "{:#}", said.0);
    if said.0["read"]["allowed"] == true {
        assert_eq!(said.0["cause"], "self-denied", "reading is allowed, so why writing is not: {:#}", said.0);
    }
    let said = Said::by(filtered(doctor(target.pid()), &BOTH[..1], None, answer).end());
    assert_eq!((&said.0["cause"], &said.0["read"]["cause"]), (&"self-denied".into(), &"self-denied".into()));
    said.allows_to("write");
}

#[test]
fn a_filter_that_concerns_something_else_changes_nothing() {
    let target = Target::start(&[]);
    let said =
        Said::by(filtered(doctor(target.pid()), &[libc::SYS_swapon], None, libc::SECCOMP_RET_KILL_PROCESS).end());
    said.allows();
}

#[test]
fn a_filter_that_kills_for_one_process_alone_spares_the_doctor_too() {
    let target = Target::start(&[]);
    let said =
        Said::by(filtered(doctor(target.pid()), &BOTH, Some(target.pid()), libc::SECCOMP_RET_KILL_PROCESS).end());
    assert_eq!((&said.0["cause"], &said.0["read"]["killed_by_signal"]), (&"self-denied".into(), &libc::SIGSYS.into()));
}

#[test]
fn explain_knows_what_a_filter_takes_away() {
    let explain = |mechanism: &str, answer: u32| {
        let run = filtered(onecopy(["explain", mechanism, "--json"]), &BOTH[1..], None, answer);
        serde_json::from_slice::<serde_json::Value>(&run.end().succeeds()).unwrap()
    };
    for (answer, reason) in [
        (
            libc::SECCOMP_RET_KILL_PROCESS,
            "process_vm_writev is refused here: a child that tried it was killed by signal 31",
        ),
        (
            libc::SECCOMP_RET_ERRNO | libc::EACCES.cast_unsigned(),
            "process_vm_writev is refused here: Permission denied (EACCES)",
        ),
    ] {
        assert_eq!(explain("cma-read", answer)["available"], true);
        let write = explain("cma-write", answer);
        assert!(write["unavailable_because"].as_str().is_some_and(|text| text.starts_with(reason)), "{write:#}");
    }
}
