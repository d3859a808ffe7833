//! Thin wrappers for the system calls that neither rustix nor nix covers: one unsafe call, `errno` to error, nothing else.

pub(crate) mod sigpipe;
