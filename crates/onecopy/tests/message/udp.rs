//! Row 8: UDP, and what udp(7) says of it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use onecopy::message::udp::{IPV4_LIMIT_BYTES, IPV6_LIMIT_BYTES, UdpSocket};
use onecopy::{Deadline, Error, HostPort, Receiver, Sender};

use crate::support::{self, Peer, argument, eventually, pattern, role, watchdog};

const SIZES: [usize; 7] = [0, 1, 1472, 1473, 9000, 65_506, IPV4_LIMIT_BYTES];

/// A port of our own on a loopback address that no other test uses: a port that was closed stays closed.
pub(crate) fn local() -> HostPort {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    HostPort::new(format!("127.{}.{}.{own}", 1 + pid / 256 % 254, pid % 256), 0).unwrap()
}

/// A socket on `[::1]`, or a printed skip.
fn bound_to_ipv6(test: &str) -> Option<UdpSocket> {
    match UdpSocket::bind(&"[::1]:0".parse().unwrap()) {
        Ok(socket) => Some(socket),
        Err(error) => {
            support::skip(test, &format!("no IPv6 here: {error}"));
            None
        }
    }
}

/// In the second process: a socket connected to the one that the test bound.
fn connected_to_the_test() -> UdpSocket {
    UdpSocket::connect(&argument("ADDRESS").parse().unwrap()).unwrap()
}

fn start(test: &str, socket: &UdpSocket) -> Peer {
    Peer::start(test, "peer", &[("ADDRESS", &socket.local_address().unwrap().to_string())])
}

#[test]
fn datagrams_of_all_sizes_between_two_processes() {
    if role().is_some() {
        let mut socket = connected_to_the_test();
        for (seed, size) in SIZES.into_iter().enumerate() {
            socket.send(&pattern(size, seed as u64)).unwrap();
            // One at a time, since nothing keeps a fast sender from overrunning the receiver.
            assert_eq!(socket.recv().unwrap().unwrap(), pattern(size, seed as u64 + 100), "answer of {size} bytes");
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut socket = UdpSocket::bind(&local()).unwrap();
    let peer = start("udp::datagrams_of_all_sizes_between_two_processes", &socket);
    let mut buffer = vec![0; 65_536];
    for (seed, size) in SIZES.into_iter().enumerate() {
        let (len, from) = socket.recv_from_by(&mut buffer, Deadline::Never).unwrap();
        assert_eq!(buffer[..len], pattern(size, seed as u64), "datagram of {size} bytes");
        socket.send_to_by(&pattern(size, seed as u64 + 100), &from, Deadline::Never).unwrap();
    }
    peer.succeed();
}

#[test]
fn a_datagram_longer_than_the_buffer_stays_first_in_line() {
    let mut receiver = UdpSocket::bind(&local()).unwrap();
    let mut sender = UdpSocket::connect(&receiver.local_address().unwrap()).unwrap();
    let long = pattern(IPV4_LIMIT_BYTES, 1);
    sender.send(&long).unwrap();
    sender.send(b"next").unwrap();
    for size in [0, 1, 4096, IPV4_LIMIT_BYTES - 1] {
        match receiver.recv_into_by(&mut vec![0; size], Deadline::Never) {
            Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                assert_eq!((message_bytes, buffer_bytes), (IPV4_LIMIT_BYTES, size));
            }
            other => panic!("buffer of {size} bytes: {other:?}"),
        }
    }
    let mut buffer = vec![0; IPV4_LIMIT_BYTES];
    let (len, from) = receiver.recv_from_by(&mut buffer, Deadline::Now).unwrap();
    assert_eq!(buffer[..len], long);
    assert_eq!(from, sender.local_address().unwrap(), "the sender is remembered with the datagram");
    assert_eq!(receiver.try_recv_into(&mut buffer[..4]).unwrap(), Some(4), "a buffer that fits exactly");
    assert_eq!(&buffer[..4], b"next");
}

#[test]
fn an_empty_datagram_is_a_message() {
    let mut receiver = UdpSocket::bind(&local()).unwrap();
    let mut sender = UdpSocket::connect(&receiver.local_address().unwrap()).unwrap();
    sender.send(b"").unwrap();
    assert_eq!(receiver.recv_into(&mut []).unwrap(), Some(0));
    assert!(receiver.try_recv_into(&mut []).unwrap_err().is_out_of_time());
}

fn check_limit(receiver: &mut UdpSocket, limit: usize) {
    let mut sender = UdpSocket::connect(&receiver.local_address().unwrap()).unwrap();
    assert_eq!(sender.limit_bytes(), Some(limit));
    sender.send(&pattern(limit, 1)).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), pattern(limit, 1));
    match sender.send(&vec![0; limit + 1]) {
        Err(error @ Error::TooLong { message_bytes, limit_bytes, .. }) => {
            assert_eq!((message_bytes, limit_bytes), (limit + 1, limit));
            assert!(error.to_string().contains("fragments"), "names the remedy: {error}");
        }
        other => panic!("{other:?}"),
    }
    let to = receiver.local_address().unwrap();
    let unconnected = sender.send_to_by(&vec![0; limit + 1], &to, Deadline::Never).unwrap_err();
    assert!(matches!(unconnected, Error::TooLong { limit_bytes, .. } if limit_bytes == limit), "{unconnected}");
}

#[test]
fn the_limits_hold_to_the_byte() {
    let _watchdog = watchdog(Duration::from_secs(60));
    check_limit(&mut UdpSocket::bind(&local()).unwrap(), IPV4_LIMIT_BYTES);
    if let Some(mut receiver) = bound_to_ipv6("udp::the_limits_hold_to_the_byte") {
        check_limit(&mut receiver, IPV6_LIMIT_BYTES);
    }
}

#[test]
fn a_long_datagram_that_the_send_buffer_cannot_hold_in_parts_says_so() {
    let Some(receiver) = bound_to_ipv6("udp::a_long_datagram_that_the_send_buffer_cannot_hold_in_parts_says_so") else {
        return;
    };
    let mut sender = UdpSocket::connect(&receiver.local_address().unwrap()).unwrap();
    sender.set_send_buffer_bytes(4608).unwrap();
    // An interface whose packets are long enough needs no parts.
    if let Err(error) = sender.send_by(&vec![0; IPV6_LIMIT_BYTES], Deadline::after(Duration::from_secs(5))) {
        assert_eq!(error.raw_os_error(), Some(105), "ENOBUFS: {error}");
        assert!(error.to_string().contains("wmem_max"), "names the remedy: {error}");
    }
}

#[test]
fn nobody_at_the_port_is_reported_by_the_next_call() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let address = UdpSocket::bind(&local()).unwrap().local_address().unwrap();
    let mut sender = UdpSocket::connect(&address).unwrap();
    sender.send(b"lost").unwrap();
    let error = sender.send(b"refused").unwrap_err();
    assert!(error.is_peer_gone() && error.raw_os_error() == Some(111), "ECONNREFUSED: {error}");
    assert!(error.to_string().contains("is lost"), "{error}");
    sender.send(b"lost").unwrap();
    let error = sender.recv_into_by(&mut [0; 8], Deadline::Never).unwrap_err();
    assert!(error.is_peer_gone(), "a receiver that waits is told too: {error}");
}

#[test]
fn a_sender_may_start_before_its_receiver() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let address = UdpSocket::bind(&local()).unwrap().local_address().unwrap();
    let mut sender = UdpSocket::connect(&address).unwrap();
    let _ = sender.send(b"lost");
    let mut receiver = UdpSocket::bind(&address).unwrap();
    eventually("the pending refusal is reported and gone", || sender.send(b"arrives").is_ok());
    assert_eq!(receiver.recv().unwrap().unwrap(), b"arrives");
}

#[test]
fn a_killed_receiver_is_noticed_by_the_sender() {
    if role().is_some() {
        let mut receiver = UdpSocket::bind(&local()).unwrap();
        let mut sender = connected_to_the_test();
        sender.send(receiver.local_address().unwrap().to_string().as_bytes()).unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), b"hello");
        sender.send(b"waiting").unwrap();
        let _ = receiver.recv();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut socket = UdpSocket::bind(&local()).unwrap();
    let mut peer = start("udp::a_killed_receiver_is_noticed_by_the_sender", &socket);
    let address = String::from_utf8(socket.recv().unwrap().unwrap()).unwrap();
    let mut sender = UdpSocket::connect(&address.parse().unwrap()).unwrap();
    sender.send(b"hello").unwrap();
    assert_eq!(socket.recv().unwrap().unwrap(), b"waiting");
    peer.kill();
    let _ = sender.send(b"lost");
    let error = sender.send(b"refused").unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
}

#[test]
fn a_killed_sender_leaves_the_receiver_working() {
    if role().is_some() {
        let mut sender = connected_to_the_test();
        sender.send(b"last words").unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut socket = UdpSocket::bind(&local()).unwrap();
    let mut peer = start("udp::a_killed_sender_leaves_the_receiver_working", &socket);
    assert_eq!(socket.recv().unwrap().unwrap(), b"last words");
    peer.kill();
    let error = socket.recv_into_by(&mut [0; 8], Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(error.is_out_of_time(), "UDP has no end: {error}");
    UdpSocket::connect(&socket.local_address().unwrap()).unwrap().send(b"another").unwrap();
    assert_eq!(socket.recv().unwrap().unwrap(), b"another");
}

#[test]
fn what_a_full_receiver_loses_is_counted() {
    let mut receiver = UdpSocket::bind(&local()).unwrap();
    let before = receiver.receive_buffer_bytes().unwrap();
    let after = receiver.set_receive_buffer_bytes(1).unwrap();
    assert!(after < before && after == receiver.receive_buffer_bytes().unwrap(), "{before} to {after}");
    let mut sender = UdpSocket::connect(&receiver.local_address().unwrap()).unwrap();
    assert_eq!(receiver.dropped().unwrap(), 0);
    for _ in 0..50 {
        sender.send(&[7; 500]).unwrap();
    }
    let mut received = 0;
    while receiver.try_recv_into(&mut [0; 500]).is_ok() {
        received += 1;
    }
    assert!(received < 50, "a buffer of {after} bytes held everything");
    assert_eq!(received + receiver.dropped().unwrap(), 50);
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut receiver = UdpSocket::bind(&local()).unwrap();
    assert!(matches!(receiver.try_recv_into(&mut [0; 1]), Err(Error::WouldBlock { .. })));
    let start = Instant::now();
    let result = receiver.recv_into_by(&mut [0; 1], Deadline::after(Duration::from_millis(50)));
    assert!(
        matches!(result, Err(Error::TimedOut { .. })) && start.elapsed() >= Duration::from_millis(50),
        "{result:?}"
    );
}

#[test]
fn wrong_uses_say_what_would_be_right() {
    let mut socket = UdpSocket::bind(&local()).unwrap();
    let error = socket.send(b"to whom").unwrap_err();
    assert!(error.to_string().contains("name the receiver"), "{error}");
    assert_eq!(socket.peer_address().unwrap_err().raw_os_error(), Some(107), "ENOTCONN");
    let address = socket.local_address().unwrap();
    assert_ne!(address.port(), 0);
    let error = UdpSocket::bind(&address).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(98), "EADDRINUSE: {error}");
    assert!(error.to_string().contains(&format!("udp:{address}")), "{error}");
    assert_eq!(UdpSocket::connect(&address).unwrap().peer_address().unwrap(), address);
}

#[test]
fn both_families_and_names_work() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut receivers = vec![UdpSocket::bind(&"localhost:0".parse().unwrap()).unwrap()];
    receivers.extend(bound_to_ipv6("udp::both_families_and_names_work"));
    for mut receiver in receivers {
        let address = receiver.local_address().unwrap();
        let mut sender = UdpSocket::connect(&address).unwrap();
        sender.send(b"there").unwrap();
        let mut buffer = [0; 16];
        let (len, from) = receiver.recv_from_by(&mut buffer, Deadline::Never).unwrap();
        assert_eq!((&buffer[..len], &from), (&b"there"[..], &sender.local_address().unwrap()));
        receiver.send_to_by(b"back", &from, Deadline::Never).unwrap();
        assert_eq!(sender.recv().unwrap().unwrap(), b"back");
    }
}
