//! A window that is taken away from its sender: nobody writes into memory that is used for something else.
//!
//! # Safety
//!
//! The window is a cell that tells loom of each access: it fails the model when two overlap of which one writes.
#![expect(unsafe_code, reason = "reaches the cell of a model")]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::control::{Control, Phase, Turn, Writing};
use super::push::close;

#[derive(Default)]
struct Shared {
    control: Control,
    window: UnsafeCell<u8>,
}

// SAFETY: loom fails a model in which two threads use the window at the same time and one of them writes.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    /// With a window that is free, and its turn.
    fn new() -> (Arc<Self>, Turn) {
        let shared = Arc::<Self>::default();
        let idle = Turn::load(&shared.control).next(Phase::Idle);
        idle.store(&shared.control);
        (shared, idle)
    }

    fn write(&self) {
        // SAFETY: as above.
        self.window.with_mut(|byte| unsafe { *byte += 1 });
    }

    /// What a sender does with a message that fits.
    fn send(&self, idle: Turn) -> bool {
        if !Writing::begin(&self.control, idle) {
            return false;
        }
        self.write();
        Writing::end(&self.control);
        idle.change(&self.control, idle.next(Phase::Done))
    }
}

#[test]
fn loom_a_window_is_not_used_again_while_a_sender_may_write_into_it() {
    loom::model(|| {
        let (shared, idle) = Shared::new();
        let theirs = Arc::clone(&shared);
        let sending = thread::spawn(move || theirs.send(idle));
        if !close(&shared.control) {
            shared.write();
        }
        sending.join().unwrap();
    });
}

#[test]
fn loom_a_window_is_exchanged_only_while_its_sender_waits_for_that() {
    loom::model(|| {
        let (shared, idle) = Shared::new();
        let asked = idle.next(Phase::Asked);
        assert!(idle.change(&shared.control, asked));
        let theirs = Arc::clone(&shared);
        // It has run out of time, and then sends a short message.
        let sending = thread::spawn(move || {
            let idle = asked.with(Phase::Idle);
            asked.change(&theirs.control, idle) && theirs.send(idle)
        });
        if asked.change(&shared.control, asked.next(Phase::Closed)) {
            shared.write();
        }
        sending.join().unwrap();
    });
}
