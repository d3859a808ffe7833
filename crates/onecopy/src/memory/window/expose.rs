//! The side that has the memory.
//!
//! # Safety
//!
//! A [`ReadWindow`] owns what it exposes and lends it out for reading alone, and [`with_read_window`] borrows it, so nobody
//! writes it or frees it before the nonce is gone; peers only read. What a [`WriteWindow`] exposes is written by peers at any
//! time: no reference into it is formed but by the `unsafe` methods, and its mapping is retired, never unmapped or used again.
#![expect(
    unsafe_code,
    reason = "copies from and to memory that peers write, and lends it out to callers who know better"
)]

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::token::{Rights, Token};
use crate::memory::Region;
use crate::memory::buffer::Buffer;
use crate::memory::copy::{copy_in, copy_out};
use crate::memory::nonce::Nonce;
use crate::{Error, Result};

/// Bytes that stay where they are for as long as their owner lives, wherever that is moved: `Vec<u8>`, `Box<[u8]>`,
/// `Arc<[u8]>`, `&'static [u8]`, [`Buffer`] and [`Region`].
pub trait Source: sealed::Place {}

mod sealed {
    /// Where the bytes are. Implemented here alone, for types that do not let go of them while they are borrowed.
    pub trait Place {
        fn place(&self) -> (u64, usize);
    }
}

fn place_of(bytes: &[u8]) -> (u64, usize) {
    (bytes.as_ptr().expose_provenance() as u64, bytes.len())
}

macro_rules! sources_of_bytes {
    ($($source:ty),*) => {$(
        impl Source for $source {}
        impl sealed::Place for $source {
            fn place(&self) -> (u64, usize) {
                place_of(self)
            }
        }
    )*};
}

sources_of_bytes!(Vec<u8>, Box<[u8]>, Arc<[u8]>, &'static [u8], Buffer);

impl Source for Region {}
impl sealed::Place for Region {
    fn place(&self) -> (u64, usize) {
        (self.base().as_ptr().expose_provenance() as u64, self.len())
    }
}

/// Bytes that other processes may read for as long as this value lives.
///
/// It owns them: they can be neither changed nor freed meanwhile, not even when the window is forgotten. Through
/// [`Deref`] this process reads them too. What a [`Region`] maps others may change as always.
///
/// ```
/// use onecopy::memory::window::ReadWindow;
///
/// let window = ReadWindow::expose(vec![1, 2, 3])?;
/// println!("{}", window.token());
/// assert_eq!(window.len(), 3);
/// let mut bytes = window.close(); // from here on the token is refused
/// bytes.push(4);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct ReadWindow<T: Source> {
    // Fields are dropped in this order: the nonce goes before the bytes that it stands for.
    nonce: Nonce,
    token: Token,
    source: T,
}

impl<T: Source> ReadWindow<T> {
    /// Lets other processes read `source`.
    ///
    /// # Errors
    ///
    /// ENOMEM, or what opening `/proc/self/stat` says.
    pub fn expose(source: T) -> Result<Self> {
        let nonce = Nonce::draw()?;
        let (address, len) = source.place();
        let token = Token::new(Rights::Read, address, len, &nonce)?;
        Ok(Self { nonce, token, source })
    }

    /// What another process needs to read it.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Ends the window and gives the bytes back. A read that is under way fails.
    pub fn close(self) -> T {
        drop(self.nonce);
        self.source
    }
}

impl<T: Source> Deref for ReadWindow<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.source
    }
}

/// Lets other processes read borrowed bytes while `work` runs, which gets the token. The window is closed when it returns, and
/// when it panics.
///
/// ```
/// use onecopy::memory::window::{Token, with_read_window};
///
/// let frame = [7_u8; 4096];
/// with_read_window(&frame, |token: &Token| {
///     // Send the token, and wait for the answer that the frame was read.
///     assert_eq!(token.len(), 4096);
/// })?;
/// # Ok::<(), onecopy::Error>(())
/// ```
///
/// # Errors
///
/// As [`ReadWindow::expose`].
pub fn with_read_window<R>(bytes: &[u8], work: impl FnOnce(&Token) -> R) -> Result<R> {
    let nonce = Nonce::draw()?;
    let (address, len) = place_of(bytes);
    let token = Token::new(Rights::Read, address, len, &nonce)?;
    // `nonce` is out of the reach of `work`, so nothing keeps it from being dropped here.
    Ok(work(&token))
}

/// Memory of the library that other processes may read and write for as long as this value lives.
///
/// They write at any time, so this process reads copies: [`WriteWindow::read_at`] while the window is open,
/// [`WriteWindow::close`] to end it. How a writer says that it is done is up to the two: a message over any mechanism.
///
/// ```
/// use onecopy::memory::buffer::Buffer;
/// use onecopy::memory::window::WriteWindow;
///
/// let window = WriteWindow::expose(Buffer::zeroed(1 << 20)?)?;
/// println!("{}", window.token()); // another process puts bytes there, and says so
/// let mut head = [0; 16];
/// window.read_at(0, &mut head)?;
/// let buffer = window.close()?; // a late write fails, and changes nothing here
/// assert_eq!(buffer[..16], head);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct WriteWindow {
    // Fields are dropped in this order: the nonce goes first.
    nonce: Nonce,
    token: Token,
    memory: Exposed,
}

/// A buffer that peers write.
#[derive(Debug)]
struct Exposed(Option<Buffer>);

impl Exposed {
    fn base(&self) -> NonNull<u8> {
        self.0.as_ref().map_or(NonNull::dangling(), Buffer::base)
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            buffer.retire();
        }
    }
}

impl WriteWindow {
    /// Lets other processes read and write `buffer`, which begins as it is.
    ///
    /// # Errors
    ///
    /// As [`ReadWindow::expose`].
    pub fn expose(buffer: Buffer) -> Result<Self> {
        let nonce = Nonce::draw()?;
        let address = buffer.base().as_ptr().expose_provenance() as u64;
        let token = Token::new(Rights::ReadWrite, address, buffer.len(), &nonce)?;
        Ok(Self { nonce, token, memory: Exposed(Some(buffer)) })
    }

    /// What another process needs to read and to write it.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.token.len
    }

    /// Whether the window has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token.is_empty()
    }

    /// Copies the bytes from `offset` on into `bytes`, as they are at this moment.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the numbers when the range does not lie within the window.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let shared = self.at("read", offset, bytes.len())?;
        // SAFETY: readable for that length, checked by `at`, in a mapping that lives as long as `self`; `bytes` is private and
        // does not overlap it.
        unsafe { copy_in(bytes, shared.as_ptr()) };
        Ok(())
    }

    /// Copies `bytes` to `offset`, for others to read.
    ///
    /// # Errors
    ///
    /// As [`WriteWindow::read_at`].
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let shared = self.at("write", offset, bytes.len())?;
        // SAFETY: writable for that length, checked by `at`, in a mapping that lives as long as `self`; `bytes` is private and
        // does not overlap it.
        unsafe { copy_out(shared.as_ptr(), bytes) };
        Ok(())
    }

    /// Ends the window and returns a copy of what was written by then. A write that is still under way changes neither the copy
    /// nor anything else that this process uses: the addresses of the window are never used again.
    ///
    /// A process has 128 TiB of addresses on x86-64, and they count in `RLIMIT_AS`. So for many transfers keep one window open,
    /// and take each out with [`WriteWindow::read_at`] when its writer says that it is there.
    ///
    /// # Errors
    ///
    /// ENOMEM when there is no memory for the copy; the window is closed then, too.
    pub fn close(self) -> Result<Buffer> {
        let Self { nonce, token, memory } = self;
        // First: a put that is not in the copy fails.
        drop(nonce);
        let mut copy = Buffer::warm(token.len)?;
        // SAFETY: readable for the length of the window, in a mapping that lives as long as `memory`; the copy is private and
        // does not overlap it.
        unsafe { copy_in(&mut copy, memory.base().as_ptr()) };
        Ok(copy)
    }

    /// Ends the window and returns its memory, without a copy.
    ///
    /// # Safety
    ///
    /// No process writes it, and none that may have begun to can still be at it: each that had the token has said that its last
    /// put returned, or has exited (its pidfd says so; SIGKILL and SIGSTOP alone do not end a write).
    #[must_use]
    pub unsafe fn into_buffer(self) -> Buffer {
        let Self { nonce, mut memory, .. } = self;
        drop(nonce);
        memory.0.take().expect("a window has its buffer until it is closed")
    }

    /// The bytes in place.
    ///
    /// # Safety
    ///
    /// As [`WriteWindow::into_buffer`], for as long as the reference lives; nor does this process write it meanwhile, with
    /// [`WriteWindow::write_at`].
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        self.memory.0.as_deref().unwrap_or_default()
    }

    fn at(&self, operation: &str, offset: usize, len: usize) -> Result<NonNull<u8>> {
        self.token.check_range(operation, offset, len)?;
        // SAFETY: `offset <= self.len()`, checked above: inside of the buffer or at its end.
        Ok(unsafe { self.memory.base().add(offset) })
    }
}

impl Token {
    /// Fails unless the range lies within the window.
    pub(super) fn check_range(&self, operation: &str, offset: usize, len: usize) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => {
                let reason =
                    format!("{operation} of {len} bytes at offset {offset} reaches beyond its {} bytes", self.len);
                Err(Error::Invalid { object: self.object(), reason })
            }
        }
    }
}
