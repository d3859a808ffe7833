//! `onecopy write`: stdin into shared memory, or another process's.

use onecopy::memory::buffer::Buffer;
use onecopy::open::{self, OpenOptions};
use onecopy::{Address, Deadline};
use rustix::io::Errno;

use crate::endpoint;
use crate::failure::Failure;
use crate::input::Input;
use crate::io::CHUNK_BYTES;
use crate::memory::{self, Access, Memory};
use crate::progress::Progress;
use crate::units;

const EXAMPLES: &str = "\
Examples:
  onecopy write shm:/frames <picture.raw                  into a region that exists
  onecopy write shm:/frames --create 16M <picture.raw     make it, if it is missing
  printf x | onecopy write mmap:/tmp/state --offset 4096  one byte
  onecopy write mem:1234:0x7f5500001000+4096 <page        into process 1234";

/// The options of `write`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where to: shm:/name, sysv-shm:KEY, mmap:/path, fd:N of a memfd, mem:PID:ADDR+LEN
    #[arg(value_name = "MEMORY-ADDRESS", value_parser = endpoint::address_parser())]
    address: Address,
    /// The first byte, counted from 0
    #[arg(long, value_name = "BYTES", default_value = "0", hide_default_value = true, allow_negative_numbers = true, value_parser = units::size)]
    offset: u64,
    /// Create the region with this size when it is missing: 65536, 64K, 1GiB
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = units::size)]
    create: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let address = &arguments.address;
    memory::check(address, "write")?;
    if arguments.create.is_some() && matches!(address, Address::Memory(_) | Address::Descriptor(_)) {
        return Err(Failure::usage(format!("--create does not fit {address}: it exists, or cannot be made by name")));
    }
    let input = Input::open(None, Deadline::Never)?;
    let memory = open(arguments, &input)?;
    let room = room(memory.len(), "has", arguments, &input)?;
    copy_in(&memory, arguments.offset, room, input, address)
}

/// Opens the memory. A region that is too short for the input, as far as that is known, is not made: it would stay.
fn open(arguments: &Arguments, input: &Input) -> Result<Memory, Failure> {
    let address = &arguments.address;
    let Some(Err(too_short)) = arguments.create.map(|size| room(size, "would have", arguments, input)) else {
        return Memory::open(address, Access::Write { create: arguments.create });
    };
    match open::open_region(address, 0, &OpenOptions { create: false, ..OpenOptions::default() }) {
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Err(too_short),
        // One that exists may be longer.
        region => Ok(Memory::Shared(region?)),
    }
}

/// How many bytes from the offset on there are in memory that `has` this length, if the input may fit.
fn room(len: u64, has: &str, Arguments { address, offset, .. }: &Arguments, input: &Input) -> Result<u64, Failure> {
    let room = len
        .checked_sub(*offset)
        .ok_or_else(|| Failure::usage(format!("--offset {offset}: {address} {has} {len} bytes")))?;
    match input.len().filter(|len| *len > room) {
        Some(len) => Err(Failure::failed(format!(
            "stdin of {len} bytes does not fit {address}, which {has} {room} bytes from offset {offset} to its end"
        ))),
        None => Ok(room),
    }
}

fn copy_in(memory: &Memory, offset: u64, room: u64, mut input: Input, address: &Address) -> Result<(), Failure> {
    let mut progress = Progress::new(input.len(), input.is_terminal());
    let mut buffer = Buffer::warm(CHUNK_BYTES)?;
    let mut done = 0;
    loop {
        let count = input.read_some(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let fits = count.min(usize::try_from(room - done).unwrap_or(usize::MAX));
        let (written, error) = memory.write(offset + done, &buffer[..fits]);
        progress.advance(written);
        done += written as u64;
        if let Some(error) = error {
            return Err(memory.failure(offset + done, error).after(done, "bytes"));
        }
        if fits < count {
            return Err(Failure::failed(format!(
                "stdin does not fit {address}, which has {room} bytes from offset {offset} to its end: they were written"
            )));
        }
    }
}
