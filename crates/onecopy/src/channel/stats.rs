//! What went which way.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a message goes to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Inside of one or two cache lines of the ring.
    Line,
    /// Through the ring, in pieces: two copies, which both sides make at the same time.
    Ring,
    /// The receiver reads it from the sender's memory: one copy.
    SingleCopy,
    /// Both copy parts of it from the sender's memory into the receiver's: one copy, made by two processors.
    Cooperative,
    /// Made in memory that both sides share, and read there: no copy, unless the receiver takes it as a message.
    Loan,
}

impl Path {
    /// All ways.
    pub const ALL: [Self; 5] = [Self::Line, Self::Ring, Self::SingleCopy, Self::Cooperative, Self::Loan];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Ring => "ring",
            Self::SingleCopy => "single-copy",
            Self::Cooperative => "cooperative",
            Self::Loan => "loan",
        }
    }
}

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many messages.
    pub messages: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// What one side of a channel has sent and received since it began, by the way that each message took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    sent: [Count; Path::ALL.len()],
    received: [Count; Path::ALL.len()],
    /// Why messages that should have been copied once went through the ring, the last reason; `None` while there was none.
    pub fallback: Option<String>,
}

impl Stats {
    /// What was sent by `path`.
    #[must_use]
    pub fn sent(&self, path: Path) -> Count {
        self.sent[path as usize]
    }

    /// What was received by `path`.
    #[must_use]
    pub fn received(&self, path: Path) -> Count {
        self.received[path as usize]
    }
}

/// The counters behind [`Stats`]. Each is changed by one half of the channel, so a plain addition does.
#[derive(Debug, Default)]
pub(super) struct Counters {
    sent: [Counter; Path::ALL.len()],
    received: [Counter; Path::ALL.len()],
    fallback: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Counter {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    fn add(&self, bytes: usize) {
        // Relaxed: nothing else depends on them.
        self.messages.store(self.messages.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.bytes.store(self.bytes.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
    }

    fn load(&self) -> Count {
        Count { messages: self.messages.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

impl Counters {
    #[inline]
    pub(super) fn count_sent(&self, path: Path, bytes: usize) {
        self.sent[path as usize].add(bytes);
    }

    #[inline]
    pub(super) fn count_received(&self, path: Path, bytes: usize) {
        self.received[path as usize].add(bytes);
    }

    pub(super) fn note_fallback(&self, reason: String) {
        *self.fallback.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    pub(super) fn snapshot(&self) -> Stats {
        Stats {
            sent: std::array::from_fn(|path| self.sent[path].load()),
            received: std::array::from_fn(|path| self.received[path].load()),
            fallback: self.fallback.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
