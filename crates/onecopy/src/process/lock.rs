//! A lock that is not found locked by a child made by fork(2).
//!
//! The child has no thread but the one that forked. If another thread of its parent had a lock just then, the child has a copy that
//! nobody unlocks, of a value that may be half changed. So each process has a place of its own for lock and value: the child's first
//! call takes the value over, or begins with none where it was locked.
//!
//! # Safety
//!
//! A place that was published is never freed: there is one for each process between the first one and this, and a child uses those of
//! its parents no more.
#![expect(unsafe_code, reason = "refers to what an atomic pointer points to")]

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::own::own_id;

/// As a mutex that is never poisoned, for a static.
pub(crate) struct ProcessLock<T> {
    place: AtomicPtr<Place<T>>,
    /// Makes the value that a process begins with.
    begin: fn() -> T,
}

struct Place<T> {
    pid: u32,
    value: Mutex<T>,
}

impl<T: Default + Send + 'static> ProcessLock<T> {
    pub(crate) const fn new() -> Self {
        Self::with(T::default)
    }
}

impl<T: Send + 'static> ProcessLock<T> {
    /// One that begins with what `begin` makes.
    pub(crate) const fn with(begin: fn() -> T) -> Self {
        Self { place: AtomicPtr::new(std::ptr::null_mut()), begin }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'static, T> {
        self.lock_as(own_id())
    }

    #[inline]
    fn lock_as(&self, pid: u32) -> MutexGuard<'static, T> {
        loop {
            let found = self.place.load(Ordering::Acquire);
            // SAFETY: null, or leaked below before it was stored.
            let place: Option<&'static Place<T>> = unsafe { found.as_ref() };
            match place {
                Some(place) if place.pid == pid => return place.value.lock().unwrap_or_else(PoisonError::into_inner),
                _ => self.replace(place, pid),
            }
        }
    }

    /// Puts a place of this process where one of its parent, or none, is. Of several threads that come here one does: the others' are
    /// empty, and given up.
    #[cold]
    fn replace(&self, parents: Option<&'static Place<T>>, pid: u32) {
        let new: &'static Place<T> = Box::leak(Box::new(Place { pid, value: Mutex::new((self.begin)()) }));
        let mut value = new.value.lock().unwrap_or_else(PoisonError::into_inner);
        let old = parents.map_or(std::ptr::null_mut(), |place| std::ptr::from_ref(place).cast_mut());
        let pointer = std::ptr::from_ref(new).cast_mut();
        if self.place.compare_exchange(old, pointer, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && let Some(parents) = parents
        {
            match parents.value.try_lock() {
                Ok(mut theirs) => *value = std::mem::replace(&mut *theirs, (self.begin)()),
                Err(TryLockError::Poisoned(theirs)) => {
                    *value = std::mem::replace(&mut *theirs.into_inner(), (self.begin)())
                }
                // Left as it is, for good.
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_takes_the_value_over_and_begins_anew_where_a_thread_of_its_parent_changes_it() {
        let lock = ProcessLock::<Vec<u8>>::new();
        lock.lock_as(1).push(1);
        lock.lock_as(1).push(2);
        lock.lock_as(2).push(3);
        assert_eq!(*lock.lock_as(2), [1, 2, 3]);
        let locked = lock.lock_as(2);
        assert_eq!(*lock.lock_as(3), []);
        assert_eq!(*locked, [1, 2, 3]);
    }

    #[test]
    fn threads_that_come_first_at_the_same_time_have_one_lock() {
        static LOCK: ProcessLock<usize> = ProcessLock::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| *LOCK.lock() += 1));
            }
        });
        assert_eq!(*LOCK.lock(), 8000);
    }
}
