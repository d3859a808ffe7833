//! How two processes find each other, and what is left when they are gone.

use std::os::fd::AsFd;
use std::time::Duration;

use onecopy::address::ChannelName;
use onecopy::channel::Policy;
use onecopy::channel::rendezvous::{Listener, connect_by};
use onecopy::{Deadline, Error};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{Peer, Scratch, argument, eventually, role, skip, watchdog};
use crate::{
    MEMORY, both_names, connect_to, listen_at, mark, meet, open_descriptors, own_name, own_uid, place, raw_client,
    raw_listener, set_mark,
};

const SECONDS: Duration = Duration::from_secs(60);

fn named() -> ChannelName {
    argument("NAME").parse().unwrap()
}

/// A second process that runs `test` with the name.
fn start(test: &str, role: &str, name: &ChannelName) -> Peer {
    let parent = std::process::id().to_string();
    Peer::start(&format!("rendezvous::{test}"), role, &[("NAME", &name.to_string()), ("PARENT", &parent)])
}

#[test]
fn two_processes_meet_by_name_and_by_path_in_either_order() {
    if role().is_some() {
        let connection = connect_to(&named());
        assert_eq!(connection.peer().pid().to_string(), argument("PARENT"));
        assert_eq!((connection.peer().uid(), connection.is_listener()), (own_uid(), false));
        assert!(connection.peer().shares_pid_namespace());
        set_mark(connection.region(), 0x1234_5678_9abc_def0);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let test = "two_processes_meet_by_name_and_by_path_in_either_order";
    for name in both_names(&scratch) {
        for listener_first in [true, false] {
            let early = listener_first.then(|| listen_at(&name));
            let peer = start(test, "client", &name);
            let listener = early.unwrap_or_else(|| {
                std::thread::sleep(Duration::from_millis(30));
                listen_at(&name)
            });
            let connection = listener.accept_by(Deadline::Never).unwrap();
            assert_eq!((connection.peer().pid(), connection.peer().uid()), (peer.pid(), own_uid()));
            assert_eq!(connection.peer().gid(), rustix::process::getegid().as_raw());
            assert!(connection.is_listener() && connection.may_attach());
            assert_eq!(connection.region().len(), MEMORY);
            peer.succeed();
            assert_eq!(mark(connection.region()), 0x1234_5678_9abc_def0);
        }
    }
    assert!(!scratch.path("channel").exists(), "the file goes with its listener");
}

#[test]
fn the_end_of_the_other_process_shows_at_the_socket_and_at_the_pidfd() {
    if role().is_some() {
        let _connection = connect_to(&named());
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let mut peer = start("the_end_of_the_other_process_shows_at_the_socket_and_at_the_pidfd", "client", &name);
    let connection = listener.accept_by(Deadline::Never).unwrap();
    let pidfd = connection.peer().pidfd().unwrap();
    let ended = |timeout| {
        let mut fds = [PollFd::new(&connection, PollFlags::empty()), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        poll(&mut fds, timeout).unwrap();
        (fds[0].revents().contains(PollFlags::HUP), fds[1].revents().contains(PollFlags::IN))
    };
    assert_eq!(ended(Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), (false, false));
    peer.kill();
    eventually("both ends", || ended(None) == (true, true));
}

#[test]
fn a_dead_socket_file_is_replaced_and_a_living_listeners_is_not() {
    if role().is_some() {
        let _listener = listen_at(&named());
        println!("\nbound");
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    for name in both_names(&scratch) {
        let mut peer = start("a_dead_socket_file_is_replaced_and_a_living_listeners_is_not", "listener", &name);
        peer.wait_for_line("bound");
        let error = Listener::bind(&name, &Policy::default(), MEMORY).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE), "{error}");
        assert!(error.to_string().starts_with(&format!("bind on channel:{name}: ")), "{error}");
        peer.kill();
        let listener = listen_at(&name);
        meet(&listener, &name);
    }
    assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 0, "no file is left");
}

#[test]
fn many_clients_and_several_acceptors_get_connections_of_their_own() {
    const CLIENTS: u64 = 120;
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let mut marks: Vec<u64> = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let name = &name;
            scope.spawn(move || set_mark(connect_to(name).region(), client + 1));
        }
        let accept = || {
            let connections = (0..CLIENTS / 4).map(|_| listener.accept_by(Deadline::Never).unwrap());
            let marks = connections.map(|connection| {
                eventually("the mark of the client", || mark(connection.region()) != 0);
                mark(connection.region())
            });
            marks.collect::<Vec<_>>()
        };
        let acceptors: Vec<_> = (0..4).map(|_| scope.spawn(accept)).collect();
        acceptors.into_iter().flat_map(|acceptor| acceptor.join().unwrap()).collect()
    });
    marks.sort_unstable();
    assert_eq!(marks, (1..=CLIENTS).collect::<Vec<_>>());
    assert_eq!(listener.turned_away().count, 0, "{:?}", listener.turned_away());
}

#[test]
fn deadlines_hold_and_name_the_places_that_were_tried() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let policy = Policy::default().admit_user(7);
    let timed = |wait: Duration| {
        let start = std::time::Instant::now();
        let error = connect_by(&name, &policy, Deadline::after(wait)).unwrap_err();
        assert!(start.elapsed() >= wait);
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        error.to_string()
    };
    let error = timed(Duration::from_millis(30));
    let places = format!("nobody listens at {} or {}", place(&name, own_uid()), place(&name, 7));
    assert_eq!(error, format!("connect on channel:{name} ({places}) timed out"));
    let error = connect_by(&name, &policy, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    assert!(error.to_string().contains(&places), "{error}");

    let _silent = raw_listener(&place(&name, own_uid()));
    let error = timed(Duration::from_millis(30));
    let holder = format!("process {} with uid {} holds {}", std::process::id(), own_uid(), place(&name, own_uid()));
    assert!(error.contains(&holder) && error.contains("has not accepted"), "{error}");
    let error = connect_by(&name, &policy, Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::WouldBlock { .. }), "{error}");

    let listener = listen_at(&own_name());
    let error = listener.accept_by(Deadline::after(Duration::from_millis(30))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(matches!(listener.accept_by(Deadline::Now).unwrap_err(), Error::WouldBlock { .. }));
}

#[test]
fn a_client_that_waits_at_a_listener_which_goes_finds_the_next_one() {
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    for name in both_names(&scratch) {
        let first = listen_at(&name);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| connect_to(&name));
            let mut waits = [PollFd::new(&first, PollFlags::IN)];
            poll(&mut waits, None).unwrap();
            drop(first);
            let second = listen_at(&name);
            second.accept_by(Deadline::Never).unwrap();
            client.join().unwrap();
        });
    }
}

#[test]
fn what_no_listener_can_mend_is_an_error_at_once() {
    let scratch = Scratch::new();
    let name = ChannelName::path(scratch.path("file")).unwrap();
    std::fs::write(scratch.path("file"), "precious").unwrap();
    let error = connect_by(&name, &Policy::default(), Deadline::Never).unwrap_err();
    assert!(error.to_string().contains("no socket"), "{error}");
    let error = Listener::bind(&name, &Policy::default(), MEMORY).unwrap_err();
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(scratch.path("file")).unwrap(), "precious");

    let stream = ChannelName::path(scratch.path("stream")).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(scratch.path("stream")).unwrap();
    let error = connect_by(&stream, &Policy::default(), Deadline::Never).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPROTOTYPE), "{error}");
    let error = Listener::bind(&own_name(), &Policy::default(), 0);
    assert!(matches!(error, Err(Error::Invalid { .. })), "{error:?}");
}

#[test]
fn a_child_that_accepts_on_an_inherited_socket_is_the_peer() {
    if role().is_some() {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        let listener = Listener::from_fd(socket, "channel:inherited", &Policy::default(), MEMORY).unwrap();
        let connection = listener.accept_by(Deadline::Never).unwrap();
        assert_eq!(connection.peer().pid().to_string(), argument("PARENT"));
        set_mark(connection.region(), 77);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let socket = listener.as_fd().try_clone_to_owned().unwrap();
    let parent = std::process::id().to_string();
    let test = "rendezvous::a_child_that_accepts_on_an_inherited_socket_is_the_peer";
    let peer = Peer::configure(test, "server", &[("PARENT", &parent)], |command| {
        command.stdin(socket);
    });
    let connection = connect_to(&name);
    // SO_PEERCRED would name this process, which had the socket listen.
    assert_eq!(connection.peer().pid(), peer.pid());
    peer.succeed();
    assert_eq!(mark(connection.region()), 77);
}

#[test]
fn several_processes_accept_channels_at_one_name() {
    if role().is_some() {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        let listener = onecopy::Listener::from_fd(socket, "channel:inherited", &Policy::default()).unwrap();
        let mut channel = listener.accept().unwrap();
        let own = std::process::id().to_le_bytes();
        assert_eq!(channel.recv().unwrap().as_deref(), Some(&b"who?"[..]));
        return channel.send(&own).unwrap();
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = onecopy::Listener::bind_with(&name, &Policy::default()).unwrap();
    let servers = ["first", "second"].map(|server| {
        let socket = listener.as_fd().try_clone_to_owned().unwrap();
        let test = "rendezvous::several_processes_accept_channels_at_one_name";
        Peer::configure(test, server, &[], |command| {
            command.stdin(socket);
        })
    });
    let mut answered = [1, 2].map(|_| {
        let mut channel = onecopy::Channel::connect_by(&name, &Policy::default(), Deadline::Never).unwrap();
        channel.send(b"who?").unwrap();
        let answer = channel.recv().unwrap().unwrap();
        u32::from_le_bytes(answer[..].try_into().unwrap())
    });
    let mut expected = [servers[0].pid(), servers[1].pid()];
    answered.sort_unstable();
    expected.sort_unstable();
    assert_eq!(answered, expected);
    servers.into_iter().for_each(Peer::succeed);
}

#[test]
fn a_process_that_was_handed_a_connected_socket_is_the_peer() {
    if role().is_some() {
        let adopt = onecopy::channel::rendezvous::adopt_inherited_by;
        let connection = adopt(0, &Policy::default(), Deadline::Never).unwrap();
        assert_eq!(connection.peer().pid().to_string(), argument("PARENT"));
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let socket = raw_client(&name);
    let parent = std::process::id().to_string();
    let test = "rendezvous::a_process_that_was_handed_a_connected_socket_is_the_peer";
    let peer = Peer::configure(test, "client", &[("PARENT", &parent)], |command| {
        command.stdin(socket);
    });
    let connection = listener.accept_by(Deadline::Never).unwrap();
    assert_eq!(connection.peer().pid(), peer.pid());
    peer.succeed();
}

#[test]
fn a_client_of_a_listener_without_proc_is_told_so_and_does_not_try_again() {
    let test = "rendezvous::a_client_of_a_listener_without_proc_is_told_so_and_does_not_try_again";
    if role().is_some() {
        let hidden = std::process::Command::new("mount").args(["-t", "tmpfs", "none", "/proc"]).status().unwrap();
        assert!(hidden.success());
        let path = ChannelName::path(argument("PATH")).unwrap();
        let listener = onecopy::Listener::bind_with(&path, &Policy::default()).unwrap();
        println!("\n@listening");
        while listener.turned_away().count == 0 {
            assert!(listener.accept_by(Deadline::after(Duration::from_millis(50))).unwrap_err().is_out_of_time());
        }
        assert!(listener.turned_away().last.contains("/proc/self"), "{:?}", listener.turned_away());
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let path = scratch.path("channel");
    let Some(mut peer) = Peer::in_own_namespaces(test, "server", &[("PATH", path.to_str().unwrap())]) else {
        return skip(test, "no namespaces without privileges here");
    };
    peer.wait_for_line("@listening");
    let name = ChannelName::path(path).unwrap();
    let error = onecopy::Channel::connect_by(&name, &Policy::default(), Deadline::Never).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("/proc/self"), "{error}");
    peer.kill();
}

#[test]
fn connections_cost_one_descriptor_each_and_none_is_left() {
    const CONNECTIONS: usize = 30;
    if role().is_none() {
        // Alone in its process, so that no other test opens descriptors meanwhile.
        let _watchdog = watchdog(SECONDS);
        return start("connections_cost_one_descriptor_each_and_none_is_left", "alone", &own_name()).succeed();
    }
    let name = named();
    let before = open_descriptors();
    let listener = listen_at(&name);
    let pairs: Vec<_> = (0..CONNECTIONS).map(|_| meet(&listener, &name)).collect();
    // The listener, a socket for each side, and one pidfd for the process on the other side of all of them.
    assert_eq!(open_descriptors(), before + 1 + 2 * CONNECTIONS + 1);
    drop(pairs);
    assert_eq!(open_descriptors(), before + 1);
    drop(listener);
    assert_eq!(open_descriptors(), before);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains("memfd:onecopy-channel"), "memory is left:\n{maps}");
}

#[test]
fn policies_of_both_sides_decide_together() {
    let _watchdog = watchdog(SECONDS);
    let (open, closed) = (Policy::default().message_limit_bytes(1000), Policy::default().separate());
    for (ours, theirs, attach) in [(&open, &closed, false), (&closed, &open, false), (&open, &open, true)] {
        let name = own_name();
        let listener = Listener::bind(&name, ours, MEMORY).unwrap();
        std::thread::scope(|scope| {
            let client = scope.spawn(|| connect_by(&name, theirs, Deadline::Never).unwrap());
            let connection = listener.accept_by(Deadline::Never).unwrap();
            let other = client.join().unwrap();
            assert_eq!((connection.may_attach(), other.may_attach()), (attach, attach));
            assert_eq!(connection.limit_bytes(), other.peer_limit_bytes());
            assert_eq!(connection.peer_limit_bytes(), other.limit_bytes());
        });
    }
}
