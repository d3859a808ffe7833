//! Security modules: Landlock on the doctor, and Yama, whose sysctl a test puts in the place of the machine's.
//!
//! # Safety
//!
//! Between fork and exec the child makes three system calls, whose arguments were laid out before the fork.
#![expect(unsafe_code, reason = "Landlock restricts the child between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt as _;

use libc::{SYS_process_vm_readv, SYS_process_vm_writev};

use crate::filters::filtered;
use crate::stage::{Said, Target, as_nobody, doctor, doctor_by, has_sys_ptrace, is_root, ordinary_doctor, possible};
use crate::support::{Run, Scratch, skip};

/// `LANDLOCK_ACCESS_FS_MAKE_CHAR`: a domain that forbids to make character devices and nothing else, besides what every
/// domain forbids.
static MAKE_CHAR: u64 = 1 << 6;
const CREATE_RULESET_VERSION: u32 = 1;

fn landlocked(run: Run) -> Run {
    run.with(|command| {
        // SAFETY: `restrict` makes three system calls and allocates nothing.
        unsafe { command.pre_exec(restrict) };
    })
}

fn restrict() -> io::Result<()> {
    let answer = |result: libc::c_long| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: a system call that changes an attribute of this process.
    answer(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    // SAFETY: the kernel reads the eight bytes that the third argument counts.
    let ruleset = answer(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const MAKE_CHAR, 8, 0) })?;
    // SAFETY: a system call on the descriptor that the one above has made; exec closes it.
    answer(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) }).map(drop)
}

#[test]
fn landlock_is_a_security_module() {
    // SAFETY: asks for a version.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, CREATE_RULESET_VERSION) };
    if version < 1 {
        return skip("landlock_is_a_security_module", &format!("no Landlock: {}", io::Error::last_os_error()));
    }
    let target = Target::ordinary();
    let said = Said::by(landlocked(ordinary_doctor(target.pid())).end());
    said.refuses("security-module", "EPERM")
        .shows("not even its user namespace can be read")
        .reverse(Some(true), "none");
    if has_sys_ptrace() {
        let said = Said::by(landlocked(doctor(target.pid())).end());
        said.refuses("security-module", "EPERM").shows("this process has CAP_SYS_PTRACE");
    }
}

/// A doctor of the ordinary user that finds this value of `kernel.yama.ptrace_scope`, and is refused as Yama would: attaching
/// to `pid` alone, for which a filter stands in.
fn under_yama(scope: u8, pid: u32) -> Said {
    let sysctls = Scratch::new();
    std::fs::create_dir(sysctls.path("yama")).unwrap();
    std::fs::write(sysctls.path("yama/ptrace_scope"), format!("{scope}\n")).unwrap();
    let script = "mount --bind \"$0\" /proc/sys/kernel && exec \"$@\"";
    let mut wrapper: Vec<String> = ["unshare", "-m", "sh", "-c", script].map(str::to_owned).to_vec();
    wrapper.push(sysctls.root().to_str().unwrap().to_owned());
    wrapper.extend(as_nobody());
    let run = doctor_by(&wrapper, pid);
    let answer = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    Said::by(filtered(run, &[SYS_process_vm_readv, SYS_process_vm_writev], Some(pid), answer).end())
}

#[test]
fn yama_is_named_with_its_value() {
    if !is_root() {
        return skip("yama_is_named_with_its_value", "only root puts another sysctl in the place of the machine's");
    }
    if !possible("yama_is_named_with_its_value", "unshare -m") {
        return;
    }
    let target = Target::ordinary();
    for (scope, who) in [(1, "only an ancestor attaches"), (2, "only CAP_SYS_PTRACE"), (3, "nobody attaches")] {
        let said = under_yama(scope, target.pid());
        said.refuses("yama", "EPERM").shows(&format!("kernel.yama.ptrace_scope is {scope}: {who}"));
        said.reverse(Some(false), "yama");
        let remedies = said.0["read"]["remedies"].to_string();
        assert!(remedies.contains("PR_SET_PTRACER") && remedies.contains("kernel.yama.ptrace_scope=0"), "{remedies}");
    }
    under_yama(0, target.pid()).refuses("security-module", "EPERM").shows("seccomp").reverse(Some(true), "none");
}
