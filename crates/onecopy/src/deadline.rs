//! How long an operation may wait.

use std::time::{Duration, Instant};

use rustix::event::Timespec;

/// How long an operation may wait before it gives up.
///
/// A timeout becomes an absolute point of the monotonic clock once, where it enters the program; everything below works
/// with that point, so that retries and partial transfers never stretch it.
///
/// ```
/// use std::time::Duration;
/// use onecopy::Deadline;
///
/// let deadline = Deadline::after(Duration::from_millis(20));
/// assert!(!deadline.has_passed());
/// assert!(Deadline::Now.has_passed());
/// assert!(!Deadline::Never.has_passed());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Do not wait at all: what cannot be done at once is [`Error::WouldBlock`](crate::Error::WouldBlock).
    Now,
    /// Wait until this instant, then fail with [`Error::TimedOut`](crate::Error::TimedOut).
    At(Instant),
    /// Wait for as long as it takes.
    Never,
}

impl Deadline {
    /// The deadline `timeout` from now. A timeout beyond what the clock can hold is [`Deadline::Never`].
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Self::Never, Self::At)
    }

    /// Whether nothing may be waited for any more.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }

    /// The time that is left; `None` means without limit.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        match self {
            Self::Now => Some(Duration::ZERO),
            Self::At(instant) => Some(instant.saturating_duration_since(Instant::now())),
            Self::Never => None,
        }
    }

    /// The earlier of this deadline and `slice` from now: for waits that must look up now and then.
    #[must_use]
    pub fn at_most(self, slice: Duration) -> Self {
        match self.remaining() {
            Some(left) if left <= slice => self,
            _ => Self::after(slice),
        }
    }

    /// The earlier of this deadline and `instant`.
    pub(crate) fn earlier(self, instant: Instant) -> Instant {
        match self {
            Self::At(own) => own.min(instant),
            Self::Now | Self::Never => instant,
        }
    }

    /// The time left in the form that poll, futex and the timed queue calls take; `None` means without limit.
    pub(crate) fn timespec(self) -> Option<Timespec> {
        self.remaining().map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }
}
