//! Fragments of other senders, kept while one sender's message is received.

use std::collections::VecDeque;

use crate::tally;

/// How much is kept, in bytes: enough for every queue that an ordinary user can fill, many times over.
pub(super) const KEPT_BYTES: usize = 64 << 20;
/// What a fragment costs besides its bytes: its vector, and the allocator's share.
const OVERHEAD_BYTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Aside {
    /// By sender, the one that came first in front. None is empty.
    queues: VecDeque<(u64, VecDeque<Vec<u8>>)>,
    bytes: usize,
}

impl Aside {
    /// Whether a fragment of `frame_bytes` may be kept.
    pub(super) fn has_room(&self, frame_bytes: usize) -> bool {
        self.bytes + frame_bytes + OVERHEAD_BYTES <= KEPT_BYTES
    }

    /// Keeps a fragment.
    pub(super) fn keep(&mut self, sender: u64, frame: &[u8]) {
        self.bytes += frame.len() + OVERHEAD_BYTES;
        match self.queues.iter_mut().find(|(owner, _)| *owner == sender) {
            Some((_, queue)) => queue.push_back(tally::to_vec(frame)),
            None => self.queues.push_back((sender, VecDeque::from([tally::to_vec(frame)]))),
        }
    }

    /// The oldest fragment of `sender`, or of the sender that came first.
    pub(super) fn take(&mut self, sender: Option<u64>) -> Option<Vec<u8>> {
        let index = match sender {
            Some(sender) => self.queues.iter().position(|(owner, _)| *owner == sender)?,
            None => 0,
        };
        let (_, queue) = self.queues.get_mut(index)?;
        let frame = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(index);
        }
        self.bytes -= frame.len() + OVERHEAD_BYTES;
        Some(frame)
    }

    pub(super) fn senders(&self) -> usize {
        self.queues.len()
    }
}

/// Which messages are over, by sender: received, or reported as lost. What comes of them later is late or a duplicate.
#[derive(Debug, Default)]
pub(super) struct Over {
    /// The number of the next message of each sender, the sender that was heard of last behind.
    next: Vec<(u64, u64)>,
}

/// How many senders are remembered. Of a forgotten one, a late fragment is reported as a loss once more.
const REMEMBERED_SENDERS: usize = 64;

impl Over {
    /// The message that `sender` should send next; `None` when it was not heard of.
    pub(super) fn next(&self, sender: u64) -> Option<u64> {
        self.next.iter().rev().find(|(known, _)| *known == sender).map(|(_, next)| *next)
    }

    /// All messages of `sender` below `next` are over.
    pub(super) fn set(&mut self, sender: u64, next: u64) {
        if let Some(last) = self.next.last_mut().filter(|(known, _)| *known == sender) {
            last.1 = next;
            return;
        }
        match self.next.iter().position(|(known, _)| *known == sender) {
            Some(index) => drop(self.next.remove(index)),
            None if self.next.len() == REMEMBERED_SENDERS => drop(self.next.remove(0)),
            None => {}
        }
        self.next.push((sender, next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_keeps_its_order_and_the_first_comes_first() {
        let mut aside = Aside::default();
        for (sender, byte) in [(1, 10), (2, 20), (1, 11), (2, 21)] {
            aside.keep(sender, &[byte]);
        }
        assert_eq!(aside.take(Some(2)), Some(vec![20]));
        assert_eq!(aside.take(Some(3)), None);
        assert_eq!(aside.take(None), Some(vec![10]));
        assert_eq!(aside.take(None), Some(vec![11]));
        assert_eq!(aside.take(None), Some(vec![21]));
        assert_eq!((aside.take(None), aside.bytes, aside.senders()), (None, 0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut aside = Aside::default();
        let megabyte = vec![0; 1 << 20];
        while aside.has_room(megabyte.len()) {
            aside.keep(aside.senders() as u64, &megabyte);
        }
        assert_eq!((aside.senders(), aside.bytes), (63, 63 * ((1 << 20) + OVERHEAD_BYTES)));
        assert!(aside.take(None).is_some() && aside.has_room(megabyte.len()), "what was taken makes room");
    }

    #[test]
    fn only_the_senders_heard_of_last_are_remembered() {
        let mut over = Over::default();
        over.set(1, 1);
        over.set(2, 1);
        over.set(1, 2);
        for sender in 3..=65 {
            over.set(sender, sender);
        }
        assert_eq!((over.next(1), over.next(2), over.next(65)), (Some(2), None, Some(65)));
        assert!(over.next.len() <= REMEMBERED_SENDERS);
    }
}
