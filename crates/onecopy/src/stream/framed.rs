//! Messages with boundaries over any byte stream.
//!
//! A message travels as one or more frames: a header of [`HEADER_BYTES`] bytes, then the payload. The header holds, in
//! little-endian order, the magic number `0x6331` (u16), the version 1 (u8), flags (u8: bit 0 says that the message goes
//! on in the next frame) and the length of the payload (u32, at most [`MAX_FRAME_BYTES`]).
//!
//! One writer at a time: on a pipe with several writers frames could be torn, as
//! [pipe(7)](https://man7.org/linux/man-pages/man7/pipe.7.html) explains: there [`pipe::MessageWriter`](super::pipe::MessageWriter)
//! is safe.

mod receiver;
mod sender;
#[cfg(test)]
mod tests;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use receiver::{DEFAULT_LIMIT_BYTES, FramedReceiver};
pub use sender::FramedSender;

/// The length of a frame's header.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// The longest payload of one frame; a longer message is sent in parts.
pub const MAX_FRAME_BYTES: usize = 1 << 30;

const MAGIC: u16 = 0x6331;
const VERSION: u8 = 1;
const MORE: u8 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: U16,
    version: u8,
    flags: u8,
    payload_bytes: U32,
}

const _: () = assert!(size_of::<Header>() == 8);

impl Header {
    fn new(payload: &[u8], last: bool) -> Self {
        debug_assert!(payload.len() <= MAX_FRAME_BYTES);
        Self {
            magic: U16::new(MAGIC),
            version: VERSION,
            flags: if last { 0 } else { MORE },
            payload_bytes: U32::new(payload.len() as u32),
        }
    }
}

/// A part of a message, as [`FramedReceiver::recv_part_by`] delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// How many bytes came into the buffer.
    pub bytes: usize,
    /// Whether the message ends with them.
    pub last: bool,
}
