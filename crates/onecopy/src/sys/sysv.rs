//! What names a System V object, as the kernel takes it: a key or an identifier.

use std::path::Path;

use rustix::fs::stat;

use crate::address::path_text;
use crate::{Error, Result, SysvName};

/// A name that was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ident {
    /// What msgget, shmget and semget take; 0 is IPC_PRIVATE, which always makes a new object.
    Key(i32),
    /// What they return.
    Id(i32),
}

impl SysvName {
    /// The key or the identifier of this name; `object` is its address, for errors.
    pub(crate) fn resolve(&self, object: &str) -> Result<Ident> {
        match self {
            Self::Key(key) => Ok(Ident::Key(*key)),
            Self::Path { path, id } => ftok(path, *id, object).map(Ident::Key),
            Self::Id(id) => Ok(Ident::Id(*id)),
        }
    }
}

/// Whether another process has removed the object whose identifier was got a moment ago: what EINVAL and EIDRM of all calls on it
/// mean, but not EINVAL of the call that gets it.
pub(crate) fn is_removed(error: &Error) -> bool {
    matches!(error, Error::Os { call, source, .. }
        if !call.ends_with("get") && matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EIDRM)))
}

/// [ftok(3)](https://man7.org/linux/man-pages/man3/ftok.3.html) as glibc and musl compute it: eight bits of the number, eight
/// of the device, sixteen of the inode. Written here, since the C function gives up the reason of a failure on some systems
/// and needs an unsafe call on all.
fn ftok(path: &Path, id: u8, object: &str) -> Result<i32> {
    let file = stat(path).map_err(|errno| {
        Error::os("ftok", object, errno)
            .with_remedy(format!("the key comes from the file {}, which must exist", path_text(path)))
    })?;
    let key = u32::from(id) << 24 | (file.st_dev as u32 & 0xff) << 16 | (file.st_ino as u32 & 0xffff);
    Ok(key.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_file_is_made_of_its_number_device_and_inode() {
        let file = stat("/").unwrap();
        let Ident::Key(key) = SysvName::path("/", b'A').unwrap().resolve("sysv-mq:path:/?id=65").unwrap() else {
            panic!("a path gives a key")
        };
        assert_eq!(key >> 24, i32::from(b'A'));
        assert_eq!((key >> 16 & 0xff) as u64, file.st_dev & 0xff);
        assert_eq!((key & 0xffff) as u64, file.st_ino & 0xffff);
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = SysvName::path("/no/such/file", 1).unwrap().resolve("sysv-mq:x").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        assert!(missing.to_string().contains("/no/such/file"), "{missing}");
        assert_eq!(SysvName::key(7).unwrap().resolve("sysv-mq:7").unwrap(), Ident::Key(7));
        assert_eq!(SysvName::id(7).unwrap().resolve("sysv-mq:id=7").unwrap(), Ident::Id(7));
    }
}
