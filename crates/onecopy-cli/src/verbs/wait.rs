//! `onecopy wait`: waits until somebody posts, until all parties have come, or for signals.

use std::time::Duration;

use onecopy::address::SignalName;
use onecopy::open::{self, OpenOptions};
use onecopy::signal::{self, Received, SignalReceiver};
use onecopy::sync::Wait as _;
use onecopy::{Address, Deadline, Error};

use crate::failure::{Failure, print, tell};
use crate::{endpoint, units};

const EXAMPLES: &str = "\
Examples:
  onecopy wait sem:/ready --timeout 5s
  onecopy wait 'barrier:/start?parties=3'      until three processes wait there
  onecopy wait signal:self?sig=USR1,RTMIN+1 --count 0

A missing semaphore, futex, condition variable or barrier is created first, so that it does not matter who comes first. An eventfd \
gives one wait all that was posted, unless it is a semaphore (EFD_SEMAPHORE).

Signals are received in the kernel's order: standard ones first, then real-time ones by number. When it is ready, the pid of this \
process stands on stderr; then each signal is a line on stdout: its name, its sender's pid and uid, and its value if it has one.

Exit codes: 0 it came, 124 --timeout passed. Who has come to a barrier stays counted there, also when its --timeout passes, or when \
it is interrupted or killed.";

/// The options of `wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to wait for: sem:/name, sem:REGION, sysv-sem:KEY, fd:N (an eventfd), futex:REGION, condvar:REGION,
    /// barrier:REGION?parties=N, signal:self?sig=SIG,…
    #[arg(value_name = "ADDRESS", value_parser = endpoint::address_parser())]
    pub(crate) address: Address,
    /// How long to wait in all, as 500ms, 2s or 1m; without end unless said
    #[arg(long, value_name = "D", value_parser = units::duration)]
    timeout: Option<Duration>,
    /// How often; 0 is without end
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true, value_parser = times)]
    count: u64,
    /// Fail when it does not exist
    #[arg(long)]
    no_create: bool,
}

fn times(text: &str) -> Result<u64, String> {
    units::number(text, "no number of times: write 3, or 0 for no end")
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let deadline = arguments.timeout.map_or(Deadline::Never, Deadline::after);
    match &arguments.address {
        Address::Signal(name) => {
            let mut receiver = signals(name)?;
            tell(&std::process::id().to_string());
            repeat(arguments, deadline, "signals", || print(&line(&receiver.recv_by(deadline)?)))
        }
        Address::NamedSemaphore(_)
        | Address::Semaphore(_)
        | Address::SysvSemaphore(_)
        | Address::Descriptor(_)
        | Address::Futex(_)
        | Address::Condvar(_)
        | Address::Barrier(_) => {
            let address = &arguments.address;
            let options = OpenOptions { deadline, create: !arguments.no_create, ..OpenOptions::default() };
            let mut wait = open::open_wait(address, &options)?;
            repeat(arguments, deadline, "times", || wait.wait_by(deadline).map_err(|error| explain(address, error)))
        }
        address => Err(endpoint::refused(address, "wait", "which is nothing to wait for")),
    }
}

/// Nobody can leave a barrier: who waits there once more comes twice.
fn explain(address: &Address, error: Error) -> Failure {
    match (address, Failure::from(error)) {
        (Address::Barrier(_), Failure::TimedOut(text)) => {
            Failure::TimedOut(format!("{text} (this process stays counted there)"))
        }
        (_, failure) => failure,
    }
}

fn signals(name: &SignalName) -> Result<SignalReceiver, Failure> {
    match name.target() {
        None => Ok(SignalReceiver::open(name.signals())?),
        Some(pid) => Err(Failure::usage(format!(
            "signal:{name}: the signals of process {pid} go to it; wait for signal:self?sig=…"
        ))),
    }
}

/// What this verb waits for and no other thread may take, if it is signals.
pub(crate) fn block_signals(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.address {
        Address::Signal(name) => Ok(signal::block(name.signals())?),
        _ => Ok(()),
    }
}

fn repeat(
    Arguments { address, count, .. }: &Arguments,
    deadline: Deadline,
    what: &str,
    mut once: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut done = 0;
    while *count == 0 || done < *count {
        // What never has to wait does not look at the time.
        if done > 0 && deadline.has_passed() {
            return Err(Failure::TimedOut(format!("wait for {address} timed out")).after(done, what));
        }
        once().map_err(|failure| failure.after(done, what))?;
        done += 1;
    }
    Ok(())
}

fn line(signal: &Received) -> String {
    let value = signal.value.map_or_else(String::new, |value| format!(" value={value}"));
    format!("{} pid={} uid={}{value}\n", signal.number, signal.pid, signal.uid)
}
