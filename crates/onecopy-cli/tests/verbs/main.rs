//! The verbs that move data, as a user runs them.

#[path = "../support/mod.rs"]
mod support;

mod channel;
mod channel_file;
mod death;
mod expose;
mod expose_refused;
mod files;
mod lock;
mod ls;
mod mechanisms;
mod memory;
mod namespaces;
mod objects;
mod permissions;
mod pipe_safety;
mod pipe_senders;
mod round_trip;
mod soak;
mod stale;
mod sync;
mod usage;
mod waiting;
mod whole_file;
