//! Telling a side that waits for a descriptor, and not for a word: by a byte through a socket.

use std::sync::Arc;

use rustix::net::{SendFlags, send};

use crate::io::socket::Socket;

/// Reaches the other side's pollers.
#[derive(Clone, Debug)]
pub(crate) struct Bell {
    socket: Arc<Socket>,
    /// Tells the other side which of its halves is meant.
    tone: u8,
}

impl Bell {
    pub(crate) fn new(socket: Arc<Socket>, tone: u8) -> Self {
        Self { socket, tone }
    }

    #[cold]
    pub(super) fn ring(&self) {
        // A socket that is full is readable on the other side, and one that has hung up has nobody there.
        let _ = send(&*self.socket, &[self.tone], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}
