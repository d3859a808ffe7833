//! Where a verb puts its data: stdout, or a file that is either complete or untouched.

use std::fs::{File, Metadata, Permissions};
use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd as _, AsRawFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use onecopy::Deadline;
use onecopy::channel::View;
use onecopy::stream::fifo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, copy_file_range, fallocate, fcntl_getfl, linkat, open};
use rustix::io::Errno;

use crate::failure::{Failure, plain};
use crate::interrupt::{self, Guard};
use crate::io::{copy_of, is_fifo};
use crate::standard;

/// How much of a message is written at once: what `cp` writes. The page cache of a long write lies in long pieces of memory, and in a
/// virtual machine those that are free are what the host may have taken back: for new files of 4 GiB on ext4 the receiver needed 5.7 to
/// 6.5 s of processor time by 512 KiB, 2.5 to 4.5 by 64, 1.4 to 1.9 by 32, in turns. With memory at hand 64 KiB cost it a tenth more
/// than 512, and 32 a quarter more than 64.
const PIECE_BYTES: usize = 64 << 10;

/// How much of a regular file is given blocks in advance: as much as it has, within these limits. What has blocks is written by a
/// fourth less processor time than what gets them page by page: 2 GiB in 0.48 s, where `cp` takes 0.60.
const LEAST_AHEAD_BYTES: u64 = 4 << 20;
const MOST_AHEAD_BYTES: u64 = 256 << 20;

/// The output of a verb. A regular file appears under its name at [`Output::commit`], whole; without it there is nothing,
/// and what was there before stays.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    name: String,
    target: Target,
    written: u64,
    /// Up to where a regular file has blocks; nothing is behind the end where there are none to be had.
    allocated: Option<u64>,
}

#[derive(Debug)]
enum Target {
    /// What is written is there: a pipe, a terminal, a device.
    Direct,
    /// A file without a name, to be linked to this path.
    Unnamed(PathBuf),
    /// A temporary file, to be renamed to this path: for file systems that know no files without a name.
    Temporary(PathBuf, Guard),
}

impl Output {
    /// The file at `path`, or stdout, which `-` is too. A FIFO is waited for until `deadline`.
    pub(crate) fn open(path: Option<&Path>, deadline: Deadline) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            return Ok(Self::direct(stdout()?, "stdout".into()));
        };
        let name = path.display().to_string();
        if let Some(file) = open_in_place(path, &name, deadline)? {
            return Ok(Self::direct(file, name));
        }
        let (file, target) = open_file(path).map_err(|error| cannot_create(&name, &error))?;
        let allocated = if matches!(target, Target::Direct) { None } else { Some(0) };
        Ok(Self { file, name, target, written: 0, allocated })
    }

    fn direct(file: File, name: String) -> Self {
        Self { file, name, target: Target::Direct, written: 0, allocated: None }
    }

    /// What it is called, in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether nobody reads any more what would be written.
    pub(crate) fn is_unread(&self) -> bool {
        let mut watched = [PollFd::new(&self.file, PollFlags::empty())];
        self.is_direct()
            && poll(&mut watched, Some(&Timespec::default())).is_ok()
            && watched[0].revents().contains(PollFlags::ERR)
    }

    /// Whether the data goes to a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::IsTerminal::is_terminal(&self.file)
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.allocate(bytes.len());
        crate::io::write_all(&self.file, bytes).map_err(|error| Failure::of_output(&self.name, &error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes all of a message, from where it is and piece by piece.
    pub(crate) fn write_view(&mut self, view: &View) -> Result<(), Failure> {
        self.allocate(view.len());
        let write = |written: usize| view.write_to(written..written + PIECE_BYTES, self.file.as_fd());
        crate::io::write_by(&self.file, view.len(), write).map_err(|error| Failure::of_output(&self.name, &error))?;
        self.written += view.len() as u64;
        Ok(())
    }

    /// The file system on which it lies, if it is a regular file.
    pub(crate) fn device(&self) -> Option<u64> {
        self.file.metadata().ok().filter(Metadata::is_file).map(|data| data.dev())
    }

    /// Has the kernel copy at most `most` bytes from `offset` on of `source`, and returns how many; 0 is the end of that.
    pub(crate) fn copy_from(&mut self, source: &File, offset: u64, most: usize) -> Result<usize, Errno> {
        let left = source.metadata().map_or(0, |data| data.len().saturating_sub(offset));
        self.allocate(usize::try_from(left).unwrap_or(usize::MAX).min(most));
        loop {
            match copy_file_range(source, Some(&mut offset.clone()), &self.file, None, most) {
                Err(Errno::INTR) => {}
                Ok(count) => {
                    self.written += count as u64;
                    return Ok(count);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Has blocks for so many bytes more, and for some that may follow, if that helps. A file system that has none left says so when
    /// the bytes are written.
    fn allocate(&mut self, bytes: usize) {
        let end = self.written + bytes as u64;
        if let Some(allocated) = self.allocated
            && end > allocated.max(LEAST_AHEAD_BYTES)
        {
            let len = end - allocated + self.written.clamp(LEAST_AHEAD_BYTES, MOST_AHEAD_BYTES);
            let done = fallocate(&self.file, FallocateFlags::KEEP_SIZE, allocated, len);
            self.allocated = done.is_ok().then_some(allocated + len);
        }
    }

    /// Whether what is written is there at once.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.target, Target::Direct)
    }

    /// The file whose place it takes in the end, by its one name.
    pub(crate) fn replaced_file(&self) -> Option<PathBuf> {
        let (Target::Unnamed(path) | Target::Temporary(path, _)) = &self.target else { return None };
        Some(directory_of(path).canonicalize().ok()?.join(path.file_name()?))
    }

    /// Takes back what was written beyond the first `len_bytes`, which a file without its name allows.
    pub(crate) fn shorten(&mut self, len_bytes: u64) -> Result<(), Failure> {
        self.written = len_bytes;
        self.file.set_len(len_bytes).map_err(|error| Failure::of_output(&self.name, &error))
    }

    /// Gives a file its name, now that it is complete.
    pub(crate) fn commit(self) -> Result<(), Failure> {
        let Self { file, name, target, written, allocated } = self;
        if allocated.is_some_and(|allocated| allocated > written) {
            // Gives the blocks behind the end back.
            file.set_len(written).map_err(|error| Failure::of_output(&name, &error))?;
        }
        match target {
            Target::Direct => Ok(()),
            Target::Unnamed(path) => link(&file, &path),
            Target::Temporary(path, guard) => std::fs::rename(guard.path(), path).map(|()| guard.keep()),
        }
        .map_err(|error| Failure::of_output(&name, &error))
    }
}

/// Stdout, if it can be written.
pub(crate) fn stdout() -> Result<File, Failure> {
    stdout_as("stdout")
}

/// The same, which the caller calls `name`.
fn stdout_as(name: &str) -> Result<File, Failure> {
    let failed = |error: Error| Failure::failed(format!("cannot write {name}: {}", plain(&error)));
    if standard::lacks_stdout() {
        return Err(Failure::failed(format!("cannot write {name}: it is closed")));
    }
    let file = copy_of(std::io::stdout()).map_err(failed)?;
    // The standard library takes a write that is refused for this reason for one that was done.
    match fcntl_getfl(&file) {
        Ok(flags) if flags & OFlags::RWMODE == OFlags::RDONLY => Err(failed(Errno::BADF.into())),
        _ => Ok(file),
    }
}

/// What is written where it is and not replaced, a descriptor of this process by its path, or what is waited for until `deadline`.
fn open_in_place(path: &Path, name: &str, deadline: Deadline) -> Result<Option<File>, Failure> {
    let file = match open_descriptor(path) {
        Some(1) => return stdout_as(name).map(Some),
        Some(2) => copy_of(std::io::stderr()),
        Some(_) => File::options().append(true).open(path),
        None if deadline != Deadline::Never && is_fifo(path) => copy_of(fifo::open_writer(path, deadline)?),
        None => return Ok(None),
    };
    file.map(Some).map_err(|error| cannot_create(name, &error))
}

fn cannot_create(name: &str, error: &Error) -> Failure {
    Failure::failed(format!("cannot create {name}: {}", plain(error)))
}

fn open_file(path: &Path) -> Result<(File, Target), Error> {
    // The file behind a symbolic link is what is replaced, and not the link.
    let path = &behind_links(path);
    let before = match path.metadata() {
        Ok(data) if data.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(data) if !data.is_file() => return Ok((File::options().write(true).open(path)?, Target::Direct)),
        Ok(data) => Some(data),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if before.is_some() {
        // Replacing a file needs no right to write it; a file that is protected stays as it is.
        File::options().write(true).open(path)?;
    }
    let directory = directory_of(path);
    let unnamed = open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o666));
    let (file, target) = match unnamed {
        // Where /proc is missing, such a file gets no name.
        Ok(fd) if Path::new(&name_in_proc(&fd)).exists() => (File::from(fd), Target::Unnamed(path.clone())),
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let (file, temporary) = with_temporary_name(path, |temporary| File::create_new(temporary))?;
            let guard = interrupt::guard(&temporary);
            (file, Target::Temporary(path.clone(), guard))
        }
        Err(errno) => return Err(errno.into()),
    };
    if let Some(before) = before {
        copy_rights(&file, &before);
    }
    Ok((file, target))
}

/// Where the symbolic links at `path` lead, be there a file or not.
fn behind_links(path: &Path) -> PathBuf {
    /// As many as the kernel follows.
    const LINKS: usize = 40;
    // What /proc shows as a link to a pipe leads nowhere by its text, and is opened as it is.
    if path.exists() {
        return path.canonicalize().unwrap_or_else(|_| path.to_owned());
    }
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = path.read_link() else { break };
        path = directory_of(&path).join(target);
    }
    path
}

/// The new file gets the owner and the mode of the one that it replaces, as far as this user may give them.
fn copy_rights(file: &File, before: &Metadata) {
    let _ = std::os::unix::fs::fchown(file, Some(before.uid()), Some(before.gid()));
    let _ = file.set_permissions(Permissions::from_mode(before.mode() & 0o7777));
}

/// Gives the unnamed file a name: at once where the path is free, else through a temporary name, since linkat(2) does not
/// replace.
fn link(file: &File, path: &Path) -> Result<(), Error> {
    let unnamed = name_in_proc(file);
    match linkat(CWD, &unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Err(Errno::EXIST) => {}
        other => return Ok(other?),
    }
    let link = |temporary: &Path| Ok(linkat(CWD, &unnamed, CWD, temporary, AtFlags::SYMLINK_FOLLOW)?);
    let ((), temporary) = with_temporary_name(path, link)?;
    let guard = interrupt::guard(&temporary);
    std::fs::rename(&temporary, path)?;
    guard.keep();
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name_in_proc(file: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Has `make` make something beside `path` by a name that nothing has yet. What a killed process left may have the first one: a process
/// of another pid namespace had this one's number.
fn with_temporary_name<T>(path: &Path, make: impl Fn(&Path) -> Result<T, Error>) -> Result<(T, PathBuf), Error> {
    const NAMES: u32 = 1000;
    let mut number = 0;
    loop {
        let temporary = directory_of(path).join(format!(".onecopy-{}-{number}", std::process::id()));
        match make(&temporary) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < NAMES => number += 1,
            made => return made.map(|made| (made, temporary)),
        }
    }
}

/// The number of the descriptor of this process that `path` names.
fn open_descriptor(path: &Path) -> Option<u32> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => path.strip_prefix("/dev/fd/").or_else(|| path.strip_prefix("/proc/self/fd/"))?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Output, Failure> {
        Output::open(Some(path), Deadline::Never)
    }

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("onecopy-output-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        directory
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let directory = scratch("new");
        let path = directory.join("file");
        let mut output = open(&path).unwrap();
        output.write(b"whole").unwrap();
        assert!(!path.exists());
        output.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_was_there_stays_until_then_and_keeps_its_mode() {
        let directory = scratch("replace");
        let path = directory.join("file");
        std::fs::write(&path, "before").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let mut output = open(&path).unwrap();
        output.write(b"half").unwrap();
        drop(output);
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        let mut output = open(&path).unwrap();
        output.write(b"whole").unwrap();
        output.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_link_to_a_file_that_is_not_there_yet_stays_a_link() {
        let directory = scratch("link");
        std::os::unix::fs::symlink("second", directory.join("first")).unwrap();
        std::os::unix::fs::symlink("file", directory.join("second")).unwrap();
        std::os::unix::fs::symlink("round", directory.join("round")).unwrap();
        let mut output = open(&directory.join("first")).unwrap();
        output.write(b"whole").unwrap();
        output.commit().unwrap();
        assert_eq!(std::fs::read(directory.join("file")).unwrap(), b"whole");
        assert!(directory.join("first").is_symlink() && directory.join("second").is_symlink());
        assert!(open(&directory.join("round")).is_err());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_taken_back_of_a_long_file_is_not_in_it() {
        let directory = scratch("shorten");
        let path = directory.join("file");
        let mut output = open(&path).unwrap();
        let piece = vec![1; LEAST_AHEAD_BYTES as usize + 1];
        output.write(&piece).unwrap();
        output.write(&piece).unwrap();
        output.shorten(piece.len() as u64).unwrap();
        output.commit().unwrap();
        assert!(std::fs::read(&path).unwrap() == piece);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_temporary_name_that_something_has_is_not_taken() {
        let directory = scratch("names");
        let path = directory.join("file");
        std::fs::write(&path, "before").unwrap();
        for number in 0..3 {
            let left = directory.join(format!(".onecopy-{}-{number}", std::process::id()));
            std::fs::write(left, "of another").unwrap();
        }
        let mut output = open(&path).unwrap();
        output.write(b"whole").unwrap();
        output.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 4);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn devices_are_written_and_directories_refused() {
        open(Path::new("/dev/null")).unwrap().write(b"gone").unwrap();
        let failure = open(Path::new("/")).unwrap_err();
        assert_eq!(failure.text(), Some("cannot create /: is a directory"));
    }
}
