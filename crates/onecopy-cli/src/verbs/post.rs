//! `onecopy post`: lets others go on that wait.

use onecopy::open::{self, OpenOptions};
use onecopy::sync::Notify as _;
use onecopy::{Address, Deadline};

use crate::endpoint;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  onecopy post sem:/ready
  onecopy post sysv-sem:0x4d2 --count 3
  onecopy post fd:4711:5                       an eventfd of process 4711
  onecopy post futex:/word

A missing semaphore or futex is created with the value 0 first, so that it does not matter who comes first. A condition
variable has no memory: only who waits is woken.";

/// The options of `post`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to post: sem:/name, sem:REGION, sysv-sem:KEY, fd:N (an eventfd), futex:REGION, condvar:REGION
    #[arg(value_name = "ADDRESS", value_parser = endpoint::address_parser())]
    address: Address,
    /// How many waits go on
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Fail when it does not exist
    #[arg(long)]
    no_create: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    // A counter that is full is an error rather than a wait: nobody may ever come to take from it.
    let options = OpenOptions { deadline: Deadline::Now, create: !arguments.no_create, ..OpenOptions::default() };
    let mut notify = open::open_notify(&arguments.address, &options)?;
    Ok(notify.notify_by(arguments.count, Deadline::Now)?)
}
