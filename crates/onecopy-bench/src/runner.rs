//! Everything in order: baselines, then row by row.

use crate::affinity;
use crate::cache_line::CacheLine;
use crate::crossover;
use std::rc::Rc;

use crate::control::{Layer, Meeting, Memcpy};
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::links::Links;
use crate::measure::{Figures, Measurement};
use crate::options::{Options, Usage, Workload};
use crate::plan::{self, Case};
use crate::primitive::Use;
use crate::progress::Progress;
use crate::report::{Baselines, MemcpyRate, Report, Row};
use crate::session::{Failure, Session, Setting, Terms};
use crate::stats::Summary;
use crate::sync::{self, SyncCase};
use crate::transport::Transport;
use crate::tuning::Tuning;

/// A test hook: flips one byte on the way, so that a row must not verify.
const CORRUPT: &str = "ONECOPY_BENCH_CORRUPT";
/// After so many failures of a transport the rest of its rows is given up.
const MAX_FAILURES: u32 = 2;

/// Why there is no report at all.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The options ask for something that cannot be measured.
    #[error(transparent)]
    Usage(#[from] Usage),
    /// A signal ended it; everything that was created is removed.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
    /// Nothing can be measured here.
    #[error("{0}")]
    Failed(String),
}

/// Measures what `options` ask for.
///
/// Takes SIGINT, SIGTERM and SIGHUP of this thread meanwhile. Starts this binary again as its workers: see
/// [`run_peer_if_asked`](crate::run_peer_if_asked).
///
/// # Errors
///
/// [`Error::Usage`] for options that [`Options::check`] refuses; [`Error::Interrupted`]; [`Error::Failed`] when not even the
/// baselines could be measured. A row that failed is no error: [`Report::is_good`] tells.
pub fn run(options: &Options) -> Result<Report, Error> {
    options.check()?;
    let cores = affinity::pair(&affinity::allowed());
    let cases = plan::cases(options, cores.is_some());
    let setting = Setting {
        interrupt: Interrupt::watch().map_err(|errno| Error::Failed(format!("signalfd: {errno}")))?,
        janitor: Rc::default(),
        tuning: Tuning::new(options.quick),
        cores,
        input: options.input.clone(),
        corrupt: std::env::var_os(CORRUPT).is_some_and(|value| value == "1"),
    };
    let mut report = Report::new(Host::this());
    if setting.cores.is_none() {
        report.warnings.push(
            "only one core is allowed here: both processes share it, and the figures say little about two cores".into(),
        );
    }
    let sync_cases = sync::cases(options);
    if cases.is_empty() && sync_cases.is_empty() {
        return Err(
            Usage::new("none of these mechanisms is measured by these workloads: see `onecopy bench --help`").into()
        );
    }
    let runner = Runner { setting: &setting, progress: Progress::new(cases.len() + sync_cases.len()) };
    report.baselines = runner.baselines(&cases, &sync_cases).map_err(Error::of_baselines)?;
    runner.rows(&cases, &mut report)?;
    runner.sync_rows(&sync_cases, &mut report)?;
    if plan::shows_crossovers(&cases, options) {
        runner.crossovers(&mut report)?;
    }
    report.warn_of_spread();
    Ok(report)
}

impl Error {
    fn of_baselines(failure: Failure) -> Self {
        match failure {
            Failure::Interrupted(signal) => Self::Interrupted(signal),
            Failure::Unavailable(reason) | Failure::TooLong(reason) | Failure::Failed(reason) => {
                Self::Failed(format!("the baselines: {reason}"))
            }
        }
    }
}

struct Runner<'a> {
    setting: &'a Setting,
    progress: Progress,
}

impl<'a> Runner<'a> {
    fn baselines(&self, cases: &[Case], sync_cases: &[SyncCase]) -> Result<Baselines, Failure> {
        self.progress.show("baselines");
        let memcpy = self.memcpy_rates(cases, false)?;
        let in_place = self.memcpy_rates(cases, true)?;
        let needs_lines = cases.iter().any(|case| case.workload.needs_lines())
            || sync_cases.iter().any(|case| case.usage == Use::Wake);
        let cache_line_rtt_ns = if needs_lines { self.cache_line_rtt_ns()? } else { None };
        Ok(Baselines { cache_line_rtt_ns, memcpy, in_place })
    }

    /// memcpy at the sizes of the rows; or filling and summing up in place, by one process.
    fn memcpy_rates(&self, cases: &[Case], in_place: bool) -> Result<Vec<MemcpyRate>, Failure> {
        let needs = |workload: Workload| if in_place { workload == Workload::Loan } else { workload.needs_memcpy() };
        let mut wanted: Vec<_> = cases.iter().filter(|case| needs(case.workload)).collect();
        wanted.sort_by_key(|case| (case.size_bytes, case.cold));
        wanted.dedup_by_key(|case| (case.size_bytes, case.cold));
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = Session::open(self.setting, Terms::of(Meeting::Nothing))?;
        wanted.into_iter().map(|case| self.memcpy(&mut session, case, in_place)).collect()
    }

    fn memcpy(&self, session: &mut Session<'_>, case: &Case, in_place: bool) -> Result<MemcpyRate, Failure> {
        let (size_bytes, cold) = (case.size_bytes, case.cold);
        let order = Memcpy { in_place, size_bytes, cold, time_ns: self.setting.tuning.run_time.as_nanos() as u64 / 2 };
        let mut rates = Vec::new();
        for _ in 0..self.setting.tuning.runs {
            let sample = session.memcpy(&order)?;
            let bytes = sample.messages * size_bytes as u64;
            rates.push(bytes as f64 * 1e9 / (sample.end_ns - sample.start_ns).max(1) as f64);
        }
        Ok(MemcpyRate { size_bytes, cold, bytes_per_s: Summary::of(&rates).median })
    }

    fn cache_line_rtt_ns(&self) -> Result<Option<f64>, Failure> {
        let Some(mut line) = CacheLine::open(self.setting)? else { return Ok(None) };
        let tuning = self.setting.tuning;
        let medians = (0..tuning.runs).map(|_| line.rtt_ns(tuning.run_time)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Summary::of(&medians).median))
    }

    fn rows(&self, cases: &[Case], report: &mut Report) -> Result<(), Error> {
        let mut links = Links::new(self.setting);
        let mut line = None;
        let mut health = Health::default();
        for case in cases {
            self.progress.show(&format!("{} {} {} bytes", case.transport, case.workload, case.size_bytes));
            if let Some(reason) = health.refusal(case.transport) {
                report.rows.extend(reason.map(|reason| Row::failed(case, reason)));
            } else {
                match self.row(case, &mut links, &mut line, &report.baselines) {
                    Ok(row) => report.rows.push(row),
                    Err(Failure::Interrupted(signal)) => return Err(Error::Interrupted(signal)),
                    Err(Failure::Unavailable(reason)) => {
                        report.rows.push(Row::skipped(case.transport, reason));
                        health.missing = Some(case.transport);
                    }
                    Err(Failure::TooLong(reason)) => report.rows.push(Row::too_long(case, reason)),
                    Err(Failure::Failed(reason)) => {
                        links.close();
                        health.count(case.transport);
                        report.rows.push(Row::failed(case, reason));
                    }
                }
            }
            self.progress.step();
        }
        Ok(())
    }

    /// A channel that has one way only has no crossings, and that makes nothing wrong.
    fn sync_rows(&self, cases: &[SyncCase], report: &mut Report) -> Result<(), Error> {
        for case in cases.iter().copied() {
            self.progress.show(&format!("{} {}", case.primitive, case.usage.workload()));
            report.rows.push(match sync::measure(self.setting, case) {
                Ok(figures) => Row::synchronised(case, &figures, &report.baselines),
                Err(Failure::Interrupted(signal)) => return Err(Error::Interrupted(signal)),
                Err(Failure::Unavailable(reason)) => Row::sync_skipped(case, reason),
                Err(Failure::TooLong(reason) | Failure::Failed(reason)) => Row::sync_failed(case, reason),
            });
            self.progress.step();
        }
        Ok(())
    }

    fn crossovers(&self, report: &mut Report) -> Result<(), Error> {
        self.progress.show("crossover points of the channel");
        match crossover::measure(self.setting) {
            Ok(found) => report.crossovers = Some(found),
            Err(Failure::Interrupted(signal)) => return Err(Error::Interrupted(signal)),
            Err(Failure::Unavailable(reason) | Failure::TooLong(reason) | Failure::Failed(reason)) => {
                report.warnings.push(format!("the crossover points of the channel are not known: {reason}"));
            }
        }
        Ok(())
    }

    fn row(
        &self,
        case: &Case,
        links: &mut Links<'a>,
        line: &mut Option<CacheLine<'a>>,
        baselines: &Baselines,
    ) -> Result<Row, Failure> {
        if let Some(mechanism) = case.transport.mechanism() {
            mechanism.availability().map_err(Failure::Unavailable)?;
        }
        if case.workload == Workload::Many {
            links.close();
            return self.many_row(case);
        }
        let session = links.session(case)?;
        if case.workload == Workload::Layer {
            return self.layer_row(case, session);
        }
        let fragmented = session.terms().fragmented;
        let mut measurement = Measurement::begin(session, self.setting, case, self.setting.tuning.run_time)?;
        if case.workload.needs_lines() && line.is_none() {
            *line = CacheLine::open(self.setting)?;
        }
        let mut line = line.as_mut().filter(|_| case.workload.needs_lines());
        for _ in 0..self.setting.tuning.runs {
            measurement.time_beside(line.as_deref_mut())?;
        }
        let row = Row::measured(case, &measurement.end(), baselines);
        Ok(if fragmented { row.in_fragments() } else { row })
    }

    /// One of many channels and a single one in turns.
    fn many_row(&self, case: &Case) -> Result<Row, Failure> {
        let terms = |channels| Terms { channels, ..Terms::of(Meeting::Transport(case.transport)) };
        let mut many = Session::open(self.setting, terms(case.channels))?;
        let mut one = Session::open(self.setting, terms(Some(1)))?;
        let [many, one] = self.in_turns(case, &mut many, &mut one)?;
        Ok(Row::of_many(case, &many, &one))
    }

    /// Ours and the plain loop in turns.
    fn layer_row(&self, case: &Case, ours: &mut Session<'_>) -> Result<Row, Failure> {
        let terms = Terms { layer: Layer::Plain, ..ours.terms() };
        let mut plain = Session::open(self.setting, terms)?;
        let [ours, plain] = self.in_turns(case, ours, &mut plain)?;
        Ok(Row::layered(case, &ours, &plain))
    }

    /// Times both in turns, so that both meet the same noise, and each as often first as second.
    fn in_turns(&self, case: &Case, one: &mut Session<'_>, other: &mut Session<'_>) -> Result<[Figures; 2], Failure> {
        let tuning = self.setting.tuning.in_pairs();
        let mut one = Measurement::begin(one, self.setting, case, tuning.run_time)?;
        let mut other = Measurement::begin(other, self.setting, case, tuning.run_time)?;
        for pair in 0..tuning.runs {
            let other_first = pair % 2 == 1;
            if other_first {
                other.time()?;
            }
            one.time()?;
            if !other_first {
                other.time()?;
            }
        }
        Ok([one.end(), other.end()])
    }
}

/// What is known of the transport whose rows are being measured.
#[derive(Default)]
struct Health {
    missing: Option<Transport>,
    failing: Option<(Transport, u32)>,
}

impl Health {
    /// Whether no more rows of `transport` shall be tried, and what these rows then say; nothing when the transport is
    /// missing, since one row has said so.
    fn refusal(&self, transport: Transport) -> Option<Option<String>> {
        if self.missing == Some(transport) {
            return Some(None);
        }
        match self.failing {
            Some((failing, count)) if failing == transport && count >= MAX_FAILURES => {
                Some(Some(format!("not measured, since {count} rows of this mechanism failed before")))
            }
            _ => None,
        }
    }

    fn count(&mut self, transport: Transport) {
        let before = self.failing.filter(|(failing, _)| *failing == transport).map_or(0, |(_, count)| count);
        self.failing = Some((transport, before + 1));
    }
}

impl Workload {
    fn needs_lines(self) -> bool {
        matches!(self, Self::Rtt | Self::LoanUntouched)
    }

    fn needs_memcpy(self) -> bool {
        matches!(self, Self::Stream | Self::Fresh | Self::Cpu | Self::Registered)
    }
}

impl Row {
    fn measured(case: &Case, figures: &Figures, baselines: &Baselines) -> Self {
        match case.workload {
            Workload::Rtt => Self::round_trip(case, figures),
            Workload::Fresh => Self::fresh(case, figures, baselines),
            Workload::Copies => Self::counted(case, figures),
            Workload::Loan | Workload::LoanUntouched => Self::in_place(case, figures, baselines),
            _ => Self::one_way(case, figures, baselines),
        }
    }
}
