//! Locks and what wakes in shared memory, by address.
//!
//! An address names memory, and anybody can have made what it names. So it is used only where this user and root alone may
//! write it ([`Place::new`]): they could trace this process in any case. Its object is looked at before it is used. For
//! memory that others may write there are [`Place::trusting`] and the types themselves.

use std::time::Duration;

use super::{OpenOptions, open_region};
use crate::address::{BarrierName, RegionName};
use crate::sync::barrier::Barrier;
use crate::sync::condvar::Counted;
use crate::sync::futex::Futex;
use crate::sync::mutex::Mutex;
use crate::sync::rwlock::Rwlock;
use crate::sync::semaphore::Semaphore;
use crate::sync::shared::Place;
use crate::{Address, Deadline, Result};

/// The length of memory that is made for an object.
const REGION_BYTES: usize = 4096;
/// How long an object may take to appear in memory that is there.
const SETTLE: Duration = Duration::from_secs(1);

fn place(region: &RegionName, options: &OpenOptions) -> Result<Place> {
    let address = Address::from(region.clone());
    // What exists keeps its length, whatever it is.
    let region = match open_region(&address, REGION_BYTES, &OpenOptions { create: false, ..*options }) {
        Err(error) if options.create && error.raw_os_error() == Some(libc::ENOENT) => {
            open_region(&address, REGION_BYTES, options)?
        }
        result => result?,
    };
    Place::new(region)
}

/// How long to wait for another process to make the object. That takes a moment, which is no wait for the object itself: so even who
/// does not wait for that has it.
fn patience(options: &OpenOptions) -> Deadline {
    match options.deadline {
        Deadline::Now => Deadline::after(SETTLE),
        deadline if options.create => deadline,
        deadline => deadline.at_most(SETTLE),
    }
}

pub(super) fn mutex(region: &RegionName, options: &OpenOptions) -> Result<Mutex<()>> {
    Mutex::of_any_value(&place(region, options)?, options.create, patience(options))
}

pub(super) fn rwlock(region: &RegionName, options: &OpenOptions) -> Result<Rwlock<()>> {
    Rwlock::of_any_value(&place(region, options)?, options.create, patience(options))
}

pub(super) fn semaphore(region: &RegionName, value: u16, options: &OpenOptions) -> Result<Semaphore> {
    let place = place(region, options)?;
    if options.create {
        return Semaphore::open_or_create(&place, value.into(), patience(options));
    }
    Semaphore::attach(&place, patience(options))
}

pub(super) fn futex(region: &RegionName, options: &OpenOptions) -> Result<Futex> {
    let place = place(region, options)?;
    if options.create {
        return Futex::open_or_create(&place, 0, patience(options));
    }
    Futex::attach(&place, patience(options))
}

pub(super) fn condvar(region: &RegionName, options: &OpenOptions) -> Result<Counted> {
    Counted::open(&place(region, options)?, options.create, patience(options))
}

pub(super) fn barrier(name: &BarrierName, options: &OpenOptions) -> Result<Barrier> {
    let place = place(name.region(), options)?;
    if options.create {
        return Barrier::open_or_create(&place, name.parties(), patience(options));
    }
    Barrier::attach_for(&place, name.parties(), patience(options))
}
