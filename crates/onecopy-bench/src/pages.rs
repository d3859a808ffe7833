//! The memory that payloads begin and end in.
//!
//! It lies on huge pages where the kernel gives them, for every mechanism and for memcpy alike: a program that moves large buffers
//! asks for them. What the kernel copies from one process to another, page by page, needs half of the time then.

use std::ops::{Deref, DerefMut};

use onecopy::memory::buffer::Buffer;

/// Set, payloads lie on whatever pages the allocator gives.
const SMALL: &str = "ONECOPY_BENCH_SMALL_PAGES";

/// Whether huge pages are asked for.
pub(crate) fn are_huge() -> bool {
    std::env::var_os(SMALL).is_none()
}

/// Bytes of one process.
#[derive(Debug)]
pub(crate) enum Memory {
    Huge(Buffer),
    Small(Vec<u8>),
}

impl Memory {
    /// No bytes yet.
    pub(crate) fn none() -> Self {
        Self::Small(Vec::new())
    }

    /// So many, every page of which is there.
    pub(crate) fn touched(len: usize) -> Result<Self, String> {
        let mut memory = match are_huge() {
            true => Self::Huge(Buffer::warm(len).map_err(|error| error.to_string())?),
            false => Self::Small(vec![0; len]),
        };
        memory.fill(0xa5);
        Ok(memory)
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Huge(buffer) => buffer,
            Self::Small(bytes) => bytes,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Huge(buffer) => buffer,
            Self::Small(bytes) => bytes,
        }
    }
}
