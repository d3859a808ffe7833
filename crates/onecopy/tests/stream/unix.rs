//! Row 4: the UNIX stream socket, and what semantics.md and unix(7) say of it.

use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onecopy::stream::unix::{MAX_DESCRIPTORS, UnixListener, UnixStream};
use onecopy::stream::{ByteReader, ByteWriter};
use onecopy::{Deadline, Error, UnixName};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::exchange::{
    begin_a_message, notice_the_kill, receive_sizes, runs_out_of_time, send_sizes, write_until_gone,
};
use crate::support::fork::child_leaves_the_file;
use crate::support::{Peer, Scratch, argument, eventually, role, starting_nobody, unique, watchdog};

const SECONDS: Duration = Duration::from_secs(60);

fn socket_in(scratch: &Scratch) -> UnixName {
    UnixName::path(scratch.path("socket")).unwrap()
}

fn abstract_name() -> UnixName {
    UnixName::abstract_name(unique("unix")).unwrap()
}

/// Connects to the name that the first process gave.
fn connect_back() -> UnixStream {
    let address = argument("NAME");
    let name = address.strip_prefix('@').map_or_else(|| UnixName::path(&address), UnixName::abstract_name);
    UnixStream::connect(&name.unwrap(), Deadline::Never).unwrap()
}

fn both_kinds(test: &str, role: &str, mut serve: impl FnMut(UnixListener, Peer)) {
    let scratch = Scratch::new();
    for name in [socket_in(&scratch), abstract_name()] {
        // The second process comes first and waits for the listener.
        let peer = Peer::start(test, role, &[("NAME", &name.to_string())]);
        serve(UnixListener::bind(&name).unwrap(), peer);
    }
}

#[test]
fn messages_of_all_sizes_both_ways_between_two_processes() {
    if role().is_some() {
        let stream = connect_back();
        send_sizes(&stream);
        stream.shutdown_write().unwrap();
        receive_sizes(&stream);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    both_kinds("unix::messages_of_all_sizes_both_ways_between_two_processes", "client", |listener, peer| {
        let stream = listener.accept_by(Deadline::Never).unwrap();
        receive_sizes(&stream);
        send_sizes(&stream);
        drop(stream);
        peer.succeed();
    });
}

#[test]
fn a_killed_writer_is_noticed_in_the_middle_of_a_message() {
    if role().is_some() {
        return begin_a_message(connect_back());
    }
    let _watchdog = watchdog(SECONDS);
    both_kinds("unix::a_killed_writer_is_noticed_in_the_middle_of_a_message", "client", |listener, mut peer| {
        notice_the_kill(listener.accept_by(Deadline::Never).unwrap(), || peer.kill());
    });
}

#[test]
fn a_killed_reader_is_an_error_and_never_a_signal() {
    if role().is_some() {
        let mut stream = connect_back();
        stream.read_by(&mut [0; 10], Deadline::Never).unwrap();
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    both_kinds("unix::a_killed_reader_is_an_error_and_never_a_signal", "client", |listener, mut peer| {
        let mut stream = listener.accept_by(Deadline::Never).unwrap();
        write_until_gone(&stream, || peer.kill());
        let error = stream.write_by(b"x", Deadline::Never).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE), "{error}");
    });
}

#[test]
fn a_socket_file_of_a_killed_process_is_replaced_and_one_of_a_living_process_is_not() {
    if role().is_some() {
        let _listener = UnixListener::bind(&UnixName::path(argument("NAME")).unwrap()).unwrap();
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let name = socket_in(&scratch);
    let test = "unix::a_socket_file_of_a_killed_process_is_replaced_and_one_of_a_living_process_is_not";
    let mut peer = Peer::start(test, "listener", &[("NAME", &name.to_string())]);
    eventually("the other listener", || UnixStream::connect(&name, Deadline::Now).is_ok());
    let error = UnixListener::bind(&name).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(98), "EADDRINUSE: {error}");
    peer.kill();
    assert!(scratch.path("socket").exists(), "SIGKILL leaves the file");
    let listener = UnixListener::bind(&name).unwrap();
    UnixStream::connect(&name, Deadline::Now).unwrap();
    drop(listener);
    assert!(!scratch.path("socket").exists(), "the file goes with the listener");
}

#[test]
fn one_of_many_that_replace_a_dead_socket_file_gets_it() {
    let _alone = starting_nobody();
    let scratch = Scratch::new();
    let name = socket_in(&scratch);
    for _ in 0..20 {
        let dead = std::os::unix::net::UnixListener::bind(scratch.path("socket")).unwrap();
        drop(dead);
        let listeners: Vec<_> = std::thread::scope(|scope| {
            let binders: Vec<_> = (0..8).map(|_| scope.spawn(|| UnixListener::bind(&name))).collect();
            binders.into_iter().map(|binder| binder.join().unwrap()).collect()
        });
        assert_eq!(listeners.iter().filter(|result| result.is_ok()).count(), 1, "{listeners:?}");
        UnixStream::connect(&name, Deadline::Now).unwrap();
    }
}

#[test]
fn a_refused_bind_disturbs_neither_listener_nor_file() {
    let scratch = Scratch::new();
    let name = socket_in(&scratch);
    let listener = UnixListener::bind(&name).unwrap();
    UnixListener::bind(&name).unwrap_err();
    let error = listener.accept_by(Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::WouldBlock { .. }), "{error}");

    std::fs::write(scratch.path("file"), "precious").unwrap();
    let error = UnixListener::bind(&UnixName::path(scratch.path("file")).unwrap()).unwrap_err();
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(scratch.path("file")).unwrap(), "precious");
    let error = UnixStream::connect(&UnixName::path(scratch.path("file")).unwrap(), Deadline::Never).unwrap_err();
    assert!(error.to_string().contains("no socket"), "{error}");
}

#[test]
fn dropping_a_listener_removes_no_file_but_its_own() {
    let scratch = Scratch::new();
    let name = socket_in(&scratch);
    let first = UnixListener::bind(&name).unwrap();
    std::fs::remove_file(scratch.path("socket")).unwrap();
    let _second = UnixListener::bind(&name).unwrap();
    drop(first);
    UnixStream::connect(&name, Deadline::Now).unwrap();
}

#[test]
fn an_abstract_name_is_free_at_once_when_its_listener_is_gone() {
    let _alone = starting_nobody();
    let name = abstract_name();
    let listener = UnixListener::bind(&name).unwrap();
    assert_eq!(UnixListener::bind(&name).unwrap_err().raw_os_error(), Some(98), "EADDRINUSE");
    drop(listener);
    UnixListener::bind(&name).unwrap();
}

#[test]
fn connecting_waits_for_a_listener_and_for_room_in_its_queue() {
    let _alone = starting_nobody();
    let scratch = Scratch::new();
    let name = socket_in(&scratch);
    let error = UnixStream::connect(&name, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(2), "ENOENT: {error}");
    runs_out_of_time(|deadline| UnixStream::connect(&name, deadline));
    runs_out_of_time(|deadline| UnixStream::connect(&abstract_name(), deadline));
    drop(std::os::unix::net::UnixListener::bind(scratch.path("socket")).unwrap());
    let error = UnixStream::connect(&name, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(111), "ECONNREFUSED: {error}");

    let full = abstract_name();
    let listener = listener_with_backlog(&full, 0);
    let _first = UnixStream::connect(&full, Deadline::Now).unwrap();
    let error = UnixStream::connect(&full, Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::WouldBlock { .. }), "{error}");
    runs_out_of_time(|deadline| UnixStream::connect(&full, deadline));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| UnixStream::connect(&full, Deadline::after(SECONDS)));
        listener.accept_by(Deadline::Never).unwrap();
        waiting.join().unwrap().unwrap();
    });
}

fn listener_with_backlog(name: &UnixName, backlog: i32) -> UnixListener {
    let text = name.to_string();
    let address = rustix::net::SocketAddrUnix::new_abstract_name(&text.as_bytes()[1..]).unwrap();
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, backlog).unwrap();
    UnixListener::from_fd(socket, format!("unix:{name}")).unwrap()
}

#[test]
fn a_socket_of_another_type_is_refused_with_its_reason() {
    let scratch = Scratch::new();
    let _datagrams = std::os::unix::net::UnixDatagram::bind(scratch.path("socket")).unwrap();
    let name = socket_in(&scratch);
    let error = UnixStream::connect(&name, Deadline::Never).unwrap_err();
    assert!(error.to_string().contains("another type"), "{error}");
    let error = UnixListener::bind(&name).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(98), "EADDRINUSE: {error}");
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    let scratch = Scratch::new();
    let listener = UnixListener::bind(&socket_in(&scratch)).unwrap();
    runs_out_of_time(|deadline| listener.accept_by(deadline));
    let (mut one, mut other) = UnixStream::pair().unwrap();
    runs_out_of_time(|deadline| one.read_by(&mut [0; 1], deadline));
    while one.write_by(&[1; 65_536], Deadline::Now).is_ok() {}
    runs_out_of_time(|deadline| one.write_by(&[1], deadline));
    assert!(other.read_by(&mut [0; 65_536], Deadline::Now).unwrap() > 0);
}

#[test]
fn the_end_of_one_direction_leaves_the_other() {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    one.write_all_by(b"last", Deadline::Never).unwrap();
    one.shutdown_write().unwrap();
    let mut buffer = [0; 16];
    assert_eq!(other.read_by(&mut buffer, Deadline::Now).unwrap(), 4);
    assert_eq!(other.read_by(&mut buffer, Deadline::Now).unwrap(), 0, "end of file");
    assert_eq!(one.write_by(b"x", Deadline::Now).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    other.write_all_by(b"answer", Deadline::Never).unwrap();
    assert_eq!(one.read_by(&mut buffer, Deadline::Now).unwrap(), 6);
}

#[test]
fn two_threads_use_both_directions_of_one_socket_at_once() {
    let _watchdog = watchdog(SECONDS);
    let (one, other) = UnixStream::pair().unwrap();
    let clone = one.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send_sizes(&one);
            one.shutdown_write().unwrap();
        });
        scope.spawn(|| {
            send_sizes(&other);
            other.shutdown_write().unwrap();
        });
        scope.spawn(|| receive_sizes(&other));
        scope.spawn(|| receive_sizes(clone));
    });
}

#[test]
fn the_kernel_names_the_peer() {
    if role().is_some() {
        connect_back().read_by(&mut [0; 1], Deadline::Never).unwrap();
        return;
    }
    let _watchdog = watchdog(SECONDS);
    both_kinds("unix::the_kernel_names_the_peer", "client", |listener, peer| {
        let stream = listener.accept_by(Deadline::Never).unwrap();
        let credentials = stream.peer_credentials().unwrap();
        assert_eq!(credentials.pid as u32, peer.pid());
        assert_eq!(credentials.uid, rustix::process::geteuid().as_raw());
        assert_eq!(credentials.gid, rustix::process::getegid().as_raw());
        drop(stream);
        peer.succeed();
    });
}

/// A pipe of the standard library: its reader sees the end of file when every copy of the writer is closed.
fn pipe() -> (std::io::PipeReader, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, writer.into())
}

#[test]
fn descriptors_reach_another_process_closed_on_exec() {
    if role().is_some() {
        let stream = UnixStream::from_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap(), "fd:0");
        let mut buffer = [0; 16];
        let (bytes, fds) = stream.recv_with_fds(&mut buffer).unwrap();
        assert_eq!((&buffer[..bytes], fds.len()), (&b"two"[..], 2));
        for (fd, text) in fds.into_iter().zip(["first", "second"]) {
            assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            std::io::Write::write_all(&mut std::fs::File::from(fd), text.as_bytes()).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (stream, theirs) = UnixStream::pair().unwrap();
    let test = "unix::descriptors_reach_another_process_closed_on_exec";
    let peer = Peer::configure(test, "receiver", &[], |command| {
        command.stdin(Stdio::from(theirs.as_fd().try_clone_to_owned().unwrap()));
    });
    drop(theirs);
    let ((mut first, first_end), (mut second, second_end)) = (pipe(), pipe());
    assert_eq!(stream.send_with_fds(b"two", &[first_end.as_fd(), second_end.as_fd()]).unwrap(), 3);
    drop((first_end, second_end));
    let mut text = String::new();
    first.read_to_string(&mut text).unwrap();
    second.read_to_string(&mut text).unwrap();
    assert_eq!(text, "firstsecond");
    peer.succeed();
}

#[test]
fn at_most_253_descriptors_travel_with_at_least_one_byte() {
    let (one, other) = UnixStream::pair().unwrap();
    let (_reader, writer) = pipe();
    let fds = vec![writer.as_fd(); MAX_DESCRIPTORS + 1];
    let error = one.send_with_fds(b"x", &fds).unwrap_err().to_string();
    assert!(error.contains("254") && error.contains("253"), "{error}");
    assert!(matches!(one.send_with_fds(b"", &fds[..1]), Err(Error::Invalid { .. })));
    assert_eq!(one.send_with_fds_by(b"x", &fds[..MAX_DESCRIPTORS], Deadline::Now).unwrap(), 1);
    let (bytes, received) = other.recv_with_fds(&mut [0; 8]).unwrap();
    assert_eq!((bytes, received.len()), (1, MAX_DESCRIPTORS));
    let numbers: std::collections::HashSet<_> = received.iter().map(AsRawFd::as_raw_fd).collect();
    assert_eq!(numbers.len(), MAX_DESCRIPTORS);
}

#[test]
fn descriptors_arrive_beside_the_credentials_that_an_earlier_owner_of_the_socket_asked_for() {
    let (one, other) = UnixStream::pair().unwrap();
    rustix::net::sockopt::set_socket_passcred(&other, true).unwrap();
    let (_reader, writer) = pipe();
    for count in [0, 1, MAX_DESCRIPTORS] {
        one.send_with_fds(b"x", &vec![writer.as_fd(); count]).unwrap();
        let (bytes, received) = other.recv_with_fds(&mut [0; 8]).unwrap();
        assert_eq!((bytes, received.len()), (1, count));
    }
}

#[test]
fn bytes_of_two_messages_with_descriptors_are_not_joined() {
    let (one, other) = UnixStream::pair().unwrap();
    let (_reader, writer) = pipe();
    one.send_with_fds(b"first", &[writer.as_fd()]).unwrap();
    one.send_with_fds(b"second", &[writer.as_fd(), writer.as_fd()]).unwrap();
    let mut buffer = [0; 64];
    let (bytes, fds) = other.recv_with_fds(&mut buffer).unwrap();
    assert_eq!((&buffer[..bytes], fds.len()), (&b"first"[..], 1));
    let (bytes, fds) = other.recv_with_fds(&mut buffer).unwrap();
    assert_eq!((&buffer[..bytes], fds.len()), (&b"second"[..], 2));
}

#[test]
fn a_read_that_asks_for_no_descriptors_leaks_none() {
    let _watchdog = watchdog(SECONDS);
    let (mut one, mut other) = UnixStream::pair().unwrap();
    let (mut reader, writer) = pipe();
    one.send_with_fds(b"hello", &[writer.as_fd()]).unwrap();
    drop(writer);
    let mut buffer = [0; 16];
    assert_eq!(other.read_by(&mut buffer, Deadline::Never).unwrap(), 5);
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "no copy of the writer is left");
    one.write_all_by(b"more", Deadline::Never).unwrap();
    assert_eq!(other.read_by(&mut buffer, Deadline::Never).unwrap(), 4);
}

#[test]
fn descriptors_without_room_are_an_error_and_leak_none() {
    if role().is_some() {
        let mut stream = UnixStream::from_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap(), "fd:0");
        // The lowest number that is free, and a few more: there may be open descriptors far above.
        let free = std::io::stdin().as_fd().try_clone_to_owned().unwrap().as_raw_fd() as u64;
        let limit = rustix::process::Rlimit { current: Some(free + 8), maximum: Some(free + 8) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        let error = stream.recv_with_fds(&mut [0; 16]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(24), "EMFILE: {error}");
        stream.write_all_by(b"refused", Deadline::Never).unwrap();
        // Until the other side has seen the end of its pipe: our exit would close what had leaked.
        stream.read_by(&mut [0; 1], Deadline::Never).unwrap();
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut stream, theirs) = UnixStream::pair().unwrap();
    let test = "unix::descriptors_without_room_are_an_error_and_leak_none";
    let peer = Peer::configure(test, "receiver", &[], |command| {
        command.stdin(Stdio::from(theirs.as_fd().try_clone_to_owned().unwrap()));
    });
    drop(theirs);
    let (mut reader, writer) = pipe();
    let many: Vec<BorrowedFd<'_>> = vec![writer.as_fd(); 100];
    assert_eq!(stream.send_with_fds(b"many", &many).unwrap(), 4);
    drop(writer);
    if stream.read_by(&mut [0; 16], Deadline::Never).unwrap() == 0 {
        peer.succeed();
        panic!("the second process refused nothing");
    }
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "no copy of the writer is left");
    drop(stream);
    peer.succeed();
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_socket() {
    if role().is_some() {
        let scratch = Scratch::new();
        let bind = |path: &Path| UnixListener::bind(&UnixName::path(path).unwrap()).unwrap();
        return child_leaves_the_file(&scratch.path("socket"), bind);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    Peer::start("unix::a_child_that_drops_its_copy_leaves_the_socket", "parent", &[]).succeed();
}

/// A socket file that outlived its socket could be another one's by the time when it is removed.
#[test]
fn the_file_of_a_listener_goes_before_its_socket() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let name = UnixName::path(&path).unwrap();
    for round in 0..300 {
        let listener = UnixListener::bind(&name).unwrap();
        let mut client = UnixStream::connect(&name, Deadline::Now).unwrap();
        let looks = AtomicBool::new(false);
        let outlives = std::thread::scope(|scope| {
            let sees = scope.spawn(|| {
                looks.store(true, Ordering::Relaxed);
                while client.read_by(&mut [0], Deadline::Now).is_err_and(|error| error.is_out_of_time()) {}
                path.exists()
            });
            while !looks.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            drop(listener);
            sees.join().unwrap()
        });
        assert!(!outlives, "round {round}");
    }
}
