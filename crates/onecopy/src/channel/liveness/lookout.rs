//! What one thread watches: the words of other processes, as many as it can sleep on at once.
//!
//! The kernel marks all words of a process in one go, so of all channels to one process the thread sleeps on the word of the first,
//! and looks at the others when that one says something. Each word tells the end of its own channel only. A peer that changes its word
//! to something that has no meaning, or wakes the thread again and again for nothing, is left to its pidfd: it cannot keep the thread
//! busy.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::ClockId;

use super::PeerProcess;
use super::word::{State, Word};
use crate::process::ProcessHandle;
use crate::sys::futex::waiter;

/// The most processes that a thread watches: futex_waitv(2) takes 128 words, and one is the thread's own.
const MOST_PROCESSES: usize = 127;
/// How often a side may wake the thread for nothing. It happens to one that comes just when the thread looks.
const MOST_IDLE_CALLS: u32 = 16;

/// A process at the other end of channels of this one.
#[derive(Debug)]
struct Neighbour {
    process: Arc<ProcessHandle>,
    channels: VecDeque<Watched>,
}

/// The other side of a channel.
#[derive(Debug)]
struct Watched {
    word: Word,
    peer: Weak<PeerProcess>,
    /// What the word was when it was looked at.
    seen: u32,
    /// How often the thread was woken by it and it still was that.
    idle_calls: u32,
}

impl Watched {
    /// Whether its word, which tells nothing by `value` while the thread was woken by `caller`, is to be slept on.
    fn is_quiet(&mut self, value: u32, caller: Option<&Word>) -> bool {
        if value == self.seen && caller.is_some_and(|word| word.is(&self.word)) {
            self.idle_calls += 1;
        }
        let is_known = self.seen == 0 || value == self.seen;
        self.seen = value;
        is_known && self.idle_calls < MOST_IDLE_CALLS
    }
}

#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// Changes, with a wake-up, when there is something else to sleep on.
    pub(super) news: Arc<AtomicU32>,
    neighbours: Vec<Neighbour>,
}

/// What is to be done after a look.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// These are gone.
    pub(super) gone: Vec<Arc<PeerProcess>>,
    /// These are to be slept on while they have these values.
    words: Vec<(Word, u32)>,
}

impl Lookout {
    /// Whether it has `process` already, or room for it.
    pub(super) fn has(&self, process: &Arc<ProcessHandle>) -> bool {
        self.neighbours.iter().any(|neighbour| Arc::ptr_eq(&neighbour.process, process))
    }

    pub(super) fn has_room(&self) -> bool {
        self.neighbours.len() < MOST_PROCESSES
    }

    /// Watches `word` of `process` too, for `peer`.
    pub(super) fn add(&mut self, process: &Arc<ProcessHandle>, word: Word, peer: &Arc<PeerProcess>) {
        let watched = Watched { word, peer: Arc::downgrade(peer), seen: 0, idle_calls: 0 };
        let same = |neighbour: &&mut Neighbour| Arc::ptr_eq(&neighbour.process, process);
        if let Some(neighbour) = self.neighbours.iter_mut().find(same) {
            return neighbour.channels.push_back(watched);
        }
        self.neighbours.push(Neighbour { process: Arc::clone(process), channels: VecDeque::from([watched]) });
        self.tell();
    }

    /// Watches `word` of `process` no more.
    pub(super) fn remove(&mut self, process: &Arc<ProcessHandle>, word: &Word) {
        let same = |neighbour: &Neighbour| Arc::ptr_eq(&neighbour.process, process);
        let Some(at) = self.neighbours.iter().position(same) else { return };
        let channels = &mut self.neighbours[at].channels;
        let Some(index) = channels.iter().position(|watched| watched.word.is(word)) else { return };
        channels.remove(index);
        if channels.is_empty() {
            self.neighbours.swap_remove(at);
        }
        if index == 0 {
            self.tell();
        }
    }

    fn tell(&self) {
        // Release: the thread, which has it before it looks, sees what has changed. The lock says so too.
        self.news.fetch_add(1, Ordering::Release);
        // The only errors are of a bad address, which cannot occur.
        let _ = futex::wake(&self.news, futex::Flags::PRIVATE, 1);
    }

    /// Looks at all that may have changed; `caller` is the word that woke the thread, if one did.
    pub(super) fn look(&mut self, caller: Option<&Word>) -> Look {
        let mut look = Look::default();
        self.neighbours.retain_mut(|neighbour| {
            while let Some(first) = neighbour.channels.front_mut() {
                match first.word.state() {
                    State::Silent(value) if first.is_quiet(value, caller) => {
                        look.words.push((first.word.clone(), value));
                        return true;
                    }
                    State::Dead => look.gone.extend(first.peer.upgrade()),
                    State::Silent(_) | State::Closed => {}
                }
                neighbour.channels.pop_front();
            }
            false
        });
        look
    }
}

impl Look {
    /// Sleeps until one of the words may have changed, or `news` is not `seen` any more. Returns the word that woke the thread, if one
    /// did.
    pub(super) fn sleep(mut self, news: &AtomicU32, seen: u32) -> Option<Word> {
        let own = waiter(news, seen, futex::WaitFlags::PRIVATE);
        let others = self.words.iter().map(|(word, value)| waiter(word.shared(), *value, futex::WaitFlags::empty()));
        let waiters: Vec<futex::Wait> = std::iter::once(own).chain(others).collect();
        match futex::waitv(&waiters, futex::WaitvFlags::empty(), None, ClockId::Monotonic) {
            // The first is `news`.
            Ok(index) if (1..=self.words.len()).contains(&index) => Some(self.words.swap_remove(index - 1).0),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => None,
            // Linux before 5.16, or no memory: the pidfds tell. Any result means that there may be news.
            Err(_) => {
                let _ = futex::wait(news, futex::Flags::PRIVATE, seen, None);
                None
            }
        }
    }
}
