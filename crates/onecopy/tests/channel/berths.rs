//! Streams of messages of some 100 KiB that their sender writes where they arrive, or puts into the ring where that is faster. What goes
//! to berths in any case is in the tests of the module.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onecopy::channel::{Path, Stats};
use onecopy::{Channel, Deadline, Error, Receiver as _, Sender as _, WaitStrategy};
use rustix::process::Signal;

use crate::death::signal;
use crate::duo::{KIB, MIB, adopt, apart, content, hash, is_attachable, kill_after, receive, rounds, soon, start};
use crate::prompt::has_one_core;
use crate::support::fork::in_child;
use crate::support::{Peer, role};

const SECONDS: Duration = Duration::from_secs(600);
const SECOND: &str = "second";
const BYTES: usize = 200 * KIB;

/// Whether `test` goes on here: in a process of its own, the second of which sends without end until this one is gone.
fn goes_on(test: &str, second: fn()) -> bool {
    match role().as_deref() {
        None => apart(test, "first", SECONDS),
        Some(SECOND) => second(),
        Some(_) => return is_attachable(test) && !has_one_core(test),
    }
    false
}

/// Sends messages as long as [`length`] says, numbered from 0 on, until the receiver is gone.
fn send_on() {
    let mut channel = adopt();
    channel.set_wait_strategy(WaitStrategy::Spin);
    let error = (0..).find_map(|number| channel.send(content(number, length(number))).err()).unwrap();
    assert!(error.is_peer_gone(), "{error}");
}

/// The length of a message: the most are long, some are short, and some take another way.
fn length(number: u64) -> usize {
    match hash(number) % 64 {
        0 => 100,
        1 => 5000,
        2 => 64 * KIB,
        3 => 512 * KIB - 1,
        4 => 600 * KIB,
        other => BYTES + other as usize,
    }
}

fn in_berths(stats: &Stats) -> u64 {
    stats.received(Path::SingleCopy).messages
}

/// How many messages are received at most before the next ones come to berths: where cores are near to each other none does.
const MOST: u64 = 2000;

/// Receives until messages come to berths, or so many did not, and returns the number of the next one.
fn until_in_berths(channel: &mut Channel) -> u64 {
    let mut number = 0;
    while in_berths(&channel.stats()) == 0 && number < MOST {
        receive(channel.receiver(), number, length(number), None);
        number += 1;
    }
    number
}

fn start_stream(test: &str) -> (Channel, Peer) {
    let (mut channel, peer) = start(test, SECOND, &[]);
    channel.set_wait_strategy(WaitStrategy::Spin);
    (channel, peer)
}

#[test]
fn a_long_stream_arrives_whole_and_in_order_whatever_is_kept_and_however_it_is_received() {
    let test = "berths::a_long_stream_arrives_whole_and_in_order_whatever_is_kept_and_however_it_is_received";
    if !goes_on(test, send_on) {
        return;
    }
    let (mut channel, peer) = start_stream(test);
    let first = until_in_berths(&mut channel);
    let mut kept = VecDeque::new();
    let mut buffer = vec![0; MIB];
    let mut registered = channel.register(MIB).unwrap();
    let last = first + rounds(1000, 100_000) as u64;
    let mut number = first;
    while number < last {
        let bytes = length(number);
        match hash(number + 1) % 32 {
            0 => receive(channel.receiver(), number, bytes, Some(&mut buffer)),
            1 => {
                assert_eq!(channel.recv_registered(&mut registered).unwrap(), Some(bytes));
                assert!(registered[..bytes] == *content(number, bytes), "message {number}");
            }
            2 => {
                let message = channel.recv_view().unwrap().unwrap().into_message().unwrap();
                assert!(message[..] == *content(number, bytes), "message {number}");
            }
            3 if bytes > 1000 => {
                let error = channel.receiver().recv_into_by(&mut [0; 1000], soon()).unwrap_err();
                assert!(
                    matches!(error, Error::BufferTooSmall { message_bytes, .. } if message_bytes == bytes),
                    "{error}"
                );
                receive(channel.receiver(), number, bytes, None);
            }
            _ => kept.push_back((number, channel.recv().unwrap().unwrap())),
        }
        if kept.len() > 20 {
            // Some are given back long after others that came later.
            let (number, message) = kept.remove(hash(number) as usize % kept.len()).unwrap();
            assert!(message[..] == *content(number, length(number)), "message {number}");
        }
        number += 1;
    }
    drop(channel);
    peer.succeed();
    for (number, message) in kept {
        assert!(message[..] == *content(number, length(number)), "message {number}");
    }
}

/// Sends what goes without waiting, and says by its last message how much that was.
fn send_now() {
    let mut channel = adopt();
    channel.set_wait_strategy(WaitStrategy::Spin);
    let mut number = 0;
    while channel.receiver().recv_by(Deadline::Now).is_err() {
        channel.send(content(number, BYTES)).unwrap();
        number += 1;
    }
    let error = loop {
        match channel.sender().send_by(content(number, BYTES), Deadline::Now) {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_out_of_time(), "{error}");
    channel.send(&number.to_le_bytes()).unwrap();
    // Until the other side has gone.
    assert!(channel.recv().unwrap().is_none());
}

#[test]
fn what_is_sent_without_waiting_arrives_and_no_more() {
    let test = "berths::what_is_sent_without_waiting_arrives_and_no_more";
    if !goes_on(test, send_now) {
        return;
    }
    let (mut channel, peer) = start_stream(test);
    let mut number = 0;
    while in_berths(&channel.stats()) < 50 && number < MOST {
        receive(channel.receiver(), number, BYTES, None);
        number += 1;
    }
    channel.send(b"stop").unwrap();
    // It comes to where nothing more goes, behind what was on its way.
    std::thread::sleep(Duration::from_millis(100));
    loop {
        let message = channel.recv().unwrap().unwrap();
        if message.len() == 8 {
            assert_eq!(message[..], number.to_le_bytes());
            break;
        }
        assert!(message[..] == *content(number, BYTES), "message {number}");
        number += 1;
    }
    drop(channel);
    peer.succeed();
}

#[test]
fn a_sender_that_is_stopped_and_killed_leaves_whole_messages() {
    let test = "berths::a_sender_that_is_stopped_and_killed_leaves_whole_messages";
    if !goes_on(test, send_on) {
        return;
    }
    for round in 0..rounds(8, 500) as u64 {
        let (mut channel, peer) = start_stream(test);
        let mut number = until_in_berths(&mut channel);
        signal(&peer, Signal::STOP);
        std::thread::sleep(Duration::from_micros(hash(round) % 2000));
        signal(&peer, Signal::CONT);
        let killer = kill_after(Duration::from_micros(hash(round) % 3000), peer);
        let mut kept = VecDeque::new();
        let error = loop {
            match channel.recv() {
                Ok(message) => kept.push_back((number, message.expect("no end"))),
                Err(error) => break error,
            }
            number += 1;
            if kept.len() > 8 {
                let (number, message) = kept.pop_front().unwrap();
                assert!(message[..] == *content(number, length(number)), "message {number} of round {round}");
            }
        };
        assert!(error.is_peer_gone(), "round {round}: {error}");
        killer.join().unwrap();
        drop(channel);
        for (number, message) in kept {
            assert!(message[..] == *content(number, length(number)), "message {number} of round {round}");
        }
    }
}

#[test]
fn a_child_made_by_fork_keeps_the_messages_of_its_parent() {
    let test = "berths::a_child_made_by_fork_keeps_the_messages_of_its_parent";
    if !goes_on(test, send_on) {
        return;
    }
    let (mut channel, peer) = start_stream(test);
    let mut number = until_in_berths(&mut channel);
    let is_over = AtomicBool::new(false);
    for _ in 0..rounds(5, 100) {
        let mut kept = VecDeque::new();
        for _ in 0..10 {
            kept.push_back((number, channel.recv().unwrap().unwrap()));
            number += 1;
        }
        std::thread::scope(|scope| {
            let (kept, is_over, channel, number) = (&kept, &is_over, &mut channel, &mut number);
            is_over.store(false, Ordering::Relaxed);
            let parent = scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    receive(channel.receiver(), *number, length(*number), None);
                    *number += 1;
                }
            });
            in_child(|| {
                std::thread::sleep(Duration::from_millis(20));
                kept.iter().all(|(number, message)| message[..] == *content(*number, length(*number)))
            });
            is_over.store(true, Ordering::Relaxed);
            parent.join().unwrap();
        });
        assert!(kept.iter().all(|(number, message)| message[..] == *content(*number, length(*number))));
    }
    drop(channel);
    peer.succeed();
}

/// Sends some and receives as many, as the other side does too.
fn both_send(mut channel: Channel) {
    channel.set_wait_strategy(WaitStrategy::Spin);
    for burst in 0..rounds(200, 10_000) as u64 {
        let numbers = burst * 8..(burst + 1) * 8;
        numbers.clone().for_each(|number| channel.send(content(number, BYTES)).unwrap());
        numbers.for_each(|number| receive(channel.receiver(), number, BYTES, None));
    }
}

#[test]
fn two_sides_that_send_at_the_same_time_need_not_wait_for_each_other() {
    let test = "berths::two_sides_that_send_at_the_same_time_need_not_wait_for_each_other";
    if !goes_on(test, || both_send(adopt())) {
        return;
    }
    let (channel, peer) = start(test, SECOND, &[]);
    both_send(channel);
    peer.succeed();
}
