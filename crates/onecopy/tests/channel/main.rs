//! The channel, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod aftermath;
mod berths;
mod death;
mod duo;
mod filter;
mod fork;
mod handshake;
mod heap;
mod hostile;
mod landing;
mod listening;
mod loan;
mod many;
mod notice;
mod page_fuzz;
mod pages;
mod pair;
mod polling;
mod prompt;
mod refusal;
mod registered;
mod rendezvous;
mod standstill;
mod transfer;
mod vectored;

use std::os::fd::OwnedFd;

use onecopy::channel::rendezvous::{Connection, Listener, connect_by};
use onecopy::channel::{ChannelName, Policy};
use onecopy::memory::Region;
use onecopy::{Deadline, UnixName};
use rustix::fs::{Gid, Uid};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, listen, recv, send,
    socket_with,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use support::{Scratch, eventually, unique};

/// The length of the shared memory in these tests.
const MEMORY: usize = 8192;

/// A user other than the one that runs the tests.
const OTHER: u32 = 4321;

/// A name that no other test uses.
fn own_name() -> ChannelName {
    ChannelName::name(unique("channel")).unwrap()
}

/// Both kinds of name.
fn both_names(scratch: &Scratch) -> [ChannelName; 2] {
    [own_name(), ChannelName::path(scratch.path("channel")).unwrap()]
}

fn listen_at(name: &ChannelName) -> Listener {
    listen_with(name, &Policy::default())
}

/// Listens at a name that may have been another listener's: a process that some other test starts has a copy of its socket until it
/// executes its program.
fn listen_with(name: &ChannelName, policy: &Policy) -> Listener {
    let mut listener = None;
    eventually("the name is free", || match Listener::bind(name, policy, MEMORY) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => false,
        result => {
            listener = Some(result.unwrap());
            true
        }
    });
    listener.unwrap()
}

fn connect_to(name: &ChannelName) -> Connection {
    connect_by(name, &Policy::default(), Deadline::Never).unwrap()
}

/// Both sides of a connection within this process.
fn meet(listener: &Listener, name: &ChannelName) -> (Connection, Connection) {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| connect_to(name));
        (listener.accept_by(Deadline::Never).unwrap(), client.join().unwrap())
    })
}

/// The socket behind a name of user `uid`.
fn place(name: &ChannelName, uid: u32) -> UnixName {
    UnixName::abstract_name(format!("onecopy-channel/{uid}/{name}")).unwrap()
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn address(place: &UnixName) -> SocketAddrUnix {
    SocketAddrUnix::new_abstract_name(place.to_string().strip_prefix('@').unwrap().as_bytes()).unwrap()
}

fn socket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// A listening socket that does nothing by itself.
fn raw_listener(place: &UnixName) -> OwnedFd {
    let socket = socket();
    rustix::net::bind(&socket, &address(place)).unwrap();
    listen(&socket, 100).unwrap();
    socket
}

/// A connected socket that does nothing by itself.
fn raw_client(name: &ChannelName) -> OwnedFd {
    let socket = socket();
    connect(&socket, &address(&place(name, own_uid()))).unwrap();
    socket
}

fn say(socket: &OwnedFd, bytes: &[u8]) {
    send(socket, bytes, SendFlags::NOSIGNAL).unwrap();
}

/// What the other side says next.
fn hear(socket: &OwnedFd) -> Vec<u8> {
    let mut bytes = [0; 1024];
    let (len, _) = recv(socket, &mut bytes, RecvFlags::empty()).unwrap();
    bytes[..len].to_vec()
}

/// The number that stands at the beginning of the memory.
fn mark(region: &Region) -> u64 {
    let mut bytes = [0; 8];
    region.read_at(0, &mut bytes).unwrap();
    u64::from_ne_bytes(bytes)
}

fn set_mark(region: &Region, value: u64) {
    region.write_at(0, &value.to_ne_bytes()).unwrap();
}

/// How many descriptors this process has open.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Whether this process can be other users. Otherwise says that `test` is skipped.
fn is_root(test: &str) -> bool {
    let root = own_uid() == 0;
    if !root {
        support::skip(test, "only root can be other users");
    }
    root
}

/// Runs `work` as another user, on a thread that is that user for good.
fn as_other<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    as_user(OTHER, work)
}

/// Runs `work` as the user and the group `id`, on a thread that is that user for good.
fn as_user<T: Send>(id: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}
