//! One write to a pipe with or without room, when nobody else writes.

use std::time::Duration;

use onecopy::stream::ByteReader as _;
use onecopy::stream::pipe::{self, PIPE_BUF, PipeReader, PipeWriter, Written};
use onecopy::{Deadline, Error};

use super::state::State;
use crate::failure::Failure;

/// How much room a pipe with some has: less than the long write of [`long_bytes`], so that a write that must not wait is cut.
const SOME_ROOM_BYTES: usize = 2 * PIPE_BUF;

/// What one write did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) bytes: usize,
    /// How many of them went; `None` is EAGAIN.
    pub(super) written: Option<usize>,
    /// Whether it waited for room.
    pub(super) waited: bool,
    /// By how much the pipe was fuller while it waited, or after EAGAIN.
    left_bytes: u64,
}

impl Probe {
    pub(super) fn is_as_promised(&self, state: State, full: bool) -> bool {
        match (full, state.is_nonblocking()) {
            (true, true) => self.written.is_none() && self.left_bytes == 0,
            (true, false) => self.waited && self.written == Some(self.bytes) && self.left_bytes == 0,
            (false, true) if state.is_long() => self.written.is_some_and(|written| (1..=self.bytes).contains(&written)),
            (false, _) => self.written == Some(self.bytes) && !self.waited,
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { bytes, written, waited, .. } = self;
        match written {
            None => format!("one write of {bytes} bytes: EAGAIN, nothing written"),
            Some(written) => {
                let waited = if *waited { "waited, then " } else { "" };
                format!("one write of {bytes} bytes: {waited}{written} written")
            }
        }
    }
}

/// Writes once in `state` to a pipe that is full, or has some room.
pub(super) fn run(state: State, full: bool) -> Result<Probe, Failure> {
    let (mut reader, mut writer) = pipe::pair()?;
    let capacity = writer.capacity_bytes()?;
    let bytes = if state.is_long() { PIPE_BUF * 4 } else { PIPE_BUF };
    let room = match (full, state) {
        (true, _) => 0,
        (false, State::LongNonblocking) => SOME_ROOM_BYTES.min(capacity),
        (false, _) => capacity,
    };
    // O_NONBLOCK would stay on the descriptor, and a write that may wait would go in part as soon as somebody reads.
    let deadline = if state.is_nonblocking() { Deadline::Now } else { Deadline::Never };
    fill(&mut writer, capacity - room, deadline)?;
    if !full && bytes > capacity && !state.is_nonblocking() {
        // A user with too many pipes gets some of a single page: there a long write always waits.
        writer.set_capacity_bytes(bytes)?;
    }
    let before = writer.available_bytes()?;
    if full && !state.is_nonblocking() {
        return waiting(&mut reader, writer, bytes, before);
    }
    let written = match writer.write_once_by(&vec![b'x'; bytes], deadline) {
        Ok(written) => Some(count(written, bytes)),
        Err(Error::WouldBlock { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let grown = writer.available_bytes()? - before;
    Ok(Probe { bytes, written, waited: false, left_bytes: grown - written.unwrap_or(0) as u64 })
}

/// A write that has to wait until somebody reads.
fn waiting(reader: &mut PipeReader, mut writer: PipeWriter, bytes: usize, before: u64) -> Result<Probe, Failure> {
    let write = std::thread::spawn(move || writer.write_once_by(&vec![b'x'; bytes], Deadline::Never));
    std::thread::sleep(Duration::from_millis(30));
    let waited = !write.is_finished();
    let left_bytes = reader.available_bytes()? - before;
    let mut rest = before as usize + bytes;
    let mut buffer = vec![0; PIPE_BUF];
    while rest > 0 {
        match reader.read_by(&mut buffer, Deadline::after(Duration::from_secs(10)))? {
            0 => break,
            count => rest -= count,
        }
    }
    let written = write.join().map_err(|_| Failure::failed("the thread of a write has failed"))??;
    Ok(Probe { bytes, written: Some(count(written, bytes)), waited, left_bytes })
}

/// Puts `bytes` bytes, whole pages, into the pipe.
fn fill(writer: &mut PipeWriter, bytes: usize, deadline: Deadline) -> Result<(), Failure> {
    for _ in 0..bytes / PIPE_BUF {
        writer.write_atomic_by(&[b'.'; PIPE_BUF], deadline)?;
    }
    Ok(())
}

fn count(written: Written, bytes: usize) -> usize {
    match written {
        Written::Whole => bytes,
        Written::Part { written_bytes, .. } => written_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_may_wait_goes_whole_however_fast_the_reader_is() {
        for _ in 0..20 {
            let probe = run(State::LongBlocking, true).unwrap();
            assert_eq!((probe.waited, probe.written), (true, Some(4 * PIPE_BUF)));
        }
    }
}
