//! The channel by address.

use super::OpenOptions;
use crate::channel::{ChannelName, Policy};
use crate::{Address, Channel, Deadline, Listener, Receiver, Result, Sender};

/// A channel with a process of the same user: accepted by the side that listens, which takes one and listens no longer.
///
/// # Errors
///
/// Those of [`Channel::connect_by`], [`Listener::bind_with`] and [`Listener::accept_by`].
pub fn channel(name: &ChannelName, options: &OpenOptions) -> Result<Channel> {
    let policy = Policy::default();
    if !options.listen {
        return Channel::connect_by(name, &policy, options.deadline);
    }
    let listener = Listener::bind_with(name, &policy)?;
    (options.on_listening)(&Address::Channel(name.clone()));
    listener.accept_by(options.deadline)
}

/// A channel of which one direction is used. The other one stays open, so that the other side can wait for the end of this one.
pub(super) struct Whole(pub(super) Channel);

impl Sender for Whole {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.0.sender().send_by(message, deadline)
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        self.0.sender().flush_by(deadline)
    }

    fn object(&self) -> &str {
        self.0.object()
    }
}

impl Receiver for Whole {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.0.receiver().recv_into_by(buffer, deadline)
    }

    fn object(&self) -> &str {
        self.0.object()
    }
}
