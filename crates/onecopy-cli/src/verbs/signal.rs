//! `onecopy signal`: sends a signal, with a payload where one is wanted.

use onecopy::address::{Pid, SignalNumber};
use onecopy::signal::{RealtimeSignal, StandardSignal};

use crate::failure::Failure;
use crate::units;

const EXAMPLES: &str = "\
Examples:
  onecopy signal 4711 USR1
  onecopy signal 4711 RTMIN+1 --value 42       queued, in order, with a payload

Standard signals coalesce: two that are sent before one is received arrive as one. Real-time signals are queued; where the queue is \
full (RLIMIT_SIGPENDING) nothing is sent, and the exit code is 1.";

/// The options of `signal`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The process that gets it
    #[arg(value_name = "PID", value_parser = pid)]
    pid: Pid,
    /// The signal: USR1, SIGUSR1, RTMIN+1 or a number
    #[arg(value_name = "SIG", value_parser = number)]
    signal: SignalNumber,
    /// The payload, a number that the receiver gets with the signal
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    value: Option<i32>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { pid, signal, value } = *arguments;
    if signal.is_real_time() {
        return Ok(RealtimeSignal::to(pid, signal)?.send(value.unwrap_or(0))?);
    }
    let signal = StandardSignal::to(pid, signal)?;
    Ok(value.map_or_else(|| signal.send(), |value| signal.send_value(value))?)
}

fn pid(text: &str) -> Result<Pid, String> {
    let number: u32 = units::number(text, "no pid: write it in digits, as 4711")?;
    Pid::new(number).map_err(|error| error.to_string())
}

fn number(text: &str) -> Result<SignalNumber, String> {
    SignalNumber::named(text).map_err(|error| error.to_string())
}
