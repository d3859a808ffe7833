//! Row 7: the Internet stream, and what semantics.md and tcp(7) say of it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use onecopy::stream::tcp::{TcpListener, TcpStream};
use onecopy::stream::{ByteReader, ByteWriter};
use onecopy::{Deadline, Error, HostPort};

use crate::exchange::{
    begin_a_message, notice_the_kill, receive_sizes, runs_out_of_time, runs_out_of_time_when_full, send_sizes,
    write_until_gone,
};
use crate::interrupt::{accept_interrupts, interrupt};
use crate::support::{Peer, Scratch, argument, eventually, reserved_port, role, skip, watchdog};

const SECONDS: Duration = Duration::from_secs(60);

fn local(host: &str) -> HostPort {
    HostPort::new(host, 0).unwrap()
}

/// A port at which nobody listens, see [`reserved_port`].
struct Reserved {
    socket: OwnedFd,
    address: HostPort,
}

impl Reserved {
    fn new() -> Self {
        let (socket, port) = reserved_port();
        Self { socket, address: HostPort::new("127.0.0.1", port).unwrap() }
    }

    fn start(&self, test: &str, role: &str) -> Peer {
        Peer::start(test, role, &[("ADDRESS", &self.address.to_string())])
    }
}

/// Connects to the address that the first process gave, and waits for its listener.
fn connect_back() -> TcpStream {
    TcpStream::connect(&argument("ADDRESS").parse().unwrap(), Deadline::Never).unwrap()
}

#[test]
fn messages_of_all_sizes_both_ways_between_two_processes() {
    if role().is_some() {
        let stream = connect_back();
        send_sizes(&stream);
        stream.shutdown_write().unwrap();
        return receive_sizes(&stream);
    }
    let _watchdog = watchdog(SECONDS);
    let test = "tcp::messages_of_all_sizes_both_ways_between_two_processes";
    for host in ["127.0.0.1", "::1", "localhost"] {
        let listener = match TcpListener::bind(&local(host)) {
            Ok(listener) => listener,
            Err(error) if host == "::1" => {
                skip(test, &error.to_string());
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let address = listener.local_address().unwrap();
        let peer = Peer::start(test, "client", &[("ADDRESS", &address.to_string())]);
        let stream = listener.accept_by(Deadline::Never).unwrap();
        receive_sizes(&stream);
        send_sizes(&stream);
        drop(stream);
        peer.succeed();
    }
}

#[test]
fn a_killed_writer_is_noticed_in_the_middle_of_a_message() {
    if role().is_some() {
        return begin_a_message(connect_back());
    }
    let _watchdog = watchdog(SECONDS);
    let port = Reserved::new();
    // The second process comes first and waits for the listener.
    let mut peer = port.start("tcp::a_killed_writer_is_noticed_in_the_middle_of_a_message", "client");
    let listener = TcpListener::bind(&port.address).unwrap();
    notice_the_kill(listener.accept_by(Deadline::Never).unwrap(), || peer.kill());
}

#[test]
fn a_killed_reader_is_an_error_and_never_a_signal() {
    if role().is_some() {
        connect_back().read_by(&mut [0; 10], Deadline::Never).unwrap();
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let port = Reserved::new();
    let mut peer = port.start("tcp::a_killed_reader_is_an_error_and_never_a_signal", "client");
    let listener = TcpListener::bind(&port.address).unwrap();
    let mut stream = listener.accept_by(Deadline::Never).unwrap();
    write_until_gone(&stream, || peer.kill());
    assert!(stream.write_by(b"x", Deadline::Never).unwrap_err().is_peer_gone());
}

#[test]
fn a_port_of_a_killed_process_is_free_at_once() {
    if role().is_some() {
        let listener = TcpListener::bind(&argument("ADDRESS").parse().unwrap()).unwrap();
        let _stream = listener.accept_by(Deadline::Never).unwrap();
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let port = Reserved::new();
    let mut peer = port.start("tcp::a_port_of_a_killed_process_is_free_at_once", "listener");
    let mut stream = TcpStream::connect(&port.address, Deadline::after(SECONDS)).unwrap();
    let error = TcpListener::bind(&port.address).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE), "{error}");
    assert!(error.to_string().contains("listens"), "{error}");
    peer.kill();
    // That side closed first, so its end of the connection stays for a while.
    let end = stream.read_by(&mut [0; 1], Deadline::after(SECONDS));
    assert!(matches!(end, Ok(0)) || end.as_ref().is_err_and(Error::is_peer_gone), "{end:?}");
    TcpListener::bind(&port.address).unwrap();
}

#[test]
fn connecting_waits_for_a_listener() {
    let _watchdog = watchdog(SECONDS);
    let port = Reserved::new();
    let error = TcpStream::connect(&port.address, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");
    assert!(error.is_peer_gone());
    runs_out_of_time(|deadline| TcpStream::connect(&port.address, deadline));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| TcpStream::connect(&port.address, Deadline::after(SECONDS)));
        std::thread::sleep(Duration::from_millis(30));
        let listener = TcpListener::bind(&port.address).unwrap();
        listener.accept_by(Deadline::Never).unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_listener_that_does_not_answer_costs_no_more_than_the_deadline() {
    let _watchdog = watchdog(SECONDS);
    let port = Reserved::new();
    rustix::net::listen(&port.socket, 0).unwrap();
    // Once its queue is full, the kernel drops what comes, as a host behind a filter does.
    let mut queued = Vec::new();
    let error = loop {
        match TcpStream::connect(&port.address, Deadline::after(Duration::from_millis(200))) {
            Ok(stream) => queued.push(stream),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    runs_out_of_time(|deadline| TcpStream::connect(&port.address, deadline));
    assert!(matches!(TcpStream::connect(&port.address, Deadline::Now), Err(Error::WouldBlock { .. })));
}

#[test]
fn interrupted_connects_and_accepts_go_on_waiting() {
    if let Some(role) = role() {
        accept_interrupts();
        std::fs::write(argument("READY"), "").unwrap();
        let address = argument("ADDRESS").parse().unwrap();
        let stream = match role.as_str() {
            "client" => TcpStream::connect(&address, Deadline::Never),
            _ => TcpListener::bind(&address).and_then(|listener| listener.accept_by(Deadline::Never)),
        };
        return send_sizes(stream.unwrap());
    }
    let _watchdog = watchdog(SECONDS);
    let test = "tcp::interrupted_connects_and_accepts_go_on_waiting";
    for role in ["client", "listener"] {
        let (port, scratch) = (Reserved::new(), Scratch::new());
        let ready = scratch.path("ready");
        let arguments = [("ADDRESS", &*port.address.to_string()), ("READY", ready.to_str().unwrap())];
        let peer = Peer::start(test, role, &arguments);
        eventually("the second process", || ready.exists());
        interrupt(peer.pid());
        let stream = if role == "client" {
            TcpListener::bind(&port.address).unwrap().accept_by(Deadline::Never)
        } else {
            TcpStream::connect(&port.address, Deadline::Never)
        };
        receive_sizes(stream.unwrap());
        peer.succeed();
    }
}

#[test]
fn addresses_tell_the_real_ports_and_parse_again() {
    for host in ["127.0.0.1", "::1"] {
        let listener = match TcpListener::bind(&local(host)) {
            Ok(listener) => listener,
            Err(error) => {
                skip("addresses_tell_the_real_ports_and_parse_again", &error.to_string());
                continue;
            }
        };
        let address = listener.local_address().unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(address.to_string().parse::<HostPort>().unwrap(), address);
        assert_eq!(address.to_string().starts_with('['), host.contains(':'), "{address}");
        let client = TcpStream::connect(&address, Deadline::Never).unwrap();
        let mut server = listener.accept_by(Deadline::Never).unwrap();
        assert_eq!(server.peer_address().unwrap(), client.local_address().unwrap());
        assert_eq!(client.peer_address().unwrap(), server.local_address().unwrap());
        let error = server.read_by(&mut [0], Deadline::Now).unwrap_err().to_string();
        assert!(error.contains(&format!("tcp:{address}")), "{error}");
    }
}

#[test]
fn small_writes_are_never_held_back() {
    let listener = TcpListener::bind(&local("127.0.0.1")).unwrap();
    let client = TcpStream::connect(&listener.local_address().unwrap(), Deadline::Never).unwrap();
    let server = listener.accept_by(Deadline::Never).unwrap();
    assert!(rustix::net::sockopt::tcp_nodelay(&client).unwrap());
    assert!(rustix::net::sockopt::tcp_nodelay(&server).unwrap());
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    let listener = TcpListener::bind(&local("127.0.0.1")).unwrap();
    runs_out_of_time(|deadline| listener.accept_by(deadline));
    assert!(matches!(listener.accept_by(Deadline::Now), Err(Error::WouldBlock { .. })));
    let mut client = TcpStream::connect(&listener.local_address().unwrap(), Deadline::Never).unwrap();
    let mut server = listener.accept_by(Deadline::Never).unwrap();
    runs_out_of_time(|deadline| client.read_by(&mut [0; 1], deadline));
    runs_out_of_time_when_full(&client);
    assert!(server.read_by(&mut [0; 65_536], Deadline::Now).unwrap() > 0);
}

#[test]
fn the_end_of_one_direction_leaves_the_other() {
    let listener = TcpListener::bind(&local("127.0.0.1")).unwrap();
    let mut client = TcpStream::connect(&listener.local_address().unwrap(), Deadline::Never).unwrap();
    let mut server = listener.accept_by(Deadline::Never).unwrap();
    client.write_all_by(b"last", Deadline::Never).unwrap();
    client.shutdown_write().unwrap();
    let mut buffer = [0; 16];
    assert_eq!(server.read_by(&mut buffer, Deadline::Never).unwrap(), 4);
    assert_eq!(server.read_by(&mut buffer, Deadline::Never).unwrap(), 0, "end of file");
    assert_eq!(client.write_by(b"x", Deadline::Never).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    server.write_all_by(b"answer", Deadline::Never).unwrap();
    assert_eq!(client.read_by(&mut buffer, Deadline::Never).unwrap(), 6);
}

#[test]
fn closing_with_unread_bytes_resets_the_connection() {
    let _watchdog = watchdog(SECONDS);
    let listener = TcpListener::bind(&local("127.0.0.1")).unwrap();
    let mut client = TcpStream::connect(&listener.local_address().unwrap(), Deadline::Never).unwrap();
    let server = listener.accept_by(Deadline::Never).unwrap();
    client.write_all_by(b"never read", Deadline::Never).unwrap();
    let mut fds = [rustix::event::PollFd::new(&server, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
    drop(server);
    let error = client.read_by(&mut [0; 1], Deadline::Never).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
    assert!(error.is_peer_gone());
}

#[test]
fn two_threads_use_both_directions_of_one_socket_at_once() {
    let _watchdog = watchdog(SECONDS);
    let listener = TcpListener::bind(&local("127.0.0.1")).unwrap();
    let one = TcpStream::connect(&listener.local_address().unwrap(), Deadline::Never).unwrap();
    let other = listener.accept_by(Deadline::Never).unwrap();
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
fn a_host_without_an_address_is_an_error_that_names_it() {
    // A label has at most 63 bytes, so no look-up leaves this machine.
    let host = "a".repeat(64) + ".invalid";
    let error = TcpStream::connect(&HostPort::new(&host, 7).unwrap(), Deadline::Now).unwrap_err();
    assert!(error.to_string().contains(&host), "{error}");
    let error = TcpListener::bind(&HostPort::new("192.0.2.1", 0).unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
}
