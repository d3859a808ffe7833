//! Messages by cross-memory attach: one copy, made by the kernel, from the memory of the sender into that of the receiver.
//!
//! | Row | Sender | Receiver | Who copies |
//! |---|---|---|---|
//! | 16 | [`PullSender`] | [`PullReceiver`] | the receiver, with process_vm_readv(2), straight into its caller's buffer |
//! | 17 | [`PushSender`] | [`PushReceiver`] | the sender, with process_vm_writev(2), into a window that the receiver's library owns |
//!
//! The two sides agree through a small region of shared memory, of any of rows 12 to 15, of at least [`CONTROL_BYTES`]: who they
//! are, where the bytes lie, and whose turn it is. The bytes themselves never pass through it.
//!
//! Who copies needs the permission to attach to the other process, as a debugger does: usually the same user. The error of a
//! refusal says what is needed. Both have to be in the same pid namespace, since they know each other by number.
//!
//! Sender and receiver may attach to the region in any order, and each place can be taken over when its process has exited. A
//! waiting side looks at the other's process every 50 ms. The end of a sender that was dropped is `None`, that of one that was
//! killed is [`Error::PeerGone`], both until another sender attaches. They are told to one receiver: one that attaches later
//! waits for the next sender. To a sender that waits, the end of its receiver is [`Error::PeerGone`] until another attaches;
//! a receiver that had gone before the sender attached is none yet, and waited for.
//!
//! In a child made by fork its parent's sides send and receive nothing, [`Error::Invalid`]: the other side knows the memory of the
//! parent.
//!
//! # Trust
//!
//! Each side, by having the permission to attach, could read or write anything in the other anyway. Beyond that, who can write
//! the region is trusted not to point a side at a process that it means harm to: a receiver that pulls may be made to read
//! another process of its user's, into its own buffer. A sender that pushes writes only where it found the window's number,
//! which the receiver drew at random, at the begin of the window; that keeps accidents away, and not somebody who writes another
//! number into the region. It looks for the number once: a receiver must not execute another program while it has its place.
//!
//! Who may write the object behind the region is trusted not to shorten it (`shm:` and `mmap:`; the others cannot be
//! shortened): an access to memory that is gone is a SIGBUS, which ends the process.

#[cfg(not(loom))]
mod contents;
mod control;
#[cfg(loom)]
mod model;
mod pull;
mod push;
mod side;
mod window;

#[cfg(not(loom))]
pub(crate) use contents::contents;
pub use control::CONTROL_BYTES;
pub use pull::{PullReceiver, PullSender};
pub use push::{PushReceiver, PushSender};

/// The longest message that a receiver takes unless it is told otherwise, in bytes.
pub const DEFAULT_LIMIT_BYTES: usize = 1 << 30;

#[cfg(doc)]
use crate::Error;
