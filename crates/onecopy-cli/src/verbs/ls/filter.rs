//! Which objects are meant.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::User as Account;
use onecopy::{Address, Mechanism};

use super::object::{Kind, Object};
use super::processes::Processes;
use super::sysv::is_gone;
use crate::failure::Failure;

/// What `ls` and `rm --stale` can be restricted to.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Selection {
    /// Only objects of these mechanisms, with commas between them: posix-mq, sysv-shm, unix-stream, record-lock, channel and so on
    #[arg(long, value_name = "K,…", value_delimiter = ',')]
    pub(crate) kind: Vec<Kind>,
    /// Only objects that belong to this user, by name or number
    #[arg(long, value_name = "U", value_parser = user)]
    pub(crate) user: Option<u32>,
    /// Only objects with a path in this directory or at most two directories below it; files are looked for there and not in the
    /// usual places
    #[arg(long = "in", value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

impl Selection {
    pub(crate) fn is_empty(&self) -> bool {
        self.kind.is_empty() && self.user.is_none() && self.directory.is_none()
    }
}

/// All that restricts what is listed.
#[derive(Debug)]
pub(crate) struct Filter {
    kinds: Vec<Kind>,
    user: Option<u32>,
    pub(super) directory: Option<PathBuf>,
    pub(super) pid: Option<u32>,
    /// Whether what has no name is wanted too.
    pub(super) all: bool,
    pub(super) address: Option<Address>,
}

impl Filter {
    pub(crate) fn new(selection: &Selection) -> Result<Self, Failure> {
        let canonical = |path: &PathBuf| {
            let failed = |error: std::io::Error| {
                Failure::failed(format!("cannot look into {}: {}", path.display(), crate::failure::plain(&error)))
            };
            path.canonicalize().map_err(failed)
        };
        let directory = selection.directory.as_ref().map(canonical).transpose()?;
        Ok(Self {
            kinds: selection.kind.clone(),
            user: selection.user,
            directory,
            pid: None,
            all: false,
            address: None,
        })
    }

    /// Only what this process has to do with, also when it has no name.
    pub(super) fn of_process(mut self, pid: Option<u32>) -> Self {
        self.pid = pid;
        self
    }

    pub(super) fn with_nameless(mut self, all: bool) -> Self {
        self.all = all;
        self
    }

    /// Only this object. If it has a file, that is looked for where it is.
    pub(crate) fn of_address(mut self, address: Address) -> Self {
        if let Some(parent) = path_of(&address).and_then(Path::parent) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            self.directory = self.directory.or_else(|| parent.canonicalize().ok());
        }
        self.address = Some(address);
        self
    }

    pub(super) fn wants_nameless(&self) -> bool {
        self.all || self.pid.is_some()
    }

    /// Whether an object of one of these mechanisms could be wanted.
    pub(super) fn wants(&self, mechanisms: &[Mechanism]) -> bool {
        self.kinds.is_empty()
            || self.kinds.iter().any(|kind| match kind {
                Kind::Mechanism(mechanism) => mechanisms.contains(mechanism),
                Kind::Channel => mechanisms.contains(&Mechanism::UnixSeqpacket),
            })
    }

    pub(super) fn takes(&self, object: &Object) -> bool {
        (self.wants_nameless() || object.is_named || self.address.is_some())
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| object.is_of(*kind)))
            && self.user.is_none_or(|uid| object.uid == Some(uid))
            && self.pid.is_none_or(|pid| object.concerns(pid))
            && self.directory.as_ref().is_none_or(|directory| lies_in(object, directory))
            && self.address.as_ref().is_none_or(|address| is_named_by(object, address))
    }

    /// Refuses a process that does not exist, or of which nothing can be known.
    pub(super) fn check_process(&self, processes: &Processes) -> Result<(), Failure> {
        let Some(pid) = self.pid else { return Ok(()) };
        match processes.get(pid) {
            Some(process) if process.open.is_some() => Ok(()),
            _ if pid == std::process::id() => Err(Failure::failed("--pid: this process does not list itself")),
            Some(_) => Err(Failure::failed(format!(
                "process {pid} cannot be looked at: it belongs to another user, or may not be traced (run as root)"
            ))),
            None if processes.hidden && !is_gone(pid) => Err(Failure::failed(format!(
                "process {pid} cannot be looked at: this /proc hides it, as those of other users (hidepid; run as root)"
            ))),
            None => Err(Failure::failed(format!(
                "there is no process {pid}, or it is a thread of the kernel or has exited"
            ))),
        }
    }
}

fn lies_in(object: &Object, directory: &Path) -> bool {
    object.address.as_ref().and_then(path_of).is_some_and(|path| path.starts_with(directory))
}

/// Whether the object is what `address` means, by whichever path. A socket file does not tell what type of socket it was made by.
fn is_named_by(object: &Object, address: &Address) -> bool {
    let Some(own) = &object.address else { return false };
    let same_file = |one: &Path, other: &Path| {
        let inode = |path: &Path| path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
        inode(one).is_some() && inode(one) == inode(other)
    };
    own == address
        || own.region().is_some() && own.region() == address.region()
        || (is_socket(own) && is_socket(address) || own.scheme() == address.scheme() && !is_range(own))
            && path_of(own).zip(path_of(address)).is_some_and(|(one, other)| same_file(one, other))
}

fn is_range(address: &Address) -> bool {
    matches!(address, Address::RecordLock(_) | Address::OfdLock(_))
}

fn is_socket(address: &Address) -> bool {
    matches!(address, Address::UnixStream(_) | Address::UnixDgram(_) | Address::UnixSeqpacket(_) | Address::Channel(_))
}

/// The file that an address names.
fn path_of(address: &Address) -> Option<&Path> {
    match address {
        Address::Fifo(path) | Address::Pty(path) | Address::FileMapping(path) | Address::FileLock(path) => {
            Some(path.as_path())
        }
        Address::UnixStream(name) | Address::UnixDgram(name) | Address::UnixSeqpacket(name) => name.as_path(),
        Address::Channel(name) => name.as_path(),
        Address::RecordLock(range) | Address::OfdLock(range) => Some(range.path()),
        _ => None,
    }
}

fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match Account::from_name(text) {
        Ok(Some(account)) => Ok(account.uid.as_raw()),
        _ => Err("there is no such user: write a name or a number".into()),
    }
}
