//! The figures by which the constants of the ring were chosen: `cargo run --release -p onecopy --example ring_figures`.
//!
//! Two processes, each pinned to a core of its own, with the baselines of the same run. `onecopy bench` is the tool for
//! users; this one is for whoever changes the ring. With sizes as arguments it measures the streams of these sizes only.

use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use onecopy::memory::Region;
use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::memory::ring::{RING_BYTES, RingReceiver, RingSender};
use onecopy::{Deadline, Receiver, Sender, WaitStrategy};

/// Rotating over this much keeps the caches cold.
const COLD_BYTES: usize = 128 << 20;
const ROUNDS: usize = 20_000;
/// Each figure is the best of so many attempts, and of the windows of so many messages in each: others may use the machine.
const ATTEMPTS: usize = 3;
const WINDOW: usize = 200;
const SIZES: [usize; 11] = [8, 56, 64, 104, 256, 1024, 4096, 64 << 10, 1 << 20, 16 << 20, 64 << 20];

fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer();
    }
    pin(0);
    println!("cache-line round trip: {:?}", (0..ATTEMPTS).map(|_| cache_line_round_trip()).min().unwrap());
    let sizes: Vec<usize> = std::env::args().skip(1).map(|size| size.parse().expect("a size in bytes")).collect();
    if sizes.is_empty() {
        round_trips();
    }
    for size in if sizes.is_empty() { SIZES.to_vec() } else { sizes } {
        streams(size);
    }
}

fn round_trips() {
    for strategy in [WaitStrategy::Spin, WaitStrategy::Adaptive, WaitStrategy::Block] {
        for size in [8, 56, 64, 1024] {
            let time = (0..ATTEMPTS).map(|_| round_trip(size, strategy)).min().unwrap();
            println!("rtt {size:5} B {strategy:?}: {time:?}");
        }
    }
}

fn streams(size: usize) {
    for cold in [false, true] {
        let memcpy = best(|| memcpy(size, cold));
        let ring = best(|| stream(size, cold));
        println!(
            "stream {} {size:9} B: ring {:9.1} ns {:6.2} GB/s, memcpy {:6.2} GB/s, ratio {:.2}",
            if cold { "cold" } else { "hot " },
            ring * 1e9,
            size as f64 / ring / 1e9,
            size as f64 / memcpy / 1e9,
            memcpy / ring
        );
    }
}

fn best(measure: impl Fn() -> f64) -> f64 {
    (0..ATTEMPTS).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

/// Starts the second process, which finds the ring from it in its standard input and the ring to it in its standard output.
fn start_peer(role: &str, size: usize, cold: bool, strategy: WaitStrategy) -> (Region, Region, Child) {
    let from = AnonymousMapping::create("from", RING_BYTES).unwrap();
    let to = AnonymousMapping::create("to", RING_BYTES).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["peer", role, &size.to_string(), &cold.to_string(), &format!("{strategy:?}")])
        .stdin(Stdio::from(from.try_clone_fd().unwrap()))
        .stdout(Stdio::from(to.try_clone_fd().unwrap()))
        .spawn()
        .unwrap();
    (from.into_region(), to.into_region(), child)
}

/// Two threads, a cache line for each direction, no pause.
fn cache_line_round_trip() -> Duration {
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
    let mut best = Duration::MAX;
    let mut start = Instant::now();
    for round in 1..=rounds {
        lines[0].0.store(round, Ordering::Release);
        while lines[1].0.load(Ordering::Acquire) != round {}
        if round % WINDOW as u32 == 0 {
            best = best.min(start.elapsed() / WINDOW as u32);
            start = Instant::now();
        }
    }
    echo.join().unwrap();
    best
}

fn round_trip(size: usize, strategy: WaitStrategy) -> Duration {
    let (from, to, mut child) = start_peer("echo", size, false, strategy);
    let mut receiver = RingReceiver::attach(from, Deadline::Never).unwrap();
    let mut sender = RingSender::attach(to, Deadline::Never).unwrap();
    receiver.set_wait_strategy(strategy);
    sender.set_wait_strategy(strategy);
    let mut buffer = vec![1; size];
    assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(size), "the peer is ready");
    let rounds = if strategy == WaitStrategy::Block { ROUNDS / 10 } else { ROUNDS };
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            sender.send(&buffer).unwrap();
            receiver.recv_into(&mut buffer).unwrap();
            start.elapsed()
        })
        .collect();
    drop(sender);
    child.wait().unwrap();
    times.sort();
    times[rounds / 2]
}

fn stream(size: usize, cold: bool) -> f64 {
    let (region, _, mut child) = start_peer("flood", size, cold, WaitStrategy::Spin);
    let mut receiver = RingReceiver::attach(region, Deadline::Never).unwrap();
    receiver.set_wait_strategy(WaitStrategy::Spin);
    let mut target = vec![1_u8; buffer_bytes(size, cold)];
    let mut windows = Windows::new(size);
    let mut offset = 0;
    while let Some(len) = receiver.recv_into(&mut target[offset..offset + size]).unwrap() {
        black_box(&target[offset]);
        offset = next(offset, len, target.len());
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

fn peer() {
    pin(1);
    let arguments: Vec<String> = std::env::args().collect();
    let size: usize = arguments[3].parse().unwrap();
    let cold = arguments[4] == "true";
    let strategy = match arguments[5].as_str() {
        "Spin" => WaitStrategy::Spin,
        "Adaptive" => WaitStrategy::Adaptive,
        _ => WaitStrategy::Block,
    };
    let region = AnonymousMapping::from_inherited(0).unwrap().into_region();
    let mut sender = RingSender::attach(region, Deadline::Never).unwrap();
    sender.set_wait_strategy(strategy);
    if arguments[2] == "flood" {
        let source = vec![1_u8; buffer_bytes(size, cold)];
        let mut offset = 0;
        for _ in 0..messages(size) {
            sender.send(&source[offset..offset + size]).unwrap();
            offset = next(offset, size, source.len());
        }
        return;
    }
    let mut buffer = vec![1; size];
    let back = AnonymousMapping::from_inherited(1).unwrap().into_region();
    let mut receiver = RingReceiver::attach(back, Deadline::Never).unwrap();
    receiver.set_wait_strategy(strategy);
    sender.send(&buffer).unwrap();
    while receiver.recv_into(&mut buffer).unwrap().is_some() {
        sender.send(&buffer).unwrap();
    }
}

fn messages(size: usize) -> usize {
    ((512_usize << 20) / size).clamp(8, 500_000)
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
