//! What the head of a ring tells to whoever does not use it.

use std::mem::offset_of;

use super::layout::{Header, MAGIC, READY};
use crate::contents::{Contents, HEAD_BYTES, owner, unfinished, word};
use crate::memory::role;
use crate::process::Watch;

const _: () = assert!(offset_of!(Header, sent) <= HEAD_BYTES);

/// The ring that `head` is the beginning of, if it is one.
pub(crate) fn contents(head: &[u8; HEAD_BYTES], watch: &mut Watch) -> Option<Contents> {
    if word(head, offset_of!(Header, magic)) != MAGIC {
        return None;
    }
    let state = word(head, offset_of!(Header, state));
    Some(match owner("maker", state, watch).filter(|_| state != READY) {
        Some(maker) => unfinished("ring", None, maker),
        None => role::contents("ring", head, offset_of!(Header, roles), watch),
    })
}
