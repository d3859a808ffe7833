//! The four states of a write, with what is promised in each, and what was seen.

use onecopy::stream::pipe::PIPE_BUF;

use super::load::Seen;
use super::probe::Probe;

/// What decides over a write, but for the room that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    ShortBlocking,
    ShortNonblocking,
    LongBlocking,
    LongNonblocking,
}

impl State {
    pub(super) const ALL: [Self; 4] =
        [Self::ShortBlocking, Self::ShortNonblocking, Self::LongBlocking, Self::LongNonblocking];

    pub(super) fn number(self) -> usize {
        self as usize + 1
    }

    /// Whether the write is longer than PIPE_BUF.
    pub(super) fn is_long(self) -> bool {
        matches!(self, Self::LongBlocking | Self::LongNonblocking)
    }

    pub(super) fn is_nonblocking(self) -> bool {
        matches!(self, Self::ShortNonblocking | Self::LongNonblocking)
    }

    /// Whether no message is ever torn.
    pub(super) fn is_safe(self) -> bool {
        !self.is_long()
    }

    /// Which writes are in it.
    pub(super) fn title(self) -> String {
        let length =
            if self.is_long() { format!("more than {PIPE_BUF} bytes") } else { format!("up to {PIPE_BUF} bytes") };
        let waits = if self.is_nonblocking() { "must not wait (O_NONBLOCK)" } else { "may wait" };
        format!("{length}, and the write {waits}")
    }

    /// What pipe(7) and POSIX promise.
    pub(super) fn promise(self, full: bool) -> &'static str {
        match (self, full) {
            (Self::ShortBlocking, false) => "all of it at once, in one piece",
            (Self::ShortBlocking, true) => "waits for room, then all of it, in one piece",
            (Self::ShortNonblocking, false) => "all of it at once, in one piece",
            (Self::ShortNonblocking, true) => "EAGAIN, and nothing is written",
            (Self::LongBlocking, false) => "all of it; bytes of other writers may come in between",
            (Self::LongBlocking, true) => "waits for room, then all of it; bytes of other writers may come in between",
            (Self::LongNonblocking, false) => {
                "as much as there is room for, from 1 byte on; bytes of other writers may come in between"
            }
            (Self::LongNonblocking, true) => "EAGAIN, and nothing is written",
        }
    }
}

/// A state with or without room.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) state: State,
    pub(super) full: bool,
    pub(super) probe: Probe,
    /// For each size that is in this state.
    pub(super) seen: Vec<Seen>,
}

impl Row {
    pub(super) fn new(state: State, full: bool, probe: Probe, seen: Vec<Seen>) -> Self {
        Self { state, full, probe, seen }
    }

    /// All sizes together.
    pub(super) fn total(&self) -> Seen {
        self.seen.iter().fold(Seen::default(), |sum, seen| sum.plus(seen))
    }

    /// Whether everything that was promised held.
    pub(super) fn is_kept(&self) -> bool {
        let total = self.total();
        let whole = !self.state.is_safe() || (total.torn == 0 && total.partial_writes == 0);
        self.probe.is_as_promised(self.state, self.full) && total.is_complete() && whole
    }

    /// Whether what this state warns of was seen.
    pub(super) fn hazard_seen(&self) -> bool {
        let total = self.total();
        total.torn > 0 || (self.state == State::LongNonblocking && total.partial_writes > 0)
    }
}
