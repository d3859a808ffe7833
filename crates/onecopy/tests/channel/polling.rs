//! Waiting for channels by their descriptors: nothing is missed, whatever is polled, and an idle process does nothing.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use onecopy::channel::{Arming, ChannelReceiver, ChannelSender};
use onecopy::{Channel, Deadline, Error, Listener, Sender as _};
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::net::{SendFlags, send};

use crate::duo::{KIB, adopt, apart, content, hash, is_attachable, receive, rounds, soon, start};
use crate::support::fork::leave_a_child;
use crate::support::{Peer, argument, role, unique, wait_until_asleep, watchdog};

const SECONDS: Duration = Duration::from_secs(240);

/// Waits for the descriptor as long as it takes: what is missed makes the test hang.
fn wait_for(fd: &impl AsFd) {
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], None) {
            Ok(_) => return,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// Calls `step` until it has something, and waits between its attempts.
fn polled<H: AsFd, T>(
    half: &mut H,
    mut step: impl FnMut(&mut H) -> Result<T, Error>,
    arm: impl Fn(&mut H) -> Result<Arming, Error>,
) -> Result<T, Error> {
    loop {
        match step(half) {
            Err(Error::WouldBlock { .. }) => {}
            other => return other,
        }
        if arm(half)? == Arming::Armed {
            wait_for(half);
        }
    }
}

fn receive_polled(receiver: &mut ChannelReceiver) -> Result<Option<onecopy::channel::Message>, Error> {
    polled(receiver, |receiver| receiver.recv_by(Deadline::Now), ChannelReceiver::arm)
}

fn send_polled(sender: &mut ChannelSender, message: &[u8]) -> Result<(), Error> {
    polled(sender, |sender| sender.send_by(message, Deadline::Now), ChannelSender::arm)?;
    polled(sender, |sender| sender.flush_by(Deadline::Now), ChannelSender::arm)
}

const CHANNELS: u64 = 100;

/// The size of message `number` of a channel: mostly a short one, now and then one in pieces, or one that is copied once.
fn size(channel: u64, number: u64) -> usize {
    let dice = hash(channel << 32 | number);
    match dice % 100 {
        0 => 150 * KIB + dice as usize % 5000,
        1..5 => 5 * KIB + dice as usize % 20_000,
        _ => dice as usize % 120,
    }
}

/// What the other process sends: which channel is next is not known before, nor how long it takes until then.
fn send_on_all(messages: u64) {
    let name = argument("NAME");
    let mut channels: Vec<_> = (0..CHANNELS).map(|_| (Channel::connect(&name).unwrap(), 0)).collect();
    for step in 0..messages {
        let index = hash(step) % CHANNELS;
        let (channel, number) = &mut channels[index as usize];
        if *number == 0 {
            channel.send(&index.to_ne_bytes()).unwrap();
        }
        channel.send(content(index << 32 | *number, size(index, *number))).unwrap();
        *number += 1;
        if hash(!step).is_multiple_of(512) {
            std::thread::sleep(Duration::from_micros(hash(step) % 500));
        }
    }
}

/// A channel of the loop: which one the other side says it is, and how many messages came.
struct Entry {
    channel: Channel,
    index: Option<u64>,
    messages: u64,
}

impl Entry {
    /// Takes all that is there, and arms. Whether the end came.
    fn serve(&mut self) -> bool {
        loop {
            match self.channel.receiver().recv_by(Deadline::Now) {
                Ok(None) => return true,
                Ok(Some(message)) => match self.index {
                    None => self.index = Some(u64::from_ne_bytes(message[..].try_into().unwrap())),
                    Some(index) => {
                        assert!(
                            message[..] == *content(index << 32 | self.messages, size(index, self.messages)),
                            "message {} of channel {index}",
                            self.messages
                        );
                        self.messages += 1;
                    }
                },
                Err(Error::WouldBlock { .. }) => {
                    if self.channel.arm().unwrap() == Arming::Armed {
                        return false;
                    }
                }
                Err(error) => panic!("channel {:?}, after {} messages: {error}", self.index, self.messages),
            }
        }
    }
}

fn an_epoll_loop(test: &str, flags: epoll::EventFlags) {
    let messages = rounds(50_000, 1_000_000) as u64;
    match role().as_deref() {
        Some("loop") => receive_from_all(test, flags, messages),
        Some(_) => send_on_all(messages),
        None => apart(test, "loop", SECONDS),
    }
}

fn receive_from_all(test: &str, flags: epoll::EventFlags, messages: u64) {
    let name = unique("polling");
    let listener = Listener::bind(&name).unwrap();
    let peer = Peer::configure(test, "sender", &[("NAME", &name)], |command| {
        command.stderr(Stdio::inherit());
    });
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut entries: Vec<_> = (0..CHANNELS)
        .map(|number| {
            let channel = listener.accept_by(soon()).unwrap();
            epoll::add(&epoll, &channel, epoll::EventData::new_u64(number), flags | epoll::EventFlags::IN).unwrap();
            Entry { channel, index: None, messages: 0 }
        })
        .collect();
    let mut open: Vec<bool> = entries.iter_mut().map(|entry| !entry.serve()).collect();
    let mut waits = 0;
    while open.contains(&true) {
        let mut events = [const { MaybeUninit::uninit() }; 16];
        let (ready, _) = match epoll::wait(&epoll, &mut events, None) {
            // A process that was stopped goes on with that, signal(7).
            Err(rustix::io::Errno::INTR) => continue,
            result => result.unwrap(),
        };
        waits += 1;
        for number in ready.iter().map(|event| event.data.u64() as usize) {
            if open[number] && entries[number].serve() {
                open[number] = false;
                epoll::delete(&epoll, &entries[number].channel).unwrap();
            }
        }
    }
    eprintln!("{messages} messages on {CHANNELS} channels, after {waits} waits");
    assert_eq!(entries.iter().map(|entry| entry.messages).sum::<u64>(), messages);
    peer.succeed();
}

#[test]
fn an_epoll_loop_over_a_hundred_channels_misses_no_message() {
    let test = "polling::an_epoll_loop_over_a_hundred_channels_misses_no_message";
    an_epoll_loop(test, epoll::EventFlags::empty());
}

#[test]
fn an_edge_triggered_loop_misses_no_message() {
    an_epoll_loop("polling::an_edge_triggered_loop_misses_no_message", epoll::EventFlags::ET);
}

/// A size of a message of both directions.
fn mixed(number: u64) -> usize {
    match hash(number) % 16 {
        0 => 400 * KIB,
        1..5 => 30 * KIB,
        5..10 => 100,
        _ => 8,
    }
}

/// Sends and receives at the same time on two threads that poll the same descriptor.
fn both_ways(channel: Channel, own: u64, other: u64) {
    let count = rounds(5000, 200_000) as u64;
    let (mut sender, mut receiver) = channel.split();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in own..own + count {
                send_polled(&mut sender, content(number, mixed(number))).unwrap();
            }
        });
        for number in other..other + count {
            let message = receive_polled(&mut receiver).unwrap().expect("no end yet");
            assert!(message[..] == *content(number, mixed(number)), "{number}");
        }
    });
}

#[test]
fn both_halves_poll_the_same_descriptor_on_two_threads() {
    let test = "polling::both_halves_poll_the_same_descriptor_on_two_threads";
    match role().as_deref() {
        Some("one") => {
            let (channel, peer) = start(test, "other", &[]);
            both_ways(channel, 0, 1 << 40);
            peer.succeed();
        }
        Some(_) => both_ways(adopt(), 1 << 40, 0),
        None => apart(test, "one", SECONDS),
    }
}

#[test]
fn a_message_that_is_kept_for_the_receiver_is_waited_for() {
    let test = "polling::a_message_that_is_kept_for_the_receiver_is_waited_for";
    let count = rounds(300, 10_000) as u64;
    if role().is_some() {
        let mut channel = adopt();
        for number in 0..count {
            std::thread::sleep(Duration::from_micros(hash(number) % 300));
            receive(channel.receiver(), number, 300 * KIB, None);
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    if !is_attachable(test) {
        return;
    }
    let (mut channel, peer) = start(test, "other", &[]);
    let sender = channel.sender();
    for number in 0..count {
        let message = content(number, 300 * KIB);
        polled(sender, |sender| sender.send_owned_by(message.to_vec(), Deadline::Now), ChannelSender::arm).unwrap();
    }
    polled(sender, |sender| sender.flush_by(Deadline::Now), ChannelSender::arm).unwrap();
    peer.succeed();
}

/// Ends in the given way, with a copy of the socket in a child that lives on if `forks`.
fn end(how: &str) {
    let mut channel = adopt();
    if how == "killed, forked" {
        leave_a_child();
    }
    // Until the other side is about to wait.
    assert!(channel.recv().unwrap().is_some());
    std::thread::sleep(Duration::from_millis(30));
    match how {
        "closes" => drop(channel),
        "closes its sender" => {
            let (sender, mut receiver) = channel.split();
            drop(sender);
            assert!(receiver.recv_by(Deadline::Never).unwrap().is_none());
        }
        _ => rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap(),
    }
}

#[test]
fn the_end_of_the_other_side_makes_the_descriptor_readable() {
    let test = "polling::the_end_of_the_other_side_makes_the_descriptor_readable";
    if let Some(how) = role() {
        return end(&how);
    }
    let _watchdog = watchdog(SECONDS);
    for how in ["closes", "closes its sender", "killed", "killed, forked"] {
        let (channel, mut peer) = start(test, how, &[]);
        let (mut sender, mut receiver) = channel.split();
        sender.send(b"about to wait").unwrap();
        match receive_polled(&mut receiver) {
            Ok(None) => assert!(how.starts_with("closes"), "{how}"),
            Err(error) => assert!(error.is_peer_gone() && how.starts_with("killed"), "{how}: {error}"),
            Ok(Some(message)) => panic!("{how}: {message:?}"),
        }
        assert_eq!(receiver.arm().unwrap(), Arming::Ready, "{how}: for ever");
        drop((sender, receiver));
        if how.starts_with("killed") { peer.kill() } else { peer.succeed() }
    }
}

#[test]
fn a_peer_that_stops_receiving_makes_a_sender_that_waits_for_room_readable() {
    let test = "polling::a_peer_that_stops_receiving_makes_a_sender_that_waits_for_room_readable";
    if role().is_some() {
        return end("killed");
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, mut peer) = start(test, "killed", &[]);
    channel.send(b"about to wait").unwrap();
    let sender = channel.sender();
    let error = (0..100_000).find_map(|_| send_polled(sender, content(1, 3000)).err()).expect("nobody receives");
    assert!(error.is_peer_gone(), "{error}");
    peer.kill();
}

#[test]
fn bytes_that_nobody_asked_for_are_an_error_and_cost_a_few_calls() {
    let test = "polling::bytes_that_nobody_asked_for_are_an_error_and_cost_a_few_calls";
    if let Some(how) = role() {
        let mut channel = adopt();
        let bytes: &[u8] = if how == "of no bytes" { b"" } else { b"m" };
        // Until the other side has gone: it does not answer.
        while send(&channel, bytes, SendFlags::NOSIGNAL).is_ok() {}
        return assert!(channel.recv().is_ok_and(|message| message.is_none()));
    }
    let _watchdog = watchdog(SECONDS);
    for how in ["many", "of no bytes"] {
        let (mut channel, peer) = start(test, how, &[]);
        let mut armed = 0;
        let error = loop {
            wait_for(&channel);
            match channel.arm() {
                Ok(_) => armed += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Corrupt { .. }), "{how}: {error}");
        // At most one byte for each time that it was armed.
        assert!(armed <= 2, "{how}: armed {armed} times");
        drop(channel);
        peer.succeed();
    }
}

/// What `pid` has used of the processor, in ticks of the clock: user and system.
fn ticks(pid: u32) -> [u64; 2] {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    [11, 12].map(|index| fields[index].parse().unwrap())
}

#[test]
fn a_process_whose_channels_are_all_armed_uses_no_processor_time() {
    let test = "polling::a_process_whose_channels_are_all_armed_uses_no_processor_time";
    if role().is_some() {
        let name = argument("NAME");
        let mut channels: Vec<_> = (0..CHANNELS).map(|_| Channel::connect(&name).unwrap()).collect();
        let epoll: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        for channel in &mut channels {
            epoll::add(&epoll, &*channel, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
            assert_eq!(channel.arm().unwrap(), Arming::Armed);
            assert_eq!(channel.sender().arm().unwrap(), Arming::Ready, "there is room");
        }
        println!("\n@armed");
        let mut events = [const { MaybeUninit::uninit() }; 1];
        while epoll::wait(&epoll, &mut events, None).is_err_and(|errno| errno == rustix::io::Errno::INTR) {}
        // Taken before it ends: who closes with a message under way makes the send that it crosses an error.
        assert_eq!(channels[0].recv().unwrap().as_deref(), Some(&b"enough"[..]));
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = unique("idle");
    let listener = Listener::bind(&name).unwrap();
    let mut peer = Peer::start(test, "idle", &[("NAME", &name)]);
    let mut channels: Vec<_> = (0..CHANNELS).map(|_| listener.accept_by(soon()).unwrap()).collect();
    peer.line("@armed");
    wait_until_asleep(peer.pid());
    let before = ticks(peer.pid());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(ticks(peer.pid()), before, "used while idle");
    channels[0].send(b"enough").unwrap();
    peer.succeed();
}
