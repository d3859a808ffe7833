//! Row 6: the UNIX sequenced-packet socket, and what semantics.md and unix(7) say of it.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use onecopy::message::unix_seqpacket::{MAX_DESCRIPTORS, UnixSeqpacket, UnixSeqpacketListener};
use onecopy::{Deadline, Error, Receiver, Sender, UnixName};

use crate::support::fork::child_leaves_the_file;
use crate::support::{Peer, Scratch, pattern, role, wait_until_asleep, watchdog};
use crate::unix_names::{
    FOREVER, LIMIT, abstract_name, both_kinds, given_name, kill_soon, limit_descriptors, numbered_pipes, numbers_in,
    path_in, start,
};

const SIZES: [usize; 8] = [0, 1, 4096, 4097, 0, 65_536, 65_537, 150_000];

fn connect_back() -> UnixSeqpacket {
    UnixSeqpacket::connect(&given_name(), Deadline::Never).unwrap()
}

/// The test's side of a connection with a second process that plays `test`, once for each kind of name.
fn with_peer(test: &str, mut serve: impl FnMut(UnixSeqpacket, Peer)) {
    both_kinds(&format!("unix_seqpacket::{test}"), |name, peer| {
        let listener = UnixSeqpacketListener::bind(&name).unwrap();
        serve(listener.accept_by(Deadline::Never).unwrap(), peer);
    });
}

/// As [`with_peer`], for one kind of name only.
fn with_one_peer(test: &str) -> (UnixSeqpacket, Peer) {
    let name = abstract_name();
    let peer = start(&format!("unix_seqpacket::{test}"), &name);
    (UnixSeqpacketListener::bind(&name).unwrap().accept_by(Deadline::Never).unwrap(), peer)
}

fn send_sizes(socket: &mut UnixSeqpacket) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        socket.send(&pattern(size, seed as u64)).unwrap();
    }
}

fn receive_sizes(socket: &mut UnixSeqpacket) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        assert_eq!(socket.recv().unwrap().unwrap(), pattern(size, seed as u64), "message of {size} bytes");
    }
}

#[test]
fn messages_of_all_sizes_both_ways_between_two_processes() {
    if role().is_some() {
        let mut socket = connect_back();
        send_sizes(&mut socket);
        socket.shutdown_write().unwrap();
        receive_sizes(&mut socket);
        assert_eq!(socket.recv().unwrap(), None);
        return;
    }
    let _watchdog = watchdog(LIMIT);
    with_peer("messages_of_all_sizes_both_ways_between_two_processes", |mut socket, peer| {
        receive_sizes(&mut socket);
        assert_eq!(socket.recv().unwrap(), None);
        send_sizes(&mut socket);
        drop(socket);
        peer.succeed();
    });
}

#[test]
fn a_message_of_length_zero_is_not_the_end() {
    if role().is_some() {
        let mut socket = connect_back();
        for _ in 0..100 {
            socket.send(b"").unwrap();
        }
        return;
    }
    let _watchdog = watchdog(LIMIT);
    for size in [0, 16] {
        with_peer("a_message_of_length_zero_is_not_the_end", |mut socket, peer| {
            // The connection has ended before the first of them is received, which is the hard case.
            peer.succeed();
            let mut buffer = vec![0; size];
            for _ in 0..99 {
                assert_eq!(socket.recv_into(&mut buffer).unwrap(), Some(0));
            }
            let (len, fds) = socket.recv_with_fds_by(&mut buffer, Deadline::Never).unwrap().unwrap();
            assert_eq!((len, fds.len()), (0, 0));
            assert!(socket.recv_with_fds_by(&mut buffer, Deadline::Never).unwrap().is_none());
            assert_eq!(socket.try_recv_into(&mut buffer).unwrap(), None);
            assert_eq!(socket.recv().unwrap(), None, "the end stays");
        });
    }
}

#[test]
fn an_inherited_socket_keeps_empty_messages_and_the_end_apart() {
    if role().is_some() {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        let mut socket = UnixSeqpacket::from_fd(stdin, "fd:0").unwrap();
        assert_eq!(socket.recv().unwrap().unwrap(), b"");
        assert_eq!(socket.recv().unwrap(), None);
        return;
    }
    let _watchdog = watchdog(LIMIT);
    // Made, and its message sent, by a program that sets no option.
    let (one, other) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::send(&one, b"", rustix::net::SendFlags::empty()).unwrap();
    drop(one);
    let test = "unix_seqpacket::an_inherited_socket_keeps_empty_messages_and_the_end_apart";
    Peer::configure(test, "peer", &[], |command| {
        command.stdin(other);
    })
    .succeed();
}

#[test]
fn a_message_longer_than_the_buffer_stays_first_in_line() {
    let (mut one, mut other) = UnixSeqpacket::pair().unwrap();
    let long = pattern(150_000, 1);
    one.send(&long).unwrap();
    one.send(b"next").unwrap();
    drop(one);
    for size in [0, 1, 4096, 149_999] {
        match other.recv_into_by(&mut vec![0; size], Deadline::Never) {
            Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                assert_eq!((message_bytes, buffer_bytes), (150_000, size));
            }
            result => panic!("buffer of {size} bytes: {result:?}"),
        }
    }
    assert!(other.recv().unwrap().unwrap() == long);
    assert!(matches!(other.recv_into(&mut [0; 3]), Err(Error::BufferTooSmall { .. })));
    let mut buffer = [0; 4];
    let (len, fds) = other.recv_with_fds_by(&mut buffer, Deadline::Now).unwrap().unwrap();
    assert_eq!((&buffer[..len], fds.len()), (&b"next"[..], 0), "the other call finds it too");
    assert_eq!(other.recv().unwrap(), None);
}

#[test]
fn the_limit_follows_the_send_buffer_to_the_byte() {
    let _watchdog = watchdog(LIMIT);
    let (mut sender, mut receiver) = UnixSeqpacket::pair().unwrap();
    for asked in [None, Some(1), Some(10_000), Some(65_536)] {
        let buffer = asked.map(|bytes| sender.set_send_buffer_bytes(bytes).unwrap());
        let limit = sender.limit_bytes().unwrap();
        assert!(buffer.is_none_or(|bytes| limit == bytes - 32), "{buffer:?} {limit}");
        sender.send(&pattern(limit, 1)).unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), pattern(limit, 1));
        match sender.send(&vec![0; limit + 1]) {
            Err(error @ Error::TooLong { message_bytes, limit_bytes, .. }) => {
                assert_eq!((message_bytes, limit_bytes), (limit + 1, limit));
                assert!(error.to_string().contains("wmem_max"), "names the remedy: {error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn messages_keep_their_order_under_pressure() {
    const MESSAGES: u32 = 20_000;
    if role().is_some() {
        let mut socket = connect_back();
        for number in 0..MESSAGES {
            socket.send_by(&number.to_le_bytes(), Deadline::after(FOREVER)).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(LIMIT);
    let (mut socket, peer) = with_one_peer("messages_keep_their_order_under_pressure");
    let mut buffer = [0; 4];
    for number in 0..MESSAGES {
        assert_eq!(socket.recv_into_by(&mut buffer, Deadline::after(LIMIT)).unwrap(), Some(4));
        assert_eq!(u32::from_le_bytes(buffer), number);
    }
    assert_eq!(socket.recv().unwrap(), None);
    peer.succeed();
}

#[test]
fn a_sender_that_is_killed_ends_the_wait_of_its_receiver() {
    if role().is_some() {
        connect_back().send(b"last words").unwrap();
        let _open = connect_back();
        return std::thread::sleep(FOREVER);
    }
    let _watchdog = watchdog(LIMIT);
    for deadline in [Deadline::Never, Deadline::after(FOREVER)] {
        let name = abstract_name();
        let listener = UnixSeqpacketListener::bind(&name).unwrap();
        let peer = start("unix_seqpacket::a_sender_that_is_killed_ends_the_wait_of_its_receiver", &name);
        let mut closed = listener.accept_by(Deadline::Never).unwrap();
        assert_eq!(closed.recv().unwrap().unwrap(), b"last words");
        assert_eq!(closed.recv().unwrap(), None);
        let mut socket = listener.accept_by(Deadline::Never).unwrap();
        let killer = kill_soon(peer);
        assert_eq!(socket.recv_by(deadline).unwrap(), None);
        killer.join().unwrap();
    }
}

#[test]
fn a_sender_that_is_killed_while_it_waits_for_room_leaves_whole_messages_and_the_end() {
    if role().is_some() {
        let mut socket = connect_back();
        for seed in 0.. {
            socket.send(&pattern(50_000, seed)).unwrap();
        }
    }
    let _watchdog = watchdog(LIMIT);
    let test = "a_sender_that_is_killed_while_it_waits_for_room_leaves_whole_messages_and_the_end";
    let (mut socket, mut peer) = with_one_peer(test);
    assert_eq!(socket.recv().unwrap().unwrap(), pattern(50_000, 0));
    // By then it waits for room.
    wait_until_asleep(peer.pid());
    peer.kill();
    let mut received = 1;
    while let Some(message) = socket.recv().unwrap() {
        assert_eq!(message, pattern(50_000, received));
        received += 1;
    }
    assert!(received > 1);
}

#[test]
fn a_receiver_that_is_killed_wakes_a_sender_that_waits_for_room() {
    if role().is_some() {
        let _socket = connect_back();
        return std::thread::sleep(FOREVER);
    }
    let _watchdog = watchdog(LIMIT);
    for deadline in [Deadline::Never, Deadline::after(FOREVER)] {
        let (mut socket, peer) = with_one_peer("a_receiver_that_is_killed_wakes_a_sender_that_waits_for_room");
        while socket.try_send(&[7; 10_000]).is_ok() {}
        let killer = kill_soon(peer);
        let error = socket.send_by(&[7; 10_000], deadline).unwrap_err();
        assert!(error.is_peer_gone(), "{deadline:?}: {error}");
        killer.join().unwrap();
        let error = socket.send(b"x").unwrap_err();
        assert!(error.is_peer_gone(), "and never a SIGPIPE: {error}");
    }
}

#[test]
fn a_receiver_that_is_killed_while_it_waits_is_noticed() {
    if role().is_some() {
        let mut socket = connect_back();
        socket.send(b"ready").unwrap();
        let _ = socket.recv();
        return;
    }
    let _watchdog = watchdog(LIMIT);
    with_peer("a_receiver_that_is_killed_while_it_waits_is_noticed", |mut socket, mut peer| {
        assert_eq!(socket.recv().unwrap().unwrap(), b"ready");
        peer.kill();
        assert!(socket.send(b"x").unwrap_err().is_peer_gone());
        assert_eq!(socket.recv().unwrap(), None);
    });
}

#[test]
fn what_arrived_comes_before_the_error_that_ours_was_not_received() {
    let (mut one, mut other) = UnixSeqpacket::pair().unwrap();
    other.send(b"never received").unwrap();
    one.send(b"first").unwrap();
    one.send(b"").unwrap();
    drop(one);
    let mut buffer = [0; 16];
    assert!(matches!(other.recv_into(&mut []), Err(Error::BufferTooSmall { message_bytes: 5, .. })));
    assert_eq!(other.recv_into(&mut buffer).unwrap(), Some(5));
    assert_eq!(other.recv_into(&mut buffer).unwrap(), Some(0));
    let error = other.recv_into(&mut buffer).unwrap_err();
    assert!(error.is_peer_gone() && error.raw_os_error() == Some(104), "ECONNRESET: {error}");
    assert_eq!(other.recv_into(&mut buffer).unwrap(), None);
}

#[test]
fn credentials_are_those_of_the_other_side() {
    if role().is_some() {
        let socket = connect_back();
        assert_eq!(socket.peer_credentials().unwrap().pid, std::os::unix::process::parent_id() as i32);
        return;
    }
    let _watchdog = watchdog(LIMIT);
    with_peer("credentials_are_those_of_the_other_side", |socket, peer| {
        let other = socket.peer_credentials().unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        assert_eq!((other.pid, other.uid, other.gid), (peer.pid() as i32, uid, gid));
        peer.succeed();
    });
}

#[test]
fn as_many_descriptors_as_linux_allows_travel_with_a_message() {
    if role().is_some() {
        let mut socket = connect_back();
        let pipes = numbered_pipes(MAX_DESCRIPTORS);
        let fds: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
        socket.send_with_fds_by(b"pipes", &fds, Deadline::Never).unwrap();
        socket.send_with_fds_by(b"", &fds[..1], Deadline::Never).unwrap();
        let too_many = vec![fds[0]; MAX_DESCRIPTORS + 1];
        let error = socket.send_with_fds_by(b"x", &too_many, Deadline::Never).unwrap_err();
        assert!(error.to_string().contains("254 descriptors") && error.to_string().contains("253"), "{error}");
        return;
    }
    let _watchdog = watchdog(LIMIT);
    let (mut socket, peer) = with_one_peer("as_many_descriptors_as_linux_allows_travel_with_a_message");
    let mut buffer = [0; 16];
    assert!(matches!(
        socket.recv_with_fds_by(&mut [], Deadline::Never),
        Err(Error::BufferTooSmall { message_bytes: 5, .. })
    ));
    let (len, passed) = socket.recv_with_fds_by(&mut buffer, Deadline::Never).unwrap().unwrap();
    assert_eq!(&buffer[..len], b"pipes");
    assert_eq!(numbers_in(&passed), (0..MAX_DESCRIPTORS).map(|number| number as u8).collect::<Vec<_>>());
    let (len, passed) = socket.recv_with_fds_by(&mut buffer, Deadline::Never).unwrap().unwrap();
    assert_eq!((len, passed.len()), (0, 1));
    assert!(socket.recv_with_fds_by(&mut buffer, Deadline::Never).unwrap().is_none());
    peer.succeed();
}

#[test]
fn a_message_whose_descriptors_do_not_fit_is_still_received() {
    if role().is_some() {
        let mut socket = connect_back();
        limit_descriptors(2);
        let mut buffer = [0; 16];
        let error = socket.recv_with_fds_by(&mut buffer, Deadline::Never).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(24), "EMFILE: {error}");
        assert_eq!(socket.recv_into(&mut buffer).unwrap(), Some(11));
        assert_eq!(&buffer[..11], b"the message");
        assert_eq!(socket.recv_into(&mut buffer).unwrap(), None);
        return;
    }
    let _watchdog = watchdog(LIMIT);
    let (mut socket, peer) = with_one_peer("a_message_whose_descriptors_do_not_fit_is_still_received");
    let pipes = numbered_pipes(5);
    let fds: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
    socket.send_with_fds_by(b"the message", &fds, Deadline::Never).unwrap();
    drop(socket);
    peer.succeed();
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let (mut one, mut other) = UnixSeqpacket::pair().unwrap();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    one.send_with_fds_by(b"x", &[writer.as_fd()], Deadline::Now).unwrap();
    one.send_with_fds_by(b"in line", &[writer.as_fd()], Deadline::Now).unwrap();
    drop(writer);
    assert_eq!(other.recv().unwrap().unwrap(), b"x");
    assert!(matches!(other.recv_with_fds_by(&mut [], Deadline::Now), Err(Error::BufferTooSmall { .. })));
    assert_eq!(other.recv().unwrap().unwrap(), b"in line");
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]).unwrap(), 0, "the last write end is closed");
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    fn check<T: std::fmt::Debug>(operation: impl Fn(Deadline) -> onecopy::Result<T>) {
        assert!(matches!(operation(Deadline::Now), Err(Error::WouldBlock { .. })));
        let start = Instant::now();
        let result = operation(Deadline::after(Duration::from_millis(50)));
        assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
    let _watchdog = watchdog(LIMIT);
    let (one, other) = UnixSeqpacket::pair().unwrap();
    check(|deadline| other.try_clone().unwrap().recv_into_by(&mut [0; 1], deadline));
    while one.try_clone().unwrap().try_send(&[1; 10_000]).is_ok() {}
    check(|deadline| one.try_clone().unwrap().send_by(&[1; 10_000], deadline));
    let listener = UnixSeqpacketListener::bind(&abstract_name()).unwrap();
    check(|deadline| listener.accept_by(deadline));
}

#[test]
fn wrong_uses_say_what_would_be_right() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let name = path_in(&scratch, "socket");
    let error = UnixSeqpacket::connect(&name, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(2), "ENOENT: {error}");
    let start = Instant::now();
    let error = UnixSeqpacket::connect(&name, Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
    let listener = UnixSeqpacketListener::bind(&name).unwrap();
    let error = UnixSeqpacketListener::bind(&name).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(98), "EADDRINUSE: {error}");
    assert!(error.to_string().contains(&format!("unix-seqpacket:{name}")), "{error}");
    let error = onecopy::message::unix_dgram::UnixDatagram::connect(&name, Deadline::Never).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(91), "EPROTOTYPE: {error}");
    drop(listener);
    assert!(!scratch.path("socket").exists(), "the socket file goes with the listener");
    let error = UnixName::path("/".repeat(108)).unwrap_err();
    assert!(error.to_string().contains("107"), "{error}");
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_socket() {
    if role().is_some() {
        let scratch = Scratch::new();
        let bind = |path: &Path| UnixSeqpacketListener::bind(&UnixName::path(path).unwrap()).unwrap();
        return child_leaves_the_file(&scratch.path("socket"), bind);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    Peer::start("unix_seqpacket::a_child_that_drops_its_copy_leaves_the_socket", "parent", &[]).succeed();
}
