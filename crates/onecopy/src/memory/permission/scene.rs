//! The order of diagnosis: this process itself; whether the other exists; what the rules say of both; what is left.

use std::path::Path;

use super::facts::Facts;
use super::probe::{self, Outcome};
use super::rules::{Case, Finding, Observer, UserNamespaces};
use super::yama::Scope;
use super::{Cause, Diagnosis, Direction, Verdict, name_of};

/// The pid namespace that the machine started with, which has this number on every machine.
const INITIAL_PID_NS: &str = "pid:[4026531836]";

/// No pid namespace has a number as large as this.
const PID_MAX_LIMIT: u32 = 1 << 22;

/// What is known before anything is tried.
pub(super) struct Scene {
    pub(super) pid: u32,
    pub(super) own: Option<Facts>,
    pub(super) other: Option<Facts>,
    /// What kill(2) with no signal says.
    pub(super) kill: Result<(), i32>,
    /// Whether /proc counts processes as this one does.
    pub(super) proc_is_ours: bool,
    pub(super) yama: Scope,
}

impl Scene {
    pub(super) fn look(pid: u32) -> Self {
        let own = Facts::own();
        let link = std::fs::read_link("/proc/self").ok();
        let proc_is_ours = link.is_some_and(|link| link.as_os_str() == std::process::id().to_string().as_str());
        let other = if proc_is_ours { Facts::of(pid) } else { None };
        Self { pid, own, other, kill: probe::kill(pid), proc_is_ours, yama: Scope::read(Path::new("/proc/sys")) }
    }

    pub(super) fn diagnosis(self) -> Diagnosis {
        let read = self.attach(Direction::Read);
        let write = self.attach(Direction::Write);
        let reverse = self.reverse(&read).derived();
        Diagnosis { pid: self.pid, name: self.other.map(|other| other.name), read, write, reverse }
    }

    /// Whether a filter watches the system calls of this process, as far as /proc tells.
    fn is_filtered(&self) -> bool {
        self.own.as_ref().is_none_or(|own| own.seccomp != 0)
    }

    fn is_own(&self) -> bool {
        self.pid == std::process::id()
            || self.own.as_ref().zip(self.other.as_ref()).is_some_and(|(a, b)| a.tgid == b.tgid)
    }

    fn attach(&self, direction: Direction) -> Verdict {
        let filtered = self.is_filtered();
        let filters = self.own.as_ref().and_then(|own| own.filters);
        let oneself = probe::attach_to_oneself(direction, filtered, filters);
        if oneself != Outcome::Permitted {
            return self.self_denied(oneself);
        }
        if self.pid == std::process::id() {
            return Verdict::allowed("it is this process itself");
        }
        match probe::attach(direction, self.pid, filtered) {
            Outcome::Permitted if self.is_own() => Verdict::allowed("it is this process itself"),
            Outcome::Permitted => Verdict::allowed("an attempt was permitted"),
            Outcome::Refused(errno) => self.refused(errno),
            outcome => self.self_denied(outcome),
        }
    }

    pub(super) fn self_denied(&self, outcome: Outcome) -> Verdict {
        let seccomp = match &self.own {
            Some(own) => format!("Seccomp: {} in /proc/self/status", own.seccomp),
            None => "/proc/self/status cannot be read".to_owned(),
        };
        let finding = |what: String| Finding::new(Cause::SelfDenied, [what, seccomp.clone()]);
        match outcome {
            Outcome::Untried(errno) => {
                Verdict::unknown(format!("no child to try it could be made: {}", name_of(errno)))
            }
            Outcome::Killed(signal) if signal != libc::SIGSYS => Verdict::unknown(format!(
                "the child that tried it was killed by signal {signal}, which no filter sends"
            )),
            Outcome::Killed(signal) => {
                let what = format!("a child that tried it was killed by signal {signal}");
                Verdict { killed_by: Some(signal), ..Verdict::refused(None, finding(what)) }
            }
            Outcome::Refused(errno) if !self.is_filtered() => {
                let what = format!("attaching to oneself is {}: this kernel lacks the system call", name_of(errno));
                Verdict::refused(Some(errno), finding(what))
            }
            Outcome::Refused(errno) => {
                Verdict::refused(Some(errno), finding(format!("attaching to oneself is {} too", name_of(errno))))
            }
            Outcome::Permitted => Verdict::allowed("an attempt was permitted"),
        }
    }

    pub(super) fn refused(&self, errno: i32) -> Verdict {
        let finding = self.absence().or_else(|| self.without_memory()).or_else(|| self.rule(errno));
        match finding {
            Some(finding) => Verdict::refused(Some(errno), finding),
            None => {
                let hidden = if self.proc_is_ours {
                    "does not show it (hidepid?)"
                } else {
                    "counts as another pid namespace does"
                };
                let evidence = format!("it is there, and refused with {}, but /proc {hidden}", name_of(errno));
                Verdict { allowed: Some(false), errno: Some(errno), ..Verdict::unknown(evidence) }
            }
        }
    }

    /// No process has the number.
    fn absence(&self) -> Option<Finding> {
        if self.kill != Err(libc::ESRCH) {
            return None;
        }
        let kill = format!("kill({}, 0) is ESRCH", self.pid);
        if !self.proc_is_ours {
            let reason = "/proc counts as another pid namespace does: its numbers mean nothing here";
            return Some(Finding::new(Cause::PidNamespace, [reason.to_owned(), kill]));
        }
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
        match newest_number() {
            Some(newest) if namespace != INITIAL_PID_NS && (newest + 1..PID_MAX_LIMIT).contains(&self.pid) => {
                let reason =
                    format!("no process has had this number here: the newest of this pid namespace is {newest}");
                Some(Finding::new(Cause::PidNamespace, [reason, format!("{kill}; this is {namespace}")]))
            }
            _ => Some(Finding::new(Cause::Gone, [format!("no process has the number {}", self.pid), kill])),
        }
    }

    /// There is a process, and it has no memory.
    fn without_memory(&self) -> Option<Finding> {
        let other = self.other.as_ref()?;
        let reason = match other {
            _ if other.kernel_thread => "it is a thread of the kernel, and has no memory of its own".to_owned(),
            _ if !other.is_dead() => return None,
            _ if other.threads > 1 => {
                format!("its first thread has exited; name one that lives: ls /proc/{}/task", self.pid)
            }
            _ => format!("it has exited, and process {} has not yet waited for it", other.parent),
        };
        Some(Finding::new(Cause::Gone, [reason, format!("State: {} in /proc/{}/status", other.state, self.pid)]))
    }

    fn rule(&self, errno: i32) -> Option<Finding> {
        let (Some(own), Some(other)) = (&self.own, &self.other) else {
            let other_user = self.kill == Err(libc::EPERM);
            return other_user.then(|| Finding::new(Cause::OtherUid, [format!("kill({}, 0) is EPERM", self.pid)]));
        };
        if errno == libc::ESRCH {
            return None;
        }
        let case = self.case(own, other, Observer::Caller);
        let mut finding = case.refusal().unwrap_or_else(|| case.rest());
        if own.seccomp != 0 && matches!(finding.cause, Cause::Yama | Cause::SecurityModule) {
            finding
                .evidence
                .push("a seccomp filter watches this process, and could refuse certain numbers alone".to_owned());
        }
        Some(finding)
    }

    fn case<'a>(&self, own: &'a Facts, other: &'a Facts, observer: Observer) -> Case<'a> {
        let (caller, target) = match observer {
            Observer::Caller => (own, other),
            Observer::Target => (other, own),
        };
        Case { caller, target, observer, yama: self.yama, unknown_ids: own.unknown_ids() }
    }

    /// Whether the other may read this process: by the rules, with the parts exchanged.
    fn reverse(&self, read: &Verdict) -> Verdict {
        if self.is_own() {
            return Verdict::allowed("it is this process itself");
        }
        if let Some(finding) =
            self.absence().filter(|finding| finding.cause == Cause::Gone).or_else(|| self.without_memory())
        {
            return Verdict::refused(None, finding);
        }
        let (Some(own), Some(other)) = (&self.own, &self.other) else {
            return Verdict::unknown("/proc does not show the other process, so nothing can be told of it");
        };
        if other.numbers.len() > own.numbers.len() {
            let inner =
                format!("it is in a pid namespace below: NSpid {:?} there, {:?} here", other.numbers, own.numbers);
            return Verdict::refused(Some(libc::ESRCH), Finding::new(Cause::PidNamespace, [inner]));
        }
        let case = self.case(own, other, Observer::Target);
        let mut verdict = derive(&case, own.is_initial_user_ns() || read.allowed == Some(true));
        if other.seccomp != 0 {
            verdict.evidence.push("a seccomp filter watches it, and may refuse the system call itself".to_owned());
        }
        verdict
    }
}

/// What the rules say of a process that might attach to this one. `topmost` says that its user namespace is not above that
/// of this process.
pub(super) fn derive(case: &Case<'_>, topmost: bool) -> Verdict {
    if case.user_namespaces() == UserNamespaces::Different && !topmost {
        return Verdict::unknown(
            "whether it is the owner or the root of this user namespace, who may, cannot be told from inside",
        );
    }
    match case.refusal() {
        Some(finding) => Verdict::refused(Some(libc::EPERM), finding),
        None if case.is_ambiguous() => Verdict::unknown("whether it is in the same user namespace cannot be told"),
        None => Verdict::allowed("the rules allow it, as far as they can be checked from here"),
    }
}

/// The number that was given last in this pid namespace: the fifth word of `/proc/loadavg`.
fn newest_number() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().nth(4)?.parse().ok()
}
