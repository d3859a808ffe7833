//! What /proc and the kernel tell about a process to anybody: nothing here needs a permission.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{DumpableBehavior, Pid, PidfdFlags, dumpable_behavior, pidfd_open};

use crate::process;
use crate::sys::pidfd_info;
use crate::sys::sysctl::sysctl;

/// `CAP_SYS_PTRACE` in a set of capabilities.
pub(super) const SYS_PTRACE: u64 = 1 << 19;
/// The user namespace that the machine started with, which has this number on every machine.
const INITIAL_USER_NS: &str = "user:[4026531837]";
/// How long a chain of parents is followed.
const MAX_ANCESTORS: usize = 1024;

/// Real, effective, saved and file system id.
pub(super) type Ids = [u32; 4];

/// A process as /proc shows it to this one: its ids are in the terms of this process's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) name: String,
    /// The letter of its state; Z for one that has exited.
    pub(super) state: char,
    /// The process that it belongs to, if the number is a thread's.
    pub(super) tgid: u32,
    pub(super) parent: u32,
    /// Its number in each pid namespace, from that of /proc inward.
    pub(super) numbers: Vec<u32>,
    pub(super) threads: u32,
    pub(super) uids: Ids,
    pub(super) gids: Ids,
    pub(super) permitted: u64,
    pub(super) effective: u64,
    /// 0 none, 1 strict, 2 a filter.
    pub(super) seccomp: u32,
    /// How many filters watch it, which never become fewer, where the kernel says so (Linux 5.9).
    pub(super) filters: Option<u32>,
    pub(super) kernel_thread: bool,
    /// Owner and group of `/proc/PID/stat`: the effective ids, but root's where the process is not dumpable.
    pub(super) stat_owner: Option<(u32, u32)>,
    /// Whether it is dumpable, where the kernel says so itself.
    pub(super) dumpable: Option<bool>,
    /// The user namespace, where the link can be read.
    pub(super) user_ns: Option<String>,
    /// The maps of its user namespace, which anybody may read.
    pub(super) maps: Option<String>,
    pub(super) ancestors: Vec<u32>,
}

impl Facts {
    /// The calling thread.
    pub(super) fn own() -> Option<Self> {
        let mut facts = Self::read("thread-self")?;
        facts.dumpable = dumpable_behavior().ok().map(|behavior| behavior == DumpableBehavior::Dumpable);
        Some(facts)
    }

    /// The process or thread `pid`, if /proc shows it.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let mut facts = Self::read(&pid.to_string())?;
        let number = i32::try_from(facts.tgid).ok().and_then(Pid::from_raw)?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).ok();
        facts.dumpable = pidfd.and_then(|pidfd| pidfd_info::is_dumpable(std::os::fd::AsFd::as_fd(&pidfd)));
        Some(facts)
    }

    fn read(name: &str) -> Option<Self> {
        let file = |rest: &str| format!("/proc/{name}/{rest}");
        let mut facts = Self::parse(&process::status(name).ok()?)?;
        facts.stat_owner = fs::metadata(file("stat")).ok().map(|data| (data.uid(), data.gid()));
        facts.user_ns = fs::read_link(file("ns/user")).ok().map(|link| link.to_string_lossy().into_owned());
        let maps = ["uid_map", "gid_map", "projid_map", "setgroups"].map(|map| fs::read_to_string(file(map)).ok());
        facts.maps = maps.into_iter().collect::<Option<Vec<_>>>().map(|maps| maps.join("/"));
        facts.ancestors = ancestors(facts.parent);
        Some(facts)
    }

    /// `/proc/PID/status`, which proc_pid_status(5) describes.
    fn parse(status: &str) -> Option<Self> {
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let number = |name: &str| field(name).and_then(|text| text.parse().ok());
        let set = |name: &str| field(name).and_then(|text| u64::from_str_radix(text, 16).ok());
        let tgid = number("Tgid")?;
        let state = field("State")?.chars().next()?;
        Some(Self {
            name: field("Name")?.to_owned(),
            state,
            tgid,
            parent: number("PPid")?,
            numbers: field("NSpid").map_or_else(Vec::new, numbers),
            threads: number("Threads")?,
            uids: ids(field("Uid")?)?,
            gids: ids(field("Gid")?)?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            seccomp: number("Seccomp").unwrap_or(0),
            filters: number("Seccomp_filters"),
            // Linux 6.8 says so; before it, memory is what a kernel thread never has, and a process that lives always.
            kernel_thread: number("Kthread").map_or(field("VmSize").is_none() && !is_dead(state), |kernel| kernel == 1),
            ..Self::default()
        })
    }

    /// Whether its user namespace is known, and the one that the machine started with.
    pub(super) fn is_initial_user_ns(&self) -> bool {
        self.user_ns.as_deref() == Some(INITIAL_USER_NS)
    }

    /// The lines of the map of users: the first id inside, the first outside, how many.
    pub(super) fn uid_map(&self) -> impl Iterator<Item = [u64; 3]> {
        map_lines(self.maps.as_deref().unwrap_or_default(), 0)
    }

    /// The ids that this process sees for users and for groups which its user namespace does not know, unless it knows
    /// somebody by that number.
    pub(super) fn unknown_ids(&self) -> [Option<u32>; 2] {
        let maps = self.maps.as_deref().unwrap_or_default();
        ["overflowuid", "overflowgid"].map(|name| {
            let number = sysctl(&format!("kernel/{name}"), 65534) as u32;
            let index = usize::from(name.ends_with("gid"));
            let is_mapped =
                map_lines(maps, index).any(|[first, _, count]| (first..first + count).contains(&number.into()));
            (self.maps.is_some() && !is_mapped).then_some(number)
        })
    }

    /// Whether it has exited, and with it its memory is gone.
    pub(super) fn is_dead(&self) -> bool {
        is_dead(self.state)
    }

    /// Whether a process is dumpable: as the kernel says, else as far as the owner of its files tells. Those of a process
    /// that is not belong to root, so nothing can be told of one whose ids are root's anyway.
    pub(super) fn is_dumpable(&self) -> Option<bool> {
        let ids = (self.uids[1], self.gids[1]);
        self.dumpable.or_else(|| match self.stat_owner? {
            owner if owner != ids => Some(false),
            (0, 0) => None,
            _ => Some(true),
        })
    }
}

/// The lines of the map with this index among those that [`Facts::maps`] holds.
fn map_lines(maps: &str, index: usize) -> impl Iterator<Item = [u64; 3]> {
    let map = maps.split('/').nth(index).unwrap_or_default();
    map.lines().filter_map(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        numbers.try_into().ok()
    })
}

fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X')
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn ids(text: &str) -> Option<Ids> {
    numbers(text).try_into().ok()
}

/// The parent, its parent, and so on.
fn ancestors(parent: u32) -> Vec<u32> {
    let next = |pid: &u32| {
        let status = process::status(pid).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
    };
    std::iter::successors(Some(parent), next).take_while(|pid| *pid != 0).take(MAX_ANCESTORS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\ta) b\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t5\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n\
                          NSpid:\t7\t1\nVmSize:\t  100 kB\nThreads:\t2\nCapPrm:\t00000000a80425fb\nCapEff:\t0000000000000000\n\
                          Seccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn a_status_is_read() {
        let facts = Facts::parse(STATUS).unwrap();
        assert_eq!((facts.name.as_str(), facts.state, facts.tgid, facts.parent, facts.threads), ("a) b", 'S', 7, 5, 2));
        assert_eq!((facts.uids, facts.gids), ([1, 2, 3, 4], [5, 6, 7, 8]));
        assert_eq!((facts.permitted, facts.effective, facts.seccomp), (0xa804_25fb, 0, 2));
        assert_eq!(facts.filters, Some(1));
        assert_eq!(facts.numbers, [7, 1]);
        assert!(!facts.kernel_thread && !facts.is_dead());
        assert!(Facts::parse(&STATUS.replace("VmSize", "Kthread:\t1\nX")).unwrap().kernel_thread);
        assert!(Facts::parse(&STATUS.replace("VmSize", "X")).unwrap().kernel_thread, "before Linux 6.8");
        let zombie = STATUS.replace("VmSize", "X").replace("S (sleeping)", "Z (zombie)");
        let zombie = Facts::parse(&zombie).unwrap();
        assert!(zombie.is_dead() && !zombie.kernel_thread);
        assert_eq!(Facts::parse("Name:\tshort\n"), None);
    }

    #[test]
    fn the_owner_tells_of_dumpability_what_can_be_told() {
        let facts = |uid, gid, owner, kernel| Facts {
            uids: [uid; 4],
            gids: [gid; 4],
            stat_owner: owner,
            dumpable: kernel,
            ..Facts::default()
        };
        assert_eq!(facts(5, 6, Some((5, 6)), None).is_dumpable(), Some(true));
        assert_eq!(facts(5, 6, Some((0, 0)), None).is_dumpable(), Some(false));
        assert_eq!(facts(0, 6, Some((0, 0)), None).is_dumpable(), Some(false), "the group tells");
        assert_eq!(facts(0, 0, Some((0, 0)), None).is_dumpable(), None);
        assert_eq!(
            facts(0, 0, Some((65534, 65534)), None).is_dumpable(),
            Some(false),
            "root of another user namespace"
        );
        assert_eq!(facts(0, 0, Some((0, 0)), Some(false)).is_dumpable(), Some(false), "the kernel knows");
        assert_eq!(facts(5, 6, None, None).is_dumpable(), None);
    }

    #[test]
    fn maps_tell_which_ids_are_known() {
        let facts = |maps: &str| Facts { maps: Some(maps.into()), ..Facts::default() };
        let whole = facts("         0          0 4294967295\n/         0          0 4294967295\n//allow\n");
        assert_eq!(whole.unknown_ids(), [None, None]);
        assert_eq!(whole.uid_map().collect::<Vec<_>>(), [[0, 0, 4_294_967_295]]);
        let one = facts("0 4321 1\n/0 0 65534\n65534 65534 2/x\n/deny\n");
        assert_eq!(one.unknown_ids(), [Some(65534), None]);
        assert_eq!(facts("///deny").unknown_ids(), [Some(65534), Some(65534)]);
        assert_eq!(Facts::default().unknown_ids(), [None, None], "a kernel without user namespaces");
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let own = Facts::own().unwrap();
        let seen = Facts::of(std::process::id()).unwrap();
        assert_eq!((own.tgid, own.uids, own.gids, &own.maps), (seen.tgid, seen.uids, seen.gids, &seen.maps));
        assert_eq!(own.uids[1], rustix::process::geteuid().as_raw());
        assert_eq!(seen.ancestors, own.ancestors);
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get().cast_unsigned();
        assert_eq!(own.ancestors.first(), Some(&parent));
        assert_eq!(seen.dumpable.or(own.dumpable), own.dumpable, "the kernel's two answers");
        assert_eq!(Facts::of(u32::MAX), None);
    }
}
