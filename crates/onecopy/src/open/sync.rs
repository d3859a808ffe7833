//! Locks and what wakes, by address.

use super::OpenOptions;
use crate::sync::Lock;
use crate::sync::file_lock::FileLock;
use crate::{Address, Error, Result};

/// A lock of whichever mechanism.
pub type BoxedLock = Box<dyn Lock + Send>;

/// Opens the lock that `address` names. Where the options say so, what is missing is created: a file, or a semaphore of the
/// value 1, so that one holds it at a time.
///
/// # Errors
///
/// [`Error::Invalid`] when it is no lock; what the open of its mechanism reports.
pub fn open_lock(address: &Address, options: &OpenOptions) -> Result<BoxedLock> {
    match address {
        Address::FileLock(path) if options.create => Ok(Box::new(FileLock::open_or_create(path, options.mode)?)),
        Address::FileLock(path) => Ok(Box::new(FileLock::open(path)?)),
        _ => Err(Error::Invalid { object: address.to_string(), reason: "is no lock".into() }),
    }
}
