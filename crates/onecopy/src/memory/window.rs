//! Windows: memory of one process that others read and write with one copy, by cross-memory attach, without its help.
//!
//! The kernel's two calls need an address, which has to travel some other way. So a process exposes some bytes and gets a
//! [`Token`]: 80 bytes, or a line of text, that go to the other side over any mechanism. Whoever opens it there gets a
//! [`RemoteWindow`], whose [`get`](RemoteWindow::get) and [`put`](RemoteWindow::put) are the one-sided operations of MPI.
//!
//! | Exposed with | What others may do | What happens to the memory when it is closed |
//! |---|---|---|
//! | [`ReadWindow`] over bytes that it owns | read | given back, to be changed or freed |
//! | [`with_read_window`] over borrowed bytes | read, until the closure returns | back with the caller |
//! | [`WriteWindow`] over a [`Buffer`] | read and write | retired: its addresses are never used again |
//!
//! # Never wrong bytes
//!
//! A token names the process by pid and start time, and a number drawn at random that stands in its memory while the window is
//! open. Each read takes that number after the bytes, in the same system call, and so from the same address space: a window
//! that was closed, a process that executed another program or was given a recycled pid is an error for which
//! [`Error::is_peer_gone`](crate::Error::is_peer_gone) holds. The caller's buffer holds anything then.
//!
//! Bytes that the owner changes while they are read arrive as any mixture of old and new, as with all shared memory.
//!
//! # Who writes whose memory
//!
//! What was begun by process_vm_writev(2) cannot be called back: it may go on landing after the writer was stopped or killed.
//! So only memory of the library is ever written by others, and its addresses are given up for good when the window closes: a
//! late write fails, and changes nothing that this process uses. A write can tell only afterwards that the process had executed
//! another program at that moment. Where that matters, let the owner fetch: expose the bytes for reading, send it the token,
//! and have it [`get`](RemoteWindow::get) them.
//!
//! # Rights
//!
//! The rights of a token keep accidents away and not somebody who means harm: the kernel knows only "may attach" and "may
//! not", and who may attach can read and write all of the other process. Where a right must bind, share sealed memory
//! ([`anonymous`](super::anonymous)) instead, for which the kernel enforces it.
//!
//! Both processes have to be in one pid namespace, since they know each other by number.
//!
//! ```
//! use onecopy::memory::window::{ReadWindow, RemoteWindow, Token};
//!
//! let window = ReadWindow::expose(vec![7_u8; 1 << 20])?;
//! let text = window.token().to_string(); // goes to the other process
//!
//! let token: Token = text.parse()?;
//! # if std::fs::read("/proc/self/status").is_ok_and(|status| status.windows(11).any(|line| line == b"Seccomp:\t2\n")) { return Ok(()) }
//! let remote = RemoteWindow::open(&token)?;
//! let mut copy = vec![0; remote.len()];
//! remote.get(0, &mut copy)?;
//! assert_eq!(copy, *window);
//!
//! drop(window);
//! assert!(remote.get(0, &mut copy).unwrap_err().is_peer_gone());
//! # Ok::<(), onecopy::Error>(())
//! ```

mod expose;
mod remote;
mod strided;
mod token;

pub use expose::{ReadWindow, Source, WriteWindow, with_read_window};
pub use remote::RemoteWindow;
pub use strided::Strided;
pub use token::{Rights, TOKEN_BYTES, Token};

#[cfg(doc)]
use super::buffer::Buffer;
