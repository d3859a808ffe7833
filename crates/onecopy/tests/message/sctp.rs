//! Row 9: SCTP, and what RFC 6458 says of one-to-one sockets. Where the kernel has none, only that is tested.

use std::time::{Duration, Instant};

use onecopy::message::sctp::{SctpListener, SctpSocket, is_available};
use onecopy::{Deadline, Error, HostPort, Receiver, Sender};

use crate::support::{self, Peer, argument, eventually, pattern, role, watchdog};
use crate::udp::local;

const SIZES: [usize; 6] = [1, 1452, 1453, 9000, 65_536, 200_000];

/// Whether the test can run; if not, says so.
fn available(test: &str) -> bool {
    let result = is_available();
    if let Err(error) = &result {
        support::skip(&format!("sctp::{test}"), &error.to_string());
    }
    result.is_ok()
}

fn listener() -> SctpListener {
    SctpListener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap()
}

fn pair() -> (SctpSocket, SctpSocket) {
    let listener = listener();
    let client = SctpSocket::connect(&listener.local_address().unwrap(), Deadline::Never).unwrap();
    (client, listener.accept_by(Deadline::Never).unwrap())
}

fn connect_back() -> SctpSocket {
    SctpSocket::connect(&argument("ADDRESS").parse().unwrap(), Deadline::Never).unwrap()
}

/// A second process that plays `test` and connects to the test, with the test's side of the association.
fn with_peer(test: &str) -> (Peer, SctpSocket) {
    let listener = listener();
    let address = listener.local_address().unwrap().to_string();
    let peer = Peer::start(&format!("sctp::{test}"), "client", &[("ADDRESS", &address)]);
    let socket = listener.accept_by(Deadline::Never).unwrap();
    (peer, socket)
}

#[test]
fn a_kernel_without_sctp_says_so_in_the_same_words_everywhere() {
    let Err(missing) = is_available() else { return };
    let address: HostPort = "127.0.0.1:7".parse().unwrap();
    let failures = [
        missing,
        SctpListener::bind(&address).unwrap_err(),
        SctpSocket::connect(&address, Deadline::Never).unwrap_err(),
    ];
    for error in failures {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("sctp") && text.contains("this kernel has no SCTP (E"), "{text}");
        assert!(text.contains("modprobe sctp"), "names the remedy: {text}");
    }
}

#[test]
fn messages_of_all_sizes_between_two_processes() {
    const TEST: &str = "messages_of_all_sizes_between_two_processes";
    if role().is_some() {
        let mut socket = connect_back();
        for (seed, size) in SIZES.into_iter().enumerate() {
            socket.send(&pattern(size, seed as u64)).unwrap();
        }
        return;
    }
    if !available(TEST) {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (peer, mut socket) = with_peer(TEST);
    for (seed, size) in SIZES.into_iter().enumerate() {
        assert_eq!(socket.recv().unwrap().unwrap(), pattern(size, seed as u64), "message of {size} bytes");
    }
    assert_eq!(socket.recv().unwrap(), None);
    peer.succeed();
}

#[test]
fn a_message_longer_than_the_buffer_stays_first_in_line() {
    if !available("a_message_longer_than_the_buffer_stays_first_in_line") {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (mut client, mut server) = pair();
    client.send(&pattern(100_000, 1)).unwrap();
    client.send(b"next").unwrap();
    for size in [0, 1, 99_999] {
        match server.recv_into_by(&mut vec![0; size], Deadline::Never) {
            Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                assert_eq!((message_bytes, buffer_bytes), (100_000, size));
            }
            other => panic!("buffer of {size} bytes: {other:?}"),
        }
    }
    let mut buffer = vec![0; 100_000];
    assert_eq!(server.recv_into(&mut buffer).unwrap(), Some(100_000));
    assert_eq!(buffer, pattern(100_000, 1));
    assert_eq!(server.recv_into(&mut buffer[..4]).unwrap(), Some(4), "a buffer that fits exactly");
}

#[test]
fn limits_are_errors_with_their_numbers() {
    if !available("limits_are_errors_with_their_numbers") {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (mut client, _server) = pair();
    let error = client.send(b"").unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let limit = client.limit_bytes().unwrap();
    match client.send(&vec![0; limit + 1]) {
        Err(Error::TooLong { message_bytes, limit_bytes, .. }) => {
            assert_eq!((message_bytes, limit_bytes), (limit + 1, limit));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.set_send_buffer_bytes(8192).unwrap(), client.limit_bytes().unwrap());
}

#[test]
fn a_killed_sender_is_the_end_or_an_error_for_a_receiver_that_waits() {
    const TEST: &str = "a_killed_sender_is_the_end_or_an_error_for_a_receiver_that_waits";
    if role().is_some() {
        let mut socket = connect_back();
        socket.send(b"last words").unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    if !available(TEST) {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (mut peer, mut socket) = with_peer(TEST);
    assert_eq!(socket.recv().unwrap().unwrap(), b"last words");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        peer.kill();
    });
    match socket.recv() {
        Ok(end) => assert_eq!(end, None),
        Err(error) => assert!(error.is_peer_gone(), "{error}"),
    }
    killer.join().unwrap();
}

#[test]
fn a_killed_receiver_is_an_error_for_a_sender_that_waits() {
    const TEST: &str = "a_killed_receiver_is_an_error_for_a_sender_that_waits";
    if role().is_some() {
        let mut socket = connect_back();
        socket.send(b"ready").unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    if !available(TEST) {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (mut peer, mut socket) = with_peer(TEST);
    assert_eq!(socket.recv().unwrap().unwrap(), b"ready");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        peer.kill();
    });
    let message = pattern(50_000, 1);
    let error = (0..100_000).find_map(|_| socket.send(&message).err()).expect("nobody receives");
    assert!(error.is_peer_gone(), "{error}");
    killer.join().unwrap();
}

#[test]
fn a_client_may_come_before_its_listener_and_deadlines_hold() {
    if !available("a_client_may_come_before_its_listener_and_deadlines_hold") {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let address = SctpListener::bind(&local()).unwrap().local_address().unwrap();
    let error = SctpSocket::connect(&address, Deadline::Now).unwrap_err();
    assert!(error.is_peer_gone() || error.is_out_of_time(), "{error}");
    let start = Instant::now();
    let error = SctpSocket::connect(&address, Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(error.is_out_of_time() && start.elapsed() >= Duration::from_millis(50), "{error}");
    let late = std::thread::spawn({
        let address = address.clone();
        move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut listener = None;
            eventually("the port is free", || {
                listener = SctpListener::bind(&address).ok();
                listener.is_some()
            });
            listener.unwrap().accept_by(Deadline::Never).unwrap()
        }
    });
    let _client = SctpSocket::connect(&address, Deadline::Never).unwrap();
    let mut server = late.join().unwrap();
    let start = Instant::now();
    let error = server.recv_into_by(&mut [0; 8], Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(error.is_out_of_time() && start.elapsed() >= Duration::from_millis(50), "{error}");
}
