//! Regions of shared memory by address.

use super::{OpenOptions, descriptor};
use crate::address::DescriptorName;
use crate::memory::Region;
use crate::memory::anonymous::AnonymousMapping;
use crate::{Address, Error, Result};

/// Maps the shared memory that `address` names, to read and write it. A missing region is created with `create_bytes` bytes
/// where the options say so.
///
/// # Errors
///
/// [`Error::Invalid`] when it is no shared memory; what the open of its mechanism reports.
pub fn open_region(address: &Address, _create_bytes: usize, _options: &OpenOptions) -> Result<Region> {
    match address {
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
        Address::Descriptor(name) => inherited(*name),
        _ => Err(no_memory(address)),
    }
}

/// A memfd that this process inherited, or that another one has open.
fn inherited(name: DescriptorName) -> Result<Region> {
    let mapping = match (name.owner(), i32::try_from(name.number())) {
        (None, Ok(number)) => AnonymousMapping::from_inherited(number)?,
        _ => AnonymousMapping::from_fd(descriptor::duplicate(name)?.0)?,
    };
    Ok(mapping.into_region())
}

fn no_memory(address: &Address) -> Error {
    Error::Invalid { object: address.to_string(), reason: "is no shared memory".into() }
}
