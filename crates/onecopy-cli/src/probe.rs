//! Whether this process may call process_vm_readv(2) and process_vm_writev(2) at all: a seccomp filter may end whoever does.
//!
//! The library lets a child of this process find that out. Without a filter there is no child.

use onecopy::Error;
use onecopy::memory::permission::Diagnosis;

/// What is wanted of the memory of another process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Read,
    Write,
}

/// Fails when a filter would end this process, with SIGSYS, for reaching the memory of `pid`. What a filter answers instead is
/// learnt from the call itself.
pub(crate) fn check(pid: u32, wanted: Wanted) -> onecopy::Result<()> {
    if !is_filtered() {
        return Ok(());
    }
    let diagnosis = Diagnosis::of(pid);
    let (call, verdict) = match wanted {
        Wanted::Read => ("process_vm_readv", diagnosis.read),
        Wanted::Write => ("process_vm_writev", diagnosis.write),
    };
    if verdict.killed_by.is_none() {
        return Ok(());
    }
    let reason = format!("a seccomp filter of this process ends whoever calls {call}(2)");
    let remedy = verdict.remedies.host.first().map_or_else(String::new, |remedy| format!(": {remedy}"));
    Err(Error::Unsupported { object: format!("mem:{pid}"), reason: reason + &remedy })
}

/// Whether this process may have a filter (proc_pid_status(5)).
fn is_filtered() -> bool {
    let status = crate::io::own_status();
    !status.is_ok_and(|status| status.lines().any(|line| line == "Seccomp:\t0"))
}
