//! `onecopy completions`: completions for a shell, for packagers.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Failure, print};

/// The options of `completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell: bash, zsh, fish, elvish or powershell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "onecopy", &mut script);
    print(&String::from_utf8_lossy(&script))
}
