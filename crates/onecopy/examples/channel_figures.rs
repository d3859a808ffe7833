//! The figures by which the constants of the channel were chosen: `cargo run --release -p onecopy --example channel_figures`.
//!
//! Two processes, each pinned to a core of its own, with the baselines of the same run. `onecopy bench` is the tool for
//! users; this one is for whoever changes the channel. With sizes as arguments it measures these sizes only.

use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use onecopy::{Channel, Deadline, WaitStrategy};

/// Rotating over this much keeps the caches cold.
const COLD_BYTES: usize = 128 << 20;
const ROUNDS: usize = 20_000;
/// Round trips that are timed together, to be told apart from those that met another program.
const WINDOW: u32 = 200;
/// Each figure is the best of so many attempts, and of the windows of so many messages in each: others may use the machine.
const ATTEMPTS: usize = 3;
const SMALL: [usize; 4] = [8, 56, 64, 1024];
const LARGE: [usize; 9] = [4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 4 << 20, 16 << 20];
/// Which way a message may go, by the crossover points that are set: through the ring, by single copy, by both sides.
const WAYS: [(&str, usize, usize); 3] = [("ring", usize::MAX, usize::MAX), ("single", 0, usize::MAX), ("both", 0, 0)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "peer") {
        return peer(&arguments);
    }
    pin(0);
    let line = (0..ATTEMPTS).map(|_| cache_line_round_trip()).fold(f64::INFINITY, f64::min);
    println!("cache-line round trip: {:.0} ns", line * 1e9);
    let sizes: Vec<usize> = arguments.iter().map(|size| size.parse().expect("a size in bytes")).collect();
    for size in SMALL.into_iter().filter(|size| sizes.is_empty() || sizes.contains(size)) {
        let time = best(|| round_trip(size, 1 << 20, 1 << 20));
        println!("rtt {size:5} B: {:.0} ns, {:.2} x line", time * 1e9, time / line);
    }
    for size in LARGE.into_iter().filter(|size| sizes.is_empty() || sizes.contains(size)) {
        large(size);
    }
}

fn large(size: usize) {
    let hot = best(|| memcpy(size, false));
    let cold = best(|| memcpy(size, true));
    println!("{} KiB: memcpy hot {:.2}, cold {:.2} GB/s; x memcpy:", size >> 10, rate(size, hot), rate(size, cold));
    for (name, single, both) in WAYS {
        let fresh = best(|| round_trip(size, single, both)) / 2.0;
        let streams = [false, true].map(|is_cold| best(|| stream(size, is_cold, single, both)));
        println!(
            "  {name:6}: half a round trip {:.2} x hot memcpy, stream hot {:.2}, cold {:.2}",
            fresh / hot,
            hot / streams[0],
            cold / streams[1]
        );
    }
}

fn rate(size: usize, seconds: f64) -> f64 {
    size as f64 / seconds / 1e9
}

fn best(measure: impl Fn() -> f64) -> f64 {
    (0..ATTEMPTS).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

/// Starts the second process, which finds its end of the channel in its standard input.
fn start(role: &str, size: usize, cold: bool, single: usize, both: usize) -> (Channel, Child) {
    let (parent, end) = Channel::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["peer", role, &size.to_string(), &cold.to_string(), &single.to_string(), &both.to_string()])
        .stdin(Stdio::from(end))
        .spawn()
        .unwrap();
    let mut channel = parent.accept_by(Deadline::Never).unwrap();
    set(&mut channel, single, both);
    (channel, child)
}

fn set(channel: &mut Channel, single: usize, both: usize) {
    channel.set_wait_strategy(WaitStrategy::Spin);
    channel.sender().set_single_copy_bytes(single);
    channel.receiver().set_cooperative_bytes(both);
}

/// Seconds from a message to its answer of the same size, the median. Round trips of short messages are timed together, since a
/// look at the clock takes a good part of one.
fn round_trip(size: usize, single: usize, both: usize) -> f64 {
    let (mut channel, mut child) = start("echo", size, false, single, both);
    let message = vec![1; size];
    let rounds = ((64 << 20) / size).clamp(20, ROUNDS);
    let together = if size < 4096 { 20 } else { 1 };
    let mut times: Vec<f64> = (0..rounds / together)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..together {
                channel.send(&message).unwrap();
                assert_eq!(channel.recv().unwrap().unwrap().len(), size);
            }
            start.elapsed().as_secs_f64() / together as f64
        })
        .collect();
    drop(channel);
    child.wait().unwrap();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Seconds for a message of a stream.
fn stream(size: usize, cold: bool, single: usize, both: usize) -> f64 {
    let (mut channel, mut child) = start("flood", size, cold, single, both);
    // What is received stays for a while, so that its memory is as cold as the sender's.
    let mut kept = std::collections::VecDeque::new();
    let keep = if cold { (COLD_BYTES / 2 / size).min(48) } else { 0 };
    let mut windows = Windows::new(size);
    while let Some(message) = channel.recv().unwrap() {
        black_box(message.first());
        kept.push_back(message);
        if kept.len() > keep {
            kept.pop_front();
        }
        windows.count();
    }
    child.wait().unwrap();
    windows.best
}

/// The best time for a message over windows long enough to hold a preemption or a cold start of either side.
struct Windows {
    messages: usize,
    counted: usize,
    start: Instant,
    best: f64,
}

impl Windows {
    fn new(size: usize) -> Self {
        Self { messages: ((8 << 20) / size).clamp(4, 20_000), counted: 0, start: Instant::now(), best: f64::INFINITY }
    }

    fn count(&mut self) {
        self.counted += 1;
        if self.counted == self.messages {
            self.best = self.best.min(self.start.elapsed().as_secs_f64() / self.messages as f64);
            (self.counted, self.start) = (0, Instant::now());
        }
    }
}

fn memcpy(size: usize, cold: bool) -> f64 {
    let source = vec![1_u8; buffer_bytes(size, cold)];
    let mut target = vec![1_u8; buffer_bytes(size, cold)];
    let mut offset = 0;
    let mut windows = Windows::new(size);
    for _ in 0..messages(size) {
        target[offset..offset + size].copy_from_slice(black_box(&source[offset..offset + size]));
        black_box(&mut target[offset]);
        offset = next(offset, size, target.len());
        windows.count();
    }
    windows.best
}

/// Two threads, a cache line for each direction, no pause.
fn cache_line_round_trip() -> f64 {
    #[repr(align(128))]
    struct Line(AtomicU32);
    let lines = Arc::new([Line(AtomicU32::new(0)), Line(AtomicU32::new(0))]);
    let theirs = Arc::clone(&lines);
    let rounds = 10 * ROUNDS as u32;
    let echo = std::thread::spawn(move || {
        pin(1);
        for round in 1..=rounds {
            while theirs[0].0.load(Ordering::Acquire) != round {}
            theirs[1].0.store(round, Ordering::Release);
        }
    });
    let (mut time, mut start) = (f64::INFINITY, Instant::now());
    for round in 1..=rounds {
        lines[0].0.store(round, Ordering::Release);
        while lines[1].0.load(Ordering::Acquire) != round {}
        if round % WINDOW == 0 {
            time = time.min(start.elapsed().as_secs_f64() / f64::from(WINDOW));
            start = Instant::now();
        }
    }
    echo.join().unwrap();
    time
}

fn peer(arguments: &[String]) {
    pin(1);
    let number = |index: usize| arguments[index].parse::<usize>().unwrap();
    let (size, cold) = (number(2), arguments[3] == "true");
    let mut channel = Channel::adopt_by(0, Deadline::Never).unwrap();
    set(&mut channel, number(4), number(5));
    if arguments[1] == "flood" {
        let source = vec![1_u8; buffer_bytes(size, cold)];
        let mut offset = 0;
        for _ in 0..messages(size) {
            channel.send(&source[offset..offset + size]).unwrap();
            offset = next(offset, size, source.len());
        }
        return;
    }
    let message = vec![1; size];
    while channel.recv().unwrap().is_some() {
        channel.send(&message).unwrap();
    }
}

fn messages(size: usize) -> usize {
    ((256_usize << 20) / size).clamp(8, 500_000)
}

fn buffer_bytes(size: usize, cold: bool) -> usize {
    if cold { COLD_BYTES.max(size) } else { size }
}

fn next(offset: usize, size: usize, total: usize) -> usize {
    let next = offset + size.next_multiple_of(64);
    if next + size > total { 0 } else { next }
}

fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &cores);
}
