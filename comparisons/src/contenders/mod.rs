//! The libraries that are compared, one file each. README.md says why each is used as it is.

pub(crate) mod iceoryx2;
pub(crate) mod interprocess;
pub(crate) mod ipc_channel;
pub(crate) mod onecopy;
