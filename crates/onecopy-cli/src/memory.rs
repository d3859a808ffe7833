//! Memory that `read` and `write` reach: shared, or another process's.

use onecopy::memory::remote::{RemoteProcess, Transfer};
use onecopy::memory::{Region, maps};
use onecopy::open::{self, OpenOptions, Shape};
use onecopy::{Address, Error};
use rustix::io::Errno;

use crate::endpoint::remedy;
use crate::failure::Failure;
use crate::probe::{self, Wanted};

/// A range of memory of which every byte has an offset.
pub(crate) enum Memory {
    /// Shared memory, mapped.
    Shared(Region),
    /// A range of another process's memory.
    Remote { process: RemoteProcess, start: u64, len: u64 },
}

/// What is done to the memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Write; a missing region is created with this many bytes, where that is asked for.
    Write {
        create: Option<u64>,
    },
}

impl Memory {
    pub(crate) fn open(address: &Address, access: Access) -> Result<Self, Failure> {
        if let Address::Memory(range) = address {
            let pid = range.pid().get().cast_unsigned();
            let process = RemoteProcess::open(pid)?;
            probe::check(pid, if access == Access::Read { Wanted::Read } else { Wanted::Write })?;
            return Ok(Self::Remote { process, start: range.address(), len: range.len() });
        }
        let region = match access {
            Access::Read => open::open_region_read_only(address)?,
            Access::Write { create } => {
                let options = OpenOptions { create: create.is_some(), ..OpenOptions::default() };
                open::open_region(address, usize::try_from(create.unwrap_or(0)).unwrap_or(usize::MAX), &options)?
            }
        };
        Ok(Self::Shared(region))
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Shared(region) => region.len() as u64,
            Self::Remote { len, .. } => *len,
        }
    }

    /// Reads from `offset` on, as far as the memory can be read; the error says what kept it from going on.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> (usize, Option<Error>) {
        match self {
            Self::Shared(region) => whole(region.read_at(offset as usize, buffer), buffer.len()),
            Self::Remote { process, start, .. } => partial(process.read(start + offset, buffer)),
        }
    }

    /// Writes `bytes` from `offset` on, as far as the memory can be written; the error says what kept it from going on.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> (usize, Option<Error>) {
        match self {
            Self::Shared(region) => whole(region.write_at(offset as usize, bytes), bytes.len()),
            Self::Remote { process, start, .. } => partial(process.write(start + offset, bytes)),
        }
    }

    /// Why the byte at `offset` could not be reached; of another process with what is mapped there, or nearest to it.
    pub(crate) fn failure(&self, offset: u64, error: Error) -> Failure {
        let no_memory = error.raw_os_error() == Some(Errno::FAULT.raw_os_error());
        match (self, Failure::from(error)) {
            (Self::Remote { process, start, .. }, Failure::Failed(text)) if no_memory => {
                let near = around(process.pid(), start.saturating_add(offset));
                Failure::Failed(near.map_or(text.clone(), |near| format!("{text}; {near}")))
            }
            (_, failure) => failure,
        }
    }
}

/// What is mapped at an address of a process, or nearest to it.
fn around(pid: u32, address: u64) -> Option<String> {
    let map = maps::nearest(pid, address).ok().flatten()?;
    Some(match map.range() {
        range if range.contains(&address) => format!("there is {map}"),
        range if range.end == address => format!("the nearest mapping ends there: {map}"),
        range if range.end < address => {
            format!("the nearest mapping ends {} bytes before it: {map}", address - range.end)
        }
        range => format!("the nearest mapping begins {} bytes behind it: {map}", range.start - address),
    })
}

fn whole(result: onecopy::Result<()>, bytes: usize) -> (usize, Option<Error>) {
    match result {
        Ok(()) => (bytes, None),
        Err(error) => (0, Some(error)),
    }
}

fn partial(result: onecopy::Result<Transfer>) -> (usize, Option<Error>) {
    match result {
        Ok(transfer) => (transfer.bytes, transfer.stopped.map(|stop| stop.error)),
        Err(error) => (0, Some(error)),
    }
}

/// Refuses an address that names no memory.
pub(crate) fn check(address: &Address, verb: &str) -> Result<(), Failure> {
    match open::shape(address)? {
        Shape::Memory | Shape::Remote => Ok(()),
        Shape::Bytes | Shape::Messages => {
            let other = if verb == "read" { "recv" } else { "send" };
            Err(Failure::usage(format!("{verb} does not fit {address}, which is no memory: use `onecopy {other}`")))
        }
        _ => Err(Failure::usage(format!("{verb} does not fit {address}, which is no memory: {}", remedy(address)))),
    }
}

/// How many bytes `memory` has from `offset` on.
pub(crate) fn rest(memory: &Memory, address: &Address, offset: u64) -> Result<u64, Failure> {
    let len = memory.len();
    len.checked_sub(offset).ok_or_else(|| Failure::usage(format!("--offset {offset}: {address} has {len} bytes")))
}
