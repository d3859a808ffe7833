//! Mechanisms that keep message boundaries: what one call sent, one call receives.
//!
//! Every mechanism here implements [`Sender`](crate::Sender) and [`Receiver`](crate::Receiver) by itself, without framing.
//! Each has a longest message; a longer one is an [`Error::TooLong`](crate::Error::TooLong) that names the limit. [`fragment`]
//! carries messages of any size over any of them.

mod assembly;
pub mod fragment;
mod inbox;
pub mod posix_mq;
pub mod sctp;
pub mod sysv_mq;
pub mod udp;
pub mod unix_dgram;
mod unix_packet;
pub mod unix_seqpacket;
