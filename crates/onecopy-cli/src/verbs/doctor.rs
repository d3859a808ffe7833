//! `onecopy doctor`: what keeps this machine, or one process of it, from working with us, and what would help.

mod machine;
mod process;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  onecopy doctor                      what is refused here, and which limits are low
  onecopy doctor --all                every mechanism, every limit, and how to raise it
  onecopy doctor --pid 1234           may its memory be read and written, and if not, why
  onecopy doctor --pid 1234 --json    for a program to read: see the field `cause`

Exit code 0 when there is a report, whatever it says: a process that is `gone` is one too.";

/// `PID_MAX_LIMIT`, which no number of a process reaches.
const MAX_PID: i64 = 1 << 22;

/// The options of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The process whose memory is wanted
    #[arg(long, value_name = "PID", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=MAX_PID))]
    pid: Option<u32>,
    /// Show everything, however long that gets
    #[arg(long)]
    all: bool,
    /// Print one JSON object, of everything
    #[arg(long)]
    json: bool,
    /// The part of the second process in the attempt at cross-memory attach
    #[arg(long, hide = true, value_name = "PROCESS")]
    probe: Option<machine::FirstProcess>,
}

impl Arguments {
    /// Whether this is the second process in the attempt at cross-memory attach. A filter may end only the thread that makes a call:
    /// another thread would keep the process, whose end the first one waits for.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match (&arguments.probe, arguments.pid) {
        (Some(first), _) => machine::second_process(first),
        (None, Some(pid)) => process::run(pid, arguments.all, arguments.json),
        (None, None) => machine::run(arguments.all, arguments.json),
    }
}
