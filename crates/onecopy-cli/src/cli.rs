//! The definition of the command line. Help, completions and man pages come from it.

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::verbs::{completions, man};

/// Send, receive, list, measure and explain, over any Linux inter-process communication mechanism.
#[derive(Debug, Parser)]
#[command(name = "onecopy", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 124 timed out, 130 interrupted.";

/// The verbs, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions(completions::Arguments),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(man::Arguments),
}

impl Verb {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Completions(arguments) => completions::run(&arguments),
            Self::Man(arguments) => man::run(&arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
