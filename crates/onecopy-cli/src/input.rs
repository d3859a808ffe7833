//! Where a verb takes its data from: stdin, or a file.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::failure::{Failure, plain};
use crate::io::{CHUNK_BYTES, read_full, read_some};

/// The input of a verb.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    name: String,
    /// What was read beyond the line that was asked for.
    ahead: Vec<u8>,
}

impl Input {
    /// The file at `path`, or stdin.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let (file, name) = match path {
            Some(path) => (File::open(path), path.display().to_string()),
            None => (std::io::stdin().as_fd().try_clone_to_owned().map(File::from), "stdin".to_owned()),
        };
        let file = file.map_err(|error| Failure::failed(format!("cannot open {name}: {}", plain(&error))))?;
        let is_directory = file.metadata().is_ok_and(|data| data.is_dir());
        if is_directory {
            return Err(Failure::failed(format!("cannot read {name}: it is a directory")));
        }
        Ok(Self { file, name, ahead: Vec::new() })
    }

    /// How many bytes come, where that is known: a regular file has a length.
    pub(crate) fn len(&self) -> Option<u64> {
        use std::io::Seek as _;
        let data = self.file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let place = (&self.file).stream_position().ok()?;
        // Files of /proc say that they have no bytes, and have some.
        Some(data.len().saturating_sub(place)).filter(|len| *len > 0)
    }

    /// Whether somebody types it.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::IsTerminal::is_terminal(&self.file)
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads what is there; 0 is the end.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        read_some(&self.file, buffer).map_err(|error| self.failed(&error))
    }

    /// Reads until `buffer` is full; a short count is the end.
    pub(crate) fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        read_full(&self.file, buffer).map_err(|error| self.failed(&error))
    }

    /// All of it, which may be at most `limit` bytes long; `None` when it is longer.
    pub(crate) fn read_all(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
        let expected =
            self.len().map_or(CHUNK_BYTES, |len| usize::try_from(len).unwrap_or(usize::MAX).saturating_add(1));
        let mut all = vec![0; expected.min(limit.saturating_add(1))];
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
            all.resize(all.len().saturating_mul(2).min(limit.saturating_add(1)), 0);
        }
    }

    /// The next line without its end, at most `limit` bytes long: `None` is the end of the input. A last line without an end
    /// counts.
    pub(crate) fn read_line(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.ahead[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.ahead.split_off(searched + end + 1);
                let mut line = std::mem::replace(&mut self.ahead, rest);
                line.pop();
                return if line.len() > limit { Err(self.long_line(limit)) } else { Ok(Some(line)) };
            }
            searched = self.ahead.len();
            if searched > limit {
                return Err(self.long_line(limit));
            }
            self.ahead.resize(searched + CHUNK_BYTES, 0);
            let count = read_some(&self.file, &mut self.ahead[searched..]);
            self.ahead.truncate(searched + *count.as_ref().unwrap_or(&0));
            if count.map_err(|error| self.failed(&error))? == 0 {
                let line = std::mem::take(&mut self.ahead);
                return if line.is_empty() { Ok(None) } else { Ok(Some(line)) };
            }
        }
    }

    fn long_line(&self, limit: usize) -> Failure {
        Failure::failed(format!("a line of {} is longer than the {limit} bytes of a message", self.name))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::failed(format!("cannot read {}: {}", self.name, plain(error)))
    }
}
