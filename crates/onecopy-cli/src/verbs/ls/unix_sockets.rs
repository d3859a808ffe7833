//! UNIX sockets: those with a name, the channels among them, and their files.

mod diag;
mod table;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use onecopy::address::ChannelName;
use onecopy::{Address, Mechanism, UnixName};
use rustix::fs::FileType;
use rustix::process::geteuid;

use super::leftover::{Bound, FileId, Leftover, Spot, Uppers, is_bound};
use super::object::{Kind, Object, State};
use super::places::Found;
use super::processes::{Processes, User};

/// The three types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Stream,
    Dgram,
    Seqpacket,
}

impl Sort {
    /// By `SOCK_STREAM`, `SOCK_DGRAM` and `SOCK_SEQPACKET`.
    fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Stream),
            2 => Some(Self::Dgram),
            5 => Some(Self::Seqpacket),
            _ => None,
        }
    }

    fn mechanism(self) -> Mechanism {
        match self {
            Self::Stream => Mechanism::UnixStream,
            Self::Dgram => Mechanism::UnixDgram,
            Self::Seqpacket => Mechanism::UnixSeqpacket,
        }
    }

    fn address(self, name: UnixName) -> Address {
        match self {
            Self::Stream => Address::UnixStream(name),
            Self::Dgram => Address::UnixDgram(name),
            Self::Seqpacket => Address::UnixSeqpacket(name),
        }
    }
}

/// A socket.
#[derive(Debug)]
struct UnixSocket {
    inode: u64,
    sort: Sort,
    is_listening: bool,
    is_connected: bool,
    name: Option<UnixName>,
    /// The device and the low half of the inode of the file that it is bound to.
    file: Option<((u32, u32), u32)>,
    peer: Option<u64>,
    /// Of a listener: how many connections wait to be accepted; else how many bytes wait to be read.
    queued: Option<u32>,
    uid: Option<u32>,
}

impl UnixSocket {
    fn new(inode: u64, sort: Sort, is_listening: bool) -> Self {
        Self {
            inode,
            sort,
            is_listening,
            is_connected: false,
            name: None,
            file: None,
            peer: None,
            queued: None,
            uid: None,
        }
    }

    /// Whether the file that it is bound to is this one, where that is known.
    fn is_bound_to(&self, id: &FileId) -> Option<bool> {
        let (device, inode) = self.file?;
        Some((id.inode.0, id.inode.1) == device && id.inode.2 & 0xffff_ffff == u64::from(inode))
    }

    /// Whether others find it by its name: what accept(2) returns has the name of the listener, and a client may have one that the
    /// kernel chose.
    fn is_reachable(&self) -> bool {
        let Some(name) = &self.name else { return false };
        let chosen_by_kernel = name
            .to_string()
            .strip_prefix('@')
            .is_some_and(|name| name.len() == 5 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        !chosen_by_kernel && (self.sort == Sort::Dgram || !self.is_connected)
    }
}

/// The name in `bytes`, which are a `sun_path`.
fn name_of(bytes: &[u8]) -> Option<UnixName> {
    match bytes.strip_prefix(b"\0") {
        Some(name) => UnixName::abstract_name(OsStr::from_bytes(name)).ok(),
        None => {
            let path = bytes.split(|byte| *byte == 0).next()?;
            UnixName::path(OsStr::from_bytes(path)).ok()
        }
    }
}

/// The sockets with a name, those without where `with_nameless`, and the socket files among `found` that no socket is bound to: those
/// are left behind, for nothing can ever be bound to them again.
pub(super) fn objects(found: &[Found], with_nameless: bool, processes: &Processes) -> Vec<Object> {
    let sockets = diag::sockets().unwrap_or_else(|_| table::sockets());
    let mut seen = HashSet::new();
    let mut objects = Vec::new();
    for socket in sockets.iter().filter(|socket| socket.is_reachable()) {
        objects.extend(named(socket, found, &mut seen, processes));
    }
    if with_nameless {
        let by_inode: HashMap<u64, &UnixSocket> = sockets.iter().map(|socket| (socket.inode, socket)).collect();
        let nameless = sockets.iter().filter(|socket| !socket.is_reachable());
        objects.extend(nameless.filter_map(|socket| connected(socket, &by_inode, processes)));
    }
    let files = found.iter().filter(|file| file.id.kind == FileType::Socket && !seen.contains(&file.path));
    let uppers = Uppers::default();
    objects.extend(files.filter_map(|found| file(found, &sockets, &uppers)));
    objects
}

fn named(socket: &UnixSocket, found: &[Found], seen: &mut HashSet<PathBuf>, processes: &Processes) -> Option<Object> {
    let name = socket.name.clone()?;
    let users = processes.users_of_socket(socket.inode);
    let place = match name.as_path() {
        Some(path) => place(path, socket, found, &users),
        None => Place::Abstract,
    };
    let mut object = match &place {
        Place::File(path, id) => {
            seen.insert(path.clone());
            let mechanism = socket.sort.mechanism();
            let object = match UnixName::path(path) {
                Ok(name) => Object::new(mechanism, socket.sort.address(name)),
                Err(_) => Object::without_address(mechanism, long_label(path)),
            };
            object.owned_by(id.uid, id.mode & 0o777)
        }
        Place::Abstract => abstract_object(socket, name),
        Place::Elsewhere => {
            let label = socket.sort.address(name).to_string();
            Object::without_address(socket.sort.mechanism(), label)
        }
    };
    object.uid = object.uid.or(socket.uid).or_else(|| Some(processes.get(users.first()?.pid)?.uid));
    object.words = words(socket);
    if matches!(place, Place::Elsewhere) {
        object.words += ", but its file is not there";
    }
    object.figures = figures(socket);
    object.users = users;
    // It exists, so somebody has it, whoever that is.
    object.state = State::Used;
    Some(object)
}

fn words(socket: &UnixSocket) -> String {
    let (state, what) = match (socket.is_listening, socket.sort) {
        (true, _) => ("listening", "to accept"),
        (false, Sort::Dgram) => ("bound", "bytes to read"),
        (false, _) => ("bound, not listening", "bytes to read"),
    };
    match socket.queued {
        Some(queued @ 1..) => format!("{state}, {queued} {what}"),
        _ => state.to_owned(),
    }
}

fn figures(socket: &UnixSocket) -> Vec<(&'static str, u64)> {
    let name = if socket.is_listening { "waiting_connections" } else { "queued_bytes" };
    socket.queued.map(|queued| (name, queued.into())).into_iter().collect()
}

fn abstract_object(socket: &UnixSocket, name: UnixName) -> Object {
    match ChannelName::behind(&name).filter(|_| socket.sort == Sort::Seqpacket) {
        Some((channel, user)) if user == geteuid().as_raw() => Object::new(Kind::Channel, Address::Channel(channel)),
        // `channel:NAME` is the caller's own.
        Some(_) => Object::new(Kind::Channel, socket.sort.address(name)),
        None => Object::new(socket.sort.mechanism(), socket.sort.address(name)),
    }
}

/// What stands for the address of a socket that was bound from within its directory, by a shorter path than its whole one.
fn long_label(path: &Path) -> String {
    format!("socket at {}", path.display())
}

/// Where the file of a socket is.
enum Place {
    File(PathBuf, FileId),
    Abstract,
    /// Unlinked, replaced, or in another mount namespace.
    Elsewhere,
}

/// A relative path begins where one of its users works, or did when it was bound: then only the inode tells which file it is.
fn place(path: &Path, socket: &UnixSocket, found: &[Found], users: &[User]) -> Place {
    let directories = users.iter().filter_map(|user| fs::read_link(format!("/proc/{}/cwd", user.pid)).ok());
    let candidates: Vec<PathBuf> = if path.is_absolute() {
        vec![path.to_owned()]
    } else {
        directories.map(|directory| directory.join(path)).collect()
    };
    let fits = |id: &FileId| id.kind == FileType::Socket && socket.is_bound_to(id) != Some(false);
    let here = candidates.into_iter().find_map(|path| FileId::of(&path).filter(fits).map(|id| (path, id)));
    let lying = || {
        let file =
            found.iter().find(|file| socket.file.is_some() && file.id.kind == FileType::Socket && fits(&file.id))?;
        Some((file.path.clone(), file.id))
    };
    here.or_else(lying).map_or(Place::Elsewhere, |(path, id)| Place::File(path, id))
}

/// A socket that has no name of its own, as a descriptor of whoever has it.
fn connected(socket: &UnixSocket, all: &HashMap<u64, &UnixSocket>, processes: &Processes) -> Option<Object> {
    let users = processes.users_of_socket(socket.inode);
    let peer = socket.peer.and_then(|peer| all.get(&peer));
    let whose = peer.and_then(|peer| processes.users_of_socket(peer.inode).first().and_then(User::address));
    let name = socket.name.as_ref().or_else(|| peer.and_then(|peer| peer.name.as_ref()));
    let mut words = match whose {
        Some(address) => format!("connected to {address}"),
        None if peer.is_some() => "connected".into(),
        None => "not connected".into(),
    };
    if let Some(name) = name {
        words += &format!(", at {name}");
    }
    let mut object = super::nameless::object(socket.sort.mechanism(), users, processes)?.says(words);
    object.figures = figures(socket);
    Some(object)
}

/// A socket file that none of the sockets here is bound to by its path.
fn file(found: &Found, sockets: &[UnixSocket], uppers: &Uppers) -> Option<Object> {
    let object = match UnixName::path(&found.path) {
        Ok(name) => Object::new(Mechanism::UnixStream, Address::UnixStream(name)),
        Err(_) => Object::without_address(Mechanism::UnixStream, long_label(&found.path)),
    };
    let object = object.owned_by(found.id.uid, found.id.mode & 0o777);
    let bound = is_bound(&Spot::of(&found.path)?, &found.id, uppers);
    // It may have gone or been replaced while the kernel was asked.
    FileId::of(&found.path).filter(|id| *id == found.id)?;
    Some(match bound {
        Bound::No => Object {
            state: State::Stale("a socket file that no socket is bound to".into()),
            leftover: Some(Leftover::SocketFile(found.path.clone(), found.id)),
            words: "socket file".into(),
            ..object
        },
        Bound::Yes => {
            let is_linked = sockets.iter().any(|socket| socket.is_bound_to(&found.id) == Some(true));
            let words = if is_linked { "bound by another name" } else { "bound in another network namespace" };
            Object { state: State::Used, words: words.into(), ..object }
        }
        Bound::Unknown => Object { state: State::Unknown, words: "socket file".into(), ..object },
    })
}
