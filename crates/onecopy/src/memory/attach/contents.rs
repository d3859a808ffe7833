//! What the head of a region of [`pull`](super::pull) or [`push`](super::push) tells to whoever does not use it.

use std::mem::offset_of;

use super::control::{Control, Kind};
use crate::contents::{Contents, HEAD_BYTES, word};
use crate::memory::role;
use crate::process::Watch;

/// The region that `head` is the beginning of, if it is one.
pub(crate) fn contents(head: &[u8; HEAD_BYTES], watch: &mut Watch) -> Option<Contents> {
    let magic = word(head, Control::MAGIC_OFFSET);
    let (name, _) = [("pull", Kind::Pull), ("push", Kind::Push)].into_iter().find(|(_, kind)| kind.magic() == magic)?;
    Some(role::contents(name, head, offset_of!(Control, roles), watch))
}
