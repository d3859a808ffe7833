//! System V message queues.

use onecopy::message::sysv_mq::SysvQueue;
use onecopy::{Address, SysvName};

use super::object::Object;
use super::sysv::{self, Row};
use super::text::{bytes, count};

/// All of them. The kernel does not say who uses one, but who sent and who received last.
pub(super) fn objects() -> Vec<Object> {
    sysv::rows("msg", object)
}

fn object(row: &Row<'_>) -> Option<Object> {
    let name = row.name("msqid")?;
    let (messages, queued) = (row.number("qnum"), row.number("cbytes"));
    let capacity = capacity_bytes(&name);
    let object = row.object(Address::SysvMq(name))?.figure("messages", messages).figure("size_bytes", queued);
    let of = capacity.map_or_else(String::new, |capacity| format!(" of {}", bytes(capacity)));
    let mut object = object.says(format!("{}, {}{of}", count(messages, "message"), bytes(queued)));
    object.figures.extend(capacity.map(|capacity| ("capacity_bytes", capacity)));
    object.noted = ["lspid", "lrpid"].into_iter().filter_map(|column| row.pid(column)).collect();
    Some(object)
}

/// The limit of the queue, for those who may read it.
fn capacity_bytes(name: &SysvName) -> Option<u64> {
    let status = SysvQueue::open(name).ok()?.status().ok()?;
    u64::try_from(status.capacity_bytes).ok()
}
