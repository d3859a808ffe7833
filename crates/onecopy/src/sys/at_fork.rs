//! Descriptors that a child made by fork(2) gives up at once, so that they close when this process closes them, or executes another
//! program.
//!
//! The child's copies cannot simply be closed: some value in its memory still owns each number, and would later close whatever
//! had got the number by then. So each becomes an unconnected socket. A child that is made by a bare clone(2) keeps its copies, and so
//! does one that has no descriptor free for that socket.
//!
//! # Safety
//!
//! The handler runs in the child alone, where no other thread is, between fork(2) and its return. It makes system calls and loads
//! atomics: nothing that is not allowed in the child of a process with threads. Its numbers are of descriptors that are open: a
//! [`Kept`] goes before the descriptor does.
#![expect(unsafe_code, reason = "registers a handler with pthread_atfork, and replaces descriptors by their numbers")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

const FREE: i32 = -1;
/// A number that is about to be written.
const TAKEN: i32 = -2;
const SLOTS: usize = 256;

/// The numbers. There are as many tables as were ever needed at a time.
struct Table {
    numbers: [AtomicI32; SLOTS],
    next: OnceLock<Box<Table>>,
}

impl Table {
    const fn new() -> Self {
        Self { numbers: [const { AtomicI32::new(FREE) }; SLOTS], next: OnceLock::new() }
    }
}

static FIRST: Table = Table::new();

/// While this lives a child gives the descriptor up.
#[derive(Debug)]
pub(crate) struct Kept(&'static AtomicI32);

impl Drop for Kept {
    fn drop(&mut self) {
        // Release: before the descriptor is closed.
        self.0.store(FREE, Ordering::Release);
    }
}

/// Has children give `fd` up, until the value that this returns is dropped: before `fd` is closed.
pub(crate) fn keep(fd: BorrowedFd<'_>) -> Kept {
    static HANDLER: OnceLock<()> = OnceLock::new();
    HANDLER.get_or_init(|| {
        // SAFETY: the function is there for as long as the process; see above for what it does. Without memory for it there is no
        // handler, and children keep their copies.
        unsafe { libc::pthread_atfork(None, None, Some(give_up)) };
    });
    let mut table = &FIRST;
    loop {
        let free = table
            .numbers
            .iter()
            .find(|number| number.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok());
        if let Some(number) = free {
            number.store(fd.as_raw_fd(), Ordering::Release);
            return Kept(number);
        }
        table = table.next.get_or_init(|| Box::new(Table::new()));
    }
}

/// In the child.
extern "C" fn give_up() {
    let mut stand_in = None;
    let mut table = Some(&FIRST);
    while let Some(Table { numbers, next }) = table {
        for number in numbers {
            let number = number.load(Ordering::Acquire);
            if number >= 0 {
                let stand_in = *stand_in.get_or_insert_with(unconnected);
                if stand_in >= 0 {
                    // SAFETY: a system call that replaces the child's copy of a descriptor that this library owns.
                    unsafe { libc::dup3(stand_in, number, libc::O_CLOEXEC) };
                }
            }
        }
        table = next.get().map(|next| &**next);
    }
    if let Some(stand_in) = stand_in.filter(|number| *number >= 0) {
        // SAFETY: made below, and owned by nobody else.
        unsafe { libc::close(stand_in) };
    }
}

/// A socket that is connected to nothing, or -1.
fn unconnected() -> i32 {
    // SAFETY: a system call that makes a descriptor.
    unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn there_is_a_place_for_any_number_and_each_is_used_again() {
        let file = std::fs::File::open("/dev/null").unwrap();
        for _ in 0..3 {
            let kept: Vec<_> = (0..2 * SLOTS + 10).map(|_| keep(file.as_fd())).collect();
            let number = file.as_raw_fd();
            assert!(kept.iter().all(|one| one.0.load(Ordering::Acquire) == number));
        }
        let tables = std::iter::successors(Some(&FIRST), |table| table.next.get().map(|next| &**next)).count();
        assert!((3..=4).contains(&tables), "{tables} tables");
    }
}
