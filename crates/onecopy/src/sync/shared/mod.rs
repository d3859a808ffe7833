//! What the locks in shared memory (rows 19, 22 and 25 to 28) have in common: where they lie, how they are created once by any
//! number of processes, and the refusal of what is none of ours.
//!
//! A [`Place`] is an offset in a [`Region`]: anonymous memory that a child inherits or a socket passes, POSIX and System V shared
//! memory, a file. Each process may map it at another address. An object that finds nothing there is created; whoever attaches
//! while it is being created waits. When its creator is killed meanwhile, the next one that creates it does so anew, and whoever
//! only attaches is told.
//!
//! # Whom it trusts
//!
//! A robust mutex keeps the addresses of its neighbours in a list, in the shared words: whoever writes them makes its next owner
//! write to an address of their choosing at unlock. So all who can write the region are trusted not to. [`Place::new`] looks
//! who they are: this user and root, who could trace this process or load code into it in any case. For memory
//! that others may write there is [`Place::trusting`], which is `unsafe` and leaves that to the caller.
//! Safe code shares memory that only those processes receive whom it trusts: a memfd that it makes and passes, an object of mode
//! 0600, [`for_children`](crate::memory::anonymous::for_children).
//!
//! The same processes are trusted not to shorten an object that can be shortened (a file, a POSIX shared memory object), nor to
//! punch holes into it: the next access would be a SIGBUS. Its length and its room are checked when an object in it is opened.
//!
//! # What else this process does with the bytes
//!
//! While it has a handle of an object, nothing else: [`Region::write_at`] into the header, the object, or what it protects is an
//! error, and so is each other object, [ring](crate::memory::ring) or [transport](crate::memory::attach) that would reach into them,
//! also by way of another mapping of the same memory. Handles of one object are no others. A mutex that this library, or a program
//! which does the same, has not made as it makes them is refused.
//!
//! The library does not see all that a program can do. It trusts it, as it trusts other processes, not to
//!
//! - write the memory by a descriptor or a path of it: a memfd that was cloned or passed, the file, `/proc/self/mem`;
//! - write it by way of another process that has it mapped, by cross-memory attach;
//! - open an object where another thread is in the middle of a [`Region::write_at`] that began before.
//!
//! # For programs in other languages
//!
//! In front of each object stands a header of 128 bytes; the object itself, as the C library has it, begins at byte 128, what a
//! mutex or a read-write lock protects at byte 192. A program in C that finds the magic number, the version and the kind, and
//! reads 2^63 as the state, may use the object. One that creates an object writes all but the state, and that last.
//!
//! ```c
//! struct onecopy_object {              /* at a multiple of 64 bytes */
//!     char     magic[8];               /*   0  "1copysyn" */
//!     uint32_t version;                /*   8  1 */
//!     uint32_t kind;                   /*  12  1 semaphore, 2 futex, 3 mutex, 4 condvar, 5 barrier, 6 rwlock */
//!     _Atomic uint64_t state;          /*  16  0 nothing yet, 1 << 63 ready, else whoever creates it */
//!     uint64_t total_bytes;            /*  24  192 + payload_bytes */
//!     uint32_t object_offset;          /*  32  128 */
//!     uint32_t object_bytes;           /*  36  sizeof(pthread_mutex_t) and so on; a futex word has 4 */
//!     uint32_t payload_offset;         /*  40  192 */
//!     uint32_t payload_align;          /*  44  1 without a payload */
//!     uint64_t payload_bytes;          /*  48  0 without a payload */
//!     char     c_library[8];           /*  56  "glibc" or "musl" */
//!     uint64_t pid_namespace;          /*  64  st_ino of /proc/self/ns/pid */
//!     char     boot_id[36];            /*  72  /proc/sys/kernel/random/boot_id */
//!     uint32_t detail;                 /* 108  parties of a barrier; 1 for a mutex with priority inheritance; else 0 */
//!     char     reserved[16];           /* 112  zeros */
//!     union {                          /* 128  all PTHREAD_PROCESS_SHARED */
//!         sem_t              semaphore;
//!         uint32_t           futex;
//!         pthread_mutex_t    mutex;    /*      PTHREAD_MUTEX_ROBUST, PTHREAD_MUTEX_ERRORCHECK */
//!         pthread_cond_t     condvar;  /*      CLOCK_MONOTONIC */
//!         pthread_barrier_t  barrier;
//!         pthread_rwlock_t   rwlock;   /*      glibc: PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP */
//!         char               room[64];
//!     };
//!     char payload[];                  /* 192 */
//! };
//! ```
//!
//! # Fork and exec
//!
//! A child made by fork has the mapping and the object, and holds nothing that its parent holds. The guards of which it has copies
//! are its parent's: it does not use them, and to drop them releases nothing. A child in another pid namespace uses none of these
//! objects, since its threads have numbers that others have here. A program that takes the place of another by exec gives up what that
//! held: the next owner of a mutex is told that the owner died. What a process holds is bound to the thread that took it.

#[cfg(not(loom))]
mod contents;
mod header;
mod place;
mod slot;

pub use place::Place;

#[cfg(not(loom))]
pub(crate) use contents::contents;

pub(super) use header::{Kind, Spec};
pub(super) use slot::{Slot, Wish};

use std::time::Duration;

use crate::Deadline;
#[cfg(doc)]
use crate::memory::Region;

/// The length of the header in front of an object.
pub const HEADER_BYTES: usize = 128;
/// The room for an object behind its header: no pthread type of a C library of Linux has more.
pub const OBJECT_ROOM_BYTES: usize = 64;
/// The offset of an object in its region is a multiple of this.
pub const ALIGNMENT: usize = 64;

/// How many bytes an object needs whose payload has `payload_bytes` bytes, up to where the next one can begin.
#[must_use]
pub const fn room_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + OBJECT_ROOM_BYTES + payload_bytes).next_multiple_of(ALIGNMENT)
}

/// How long a creation waits for another one to end, of which it can then only tell that it came first.
pub(super) fn settled() -> Deadline {
    Deadline::after(Duration::from_secs(1))
}
