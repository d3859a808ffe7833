//! Where an object lies.
//!
//! # Safety
//!
//! A place stands for a promise: that all who can write its region are trusted. [`Place::new`] checks it, [`Place::trusting`]
//! takes the caller's word. This process is one of them, and its safe code is kept off an object that it uses by
//! [`occupied`](crate::memory::occupied).
#![expect(unsafe_code, reason = "one constructor takes the caller's word that all writers are trusted")]

use std::sync::Arc;

use super::ALIGNMENT;
use crate::memory::Region;
use crate::{Error, Result};

/// Where in shared memory an object lies, or shall lie.
///
/// It keeps the memory mapped, and so does each object in it. Several objects can lie in one region:
///
/// ```
/// use onecopy::memory::anonymous::AnonymousMapping;
/// use onecopy::sync::mutex::Mutex;
/// use onecopy::sync::shared::{Place, room_bytes};
///
/// let place = Place::new(AnonymousMapping::create("two", 4096)?.into_region())?;
/// let first = Mutex::create(&place, 1_u64)?;
/// let second = Mutex::create(&place.at(room_bytes(8))?, [0_u8; 100])?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Place {
    region: Arc<Region>,
    offset: usize,
}

impl Place {
    /// The start of `region`, which nobody but this user and root may write.
    ///
    /// Of a memfd the kernel knows only who made it, not who was passed it: one that this user made counts as theirs.
    /// Of a file or a segment its owner and its mode count, as they were when it was mapped. This program is one of those who may
    /// write it: the [module](super) says what of that the library does not see.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the owner or the mode when others may write it; [`Error::Invalid`] when it is mapped read-only.
    pub fn new(region: impl Into<Arc<Region>>) -> Result<Self> {
        let region = region.into();
        if let Some(strangers) = region.writers().strangers() {
            let reason = format!(
                "{strangers}: whoever writes a lock can make its owner write anywhere, so it is used where this user and root \
                 alone may write: make it with mode 0600, or vouch for its writers in a program (Place::trusting)"
            );
            return Err(Error::Refused { object: region.object().to_owned(), reason });
        }
        region.check_writable()?;
        Ok(Self { region, offset: 0 })
    }

    /// The start of `region`, whoever may write it.
    ///
    /// ```
    /// use onecopy::PosixName;
    /// use onecopy::memory::posix_shm::PosixShm;
    /// use onecopy::sync::{semaphore::Semaphore, shared::Place};
    ///
    /// let name = PosixName::new(format!("/onecopy-doc-trusting-{}", std::process::id()))?;
    /// let region = PosixShm::create(&name, 4096, 0o660)?.into_region(); // for a group of trusted services
    /// PosixShm::unlink(&name)?;
    /// // SAFETY: the members of the group use it by this library alone, and none shortens it.
    /// let place = unsafe { Place::trusting(region) }?;
    /// Semaphore::create(&place, 1)?;
    /// # Ok::<(), onecopy::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is mapped read-only.
    ///
    /// # Safety
    ///
    /// For as long as an object in it is used, no process writes the region but by the operations of the objects in it, and by
    /// the guards of what they protect; none shortens it or punches a hole into it.
    pub unsafe fn trusting(region: impl Into<Arc<Region>>) -> Result<Self> {
        let region = region.into();
        region.check_writable()?;
        Ok(Self { region, offset: 0 })
    }

    /// The place `offset` bytes from the start of the same region.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when that is no multiple of [`ALIGNMENT`] or beyond the end.
    pub fn at(&self, offset: usize) -> Result<Self> {
        let reason = if !offset.is_multiple_of(ALIGNMENT) {
            format!("an object cannot begin at byte {offset}: that is no multiple of {ALIGNMENT}")
        } else if offset >= self.region.len() {
            format!("an object cannot begin at byte {offset} of {}", self.region.len())
        } else {
            return Ok(Self { region: Arc::clone(&self.region), offset });
        };
        Err(Error::Invalid { object: self.region.object().to_owned(), reason })
    }

    /// The memory.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// How far from the start of the memory it is, in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }
}
