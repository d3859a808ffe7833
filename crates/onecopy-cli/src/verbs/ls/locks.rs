//! Locks on files: /proc/locks, as [proc_locks(5)](https://man7.org/linux/man-pages/man5/proc_locks.5.html) describes it.
//!
//! The table names a file by its device and inode. Its path is that of a descriptor which has it open; of several the one whose
//! fdinfo tells of the lock. On some file systems (Btrfs) the table's device is not the one that stat(2) tells.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use onecopy::address::{FilePath, FileRange};
use onecopy::{Address, Mechanism};

use super::leftover::FileId;
use super::object::{Object, State};
use super::posix_mq;
use super::processes::{OpenFile, Processes, User};

/// The three sorts of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    File,
    Record,
    Ofd,
}

/// A lock, or the wish for one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    sort: Sort,
    is_waiting: bool,
    is_shared: bool,
    /// `None` for a lock of an open file description, and for a process of another pid namespace.
    pid: Option<u32>,
    /// The device and the inode as the table writes them: `08:01:1234`.
    file: String,
    start: u64,
    /// The length, 0 to the end of the file.
    len: u64,
}

/// What is locked: several can hold the same, shared.
type Place<'a> = (&'a str, Sort, u64, u64);

impl Lock {
    fn place(&self) -> Place<'_> {
        (&self.file, self.sort, self.start, self.len)
    }
}

/// `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF`, and of who waits `1: -> POSIX ...`.
fn parse(line: &str) -> Option<Lock> {
    let mut fields = line.split_ascii_whitespace().skip(1).peekable();
    let is_waiting = fields.next_if_eq(&"->").is_some();
    let sort = match fields.next()? {
        "FLOCK" => Sort::File,
        "POSIX" => Sort::Record,
        "OFDLCK" => Sort::Ofd,
        // A lease or a delegation is no lock.
        _ => return None,
    };
    let is_shared = fields.nth(1)? == "READ";
    let pid = fields.next()?.parse().ok().filter(|pid| *pid != 0);
    let file = fields.next()?.to_owned();
    let start: u64 = fields.next()?.parse().ok()?;
    let len = match fields.next()? {
        "EOF" => 0,
        last => last.parse::<u64>().ok()?.checked_sub(start)?.checked_add(1)?,
    };
    Some(Lock { sort, is_waiting, is_shared, pid, file, start, len })
}

fn inode_of(file: &str) -> Option<u64> {
    file.rsplit(':').next()?.parse().ok()
}

/// Whether the table's name of a file is that of this one, so far as its device tells.
fn is_named_so(file: &OpenFile, name: &str) -> bool {
    let (major, minor, inode) = file.inode;
    format!("{major:02x}:{minor:02x}:{inode}") == name
}

/// A descriptor of a file that is locked.
struct Handle<'a> {
    user: User,
    file: &'a OpenFile,
    /// The locks that its fdinfo tells, each with whether it is shared.
    own: BTreeSet<(Sort, u64, u64, bool)>,
    /// What the table calls the file, where there is such a lock.
    name: Option<String>,
    is_queue: bool,
}

/// All locks: one object for each place that is locked, with who holds it and who waits.
pub(super) fn objects(processes: &Processes) -> Vec<Object> {
    let table = fs::read("/proc/locks").unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    let locks: Vec<Lock> = table.lines().filter_map(parse).collect();
    if locks.is_empty() {
        return Vec::new();
    }
    let handles = handles(&locks, processes);
    let mut objects: BTreeMap<Place<'_>, (&Lock, Object)> = BTreeMap::new();
    for lock in locks.iter().filter(|lock| !lock.is_waiting && !is_on_queue(lock, &handles)) {
        let users = holders(lock, &handles, processes);
        match objects.get_mut(&lock.place()) {
            Some((_, object)) => users.into_iter().for_each(|user| add(&mut object.users, user)),
            None => drop(objects.insert(lock.place(), (lock, object(lock, users, &handles, processes)))),
        }
    }
    for lock in locks.iter().filter(|lock| lock.is_waiting) {
        let waiting = lock.pid.map(|pid| processes.user(pid));
        for (_, object) in objects.values_mut().filter(|(held, _)| is_in_the_way(held, lock)) {
            waiting.iter().for_each(|user| add(&mut object.waiting, user.clone()));
        }
    }
    objects.into_values().map(|(_, object)| object).collect()
}

/// Whether it is the sign by which a receiver of a POSIX queue shows itself to this library's senders.
fn is_on_queue(lock: &Lock, handles: &HashMap<u64, Vec<Handle<'_>>>) -> bool {
    let telling = handles_of(lock, handles).iter().find(|handle| handle.name.as_ref() == Some(&lock.file));
    telling.is_some_and(|handle| handle.is_queue)
}

fn add(users: &mut Vec<User>, user: User) {
    if !users.iter().any(|known| known.pid == user.pid) {
        users.push(user);
    }
}

/// Whether `held` keeps `wanted` waiting. Both kinds of record locks keep each other out.
fn is_in_the_way(held: &Lock, wanted: &Lock) -> bool {
    let end = |lock: &Lock| if lock.len == 0 { u64::MAX } else { lock.start.saturating_add(lock.len) };
    held.file == wanted.file
        && (held.sort == Sort::File) == (wanted.sort == Sort::File)
        && !(held.is_shared && wanted.is_shared)
        && held.start < end(wanted)
        && wanted.start < end(held)
}

/// The descriptors of locked files, by the inode: the inodes of other file systems among them.
fn handles<'a>(locks: &[Lock], processes: &'a Processes) -> HashMap<u64, Vec<Handle<'a>>> {
    let mut handles: HashMap<u64, Vec<Handle<'a>>> =
        locks.iter().filter_map(|lock| Some((inode_of(&lock.file)?, Vec::new()))).collect();
    for (process, number, file) in processes.files() {
        if let Some(of_inode) = handles.get_mut(&file.inode.2) {
            let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", process.pid)).unwrap_or_default();
            let own: Vec<Lock> = info.lines().filter_map(|line| parse(line.strip_prefix("lock:")?.trim())).collect();
            let name = own.first().map(|lock| lock.file.clone());
            let own = own.iter().map(|lock| (lock.sort, lock.start, lock.len, lock.is_shared)).collect();
            let is_queue = posix_mq::is_queue(process.pid, number, file);
            of_inode.push(Handle { user: process.user(Some(number)), file, own, name, is_queue });
        }
    }
    handles
}

fn handles_of<'a>(lock: &Lock, handles: &'a HashMap<u64, Vec<Handle<'a>>>) -> &'a [Handle<'a>] {
    inode_of(&lock.file).and_then(|inode| handles.get(&inode)).map_or(&[], Vec::as_slice)
}

/// Who holds it: those whose descriptors tell of the lock, which a child that inherited one does too, and who took it.
fn holders(lock: &Lock, handles: &HashMap<u64, Vec<Handle<'_>>>, processes: &Processes) -> Vec<User> {
    let mut users = Vec::new();
    if let (Some(pid), true) = (lock.pid, lock.sort != Sort::Ofd)
        && (lock.sort == Sort::Record || processes.get(pid).is_some_and(|process| process.open.is_none()))
    {
        users.push(processes.user(pid));
    }
    let own = (lock.sort, lock.start, lock.len, lock.is_shared);
    let tells = |handle: &&Handle<'_>| handle.name.as_ref() == Some(&lock.file) && handle.own.contains(&own);
    for handle in handles_of(lock, handles).iter().filter(tells) {
        if lock.sort != Sort::Record || lock.pid == Some(handle.user.pid) {
            add(&mut users, handle.user.clone());
        }
    }
    users
}

fn object(lock: &Lock, users: Vec<User>, handles: &HashMap<u64, Vec<Handle<'_>>>, processes: &Processes) -> Object {
    let mechanism = if lock.sort == Sort::File { Mechanism::FileLock } else { Mechanism::RecordLock };
    let file = file_of(lock, handles);
    let address = file.and_then(|file| address(lock, file));
    let mut object = match address {
        Some(address) => Object::new(mechanism, address),
        None => Object::without_address(mechanism, label(lock, file)),
    };
    object.uid = match file {
        Some(file) => Some(file.uid),
        None => lock.pid.and_then(|pid| processes.get(pid)).map(|process| process.uid),
    };
    object.mode = file.map(|file| file.mode & 0o777);
    object.words = if lock.is_shared { "shared".into() } else { "exclusive".into() };
    object.users = users;
    object.noted.extend(lock.pid);
    object.state = State::Used;
    object
}

fn range(lock: &Lock) -> String {
    match (lock.start, lock.len) {
        (0, 0) => String::new(),
        (start, 0) => format!(", from byte {start}"),
        (start, 1) => format!(", byte {start}"),
        (start, len) => format!(", bytes {start} to {}", start + (len - 1)),
    }
}

/// The locked file: one whose descriptor tells of the lock, or else one that has the table's name.
fn file_of<'a>(lock: &Lock, handles: &'a HashMap<u64, Vec<Handle<'a>>>) -> Option<&'a OpenFile> {
    let handles = handles_of(lock, handles);
    let telling = handles.iter().find(|handle| handle.name.as_ref() == Some(&lock.file));
    telling.or_else(|| handles.iter().find(|handle| is_named_so(handle.file, &lock.file))).map(|handle| handle.file)
}

/// `None` when the path does not lead to the file from here.
fn address(lock: &Lock, file: &OpenFile) -> Option<Address> {
    let path = Path::new(OsStr::from_bytes(&file.path));
    FileId::of(path).filter(|id| id.inode == file.inode)?;
    let path = FilePath::new(path).ok()?;
    Some(match lock.sort {
        Sort::File => Address::FileLock(path),
        Sort::Record => Address::RecordLock(FileRange::new(path, lock.start, lock.len).ok()?),
        Sort::Ofd => Address::OfdLock(FileRange::new(path, lock.start, lock.len).ok()?),
    })
}

fn label(lock: &Lock, file: Option<&OpenFile>) -> String {
    let scheme = match lock.sort {
        Sort::File => "flock",
        Sort::Record => "record",
        Sort::Ofd => "ofd",
    };
    match file {
        Some(file) => format!("{scheme} on {}{}", String::from_utf8_lossy(&file.path), range(lock)),
        None => {
            let (device, inode) = lock.file.rsplit_once(':').unwrap_or_default();
            format!("{scheme} on inode {inode} of device {device}{}", range(lock))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_read() {
        let lock = parse("1: POSIX  ADVISORY  WRITE 1234 08:01:5678 10 19").unwrap();
        assert_eq!(
            (lock.sort, lock.is_shared, lock.pid, lock.start, lock.len),
            (Sort::Record, false, Some(1234), 10, 10)
        );
        let waiting = parse("1: -> FLOCK  ADVISORY  READ 77 fe:00:9 0 EOF").unwrap();
        assert!(waiting.is_waiting && waiting.is_shared && waiting.sort == Sort::File && waiting.len == 0);
        assert_eq!(parse("2: OFDLCK ADVISORY  WRITE -1 08:01:5678 0 EOF").unwrap().pid, None);
        assert_eq!(parse("3: LEASE  ACTIVE    READ 1 08:01:5678 0 EOF"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_lock_is_in_the_way_of_what_overlaps_and_excludes() {
        let lock = |line: &str| parse(line).unwrap();
        let held = lock("1: POSIX ADVISORY WRITE 1 08:01:5 10 19");
        assert!(is_in_the_way(&held, &lock("1: -> POSIX ADVISORY READ 2 08:01:5 19 EOF")));
        assert!(is_in_the_way(&held, &lock("1: -> OFDLCK ADVISORY READ -1 08:01:5 0 10")));
        assert!(!is_in_the_way(&held, &lock("1: -> POSIX ADVISORY READ 2 08:01:5 20 EOF")));
        assert!(!is_in_the_way(&held, &lock("1: -> POSIX ADVISORY READ 2 08:01:6 10 19")));
        assert!(!is_in_the_way(&held, &lock("1: -> FLOCK ADVISORY WRITE 2 08:01:5 0 EOF")));
    }
}
