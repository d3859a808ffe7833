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
//! Once in each direction a packet of another kind comes, unasked: the memory for [`loans`](super::loan). Whoever drains the socket
//! maps it, for the receiver to take. A receiver that needs it while the byte of the other half stands before it looks past that
//! (SO_PEEK_OFF), since the byte has to stay.
//!
//! A peer that writes more bytes than were asked for is told from an honest one by their number, after one call for each.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::loan::{PACKET, peek_memory};
use crate::io::socket::Socket;
use crate::memory::Region;
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
}

#[derive(Debug, Default)]
struct State {
    /// How many bytes may come: one for each time that a half was armed.
    expected: u64,
    /// Which halves have armed, and not looked since.
    waiting: [bool; 2],
    lent: Lent,
    /// Whether the packet that brought the memory for loans is still in the socket.
    is_packet_left: bool,
}

/// The memory from which the other side lends.
#[derive(Debug, Default)]
enum Lent {
    #[default]
    NotYet,
    Came(Region),
    /// By the receiver; or it was of no use.
    Taken,
}

/// What the socket had.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    HangUp,
}

impl Polling {
    pub(super) fn new(socket: Arc<Socket>) -> Self {
        Self { socket, state: Mutex::default() }
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
        if self.hear(&mut state, half)? == Heard::HangUp {
            hung_up();
            return Ok(Arming::Ready);
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
            if matches!(state.lent, Lent::NotYet) {
                self.hear_of_memory(state)?;
            }
            if state.waiting[half.other() as usize] && self.receive(RecvFlags::PEEK) == Ok(Some(half.other().tone())) {
                return Ok(Heard::Nothing);
            }
            match self.receive(RecvFlags::empty()) {
                Ok(Some(PACKET)) if std::mem::take(&mut state.is_packet_left) => {}
                Ok(Some(_)) => state.expected = state.expected.checked_sub(1).ok_or_else(|| self.unasked())?,
                Ok(None) if self.has_hung_up() => return Ok(Heard::HangUp),
                Ok(None) => return Err(self.unasked()),
                Err(Errno::AGAIN) => return Ok(Heard::Nothing),
                // It has closed with bytes of this side unread; the next call tells the end.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(errno) => return Err(self.socket.error("recv", errno)),
            }
        }
    }

    /// Maps the memory for loans, if that comes next. The packet stays.
    fn hear_of_memory(&self, state: &mut State) -> Result<()> {
        let peeked = peek_memory(&self.socket);
        if let Ok(None) | Err(Error::Os { .. }) = peeked {
            return peeked.map(drop);
        }
        state.is_packet_left = true;
        state.lent = Lent::Taken;
        match peeked {
            Ok(memory) => {
                state.lent = memory.map_or(Lent::NotYet, Lent::Came);
                Ok(())
            }
            Err(error) => Err(Error::Corrupt { object: self.socket.object().into(), detail: error.to_string() }),
        }
    }

    /// The memory from which the other side lends, if it has passed that: before its first loan. Once.
    pub(super) fn take_lent(&self) -> Result<Option<Region>> {
        /// More bytes than two halves can have been told.
        const FARTHEST: u16 = 8;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(state.lent, Lent::NotYet) {
            self.hear(&mut state, Half::Receiver)?;
        }
        let mut offset = 1;
        while matches!(state.lent, Lent::NotYet) && offset <= FARTHEST {
            set_peek_offset(self.socket.as_fd(), Some(offset)).map_err(|errno| self.no_offset(errno))?;
            let heard = self.hear_of_memory(&mut state);
            set_peek_offset(self.socket.as_fd(), None).map_err(|errno| self.no_offset(errno))?;
            heard?;
            offset += 1;
        }
        match std::mem::replace(&mut state.lent, Lent::Taken) {
            Lent::Came(memory) => Ok(Some(memory)),
            none => {
                state.lent = none;
                Ok(None)
            }
        }
    }

    fn no_offset(&self, errno: Errno) -> Error {
        self.socket.error("setsockopt(SO_PEEK_OFF)", errno)
    }

    /// What passes packets.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next byte; `None` is the end, or a message of no bytes.
    fn receive(&self, flags: RecvFlags) -> Result<Option<u8>, Errno> {
        let mut tone = [0];
        let (bytes, _) = recv(&*self.socket, &mut tone, flags | RecvFlags::DONTWAIT)?;
        Ok((bytes > 0).then_some(tone[0]))
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
