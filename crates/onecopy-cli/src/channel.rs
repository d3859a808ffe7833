//! What `send` and `recv` say to each other over a channel beside the data.
//!
//! A stream goes in messages of any length but 0, and an empty message is its end. Then the sender closes its half. The receiver
//! closes when it has done its part, to the last byte of its output, and the sender waits for that. A side that fails leaves the
//! channel open: the end of its process, which the other one is told of, is no end of the stream.
//!
//! The sender reads its input into memory that both sides have, and the receiver writes its output from there: these two system
//! calls make the only copies, at the same time. What of a file goes other ways, [`whole_file`](crate::whole_file) tells.

use std::mem::ManuallyDrop;

use onecopy::channel::{ChannelReceiver, ChannelSender};
use onecopy::{Channel, Deadline, Sender as _};

use crate::failure::Failure;

/// How much is sent at once, at most. With less, a side that shares its processor with others waits more often than it copies; with half
/// of it 2 GiB to /dev/null took 0.21 to 0.25 s, in turns with 0.14 to 0.23.
pub(crate) const MESSAGE_BYTES: usize = 512 << 10;
/// How much memory both sides have for that, short enough for the caches: all of it is used only where the receiver
/// falls behind.
pub(crate) const LENT_BYTES: usize = 8 * MESSAGE_BYTES;

/// Sends what `work` sends, and waits until the receiver has closed: then it has everything, and wants no more.
pub(crate) fn send(
    channel: Channel,
    deadline: Deadline,
    work: impl FnOnce(&mut ChannelSender, &mut ChannelReceiver) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (sender, receiver) = channel.split();
    let (mut sender, mut receiver) = (ManuallyDrop::new(sender), ManuallyDrop::new(receiver));
    work(&mut sender, &mut receiver)?;
    sender.flush_by(deadline)?;
    drop(ManuallyDrop::into_inner(sender));
    while receiver.recv_by(deadline)?.is_some() {}
    drop(ManuallyDrop::into_inner(receiver));
    Ok(())
}

/// Receives by `work`, after which the channel is closed if that succeeded.
pub(crate) fn receive(channel: Channel, work: impl FnOnce(&mut Channel) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut channel = ManuallyDrop::new(channel);
    work(&mut channel)?;
    drop(ManuallyDrop::into_inner(channel));
    Ok(())
}
