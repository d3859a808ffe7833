//! A lock that is held while a command runs.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Child, Command, ExitStatus};

use onecopy::Address;
use onecopy::open::{self, OpenOptions};
use onecopy::sync::file_lock::FileLock;
use onecopy::sync::record_lock::{OfdLock, RecordLock};
use onecopy::sync::{Lock, Mode};
use rustix::io::{FdFlags, fcntl_setfd};

use super::child;
use crate::failure::{Failure, plain};
use crate::interrupt;

/// The lock, and who keeps it.
pub(super) struct Holder {
    held: Held,
    /// Whether the command inherits the descriptor that the lock belongs to; otherwise it ends when this process is killed.
    inherits: bool,
}

enum Held {
    File(FileLock),
    Ofd(OfdLock),
    Record(RecordLock),
    Other(Box<dyn Lock>),
}

impl Holder {
    pub(super) fn open(address: &Address, close: bool, options: &OpenOptions) -> Result<Self, Failure> {
        let held = match address {
            Address::FileLock(path) => Held::File(FileLock::open_or_create(path.as_path(), options.mode)?),
            Address::OfdLock(range) => Held::Ofd(OfdLock::open_or_create(range, options.mode)?),
            Address::RecordLock(range) => Held::Record(RecordLock::open_or_create(range, options.mode)?),
            _ => Held::Other(open::open_lock(address, options)?),
        };
        let inherits = !close && matches!(held, Held::File(_) | Held::Ofd(_));
        Ok(Self { held, inherits })
    }

    pub(super) fn lock(&mut self) -> &mut dyn Lock {
        match &mut self.held {
            Held::File(lock) => lock,
            Held::Ofd(lock) => lock,
            Held::Record(lock) => lock,
            Held::Other(lock) => lock,
        }
    }

    /// Who stands in the way now, where the kernel tells.
    pub(super) fn in_the_way(&self, mode: Mode) -> Option<String> {
        let holder = match &self.held {
            Held::Ofd(lock) => lock.holder(mode),
            Held::Record(lock) => lock.holder(mode),
            Held::File(_) | Held::Other(_) => return None,
        };
        let holder = holder.ok()??;
        let who = holder.process.map_or_else(|| "an open file description".into(), |pid| format!("process {pid}"));
        let end = if holder.len == 0 { "the end".into() } else { (holder.start + holder.len - 1).to_string() };
        Some(format!("{who} holds bytes {} to {end}", holder.start))
    }

    /// Runs the command to its end. Signals that would end this process go to the command meanwhile.
    pub(super) fn run(&self, command: &[OsString]) -> Result<ExitStatus, Failure> {
        let (program, arguments) = command.split_first().ok_or_else(|| Failure::usage("no command to run"))?;
        let mut command = match self.inherited() {
            Some(fd) => {
                fcntl_setfd(fd, FdFlags::empty()).map_err(|errno| cannot_run(program, &errno.into()))?;
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            None => child::command(program, arguments)?,
        };
        let mut child =
            interrupt::spawn_and_forward(|| command.spawn())?.map_err(|error| cannot_run(program, &error))?;
        wait(&mut child)
    }

    fn inherited(&self) -> Option<BorrowedFd<'_>> {
        match &self.held {
            Held::File(lock) if self.inherits => Some(lock.as_fd()),
            Held::Ofd(lock) if self.inherits => Some(lock.as_fd()),
            _ => None,
        }
    }

    /// Gives the lock up, as far as it is this process's: what the command left running keeps an inherited one.
    pub(super) fn give_up(mut self) -> Result<(), Failure> {
        if self.inherits {
            // To unlock would unlock for those who inherited the descriptor, too; the end of this process closes it.
            std::mem::forget(self);
            return Ok(());
        }
        Ok(self.lock().release()?)
    }
}

fn wait(child: &mut Child) -> Result<ExitStatus, Failure> {
    child.wait().map_err(|error| Failure::failed(format!("cannot wait for the command: {}", plain(&error))))
}

/// A command that did not run, with the exit codes of a shell.
pub(super) fn cannot_run(program: &OsStr, error: &std::io::Error) -> Failure {
    let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    Failure::with_code(code, format!("cannot run {}: {}", program.display(), plain(error)))
}
