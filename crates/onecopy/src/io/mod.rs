//! Descriptors with deadlines: what streams and messages share below their own semantics.

pub(crate) mod descriptor;
pub(crate) mod directory_lock;
pub(crate) mod inet;
pub(crate) mod inet_connect;
pub(crate) mod mode;
pub(crate) mod published_link;
pub(crate) mod socket;
pub(crate) mod unix_name;
pub(crate) mod wait;
