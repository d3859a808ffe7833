//! Pseudoterminals: the links by which processes publish them, and those that are open.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use onecopy::address::FilePath;
use onecopy::{Address, Mechanism};
use rustix::fs::{FileType, statfs};

use super::leftover::{FileId, Leftover, Outcome, Spot, sees_all_namespaces};
use super::object::{Object, State};
use super::places::Found;
use super::processes::{Inode, OpenFile, Processes, User};

/// Where the kernel shows the slave sides.
const TERMINALS: &str = "/dev/pts";
/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAYFS: i64 = 0x794c_7630;

/// The links among `found`, and the terminals that are open without one.
///
/// A link counts as left behind when its terminal exists neither here nor in the /dev/pts of any process of the link's owner. A
/// process that may not be asked counts as one that has the same terminals as this one, unless it has a pid namespace of its own, as
/// containers have. In a container itself, from where others that share its directories cannot be seen, a link is left behind
/// only on the container's own file system.
pub(super) fn objects(found: &[Found], processes: &Processes) -> Vec<Object> {
    let masters = masters(processes);
    let mut linked = Vec::new();
    let mut objects: Vec<Object> = Vec::new();
    for link in found.iter().filter(|file| file.id.kind == FileType::Symlink) {
        if let Some((object, terminal)) = link_object(link, &masters, processes) {
            linked.extend(terminal);
            objects.push(object);
        }
    }
    objects.extend(unlinked(&linked, &masters, processes));
    objects
}

/// A link to a terminal, and the inode of that.
fn link_object(
    found: &Found,
    masters: &HashMap<u32, Vec<User>>,
    processes: &Processes,
) -> Option<(Object, Option<Inode>)> {
    let link = Link::of(found)?;
    let address = Address::Pty(FilePath::new(&found.path).ok()?);
    let object = Object::new(Mechanism::Pty, address)
        .owned_by(found.id.uid, found.id.mode & 0o777)
        .says(format!("leads to {}", link.target.display()));
    match FileId::of(&link.target) {
        Some(terminal) => {
            let mut users = masters.get(&link.number).cloned().unwrap_or_default();
            merge(&mut users, processes.users_of_file(terminal.inode));
            Some((object.used_by(users, processes), Some(terminal.inode)))
        }
        None if is_gone_everywhere(&link, processes) => {
            let state = State::Stale(format!("the terminal {} is gone", link.target.display()));
            Some((Object { state, leftover: Some(Leftover::PtyLink(link)), ..object }, None))
        }
        None => Some((Object { state: State::Unknown, ..object }, None)),
    }
}

fn is_gone_everywhere(link: &Link, processes: &Processes) -> bool {
    let is_alone = sees_all_namespaces()
        || link.path.parent().and_then(|parent| statfs(parent).ok()).is_some_and(|found| found.f_type == OVERLAYFS);
    is_alone
        && link.is_gone()
        && processes.iter().filter(|process| process.uid == link.id.uid).all(|process| lacks(process.pid, link))
}

/// Whether the process has no such terminal in its name space of mounts.
fn lacks(pid: u32, link: &Link) -> bool {
    let space = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt"));
    match (space(&pid.to_string()), space("self")) {
        (Ok(theirs), Ok(own)) if theirs == own => true,
        // It has exited.
        (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => true,
        (Ok(_), Ok(_)) => {
            let root = PathBuf::from(format!("/proc/{pid}/root"));
            let inside = root.join(link.target.strip_prefix("/").unwrap_or(&link.target));
            matches!(inside.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
        }
        _ => is_in_this_pid_namespace(pid),
    }
}

fn is_in_this_pid_namespace(pid: u32) -> bool {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_ascii_whitespace().count() == 1)
}

/// Who holds the master side of each terminal, by its number.
fn masters(processes: &Processes) -> HashMap<u32, Vec<User>> {
    let mut masters: HashMap<u32, Vec<User>> = HashMap::new();
    for (process, number, _) in processes.files().filter(|(.., file)| is_master(file)) {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", process.pid)).unwrap_or_default();
        let index =
            info.lines().find_map(|line| line.strip_prefix("tty-index:")).and_then(|text| text.trim().parse().ok());
        if let Some(index) = index {
            merge(masters.entry(index).or_default(), vec![process.user(Some(number))]);
        }
    }
    masters
}

/// Both /dev/ptmx and /dev/pts/ptmx.
fn is_master(file: &OpenFile) -> bool {
    file.kind == FileType::CharacterDevice && file.device == (5, 2)
}

fn unlinked(linked: &[Inode], masters: &HashMap<u32, Vec<User>>, processes: &Processes) -> Vec<Object> {
    let Ok(entries) = fs::read_dir(TERMINALS) else { return Vec::new() };
    let object = |path: PathBuf| {
        let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let id = FileId::of(&path).filter(|id| !linked.contains(&id.inode))?;
        let mut users = masters.get(&number).cloned().unwrap_or_default();
        merge(&mut users, processes.users_of_file(id.inode));
        let object = Object::new(Mechanism::Pty, Address::Pty(FilePath::new(&path).ok()?));
        let object = object.owned_by(id.uid, id.mode & 0o777).used_by(users, processes);
        Some(Object { is_named: false, ..object })
    };
    entries.flatten().filter_map(|entry| object(entry.path())).collect()
}

fn merge(users: &mut Vec<User>, more: Vec<User>) {
    for user in more {
        if !users.iter().any(|known| known.pid == user.pid) {
            users.push(user);
        }
    }
}

/// A symbolic link to a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    path: PathBuf,
    id: FileId,
    target: PathBuf,
    number: u32,
}

impl Link {
    fn of(found: &Found) -> Option<Self> {
        let target = fs::read_link(&found.path).ok()?;
        let number = target.as_os_str().as_bytes().strip_prefix(b"/dev/pts/")?;
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some(Self { path: found.path.clone(), id: found.id, target, number })
    }

    /// Whether there is no such terminal here, though there is a place for them.
    fn is_gone(&self) -> bool {
        let nothing =
            |path: &Path| matches!(path.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound);
        Path::new("/dev/pts/ptmx").exists() && nothing(&self.target)
    }

    /// Removes the link if it still leads to a terminal that is gone.
    pub(super) fn remove(&self) -> Outcome {
        let Some(spot) = Spot::of(&self.path) else { return Outcome::Alive };
        let _lock = spot.lock();
        let leads_there = spot.target().is_some_and(|target| target == self.target);
        if leads_there && self.is_gone() { spot.unlink(&self.id) } else { Outcome::Alive }
    }
}
