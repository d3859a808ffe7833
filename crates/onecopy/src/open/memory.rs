//! Regions of shared memory by address.

use super::{OpenOptions, descriptor};
use crate::address::DescriptorName;
use crate::memory::Region;
use crate::memory::anonymous::AnonymousMapping;
use crate::memory::file_mapping::FileMapping;
use crate::memory::posix_shm::PosixShm;
use crate::memory::ring::{RING_BYTES, RingReceiver, RingSender};
use crate::memory::sysv_shm::SysvShm;
use crate::{Address, Error, Result};

/// Maps the shared memory that `address` names, to read and write it. Where the options say so, a missing region is created
/// with `create_bytes` bytes; one that exists must have as many.
///
/// # Errors
///
/// [`Error::Invalid`] when it is no shared memory; what the open of its mechanism reports.
pub fn open_region(address: &Address, create_bytes: usize, options: &OpenOptions) -> Result<Region> {
    match address {
        Address::PosixShm(name) if options.create => {
            Ok(PosixShm::open_or_create(name, create_bytes, options.mode)?.into_region())
        }
        Address::SysvShm(name) if options.create => {
            Ok(SysvShm::open_or_create(name, create_bytes, options.mode)?.into_region())
        }
        Address::FileMapping(path) if options.create => {
            Ok(FileMapping::open_or_create(path.as_path(), create_bytes, options.mode)?.into_region())
        }
        Address::PosixShm(name) => Ok(PosixShm::open(name)?.into_region()),
        Address::SysvShm(name) => Ok(SysvShm::open(name)?.into_region()),
        Address::FileMapping(path) => Ok(FileMapping::open(path.as_path())?.into_region()),
        Address::Descriptor(name) => inherited(*name),
        _ => Err(no_memory(address)),
    }
}

/// Maps the shared memory that `address` names, which must exist, to read it only.
///
/// # Errors
///
/// As [`open_region`].
pub fn open_region_read_only(address: &Address) -> Result<Region> {
    match address {
        Address::PosixShm(name) => Ok(PosixShm::open_read_only(name)?.into_region()),
        Address::SysvShm(name) => Ok(SysvShm::open_read_only(name)?.into_region()),
        Address::FileMapping(path) => Ok(FileMapping::open_read_only(path.as_path())?.into_region()),
        Address::Descriptor(name) => inherited(*name),
        _ => Err(no_memory(address)),
    }
}

/// The sender of the ring in the region that `address` names.
pub(super) fn ring_sender(address: &Address, options: &OpenOptions) -> Result<RingSender> {
    RingSender::attach(region_for_ring(address, options)?, options.deadline)
}

/// The receiver of the ring in the region that `address` names.
pub(super) fn ring_receiver(address: &Address, options: &OpenOptions) -> Result<RingReceiver> {
    RingReceiver::attach(region_for_ring(address, options)?, options.deadline)
}

/// A region that exists keeps its length, whatever it is; the ring says if it is too short.
fn region_for_ring(address: &Address, options: &OpenOptions) -> Result<Region> {
    match open_region(address, RING_BYTES, &OpenOptions { create: false, ..*options }) {
        Err(error) if options.create && error.raw_os_error() == Some(libc::ENOENT) => {
            open_region(address, RING_BYTES, options)
        }
        result => result,
    }
}

/// A memfd that this process inherited, or that another one has open.
fn inherited(name: DescriptorName) -> Result<Region> {
    let (fd, object) = descriptor::duplicate(name)?;
    Ok(AnonymousMapping::adopt(fd, object)?.into_region())
}

fn no_memory(address: &Address) -> Error {
    Error::Invalid { object: address.to_string(), reason: "is no shared memory".into() }
}
