//! The baseline for latency, taken beside each run that is compared with it: on some virtual machines it is 50 ns now and 500 a second
//! later, when a core is somewhere else.

use std::time::Duration;

use crate::control::{Check, Meeting, Motion, Run};
use crate::session::{Failure, Session, Setting, Terms};
use crate::stats;

/// Two processes that send a cache line to each other and back.
pub(crate) struct CacheLine<'a> {
    session: Session<'a>,
    first_sequence: u64,
}

impl<'a> CacheLine<'a> {
    /// `None` with a single core: two processes that spin there show nothing but the scheduler.
    pub(crate) fn open(setting: &'a Setting) -> Result<Option<Self>, Failure> {
        if setting.cores.is_none() {
            return Ok(None);
        }
        let session = Session::open(setting, Terms::of(Meeting::Lines))?;
        Ok(Some(Self { session, first_sequence: 0 }))
    }

    /// The median round trip now, in nanoseconds.
    pub(crate) fn rtt_ns(&mut self, run_time: Duration) -> Result<f64, Failure> {
        // A round trip takes 50 to 500 ns.
        let messages = (run_time.as_nanos() as u64 / 250).max(100);
        let (first_sequence, check) = (self.first_sequence, Check::Sampled);
        let run = Run { motion: Motion::RoundTrip, size_bytes: 8, cold: false, messages, first_sequence, check };
        let [guest, _] = self.session.run(&run, run_time)?;
        self.first_sequence += messages;
        let mut histogram = stats::histogram();
        stats::merge(&mut histogram, &guest.latencies);
        Ok(histogram.value_at_quantile(0.5) as f64)
    }
}
