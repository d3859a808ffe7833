//! Figures of several runs.

use serde::Serialize;

/// The middle of several figures, and how far apart they lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// (max - min) / median.
    pub(crate) spread: f64,
    pub(crate) runs: usize,
}

impl Summary {
    /// `None` without figures.
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, spread: (last - first) / median, runs: sorted.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread() {
        assert_eq!(Summary::of(&[10.0, 8.0, 12.0]), Some(Summary { median: 10.0, spread: 0.4, runs: 3 }));
        assert_eq!(Summary::of(&[4.0, 2.0]), Some(Summary { median: 3.0, spread: 2.0 / 3.0, runs: 2 }));
        assert_eq!(Summary::of(&[]), None);
    }
}
