//! The ring, over all memory that can be shared, between real processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onecopy::memory::Region;
use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::posix_shm::PosixShm;
use onecopy::memory::ring::{MIN_RING_BYTES, RING_BYTES, RingReceiver, RingSender};
use onecopy::memory::sysv_shm::SysvShm;
use onecopy::{Deadline, Error, PosixName, Receiver, Sender, SysvName, WaitStrategy};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::fork::in_child;
use crate::support::{Peer, Scratch, pattern, role, unique, watchdog};
use crate::{inheriting, is_forked, park, tell, told, wait_for_line};

const SIZES: [usize; 13] = [0, 1, 8, 56, 57, 63, 64, 65, 105, 4096, (64 << 10) - 1, (64 << 10) + 1, (1 << 20) + 3];
const BIG: usize = 16 << 20;
const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::Adaptive, WaitStrategy::Block];
const SOON: Duration = Duration::from_secs(20);

fn memfd() -> AnonymousMapping {
    AnonymousMapping::create("ring", RING_BYTES).unwrap()
}

/// A second process, whose ring is the memfd in its standard input.
fn peer(test: &str, role: &str, mapping: &AnonymousMapping) -> Peer {
    inheriting(test, role, &[], mapping.try_clone_fd().unwrap())
}

fn inherited() -> Region {
    AnonymousMapping::from_inherited(0).unwrap().into_region()
}

fn sender(region: impl Into<Arc<Region>>) -> RingSender {
    RingSender::attach(region, Deadline::after(SOON)).unwrap()
}

fn receiver(region: impl Into<Arc<Region>>) -> RingReceiver {
    RingReceiver::attach(region, Deadline::after(SOON)).unwrap()
}

/// A sender and a receiver in this process.
fn pair() -> (RingSender, RingReceiver) {
    let region = Arc::new(memfd().into_region());
    (sender(Arc::clone(&region)), receiver(region))
}

fn signal(peer: &Peer, signal: Signal) {
    kill_process(Pid::from_raw(peer.pid().cast_signed()).unwrap(), signal).unwrap();
}

/// A message that says which it is and how long, and of which every byte is checked.
fn numbered(number: u64) -> Vec<u8> {
    const LENGTHS: [usize; 8] = [8, 56, 64, 200, 4096, 20_000, 70_000, 300_000];
    let mut message = vec![(number * 31) as u8; LENGTHS[(number % 8) as usize]];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

fn check_numbered(message: &[u8]) -> u64 {
    let number = u64::from_le_bytes(message[..8].try_into().unwrap());
    assert!(message == numbered(number), "message {number} of {} bytes arrived torn or mixed", message.len());
    number
}

/// Memory of one kind, and how the second process finds it.
fn all_kinds(scratch: &Scratch) -> Vec<(&'static str, String)> {
    let path = scratch.path("ring").to_str().unwrap().to_owned();
    let key = rustix::process::getpid().as_raw_nonzero().get().rotate_left(8) ^ 0x52_49;
    vec![("shm", format!("/{}", unique("ring"))), ("sysv", key.to_string()), ("file", path)]
}

fn open(kind: &str, name: &str, create: bool) -> Region {
    let len = RING_BYTES;
    match (kind, create) {
        ("shm", true) => PosixShm::create(&PosixName::new(name).unwrap(), len, 0o600).unwrap().into_region(),
        ("shm", false) => PosixShm::open(&PosixName::new(name).unwrap()).unwrap().into_region(),
        ("sysv", true) => SysvShm::create(&sysv(name), len, 0o600).unwrap().into_region(),
        ("sysv", false) => SysvShm::open(&sysv(name)).unwrap().into_region(),
        (_, true) => FileMapping::create(name.as_ref(), len, 0o600).unwrap().into_region(),
        (_, false) => FileMapping::open(name.as_ref()).unwrap().into_region(),
    }
}

fn sysv(name: &str) -> SysvName {
    SysvName::key(name.parse().unwrap()).unwrap()
}

/// Removes what a test named, also when it fails.
struct Named(&'static str, String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = match self.0 {
            "shm" => PosixShm::unlink(&PosixName::new(&self.1).unwrap()),
            "sysv" => SysvShm::remove_named(&sysv(&self.1)),
            _ => FileMapping::remove(self.1.as_ref()),
        };
    }
}

fn send_all_sizes(sender: &mut RingSender) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        sender.send(&pattern(size, seed as u64)).unwrap();
    }
    sender.send(&vec![7; BIG]).unwrap();
    for number in 0..2000 {
        sender.send(&numbered(number % 3)).unwrap();
    }
}

fn receive_all_sizes(receiver: &mut RingReceiver) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let message = receiver.recv().unwrap().unwrap();
        assert!(message == pattern(size, seed as u64), "message of {size} bytes");
    }
    assert!(receiver.recv().unwrap().unwrap() == vec![7; BIG]);
    for number in 0..2000 {
        assert_eq!(check_numbered(&receiver.recv().unwrap().unwrap()), number % 3);
    }
    assert_eq!(receiver.recv().unwrap(), None);
    assert_eq!(receiver.recv().unwrap(), None, "the end stays the end");
}

#[test]
fn messages_of_all_sizes_over_all_kinds_of_memory() {
    if role().is_some() {
        let mut sender = sender(open(&told("KIND"), &told("NAME"), false));
        return send_all_sizes(&mut sender);
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    let scratch = Scratch::new();
    for (kind, name) in all_kinds(&scratch) {
        let region = open(kind, &name, true);
        let named = Named(kind, name);
        let arguments = [("KIND", kind), ("NAME", &named.1)];
        let peer = Peer::start("ring::messages_of_all_sizes_over_all_kinds_of_memory", "sender", &arguments);
        receive_all_sizes(&mut receiver(region));
        peer.succeed();
    }
}

#[test]
fn messages_of_all_sizes_with_all_strategies() {
    let name = "ring::messages_of_all_sizes_with_all_strategies";
    if let Some(role) = role() {
        let mut sender = sender(inherited());
        sender.set_wait_strategy(STRATEGIES[role.parse::<usize>().unwrap()]);
        return send_all_sizes(&mut sender);
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    for (index, strategy) in STRATEGIES.into_iter().enumerate() {
        let mapping = memfd();
        let peer = peer(name, &((index + 1) % 3).to_string(), &mapping);
        let mut receiver = receiver(mapping.into_region());
        receiver.set_wait_strategy(strategy);
        receive_all_sizes(&mut receiver);
        peer.succeed();
    }
}

#[test]
fn a_ring_in_the_smallest_region_carries_large_messages() {
    let region = Arc::new(AnonymousMapping::create("small", MIN_RING_BYTES).unwrap().into_region());
    let (mut sender, mut receiver) = (sender(Arc::clone(&region)), receiver(region));
    let message = pattern(100_000, 5);
    let expected = message.clone();
    let thread = std::thread::spawn(move || sender.send(&message).unwrap());
    assert!(receiver.recv().unwrap().unwrap() == expected);
    thread.join().unwrap();
}

#[test]
fn what_an_exited_sender_left_is_received_later_and_its_end_told_once() {
    if role().is_some() {
        let mut sender = sender(inherited());
        for number in 0..3 {
            sender.send(&numbered(number)).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mapping = memfd();
    let test = "ring::what_an_exited_sender_left_is_received_later_and_its_end_told_once";
    peer(test, "sender", &mapping).succeed();
    let region = Arc::new(mapping.into_region());
    let mut first = receiver(Arc::clone(&region));
    for number in 0..3 {
        assert_eq!(check_numbered(&first.recv().unwrap().unwrap()), number);
    }
    assert_eq!(first.recv().unwrap(), None);
    drop(first);
    let mut second = receiver(Arc::clone(&region));
    assert!(second.try_recv_into(&mut [0; 8]).unwrap_err().is_out_of_time(), "it waits for the next sender");
    sender(region).send(b"next").unwrap();
    assert_eq!(second.recv().unwrap().as_deref(), Some(&b"next"[..]));
    assert_eq!(second.recv().unwrap(), None);
}

#[test]
fn the_end_of_a_sender_of_whom_everything_was_taken_is_not_told_to_the_next_receiver() {
    let region = Arc::new(memfd().into_region());
    for round in 0..3 {
        let mut first = receiver(Arc::clone(&region));
        sender(Arc::clone(&region)).send(&numbered(round)).unwrap();
        assert_eq!(check_numbered(&first.recv().unwrap().unwrap()), round);
    }
    drop(sender(Arc::clone(&region)));
    let mut last = receiver(region);
    assert_eq!(last.recv().unwrap(), None, "of one that sent nothing it is");
}

#[test]
fn a_second_sender_or_receiver_is_refused_while_the_first_lives() {
    if let Some(role) = role() {
        let region = Arc::new(inherited());
        if role == "sender" {
            let _sender = sender(region);
            tell("ready");
            park();
        }
        let _receiver = receiver(region);
        tell("ready");
        park();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    for (role, mapping) in [("sender", memfd()), ("receiver", memfd())] {
        let mut peer = peer("ring::a_second_sender_or_receiver_is_refused_while_the_first_lives", role, &mapping);
        wait_for_line(&mut peer, "ready");
        let region = Arc::new(mapping.into_region());
        let attach = || match role {
            "sender" => RingSender::attach(Arc::clone(&region), Deadline::Never).map(drop),
            _ => RingReceiver::attach(Arc::clone(&region), Deadline::Never).map(drop),
        };
        let error = attach().unwrap_err();
        assert!(matches!(&error, Error::Occupied { pid, role: r, .. } if *pid == peer.pid() && *r == role), "{error}");
        peer.kill();
        attach().unwrap();
    }
}

#[test]
fn a_killed_sender_tears_at_most_one_message_and_its_successor_none() {
    let test = "ring::a_killed_sender_tears_at_most_one_message_and_its_successor_none";
    if let Some(role) = role() {
        let mut sender = sender(inherited());
        sender.set_wait_strategy(STRATEGIES[role.parse::<usize>().unwrap()]);
        for number in 0.. {
            sender.send(&numbered(number)).unwrap();
        }
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    for round in 0..50_u64 {
        let mapping = memfd();
        let mut peer = peer(test, &(round % 3).to_string(), &mapping);
        let region = Arc::new(mapping.into_region());
        let mut receiver = receiver(Arc::clone(&region));
        receiver.set_wait_strategy(STRATEGIES[(round / 3 % 3) as usize]);
        let mut expected = 0;
        let last = round * 7;
        let error = loop {
            match receiver.recv() {
                Ok(message) => {
                    assert_eq!(check_numbered(&message.unwrap()), expected);
                    expected += 1;
                }
                Err(error) => break error,
            }
            if expected == last + 1 {
                std::thread::sleep(Duration::from_micros(round * 10));
                peer.kill();
            }
        };
        assert!(error.is_peer_gone(), "round {round}: {error}");
        let mut successor = sender(region);
        successor.send(&numbered(6)).unwrap();
        assert_eq!(check_numbered(&receiver.recv().unwrap().unwrap()), 6);
        drop(successor);
        assert_eq!(receiver.recv().unwrap(), None);
    }
}

#[test]
fn a_message_torn_before_the_receiver_came_is_reported_once() {
    if role().is_some() {
        let mut sender = sender(inherited());
        sender.send(b"whole").unwrap();
        // Longer than the ring, so it stays there in the middle of it.
        sender.send_by(&vec![1; BIG], Deadline::after(Duration::from_millis(1))).unwrap();
        tell("torn");
        park();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mapping = memfd();
    let mut peer = peer("ring::a_message_torn_before_the_receiver_came_is_reported_once", "sender", &mapping);
    wait_for_line(&mut peer, "torn");
    peer.kill();
    let region = Arc::new(mapping.into_region());
    let mut receiver = receiver(Arc::clone(&region));
    assert_eq!(receiver.recv().unwrap().as_deref(), Some(&b"whole"[..]));
    let mut buffer = vec![0; BIG];
    let error = receiver.recv_into(&mut buffer).unwrap_err();
    assert!(error.is_peer_gone() && error.to_string().contains("of 16777216 bytes"), "{error}");
    let error = receiver.recv_into(&mut buffer).unwrap_err();
    assert!(error.is_peer_gone() && !error.to_string().contains("of 16777216 bytes"), "{error}");
    sender(region).send(b"after").unwrap();
    assert_eq!(receiver.recv().unwrap().as_deref(), Some(&b"after"[..]));
}

#[test]
fn a_killed_receiver_is_noticed_by_a_sender_that_waits() {
    let test = "ring::a_killed_receiver_is_noticed_by_a_sender_that_waits";
    if let Some(role) = role() {
        let mut receiver = receiver(inherited());
        receiver.set_wait_strategy(STRATEGIES[role.parse::<usize>().unwrap()]);
        while let Some(message) = receiver.recv().unwrap() {
            check_numbered(&message);
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    for round in 0..50_u64 {
        let mapping = memfd();
        let mut peer = peer(test, &(round % 3).to_string(), &mapping);
        let region = Arc::new(mapping.into_region());
        let mut sender = sender(Arc::clone(&region));
        sender.set_wait_strategy(STRATEGIES[(round / 3 % 3) as usize]);
        // It has attached when it has taken more than fits.
        for number in 0..60 + round {
            sender.send(&numbered(number)).unwrap();
        }
        peer.kill();
        let start = Instant::now();
        let error = loop {
            if let Err(error) = sender.send_by(&numbered(7), Deadline::after(SOON)) {
                break error;
            }
        };
        assert!(error.is_peer_gone(), "round {round}: {error}");
        assert!(start.elapsed() < SOON);
        // What the dead one had not taken goes to its successor, and perhaps news of a message that it had begun.
        let mut successor = receiver(region);
        let flood = std::thread::spawn(move || sender.send(&numbered(1)).unwrap());
        let mut lost = 0;
        loop {
            match successor.recv_by(Deadline::after(SOON)) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    check_numbered(&message);
                }
                Err(error) => {
                    assert!(error.is_peer_gone(), "{error}");
                    lost += 1;
                }
            }
        }
        flood.join().unwrap();
        assert!(lost <= 2, "one message that the dead receiver had begun, one that the sender gave up");
    }
}

#[test]
fn a_closed_receiver_is_noticed_when_the_ring_is_full() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (mut sender, receiver) = pair();
    sender.send(b"one").unwrap();
    drop(receiver);
    let error = sender.send(&vec![0; BIG]).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
}

#[test]
fn a_receiver_that_left_before_the_sender_came_is_waited_for() {
    let region = Arc::new(memfd().into_region());
    drop(receiver(Arc::clone(&region)));
    let mut sender = sender(region);
    let accepted = sender.send_by(&vec![0; BIG], Deadline::after(Duration::from_millis(60)));
    accepted.unwrap();
    let error = sender.flush_by(Deadline::after(Duration::from_millis(60))).unwrap_err();
    assert!(error.is_out_of_time(), "{error}");
}

#[test]
fn a_stopped_peer_is_a_timeout_and_goes_on_where_it_was() {
    if role().is_some() {
        let mut sender = sender(inherited());
        for number in 0..500 {
            sender.send(&numbered(number)).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mapping = memfd();
    let peer = peer("ring::a_stopped_peer_is_a_timeout_and_goes_on_where_it_was", "sender", &mapping);
    let mut receiver = receiver(mapping.into_region());
    let mut expected = 0;
    for _ in 0..10 {
        while expected % 50 != 49 {
            assert_eq!(check_numbered(&receiver.recv().unwrap().unwrap()), expected);
            expected += 1;
        }
        signal(&peer, Signal::STOP);
        loop {
            let start = Instant::now();
            match receiver.recv_by(Deadline::after(Duration::from_millis(20))) {
                Ok(Some(message)) => assert_eq!(check_numbered(&message), expected),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.is_out_of_time(), "{error}");
                    assert!(start.elapsed() >= Duration::from_millis(20));
                    break;
                }
            }
            expected += 1;
        }
        signal(&peer, Signal::CONT);
        if expected < 500 {
            assert_eq!(check_numbered(&receiver.recv().unwrap().unwrap()), expected);
            expected += 1;
        }
        if expected >= 499 {
            break;
        }
    }
    while let Some(message) = receiver.recv().unwrap() {
        assert_eq!(check_numbered(&message), expected);
        expected += 1;
    }
    assert_eq!(expected, 500);
    peer.succeed();
}

#[test]
fn deadlines_wait_as_long_as_they_say_and_lose_nothing() {
    for strategy in STRATEGIES {
        let (mut sender, mut receiver) = pair();
        sender.set_wait_strategy(strategy);
        receiver.set_wait_strategy(strategy);
        let wait = Duration::from_millis(70);
        assert!(matches!(receiver.try_recv_into(&mut []), Err(Error::WouldBlock { .. })));
        let start = Instant::now();
        let error = receiver.recv_by(Deadline::after(wait)).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= wait, "{error}");

        let mut sent = 0;
        while sender.try_send(&numbered(sent)).is_ok() {
            sent += 1;
        }
        let start = Instant::now();
        let error = sender.send_by(b"late", Deadline::after(wait)).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= wait, "{error}");
        let thread = std::thread::spawn(move || {
            sender.flush_by(Deadline::Never).unwrap();
            sender.send(&numbered(sent)).unwrap();
        });
        for number in 0..=sent {
            assert_eq!(check_numbered(&receiver.recv().unwrap().unwrap()), number);
        }
        thread.join().unwrap();
        assert_eq!(receiver.recv().unwrap(), None);
    }
}

#[test]
fn a_message_received_in_several_calls_is_whole() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (mut sender, mut receiver) = pair();
    let message = pattern(9 << 20, 8);
    let mut buffer = vec![0; 9 << 20];
    sender.send_by(&message, Deadline::Now).unwrap();
    let mut calls = 0;
    loop {
        match receiver.try_recv_into(&mut buffer) {
            Ok(len) => {
                assert_eq!(len, Some(message.len()));
                break;
            }
            Err(error) => assert!(error.is_out_of_time(), "{error}"),
        }
        calls += 1;
        if calls == 3 {
            let error = receiver.try_recv_into(&mut buffer[..100]).unwrap_err();
            assert!(
                matches!(error, Error::BufferTooSmall { message_bytes: 9_437_184, buffer_bytes: 100, .. }),
                "{error}"
            );
        }
        let _ = sender.flush_by(Deadline::Now);
    }
    assert!(calls > 3 && buffer == message);
}

#[test]
fn a_message_that_does_not_fit_stays_and_one_beyond_the_limit_goes() {
    let (mut sender, mut receiver) = pair();
    for len in [5_usize, 64, 100, 5000, 100_000] {
        sender.send(&vec![len as u8; len]).unwrap();
        let error = receiver.recv_into(&mut vec![0; len - 1]).unwrap_err();
        let Error::BufferTooSmall { message_bytes, buffer_bytes, .. } = error else { panic!("{error}") };
        assert_eq!((message_bytes, buffer_bytes), (len, len - 1));
        assert_eq!(receiver.recv().unwrap().unwrap(), vec![len as u8; len]);
    }
    receiver.set_limit_bytes(100);
    for len in [101_usize, 5000, 100_000] {
        sender.send(&vec![1; len]).unwrap();
        sender.send(b"next").unwrap();
        let error = receiver.recv().unwrap_err();
        assert!(
            matches!(error, Error::TooLong { message_bytes, limit_bytes: 100, .. } if message_bytes == len),
            "{error}"
        );
        assert_eq!(receiver.recv().unwrap().unwrap(), b"next");
    }
}

#[test]
fn regions_that_hold_something_else_are_refused_untouched() {
    let attach = |region: Region| RingSender::attach(region, Deadline::Now).unwrap_err().to_string();
    let short = AnonymousMapping::create("short", MIN_RING_BYTES - 1).unwrap().into_region();
    let error = attach(short);
    assert!(error.contains("36863") && error.contains("36864"), "{error}");

    for (offset, content) in [(0, &b"some text in the way"[..]), (600, b"x"), (8, b"onecRi")] {
        let mapping = memfd();
        mapping.region().write_at(offset, content).unwrap();
        let copy = AnonymousMapping::from_fd(mapping.try_clone_fd().unwrap()).unwrap();
        let error = attach(mapping.into_region());
        assert!(error.contains("is no ring"), "{error}");
        let mut before = vec![0; RING_BYTES];
        before[offset..offset + content.len()].copy_from_slice(content);
        let mut after = vec![0; RING_BYTES];
        copy.region().read_at(0, &mut after).unwrap();
        assert!(before == after, "{content:?} at {offset} was changed");
    }

    let mapping = memfd();
    drop(sender(AnonymousMapping::from_fd(mapping.try_clone_fd().unwrap()).unwrap().into_region()));
    mapping.region().write_at(6, &9_u16.to_le_bytes()).unwrap();
    let error = attach(mapping.into_region());
    assert!(error.contains("layout version 9") && error.contains("version 1"), "{error}");

    let name = PosixName::new(format!("/{}", unique("ring"))).unwrap();
    let _shm = PosixShm::create(&name, RING_BYTES, 0o600).unwrap();
    let _named = Named("shm", name.as_os_str().to_str().unwrap().to_owned());
    let error = attach(PosixShm::open_read_only(&name).unwrap().into_region());
    assert!(error.contains("read-only"), "{error}");
}

#[test]
fn whatever_a_peer_writes_is_an_error_or_a_message() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut buffer = vec![0; 1 << 20];
    let (mut errors, mut messages) = (0, 0);
    for _ in 0..500 {
        let region = Arc::new(memfd().into_region());
        let (mut sender, mut receiver) = (sender(Arc::clone(&region)), receiver(Arc::clone(&region)));
        receiver.set_limit_bytes(1 << 20);
        for _ in 0..60 {
            let _ = sender.send_by(&buffer[..(random() % 9000) as usize], Deadline::Now);
            scribble(&region, &mut random);
            match receiver.recv_into_by(&mut buffer, Deadline::Now) {
                Ok(_) => messages += 1,
                Err(_) => errors += 1,
            }
        }
        drop((sender, receiver));
        let _ = RingSender::attach(Arc::clone(&region), Deadline::Now).map(|mut sender| sender.try_send(b"x"));
        let _ = RingReceiver::attach(region, Deadline::Now).map(|mut receiver| receiver.try_recv_into(&mut buffer));
    }
    assert!(errors > 100 && messages > 100, "{errors} errors, {messages} messages: neither is tested");
}

/// Writes where it hurts: the progress of either side, the roles, records with plausible and implausible parts.
fn scribble(region: &Region, random: &mut impl FnMut() -> u64) {
    let word = match random() % 4 {
        0 => random(),
        1 => random() % 1000,
        2 => (random() % 3) << 32 | (random() % 256) << 24 | (random() % 8) << 16 | (random() % 20_000),
        _ => return,
    };
    let offset = match random() % 6 {
        0 => 128 + random() % 6 * 8,
        1 => 256 + random() % 2 * 8,
        2 => 384 + random() % 2 * 8,
        _ => 1024 + random() % 40 * 64 + random() % 3 * 8,
    };
    region.write_at(usize::try_from(offset).unwrap(), &word.to_le_bytes()).unwrap();
}

#[test]
fn a_thread_that_scribbles_all_the_time_stops_nobody() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let region = Arc::new(memfd().into_region());
    let (mut sender, mut receiver) = (sender(Arc::clone(&region)), receiver(Arc::clone(&region)));
    let end = Instant::now() + Duration::from_millis(1500);
    let scribbler = std::thread::spawn(move || {
        let mut state = 1_u64;
        while Instant::now() < end {
            for _ in 0..50 {
                scribble(&region, &mut || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    state >> 20
                });
            }
        }
    });
    let sending = std::thread::spawn(move || {
        while Instant::now() < end {
            let _ = sender.send_by(&[5; 3000], Deadline::after(Duration::from_millis(5)));
        }
    });
    let mut buffer = vec![0; 1 << 16];
    while Instant::now() < end {
        let _ = receiver.recv_into_by(&mut buffer, Deadline::after(Duration::from_millis(5)));
    }
    scribbler.join().unwrap();
    sending.join().unwrap();
}

#[test]
fn a_child_sends_and_receives_nothing_in_its_parents_place() {
    if role().is_some() {
        let (mut sender, mut receiver) = pair();
        sender.send(b"before").unwrap();
        let long = vec![1; 4 << 20];
        sender.send_by(&long, Deadline::Now).unwrap();
        in_child(|| {
            [&b"child"[..], &long].iter().all(|message| is_forked(sender.send_by(message, Deadline::Now)))
                && is_forked(sender.flush_by(Deadline::Now))
                && is_forked(receiver.recv_by(Deadline::Now).map(drop))
        });
        assert_eq!(receiver.recv().unwrap().unwrap(), b"before");
        std::thread::scope(|scope| {
            scope.spawn(|| sender.flush_by(Deadline::Never).unwrap());
            assert!(receiver.recv().unwrap().unwrap() == long);
        });
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    Peer::start("ring::a_child_sends_and_receives_nothing_in_its_parents_place", "parent", &[]).succeed();
}
