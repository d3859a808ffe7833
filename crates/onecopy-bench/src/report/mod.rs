//! What was measured, as data; the files beside this one print it.

mod advice;
mod compare;
mod copies;
mod crossovers;
mod csv;
mod html;
mod json;
mod table;

use serde::{Deserialize, Serialize};

pub use self::copies::SideWork;
pub use self::crossovers::{Crossing, Crossovers, WayAtSize};
pub use crate::host::Host;
use crate::measure::Figures;
use crate::options::{Wait, Workload};
use crate::plan::Case;
use crate::stats::{self, Summary};
use crate::transport::Transport;

/// The version of the form of [`Report`].
const VERSION: u32 = 1;
/// Runs that differ by more than this make a warning.
const WIDE_SPREAD: f64 = 0.25;

/// All figures of one call, and where they come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form: 1.
    pub version: u32,
    /// The machine and the build.
    pub host: Host,
    /// What the machine itself can do.
    pub baselines: Baselines,
    /// The rows, in the order in which they were measured.
    pub rows: Vec<Row>,
    /// Where the ways through the channel cross; `None` when its messages were not measured one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossovers: Option<Crossovers>,
    /// What makes these figures doubtful, with the remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What the machine itself can do, measured in the same call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// The median round trip of a cache line between two spinning processes, in nanoseconds; `None` when no row needs it or
    /// there is one core only.
    pub cache_line_rtt_ns: Option<f64>,
    /// memcpy in one process, at the sizes of the rows.
    pub memcpy: Vec<MemcpyRate>,
    /// The two steps of the workload loan, filling and summing up, in one process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_place: Vec<MemcpyRate>,
}

/// memcpy at one size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemcpyRate {
    /// The size of each copy.
    pub size_bytes: usize,
    /// Whether source and target rotate over 128 MiB each; else one buffer each is used again and again.
    pub cold: bool,
    /// The median of the runs.
    pub bytes_per_s: f64,
}

/// Percentiles of all round trips of all runs, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// 99 % were no longer.
    pub p99: u64,
    /// 99.9 % were no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// One mechanism at one size, or why there are no figures.
///
/// What a workload does not measure is `None`, and left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// The mechanism's name.
    pub mechanism: String,
    /// What is done with it: `transfer`.
    pub kind: String,
    /// The workload's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The length of each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<usize>,
    /// Whether each side rotates over 128 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold: Option<bool>,
    /// How the sides wait: `block`, `spin` or `adaptive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// Which way a channel's messages took: `line`, `ring`, `single-copy`, `cooperative`, `registered` or `loan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Messages in all timed runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Bytes that arrived, for each second: the median of the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    /// The same as a share of memcpy at the same size and temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_memcpy: Option<f64>,
    /// Workload fresh: the median time of a message as a multiple of that of a hot memcpy of its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_memcpy_time: Option<f64>,
    /// Workload loan: the throughput as a share of that of one process which fills and sums up alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_one_process: Option<f64>,
    /// Workload loan-untouched: the time of a message, back to back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_per_message: Option<f64>,
    /// Round trips; in the workload fresh, halves of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<Latency>,
    /// The median round trip as a multiple of that of a cache line beside it; in the workload loan-untouched, the time of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_cache_line: Option<f64>,
    /// What a cache line took beside the runs of this row, which may be something else than the baseline, where cores move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_line_rtt_ns: Option<f64>,
    /// Workload many: how many channels the receiver waits for, of which one has messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
    /// Workload many: the round trip as a multiple of that of a receiver with a single channel; the median over pairs of
    /// neighbouring runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_one_channel: Option<f64>,
    /// Workload layer: bytes a second of the plain loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_bytes_per_s: Option<f64>,
    /// Workload layer: ours as a share of the plain loop; the median over pairs of neighbouring runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_plain: Option<f64>,
    /// Whether messages went in fragments, because the mechanism carries none of this size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragmented: Option<bool>,
    /// How many times a message's bytes are copied, as the mechanism is known to do it; what both sides counted stands in
    /// `sender` and `receiver`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// Processor time of both sides for each KiB: the median of the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns_per_kib: Option<f64>,
    /// Workload copies: what the sender did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<SideWork>,
    /// Workload copies: what the receiver did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver: Option<SideWork>,
    /// Messages that never arrived, where that can happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// How many processes took a lock, or woke each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// From before a lock is taken until it is given back, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_per_acquire: Option<f64>,
    /// How many timed runs there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<usize>,
    /// How far the runs lie apart: (max - min) / median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Whether everything that arrived was what was sent. A row that failed did not verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// What failed, or the first difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why this machine cannot measure the mechanism, or this size of message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl Report {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            version: VERSION,
            host,
            baselines: Baselines::default(),
            rows: Vec::new(),
            crossovers: None,
            warnings: Vec::new(),
        }
    }

    /// Whether every row verified, or was skipped because this machine lacks the mechanism.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.skipped.is_some() || row.verified == Some(true))
    }

    pub(crate) fn warn_of_spread(&mut self) {
        // The ratios of the layer, and of many channels, come from many short runs, of which a few may be far off without moving the median.
        let is_wide = |row: &&Row| {
            row.ratio_to_plain.or(row.ratio_to_one_channel).is_none()
                && row.spread.is_some_and(|spread| spread > WIDE_SPREAD)
        };
        let wide = self.rows.iter().filter(is_wide).count();
        if wide > 0 {
            self.warnings.push(format!(
                "the runs of {wide} of {} rows lie more than {:.0} % apart: other programs are using these cores; close them \
                 and measure again",
                self.rows.len(),
                WIDE_SPREAD * 100.0
            ));
        }
    }
}

impl Row {
    /// What all rows of a case say.
    fn of(case: &Case) -> Self {
        Self {
            mechanism: case.transport.name().into(),
            kind: "transfer".into(),
            workload: Some(case.workload.name().into()),
            size_bytes: Some(case.size_bytes),
            cold: (!case.workload.is_ping_pong()).then_some(case.cold),
            wait: Some(case.wait.name().into()),
            channels: case.channels,
            ..Self::default()
        }
    }

    pub(crate) fn skipped(transport: Transport, reason: String) -> Self {
        let (mechanism, kind) = (transport.name().into(), "transfer".into());
        Self { mechanism, kind, skipped: Some(reason), ..Self::default() }
    }

    pub(crate) fn too_long(case: &Case, reason: String) -> Self {
        Self { skipped: Some(reason), ..Self::of(case) }
    }

    pub(crate) fn failed(case: &Case, reason: String) -> Self {
        Self { verified: Some(false), error: Some(reason), ..Self::of(case) }
    }

    pub(crate) fn round_trip(case: &Case, figures: &Figures) -> Self {
        let medians = Summary::of(&figures.medians_ns);
        Self {
            latency_ns: Some(Latency::of(&figures.latencies)),
            ratio_to_cache_line: figures.ratio_to_lines(figures.medians_ns.iter().copied()),
            cache_line_rtt_ns: figures.line_ns(),
            spread: Some(medians.spread),
            ..Self::with_figures(case, figures)
        }
    }

    /// A ping-pong of long messages: each way counts for itself.
    pub(crate) fn fresh(case: &Case, figures: &Figures, baselines: &Baselines) -> Self {
        let medians = Summary::of(&figures.medians_ns);
        let memcpy_ns = baselines.rate(case.size_bytes, false).map(|rate| case.size_bytes as f64 * 1e9 / rate);
        Self {
            latency_ns: Some(Latency::of(&figures.latencies).halved()),
            ratio_to_memcpy_time: memcpy_ns.map(|memcpy| medians.median / 2.0 / memcpy),
            spread: Some(medians.spread),
            ..Self::with_figures(case, figures)
        }
    }

    /// Messages that stay where they are made.
    pub(crate) fn in_place(case: &Case, figures: &Figures, baselines: &Baselines) -> Self {
        let throughput = figures.throughput();
        let row = Self { spread: Some(throughput.spread), ..Self::with_figures(case, figures) };
        if case.workload == Workload::Loan {
            let alone = baselines.in_place.iter().find(|rate| rate.size_bytes == case.size_bytes);
            return Self {
                bytes_per_s: Some(throughput.median),
                ratio_to_one_process: alone.map(|alone| throughput.median / alone.bytes_per_s),
                cpu_ns_per_kib: Some(Summary::of(&figures.cpu_ns_per_kib).median),
                ..row
            };
        }
        // The bytes moved nowhere: their rate would say nothing.
        let ns_per_message = |bytes_per_s: f64| case.size_bytes as f64 * 1e9 / bytes_per_s;
        Self {
            ns_per_message: Some(ns_per_message(throughput.median)),
            ratio_to_cache_line: figures.ratio_to_lines(figures.bytes_per_s.iter().copied().map(ns_per_message)),
            cache_line_rtt_ns: figures.line_ns(),
            ..row
        }
    }

    pub(crate) fn one_way(case: &Case, figures: &Figures, baselines: &Baselines) -> Self {
        let throughput = figures.throughput();
        Self {
            bytes_per_s: Some(throughput.median),
            ratio_to_memcpy: baselines.rate(case.size_bytes, case.cold).map(|memcpy| throughput.median / memcpy),
            cpu_ns_per_kib: Some(Summary::of(&figures.cpu_ns_per_kib).median),
            spread: Some(throughput.spread),
            ..Self::with_figures(case, figures)
        }
    }

    pub(crate) fn of_many(case: &Case, many: &Figures, one: &Figures) -> Self {
        let ratios: Vec<f64> = many.medians_ns.iter().zip(&one.medians_ns).map(|(many, one)| many / one).collect();
        let ratio = Summary::of(&ratios);
        let mismatch =
            many.mismatch.clone().or_else(|| Some(format!("the single channel: {}", one.mismatch.as_ref()?)));
        Self {
            latency_ns: Some(Latency::of(&many.latencies)),
            ratio_to_one_channel: Some(ratio.median),
            spread: Some(ratio.spread),
            verified: Some(mismatch.is_none()),
            error: mismatch,
            ..Self::with_figures(case, many)
        }
    }

    pub(crate) fn layered(case: &Case, ours: &Figures, plain: &Figures) -> Self {
        let ratios: Vec<f64> =
            ours.bytes_per_s.iter().zip(&plain.bytes_per_s).map(|(ours, plain)| ours / plain).collect();
        let ratio = Summary::of(&ratios);
        let mismatch = ours.mismatch.clone().or_else(|| Some(format!("the plain loop: {}", plain.mismatch.as_ref()?)));
        Self {
            bytes_per_s: Some(ours.throughput().median),
            plain_bytes_per_s: Some(plain.throughput().median),
            ratio_to_plain: Some(ratio.median),
            spread: Some(ratio.spread),
            verified: Some(mismatch.is_none()),
            error: mismatch,
            ..Self::with_figures(case, ours)
        }
    }

    /// The same row, whose messages went in fragments: each side copies once more, to and from where a fragment stands behind
    /// its header.
    pub(crate) fn in_fragments(self) -> Self {
        Self { fragmented: Some(true), copies: self.copies.map(|copies| copies + 2), ..self }
    }

    fn with_figures(case: &Case, figures: &Figures) -> Self {
        Self {
            messages: Some(figures.messages),
            path: figures.path.clone(),
            copies: Some(copies(case.transport, figures.path.as_deref())),
            lost: case.transport.is_lossy().then_some(figures.lost),
            runs: Some(figures.bytes_per_s.len()),
            verified: Some(figures.mismatch.is_none()),
            error: figures.mismatch.clone(),
            ..Self::of(case)
        }
    }

    /// Whether the row has figures.
    fn is_measured(&self) -> bool {
        self.runs.is_some()
    }

    fn is_of(&self, workload: Workload) -> bool {
        self.workload.as_deref() == Some(workload.name())
    }

    /// The mechanism, and of many channels their number.
    fn measured_name(&self) -> String {
        let mechanism = &self.mechanism;
        self.channels.map_or_else(|| mechanism.clone(), |channels| format!("{mechanism}, {channels} of them"))
    }

    /// What two rows of different calls have in common when they measure the same.
    fn identity(&self) -> impl PartialEq + '_ {
        let Self { workload, size_bytes, cold, wait, channels, .. } = self;
        (&self.mechanism, workload, size_bytes, cold, wait, channels)
    }

    fn waits_by(&self, wait: Wait) -> bool {
        self.wait.as_deref() == Some(wait.name())
    }
}

/// How often the bytes were copied: what both sides copy together they copy once.
fn copies(transport: Transport, path: Option<&str>) -> u32 {
    match path {
        Some("loan") => 0,
        Some("single-copy" | "cooperative" | "registered") => 1,
        _ => transport.copies(),
    }
}

impl Latency {
    /// Of a histogram as it travels between processes.
    pub(crate) fn of(latencies: &[(u64, u64)]) -> Self {
        let mut histogram = stats::histogram();
        stats::merge(&mut histogram, latencies);
        Self {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }

    fn halved(self) -> Self {
        Self { p50: self.p50 / 2, p99: self.p99 / 2, p999: self.p999 / 2, max: self.max / 2 }
    }
}

impl Baselines {
    /// memcpy at this size and temperature, in bytes a second.
    #[must_use]
    pub fn rate(&self, size_bytes: usize, cold: bool) -> Option<f64> {
        let same = |rate: &&MemcpyRate| rate.size_bytes == size_bytes && rate.cold == cold;
        self.memcpy.iter().find(same).map(|rate| rate.bytes_per_s)
    }
}
