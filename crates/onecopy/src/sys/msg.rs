//! System V message queues.
//!
//! # Safety
//!
//! A queue is named by a plain number, so anyone may call these functions; a wrong number is an error of the kernel. A message
//! lies in a [`Msgbuf`], whose memory begins with the type as the kernel demands; its length is checked against that memory
//! before each call, and the kernel keeps no pointer.
#![expect(unsafe_code, reason = "neither rustix nor nix has System V queues")]

use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

use super::last_errno;

/// The length of the type in front of a message, in bytes.
const TYPE_BYTES: usize = size_of::<libc::c_long>();

/// `struct msgbuf`: the type of a message, then its bytes. Kept and used again, so that its pages stay mapped.
#[derive(Debug, Default)]
pub(crate) struct Msgbuf {
    /// Words, for the alignment of the type. The first is the type.
    words: Vec<i64>,
}

impl Msgbuf {
    /// Makes room for `bytes`.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        let words = 1 + bytes.div_ceil(TYPE_BYTES);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    fn room(&self) -> usize {
        self.words.len().saturating_sub(1) * TYPE_BYTES
    }

    fn message_type(&self) -> i64 {
        self.words.first().copied().unwrap_or(0)
    }

    /// Puts a message in.
    pub(crate) fn fill(&mut self, message_type: i64, message: &[u8]) {
        self.reserve(message.len());
        self.words[0] = message_type;
        self.bytes_mut()[..message.len()].copy_from_slice(message);
    }

    /// The bytes behind the type.
    pub(crate) fn bytes(&self) -> &[u8] {
        zerocopy::IntoBytes::as_bytes(self.words.get(1..).unwrap_or_default())
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        zerocopy::IntoBytes::as_mut_bytes(self.words.get_mut(1..).unwrap_or_default())
    }
}

/// msgget(2).
pub(crate) fn get(key: i32, flags: i32) -> Result<i32, Errno> {
    // SAFETY: msgget has no preconditions.
    let id = unsafe { libc::msgget(key, flags) };
    if id < 0 { Err(last_errno()) } else { Ok(id) }
}

/// msgsnd(2) of the first `len` bytes.
///
/// # Panics
///
/// When `message` holds fewer bytes.
pub(crate) fn send(id: i32, message: &Msgbuf, len: usize, flags: i32) -> Result<(), Errno> {
    assert!(len <= message.room() && !message.words.is_empty());
    // SAFETY: the buffer holds a type and, as just asserted, `len` bytes behind it.
    let result = unsafe { libc::msgsnd(id, message.words.as_ptr().cast(), len, flags) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// msgrcv(2) of at most `len` bytes: the length of the message and its type.
///
/// # Panics
///
/// When `message` has room for fewer bytes.
pub(crate) fn receive(
    id: i32,
    message: &mut Msgbuf,
    len: usize,
    selector: i64,
    flags: i32,
) -> Result<(usize, i64), Errno> {
    assert!(len <= message.room() && !message.words.is_empty());
    // SAFETY: the buffer has room for a type and, as just asserted, `len` bytes behind it.
    let count = unsafe { libc::msgrcv(id, message.words.as_mut_ptr().cast(), len, selector, flags) };
    usize::try_from(count).map(|count| (count, message.message_type())).map_err(|_| last_errno())
}

/// msgctl(2) with IPC_STAT.
pub(crate) fn status(id: i32) -> Result<libc::msqid_ds, Errno> {
    let mut status = MaybeUninit::<libc::msqid_ds>::uninit();
    // SAFETY: `status` is writable and of the type that IPC_STAT fills in.
    if unsafe { libc::msgctl(id, libc::IPC_STAT, status.as_mut_ptr()) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: IPC_STAT succeeded, so it filled `status` in.
    Ok(unsafe { status.assume_init() })
}

/// msgctl(2) with IPC_SET.
pub(crate) fn set(id: i32, status: &mut libc::msqid_ds) -> Result<(), Errno> {
    // SAFETY: `status` is initialised; IPC_SET reads it.
    if unsafe { libc::msgctl(id, libc::IPC_SET, ptr::from_mut(status)) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// msgctl(2) with IPC_RMID.
pub(crate) fn remove(id: i32) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no pointer.
    if unsafe { libc::msgctl(id, libc::IPC_RMID, ptr::null_mut()) } < 0 { Err(last_errno()) } else { Ok(()) }
}
