//! The tables of System V objects, /proc/sysvipc, as [sysvipc(5)](https://man7.org/linux/man-pages/man5/proc_sysvipc.5.html)
//! describes them.

use std::fs;

use onecopy::{Address, SysvName};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::object::Object;

/// One object, by the names of the columns, since newer kernels have more of them.
pub(super) struct Row<'a> {
    columns: &'a [&'a str],
    values: Vec<&'a str>,
}

impl Row<'_> {
    pub(super) fn text(&self, column: &str) -> Option<&str> {
        let index = self.columns.iter().position(|name| *name == column)?;
        self.values.get(index).copied()
    }

    pub(super) fn number(&self, column: &str) -> u64 {
        self.text(column).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// A process's number, of which 0 is none, and one of another pid namespace.
    pub(super) fn pid(&self, column: &str) -> Option<u32> {
        u32::try_from(self.number(column)).ok().filter(|pid| *pid != 0)
    }

    pub(super) fn mode(&self) -> u32 {
        self.text("perms").and_then(|perms| u32::from_str_radix(perms, 8).ok()).unwrap_or(0)
    }

    /// By its key where it has one, as programs name it.
    pub(super) fn name(&self, id: &str) -> Option<SysvName> {
        match self.text("key")?.parse().ok()? {
            0 => SysvName::id(self.text(id)?.parse().ok()?).ok(),
            key => SysvName::key(key).ok(),
        }
    }

    /// What every such object has.
    pub(super) fn object(&self, address: Address) -> Option<Object> {
        let kind = address.mechanism()?;
        let uid = self.text("uid")?.parse().ok()?;
        Some(Object::new(kind, address).owned_by(uid, self.mode() & 0o777))
    }
}

/// What `of` makes of each line of the table `name`. A kernel without System V objects has no tables.
pub(super) fn rows<T>(name: &str, mut of: impl FnMut(&Row<'_>) -> Option<T>) -> Vec<T> {
    let table = fs::read_to_string(format!("/proc/sysvipc/{name}")).unwrap_or_default();
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    lines.filter_map(|line| of(&Row { columns: &columns, values: line.split_ascii_whitespace().collect() })).collect()
}

/// Whether no process has this number. One that /proc hides has it all the same.
pub(super) fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}
