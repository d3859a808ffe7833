//! The command line.

use clap::Parser;

use crate::order::Workload;

/// Measures onecopy's channel beside iceoryx2, ipc-channel and interprocess, and prints ratios to baselines of the same run.
#[derive(Clone, Debug, Parser)]
#[command(name = "compare", version)]
pub(crate) struct Options {
    /// Fewer runs and messages: ends in under 60 s
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print one JSON object on standard output instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// These workloads only
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    pub(crate) workload: Vec<Workload>,
    /// These sizes only, in bytes
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    pub(crate) size: Vec<usize>,
    /// Runs of each contender, of which the median counts [default: 5, at most 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: Option<u32>,
}

impl Options {
    pub(crate) fn wants(&self, workload: Workload) -> bool {
        self.workload.is_empty() || self.workload.contains(&workload)
    }

    pub(crate) fn wants_size(&self, size_bytes: usize) -> bool {
        self.size.is_empty() || self.size.contains(&size_bytes)
    }

    pub(crate) fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 3 } else { 5 })
    }
}
