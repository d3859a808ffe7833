//! A worker as the measuring process sees it: started, told what to do, ended.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::control::{Control, Order, Reply};
use crate::peer::PARENT;

/// This binary, even when its file was replaced or removed since it started.
pub(crate) const SELF: &str = "/proc/self/exe";
/// How long a worker whose socket closed may take to become a zombie.
const ENDING: Duration = Duration::from_secs(2);

/// A process of its own. Dropping it kills it.
pub(crate) struct Worker {
    child: Child,
    control: Control,
    replies: VecDeque<Reply>,
    ended: bool,
}

impl Worker {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// /proc is missing, which would look like another missing file when the process is started.
    pub(crate) fn start() -> io::Result<Self> {
        if Path::new(SELF).symlink_metadata().is_err() {
            return Err(io::Error::other("onecopy needs /proc, which is not mounted here (mount -t proc proc /proc)"));
        }
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(SELF)
            .arg0("onecopy-bench-worker")
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self { child, control: Control::new(ours), replies: VecDeque::new(), ended: false })
    }

    pub(crate) fn order(&self, order: &Order, fds: &[OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        // A worker that is gone is noticed by the wait for its answer, which knows why.
        let _ = self.control.send(order, &fds);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads what the worker said, without waiting.
    pub(crate) fn listen(&mut self) {
        self.ended |= !self.control.poll().unwrap_or(false);
        while let Some(reply) = self.control.take() {
            self.replies.push_back(reply);
        }
    }

    pub(crate) fn take(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// Whether the worker said that it failed, or is gone: nothing more can come of this run.
    pub(crate) fn is_lost(&self) -> bool {
        self.ended || matches!(self.replies.front(), Some(Reply::Failed(_) | Reply::Unavailable(_)))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// How a worker ended that closed its socket, in words.
    pub(crate) fn obituary(&mut self) -> String {
        let until = Instant::now() + ENDING;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                _ if Instant::now() > until => return "closed its connection but did not end".into(),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let how = match (status.signal(), status.code()) {
            (Some(signal), _) => format!("was killed by signal {signal}"),
            (None, code) => format!("ended with exit code {}", code.unwrap_or(-1)),
        };
        match self.last_words() {
            Some(words) => format!("{how}: {words}"),
            None => how,
        }
    }

    /// The first line that it wrote to its standard error.
    fn last_words(&mut self) -> Option<String> {
        let mut text = String::new();
        self.child.stderr.as_mut()?.take(64 * 1024).read_to_string(&mut text).ok()?;
        text.lines().find(|line| !line.trim().is_empty()).map(str::to_owned)
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
