//! What the traditional record locks of this process are: the kernel knows one holder only, the process.
//!
//! Every [`Place`] on a file shares the file's [`Entry`]: a descriptor, which stays open as long as there is a place, since to
//! close any descriptor of the file would release all, and the spans that are held, so that places exclude each other and
//! none unlocks what another one holds too.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, MutexGuard, PoisonError};

use rustix::fs::{Mode as Permissions, fstat, stat};
use rustix::io::Errno;

use super::{ACCESSES, Holder, Kind, Span};
use crate::process::ProcessLock;
use crate::sync::{Mode, lock_file};
use crate::{Error, Result};

/// A device and an inode.
type FileId = (u64, u64);

/// The spans of one file.
#[derive(Debug, Default)]
struct Entry {
    /// The one that is used, and those that were opened before their file turned out to be known.
    fds: Vec<Arc<OwnedFd>>,
    /// The numbers of the places that there are.
    places: HashSet<u64>,
    held: Vec<Held>,
    /// Tells those that wait here that what is held has changed.
    changed: Arc<Condvar>,
}

/// What one place holds, or waits for in the kernel.
#[derive(Clone, Copy, Debug)]
struct Held {
    place: u64,
    span: Span,
    mode: Mode,
    /// Whether it waits for other places to let it change its mode.
    converts: bool,
}

impl Held {
    fn excludes(&self, place: u64, span: Span, mode: Mode) -> bool {
        let shares = self.mode == Mode::Shared && mode == Mode::Shared;
        self.place != place && self.span.overlaps(span) && !shares
    }
}

#[derive(Debug, Default)]
struct Files {
    /// The process to which the spans belong: a child has a copy of this, and none of the locks.
    process: u32,
    entries: HashMap<FileId, Entry>,
}

/// A child begins with no files where a thread of its parent was changing them. What those have open stays open then, and the places that
/// the child has copies of join its own files.
static FILES: ProcessLock<Files> = ProcessLock::new();
/// The number of the next place. In a child it goes on: no new place has the number of a copy.
static NEXT_PLACE: AtomicU64 = AtomicU64::new(0);

impl Files {
    /// The files of this process.
    fn lock() -> MutexGuard<'static, Self> {
        let mut files = FILES.lock();
        let process = std::process::id();
        if files.process != process {
            for entry in files.entries.values_mut() {
                entry.held.clear();
                // It may be used with one lock only, and this process has another one than its parent.
                entry.changed = Arc::default();
            }
            files.process = process;
        }
        files
    }
}

/// A span of a file that one value may hold.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    file: FileId,
    span: Span,
    /// `None` once it is dropped: the last one is closed while nobody can open the file through this module.
    fd: Option<Arc<OwnedFd>>,
}

impl Place {
    pub(super) fn open(path: &Path, span: Span, create: Option<Permissions>, object: &str) -> Result<Self> {
        let mut files = Files::lock();
        let known = stat(path).ok().map(|found| (found.st_dev, found.st_ino));
        let file = match known.filter(|file| files.entries.contains_key(file)) {
            Some(file) => file,
            None => {
                let fd = lock_file::open(path, &ACCESSES, create, object)?;
                let found = fstat(&fd).map_err(|errno| Error::os("fstat", object, errno))?;
                let file = (found.st_dev, found.st_ino);
                files.entries.entry(file).or_default().fds.push(Arc::new(fd));
                file
            }
        };
        // Relaxed: it is drawn while the files are locked.
        let number = NEXT_PLACE.fetch_add(1, Ordering::Relaxed);
        let fd = files.entries.get_mut(&file).and_then(|entry| {
            entry.places.insert(number);
            entry.fds.first().cloned()
        });
        Ok(Self { number, file, span, fd })
    }

    /// In which mode this place is held.
    pub(super) fn held(&self) -> Option<Mode> {
        self.with(|entry| entry.held.iter().find(|held| held.place == self.number).map(|held| held.mode))
    }

    /// Locks it, or changes its mode, at once; `false` when somebody else holds it.
    pub(super) fn try_lock(&self, mode: Mode) -> Result<bool, Errno> {
        self.with(|entry| {
            if self.is_excluded(entry, mode) {
                return Ok(false);
            }
            match self.set(self.span, Some(mode), false) {
                Ok(()) => {
                    self.note(entry, Some(mode));
                    Ok(true)
                }
                Err(Errno::AGAIN) => Ok(false),
                Err(errno) => Err(errno),
            }
        })
    }

    /// Locks it, or changes its mode, however long that takes. Meanwhile it counts as held, so that no other place of this
    /// process gets in between.
    pub(super) fn lock(&self, mode: Mode) -> Result<(), Errno> {
        let before = self.note_when_free(mode)?;
        self.set(self.span, Some(mode), true).inspect_err(|_| {
            self.with(|entry| self.note(entry, before));
            if before.is_none() {
                // What another place holds of it was locked already, and what that one released meanwhile was left to us.
                let _ = self.unlock();
            }
        })
    }

    /// Waits until no other place of this process is in the way, and takes the place of one that holds it. EDEADLK when this one
    /// and one in the way both hold it, and would wait for each other.
    fn note_when_free(&self, mode: Mode) -> Result<Option<Mode>, Errno> {
        let mut files = Files::lock();
        loop {
            let entry = self.entry(&mut files);
            let own = entry.held.iter().position(|held| held.place == self.number);
            if !self.is_excluded(entry, mode) {
                let before = own.map(|own| entry.held[own].mode);
                self.note(entry, Some(mode));
                return Ok(before);
            }
            if let Some(own) = own {
                let waits_for_us = |held: &Held| held.converts && held.excludes(self.number, self.span, mode);
                let is_vain = entry.held.iter().any(waits_for_us);
                entry.held[own].converts = !is_vain;
                if is_vain {
                    return Err(Errno::DEADLK);
                }
            }
            let changed = Arc::clone(&entry.changed);
            files = changed.wait(files).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Unlocks what no other place holds too.
    pub(super) fn unlock(&self) -> Result<(), Errno> {
        self.with(|entry| {
            self.note(entry, None);
            let others: Vec<Span> = entry.held.iter().map(|held| held.span).collect();
            gaps(self.span, others).into_iter().try_for_each(|gap| self.set(gap, None, false))
        })
    }

    /// Who is in the way.
    pub(super) fn holder(&self, mode: Mode, object: &str) -> Result<Option<Holder>> {
        let own =
            self.with(|entry| entry.held.iter().find(|held| held.excludes(self.number, self.span, mode)).copied());
        if let Some(Held { span, mode, .. }) = own {
            let process = Some(std::process::id());
            return Ok(Some(Holder { process, mode, start: span.first, len: span.len() }));
        }
        match &self.fd {
            Some(fd) => Kind::Process.holder(fd.as_fd(), self.span, mode, object),
            None => Ok(None),
        }
    }

    fn is_excluded(&self, entry: &Entry, mode: Mode) -> bool {
        entry.held.iter().any(|held| held.excludes(self.number, self.span, mode))
    }

    fn note(&self, entry: &mut Entry, mode: Option<Mode>) {
        entry.held.retain(|held| held.place != self.number);
        entry.held.extend(mode.map(|mode| Held { place: self.number, span: self.span, mode, converts: false }));
        entry.changed.notify_all();
    }

    fn set(&self, span: Span, mode: Option<Mode>, waits: bool) -> Result<(), Errno> {
        let fd = self.fd.as_ref().ok_or(Errno::BADF)?;
        Kind::Process.set(fd.as_fd(), span, mode, waits)
    }

    /// Works on the entry, which is there as long as this place is.
    fn with<T>(&self, work: impl FnOnce(&mut Entry) -> T) -> T {
        work(self.entry(&mut Files::lock()))
    }

    fn entry<'a>(&self, files: &'a mut Files) -> &'a mut Entry {
        let entry = files.entries.entry(self.file).or_default();
        // A copy in a child that began with no files.
        if entry.places.insert(self.number) {
            entry.fds.extend(self.fd.clone());
        }
        entry
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held().is_some() {
            let _ = self.unlock();
        }
        let mut files = Files::lock();
        // Both while the files are locked: a place that is opened a moment later must not lose its lock to this close.
        self.fd = None;
        if let Some(entry) = files.entries.get_mut(&self.file) {
            entry.places.remove(&self.number);
            if entry.places.is_empty() {
                files.entries.remove(&self.file);
            }
        }
    }
}

/// What is left of `span` without `others`.
fn gaps(span: Span, mut others: Vec<Span>) -> Vec<Span> {
    others.sort_by_key(|other| other.first);
    let (mut gaps, mut next) = (Vec::new(), Some(span.first));
    for other in others.iter().filter(|other| other.overlaps(span)) {
        let Some(first) = next.filter(|first| *first <= span.last) else { break };
        if other.first > first {
            gaps.push(Span { first, last: other.first - 1 });
        }
        next = other.last.checked_add(1).map(|after| after.max(first));
    }
    if let Some(first) = next.filter(|first| *first <= span.last) {
        gaps.push(Span { first, last: span.last });
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_hold_too_is_left_out() {
        let span = |first, last| Span { first, last };
        assert_eq!(gaps(span(10, 20), vec![]), [span(10, 20)]);
        assert_eq!(gaps(span(10, 20), vec![span(0, 9), span(21, 30)]), [span(10, 20)]);
        assert_eq!(gaps(span(10, 20), vec![span(15, 30), span(0, 11)]), [span(12, 14)]);
        assert_eq!(
            gaps(span(10, 20), vec![span(12, 13), span(12, 12), span(16, 16)]),
            [span(10, 11), span(14, 15), span(17, 20)]
        );
        assert_eq!(gaps(span(10, 20), vec![span(11, 18), span(12, 13)]), [span(10, 10), span(19, 20)]);
        assert_eq!(gaps(span(10, 20), vec![span(0, u64::MAX)]), []);
        assert_eq!(gaps(span(10, 20), vec![span(10, 20)]), []);
    }
}
