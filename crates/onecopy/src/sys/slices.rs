//! [sched_setattr(2)](https://man7.org/linux/man-pages/man2/sched_setattr.2.html): short turns on a processor, which begin soon.
//!
//! # Safety
//!
//! The functions hand the kernel a pointer to a structure of this file's own, with its length.
#![expect(unsafe_code, reason = "neither rustix nor nix has sched_setattr")]

/// `struct sched_attr` as every kernel has it that has the call.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

const BYTES: u32 = 48;
const _: () = assert!(size_of::<Attributes>() == BYTES as usize);

/// The least that the kernel gives.
const SLICE_NS: u64 = 100_000;

/// Has the kernel give the calling thread its turns soon, also where others have just begun theirs, which are longer; in return the
/// thread's turns are short (Linux 6.12). One that sleeps nearly always and then has little to do loses nothing by that. Does nothing
/// for a thread that has another policy than the usual one, and where the kernel does not do it.
pub(crate) fn take_short_slices() {
    let mut attributes = Attributes::default();
    // SAFETY: writable, and as long as the call is told.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, BYTES, 0) };
    if got != 0 || attributes.policy != libc::SCHED_OTHER.cast_unsigned() {
        return;
    }
    (attributes.size, attributes.runtime_ns) = (BYTES, SLICE_NS);
    // SAFETY: readable, and as long as its first word says. A refusal changes nothing.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}
