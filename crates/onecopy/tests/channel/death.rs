//! The other side is killed, stopped, or becomes another program, at any time: nothing hangs, nothing is lost that was sent.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onecopy::memory::buffer::{Buffer, set_pool_limit_bytes};
use onecopy::{Channel, Deadline, Error, Listener, Receiver as _, Sender as _};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::duo::{KIB, MIB, adopt, apart, content, hash, resident_bytes, rounds, soon, start, start_with};
use crate::support::{Peer, argument, eventually, role, watchdog};

const SECONDS: Duration = Duration::from_secs(1800);

/// One length for each way: one line, two lines, the ring in one piece and in many, copied once.
pub(crate) const LENGTHS: [usize; 7] = [8, 100, 5000, 60_000, 200_000, 700_000, 3 * MIB];

/// Where in its file a sender notes how many messages it has sent: behind what the test harness prints there.
const SENT_AT: u64 = 4096;

pub(crate) fn signal(peer: &Peer, signal: Signal) {
    kill_process(Pid::from_raw(peer.pid().cast_signed()).unwrap(), signal).unwrap();
}

/// The second process: sends or receives messages of one length until somebody stops it.
fn exchange_for_ever(role: &str) {
    let length = argument("LENGTH").parse().unwrap();
    let mut channel = adopt();
    for number in 0.. {
        if role == "receiver" {
            receive(&mut channel, number, length, number % 2 == 0).unwrap();
            continue;
        }
        channel.send(content(number, length)).unwrap();
        if role == "noting sender" {
            rustix::io::pwrite(std::io::stdout(), &(number + 1).to_ne_bytes(), SENT_AT).unwrap();
        }
    }
}

/// Receives message `number`; false is the end.
fn receive(channel: &mut Channel, number: u64, length: usize, into: bool) -> Result<bool, Error> {
    receive_by(channel, number, length, into, Deadline::Never)
}

pub(crate) fn receive_by(
    channel: &mut Channel,
    number: u64,
    length: usize,
    into: bool,
    deadline: Deadline,
) -> Result<bool, Error> {
    let expected = content(number, length);
    if into {
        let mut buffer = vec![0; length];
        let Some(bytes) = channel.receiver().recv_into_by(&mut buffer, deadline)? else { return Ok(false) };
        assert!(bytes == length && buffer == expected, "message {number} of {length} bytes");
    } else {
        let Some(message) = channel.receiver().recv_by(deadline)? else { return Ok(false) };
        assert!(&message[..] == expected, "message {number} of {length} bytes");
    }
    Ok(true)
}

/// How many messages the second process has sent, as it noted in `file`.
fn sent(file: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    match rustix::io::pread(file, &mut bytes, SENT_AT).unwrap() {
        8 => u64::from_ne_bytes(bytes),
        _ => 0,
    }
}

#[test]
fn who_waits_behind_a_peer_that_was_killed_in_a_send_is_told_of_its_end() {
    let test = "death::who_waits_behind_a_peer_that_was_killed_in_a_send_is_told_of_its_end";
    if role().is_some() {
        let mut channel = adopt();
        println!("\n@sends");
        let error = channel.sender().send_by(content(1, 4 * MIB), soon()).unwrap_err();
        panic!("nobody receives, and it is killed: {error}");
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, mut peer) = start(test, "sender", &[]);
    channel.sender().send_owned_by(vec![6; MIB], Deadline::Now).unwrap();
    peer.line("@sends");
    crate::support::wait_until_asleep(peer.pid());
    peer.kill();
    // What it said last of its wait stands there for ever.
    let flushed = channel.sender().flush_by(soon()).unwrap_err();
    let sent = channel.sender().send_by(content(2, MIB), soon()).unwrap_err();
    for error in [flushed, sent] {
        assert!(matches!(error, Error::PeerGone { .. }), "{error}");
    }
}

/// How many messages went before the kills.
static MESSAGES: AtomicU64 = AtomicU64::new(0);

/// One round: kills the second process after some microseconds, and returns how long it took until this one knew.
fn killed(test: &str, round: u64) -> Duration {
    let length = LENGTHS[round as usize % LENGTHS.len()];
    let survivor_receives = (round / LENGTHS.len() as u64).is_multiple_of(2);
    let into = (round / 14).is_multiple_of(2);
    let note = memfd_create("note", MemfdFlags::CLOEXEC).unwrap();
    let theirs = note.try_clone().unwrap();
    let role = if survivor_receives { "noting sender" } else { "receiver" };
    let (mut channel, mut peer) = start_with(test, role, &[("LENGTH", &length.to_string())], |command| {
        command.stdout(theirs);
    });
    let pause = Duration::from_micros(hash(round) % 20_000);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(pause);
        let at = Instant::now();
        signal(&peer, Signal::KILL);
        peer.kill();
        at
    });
    let mut number = 0;
    let outcome = loop {
        let step = match survivor_receives {
            true => receive(&mut channel, number, length, into),
            false => channel.send(content(number, length)).map(|()| true),
        };
        match step {
            Ok(true) => number += 1,
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let known = Instant::now();
    let context = format!("round {round}: {role} of {length} bytes, after {number}, {outcome:?}");
    assert!(outcome.as_ref().is_err_and(Error::is_peer_gone), "{context}");
    MESSAGES.fetch_add(number, Ordering::Relaxed);
    if survivor_receives {
        assert!(number >= sent(&note), "{context}: {} were sent", sent(&note));
    }
    // From here on every call says so at once.
    for _ in 0..3 {
        assert!(channel.recv().unwrap_err().is_peer_gone(), "{context}");
        assert!(channel.send(b"hello").unwrap_err().is_peer_gone(), "{context}");
        assert!(channel.send(content(0, MIB)).unwrap_err().is_peer_gone(), "{context}");
    }
    known.saturating_duration_since(killer.join().unwrap())
}

#[test]
fn a_killed_peer_is_an_error_at_any_point_of_every_way() {
    let test = "death::a_killed_peer_is_an_error_at_any_point_of_every_way";
    match role().as_deref() {
        None => apart(test, "survivor", SECONDS),
        Some("survivor") => survive(test),
        Some(role) => exchange_for_ever(role),
    }
}

/// In a process of its own, whose descriptors and memory no other test changes.
fn survive(test: &str) {
    let rounds = rounds(56, 1000) as u64;
    const POOL_BYTES: usize = 16 * MIB;
    set_pool_limit_bytes(POOL_BYTES);
    let mut levels = Vec::new();
    let mut round = |round| {
        let time = killed(test, round);
        levels.push((crate::open_descriptors(), resident_bytes()));
        (time, round)
    };
    let mut times: Vec<(Duration, u64)> = (0..rounds).map(&mut round).collect();
    // After the longest messages have come by both ways the pool holds what it will; in few rounds some of what it may hold
    // comes late.
    let late_bytes = if rounds < 1000 { POOL_BYTES } else { 0 };
    let (warm, end) = (&levels[28..rounds as usize / 2 + 14], levels[rounds as usize - 1]);
    let warm_bytes = warm.iter().map(|level| level.1).max().unwrap();
    eprintln!("{} descriptors, {} KiB, then {} and {}", warm[0].0, warm_bytes / KIB, end.0, end.1 / KIB);
    // The thread that watches closes those of a dead peer, a moment after its death is known.
    let least = warm.iter().map(|level| level.0).min().unwrap();
    eventually("no descriptor is left", || crate::open_descriptors() <= least);
    assert!(end.1 <= warm_bytes + late_bytes + MIB, "{} KiB more", (end.1 - warm_bytes) / KIB);
    assert_eq!(leftovers(), Vec::<String>::new());
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2].0, &times[times.len() - 3..]);
    eprintln!("{} messages until they were killed", MESSAGES.load(Ordering::Relaxed));
    eprintln!("a killed peer was known after {median:?} (median); the longest of {rounds}: {longest:?}");
    // The design says 10 ms; a machine with other things to do may take longer.
    assert!(median < Duration::from_millis(500), "{median:?}");
}

#[test]
fn a_peer_killed_before_it_took_its_part_of_the_channel_is_an_error() {
    let test = "death::a_peer_killed_before_it_took_its_part_of_the_channel_is_an_error";
    if role().is_some() {
        use onecopy::channel::{Policy, rendezvous};
        let _connection = rendezvous::adopt_inherited_by(0, &Policy::default(), soon()).unwrap();
        println!("\n@met");
        std::thread::park();
        return;
    }
    let _watchdog = watchdog(SECONDS);
    for round in 0..3 {
        let (mut channel, mut peer) = start(test, "child", &[]);
        peer.line("@met");
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            peer.kill();
        });
        let error = if round == 0 { channel.recv().unwrap_err() } else { channel.send(content(1, MIB)).unwrap_err() };
        assert!(error.is_peer_gone(), "{error}");
        killer.join().unwrap();
        assert!(channel.recv().unwrap_err().is_peer_gone());
    }
}

/// What memory holds that was used again while the other side was stopped.
pub(crate) const CANARY: u8 = 0xc5;

pub(crate) fn canaries(length: usize) -> Vec<Buffer> {
    let sizes = [length, length, length, 100_000, 16 * MIB];
    let fill = |size| {
        let mut buffer = Buffer::warm(size).unwrap();
        buffer.fill(CANARY);
        buffer
    };
    sizes.into_iter().map(fill).collect()
}

/// Whether `buffer` holds what [`canaries`] wrote there.
pub(crate) fn is_whole(buffer: &[u8]) -> bool {
    // Compared with itself in one piece: byte by byte that is most of what an unoptimized test does.
    buffer[0] == CANARY && buffer[1..] == buffer[..buffer.len() - 1]
}

/// Receives what comes, until `end` and then until nothing comes any more; says how many messages those were.
fn drain(channel: &mut Channel, number: &mut u64, length: usize, into: bool, end: Instant) -> u64 {
    let begin = *number;
    loop {
        match receive_by(channel, *number, length, into, Deadline::after(Duration::from_millis(30))) {
            Ok(more) => {
                assert!(more, "the end");
                *number += 1;
            }
            Err(error) => {
                assert!(error.is_out_of_time(), "{error}");
                if Instant::now() >= end {
                    return *number - begin;
                }
            }
        }
    }
}

#[test]
fn a_stopped_sender_holds_up_nothing_and_writes_into_no_memory_that_is_used_again() {
    if let Some(role) = role() {
        return exchange_for_ever(&role);
    }
    let _watchdog = watchdog(SECONDS);
    let test = "death::a_stopped_sender_holds_up_nothing_and_writes_into_no_memory_that_is_used_again";
    set_pool_limit_bytes(64 * MIB);
    let mut messages = 0;
    for length in [3 * MIB, 300_000] {
        let (mut channel, peer) = start(test, "sender", &[("LENGTH", &length.to_string())]);
        let mut number = 0;
        for round in 0..rounds(25, 500) as u64 {
            let end = Instant::now() + Duration::from_micros(hash(round) % 5000);
            let stopped = std::thread::scope(|scope| {
                let stopped = scope.spawn(|| {
                    std::thread::sleep(end - Instant::now());
                    signal(&peer, Signal::STOP);
                    Instant::now()
                });
                messages += drain(&mut channel, &mut number, length, round % 4 == 3, end);
                stopped.join().unwrap()
            });
            assert!(stopped >= end);
            let canaries = canaries(length);
            signal(&peer, Signal::CONT);
            for _ in 0..3 {
                assert!(receive(&mut channel, number, length, round % 2 == 0).unwrap());
                number += 1;
            }
            for buffer in &canaries {
                assert!(is_whole(buffer), "a late write of {length} bytes");
            }
        }
    }
    println!("{messages} messages around the stops");
}

#[test]
fn a_stopped_receiver_is_waited_for_until_the_deadline_and_then_goes_on() {
    if let Some(role) = role() {
        return exchange_for_ever(&role);
    }
    let _watchdog = watchdog(SECONDS);
    let test = "death::a_stopped_receiver_is_waited_for_until_the_deadline_and_then_goes_on";
    for length in LENGTHS {
        let (mut channel, peer) = start(test, "receiver", &[("LENGTH", &length.to_string())]);
        let mut number = 0;
        for round in 0..rounds(5, 100) as u64 {
            let end = Instant::now() + Duration::from_micros(hash(round) % 5000);
            while Instant::now() < end {
                channel.send(content(number, length)).unwrap();
                number += 1;
            }
            signal(&peer, Signal::STOP);
            let continued = std::thread::spawn({
                let pid = Pid::from_raw(peer.pid().cast_signed()).unwrap();
                move || {
                    std::thread::sleep(Duration::from_millis(15));
                    kill_process(pid, Signal::CONT).unwrap();
                }
            });
            // One that the receiver has not taken in time is not sent, however far it was with it.
            match channel.sender().send_by(content(number, length), Deadline::after(Duration::from_millis(3))) {
                Ok(()) => number += 1,
                Err(error) => assert!(error.is_out_of_time(), "{error}"),
            }
            for _ in 0..20 {
                channel.send(content(number, length)).unwrap();
                number += 1;
            }
            continued.join().unwrap();
        }
    }
}

#[test]
fn a_peer_that_executes_another_program_is_gone() {
    let test = "death::a_peer_that_executes_another_program_is_gone";
    if let Some(role) = role() {
        let channel = adopt();
        println!("\n@ready");
        if role == "late" {
            std::thread::sleep(Duration::from_millis(30));
        }
        // It stays on beyond the exec.
        set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
        let error = Command::new("sleep").arg("600").stdin(Stdio::null()).exec();
        drop(channel);
        panic!("{error}");
    }
    let _watchdog = watchdog(SECONDS);
    for moment in ["late", "soon"] {
        for way in 0..3 {
            let (mut channel, mut peer) = start(test, moment, &[]);
            peer.line("@ready");
            let error = match way {
                0 => channel.recv().unwrap_err(),
                1 => channel.recv_into(&mut [0; 10]).unwrap_err(),
                _ => channel.send(content(0, MIB)).unwrap_err(),
            };
            assert!(error.is_peer_gone(), "{error}");
            peer.kill();
        }
    }
}

#[test]
fn messages_sent_before_the_end_arrive_before_the_end() {
    let test = "death::messages_sent_before_the_end_arrive_before_the_end";
    if let Some(role) = role() {
        let mut channel = adopt();
        (0..20).for_each(|number| channel.send(content(number, 1000)).unwrap());
        match &role[..] {
            // Nothing is dropped by that.
            "exit" => std::process::exit(0),
            "kill" => rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap(),
            _ => return,
        }
    }
    let _watchdog = watchdog(SECONDS);
    for role in ["close", "exit", "kill"] {
        let (mut channel, mut peer) = start(test, role, &[]);
        std::thread::sleep(Duration::from_millis(100));
        for number in 0..20 {
            assert!(receive(&mut channel, number, 1000, number % 2 == 0).unwrap(), "{role}");
        }
        for _ in 0..2 {
            match channel.recv() {
                Ok(None) => assert_eq!(role, "close"),
                Ok(Some(_)) => panic!("more than was sent"),
                Err(error) => assert!(error.is_peer_gone() && role != "close", "{role}: {error}"),
            }
        }
        peer.kill();
    }
}

/// What channels might leave behind: names of theirs in the places for such.
fn leftovers() -> Vec<String> {
    let entries = ["/dev/shm", "/tmp"].into_iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.contains("onecopy-channel")).collect()
}

#[test]
fn connections_leave_no_descriptor_no_memory_and_no_name_behind() {
    let test = "death::connections_leave_no_descriptor_no_memory_and_no_name_behind";
    let connections = rounds(220, 5000) as u64;
    match role().as_deref() {
        // In a process of its own, where no other test opens descriptors.
        Some("listener") => return accept_often(test, connections),
        Some(_) => return connect_often(connections),
        None => {}
    }
    let _watchdog = watchdog(SECONDS);
    Peer::configure(test, "listener", &[], |command| {
        command.stderr(Stdio::inherit());
    })
    .succeed_within(SECONDS);
    assert_eq!(leftovers(), Vec::<String>::new());
}

fn connect_often(connections: u64) {
    let name = argument("NAME");
    for round in 0..connections {
        let mut channel = Channel::connect(&name).unwrap();
        channel.send(content(round, 10)).unwrap();
        channel.send(content(round, 100 * KIB)).unwrap();
        assert!(channel.recv().unwrap().is_none());
    }
}

fn accept_often(test: &str, connections: u64) {
    let name = crate::support::unique("leak");
    let listener = Listener::bind(&name).unwrap();
    let peer = Peer::start(test, "connector", &[("NAME", &name)]);
    let mut levels = Vec::new();
    for round in 0..connections {
        let mut channel = listener.accept_by(soon()).unwrap();
        assert!(receive(&mut channel, round, 10, false).unwrap());
        assert!(receive(&mut channel, round, 100 * KIB, false).unwrap());
        drop(channel);
        levels.push((crate::open_descriptors(), resident_bytes()));
    }
    peer.succeed();
    let (warm, end) = (levels[20], levels[connections as usize - 1]);
    assert_eq!(end.0, warm.0, "descriptors");
    assert!(end.1 <= warm.1 + MIB, "{} KiB more", (end.1 - warm.1) / KIB);
}
