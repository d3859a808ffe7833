//! The process on the other side, as the kernel names it.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::process::{PTracer, Pid, set_ptracer};

use super::policy::Tracer;
use crate::process::{self, Origin, ProcessHandle, ProcessLock};
use crate::sys::recvmsg::RawCredentials;
use crate::{Error, Result};

/// The process on the other side of a channel.
///
/// It is the process that took part in the handshake: the one that accepted, and not the one that had the socket listen; the
/// one that was handed a connection, and not the one that had connected. Its ids are those that it had then; it may have
/// changed them since, or passed its socket on.
#[derive(Clone, Debug)]
pub struct Peer {
    pid: u32,
    uid: u32,
    gid: u32,
    /// None only where neither the kernel passes pidfds (before Linux 6.5) nor the process can be seen from here.
    process: Option<Arc<ProcessHandle>>,
    /// What the process says of itself: where its own pid means something. Nothing that protects this side depends on it.
    origin: Origin,
}

impl Peer {
    /// Who sent a message with these credentials, and its pidfd where the kernel passed one.
    ///
    /// # Errors
    ///
    /// [`Error::PeerGone`] when it has exited; EMFILE and ENFILE without room for a pidfd.
    pub(super) fn identify(
        found: RawCredentials,
        pidfd: Option<OwnedFd>,
        origin: Origin,
        object: &str,
    ) -> Result<Self> {
        let pid = found.pid.unsigned_abs();
        let process = match (pidfd, pid) {
            (Some(fd), _) => Some(ProcessHandle::from_pidfd(pid, fd)),
            (None, 0) => None,
            (None, _) => Some(ProcessHandle::open(pid)),
        };
        let process = process.transpose().map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => gone(object, pid),
            _ => Error::os("pidfd_open", object, error),
        })?;
        if process.as_ref().is_some_and(|process| is_another(process, &origin)) {
            return Err(gone(object, pid));
        }
        Ok(Self { pid, uid: found.uid, gid: found.gid, process: process.map(share), origin })
    }

    /// The number of the process; 0 when it has none in this pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its effective user, as this user namespace numbers it.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its effective group, as this user namespace numbers it.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// A descriptor that becomes readable when the process has exited
    /// ([pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html)). All channels of this process to the same one
    /// share it. `None` only for a process of another pid namespace, before Linux 6.5.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.as_fd())
    }

    /// The handle behind [`Peer::pidfd`].
    pub(super) fn handle(&self) -> Option<&Arc<ProcessHandle>> {
        self.process.as_ref()
    }

    /// Whether the process tells pids and start times as this one does.
    #[must_use]
    pub fn shares_pid_namespace(&self) -> bool {
        self.origin.place != 0 && self.origin.place == Origin::here()
    }

    /// Whether this is the same process, by its number and start.
    pub(super) fn is_same_process(&self, found: RawCredentials, pidfd: Option<&OwnedFd>) -> bool {
        let same_ids = (found.pid.unsigned_abs(), found.uid, found.gid) == (self.pid, self.uid, self.gid);
        same_ids && (self.pid != 0 || pidfd.is_some())
    }

    /// Whether `group` is its effective group or one of its supplementary ones.
    pub(super) fn is_in_group(&self, group: u32) -> bool {
        self.gid == group || self.supplementary_groups().is_some_and(|groups| groups.contains(&group))
    }

    /// Field `Groups` of `/proc/PID/status`, which is the process's own if it still lives afterwards.
    fn supplementary_groups(&self) -> Option<Vec<u32>> {
        let process = self.process.as_ref().filter(|_| self.pid != 0)?;
        let status = process::status(self.pid).ok()?;
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"))?;
        let alive = process.has_exited().is_ok_and(|exited| !exited);
        alive.then(|| groups.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect())
    }

    /// Names it to the kernel as a process that may attach to this one, as far as `tracer` says.
    pub(super) fn allow(&self, tracer: Tracer) {
        /// The process that was named.
        static FIRST: ProcessLock<Weak<ProcessHandle>> = ProcessLock::new();
        // Without Yama the call is EINVAL, and nothing has to be allowed.
        match tracer {
            Tracer::Anybody => {
                let _ = set_ptracer(PTracer::Any);
            }
            Tracer::FirstPeer => {
                let Some(process) = &self.process else { return };
                let mut first = FIRST.lock();
                if first.upgrade().is_some_and(|first| first.has_exited().is_ok_and(|exited| !exited)) {
                    return;
                }
                if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
                    *first = Arc::downgrade(process);
                    let _ = set_ptracer(PTracer::ProcessID(pid));
                }
            }
        }
    }

    /// A process that can't be seen from here.
    #[cfg(test)]
    pub(super) fn nobody_visible(uid: u32, gid: u32) -> Self {
        Self { pid: 0, uid, gid, process: None, origin: Origin::UNKNOWN }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("a process of another pid namespace")?,
            pid => write!(f, "process {pid}")?,
        }
        write!(f, " with uid {} and gid {}", self.uid, self.gid)
    }
}

/// Whether `process` was given the number of the one that told `origin`: it has started at another time.
fn is_another(process: &ProcessHandle, origin: &Origin) -> bool {
    let comparable = origin.place != 0 && origin.place == Origin::here() && origin.pid == process.pid();
    comparable && process.start_ticks() != 0 && process.start_ticks() != origin.start_ticks
}

fn gone(object: &str, pid: u32) -> Error {
    Error::PeerGone { object: object.into(), detail: format!("process {pid} exited during the handshake") }
}

/// The handle of the same process that another channel has, or else this one: a descriptor for each process, and not for each
/// channel.
fn share(process: ProcessHandle) -> Arc<ProcessHandle> {
    static KNOWN: ProcessLock<Vec<Weak<ProcessHandle>>> = ProcessLock::new();
    let mut known = KNOWN.lock();
    known.retain(|handle| handle.strong_count() > 0);
    if process.pid() != 0 && process.start_ticks() != 0 {
        let same = |other: &Arc<ProcessHandle>| {
            (other.pid(), other.start_ticks()) == (process.pid(), process.start_ticks())
                && other.has_exited().is_ok_and(|exited| !exited)
        };
        if let Some(shared) = known.iter().filter_map(Weak::upgrade).find(same) {
            return shared;
        }
    }
    let process = Arc::new(process);
    known.push(Arc::downgrade(&process));
    process
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn own() -> RawCredentials {
        RawCredentials { pid: std::process::id().cast_signed(), uid: 1, gid: 2 }
    }

    #[test]
    fn without_a_passed_pidfd_the_number_and_the_start_time_find_the_process() {
        let here = Origin::current().unwrap();
        let one = Peer::identify(own(), None, here, "channel:x").unwrap();
        let other = Peer::identify(own(), None, Origin::UNKNOWN, "channel:x").unwrap();
        let number = |peer: &Peer| peer.pidfd().unwrap().as_raw_fd();
        assert_eq!(number(&one), number(&other), "one pidfd for one process");
        assert!(one.shares_pid_namespace() && !other.shares_pid_namespace());
        let earlier = Origin { start_ticks: here.start_ticks - 1, ..here };
        let error = Peer::identify(own(), None, earlier, "channel:x").unwrap_err();
        assert!(error.is_peer_gone() && error.to_string().contains("exited during the handshake"), "{error}");
    }

    #[test]
    fn a_process_that_cannot_be_seen_has_no_number_and_one_that_is_gone_is_gone() {
        let hidden = RawCredentials { pid: 0, ..own() };
        let peer = Peer::identify(hidden, None, Origin::UNKNOWN, "channel:x").unwrap();
        assert!(peer.pidfd().is_none());
        assert_eq!(peer.to_string(), "a process of another pid namespace with uid 1 and gid 2");
        let unused = RawCredentials { pid: 1 << 22, ..own() };
        let error = Peer::identify(unused, None, Origin::UNKNOWN, "channel:x").unwrap_err();
        assert!(error.is_peer_gone() || error.raw_os_error() == Some(libc::EINVAL), "{error}");
    }

    #[test]
    fn supplementary_groups_are_found() {
        let peer = Peer::identify(own(), None, Origin::UNKNOWN, "channel:x").unwrap();
        let groups = rustix::process::getgroups().unwrap();
        assert!(groups.iter().all(|group| peer.is_in_group(group.as_raw())));
        assert!(peer.is_in_group(2) && !peer.is_in_group(77_777));
    }
}
