//! What lies in a piece of shared memory, told from its first bytes: one of this library's own structures, or something else.
//!
//! The structures begin with a magic number, so whoever finds the memory can tell what it is without using it. `onecopy ls` shows
//! that, and who has the structure; `onecopy rm --stale` asks whether it was left behind.
//!
//! # What counts as left behind
//!
//! Only what the structure itself proves. The two roles of a ring (or of the region of [`attach`]) record who
//! has them, by pid, pid namespace and start time. It was left behind when the sender's process has exited without closing, and the
//! receiver's too, or the receiver has closed. It was not, as far as anybody can know, while one of them lives or belongs to
//! another pid namespace; when the sender has closed in order, since messages may wait for the next receiver; and when no receiver has
//! come yet. A structure whose maker has exited before it was ready is left behind as well; so is the file of a named semaphore under the
//! name that it has until then. Locks and semaphores do not record who may come for them, and never count as left behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use crate::Mechanism;
use crate::memory::{attach, ring};
use crate::process::{Identity, Watch};
use crate::sync::{named_semaphore, shared};

/// How many bytes of the beginning tell what it is.
pub const HEAD_BYTES: usize = 768;
/// How often a head that changes while it is read is read again.
const TRIES: usize = 4;

/// One of the library's structures, as it was a moment ago.
///
/// ```
/// use onecopy::contents::Contents;
/// use onecopy::memory::posix_shm::PosixShm;
/// use onecopy::sync::{mutex::Mutex, shared::Place};
/// use onecopy::{Mechanism, PosixName};
///
/// let name = PosixName::new(format!("/onecopy-doc-contents-{}", std::process::id()))?;
/// let place = Place::new(PosixShm::create(&name, 4096, 0o600)?.into_region())?;
/// let _mutex = Mutex::create(&place, 0_u64)?;
/// let file = std::fs::File::open(format!("/dev/shm{name}")).unwrap();
/// PosixShm::unlink(&name)?;
/// let found = Contents::of_file(&file).unwrap().expect("a structure of ours");
/// assert_eq!((found.name(), found.mechanism()), ("mutex", Some(Mechanism::Mutex)));
/// assert_eq!(found.left_behind(), None);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub(crate) name: &'static str,
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) state: String,
    pub(crate) owners: Vec<Owner>,
    pub(crate) parties: Option<u32>,
    pub(crate) left_behind: Option<String>,
}

/// A process that a structure names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// What it is there: "sender", "receiver", "maker".
    pub role: &'static str,
    /// Its pid, as its own pid namespace counts.
    pub pid: u32,
    /// Whether it has exited for certain.
    pub has_exited: bool,
}

impl Contents {
    /// What the first [`HEAD_BYTES`] of `file` say. `None` is nothing of ours, which includes memory of nothing but zeros.
    ///
    /// The bytes are read and not mapped. Others may write them meanwhile, so they are read until two readings agree; a head that never
    /// holds still counts as in use.
    ///
    /// # Errors
    ///
    /// What read(2) says, and what /proc says of this process.
    pub fn of_file(file: &File) -> io::Result<Option<Self>> {
        let mut head = read(file)?;
        for _ in 0..TRIES {
            let again = read(file)?;
            if again == head {
                return Self::of_head(&head);
            }
            head = again;
        }
        Ok(Self::of_head(&head)?.map(|found| Self { left_behind: None, ..found }))
    }

    /// What the name of a file in `/dev/shm` says. `None` is any but the one under which this library makes a named semaphore, until that
    /// has its own.
    ///
    /// # Errors
    ///
    /// What /proc says of this process.
    pub fn of_file_name(name: &OsStr) -> io::Result<Option<Self>> {
        Ok(named_semaphore::contents(name.as_bytes(), &mut Watch::new(Identity::current()?)))
    }

    fn of_head(head: &[u8; HEAD_BYTES]) -> io::Result<Option<Self>> {
        let mut watch = Watch::new(Identity::current()?);
        Ok(shared::contents(head, &mut watch)
            .or_else(|| ring::contents(head, &mut watch))
            .or_else(|| attach::contents(head, &mut watch)))
    }

    /// What it is called: `ring`, `pull`, `push`, `mutex`, `condvar`, `barrier`, `rwlock`, `futex`, `semaphore`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The mechanism that it is, if it is one by itself: a ring is not, but a way to use the memory it lies in.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    /// How it is, in a few words: "held by thread 123", "value 3". Empty where there is nothing to tell.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }

    /// How many meet there, if it is a barrier.
    #[must_use]
    pub fn parties(&self) -> Option<u32> {
        self.parties
    }

    /// The processes that it names.
    #[must_use]
    pub fn owners(&self) -> &[Owner] {
        &self.owners
    }

    /// Why it is certain that the dead have left it behind: [the rules](self). `None` when it is not.
    #[must_use]
    pub fn left_behind(&self) -> Option<&str> {
        self.left_behind.as_deref()
    }
}

/// A shorter file has zeros there, which is what memory of that length would have.
fn read(file: &File) -> io::Result<[u8; HEAD_BYTES]> {
    let mut head = [0; HEAD_BYTES];
    let mut filled = 0;
    while filled < head.len() {
        match file.read_at(&mut head[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

/// The eight bytes at `offset`.
pub(crate) fn word(head: &[u8; HEAD_BYTES], offset: usize) -> u64 {
    head.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// The process that `bits` stand for, if they stand for one.
pub(crate) fn owner(role: &'static str, bits: u64, watch: &mut Watch) -> Option<Owner> {
    let identity = Identity::from_bits(bits)?;
    Some(Owner { role, pid: identity.pid(), has_exited: watch.is_gone(identity) })
}

/// What a structure is whose maker's identity stands where its readiness would: left behind if that has exited.
pub(crate) fn unfinished(name: &'static str, mechanism: Option<Mechanism>, maker: Owner) -> Contents {
    let pid = maker.pid;
    let left_behind = maker.has_exited.then(|| format!("process {pid} has exited while it made it"));
    let state = format!("process {pid} makes it");
    Contents { name, mechanism, state, owners: vec![maker], parties: None, left_behind }
}
