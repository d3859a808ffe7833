//! A number that nobody else has.

use rustix::rand::{GetRandomFlags, getrandom};

/// A number that no other sender has. Should the kernel have no random numbers yet, the clock and the process must do.
pub(crate) fn number() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40
        }
    }
}
