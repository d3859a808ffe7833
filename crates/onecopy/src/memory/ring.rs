//! Messages through shared memory: a ring with one sender and one receiver, over any of rows 12 to 15.
//!
//! A message is copied into the region by its sender and out of it by its receiver, straight into the memory that the
//! receiver's caller brought. A long one goes through in pieces of [`PIECE_BYTES`], so that both copy at the same time and
//! what they copy is still in the cache; it may be longer than the region. No system call is made unless somebody sleeps.
//!
//! ```
//! use std::sync::Arc;
//! use onecopy::memory::{anonymous::AnonymousMapping, ring};
//! use onecopy::{Deadline, Receiver, Sender};
//!
//! let region = Arc::new(AnonymousMapping::create("jobs", ring::RING_BYTES)?.into_region());
//! let mut sender = ring::RingSender::attach(Arc::clone(&region), Deadline::Now)?;
//! let mut receiver = ring::RingReceiver::attach(region, Deadline::Now)?;
//! sender.send(b"through the ring")?;
//! drop(sender);
//! assert_eq!(receiver.recv()?.as_deref(), Some(&b"through the ring"[..]));
//! assert_eq!(receiver.recv()?, None);
//! # Ok::<(), onecopy::Error>(())
//! ```
//!
//! # Who comes and goes
//!
//! Sender and receiver may attach in any order, and one may be gone before the other comes: what a sender left in the ring
//! when it exited is received by whoever attaches next. Whoever attaches first to a region of zeros lays the ring out; if it
//! is killed while it does, the next one begins anew. A region that holds anything else is refused.
//!
//! | The sender | The receiver gets |
//! |---|---|
//! | is dropped | the messages that are in the ring, then `None`, until another sender attaches |
//! | is killed between two messages | the messages that are in the ring, then [`Error::PeerGone`], until another attaches |
//! | is killed inside of a message | once [`Error::PeerGone`], with how much of it came; the messages of the next sender arrive whole |
//!
//! The end of a sender is told to one receiver: one that attaches after that, or when an earlier one has taken everything that a
//! sender had sent which is gone, waits for the next sender.
//!
//! | The receiver | The sender gets |
//! |---|---|
//! | was never there, or had gone before the sender attached | success while there is room, then it waits for one |
//! | is dropped or killed | success while there is room, then [`Error::PeerGone`] until another receiver attaches |
//!
//! A message whose begin was taken by a receiver that is gone is lost; the next receiver is told, once. A receiver that is
//! killed between taking a message and saying so leaves it to the next one, which gets it again.
//!
//! A waiting side looks at the other one's process every 50 ms. Of a process in another pid namespace it cannot know whether it
//! lives, and takes it for living: its death shows as a timeout, and its place in the ring stays taken.
//!
//! In a child made by fork its parent's ends send and receive nothing, [`Error::Invalid`]: both would be the same side of the ring.
//!
//! # Trust
//!
//! Both sides can write anything anywhere in the region at any time. Whatever a peer writes, this side returns an error or
//! bytes of the peer's choosing as message content: every word is loaded once and checked, nothing is allocated by the peer's
//! word but up to [`RingReceiver::set_limit_bytes`], nothing loops without a deadline because of it. A peer can keep this side
//! from making progress, as it can by saying nothing.
//!
//! Who may write the object behind the region is trusted not to shorten it (`shm:` and `mmap:`; the others cannot be
//! shortened): an access to memory that is gone is a SIGBUS, which ends the process. Before it attaches, a side checks that the
//! object is as long as the region.

mod bare;
#[cfg(not(loom))]
mod contents;
mod create;
mod layout;
#[cfg(loom)]
mod model;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

#[cfg(not(loom))]
pub(crate) use contents::contents;
pub(crate) use create::lay_out_ring;
pub(crate) use layout::{BULK_OFFSET, INLINE_BYTES, INLINE_MESSAGE_BYTES};
pub use layout::{MIN_RING_BYTES, PIECE_BYTES, RING_BYTES};
#[cfg(loom)]
pub(crate) use model::pair;
pub(crate) use receiver::{Arrival, Begun};
pub use receiver::{DEFAULT_LIMIT_BYTES, RingReceiver};
pub use sender::RingSender;

#[cfg(doc)]
use crate::Error;
