//! The two roles in a region that carries messages: one process has each, and a dead one's can be taken over.
//!
//! The word `owner` of a role:
//!
//! | Value | Meaning | Next |
//! |---|---|---|
//! | 0 | nobody has the role | a process sets its identity (compare-and-swap) |
//! | an identity that lives | that process has it | it sets 0 when it closes |
//! | an identity that has exited | the process was killed, or exited without closing | another sets its own identity |
//!
//! The word `status` counts the owners and says whether the last one has closed; the owner alone writes it.

#[cfg(not(loom))]
mod contents;

#[cfg(not(loom))]
pub(super) use contents::contents;

use crate::atomic::{AtomicU64, Ordering};
use crate::process::{Identity, Watch, own_id};
use crate::{Error, Result};

/// Written when somebody attaches, closes or ends; read by whoever waits.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Roles {
    pub(super) sender: Role,
    pub(super) receiver: Role,
    /// The last generation of senders whose end a receiver was told.
    pub(super) ended: AtomicU64,
}

/// One side.
#[derive(Default)]
#[repr(C)]
pub(super) struct Role {
    /// The [`Identity`](crate::process::Identity) of the process that has it, or 0.
    pub(super) owner: AtomicU64,
    /// The generation, counted from 1 with each process that takes the role, and in the lowest bit whether it has closed.
    pub(super) status: AtomicU64,
}

/// A generation of a role: the number of its owner, and whether it has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(u64);

impl Status {
    const CLOSED: u64 = 1;

    #[inline]
    pub(super) fn load(role: &Role) -> Self {
        // SeqCst: a side about to sleep loads it after announcing itself, see `wait`.
        Self(role.status.load(Ordering::SeqCst))
    }

    /// The number of the owner; 0 is nobody yet.
    pub(super) fn generation(self) -> u64 {
        self.0 >> 1
    }

    #[inline]
    pub(super) fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }
}

/// How often a role is claimed whose owner changes meanwhile. Others that claim it have it then, and live; only a peer that writes there all
/// the time can make it so many.
const MOST_CLAIMS: u32 = 100;

/// Takes a role and returns the generation that begins with that.
pub(super) fn claim(role: &Role, name: &'static str, object: &str, watch: &mut Watch) -> Result<u64> {
    for _ in 0..MOST_CLAIMS {
        let current = role.owner.load(Ordering::Acquire);
        if let Some(owner) = Identity::from_bits(current)
            && !watch.is_gone(owner)
        {
            return Err(Error::Occupied { object: object.into(), role: name, pid: owner.pid() });
        }
        let own = watch.own().to_bits();
        // Acquire pairs with the Release of `give_up`: its progress is seen. What a killed process wrote is seen as well,
        // since the kernel reported its end.
        if role.owner.compare_exchange(current, own, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            let generation = Status::load(role).generation().wrapping_add(1) & (u64::MAX >> 1);
            role.status.store(generation << 1, Ordering::SeqCst);
            return Ok(generation);
        }
    }
    let detail = format!("its {name} changes all the time");
    Err(Error::Corrupt { object: object.into(), detail })
}

/// Fails in a child made by fork, which has a copy of what its parent, `own`, has attached: two processes cannot be one side.
#[inline]
pub(super) fn check_own(own: Identity, object: &str) -> Result<()> {
    if own.pid() == own_id() { Ok(()) } else { Err(forked(object)) }
}

#[cold]
fn forked(object: &str) -> Error {
    let reason = "this side of it belongs to the process that forked this one: attach anew".into();
    Error::Invalid { object: object.into(), reason }
}

/// Closes a role. The caller wakes the other side.
pub(super) fn give_up(role: &Role, generation: u64, own: Identity) {
    // A child made by fork drops its copies too, but never took the role.
    if !own.is_current() {
        return;
    }
    role.status.store(generation << 1 | Status::CLOSED, Ordering::SeqCst);
    let _ = role.owner.compare_exchange(own.to_bits(), 0, Ordering::Release, Ordering::Relaxed);
}

/// The process that has a role and has exited.
pub(super) fn gone_owner(role: &Role, watch: &mut Watch) -> Option<Identity> {
    Identity::from_bits(role.owner.load(Ordering::Acquire)).filter(|owner| watch.is_gone(*owner))
}
