//! What the kernel and a container around this process change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The inodes of the first namespaces (include/linux/proc_ns.h of the kernel, constant since Linux 3.8).
const FIRST_IPC: u64 = 0xEFFF_FFFF;
const FIRST_USER: u64 = 0xEFFF_FFFD;
const FIRST_PID: u64 = 0xEFFF_FFFC;

/// The bit of CAP_SYS_PTRACE, capabilities(7).
const CAP_SYS_PTRACE: u32 = 19;

/// What was found; `None` where it cannot be told.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// The release of the kernel: "6.1.0-18-amd64".
    pub(super) kernel: String,
    /// 0: none, 1: strict, 2: a filter.
    pub(super) seccomp_mode: Option<u64>,
    /// How many filters; told from Linux 5.9 on.
    pub(super) seccomp_filters: Option<u64>,
    /// Yama's ptrace_scope.
    pub(super) yama: Option<u64>,
    /// Whether this is another pid namespace than the machine's first, and so on.
    pub(super) own_pid_namespace: Option<bool>,
    pub(super) own_user_namespace: Option<bool>,
    pub(super) own_ipc_namespace: Option<bool>,
    pub(super) cap_sys_ptrace: Option<bool>,
    /// How many processors the control group may use, where it has a quota.
    pub(super) cpu_quota: Option<f64>,
}

impl Surroundings {
    pub(super) fn look() -> Self {
        let status = crate::io::own_status().unwrap_or_default();
        let own = |name: &str, first: u64| Some(fs::metadata(format!("/proc/self/ns/{name}")).ok()?.ino() != first);
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            seccomp_mode: field(&status, "Seccomp:").and_then(|word| word.parse().ok()),
            seccomp_filters: field(&status, "Seccomp_filters:").and_then(|word| word.parse().ok()),
            yama: number("/proc/sys/kernel/yama/ptrace_scope"),
            own_pid_namespace: own("pid", FIRST_PID),
            own_user_namespace: own("user", FIRST_USER),
            own_ipc_namespace: own("ipc", FIRST_IPC),
            cap_sys_ptrace: field(&status, "CapEff:").and_then(|word| has_capability(word, CAP_SYS_PTRACE)),
            cpu_quota: fs::read_to_string("/proc/self/cgroup").ok().and_then(|groups| cpu_quota(&groups)),
        }
    }

    /// A machine of which nothing is known.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self {
            kernel: String::new(),
            seccomp_mode: None,
            seccomp_filters: None,
            yama: None,
            own_pid_namespace: None,
            own_user_namespace: None,
            own_ipc_namespace: None,
            cap_sys_ptrace: None,
            cpu_quota: None,
        }
    }

    pub(super) fn has_seccomp_filter(&self) -> bool {
        self.seccomp_mode == Some(2)
    }

    /// What of it a program has to know, a sentence each.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |holds: bool, text: &str| notes.extend(holds.then(|| text.to_owned()));
        let older = |major, minor| version(&self.kernel).is_some_and(|version| version < (major, minor));
        note(older(5, 3), "Linux before 5.3 has no pidfd: which process has a number cannot be held.");
        note(older(5, 16), "Linux before 5.16 has no futex_waitv: a waiter sleeps on one word at a time.");
        note(self.has_seccomp_filter(), "A seccomp filter is on: it may refuse single calls, whatever the rights.");
        note(
            self.own_user_namespace == Some(true),
            "In a user namespace: processes outside it refuse cross-memory attach (EPERM).",
        );
        note(
            self.own_pid_namespace == Some(true),
            "In a pid namespace: processes outside it have no number here (ESRCH).",
        );
        note(
            self.own_ipc_namespace == Some(true),
            "In an IPC namespace: message queues and System V objects are not the host's.",
        );
        note(
            self.cap_sys_ptrace == Some(false),
            "Without CAP_SYS_PTRACE: cross-memory attach reaches equal user and group ids.",
        );
        if let Some(quota) = self.cpu_quota {
            notes.push(format!("cpu.max allows {quota:.1} processors: spinning waiters use the quota up."));
        }
        notes
    }
}

/// The first word behind a label of /proc/PID/status.
fn field<'a>(status: &'a str, label: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a set of capabilities, in hexadecimal digits, has this one.
fn has_capability(set: &str, bit: u32) -> Option<bool> {
    Some(u64::from_str_radix(set, 16).ok()? >> bit & 1 == 1)
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The smallest quota of the control groups that /proc/self/cgroup names and those around them, cgroups(7). In a container
/// the path is often told as the host sees it, and does not exist; then the root of what is mounted is the container's own.
fn cpu_quota(groups: &str) -> Option<f64> {
    let quotas = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let second = controllers.is_empty();
        let first = controllers.split(',').any(|controller| controller == "cpu");
        match (second, first) {
            (true, _) => smallest(Path::new("/sys/fs/cgroup"), path, quota_of_second_version),
            (_, true) => smallest(Path::new("/sys/fs/cgroup/cpu"), path, quota_of_first_version),
            _ => None,
        }
    });
    quotas.min_by(f64::total_cmp)
}

fn smallest(root: &Path, path: &str, quota: fn(&Path) -> Option<f64>) -> Option<f64> {
    let group: PathBuf = root.join(path.trim_start_matches('/'));
    group.ancestors().take_while(|group| group.starts_with(root)).filter_map(quota).min_by(f64::total_cmp)
}

fn quota_of_second_version(group: &Path) -> Option<f64> {
    parse_cpu_max(&fs::read_to_string(group.join("cpu.max")).ok()?)
}

fn quota_of_first_version(group: &Path) -> Option<f64> {
    let quota = number(group.join("cpu.cfs_quota_us"))?;
    let period = number(group.join("cpu.cfs_period_us"))?;
    (period > 0).then(|| quota as f64 / period as f64)
}

/// `QUOTA PERIOD` in microseconds; `max` is none.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read_as_they_are_written() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.16"), Some((5, 16)));
        assert_eq!(version(""), None);
        assert_eq!(has_capability("0000000000080000", CAP_SYS_PTRACE), Some(true));
        assert_eq!(has_capability("000001fffff7ffff", CAP_SYS_PTRACE), Some(false));
        assert_eq!(field("Seccomp:\t2\nSeccomp_filters:\t1\n", "Seccomp_filters:"), Some("1"));
    }

    #[test]
    fn the_smallest_quota_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("onecopy-test-quota-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/cpu.max"), "50000 100000\n").unwrap();
        fs::write(root.join("a/b/cpu.max"), "max 100000\n").unwrap();
        let found = smallest(&root, "/a/b", quota_of_second_version);
        let missing = smallest(&root, "/../elsewhere", quota_of_second_version);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!((found, missing), (Some(0.5), None));
    }

    #[test]
    fn what_a_container_changes_is_told() {
        assert!(Surroundings::nowhere().notes().is_empty());
        let all = Surroundings {
            kernel: "5.2.1".into(),
            seccomp_mode: Some(2),
            own_pid_namespace: Some(true),
            own_user_namespace: Some(true),
            own_ipc_namespace: Some(true),
            cap_sys_ptrace: Some(false),
            cpu_quota: Some(1.5),
            ..Surroundings::nowhere()
        };
        let notes = all.notes();
        assert_eq!(notes.len(), 8, "{notes:?}");
        for word in ["5.3", "5.16", "seccomp", "user name", "pid name", "IPC name", "CAP_SYS_PTRACE", "1.5 processors"]
        {
            assert!(notes.iter().any(|note| note.contains(word)), "nothing of {word} in {notes:?}");
        }
        assert!(notes.iter().all(|note| note.len() <= 78), "{notes:?}");
    }
}
