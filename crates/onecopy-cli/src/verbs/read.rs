//! `onecopy read`: shared memory, or another process's, to stdout.

use onecopy::memory::buffer::Buffer;
use onecopy::{Address, Deadline};

use crate::endpoint;
use crate::failure::Failure;
use crate::io::CHUNK_BYTES;
use crate::memory::{self, Access, Memory};
use crate::output::Output;
use crate::progress::Progress;
use crate::units;

const EXAMPLES: &str = "\
Examples:
  onecopy read shm:/frames | xxd                       all of a region
  onecopy read sysv-shm:0x4d2 --offset 4096 --len 64   64 bytes of it
  onecopy read mem:1234:0x7f5500001000+4096            a page of process 1234";

/// The options of `read`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to read: shm:/name, sysv-shm:KEY, mmap:/path, fd:N of a memfd, mem:PID:ADDR+LEN
    #[arg(value_name = "MEMORY-ADDRESS", value_parser = endpoint::address_parser())]
    address: Address,
    /// The first byte, counted from 0
    #[arg(long, value_name = "BYTES", default_value = "0", hide_default_value = true, allow_negative_numbers = true, value_parser = units::size)]
    offset: u64,
    /// How many bytes, as 4096 or 64K; to the end unless said
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = units::size)]
    len: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let address = &arguments.address;
    memory::check(address, "read")?;
    let memory = Memory::open(address, Access::Read)?;
    let rest = memory::rest(&memory, address, arguments.offset)?;
    let len = arguments.len.unwrap_or(rest);
    if len > rest {
        return Err(Failure::usage(format!(
            "--len {len}: {address} has {rest} bytes from offset {} to its end",
            arguments.offset
        )));
    }
    copy_out(&memory, arguments.offset, len, Output::open(None, Deadline::Never)?)
}

fn copy_out(memory: &Memory, offset: u64, len: u64, mut output: Output) -> Result<(), Failure> {
    let mut progress = Progress::new(Some(len), output.is_terminal());
    let mut buffer = Buffer::warm(CHUNK_BYTES)?;
    let mut done = 0;
    while done < len {
        let room = buffer.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
        let (count, error) = memory.read(offset + done, &mut buffer[..room]);
        output.write(&buffer[..count])?;
        progress.advance(count);
        done += count as u64;
        if let Some(error) = error {
            return Err(memory.failure(offset + done, error).after(done, "bytes"));
        }
    }
    output.commit()
}
