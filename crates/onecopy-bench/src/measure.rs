//! One row: a pass that checks every byte, a calibration, and timed runs.

use std::time::Duration;

use crate::cache_line::CacheLine;
use crate::control::{Check, Motion, Run, Sample};
use crate::cpu;
use crate::options::Workload;
use crate::payload::{Content, Slots};
use crate::plan::Case;
use crate::session::{Failure, Session, Setting};
use crate::stats::{self, Summary};
use crate::work::Work;

/// How many bytes the pass that checks everything moves, when no file says how many.
const CHECKED_BYTES: usize = 4 << 20;
/// What checking takes at most, for each message and for each byte of it.
const CHECKED_MESSAGE: Duration = Duration::from_micros(20);
const CHECKED_BYTE: Duration = Duration::from_nanos(10);
/// What part of a run's time a look at the cache line takes.
const LOOKS: u32 = 8;
/// A run is never longer, in messages: their numbers stay below 2^32 over all runs of a row.
const MAX_MESSAGES: u64 = 50_000_000;

/// The figures of all timed runs of one link.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// For each run, bytes a second.
    pub(crate) bytes_per_s: Vec<f64>,
    /// For each run, processor time of both sides for each KiB.
    pub(crate) cpu_ns_per_kib: Vec<f64>,
    /// For each run of round trips, the median in nanoseconds.
    pub(crate) medians_ns: Vec<f64>,
    /// For each run that is compared with it, the round trip of a cache line just before and after, in nanoseconds.
    pub(crate) lines_ns: Vec<f64>,
    /// The round trips of all runs.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// What each side did one way; the guest sends.
    pub(crate) sender: Work,
    pub(crate) receiver: Work,
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    /// The way that the messages took in the last run, where a transport has several.
    pub(crate) path: Option<String>,
    pub(crate) mismatch: Option<String>,
}

/// One link, measured at one size.
pub(crate) struct Measurement<'s, 'a> {
    session: &'s mut Session<'a>,
    run: Run,
    /// How many messages a timed run has, after calibration.
    messages: u64,
    run_time: Duration,
    figures: Figures,
}

impl<'s, 'a> Measurement<'s, 'a> {
    /// Checks every byte of some messages, then finds out how many make a timed run.
    pub(crate) fn begin(
        session: &'s mut Session<'a>,
        setting: &Setting,
        case: &Case,
        run_time: Duration,
    ) -> Result<Self, Failure> {
        let motion = match case.workload {
            workload if workload.is_ping_pong() => Motion::RoundTrip,
            workload if workload.is_in_place() => Motion::InPlace { is_touched: workload == Workload::Loan },
            Workload::Registered => Motion::Registered,
            _ => Motion::OneWay,
        };
        let run = Run {
            motion,
            size_bytes: case.size_bytes,
            cold: case.cold,
            messages: checked_messages(setting, case)?,
            first_sequence: 0,
            check: Check::Full,
        };
        let mut this = Self { session, run, messages: 0, run_time, figures: Figures::default() };
        this.pass(checking_time(&run))?;
        this.run.check = Check::Sampled;
        if case.cold && case.transport.is_channel() {
            this.fill_up()?;
        }
        this.messages = this.calibrate()?;
        this.figures.messages = 0;
        this.figures.lost = 0;
        Ok(this)
    }

    /// One timed run, between two looks at how long a cache line takes.
    pub(crate) fn time_beside(&mut self, line: Option<&mut CacheLine<'_>>) -> Result<(), Failure> {
        let Some(line) = line else { return self.time() };
        let look_time = self.run_time / LOOKS;
        let before = line.rtt_ns(look_time)?;
        self.time()?;
        self.figures.lines_ns.push(f64::midpoint(before, line.rtt_ns(look_time)?));
        Ok(())
    }

    /// One timed run.
    pub(crate) fn time(&mut self) -> Result<(), Failure> {
        self.run.messages = self.messages;
        let [guest, host] = self.pass(self.run_time)?;
        let bytes = host.messages * self.run.size_bytes as u64;
        let figures = &mut self.figures;
        figures.cpu_ns_per_kib.push(cpu::ns_per_kib(guest.cpu_ns + host.cpu_ns, bytes));
        figures.bytes_per_s.push(bytes as f64 / seconds(elapsed_ns(&guest, &host)));
        if self.run.motion == Motion::RoundTrip {
            let mut histogram = stats::histogram();
            stats::merge(&mut histogram, &guest.latencies);
            figures.medians_ns.push(histogram.value_at_quantile(0.5) as f64);
            figures.latencies.extend(guest.latencies);
        } else {
            figures.sender.add(&guest, self.run.size_bytes);
            figures.receiver.add(&host, self.run.size_bytes);
        }
        Ok(())
    }

    pub(crate) fn end(self) -> Figures {
        self.figures
    }

    /// Runs of growing length until one is long enough to tell how many messages the run time holds.
    fn calibrate(&mut self) -> Result<u64, Failure> {
        let long_enough_ns = self.run_time.as_nanos() as u64 / 10;
        self.run.messages = if self.run.size_bytes < CHECKED_BYTES { 8 } else { 2 };
        loop {
            let [guest, host] = self.pass(self.run_time)?;
            let elapsed_ns = elapsed_ns(&guest, &host).max(1);
            let wanted = u128::from(self.run.messages) * self.run_time.as_nanos() / u128::from(elapsed_ns);
            let wanted = (wanted as u64).clamp(1, MAX_MESSAGES);
            if elapsed_ns >= long_enough_ns || self.run.messages >= MAX_MESSAGES {
                return Ok(wanted);
            }
            self.run.messages = wanted.clamp(self.run.messages * 2, self.run.messages * 16);
        }
    }

    /// Lets the receiver keep as many messages as it is going to: the first touch of their memory is no part of a timed run,
    /// nor of those that tell how many messages that has.
    fn fill_up(&mut self) -> Result<(), Failure> {
        self.run.messages = Slots::new(self.run.size_bytes, true).count as u64;
        self.pass(checking_time(&self.run)).map(drop)
    }

    fn pass(&mut self, expected: Duration) -> Result<[Sample; 2], Failure> {
        let samples = self.session.run(&self.run, expected)?;
        self.run.first_sequence += self.run.messages;
        for sample in &samples {
            self.figures.lost += sample.lost;
            if sample.path.is_some() {
                self.figures.path.clone_from(&sample.path);
            }
            if self.figures.mismatch.is_none() {
                self.figures.mismatch.clone_from(&sample.mismatch);
            }
        }
        self.figures.messages += self.run.messages;
        Ok(samples)
    }
}

/// How many messages the first pass checks: a file is checked whole.
fn checked_messages(setting: &Setting, case: &Case) -> Result<u64, Failure> {
    match case.workload {
        Workload::Rtt | Workload::Many => return Ok(64),
        Workload::Fresh => return Ok((CHECKED_BYTES / case.size_bytes).clamp(3, 64) as u64),
        _ => {}
    }
    if setting.input.is_none() {
        return Ok((CHECKED_BYTES / case.size_bytes).clamp(3, 512) as u64);
    }
    let content = Content::open(setting.input.as_deref());
    content.map(|content| content.pieces(case.size_bytes)).map_err(|error| Failure::Failed(error.to_string()))
}

fn checking_time(run: &Run) -> Duration {
    let bytes = run.messages.saturating_mul(run.size_bytes as u64);
    let ns = u128::from(run.messages) * CHECKED_MESSAGE.as_nanos() + u128::from(bytes) * CHECKED_BYTE.as_nanos();
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// From the first message's departure to the last one's arrival.
fn elapsed_ns(guest: &Sample, host: &Sample) -> u64 {
    guest.end_ns.max(host.end_ns).saturating_sub(guest.start_ns)
}

fn seconds(ns: u64) -> f64 {
    ns.max(1) as f64 / 1e9
}

impl Figures {
    pub(crate) fn throughput(&self) -> Summary {
        Summary::of(&self.bytes_per_s)
    }

    /// How long a cache line took beside the runs.
    pub(crate) fn line_ns(&self) -> Option<f64> {
        (!self.lines_ns.is_empty()).then(|| Summary::of(&self.lines_ns).median)
    }

    /// The times of the runs as multiples of what a cache line took beside each: the median.
    pub(crate) fn ratio_to_lines(&self, times_ns: impl IntoIterator<Item = f64>) -> Option<f64> {
        let ratios: Vec<_> = times_ns.into_iter().zip(&self.lines_ns).map(|(time, line)| time / line).collect();
        (!ratios.is_empty()).then(|| Summary::of(&ratios).median)
    }
}
