//! What stands in front of each object: who made it of what, so that nobody takes something else for it.

use std::fmt;
use std::mem::offset_of;
use std::os::unix::fs::MetadataExt as _;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{ALIGNMENT, HEADER_BYTES, OBJECT_ROOM_BYTES};
use crate::{Error, Result};

/// The first eight bytes.
pub(super) const MAGIC: [u8; 8] = *b"1copysyn";
/// Counts the changes of this layout.
pub(super) const VERSION: u32 = 1;
/// Where the state lies, by which an object is created once.
pub(super) const STATE_OFFSET: usize = offset_of!(Header, state);

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Semaphore = 1,
    Futex = 2,
    Mutex = 3,
    Condvar = 4,
    Barrier = 5,
    Rwlock = 6,
}

impl Kind {
    pub(super) fn from_word(word: u32) -> Option<Self> {
        use Kind::{Barrier, Condvar, Futex, Mutex, Rwlock, Semaphore};
        [Semaphore, Futex, Mutex, Condvar, Barrier, Rwlock].into_iter().find(|kind| *kind as u32 == word)
    }

    /// The word before the colon of its address.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Semaphore => "sem",
            Self::Futex => "futex",
            Self::Mutex => "mutex",
            Self::Condvar => "condvar",
            Self::Barrier => "barrier",
            Self::Rwlock => "rwlock",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Semaphore => "a semaphore",
            Self::Futex => "a futex word",
            Self::Mutex => "a mutex",
            Self::Condvar => "a condition variable",
            Self::Barrier => "a barrier",
            Self::Rwlock => "a read-write lock",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is to be made, or expected to be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) object_bytes: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) payload_align: usize,
    /// Whether another payload than that is accepted. Nobody reaches it then.
    pub(crate) any_payload: bool,
    /// How many meet at a barrier, the protocol of a mutex; `None` accepts what is found.
    pub(crate) detail: Option<u32>,
}

impl Spec {
    /// An object of the size of `O`, with a payload `T`.
    pub(crate) fn of<O, T>(kind: Kind, detail: Option<u32>) -> Self {
        const { assert!(align_of::<T>() <= ALIGNMENT, "a value in shared memory is aligned to at most 64 bytes") };
        Self {
            kind,
            object_bytes: size_of::<O>(),
            payload_bytes: size_of::<T>(),
            payload_align: align_of::<T>(),
            any_payload: false,
            detail,
        }
    }

    pub(super) fn total_bytes(&self) -> usize {
        PAYLOAD_OFFSET + self.payload_bytes
    }
}

/// Where the payload begins, from the start of the header.
pub(super) const PAYLOAD_OFFSET: usize = HEADER_BYTES + OBJECT_ROOM_BYTES;

/// The header. The C form of it is in the documentation of the module above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    pub(super) kind: u32,
    pub(super) state: u64,
    pub(super) total_bytes: u64,
    pub(super) object_offset: u32,
    pub(super) object_bytes: u32,
    pub(super) payload_offset: u32,
    pub(super) payload_align: u32,
    pub(super) payload_bytes: u64,
    pub(super) c_library: [u8; 8],
    pub(super) pid_namespace: u64,
    pub(super) boot_id: [u8; 36],
    pub(super) detail: u32,
    pub(super) reserved: [u8; 16],
}

const _: () = {
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(offset_of!(Header, state) == 16 && offset_of!(Header, total_bytes) == 24);
    assert!(offset_of!(Header, object_offset) == 32 && offset_of!(Header, payload_bytes) == 48);
    assert!(offset_of!(Header, c_library) == 56 && offset_of!(Header, pid_namespace) == 64);
    assert!(offset_of!(Header, boot_id) == 72 && offset_of!(Header, detail) == 108);
    assert!(size_of::<libc::pthread_mutex_t>() <= OBJECT_ROOM_BYTES);
    assert!(size_of::<libc::pthread_rwlock_t>() <= OBJECT_ROOM_BYTES);
    assert!(size_of::<libc::pthread_cond_t>() <= OBJECT_ROOM_BYTES);
    assert!(size_of::<libc::pthread_barrier_t>() <= OBJECT_ROOM_BYTES && size_of::<libc::sem_t>() <= OBJECT_ROOM_BYTES);
};

impl Header {
    /// What this process writes in front of `spec`.
    pub(super) fn new(spec: &Spec) -> Result<Self> {
        Ok(Self {
            magic: MAGIC,
            version: VERSION,
            kind: spec.kind as u32,
            state: 0,
            total_bytes: spec.total_bytes() as u64,
            object_offset: HEADER_BYTES as u32,
            object_bytes: spec.object_bytes as u32,
            payload_offset: PAYLOAD_OFFSET as u32,
            payload_align: spec.payload_align as u32,
            payload_bytes: spec.payload_bytes as u64,
            c_library: c_library(),
            pid_namespace: pid_namespace()?,
            boot_id: boot_id()?,
            detail: spec.detail.unwrap_or(0),
            reserved: [0; 16],
        })
    }

    /// Why the object behind this header is not the one of `expected`, with both; `None` when it is.
    pub(super) fn refusal(&self, expected: &Self, spec: &Spec) -> Option<String> {
        let differ = |what: &str, found: u64, wanted: u64| {
            (found != wanted).then(|| format!("{what} is {found}, and {wanted} is expected"))
        };
        self.foreign()
            .or_else(|| differ("the version of its layout", self.version.into(), expected.version.into()))
            .or_else(|| self.other_kind(expected))
            .or_else(|| self.other_library(expected))
            .or_else(|| self.other_boot(expected))
            .or_else(|| self.other_namespace(expected))
            .or_else(|| differ("the size of its object", self.object_bytes.into(), expected.object_bytes.into()))
            .or_else(|| differ("the offset of its object", self.object_offset.into(), expected.object_offset.into()))
            .or_else(|| if spec.any_payload { None } else { self.other_payload(expected) })
            .or_else(|| differ("the offset of its payload", self.payload_offset.into(), expected.payload_offset.into()))
            .or_else(|| {
                let total = u64::from(self.payload_offset).saturating_add(self.payload_bytes);
                differ("its total size", self.total_bytes, total)
            })
            .or_else(|| if spec.detail.is_none() { None } else { self.other_detail(expected) })
    }

    fn other_payload(&self, expected: &Self) -> Option<String> {
        let differ = |what: &str, found: u64, wanted: u64| {
            (found != wanted).then(|| format!("the {what} of its payload is {found}, and {wanted} is expected"))
        };
        differ("size", self.payload_bytes, expected.payload_bytes)
            .or_else(|| differ("alignment", self.payload_align.into(), expected.payload_align.into()))
    }

    /// Whether no header of ours stands there.
    pub(super) fn foreign(&self) -> Option<String> {
        let found = u64::from_be_bytes(self.magic);
        (self.magic != MAGIC).then(|| format!("its first bytes are {found:#018x}, and no object's header"))
    }

    fn other_kind(&self, expected: &Self) -> Option<String> {
        let name =
            |word| Kind::from_word(word).map_or_else(|| format!("something of kind {word}"), |kind| kind.to_string());
        (self.kind != expected.kind)
            .then(|| format!("{} lies there, and no {}", name(self.kind), strip(&name(expected.kind))))
    }

    fn other_library(&self, expected: &Self) -> Option<String> {
        (self.c_library != expected.c_library).then(|| {
            let (found, own) = (text(&self.c_library), text(&expected.c_library));
            format!(
                "it was made with {found} (an object of {} bytes), and this program is built with {own} (one of {} bytes): \
                 their objects differ",
                self.object_bytes, expected.object_bytes
            )
        })
    }

    fn other_boot(&self, expected: &Self) -> Option<String> {
        (self.boot_id != expected.boot_id).then(|| {
            "it was made before the machine was started, and whoever held it then is gone: remove it, and create it again"
                .to_owned()
        })
    }

    fn other_namespace(&self, expected: &Self) -> Option<String> {
        (self.pid_namespace != expected.pid_namespace).then(|| {
            format!(
                "it belongs to the pid namespace {}, and this process to {}: an owner's number means somebody else here",
                self.pid_namespace, expected.pid_namespace
            )
        })
    }

    fn other_detail(&self, expected: &Self) -> Option<String> {
        let (found, wanted) = (self.detail, expected.detail);
        let protocol = |detail| if detail == 0 { "without" } else { "with" };
        (found != wanted).then(|| match Kind::from_word(self.kind) {
            Some(Kind::Barrier) => format!("{found} parties meet at it, and {wanted} are expected"),
            _ => format!("it was made {} priority inheritance, and is expected {}", protocol(found), protocol(wanted)),
        })
    }
}

fn strip(name: &str) -> &str {
    name.trim_start_matches("a ")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').escape_default().to_string()
}

/// The C library whose objects these are.
pub(super) fn c_library() -> [u8; 8] {
    if cfg!(target_env = "musl") { *b"musl\0\0\0\0" } else { *b"glibc\0\0\0" }
}

/// The inode that is the name of this process's pid namespace.
fn pid_namespace() -> Result<u64> {
    const PATH: &str = "/proc/self/ns/pid";
    Ok(std::fs::metadata(PATH).map_err(|error| Error::os("stat", PATH, error))?.ino())
}

/// What the kernel calls the time since the machine was started.
fn boot_id() -> Result<[u8; 36]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read(PATH).map_err(|error| Error::os("open", PATH, error))?;
    let id = text.get(..36).and_then(|id| id.try_into().ok());
    id.ok_or_else(|| Error::Unsupported { object: PATH.to_owned(), reason: format!("has {} bytes", text.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec { object_bytes: 40, ..Spec::of::<libc::pthread_mutex_t, [u64; 2]>(Kind::Mutex, Some(0)) }
    }

    fn refusal(change: impl FnOnce(&mut Header)) -> String {
        let expected = Header::new(&spec()).unwrap();
        let mut found = expected;
        change(&mut found);
        found.refusal(&expected, &spec()).unwrap()
    }

    #[test]
    fn what_is_found_stands_beside_what_is_expected() {
        let own = Header::new(&spec()).unwrap();
        assert_eq!(own.refusal(&own, &spec()), None);
        let refused = [
            (refusal(|header| header.magic = [0x7f; 8]), "0x7f7f7f7f7f7f7f7f"),
            (refusal(|header| header.version = 7), "layout is 7, and 1 is expected"),
            (refusal(|header| header.kind = 6), "a read-write lock lies there, and no mutex"),
            (refusal(|header| header.kind = 99), "something of kind 99"),
            (refusal(|header| header.c_library = *b"other\0\0\0"), "made with other"),
            (refusal(|header| header.boot_id[0] ^= 1), "before the machine was started"),
            (refusal(|header| header.pid_namespace += 1), "pid namespace"),
            (refusal(|header| header.object_bytes = 24), "object is 24, and 40 is expected"),
            (refusal(|header| header.payload_bytes = 8), "payload is 8, and 16 is expected"),
            (refusal(|header| header.payload_align = 16), "alignment of its payload is 16"),
            (refusal(|header| header.payload_offset = 500), "offset of its payload is 500"),
            (refusal(|header| header.object_offset = 1), "offset of its object is 1"),
            (refusal(|header| header.total_bytes = 1), "total size is 1"),
            (refusal(|header| header.detail = 1), "with priority inheritance"),
        ];
        for (refusal, part) in refused {
            assert!(refusal.contains(part), "{refusal:?} lacks {part:?}");
        }
        let barrier = |parties| Spec { kind: Kind::Barrier, detail: Some(parties), ..spec() };
        let (found, expected) = (Header::new(&barrier(3)).unwrap(), Header::new(&barrier(4)).unwrap());
        assert_eq!(found.refusal(&expected, &barrier(4)).unwrap(), "3 parties meet at it, and 4 are expected");
        assert_eq!(found.refusal(&expected, &Spec { detail: None, ..barrier(4) }), None);
    }
}
