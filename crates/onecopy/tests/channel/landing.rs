//! Messages that both sides copy into memory which the sender has mapped.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onecopy::channel::{ChannelName, Message, Path, Policy};
use onecopy::memory::buffer::set_pool_limit_bytes;
use onecopy::{Channel, Listener};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::death::signal;
use crate::duo::{
    KIB, MIB, adopt, apart, content, hash, is_attachable, kill_after, resident_bytes, rounds, soon, start,
};
use crate::own_uid;
use crate::refusal::{is_filtered, lose_permission};
use crate::support::fork::in_child;
use crate::support::{Peer, argument, role, unique};

const SECONDS: Duration = Duration::from_secs(300);

const SECOND: &str = "second";

/// Whether `test` goes on here: in a process of its own, the second of which does what `second` says.
fn goes_on(test: &str, second: fn()) -> bool {
    match role().as_deref() {
        None => apart(test, "first", SECONDS),
        Some(SECOND) => second(),
        Some(_) => return is_attachable(test),
    }
    false
}

/// The memory of this process for what lands.
fn landings() -> Vec<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let address = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(address(start)..address(end))
    };
    maps.lines().filter(|line| line.contains("onecopy-landings")).filter_map(range).collect()
}

fn landing_bytes() -> usize {
    landings().iter().map(Range::len).sum()
}

fn has_landed(message: &Message) -> bool {
    landings().iter().any(|range| range.contains(&message.as_ptr().addr()))
}

/// The second process: sends back what it gets, until the end.
fn echo() {
    let mut channel = adopt();
    while let Some(message) = channel.recv().unwrap() {
        channel.send(&message).unwrap();
    }
}

/// The second process: sends what is asked for, a message with this number and this length, until the end.
fn serve() {
    let mut channel = adopt();
    while let Some(wanted) = channel.recv().unwrap() {
        let word = |start: usize| u64::from_le_bytes(wanted[start..start + 8].try_into().unwrap());
        channel.send(content(word(0), word(8) as usize)).unwrap();
    }
}

fn ask(channel: &mut Channel, number: u64, bytes: usize) -> Message {
    channel.send([number, bytes as u64].map(u64::to_le_bytes).as_flattened()).unwrap();
    channel.recv().unwrap().expect("an answer")
}

/// Has message `number` sent back.
fn there_and_back(channel: &mut Channel, number: u64, bytes: usize) -> Message {
    channel.send(content(number, bytes)).unwrap();
    channel.recv().unwrap().expect("an answer")
}

/// Until messages land here: that takes a sender that does its part, which one that has no processor leaves to the receiver.
fn until_they_land(channel: &mut Channel) {
    (0..).find(|&number| {
        drop(ask(channel, number, MIB));
        landing_bytes() > 0
    });
}

#[test]
fn messages_of_every_length_land_whole_whatever_is_kept_and_are_sent_back() {
    let test = "landing::messages_of_every_length_land_whole_whatever_is_kept_and_are_sent_back";
    if !goes_on(test, echo) {
        return;
    }
    let (mut channel, peer) = start(test, SECOND, &[]);
    let mut kept = VecDeque::new();
    for number in 0..rounds(300, 10_000) as u64 {
        let bytes = match hash(number) % 8 {
            0 => hash(number + 1) as usize % (6 * MIB),
            1..=4 => 64 * KIB + hash(number + 1) as usize % MIB,
            _ => (64 * KIB) << (hash(number + 1) % 6),
        };
        kept.push_back((number, there_and_back(&mut channel, number, bytes)));
        // Some are given back long after others that came later.
        let (number, message) = kept.remove(hash(number) as usize % kept.len()).unwrap();
        assert!(message[..] == *content(number, message.len()), "message {number} of {} bytes", message.len());
        if kept.len() < 6 {
            kept.push_front((number, message));
        }
    }
    for (number, message) in &kept {
        assert!(message[..] == *content(*number, message.len()), "message {number} of {} bytes", message.len());
    }
    let stats = channel.stats();
    assert!(
        stats.received(Path::Cooperative).messages > 0 && stats.received(Path::Registered).messages == 0,
        "{stats:?}"
    );
    assert_eq!(stats.fallbacks(), []);
    drop(channel);
    peer.succeed();
    // What is kept stays when the other side has gone.
    for (number, message) in kept {
        assert!(message[..] == *content(number, message.len()), "message {number} of {} bytes", message.len());
    }
    assert_eq!(landing_bytes(), 0, "all are given back");
}

#[test]
fn a_child_made_by_fork_keeps_the_messages_of_its_parent() {
    let test = "landing::a_child_made_by_fork_keeps_the_messages_of_its_parent";
    if !goes_on(test, serve) {
        return;
    }
    let (mut channel, peer) = start(test, SECOND, &[]);
    until_they_land(&mut channel);
    let messages: Vec<_> = (0..3).map(|number| ask(&mut channel, number, MIB)).collect();
    let messages = Mutex::new(Some(messages));
    let (mut told, mut tells) = std::io::pipe().unwrap();
    let (mut heard, mut hears) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let messages = &messages;
        let parent = scope.spawn(move || {
            // Once the child is there.
            told.read_exact(&mut [0]).unwrap();
            drop(messages.lock().unwrap().take());
            for number in 10..40 {
                let message = ask(&mut channel, number, MIB);
                assert!(message[..] == *content(number, MIB), "message {number}");
            }
            hears.write_all(b"y").unwrap();
            channel
        });
        in_child(|| {
            let own = messages.lock().unwrap().take().unwrap();
            tells.write_all(b"x").unwrap();
            heard.read_exact(&mut [0]).unwrap();
            (0..).zip(&own).all(|(number, message)| message[..] == *content(number, MIB))
        });
        drop(parent.join().unwrap());
    });
    peer.succeed();
}

#[test]
fn a_process_that_keeps_nothing_has_no_landings() {
    let test = "landing::a_process_that_keeps_nothing_has_no_landings";
    if !goes_on(test, serve) {
        return;
    }
    let (mut channel, peer) = start(test, SECOND, &[]);
    until_they_land(&mut channel);
    let (first, second) = (ask(&mut channel, 1, 3 * MIB), ask(&mut channel, 2, 5 * MIB));
    let all = landing_bytes();
    assert!((8 * MIB..=64 * MIB).contains(&all), "{all}");
    set_pool_limit_bytes(0);
    assert!(first[..] == *content(1, 3 * MIB) && second[..] == *content(2, 5 * MIB));
    drop((first, second));
    for number in 3..10 {
        let message = ask(&mut channel, number, 3 * MIB);
        assert!(message[..] == *content(number, 3 * MIB));
    }
    assert_eq!(landing_bytes(), 0);
    drop(channel);
    peer.succeed();
}

#[test]
fn where_memory_is_kept_apart_nothing_lands() {
    let test = "landing::where_memory_is_kept_apart_nothing_lands";
    if role().is_none() {
        return apart(test, "both", SECONDS);
    }
    let name = ChannelName::name(unique("apart")).unwrap();
    let policy = Policy::same_user().separate();
    let listener = Listener::bind_with(&name, &policy).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut channel = Channel::connect_by(&name, &policy, soon()).unwrap();
            while let Some(message) = channel.recv().unwrap() {
                channel.send(&message).unwrap();
            }
        });
        let mut channel = listener.accept_by(soon()).unwrap();
        for number in 0..30 {
            assert!(there_and_back(&mut channel, number, MIB)[..] == *content(number, MIB));
        }
        assert_eq!(landing_bytes(), 0);
    });
}

#[test]
fn what_a_child_has_stays_as_it_is_whenever_it_was_made() {
    let test = "landing::what_a_child_has_stays_as_it_is_whenever_it_was_made";
    if !goes_on(test, serve) {
        return;
    }
    let (mut channel, peer) = start(test, SECOND, &[]);
    until_they_land(&mut channel);
    let latest = Mutex::new(VecDeque::new());
    let (is_over, has_some) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                let message = ask(&mut channel, number, (64 * KIB) << (number % 4));
                has_some.fetch_or(has_landed(&message), Ordering::Relaxed);
                let mut latest = latest.lock().unwrap();
                latest.push_back((number, message));
                if latest.len() > 2 {
                    latest.pop_front();
                }
            }
        });
        for _ in 0..rounds(8, 500) {
            while !has_some.swap(false, Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(100));
            }
            in_child(|| {
                // One that its parent's other thread had locked stays so.
                let Ok(latest) = latest.try_lock() else { return true };
                (0..20).all(|_| {
                    std::thread::sleep(Duration::from_micros(100));
                    latest.iter().all(|(number, message)| message[..] == *content(*number, message.len()))
                })
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    drop(channel);
    peer.succeed();
}

/// The lengths of which one side may copy all.
fn short_length(number: u64) -> usize {
    64 * KIB + hash(number) as usize % (MIB - 64 * KIB)
}

#[test]
fn a_stopped_sender_writes_to_nothing_that_came_later() {
    let test = "landing::a_stopped_sender_writes_to_nothing_that_came_later";
    if !goes_on(test, serve) {
        return;
    }
    let mut alone = 0;
    for round in 0..rounds(10, 1000) as u64 {
        let (mut channel, peer) = start(test, SECOND, &[]);
        (0..).find(|&number| has_landed(&ask(&mut channel, number, MIB)));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for stop in 0..3 {
                    std::thread::sleep(Duration::from_micros(hash(round * 3 + stop) % 5_000));
                    signal(&peer, Signal::STOP);
                    // Longer than the receiver waits for it.
                    std::thread::sleep(Duration::from_millis(30));
                    signal(&peer, Signal::CONT);
                }
                is_over.store(true, Ordering::Relaxed);
            });
            let mut kept = VecDeque::new();
            for number in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                let bytes = if number % 2 == 0 { short_length(number) } else { 3 * MIB };
                kept.push_back((number, ask(&mut channel, number, bytes)));
                if kept.len() > 4 {
                    let (number, message) = kept.remove(hash(number) as usize % 5).unwrap();
                    assert!(message[..] == *content(number, message.len()), "message {number} of round {round}");
                }
            }
            kept.iter().for_each(|(number, message)| {
                assert!(message[..] == *content(*number, message.len()), "message {number} of round {round}");
            });
        });
        alone += channel.stats().received(Path::SingleCopy).messages;
        drop(channel);
        peer.succeed();
        assert_eq!(landing_bytes(), 0, "all are given back");
    }
    eprintln!("{alone} messages were copied without their stopped sender");
}

#[test]
fn a_side_that_is_killed_while_messages_land_is_an_error() {
    let test = "landing::a_side_that_is_killed_while_messages_land_is_an_error";
    if !goes_on(test, echo) {
        return;
    }
    for round in 0..rounds(50, 1000) as u64 {
        let (mut channel, peer) = start(test, SECOND, &[]);
        (0..).find(|&number| has_landed(&there_and_back(&mut channel, number, MIB)));
        let killer = kill_after(Duration::from_micros(hash(round) % 3000), peer);
        let error = (0..).find_map(|number: u64| {
            let content = content(number, short_length(round + number));
            let received = channel.send(content).and_then(|()| channel.recv());
            let message = received.map(Option::unwrap).map_err(|error| (number, error));
            message.map(|message| assert!(message[..] == *content, "message {number} of round {round}")).err()
        });
        let (number, error) = error.unwrap();
        assert!(error.is_peer_gone(), "round {round}, message {number}: {error}");
        assert!(channel.send(content(0, MIB)).unwrap_err().is_peer_gone());
        killer.join().unwrap();
        drop(channel);
        assert_eq!(landing_bytes(), 0, "all are given back");
    }
}

#[test]
fn another_thread_gives_places_back_while_others_are_taken() {
    let test = "landing::another_thread_gives_places_back_while_others_are_taken";
    if !goes_on(test, serve) {
        return;
    }
    let (mut channel, peer) = start(test, SECOND, &[]);
    until_they_land(&mut channel);
    let (gives, takes) = std::sync::mpsc::sync_channel::<(u64, Message)>(3);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (number, message) in takes {
                assert!(message[..] == *content(number, message.len()), "message {number}");
            }
        });
        for number in 0..rounds(2000, 40_000) as u64 {
            // The last one in an arena ends that where nothing is to be kept.
            set_pool_limit_bytes(if number % 8 < 4 { 64 * MIB } else { 0 });
            gives.send((number, ask(&mut channel, number, 64 * KIB))).unwrap();
        }
        drop(gives);
    });
    drop(channel);
    peer.succeed();
    assert_eq!(landing_bytes(), 0, "all are given back");
}

/// The second process: sends back what it gets, and may do less than before from the message of one byte on.
fn echo_and_lose() {
    let mut channel = adopt();
    while let Some(message) = channel.recv().unwrap() {
        if message.len() == 1 {
            lose_permission(&argument("HOW"));
        }
        channel.send(&message).unwrap();
    }
}

/// The first process, which loses the permission if the second one does not.
fn lose_while_messages_land(test: &str) {
    let (how, who) = (argument("HOW"), argument("WHO"));
    let role = if who == "other" { "echo and lose" } else { "echo" };
    let (mut channel, peer) = start(test, role, &[("HOW", &how)]);
    (0..).find(|&number| has_landed(&there_and_back(&mut channel, number, MIB)));
    let mut kept = VecDeque::new();
    for number in 0..100 {
        let bytes = if number % 4 == 0 { 3 * MIB } else { short_length(number) };
        if number == 20 {
            assert_eq!(there_and_back(&mut channel, number, 1)[..], *content(number, 1));
            if who == "own" {
                lose_permission(&how);
            }
        }
        kept.push_back((number, there_and_back(&mut channel, number, bytes)));
        if kept.len() > 3 {
            let (number, message) = kept.remove(hash(number) as usize % 4).unwrap();
            assert!(message[..] == *content(number, message.len()), "{how}, {who}: message {number}");
        }
    }
    let stats = channel.stats();
    // What this side receives had landed there, and is read without a call.
    if who == "other" && ["eperm", "enosys", "read", "kill"].contains(&how.as_str()) {
        assert!(!stats.fallbacks().is_empty(), "{how}: {stats:?}");
    }
    drop(channel);
    peer.succeed();
}

#[test]
fn permission_that_is_lost_while_messages_land_loses_none() {
    let test = "landing::permission_that_is_lost_while_messages_land_loses_none";
    match role().as_deref() {
        None => {}
        Some("asks") => return lose_while_messages_land(test),
        Some("echo") => return echo(),
        Some(_) => return echo_and_lose(),
    }
    if !is_attachable(test) {
        return;
    }
    for how in ["eperm", "enosys", "read", "write", "kill", "kill-write", "dumpable", "setuid"] {
        if how.starts_with("kill") && is_filtered() || how == "setuid" && own_uid() != 0 {
            // As `refusal` says.
            continue;
        }
        for who in ["own", "other"] {
            let peer = Peer::configure(test, "asks", &[("HOW", how), ("WHO", who)], |command| {
                command.stderr(Stdio::inherit());
            });
            peer.succeed_within(SECONDS);
        }
    }
}

/// The descriptors of this process, its mappings and its memory.
fn held() -> (usize, usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), maps, resident_bytes())
}

#[test]
fn nothing_grows_with_the_messages_that_land() {
    let test = "landing::nothing_grows_with_the_messages_that_land";
    if !goes_on(test, echo) {
        return;
    }
    let (mut channel, peer) = start(test, SECOND, &[]);
    let mut kept = VecDeque::new();
    let mut warm = (0, 0, 0);
    let messages = rounds(2000, 100_000) as u64;
    for number in 0..messages {
        let bytes = if hash(number).is_multiple_of(16) { 3 * MIB } else { short_length(number) };
        kept.push_back((number, there_and_back(&mut channel, number, bytes)));
        if kept.len() > 12 {
            let (number, message) = kept.remove(hash(number) as usize % 13).unwrap();
            assert!(message[..] == *content(number, message.len()), "message {number}");
        }
        if number == messages / 4 {
            warm = held();
        }
    }
    let end = held();
    assert!(end.0 <= warm.0 && end.1 <= warm.1 + 16 && end.2 <= warm.2 + 64 * MIB, "{warm:?}, then {end:?}");
    drop(channel);
    peer.succeed();
}

/// The second process, which can map nothing that it is passed: it has no number for another descriptor.
fn echo_without_descriptors() {
    let mut channel = adopt();
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(64);
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| std::io::stderr().as_fd().try_clone_to_owned().ok()).collect();
    assert!(taken.len() < 64);
    while let Some(message) = channel.recv().unwrap() {
        if message.len() == 1 {
            taken.clear();
        }
        channel.send(&message).unwrap();
    }
    let stats = channel.stats();
    let told =
        stats.fallbacks().iter().any(|fallback| format!("{fallback:?}").contains("registered memory of the other"));
    assert!(told, "{stats:?}");
}

#[test]
fn a_sender_that_can_map_nothing_sends_all_the_same_and_says_why() {
    let test = "landing::a_sender_that_can_map_nothing_sends_all_the_same_and_says_why";
    if !goes_on(test, echo_without_descriptors) {
        return;
    }
    let (mut channel, peer) = start(test, SECOND, &[]);
    (0..).find(|&number| has_landed(&there_and_back(&mut channel, number, MIB)));
    for number in 0..100 {
        let bytes = match number {
            50 => 1,
            _ if number % 4 == 0 => 3 * MIB,
            _ => short_length(number),
        };
        assert!(there_and_back(&mut channel, number, bytes)[..] == *content(number, bytes), "message {number}");
    }
    drop(channel);
    peer.succeed();
}

#[test]
fn a_receiver_without_memory_tells_its_sender_and_gets_the_message_when_it_has_some() {
    let test = "landing::a_receiver_without_memory_tells_its_sender_and_gets_the_message_when_it_has_some";
    if !goes_on(test, serve) {
        return;
    }
    let (mut channel, peer) = start(test, SECOND, &[]);
    until_they_land(&mut channel);
    // Nothing that is there is long enough, and nothing is kept.
    let bytes = 16 * MIB;
    set_pool_limit_bytes(0);
    let before = getrlimit(Resource::Data);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")).unwrap();
    let limit = (data.parse::<u64>().unwrap() << 10) + MIB as u64;
    channel.send([1, bytes as u64].map(u64::to_le_bytes).as_flattened()).unwrap();
    setrlimit(Resource::Data, Rlimit { current: Some(limit), ..before }).unwrap();
    let error = channel.receiver().recv_by(soon()).unwrap_err();
    setrlimit(Resource::Data, before).unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
    let message = channel.receiver().recv_by(soon()).unwrap().expect("the same one, by the ring");
    assert!(message[..] == *content(1, bytes));
    drop(channel);
    peer.succeed();
}
