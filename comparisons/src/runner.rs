//! Runs every contender of every row, again and again, and gathers what they say.
//!
//! Contenders alternate run by run, so that all meet the same noise, and begin with another one each round. How long a cache line
//! takes is looked at before and after each of them: on some virtual machines it is 50 ns now and 500 a second later, when a core is
//! somewhere else.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::affinity;
use crate::leftovers::Names;
use crate::options::Options;
use crate::order::{Contender, Order, Sample, Wait, Workload};
use crate::plan::{self, Case};

/// How long a run may take, which is some hundred times what it should.
const PATIENCE: Duration = Duration::from_secs(30);
/// When a quick measurement begins no further row.
const QUICK_TIME: Duration = Duration::from_secs(50);
/// When the processes of the row of killed ones are killed.
const LIFE: Duration = Duration::from_millis(150);
/// Large enough to be among messages when that happens.
const KILLED_BYTES: usize = 64 << 10;

/// What one contender did in one row.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) contender: Contender,
    pub(crate) samples: Vec<Sample>,
    /// Why there are no more samples, if something failed.
    pub(crate) error: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) figures: Vec<Figures>,
}

/// How many names a library left when both sides were killed.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) contender: Contender,
    pub(crate) names: Result<usize, String>,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) rows: Vec<Row>,
    pub(crate) left: Vec<Left>,
    pub(crate) interrupted: bool,
}

pub(crate) struct Runner<'a> {
    options: &'a Options,
    names: Names,
    cores: [usize; 2],
    interrupted: Arc<AtomicBool>,
    runs: u64,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(options: &'a Options, interrupted: Arc<AtomicBool>) -> Result<Self, String> {
        Ok(Self { options, names: Names::new()?, cores: affinity::pair()?, interrupted, runs: 0 })
    }

    /// Measures everything that the options ask for.
    pub(crate) fn run(mut self) -> Outcome {
        let start = Instant::now();
        let left = if self.options.wants(Workload::Killed) { self.kill_all() } else { Vec::new() };
        let mut rows: Vec<Row> = plan::cases(self.options).into_iter().map(Row::new).collect();
        for round in 0..self.options.runs() as usize {
            for row in &mut rows {
                if !self.options.quick || start.elapsed() < QUICK_TIME {
                    self.run_row(row, round);
                }
            }
        }
        Outcome { rows, left, interrupted: self.is_interrupted() }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn run_row(&mut self, row: &mut Row, round: usize) {
        let count = row.figures.len();
        let mut before = self.look(row);
        for index in (0..count).map(|index| (index + round) % count) {
            if row.figures[index].contender == Contender::Line {
                continue;
            }
            let has_sample = self.take(row, index).is_some();
            let after = self.look(row);
            if let Some(sample) = row.figures[index].samples.last_mut().filter(|_| has_sample) {
                sample.line_ns = before.zip(after).map(|(before, after)| f64::midpoint(before, after));
            }
            before = after;
        }
    }

    /// How long a cache line takes now, for rows whose baseline that is.
    fn look(&mut self, row: &mut Row) -> Option<f64> {
        let index = row.figures.iter().position(|figures| figures.contender == Contender::Line)?;
        self.take(row, index).map(|sample| sample.ns)
    }

    /// One more sample of a contender, unless it failed before.
    fn take<'r>(&mut self, row: &'r mut Row, index: usize) -> Option<&'r Sample> {
        let figures = &mut row.figures[index];
        if figures.error.is_some() || self.is_interrupted() {
            return None;
        }
        match self.run_one(row.case, figures.contender) {
            Ok(sample) => figures.samples.push(sample),
            Err(error) => {
                figures.error = Some(error);
                return None;
            }
        }
        figures.samples.last()
    }

    fn run_one(&mut self, case: Case, contender: Contender) -> Result<Sample, String> {
        let messages = case.messages(contender, self.options.quick);
        let mut host = self.start(&self.order(case, contender, messages))?;
        let ended = self.await_end(&mut host, PATIENCE);
        self.names.sweep();
        ended?;
        let (mut output, mut complaint) = (String::new(), String::new());
        let status = host.wait().map_err(|error| format!("waitpid: {error}"))?;
        // Both pipes hold what was written; a guest that outlives its host is killed with it.
        let _ = host.stdout.take().map(|mut pipe| pipe.read_to_string(&mut output));
        let _ = host.stderr.take().map(|mut pipe| pipe.read_to_string(&mut complaint));
        if !status.success() {
            return Err(format!("{status}: {}", complaint.trim().replace('\n', "; ")));
        }
        serde_json::from_str(&output).map_err(|error| format!("the host said {output:?}: {error}"))
    }

    fn order(&self, case: Case, contender: Contender, messages: u64) -> Order {
        Order {
            contender,
            workload: case.workload,
            wait: case.wait_of(contender),
            size_bytes: case.size_bytes,
            cold: case.cold,
            work_us: case.work_us,
            messages,
            tag: format!("{}-{}", self.names.tag, self.runs),
            directory: self.names.directory.to_string_lossy().into_owned(),
            cores: self.cores,
            meeting: String::new(),
        }
    }

    fn start(&mut self, order: &Order) -> Result<Child, String> {
        self.runs += 1;
        Command::new("/proc/self/exe")
            .args(order.for_host())
            .env("TMPDIR", &self.names.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the host cannot be started: {error}"))
    }

    /// Waits until the host has ended, asleep, so that both cores are its own; kills it when it does not end.
    fn await_end(&self, host: &mut Child, patience: Duration) -> Result<(), String> {
        let end = Instant::now() + patience;
        let ended = await_process(host.id(), |left| !self.is_interrupted() && !left.is_zero(), end);
        match ended {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => {
                // It may have ended just now. The kernel kills the guest with it.
                let _ = host.kill();
                let _ = host.wait();
                let reason =
                    if self.is_interrupted() { "interrupted".into() } else { format!("no end within {patience:?}") };
                Err(ended.err().unwrap_or(reason))
            }
        }
    }

    /// Kills both sides of each library in the middle of a stream, and counts what stays.
    fn kill_all(&mut self) -> Vec<Left> {
        let contenders = [Contender::Channel, Contender::IceoryxCopy, Contender::IpcShared, Contender::Socket];
        contenders.map(|contender| Left { contender, names: self.kill_one(contender) }).into()
    }

    fn kill_one(&mut self, contender: Contender) -> Result<usize, String> {
        let case =
            Case { workload: Workload::Killed, wait: Wait::Spin, size_bytes: KILLED_BYTES, cold: false, work_us: 0 };
        self.names.sweep();
        let mut host = self.start(&self.order(case, contender, u64::MAX >> 20))?;
        std::thread::sleep(LIFE);
        if host.try_wait().is_ok_and(|status| status.is_some()) {
            return Err("it ended before it could be killed".into());
        }
        // The host first: its death is what the kernel kills the guest by, so both die within the same microseconds.
        let guest = child_of(host.id());
        host.kill().map_err(|error| format!("kill: {error}"))?;
        host.wait().map_err(|error| format!("waitpid: {error}"))?;
        if let Some(guest) = guest {
            // It is no child of this process: it has gone when it cannot be waited for any more.
            let _ = kill_process(guest, Signal::KILL);
            await_process(guest.as_raw_nonzero().get() as u32, |left| !left.is_zero(), Instant::now() + PATIENCE)?;
        }
        Ok(self.names.sweep())
    }
}

impl Row {
    fn new(case: Case) -> Self {
        let figures = |contender| Figures { contender, samples: Vec::new(), error: None };
        Self { case, figures: case.contenders().into_iter().map(figures).collect() }
    }

    pub(crate) fn of(&self, contender: Contender) -> Option<&Figures> {
        self.figures.iter().find(|figures| figures.contender == contender)
    }
}

/// Waits for a process to end: true when it has, false when `goes_on` says no for the time that is left. A signal interrupts.
fn await_process(id: u32, goes_on: impl Fn(Duration) -> bool, end: Instant) -> Result<bool, String> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or("no process has that number")?;
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(true);
    };
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if !goes_on(left) {
            return Ok(false);
        }
        let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(format!("poll: {error}")),
        }
    }
}

fn child_of(id: u32) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok().and_then(Pid::from_raw)
}
