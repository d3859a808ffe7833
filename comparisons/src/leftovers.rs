//! Names that a run makes, which all carry its tag: in a directory of their own, and in /dev/shm.
//!
//! They are removed at the end, and by the next run when this one was killed.

use std::fs;
use std::path::{Path, PathBuf};

const PREFIX: &str = "onecopy-compare-";
const SHARED_MEMORY: &str = "/dev/shm";

/// The names of this process.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) tag: String,
    pub(crate) directory: PathBuf,
}

impl Names {
    /// Makes the directory, after removing what killed runs left.
    pub(crate) fn new() -> Result<Self, String> {
        remove_stale();
        let tag = format!("{PREFIX}{}", std::process::id());
        let directory = std::env::temp_dir().join(&tag);
        fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Self { tag, directory })
    }

    /// Removes what exists, but for the empty directory, and says how many names that were: files, and directories that
    /// were not there when the run began.
    pub(crate) fn sweep(&self) -> usize {
        let mut removed = 0;
        for path in entries(&self.directory) {
            removed += remove(&path);
        }
        removed + shared_memory_of(&self.tag).iter().map(|path| remove(path)).sum::<usize>()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.sweep();
        // It can only have gone already.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// What runs left whose process has ended.
fn remove_stale() {
    let is_stale = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pid =
            name.strip_prefix(PREFIX).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
        pid.is_some_and(|pid| !pid.is_empty() && !Path::new("/proc").join(pid).exists())
    };
    let all = entries(&std::env::temp_dir()).into_iter().chain(entries(Path::new(SHARED_MEMORY)));
    for path in all.filter(is_stale) {
        remove(&path);
    }
}

fn shared_memory_of(tag: &str) -> Vec<PathBuf> {
    let is_own = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(tag).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    entries(Path::new(SHARED_MEMORY)).into_iter().filter(is_own).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
}

/// Removes a file, or a directory with all that it holds, and says how many files that were; an empty directory counts too.
fn remove(path: &Path) -> usize {
    if path.is_symlink() || !path.is_dir() {
        return usize::from(fs::remove_file(path).is_ok());
    }
    let inside = entries(path).iter().map(|path| remove(path)).sum::<usize>();
    let removed = usize::from(fs::remove_dir(path).is_ok());
    inside.max(removed)
}
