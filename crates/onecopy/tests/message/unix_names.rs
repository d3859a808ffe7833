//! What the tests of the UNIX mechanisms share: names of both kinds, and a second process that knows one.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use onecopy::UnixName;

use crate::support::{Peer, Scratch, argument, unique};

/// How long a test may take before it counts as hanging.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long a second process sleeps that is going to be killed.
pub(crate) const FOREVER: Duration = LIMIT;

pub(crate) fn abstract_name() -> UnixName {
    UnixName::abstract_name(unique("message")).unwrap()
}

pub(crate) fn path_in(scratch: &Scratch, file: &str) -> UnixName {
    UnixName::path(scratch.path(file)).unwrap()
}

/// Runs `serve` for a socket file and for an abstract name, each with a second process that plays `test` and is started first.
pub(crate) fn both_kinds(test: &str, mut serve: impl FnMut(UnixName, Peer)) {
    let scratch = Scratch::new();
    for name in [path_in(&scratch, "socket"), abstract_name()] {
        let peer = start(test, &name);
        serve(name, peer);
    }
}

/// A second process that plays `test` and finds `name` by [`given_name`].
pub(crate) fn start(test: &str, name: &UnixName) -> Peer {
    Peer::start(test, "peer", &[("NAME", &name.to_string())])
}

/// In the second process: the name that the test gave.
pub(crate) fn given_name() -> UnixName {
    let name = argument("NAME");
    name.strip_prefix('@').map_or_else(|| UnixName::path(&name), UnixName::abstract_name).unwrap()
}

/// Kills `peer` when the calling thread has had time to fall asleep in a system call.
pub(crate) fn kill_soon(mut peer: Peer) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        peer.kill();
    })
}

/// Descriptors to pass: the read ends of pipes that hold their own number as a byte.
pub(crate) fn numbered_pipes(count: usize) -> Vec<OwnedFd> {
    (0..count)
        .map(|number| {
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            rustix::io::write(&writer, &[number as u8]).unwrap();
            reader
        })
        .collect()
}

/// The bytes that passed pipes hold.
pub(crate) fn numbers_in(pipes: &[OwnedFd]) -> Vec<u8> {
    let read = |pipe: &OwnedFd| {
        let mut byte = [0];
        assert_eq!(rustix::io::read(pipe.as_fd(), &mut byte).unwrap(), 1);
        byte[0]
    };
    pipes.iter().map(read).collect()
}

/// Leaves this process, which must be a second one, room for `more` further descriptors.
pub(crate) fn limit_descriptors(more: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use std::os::fd::AsRawFd;
    let lowest_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let limit = Rlimit { current: Some(lowest_free as u64 + more), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}
