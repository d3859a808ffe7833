//! A message in memory of the library.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::landing::Landing;
use super::registered::Spot;
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
pub struct Message(Option<Box<Block>>);

/// Where a message is kept, so that moving it is moving an address. Words that are moved themselves are loaded by twice the length in
/// which they were stored a moment ago, and that waits for the stores: sending and receiving 8 bytes on one core took 23 ns and takes 18.
pub(super) struct Block {
    len: usize,
    /// The bytes of a short message.
    short: Words,
    /// The bytes of one of up to [`ROOM_BYTES`] that has come in pieces, and not in a body.
    room: Option<Box<Room>>,
    body: Option<Body>,
    /// What else is kept, below this one.
    next: Option<Box<Block>>,
    /// How many that are.
    below: usize,
}

/// At whole words, so that each word of a slot is stored by one instruction.
#[repr(align(8))]
struct Words([u8; SHORT_BYTES]);

/// The longest message that a block holds by itself. Measured on one core, in ns for sending and receiving one whose memory is a
/// [`Buffer`], and one like this: 512 bytes 96 and 50, 1 KiB 110 and 67, 1500 bytes 161 and 120, 4 KiB 208 and 217.
pub(super) const ROOM_BYTES: usize = 2 << 10;

/// At whole cache lines, as the bulk of a ring is.
#[repr(align(64))]
struct Room([u8; ROOM_BYTES]);

impl Room {
    #[cold]
    fn new() -> Box<Self> {
        Box::new(Self([0; ROOM_BYTES]))
    }
}

/// How many blocks a thread keeps for the next messages.
const KEPT_BLOCKS: usize = 64;

thread_local! {
    /// The block that was dropped last, on top of the others.
    static KEPT: Cell<Option<Box<Block>>> = const { Cell::new(None) };
}

impl Block {
    /// One that holds anything.
    #[inline]
    pub(super) fn take() -> Box<Self> {
        let kept = KEPT.try_with(|kept| {
            let mut top = kept.take()?;
            kept.set(top.next.take());
            Some(top)
        });
        kept.ok().flatten().unwrap_or_else(Self::new)
    }

    #[cold]
    fn new() -> Box<Self> {
        Box::new(Self { len: 0, short: Words([0; SHORT_BYTES]), room: None, body: None, next: None, below: 0 })
    }

    /// Keeps it for the next message of this thread. One that ends has freed what it kept.
    #[inline]
    pub(super) fn give_back(mut self: Box<Self>) {
        let _ = KEPT.try_with(|kept| {
            let next = kept.take();
            self.below = next.as_ref().map_or(0, |next| next.below + 1);
            if self.below < KEPT_BLOCKS {
                self.next = next;
                kept.set(Some(self));
            } else {
                kept.set(next);
            }
        });
    }

    /// Memory for a short message.
    #[inline]
    pub(super) fn short(&mut self) -> &mut [u8; SHORT_BYTES] {
        &mut self.short.0
    }

    /// Memory for a message of `len` bytes, up to [`ROOM_BYTES`], that is not short.
    #[inline]
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        debug_assert!((SHORT_BYTES + 1..=ROOM_BYTES).contains(&len));
        &mut self.room.get_or_insert_with(Room::new).0[..len]
    }

    /// The message of `len` bytes that were put where those of its length are.
    #[inline]
    pub(super) fn into_message(mut self: Box<Self>, len: usize) -> Message {
        self.len = len;
        Message(Some(self))
    }
}

/// The memory of a longer message.
#[derive(Debug)]
pub(super) enum Body {
    /// Of this process alone.
    Buffer(Buffer),
    /// The sender has it mapped too.
    Landing(Landing),
}

impl Body {
    /// The first byte. Valid for as long as the body, wherever that is moved.
    pub(super) fn base(&self) -> NonNull<u8> {
        match self {
            Self::Buffer(buffer) => buffer.base(),
            Self::Landing(landing) => landing.base(),
        }
    }

    /// What the sender knows it by.
    pub(super) fn spot(&self) -> Spot {
        match self {
            Self::Buffer(_) => Spot::NOWHERE,
            Self::Landing(landing) => landing.spot(),
        }
    }

    /// Takes the memory away from a writer that may still be at it, for good.
    pub(super) fn retire(self) {
        match self {
            Self::Buffer(buffer) => buffer.retire(),
            Self::Landing(landing) => landing.retire(),
        }
    }
}

impl Deref for Body {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Buffer(buffer) => buffer,
            Self::Landing(landing) => landing,
        }
    }
}

impl DerefMut for Body {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Buffer(buffer) => buffer,
            Self::Landing(landing) => landing,
        }
    }
}

impl Message {
    /// A short message that `fill` writes.
    pub(super) fn short<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut block = Block::take();
        fill(&mut block.short()[..len])?;
        Ok(block.into_message(len))
    }

    /// A message in memory of its own.
    #[inline]
    pub(super) fn long(body: Body) -> Self {
        let mut block = Block::take();
        block.len = body.len();
        if let Some(short) = block.short.0.get_mut(..body.len()) {
            // Where the length says that it is.
            short.copy_from_slice(&body);
        }
        block.body = Some(body);
        Self(Some(block))
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
        match self.0.as_deref() {
            Some(Block { short, len, .. }) if *len <= SHORT_BYTES => &short.0[..*len],
            Some(Block { body: Some(body), .. }) => body,
            Some(Block { room: Some(room), len, .. }) => &room.0[..*len],
            _ => &[],
        }
    }
}

impl Drop for Message {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut block) = self.0.take() {
            block.body = None;
            block.give_back();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn short(bytes: &[u8]) -> Message {
        Message::short::<()>(bytes.len(), |target| {
            target.copy_from_slice(bytes);
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn a_block_that_was_dropped_is_the_next_one() {
        let first = short(b"first");
        let address = first.as_ptr();
        drop(first);
        let second = short(b"another");
        assert_eq!((second.as_ptr(), &second[..]), (address, &b"another"[..]));
        assert_ne!(short(b"third").as_ptr(), address, "that one is in use");
    }

    #[test]
    fn a_message_is_what_was_put_into_it_whatever_its_block_held_before() {
        drop(short(&[7; SHORT_BYTES]));
        for len in [0, 1, SHORT_BYTES, SHORT_BYTES + 1, ROOM_BYTES, 5000] {
            let message = Message::long(Body::Buffer(Buffer::copy_of(&vec![3; len]).unwrap()));
            assert_eq!(message[..], vec![3; len]);
            if (SHORT_BYTES + 1..=ROOM_BYTES).contains(&len) {
                let mut block = Block::take();
                block.room(len).fill(4);
                assert_eq!(block.into_message(len)[..], vec![4; len]);
            }
        }
        assert_eq!(short(&[5; 9]).into_vec(), [5; 9], "and not the buffer");
    }

    #[test]
    fn a_thread_keeps_some_blocks_and_frees_them_when_it_ends() {
        let count = || {
            let (mut count, mut kept) = (0, KEPT.take());
            let mut next = kept.as_deref();
            while let Some(block) = next {
                (count, next) = (count + 1, block.next.as_deref());
            }
            KEPT.set(kept.take());
            count
        };
        let messages = std::thread::spawn(move || {
            let messages: Vec<Message> = (0..2 * KEPT_BLOCKS).map(|_| short(b"x")).collect();
            assert_eq!(count(), 0);
            drop(messages);
            assert_eq!(count(), KEPT_BLOCKS);
            short(b"of another thread")
        });
        assert_eq!(messages.join().unwrap()[..], *b"of another thread");
    }
}
