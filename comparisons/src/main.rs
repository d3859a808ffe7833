//! onecopy's channel beside its rivals: the same workloads, between processes, in one run.
//!
//! `cargo run --release --manifest-path comparisons/Cargo.toml`. README.md says what is measured and how each rival is used.

mod affinity;
mod baselines;
mod contenders;
mod endpoint;
mod leftovers;
mod options;
mod order;
mod payload;
mod plan;
mod report;
mod runner;
mod stats;
mod versions;
mod worker;
mod workloads;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser as _;
use signal_hook::consts::{SIGINT, SIGTERM};

use options::Options;
use runner::{Outcome, Runner};

const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    if let Some(code) = worker::work_if_asked() {
        return code;
    }
    let options = Options::parse();
    match measure(&options) {
        Ok(outcome) => finish(&options, &outcome),
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<Outcome, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(|error| format!("sigaction: {error}"))?;
    }
    Ok(Runner::new(options, interrupted)?.run())
}

fn finish(options: &Options, outcome: &Outcome) -> ExitCode {
    if outcome.interrupted {
        eprintln!("compare: interrupted");
        return ExitCode::from(EXIT_INTERRUPTED);
    }
    if options.json {
        println!("{}", report::json::object(outcome));
    } else {
        print!("{}", report::table::text(outcome));
        print!("{}", report::words::text(outcome));
    }
    let failed = outcome.rows.iter().flat_map(|row| &row.figures).any(|figures| figures.error.is_some());
    if failed || outcome.left.iter().any(|left| left.names.is_err()) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
