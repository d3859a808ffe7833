//! The workload cpu: the stream workload, seen from the processor time of both sides.

/// Processor time for each KiB that was moved.
pub(crate) fn ns_per_kib(cpu_ns: u64, bytes: u64) -> f64 {
    cpu_ns as f64 / (bytes as f64 / 1024.0)
}
