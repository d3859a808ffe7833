//! What the head of an object tells to whoever does not use it.

use zerocopy::FromBytes as _;

use super::HEADER_BYTES;
use super::header::{Header, Kind, MAGIC, VERSION, c_library};
use super::slot::{BROKEN, READY};
use crate::Mechanism;
use crate::contents::{Contents, HEAD_BYTES, owner, unfinished, word};
use crate::process::Watch;

/// The bits of a robust mutex's word that are its owner's thread (linux/futex.h, FUTEX_TID_MASK), and that it has died.
const TID_MASK: u32 = libc::FUTEX_TID_MASK;
const OWNER_DIED: u32 = libc::FUTEX_OWNER_DIED;

/// The object that `head` is the beginning of, if it is one.
pub(crate) fn contents(head: &[u8; HEAD_BYTES], watch: &mut Watch) -> Option<Contents> {
    let (header, _) = Header::read_from_prefix(head).ok()?;
    if header.magic != MAGIC || header.version != VERSION {
        return None;
    }
    let kind = Kind::from_word(header.kind)?;
    let (name, mechanism) = names(kind);
    if let Some(maker) = owner("maker", header.state, watch).filter(|_| !matches!(header.state, READY | BROKEN)) {
        return Some(unfinished(name, Some(mechanism), maker));
    }
    let state = match header.state {
        BROKEN => "unusable after a death: remove it".to_owned(),
        READY if header.c_library == c_library() => state(kind, head),
        _ => String::new(),
    };
    let parties = (kind == Kind::Barrier).then_some(header.detail);
    Some(Contents { name, mechanism: Some(mechanism), state, owners: Vec::new(), parties, left_behind: None })
}

fn names(kind: Kind) -> (&'static str, Mechanism) {
    match kind {
        Kind::Semaphore => ("semaphore", Mechanism::PosixUnnamedSemaphore),
        Kind::Futex => ("futex", Mechanism::Futex),
        Kind::Mutex => ("mutex", Mechanism::Mutex),
        Kind::Condvar => ("condvar", Mechanism::Condvar),
        Kind::Barrier => ("barrier", Mechanism::Barrier),
        Kind::Rwlock => ("rwlock", Mechanism::Rwlock),
    }
}

/// How the C library's object is, where its words are known: those of glibc, on 64 bits.
fn state(kind: Kind, head: &[u8; HEAD_BYTES]) -> String {
    if cfg!(not(target_env = "gnu")) {
        return String::new();
    }
    let first = word(head, HEADER_BYTES);
    match kind {
        // sem_t: the value, and above it how many wait.
        Kind::Semaphore => match first >> 32 {
            0 => format!("value {}", first as u32),
            waiters => format!("value {}, {waiters} waiting", first as u32),
        },
        Kind::Futex => format!("value {}", first as u32),
        // pthread_mutex_t: __lock, the futex word.
        Kind::Mutex => match (first as u32 & TID_MASK, first as u32 & OWNER_DIED) {
            (_, 1..) => "its owner died: the next one repairs it".into(),
            (0, _) => "free".into(),
            (thread, _) => format!("held by thread {thread}"),
        },
        // pthread_rwlock_t: __readers, three bits of flags below their number; __cur_writer.
        Kind::Rwlock => match (word(head, HEADER_BYTES + 24) as u32, first as u32 >> 3) {
            (0, 0) => "free".into(),
            (0, readers) => format!("held by {readers} readers"),
            (writer, _) => format!("held for writing by thread {writer}"),
        },
        Kind::Condvar | Kind::Barrier => String::new(),
    }
}
