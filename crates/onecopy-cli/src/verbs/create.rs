//! `onecopy create`: makes an object that does not exist yet.

use onecopy::address::RegionName;
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::posix_shm::PosixShm;
use onecopy::memory::sysv_shm::SysvShm;
use onecopy::message::posix_mq::{PosixQueue, QueueAttributes};
use onecopy::message::sysv_mq::SysvQueue;
use onecopy::open::{self, OpenOptions};
use onecopy::stream::fifo;
use onecopy::sync::barrier::Barrier;
use onecopy::sync::condvar::{Condvar, Counted};
use onecopy::sync::futex::Futex;
use onecopy::sync::mutex::Mutex;
use onecopy::sync::named_semaphore::NamedSemaphore;
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::semaphore::Semaphore;
use onecopy::sync::shared::Place;
use onecopy::sync::sysv_semaphore::SysvSemaphore;
use onecopy::{Address, Deadline};

use crate::endpoint::{self, remedy};
use crate::failure::Failure;
use crate::units;

const EXAMPLES: &str = "\
Examples:
  onecopy create mq:/jobs --max-messages 10 --message-size 8K
  onecopy create sysv-mq:0x4d2 --mode 0660
  onecopy create shm:/frames --size 64M
  onecopy create fifo:/tmp/f --mode 0622
  onecopy create sem:/slots --initial 4
  onecopy create mutex:/ledger                 a process-shared mutex in shared memory of that name";

/// The options of `create`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to create: mq:/name, sysv-mq:KEY, shm:/name, sysv-shm:KEY, mmap:/path, fifo:/path, sem:/name, sysv-sem:KEY, and sem:,
    /// futex:, mutex:, condvar:, barrier: and rwlock: in the shared memory that they name
    #[arg(value_name = "ADDRESS", value_parser = endpoint::address_parser())]
    address: Address,
    /// Who may use it, in octal
    #[arg(long, value_name = "MODE", default_value = "0600", allow_negative_numbers = true, value_parser = units::mode)]
    mode: u32,
    /// How many messages fit (mq: only); the system's default unless said
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = units::capacity)]
    max_messages: Option<u64>,
    /// The longest message, as 8192 or 8K (mq: only); the system's default unless said
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = units::size)]
    message_size: Option<u64>,
    /// The value of a new semaphore; 0 unless said
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = units::value)]
    initial: Option<u32>,
    /// How long the memory is, as 65536, 64K or 1GiB (shm:, sysv-shm:, mmap: only, where it is needed)
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = units::size)]
    size: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    check_options(arguments)?;
    match arguments.address.region().filter(|region| Address::from(region.clone()) != arguments.address) {
        Some(region) => create_in(&region, arguments),
        None => create(&arguments.address, arguments),
    }
}

fn create(address: &Address, arguments: &Arguments) -> Result<(), Failure> {
    match address {
        Address::PosixMq(name) => {
            PosixQueue::create(name, &attributes(arguments), arguments.mode)?;
        }
        Address::SysvMq(name) => {
            SysvQueue::create(name, arguments.mode)?;
        }
        Address::Fifo(path) => fifo::create(path.as_path(), arguments.mode)?,
        Address::PosixShm(name) => {
            PosixShm::create(name, memory_bytes(arguments)?, arguments.mode)?;
        }
        Address::SysvShm(name) => {
            SysvShm::create(name, memory_bytes(arguments)?, arguments.mode)?;
        }
        Address::FileMapping(path) => {
            FileMapping::create(path.as_path(), memory_bytes(arguments)?, arguments.mode)?;
        }
        Address::NamedSemaphore(name) => {
            NamedSemaphore::create(name, arguments.initial.unwrap_or(0), arguments.mode)?;
        }
        Address::SysvSemaphore(name) => {
            SysvSemaphore::create(name, &[sysv_value(arguments)?], arguments.mode)?;
        }
        _ => return Err(Failure::usage(format!("create does not fit {address}: {}", why_not(address)))),
    }
    Ok(())
}

/// Makes the memory, which must not exist yet unless it is a descriptor's, and then what lives in it.
fn create_in(region: &RegionName, arguments: &Arguments) -> Result<(), Failure> {
    let memory = Address::from(region.clone());
    let is_ours = !is_inherited(&memory);
    if is_ours {
        create(&memory, arguments)?;
    }
    let created = create_object(&memory, arguments);
    if created.is_err() && is_ours {
        // Memory without its object is of no use, and in the way.
        let _ = super::rm::remove(&memory);
    }
    created
}

fn create_object(memory: &Address, arguments: &Arguments) -> Result<(), Failure> {
    let region = open::open_region(memory, 0, &OpenOptions { create: false, ..OpenOptions::default() })?;
    if let Some(size) = arguments.size.filter(|&size| is_inherited(memory) && size != region.len() as u64) {
        let text = format!("--size {size}: {memory} has {} bytes, and keeps its length", region.len());
        return Err(Failure::usage(text));
    }
    let place = Place::new(region)?;
    let made = match &arguments.address {
        Address::Semaphore(_) => Semaphore::create(&place, arguments.initial.unwrap_or(0)).map(drop),
        Address::Futex(_) => Futex::create(&place, 0).map(drop),
        Address::Mutex(_) => Mutex::create(&place, ()).map(drop),
        Address::Rwlock(_) => Rwlock::create(&place, ()).map(drop),
        Address::Barrier(name) => Barrier::create(&place, name.parties()).map(drop),
        // And the count behind it.
        Address::Condvar(_) => {
            Condvar::create(&place).map(drop).and_then(|()| Counted::open(&place, true, Deadline::Now).map(drop))
        }
        address => return Err(endpoint::refused(address, "create", "which does not live in shared memory")),
    };
    made.map_err(|error| match Failure::from(error) {
        // The command line does not say what lies in memory that somebody else has made.
        Failure::Usage(text) if is_inherited(memory) => Failure::Failed(text),
        failure => failure,
    })
}

/// Refuses options that say nothing about this mechanism.
fn check_options(arguments: &Arguments) -> Result<(), Failure> {
    let address = &arguments.address;
    let is_queue = matches!(address, Address::PosixMq(_));
    let given = [
        ("--max-messages", "mq:", arguments.max_messages.is_some(), is_queue),
        ("--message-size", "mq:", arguments.message_size.is_some(), is_queue),
        ("--initial", "semaphores", arguments.initial.is_some(), is_semaphore(address)),
        ("--size", "shm:, sysv-shm: and mmap:", arguments.size.is_some(), address.region().is_some()),
    ];
    match given.into_iter().find(|(_, _, given, fits)| *given && !fits) {
        Some((flag, where_it_fits, ..)) => {
            Err(Failure::usage(format!("{flag} does not fit {address}: it is for {where_it_fits}")))
        }
        None => Ok(()),
    }
}

fn memory_bytes(arguments: &Arguments) -> Result<usize, Failure> {
    let for_object = arguments.address.region().is_some() && !is_memory(&arguments.address);
    let size = arguments
        .size
        .or(for_object.then_some(OBJECT_BYTES))
        .ok_or_else(|| Failure::usage(format!("create {} needs --size, as 64K or 1GiB", arguments.address)))?;
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}

/// Room for anything that lives in shared memory.
const OBJECT_BYTES: u64 = 4096;

fn is_semaphore(address: &Address) -> bool {
    matches!(address, Address::NamedSemaphore(_) | Address::Semaphore(_) | Address::SysvSemaphore(_))
}

/// What does not fit 16 bits is above the limit of the kernel, too.
fn sysv_value(arguments: &Arguments) -> Result<u16, Failure> {
    let value = arguments.initial.unwrap_or(0);
    let too_large = || format!("--initial: {value} is above 32767, the largest value of {}", arguments.address);
    u16::try_from(value).map_err(|_| Failure::usage(too_large()))
}

/// Whether it is memory that exists before it has a name here.
fn is_inherited(memory: &Address) -> bool {
    matches!(memory, Address::Descriptor(_))
}

fn is_memory(address: &Address) -> bool {
    matches!(address, Address::PosixShm(_) | Address::SysvShm(_) | Address::FileMapping(_))
}

fn attributes(arguments: &Arguments) -> QueueAttributes {
    let mut attributes = QueueAttributes::system_default();
    let limited = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    if let Some(messages) = arguments.max_messages {
        attributes.max_messages = limited(messages);
    }
    if let Some(bytes) = arguments.message_size {
        attributes.message_bytes = limited(bytes);
    }
    attributes
}

fn why_not(address: &Address) -> String {
    match address {
        Address::UnixStream(_)
        | Address::UnixDgram(_)
        | Address::UnixSeqpacket(_)
        | Address::Tcp(_)
        | Address::Udp(_)
        | Address::Sctp(_)
        | Address::Pty(_)
        | Address::Channel(_) => "it exists for as long as a process listens there; use `onecopy recv`".into(),
        Address::Descriptor(_) => "a descriptor is inherited".into(),
        Address::Memory(_) => "memory belongs to its process".into(),
        Address::Signal(_) => "a signal is no object".into(),
        _ => remedy(address),
    }
}
