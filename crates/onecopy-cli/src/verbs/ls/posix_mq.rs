//! POSIX message queues: the files of the mqueue file system, [mq_overview(7)](https://man7.org/linux/man-pages/man7/mq_overview.7.html).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use onecopy::message::posix_mq::{Access, PosixQueue};
use onecopy::{Address, Mechanism, PosixName};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags, fstat, openat, statfs, statx};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::mounts::mounts;
use super::object::Object;
use super::processes::{Inode, OpenFile, Processes};
use super::text::{bytes, count};

/// `MQUEUE_MAGIC`.
const MAGIC: i64 = 0x1980_0202;

/// All queues, and what there is to say when they cannot all be found.
pub(super) fn objects(processes: &Processes) -> (Vec<Object>, Option<String>) {
    match directory() {
        Some(directory) => (listed(&directory, processes), None),
        None => (
            open_ones(processes),
            Some(
                "the mqueue file system is not mounted, so only POSIX queues that a process has open are found \
                 (mkdir -p /dev/mqueue && mount -t mqueue none /dev/mqueue)"
                    .to_owned(),
            ),
        ),
    }
}

/// The directory of all queues of this namespace: where it is mounted, or a mount of its own that nobody else sees, as root may
/// have it.
fn directory() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mounted = mounts().into_iter().rev().filter(|mount| mount.kind == "mqueue");
    let is_there = |directory: &OwnedFd| statfs_is_mqueue(directory);
    let found = mounted.filter_map(|mount| openat(CWD, &mount.point, flags, Mode::empty()).ok()).find(is_there);
    found.or_else(|| detached().ok())
}

fn statfs_is_mqueue(directory: &OwnedFd) -> bool {
    rustix::fs::fstatfs(directory).is_ok_and(|found| found.f_type == MAGIC)
}

fn detached() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn listed(directory: &OwnedFd, processes: &Processes) -> Vec<Object> {
    let Ok(entries) = Dir::read_from(directory) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_bytes().to_vec());
    names.filter(|name| name != b"." && name != b"..").filter_map(|name| one(directory, &name, processes)).collect()
}

fn one(directory: &OwnedFd, name: &[u8], processes: &Processes) -> Option<Object> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let found = statx(directory, name, flags, StatxFlags::BASIC_STATS).ok()?;
    let text = openat(directory, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .ok()
        .and_then(|file| std::io::read_to_string(fs::File::from(file)).ok())
        .unwrap_or_default();
    let name = PosixName::new(OsString::from_vec([b"/", name].concat())).ok()?;
    object(name, &found, &text, processes)
}

/// `None` for the queue of another namespace, whose file system is mounted here.
fn object(name: PosixName, found: &Statx, text: &str, processes: &Processes) -> Option<Object> {
    let inode = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
    let attributes = attributes(&name, inode)?;
    let mut object = Object::new(Mechanism::PosixMq, Address::PosixMq(name))
        .owned_by(found.stx_uid, u32::from(found.stx_mode) & 0o777)
        .used_by(processes.users_of_file(inode), processes);
    if let Some(size) = field(text, "QSIZE:") {
        object.figures.push(("size_bytes", size));
    }
    if let Some((messages, limit, longest)) = attributes {
        object.figures.extend([("messages", messages), ("max_messages", limit), ("message_size_bytes", longest)]);
        object.words = format!("{messages} of {} of up to {}", count(limit, "message"), bytes(longest));
    }
    // Who asked for a notification waits for a message.
    let waiting = field(text, "NOTIFY_PID:").and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    object.waiting = waiting.map(|pid| processes.user(pid)).into_iter().collect();
    Some(object)
}

/// A number of what reading a queue's file gives: `QSIZE:129 NOTIFY:2 SIGNO:0 NOTIFY_PID:8260`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.split_ascii_whitespace().find_map(|word| word.strip_prefix(name))?.parse().ok()
}

/// How many messages wait, how many fit, and how long one may be.
type Attributes = (u64, u64, u64);

/// `Some(None)` when this process may not open the queue, and `None` when the name means another one here, or none.
fn attributes(name: &PosixName, inode: Inode) -> Option<Option<Attributes>> {
    let receiving = PosixQueue::open_for(name, Access::Receive);
    let queue = match receiving.or_else(|_| PosixQueue::open_for(name, Access::Send)) {
        Ok(queue) => queue,
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => return None,
        Err(_) => return Some(None),
    };
    if fstat(&queue).ok()?.st_ino != inode.2 {
        return None;
    }
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let attributes = queue.attributes();
    let queued = queue.queued_messages().ok()?;
    Some(Some((number(queued), number(attributes.max_messages), number(attributes.message_bytes))))
}

/// Whether a descriptor that mq_open(3) gave, whose path is the name of a queue, is what it seems.
pub(super) fn is_queue(pid: u32, number: u32, file: &OpenFile) -> bool {
    file.kind == FileType::RegularFile
        && file.path.iter().filter(|byte| **byte == b'/').count() == 1
        && statfs(format!("/proc/{pid}/fd/{number}")).is_ok_and(|found| found.f_type == MAGIC)
}

/// The queues that somebody has open, for when there is no directory of them.
fn open_ones(processes: &Processes) -> Vec<Object> {
    let mut found: Vec<(Inode, Object)> = Vec::new();
    for (process, number, file) in processes.files() {
        let is_new = file.links > 0 && !found.iter().any(|(inode, _)| *inode == file.inode);
        if !is_new || !is_queue(process.pid, number, file) {
            continue;
        }
        let name = PosixName::new(OsStr::from_bytes(&file.path)).ok();
        let path = format!("/proc/{}/fd/{number}", process.pid);
        let status = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS);
        if let (Some(name), Ok(status)) = (name, status) {
            found.extend(object(name, &status, "", processes).map(|object| (file.inode, object)));
        }
    }
    found.into_iter().map(|(_, object)| object).collect()
}
