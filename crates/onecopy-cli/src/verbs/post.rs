//! `onecopy post`: lets others go on that wait.

use onecopy::open::{self, OpenOptions};
use onecopy::sync::Notify as _;
use onecopy::sync::eventfd::MAX_VALUE;
use onecopy::{Address, Deadline, Error};

use crate::endpoint;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  onecopy post sem:/ready
  onecopy post sysv-sem:0x4d2 --count 3
  onecopy post fd:4711:5                       an eventfd of process 4711
  onecopy post futex:/word

A missing semaphore, futex or condition variable is created with the value 0 first, so that it does not matter who comes first. What \
is full is an error: nobody may ever come to take from it.

With --count, a System V semaphore, an eventfd, a futex and a condition variable get all at once or nothing. A sem: is posted one by one, \
if all of it fits, and a signal: is sent one by one: when onecopy is interrupted, or the queue of the signals is full, some have gone.";

/// The options of `post`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to post: sem:/name, sem:REGION, sysv-sem:KEY, fd:N (an eventfd), futex:REGION, condvar:REGION
    #[arg(value_name = "ADDRESS", value_parser = endpoint::address_parser())]
    address: Address,
    /// How many waits go on
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Fail when it does not exist
    #[arg(long)]
    no_create: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    check(&arguments.address)?;
    // A counter that is full is an error rather than a wait: nobody may ever come to take from it.
    let options = OpenOptions { deadline: Deadline::Now, create: !arguments.no_create, ..OpenOptions::default() };
    let mut notify = open::open_notify(&arguments.address, &options)?;
    notify.notify_by(arguments.count, Deadline::Now).map_err(|error| full(error, &arguments.address))
}

/// Refuses what wakes nobody.
fn check(address: &Address) -> Result<(), Failure> {
    match address {
        Address::NamedSemaphore(_)
        | Address::Semaphore(_)
        | Address::SysvSemaphore(_)
        | Address::Descriptor(_)
        | Address::Futex(_)
        | Address::Condvar(_)
        | Address::Signal(_) => Ok(()),
        _ => Err(endpoint::refused(address, "post", "which wakes nobody")),
    }
}

/// What stands in the way where a library would wait.
fn full(error: Error, address: &Address) -> Failure {
    let limit = match (&error, address) {
        (Error::WouldBlock { .. }, Address::Descriptor(_)) => {
            format!("its counter would go beyond {MAX_VALUE}: take from it first")
        }
        (Error::WouldBlock { .. }, Address::Signal(_)) => {
            "the queue of its user is full, after some were sent perhaps: receive them, or raise RLIMIT_SIGPENDING \
             (`ulimit -i`)"
                .to_owned()
        }
        _ => return error.into(),
    };
    Failure::failed(format!("{error} ({limit})"))
}
