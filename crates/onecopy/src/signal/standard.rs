//! Row 29, standard signals, of which two that are sent before one is received arrive as one.

use super::target::Target;
use crate::address::{Pid, SignalNumber};
use crate::sync::Notify;
use crate::{Deadline, Error, Result};

/// A standard signal for one process.
///
/// ```no_run
/// use onecopy::address::{Pid, SignalNumber};
/// use onecopy::signal::StandardSignal;
///
/// let worker = Pid::new(4711)?;
/// StandardSignal::to(worker, SignalNumber::named("USR1")?)?.send()?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct StandardSignal(Target);

impl StandardSignal {
    /// For the process that has the number `pid` now: one that gets the number later is never meant.
    ///
    /// # Errors
    ///
    /// ESRCH when there is no such process; [`Error::Invalid`] for a real-time signal.
    pub fn to(pid: Pid, number: SignalNumber) -> Result<Self> {
        if number.is_real_time() {
            let reason = format!("{number} is a real-time signal, which RealtimeSignal sends");
            return Err(Error::Invalid { object: format!("signal:{pid}"), reason });
        }
        Target::open(pid, number).map(Self)
    }

    /// Sends it. While one is pending, another one adds nothing.
    ///
    /// # Errors
    ///
    /// ESRCH when the process has exited; EPERM when this user may not send it signals.
    pub fn send(&self) -> Result<()> {
        self.0.send(None).map_err(|errno| self.0.error(errno))
    }

    /// Sends it with a payload, which the receiver sees if it is the first one pending.
    ///
    /// # Errors
    ///
    /// As [`StandardSignal::send`]; a full queue takes the signal and drops the payload.
    pub fn send_value(&self, value: i32) -> Result<()> {
        self.0.send(Some(value)).map_err(|errno| self.0.error(errno))
    }
}

impl Notify for StandardSignal {
    /// However often, it is one signal unless the receiver takes it in between.
    fn notify_by(&mut self, count: u32, _deadline: Deadline) -> Result<()> {
        if count == 0 { Ok(()) } else { self.send() }
    }

    fn object(&self) -> &str {
        self.0.object()
    }
}
