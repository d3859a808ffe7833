//! The process that becomes the command of `lock`, having asked the kernel to be killed when `onecopy` is.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::holder::cannot_run;
use crate::again;
use crate::failure::{Failure, plain};

/// The options of the second process of `lock`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The process that holds the lock
    #[arg(value_name = "PID")]
    parent: i32,
    /// What to become
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How to start such a process.
pub(super) fn command(program: &OsStr, arguments: &[OsString]) -> Result<Command, Failure> {
    let mut command =
        again::command().map_err(|error| Failure::failed(format!("cannot run {}: {error}", program.display())))?;
    command.args(["lock-child", &std::process::id().to_string(), "--"]).arg(program).args(arguments);
    Ok(command)
}

/// Becomes the command; the wish to be killed outlives exec, but not that of a program with privileges of its own (prctl(2),
/// PR_SET_PDEATHSIG).
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Failure::failed(format!("prctl: {}", plain(&errno.into()))))?;
    if getppid() != Pid::from_raw(arguments.parent) {
        return Err(Failure::failed("the process that held the lock is gone"));
    }
    let (program, rest) = arguments.command.split_first().ok_or_else(|| Failure::usage("no command to run"))?;
    Err(cannot_run(program, &Command::new(program).args(rest).exec()))
}
