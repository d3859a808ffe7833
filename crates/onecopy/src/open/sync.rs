//! Locks and what wakes, by address.

use super::{OpenOptions, descriptor, shared};
use crate::address::{DescriptorName, SignalName};
use crate::signal::{RealtimeSignal, SignalReceiver, StandardSignal};
use crate::sync::eventfd::EventFd;
use crate::sync::file_lock::FileLock;
use crate::sync::named_semaphore::NamedSemaphore;
use crate::sync::record_lock::{OfdLock, RecordLock};
use crate::sync::sysv_semaphore::SysvSemaphore;
use crate::sync::{Lock, Notify, Wait};
use crate::{Address, Error, PosixName, Result, SysvName};

/// A lock of whichever mechanism.
pub type BoxedLock = Box<dyn Lock + Send>;
/// What notifies, by whichever mechanism.
pub type BoxedNotify = Box<dyn Notify + Send>;
/// What waits, by whichever mechanism.
pub type BoxedWait = Box<dyn Wait + Send>;

/// The value of a semaphore that is made to be held by one at a time.
const FREE: u16 = 1;
/// The value of one that is made to be waited for.
const NOT_POSTED: u16 = 0;

/// Opens the lock that `address` names. Where the options say so, what is missing is created: a file, or a semaphore of the
/// value 1, so that one holds it at a time.
///
/// ```
/// use onecopy::open::{OpenOptions, open_lock};
/// use onecopy::sync::{Lock as _, Mode};
/// use onecopy::{Address, Deadline};
///
/// let path = std::env::temp_dir().join(format!("onecopy-doc-{}.open-lock", std::process::id()));
/// let address: Address = format!("flock:{}", path.display()).parse()?;
/// let mut lock = open_lock(&address, &OpenOptions::default())?;
/// let guard = lock.guard_by(Mode::Exclusive, Deadline::Now)?;
/// # drop(guard);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::Invalid`] when it is no lock; [`Error::Refused`] when it lies in memory that others than this user and root may
/// write; what the open of its mechanism reports.
pub fn open_lock(address: &Address, options: &OpenOptions) -> Result<BoxedLock> {
    match address {
        Address::FileLock(path) if options.create => Ok(Box::new(FileLock::open_or_create(path, options.mode)?)),
        Address::FileLock(path) => Ok(Box::new(FileLock::open(path)?)),
        Address::RecordLock(range) if options.create => Ok(Box::new(RecordLock::open_or_create(range, options.mode)?)),
        Address::RecordLock(range) => Ok(Box::new(RecordLock::open(range)?)),
        Address::OfdLock(range) if options.create => Ok(Box::new(OfdLock::open_or_create(range, options.mode)?)),
        Address::OfdLock(range) => Ok(Box::new(OfdLock::open(range)?)),
        Address::NamedSemaphore(name) => Ok(Box::new(named_semaphore(name, FREE, options)?)),
        Address::SysvSemaphore(name) => Ok(Box::new(sysv_semaphore(name, FREE, options)?)),
        Address::Semaphore(region) => Ok(Box::new(shared::semaphore(region, FREE, options)?)),
        Address::Mutex(region) => Ok(Box::new(shared::mutex(region, options)?)),
        Address::Rwlock(region) => Ok(Box::new(shared::rwlock(region, options)?)),
        _ => Err(unfit(address, "is no lock")),
    }
}

/// Opens what `address` names to notify those who wait for it. Where the options say so, a missing semaphore is created with
/// the value 0.
///
/// # Errors
///
/// [`Error::Invalid`] when nobody can wait for it; what the open of its mechanism reports.
pub fn open_notify(address: &Address, options: &OpenOptions) -> Result<BoxedNotify> {
    match address {
        Address::NamedSemaphore(name) => Ok(Box::new(named_semaphore(name, NOT_POSTED, options)?)),
        Address::SysvSemaphore(name) => Ok(Box::new(sysv_semaphore(name, NOT_POSTED, options)?)),
        Address::Semaphore(region) => Ok(Box::new(shared::semaphore(region, NOT_POSTED, options)?)),
        Address::Futex(region) => Ok(Box::new(shared::futex(region, options)?)),
        Address::Condvar(region) => Ok(Box::new(shared::condvar(region, options)?)),
        Address::Descriptor(name) => Ok(Box::new(eventfd(*name)?)),
        Address::Signal(name) => signal(address, name),
        _ => Err(unfit(address, "wakes nobody")),
    }
}

/// Opens what `address` names to wait for it. Where the options say so, a missing semaphore is created with the value 0.
///
/// # Errors
///
/// [`Error::Invalid`] when it cannot be waited for; what the open of its mechanism reports.
pub fn open_wait(address: &Address, options: &OpenOptions) -> Result<BoxedWait> {
    match address {
        Address::NamedSemaphore(name) => Ok(Box::new(named_semaphore(name, NOT_POSTED, options)?)),
        Address::SysvSemaphore(name) => Ok(Box::new(sysv_semaphore(name, NOT_POSTED, options)?)),
        Address::Semaphore(region) => Ok(Box::new(shared::semaphore(region, NOT_POSTED, options)?)),
        Address::Futex(region) => Ok(Box::new(shared::futex(region, options)?)),
        Address::Condvar(region) => Ok(Box::new(shared::condvar(region, options)?)),
        Address::Barrier(name) => Ok(Box::new(shared::barrier(name, options)?)),
        Address::Descriptor(name) => Ok(Box::new(eventfd(*name)?)),
        Address::Signal(name) if name.target().is_none() => Ok(Box::new(SignalReceiver::open(name.signals())?)),
        _ => Err(unfit(address, "cannot be waited for")),
    }
}

fn named_semaphore(name: &PosixName, value: u16, options: &OpenOptions) -> Result<NamedSemaphore> {
    if options.create {
        NamedSemaphore::open_or_create(name, value.into(), options.mode)
    } else {
        NamedSemaphore::open(name)
    }
}

fn eventfd(name: DescriptorName) -> Result<EventFd> {
    let (fd, object) = descriptor::duplicate(name)?;
    EventFd::from_fd(fd, object)
}

fn signal(address: &Address, name: &SignalName) -> Result<BoxedNotify> {
    match (name.target(), name.signals()) {
        (Some(pid), [number]) if number.is_real_time() => Ok(Box::new(RealtimeSignal::to(pid, *number)?)),
        (Some(pid), [number]) => Ok(Box::new(StandardSignal::to(pid, *number)?)),
        _ => Err(unfit(address, "it is for receiving: a signal is sent to a pid, as signal:4711?sig=USR1")),
    }
}

fn sysv_semaphore(name: &SysvName, value: u16, options: &OpenOptions) -> Result<SysvSemaphore> {
    match name {
        // What has an identifier exists, or cannot be made.
        SysvName::Id(_) => SysvSemaphore::open(name),
        _ if options.create => SysvSemaphore::open_or_create(name, &[value], options.mode),
        _ => SysvSemaphore::open(name),
    }
}

fn unfit(address: &Address, reason: &str) -> Error {
    Error::Invalid { object: address.to_string(), reason: reason.into() }
}
