//! The permissions of what is created.

use rustix::fs::Mode;

use crate::{Error, Result};

/// `mode` as the kernel takes it, refused beyond the nine permission bits.
pub(crate) fn permissions(mode: u32, object: &str) -> Result<Mode> {
    if mode & !0o777 == 0 {
        return Ok(Mode::from_raw_mode(mode));
    }
    let reason = format!("mode {mode:o} has more than the nine permission bits (0 to 777)");
    Err(Error::Invalid { object: object.to_owned(), reason })
}
