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

/// Round trips that are shorter than this are timed together, [`TOGETHER`] at a time.
const SHORT_NS: u64 = 2_000;
/// So many. The clock moves in steps of 10 ns on some machines, and a look at it is more than its 20 ns: what it delays is not there when
/// the other side looks, which then leaves the cache line alone. One that takes 516 ns there and back seems to take 481.
const TOGETHER: u64 = 10;

/// The time of each round trip of a run; of short ones, the mean of those that were timed together. Where that is twice as long as
/// before, one of them was interrupted: it has all that is more.
pub(crate) struct Laps {
    histogram: Histogram<u64>,
    clock_cost_ns: u64,
    before_ns: u64,
    /// How many are timed together now, and how many of them are over.
    together: u64,
    over: u64,
    /// The mean of the last ones.
    usual_ns: u64,
}

impl Laps {
    /// Before the start: what this needs is there then.
    pub(crate) fn new() -> Self {
        Self {
            histogram: stats::histogram(),
            clock_cost_ns: clock::cost_ns(),
            before_ns: 0,
            together: 1,
            over: 0,
            usual_ns: 0,
        }
    }

    pub(crate) fn start(&mut self) {
        self.before_ns = clock::now_ns();
    }

    /// Since the start or the last round trip.
    #[inline]
    pub(crate) fn lap(&mut self) {
        self.over += 1;
        if self.over == self.together {
            self.look(clock::now_ns());
        }
    }

    fn look(&mut self, now_ns: u64) {
        let all_ns = (now_ns - self.before_ns).saturating_sub(self.clock_cost_ns);
        let mean_ns = all_ns / self.together;
        if mean_ns > 2 * self.usual_ns && self.together > 1 {
            let others = self.together - 1;
            self.histogram.saturating_record_n(self.usual_ns, others);
            self.histogram.saturating_record(all_ns - self.usual_ns * others);
        } else {
            self.histogram.saturating_record_n(mean_ns, self.together);
        }
        self.together = if mean_ns < SHORT_NS { TOGETHER } else { 1 };
        (self.before_ns, self.over, self.usual_ns) = (now_ns, 0, mean_ns);
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
#[inline]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_round_trips_are_timed_together_and_long_ones_alone() {
        let mut laps = Laps { clock_cost_ns: 20, ..Laps::new() };
        let mut now_ns = 0;
        let mut look = |laps: &mut Laps, after_ns: u64| {
            now_ns += after_ns;
            laps.look(now_ns);
            laps.together
        };
        assert_eq!(look(&mut laps, 5020), 1, "the first one, alone");
        assert_eq!(look(&mut laps, 520), TOGETHER);
        assert_eq!(look(&mut laps, 7020), TOGETHER, "700 ns each");
        assert_eq!(look(&mut laps, 96_320), 1, "one of 90,000 ns");
        assert_eq!(look(&mut laps, 3020), 1);
        let mut times = laps.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
        assert_eq!(times.next(), Some((500, 1)));
        assert_eq!(times.next(), Some((700, 2 * TOGETHER - 1)));
        let longest: Vec<u64> = times.map(|(value, _)| value / 1000).collect();
        assert_eq!(longest, [3, 5, 90]);
    }
}
