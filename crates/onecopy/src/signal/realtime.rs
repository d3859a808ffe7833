//! Row 30, real-time signals: queued, in order, with a payload.

use rustix::io::Errno;

use super::target::Target;
use crate::address::{Pid, SignalNumber};
use crate::io::wait::Backoff;
use crate::sync::Notify;
use crate::{Deadline, Error, Result};

/// A real-time signal for one process.
///
/// ```no_run
/// use onecopy::address::{Pid, SignalNumber};
/// use onecopy::signal::RealtimeSignal;
///
/// let worker = Pid::new(4711)?;
/// RealtimeSignal::to(worker, SignalNumber::named("RTMIN+1")?)?.send(42)?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct RealtimeSignal(Target);

impl RealtimeSignal {
    /// For the process that has the number `pid` now: one that gets the number later is never meant.
    ///
    /// # Errors
    ///
    /// ESRCH when there is no such process; [`Error::Invalid`] for a standard signal.
    pub fn to(pid: Pid, number: SignalNumber) -> Result<Self> {
        if !number.is_real_time() {
            let reason = format!("{number} is a standard signal, which StandardSignal sends");
            return Err(Error::Invalid { object: format!("signal:{pid}"), reason });
        }
        Target::open(pid, number).map(Self)
    }

    /// Queues it with a payload.
    ///
    /// # Errors
    ///
    /// EAGAIN, with the numbers, when as many signals are pending for the receiver's user as RLIMIT_SIGPENDING of the receiver
    /// allows; ESRCH when the process has exited; EPERM when this user may not send it signals.
    pub fn send(&self, value: i32) -> Result<()> {
        self.0.send(Some(value)).map_err(|errno| self.0.error(errno))
    }

    /// As [`RealtimeSignal::send`], waiting until `deadline` while the queue is full. No descriptor tells when it has room
    /// again, so it is asked every few milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when the queue stayed full; else as [`RealtimeSignal::send`].
    pub fn send_by(&self, value: i32, deadline: Deadline) -> Result<()> {
        let mut backoff = Backoff::new();
        loop {
            match self.0.send(Some(value)) {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN) => backoff.pause(deadline, "send", self.0.object())?,
                Err(errno) => return Err(self.0.error(errno)),
            }
        }
    }
}

impl Notify for RealtimeSignal {
    /// `count` signals with the payload 0. Those that were queued before an error stay queued.
    fn notify_by(&mut self, count: u32, deadline: Deadline) -> Result<()> {
        (0..count).try_for_each(|_| self.send_by(0, deadline))
    }

    fn object(&self) -> &str {
        self.0.object()
    }
}
