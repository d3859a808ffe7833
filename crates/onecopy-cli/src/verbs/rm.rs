//! `onecopy rm`: removes an object.

use std::fs::FileType;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use onecopy::memory::posix_shm::PosixShm;
use onecopy::memory::sysv_shm::SysvShm;
use onecopy::message::posix_mq;
use onecopy::message::sysv_mq::SysvQueue;
use onecopy::sync::named_semaphore::NamedSemaphore;
use onecopy::sync::sysv_semaphore::SysvSemaphore;
use onecopy::{Address, UnixName};
use rustix::io::Errno;

use super::ls::{Filter, Selection, stale};
use crate::endpoint::{self, remedy};
use crate::failure::{Failure, plain};

const EXAMPLES: &str = "\
Examples:
  onecopy rm mq:/jobs
  onecopy rm sysv-mq:id=5
  onecopy rm shm:/frames
  onecopy rm unix:/tmp/left-by-a-crash.sock
  onecopy rm --stale                   all that `onecopy ls` calls stale; prints what it removed
  onecopy rm --stale --in /run/app     the same of one directory alone
  onecopy rm --stale shm:/frames       if it is stale

What counts as stale is said by `onecopy ls --help`.";

/// The options of `rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to remove: mq:/name, sysv-mq:KEY, shm:/name, sysv-shm:KEY, mmap:/path, fifo:/path, a socket file, sem:/name,
    /// sysv-sem:KEY, a lock's file; of sem:, futex:, mutex:, condvar:, barrier: and rwlock: the shared memory that they name
    #[arg(value_name = "ADDRESS", value_parser = endpoint::address_parser(), required_unless_present = "stale")]
    address: Option<Address>,
    /// Remove only what is proved to be left by the dead: ADDRESS if it is, or all that `onecopy ls` calls stale
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    selection: Selection,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.address {
        Some(_) if !arguments.stale && !arguments.selection.is_empty() => {
            Err(Failure::usage("--kind, --user and --in belong to --stale"))
        }
        Some(address) if !arguments.stale => remove(address),
        Some(address) => stale::remove_one(Filter::new(&arguments.selection)?, address),
        None => stale::remove(&Filter::new(&arguments.selection)?),
    }
}

/// Removes what `address` names.
pub(super) fn remove(address: &Address) -> Result<(), Failure> {
    match address {
        Address::PosixMq(name) => Ok(posix_mq::unlink(name)?),
        Address::SysvMq(name) => Ok(SysvQueue::open(name)?.remove()?),
        Address::PosixShm(name) => Ok(PosixShm::unlink(name)?),
        Address::SysvShm(name) => Ok(SysvShm::remove_named(name)?),
        Address::Fifo(path) => remove_file(address, path.as_path(), FileType::is_fifo, "FIFO"),
        Address::FileMapping(path) => remove_file(address, path.as_path(), FileType::is_file, "regular file"),
        Address::Pty(path) => remove_file(address, path.as_path(), FileType::is_symlink, "symbolic link"),
        Address::UnixStream(name) | Address::UnixDgram(name) | Address::UnixSeqpacket(name) => {
            remove_socket(address, name)
        }
        Address::Channel(name) => match name.as_path() {
            Some(path) => remove_file(address, path, FileType::is_socket, "socket"),
            None => Err(abstract_name(address)),
        },
        Address::NamedSemaphore(name) => Ok(NamedSemaphore::unlink(name)?),
        Address::SysvSemaphore(name) => Ok(SysvSemaphore::open(name)?.remove()?),
        Address::FileLock(path) => remove_file(address, path.as_path(), FileType::is_file, "regular file"),
        Address::RecordLock(range) | Address::OfdLock(range) => {
            remove_file(address, range.path(), FileType::is_file, "regular file")
        }
        // What lies in memory goes with it; memory itself is its own region.
        _ => match address.region().map(Address::from).filter(|region| region != address) {
            Some(region) => remove(&region),
            None => Err(Failure::usage(format!("rm does not fit {address}: {}", why_not(address)))),
        },
    }
}

fn remove_socket(address: &Address, name: &UnixName) -> Result<(), Failure> {
    match name.as_path() {
        Some(path) => remove_file(address, path, FileType::is_socket, "socket"),
        None => Err(abstract_name(address)),
    }
}

fn abstract_name(address: &Address) -> Failure {
    Failure::usage(format!("rm does not fit {address}: an abstract name goes with the process that bound it"))
}

fn remove_file(address: &Address, path: &Path, fits: fn(&FileType) -> bool, kind: &str) -> Result<(), Failure> {
    let failed = |call: &str, error: std::io::Error| {
        let remedy = match (error.raw_os_error().map(Errno::from_raw_os_error), call) {
            (Some(Errno::NOENT), _) => " (there is no such file)",
            (Some(Errno::ACCESS), "unlink") => " (only who may write its directory may remove it)",
            // The directory is sticky.
            (Some(Errno::PERM), "unlink") => " (only its owner, the directory's owner and root may remove it)",
            _ => "",
        };
        Failure::failed(format!("{call} on {address}: {}{remedy}", plain(&error)))
    };
    let found = path.symlink_metadata().map_err(|error| failed("lstat", error))?;
    if !fits(&found.file_type()) {
        return Err(Failure::failed(format!("{address}: this file is no {kind}, and stays")));
    }
    std::fs::remove_file(path).map_err(|error| failed("unlink", error))
}

fn why_not(address: &Address) -> String {
    match address {
        Address::Tcp(_) | Address::Udp(_) | Address::Sctp(_) => "a port goes with the process that bound it".into(),
        Address::Descriptor(_) => "a descriptor goes with the processes that hold it".into(),
        Address::Memory(_) => "memory goes with its process".into(),
        Address::Signal(_) => "a signal is no object".into(),
        _ => remedy(address),
    }
}
