//! FIFOs: those that a process has open, and those that lie where files are looked for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use onecopy::address::FilePath;
use onecopy::{Address, Mechanism};
use rustix::fs::FileType;

use super::leftover::FileId;
use super::nameless;
use super::object::Object;
use super::places::Found;
use super::processes::{Inode, OpenFile, Processes};

/// One that nobody has open may be waiting for both its sides: it is never left behind.
pub(super) fn objects(found: &[Found], processes: &Processes) -> Vec<Object> {
    let mut open: BTreeMap<Inode, &OpenFile> = BTreeMap::new();
    for (.., file) in processes.files().filter(|(.., file)| file.kind == FileType::Fifo) {
        open.insert(file.inode, file);
    }
    let lying = found.iter().filter(|file| file.id.kind == FileType::Fifo && !open.contains_key(&file.id.inode));
    let lying = lying.filter_map(|file| {
        let address = Address::Fifo(FilePath::new(&file.path).ok()?);
        let object = Object::new(Mechanism::Fifo, address).owned_by(file.id.uid, file.id.mode & 0o777);
        Some(Object { is_named: false, ..object.used_by(Vec::new(), processes) })
    });
    open.values().filter_map(|file| in_use(file, processes)).chain(lying).collect()
}

/// By its path, if that still leads to it.
fn in_use(file: &OpenFile, processes: &Processes) -> Option<Object> {
    let users = processes.users_of_file(file.inode);
    let path = Path::new(OsStr::from_bytes(&file.path));
    let words = nameless::ends(&users);
    if FileId::of(path).is_some_and(|id| id.inode == file.inode) {
        let object = Object::new(Mechanism::Fifo, Address::Fifo(FilePath::new(path).ok()?));
        return Some(object.owned_by(file.uid, file.mode & 0o777).used_by(users, processes).says(words));
    }
    let object = nameless::object(Mechanism::Fifo, users, processes)?.owned_by(file.uid, file.mode & 0o777);
    Some(object.says(format!("{words}, was {}", path.display())))
}
