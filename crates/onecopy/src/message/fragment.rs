//! Messages of any size over any mechanism that keep message boundaries and has a longest message.
//!
//! A message travels as one or more fragments: a header of [`HEADER_BYTES`] bytes, then a part of the message. The header
//! says whose message it is (a random number, the process), which one, and where in it the fragment belongs. So several
//! senders can share a queue without mixing their messages, and a loss, as datagrams over a network have, is named and
//! never papered over. One receiver at a time: the kernel gives each fragment to one of them.
//!
//! A queue tells nobody that the other side died. A receiver in the middle of a message looks now and then whether the
//! sending process still lives; a sender can be given a [watch](FragmentSender::with_watch) over its receiver.

mod aside;
mod header;
mod parts;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;
mod watched;

use std::time::Duration;

pub use header::HEADER_BYTES;
pub use receiver::{DEFAULT_LIMIT_BYTES, FragmentReceiver};
pub use sender::FragmentSender;

pub use crate::stream::framed::Part;

/// How long either side waits before it looks whether the other one still lives.
const LOOK_EVERY: Duration = Duration::from_millis(200);
