//! The robust list of this process: the words of its sides, which the kernel marks when the keeper thread ends.
//!
//! Threads change it, one at a time, while the process may be killed at any moment: before and after each store the kernel finds a whole
//! list. It ends early only if the memory of a channel that is being closed goes just while the kernel is there; then the pidfd tells
//! the others. New entries come last, so those are the first, which the kernel reaches, that have been there for longest.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::word::Word;
use crate::sys::robust_list::Head;

#[derive(Debug)]
pub(super) struct List {
    head: &'static Head,
    /// The id of the thread.
    tid: u32,
    /// In the order of the list.
    words: Vec<Word>,
}

impl List {
    /// A list without words, of the calling thread.
    pub(super) fn of_this_thread() -> Result<Self, Errno> {
        let head = Head::new(Word::distance_bytes());
        Ok(Self { tid: head.register()?, head, words: Vec::new() })
    }

    pub(super) fn add(&mut self, word: Word) {
        word.begin(self.tid);
        word.entry().store(self.head.address(), Ordering::Relaxed);
        let last = self.words.last().map_or(self.head.first(), Word::entry);
        // Release: after the entry has its own next one.
        last.store(word.entry_address(), Ordering::Release);
        self.words.push(word);
    }

    pub(super) fn remove(&mut self, word: &Word) {
        word.close();
        let Some(index) = self.words.iter().position(|other| other.is(word)) else { return };
        let before = index.checked_sub(1).map_or(self.head.first(), |before| self.words[before].entry());
        before.store(word.entry().load(Ordering::Relaxed), Ordering::Release);
        self.words.remove(index);
    }
}

#[cfg(test)]
mod tests {
    use super::super::word::{State, tests::words};
    use super::*;

    #[test]
    fn those_are_marked_that_are_on_the_list_when_the_thread_ends() {
        let words: Vec<Word> = (0..5).map(|_| words().0).collect();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut list = List::of_this_thread().unwrap();
                words.iter().for_each(|word| list.add(word.clone()));
                // In the middle, the last one, the first one, and one that comes again.
                [2, 4, 0, 3].iter().for_each(|index| list.remove(&words[*index]));
                list.remove(&words[0]);
                list.add(words[3].clone());
            });
            // A scope ends before its threads do.
            thread.join().unwrap();
        });
        let states: Vec<State> = words.iter().map(Word::state).collect();
        assert_eq!(states, [State::Closed, State::Dead, State::Closed, State::Dead, State::Closed]);
    }
}
