//! What the traditional record locks of this process are: the kernel knows one holder only, the process.
//!
//! Every [`Place`] on a file shares the file's [`Entry`]: a descriptor, which stays open as long as there is a place, since to
//! close any descriptor of the file would release all, and the spans that are held, so that places exclude each other and
//! none unlocks what another one holds too.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode as Permissions, fstat, stat};
use rustix::io::Errno;

use super::{ACCESSES, Holder, Kind, Span};
use crate::sync::{Mode, lock_file};
use crate::{Error, Result};

/// A device and an inode.
type FileId = (u64, u64);

/// The spans of one file.
#[derive(Debug)]
struct Entry {
    /// The one that is used, and those that were opened before their file turned out to be known.
    fds: Vec<Arc<OwnedFd>>,
    /// How many places there are.
    places: usize,
    held: Vec<Held>,
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
    next_place: u64,
    entries: HashMap<FileId, Entry>,
}

static FILES: Mutex<Option<Files>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Option<Files>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// The files of this process.
    fn of(slot: &mut Option<Self>) -> &mut Self {
        let files = slot.get_or_insert_default();
        let process = std::process::id();
        if files.process != process {
            files.entries.values_mut().for_each(|entry| entry.held.clear());
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
        let mut slot = lock();
        let files = Files::of(&mut slot);
        let known = stat(path).ok().map(|found| (found.st_dev, found.st_ino));
        let file = match known.filter(|file| files.entries.contains_key(file)) {
            Some(file) => file,
            None => {
                let fd = lock_file::open(path, &ACCESSES, create, object)?;
                let found = fstat(&fd).map_err(|errno| Error::os("fstat", object, errno))?;
                let file = (found.st_dev, found.st_ino);
                let entry = files.entries.entry(file);
                entry.or_insert_with(|| Entry { fds: Vec::new(), places: 0, held: Vec::new() }).fds.push(Arc::new(fd));
                file
            }
        };
        files.next_place += 1;
        let number = files.next_place;
        let fd = files.entries.get_mut(&file).and_then(|entry| {
            entry.places += 1;
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
        let mut slot = lock();
        loop {
            if let Some(entry) = Files::of(&mut slot).entries.get_mut(&self.file) {
                let own = entry.held.iter().position(|held| held.place == self.number);
                if !self.is_excluded(entry, mode) {
                    let before = own.map(|own| entry.held[own].mode);
                    self.note(entry, Some(mode));
                    return Ok(before);
                }
                if let Some(own) = own {
                    if entry.held.iter().any(|held| held.converts && held.excludes(self.number, self.span, mode)) {
                        return Err(Errno::DEADLK);
                    }
                    entry.held[own].converts = true;
                }
            }
            slot = CHANGED.wait(slot).unwrap_or_else(PoisonError::into_inner);
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
        CHANGED.notify_all();
    }

    fn set(&self, span: Span, mode: Option<Mode>, waits: bool) -> Result<(), Errno> {
        let fd = self.fd.as_ref().ok_or(Errno::BADF)?;
        Kind::Process.set(fd.as_fd(), span, mode, waits)
    }

    /// Works on the entry, which is there as long as this place is.
    fn with<T>(&self, work: impl FnOnce(&mut Entry) -> T) -> T {
        let mut slot = lock();
        let files = Files::of(&mut slot);
        let entry = files.entries.entry(self.file);
        work(entry.or_insert_with(|| Entry { fds: Vec::new(), places: 1, held: Vec::new() }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held().is_some() {
            let _ = self.unlock();
        }
        let mut slot = lock();
        let files = Files::of(&mut slot);
        // Both while the files are locked: a place that is opened a moment later must not lose its lock to this close.
        self.fd = None;
        if let Some(entry) = files.entries.get_mut(&self.file) {
            entry.places -= 1;
            if entry.places == 0 {
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
