//! How soon the death of a peer is known: `cargo run --release -p onecopy --example death_figures`.
//!
//! A second process with 64 MiB, and then one with 1 GiB, is killed while this one waits for it in each of the ways to wait, or does
//! not wait and calls again and again. The figures are from the call of kill(2), on another processor, to the error. The kernel takes
//! the memory of a dead process apart first, and says by its pidfd that it has exited after that: the last line is when. It fails when
//! a median is above the limit, 10 ms up to 100 MiB and 100 ms for each GiB beyond. `onecopy bench` is the tool for users; this one is
//! for whoever changes the channel. With sizes in MiB as arguments it measures these sizes only, with `ROUNDS=n` so many rounds, with
//! `ONLY=recv` those ways whose name contains that.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onecopy::channel::Arming;
use onecopy::{Channel, Deadline, Error, WaitStrategy};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

const MIB: usize = 1 << 20;
const SIZES: [usize; 2] = [64, 1024];
const ROUNDS: usize = 21;
const LEAST_LIMIT: Duration = Duration::from_millis(10);

/// What ends by an error when the other process is killed.
type Way = fn(&mut Channel) -> Error;

/// What this process does meanwhile: its name, what the other one does, and the way.
const WAYS: [(&str, &str, Way); 9] = [
    ("recv, asleep", "silent", |channel| receive(channel, WaitStrategy::Block)),
    ("recv, adaptive", "silent", |channel| receive(channel, WaitStrategy::default())),
    ("recv, spinning", "silent", |channel| receive(channel, WaitStrategy::Spin)),
    ("recv of 4 MiB messages", "flood", |channel| receive(channel, WaitStrategy::default())),
    ("send, the ring is full", "silent", |channel| send(channel, 1000)),
    ("send of 1 MiB that nobody takes", "silent", |channel| send(channel, MIB)),
    ("send of 4 MiB messages", "sink", |channel| send(channel, 4 * MIB)),
    ("poll", "silent", polled),
    ("no wait, recv now and then", "silent", now_and_then),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, role, bytes] = &arguments[..]
        && first == "peer"
    {
        return peer(role, bytes.parse().unwrap());
    }
    let sizes: Vec<usize> = arguments.iter().map(|size| size.parse().expect("a size in MiB")).collect();
    let rounds = std::env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let only = std::env::var("ONLY").unwrap_or_default();
    for size in if sizes.is_empty() { SIZES.to_vec() } else { sizes } {
        println!("a peer with {size} MiB is killed; known after, median and longest of {rounds}:");
        let mut exits = Vec::new();
        for (name, role, wait) in WAYS.into_iter().filter(|(name, ..)| name.contains(&only)) {
            let (times, gone): (Vec<_>, Vec<_>) = (0..rounds).map(|_| killed(role, size * MIB, wait)).unzip();
            let median = show(name, times);
            let limit = Duration::from_millis(100 * size as u64 / 1024).max(LEAST_LIMIT);
            assert!(median <= limit, "{name}: {median:?} is more than {limit:?}");
            exits.extend(gone);
        }
        show("(its pidfd)", exits);
    }
}

/// The median, after it is printed.
fn show(name: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let ms = |time: &Duration| time.as_secs_f64() * 1e3;
    let median = times[times.len() / 2];
    println!("  {name:32} {:8.3} ms {:8.3} ms", ms(&median), ms(&times[times.len() - 1]));
    median
}

/// Kills a process that has so much memory; how long it took until `wait` told, and until its pidfd did.
fn killed(role: &str, bytes: usize, wait: Way) -> (Duration, Duration) {
    let (mut channel, mut child) = start(role, bytes);
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let here = sched_getcpu();
    let killer = std::thread::spawn(move || {
        stay_away_from(here);
        // So that this process is in the middle of waiting.
        std::thread::sleep(Duration::from_millis(20));
        let at = Instant::now();
        child.kill().unwrap();
        (at, child)
    });
    let error = wait(&mut channel);
    let known = Instant::now();
    assert!(error.is_peer_gone(), "{error}");
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
    let exited = Instant::now();
    let (at, mut child) = killer.join().unwrap();
    child.wait().unwrap();
    (known.saturating_duration_since(at), exited.saturating_duration_since(at))
}

/// So that whoever runs on `processor` is not interrupted by this thread.
fn stay_away_from(processor: usize) {
    let mut others = sched_getaffinity(None).unwrap();
    others.unset(processor);
    if others.count() > 0 {
        sched_setaffinity(None, &others).unwrap();
    }
}

fn start(role: &str, bytes: usize) -> (Channel, Child) {
    let (parent, end) = Channel::pair().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["peer", role, &bytes.to_string()])
        .stdin(Stdio::from(end))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let channel = parent.accept_by(Deadline::Never).unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    (channel, child)
}

/// The second process, which has touched so much memory.
fn peer(role: &str, bytes: usize) {
    let mut channel = Channel::adopt_by(0, Deadline::Never).unwrap();
    let memory = vec![1_u8; bytes];
    rustix::io::write(std::io::stdout(), &[0]).unwrap();
    let message = vec![1; 4 * MIB];
    loop {
        match role {
            "flood" => channel.send(&message).unwrap(),
            "sink" => drop(channel.recv().unwrap()),
            _ => std::thread::park(),
        }
        std::hint::black_box(&memory);
    }
}

fn receive(channel: &mut Channel, strategy: WaitStrategy) -> Error {
    channel.set_wait_strategy(strategy);
    loop {
        if let Err(error) = channel.recv() {
            return error;
        }
    }
}

fn send(channel: &mut Channel, bytes: usize) -> Error {
    let message = vec![1; bytes];
    loop {
        if let Err(error) = channel.send(&message) {
            return error;
        }
    }
}

fn polled(channel: &mut Channel) -> Error {
    loop {
        if channel.arm().unwrap() == Arming::Armed {
            poll(&mut [PollFd::new(&channel.as_fd(), PollFlags::IN)], None).unwrap();
        }
        match channel.receiver().recv_by(Deadline::Now) {
            Err(error) if error.is_peer_gone() => return error,
            _ => {}
        }
    }
}

fn now_and_then(channel: &mut Channel) -> Error {
    loop {
        match channel.receiver().recv_by(Deadline::Now) {
            Err(error) if error.is_peer_gone() => return error,
            _ => std::thread::sleep(Duration::from_micros(20)),
        }
    }
}
