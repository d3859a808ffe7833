//! How many bytes this thread has copied, counted where they are copied.

use std::cell::Cell;

thread_local! {
    static USER_BYTES: Cell<u64> = const { Cell::new(0) };
    static KERNEL_BYTES: Cell<u64> = const { Cell::new(0) };
}

/// The bytes that one thread has copied through this library since it began, and so, by the difference of two of them,
/// during anything in between.
///
/// Counted are the bytes of messages and of their headers: at each copy that the library makes in user space, and by what
/// each system call returned that moved them (read(2), send(2), process_vm_readv(2) and their like). The thread that makes
/// the copy or the call counts it, and the other side of a transfer does not: a message through a pipe is one of the kernel's
/// copies for each side; one that its receiver reads from the sender's memory is one for the receiver and none for the
/// sender. A copy that brought a partial or a useless result counts as far as it went.
///
/// Not counted are the copies that the kernel makes on its own between two of its buffers (a terminal's), those of programs
/// around the library, control words in shared memory, and reads of `/proc`.
///
/// Counting costs one addition in memory of the thread for each copy or call.
///
/// ```
/// use onecopy::memory::anonymous::AnonymousMapping;
/// use onecopy::stream::{ByteReader, ByteWriter, pipe};
/// use onecopy::{Deadline, Tally};
///
/// let before = Tally::now();
/// let (mut reader, mut writer) = pipe::pair()?;
/// writer.write_by(b"hello", Deadline::Never)?;
/// let mut buffer = [0; 5];
/// reader.read_by(&mut buffer, Deadline::Never)?;
/// assert_eq!(Tally::now().since(before), Tally { user_bytes: 0, kernel_bytes: 10 });
///
/// let before = Tally::now();
/// let mapping = AnonymousMapping::create("doc", 4096)?;
/// mapping.region().write_at(0, b"hello")?;
/// assert_eq!(Tally::now().since(before), Tally { user_bytes: 5, kernel_bytes: 0 });
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Copied by this library in user space.
    pub user_bytes: u64,
    /// Copied by the kernel in system calls of this thread.
    pub kernel_bytes: u64,
}

impl Tally {
    /// What this thread has copied until now. Other threads count for themselves.
    #[must_use]
    pub fn now() -> Self {
        Self { user_bytes: USER_BYTES.get(), kernel_bytes: KERNEL_BYTES.get() }
    }

    /// What was copied since `earlier`, a tally of the same thread.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user_bytes: self.user_bytes.wrapping_sub(earlier.user_bytes),
            kernel_bytes: self.kernel_bytes.wrapping_sub(earlier.kernel_bytes),
        }
    }

    /// Both together.
    #[must_use]
    pub fn total_bytes(self) -> u64 {
        self.user_bytes.wrapping_add(self.kernel_bytes)
    }
}

/// Counts a copy in user space.
#[inline]
pub(crate) fn count_user(bytes: usize) {
    USER_BYTES.set(USER_BYTES.get().wrapping_add(bytes as u64));
}

/// Counts what a system call moved between this process and the kernel, or another process.
#[inline]
pub(crate) fn count_kernel(bytes: usize) {
    KERNEL_BYTES.set(KERNEL_BYTES.get().wrapping_add(bytes as u64));
}

/// Copies `source` to `target`, which is as long.
#[inline]
pub(crate) fn copy(target: &mut [u8], source: &[u8]) {
    target.copy_from_slice(source);
    count_user(source.len());
}

/// Copies `bytes` behind those that `vector` has.
#[inline]
pub(crate) fn append(vector: &mut Vec<u8>, bytes: &[u8]) {
    vector.extend_from_slice(bytes);
    count_user(bytes.len());
}

/// A copy of `bytes` in memory of its own.
pub(crate) fn to_vec(bytes: &[u8]) -> Vec<u8> {
    count_user(bytes.len());
    bytes.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_is_counted_where_it_belongs() {
        let before = Tally::now();
        let mut target = to_vec(b"123");
        append(&mut target, b"45");
        copy(&mut target[..4], b"abcd");
        count_kernel(1000);
        let copied = Tally::now().since(before);
        assert_eq!((copied, copied.total_bytes()), (Tally { user_bytes: 9, kernel_bytes: 1000 }, 1009));
        assert_eq!(target, b"abcd5");
    }

    #[test]
    fn a_thread_counts_for_itself() {
        let before = Tally::now();
        let theirs = std::thread::spawn(|| {
            count_user(7);
            Tally::now()
        });
        assert_eq!(theirs.join().unwrap(), Tally { user_bytes: 7, kernel_bytes: 0 });
        assert_eq!(Tally::now(), before);
    }
}
