//! A thousand channels in one process, under the usual limit of descriptors.

use std::time::{Duration, Instant};

use onecopy::{Channel, Listener};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::duo::{KIB, content, receive, soon};
use crate::support::{Peer, argument, role, unique, watchdog};

const SECONDS: Duration = Duration::from_secs(240);
const CHANNELS: u64 = 1000;
const DESCRIPTORS: u64 = 1024;

fn limit_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum }).unwrap();
}

/// The processor time of this process until now.
fn processor_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.cast_unsigned(), spent.tv_nsec as u32)
}

/// Half of the round trip of a message, in the middle of several runs.
fn half_round_trip(channel: &mut Channel) -> Duration {
    const ROUNDS: u32 = 2000;
    let mut runs: Vec<Duration> = (0..9)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..ROUNDS {
                channel.send(content(1, 64)).unwrap();
                receive(channel.receiver(), 1, 64, None);
            }
            begin.elapsed() / ROUNDS / 2
        })
        .collect();
    runs.sort_unstable();
    runs[runs.len() / 2]
}

/// The other process: opens all channels, echoes what comes on the first, then is idle, then answers on each.
fn connect_all() {
    limit_descriptors();
    let name = argument("NAME");
    let mut first = Channel::connect(&name).unwrap();
    let echo = |channel: &mut Channel| {
        while let Some(message) = channel.recv().unwrap().filter(|message| !message.is_empty()) {
            channel.send(&message).unwrap();
        }
    };
    echo(&mut first);
    let mut rest: Vec<Channel> = (1..CHANNELS).map(|_| Channel::connect(&name).unwrap()).collect();
    echo(&mut first);
    let mut before = processor_time();
    // Each message comes when the other side has been idle for a second.
    while first.recv().unwrap().is_some_and(|message| !message.is_empty()) {
        let idle = processor_time() - before;
        first.send(&(idle.as_nanos() as u64).to_ne_bytes()).unwrap();
        before = processor_time();
    }
    for channel in &mut rest {
        let message = channel.recv().unwrap().unwrap();
        channel.send(&message).unwrap();
    }
    assert!(first.recv().unwrap().is_none());
}

#[test]
fn a_thousand_channels_fit_and_cost_nothing_while_idle() {
    let test = "many::a_thousand_channels_fit_and_cost_nothing_while_idle";
    match role().as_deref() {
        // In a process of its own, where no other test uses descriptors or processor time.
        Some("listener") => return accept_all(test),
        Some(_) => return connect_all(),
        None => {}
    }
    let _watchdog = watchdog(SECONDS);
    Peer::configure(test, "listener", &[], |command| {
        command.stderr(std::process::Stdio::inherit());
    })
    .succeed_within(SECONDS);
}

fn accept_all(test: &str) {
    let name = unique("many");
    let listener = Listener::bind(&name).unwrap();
    let peer = Peer::configure(test, "connector", &[("NAME", &name)], |command| {
        command.stderr(std::process::Stdio::inherit());
    });
    limit_descriptors();
    let mut first = listener.accept_by(soon()).unwrap();
    let alone = half_round_trip(&mut first);
    first.send(b"").unwrap();
    let mut rest: Vec<Channel> = (1..CHANNELS).map(|_| listener.accept_by(soon()).unwrap()).collect();
    let among_many = half_round_trip(&mut first);
    first.send(b"").unwrap();

    std::thread::sleep(Duration::from_millis(100));
    let [mut idle, mut theirs] = [Duration::MAX; 2];
    for _ in 0..10 {
        let before = processor_time();
        std::thread::sleep(Duration::from_secs(1));
        idle = idle.min(processor_time() - before);
        first.send(b"idle for a second").unwrap();
        let nanos = first.recv().unwrap().unwrap();
        theirs = theirs.min(Duration::from_nanos(u64::from_ne_bytes(nanos[..].try_into().unwrap())));
        // Each has gone to sleep and woken once. What the machine does meanwhile may count as theirs, and never makes it less.
        if idle.max(theirs) < Duration::from_millis(5) {
            break;
        }
    }
    eprintln!("{CHANNELS} channels: {among_many:?} for a message, {alone:?} with one; idle: {idle:?} and {theirs:?}");
    assert!(idle.max(theirs) < Duration::from_millis(5), "{idle:?} and {theirs:?} in each second while idle");
    first.send(&[]).unwrap();
    for (number, channel) in (0..).zip(&mut rest) {
        channel.send(content(number, 3 * KIB)).unwrap();
        receive(channel.receiver(), number, 3 * KIB, None);
    }
    drop(first);
    peer.succeed();
}
