//! The region by which the two sides agree.
//!
//! The word `turn` holds a phase in its lowest 3 bits, and above them the number of the message.
//!
//! Pulling:
//!
//! | Phase | Meaning | Next |
//! |---|---|---|
//! | IDLE | no message | the sender writes `address` and `bytes`, then PUBLISHED with the next number |
//! | PUBLISHED | the message lies there, the sender waits, the receiver may be copying | DONE or REFUSED by the receiver; IDLE by the sender, which revokes it, and the receiver throws away what it read |
//! | DONE | the receiver has its copy | IDLE by the sender, which so takes note |
//! | REFUSED | there is none: `answer` says why | IDLE by the sender |
//!
//! Pushing:
//!
//! | Phase | Meaning | Next |
//! |---|---|---|
//! | CLOSED | there is no window | IDLE by the receiver, with `window` |
//! | IDLE | the window is free, or the sender writes | WRITTEN or REQUESTED by the sender; CLOSED by the receiver |
//! | REQUESTED | the sender needs a window of `bytes` | IDLE by the receiver with a larger one, or REFUSED; IDLE by the sender, which gives up |
//! | WRITTEN | a message of `bytes` is in the window | IDLE by the receiver, when its reader is done with it |
//! | REFUSED | `answer` says why | IDLE by the sender |
//!
//! While the sender writes, `writing` holds the IDLE turn of the window, else 0. It stands on a line of its own, so that the
//! receiver, which looks at `turn` again and again, does not slow the sender down. The sender first sets it and then looks
//! whether the window is still free; a receiver that closes the window first changes `turn` and then looks at `writing`. All
//! four are SeqCst, so one of them sees the other: the sender does not begin, or the receiver retires the window.
//!
//! Where either side could change `turn` the change is a compare-and-swap, since the other may give up at any time, and a
//! successor of a side finds what it left. The other words are valid while `turn` says so, and belong to the number that it has.
//!
//! # Safety
//!
//! A [`Control`] is atomics alone, for which any value that a peer writes is valid. [`Link`] keeps its region mapped and has
//! checked that it is writable and long enough.
#![expect(unsafe_code, reason = "sees the head of a region as a structure of atomics")]

#[cfg(not(loom))]
use std::mem::offset_of;
use std::sync::Arc;

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::memory::Region;
use crate::memory::role::Roles;
use crate::memory::wait::Sleepers;
use crate::{Error, Result};

/// The region that two sides need to agree, in bytes.
pub const CONTROL_BYTES: usize = 4096;

#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Control {
    /// The magic number of the [`Kind`]; 0 in a new region, where 0 is the right begin for all other words too.
    magic: AtomicU64,
    pub(super) roles: Roles,
    pub(super) mail: Mail,
    pub(super) window: Window,
    pub(super) sleepers: Sleepers,
    pub(super) writing: Writing,
}

#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Mail {
    pub(super) turn: AtomicU64,
    pub(super) address: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) answer: AtomicU64,
    /// The process in which the address is: not whoever has the role, which may be a successor by now.
    pub(super) owner: AtomicU64,
}

/// Where a receiver lets messages be written.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Window {
    pub(super) address: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Drawn at random, and also the first words of the window.
    pub(super) nonce: [AtomicU64; 2],
    /// The process in which the address is.
    pub(super) owner: AtomicU64,
}

/// The window that the sender writes to.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Writing(AtomicU64);

impl Writing {
    /// The sender is about to write to the window of `idle`; false when that is not free any more.
    pub(super) fn begin(control: &Control, idle: Turn) -> bool {
        control.writing.0.store(idle.0, Ordering::SeqCst);
        let free = Turn::load(control) == idle;
        if !free {
            Self::end(control);
        }
        free
    }

    /// The sender does not write any more, or has exited.
    pub(super) fn end(control: &Control) {
        // Release: who sees it sees that the writing is over.
        control.writing.0.store(0, Ordering::Release);
    }

    /// Whether the sender may be writing to the window of `idle`. The caller has changed the turn.
    pub(super) fn is_to(control: &Control, idle: Turn) -> bool {
        control.writing.0.load(Ordering::SeqCst) == idle.0
    }
}

#[cfg(not(loom))]
impl Control {
    /// Where the magic number stands.
    pub(super) const MAGIC_OFFSET: usize = offset_of!(Control, magic);
}

#[cfg(not(loom))]
const _: () = {
    assert!(offset_of!(Control, roles) == 128 && offset_of!(Control, mail) == 256);
    assert!(offset_of!(Control, window) == 384 && offset_of!(Control, sleepers) == 512);
    assert!(offset_of!(Control, writing) == 640);
    assert!(size_of::<Control>() == 768 && size_of::<Control>() <= CONTROL_BYTES);
    assert!(offset_of!(Mail, address) == 8 && offset_of!(Mail, bytes) == 16 && offset_of!(Mail, answer) == 24);
    assert!(offset_of!(Mail, owner) == 32 && offset_of!(Window, owner) == 32);
    assert!(offset_of!(Window, bytes) == 8 && offset_of!(Window, nonce) == 16);
};

/// What a region carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pull,
    Push,
}

const VERSION: u64 = 2;

impl Kind {
    /// The last two bytes are the version of the layout.
    pub(super) fn magic(self) -> u64 {
        let name = match self {
            Self::Pull => b"onePul\0\0",
            Self::Push => b"onePsh\0\0",
        };
        u64::from_le_bytes(*name) | VERSION << 48
    }
}

/// A value of `turn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn(u64);

/// What is to be done, and by whom. A new region is zeros: nobody has anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Phase {
    /// For pulling the same as IDLE.
    Closed = 0,
    Idle = 1,
    /// PUBLISHED or REQUESTED.
    Asked = 2,
    /// DONE or WRITTEN.
    Done = 3,
    Refused = 4,
}

impl Turn {
    pub(super) fn load(control: &Control) -> Self {
        // SeqCst: a side about to sleep loads it after announcing itself, see `wait`. It also orders the words that were
        // stored before it.
        Self(control.mail.turn.load(Ordering::SeqCst))
    }

    /// The phase; `None` is nothing that this library writes.
    pub(super) fn phase(self) -> Option<Phase> {
        use Phase::{Asked, Closed, Done, Idle, Refused};
        [Closed, Idle, Asked, Done, Refused].into_iter().find(|phase| *phase as u64 == self.0 & 7)
    }

    pub(super) fn is(self, phase: Phase) -> bool {
        self.phase() == Some(phase)
    }

    /// The same message in another phase.
    pub(super) fn with(self, phase: Phase) -> Self {
        Self(self.0 & !7 | phase as u64)
    }

    /// The next message in `phase`.
    pub(super) fn next(self, phase: Phase) -> Self {
        Self((self.0 & !7).wrapping_add(8) | phase as u64)
    }

    /// Sets `turn` to this value. Only for the side that alone may change it now.
    pub(super) fn store(self, control: &Control) {
        control.mail.turn.store(self.0, Ordering::SeqCst);
    }

    /// As [`Turn::store`], where nobody sleeps until it has changed.
    pub(super) fn store_quietly(self, control: &Control) {
        control.mail.turn.store(self.0, Ordering::Release);
    }

    /// Sets `turn` to another phase of this message, whatever it is now, and returns what it was.
    pub(super) fn replace(self, control: &Control, phase: Phase) -> Self {
        Self(control.mail.turn.swap(self.with(phase).0, Ordering::SeqCst))
    }

    /// Changes `turn` from this value to another, unless it has changed meanwhile.
    pub(super) fn change(self, control: &Control, to: Self) -> bool {
        // SeqCst: publishes what was stored before it, and orders it before the look at the sleepers, see `wait`.
        control.mail.turn.compare_exchange(self.0, to.0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// A region that carries messages by cross-memory attach.
#[derive(Clone, Debug)]
pub(super) struct Link(Arc<Region>);

impl Link {
    pub(super) fn open(region: Arc<Region>, kind: Kind) -> Result<Self> {
        let object = || region.object().to_owned();
        region.check_writable()?;
        if region.len() < CONTROL_BYTES {
            let reason = format!("messages need {CONTROL_BYTES} bytes to agree by, the region has {}", region.len());
            return Err(Error::Invalid { object: object(), reason });
        }
        let mut content = [0; size_of::<Control>()];
        // The region's own copy is an error where the object has become shorter than what is mapped of it.
        region.read_at(0, &mut content)?;
        fence(Ordering::Acquire);
        let link = Self(Arc::clone(&region));
        let magic = &link.control().magic;
        match magic.load(Ordering::Acquire) {
            0 if content != [0; size_of::<Control>()] => {}
            0 => {
                let found = magic.compare_exchange(0, kind.magic(), Ordering::AcqRel, Ordering::Acquire);
                if found.is_ok() || found == Err(kind.magic()) {
                    return Ok(link);
                }
            }
            found if found == kind.magic() => return Ok(link),
            _ => {}
        }
        let found = magic.load(Ordering::Relaxed).to_le_bytes();
        let detail =
            format!("it begins with the bytes {found:02x?}, where {:02x?} are needed", kind.magic().to_le_bytes());
        Err(Error::Corrupt { object: object(), detail })
    }

    pub(super) fn object(&self) -> &str {
        self.0.object()
    }

    #[cfg(test)]
    pub(super) fn region(&self) -> Arc<Region> {
        Arc::clone(&self.0)
    }

    pub(super) fn control(&self) -> &Control {
        // SAFETY: `open` has checked that the region is writable and longer than this; a mapping begins at a page, so it is
        // aligned; atomics tolerate what peers write; the reference lives no longer than `self`, which keeps the mapping.
        unsafe { self.0.base().cast::<Control>().as_ref() }
    }
}
