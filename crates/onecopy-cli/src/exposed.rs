//! The bytes that `expose` lends out.

use std::path::Path;

use onecopy::Deadline;
use onecopy::memory::Region;
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::window::{ReadWindow, Token};

use crate::failure::Failure;
use crate::input::Input;

/// The window onto a file, or onto what was read from a stream.
#[derive(Debug)]
pub(crate) enum Exposed {
    /// A file, mapped: any length, and what others write into it shows.
    File(ReadWindow<Region>),
    /// What has no length beforehand, or none at all, in memory.
    Bytes(ReadWindow<Vec<u8>>),
}

impl Exposed {
    /// The file at `path`; `-` is stdin.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let path = (path.as_os_str() != "-").then_some(path);
        let mut input = Input::open(path, Deadline::Never)?;
        if let (Some(path), Some(_)) = (path, input.len()) {
            let region = FileMapping::open_read_only(path)?.into_region();
            return Ok(Self::File(ReadWindow::expose(region)?));
        }
        let limit = memory_limit_bytes();
        let Some(bytes) = input.read_all(limit)? else {
            return Err(Failure::failed(format!(
                "{} is longer than {limit} bytes, half of the memory that is available: put it into a file, which is mapped",
                input.name()
            )));
        };
        Ok(Self::Bytes(ReadWindow::expose(bytes)?))
    }

    pub(crate) fn token(&self) -> &Token {
        match self {
            Self::File(window) => window.token(),
            Self::Bytes(window) => window.token(),
        }
    }

    /// Copies the bytes from `offset` on, which lie within the window, into `buffer`.
    pub(crate) fn read_at(&self, offset: usize, buffer: &mut [u8]) -> onecopy::Result<()> {
        match self {
            Self::File(window) => window.read_at(offset, buffer),
            Self::Bytes(window) => {
                buffer.copy_from_slice(&window[offset..offset + buffer.len()]);
                Ok(())
            }
        }
    }
}

/// How much of a stream is kept: half of what proc_meminfo(5) says is available.
fn memory_limit_bytes() -> usize {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.map_or(1 << 30, |kib| kib.saturating_mul(512))
}
