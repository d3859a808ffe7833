//! recvmsg(2) on UNIX sockets, with credentials, descriptors and pidfds.
//!
//! rustix makes a number that may not be 0 of the sender's pid, which is 0 for a process that cannot be seen from here; nix
//! loses the descriptors that came when others did not fit. So the control data are taken apart here, as plain bytes.
//!
//! # Safety
//!
//! The kernel writes to memory that the caller of [`recvmsg`] borrows mutably and to values on its stack. It is trusted to
//! number in SCM_RIGHTS and SCM_PIDFD only descriptors that it has just made for this process.
#![expect(
    unsafe_code,
    reason = "neither rustix nor nix can receive a pid of 0 and keep descriptors of truncated control data"
)]

use std::io::IoSliceMut;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::last_errno;

/// Control data: `u64` for their alignment.
pub(crate) const fn control_words(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).div_ceil(ALIGNMENT)
}

/// The header of a control message, `cmsghdr`: a length of one word, a level and a type of half a word each.
const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
const ALIGNMENT: usize = size_of::<u64>();
/// `SCM_PIDFD` of linux/socket.h.
const SCM_PIDFD: i32 = 4;
const _: () = assert!(HEADER_BYTES == 16 && size_of::<libc::ucred>() == 12);

/// What came with a message, besides its bytes.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// `msg_flags`.
    pub(crate) flags: i32,
    pub(crate) credentials: Option<RawCredentials>,
    pub(crate) fds: Vec<OwnedFd>,
    /// The sender's process, where the socket was set to receive it and the kernel could make the descriptor.
    pub(crate) pidfd: Option<OwnedFd>,
    /// The name of the sender, where it was asked for.
    pub(crate) name: RawName,
}

/// `struct ucred`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawCredentials {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// `struct sockaddr_un`, and how much of it the kernel filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawName {
    address: libc::sockaddr_un,
    len: usize,
}

impl Default for RawName {
    fn default() -> Self {
        Self { address: libc::sockaddr_un { sun_family: 0, sun_path: [0; 108] }, len: 0 }
    }
}

impl RawName {
    /// The name: nothing for a socket without one, a leading NUL for an abstract one, a path otherwise.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let len = self.len.saturating_sub(size_of::<libc::sa_family_t>());
        let bytes: Vec<u8> = self.address.sun_path.iter().take(len).flat_map(|char| char.to_ne_bytes()).collect();
        match bytes.first() {
            None | Some(0) => bytes,
            Some(_) => bytes.into_iter().take_while(|&byte| byte != 0).collect(),
        }
    }
}

/// recvmsg(2): returns how many bytes were stored, or, with MSG_TRUNC among `flags`, how many there were. What else came
/// replaces all of `received`, which is filled in place since to move it about would cost as much as a part of the call.
///
/// Descriptors are closed on exec. Without `control`, credentials and descriptors show only as MSG_CTRUNC.
pub(crate) fn recvmsg(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    control: &mut [u64],
    with_name: bool,
    flags: i32,
    received: &mut Received,
) -> Result<usize, Errno> {
    // SAFETY: all of `msghdr` may be zero: null pointers with lengths of 0.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    if with_name {
        header.msg_name = (&raw mut received.name.address).cast();
        header.msg_namelen = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    }
    // An IoSliceMut has the layout of an iovec, as std promises.
    header.msg_iov = buffers.as_mut_ptr().cast();
    header.msg_iovlen = buffers.len() as _;
    // With a null pointer the kernel does not prepare what it has no room for.
    if !control.is_empty() {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(control) as _;
    }
    // SAFETY: every pointer of `header` was just taken from a value that is writable, as long as its length says, and
    // borrowed until the function returns; the kernel keeps none of them. Any bytes are a valid `sockaddr_un`.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags | libc::MSG_CMSG_CLOEXEC) };
    let bytes = usize::try_from(got).map_err(|_| last_errno())?;
    received.flags = header.msg_flags;
    received.name.len = header.msg_namelen as usize;
    received.credentials = None;
    received.fds.clear();
    received.pidfd = None;
    #[allow(clippy::unnecessary_cast, reason = "a u32 with musl")]
    let control_bytes = header.msg_controllen as usize;
    let adopt = |fd: u32| {
        // SAFETY: the kernel made this descriptor for this process a moment ago; nobody else knows its number.
        unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) }
    };
    for_each_part(control, control_bytes, |kind, payload| match kind {
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => received.credentials = credentials(payload),
        (libc::SOL_SOCKET, libc::SCM_RIGHTS) => received.fds.extend(payload.map(adopt)),
        // In place of a descriptor that it could not make the kernel puts a negative errno.
        (libc::SOL_SOCKET, SCM_PIDFD) => {
            received.pidfd = payload.next().filter(|fd| fd.cast_signed() >= 0).map(adopt);
        }
        _ => {}
    });
    Ok(bytes)
}

/// Takes the first `len` bytes of the control data apart: `each` gets the level and type of a message, and its payload as
/// 32-bit numbers. The kernel pads every message to whole words.
fn for_each_part(control: &[u64], len: usize, mut each: impl FnMut((i32, i32), &mut dyn Iterator<Item = u32>)) {
    let mut rest = &control[..len.div_ceil(ALIGNMENT).min(control.len())];
    while let [length, kind, payload @ ..] = rest {
        let Some(payload_len) = (*length as usize).checked_sub(HEADER_BYTES) else { return };
        let words = payload_len.div_ceil(ALIGNMENT).min(payload.len());
        let [level, kind] = halves(*kind).map(u32::cast_signed);
        let numbers = payload_len / size_of::<u32>();
        each((level, kind), &mut payload[..words].iter().flat_map(|word| halves(*word)).take(numbers));
        rest = &payload[words..];
    }
}

/// The two 32-bit numbers that lie in one word.
fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// `struct ucred`; nothing when it is not complete.
fn credentials(payload: &mut dyn Iterator<Item = u32>) -> Option<RawCredentials> {
    let mut next = || payload.next();
    Some(RawCredentials { pid: next()?.cast_signed(), uid: next()?, gid: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: i32, payload: &[u32]) -> Vec<u64> {
        let mut bytes = (HEADER_BYTES + payload.len() * 4).to_ne_bytes().to_vec();
        bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload.iter().flat_map(|half| half.to_ne_bytes()));
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.chunks(ALIGNMENT).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
    }

    fn parsed(words: &[u64], len: usize) -> Vec<(i32, Vec<u32>)> {
        let mut parts = Vec::new();
        for_each_part(words, len, |(_, kind), payload| parts.push((kind, payload.collect())));
        parts
    }

    #[test]
    fn a_pid_of_0_and_messages_of_other_kinds_are_no_problem() {
        let mut words = message(0x7777, &[1, 2, 3, 4, 5]);
        words.extend(message(libc::SCM_CREDENTIALS, &[0, 65_534, 65_534]));
        let parts = parsed(&words, words.len() * ALIGNMENT);
        assert_eq!(parts, [(0x7777, vec![1, 2, 3, 4, 5]), (libc::SCM_CREDENTIALS, vec![0, 65_534, 65_534])]);
        let found = credentials(&mut parts[1].1.iter().copied());
        assert_eq!(found, Some(RawCredentials { pid: 0, uid: 65_534, gid: 65_534 }));
    }

    #[test]
    fn control_data_that_end_too_early_give_what_is_there() {
        let words = message(libc::SCM_CREDENTIALS, &[1, 2, 3]);
        for len in 0..words.len() * ALIGNMENT - ALIGNMENT {
            for (_, payload) in parsed(&words, len) {
                assert_eq!(credentials(&mut payload.into_iter()), None, "{len} bytes");
            }
        }
        assert_eq!(parsed(&[0; 8], 64), [], "a length of 0");
        assert_eq!(parsed(&[u64::MAX; 4], 32), [(-1, vec![u32::MAX; 4])], "a length beyond the end");
    }
}
