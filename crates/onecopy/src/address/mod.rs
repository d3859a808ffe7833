//! The address of any IPC object.

mod host;
mod name;
mod parse;
mod percent;
mod sysv;

pub use host::HostPort;
pub use name::{ChannelName, FilePath, PosixName, UnixName};
pub use parse::ParseAddressError;
pub use sysv::SysvName;
