//! `onecopy man`: the man pages, one per verb, for packagers.

use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::failure::{Failure, plain, print};

/// The options of `man`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory for onecopy.1, onecopy-send.1 and so on; without it onecopy.1 goes to stdout
    directory: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.directory {
        Some(directory) => clap_mangen::generate_to(Cli::command(), directory)
            .map_err(|error| Failure::failed(format!("cannot write to {}: {}", directory.display(), plain(&error)))),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(|error| Failure::failed(format!("cannot render the man page: {}", plain(&error))))?;
            print(&String::from_utf8_lossy(&page))
        }
    }
}
