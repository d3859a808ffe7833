//! The workload copies: what each side's processor did to move the payload, as the two processes counted it.

use crate::control::Sample;
use crate::cpu;
use crate::report::SideWork;
use crate::stats::Summary;

/// What one side did in all timed runs.
#[derive(Debug, Default)]
pub(crate) struct Work {
    payload_bytes: u64,
    user_copied_bytes: u64,
    kernel_copied_bytes: u64,
    /// For each run.
    cpu_ns_per_gib: Vec<f64>,
}

impl Work {
    /// Adds a run in which this side sent or received messages of `size_bytes`.
    pub(crate) fn add(&mut self, sample: &Sample, size_bytes: usize) {
        let payload_bytes = sample.messages * size_bytes as u64;
        self.payload_bytes += payload_bytes;
        self.user_copied_bytes += sample.user_copied_bytes;
        self.kernel_copied_bytes += sample.kernel_copied_bytes;
        self.cpu_ns_per_gib.push(cpu::ns_per_kib(sample.cpu_ns, payload_bytes) * f64::from(1 << 20));
    }

    pub(crate) fn summary(&self) -> SideWork {
        SideWork {
            payload_bytes: self.payload_bytes,
            user_copied_bytes: self.user_copied_bytes,
            kernel_copied_bytes: self.kernel_copied_bytes,
            cpu_ns_per_gib: Summary::of(&self.cpu_ns_per_gib).median,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up_and_their_median_counts() {
        let mut work = Work::default();
        for cpu_ns in [1000, 5000, 2000] {
            let sample =
                Sample { messages: 2, cpu_ns, user_copied_bytes: 16, kernel_copied_bytes: 2048, ..Sample::default() };
            work.add(&sample, 1024);
        }
        let summary = work.summary();
        assert_eq!((summary.payload_bytes, summary.user_copied_bytes, summary.kernel_copied_bytes), (6144, 48, 6144));
        assert_eq!(summary.cpu_ns_per_gib, 1000.0 * f64::from(1 << 20), "2000 ns for 2 KiB");
    }
}
