//! A message in memory of the library.

use std::fmt;
use std::ops::Deref;

use crate::memory::buffer::Buffer;
use crate::memory::ring::INLINE_MESSAGE_BYTES;

/// What a message may have to need no buffer of its own: two slots of the ring.
pub(super) const SHORT_BYTES: usize = INLINE_MESSAGE_BYTES;

/// A message that was received. It is warm memory of the library, which is used again when the message is dropped.
///
/// ```no_run
/// use onecopy::Channel;
///
/// let mut channel = Channel::connect("frames")?;
/// if let Some(frame) = channel.recv()? {
///     println!("{} bytes, the first is {:?}", frame.len(), frame.first());
/// }
/// # Ok::<(), onecopy::Error>(())
/// ```
pub struct Message(Content);

enum Content {
    Short { bytes: Words, len: u8 },
    Long(Buffer),
}

/// At whole words, so that each word of a slot is stored by one instruction, and loaded by as much later.
#[repr(align(8))]
struct Words([u8; SHORT_BYTES]);

impl Message {
    /// A short message that `fill` writes.
    pub(super) fn short<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut bytes = [0; SHORT_BYTES];
        fill(&mut bytes[..len])?;
        Ok(Self(Content::Short { bytes: Words(bytes), len: len as u8 }))
    }

    /// The first `len` bytes of what stood in slots of the ring.
    #[inline]
    pub(super) fn of_slots(bytes: [u8; SHORT_BYTES], len: usize) -> Self {
        Self(Content::Short { bytes: Words(bytes), len: len as u8 })
    }

    /// A message in a buffer.
    pub(super) fn long(buffer: Buffer) -> Self {
        Self(Content::Long(buffer))
    }

    /// The bytes in a vector of their own: a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Deref for Message {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Content::Short { bytes, len } => &bytes.0[..usize::from(*len)],
            Content::Long(buffer) => buffer,
        }
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.len())
    }
}
