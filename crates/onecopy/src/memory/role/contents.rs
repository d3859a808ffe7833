//! Who has the roles of a region, from a copy of its head, and whether they have left it behind.

use std::mem::offset_of;

use super::{Role, Roles, Status};
use crate::contents::{Contents, HEAD_BYTES, Owner, owner, word};
use crate::process::Watch;

/// A side, as it was.
struct Side {
    owner: Option<Owner>,
    status: Status,
}

impl Side {
    fn of(head: &[u8; HEAD_BYTES], at: usize, role: &'static str, watch: &mut Watch) -> Self {
        Self {
            owner: owner(role, word(head, at + offset_of!(Role, owner)), watch),
            status: Status(word(head, at + offset_of!(Role, status))),
        }
    }

    fn was_killed(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.has_exited)
    }

    /// Whether it came and went in order.
    fn has_closed(&self) -> bool {
        self.owner.is_none() && self.status.is_closed() && self.status.generation() > 0
    }
}

/// A structure whose roles lie at `roles`.
pub(in crate::memory) fn contents(
    name: &'static str,
    head: &[u8; HEAD_BYTES],
    roles: usize,
    watch: &mut Watch,
) -> Contents {
    let sender = Side::of(head, roles + offset_of!(Roles, sender), "sender", watch);
    let receiver = Side::of(head, roles + offset_of!(Roles, receiver), "receiver", watch);
    // After a sender that closed, or before the first receiver, there may be messages for whoever comes.
    let is_over = sender.was_killed() && (receiver.was_killed() || receiver.has_closed());
    let left_behind = is_over.then(|| reason(&sender, &receiver));
    let owners = [sender.owner, receiver.owner].into_iter().flatten().collect();
    Contents { name, mechanism: None, state: String::new(), owners, parties: None, left_behind }
}

fn reason(sender: &Side, receiver: &Side) -> String {
    let pid = |side: &Side| side.owner.as_ref().map(|owner| owner.pid);
    match (pid(sender), pid(receiver)) {
        (Some(sender), Some(receiver)) if sender == receiver => {
            format!("its sender and receiver, process {sender}, has exited without closing it")
        }
        (Some(sender), Some(receiver)) => {
            format!("its sender {sender} and its receiver {receiver} have exited without closing it")
        }
        (sender, _) => format!(
            "its sender {} has exited without closing it, and its receiver has closed",
            sender.unwrap_or_default()
        ),
    }
}
