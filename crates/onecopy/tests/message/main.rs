//! The mechanisms that keep message boundaries, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod fragment;
mod posix_mq;
mod sctp;
mod sysv_mq;
mod udp;
mod unix_dgram;
mod unix_names;
mod unix_seqpacket;
