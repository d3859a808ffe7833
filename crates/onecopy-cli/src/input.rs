//! Where a verb takes its data from: stdin, or a file.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use onecopy::Deadline;
use onecopy::stream::fifo;

use crate::failure::{Failure, plain};
use crate::io::{CHUNK_BYTES, copy_of, is_fifo, read_full, read_some, resize};
use crate::standard;

/// The input of a verb.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    name: String,
    deadline: Deadline,
    /// How long a regular file was at first.
    first_len: u64,
    /// What was read beyond the last line, from `start` on.
    ahead: Vec<u8>,
    start: usize,
}

impl Input {
    /// The file at `path`, or stdin, which `-` is too. What comes from there, and who opens a FIFO, is waited for until `deadline`.
    pub(crate) fn open(path: Option<&Path>, deadline: Deadline) -> Result<Self, Failure> {
        let path = path.filter(|path| path.as_os_str() != "-");
        let name = path.map_or_else(|| "stdin".to_owned(), |path| path.display().to_string());
        let file = match path {
            None if standard::lacks_stdin() => return Err(Failure::failed("cannot read stdin: it is closed")),
            None => copy_of(std::io::stdin()),
            Some(path) if deadline != Deadline::Never && is_fifo(path) => copy_of(fifo::open_reader(path, deadline)?),
            Some(path) => File::open(path),
        };
        let file = file.map_err(|error| Failure::failed(format!("cannot open {name}: {}", plain(&error))))?;
        let is_directory = file.metadata().is_ok_and(|data| data.is_dir());
        if is_directory {
            return Err(Failure::failed(format!("cannot read {name}: it is a directory")));
        }
        let first_len = file_len(&file);
        Ok(Self { file, name, deadline, first_len, ahead: Vec::new(), start: 0 })
    }

    /// How many bytes come, where that is known: a regular file has a length.
    pub(crate) fn len(&self) -> Option<u64> {
        let data = self.file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let place = (&self.file).stream_position().ok()?;
        // Files of /proc say that they have no bytes, and have some.
        Some(data.len().saturating_sub(place)).filter(|len| *len > 0)
    }

    /// The descriptor of a regular file, and where in it this side is.
    pub(crate) fn place(&self) -> Option<(u64, u64)> {
        self.len()?;
        Some((self.file.as_raw_fd().try_into().ok()?, (&self.file).stream_position().ok()?))
    }

    /// Goes on at `place` of a regular file.
    pub(crate) fn go_to(&mut self, place: u64) -> Result<(), Failure> {
        self.file.seek(SeekFrom::Start(place)).map(drop).map_err(|error| self.failed(&error))
    }

    /// Whether somebody types it.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::IsTerminal::is_terminal(&self.file)
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads what is there; 0 is the end, and no end is where somebody has shortened the file meanwhile.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let count = read_some(&self.file, buffer, self.deadline).map_err(|error| self.failed(&error))?;
        self.check_end(count == 0)?;
        Ok(count)
    }

    /// Reads until `buffer` is full; a short count is the end, as of [`Input::read_some`].
    pub(crate) fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let count = read_full(&self.file, buffer, self.deadline).map_err(|error| self.failed(&error))?;
        self.check_end(count < buffer.len())?;
        Ok(count)
    }

    /// Fails when this is the end since somebody has shortened the file.
    fn check_end(&self, is_end: bool) -> Result<(), Failure> {
        let (first, now) = (self.first_len, if is_end { file_len(&self.file) } else { u64::MAX });
        if now >= first {
            return Ok(());
        }
        Err(Failure::failed(format!("{} was shortened from {first} to {now} bytes while it was read", self.name)))
    }

    /// All of it, which may be at most `limit` bytes long; `None` when it is longer.
    pub(crate) fn read_all(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
        let expected =
            self.len().map_or(CHUNK_BYTES, |len| usize::try_from(len).unwrap_or(usize::MAX).saturating_add(1));
        let mut all = Vec::new();
        self.extend(&mut all, expected.min(limit.saturating_add(1)))?;
        let mut filled = 0;
        loop {
            filled += self.read_full(&mut all[filled..])?;
            if filled > limit {
                return Ok(None);
            }
            if filled < all.len() {
                all.truncate(filled);
                return Ok(Some(all));
            }
            let more = all.len().saturating_mul(2).min(limit.saturating_add(1));
            self.extend(&mut all, more)?;
        }
    }

    /// Makes room for `len` bytes, if there is memory for them: a limit of this process (ulimit -v) may be below the caller's.
    fn extend(&self, all: &mut Vec<u8>, len: usize) -> Result<(), Failure> {
        let read = all.len();
        resize(all, len).map_err(|limit| {
            Failure::failed(format!(
                "cannot read {}: no memory for {len} bytes, of which {read} are read; {limit}",
                self.name
            ))
        })
    }

    /// The next line without its end, at most `limit` bytes long: `None` is the end of the input. A last line without an end
    /// counts.
    pub(crate) fn read_line(&mut self, limit: usize) -> Result<Option<&[u8]>, Failure> {
        let mut searched = self.start;
        loop {
            if let Some(length) = self.ahead[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.start..searched + length;
                self.start = line.end + 1;
                return if line.len() > limit { Err(self.long_line(limit)) } else { Ok(Some(&self.ahead[line])) };
            }
            if self.ahead.len() - self.start > limit {
                return Err(self.long_line(limit));
            }
            searched = self.ahead.len() - self.start;
            if self.read_ahead()? == 0 {
                self.start = self.ahead.len();
                return Ok((!self.ahead.is_empty()).then_some(&self.ahead));
            }
        }
    }

    /// Reads more behind what is there, which moves to the front.
    fn read_ahead(&mut self) -> Result<usize, Failure> {
        self.ahead.drain(..self.start);
        self.start = 0;
        let filled = self.ahead.len();
        let mut ahead = std::mem::take(&mut self.ahead);
        self.extend(&mut ahead, filled + CHUNK_BYTES)?;
        let count = self.read_some(&mut ahead[filled..]);
        ahead.truncate(filled + count.as_ref().unwrap_or(&0));
        self.ahead = ahead;
        count
    }

    fn long_line(&self, limit: usize) -> Failure {
        Failure::failed(format!("a line of {} is longer than the {limit} bytes of a message", self.name))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::TimedOut => Failure::TimedOut(format!("read of {} timed out", self.name)),
            _ => Failure::failed(format!("cannot read {}: {}", self.name, plain(error))),
        }
    }
}

/// The length of a regular file, and of anything else 0.
fn file_len(file: &File) -> u64 {
    file.metadata().ok().filter(std::fs::Metadata::is_file).map_or(0, |data| data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, text: &[u8]) -> Input {
        let path = std::env::temp_dir().join(format!("onecopy-input-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let input = Input::open(Some(&path), Deadline::Never).unwrap();
        std::fs::remove_file(&path).unwrap();
        input
    }

    #[test]
    fn lines_come_whole_however_they_lie_in_the_chunks() {
        let long = vec![b'x'; CHUNK_BYTES + 7];
        let text = [&b"\none\n"[..], &long, b"\n\nlast"].concat();
        let mut input = input("lines", &text);
        for line in [&b""[..], b"one", &long, b"", b"last"] {
            assert!(input.read_line(1 << 20).unwrap() == Some(line));
        }
        assert_eq!(input.read_line(1 << 20).unwrap(), None);
        assert_eq!(input.read_line(1 << 20).unwrap(), None);
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit() {
        let mut input = input("limit", b"1234\n12345\n");
        assert_eq!(input.read_line(4).unwrap(), Some(&b"1234"[..]));
        assert!(input.read_line(4).is_err());
    }

    #[test]
    fn all_of_it_within_the_limit() {
        let text = vec![b'x'; CHUNK_BYTES * 2 + 1];
        assert!(input("all", &text).read_all(text.len()).unwrap().as_ref() == Some(&text));
        assert!(input("more", &text).read_all(text.len() - 1).unwrap().is_none());
    }
}
