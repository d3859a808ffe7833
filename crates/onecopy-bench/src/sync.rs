//! The rows of what wakes and what locks.

use std::time::Duration;

use crate::control::{Check, Meeting, Motion, Run, Sample};
use crate::options::{Options, Workload};
use crate::primitive::{Primitive, Use};
use crate::report::{Baselines, Latency, Row};
use crate::session::{Failure, Session, Setting, Terms};
use crate::stats::{self, Summary};
use crate::subject::Subject;

/// How often a pair of processes is checked before anything is timed.
const CHECKED: u64 = 64;
/// The slowest step that is expected: two wake-ups on a busy machine.
const CHECKED_STEP: Duration = Duration::from_micros(200);
const MAX_STEPS: u64 = 50_000_000;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyncCase {
    pub(crate) primitive: Primitive,
    pub(crate) usage: Use,
}

/// The rows that the options ask for, in the order of the mechanisms.
pub(crate) fn cases(options: &Options) -> Vec<SyncCase> {
    if options.input.is_some() {
        return Vec::new();
    }
    let is_wanted =
        |primitive: &&Primitive| options.only.is_empty() || options.only.contains(&Subject::Primitive(**primitive));
    let of = |primitive: &Primitive| {
        let primitive = *primitive;
        primitive.uses().iter().map(move |usage| SyncCase { primitive, usage: *usage })
    };
    let asked = |case: &SyncCase| options.workloads.is_empty() || options.workloads.contains(&case.usage.workload());
    Primitive::ALL.iter().filter(is_wanted).flat_map(of).filter(asked).collect()
}

impl Use {
    pub(crate) fn workload(self) -> Workload {
        match self {
            Self::Wake => Workload::Rtt,
            Self::Uncontended => Workload::Uncontended,
            Self::Contended => Workload::Contended,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Uncontended | Self::Contended => "lock",
        }
    }

    /// How many processes take part.
    fn processes(self) -> u32 {
        if self == Self::Uncontended { 1 } else { 2 }
    }
}

/// What the timed runs showed.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// The median round trip of each run, in nanoseconds; or the time for each acquisition.
    ns: Vec<f64>,
    latencies: Vec<(u64, u64)>,
    steps: u64,
    mismatch: Option<String>,
}

/// Measures one row: a pass that is checked, a calibration, and timed runs.
pub(crate) fn measure(setting: &Setting, case: SyncCase) -> Result<Figures, Failure> {
    case.primitive.mechanism().availability().map_err(Failure::Unavailable)?;
    let mut session = Session::open(setting, Terms::of(Meeting::Primitive(case.primitive, case.usage)))?;
    let run = Run {
        motion: Motion::RoundTrip,
        size_bytes: 8,
        cold: false,
        messages: CHECKED,
        first_sequence: 0,
        check: Check::Full,
    };
    let run_time = setting.tuning.run_time;
    let mut this = Measurement { session: &mut session, run, usage: case.usage, figures: Figures::default() };
    this.pass(CHECKED_STEP * CHECKED as u32)?;
    this.run.check = Check::Sampled;
    this.calibrate(run_time)?;
    this.figures.steps = 0;
    for _ in 0..setting.tuning.runs {
        this.time(run_time)?;
    }
    Ok(this.figures)
}

struct Measurement<'s, 'a> {
    session: &'s mut Session<'a>,
    run: Run,
    usage: Use,
    figures: Figures,
}

impl Measurement<'_, '_> {
    fn time(&mut self, expected: Duration) -> Result<(), Failure> {
        let [guest, host] = self.pass(expected)?;
        let figures = &mut self.figures;
        if self.usage == Use::Wake {
            let mut histogram = stats::histogram();
            stats::merge(&mut histogram, &guest.latencies);
            figures.ns.push(histogram.value_at_quantile(0.5) as f64);
            figures.latencies.extend(guest.latencies);
        } else {
            let steps = (guest.messages + host.messages).max(1);
            figures.ns.push(elapsed_ns(self.usage, &guest, &host) as f64 / steps as f64);
        }
        Ok(())
    }

    /// Finds how many steps take about as long as a run.
    fn calibrate(&mut self, run_time: Duration) -> Result<(), Failure> {
        loop {
            let [guest, host] = self.pass(run_time)?;
            let elapsed_ns = elapsed_ns(self.usage, &guest, &host).max(1);
            let wanted = u128::from(self.run.messages) * run_time.as_nanos() / u128::from(elapsed_ns);
            let wanted = (wanted as u64).clamp(1, MAX_STEPS);
            if u128::from(elapsed_ns) >= run_time.as_nanos() / 10 || self.run.messages >= MAX_STEPS {
                self.run.messages = wanted;
                return Ok(());
            }
            self.run.messages = wanted.clamp(self.run.messages * 2, self.run.messages * 16);
        }
    }

    fn pass(&mut self, expected: Duration) -> Result<[Sample; 2], Failure> {
        let samples = self.session.run(&self.run, expected)?;
        self.run.first_sequence += self.run.messages;
        self.figures.steps += samples[0].messages + if self.usage == Use::Wake { 0 } else { samples[1].messages };
        if self.figures.mismatch.is_none() {
            self.figures.mismatch = samples.iter().find_map(|sample| sample.mismatch.clone());
        }
        Ok(samples)
    }
}

fn elapsed_ns(usage: Use, guest: &Sample, host: &Sample) -> u64 {
    match usage {
        Use::Uncontended => guest.end_ns.saturating_sub(guest.start_ns),
        Use::Wake | Use::Contended => guest.end_ns.max(host.end_ns).saturating_sub(guest.start_ns.min(host.start_ns)),
    }
}

impl Row {
    fn of_sync(case: SyncCase) -> Self {
        Self {
            mechanism: case.primitive.name().into(),
            kind: case.usage.kind().into(),
            workload: Some(case.usage.workload().name().into()),
            processes: Some(case.usage.processes()),
            ..Self::default()
        }
    }

    pub(crate) fn sync_failed(case: SyncCase, reason: String) -> Self {
        Self { verified: Some(false), error: Some(reason), ..Self::of_sync(case) }
    }

    pub(crate) fn sync_skipped(case: SyncCase, reason: String) -> Self {
        Self { skipped: Some(reason), ..Self::of_sync(case) }
    }

    pub(crate) fn synchronised(case: SyncCase, figures: &Figures, baselines: &Baselines) -> Self {
        let summary = Summary::of(&figures.ns);
        let wakes = case.usage == Use::Wake;
        let line = baselines.cache_line_rtt_ns.filter(|_| wakes);
        Self {
            latency_ns: wakes.then(|| Latency::of(&figures.latencies)),
            ratio_to_cache_line: line.map(|line| summary.median / line),
            ns_per_acquire: (!wakes).then_some(summary.median),
            messages: Some(figures.steps),
            runs: Some(figures.ns.len()),
            spread: Some(summary.spread),
            verified: Some(figures.mismatch.is_none()),
            error: figures.mismatch.clone(),
            ..Self::of_sync(case)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_thirteen_have_a_row_and_what_both_wakes_and_locks_has_both() {
        let cases = cases(&Options::default());
        assert!(Primitive::ALL.iter().all(|one| cases.iter().any(|case| case.primitive == *one)));
        let of = |primitive| cases.iter().filter(|case| case.primitive == primitive).map(|case| case.usage).collect();
        let semaphore: Vec<Use> = of(Primitive::SysvSemaphore);
        assert_eq!(semaphore, [Use::Wake, Use::Uncontended, Use::Contended]);
        let mutex: Vec<Use> = of(Primitive::Mutex);
        assert_eq!(mutex, [Use::Uncontended, Use::Contended]);
    }

    #[test]
    fn what_is_asked_for_is_measured_and_nothing_else() {
        let only = vec![Subject::Primitive(Primitive::Futex), Subject::Primitive(Primitive::Mutex)];
        let options = Options { only, workloads: vec![Workload::Contended], ..Options::default() };
        assert_eq!(cases(&options), [SyncCase { primitive: Primitive::Mutex, usage: Use::Contended }]);
        assert!(cases(&Options { input: Some("/etc/hostname".into()), ..Options::default() }).is_empty());
    }
}
