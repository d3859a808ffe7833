//! `onecopy lock`: runs a command while a lock is held.

pub(crate) mod child;
mod holder;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use onecopy::open::OpenOptions;
use onecopy::sync::{Acquired, Lock, Mode};
use onecopy::{Address, Deadline, Error};

use crate::endpoint;
use crate::failure::{Failure, say};
use crate::interrupt;
use crate::units;
use holder::Holder;

const EXAMPLES: &str = "\
Examples:
  onecopy lock flock:/tmp/job.lock -- make install
  onecopy lock flock:/tmp/job.lock -n -E 75 -- nightly-job       75: it runs already
  onecopy lock -s 'record:/srv/data?start=0&len=4096' -- md5sum /srv/data
  onecopy lock sysv-sem:0x4d2 --timeout 5s -- sh -c 'echo mine'

What is missing is created, a semaphore with the value 1. On flock: and ofd: COMMAND inherits the descriptor of the lock, \
which so lasts as long as COMMAND and whatever it leaves running, even if onecopy is killed. Elsewhere COMMAND is killed when \
onecopy is, except a set-user-ID or set-group-ID program, such as sudo, and one with capabilities of its own: the kernel spares these.

If onecopy is killed by SIGKILL: flock:, ofd:, record: and sysv-sem: are released; mutex: is recovered by the next holder, with a \
warning; sem: and rwlock: stay taken. Repair these two when nobody uses them: `onecopy post sem:/name` gives the semaphore its \
value back; `onecopy rm rwlock:/name` removes the lock, and the next use makes it anew.

Exit codes: COMMAND's own; 126 and 127 when it cannot be run or is not found; 128 and the number of the signal that ended it; 1 (or \
-E CODE) when -n finds the lock taken; 124 (or -E CODE) when --timeout passed.";

/// The options of `lock`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to hold: flock:/path, record:/path, ofd:/path, sem:/name, sysv-sem:KEY, mutex:/name, rwlock:/name
    #[arg(value_name = "LOCK-ADDRESS", value_parser = endpoint::address_parser())]
    address: Address,
    /// Let others hold it in the same mode (flock:, record:, ofd:, rwlock:)
    #[arg(short = 's', long)]
    shared: bool,
    /// Fail rather than wait
    #[arg(short = 'n', long, visible_alias = "nb", conflicts_with = "timeout")]
    nonblock: bool,
    /// How long to wait for it, as 500ms, 2s or 1m; without end unless said
    #[arg(long, value_name = "D", value_parser = units::duration)]
    timeout: Option<Duration>,
    /// The exit code when the lock is taken
    #[arg(short = 'E', long, value_name = "CODE")]
    conflict_exit_code: Option<u8>,
    /// Keep the descriptor of the lock from COMMAND (flock:, ofd:)
    #[arg(short = 'o', long)]
    close: bool,
    /// What to run meanwhile
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let holder = acquire(arguments)?;
    let status = holder.run(&arguments.command);
    // Where nothing could be run, too: a semaphore stays taken otherwise.
    let given_up = holder.give_up();
    let status = status?;
    given_up?;
    match status.success() {
        true => Ok(()),
        false => Err(ended(status)),
    }
}

/// Refuses what is no lock, and a mode that it does not have.
fn check(address: &Address, shared: bool) -> Result<(), Failure> {
    match address {
        Address::FileLock(_) | Address::RecordLock(_) | Address::OfdLock(_) | Address::Rwlock(_) => Ok(()),
        Address::NamedSemaphore(_) | Address::Semaphore(_) | Address::SysvSemaphore(_) | Address::Mutex(_) => {
            if !shared {
                return Ok(());
            }
            let text = "which one holds at a time: flock:, record:, ofd: and rwlock: have a shared mode";
            Err(Failure::usage(format!("--shared does not fit {address}, {text}")))
        }
        _ => Err(endpoint::refused(address, "lock", "which is no lock")),
    }
}

fn acquire(arguments: &Arguments) -> Result<Holder, Failure> {
    let address = &arguments.address;
    check(address, arguments.shared)?;
    let deadline = match arguments.timeout {
        _ if arguments.nonblock => Deadline::Now,
        Some(timeout) => Deadline::after(timeout),
        None => Deadline::Never,
    };
    let options = OpenOptions { deadline, ..OpenOptions::default() };
    let mode = if arguments.shared { Mode::Shared } else { Mode::Exclusive };
    let mut holder = Holder::open(address, arguments.close, &options)?;
    let acquired = match address {
        Address::NamedSemaphore(_) | Address::Semaphore(_) | Address::Rwlock(_) | Address::Mutex(_) => {
            acquire_unless_interrupted(holder.lock(), mode, deadline)?
        }
        // The end of this process gives it back.
        _ => holder.lock().acquire_by(mode, deadline),
    };
    match acquired {
        Ok(Acquired::Clean) => {}
        Ok(Acquired::OwnerDied) => {
            say(&format!("warning: whoever held {address} before has died with it; it is recovered"));
        }
        Err(error) => return Err(taken(error, arguments, holder.in_the_way(mode))),
    }
    Ok(holder)
}

/// Acquires what the end of this process would leave taken. A signal that comes with it is put off until it can be given back, and one
/// that comes while it is waited for, for at most a [`interrupt::SLICE`].
fn acquire_unless_interrupted(
    lock: &mut dyn Lock,
    mode: Mode,
    deadline: Deadline,
) -> Result<Result<Acquired, Error>, Failure> {
    interrupt::put_off_signals();
    loop {
        match lock.acquire_by(mode, deadline.at_most(interrupt::SLICE)) {
            Err(error) if error.is_out_of_time() && !deadline.has_passed() => {}
            result => return Ok(result),
        }
        if let Some(interrupted) = interrupt::put_off() {
            return Err(interrupted);
        }
    }
}

/// Somebody else holds it, which has exit codes of its own.
fn taken(error: Error, arguments: &Arguments, by: Option<String>) -> Failure {
    let usual = match error {
        Error::WouldBlock { .. } => 1,
        Error::TimedOut { .. } => 124,
        _ => return error.into(),
    };
    let repair = match &arguments.address {
        Address::NamedSemaphore(_) | Address::Semaphore(_) => {
            format!(" (was its holder killed? then repair it with onecopy post {})", arguments.address)
        }
        Address::Rwlock(_) => {
            format!(" (was its holder killed? then remove it with onecopy rm {})", arguments.address)
        }
        _ => by.map_or_else(String::new, |by| format!(" ({by})")),
    };
    Failure::with_code(arguments.conflict_exit_code.unwrap_or(usual), format!("{error}{repair}"))
}

/// How the command ended, as shells tell it.
fn ended(status: ExitStatus) -> Failure {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Failure::Ended(code.try_into().unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use onecopy::sync::named_semaphore::NamedSemaphore;

    use super::*;

    #[test]
    fn a_command_that_cannot_be_started_leaves_nothing_locked() {
        let address: Address = format!("sem:/onecopy-test-lock-{}", std::process::id()).parse().unwrap();
        let Address::NamedSemaphore(name) = address.clone() else { unreachable!("an address of a named semaphore") };
        let arguments = Arguments {
            address,
            shared: false,
            nonblock: true,
            timeout: None,
            conflict_exit_code: None,
            close: false,
            command: vec!["no program's name has a \0".into()],
        };
        let failed = run(&arguments).map_err(|failure| failure.exit_code());
        let left = NamedSemaphore::open(&name).and_then(|semaphore| semaphore.value());
        NamedSemaphore::unlink(&name).unwrap();
        assert_eq!((failed, left.unwrap()), (Err(126), 1));
    }
}
