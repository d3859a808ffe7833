//! `onecopy pipe-safety`: what the kernel promises for a write to a pipe, beside what it does here.

mod load;
mod probe;
mod report;
mod state;
mod writer;

use std::num::NonZeroU32;

use onecopy::stream::pipe::{self, PIPE_BUF};

use crate::failure::{Failure, print};
use crate::units;
use load::Load;
use report::Report;
use state::{Row, State};
use writer::Mode;

const EXAMPLES: &str = "\
Examples:
  onecopy pipe-safety                          what is safe, what is torn, and what to do about it
  onecopy pipe-safety --writers 16 --sizes 4097,1M
  onecopy pipe-safety --json                   for a program to read";

/// The options of `pipe-safety`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// How many processes write at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u8).range(2..=64))]
    writers: u8,
    /// How many messages of each size each of them writes
    #[arg(long, value_name = "N", default_value = "200")]
    messages: NonZeroU32,
    /// The lengths of the messages, as 512, 4097 or 64K, with commas between them; some up to 4096 and some above
    #[arg(long, value_name = "BYTES,…", value_delimiter = ',', value_parser = units::size,
          default_values = ["512", "4K", "16K", "64K"])]
    sizes: Vec<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// What a second process of this verb does
    #[arg(long, value_name = "ROLE", hide = true)]
    writer_role: Option<String>,
}

/// The longest message of a load: what a pipe holds at most without privileges.
const LONGEST_BYTES: u64 = 1 << 20;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(role) = &arguments.writer_role {
        return writer::run(role);
    }
    let sizes = sizes(arguments)?;
    let report = measure(usize::from(arguments.writers), arguments.messages.get() as usize, &sizes)?;
    print(&if arguments.json { report.to_json()? } else { report.to_text() })?;
    match report.broken() {
        0 => Ok(()),
        broken => Err(Failure::failed(format!("{broken} of {} promises did not hold", report.promises()))),
    }
}

fn sizes(arguments: &Arguments) -> Result<Vec<usize>, Failure> {
    let mut sizes = arguments.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    match sizes.iter().find(|size| !(1..=LONGEST_BYTES).contains(*size)) {
        Some(size) => Err(Failure::usage(format!("--sizes: {size} is not in 1..={LONGEST_BYTES} bytes"))),
        None => Ok(sizes.into_iter().map(|size| size as usize).collect()),
    }
}

/// All states with both fills, then the same load in messages.
fn measure(writers: usize, messages: usize, sizes: &[usize]) -> Result<Report, Failure> {
    let (reader, _writer) = pipe::pair()?;
    let mut rows = Vec::new();
    for state in State::ALL {
        let fitting: Vec<usize> = sizes.iter().copied().filter(|size| state.is_long() == (*size > PIPE_BUF)).collect();
        for full in [false, true] {
            let load = Load { writers, messages, full, mode: Mode::raw(state) };
            let seen = fitting.iter().map(|size| load.run(*size)).collect::<Result<_, _>>()?;
            rows.push(Row::new(state, full, probe::run(state, full)?, seen));
        }
    }
    let mut safe = Vec::new();
    for mode in [Mode::Messages, Mode::MessagesNonblocking] {
        let load = Load { writers, messages, full: true, mode };
        safe.push((mode, sizes.iter().map(|size| load.run(*size)).collect::<Result<_, _>>()?));
    }
    Ok(Report { capacity_bytes: reader.capacity_bytes()?, writers, messages, sizes: sizes.to_vec(), rows, safe })
}
