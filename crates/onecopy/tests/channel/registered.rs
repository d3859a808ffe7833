//! Messages from and into registered buffers.

use std::time::{Duration, Instant};

use onecopy::channel::{BUFFERS, ChannelName, Path, Policy, RegisteredBuffer, Stats};
use onecopy::{Channel, Deadline, Error, Listener, Sender as _};
use rustix::process::Signal;

use crate::death::{CANARY, canaries, signal};
use crate::duo::{
    KIB, MIB, adopt, apart, content, hash, is_attachable, kill_after, receive, resident_bytes, rounds, soon, start,
};
use crate::filter::{self, READ, WRITE};
use crate::support::{argument, eventually, pattern, role, unique, watchdog};

const SECONDS: Duration = Duration::from_secs(600);

/// Through the ring, by one side, and by both, up to more than a huge page and the longest that a test can afford.
const SIZES: [usize; 13] = [
    0,
    1,
    104,
    105,
    5000,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    300_001,
    MIB,
    2 * MIB + 4095,
    5 * MIB + 3,
    16 * MIB - 64 * KIB,
];

/// Which sides have their memory registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Sender,
    Receiver,
    Both,
}

const ALL: [Who; 3] = [Who::Sender, Who::Receiver, Who::Both];

/// Sends message `number`, from a place in the buffer that depends on it.
fn send(channel: &mut Channel, buffer: &mut RegisteredBuffer, who: Who, number: u64, size: usize) {
    let message = content(number, size);
    if who == Who::Receiver {
        return channel.send(message).unwrap();
    }
    let start = hash(number) as usize % 1000;
    buffer[start..start + size].copy_from_slice(message);
    channel.send_registered(buffer, start..start + size).unwrap();
}

/// Receives message `number` by one call or another.
fn take(channel: &mut Channel, buffer: &mut RegisteredBuffer, who: Who, number: u64, size: usize) {
    if who == Who::Sender {
        let mut plain = vec![0; size];
        return receive(channel.receiver(), number, size, number.is_multiple_of(2).then_some(&mut plain));
    }
    assert_eq!(channel.recv_registered(buffer).unwrap(), Some(size), "message {number}");
    assert!(buffer[..size] == *content(number, size), "message {number} of {size} bytes");
}

/// All sizes to the other side and back; `begins` is whether this side sends first.
fn exchange(channel: &mut Channel, buffer: &mut RegisteredBuffer, begins: bool) {
    for (round, who) in ALL.into_iter().enumerate() {
        for (index, size) in SIZES.into_iter().enumerate() {
            let number = (round * 100 + index) as u64;
            for sends in [begins, !begins] {
                match sends {
                    true => send(channel, buffer, who, number, size),
                    false => take(channel, buffer, who, number, size),
                }
            }
        }
    }
}

/// How many messages are long enough to be copied once, in each direction.
fn long() -> u64 {
    (ALL.len() * SIZES.iter().filter(|size| **size >= 64 * KIB).count()) as u64
}

#[test]
fn messages_of_every_size_both_ways_from_and_into_registered_memory() {
    let test = "registered::messages_of_every_size_both_ways_from_and_into_registered_memory";
    if role().is_some() {
        let mut channel = adopt();
        let mut buffer = channel.register(16 * MIB).unwrap();
        exchange(&mut channel, &mut buffer, false);
        while channel.recv_registered(&mut buffer).unwrap() != Some(0) {}
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "child", &[]);
    let mut buffer = channel.register(16 * MIB).unwrap();
    assert!(buffer.is_registered() && buffer.len() == 16 * MIB && buffer.iter().all(|&byte| byte == 0));
    exchange(&mut channel, &mut buffer, true);
    let stats = channel.stats();
    if is_attachable(test) {
        assert_eq!(stats.fallbacks(), []);
    }
    let two_of_three = long() / 3 * 2;
    assert_eq!(stats.received(Path::Registered).messages, two_of_three, "the sender's was mapped: {stats:?}");
    let sent: u64 = [Path::Registered, Path::SingleCopy].map(|path| stats.sent(path).messages).iter().sum();
    assert!(sent >= two_of_three, "the receiver's was mapped: {stats:?}");
    // A receiver that is quick leaves nothing to copy: on a busy machine that may be so for all of these, but not for ever.
    while channel.stats().sent(Path::Registered).messages == 0 {
        channel.send(content(0, 16 * MIB)).unwrap();
    }
    channel.send(&[]).unwrap();
    peer.succeed();
}

#[test]
fn a_message_of_64_mib_comes_from_one_buffer_into_another() {
    let test = "registered::a_message_of_64_mib_comes_from_one_buffer_into_another";
    const BYTES: usize = 64 * MIB - 7;
    if role().is_some() {
        let mut channel = adopt();
        let mut buffer = channel.register(BYTES).unwrap();
        buffer.copy_from_slice(&pattern(BYTES, 3));
        for start in [0, 1, MIB] {
            channel.send_registered(&buffer, start..BYTES).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "child", &[]);
    let mut buffer = channel.register(BYTES).unwrap();
    let expected = pattern(BYTES, 3);
    for start in [0, 1, MIB] {
        assert_eq!(channel.recv_registered(&mut buffer).unwrap(), Some(BYTES - start));
        assert!(buffer[..BYTES - start] == expected[start..]);
    }
    assert_eq!(channel.stats().received(Path::Registered).messages, 3);
    peer.succeed();
}

/// What of the permission to attach a child gives up before it begins.
fn give_up(how: &str) {
    let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
    match how {
        "nothing" => {}
        "both" => filter::install(&[READ, WRITE], errno(libc::EPERM)),
        "write" => filter::install(&[WRITE], errno(libc::EPERM)),
        "killed" => filter::install(&[READ, WRITE], libc::SECCOMP_RET_KILL_PROCESS),
        _ => panic!("{how}"),
    }
}

#[test]
fn registered_memory_needs_no_cross_memory_attach() {
    let test = "registered::registered_memory_needs_no_cross_memory_attach";
    let is_registered = |stats: &Stats| stats.received(Path::Registered).messages == long() / 3 * 2;
    if let Some(how) = role() {
        give_up(&how);
        let mut channel = adopt();
        let mut buffer = channel.register(16 * MIB).unwrap();
        exchange(&mut channel, &mut buffer, false);
        let stats = channel.stats();
        assert!(is_registered(&stats), "{how}: {stats:?}");
        if how != "write" {
            assert_eq!(stats.received(Path::SingleCopy).messages, 0, "{how}: {stats:?}");
            assert!(stats.fallbacks().iter().any(|one| one.reason.contains("process_vm_readv")), "{how}: {stats:?}");
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    for how in ["both", "write", "killed"] {
        let (mut channel, peer) = start(test, how, &[]);
        let mut buffer = channel.register(16 * MIB).unwrap();
        exchange(&mut channel, &mut buffer, true);
        assert!(is_registered(&channel.stats()), "{how}: {:?}", channel.stats());
        peer.succeed();
    }
}

/// Both sides of a channel of a policy that keeps their memory apart, on two threads.
fn separate() -> (Channel, Channel) {
    let name = ChannelName::name(unique("registered")).unwrap();
    let policy = Policy::same_user().separate();
    let listener = Listener::bind_with(&name, &policy).unwrap();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| Channel::connect_by(&name, &policy, soon()).unwrap());
        (listener.accept_by(soon()).unwrap(), client.join().unwrap())
    })
}

#[test]
fn a_separate_channel_copies_out_of_registered_memory_and_never_into_it() {
    let _watchdog = watchdog(SECONDS);
    let (mut one, mut other) = separate();
    std::thread::scope(|scope| {
        let second = scope.spawn(move || {
            let mut buffer = other.register(16 * MIB).unwrap();
            exchange(&mut other, &mut buffer, false);
            other.stats()
        });
        let mut buffer = one.register(16 * MIB).unwrap();
        exchange(&mut one, &mut buffer, true);
        for stats in [one.stats(), second.join().unwrap()] {
            assert_eq!(stats.received(Path::Registered).messages, long() / 3 * 2, "{stats:?}");
            assert_eq!(stats.sent(Path::Registered).messages, 0, "nobody writes there: {stats:?}");
            assert_eq!(stats.sent(Path::SingleCopy).messages, long() / 3 * 2, "{stats:?}");
            assert_eq!(stats.received(Path::SingleCopy).messages, 0, "{stats:?}");
        }
    });
}

/// Both sides of a channel within this process.
fn pair() -> (Channel, Channel) {
    let name = unique("registered");
    let listener = Listener::bind(&name).unwrap();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| Channel::connect(&name).unwrap());
        (listener.accept_by(soon()).unwrap(), client.join().unwrap())
    })
}

#[test]
fn a_message_that_nobody_takes_in_time_is_not_sent_and_the_buffer_stays_the_senders() {
    let _watchdog = watchdog(SECONDS);
    let (mut one, mut other) = pair();
    let mut buffer = one.register(4 * MIB).unwrap();
    for number in 0..3 {
        buffer.fill(number);
        let begin = Instant::now();
        let late = Deadline::after(Duration::from_millis(20));
        let error = one.sender().send_registered_by(&buffer, 0..4 * MIB, late).unwrap_err();
        assert!(error.is_out_of_time() && begin.elapsed() >= Duration::from_millis(20), "{error}");
    }
    // What fits the ring goes at once.
    one.sender().send_registered_by(&buffer, 0..100, Deadline::Now).unwrap();
    assert_eq!(&*other.recv().unwrap().unwrap(), [2; 100]);
    let mut target = other.register(4 * MIB).unwrap();
    let late = Deadline::after(Duration::from_millis(20));
    assert!(other.receiver().recv_registered_by(&mut target, late).unwrap_err().is_out_of_time());
    std::thread::scope(|scope| {
        scope.spawn(|| one.send_registered(&buffer, 1..4 * MIB).unwrap());
        assert_eq!(other.recv_registered(&mut target).unwrap(), Some(4 * MIB - 1));
    });
    assert!(target[..4 * MIB - 1].iter().all(|&byte| byte == 2));
}

#[test]
fn what_does_not_fit_is_an_error_and_stays_first_in_line() {
    let _watchdog = watchdog(SECONDS);
    let (mut one, mut other) = pair();
    let buffer = one.register(MIB).unwrap();
    for range in [0..MIB + 1, MIB..usize::MAX, std::ops::Range { start: 1, end: 0 }] {
        let error = one.send_registered(&buffer, range.clone()).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("1048576"), "{range:?}: {error}");
    }
    let (mut short, mut long) = (other.register(MIB - 1).unwrap(), other.register(MIB).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| one.send_registered(&buffer, 0..MIB).unwrap());
        let error = other.recv_registered(&mut short).unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message_bytes: MIB, .. }), "{error}");
        assert_eq!(other.recv_registered(&mut long).unwrap(), Some(MIB));
    });
    let mut empty = other.register(0).unwrap();
    assert!(empty.is_empty() && !empty.is_registered());
    one.send(&[]).unwrap();
    assert_eq!(other.recv_registered(&mut empty).unwrap(), Some(0));
    drop(one);
    assert_eq!(other.recv_registered(&mut empty).unwrap(), None);
    let error = other.register(usize::MAX).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(&usize::MAX.to_string()), "{error}");
}

/// Whether a message came as it does from memory that is not registered: a busy machine may have had its sender come too late to
/// copy a part.
fn is_unregistered(path: Path) -> bool {
    matches!(path, Path::Cooperative | Path::SingleCopy)
}

/// Sends one long message from `buffer` to the other side, and says by which way it was received.
fn way(one: &mut Channel, buffer: &RegisteredBuffer, other: &mut Channel) -> Path {
    let before = other.stats();
    std::thread::scope(|scope| {
        scope.spawn(|| one.send_registered(buffer, 0..buffer.len()).unwrap());
        assert!(other.recv().unwrap().unwrap()[..] == buffer[..]);
    });
    let after = other.stats();
    let came = |path: &Path| after.received(*path) != before.received(*path);
    Path::ALL.into_iter().find(came).expect("it came by some way")
}

#[test]
fn a_receiver_without_a_descriptor_to_spare_loses_no_message() {
    let test = "registered::a_receiver_without_a_descriptor_to_spare_loses_no_message";
    if role().is_some() {
        let mut channel = adopt();
        // No descriptor is free, and what the other side has passed in the meantime is mapped by way of one.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let none = rustix::process::Rlimit { current: Some(0), ..limit };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, none).unwrap();
        let error = channel.receiver().recv_by(soon()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        receive(channel.receiver(), 1, 2 * MIB, None);
        receive(channel.receiver(), 2, 100, None);
        receive(channel.receiver(), 3, MIB, None);
        return assert_eq!(channel.stats().received(Path::Registered).messages, 1, "{:?}", channel.stats());
    }
    if !is_attachable(test) {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "receiver", &[]);
    drop(channel.loan(1000).unwrap());
    let mut registered = channel.register(MIB).unwrap();
    channel.sender().send_by(content(1, 2 * MIB), soon()).unwrap();
    channel.sender().send_by(content(2, 100), soon()).unwrap();
    registered.copy_from_slice(content(3, MIB));
    channel.send_registered(&registered, 0..MIB).unwrap();
    peer.succeed();
}

#[test]
fn what_cannot_be_registered_is_as_good_as_other_memory() {
    let test = "registered::what_cannot_be_registered_is_as_good_as_other_memory";
    if !is_attachable(test) {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut one, mut other) = pair();
    one.sender().set_single_copy_bytes(64 * KIB);
    let told = |channel: &Channel, why: &str| channel.stats().fallbacks().iter().any(|one| one.reason.contains(why));
    let mut buffers: Vec<_> = (0..BUFFERS).map(|_| one.register(100_000).unwrap()).collect();
    assert!(buffers.iter().all(RegisteredBuffer::is_registered));
    assert!(!one.register(100_000).unwrap().is_registered());
    assert!(told(&one, "16 buffers of this side are registered already"), "{:?}", one.stats());
    // A place that is free is of no use while the other side has looked at none.
    drop(buffers.pop());
    let unseen = one.register(100_000).unwrap();
    assert!(!unseen.is_registered() && told(&one, "has not looked"), "{:?}", one.stats());
    assert!(is_unregistered(way(&mut one, &unseen, &mut other)));
    for (number, buffer) in buffers.iter_mut().enumerate() {
        buffer.fill(number as u8);
        assert_eq!(way(&mut one, buffer, &mut other), Path::Registered, "{number}");
    }
    let seen = one.register(100_000).unwrap();
    assert!(seen.is_registered());
    assert_eq!(way(&mut one, &seen, &mut other), Path::Registered);
    // Another channel does not know it, and its own receiver has it as a target as it has any other memory.
    let (mut third, mut fourth) = pair();
    third.sender().set_single_copy_bytes(64 * KIB);
    assert!(is_unregistered(way(&mut third, &seen, &mut fourth)));
    let mut target = seen;
    std::thread::scope(|scope| {
        scope.spawn(|| third.send(content(1, 100_000)).unwrap());
        assert_eq!(fourth.recv_registered(&mut target).unwrap(), Some(100_000));
    });
    assert!(target[..] == *content(1, 100_000));
    assert_eq!(fourth.stats().received(Path::SingleCopy).messages, 1);
}

/// The second process: sends or receives messages of one length until somebody stops it.
fn exchange_for_ever(role: &str) {
    let length: usize = argument("LENGTH").parse().unwrap();
    let mut channel = adopt();
    let mut buffer = channel.register(length).unwrap();
    for number in 0.. {
        match role {
            "receiver" => assert_eq!(channel.recv_registered(&mut buffer).unwrap(), Some(length)),
            "plain sender" => channel.send(content(number, length)).unwrap(),
            _ => {
                buffer.copy_from_slice(content(number, length));
                channel.send_registered(&buffer, 0..length).unwrap();
            }
        }
    }
}

/// How many parts of registered memory this process has mapped.
fn mapped() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:onecopy-registered").count()
}

/// Uses the channel until the other side is killed.
fn until_the_end(channel: &mut Channel, length: usize, receives: bool) -> Error {
    let mut buffer = channel.register(length).unwrap();
    for number in 0.. {
        let step = match receives {
            true => channel.recv_registered(&mut buffer).map(|received| {
                assert_eq!(received, Some(length));
                assert!(buffer[..] == *content(number, length), "message {number} of {length} bytes");
            }),
            false => {
                buffer.copy_from_slice(content(number, length));
                channel.send_registered(&buffer, 0..length)
            }
        };
        if let Err(error) = step {
            // It is this side's as before, or there is other memory in its place.
            assert_eq!(buffer.len(), length);
            buffer.fill(1);
            return error;
        }
    }
    unreachable!("it is killed before")
}

fn survive(test: &str) {
    const LENGTHS: [usize; 3] = [70_000, 300_000, 3 * MIB];
    let mut levels = Vec::new();
    for round in 0..rounds(48, 1000) as u64 {
        let length = LENGTHS[round as usize % LENGTHS.len()];
        let receives = (round / 3).is_multiple_of(2);
        let role = ["sender", "plain sender"][(round / 6) as usize % 2];
        let role = if receives { role } else { "receiver" };
        let (mut channel, peer) = start(test, role, &[("LENGTH", &length.to_string())]);
        let killer = kill_after(Duration::from_micros(hash(round) % 20_000), peer);
        let error = until_the_end(&mut channel, length, receives);
        assert!(error.is_peer_gone(), "round {round}, {role} of {length} bytes: {error}");
        killer.join().unwrap();
        drop(channel);
        assert_eq!(mapped(), 0, "round {round}");
        levels.push((crate::open_descriptors(), resident_bytes()));
    }
    let warm = &levels[12..24];
    let least = warm.iter().map(|level| level.0).min().unwrap();
    eventually("no descriptor is left", || crate::open_descriptors() <= least);
    let (warm, end) = (warm.iter().map(|level| level.1).max().unwrap(), levels[levels.len() - 1].1);
    assert!(end <= warm + MIB, "{} KiB more", (end - warm) / KIB);
}

#[test]
fn either_side_may_be_killed_and_leaves_neither_mappings_nor_descriptors() {
    let test = "registered::either_side_may_be_killed_and_leaves_neither_mappings_nor_descriptors";
    match role().as_deref() {
        None => apart(test, "survivor", SECONDS),
        Some("survivor") => survive(test),
        Some(role) => exchange_for_ever(role),
    }
}

/// Receives into `buffer` what comes, until `end` and then until nothing comes any more.
fn drain(channel: &mut Channel, buffer: &mut RegisteredBuffer, number: &mut u64, end: Instant) {
    loop {
        let late = Deadline::after(Duration::from_millis(30));
        match channel.receiver().recv_registered_by(buffer, late) {
            Ok(received) => {
                assert_eq!(received, Some(buffer.len()));
                assert!(buffer[..] == *content(*number, buffer.len()), "message {number}");
                *number += 1;
            }
            Err(error) => {
                assert!(error.is_out_of_time(), "{error}");
                if Instant::now() >= end {
                    return;
                }
            }
        }
    }
}

/// Whether nobody has written there.
fn are_untouched<'a>(buffers: impl IntoIterator<Item = &'a [u8]>) -> bool {
    buffers.into_iter().flat_map(|bytes| bytes.chunks(4096)).all(|chunk| *chunk == [CANARY; 4096][..chunk.len()])
}

#[test]
fn a_stopped_sender_holds_up_nothing_and_writes_into_no_buffer_that_is_used_again() {
    if let Some(role) = role() {
        return exchange_for_ever(&role);
    }
    let _watchdog = watchdog(SECONDS);
    let test = "registered::a_stopped_sender_holds_up_nothing_and_writes_into_no_buffer_that_is_used_again";
    for (role, length) in [("sender", 3 * MIB), ("sender", 300_000), ("plain sender", 3 * MIB)] {
        let (mut channel, peer) = start(test, role, &[("LENGTH", &length.to_string())]);
        let mut buffer = channel.register(length).unwrap();
        let mut number = 0;
        for round in 0..rounds(15, 500) as u64 {
            let end = Instant::now() + Duration::from_micros(hash(round) % 5000);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(end - Instant::now());
                    signal(&peer, Signal::STOP);
                });
                drain(&mut channel, &mut buffer, &mut number, end);
            });
            let (others, mut second) = (canaries(length), channel.register(length).unwrap());
            second.fill(CANARY);
            buffer.fill(CANARY);
            signal(&peer, Signal::CONT);
            // It writes what it has begun before it goes on to the next message, which nobody has asked for yet.
            std::thread::sleep(Duration::from_millis(3));
            let all = others.iter().map(|other| &other[..]).chain([&second[..], &buffer[..]]);
            assert!(are_untouched(all), "a late write of {length} bytes, round {round}");
            for _ in 0..3 {
                assert_eq!(channel.recv_registered(&mut buffer).unwrap(), Some(length));
                assert!(buffer[..] == *content(number, length), "message {number}");
                number += 1;
            }
            let all = others.iter().map(|other| &other[..]).chain([&second[..]]);
            assert!(are_untouched(all), "a late write of {length} bytes, round {round}");
        }
    }
}

#[test]
fn a_stopped_receiver_is_waited_for_until_the_deadline_and_then_goes_on() {
    if let Some(role) = role() {
        let mut channel = adopt();
        let mut buffer = channel.register(3 * MIB).unwrap();
        let mut last = None;
        while let Some(bytes) = channel.recv_registered(&mut buffer).unwrap() {
            let number = u64::from_ne_bytes(*buffer.first_chunk().unwrap());
            assert!(buffer[8..bytes] == *content(number, bytes - 8), "{role}: message {number}");
            assert!(last < Some(number), "each once, and in order: {number} after {last:?}");
            last = Some(number);
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let test = "registered::a_stopped_receiver_is_waited_for_until_the_deadline_and_then_goes_on";
    for length in [70_000, 3 * MIB] {
        let (mut channel, peer) = start(test, "receiver", &[]);
        let mut buffer = channel.register(length).unwrap();
        let mut number = 0_u64;
        let mut send = |channel: &mut Channel, deadline| {
            buffer[..8].copy_from_slice(&number.to_ne_bytes());
            buffer[8..].copy_from_slice(content(number, length - 8));
            number += 1;
            channel.sender().send_registered_by(&buffer, 0..length, deadline)
        };
        for round in 0..rounds(5, 100) as u64 {
            let end = Instant::now() + Duration::from_micros(hash(round) % 5000);
            while Instant::now() < end {
                send(&mut channel, Deadline::Never).unwrap();
            }
            signal(&peer, Signal::STOP);
            // What the receiver has not taken in time is not sent, and what the buffer holds next is no part of it.
            for _ in 0..3 {
                if let Err(error) = send(&mut channel, Deadline::after(Duration::from_millis(3))) {
                    assert!(error.is_out_of_time(), "{error}");
                }
            }
            signal(&peer, Signal::CONT);
            for _ in 0..10 {
                send(&mut channel, Deadline::Never).unwrap();
            }
        }
        drop(channel);
        peer.succeed();
    }
}

#[test]
fn buffers_that_come_and_go_leave_neither_mappings_nor_descriptors_nor_memory() {
    let test = "registered::buffers_that_come_and_go_leave_neither_mappings_nor_descriptors_nor_memory";
    const LENGTH: usize = 300_000;
    let all = rounds(200, 2000) as u64;
    match role().as_deref() {
        None => return apart(test, "one", SECONDS),
        Some("other") => {
            let mut channel = adopt();
            for number in 0..all {
                let mut buffer = channel.register(LENGTH).unwrap();
                assert!(buffer.is_registered(), "{number}: {:?}", channel.stats());
                assert_eq!(channel.recv_registered(&mut buffer).unwrap(), Some(LENGTH));
                assert!(buffer[..] == *content(number, LENGTH));
            }
            return;
        }
        Some(_) => {}
    }
    let (mut channel, peer) = start(test, "other", &[]);
    let mut levels = Vec::new();
    for number in 0..all {
        let mut buffer = channel.register(LENGTH).unwrap();
        assert!(buffer.is_registered(), "{number}: {:?}", channel.stats());
        buffer.copy_from_slice(content(number, LENGTH));
        channel.send_registered(&buffer, 0..LENGTH).unwrap();
        drop(buffer);
        levels.push((crate::open_descriptors(), resident_bytes()));
        // Of the other side's a few that it has given up, as long as nothing else comes in their places.
        assert!(mapped() <= BUFFERS, "{number}");
    }
    peer.succeed();
    let (warm, end) = (levels[20], levels[levels.len() - 1]);
    assert_eq!(end.0, warm.0, "descriptors");
    assert!(end.1 <= warm.1 + MIB, "{} KiB more", (end.1 - warm.1) / KIB);
    assert_eq!(channel.stats().sent(Path::Ring).messages, 0);
    drop(channel);
    assert_eq!(mapped(), 0);
}
