//! Waiting for a channel by its descriptor, as poll(2), epoll(7) and what is built on them do.
//!
//! The descriptor is the socket between the two sides, over which they have met. A half that is about to wait for it *arms*: it
//! drains the socket, sets its word to ARMED (see `memory::wait`), and looks once more for what it waits for. The other side rings
//! when it sees that word, once for each arming: it writes one byte, which tells for which half it is. Whatever a byte tells of
//! was published before it was written, and so is seen by the look that follows its draining: no byte is drained in vain.
//!
//! Both halves of a side have one socket. What is for a half that waits is left there by the other one. So a poller may find the
//! socket readable and nothing there; it never finds it silent when there is something.
//!
//! Packets of other kinds come unasked, with memory: once in each direction that for [`loans`](super::loan), and that of each buffer
//! that the other side [registers](super::registered). Whoever drains the socket maps it, for the half that will need it. One that
//! needs it while the byte of the other half stands before it looks past that (SO_PEEK_OFF), since the byte has to stay.
//!
//! A peer that writes more bytes than were asked for is told from an honest one by their number, after one call for each.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::loan::DEFAULT_LOAN_LIMIT_BYTES;
use super::passing::{Kind, Passed, peek};
use super::registered::{BUFFERS, PLACES, Use, slot_of};
use crate::io::socket::Socket;
use crate::memory::Region;
use crate::memory::anonymous::registered::Theirs;
use crate::memory::bell::Bell;
use crate::sys::socket_options::set_peek_offset;
use crate::{Error, Result};

/// What arming found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Arming {
    /// There is something to do now, and nobody was asked to tell of it.
    Ready,
    /// There is nothing yet, and the descriptor becomes readable when there is.
    Armed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Receiver,
    Sender,
}

impl Half {
    /// The byte that is for this half.
    fn tone(self) -> u8 {
        match self {
            Self::Receiver => b'm',
            Self::Sender => b'r',
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Receiver => Self::Sender,
            Self::Sender => Self::Receiver,
        }
    }
}

/// The socket of a channel, for both halves.
#[derive(Debug)]
pub(super) struct Polling {
    socket: Arc<Socket>,
    state: Mutex<State>,
    /// How many packets with registered memory this side has taken from the socket.
    taken: AtomicU64,
    /// The longest memory for loans that is mapped.
    lent_limit_bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// How many bytes may come: one for each time that a half was armed.
    expected: u64,
    /// Which halves have armed, and not looked since.
    waiting: [bool; 2],
    /// How often a half of either kind has armed, or has found something then, while what it was told stays in the socket, behind a byte for the other half.
    behind: usize,
    lent: Lent,
    /// What the other side has registered.
    buffers: [Option<Arc<Theirs>>; PLACES],
    /// Why the last of it that came could not be mapped.
    useless: Option<String>,
    /// How many packets with memory are still in the socket though this side has mapped that: the first ones.
    seen: usize,
    /// How many of the packets that this side has taken the other side does not know of. It sends no more than [`BUFFERS`] that are not taken.
    untold: usize,
}

impl State {
    /// Keeps what the other side has registered, in the place of what it had registered there before, and forgets what it has
    /// given up. There is a limit to all of it together, since pages that the other side has never touched are taken by this one.
    fn keep(&mut self, memory: Theirs) -> Result<(), String> {
        self.buffers.iter_mut().for_each(|kept| *kept = kept.take().filter(|kept| kept.lasts()));
        if memory.number() == 0 {
            return Err("it was given up before it came".into());
        }
        let slot = slot_of(memory.number());
        self.buffers[slot] = None;
        let what = Use::of_slot(slot);
        let same = self.buffers.iter().flatten().filter(|kept| Use::of_slot(slot_of(kept.number())) == what);
        let (bytes, limit) = (same.map(|kept| kept.len()).sum::<usize>(), what.most_bytes());
        if bytes + memory.len() > limit {
            let len = memory.len();
            return Err(format!("{len} bytes beside {bytes} that are registered are more than the limit of {limit}"));
        }
        self.buffers[slot] = Some(Arc::new(memory));
        Ok(())
    }

    /// What was registered with this number, if it was mapped and is not given up.
    fn buffer(&mut self, number: u64) -> Option<Arc<Theirs>> {
        let kept = &mut self.buffers[slot_of(number)];
        *kept = kept.take().filter(|kept| kept.lasts());
        kept.clone().filter(|kept| kept.number() == number)
    }
}

/// The memory from which the other side lends.
#[derive(Debug, Default)]
enum Lent {
    #[default]
    NotYet,
    Came(Region),
    /// It cannot be mapped, for this reason.
    Useless(String),
    /// By the receiver.
    Taken,
}

/// How often the halves arm, at most, behind a byte that the other one has not taken. The descriptor is readable all the while, and what it is told
/// piles up there.
const MOST_BEHIND: usize = 4;

/// What the socket has when it was drained.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// A byte for the other half, and perhaps more behind it.
    Others,
    HangUp,
}

impl Polling {
    pub(super) fn new(socket: Arc<Socket>) -> Self {
        let lent_limit_bytes = AtomicUsize::new(DEFAULT_LOAN_LIMIT_BYTES);
        Self { socket, state: Mutex::default(), taken: AtomicU64::new(0), lent_limit_bytes }
    }

    /// Sets the longest message that this side takes. No memory for loans is mapped that is longer, beyond the usual length.
    pub(super) fn set_limit_bytes(&self, limit_bytes: usize) {
        // Relaxed: nothing else depends on it.
        self.lent_limit_bytes.store(limit_bytes.max(DEFAULT_LOAN_LIMIT_BYTES), Ordering::Relaxed);
    }

    /// What tells the other side's `half`.
    pub(super) fn bell(&self, half: Half) -> Bell {
        Bell::new(Arc::clone(&self.socket), half.tone())
    }

    /// Drains the socket, then calls `arm`, which says whether it has armed. The socket is left as it is after a hang-up, which
    /// `hung_up` is told.
    pub(super) fn arm(&self, half: Half, arm: impl FnOnce() -> bool, hung_up: impl FnOnce()) -> Result<Arming> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting[half as usize] = false;
        match self.hear(&mut state, half)? {
            Heard::Nothing => state.behind = 0,
            Heard::Others if state.behind >= MOST_BEHIND => return Ok(Arming::Ready),
            Heard::Others => state.behind += 1,
            Heard::HangUp => {
                hung_up();
                return Ok(Arming::Ready);
            }
        }
        // Before `arm`, which the other side may answer at once; also when that finds something: an answer may be under way.
        state.expected += 1;
        let armed = arm();
        state.waiting[half as usize] = armed;
        Ok(if armed { Arming::Armed } else { Arming::Ready })
    }

    /// The half does not wait any more.
    pub(super) fn disarm(&self, half: Half) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting[half as usize] = false;
    }

    fn hear(&self, state: &mut State, half: Half) -> Result<Heard> {
        loop {
            // What was not looked at is not taken: it may have come since, and be memory, or for the other half.
            let first = match self.receive(RecvFlags::PEEK) {
                Ok(first) => first,
                Err(Errno::AGAIN) => return Ok(Heard::Nothing),
                Err(errno) => return Err(self.socket.error("recv", errno)),
            };
            if state.waiting[half.other() as usize] && first == Some(half.other().tone()) {
                return Ok(Heard::Others);
            }
            if state.seen == 0 && first.and_then(Kind::of).is_some() {
                self.look(state)?;
            }
            match self.receive(RecvFlags::empty()) {
                Ok(Some(tone)) => match Kind::of(tone).filter(|_| state.seen > 0) {
                    Some(kind) => {
                        state.seen -= 1;
                        self.count_taken(state, kind)?;
                    }
                    None => state.expected = state.expected.checked_sub(1).ok_or_else(|| self.unasked())?,
                },
                Ok(None) if self.has_hung_up() => return Ok(Heard::HangUp),
                Ok(None) => return Err(self.unasked()),
                Err(Errno::AGAIN) => return Ok(Heard::Nothing),
                Err(errno) => return Err(self.socket.error("recv", errno)),
            }
        }
    }

    fn count_taken(&self, state: &mut State, kind: Kind) -> Result<()> {
        if kind == Kind::Registered {
            // Relaxed: under the lock; elsewhere it tells no more than that there is news.
            self.taken.fetch_add(1, Ordering::Relaxed);
            state.untold += 1;
        }
        if state.untold > BUFFERS { Err(self.unasked()) } else { Ok(()) }
    }

    /// Maps the memory that comes next, if some does. The packet stays.
    fn look(&self, state: &mut State) -> Result<()> {
        match peek(&self.socket, self.lent_limit_bytes.load(Ordering::Relaxed)) {
            Some(Passed::Loans(memory)) if matches!(state.lent, Lent::NotYet) => {
                state.lent = match memory {
                    Ok(memory) => Lent::Came(memory),
                    Err(error @ Error::Os { .. }) => return Err(error),
                    Err(error) => Lent::Useless(error.to_string()),
                };
                state.seen += 1;
            }
            // Messages from there go another way, whatever the reason.
            Some(Passed::Registered(memory)) => {
                state.seen += 1;
                let kept = memory.map_err(|error| error.to_string()).and_then(|memory| state.keep(memory));
                state.useless = kept.err().or(state.useless.take());
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks for memory behind what stays in the socket, until `is_there`.
    fn look_past(&self, state: &mut State, is_there: impl Fn(&mut State) -> bool) -> Result<()> {
        /// More bytes than two halves can have been told (see [`MOST_BEHIND`]), and packets that were not taken.
        const FARTHEST: usize = 8 + BUFFERS + 1;
        let mut seen = state.seen;
        for offset in 0..FARTHEST {
            if is_there(state) {
                break;
            }
            let first = self.at(offset, || self.receive(RecvFlags::PEEK))?;
            match first.ok().flatten().map(Kind::of) {
                Some(Some(_)) if seen > 0 => seen -= 1,
                Some(Some(_)) => self.at(offset, || self.look(state))??,
                Some(None) => {}
                None => break,
            }
        }
        Ok(())
    }

    /// Has `peek` look at what comes behind so many bytes.
    fn at<T>(&self, offset: usize, peek: impl FnOnce() -> T) -> Result<T> {
        let set = |offset: Option<usize>| {
            set_peek_offset(self.socket.as_fd(), offset.map(|offset| offset as u16))
                .map_err(|errno| self.socket.error("setsockopt(SO_PEEK_OFF)", errno))
        };
        set(Some(offset))?;
        let peeked = peek();
        set(None)?;
        Ok(peeked)
    }

    /// The memory from which the other side lends, if it has passed that: before its first loan. Once.
    pub(super) fn take_lent(&self) -> Result<Option<Region>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(state.lent, Lent::NotYet) {
            self.hear(&mut state, Half::Receiver)?;
            self.look_past(&mut state, |state| !matches!(state.lent, Lent::NotYet))?;
        }
        match std::mem::replace(&mut state.lent, Lent::Taken) {
            Lent::Came(memory) => Ok(Some(memory)),
            Lent::Useless(why) => {
                let detail = format!("a loan from memory that cannot be mapped: {why}");
                state.lent = Lent::Useless(why);
                Err(Error::Corrupt { object: self.socket.object().into(), detail })
            }
            none => {
                state.lent = none;
                Ok(None)
            }
        }
    }

    /// What the other side has registered with this number, for `half` of this one; or why there is no such thing.
    pub(super) fn buffer(&self, half: Half, number: u64) -> Result<Result<Arc<Theirs>, String>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = state.buffer(number) {
            return Ok(Ok(memory));
        }
        self.hear(&mut state, half)?;
        self.look_past(&mut state, |state| state.buffer(number).is_some())?;
        let why = |state: &mut State| state.useless.take().unwrap_or_else(|| "it was not passed".into());
        Ok(state.buffer(number).ok_or_else(|| why(&mut state)))
    }

    /// Takes what comes for a half that has heard of news.
    pub(super) fn take(&self, half: Half) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.hear(&mut state, half).map(drop)
    }

    /// How many packets with registered memory this side has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Has `tell` tell the other side the same, if it does not know that yet: one after the other, so that the number only grows.
    pub(super) fn tell_taken(&self, tell: impl FnOnce(u64)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.untold) > 0 {
            tell(self.taken());
        }
    }

    /// What passes packets.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next byte; `None` is the end, or a message of no bytes.
    fn receive(&self, flags: RecvFlags) -> Result<Option<u8>, Errno> {
        let mut tone = [0];
        loop {
            match recv(&*self.socket, &mut tone, flags | RecvFlags::DONTWAIT) {
                Ok((bytes, _)) => return Ok((bytes > 0).then_some(tone[0])),
                // The second is told once, when the other side has closed with bytes of this one unread: what it had sent is there.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn has_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&*self.socket, PollFlags::empty())];
        poll(&mut polled, Some(&Default::default())).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }

    #[cold]
    fn unasked(&self) -> Error {
        let detail = "the other side has written to the socket what nobody had asked for".into();
        Error::Corrupt { object: self.socket.object().into(), detail }
    }
}

impl AsFd for Polling {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
