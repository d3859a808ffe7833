//! Rows 29 and 30, signals: [signal(7)](https://man7.org/linux/man-pages/man7/signal.7.html).
//!
//! | | [`standard`] | [`realtime`] |
//! |---|---|---|
//! | Two of the same before one is received | arrive as one | both arrive, in the order of their sending |
//! | Order of several | before real-time ones, lowest number first | lowest number first |
//! | Payload | only of the one that was first | each its own |
//! | Full | never | EAGAIN at RLIMIT_SIGPENDING of the receiver's user |
//!
//! **Received** is by a descriptor ([`SignalReceiver`], [signalfd(2)]), never in a handler: no code of the program runs between
//! two instructions of another. So that a signal waits for the descriptor it must be blocked in every thread, or the kernel gives
//! it to one that does not block it, where its usual action ends the process. [`block`] it first thing in `main`: threads inherit
//! the mask of the thread that starts them. [`SignalReceiver::open`] looks at all threads, and refuses when one would take it.
//!
//! **Children** inherit the mask over fork and exec, and few programs expect to begin with signals blocked: [`unblock_in`] a
//! command that is to be started.
//!
//! **Sent** is through a pidfd ([pidfd_send_signal(2)]), so that no recycled pid is met. A payload is sent as sigqueue(3)
//! does: kill(2) of a real-time signal at a full queue succeeds and drops what it should carry.
//!
//! **Who sent it.** The kernel fills in pid and uid of a signal without a payload. With one ([`Received::is_queued`]) they are what
//! the sender wrote there: believe them as far as you believe everyone who may send here, which is this user and root.
//!
//! **When a sender dies** its signals arrive all the same. When the receiver dies, what it has not received is gone.
//!
//! [signalfd(2)]: https://man7.org/linux/man-pages/man2/signalfd.2.html
//! [pidfd_send_signal(2)]: https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html

pub mod realtime;
mod receiver;
pub mod standard;
mod target;

pub use self::realtime::RealtimeSignal;
pub use self::receiver::{Received, SignalReceiver, block, unblock_in};
pub use self::standard::StandardSignal;
