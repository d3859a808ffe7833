//! Row 5: the UNIX datagram socket, and what semantics.md and unix(7) say of it.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onecopy::message::unix_dgram::{MAX_DESCRIPTORS, UnixDatagram};
use onecopy::stream::unix::UnixListener;
use onecopy::{Deadline, Error, Receiver, Sender, Tally, UnixName};

use crate::support::fork::child_leaves_the_file;
use crate::support::{self, Peer, Scratch, pattern, role, starting_nobody, wait_until_asleep, watchdog};
use crate::unix_names::{
    FOREVER, LIMIT, abstract_name, both_kinds, given_name, kill_soon, limit_descriptors, numbered_pipes, numbers_in,
    path_in, start,
};

const SIZES: [usize; 7] = [0, 1, 4096, 4097, 65_536, 65_537, 150_000];
const PIECE_LIMIT: usize = 4 << 20;

/// Sends until the receiver is full; returns how many it took.
fn fill(sender: &mut UnixDatagram, message: &[u8]) -> usize {
    let mut sent = 0;
    loop {
        match sender.try_send(message) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert!(matches!(error, Error::WouldBlock { .. }), "{error}");
                return sent;
            }
        }
    }
}

#[test]
fn messages_of_all_sizes_between_two_processes() {
    if role().is_some() {
        let mut sender = UnixDatagram::connect(&given_name(), Deadline::Never).unwrap();
        for (seed, size) in SIZES.into_iter().enumerate() {
            sender.send(&pattern(size, seed as u64)).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(LIMIT);
    both_kinds("unix_dgram::messages_of_all_sizes_between_two_processes", |name, peer| {
        // The sender is there first and waits for the name.
        let mut receiver = UnixDatagram::bind(&name).unwrap();
        for (seed, size) in SIZES.into_iter().enumerate() {
            assert_eq!(receiver.recv().unwrap().unwrap(), pattern(size, seed as u64), "message of {size} bytes");
        }
        peer.succeed();
    });
}

#[test]
fn a_message_longer_than_the_buffer_stays_first_in_line() {
    let name = abstract_name();
    let mut receiver = UnixDatagram::bind(&name).unwrap();
    let own = abstract_name();
    let mut sender = UnixDatagram::connect_from(&own, &name, Deadline::Now).unwrap();
    let long = pattern(150_000, 1);
    sender.send(&long).unwrap();
    sender.send(b"next").unwrap();
    for size in [0, 1, 4096, 149_999] {
        match receiver.recv_into_by(&mut vec![0; size], Deadline::Never) {
            Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                assert_eq!((message_bytes, buffer_bytes), (150_000, size));
            }
            other => panic!("buffer of {size} bytes: {other:?}"),
        }
    }
    let mut buffer = vec![0; 150_000];
    let (len, from) = receiver.recv_from_by(&mut buffer, Deadline::Now).unwrap();
    assert_eq!((&buffer[..len], from), (&long[..], Some(own)), "the sender is remembered with the message");
    assert_eq!(receiver.try_recv_into(&mut buffer[..4]).unwrap(), Some(4), "a buffer that fits exactly");
    assert!(receiver.try_recv_into(&mut buffer).unwrap_err().is_out_of_time());
}

#[test]
fn a_message_that_waits_in_line_is_never_given_wrong_credentials() {
    let name = abstract_name();
    let mut receiver = UnixDatagram::bind(&name).unwrap();
    let mut sender = UnixDatagram::connect(&name, Deadline::Now).unwrap();
    for message in [b"first", b"later"] {
        sender.send(message).unwrap();
        assert!(matches!(receiver.recv_into(&mut [0; 3]), Err(Error::BufferTooSmall { message_bytes: 5, .. })));
        let mut buffer = [0; 5];
        match receiver.recv_with_credentials_by(&mut buffer, Deadline::Now) {
            Ok((len, from)) => assert_eq!((len, from.pid), (5, std::process::id() as i32)),
            Err(error) => {
                assert!(matches!(error, Error::Unsupported { .. }) && message == b"first", "{error}");
                assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(5), "it stays in line");
            }
        }
        assert_eq!(&buffer, message);
    }
}

#[test]
fn an_empty_datagram_is_a_message() {
    let (mut one, mut other) = UnixDatagram::pair().unwrap();
    one.send(b"").unwrap();
    assert_eq!(other.recv_into(&mut []).unwrap(), Some(0));
    assert!(other.try_recv_into(&mut []).unwrap_err().is_out_of_time());
}

#[test]
fn the_limit_follows_the_send_buffer_to_the_byte() {
    let _watchdog = watchdog(LIMIT);
    let (mut sender, mut receiver) = UnixDatagram::pair().unwrap();
    for asked in [None, Some(1), Some(10_000), Some(65_536), Some(1 << 20)] {
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
        assert!(receiver.try_recv_into(&mut [0; 8]).unwrap_err().is_out_of_time(), "nothing of it was sent");
    }
}

#[test]
fn a_large_send_buffer_leaves_the_limit_of_one_piece_of_memory() {
    let _watchdog = watchdog(LIMIT);
    let test = "unix_dgram::a_large_send_buffer_leaves_the_limit_of_one_piece_of_memory";
    let (mut sender, mut receiver) = UnixDatagram::pair().unwrap();
    let buffer = sender.set_send_buffer_bytes(PIECE_LIMIT).unwrap();
    if buffer <= PIECE_LIMIT + (128 << 10) {
        return support::skip(test, &format!("wmem_max allows a send buffer of {buffer} bytes only"));
    }
    assert_eq!(sender.limit_bytes(), Some(PIECE_LIMIT));
    let error = sender.send(&vec![0; PIECE_LIMIT + 1]).unwrap_err();
    assert!(matches!(error, Error::TooLong { limit_bytes: PIECE_LIMIT, .. }), "{error}");
    assert!(error.to_string().contains("fragments"), "{error}");
    // A program that does not use this library may send a little more than we do: nothing of it is lost.
    for len in [PIECE_LIMIT, PIECE_LIMIT + (60 << 10)] {
        let message = pattern(len, 1);
        match rustix::net::send(&sender, &message, rustix::net::SendFlags::empty()) {
            Ok(_) => {}
            Err(rustix::io::Errno::NOBUFS) => return support::skip(test, "no 4 MiB of memory in one piece"),
            Err(errno) => panic!("{errno}"),
        }
        assert!(
            matches!(receiver.recv_into(&mut [0; 100]), Err(Error::BufferTooSmall { message_bytes, .. }) if message_bytes == len)
        );
        assert!(receiver.recv().unwrap().unwrap() == message, "a message of {len} bytes");
    }
}

#[test]
fn a_full_receiver_makes_its_sender_wait_and_wakes_it() {
    let _watchdog = watchdog(LIMIT);
    let name = abstract_name();
    let mut receiver = UnixDatagram::bind(&name).unwrap();
    let mut sender = UnixDatagram::connect(&name, Deadline::Now).unwrap();
    let sent = fill(&mut sender, b"x");
    assert!(sent > 0);
    let start = Instant::now();
    let error = sender.send_by(b"x", Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
    for deadline in [Deadline::Never, Deadline::after(FOREVER)] {
        let waiting = std::thread::spawn(move || {
            sender.send_by(b"woken", deadline).unwrap();
            sender
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished(), "it waits while the receiver is full");
        assert_eq!(receiver.recv_into(&mut [0; 8]).unwrap(), Some(1));
        sender = waiting.join().unwrap();
    }
    for _ in 0..sent - 2 {
        assert_eq!(receiver.recv().unwrap().unwrap(), b"x");
    }
    assert_eq!(receiver.recv().unwrap().unwrap(), b"woken");
    assert_eq!(receiver.recv().unwrap().unwrap(), b"woken");
    assert!(receiver.try_recv_into(&mut []).unwrap_err().is_out_of_time(), "each arrived once");
}

#[test]
fn a_receiver_that_is_killed_while_it_waits_is_noticed_and_can_be_replaced() {
    if role().is_some() {
        let mut receiver = UnixDatagram::bind(&given_name()).unwrap();
        let _ = receiver.recv();
        let _ = receiver.recv();
        return;
    }
    let _watchdog = watchdog(LIMIT);
    let test = "unix_dgram::a_receiver_that_is_killed_while_it_waits_is_noticed_and_can_be_replaced";
    both_kinds(test, |name, mut peer| {
        let mut sender = UnixDatagram::connect(&name, Deadline::Never).unwrap();
        sender.send(b"hello").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        peer.kill();
        for attempt in 0..3 {
            let error = sender.send(b"lost").unwrap_err();
            assert!(error.is_peer_gone(), "attempt {attempt}: {error}");
        }
        let error = UnixDatagram::connect(&name, Deadline::Now).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(111 | 2)), "ECONNREFUSED or ENOENT: {error}");
        // The dead socket file is replaced.
        let mut receiver = UnixDatagram::bind(&name).unwrap();
        UnixDatagram::connect(&name, Deadline::Now).unwrap().send(b"again").unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), b"again");
    });
}

#[test]
fn a_receiver_that_is_killed_wakes_a_sender_that_waits_for_room() {
    if role().is_some() {
        let _receiver = UnixDatagram::bind(&given_name()).unwrap();
        return std::thread::sleep(FOREVER);
    }
    let _watchdog = watchdog(LIMIT);
    for deadline in [Deadline::Never, Deadline::after(FOREVER)] {
        let name = abstract_name();
        let peer = start("unix_dgram::a_receiver_that_is_killed_wakes_a_sender_that_waits_for_room", &name);
        let mut sender = UnixDatagram::connect(&name, Deadline::Never).unwrap();
        fill(&mut sender, b"x");
        let killer = kill_soon(peer);
        let error = sender.send_by(b"x", deadline).unwrap_err();
        assert!(error.is_peer_gone(), "{deadline:?}: {error}");
        killer.join().unwrap();
    }
}

#[test]
fn a_sender_that_is_killed_leaves_whole_messages_and_a_receiver_that_works() {
    if role().is_some() {
        let mut sender = UnixDatagram::connect(&given_name(), Deadline::Never).unwrap();
        for seed in 0.. {
            sender.send(&pattern(50_000, seed)).unwrap();
        }
    }
    let _watchdog = watchdog(LIMIT);
    let name = abstract_name();
    let mut receiver = UnixDatagram::bind(&name).unwrap();
    let mut peer = start("unix_dgram::a_sender_that_is_killed_leaves_whole_messages_and_a_receiver_that_works", &name);
    receiver.wait_for_first();
    // By then it waits for room.
    wait_until_asleep(peer.pid());
    peer.kill();
    let mut received = 0;
    let error = loop {
        match receiver.recv_by(Deadline::after(Duration::from_millis(50))) {
            Ok(message) => assert_eq!(message.unwrap(), pattern(50_000, received)),
            Err(error) => break error,
        }
        received += 1;
    };
    assert!(received > 0 && error.is_out_of_time(), "datagrams have no end: {error}");
    UnixDatagram::connect(&name, Deadline::Now).unwrap().send(b"another").unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), b"another");
}

trait WaitForFirst {
    fn wait_for_first(&self);
}

impl WaitForFirst for UnixDatagram {
    /// Waits until a message is there, without receiving it.
    fn wait_for_first(&self) {
        let mut fds = [rustix::event::PollFd::new(self, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
    }
}

#[test]
fn credentials_are_those_of_the_sender_even_after_its_death() {
    if role().is_some() {
        UnixDatagram::connect(&given_name(), Deadline::Never).unwrap().send(b"who am I").unwrap();
        return std::thread::sleep(FOREVER);
    }
    let _watchdog = watchdog(LIMIT);
    let name = abstract_name();
    let mut receiver = UnixDatagram::bind(&name).unwrap();
    let mut peer = start("unix_dgram::credentials_are_those_of_the_sender_even_after_its_death", &name);
    receiver.wait_for_first();
    let pid = peer.pid() as i32;
    peer.kill();
    let (_, from) = receiver.recv_with_credentials_by(&mut [0; 16], Deadline::Never).unwrap();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!((from.pid, from.uid, from.gid), (pid, uid, gid));
}

#[test]
fn answers_go_to_the_name_of_the_sender() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    for (name, own) in [(path_in(&scratch, "a"), path_in(&scratch, "b")), (abstract_name(), abstract_name())] {
        let mut server = UnixDatagram::bind(&name).unwrap();
        let mut client = UnixDatagram::connect_from(&own, &name, Deadline::Now).unwrap();
        client.send(b"question").unwrap();
        let mut buffer = [0; 16];
        let (_, from) = server.recv_from_by(&mut buffer, Deadline::Never).unwrap();
        assert_eq!(from.as_ref(), Some(&own));
        let before = Tally::now().kernel_bytes;
        server.send_to_by(b"answer", &own, Deadline::Never).unwrap();
        assert_eq!(Tally::now().kernel_bytes - before, 6, "counted like any other");
        assert_eq!(client.recv().unwrap().unwrap(), b"answer");
        UnixDatagram::connect(&name, Deadline::Now).unwrap().send(b"anonymous").unwrap();
        assert_eq!(server.recv_from_by(&mut buffer, Deadline::Never).unwrap().1, None);
    }
}

#[test]
fn sending_to_a_name_waits_for_room_too() {
    let _watchdog = watchdog(LIMIT);
    let _alone = starting_nobody();
    let (name, own) = (abstract_name(), abstract_name());
    let mut receiver = UnixDatagram::bind(&name).unwrap();
    let mut sender = UnixDatagram::bind(&own).unwrap();
    let mut sent = 0;
    while sender.send_to_by(b"x", &name, Deadline::Now).is_ok() {
        sent += 1;
    }
    let start = Instant::now();
    let error = sender.send_to_by(b"x", &name, Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
    for deadline in [Deadline::after(FOREVER), Deadline::Never] {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| sender.send_to_by(b"x", &name, deadline));
            std::thread::sleep(Duration::from_millis(20));
            receiver.recv().unwrap();
            waiting.join().unwrap().unwrap();
        });
    }
    for _ in 0..sent {
        receiver.try_recv_into(&mut [0; 1]).unwrap();
    }
    drop(receiver);
    assert!(sender.send_to_by(b"x", &name, Deadline::Now).unwrap_err().is_peer_gone());
}

#[test]
fn descriptors_travel_with_a_message() {
    let (mut one, mut other) = UnixDatagram::pair().unwrap();
    let pipes = numbered_pipes(3);
    let fds: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
    one.send_with_fds_by(b"three", &fds, Deadline::Now).unwrap();
    one.send(b"none").unwrap();
    one.send_with_fds_by(b"", &fds[..1], Deadline::Now).unwrap();
    let mut buffer = [0; 16];
    let error = other.recv_with_fds_by(&mut buffer[..2], Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { message_bytes: 5, .. }), "{error}");
    let (len, passed) = other.recv_with_fds_by(&mut buffer, Deadline::Now).unwrap();
    assert_eq!((&buffer[..len], numbers_in(&passed)), (&b"three"[..], vec![0, 1, 2]));
    assert!(passed.iter().all(|fd| rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)));
    let (len, passed) = other.recv_with_fds_by(&mut buffer, Deadline::Now).unwrap();
    assert_eq!((len, passed.len()), (4, 0));
    let (len, passed) = other.recv_with_fds_by(&mut buffer, Deadline::Now).unwrap();
    assert_eq!((len, passed.len()), (0, 1), "an empty message carries descriptors too");
    let too_many = vec![fds[0]; MAX_DESCRIPTORS + 1];
    let error = one.send_with_fds_by(b"x", &too_many, Deadline::Now).unwrap_err();
    assert!(error.to_string().contains("254 descriptors") && error.to_string().contains("253"), "{error}");
}

#[test]
fn a_message_whose_descriptors_do_not_fit_is_still_received() {
    if role().is_some() {
        let mut receiver = UnixDatagram::bind(&given_name()).unwrap();
        limit_descriptors(2);
        let mut buffer = [0; 16];
        let error = receiver.recv_with_fds_by(&mut buffer, Deadline::Never).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(24), "EMFILE: {error}");
        assert!(error.to_string().contains("2 came and were closed"), "{error}");
        let (len, fds) = receiver.recv_with_fds_by(&mut buffer, Deadline::Now).unwrap();
        assert_eq!((&buffer[..len], fds.len()), (&b"the message"[..], 0));
        std::fs::File::open("/dev/null").expect("those that came were closed");
        return;
    }
    let _watchdog = watchdog(LIMIT);
    let name = abstract_name();
    let peer = start("unix_dgram::a_message_whose_descriptors_do_not_fit_is_still_received", &name);
    let mut sender = UnixDatagram::connect(&name, Deadline::Never).unwrap();
    let pipes = numbered_pipes(5);
    let fds: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
    sender.send_with_fds_by(b"the message", &fds, Deadline::Never).unwrap();
    peer.succeed();
}

#[test]
fn wrong_uses_say_what_would_be_right() {
    let scratch = Scratch::new();
    let name = path_in(&scratch, "socket");
    let error = UnixDatagram::connect(&name, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(2), "ENOENT: {error}");
    let start = Instant::now();
    let error = UnixDatagram::connect(&name, Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
    let mut bound = UnixDatagram::bind(&name).unwrap();
    let error = UnixDatagram::bind(&name).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(98), "EADDRINUSE: {error}");
    assert!(error.to_string().contains(&format!("unix-dgram:{name}")), "{error}");
    let error = bound.send(b"to whom").unwrap_err();
    assert!(error.to_string().contains("name the receiver"), "{error}");
    let start = Instant::now();
    let error = bound.recv_into_by(&mut [], Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
    let stream = path_in(&scratch, "stream");
    let _listener = UnixListener::bind(&stream).unwrap();
    let error = UnixDatagram::connect(&stream, Deadline::Never).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(91), "EPROTOTYPE: {error}");
}

#[test]
fn the_socket_file_goes_with_the_last_handle() {
    let scratch = Scratch::new();
    let name = path_in(&scratch, "socket");
    let bound = UnixDatagram::bind(&name).unwrap();
    let mut clone = bound.try_clone().unwrap();
    drop(bound);
    UnixDatagram::connect(&name, Deadline::Now).unwrap().send(b"to the clone").unwrap();
    assert_eq!(clone.recv().unwrap().unwrap(), b"to the clone");
    drop(clone);
    assert!(!scratch.path("socket").exists());
}

#[test]
fn a_pair_reports_the_end_of_its_other_side_to_a_sender() {
    let _watchdog = watchdog(LIMIT);
    let _alone = starting_nobody();
    let (mut one, other) = UnixDatagram::pair().unwrap();
    drop(other);
    assert!(one.send(b"x").unwrap_err().is_peer_gone(), "ECONNREFUSED");
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_socket() {
    if role().is_some() {
        let scratch = Scratch::new();
        let bind = |path: &Path| UnixDatagram::bind(&UnixName::path(path).unwrap()).unwrap();
        return child_leaves_the_file(&scratch.path("socket"), bind);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    Peer::start("unix_dgram::a_child_that_drops_its_copy_leaves_the_socket", "parent", &[]).succeed();
}

/// A socket file that outlived its socket could be another one's by the time when it is removed.
#[test]
fn the_file_of_a_socket_goes_before_it() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let name = UnixName::path(&path).unwrap();
    for round in 0..300 {
        let receiver = UnixDatagram::bind(&name).unwrap();
        let mut sender = UnixDatagram::connect(&name, Deadline::Now).unwrap();
        let looks = AtomicBool::new(false);
        let outlives = std::thread::scope(|scope| {
            let sees = scope.spawn(|| {
                looks.store(true, Ordering::Relaxed);
                while sender.send_by(b"", Deadline::Now).map_or_else(|error| error.is_out_of_time(), |()| true) {}
                path.exists()
            });
            while !looks.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            drop(receiver);
            sees.join().unwrap()
        });
        assert!(!outlives, "round {round}");
    }
}
