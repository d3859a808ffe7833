//! Descriptors with deadlines: what streams and messages share below their own semantics.

pub(crate) mod descriptor;
pub(crate) mod socket;
pub(crate) mod wait;
