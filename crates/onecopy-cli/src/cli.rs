//! The definition of the command line. Help, completions and man pages come from it.

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::verbs::{
    bench, completions, create, doctor, explain, expose, fetch, lock, ls, man, pipe_safety, post, read, recv, rm, send,
    signal, wait, write,
};

/// Send, receive, lock, measure and explain, over any Linux inter-process communication mechanism.
#[derive(Debug, Parser)]
#[command(name = "onecopy", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 124 timed out, 128 + N ended by signal N (130: ^C).";

/// The verbs, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Measure every mechanism on this machine
    Bench(bench::Arguments),
    /// Send stdin or a file
    Send(send::Arguments),
    /// Receive to stdout or a file
    Recv(recv::Arguments),
    /// Read shared memory, or another process's, to stdout
    Read(read::Arguments),
    /// Write stdin into shared memory, or another process's
    Write(write::Arguments),
    /// Serve a window onto a file's bytes; prints or sends its token
    Expose(expose::Arguments),
    /// Copy out what a window shows, with one copy
    Fetch(fetch::Arguments),
    /// Run a command while a lock is held
    Lock(lock::Arguments),
    /// Let others go on that wait: semaphore, eventfd, futex
    Post(post::Arguments),
    /// Wait until somebody posts, until all parties have come, or for signals
    Wait(wait::Arguments),
    /// Send a signal, with a value where one is wanted
    Signal(signal::Arguments),
    /// Create an object that does not exist yet
    Create(create::Arguments),
    /// Remove an object
    Rm(rm::Arguments),
    /// List the objects on this machine: who uses them, how full they are, what the dead left
    Ls(ls::Arguments),
    /// Say what this machine allows and which limits are low, or why a process's memory cannot be read
    Doctor(doctor::Arguments),
    /// Explain a mechanism: what it is, who may reach it, copies, limits here, traps
    Explain(explain::Arguments),
    /// Show which writes to a pipe are safe with several writers, and which are torn
    PipeSafety(pipe_safety::Arguments),
    /// What becomes the command of `lock`
    #[command(hide = true)]
    LockChild(lock::child::Arguments),
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions(completions::Arguments),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(man::Arguments),
}

impl Verb {
    /// Whether the verb takes interrupts by itself: it has more to end than files, becomes another program, or may have no second thread.
    pub(crate) fn takes_interrupts(&self) -> bool {
        match self {
            Self::Bench(_) | Self::LockChild(_) => true,
            Self::Doctor(arguments) => arguments.is_probe(),
            _ => false,
        }
    }

    /// What has to be done before any thread is started.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        match self {
            Self::Wait(arguments) => wait::block_signals(arguments),
            _ => Ok(()),
        }
    }

    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Bench(arguments) => bench::run(&arguments),
            Self::Send(arguments) => send::run(&arguments),
            Self::Recv(arguments) => recv::run(&arguments),
            Self::Read(arguments) => read::run(&arguments),
            Self::Write(arguments) => write::run(&arguments),
            Self::Expose(arguments) => expose::run(&arguments),
            Self::Fetch(arguments) => fetch::run(&arguments),
            Self::Lock(arguments) => lock::run(&arguments),
            Self::Post(arguments) => post::run(&arguments),
            Self::Wait(arguments) => wait::run(&arguments),
            Self::Signal(arguments) => signal::run(&arguments),
            Self::LockChild(arguments) => lock::child::run(&arguments),
            Self::Create(arguments) => create::run(&arguments),
            Self::Rm(arguments) => rm::run(&arguments),
            Self::Ls(arguments) => ls::run(&arguments),
            Self::Doctor(arguments) => doctor::run(&arguments),
            Self::Explain(arguments) => explain::run(&arguments),
            Self::PipeSafety(arguments) => pipe_safety::run(&arguments),
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

    #[test]
    fn help_breaks_lines_by_its_width_alone() {
        for verb in super::Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            for (line, next) in help.lines().zip(help.lines().skip(1)) {
                let goes_on = |line: &str| !line.is_empty() && !line.starts_with(' ') && line != "Examples:";
                assert!(!(goes_on(line) && goes_on(next)), "{}: a paragraph is broken after {line:?}", verb.get_name());
            }
            for example in help.lines().filter(|line| line.starts_with(' ')) {
                assert!(example.chars().count() <= 100, "{}: too long for a line: {example:?}", verb.get_name());
            }
        }
    }
}
