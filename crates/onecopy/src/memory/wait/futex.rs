//! The system calls by which a side sleeps and the other one wakes it, or what stands for them in a model.

use rustix::io::Errno;

#[cfg(not(loom))]
pub(super) use calls::{sleep, wake, wake_own};
#[cfg(loom)]
pub(super) use model::{sleep, wake, wake_own};

#[cfg(not(loom))]
mod calls {
    use rustix::thread::futex;
    use rustix::time::{ClockId, clock_gettime};

    use super::super::{ASLEEP, Alarm, SLICE};
    use super::Errno;
    use crate::Deadline;
    use crate::atomic::AtomicU32;
    use crate::sys::futex::waiter;

    /// Sleeps until somebody wakes `word` or `alarm`; for at most a slice where the kernel cannot do both.
    pub(in super::super) fn sleep(word: &AtomicU32, alarm: Option<&Alarm>, deadline: Deadline) -> Result<(), Errno> {
        if let Some(alarm) = alarm {
            match sleep_on_both(word, alarm, deadline) {
                // Linux before 5.16, or a filter that knows no such call.
                Err(Errno::NOSYS | Errno::PERM) => {}
                result => return result,
            }
        }
        let timeout = deadline.at_most(SLICE).timespec();
        futex::wait(word, futex::Flags::empty(), ASLEEP, timeout.as_ref())
    }

    /// futex_waitv(2) on the word that the peer wakes, while it is [`ASLEEP`], and on the one of this process, while it is 0. It takes
    /// a point of the clock, where futex(2) takes a time.
    fn sleep_on_both(word: &AtomicU32, alarm: &Alarm, deadline: Deadline) -> Result<(), Errno> {
        let waiters =
            [waiter(word, ASLEEP, futex::WaitFlags::empty()), waiter(&alarm.word, 0, futex::WaitFlags::PRIVATE)];
        let end = deadline.timespec().map(|left| clock_gettime(ClockId::Monotonic) + left);
        futex::waitv(&waiters, futex::WaitvFlags::empty(), end.as_ref(), ClockId::Monotonic).map(drop)
    }

    /// Wakes the side that sleeps on `word`.
    pub(in super::super) fn wake(word: &AtomicU32) {
        // The only errors are of a bad address, which cannot occur.
        let _ = futex::wake(word, futex::Flags::empty(), 1);
    }

    /// Wakes all threads of this process that sleep on `word`.
    pub(in super::super) fn wake_own(word: &AtomicU32) {
        // As above.
        let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

#[cfg(loom)]
mod model {
    use super::super::{ASLEEP, Alarm};
    use super::Errno;
    use crate::Deadline;
    use crate::atomic::{AtomicU32, sleep_on, wake_all};

    pub(in super::super) fn sleep(word: &AtomicU32, alarm: Option<&Alarm>, _: Deadline) -> Result<(), Errno> {
        match alarm {
            Some(alarm) => sleep_on(&[(word, ASLEEP), (&alarm.word, 0)]),
            None => sleep_on(&[(word, ASLEEP)]),
        }
        Ok(())
    }

    pub(in super::super) fn wake(word: &AtomicU32) {
        wake_all(word);
    }

    pub(in super::super) fn wake_own(word: &AtomicU32) {
        wake_all(word);
    }
}
