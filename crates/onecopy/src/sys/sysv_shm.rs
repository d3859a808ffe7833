//! System V shared memory: [shmget(2)](https://man7.org/linux/man-pages/man2/shmget.2.html), shmat, shmdt, shmctl.
//!
//! # Safety
//!
//! An [`Attachment`] owns one attached range: the address comes from shmat with a null hint, so nothing else lives there, and
//! only its drop detaches it. Who reads or writes the range keeps the rules of `memory::region`.
#![expect(unsafe_code, reason = "neither rustix nor nix has System V shared memory")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

/// The size of a segment was never 0 (shmget(2)), so 0 as a wish fits every segment that exists.
pub(crate) const ANY_SIZE: usize = 0;

/// The identifier of the segment with `key`; `flags` are IPC_CREAT, IPC_EXCL and a mode.
pub(crate) fn get(key: i32, len: usize, flags: i32) -> io::Result<i32> {
    // SAFETY: shmget has no preconditions: every key, length and flag that the kernel does not like is an error.
    positive(unsafe { libc::shmget(key, len, flags) })
}

/// What the kernel knows of a segment (IPC_STAT).
pub(crate) fn stat(id: i32) -> io::Result<libc::shmid_ds> {
    let mut info = MaybeUninit::uninit();
    // SAFETY: `info` is writable and as large as the answer.
    positive(unsafe { libc::shmctl(id, libc::IPC_STAT, info.as_mut_ptr()) })?;
    // SAFETY: filled in by the call above, which succeeded.
    Ok(unsafe { info.assume_init() })
}

/// Sets the permissions of a segment (IPC_SET).
#[allow(clippy::useless_conversion, reason = "the field has 16 bits on x86-64 and 32 on aarch64")]
pub(crate) fn set_mode(id: i32, mode: u16) -> io::Result<()> {
    let mut info = stat(id)?;
    info.shm_perm.mode = mode.into();
    // SAFETY: `info` is an initialised structure, from which the kernel takes the owner and the mode.
    positive(unsafe { libc::shmctl(id, libc::IPC_SET, &raw mut info) }).map(drop)
}

/// Marks a segment for removal (IPC_RMID).
pub(crate) fn remove(id: i32) -> io::Result<()> {
    // SAFETY: IPC_RMID takes no structure, and every wrong id is an error.
    positive(unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) }).map(drop)
}

/// A segment in this process's address space, detached on drop.
#[derive(Debug)]
pub(crate) struct Attachment(NonNull<u8>);

impl Attachment {
    /// Attaches a segment at an address that the kernel chooses; `flags` are 0 or SHM_RDONLY.
    pub(crate) fn new(id: i32, flags: i32) -> io::Result<Self> {
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let base = unsafe { libc::shmat(id, ptr::null(), flags & libc::SHM_RDONLY) };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().addr() != usize::MAX => Ok(Self(base)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The first byte. The range stays attached until [`Attachment::from_base`] takes it back.
    pub(crate) fn into_base(self) -> NonNull<u8> {
        let base = self.0;
        std::mem::forget(self);
        base
    }

    /// Takes back what [`Attachment::into_base`] gave up.
    ///
    /// # Safety
    ///
    /// `base` came from `into_base` and is given back once; nobody uses the range from now on but through the result.
    pub(crate) unsafe fn from_base(base: NonNull<u8>) -> Self {
        Self(base)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: the address is that of an attached segment, which `self` owns. The only error, of a bad address, cannot
        // occur.
        unsafe { libc::shmdt(self.0.as_ptr().cast()) };
    }
}

fn positive(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_segment_is_attached_counted_and_removed() {
        let id = get(libc::IPC_PRIVATE, 4096, 0o600).unwrap();
        let attachment = Attachment::new(id, 0);
        let attached = stat(id).map(|info| info.shm_nattch);
        remove(id).unwrap();
        let base = attachment.unwrap().into_base();
        assert_eq!(attached.unwrap(), 1);
        // SAFETY: given back once, and not used any more.
        drop(unsafe { Attachment::from_base(base) });
        assert_eq!(stat(id).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(Attachment::new(-1, 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
