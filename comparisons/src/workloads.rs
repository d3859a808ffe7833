//! Ping-pong and streams over any contender. The host measures; the guest echoes, or sends.
//!
//! Each run has three passes: one in which every byte is compared, one that warms up, and the
//! timed one. Numbers of messages go on from pass to pass.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::order::{Order, Sample, Workload};
use crate::payload::{Pass, Room, SAMPLE_BYTES, Slots, Source, kept_messages};

/// Messages whose every byte is compared, at most, and how many bytes they may have together.
const FULL_MESSAGES: u64 = 100;
const FULL_BYTES: usize = 16 << 20;
/// Messages, or bytes, after which even a pool of shared memory has touched all its pages; and the least for that.
const WARM_MESSAGES: u64 = 2000;
const WARM_BYTES: usize = 32 << 20;
const LEAST_WARM_MESSAGES: u64 = 6;
/// A sender of a stream begins its timed pass when it is told to, by a message of this many bytes.
const GO_BYTES: usize = 8;
const GO: u64 = u64::MAX >> 1;

/// Which messages belong to which pass.
struct Schedule {
    full: Range<u64>,
    warm: Range<u64>,
    timed: Range<u64>,
}

impl Schedule {
    fn of(order: &Order) -> Self {
        let fitting = |bytes: usize| (bytes / order.size_bytes) as u64;
        let full = fitting(FULL_BYTES).clamp(2, FULL_MESSAGES);
        // As many as are kept, whose memory is new to who receives into memory of the library.
        let kept = if order.cold { kept_messages(order.size_bytes) as u64 + 1 } else { 0 };
        // A round trip that sleeps takes some twenty times as long as one that does not, and needs less warming.
        let least =
            if order.workload == Workload::Stream { WARM_MESSAGES } else { WARM_MESSAGES.min(order.messages / 4) };
        let warm = fitting(WARM_BYTES).min(least).max(LEAST_WARM_MESSAGES).max(kept);
        let timed = full + warm..full + warm + order.messages;
        Self { full: 0..full, warm: full..full + warm, timed }
    }

    fn all(&self) -> Range<u64> {
        0..self.timed.end
    }

    fn pass(&self, sequence: u64) -> Pass {
        if self.full.contains(&sequence) { Pass::Full } else { Pass::Sampled }
    }
}

/// The host's part.
pub(crate) fn host<E: Endpoint>(endpoint: &mut E, order: &Order) -> Result<Sample, String> {
    match order.workload {
        Workload::Stream | Workload::Killed => receive_stream(endpoint, order),
        Workload::Rtt | Workload::Fresh => ping(endpoint, order),
    }
}

/// The guest's part.
pub(crate) fn guest<E: Endpoint>(endpoint: &mut E, order: &Order) -> Result<(), String> {
    match order.workload {
        Workload::Stream | Workload::Killed => send_stream(endpoint, order),
        Workload::Rtt | Workload::Fresh => echo(endpoint, order),
    }
}

fn receive_stream<E: Endpoint>(endpoint: &mut E, order: &Order) -> Result<Sample, String> {
    let schedule = Schedule::of(order);
    let mut room = Room::new(Slots::new(order.size_bytes, order.cold));
    let mut go = Source::new(Slots::new(GO_BYTES, false));
    for sequence in schedule.full.start..schedule.warm.end {
        endpoint.receive(&mut room, sequence)?;
        endpoint.check(&room, sequence, schedule.pass(sequence))?;
    }
    let start = Instant::now();
    send(endpoint, &mut go, GO, Pass::Sampled)?;
    for sequence in schedule.timed {
        endpoint.receive(&mut room, sequence)?;
        endpoint.check(&room, sequence, Pass::Sampled)?;
    }
    let ns = start.elapsed().as_nanos() as f64 / order.messages as f64;
    // The guest stays until the last message has arrived.
    send(endpoint, &mut go, GO, Pass::Sampled)?;
    Ok(Sample { ns, p99_ns: None, sleeps: None, remark: endpoint.remark(), line_ns: None })
}

fn send_stream<E: Endpoint>(endpoint: &mut E, order: &Order) -> Result<(), String> {
    let schedule = Schedule::of(order);
    let mut source = Source::new(Slots::new(order.size_bytes, order.cold));
    let mut go = Room::new(Slots::new(GO_BYTES, false));
    for sequence in schedule.full.clone() {
        send(endpoint, &mut source, sequence, Pass::Full)?;
        source.restore(sequence);
    }
    for sequence in schedule.warm {
        send(endpoint, &mut source, sequence, Pass::Sampled)?;
    }
    await_go(endpoint, &mut go)?;
    for sequence in schedule.timed {
        send(endpoint, &mut source, sequence, Pass::Sampled)?;
    }
    await_go(endpoint, &mut go)
}

#[inline]
fn send<E: Endpoint>(endpoint: &mut E, source: &mut Source, sequence: u64, pass: Pass) -> Result<(), String> {
    endpoint.make(source, sequence, pass)?;
    endpoint.send(source, sequence)
}

fn await_go<E: Endpoint>(endpoint: &mut E, go: &mut Room) -> Result<(), String> {
    endpoint.receive(go, GO)?;
    endpoint.check(go, GO, Pass::Sampled)
}

/// A short message is made before the answer to the one before it comes, and an answer is looked at when the next message is under way:
/// the time of a round trip is that of the transport, without what a program does with its messages.
fn ping<E: Endpoint>(endpoint: &mut E, order: &Order) -> Result<Sample, String> {
    let schedule = Schedule::of(order);
    let slots = Slots::new(order.size_bytes, order.cold);
    let (mut source, mut room) = (Source::new(slots), Room::new(slots));
    let mut latencies = Latencies::new(order.messages);
    let (all, is_short) = (schedule.all(), order.size_bytes < SAMPLE_BYTES);
    send(endpoint, &mut source, all.start, schedule.pass(all.start))?;
    for sequence in all.clone() {
        let (pass, next) = (schedule.pass(sequence), sequence + 1);
        let is_last = next == all.end;
        if pass == Pass::Full {
            source.restore(sequence);
        }
        if is_short && !is_last {
            endpoint.make(&mut source, next, schedule.pass(next))?;
        }
        endpoint.receive(&mut room, sequence)?;
        if !is_short {
            endpoint.check(&room, sequence, pass)?;
        }
        if !is_short && !is_last {
            endpoint.make(&mut source, next, schedule.pass(next))?;
        }
        if !is_last {
            endpoint.send(&source, next)?;
        }
        if is_short {
            endpoint.check(&room, sequence, pass)?;
        }
        if next == schedule.timed.start {
            latencies.start();
        } else if next > schedule.timed.start {
            latencies.record();
        }
    }
    Ok(latencies.sample(endpoint.remark()))
}

fn echo<E: Endpoint>(endpoint: &mut E, order: &Order) -> Result<(), String> {
    let schedule = Schedule::of(order);
    let slots = Slots::new(order.size_bytes, order.cold);
    let (mut source, mut room) = (Source::new(slots), Room::new(slots));
    let is_short = order.size_bytes < SAMPLE_BYTES;
    for sequence in schedule.all() {
        let pass = schedule.pass(sequence);
        if is_short {
            endpoint.make(&mut source, sequence, pass)?;
        }
        endpoint.receive(&mut room, sequence)?;
        if !is_short {
            endpoint.check(&room, sequence, pass)?;
        }
        work(order.work_us);
        match is_short {
            true => endpoint.send(&source, sequence)?,
            false => send(endpoint, &mut source, sequence, pass)?,
        }
        if is_short {
            endpoint.check(&room, sequence, pass)?;
        }
        if pass == Pass::Full {
            source.restore(sequence);
        }
    }
    Ok(())
}

/// What an answer costs whose making takes time.
fn work(us: u32) {
    if us > 0 {
        let end = Instant::now() + Duration::from_micros(us.into());
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }
}

/// Round trips that are shorter than this are timed together, so many at a time, as `onecopy bench` does: a look at the clock takes a good
/// part of one.
const SHORT_NS: u64 = 2000;
const TOGETHER: u32 = 10;

/// Round trips, each from the end of the one before it; of short ones the mean of those that were timed together. Where that is twice as
/// long as before, one of them was interrupted: it has all that is more.
pub(crate) struct Latencies {
    ns: Vec<u32>,
    before: Instant,
    clock_cost_ns: u32,
    /// How many are timed together now, and how many of them are over.
    together: u32,
    over: u32,
    /// The mean of the last ones.
    usual_ns: u64,
    switches_before: u64,
}

impl Latencies {
    pub(crate) fn new(count: u64) -> Self {
        let (before, clock_cost_ns) = (Instant::now(), clock_cost_ns());
        Self {
            ns: Vec::with_capacity(count as usize),
            before,
            clock_cost_ns,
            together: 1,
            over: 0,
            usual_ns: 0,
            switches_before: 0,
        }
    }

    pub(crate) fn start(&mut self) {
        self.switches_before = voluntary_switches();
        self.before = Instant::now();
    }

    #[inline]
    pub(crate) fn record(&mut self) {
        self.over += 1;
        if self.over == self.together {
            self.look(Instant::now());
        }
    }

    fn look(&mut self, now: Instant) {
        let all = ((now - self.before).as_nanos() as u64).saturating_sub(self.clock_cost_ns.into());
        let mean = all / u64::from(self.together);
        let others = self.together - 1;
        let (usual, last) = match mean > 2 * self.usual_ns && others > 0 {
            true => (self.usual_ns, all - self.usual_ns * u64::from(others)),
            false => (mean, mean),
        };
        let ns = |ns: u64| u32::try_from(ns).unwrap_or(u32::MAX);
        self.ns.extend((0..others).map(|_| ns(usual)).chain([ns(last)]));
        self.together = if mean < SHORT_NS { TOGETHER } else { 1 };
        (self.before, self.over, self.usual_ns) = (now, 0, mean);
    }

    pub(crate) fn sample(mut self, remark: Option<String>) -> Sample {
        let switches = voluntary_switches() - self.switches_before;
        let sleeps = Some(switches as f64 / self.ns.len() as f64);
        self.ns.sort_unstable();
        let at = |hundredths: usize| f64::from(self.ns[(self.ns.len() - 1) * hundredths / 100]);
        Sample { ns: at(50), p99_ns: Some(at(99)), sleeps, remark, line_ns: None }
    }
}

/// How often this thread has given its processor up, to sleep.
fn voluntary_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

fn clock_cost_ns() -> u32 {
    let mut before = Instant::now();
    let mut costs: Vec<u32> = (0..1001)
        .map(|_| {
            let now = Instant::now();
            let cost = (now - before).as_nanos() as u32;
            before = now;
            cost
        })
        .collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}
