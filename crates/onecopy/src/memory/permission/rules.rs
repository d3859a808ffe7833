//! The rules by which the kernel lets one process attach to another, in its order, over what is known of both.
//!
//! `__ptrace_may_access` of kernel/ptrace.c with `PTRACE_MODE_ATTACH_REALCREDS`: the ids, then whether the other is dumpable,
//! then the security modules: capabilities (`cap_ptrace_access_check`), Landlock, Yama and the large ones.

use super::Cause;
use super::capability;
use super::facts::{Facts, Ids, SYS_PTRACE};
use super::yama::Scope;

/// Which rule refused, and the facts that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) cause: Cause,
    pub(super) evidence: Vec<String>,
}

impl Finding {
    pub(super) fn new(cause: Cause, evidence: impl IntoIterator<Item = String>) -> Self {
        Self { cause, evidence: evidence.into_iter().collect() }
    }
}

/// One process that attaches, and one that is attached to.
pub(super) struct Case<'a> {
    pub(super) caller: &'a Facts,
    pub(super) target: &'a Facts,
    /// Which of the two asks, and sees the other through its own user namespace.
    pub(super) observer: Observer,
    pub(super) yama: Scope,
    /// What this user namespace shows for users and groups that it does not know; nothing where it knows that number.
    pub(super) unknown_ids: [Option<u32>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observer {
    Caller,
    Target,
}

/// How two user namespaces relate, as far as one of the processes can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserNamespaces {
    Same,
    Different,
    /// They have the same map, and the link that would tell is not readable.
    Alike,
}

/// How the caller's id stands to the three of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Same,
    /// Some are the same, but not all that the rule compares.
    Mixed,
    Other,
}

impl Case<'_> {
    /// The first rule that refuses.
    pub(super) fn refusal(&self) -> Option<Finding> {
        let ordinary = || self.ids().or_else(|| self.dumpable()).or_else(|| self.capabilities());
        if self.is_privileged() { self.foreign_memory() } else { ordinary() }.or_else(|| self.yama())
    }

    /// What refuses where no rule does that this process can check.
    pub(super) fn rest(&self) -> Finding {
        let link = match &self.target.user_ns {
            Some(_) => "its user namespace can be read, and still it is refused".to_owned(),
            None => "not even its user namespace can be read, which Yama does not hinder".to_owned(),
        };
        if self.is_ambiguous() {
            let map = "this process is in a user namespace of its own; that of the other has the same map, and cannot be read";
            return Finding::new(Cause::UserNamespace, [map.to_owned(), self.ids_seen()]);
        }
        if self.target.is_dumpable().is_none() && !self.is_privileged() {
            let either = "it is root's: whether it is dumpable cannot be told, so that or a security module";
            return Finding::new(Cause::Unknown, [either.to_owned(), link]);
        }
        let rules = match self.is_privileged() {
            true => {
                "this process has CAP_SYS_PTRACE, which outweighs every rule but those of security modules".to_owned()
            }
            false => "ids, dumpability, capabilities and user namespace allow it, and so does Yama".to_owned(),
        };
        Finding::new(Cause::SecurityModule, [rules, link, self.ids_seen()])
    }

    /// Whether the caller has `CAP_SYS_PTRACE` where it counts: in the user namespace of the other.
    fn is_privileged(&self) -> bool {
        self.caller.effective & SYS_PTRACE != 0 && self.user_namespaces() != UserNamespaces::Different
    }

    pub(super) fn user_namespaces(&self) -> UserNamespaces {
        let (caller, target) = (self.caller, self.target);
        match (&caller.user_ns, &target.user_ns) {
            (Some(one), Some(other)) if one == other => UserNamespaces::Same,
            (Some(_), Some(_)) => UserNamespaces::Different,
            _ if caller.maps != target.maps => UserNamespaces::Different,
            _ => UserNamespaces::Alike,
        }
    }

    /// Whether the two may be in different user namespaces though all that can be seen is the same: the observer's is one
    /// that probably nobody shares, for a single user or for all of them.
    pub(super) fn is_ambiguous(&self) -> bool {
        let observer = match self.observer {
            Observer::Caller => self.caller,
            Observer::Target => self.target,
        };
        let users: u64 = observer.uid_map().map(|[_, _, count]| count).sum();
        let is_sandbox = !observer.is_initial_user_ns() && (users <= 1 || users >= u64::from(u32::MAX));
        is_sandbox && self.user_namespaces() == UserNamespaces::Alike
    }

    fn ids(&self) -> Option<Finding> {
        let (caller, target) = (self.caller, self.target);
        self.id_rule("uid", caller.uids, target.uids, self.unknown_ids[0], Cause::OtherUid)
            .or_else(|| self.id_rule("gid", caller.gids, target.gids, self.unknown_ids[1], Cause::OtherGid))
    }

    fn id_rule(&self, what: &str, caller: Ids, target: Ids, unknown: Option<u32>, other: Cause) -> Option<Finding> {
        let seen = self.sides(&triple(what, caller), &triple("", target));
        let is_unknown = |ids: Ids| unknown.is_some_and(|unknown| ids[..3].contains(&unknown));
        if self.user_namespaces() != UserNamespaces::Same && (is_unknown(caller) || is_unknown(target)) {
            let reason = "that number stands for any that this user namespace does not know";
            return Some(Finding::new(Cause::UserNamespace, [seen, reason.to_owned()]));
        }
        match compare(caller, target) {
            Match::Same => None,
            Match::Mixed => {
                let rule = format!(
                    "the real {what} that attaches must be all three {what}s of the other: real, effective, saved"
                );
                Some(Finding::new(Cause::MixedIds, [seen, rule]))
            }
            Match::Other => Some(Finding::new(other, [seen])),
        }
    }

    fn dumpable(&self) -> Option<Finding> {
        if self.target.is_dumpable() != Some(false) {
            return None;
        }
        let kernel = self.target.dumpable.map(|_| "the kernel says that it is not dumpable".to_owned());
        Some(Finding::new(Cause::NotDumpable, kernel.into_iter().chain(self.owner()).chain([self.ids_seen()])))
    }

    /// The one case in which `CAP_SYS_PTRACE` does not outweigh that a process is not dumpable: it has run its program before
    /// it came into this user namespace.
    fn foreign_memory(&self) -> Option<Finding> {
        let (owner, _) = self.target.stat_owner?;
        let foreign = self.target.is_dumpable() == Some(false) && self.unknown_ids[0] == Some(owner);
        foreign.then(|| Finding::new(Cause::NotDumpable, self.owner()))
    }

    fn owner(&self) -> Option<String> {
        let (uid, gid) = self.target.stat_owner?;
        let [_, euid, ..] = self.target.uids;
        let [_, egid, ..] = self.target.gids;
        (uid, gid)
            .ne(&(euid, egid))
            .then(|| format!("/proc/PID/stat belongs to {uid}:{gid}, and not to {euid}:{egid} as it runs"))
    }

    fn capabilities(&self) -> Option<Finding> {
        if self.user_namespaces() == UserNamespaces::Different {
            return Some(self.namespace());
        }
        let missing = self.target.permitted & !self.caller.permitted;
        if missing == 0 {
            return None;
        }
        let sets =
            self.sides(&format!("CapPrm {:#x}", self.caller.permitted), &format!("{:#x}", self.target.permitted));
        let (who, whom) = self.names();
        Some(Finding::new(
            Cause::Capabilities,
            [format!("{whom} has {}, {who} has not", capability::list(missing)), sets],
        ))
    }

    fn namespace(&self) -> Finding {
        let proof = match (&self.caller.user_ns, &self.target.user_ns) {
            (Some(caller), Some(target)) => self.sides(caller, target),
            _ => "the two have different /proc/PID/uid_map, gid_map or setgroups, and /proc/PID/ns/user cannot be read"
                .to_owned(),
        };
        Finding::new(Cause::UserNamespace, [proof, self.ids_seen()])
    }

    fn yama(&self) -> Option<Finding> {
        let (caller, target) = (self.caller, self.target);
        let is_ancestor = target.ancestors.contains(&caller.tgid);
        let forbids = match self.yama {
            Scope::Classic => false,
            Scope::Restricted => !is_ancestor && !self.is_privileged(),
            Scope::Admin => !self.is_privileged(),
            Scope::Nobody => true,
        };
        // Yama minds attaching alone, not looking: where even that is refused something else refuses, for both.
        let may_look = self.observer == Observer::Target
            || target.user_ns.is_some()
            || target.permitted & !caller.effective != 0 && !self.is_privileged();
        if !forbids || !may_look {
            return None;
        }
        let who = match self.yama {
            Scope::Nobody => "nobody attaches until the next start of the machine",
            Scope::Admin => "only CAP_SYS_PTRACE attaches",
            _ => "only an ancestor attaches, or whom the other has named by PR_SET_PTRACER",
        };
        let sysctl = format!("kernel.yama.ptrace_scope is {}: {who}", self.yama.number());
        let link = "its user namespace can be read, so nothing else forbids to look at it".to_owned();
        Some(Finding::new(Cause::Yama, [sysctl].into_iter().chain((self.observer == Observer::Caller).then_some(link))))
    }

    fn ids_seen(&self) -> String {
        let Case { caller, target, .. } = self;
        let here = format!("{}, {}", triple("uid", caller.uids), triple("gid", caller.gids));
        self.sides(&here, &format!("{}, {}", triple("uid", target.uids), triple("gid", target.gids)))
    }

    fn names(&self) -> (&'static str, &'static str) {
        match self.observer {
            Observer::Caller => ("this process", "it"),
            Observer::Target => ("it", "this process"),
        }
    }

    /// What the two sides have, the caller's first.
    fn sides(&self, caller: &str, target: &str) -> String {
        match self.observer {
            Observer::Caller => format!("{caller} here, {} there", target.trim_start()),
            Observer::Target => format!("{caller} there, {} here", target.trim_start()),
        }
    }
}

fn triple(what: &str, [real, effective, saved, _]: Ids) -> String {
    format!("{what} {real}/{effective}/{saved}")
}

fn compare(caller: Ids, target: Ids) -> Match {
    let (caller, target) = (&caller[..3], &target[..3]);
    if target.iter().all(|id| *id == caller[0]) {
        Match::Same
    } else if target.iter().any(|id| caller.contains(id)) {
        Match::Mixed
    } else {
        Match::Other
    }
}
