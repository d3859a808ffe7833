//! Standard descriptors that this process was started without (`>&-`, `<&-`).
//!
//! The standard library opens /dev/null in their place before `main`, so that no other file gets their numbers. What is written there is
//! lost without an error, and what is read there looks like all there is. So something else is opened before that, which cannot be written
//! nor read, by whatever name (`/dev/stdout`); and a verb that needs the descriptor says so before it receives or sends anything.
//!
//! # Safety
//!
//! What runs before `main` is a function of this file, which needs nothing of the standard library, has no panic, and starts no thread.
#![expect(unsafe_code, reason = "has the C library call a function before the standard library begins")]

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_getfd};
use rustix::stdio::{stdin, stdout};

static LACKS_STDIN: AtomicBool = AtomicBool::new(false);
static LACKS_STDOUT: AtomicBool = AtomicBool::new(false);

#[used]
// SAFETY: the C library calls what stands in this section before `main`, without arguments that such a function would have to take.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = hold_places;

/// Takes the numbers of stdin and stdout where they are free.
extern "C" fn hold_places() {
    for (standard, lacks) in [(stdin(), &LACKS_STDIN), (stdout(), &LACKS_STDOUT)] {
        if fcntl_getfd(standard) == Err(Errno::BADF) {
            // Relaxed: there is one thread.
            lacks.store(true, Ordering::Relaxed);
            // A new descriptor has the lowest free number, and those below this one are taken by now.
            // A command that is run (`lock`) is to lack it too.
            let place = open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            place.into_iter().for_each(std::mem::forget);
        }
    }
}

/// Whether there was no stdin.
pub(crate) fn lacks_stdin() -> bool {
    LACKS_STDIN.load(Ordering::Relaxed)
}

/// Whether there was no stdout.
pub(crate) fn lacks_stdout() -> bool {
    LACKS_STDOUT.load(Ordering::Relaxed)
}
