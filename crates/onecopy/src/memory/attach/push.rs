//! Row 17 as a transport: the sender writes into the receiver's memory.

use std::sync::Arc;

use super::DEFAULT_LIMIT_BYTES;
use super::control::{Control, Kind, Phase, Turn, Writing};
use super::side::{News, Part, Side};
use super::window::{MESSAGE_OFFSET, Window};

use crate::atomic::{Ordering, fence};
use crate::memory::Region;
use crate::memory::nonce;
use crate::memory::remote::RemoteProcess;
use crate::{Deadline, Error, Receiver, Result, Sender, WaitStrategy};

/// The window that a receiver begins with. A longer message makes it grow.
const FIRST_WINDOW_BYTES: usize = 1 << 20;
/// How much is written between two looks at the deadline.
const CHUNK_BYTES: usize = 16 << 20;

/// How often a receiver tries to close its window against a sender that changes the turn meanwhile.
const CLOSE_ATTEMPTS: u32 = 100;

/// Sends messages by writing them into a window of their receiver's process.
///
/// [`Sender::send_by`] returns when the message is in the window, which holds one: the next one waits until the receiver is
/// done with it. A message in the window is lost when its receiver ends before it was received.
#[derive(Debug)]
pub struct PushSender {
    side: Side,
    /// The window in which the nonce was found.
    checked: Option<Place>,
}

/// Receives messages that their sender writes into a window of this process.
///
/// ```no_run
/// use onecopy::memory::{anonymous::AnonymousMapping, attach};
/// use onecopy::Deadline;
///
/// let mapping = AnonymousMapping::create("push", attach::CONTROL_BYTES)?;
/// // mapping.try_clone_fd()? goes to the other process, which attaches a PushSender.
/// let mut receiver = attach::PushReceiver::attach(mapping.into_region())?;
/// while let Some(message) = receiver.recv_borrowed_by(Deadline::Never)? {
///     println!("{} bytes, copied once", message.len());
/// }
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct PushReceiver {
    side: Side,
    window: Option<Window>,
    limit_bytes: usize,
    /// The message that was lent to the caller, until its next call.
    lent: Option<Turn>,
}

/// A window, as a sender sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    turn: Turn,
    address: u64,
    bytes: usize,
    nonce: nonce::Value,
    owner: u64,
}

impl Place {
    /// The window, when it is free.
    fn find(control: &Control) -> Result<Option<Self>> {
        let turn = Turn::load(control);
        if !turn.is(Phase::Idle) {
            return Ok(None);
        }
        let window = &control.window;
        let place = Self {
            turn,
            address: window.address.load(Ordering::Relaxed),
            bytes: usize::try_from(window.bytes.load(Ordering::Relaxed)).unwrap_or(usize::MAX),
            nonce: [window.nonce[0].load(Ordering::Relaxed), window.nonce[1].load(Ordering::Relaxed)],
            owner: window.owner.load(Ordering::Relaxed),
        };
        // The words belong together only if the window did not change meanwhile. Pairs with the fence in `offer`.
        fence(Ordering::Acquire);
        Ok((Turn::load(control) == turn).then_some(place))
    }

    fn is_same_window(&self, other: &Self) -> bool {
        Self { turn: other.turn, ..*self } == *other
    }
}

impl PushSender {
    /// Becomes the sender of `region`, which is new (all zeros) or was used for pushing before.
    ///
    /// # Errors
    ///
    /// As [`PullSender::attach`](super::PullSender::attach).
    pub fn attach(region: impl Into<Arc<Region>>) -> Result<Self> {
        let side = Side::attach(region.into(), Kind::Push, Part::Sender)?;
        let control = side.control();
        // A sender before this one that was killed while it wrote has exited, and writes no more.
        Writing::end(control);
        let turn = Turn::load(control);
        if matches!(turn.phase(), Some(Phase::Refused | Phase::Asked)) {
            turn.change(control, turn.with(Phase::Idle));
        }
        side.wake_peer();
        Ok(Self { side, checked: None })
    }

    /// Sets how to wait for the receiver.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.side.strategy = strategy;
    }

    /// A free window for a message of `bytes`.
    fn find_place(&mut self, bytes: usize, deadline: Deadline) -> Result<Place> {
        // A receiver may be replaced by one with a small window between the question and the look, but not again and again.
        for _ in 0..10 {
            let place = self.found(Place::find, deadline)?;
            if bytes <= place.bytes {
                return Ok(place);
            }
            self.ask_for(bytes, place.turn, deadline)?;
        }
        Err(self.side.corrupt(format!("it was asked for a window of {bytes} bytes and gives smaller ones")))
    }

    /// Asks the receiver for a larger window, unless it has changed the one that there was meanwhile.
    fn ask_for(&mut self, bytes: usize, idle: Turn, deadline: Deadline) -> Result<()> {
        let control = self.side.control();
        control.mail.bytes.store(bytes as u64, Ordering::Relaxed);
        let asked = idle.next(Phase::Asked);
        if !idle.change(control, asked) {
            return Ok(());
        }
        self.side.wake_peer();
        let answered = self.found(|control| Ok(Some(Turn::load(control)).filter(|turn| *turn != asked)), deadline);
        let control = self.side.control();
        let refused = asked.with(Phase::Refused);
        match answered {
            Ok(turn) if turn == refused => {
                let limit_bytes = control.mail.answer.load(Ordering::Relaxed);
                refused.change(control, refused.with(Phase::Idle));
                Err(Error::TooLong {
                    object: self.side.object().into(),
                    message_bytes: bytes,
                    limit_bytes: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
                    remedy: Some("the receiver set it".into()),
                })
            }
            Ok(_) => Ok(()),
            Err(error) => {
                asked.change(control, asked.with(Phase::Idle));
                Err(error)
            }
        }
    }

    fn found<T>(&mut self, look: impl FnMut(&Control) -> Result<Option<T>>, deadline: Deadline) -> Result<T> {
        match self.side.wait_until(deadline, look)? {
            News::Found(found) => Ok(found),
            News::End => Err(self.side.gone("its receiver has closed")),
        }
    }

    /// Makes sure that the window is one: nothing is written to an address just because the region tells it.
    fn check_window(&mut self, place: &Place, process: &RemoteProcess) -> Result<()> {
        if self.checked.is_some_and(|checked| checked.is_same_window(place)) {
            return Ok(());
        }
        let mut found = [[0; 8]; 2];
        process.read_exact(place.address, found.as_flattened_mut())?;
        if found.map(u64::from_ne_bytes) != place.nonce {
            let detail = format!("process {} has no window at {:#x}", process.pid(), place.address);
            return Err(self.side.corrupt(detail));
        }
        self.checked = Some(*place);
        Ok(())
    }

    fn write(&self, place: &Place, process: &RemoteProcess, message: &[u8], deadline: Deadline) -> Result<()> {
        let mut address = place.address.wrapping_add(MESSAGE_OFFSET as u64);
        for (index, chunk) in message.chunks(CHUNK_BYTES).enumerate() {
            if index > 0 && matches!(deadline, Deadline::At(_)) && deadline.has_passed() {
                return Err(Error::out_of_time("send", self.side.object(), deadline));
            }
            process.write_unconfirmed(address, chunk)?;
            address = address.wrapping_add(chunk.len() as u64);
        }
        Ok(())
    }

    /// Writes `message` into the window; false when that is not free any more.
    fn fill(&mut self, place: &Place, message: &[u8], deadline: Deadline) -> Result<bool> {
        let process = self.side.process(place.owner)?;
        self.side.check_alive(&process)?;
        self.check_window(place, &process).map_err(|error| self.side.explain(error, &process))?;
        if !Writing::begin(self.side.control(), place.turn) {
            return Ok(false);
        }
        let written = self.write(place, &process, message, deadline);
        let control = self.side.control();
        Writing::end(control);
        if let Err(error) = written {
            self.checked = None;
            return Err(match Turn::load(control) == place.turn {
                true => self.side.explain(error, &process),
                false => self.side.gone("its receiver left while a message was written"),
            });
        }
        control.mail.bytes.store(message.len() as u64, Ordering::Relaxed);
        let published = place.turn.change(control, place.turn.next(Phase::Done));
        self.side.wake_peer();
        match published {
            true => Ok(true),
            false => Err(self.side.gone("its receiver left while a message was written")),
        }
    }
}

impl Sender for PushSender {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.side.check_own()?;
        loop {
            let place = self.find_place(message.len(), deadline)?;
            if self.fill(&place, message, deadline)? {
                return Ok(());
            }
        }
    }

    fn object(&self) -> &str {
        self.side.object()
    }
}

impl PushReceiver {
    /// Becomes the receiver of `region`, which is new (all zeros) or was used for pushing before.
    ///
    /// # Errors
    ///
    /// As [`PullSender::attach`](super::PullSender::attach); ENOMEM.
    pub fn attach(region: impl Into<Arc<Region>>) -> Result<Self> {
        let side = Side::attach(region.into(), Kind::Push, Part::Receiver)?;
        let mut receiver = Self { side, window: None, limit_bytes: DEFAULT_LIMIT_BYTES, lent: None };
        receiver.offer(FIRST_WINDOW_BYTES)?;
        Ok(receiver)
    }

    /// Sets how to wait for the sender.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.side.strategy = strategy;
    }

    /// Sets the longest message for which the window grows. A longer one is [`Error::TooLong`] here and at its sender.
    pub fn set_limit_bytes(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// Receives one message where its sender has written it, without another copy. It stays there until the next call.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`], without [`Error::BufferTooSmall`].
    pub fn recv_borrowed_by(&mut self, deadline: Deadline) -> Result<Option<&[u8]>> {
        let Some((turn, bytes)) = self.next_message(deadline)? else { return Ok(None) };
        self.lent = Some(turn);
        Ok(self.window.as_ref().map(|window| window.bytes(bytes)))
    }

    /// The message in the window, waiting until there is one.
    fn next_message(&mut self, deadline: Deadline) -> Result<Option<(Turn, usize)>> {
        self.side.check_own()?;
        if let Some(turn) = self.lent.take() {
            self.free(turn);
        }
        loop {
            let waited = self.side.wait_until(deadline, |control| {
                let turn = Turn::load(control);
                let news = matches!(turn.phase(), Some(Phase::Done | Phase::Asked));
                Ok(news.then(|| (turn, control.mail.bytes.load(Ordering::Relaxed))))
            });
            let (turn, bytes) = match waited {
                Ok(News::Found(news)) => news,
                Ok(News::End) => return Ok(None),
                Err(error) => return Err(error),
            };
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let capacity = self.window.as_ref().map_or(0, Window::capacity);
            match turn.phase() {
                Some(Phase::Done) if bytes <= capacity => return Ok(Some((turn, bytes))),
                Some(Phase::Done) => {
                    self.free(turn);
                    return Err(self.side.corrupt(format!("a message of {bytes} bytes in a window of {capacity}")));
                }
                _ if bytes > self.limit_bytes => return Err(self.refuse(turn, bytes)),
                _ => self.exchange_window(turn, bytes)?,
            }
        }
    }

    /// Gives the window back to the sender.
    fn free(&self, turn: Turn) {
        turn.change(self.side.control(), turn.with(Phase::Idle));
        self.side.wake_peer();
    }

    fn refuse(&self, asked: Turn, bytes: usize) -> Error {
        self.side.control().mail.answer.store(self.limit_bytes as u64, Ordering::Relaxed);
        asked.change(self.side.control(), asked.with(Phase::Refused));
        self.side.wake_peer();
        Error::TooLong {
            object: self.side.object().into(),
            message_bytes: bytes,
            limit_bytes: self.limit_bytes,
            remedy: Some("it was refused; set_limit_bytes raises the limit".into()),
        }
    }

    /// Answers a sender that asked for a window of `bytes`.
    fn exchange_window(&mut self, asked: Turn, bytes: usize) -> Result<()> {
        let capacity = self.window.as_ref().map_or(0, Window::capacity);
        if bytes <= capacity {
            self.free(asked);
            return Ok(());
        }
        let room = bytes.checked_next_power_of_two().unwrap_or(bytes).min(self.limit_bytes.max(bytes));
        // Before anything is changed: without memory the wish still stands.
        let window = Window::new(room.max(FIRST_WINDOW_BYTES))?;
        // A sender that has given up waiting may be writing into the old window by now: then that stays.
        if !asked.change(self.side.control(), asked.next(Phase::Closed)) {
            return Ok(());
        }
        self.show(window);
        Ok(())
    }

    /// Makes a new window known in place of the old one, into which nobody writes: the turn is CLOSED, or that of a receiver or
    /// a sender that is gone.
    fn offer(&mut self, bytes: usize) -> Result<()> {
        self.show(Window::new(bytes)?);
        Ok(())
    }

    fn show(&mut self, window: Window) {
        let control = self.side.control();
        Turn::load(control).next(Phase::Closed).store(control);
        // No word of the new window is seen with the turn of the old one. Pairs with the fence in `Place::find`.
        fence(Ordering::SeqCst);
        let words = &control.window;
        words.owner.store(self.side.own_bits(), Ordering::Relaxed);
        words.address.store(window.address(), Ordering::Relaxed);
        words.bytes.store(window.capacity() as u64, Ordering::Relaxed);
        for (word, nonce) in words.nonce.iter().zip(window.nonce) {
            word.store(nonce, Ordering::Relaxed);
        }
        Turn::load(control).next(Phase::Idle).store(control);
        self.window = Some(window);
        self.side.wake_peer();
    }
}

impl Receiver for PushReceiver {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let Some((turn, bytes)) = self.next_message(deadline)? else { return Ok(None) };
        let Some(target) = buffer.get_mut(..bytes) else {
            return Err(Error::BufferTooSmall {
                object: self.side.object().into(),
                message_bytes: bytes,
                buffer_bytes: buffer.len(),
            });
        };
        if let Some(window) = &self.window {
            crate::tally::copy(target, window.bytes(bytes));
        }
        self.free(turn);
        Ok(Some(bytes))
    }

    fn object(&self) -> &str {
        self.side.object()
    }
}

impl Drop for PushReceiver {
    fn drop(&mut self) {
        // A child made by fork has a copy, and what it is told of the window is its parent's.
        if !self.side.is_own() {
            return;
        }
        if close(self.side.control())
            && let Some(window) = self.window.take()
        {
            window.retire();
        }
    }
}

/// Closes the window, and says whether a sender may still be writing into it: one that is cannot be stopped, and one that is not
/// finds no window any more.
pub(super) fn close(control: &Control) -> bool {
    // The sender may change the turn at the same moment, but not again and again.
    let closed = (0..CLOSE_ATTEMPTS).find_map(|_| {
        let turn = Turn::load(control);
        turn.change(control, turn.next(Phase::Closed)).then_some(turn)
    });
    closed.is_none_or(|turn| Writing::is_to(control, turn))
}

#[cfg(test)]
mod tests {
    use super::super::window::tests::is_retired;
    use super::*;
    use crate::memory::anonymous::AnonymousMapping;

    fn receiver() -> PushReceiver {
        let mapping = AnonymousMapping::create("push", crate::memory::attach::CONTROL_BYTES).unwrap();
        PushReceiver::attach(mapping.into_region()).unwrap()
    }

    #[test]
    fn a_window_into_which_a_sender_writes_after_all_is_not_taken_away() {
        let mut receiver = receiver();
        let control = receiver.side.link.clone();
        let control = control.control();
        let place = Place::find(control).unwrap().unwrap();
        let asked = place.turn.next(Phase::Asked);
        assert!(place.turn.change(control, asked));
        // The receiver has seen the wish. Before it answers, the sender runs out of time and then sends a short message.
        assert!(asked.change(control, asked.with(Phase::Idle)));
        let idle = asked.with(Phase::Idle);
        assert!(Writing::begin(control, idle));
        receiver.exchange_window(asked, 8 << 20).unwrap();
        assert_eq!(Turn::load(control), idle);
        assert_eq!(receiver.window.as_ref().map(Window::address), Some(place.address));
        Writing::end(control);
        assert!(Place::find(control).unwrap().unwrap().is_same_window(&place));
    }

    #[test]
    fn a_wish_that_still_stands_is_fulfilled() {
        let mut receiver = receiver();
        let link = receiver.side.link.clone();
        let place = Place::find(link.control()).unwrap().unwrap();
        let asked = place.turn.next(Phase::Asked);
        assert!(place.turn.change(link.control(), asked));
        receiver.exchange_window(asked, 8 << 20).unwrap();
        let larger = Place::find(link.control()).unwrap().unwrap();
        assert!(larger.bytes >= 8 << 20 && larger.address != place.address);
    }

    #[test]
    fn a_window_that_is_written_while_its_receiver_leaves_is_retired() {
        let receiver = receiver();
        let link = receiver.side.link.clone();
        let place = Place::find(link.control()).unwrap().unwrap();
        assert!(Writing::begin(link.control(), place.turn));
        assert!(!is_retired(place.address));
        drop(receiver);
        assert!(is_retired(place.address));
    }

    #[test]
    fn a_sender_that_comes_after_its_receiver_has_left_does_not_begin() {
        let receiver = receiver();
        let link = receiver.side.link.clone();
        let place = Place::find(link.control()).unwrap().unwrap();
        drop(receiver);
        assert!(!Writing::begin(link.control(), place.turn));
        assert!(!Writing::is_to(link.control(), place.turn));
    }

    #[test]
    fn what_a_sender_that_was_killed_while_it_wrote_leaves_behind_is_no_obstacle() {
        let receiver = receiver();
        let control = receiver.side.link.clone();
        let place = Place::find(control.control()).unwrap().unwrap();
        assert!(Writing::begin(control.control(), place.turn));
        drop(PushSender::attach(receiver.side.link.region()).unwrap());
        assert!(!Writing::is_to(control.control(), place.turn));
        assert!(Place::find(control.control()).unwrap().unwrap().is_same_window(&place));
    }
}
