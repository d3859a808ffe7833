//! Whether a queue still has a receiver.

use super::PosixQueue;
use crate::{Error, Result};

/// A watch for [`FragmentSender::with_watch`](crate::message::fragment::FragmentSender::with_watch): when there was a receiver that
/// [announced](PosixQueue::announce_receiver) itself, and there is none any more, it fails with [`Error::PeerGone`]. As long
/// as there was none, senders wait.
pub fn receiver_watch() -> impl FnMut(&mut PosixQueue) -> Result<()> + Send + use<> {
    let mut was_there = false;
    move |queue| {
        let is_there = queue.has_receiver()?;
        if was_there && !is_there {
            let detail = "the process that received is gone, or has closed the queue".into();
            return Err(Error::PeerGone { object: queue.object.clone(), detail });
        }
        was_there |= is_there;
        Ok(())
    }
}
