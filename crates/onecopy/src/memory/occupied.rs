//! Which bytes of shared memory this process uses for more than bytes.
//!
//! The words of a lock lead to addresses, and its guards lend out references to what it protects. So while this process has a handle of
//! a lock, nothing else in it may write there: no copy into a [`Region`](super::Region), no other lock, no ring. All of them ask here, by
//! what is mapped and not by where: two mappings of one object are one memory.
//!
//! | Who | Says | Is refused where |
//! |---|---|---|
//! | a lock | [`Use::Lock`], for as long as a handle of it lives | anything else is used |
//! | a ring, the words of a transport | [`Use::Words`] | a lock is used |
//! | a copy | nothing | a lock is used |
//!
//! A copy into memory without locks pays for one load, of a word that its object shares with one in [`BOUNDS`] others, and one that goes
//! before or behind all of their locks for two more; one between them looks its place up in their order, under a lock that these objects
//! share. It asks before it begins: a lock that is opened in the middle of it is not safe from it.
//!
//! What other processes write there is not seen here, nor what this one writes by way of a descriptor, with write(2).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use rustix::fs::Stat;

use crate::process::ProcessLock;

const BOUNDS: usize = 256;

static LOCKS: [Locks; BOUNDS] = [const {
    Locks {
        count: AtomicU32::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        objects: ProcessLock::new(),
    }
}; BOUNDS];

/// The locks that are used in some objects. The numbers are written under the lock of `objects`; whoever has learned of a lock has
/// learned of what was written here before, so Relaxed suffices.
struct Locks {
    count: AtomicU32,
    /// Where the first one begins, and the last one ends.
    start: AtomicUsize,
    end: AtomicUsize,
    objects: ProcessLock<HashMap<Object, Uses>>,
}

impl Locks {
    fn add(&self, range: &Range<usize>) {
        let (start, end) = match self.count.load(Ordering::Relaxed) {
            0 => (range.start, range.end),
            _ => (range.start.min(self.start.load(Ordering::Relaxed)), range.end.max(self.end.load(Ordering::Relaxed))),
        };
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Object {
    File {
        device: u64,
        inode: u64,
    },
    Segment(i32),
    /// The number of a mapping that nobody can make again.
    Nameless(u64),
}

/// Where the first byte of a mapping lies in what is mapped.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    object: Object,
    start: usize,
    locks: &'static Locks,
}

/// What bytes are used as, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Lock(&'static str),
    Words(&'static str),
}

#[derive(Clone, Debug)]
struct Entry {
    /// Not empty.
    range: Range<usize>,
    what: Use,
    /// Of its own: a child made by fork begins a table anew, and drops what it has of its parent's.
    number: u64,
}

/// What is used of one object.
#[derive(Debug, Default)]
struct Uses {
    /// By where they begin. No two of them overlap.
    locks: BTreeMap<usize, Handles>,
    /// Where each of them ends, by where it begins, and by its number.
    words: BTreeMap<(usize, u64), (usize, &'static str)>,
    /// The length of the longest words since there are any.
    longest_words: usize,
}

/// The handles of a lock.
#[derive(Debug)]
struct Handles {
    what: &'static str,
    /// Where each of them ends, and its number.
    ends: BTreeSet<(usize, u64)>,
}

impl Handles {
    fn end(&self) -> usize {
        self.ends.last().map_or(0, |(end, _)| *end)
    }
}

impl Uses {
    /// The first lock in `range`, if it is none that begins where `except` says and is called so.
    fn lock_in(&self, range: &Range<usize>, except: Option<(usize, &str)>) -> Option<(Range<usize>, &'static str)> {
        if range.is_empty() {
            return None;
        }
        let before = self.locks.range(..=range.start).next_back().filter(|(_, handles)| range.start < handles.end());
        let within = self.locks.range(range.start + 1..).next().filter(|(start, _)| **start < range.end);
        before
            .filter(|(start, handles)| except != Some((**start, handles.what)))
            .or(within)
            .map(|(start, handles)| (*start..handles.end(), handles.what))
    }

    fn words_in(&self, range: &Range<usize>) -> Option<(Range<usize>, &'static str)> {
        let reach = range.start.saturating_sub(self.longest_words);
        let mut words = self.words.range((reach, 0)..(range.end, 0));
        words.find(|(_, (end, _))| range.start < *end).map(|((start, _), (end, what))| (*start..*end, *what))
    }

    /// What is in the way of a use of `range` as `what`.
    fn in_the_way(&self, range: &Range<usize>, what: Use) -> Option<(Range<usize>, &'static str)> {
        match what {
            Use::Words(_) => self.lock_in(range, None),
            Use::Lock(name) => self.lock_in(range, Some((range.start, name))).or_else(|| self.words_in(range)),
        }
    }

    fn add(&mut self, Entry { range, what, number }: &Entry) {
        match *what {
            Use::Lock(what) => {
                let handles =
                    self.locks.entry(range.start).or_insert_with(|| Handles { what, ends: BTreeSet::default() });
                handles.ends.insert((range.end, *number));
            }
            Use::Words(what) => {
                self.words.insert((range.start, *number), (range.end, what));
                self.longest_words = self.longest_words.max(range.len());
            }
        }
    }

    fn remove(&mut self, Entry { range, what, number }: &Entry) {
        match what {
            Use::Lock(_) => {
                if let Some(handles) = self.locks.get_mut(&range.start) {
                    handles.ends.remove(&(range.end, *number));
                    if handles.ends.is_empty() {
                        self.locks.remove(&range.start);
                    }
                }
            }
            Use::Words(_) => {
                self.words.remove(&(range.start, *number));
                if self.words.is_empty() {
                    self.longest_words = 0;
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.words.is_empty()
    }
}

/// While this lives, the bytes are used.
#[derive(Debug)]
pub(crate) struct Occupied {
    origin: Origin,
    entry: Entry,
}

/// What is used already.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// Where it lies, from the begin of the mapping on.
    pub(crate) range: Range<usize>,
    what: &'static str,
}

impl Conflict {
    /// What is wrong with `who`, which `reaches` there.
    pub(crate) fn reason(&self, who: &str) -> String {
        format!("{who} into bytes {}..{}, where this process uses {}", self.range.start, self.range.end, self.what)
    }
}

impl Origin {
    /// That of the first byte of a file.
    pub(super) fn of_file(stat: &Stat) -> Self {
        Self::of(Object::File { device: stat.st_dev, inode: stat.st_ino })
    }

    /// That of the first byte of a System V segment.
    pub(super) fn of_segment(id: i32) -> Self {
        Self::of(Object::Segment(id))
    }

    /// That of memory which has neither name nor descriptor.
    pub(super) fn nameless() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::of(Object::Nameless(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn of(object: Object) -> Self {
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        Self { object, start: 0, locks: &LOCKS[hasher.finish() as usize % BOUNDS] }
    }

    /// That of the byte at `offset`.
    pub(super) fn at(self, offset: usize) -> Self {
        Self { start: self.start + offset, ..self }
    }

    /// Whether there may be locks within so many bytes of the mapping: otherwise there is none of which this thread knows.
    #[inline]
    pub(super) fn may_have_locks(&self, offset: usize, len: usize) -> bool {
        let Locks { count, start, end, .. } = self.locks;
        let from = self.start + offset;
        count.load(Ordering::Relaxed) != 0
            && from < end.load(Ordering::Relaxed)
            && start.load(Ordering::Relaxed) < from + len
    }

    /// Says that `range` of the mapping is used as `what`. What begins there and is of the same name is the same.
    pub(super) fn occupy(&self, range: &Range<usize>, what: Use) -> Result<Occupied, Conflict> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let range = self.start + range.start..self.start + range.end;
        let entry = Entry { range, what, number: NEXT.fetch_add(1, Ordering::Relaxed) };
        let mut objects = self.locks.objects.lock();
        let uses = objects.entry(self.object).or_default();
        if let Some(found) = uses.in_the_way(&entry.range, what) {
            return Err(self.conflict(found));
        }
        uses.add(&entry);
        if let Use::Lock(_) = what {
            self.locks.add(&entry.range);
        }
        Ok(Occupied { origin: *self, entry })
    }

    /// Fails where a lock is used within `range` of the mapping.
    #[cold]
    pub(super) fn check_free(&self, range: &Range<usize>) -> Result<(), Conflict> {
        let range = self.start + range.start..self.start + range.end;
        let objects = self.locks.objects.lock();
        match objects.get(&self.object).and_then(|uses| uses.lock_in(&range, None)) {
            Some(found) => Err(self.conflict(found)),
            None => Ok(()),
        }
    }

    fn conflict(&self, (Range { start, end }, what): (Range<usize>, &'static str)) -> Conflict {
        Conflict { range: start.saturating_sub(self.start)..end.saturating_sub(self.start), what }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "byte {} of {:?}", self.start, self.object)
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let Self { origin, entry } = self;
        let mut objects = origin.locks.objects.lock();
        // Not there where a child made by fork has begun a table anew.
        if let Some(uses) = objects.get_mut(&origin.object) {
            uses.remove(entry);
            if uses.is_empty() {
                objects.remove(&origin.object);
            }
        }
        if let Use::Lock(_) = entry.what {
            origin.locks.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: Use = Use::Lock("a lock");
    const OTHER: Use = Use::Lock("another lock");
    const WORDS: Use = Use::Words("words");

    #[test]
    fn what_is_used_is_in_the_way_of_what_is_something_else() {
        let origin = Origin::nameless();
        let first = origin.occupy(&(64..128), LOCK).unwrap();
        for (range, what) in [(64..128, OTHER), (0..65, LOCK), (127..128, LOCK), (0..200, WORDS), (100..110, WORDS)] {
            let conflict = origin.occupy(&range, what).unwrap_err();
            assert_eq!(
                conflict.reason("this reaches"),
                "this reaches into bytes 64..128, where this process uses a lock"
            );
        }
        let others = [(0..64, OTHER), (128..129, OTHER), (64..100, LOCK)];
        let others = others.map(|(range, what)| origin.occupy(&range, what).unwrap());
        drop(first);
        // Another handle of the same.
        assert!(origin.may_have_locks(90, 10) && !origin.may_have_locks(usize::MAX / 2, 10));
        assert!(
            origin.may_have_locks(0, 1) && origin.may_have_locks(128, 1),
            "neither the first nor the last one that came"
        );
        assert!(origin.check_free(&(99..100)).is_err() && origin.check_free(&(100..128)).is_ok());
        assert!(origin.check_free(&(99..99)).is_ok());
        drop(others);
        assert!(origin.check_free(&(0..200)).is_ok());
        assert!(!origin.locks.objects.lock().contains_key(&origin.object));
    }

    #[test]
    fn words_are_in_the_way_of_locks_alone() {
        let origin = Origin::nameless();
        let words = [0..100, 50..60].map(|range| origin.occupy(&range, WORDS).unwrap());
        assert!(origin.check_free(&(0..100)).is_ok());
        assert!(origin.occupy(&(60..70), LOCK).is_err());
        drop(words);
        origin.occupy(&(60..70), LOCK).unwrap();
    }

    #[test]
    fn a_part_of_a_mapping_counts_from_its_own_begin() {
        let whole = Origin::nameless();
        let part = whole.at(4096);
        let _lock = part.occupy(&(0..64), LOCK).unwrap();
        assert!(whole.check_free(&(0..4096)).is_ok() && part.check_free(&(63..64)).is_err());
        assert_eq!(whole.check_free(&(4096..4097)).unwrap_err().range, 4096..4160);
        assert!(Origin::nameless().check_free(&(0..8192)).is_ok(), "of other memory");
    }

    #[test]
    fn what_is_found_is_what_a_look_at_each_finds() {
        let origin = Origin::nameless();
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut used: Vec<Occupied> = Vec::new();
        let overlaps = |one: &Range<usize>, other: &Range<usize>| one.start < other.end && other.start < one.end;
        let (mut refused, mut taken) = (0, 0);
        for _ in 0..20_000 {
            if used.len() > 30 || random(4) == 0 && !used.is_empty() {
                used.swap_remove(random(used.len() as u64) as usize);
            }
            let start = random(1000) as usize;
            let range = start..start + 1 + random(60) as usize;
            let what = [LOCK, OTHER, WORDS, Use::Words("others")][random(4) as usize];
            let is_free = used.iter().all(|Occupied { entry, .. }| match (what, entry.what) {
                (Use::Words(_), Use::Words(_)) => true,
                _ => entry.range.start == range.start && entry.what == what || !overlaps(&entry.range, &range),
            });
            let mut locks = used.iter().filter(|other| matches!(other.entry.what, Use::Lock(_)));
            assert_eq!(origin.check_free(&range).is_ok(), locks.all(|other| !overlaps(&other.entry.range, &range)));
            match origin.occupy(&range, what) {
                Ok(occupied) if is_free => used.push(occupied),
                Err(conflict) if !is_free => {
                    assert!(overlaps(&conflict.range, &range), "{conflict:?} in {range:?}");
                    refused += 1;
                }
                other => panic!("{what:?} in {range:?}: {other:?} beside {used:?}"),
            }
            taken += usize::from(is_free);
        }
        assert!(refused > 1000 && taken > 1000, "{refused} {taken}");
        drop(used);
        assert!(!origin.locks.objects.lock().contains_key(&origin.object));
    }
}
