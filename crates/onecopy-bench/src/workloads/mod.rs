//! What the two processes do with a link.

pub(crate) mod lines;
pub(crate) mod loan;
pub(crate) mod lock;
pub(crate) mod lossy;
pub(crate) mod memcpy;
pub(crate) mod registered;
pub(crate) mod rtt;
pub(crate) mod stream;
pub(crate) mod wake;

use hdrhistogram::Histogram;
use onecopy::{Error, Tally};

use crate::control::{Check, Run, Sample};
use crate::payload::Slots;
use crate::{clock, stats};

/// Why a workload ended early, in words.
pub(crate) type Outcome = Result<Sample, String>;

/// Reports that everything is prepared, and waits for the word.
pub(crate) type Go<'a> = &'a mut dyn FnMut() -> Result<(), String>;

/// Measures one side of a run.
pub(crate) struct Stopwatch {
    start_ns: u64,
    start_cpu_ns: u64,
    start_tally: Tally,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let start_cpu_ns = clock::cpu_ns();
        Self { start_ns: clock::now_ns(), start_cpu_ns, start_tally: Tally::now() }
    }

    pub(crate) fn stop(self, messages: u64, lost: u64, mismatch: Option<String>) -> Sample {
        let copied = Tally::now().since(self.start_tally);
        Sample {
            start_ns: self.start_ns,
            end_ns: clock::now_ns(),
            cpu_ns: clock::cpu_ns() - self.start_cpu_ns,
            user_copied_bytes: copied.user_bytes,
            kernel_copied_bytes: copied.kernel_bytes,
            messages,
            lost,
            path: None,
            mismatch,
            latencies: Vec::new(),
        }
    }
}

/// The time of each round trip of a run.
pub(crate) struct Laps {
    histogram: Histogram<u64>,
    clock_cost_ns: u64,
    before_ns: u64,
}

impl Laps {
    /// Before the start: what this needs is there then.
    pub(crate) fn new() -> Self {
        Self { histogram: stats::histogram(), clock_cost_ns: clock::cost_ns(), before_ns: 0 }
    }

    pub(crate) fn start(&mut self) {
        self.before_ns = clock::now_ns();
    }

    /// Since the start or the last round trip.
    pub(crate) fn lap(&mut self) {
        let now = clock::now_ns();
        self.histogram.saturating_record((now - self.before_ns).saturating_sub(self.clock_cost_ns));
        self.before_ns = now;
    }

    /// The sample with these times.
    pub(crate) fn put_into(&self, sample: Sample) -> Sample {
        Sample { latencies: stats::pairs(&self.histogram), ..sample }
    }
}

impl Run {
    fn slots(&self) -> Slots {
        Slots::new(self.size_bytes, self.cold)
    }

    fn sequences(&self) -> std::ops::Range<u64> {
        self.first_sequence..self.first_sequence + self.messages
    }

    /// Whether this is the message that the test hook corrupts.
    fn is_first_checked(&self, sequence: u64) -> bool {
        self.check == Check::Full && sequence == self.first_sequence
    }
}

/// A message that came and has the expected length.
fn whole(received: onecopy::Result<Option<&[u8]>>, size_bytes: usize) -> Result<&[u8], String> {
    match received {
        Ok(Some(message)) if message.len() == size_bytes => Ok(message),
        Ok(Some(message)) => {
            Err(format!("a message of {} bytes came in the place of one of {size_bytes} bytes", message.len()))
        }
        Ok(None) => Err("the other side ended too early".into()),
        Err(error) => Err(text(error)),
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Flips one bit in the middle of a message: the test hook.
pub(crate) fn flip(message: &mut [u8]) {
    let middle = message.len() / 2;
    message[middle] ^= 1;
}
