//! Files that processes may have left: sockets, FIFOs and links to terminals in the directories where such files usually lie.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::leftover::FileId;
use crate::failure::{Failure, plain};

/// Directories below a place are looked at down to this depth.
const DEPTH: usize = 2;
/// The most files that are looked at in one place.
const MOST_FILES: usize = 100_000;

/// A socket file, a FIFO or a symbolic link.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
}

/// The usual places: /tmp, /run, the directories of /run/user, which are file systems of their own, and those that the environment
/// names.
pub(super) fn usual() -> Vec<PathBuf> {
    let named = ["TMPDIR", "XDG_RUNTIME_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let of_users = fs::read_dir("/run/user").into_iter().flatten().flatten().map(|entry| entry.path());
    let all = ["/tmp", "/run"].into_iter().map(PathBuf::from).chain(of_users).chain(named);
    let all = all.filter(|path| path.is_absolute()).filter_map(|path| path.canonicalize().ok());
    all.collect::<BTreeSet<PathBuf>>().into_iter().collect()
}

/// What lies in `place` and in the directories below it on the same file system, and whether there was too much to see all.
///
/// # Errors
///
/// When the place itself cannot be read.
pub(super) fn look(place: &Path) -> Result<(Vec<Found>, bool), Failure> {
    let failed = |reason: &str| Failure::failed(format!("cannot look into {}: {reason}", place.display()));
    let root = place.canonicalize().map_err(|error| failed(&plain(&error)))?;
    fs::read_dir(&root).map_err(|error| failed(&plain(&error)))?;
    let id = FileId::of(&root).ok_or_else(|| failed("it has just been removed"))?;
    let mut walk = Walk { device: (id.inode.0, id.inode.1), left: MOST_FILES, found: Vec::new() };
    walk.descend(&root, DEPTH);
    Ok((walk.found, walk.left == 0))
}

struct Walk {
    device: (u32, u32),
    left: usize,
    found: Vec<Found>,
}

impl Walk {
    /// A directory that may not be read belongs to somebody else, and so do the files in it.
    fn descend(&mut self, directory: &Path, depth: usize) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            let Ok(kind) = entry.file_type() else { continue };
            if !(kind.is_socket() || kind.is_fifo() || kind.is_symlink() || kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            match FileId::of(&path) {
                Some(id) if id.kind != FileType::Directory => self.found.push(Found { path, id }),
                Some(id) if depth > 0 && (id.inode.0, id.inode.1) == self.device => self.descend(&path, depth - 1),
                _ => {}
            }
        }
    }
}
