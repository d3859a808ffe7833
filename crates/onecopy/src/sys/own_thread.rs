//! [tgkill(2)](https://man7.org/linux/man-pages/man2/tgkill.2.html) with no signal: whether a thread is one of this process.
//!
//! # Safety
//!
//! Without a signal the call changes nothing.
#![expect(unsafe_code, reason = "neither rustix nor nix has tgkill")]

use rustix::io::Errno;

use super::last_errno;

/// Whether `number` is that of a thread of this process, also where no /proc counts as it does. Where a filter keeps the kernel from
/// telling, it may be one.
pub(crate) fn may_be_own(number: u32) -> bool {
    // SAFETY: numbers alone; 0 is no signal.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), number, 0) };
    result == 0 || !matches!(last_errno(), Errno::SRCH | Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_this_process_is_told_from_others() {
        let own = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        assert!(may_be_own(own) && may_be_own(std::process::id()));
        for other in [0, std::os::unix::process::parent_id(), i32::MAX.cast_unsigned(), u32::MAX] {
            assert!(!may_be_own(other), "{other}");
        }
    }
}
