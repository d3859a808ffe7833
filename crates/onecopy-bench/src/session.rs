//! Two workers with something between them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{Forced, Join, Layer, Link, Meeting, Memcpy, Order, Reply, Run, Sample, Side};
use crate::endpoints::{self, Prepared, primitives};
use crate::interrupt::Interrupt;
use crate::janitor::Janitor;
use crate::options::Wait;
use crate::tuning::Tuning;
use crate::worker::Worker;
use crate::workloads::lines;

/// Why there is no figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This machine lacks the mechanism.
    Unavailable(String),
    /// The message is longer than the mechanism carries.
    TooLong(String),
    Failed(String),
    /// The user wants no more: the number of the signal.
    Interrupted(i32),
}

/// What all sessions have in common.
pub(crate) struct Setting {
    pub(crate) interrupt: Interrupt,
    pub(crate) janitor: Rc<Janitor>,
    pub(crate) tuning: Tuning,
    /// The cores of the host and the guest, when each can have its own.
    pub(crate) cores: Option<[usize; 2]>,
    pub(crate) input: Option<PathBuf>,
    /// The test hook.
    pub(crate) corrupt: bool,
}

/// What the two workers share, and how they use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) meeting: Meeting,
    pub(crate) layer: Layer,
    pub(crate) wait: Wait,
    pub(crate) fragmented: bool,
    pub(crate) forced: Option<Forced>,
    pub(crate) channels: Option<u32>,
}

impl Terms {
    /// What is usual.
    pub(crate) fn of(meeting: Meeting) -> Self {
        Self { meeting, layer: Layer::Ours, wait: Wait::Block, fragmented: false, forced: None, channels: None }
    }
}

/// Two workers. Dropping it ends them and removes what they shared.
pub(crate) struct Session<'a> {
    setting: &'a Setting,
    // Workers end before the names that they use go: fields are dropped in this order.
    host: Worker,
    guest: Worker,
    prepared: Prepared,
    terms: Terms,
    limit_bytes: Option<usize>,
}

impl<'a> Session<'a> {
    /// Starts two workers and connects them.
    pub(crate) fn open(setting: &'a Setting, terms: Terms) -> Result<Self, Failure> {
        let mut link = Link::new();
        let prepared = prepare(terms.meeting, &mut link, &setting.janitor)?;
        let start = || Worker::start().map_err(|error| Failure::Failed(format!("a worker cannot be started: {error}")));
        let mut session = Self { setting, host: start()?, guest: start()?, prepared, terms, limit_bytes: None };
        link.pids = [session.host.pid(), session.guest.pid()];
        session.connect(terms, &link)?;
        session.prepared.joined();
        Ok(session)
    }

    fn connect(&mut self, terms: Terms, link: &Link) -> Result<(), Failure> {
        let join = |side, announced| {
            Order::Join(Join {
                link: link.clone(),
                side,
                layer: terms.layer,
                meeting: terms.meeting,
                wait: terms.wait,
                fragmented: terms.fragmented,
                forced: terms.forced,
                channels: terms.channels,
                announced,
                cpu: self.setting.cores.map(|cores| cores[side as usize]),
                input: self.setting.input.clone(),
                corrupt: self.setting.corrupt,
            })
        };
        let deadline = Instant::now() + self.setting.tuning.patience;
        self.host.order(&join(Side::Host, String::new()), &self.prepared.host);
        let announced = match self.reply(Side::Host, deadline)? {
            Reply::Announced(address) => Some(address),
            _ => None,
        };
        self.guest.order(&join(Side::Guest, announced.clone().unwrap_or_default()), &self.prepared.guest);
        if announced.is_some() {
            self.host.order(&Order::Accept, &[]);
            self.reply(Side::Host, deadline)?;
        }
        if let Reply::Joined(limit_bytes) = self.reply(Side::Guest, deadline)? {
            self.limit_bytes = limit_bytes;
        }
        Ok(())
    }

    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// The longest message, where there is one.
    pub(crate) fn limit_bytes(&self) -> Option<usize> {
        self.limit_bytes
    }

    /// Whether messages of this size fit.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLong`] with the limit.
    pub(crate) fn fits(&self, size_bytes: usize) -> Result<(), Failure> {
        match self.limit_bytes {
            Some(limit) if size_bytes > limit => Err(Failure::TooLong(format!(
                "a message of {size_bytes} bytes does not fit, the limit here is {limit} bytes"
            ))),
            _ => Ok(()),
        }
    }

    /// Lets both sides move messages; `expected` is how long that should take. What the guest and the host measured.
    pub(crate) fn run(&mut self, run: &Run, expected: Duration) -> Result<[Sample; 2], Failure> {
        let deadline = Instant::now() + self.setting.tuning.patience + expected * 4;
        for worker in [&self.host, &self.guest] {
            worker.order(&Order::Run(*run), &[]);
        }
        self.reply(Side::Host, deadline)?;
        self.reply(Side::Guest, deadline)?;
        self.host.order(&Order::Go, &[]);
        self.guest.order(&Order::Go, &[]);
        let host = self.sample(Side::Host, deadline)?;
        Ok([self.sample(Side::Guest, deadline)?, host])
    }

    /// Lets the guest copy alone.
    pub(crate) fn memcpy(&mut self, memcpy: &Memcpy) -> Result<Sample, Failure> {
        self.guest.order(&Order::Memcpy(*memcpy), &[]);
        self.sample(Side::Guest, Instant::now() + self.setting.tuning.patience)
    }

    fn sample(&mut self, side: Side, deadline: Instant) -> Result<Sample, Failure> {
        match self.reply(side, deadline)? {
            Reply::Done(sample) => Ok(sample),
            other => Err(Failure::Failed(format!("{} said {other:?} in the place of its figures", side.name()))),
        }
    }

    /// The next answer of one side. An end or a failure of either side ends the wait.
    fn reply(&mut self, side: Side, deadline: Instant) -> Result<Reply, Failure> {
        loop {
            if self.host.is_lost() || self.guest.is_lost() {
                return Err(self.failure());
            }
            if let Some(reply) = self.worker(side).take() {
                return Ok(reply);
            }
            self.wait(side, deadline)?;
        }
    }

    /// Waits until anything happens.
    fn wait(&mut self, side: Side, deadline: Instant) -> Result<(), Failure> {
        if let Some(signal) = self.setting.interrupt.take() {
            return Err(Failure::Interrupted(signal));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Failed(format!(
                "{} did not answer in time, {} s beyond what this should take",
                side.name(),
                self.setting.tuning.patience.as_secs_f64()
            )));
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [
            PollFd::new(&self.host, PollFlags::IN),
            PollFd::new(&self.guest, PollFlags::IN),
            PollFd::new(&self.setting.interrupt, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Failure::Failed(format!("poll: {errno}"))),
        }
        self.host.listen();
        self.guest.listen();
        Ok(())
    }

    /// Why it cannot go on. The death of one side is the cause, and what the other side says of it the consequence.
    fn failure(&mut self) -> Failure {
        std::thread::sleep(Duration::from_millis(20));
        self.host.listen();
        self.guest.listen();
        let mut worst = None;
        for side in [Side::Host, Side::Guest] {
            if self.worker(side).has_ended() {
                let obituary = self.worker(side).obituary();
                return Failure::Failed(format!("{} {obituary}", side.name()));
            }
            while let Some(reply) = self.worker(side).take() {
                match reply {
                    Reply::Unavailable(reason) => worst = Some(Failure::Unavailable(reason)),
                    Reply::Failed(reason) if worst.is_none() => worst = Some(Failure::Failed(reason)),
                    _ => {}
                }
            }
        }
        worst.unwrap_or_else(|| Failure::Failed("a worker gave up without a reason".into()))
    }

    fn worker(&mut self, side: Side) -> &mut Worker {
        match side {
            Side::Host => &mut self.host,
            Side::Guest => &mut self.guest,
        }
    }
}

fn prepare(meeting: Meeting, link: &mut Link, janitor: &Rc<Janitor>) -> Result<Prepared, Failure> {
    match meeting {
        Meeting::Nothing => Ok(Prepared::default()),
        Meeting::Lines => {
            match lines::create().map_err(std::io::Error::from).and_then(|fd| Ok((fd.try_clone()?, fd))) {
                Ok((host, guest)) => Ok(Prepared::inherited(vec![host], vec![guest])),
                Err(error) => Err(Failure::Failed(format!("memory for two cache lines: {error}"))),
            }
        }
        Meeting::Transport(transport) => endpoints::prepare(transport, link, janitor).map_err(refusal),
        Meeting::Primitive(primitive, usage) => primitives::prepare(primitive, usage, link, janitor).map_err(refusal),
    }
}

fn refusal(error: onecopy::Error) -> Failure {
    match error {
        onecopy::Error::Unsupported { .. } => Failure::Unavailable(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "the receiving process",
            Self::Guest => "the sending process",
        }
    }
}

impl Link {
    /// Names that no other session of any process uses, and that nobody can guess: a process of another pid namespace, which may share
    /// the directories, may have had this one's number and been killed with its janitor.
    fn new() -> Self {
        let stem = format!("onecopy-bench-{}-{:016x}", std::process::id(), RandomState::new().build_hasher().finish());
        Self { directory: std::env::temp_dir().join(&stem), stem, ids: Vec::new(), pids: [0; 2] }
    }
}
