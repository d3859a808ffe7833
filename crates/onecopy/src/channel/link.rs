//! What both halves of one side of a channel share.

use std::sync::Arc;

use super::Peer;
use super::desk::{DESKS_BYTES, Desks};
use super::landing::Sites;
use super::liveness::{Lifeline, PeerProcess, WORDS_BYTES};
use super::polling::{Half, Polling};
use super::registered::Slots;
use super::rendezvous::Memory;
use super::seccomp::Seccomp;
use super::stats::Counters;
use crate::memory::Region;
use crate::memory::anonymous::AnonymousMapping;
use crate::memory::nonce::Nonce;
use crate::memory::ring::{BULK_OFFSET, RING_BYTES, lay_out_ring};
use crate::memory::wait::{is_asleep, wake};
use crate::{Error, Result};

/// One side of a channel.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) desks: Desks,
    pub(super) peer: Arc<PeerProcess>,
    pub(super) _lifeline: Option<Lifeline>,
    /// Stands in this process's memory while the channel is open: the other side reads it with each message.
    pub(super) nonce: Nonce,
    /// Whether cross-memory attach may be tried at all, or why not.
    pub(super) attach: Result<(), String>,
    /// The same for writing: a filter may forbid that alone.
    pub(super) write: bool,
    /// Whether the other side is believed when it says where its memory is, and that it has written into a buffer of this one: it is of the
    /// same user. From another one that lied the buffer would come with what it held before, perhaps a message of somebody else.
    pub(super) trusted: bool,
    /// Whether the other side may write what this one registers: it is trusted, and the policies of both let each attach to the other.
    pub(super) is_open: bool,
    /// The places for what this side registers.
    pub(super) buffers: Arc<Slots>,
    /// Where what it receives lands.
    pub(super) sites: Arc<Sites>,
    pub(super) object: String,
    pub(super) identity: Peer,
    /// Hangs up at the other side when this one is dropped.
    pub(super) polling: Polling,
    pub(super) counters: Counters,
}

impl Link {
    /// Fails in a child made by fork, which has a copy of its parent's channel: two processes cannot be one side.
    #[inline]
    pub(super) fn check_owner(&self) -> Result<()> {
        if self.is_owner() { Ok(()) } else { Err(self.forked()) }
    }

    /// Whether this process opened the channel.
    #[inline]
    pub(super) fn is_owner(&self) -> bool {
        self.nonce.is_intact()
    }

    #[cold]
    fn forked(&self) -> Error {
        let reason = "this is a copy of the parent's channel, made by fork: connect anew".into();
        Error::Unsupported { object: self.object.clone(), reason }
    }

    /// Whether this thread may call process_vm_readv and process_vm_writev; `seccomp` is of its half.
    pub(super) fn may_attach(&self, seccomp: &mut Seccomp) -> bool {
        let why = match &self.attach {
            Ok(()) if !seccomp.has_come() => return true,
            Ok(()) => "a seccomp filter was installed after the channel had been opened",
            Err(why) => why,
        };
        self.counters.note_fallback(why, 1);
        false
    }

    /// Wakes a sender of the other side that waits at its desk.
    #[inline]
    pub(super) fn wake_sender(&self) {
        let word = &self.desks.incoming().sleepers.sender;
        if is_asleep(word) {
            wake(word, Some(&self.polling.bell(Half::Sender)));
        }
    }

    #[cold]
    pub(super) fn gone(&self, detail: impl Into<String>) -> Error {
        Error::PeerGone { object: self.object.clone(), detail: detail.into() }
    }
}

/// The parts of the memory of a connection: a ring for each direction, then the desks and the words by which a death shows.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) to_listener: Region,
    pub(super) to_connector: Region,
    pub(super) desks: Arc<Region>,
}

/// The length of a ring, in whole pages of this machine.
fn ring_bytes() -> usize {
    RING_BYTES.next_multiple_of(rustix::param::page_size())
}

/// How much memory a connection shares.
fn memory_bytes() -> usize {
    2 * ring_bytes() + (DESKS_BYTES + WORDS_BYTES).next_multiple_of(rustix::param::page_size())
}

/// The memory of a connection, in which the rings are laid out before the other side has it: nobody waits for that.
pub(super) fn memory() -> Memory {
    Memory { bytes: memory_bytes(), prepare: lay_out }
}

fn lay_out(memory: &AnonymousMapping) -> Result<()> {
    let (to_listener, rest) = memory.map_again()?.split(ring_bytes());
    let (to_connector, _) = rest.split(ring_bytes());
    [to_listener, to_connector].into_iter().try_for_each(|ring| {
        ring.warm(0, BULK_OFFSET)?;
        lay_out_ring(ring)
    })
}

impl Parts {
    /// # Errors
    ///
    /// [`Error::Corrupt`] when the other side made it of another size; ENOMEM without room for more mappings.
    pub(super) fn of(region: Region) -> Result<Self> {
        if region.len() != memory_bytes() {
            let detail = format!("the other side shares {} bytes, {} are needed", region.len(), memory_bytes());
            return Err(Error::Corrupt { object: region.object().into(), detail });
        }
        let (to_listener, rest) = region.split(ring_bytes());
        let (to_connector, desks) = rest.split(ring_bytes());
        // Whatever a peer writes, nothing reaches beyond a part.
        let parts = Self {
            to_listener: to_listener.between_guards()?,
            to_connector: to_connector.between_guards()?,
            desks: Arc::new(desks.behind_private_page()?),
        };
        // Its sender takes the pages of the bulk of a ring when it needs them.
        parts.to_listener.warm(0, BULK_OFFSET)?;
        parts.to_connector.warm(0, BULK_OFFSET)?;
        parts.desks.warm(0, parts.desks.len())?;
        Ok(parts)
    }
}
