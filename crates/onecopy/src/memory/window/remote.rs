//! The side that reaches the memory of another process.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;

use nix::errno::Errno;
use nix::sys::uio::RemoteIoVec;

use super::strided::Strided;
use super::token::{Rights, Token};
use crate::memory::nonce::{self, NONCE_BYTES};
use crate::memory::remote::{Cursor, IOV_MAX, READ, RemoteProcess, RemoteRange, WRITE};
use crate::process::Origin;
use crate::{Error, Result};

/// How many ranges of a call are left for the bytes: one is for the nonce.
const RANGES: usize = IOV_MAX - 1;
/// The longest read of one call: with the nonce behind it, it stays below the 0x7ffff000 bytes that the kernel takes.
const READ_BYTES: usize = 1 << 30;
/// How much is written between two looks at the nonce.
const WRITE_BYTES: usize = 16 << 20;

/// A window of another process: its memory, to be read and written from here.
///
/// Offsets count from the begin of the window, and a range that does not lie within it is refused before anything is called. All
/// methods work at once and wait for nobody.
#[derive(Debug)]
pub struct RemoteWindow {
    process: RemoteProcess,
    token: Token,
}

impl RemoteWindow {
    /// Opens the window of `token`, and makes sure that it is open and may be reached.
    ///
    /// # Errors
    ///
    /// An error for which [`Error::is_peer_gone`] holds when the process has exited or executed another program, or the window
    /// was closed. [`Error::NotPermitted`] when the kernel does not let this process attach to the other. [`Error::Unsupported`]
    /// when the token comes from another pid namespace or another machine.
    pub fn open(token: &Token) -> Result<Self> {
        let here = Origin::here();
        if here == 0 {
            let reason =
                "without /proc this process cannot tell whether the token's pid means anything to it".to_owned();
            return Err(Error::Unsupported { object: token.object(), reason });
        }
        if token.origin.place != here {
            return Err(Error::Unsupported {
                object: token.object(),
                reason: format!(
                    "process {} counts in another pid namespace, or on another machine, where its number means nothing here",
                    token.pid()
                ),
            });
        }
        let process = RemoteProcess::open_started_at(token.pid(), token.origin.start_ticks)?;
        let window = Self { process, token: *token };
        window.check_open()?;
        Ok(window)
    }

    /// What it was opened with.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.token.len()
    }

    /// Whether the window has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token.is_empty()
    }

    /// Reads from `offset` on into all of `buffer`: one copy.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the numbers when the range does not lie within the window; nothing was read then. An error for
    /// which [`Error::is_peer_gone`] holds when the window is not open any more; `buffer` holds anything then.
    /// [`Error::PartialTransfer`] when the owner's memory cannot be read from some address on, as behind the end of a mapped
    /// file that was shortened.
    pub fn get(&self, offset: usize, buffer: &mut [u8]) -> Result<()> {
        let range = self.range("get", offset, buffer.len())?;
        let wanted = buffer.len();
        let mut done = 0;
        // Once even for nothing: whether the window is open is an answer, too.
        loop {
            let piece = &mut buffer[done..wanted.min(done + READ_BYTES)];
            let (address, bytes) = (range.address + done as u64, piece.len());
            let mut found = [0; NONCE_BYTES];
            let mut local = [IoSliceMut::new(piece), IoSliceMut::new(&mut found)];
            match self.read_with_nonce(&mut local, &[remote_range(address, bytes), self.nonce_range()]) {
                Ok(()) => done += bytes,
                Err((_, Errno::EINTR)) => continue,
                Err((read, errno)) => {
                    return Err(self.failure(READ, done + read, wanted, address + read as u64, errno));
                }
            }
            if done == wanted {
                return Ok(());
            }
        }
    }

    /// Reads `ranges` one after the other into `buffers` one after the other, whose lengths together must be equal. Up to 1,023
    /// of each go in one system call.
    ///
    /// # Errors
    ///
    /// As [`RemoteWindow::get`].
    pub fn get_vectored(&self, ranges: &[Range<usize>], buffers: &mut [IoSliceMut<'_>]) -> Result<()> {
        let ranges = self.ranges("get", ranges)?;
        self.check_total("get", &ranges, total(buffers.iter().map(|buffer| buffer.len())))?;
        self.read(&ranges, buffers)
    }

    /// Reads blocks at equal distances, one after the other, into `buffer`, which must be as long as they are together.
    ///
    /// # Errors
    ///
    /// As [`RemoteWindow::get`].
    pub fn get_strided(&self, blocks: &Strided, buffer: &mut [u8]) -> Result<()> {
        let ranges = blocks.ranges(&self.token.object(), self.len(), buffer.len())?;
        self.get_vectored(&ranges, &mut [IoSliceMut::new(buffer)])
    }

    /// Writes `bytes` from `offset` on: one copy. The owner does not notice by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the range does not lie within the window, or the token permits no writing; nothing was written
    /// then. [`Error::PartialTransfer`] with the exact count. An error for which [`Error::is_peer_gone`] holds when the window is
    /// not open any more: it was closed before or meanwhile, and what was written is of no use to anybody. If the
    /// owner executed another program, or exited and its number was given away, between the last look and the write, that program
    /// was written to: a microsecond, unless this process is stopped or waits for a processor just then.
    pub fn put(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let range = self.range("put", offset, bytes.len())?;
        self.write(&[range], &[IoSlice::new(bytes)])
    }

    /// Writes `buffers` one after the other to `ranges` one after the other, whose lengths together must be equal.
    ///
    /// # Errors
    ///
    /// As [`RemoteWindow::put`].
    pub fn put_vectored(&self, ranges: &[Range<usize>], buffers: &[IoSlice<'_>]) -> Result<()> {
        let ranges = self.ranges("put", ranges)?;
        self.check_total("put", &ranges, total(buffers.iter().map(|buffer| buffer.len())))?;
        self.write(&ranges, buffers)
    }

    /// Writes `bytes` to blocks at equal distances, one after the other, which must be as long together.
    ///
    /// # Errors
    ///
    /// As [`RemoteWindow::put`].
    pub fn put_strided(&self, blocks: &Strided, bytes: &[u8]) -> Result<()> {
        let ranges = blocks.ranges(&self.token.object(), self.len(), bytes.len())?;
        self.put_vectored(&ranges, &[IoSlice::new(bytes)])
    }

    fn range(&self, operation: &str, offset: usize, bytes: usize) -> Result<RemoteRange> {
        self.token.check_range(operation, offset, bytes)?;
        Ok(RemoteRange { address: self.token.address + offset as u64, bytes })
    }

    fn ranges(&self, operation: &str, ranges: &[Range<usize>]) -> Result<Vec<RemoteRange>> {
        let remote = |range: &Range<usize>| match range.end.checked_sub(range.start) {
            Some(bytes) => self.range(operation, range.start, bytes),
            None => Err(self.invalid(format!("{operation} of a range that ends before it begins: {range:?}"))),
        };
        ranges.iter().map(remote).collect()
    }

    fn check_total(&self, operation: &str, ranges: &[RemoteRange], here: usize) -> Result<()> {
        let there = total(ranges.iter().map(|range| range.bytes));
        if there == here {
            return Ok(());
        }
        Err(self.invalid(format!("{operation} of {there} bytes in the window and {here} in the buffers")))
    }

    fn invalid(&self, reason: String) -> Error {
        Error::Invalid { object: self.token.object(), reason }
    }

    /// Fills `buffers` from `ranges`. Their lengths together are equal.
    fn read(&self, ranges: &[RemoteRange], buffers: &mut [IoSliceMut<'_>]) -> Result<()> {
        let wanted = total(buffers.iter().map(|buffer| buffer.len()));
        let mut own: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut local = &mut own[..];
        let mut remote = Cursor::new(ranges);
        let mut batch = Vec::new();
        let mut done = 0;
        // Once even for nothing, as in `get`.
        loop {
            remote.fill(&mut batch, RANGES, (wanted - done).min(READ_BYTES));
            let mut pieces = head(local, total(batch.iter().map(|range| range.len)));
            let bytes = total(pieces.iter().map(|piece| piece.len()));
            remote.fill(&mut batch, RANGES, bytes);
            let mut found = [0; NONCE_BYTES];
            pieces.push(IoSliceMut::new(&mut found));
            batch.push(self.nonce_range());
            match self.read_with_nonce(&mut pieces, &batch) {
                Ok(()) => {}
                Err((_, Errno::EINTR)) => continue,
                Err((read, errno)) => {
                    remote.advance(read);
                    return Err(self.failure(READ, done + read, wanted, remote.address(), errno));
                }
            }
            remote.advance(bytes);
            IoSliceMut::advance_slices(&mut local, bytes);
            done += bytes;
            if done == wanted {
                return Ok(());
            }
        }
    }

    /// One call that reads `remote` into `local`, which have the same length and end with the nonce. One address space is read, in
    /// order: the nonce was there when the bytes had been read, or it is the wrong one. On failure how many bytes were read.
    fn read_with_nonce(&self, local: &mut [IoSliceMut<'_>], remote: &[RemoteIoVec]) -> Result<(), (usize, Errno)> {
        let read = self.process.readv(local, remote).map_err(|errno| (0, errno))?;
        let bytes = total(local.iter().map(|piece| piece.len())) - NONCE_BYTES;
        let expected = self.token.nonce.map(u64::to_ne_bytes);
        match local.last().is_some_and(|found| **found == *expected.as_flattened()) {
            true if read == bytes + NONCE_BYTES => Ok(()),
            // EFAULT is why a call ends early.
            _ => Err((read.min(bytes), Errno::EFAULT)),
        }
    }

    fn nonce_range(&self) -> RemoteIoVec {
        remote_range(self.token.nonce_address, NONCE_BYTES)
    }

    /// Writes `buffers` to `ranges`. Their lengths together are equal.
    fn write(&self, ranges: &[RemoteRange], buffers: &[IoSlice<'_>]) -> Result<()> {
        if self.token.rights() != Rights::ReadWrite {
            return Err(self.invalid("its token permits no writing: the owner exposes a WriteWindow for that".into()));
        }
        self.process.check_other()?;
        let wanted = total(buffers.iter().map(|buffer| buffer.len()));
        // Without the empty ones: a call whose buffers are all empty writes nothing.
        let own = buffers.iter().filter(|buffer| !buffer.is_empty()).map(|buffer| IoSlice::new(buffer));
        let mut own: Vec<_> = own.collect();
        let mut local = &mut own[..];
        let mut remote = Cursor::new(ranges);
        let mut batch = Vec::new();
        let mut done = 0;
        self.check_open()?;
        while done < wanted {
            remote.fill(&mut batch, IOV_MAX, (wanted - done).min(WRITE_BYTES));
            match self.process.writev(&local[..local.len().min(IOV_MAX)], &batch) {
                Ok(0) => return Err(self.failure(WRITE, done, wanted, remote.address(), Errno::EFAULT)),
                Ok(written) => {
                    IoSlice::advance_slices(&mut local, written);
                    remote.advance(written);
                    done += written;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.failure(WRITE, done, wanted, remote.address(), errno)),
            }
            // After the last bytes too: what was written is of use only if it went to the window.
            self.check_open()?;
        }
        Ok(())
    }

    /// Fails unless the window is open at this moment.
    fn check_open(&self) -> Result<()> {
        match self.look() {
            Ok(found) if found == self.token.nonce => Ok(()),
            // Whatever the answer is, it came from a process that was given its number, or from none.
            _ if self.process.has_exited() => Err(self.gone("its process has exited")),
            Ok(_) | Err(Errno::EFAULT) => {
                Err(self.gone("the window was closed, or its process executed another program"))
            }
            Err(errno) => Err(self.process.error(READ, self.token.nonce_address, NONCE_BYTES, errno)),
        }
    }

    /// What stands where the nonce does while the window is open.
    fn look(&self) -> Result<nonce::Value, Errno> {
        let mut found = [[0; 8]; 2];
        loop {
            match self.process.readv(&mut [IoSliceMut::new(found.as_flattened_mut())], &[self.nonce_range()]) {
                Ok(NONCE_BYTES) => return Ok(found.map(u64::from_ne_bytes)),
                Ok(_) => return Err(Errno::EFAULT),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Why a transfer stopped at `address`, after `done` bytes: because the window is not open any more, or else as the kernel
    /// says.
    fn failure(&self, call: &'static str, done: usize, wanted: usize, address: u64, errno: Errno) -> Error {
        if let Err(error) = self.check_open() {
            return error;
        }
        let error = self.process.error(call, address, wanted - done, errno);
        match done {
            0 => error,
            _ => Error::PartialTransfer {
                transferred_bytes: done,
                total_bytes: wanted,
                address,
                source: Box::new(error),
            },
        }
    }

    fn gone(&self, detail: &str) -> Error {
        Error::PeerGone { object: self.token.object(), detail: detail.into() }
    }
}

fn remote_range(address: u64, len: usize) -> RemoteIoVec {
    RemoteIoVec { base: address as usize, len }
}

fn total(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.fold(0, usize::saturating_add)
}

/// The first `bytes` of `buffers`, or what [`RANGES`] of them hold.
fn head<'a>(buffers: &'a mut [IoSliceMut<'_>], bytes: usize) -> Vec<IoSliceMut<'a>> {
    let mut left = bytes;
    let mut pieces = Vec::with_capacity(buffers.len().min(RANGES) + 1);
    for buffer in buffers.iter_mut().filter(|buffer| !buffer.is_empty()).take(RANGES) {
        if left == 0 {
            break;
        }
        let taken = buffer.len().min(left);
        pieces.push(IoSliceMut::new(&mut buffer[..taken]));
        left -= taken;
    }
    pieces
}
