//! Figures of several runs.

use hdrhistogram::Histogram;

/// The middle of several figures, and how far apart they lie: (max - min) / median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) spread: f64,
}

impl Summary {
    /// Of at least one figure.
    pub(crate) fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = median(&sorted);
        let range = sorted.last().unwrap_or(&0.0) - sorted.first().unwrap_or(&0.0);
        Self { median, spread: if median > 0.0 { range / median } else { 0.0 } }
    }
}

fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The longest latency that is told apart, in nanoseconds: longer ones count as this.
const MAX_LATENCY_NS: u64 = 100_000_000_000;

/// Latencies in nanoseconds. Three digits are kept. All memory is there from the start, so that recording never allocates.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3).expect("bounds that the documentation allows")
}

/// A histogram as it travels between processes.
pub(crate) fn pairs(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

/// Adds what came from another process.
pub(crate) fn merge(histogram: &mut Histogram<u64>, pairs: &[(u64, u64)]) {
    for (value, count) in pairs {
        histogram.saturating_record_n(*value, *count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread() {
        assert_eq!(Summary::of(&[10.0, 8.0, 12.0]), Summary { median: 10.0, spread: 0.4 });
        assert_eq!(Summary::of(&[4.0, 2.0]), Summary { median: 3.0, spread: 2.0 / 3.0 });
        assert_eq!(Summary::of(&[5.0]), Summary { median: 5.0, spread: 0.0 });
    }

    #[test]
    fn a_histogram_survives_the_way() {
        let mut sent = histogram();
        for value in [100, 200, 200, 90_000] {
            sent.record(value).unwrap();
        }
        let mut received = histogram();
        merge(&mut received, &pairs(&sent));
        assert_eq!(received.len(), 4);
        assert_eq!(received.value_at_quantile(0.5), sent.value_at_quantile(0.5));
        assert_eq!(received.max(), sent.max());
    }
}
