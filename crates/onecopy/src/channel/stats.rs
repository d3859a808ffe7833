//! What went which way.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a message goes to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Path {
    /// Inside of one or two cache lines of the ring.
    Line,
    /// Through the ring, in pieces: two copies, which both sides make at the same time.
    Ring,
    /// The receiver reads it from the sender's memory, or the sender writes it into the receiver's: one copy.
    SingleCopy,
    /// Both copy parts of it from the sender's memory into the receiver's: one copy, made by two processors. Where the receiver does
    /// better alone the sender may count it as [`SingleCopy`](Self::SingleCopy).
    Cooperative,
    /// As the two before, but out of or into [registered](super::RegisteredBuffer) memory that this side has mapped, without system
    /// calls of its own for the bytes. A sender whose receiver copies alone counts it as [`SingleCopy`](Self::SingleCopy).
    Registered,
    /// Made in memory that both sides share, and read there: no copy, unless the receiver takes it as a message.
    Loan,
}

impl Path {
    /// All ways.
    pub const ALL: [Self; 6] =
        [Self::Line, Self::Ring, Self::SingleCopy, Self::Cooperative, Self::Registered, Self::Loan];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Ring => "ring",
            Self::SingleCopy => "single-copy",
            Self::Cooperative => "cooperative",
            Self::Registered => "registered",
            Self::Loan => "loan",
        }
    }
}

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
    fallbacks: Vec<Fallback>,
}

/// Why messages did not take the way that their length had them take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fallback {
    /// In words, with the call, its object and the kernel's answer where there is one.
    pub reason: String,
    /// How many messages it was the reason for so far; 0 when none has come yet that was long enough.
    pub messages: u64,
}

/// The most reasons that are kept apart.
const REASONS: usize = 16;
/// What stands for those beyond.
const OTHERS: &str = "other reasons";

impl Stats {
    /// What was sent by `path`.
    #[must_use]
    pub fn sent(&self, path: Path) -> Count {
        self.sent[path as usize]
    }

    /// Why messages that should have been copied once went through the ring, or were copied by one side alone where both should
    /// have: each reason once, in the order in which they came, up to 16.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
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
    fallbacks: Mutex<Vec<Fallback>>,
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

fn messages(counters: &[Counter]) -> u64 {
    counters.iter().fold(0, |sum, path| sum.wrapping_add(path.messages.load(Ordering::Relaxed)))
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

    /// How many messages were received, by all ways.
    pub(super) fn received_messages(&self) -> u64 {
        messages(&self.received)
    }

    /// Whether messages were sent since `sent` of them were, which becomes the number of now.
    pub(super) fn has_sent_since(&self, sent: &mut u64) -> bool {
        let now = messages(&self.sent);
        std::mem::replace(sent, now) != now
    }

    /// Adds `messages` to those that did not take their way for this reason.
    pub(super) fn note_fallback(&self, reason: &str, messages: u64) {
        let mut known = self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner);
        let reason =
            if known.len() < REASONS - 1 || known.iter().any(|one| one.reason == reason) { reason } else { OTHERS };
        match known.iter_mut().find(|one| one.reason == reason) {
            Some(one) => one.messages = one.messages.saturating_add(messages),
            None => known.push(Fallback { reason: reason.to_owned(), messages }),
        }
    }

    pub(super) fn snapshot(&self) -> Stats {
        Stats {
            sent: std::array::from_fn(|path| self.sent[path].load()),
            received: std::array::from_fn(|path| self.received[path].load()),
            fallbacks: self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_and_their_number_is_bounded() {
        let counters = Counters::default();
        counters.note_fallback("at the beginning", 0);
        for number in 0..100 {
            counters.note_fallback(&format!("reason {}", number % 50), 1);
        }
        let stats = counters.snapshot();
        let told = stats.fallbacks();
        assert_eq!(told.len(), REASONS);
        assert_eq!(told[0], Fallback { reason: "at the beginning".into(), messages: 0 });
        assert_eq!(told[1], Fallback { reason: "reason 0".into(), messages: 2 });
        assert_eq!(told[REASONS - 1], Fallback { reason: OTHERS.into(), messages: 100 - 2 * 14 });
    }
}
