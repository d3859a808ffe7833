//! Who runs here, and what each process has open or mapped: one look at /proc, which every source of objects asks.
//!
//! Processes come and go meanwhile: what vanishes between two readings is left out. A process that this one may not look at is
//! counted, since objects may be used by it.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use onecopy::Address;
use onecopy::address::{DescriptorName, Pid};
use onecopy::memory::maps::maps;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::process::getpid;

use super::mounts::mounts;
use crate::failure::{Failure, plain};

/// A file, wherever its name is: the device's major and minor number, and the inode.
pub(super) type Inode = (u32, u32, u64);

/// A process, as far as it could be looked at.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: Rc<str>,
    pub(super) uid: u32,
    /// What it has open; `None` when this process may not know.
    pub(super) open: Option<Vec<Open>>,
    /// The shared mappings of files.
    pub(super) mapped: Vec<Mapped>,
}

/// An open descriptor.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) number: u32,
    pub(super) what: What,
}

/// What is behind a descriptor, so far as it belongs to communication.
#[derive(Debug)]
pub(super) enum What {
    Socket(u64),
    Pipe(u64),
    Eventfd,
    File(OpenFile),
}

/// A file with a name, or that had one.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) inode: Inode,
    pub(super) path: Vec<u8>,
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) bytes: u64,
    /// Of a device: its number.
    pub(super) device: (u32, u32),
    /// How many names it has.
    pub(super) links: u32,
}

/// A file that a process has mapped so that its writes reach others.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) inode: Inode,
    pub(super) path: Vec<u8>,
    pub(super) bytes: u64,
    pub(super) writable: bool,
}

/// A process that uses an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) pid: u32,
    /// Empty where it is not known.
    pub(super) name: Rc<str>,
    /// Its descriptors for the object.
    pub(super) descriptors: Vec<u32>,
}

impl User {
    /// `fd:PID:N`, of its first descriptor.
    pub(super) fn address(&self) -> Option<Address> {
        let pid = Pid::new(self.pid).ok()?;
        DescriptorName::of(pid, *self.descriptors.first()?).ok().map(Address::Descriptor)
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Processes {
    list: Vec<Process>,
    by_pid: HashMap<u32, usize>,
    files: HashMap<Inode, Vec<User>>,
    sockets: HashMap<u64, Vec<User>>,
    pipes: HashMap<u64, Vec<User>>,
    /// How many could not be looked at.
    pub(super) unseen: usize,
    /// Whether /proc hides those of other users.
    pub(super) hidden: bool,
}

impl Processes {
    /// Looks at all processes that /proc shows, but not at this one; at what they have mapped, which takes longer, `with_mappings`.
    pub(super) fn look(with_mappings: bool) -> Result<Self, Failure> {
        let entries = fs::read_dir("/proc").map_err(|error| unreadable(&plain(&error)))?;
        if !Path::new("/proc/self/stat").exists() {
            return Err(unreadable("no process is in it"));
        }
        let own = getpid().as_raw_pid().unsigned_abs();
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let list: Vec<Process> = pids.filter(|pid| *pid != own).filter_map(|pid| process(pid, with_mappings)).collect();
        let mut all = Self {
            by_pid: list.iter().enumerate().map(|(index, process)| (process.pid, index)).collect(),
            unseen: list.iter().filter(|process| process.open.is_none()).count(),
            list,
            files: HashMap::new(),
            hidden: hides_others(),
            sockets: HashMap::new(),
            pipes: HashMap::new(),
        };
        all.index();
        Ok(all)
    }

    fn index(&mut self) {
        for process in &self.list {
            for open in process.open.iter().flatten() {
                let user = process.user(Some(open.number));
                match &open.what {
                    What::Socket(inode) => add(self.sockets.entry(*inode).or_default(), user),
                    What::Pipe(inode) => add(self.pipes.entry(*inode).or_default(), user),
                    What::File(file) => add(self.files.entry(file.inode).or_default(), user),
                    What::Eventfd => {}
                }
            }
            for mapped in &process.mapped {
                add(self.files.entry(mapped.inode).or_default(), process.user(None));
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.list.iter()
    }

    pub(super) fn get(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid).map(|index| &self.list[*index])
    }

    /// Whether nobody else can be using what none of these uses.
    pub(super) fn is_complete(&self) -> bool {
        self.unseen == 0 && !self.hidden
    }

    /// Who has the file open or mapped.
    pub(super) fn users_of_file(&self, inode: Inode) -> Vec<User> {
        self.files.get(&inode).cloned().unwrap_or_default()
    }

    /// Who has the socket open.
    pub(super) fn users_of_socket(&self, inode: u64) -> Vec<User> {
        self.sockets.get(&inode).cloned().unwrap_or_default()
    }

    /// All pipes, with who has them open.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (u64, &[User])> {
        self.pipes.iter().map(|(inode, users)| (*inode, users.as_slice()))
    }

    /// All descriptors of files, each with its process.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Process, u32, &OpenFile)> {
        self.list.iter().flat_map(|process| {
            process.open.iter().flatten().filter_map(move |open| match &open.what {
                What::File(file) => Some((process, open.number, file)),
                _ => None,
            })
        })
    }

    /// The process `pid` as one that uses something, though it may have exited or be out of sight.
    pub(super) fn user(&self, pid: u32) -> User {
        self.get(pid)
            .map_or_else(|| User { pid, name: "".into(), descriptors: Vec::new() }, |process| process.user(None))
    }
}

impl Process {
    pub(super) fn user(&self, descriptor: Option<u32>) -> User {
        User { pid: self.pid, name: Rc::clone(&self.name), descriptors: descriptor.into_iter().collect() }
    }
}

/// One entry a process, with all its descriptors.
fn add(users: &mut Vec<User>, user: User) {
    // Those of one process come one after the other.
    match users.last_mut().filter(|last| last.pid == user.pid) {
        Some(last) => last.descriptors.extend(user.descriptors),
        None => users.push(user),
    }
}

/// Whether /proc is mounted with hidepid (proc(5)), and this process may not see beyond it. Root of the machine is shown to itself
/// with all others: its first process tells.
fn hides_others() -> bool {
    let is_hiding = |options: &str| {
        options
            .split(',')
            .any(|option| option.strip_prefix("hidepid=").is_some_and(|value| !matches!(value, "0" | "off")))
    };
    let proc = mounts().into_iter().rev().find(|mount| mount.point == Path::new("/proc"));
    proc.is_some_and(|mount| is_hiding(&mount.options)) && fs::read("/proc/1/stat").is_err()
}

fn unreadable(reason: &str) -> Failure {
    Failure::failed(format!("cannot read /proc: {reason} (mount it: mount -t proc proc /proc)"))
}

/// The process `pid`; `None` when it has exited, or is a thread of the kernel.
fn process(pid: u32, with_mappings: bool) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (open, close) = (stat.iter().position(|byte| *byte == b'(')?, stat.iter().rposition(|byte| *byte == b')')?);
    let name: Rc<str> = String::from_utf8_lossy(stat.get(open + 1..close)?).into();
    let rest = std::str::from_utf8(&stat[close + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let flags: u32 = fields.nth(5)?.parse().ok()?;
    let status = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/status")).ok()?).into_owned();
    let field = |name: &str, index: usize| {
        let values = status.lines().find_map(|line| line.strip_prefix(name))?;
        values.split_ascii_whitespace().nth(index)?.parse::<u32>().ok()
    };
    let has_exited = matches!(state, "Z" | "X");
    // Of a process whose first thread has exited, the others go on with its descriptors.
    let goes_on = has_exited && field("Threads:", 0)? > 1;
    if flags & PF_KTHREAD != 0 || has_exited && !goes_on {
        return None;
    }
    // The second is the effective one.
    let uid = field("Uid:", 1)?;
    let (open, mapped) = if goes_on { of_others(pid, with_mappings) } else { of_thread(pid, with_mappings)? };
    Some(Process { pid, name, uid, open, mapped })
}

/// What is open, if this process may know, and what is mapped.
type Used = (Option<Vec<Open>>, Vec<Mapped>);

/// What the thread `tid` has open, and mapped. `None` when it has exited.
fn of_thread(tid: u32, with_mappings: bool) -> Option<Used> {
    let open = descriptors(tid)?;
    let mapped = if open.is_some() && with_mappings { shared_mappings(tid) } else { Vec::new() };
    Some((open, mapped))
}

/// The same of the threads of a process whose first one has exited. What an exited one had looks like nothing, so that it counts as
/// not known if none of them is there before and after.
fn of_others(pid: u32, with_mappings: bool) -> Used {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let used = threads.find_map(|tid| {
        let used = Some(tid).filter(|tid| is_there(pid, *tid)).and_then(|tid| of_thread(tid, with_mappings));
        used.filter(|_| is_there(pid, tid))
    });
    used.unwrap_or_default()
}

/// Whether a thread of the process has not exited.
fn is_there(pid: u32, tid: u32) -> bool {
    let status = fs::read(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))
        .is_some_and(|state| !state.trim().starts_with(['Z', 'X']))
}

/// `PF_KTHREAD` in the flags of proc_pid_stat(5).
const PF_KTHREAD: u32 = 0x0020_0000;

/// What it has open. `None` when it has exited, and `Some(None)` when this process may not know.
fn descriptors(pid: u32) -> Option<Option<Vec<Open>>> {
    let directory = format!("/proc/{pid}/fd");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Some(None),
        Err(_) => return None,
    };
    let mut open = Vec::new();
    for entry in entries.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match fs::read_link(entry.path()) {
            Ok(link) => {
                if let Some(what) = what(&entry.path(), link.as_os_str().as_bytes()) {
                    open.push(Open { number, what });
                }
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Some(None),
            // Closed meanwhile.
            Err(_) => {}
        }
    }
    Some(Some(open))
}

fn what(descriptor: &Path, link: &[u8]) -> Option<What> {
    let number = |prefix: &[u8]| {
        let digits = link.strip_prefix(prefix)?.strip_suffix(b"]")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    if let Some(inode) = number(b"socket:[") {
        return Some(What::Socket(inode));
    }
    if let Some(inode) = number(b"pipe:[") {
        return Some(What::Pipe(inode));
    }
    if link == b"anon_inode:[eventfd]" {
        return Some(What::Eventfd);
    }
    if link.first() == Some(&b'/') { open_file(descriptor, link).map(What::File) } else { None }
}

/// What the kernel knows of the file without asking a server that may be away.
fn open_file(descriptor: &Path, link: &[u8]) -> Option<OpenFile> {
    let found = statx(CWD, descriptor, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS).ok()?;
    Some(OpenFile {
        inode: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
        path: link.to_vec(),
        kind: FileType::from_raw_mode(found.stx_mode.into()),
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        bytes: found.stx_size,
        device: (found.stx_rdev_major, found.stx_rdev_minor),
        links: found.stx_nlink,
    })
}

/// The shared mappings of files, System V segments too, whose inode is their identifier. One that several processes share but that
/// cannot be read is no mapping of this process's concern.
fn shared_mappings(pid: u32) -> Vec<Mapped> {
    let Ok(maps) = maps(pid) else { return Vec::new() };
    maps.flatten()
        .filter(|map| map.shared && map.inode != 0 && !is_device(map.name.as_bytes()))
        .map(|map| Mapped {
            inode: (map.device.0, map.device.1, map.inode),
            bytes: map.bytes(),
            writable: map.writable,
            path: map.name.as_bytes().to_vec(),
        })
        .collect()
}

fn is_device(name: &[u8]) -> bool {
    name.starts_with(b"/dev/") && !name.starts_with(b"/dev/shm/") && !name.starts_with(b"/dev/zero")
}
