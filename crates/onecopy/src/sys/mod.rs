//! Thin wrappers for the system calls that neither rustix nor nix covers: one unsafe call, `errno` to error, nothing else.

pub(crate) mod inherited;
pub(crate) mod sigpipe;
pub(crate) mod socket_options;
#[allow(dead_code, reason = "the first System V mechanism follows")]
pub(crate) mod sysv;
