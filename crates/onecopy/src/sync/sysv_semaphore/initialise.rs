//! A set is there before it has its values: how others know when it has them.
//!
//! The kernel gives a new set the value 0 throughout, and a time of the last semop(2) of 0. A creator that follows the
//! protocol of [semget(2)](https://man7.org/linux/man-pages/man2/semget.2.html) sets the values and ends with a semop; who
//! opens the set waits until the time is no longer 0. Creators that do not follow it (ipcmk(1), sysv_ipc with an initial
//! value) never operate, so an opener waits only for as long as a creator may take.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::io::wait::Backoff;
use crate::sys::sysv_sem::{self, Values};
use crate::{Deadline, Error, Result};

/// How long a creator may take from semget to semop.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an opener finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// How many semaphores the set has, where this user may know.
    pub(super) count: Option<usize>,
    /// Whether anybody has ever given it a value, as far as this user may know.
    pub(super) has_values: bool,
}

/// Gives a new set, of which others may know already, its `values`: all at one moment where one call can.
pub(super) fn set(id: i32, values: &[u16]) -> io::Result<()> {
    let (first, rest) = values.split_first().map_or((0, values), |(first, rest)| (*first, rest));
    if rest.iter().any(|value| *value != 0) {
        sysv_sem::set_values(id, Values::new(&[&[0], rest].concat()))?;
    }
    // Of a value of 0 the operation waits for zero, which it is.
    let last = libc::sembuf { sem_num: 0, sem_op: first.cast_signed(), sem_flg: libc::IPC_NOWAIT as libc::c_short };
    sysv_sem::operate(id, &mut [last], None)
}

/// Waits until the set has its values, or its creator cannot be about to set them any more.
pub(super) fn wait(id: i32, object: &str) -> Result<Found> {
    let deadline = Deadline::after(PATIENCE);
    let mut backoff = Backoff::new();
    loop {
        let status = match sysv_sem::stat(id) {
            Ok(status) => status,
            // It may only be changed, not read: then nothing can be known.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                return Ok(Found { count: None, has_values: true });
            }
            Err(error) => return Err(missing(object, id, error)),
        };
        let count = usize::try_from(status.count).unwrap_or(usize::MAX);
        let found = |has_values| Ok(Found { count: Some(count), has_values });
        if status.operation_time != 0 {
            return found(true);
        }
        let any = sysv_sem::values(id).is_ok_and(|values| values.into_first(count).iter().any(|value| *value != 0));
        // One semaphore has its value or has it not; of several a creator may have set some.
        if any && count == 1 {
            return found(true);
        }
        let age = clock_gettime(ClockId::Realtime).tv_sec - status.change_time;
        // The times are in whole seconds.
        if age > PATIENCE.as_secs().cast_signed() || backoff.pause(deadline, "open", object).is_err() {
            return found(any);
        }
    }
}

fn missing(object: &str, id: i32, error: io::Error) -> Error {
    let code = error.raw_os_error();
    let error = Error::os("semctl(IPC_STAT)", object, error);
    match code {
        Some(libc::EINVAL | libc::EIDRM) => {
            error.with_remedy(format!("no set has the identifier {id}: `ipcs -s` lists those that exist"))
        }
        _ => error,
    }
}
