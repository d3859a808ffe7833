//! The channel: messages of any size between two processes of one machine, as fast as the hardware.
//!
//! A channel is a connection in both directions that keeps messages whole and in order, each once. How a message goes is chosen
//! for each:
//!
//! | Message | Way | Copies |
//! |---|---|---|
//! | up to 104 bytes | inside of one or two cache lines of a ring in shared memory | 2, of these lines |
//! | up to [`DEFAULT_SINGLE_COPY_BYTES`] | through the ring in pieces, both sides at the same time | 2, in the cache |
//! | longer | the receiver reads it from the sender's memory, by cross-memory attach | 1 |
//! | from [`DEFAULT_COOPERATIVE_BYTES`] on, into a [`Message`] | both sides copy parts of it at the same time | 1, by two processors |
//!
//! Where the kernel refuses cross-memory attach, all messages go through the ring, and [`ChannelSender::stats`] says why.

mod copying;
mod desk;
mod link;
mod liveness;
mod message;
mod receiver;
mod sender;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use link::{Link, Parts};
use liveness::PeerProcess;

pub use message::Message;
pub use receiver::{ChannelReceiver, DEFAULT_COOPERATIVE_BYTES};
pub use sender::{ChannelSender, DEFAULT_SINGLE_COPY_BYTES};
pub use stats::{Count, Path, Stats};

use crate::memory::Region;
use crate::memory::nonce::Nonce;
use crate::memory::remote::RemoteProcess;
use crate::memory::ring::{RingReceiver, RingSender};
use crate::{Deadline, Receiver, Result, Sender, WaitStrategy};

/// One side of a connection.
#[derive(Debug)]
pub struct Channel {
    // Dropped in this order: what was sent is complete before the other side sees the end.
    sender: ChannelSender,
    receiver: ChannelReceiver,
}

impl Channel {
    /// This side of a connection over `region`, which both sides have mapped and the listener has made: all zeros.
    fn new(region: Region, is_listener: bool, peer: RemoteProcess, attach: bool, object: String) -> Result<Self> {
        let Parts { to_listener, to_connector, desks } = Parts::of(region)?;
        let (incoming, outgoing) = if is_listener { (to_listener, to_connector) } else { (to_connector, to_listener) };
        let sender = RingSender::attach(outgoing, Deadline::Never)?;
        let receiver = RingReceiver::attach(incoming, Deadline::Never)?;
        let link = Arc::new(Link {
            desks: desk::Desks::new(desks, is_listener),
            peer: PeerProcess::watch(peer)?,
            nonce: Nonce::draw()?,
            attach,
            object,
            counters: stats::Counters::default(),
        });
        let sender = ChannelSender::new(sender, Arc::clone(&link));
        Ok(Self { sender, receiver: ChannelReceiver::new(receiver, link) })
    }

    #[doc(hidden)]
    pub fn over(region: Region, is_listener: bool, pid: u32) -> Result<Self> {
        Self::new(region, is_listener, RemoteProcess::open(pid)?, true, "channel:test".into())
    }

    #[doc(hidden)]
    #[must_use]
    pub fn bytes() -> usize {
        link::memory_bytes()
    }

    /// The two halves, for two threads.
    #[must_use]
    pub fn split(self) -> (ChannelSender, ChannelReceiver) {
        (self.sender, self.receiver)
    }

    /// Sets how to wait for the other side.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.sender.set_wait_strategy(strategy);
        self.receiver.set_wait_strategy(strategy);
    }

    /// The sending half.
    pub fn sender(&mut self) -> &mut ChannelSender {
        &mut self.sender
    }

    /// The receiving half.
    pub fn receiver(&mut self) -> &mut ChannelReceiver {
        &mut self.receiver
    }

    /// Sends a message. When this returns the message no longer needs the caller's memory.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`].
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        self.sender.send_by(message, Deadline::Never)
    }

    /// Receives a message into warm memory of the library; `None` is the end: the other side has closed.
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::recv_by`].
    pub fn recv(&mut self) -> Result<Option<Message>> {
        self.receiver.recv_by(Deadline::Never)
    }

    /// Receives a message straight into `buffer`, and returns its length; `None` is the end.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`].
    pub fn recv_into(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.receiver.recv_into_by(buffer, Deadline::Never)
    }

    /// What went which way until now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sender.stats()
    }
}
