//! The attempt at cross-memory attach: real transfers between this process and a child of its own, in both directions.
//!
//! A seccomp filter may answer the call by killing who makes it. Filters are inherited, so the child makes each kind of call
//! first, and this process makes only those that the child survived.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use onecopy::memory::remote::RemoteProcess;
use rustix::process::{Resource, Rlimit, getppid, setrlimit};

use super::surroundings::Surroundings;
use crate::again;
use crate::failure::{Failure, plain, print};

/// What the other process reads here.
static OFFERED: AtomicU64 = AtomicU64::new(0);
/// What the other process writes here.
static RECEIVED: AtomicU64 = AtomicU64::new(0);

/// A word that is in no memory by chance.
const WORD: u64 = 0x6f6e_6563_6f70_7931;

/// How one kind of transfer went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The word arrived.
    Works,
    /// The kernel refused with this errno.
    Refused(i32),
    /// This signal ended the process that made the call.
    Killed(i32),
    /// It was not tried, or it went wrong in another way.
    Unknown(String),
}

/// The four transfers.
pub(super) struct Attach {
    /// This process read its child.
    pub(super) reads_child: Outcome,
    /// This process wrote its child.
    pub(super) writes_child: Outcome,
    /// The child read this process.
    pub(super) reads_parent: Outcome,
    /// The child wrote this process.
    pub(super) writes_parent: Outcome,
}

/// Where the first process offers a word and receives one, as `--probe` tells it to the second.
#[derive(Clone, Copy, Debug)]
pub(in crate::verbs::doctor) struct FirstProcess {
    pid: u32,
    place: Place,
}

/// The addresses of the two words of a process.
#[derive(Clone, Copy, Debug)]
struct Place {
    offered: u64,
    received: u64,
}

impl Place {
    fn own() -> Self {
        let address = |word: &AtomicU64| word.as_ptr().addr() as u64;
        Self { offered: address(&OFFERED), received: address(&RECEIVED) }
    }
}

impl FromStr for FirstProcess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u64> = text.split(',').filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [pid, offered, received] => {
                let pid = u32::try_from(pid).map_err(|error| error.to_string())?;
                Ok(Self { pid, place: Place { offered, received } })
            }
            _ => Err("the first process and two addresses of it are needed".into()),
        }
    }
}

/// The second process: tells where its words lie, reads and writes the first process's, lets that one do the same, and tells
/// what it has received.
pub(in crate::verbs::doctor) fn second_process(first: &FirstProcess) -> Result<(), Failure> {
    // Else `--probe` would write into any process that this user may trace.
    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get().cast_unsigned() != first.pid) {
        return Err(Failure::usage("--probe is for a child of the process that it names"));
    }
    OFFERED.store(WORD, Ordering::Relaxed);
    // A filter that kills need not leave a core file behind.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let own = Place::own();
    print(&format!("{} {}\n", own.offered, own.received))?;
    print(&format!("{}\n", read(first.pid, first.place).encode()))?;
    // The first process reads meanwhile: the call below may end this one.
    wait_for_a_line()?;
    print(&format!("{}\n", write(first.pid, first.place).encode()))?;
    wait_for_a_line()?;
    print(&format!("{}\n", RECEIVED.load(Ordering::Relaxed)))
}

fn wait_for_a_line() -> Result<(), Failure> {
    std::io::stdin().read_line(&mut String::new()).map(drop).map_err(|error| Failure::failed(plain(&error)))
}

fn read(pid: u32, place: Place) -> Outcome {
    let mut word = [0; 8];
    let result = RemoteProcess::open(pid).and_then(|process| process.read_exact(place.offered, &mut word));
    match Outcome::of(result) {
        Outcome::Works if u64::from_ne_bytes(word) != WORD => Outcome::Unknown("other bytes arrived".into()),
        outcome => outcome,
    }
}

fn write(pid: u32, place: Place) -> Outcome {
    Outcome::of(RemoteProcess::open(pid).and_then(|process| process.write_all(place.received, &WORD.to_ne_bytes())))
}

impl Attach {
    /// Starts the child and tries all four.
    pub(super) fn attempt() -> Self {
        OFFERED.store(WORD, Ordering::Relaxed);
        match start() {
            Ok(child) => Self::with(child),
            Err(error) => {
                Self::all(&Outcome::Unknown(format!("no second process could be started: {}", plain(&error))))
            }
        }
    }

    /// All four went the same way.
    pub(super) fn all(outcome: &Outcome) -> Self {
        Self {
            reads_child: outcome.clone(),
            writes_child: outcome.clone(),
            reads_parent: outcome.clone(),
            writes_parent: outcome.clone(),
        }
    }

    fn with(mut child: Child) -> Self {
        let pid = child.id();
        let mut told = Told { stdout: child.stdout.take().map(BufReader::new), stdin: child.stdin.take() };
        let place = told.place();
        // What killed the child would kill this process too.
        let reads_parent = told.outcome();
        let reads_child = reads_parent.as_ref().zip(place).map(|(_, place)| read(pid, place));
        told.go_on();
        let writes_parent = told.outcome().map(|outcome| outcome.received(RECEIVED.load(Ordering::Relaxed)));
        let writes_child = writes_parent.as_ref().zip(place).map(|(_, place)| write(pid, place));
        told.go_on();
        let received = told.number().unwrap_or(0);
        let writes_child = writes_child.map(|outcome| outcome.received(received));
        let signal = child.wait().ok().and_then(|status| status.signal());
        let missing = || match signal {
            Some(signal) => Outcome::Killed(signal),
            None => Outcome::Unknown("the second process did not answer".into()),
        };
        Self {
            reads_child: reads_child.unwrap_or_else(missing),
            writes_child: writes_child.unwrap_or_else(missing),
            reads_parent: reads_parent.unwrap_or_else(missing),
            writes_parent: writes_parent.unwrap_or_else(missing),
        }
    }

    /// Whether every transfer worked.
    pub(super) fn all_work(&self) -> bool {
        self.named().iter().all(|(_, outcome)| **outcome == Outcome::Works)
    }

    /// Each transfer and what it is.
    pub(super) fn named(&self) -> [(&'static str, &Outcome); 4] {
        [
            ("reading a child", &self.reads_child),
            ("writing a child", &self.writes_child),
            ("reading a parent", &self.reads_parent),
            ("writing a parent", &self.writes_parent),
        ]
    }

    /// In a sentence: whether it works, and if not, why and who knows more.
    pub(super) fn verdict(&self, surroundings: &Surroundings) -> String {
        let named = self.named();
        let failed: Vec<_> = named.iter().filter(|(_, outcome)| **outcome != Outcome::Works).collect();
        let Some((_, first)) = failed.first() else {
            return "Cross-memory attach works: a process and its child read and wrote each other, one copy each."
                .into();
        };
        let what = match (failed.len(), first) {
            (4, Outcome::Unknown(_)) => "could not be tried here".to_owned(),
            (4, _) => "does not work here".to_owned(),
            _ => {
                let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
                format!("works in part: {} failed", names.join(", "))
            }
        };
        let why = first.reason(surroundings);
        format!("Cross-memory attach {what}: {why}; `onecopy doctor --pid PID` names the rule for one process.")
    }
}

fn start() -> std::io::Result<Child> {
    let own = Place::own();
    again::command()?
        .args(["doctor", "--probe", &format!("{},{},{}", std::process::id(), own.offered, own.received)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// What the second process tells, line by line, until it ends, and what it waits for.
struct Told {
    stdout: Option<BufReader<ChildStdout>>,
    stdin: Option<ChildStdin>,
}

impl Told {
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.stdout.as_mut()?.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned()).filter(|_| count > 0)
    }

    /// Lets it take its next step; whether it is still there shows in what it tells.
    fn go_on(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(b"\n");
        }
    }

    fn place(&mut self) -> Option<Place> {
        let line = self.line()?;
        let (offered, received) = line.split_once(' ')?;
        Some(Place { offered: offered.parse().ok()?, received: received.parse().ok()? })
    }

    fn outcome(&mut self) -> Option<Outcome> {
        self.line().map(|line| Outcome::decode(&line))
    }

    fn number(&mut self) -> Option<u64> {
        self.line()?.parse().ok()
    }
}

impl Outcome {
    fn of(result: onecopy::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Works,
            Err(error) => error.raw_os_error().map_or_else(|| Self::Unknown(error.to_string()), Self::Refused),
        }
    }

    /// A write that succeeded has also to arrive.
    fn received(self, word: u64) -> Self {
        match self {
            Self::Works if word != WORD => Self::Unknown("what was written did not arrive".into()),
            other => other,
        }
    }

    fn encode(&self) -> String {
        match self {
            Self::Works => "works".into(),
            Self::Refused(errno) => format!("refused {errno}"),
            Self::Killed(signal) => format!("killed by signal {signal}"),
            Self::Unknown(text) => text.clone(),
        }
    }

    fn decode(line: &str) -> Self {
        match line.strip_prefix("refused ").and_then(|errno| errno.parse().ok()) {
            Some(errno) => Self::Refused(errno),
            None if line == "works" => Self::Works,
            None => Self::Unknown(line.to_owned()),
        }
    }

    /// The errno, if the kernel gave one.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(errno) => Some(*errno),
            _ => None,
        }
    }

    /// In one word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Refused(_) | Self::Killed(_) => "refused",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why it did not work, so far as this machine as a whole explains it.
    pub(super) fn reason(&self, surroundings: &Surroundings) -> String {
        let filtered = surroundings.has_seccomp_filter();
        let yama = surroundings.yama.filter(|&scope| scope > 0);
        match self {
            Self::Works => "it works".into(),
            Self::Killed(SIGSYS) => "a seccomp filter kills who makes the call (SIGSYS)".into(),
            Self::Killed(signal) => format!("signal {signal} ended the process that tried"),
            Self::Unknown(text) => text.clone(),
            Self::Refused(errno) => {
                let name = errno_name(*errno);
                match (*errno, filtered, yama) {
                    (ENOSYS, false, _) => {
                        format!("this kernel was built without it, CONFIG_CROSS_MEMORY_ATTACH ({name})")
                    }
                    (EPERM, false, Some(scope)) => {
                        format!("Yama's ptrace_scope {scope} allows it with descendants at most ({name})")
                    }
                    (_, true, _) => {
                        format!("the kernel says {name}, most likely by the seccomp filter of this process")
                    }
                    (EPERM, ..) => format!("a rule for tracing or a security module refuses it ({name})"),
                    _ => format!("the kernel says {name}"),
                }
            }
        }
    }
}

const SIGSYS: i32 = 31;
const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// The symbols of what a kernel, or a filter in its place, answers to these calls.
pub(super) fn errno_name(errno: i32) -> String {
    let name = match errno {
        EPERM => "EPERM",
        3 => "ESRCH",
        13 => "EACCES",
        14 => "EFAULT",
        22 => "EINVAL",
        ENOSYS => "ENOSYS",
        _ => return format!("errno {errno}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_cross_the_pipe() {
        for outcome in [Outcome::Works, Outcome::Refused(1), Outcome::Unknown("something else".into())] {
            assert_eq!(Outcome::decode(&outcome.encode()), outcome);
        }
        assert_eq!(Outcome::Works.received(WORD ^ 1), Outcome::Unknown("what was written did not arrive".into()));
        assert!("1,2".parse::<FirstProcess>().is_err() && "4294967296,1,2".parse::<FirstProcess>().is_err());
    }

    #[test]
    fn refusals_are_explained_and_lead_on() {
        let plain = Surroundings::nowhere();
        let filtered = Surroundings { seccomp_mode: Some(2), ..Surroundings::nowhere() };
        let yama = Surroundings { yama: Some(1), ..Surroundings::nowhere() };
        for (outcome, place, words) in [
            (Outcome::Killed(31), &filtered, "a seccomp filter kills"),
            (Outcome::Refused(38), &plain, "CONFIG_CROSS_MEMORY_ATTACH"),
            (Outcome::Refused(38), &filtered, "seccomp filter"),
            (Outcome::Refused(1), &yama, "Yama's ptrace_scope 1"),
            (Outcome::Refused(1), &plain, "security module"),
            (Outcome::Refused(99), &plain, "errno 99"),
        ] {
            let verdict = Attach::all(&outcome).verdict(place);
            assert!(verdict.contains(words) && verdict.contains("does not work here"), "{verdict}");
            assert!(verdict.contains("`onecopy doctor --pid PID`"), "{verdict}");
        }
        let unknown = Attach::all(&Outcome::Unknown("no process".into())).verdict(&plain);
        assert!(unknown.starts_with("Cross-memory attach could not be tried here: no process; "), "{unknown}");
        let mut half = Attach::all(&Outcome::Works);
        half.reads_parent = Outcome::Refused(1);
        let verdict = half.verdict(&yama);
        assert!(verdict.contains("works in part: reading a parent failed: Yama"), "{verdict}");
    }
}
