//! What the tests play with: processes to look at, the doctor that looks, and what it said.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Ended, Peer, Run, Scratch, eventually, onecopy, program, skip};

/// A user without a name and without rights.
pub(crate) const NOBODY: u32 = 4321;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user as whom the two sides of most tests run: root would be allowed too much.
pub(crate) fn ordinary_user() -> u32 {
    if is_root() { NOBODY } else { rustix::process::geteuid().as_raw() }
}

/// Their group.
pub(crate) fn ordinary_group() -> u32 {
    if is_root() { NOBODY } else { rustix::process::getegid().as_raw() }
}

/// `setpriv` and what makes an ordinary user of root.
pub(crate) fn as_nobody() -> Vec<String> {
    let id = NOBODY.to_string();
    ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(str::to_owned).to_vec()
}

/// Whether this process may attach to whatever the security modules let it.
pub(crate) fn has_sys_ptrace() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(set, 16).unwrap() >> 19 & 1 == 1
}

/// Whether Yama restricts who attaches here.
fn has_yama() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0")
}

pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Whether unshare(1) may make the namespaces that `line` asks for here.
pub(crate) fn possible(test: &str, line: &str) -> bool {
    let tried = program("unshare", words(line).into_iter().skip(1).chain(["true".to_owned()])).end();
    if !tried.status.success() {
        skip(test, &format!("{line} is refused: {}", tried.stderr.trim()));
    }
    tried.status.success()
}

/// A program that sleeps, to be looked at. Dropping it kills it.
pub(crate) struct Target {
    child: Child,
}

impl Target {
    /// `sleep`, started by `wrapper`: a program that executes what its last arguments say.
    pub(crate) fn start(wrapper: &[String]) -> Self {
        let words: Vec<&str> = wrapper.iter().map(String::as_str).chain(["sleep", "100"]).collect();
        let child =
            Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).spawn().expect("a program to look at");
        let target = Self { child };
        let comm = format!("/proc/{}/comm", target.pid());
        eventually("it sleeps", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n"));
        target
    }

    /// One of the ordinary user.
    pub(crate) fn ordinary() -> Self {
        Self::start(&if is_root() { as_nobody() } else { Vec::new() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `onecopy doctor --pid PID --json`, as this user.
pub(crate) fn doctor(pid: u32) -> Run {
    onecopy(["doctor", "--pid", &pid.to_string(), "--json"])
}

/// The command, executed by `wrapper`. The binary may lie where only root gets to, so it runs from a copy.
pub(crate) fn onecopy_by(wrapper: &[String], arguments: &[&str]) -> Run {
    let scratch = Scratch::new();
    let copy = scratch.path("onecopy");
    program("cp", [env!("CARGO_BIN_EXE_onecopy").as_ref(), copy.as_os_str()]).end().succeeds();
    let words: Vec<&str> =
        wrapper.iter().map(String::as_str).chain(copy.to_str()).chain(arguments.iter().copied()).collect();
    program(words[0], &words[1..]).keeping(scratch)
}

/// The doctor, executed by `wrapper`.
pub(crate) fn doctor_by(wrapper: &[String], pid: u32) -> Run {
    onecopy_by(wrapper, &["doctor", "--pid", &pid.to_string(), "--json"])
}

/// The same, as the ordinary user.
pub(crate) fn ordinary_doctor(pid: u32) -> Run {
    if is_root() { doctor_by(&as_nobody(), pid) } else { doctor(pid) }
}

/// What the doctor said.
pub(crate) struct Said(pub(crate) Value);

impl Said {
    #[track_caller]
    pub(crate) fn by(ended: Ended) -> Self {
        Self(serde_json::from_slice(&ended.succeeds()).expect("one JSON object"))
    }

    /// Neither reading nor writing is allowed, both for this cause and with this errno; each verdict has its evidence and its
    /// remedies.
    #[track_caller]
    pub(crate) fn refuses(&self, cause: &str, errno: &str) -> &Self {
        assert_eq!(self.0["cause"], cause, "{:#}", self.0);
        for direction in ["read", "write"] {
            let verdict = &self.0[direction];
            assert_eq!((&verdict["allowed"], &verdict["cause"]), (&false.into(), &cause.into()), "{:#}", self.0);
            assert_eq!(verdict["errno"], errno, "{:#}", self.0);
            assert_eq!(verdict["derived"], false, "{:#}", self.0);
            for list in [&verdict["evidence"], &verdict["remedies"]["host"], &verdict["remedies"]["container"]] {
                assert!(list.as_array().is_some_and(|list| !list.is_empty()), "{:#}", self.0);
            }
        }
        self
    }

    /// Both directions are allowed, so far as Yama does not restrict them on this machine.
    #[track_caller]
    pub(crate) fn allows(&self) -> &Self {
        ["read", "write"].into_iter().for_each(|direction| self.allows_to(direction));
        assert_eq!(self.0["cause"], self.0["read"]["cause"], "{:#}", self.0);
        self
    }

    #[track_caller]
    pub(crate) fn allows_to(&self, direction: &str) {
        let verdict = &self.0[direction];
        let allowed = verdict["allowed"] == true && verdict["cause"] == "none";
        assert!(allowed || has_yama() && verdict["cause"] == "yama", "{direction}: {:#}", self.0);
    }

    /// The other direction, which nobody can try: what is derived for it.
    #[track_caller]
    pub(crate) fn reverse(&self, allowed: Option<bool>, cause: &str) -> &Self {
        let verdict = &self.0["reverse"];
        assert_eq!(verdict["derived"], true, "{:#}", self.0);
        if allowed == Some(true) {
            self.allows_to("reverse");
        } else {
            let expected = allowed.map_or(Value::Null, Value::Bool);
            assert_eq!((&verdict["allowed"], &verdict["cause"]), (&expected, &cause.into()), "{:#}", self.0);
        }
        self
    }

    /// One of the facts about reading.
    #[track_caller]
    pub(crate) fn shows(&self, fact: &str) -> &Self {
        let facts = self.0["read"]["evidence"].as_array().expect("facts");
        assert!(facts.iter().any(|told| told.as_str().unwrap().contains(fact)), "no {fact:?} in {:#}", self.0);
        self
    }
}

/// The second process of `test`, which takes these ids and this dumpability.
pub(crate) fn changed(test: &str, uids: [u32; 3], gids: [u32; 3], dumpable: bool) -> Peer {
    let list = |ids: [u32; 3]| ids.map(|id| id.to_string()).join(",");
    let arguments = [("UIDS", &*list(uids)), ("GIDS", &*list(gids)), ("DUMPABLE", if dumpable { "1" } else { "0" })];
    let mut peer = Peer::start(test, "changed", &arguments);
    peer.wait_for_line("changed");
    peer
}
