//! Names that must not stay behind, even when the measuring process is killed.
//!
//! What has a name is removed by a guard of the measuring process. Against SIGKILL a second process, the janitor, holds the
//! list of what exists, and removes what is left when the pipe to it closes.

use std::cell::RefCell;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::rc::Rc;

use onecopy::memory::posix_shm::PosixShm;
use onecopy::memory::sysv_shm::SysvShm;
use onecopy::message::posix_mq;
use onecopy::message::sysv_mq::SysvQueue;
use onecopy::sync::named_semaphore::NamedSemaphore;
use onecopy::sync::sysv_semaphore::SysvSemaphore;
use onecopy::{PosixName, SysvName};
use serde::{Deserialize, Serialize};

use crate::interrupt;
use crate::worker::SELF;

/// Says that this process is the janitor.
const JANITOR: &str = "ONECOPY_BENCH_JANITOR";

/// Something with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leftover {
    Directory(PathBuf),
    PosixQueue(String),
    SysvQueue(i32),
    PosixShm(String),
    SysvShm(i32),
    NamedSemaphore(String),
    SysvSemaphore(i32),
}

impl Leftover {
    /// Removes it, if it is still there.
    fn remove(&self) {
        // What is gone already needs no removal, and for anything else there is nobody to tell.
        let _ = match self {
            Self::Directory(path) => return drop(std::fs::remove_dir_all(path)),
            Self::PosixQueue(name) => PosixName::new(name).and_then(|name| posix_mq::unlink(&name)),
            Self::SysvQueue(id) => SysvName::id(*id).and_then(|name| SysvQueue::open(&name)?.remove()),
            Self::PosixShm(name) => PosixName::new(name).and_then(|name| PosixShm::unlink(&name)),
            Self::SysvShm(id) => SysvName::id(*id).and_then(|name| SysvShm::remove_named(&name)),
            Self::NamedSemaphore(name) => PosixName::new(name).and_then(|name| NamedSemaphore::unlink(&name)),
            Self::SysvSemaphore(id) => SysvName::id(*id).and_then(|name| SysvSemaphore::open(&name)?.remove()),
        };
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Word {
    Exists(Leftover),
    Gone(Leftover),
}

/// The janitor as the measuring process sees it. It is started when there is something to look after.
#[derive(Default)]
pub(crate) struct Janitor(RefCell<Option<(Child, ChildStdin)>>);

impl Janitor {
    /// Looks after `leftover`, which has just been created, until the guard is dropped.
    pub(crate) fn guard(self: &Rc<Self>, leftover: Leftover) -> Guard {
        self.tell(&Word::Exists(leftover.clone()));
        Guard { leftover, janitor: Rc::clone(self) }
    }

    /// A janitor that cannot be started, or was killed, leaves what guards do: everything but SIGKILL.
    fn tell(&self, word: &Word) {
        let mut janitor = self.0.borrow_mut();
        if janitor.is_none() {
            *janitor = start().ok();
        }
        if let Some((_, pipe)) = &mut *janitor {
            let mut line = serde_json::to_vec(word).expect("plain data is JSON");
            line.push(b'\n');
            let _ = pipe.write_all(&line);
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if let Some((mut child, pipe)) = self.0.take() {
            drop(pipe);
            let _ = child.wait();
        }
    }
}

/// In a process group of its own, since Ctrl-C and a kill of the whole group must not reach it.
fn start() -> io::Result<(Child, ChildStdin)> {
    let mut child = Command::new(SELF)
        .arg0("onecopy-bench-janitor")
        .env(JANITOR, "1")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, pipe))
}

/// Removes something when it is dropped.
pub(crate) struct Guard {
    leftover: Leftover,
    janitor: Rc<Janitor>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.leftover.remove();
        self.janitor.tell(&Word::Gone(self.leftover.clone()));
    }
}

/// Does the janitor's work and never returns, when this process was started for it.
pub(crate) fn work_if_asked() {
    if std::env::var_os(JANITOR).is_none() {
        return;
    }
    let _ = interrupt::block();
    let mut left = Vec::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Word::Exists(leftover)) => left.push(leftover),
            Ok(Word::Gone(gone)) => left.retain(|leftover| *leftover != gone),
            Err(_) => {}
        }
    }
    left.iter().for_each(Leftover::remove);
    std::process::exit(0);
}
