//! Whether several frames may share a write.
//!
//! A pipe of Linux is a ring of pages. A write whose length is a multiple of a page puts each of its pages into a slot of its own,
//! and the lock of the pipe is given up only between two of them, when there is no slot left: other writers' bytes come before or
//! behind a page, and what a signal or a full pipe leaves of the write ends with a page. POSIX promises none of that, so this
//! process asks its kernel once, with a pipe of its own; where the answer is another one, each frame is a write.

use std::sync::OnceLock;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::PIPE_BUF;

/// Whether the kernel puts frames of [`PIPE_BUF`] bytes that share a write into the pipe whole.
pub(super) fn are_kept_whole() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| rustix::param::page_size() == PIPE_BUF && ask().unwrap_or(false))
}

/// Into a pipe of two pages with one byte in it, a write of two pages must bring the first of them, whole and not begun behind
/// that byte.
fn ask() -> rustix::io::Result<bool> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    fcntl_setpipe_size(&writer, 2 * PIPE_BUF)?;
    rustix::io::write(&writer, &[1])?;
    let written = rustix::io::write(&writer, &[2; 2 * PIPE_BUF])?;
    let is_full = rustix::io::write(&writer, &[3; PIPE_BUF]) == Err(rustix::io::Errno::AGAIN);
    let mut bytes = [0; 2 * PIPE_BUF];
    let read = rustix::io::read(&reader, &mut bytes)?;
    Ok(written == PIPE_BUF && is_full && read == 1 + PIPE_BUF && bytes[0] == 1 && bytes[1..read] == [2; PIPE_BUF])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_as_linux_does() {
        assert_eq!(are_kept_whole(), rustix::param::page_size() == PIPE_BUF);
        assert_eq!(are_kept_whole(), ask().unwrap());
    }
}
