//! Accepting in an event loop: by a descriptor that misses nothing, and is silent when there is nothing to do.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use onecopy::channel::Arming;
use onecopy::channel::rendezvous::{Connection, Listener};
use onecopy::{Deadline, Error};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use crate::support::fork::in_child;
use crate::support::{Peer, argument, role, watchdog};
use crate::{connect_to, hear, listen_at, own_name, raw_client, say};

const SECONDS: Duration = Duration::from_secs(60);
/// For what should not happen.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const CLIENTS: u64 = 40;

/// Waits until `fd` is readable; whether it is.
fn wait_for(fd: impl AsFd, limit: Option<&Timespec>) -> bool {
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], limit) {
            Ok(count) => return count > 0,
            Err(Errno::INTR) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}

fn accept_now(listener: &Listener) -> Option<Connection> {
    match listener.accept_by(Deadline::Now) {
        Err(Error::WouldBlock { .. }) => None,
        other => Some(other.unwrap()),
    }
}

/// Takes in all that is there. Afterwards there is nothing to do, and the descriptor does not say otherwise.
fn settle(listener: &Listener) -> Vec<Connection> {
    let mut accepted = Vec::new();
    loop {
        match accept_now(listener) {
            Some(connection) => accepted.push(connection),
            None if listener.arm().unwrap() == Arming::Armed => break,
            None => {}
        }
    }
    assert!(!wait_for(listener.poll_fd().unwrap(), Some(&MOMENT)), "there is nothing to do");
    accepted
}

/// Accepts one, by polling alone.
fn accept_polled(listener: &Listener) -> Connection {
    loop {
        match accept_now(listener) {
            Some(connection) => return connection,
            None if listener.arm().unwrap() == Arming::Armed => {
                wait_for(listener.poll_fd().unwrap(), None);
            }
            None => {}
        }
    }
}

/// Waits as an event loop does, which is told of changes alone.
struct ByEdge(OwnedFd);

impl ByEdge {
    fn of(listener: &Listener) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, listener.poll_fd().unwrap(), epoll::EventData::new_u64(0), events).unwrap();
        Self(epoll)
    }

    fn wait(&self) {
        let mut events = Vec::with_capacity(1);
        while let Ok(0) | Err(Errno::INTR) = epoll::wait(&self.0, spare_capacity(&mut events), None) {}
    }
}

#[test]
fn an_event_loop_accepts_all_who_connect_among_those_who_say_nothing_or_garbage() {
    let test = "listening::an_event_loop_accepts_all_who_connect_among_those_who_say_nothing_or_garbage";
    if role().is_some() {
        let name = onecopy::channel::ChannelName::name(argument("NAME")).unwrap();
        for number in 0..CLIENTS {
            let (silent, garbage) = (raw_client(&name), raw_client(&name));
            say(&garbage, b"x");
            connect_to(&name);
            if number % 3 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            drop((silent, garbage));
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    for by_edge in [false, true] {
        let name = own_name();
        let listener = listen_at(&name);
        let edge = ByEdge::of(&listener);
        let peer = Peer::start(test, "clients", &[("NAME", &name.to_string())]);
        let mut accepted = 0;
        while accepted < CLIENTS {
            if accept_now(&listener).is_some() {
                accepted += 1;
            } else if listener.arm().unwrap() == Arming::Ready {
                // Once more.
            } else if by_edge {
                edge.wait();
            } else {
                wait_for(listener.poll_fd().unwrap(), None);
            }
        }
        peer.succeed();
        assert_eq!(settle(&listener).len(), 0);
        assert_eq!(listener.turned_away().count, 2 * CLIENTS);
    }
}

#[test]
fn two_event_loops_and_a_thread_that_blocks_miss_nobody_together() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    std::thread::scope(|scope| {
        let polling: Vec<_> =
            (0..2).map(|_| scope.spawn(|| (0..10).for_each(|_| drop(accept_polled(&listener))))).collect();
        let blocking = scope.spawn(|| {
            for _ in 0..10 {
                listener.accept_by(Deadline::Never).unwrap();
            }
        });
        for _ in 0..30 {
            connect_to(&name);
        }
        polling.into_iter().for_each(|thread| thread.join().unwrap());
        blocking.join().unwrap();
    });
    assert_eq!(settle(&listener).len(), 0);
}

#[test]
fn the_descriptor_is_silent_while_strangers_are_and_tells_when_their_time_is_up() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    assert_eq!(settle(&listener).len(), 0);
    let start = Instant::now();
    let silent = raw_client(&name);
    assert!(wait_for(listener.poll_fd().unwrap(), None));
    assert_eq!(settle(&listener).len(), 0);
    assert_eq!(listener.turned_away().count, 0);
    while listener.turned_away().count == 0 {
        wait_for(listener.poll_fd().unwrap(), None);
        assert!(accept_now(&listener).is_none());
    }
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert_eq!(hear(&silent), b"", "the end");
    assert_eq!(settle(&listener).len(), 0);
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_handshake_is_told_of_and_forgotten() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let silent = raw_client(&name);
    assert_eq!(settle(&listener).len(), 0);
    drop(silent);
    assert!(wait_for(listener.poll_fd().unwrap(), None));
    assert_eq!(settle(&listener).len(), 0);
    assert_eq!(listener.turned_away().count, 1);
}

#[test]
fn what_comes_over_a_connection_that_was_accepted_is_none_of_its_listener() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    // Of some of them the handshake takes more than one call.
    let pairs: Vec<_> = (0..20)
        .map(|_| {
            std::thread::scope(|scope| {
                let client = scope.spawn(|| connect_to(&name));
                (accept_polled(&listener), client.join().unwrap())
            })
        })
        .collect();
    for (_, other) in &pairs {
        say(&other.as_fd().try_clone_to_owned().unwrap(), b"a word");
    }
    assert_eq!(settle(&listener).len(), 0);
    let own: Vec<_> = pairs.into_iter().map(|(own, _)| own).collect();
    assert_eq!(settle(&listener).len(), 0);
    drop(own);
}

#[test]
fn where_silent_clients_take_all_places_the_descriptor_tells_when_one_may_give_way() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    assert_eq!(listener.arm().unwrap(), Arming::Armed);
    let many: Vec<_> = (0..64).map(|_| raw_client(&name)).collect();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| connect_to(&name));
        accept_polled(&listener);
        client.join().unwrap();
    });
    assert!(listener.turned_away().last.contains("others wait"));
    drop(many);
    assert_eq!(settle(&listener).len(), 0);
}

#[test]
fn a_listener_costs_no_descriptor_more_until_it_is_armed_and_two_then() {
    let test = "listening::a_listener_costs_no_descriptor_more_until_it_is_armed_and_two_then";
    if role().is_none() {
        // Alone in its process, so that no other test opens descriptors meanwhile.
        let _watchdog = watchdog(SECONDS);
        return Peer::start(test, "alone", &[]).succeed();
    }
    let before = crate::open_descriptors();
    let listener = listen_at(&own_name());
    assert_eq!(crate::open_descriptors(), before + 1);
    let number = |listener: &Listener| std::os::fd::AsRawFd::as_raw_fd(&listener.poll_fd().unwrap());
    assert_eq!(number(&listener), number(&listener));
    assert_eq!(listener.arm().unwrap(), Arming::Armed);
    assert_eq!(crate::open_descriptors(), before + 3);
    drop(listener);
    assert_eq!(crate::open_descriptors(), before);
}

#[test]
fn a_child_polls_nothing_of_its_parents_and_takes_nothing_from_it() {
    let test = "listening::a_child_polls_nothing_of_its_parents_and_takes_nothing_from_it";
    if role().is_none() {
        let _watchdog = watchdog(SECONDS);
        return Peer::start(test, "forks", &[]).succeed();
    }
    let name = own_name();
    let listener = listen_at(&name);
    let silent = raw_client(&name);
    assert_eq!(settle(&listener).len(), 0);
    in_child(|| {
        let is_refused = listener.arm().is_err_and(|error| error.to_string().contains("fork"));
        // It has a copy of the handshake, and ends it.
        rustix::net::shutdown(&silent, rustix::net::Shutdown::Both).unwrap();
        is_refused && accept_now(&listener).is_none() && listener.turned_away().count == 1
    });
    assert!(wait_for(listener.poll_fd().unwrap(), None));
    assert_eq!(settle(&listener).len(), 0);
    assert_eq!(listener.turned_away().count, 1);
}
