//! The fragments of one message after the other, in order.

use super::LOOK_EVERY;
use super::aside::{Aside, KEPT_BYTES, Over};
use super::header::{Fragment, HEADER_BYTES, Kind};
use super::watched::Watched;
use crate::process::Origin;
use crate::{Deadline, Error, Receiver, Result};

/// How many fragments of other messages are passed over before a look at the clock: a stream of them, which never makes the
/// receiver wait, must not outlast the deadline.
const MANY: u32 = 1024;

/// A fragment that can be read, or the rest of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) bytes: usize,
    /// Whether the message ends with it.
    pub(super) last: bool,
}

#[derive(Debug)]
pub(super) struct Parts<R> {
    inner: R,
    /// The fragment that came last.
    frame: Vec<u8>,
    frame_bytes: usize,
    /// That fragment came after a loss that was reported instead; it is still to be judged.
    held: Option<Fragment>,
    /// What of that fragment's payload was not consumed yet, and whether it ends its message.
    unread: Option<(usize, bool)>,
    current: Option<Current>,
    /// The sender of the message that was received last, while its end mark is awaited.
    idle: Option<(u64, Watched)>,
    expects_end: bool,
    aside: Aside,
    over: Over,
    /// Whether a message without its begin was passed over, and nobody has asked.
    is_headless: bool,
    here: u64,
}

/// The message that is being received.
#[derive(Debug)]
struct Current {
    sender: u64,
    number: u64,
    received_bytes: u64,
    watched: Watched,
}

impl<R: Receiver> Parts<R> {
    pub(super) fn new(inner: R) -> Self {
        let frame = vec![0; inner.usual_bytes().max(HEADER_BYTES)];
        Self {
            inner,
            frame,
            frame_bytes: 0,
            held: None,
            unread: None,
            current: None,
            idle: None,
            expects_end: false,
            aside: Aside::default(),
            over: Over::default(),
            is_headless: false,
            here: Origin::here(),
        }
    }

    pub(super) fn expect_end(&mut self) {
        self.expects_end = true;
    }

    pub(super) fn inner(&self) -> &R {
        &self.inner
    }

    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// Whether a message without its begin was passed over since this was last asked.
    pub(super) fn take_headless(&mut self) -> bool {
        std::mem::take(&mut self.is_headless)
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_inside(&self) -> bool {
        self.current.is_some()
    }

    /// The fragment that comes next, waiting for it; `None` is the end of a sender, or of the mechanism.
    pub(super) fn ready(&mut self, deadline: Deadline) -> Result<Option<Ready>> {
        let mut useless = 0_u32;
        loop {
            if let Some((bytes, last)) = self.unread {
                return Ok(Some(Ready { bytes, last }));
            }
            useless = useless.wrapping_add(1);
            if useless.is_multiple_of(MANY) && deadline.has_passed() {
                return Err(Error::out_of_time("receive", self.inner.object(), deadline));
            }
            let fragment = match self.held.take() {
                Some(fragment) => fragment,
                None => match self.fetch(deadline)? {
                    Some(fragment) => fragment,
                    None => return self.ended(),
                },
            };
            if self.over.next(fragment.sender).is_some_and(|next| fragment.number < next) {
                continue;
            }
            match self.current.as_ref().map(|current| current.sender) {
                None if fragment.kind == Kind::End => return self.end(fragment),
                None => self.begin(fragment)?,
                Some(sender) if sender == fragment.sender => self.go_on(fragment)?,
                Some(_) => self.set_aside(fragment)?,
            }
        }
    }

    /// The bytes of the fragment that is ready.
    pub(super) fn payload(&self) -> &[u8] {
        let unread = self.unread.map_or(0, |(bytes, _)| bytes);
        &self.frame[self.frame_bytes - unread..self.frame_bytes]
    }

    /// Marks the first `bytes` of the payload as read.
    pub(super) fn consume(&mut self, bytes: usize) {
        let Some((unread, last)) = self.unread else { return };
        if bytes < unread {
            self.unread = Some((unread - bytes, last));
            return;
        }
        self.unread = None;
        if last && let Some(current) = self.current.take() {
            self.over.set(current.sender, current.number + 1);
            self.idle = self.expects_end.then(|| (current.sender, Watched::new(current.watched.origin)));
        }
    }

    /// The next fragment of the current message's sender, or of any sender between messages.
    fn fetch(&mut self, deadline: Deadline) -> Result<Option<Fragment>> {
        if let Some(frame) = self.aside.take(self.current.as_ref().map(|current| current.sender)) {
            self.frame_bytes = frame.len();
            self.frame = frame;
            return Fragment::parse(&self.frame).map(Some).map_err(|detail| self.corrupt(detail));
        }
        if self.current.is_none() && self.idle.is_none() {
            return self.receive(deadline);
        }
        self.receive_watched(deadline)
    }

    /// Receives while looking now and then whether the sender still lives. One that is gone may have left fragments behind, so
    /// its death counts when none comes at once.
    fn receive_watched(&mut self, deadline: Deadline) -> Result<Option<Fragment>> {
        loop {
            let gone = self.watched().is_some_and(|watched| watched.was_gone());
            let slice = if gone { Deadline::Now } else { deadline.at_most(LOOK_EVERY) };
            match self.receive(slice) {
                Err(error) if error.is_out_of_time() && gone => return Err(self.give_up()),
                Err(error) if error.is_out_of_time() => {
                    if !self.look(deadline) {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }

    /// Looks whether the sender still lives, after a wait in vain, and says whether to go on.
    fn look(&mut self, deadline: Deadline) -> bool {
        let (here, out_of_time) = (self.here, deadline.has_passed());
        let Some(watched) = self.watched() else { return !out_of_time };
        // A caller who comes again and again with little time must not keep the receiver from looking, nor make it look
        // every time.
        if out_of_time {
            watched.look_seldom(here);
        } else {
            watched.look(here);
        }
        watched.was_gone() || !out_of_time
    }

    fn watched(&mut self) -> Option<&mut Watched> {
        match &mut self.current {
            Some(current) => Some(&mut current.watched),
            None => self.idle.as_mut().map(|(_, watched)| watched),
        }
    }

    fn receive(&mut self, deadline: Deadline) -> Result<Option<Fragment>> {
        // A frame that was kept aside may have taken the place of the buffer.
        let usual = self.inner.usual_bytes().max(HEADER_BYTES);
        if self.frame.len() < usual {
            self.frame.resize(usual, 0);
        }
        let received = loop {
            match self.inner.recv_into_by(&mut self.frame, deadline) {
                Err(Error::BufferTooSmall { message_bytes, .. }) if message_bytes > self.frame.len() => {
                    self.frame.resize(message_bytes, 0);
                }
                other => break other?,
            }
        };
        let Some(bytes) = received else { return Ok(None) };
        self.frame_bytes = bytes;
        Fragment::parse(&self.frame[..bytes]).map(Some).map_err(|detail| self.corrupt(detail))
    }

    /// A fragment between messages: the first of one, if nothing was lost.
    fn begin(&mut self, fragment: Fragment) -> Result<()> {
        self.check_number(fragment)?;
        if fragment.offset != 0 || !matches!(fragment.kind, Kind::Part { first: true, .. }) {
            self.over.set(fragment.sender, fragment.number + 1);
            self.is_headless = true;
            return Err(self.lost(fragment, &format!("its first {} bytes", fragment.offset)));
        }
        self.idle = None;
        self.current = Some(Current {
            sender: fragment.sender,
            number: fragment.number,
            received_bytes: 0,
            watched: Watched::new(fragment.origin),
        });
        self.accept(fragment);
        Ok(())
    }

    /// A fragment of the sender of the current message.
    fn go_on(&mut self, fragment: Fragment) -> Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        let (number, received_bytes) = (current.number, current.received_bytes);
        if fragment.number > number || fragment.kind == Kind::End {
            self.held = Some(fragment);
            let missing = format!("all bytes from {received_bytes} on");
            return Err(self.break_off(Fragment { number, ..fragment }, &missing));
        }
        if fragment.offset > received_bytes {
            let missing = format!("bytes {received_bytes} to {}", fragment.offset - 1);
            return Err(self.break_off(fragment, &missing));
        }
        // What lies before is a duplicate, which datagrams may have.
        if fragment.offset == received_bytes {
            self.accept(fragment);
        }
        Ok(())
    }

    fn accept(&mut self, fragment: Fragment) {
        let (Some(current), Kind::Part { last, .. }) = (&mut self.current, fragment.kind) else { return };
        let bytes = self.frame_bytes - HEADER_BYTES;
        current.received_bytes += bytes as u64;
        current.watched.progress();
        self.unread = Some((bytes, last));
    }

    /// Keeps a fragment of another sender for later. When that is too much, and the current sender is found gone, it is given
    /// up: the fragments that wait are then read.
    fn set_aside(&mut self, fragment: Fragment) -> Result<()> {
        let (here, full) = (self.here, !self.aside.has_room(self.frame_bytes));
        let Some(current) = &mut self.current else { return Ok(()) };
        if full {
            current.watched.look(here);
        } else {
            current.watched.look_seldom(here);
        }
        let give_up = current.watched.is_long_gone() || (full && current.watched.was_gone());
        if full && !give_up {
            return Err(self.too_many_senders(fragment));
        }
        self.aside.keep(fragment.sender, &self.frame[..self.frame_bytes]);
        if give_up { Err(self.give_up()) } else { Ok(()) }
    }

    fn too_many_senders(&self, fragment: Fragment) -> Error {
        let reason = format!(
            "a message is incomplete, and {KEPT_BYTES} bytes of {} other senders wait behind it: a fragment of process {} was \
             thrown away; let fewer send at once, or give each a queue of its own",
            self.aside.senders(),
            fragment.origin.pid
        );
        Error::Invalid { object: self.inner.object().into(), reason }
    }

    /// The end mark of a sender.
    fn end(&mut self, fragment: Fragment) -> Result<Option<Ready>> {
        self.check_number(fragment)?;
        self.over.set(fragment.sender, fragment.number + 1);
        if self.idle.is_some_and(|(sender, _)| sender == fragment.sender) {
            self.idle = None;
        }
        Ok(None)
    }

    /// The mechanism has no more.
    fn ended(&mut self) -> Result<Option<Ready>> {
        if self.current.is_some() || self.idle.is_some() { Err(self.give_up()) } else { Ok(None) }
    }

    /// Reports messages that never came, once; the fragment is judged again after that.
    fn check_number(&mut self, fragment: Fragment) -> Result<()> {
        let Some(next) = self.over.next(fragment.sender).filter(|&next| next < fragment.number) else { return Ok(()) };
        self.over.set(fragment.sender, fragment.number);
        self.held = Some(fragment);
        Err(self.corrupt(format!(
            "{} messages of process {} are missing before its message {}; is there another receiver?",
            fragment.number - next,
            fragment.origin.pid,
            fragment.number
        )))
    }

    /// Gives the current message up because a part of it was lost.
    fn break_off(&mut self, fragment: Fragment, missing: &str) -> Error {
        self.current = None;
        self.over.set(fragment.sender, fragment.number + 1);
        self.lost(fragment, missing)
    }

    /// Gives the current message, or the wait for an end mark, up because its sender is gone.
    fn give_up(&mut self) -> Error {
        let object = self.inner.object().into();
        self.idle = None;
        let detail = match self.current.take() {
            Some(Current { sender, number, received_bytes, watched }) => {
                self.over.set(sender, number + 1);
                format!("process {} went after {received_bytes} bytes of its message {number}", watched.origin.pid)
            }
            None => "the sending process went without an end mark".into(),
        };
        Error::PeerGone { object, detail }
    }

    fn lost(&self, fragment: Fragment, missing: &str) -> Error {
        let Fragment { number, origin, .. } = fragment;
        self.corrupt(format!(
            "{missing} of message {number} of process {} are missing; is there another receiver?",
            origin.pid
        ))
    }

    fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt { object: self.inner.object().into(), detail }
    }
}
