//! This program once more, as another process with a part of its own.

use std::io;
use std::path::Path;
use std::process::Command;

/// This program, even when its file was replaced or removed since it started.
const SELF: &str = "/proc/self/exe";

/// How to start it.
///
/// # Errors
///
/// /proc is missing, which would look like another missing file when the process is started.
pub(crate) fn command() -> io::Result<Command> {
    if Path::new(SELF).symlink_metadata().is_err() {
        return Err(io::Error::other("onecopy needs /proc, which is not mounted here (mount -t proc proc /proc)"));
    }
    Ok(Command::new(SELF))
}
