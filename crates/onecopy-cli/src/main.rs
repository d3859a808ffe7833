//! The command `onecopy`: parse, then validated options, then run.
//!
//! One file per verb in `verbs/`; each has its `Arguments` and a `run` that returns a [`Failure`], which `main` maps to the
//! exit code. Data goes to stdout, messages to stderr.

mod again;
mod channel;
mod cli;
mod endpoint;
mod exposed;
mod failure;
mod input;
mod interrupt;
mod io;
mod lines;
mod memory;
mod output;
mod parts;
mod probe;
mod progress;
mod queue;
mod share;
mod standard;
mod units;
mod verbs;
mod whole_file;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::failure::Failure;

fn main() -> ExitCode {
    onecopy_bench::run_peer_if_asked();
    std::panic::set_hook(Box::new(report_bug));
    let result = match Cli::try_parse() {
        Ok(cli) if cli.verb.takes_interrupts() => interrupt::survive_long_files().and_then(|()| cli.verb.run()),
        Ok(cli) => cli
            .verb
            .prepare()
            .and_then(|()| interrupt::survive_long_files())
            .and_then(|()| interrupt::watch())
            .and_then(|()| cli.verb.run()),
        Err(error) => Failure::of_usage(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                failure::say(text);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// A panic is a bug of ours: it is said in one line, and the process ends with Rust's own code for it, 101.
fn report_bug(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let reason = text.unwrap_or("no reason given").replace('\n', "; ");
    failure::tell(&format!("onecopy: internal error{place}: {reason}; please report it"));
}
