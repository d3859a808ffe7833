//! Why the kernel refuses cross-memory attach: which rule, the facts that show it, and what would help.
//!
//! The rules are those of [ptrace(2)](https://man7.org/linux/man-pages/man2/ptrace.2.html), "Ptrace access mode checking",
//! and all that the kernel says of them is EPERM. [`Diagnosis::of`] tries, and checks one after the other: this process
//! itself; whether the other exists; users and groups; whether the other is dumpable; user namespaces and capabilities; Yama.
//! What is left is a security module.
//!
//! ```
//! use onecopy::memory::permission::{Cause, Diagnosis};
//!
//! let diagnosis = Diagnosis::of(std::process::id());
//! # if diagnosis.read.cause != Cause::SelfDenied {
//! assert_eq!((diagnosis.read.allowed, diagnosis.read.cause), (Some(true), Cause::None));
//! # }
//! ```

mod capability;
mod facts;
mod probe;
mod remedy;
mod rules;
mod scene;
#[cfg(test)]
mod tests;
mod yama;

use std::fmt;

pub use remedy::Remedies;
use rules::Finding;
use scene::Scene;

/// Which rule refuses. Its name is a promise to programs: see [`Cause::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// None: it is allowed.
    None,
    /// This process may not even attach to itself: a seccomp filter, or a kernel without the system calls.
    SelfDenied,
    /// There is no such process, or it has no memory: it has exited, or is a thread of the kernel.
    Gone,
    /// The other runs as another user.
    OtherUid,
    /// The other runs as the same user with another group.
    OtherGid,
    /// Real, effective and saved ids differ, and only some of them are the same on both sides.
    MixedIds,
    /// The other is not dumpable, as processes are that have changed their user.
    NotDumpable,
    /// The other has capabilities that the one who attaches lacks.
    Capabilities,
    /// The other is in a user namespace that is not below that of the one who attaches.
    UserNamespace,
    /// The number belongs to another pid namespace.
    PidNamespace,
    /// `kernel.yama.ptrace_scope`.
    Yama,
    /// Another security module: Landlock, AppArmor, SELinux.
    SecurityModule,
    /// It could not be found out.
    Unknown,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 13] = [
        Self::None,
        Self::SelfDenied,
        Self::Gone,
        Self::OtherUid,
        Self::OtherGid,
        Self::MixedIds,
        Self::NotDumpable,
        Self::Capabilities,
        Self::UserNamespace,
        Self::PidNamespace,
        Self::Yama,
        Self::SecurityModule,
        Self::Unknown,
    ];

    /// Its name for programs: "other-uid". The names do not change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SelfDenied => "self-denied",
            Self::Gone => "gone",
            Self::OtherUid => "other-uid",
            Self::OtherGid => "other-gid",
            Self::MixedIds => "mixed-ids",
            Self::NotDumpable => "not-dumpable",
            Self::Capabilities => "capabilities",
            Self::UserNamespace => "user-namespace",
            Self::PidNamespace => "pid-namespace",
            Self::Yama => "yama",
            Self::SecurityModule => "security-module",
            Self::Unknown => "unknown",
        }
    }

    /// The rule in words: the caller attaches, the target is attached to.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::None => "no rule forbids it",
            Self::SelfDenied => "the caller may not use the system calls at all: a seccomp filter, or an old kernel",
            Self::Gone => "the target must be a process with memory of its own",
            Self::OtherUid => "the caller must run as the target's user, unless it has CAP_SYS_PTRACE",
            Self::OtherGid => "the caller must run with the target's group too, unless it has CAP_SYS_PTRACE",
            Self::MixedIds => {
                "the caller's real ids must be the target's real, effective and saved ones, unless it has CAP_SYS_PTRACE"
            }
            Self::NotDumpable => "the target must be dumpable, unless the caller has CAP_SYS_PTRACE",
            Self::Capabilities => "the caller must have every capability that the target has, or CAP_SYS_PTRACE",
            Self::UserNamespace => "the target must be in the caller's user namespace, or in one that the caller owns",
            Self::PidNamespace => "the target must have a number in the caller's pid namespace",
            Self::Yama => "Yama lets few processes attach to others",
            Self::SecurityModule => "a security module forbids it: Landlock, AppArmor, SELinux or another",
            Self::Unknown => "which rule it is could not be found out",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// Whether one direction is allowed, and what shows it. All of it may change at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether it is; `None` where that could not be found out.
    pub allowed: Option<bool>,
    /// What the kernel answered; `None` when it is allowed, and where nothing could be tried.
    pub errno: Option<i32>,
    /// The signal that answered, where a seccomp filter kills who tries. A child of this process took it.
    pub killed_by: Option<i32>,
    /// Whether the verdict follows from rules and facts, and not from an attempt.
    pub derived: bool,
    /// Which rule refuses.
    pub cause: Cause,
    /// The facts that show it, the most important first; each is one line.
    pub evidence: Vec<String>,
    /// What would help.
    pub remedies: Remedies,
}

impl Verdict {
    fn allowed(evidence: &str) -> Self {
        let finding = Finding::new(Cause::None, [evidence.to_owned()]);
        Self { allowed: Some(true), ..Self::refused(None, finding) }
    }

    fn refused(errno: Option<i32>, Finding { cause, evidence }: Finding) -> Self {
        let remedies = Remedies::of(cause);
        Self { allowed: Some(false), errno, killed_by: None, derived: false, cause, evidence, remedies }
    }

    fn unknown(evidence: impl Into<String>) -> Self {
        Self { allowed: None, ..Self::refused(None, Finding::new(Cause::Unknown, [evidence.into()])) }
    }

    /// The symbol of [`Verdict::errno`]: "EPERM".
    #[must_use]
    pub fn errno_name(&self) -> Option<String> {
        self.errno.map(name_of)
    }

    fn derived(self) -> Self {
        Self { derived: true, ..self }
    }
}

/// Cause, evidence and first remedy in one line.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        self.evidence.first().map_or(Ok(()), |fact| write!(f, ": {fact}"))?;
        self.remedies.host.first().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

/// Whether this process may attach to another one and that to this, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The number of the other process.
    pub pid: u32,
    /// Its name, as `/proc/PID/comm` has it.
    pub name: Option<String>,
    /// May this process read its memory?
    pub read: Verdict,
    /// May this process write its memory, where a mapping is writable?
    pub write: Verdict,
    /// May it read the memory of this process? Nobody can try that from here, so rules and facts have to tell.
    pub reverse: Verdict,
}

impl Diagnosis {
    /// Finds out how the process or thread with the number `pid` and the calling thread stand.
    ///
    /// It changes nothing in the other process, needs no permission, and takes less than a millisecond. Where a seccomp
    /// filter watches this process, a child makes the attempts first, since the filter may kill who makes them.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Scene::look(pid).diagnosis()
    }

    /// The verdict on what a system call does. After a refusal it is younger than that, and may be another one by then.
    pub(crate) fn of_call(&self, call: &str) -> &Verdict {
        if call == "process_vm_writev" { &self.write } else { &self.read }
    }

    /// Why this process may not use the other's memory: the cause of `read`, or that of `write` where reading is allowed.
    #[must_use]
    pub fn cause(&self) -> Cause {
        if self.read.cause == Cause::None { self.write.cause } else { self.read.cause }
    }
}

/// The symbol of an errno.
fn name_of(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}
