//! Every Linux inter-process communication mechanism in one library.
//!
//! Each mechanism keeps its real semantics on a type of its own, in a module named after it: [`stream`] for byte
//! streams, [`message`] for mechanisms that keep message boundaries, [`memory`] for shared memory and cross-memory
//! attach; [`sync`] for locks and what wakes, [`signal`] for signals. What they have in common stands in two traits, [`Sender`] and [`Receiver`], so that a program can change its
//! mechanism by changing an [`Address`].
//!
//! ```
//! use onecopy::stream::{framed::{FramedReceiver, FramedSender}, pipe};
//! use onecopy::{Receiver, Sender};
//!
//! let (reader, writer) = pipe::pair()?;
//! let mut sender = FramedSender::new(writer);
//! let mut receiver = FramedReceiver::new(reader);
//! sender.send(b"one message")?;
//! assert_eq!(receiver.recv()?.as_deref(), Some(&b"one message"[..]));
//! # Ok::<(), onecopy::Error>(())
//! ```

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("onecopy needs 64-bit Linux");

pub mod address;
mod atomic;
pub mod channel;
#[cfg(not(loom))]
pub mod contents;
mod deadline;
mod error;
mod io;
pub mod limits;
pub mod mechanism;
pub mod memory;
pub mod message;
pub mod open;
mod process;
pub mod signal;
mod stash;
pub mod stream;
mod suggest;
pub mod sync;
mod sys;
mod tally;
mod transport;
mod wait_strategy;

pub use address::{Address, HostPort, ParseAddressError, PosixName, SysvName, UnixName};
pub use channel::{Channel, Listener};
pub use deadline::Deadline;
pub use error::{Error, Result};
pub use mechanism::Mechanism;
pub use tally::Tally;
pub use transport::{Receiver, Sender};
pub use wait_strategy::WaitStrategy;

/// The examples of the README run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
