//! `onecopy doctor`: what this machine allows, what holds it back, and what would help.

mod machine;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  onecopy doctor           what is refused here, and which limits are low
  onecopy doctor --all     every mechanism, every limit, and how to raise it
  onecopy doctor --json    the same for a program to read";

/// The options of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Show everything, as tables
    #[arg(long)]
    all: bool,
    /// Print one JSON object, of everything
    #[arg(long)]
    json: bool,
    /// The part of the second process in the attempt at cross-memory attach
    #[arg(long, hide = true, value_name = "PROCESS")]
    probe: Option<machine::FirstProcess>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.probe {
        Some(first) => machine::second_process(first),
        None => machine::run(arguments.all, arguments.json),
    }
}
