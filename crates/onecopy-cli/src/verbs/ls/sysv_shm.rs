//! System V shared memory.

use std::collections::HashMap;

use onecopy::memory::sysv_shm::SysvShm;
use onecopy::{Address, SysvName};

use super::leftover::{Leftover, Outcome};
use super::object::{Object, State};
use super::processes::{Processes, User};
use super::sysv::{self, Row};
use super::text::{bytes, count};

/// `SHM_DEST` of shmctl(2): it goes when the last process detaches.
const DEST: u32 = 0o1000;

/// All segments.
///
/// One counts as left behind when it has no key, nobody is attached to it, somebody was once, and both its creator and whoever attached
/// or detached last have exited. One with a key keeps its bytes for whoever comes by that key: commands that write it and read it one
/// after the other look the same as those that were killed. A process of another pid namespace has no number here, so nothing is
/// known of its end.
pub(super) fn objects(processes: &Processes) -> Vec<Object> {
    let attached = attached(processes);
    sysv::rows("shm", |row| object(row, &attached))
}

fn object(row: &Row<'_>, attached: &HashMap<u64, Vec<User>>) -> Option<Object> {
    let (id, size, attaches) = (row.number("shmid"), row.number("size"), row.number("nattch"));
    let mut object = row.object(Address::SysvShm(row.name("shmid")?))?;
    object.figures = vec![("size_bytes", size), ("attached", attaches)];
    object.words = format!("{}, attached {}", bytes(size), times(attaches));
    if row.mode() & DEST != 0 {
        object.words += ", removed: goes with the last";
    }
    object.users = attached.get(&id).cloned().unwrap_or_default();
    object.noted = ["cpid", "lpid"].into_iter().filter_map(|column| row.pid(column)).collect();
    object.state = match (attaches, left_behind(row)) {
        (1.., _) => State::Used,
        (0, Some(reason)) => State::Stale(reason),
        (0, None) => State::Unused,
    };
    object.leftover = matches!(object.state, State::Stale(_)).then(|| Leftover::Segment(Segment::of(row)));
    Some(object)
}

fn times(attaches: u64) -> String {
    count(attaches, "time")
}

fn left_behind(row: &Row<'_>) -> Option<String> {
    let (creator, last) = (row.pid("cpid")?, row.pid("lpid")?);
    let is_private = row.text("key") == Some("0");
    let is_left = is_private && row.number("nattch") == 0 && sysv::is_gone(creator) && sysv::is_gone(last);
    is_left.then(|| {
        format!("it has no key, nobody is attached, its creator {creator} and its last user {last} have exited")
    })
}

/// Who has each segment mapped, by its identifier: it is the inode of the mapping.
fn attached(processes: &Processes) -> HashMap<u64, Vec<User>> {
    let mut attached: HashMap<u64, Vec<User>> = HashMap::new();
    for process in processes.iter() {
        for mapped in process.mapped.iter().filter(|mapped| mapped.path.starts_with(b"/SYSV")) {
            let users = attached.entry(mapped.inode.2).or_default();
            if users.last().is_none_or(|user| user.pid != process.pid) {
                users.push(process.user(None));
            }
        }
    }
    attached
}

/// A segment as it was when it was found to be left behind: any use of it would change one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    id: u64,
    traces: Vec<String>,
}

impl Segment {
    fn of(row: &Row<'_>) -> Self {
        let traces = ["key", "cpid", "lpid", "nattch", "uid", "atime", "dtime", "ctime"];
        let trace = |column: &str| row.text(column).unwrap_or_default().to_owned();
        Self { id: row.number("shmid"), traces: traces.into_iter().map(trace).collect() }
    }

    /// Removes it if it is still as it was. A process that attaches between the look and the removal keeps its memory, as always, but
    /// the name is gone.
    pub(super) fn remove(&self) -> Outcome {
        let same = |row: &Row<'_>| (Self::of(row) == *self && left_behind(row).is_some()).then_some(());
        if sysv::rows("shm", same).is_empty() {
            return Outcome::Alive;
        }
        let name = i32::try_from(self.id).ok().and_then(|id| SysvName::id(id).ok());
        Outcome::of(name.map_or(Ok(()), |name| SysvShm::remove_named(&name)).map_err(|error| error.to_string()))
    }
}
