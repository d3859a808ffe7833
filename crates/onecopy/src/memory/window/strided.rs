//! Blocks at equal distances: a column of a matrix, one channel of interleaved samples.

use std::ops::Range;

use crate::{Error, Result};

/// `count` blocks of `block_bytes` each, the first at `offset` and each `stride_bytes` after the begin of the one before: what
/// MPI calls a vector datatype.
///
/// ```
/// use onecopy::memory::window::Strided;
///
/// // The third column of a matrix of 100 rows of 8 numbers of 4 bytes.
/// let column = Strided { offset: 2 * 4, block_bytes: 4, stride_bytes: 8 * 4, count: 100 };
/// assert_eq!(column.total_bytes(), Some(400));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strided {
    /// Where the first block begins, in bytes from the begin of the window.
    pub offset: usize,
    /// The length of each block.
    pub block_bytes: usize,
    /// From the begin of a block to that of the next.
    pub stride_bytes: usize,
    /// How many blocks there are.
    pub count: usize,
}

impl Strided {
    /// The length of all blocks together, without what lies between them; `None` beyond what a number can hold.
    #[must_use]
    pub fn total_bytes(&self) -> Option<usize> {
        self.block_bytes.checked_mul(self.count)
    }

    /// The blocks, if each of them lies within a window of `window_bytes`, and together they are as long as the buffer here.
    pub(super) fn ranges(&self, object: &str, window_bytes: usize, buffer_bytes: usize) -> Result<Vec<Range<usize>>> {
        let Self { offset, block_bytes, stride_bytes, count } = *self;
        // First, so that there are no more blocks than bytes in the buffer.
        if self.total_bytes() != Some(buffer_bytes) {
            let reason = format!("{count} blocks of {block_bytes} bytes and a buffer of {buffer_bytes}");
            return Err(Error::Invalid { object: object.into(), reason });
        }
        let end = |count: usize| {
            let last = count.checked_sub(1)?.checked_mul(stride_bytes)?.checked_add(offset)?;
            last.checked_add(block_bytes).filter(|end| *end <= window_bytes)
        };
        if block_bytes == 0 || count == 0 {
            return Ok(Vec::new());
        }
        if end(count).is_none() {
            let reason = format!(
                "{count} blocks of {block_bytes} bytes from offset {offset} on, {stride_bytes} apart, reach beyond its \
                 {window_bytes} bytes"
            );
            return Err(Error::Invalid { object: object.into(), reason });
        }
        // Without gaps they are one.
        let (block_bytes, count) =
            if stride_bytes == block_bytes { (block_bytes * count, 1) } else { (block_bytes, count) };
        Ok((0..count).map(|index| offset + index * stride_bytes).map(|start| start..start + block_bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_where_they_should_or_are_refused() {
        let blocks = Strided { offset: 3, block_bytes: 2, stride_bytes: 5, count: 3 };
        assert_eq!(blocks.ranges("w", 15, 6).unwrap(), [3..5, 8..10, 13..15]);
        let error = blocks.ranges("w", 14, 6).unwrap_err().to_string();
        assert!(error.contains("3 blocks of 2 bytes from offset 3 on, 5 apart, reach beyond its 14 bytes"), "{error}");
        let error = blocks.ranges("w", 15, 7).unwrap_err().to_string();
        assert!(error.contains("3 blocks of 2 bytes and a buffer of 7"), "{error}");
        assert_eq!(Strided { stride_bytes: 2, ..blocks }.ranges("w", 9, 6).unwrap(), vec![3..9; 1]);
        assert_eq!(Strided { stride_bytes: 0, ..blocks }.ranges("w", 5, 6).unwrap(), [3..5, 3..5, 3..5]);
        assert!(Strided { count: 0, offset: usize::MAX, ..blocks }.ranges("w", 0, 0).unwrap().is_empty());
        for huge in [
            Strided { count: usize::MAX, ..blocks },
            Strided { count: usize::MAX, stride_bytes: 0, ..blocks },
            Strided { stride_bytes: usize::MAX, ..blocks },
            Strided { offset: usize::MAX, ..blocks },
            Strided { block_bytes: usize::MAX, count: 1, ..blocks },
        ] {
            let buffer_bytes = huge.total_bytes().unwrap_or(6);
            assert!(huge.ranges("w", usize::MAX, buffer_bytes).is_err(), "{huge:?}");
        }
    }
}
