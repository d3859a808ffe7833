//! What has no name: pipes, eventfds, memfds, and memory whose name was removed. Its address is a descriptor of a process that has it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use onecopy::address::FilePath;
use onecopy::{Address, Mechanism};
use rustix::fs::FileType;

use super::leftover::FileId;
use super::object::Object;
use super::processes::{Inode, Mapped, OpenFile, Processes, User, What};
use super::text::{bytes, count};

/// An object of `users`, which the first of them that has a descriptor gives the address; `None` when nobody has.
pub(super) fn object(mechanism: Mechanism, users: Vec<User>, processes: &Processes) -> Option<Object> {
    let (pid, address) = users.iter().find_map(|user| Some((user.pid, user.address()?)))?;
    let mut object = Object::new(mechanism, address).used_by(users, processes);
    object.uid = processes.get(pid).map(|process| process.uid);
    object.is_named = false;
    Some(object)
}

/// All of them.
pub(super) fn objects(processes: &Processes) -> Vec<Object> {
    let pipes = processes
        .pipes()
        .filter_map(|(_, users)| Some(object(Mechanism::Pipe, users.to_vec(), processes)?.says(ends(users))));
    pipes.chain(eventfds(processes)).chain(memory(processes)).chain(mappings(processes)).collect()
}

/// How many processes can read and how many can write. A link in /proc/PID/fd has the mode of its descriptor.
pub(super) fn ends(users: &[User]) -> String {
    let can = |user: &User, bit: u32| {
        let mode =
            |number: &u32| FileId::of(&PathBuf::from(format!("/proc/{}/fd/{number}", user.pid))).map(|id| id.mode);
        user.descriptors.iter().filter_map(mode).any(|mode| mode & bit != 0)
    };
    let having = |bit: u32| users.iter().filter(|user| can(user, bit)).count() as u64;
    format!("{}, {}", count(having(0o400), "reader"), count(having(0o200), "writer"))
}

/// The value of a field of `/proc/PID/fdinfo/N`.
fn info(pid: u32, number: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_owned())
}

/// An eventfd has no inode of its own: its number is told from Linux 5.2 on. Without it each descriptor counts as one.
fn eventfds(processes: &Processes) -> Vec<Object> {
    let mut found: BTreeMap<String, (String, Vec<User>)> = BTreeMap::new();
    for process in processes.iter() {
        for open in process.open.iter().flatten().filter(|open| matches!(open.what, What::Eventfd)) {
            let Some(value) = info(process.pid, open.number, "eventfd-count:") else { continue };
            let own = format!("{}:{}", process.pid, open.number);
            let id = info(process.pid, open.number, "eventfd-id:").unwrap_or(own);
            let (_, users) = found.entry(id).or_insert_with(|| (value, Vec::new()));
            if users.last().is_none_or(|user| user.pid != process.pid) {
                users.push(process.user(Some(open.number)));
            }
        }
    }
    let one = |(value, users): (String, Vec<User>)| {
        // The kernel writes it in hexadecimal.
        let value = u64::from_str_radix(&value, 16).unwrap_or(0);
        let object = object(Mechanism::Eventfd, users, processes)?;
        Some(object.figure("value", value).says(format!("value {value}")))
    };
    found.into_values().filter_map(one).collect()
}

/// memfds, and POSIX shared memory whose name is gone.
fn memory(processes: &Processes) -> Vec<Object> {
    let mut found: BTreeMap<Inode, &OpenFile> = BTreeMap::new();
    for (.., file) in processes.files() {
        if file.links == 0 && sort_of(&file.path).is_some() {
            found.insert(file.inode, file);
        }
    }
    let one = |file: &&OpenFile| {
        let (mechanism, name) = sort_of(&file.path)?;
        let object = object(mechanism, processes.users_of_file(file.inode), processes)?.owned_by(file.uid, file.mode);
        Some(object.figure("size_bytes", file.bytes).says(format!("{}, {name}", bytes(file.bytes))))
    };
    found.values().filter_map(one).collect()
}

fn sort_of(path: &[u8]) -> Option<(Mechanism, String)> {
    let path = path.strip_suffix(b" (deleted)")?;
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    match (path.strip_prefix(b"/memfd:"), path.strip_prefix(b"/dev/shm/")) {
        (Some(name), _) => Some((Mechanism::AnonymousMapping, text(name))),
        (_, Some(name)) => Some((Mechanism::PosixShm, format!("removed /{}", text(name)))),
        _ => None,
    }
}

/// Files that two processes at least have mapped shared, one of them so that it can write.
fn mappings(processes: &Processes) -> Vec<Object> {
    let mut found: BTreeMap<Inode, (&Mapped, bool, Vec<User>)> = BTreeMap::new();
    for process in processes.iter() {
        for mapped in process.mapped.iter().filter(|mapped| is_ordinary(&mapped.path)) {
            let (_, writable, users) = found.entry(mapped.inode).or_insert((mapped, false, Vec::new()));
            *writable |= mapped.writable;
            if users.last().is_none_or(|user| user.pid != process.pid) {
                users.push(process.user(None));
            }
        }
    }
    let several = found.into_values().filter(|(_, writable, users)| *writable && users.len() > 1);
    let one = |(mapped, _, users): (&Mapped, bool, Vec<User>)| {
        let path = Path::new(OsStr::from_bytes(&mapped.path));
        let id = FileId::of(path).filter(|id| id.kind == FileType::RegularFile)?;
        let object = Object::new(Mechanism::FileMapping, Address::FileMapping(FilePath::new(path).ok()?));
        let object = object.owned_by(id.uid, id.mode & 0o777).used_by(users, processes).figure("size_bytes", id.bytes);
        Some(Object { is_named: false, ..object.says(format!("{}, {} mapped", bytes(id.bytes), bytes(mapped.bytes))) })
    };
    several.filter_map(one).collect()
}

fn is_ordinary(path: &[u8]) -> bool {
    let special = [&b"/dev/"[..], b"/memfd:", b"/SYSV", b"/anon_hugepage"];
    path.starts_with(b"/") && !path.ends_with(b" (deleted)") && !special.iter().any(|prefix| path.starts_with(prefix))
}
