//! The receiving half.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::berths::{Arrived, Named};
use super::copying::{Failure, Source};
use super::desk::{Answer, Desk, Offer, Phase, Turn};
use super::helper::Helper;
use super::landing::{Landing, Landings};
use super::link::Link;
use super::loan::Slip;
use super::message::{Block, Body, Message, ROOM_BYTES, SHORT_BYTES};
use super::polling::{Arming, Half};
use super::registered::RegisteredBuffer;
use super::seccomp::Seccomp;
use super::stats::{Path, Stats};
use crate::atomic::Ordering;
use crate::memory::Region;
use crate::memory::buffer::Buffer;
use crate::memory::copy::copy_own;
use crate::memory::remote::READ;
use crate::memory::ring::{Arrival, Begun, DEFAULT_LIMIT_BYTES, RingReceiver};
use crate::{Deadline, Error, Receiver, Result, WaitStrategy};

/// From how many bytes on both sides copy. Measured as [`DEFAULT_SINGLE_COPY_BYTES`](super::DEFAULT_SINGLE_COPY_BYTES): one side
/// alone was faster at none of the sizes.
pub const DEFAULT_COOPERATIVE_BYTES: usize = 64 << 10;
/// How long a process that has lost its memory may take to become one that has exited.
const EXIT_TIME: Duration = Duration::from_millis(300);

/// More offers than a ring holds, whatever the other side puts behind them meanwhile.
const OFFERS: usize = 256;

/// Receives messages from a channel.
#[derive(Debug)]
pub struct ChannelReceiver {
    // Fields are dropped in this order: who is woken by the second finds that the first has closed.
    pub(super) ring: RingReceiver,
    _farewell: Farewell,
    pub(super) link: Arc<Link>,
    pub(super) limit_bytes: usize,
    /// What the other side lends from, once it has.
    pub(super) lent: Option<Arc<Region>>,
    cooperative_bytes: usize,
    seccomp: Seccomp,
    /// Whether the sender's memory could not be read though its process lived on.
    doubted: bool,
    /// Whether it may be waiting for the descriptor.
    is_armed: bool,
    /// Whether there is something to do before the next message: the last one was copied by both sides, and so the next one is likely to
    /// be, or one is kept.
    is_to_prepare: bool,
    /// A message that was received by a call that had something else to return.
    kept: Option<Message>,
    pub(super) helper: Helper,
    landings: Landings,
    berths: Named,
    /// How many messages this process had sent when it last waited for one.
    sent: u64,
}

/// Wakes a sender of the other side that waits at its desk, when this side has closed.
#[derive(Debug)]
struct Farewell(Arc<Link>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // A child's copy: nothing has closed, and a thread of the parent may have held the lock.
        if !self.0.is_owner() {
            return;
        }
        self.0.wake_sender();
        self.0.desks.incoming().loans.tell_end();
        self.0.polling.disarm(Half::Receiver);
    }
}

impl ChannelReceiver {
    pub(super) fn new(mut ring: RingReceiver, link: Arc<Link>) -> Self {
        ring.set_alarm(Arc::clone(link.peer.alarm()), link.polling.bell(Half::Sender));
        link.polling.set_limit_bytes(DEFAULT_LIMIT_BYTES);
        let (farewell, end) = (Farewell(Arc::clone(&link)), link.desks.end());
        Self {
            ring,
            _farewell: farewell,
            link,
            limit_bytes: DEFAULT_LIMIT_BYTES,
            lent: None,
            cooperative_bytes: DEFAULT_COOPERATIVE_BYTES,
            seccomp: Seccomp::of_this_thread(),
            doubted: false,
            is_armed: false,
            is_to_prepare: false,
            kept: None,
            helper: Helper::new(end),
            landings: Landings::default(),
            berths: Named::default(),
            sent: 0,
        }
    }

    /// Sets how to wait for the sender.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.ring.set_wait_strategy(strategy);
    }

    /// Sets the longest message that is taken, 1 GiB at first. A longer one is [`Error::TooLong`] with both numbers, takes no
    /// memory, and the one after it is received. One of which a call without time has taken a part already goes on as it began. Memory
    /// for loans of more than 1 GiB is mapped if it keeps to the limit when it comes, so a higher one is set before the first loan.
    pub fn set_limit_bytes(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
        self.ring.set_limit_bytes(limit_bytes);
        self.link.polling.set_limit_bytes(limit_bytes);
    }

    /// Sets from how many bytes on the sender is asked to copy too, into the memory behind a [`Message`].
    pub fn set_cooperative_bytes(&mut self, bytes: usize) {
        self.cooperative_bytes = bytes;
    }

    /// What came which way until now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.link.counters.snapshot()
    }

    /// Has the descriptor ([`AsFd`]) become readable when there is something to receive: a message, or a part of one, the end, or
    /// that the other side is gone. [`Arming::Ready`] says that there is already, and then the descriptor may stay silent; so
    /// arm when [`recv_by`](Self::recv_by) with [`Deadline::Now`] finds nothing, and wait only if it is [`Arming::Armed`]. It
    /// works once: arm again before waiting again. Any call that receives ends it.
    ///
    /// The descriptor may be readable though nothing is there: since a byte has come late, or since the sending half, which has
    /// the same one, was armed and is told of something. That half has to be called then, before a wait by level (poll(2), epoll(7)
    /// without EPOLLET) lasts again; otherwise arming is [`Arming::Ready`] before long, whatever there is. Do nothing with the
    /// descriptor but wait: its bytes are the library's.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when the other side has written to the socket what no arming asked for; EMFILE and ENOMEM when the memory of
    /// its loans cannot be mapped, which another call may do; [`Error::Unsupported`] in a child made by fork.
    pub fn arm(&mut self) -> Result<Arming> {
        self.link.check_owner()?;
        if self.keeps() {
            return Ok(Arming::Ready);
        }
        let Self { ring, link, .. } = self;
        let arming = link.polling.arm(Half::Receiver, || ring.arm(), || link.peer.alarm().set())?;
        link.tell_taken();
        self.is_armed = arming == Arming::Armed;
        Ok(arming)
    }

    /// Does not wait for the descriptor any more, since it is called.
    #[inline]
    pub(super) fn disarm(&mut self) {
        if self.is_armed {
            self.is_armed = false;
            self.link.polling.disarm(Half::Receiver);
        }
    }

    /// Receives a message into warm memory of the library; `None` is the end: the other side has closed.
    ///
    /// `deadline` is for waiting. A message that its sender holds ready is copied to its end, also where that takes longer: some tenths of
    /// a second for each GiB. The same holds for a message that is received into memory of the caller.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`], without [`Error::BufferTooSmall`]; ENOMEM.
    #[inline]
    pub fn recv_by(&mut self, deadline: Deadline) -> Result<Option<Message>> {
        self.link.check_owner()?;
        self.disarm();
        if self.is_to_prepare
            && let Some(kept) = self.prepare()
        {
            return Ok(Some(kept));
        }
        match self.take_short(deadline) {
            Some(message) => Ok(Some(message)),
            None => self.recv_any(deadline),
        }
    }

    /// [`ChannelReceiver::recv_by`] without a limit of time.
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::recv_by`].
    #[inline]
    pub fn recv(&mut self) -> Result<Option<Message>> {
        self.recv_by(Deadline::Never)
    }

    /// [`ChannelReceiver::recv_by`] without waiting.
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::recv_by`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        self.recv_by(Deadline::Now)
    }

    /// The message that is kept. Otherwise looks for a filter now, while the sender of the next message is not there yet.
    #[cold]
    fn prepare(&mut self) -> Option<Message> {
        self.is_to_prepare = false;
        if self.kept.is_none() {
            self.seccomp.look();
        }
        self.kept.take()
    }

    /// Has `message`, which was received, be first in line again.
    pub(super) fn keep(&mut self, message: Message) {
        debug_assert!(self.kept.is_none(), "it was received after that");
        (self.kept, self.is_to_prepare) = (Some(message), true);
    }

    /// Whether a message is kept.
    pub(super) fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    /// Receives a message that is short, or stands in one piece and is not long, if it is there or comes at once.
    fn take_short(&mut self, deadline: Deadline) -> Option<Message> {
        // Before the message is there.
        let mut block = Block::take();
        let is_answer = || self.link.counters.has_sent_since(&mut self.sent);
        if let Some(len) = self.ring.take_short(block.short(), deadline, is_answer) {
            self.link.counters.count_received(Path::Line, len);
            return Some(block.into_message(len));
        }
        if let Some(len) = self.ring.take_piece(ROOM_BYTES, |len| block.room(len)) {
            self.count_ring(len);
            return Some(block.into_message(len));
        }
        block.give_back();
        None
    }

    /// Receives a message that did not come at once, or is long.
    fn recv_any(&mut self, deadline: Deadline) -> Result<Option<Message>> {
        if let Some(begun) = self.ring.begun().filter(|begun| !self.ring.is_to_collect(begun.bytes(), deadline)) {
            return self.take_begun(begun, deadline).map(Some);
        }
        let mut passed = 0;
        loop {
            match self.ring.arrival(deadline)? {
                None => return Ok(None),
                Some(Arrival::Message(bytes)) => {
                    return match self.take_short(Deadline::Now) {
                        Some(message) => Ok(Some(message)),
                        None => self.take_message(bytes, deadline).map(Some),
                    };
                }
                Some(Arrival::Offer(words, len)) => {
                    if let Some(slip) = Slip::from_bytes(&words[..len]) {
                        return self.take_loan_as_message(slip).map(Some);
                    }
                    if let Some(arrived) = Arrived::from_bytes(&words[..len]) {
                        if let Some(landing) = self.take_arrived(arrived)? {
                            return Ok(Some(Message::long(Body::Landing(landing))));
                        }
                        self.check_time(&mut passed, deadline)?;
                        continue;
                    }
                    let offer = self.offer(&words[..len])?;
                    if let Some(message) = self.take_offered(offer, deadline)? {
                        return Ok(Some(message));
                    }
                }
            }
            self.check_time(&mut passed, deadline)?;
        }
    }

    /// Receives a message whose begin is in the ring.
    #[inline]
    fn take_begun(&mut self, begun: Begun, deadline: Deadline) -> Result<Message> {
        let bytes = begun.bytes();
        let message = if (SHORT_BYTES + 1..=ROOM_BYTES).contains(&bytes) {
            let mut block = Block::take();
            match self.ring.take_begun(begun, block.room(bytes), deadline) {
                Ok(()) => block.into_message(bytes),
                Err(error) => {
                    block.give_back();
                    return Err(error);
                }
            }
        } else {
            let mut body = self.landings.room(bytes)?;
            self.ring.take_begun(begun, &mut body, deadline)?;
            Message::long(body)
        };
        self.count_ring(bytes);
        Ok(message)
    }

    /// Receives a message that stands in the ring.
    fn take_message(&mut self, bytes: usize, deadline: Deadline) -> Result<Message> {
        let ring = &mut self.ring;
        let is_to_discard = ring.is_to_discard(bytes);
        // Before memory is taken for it, which takes its time.
        ring.collect(deadline)?;
        let mut fill = |target: &mut [u8]| match ring.recv_into_by(target, deadline)? {
            Some(len) if len == target.len() => Ok(()),
            _ => Err(Error::Corrupt { object: ring.object().into(), detail: "a message changed its length".into() }),
        };
        if is_to_discard {
            // The ring throws it away, and says so.
            fill(&mut [])?;
        }
        let message = if bytes <= SHORT_BYTES {
            Message::short(bytes, fill)?
        } else {
            let mut body = self.landings.room(bytes)?;
            fill(&mut body)?;
            Message::long(body)
        };
        self.count_ring(bytes);
        Ok(message)
    }

    /// As when a sender has asked for berths that has helped with so many messages.
    #[cfg(all(test, not(loom)))]
    pub(super) fn name_berths(&mut self, helped: u64) {
        self.helper.helped = helped;
        self.berths.ask();
        self.berths.name(&self.link, &mut self.landings, &self.helper);
    }

    /// Receives a message where its sender has written it; `None` when that asks for more places.
    fn take_arrived(&mut self, arrived: Arrived) -> Result<Option<Landing>> {
        self.ring.take_offer();
        let Arrived { berth, bytes } = arrived;
        let landing = match arrived {
            Arrived::ASK => {
                self.berths.ask();
                None
            }
            _ => Some(self.berths.take(arrived).ok_or_else(|| Error::Corrupt {
                object: self.link.object.clone(),
                detail: format!("a message of {bytes} bytes in berth {berth}, which was not named for it"),
            })?),
        };
        self.berths.name(&self.link, &mut self.landings, &self.helper);
        if bytes > self.limit_bytes {
            return Err(Error::TooLong {
                object: self.link.object.clone(),
                message_bytes: bytes,
                limit_bytes: self.limit_bytes,
                remedy: Some("it was thrown away; set_limit_bytes raises the limit".into()),
            });
        }
        landing.iter().for_each(|_| self.link.counters.count_received(Path::SingleCopy, bytes));
        Ok(landing)
    }

    fn take_arrived_into(&mut self, arrived: Arrived, buffer: &mut [u8]) -> Result<Option<usize>> {
        let (message_bytes, buffer_bytes) = (arrived.bytes, buffer.len());
        if buffer_bytes < message_bytes && message_bytes <= self.limit_bytes {
            return Err(Error::BufferTooSmall { object: self.link.object.clone(), message_bytes, buffer_bytes });
        }
        let landing = self.take_arrived(arrived)?;
        Ok(landing.map(|landing| {
            copy_own(&mut buffer[..message_bytes], &landing);
            message_bytes
        }))
    }

    fn count_ring(&self, bytes: usize) {
        let path = if bytes <= SHORT_BYTES { Path::Line } else { Path::Ring };
        self.link.counters.count_received(path, bytes);
    }

    fn offer(&self, bytes: &[u8]) -> Result<Offer> {
        Offer::from_bytes(bytes).ok_or_else(|| Error::Corrupt {
            object: self.link.object.clone(),
            detail: format!("an offer of {} bytes, which has {}", bytes.len(), Offer::BYTES),
        })
    }

    /// Copies a message that its sender offers; `None` when that has revoked it, or is told that this side cannot.
    fn take_offered(&mut self, offer: Offer, deadline: Deadline) -> Result<Option<Message>> {
        let link = Arc::clone(&self.link);
        let desk = link.desks.incoming();
        desk.fetch_turn();
        // To be set anew before this side answers; the other side had it last.
        if offer.bytes >= self.cooperative_bytes {
            desk.fetch_claims();
        }
        let asked = Turn::new(offer.number, Phase::Asked);
        if Turn::load(desk) != asked {
            self.ring.take_offer();
            return Ok(None);
        }
        let mapped = self.mapped_source(desk, asked, offer)?;
        self.ring.take_offer();
        self.landings.goes_on();
        self.check_limit(desk, asked, offer.bytes)?;
        let Some(source) = self.source(mapped, desk, asked, offer, deadline)? else { return Ok(None) };
        if link.trusted && link.attach.is_ok() && offer.bytes >= self.cooperative_bytes {
            let landing = self.landings.take(&link, offer.bytes, &self.helper).map(Body::Landing);
            let body = match landing.map_or_else(|| Buffer::warm(offer.bytes).map(Body::Buffer), Ok) {
                Ok(body) => body,
                Err(error) => return self.failed(desk, asked, Failure::Here(error), offer.bytes, deadline),
            };
            match source.share(body, &link, desk, asked, &mut self.helper, &mut self.seccomp) {
                Ok(body) => {
                    self.is_to_prepare = true;
                    let path = source.path(Path::Cooperative);
                    return Ok(self.settle(desk, asked.with(Phase::Shared), path, body));
                }
                Err((failure, place)) => {
                    place.into_iter().for_each(|place| self.landings.give_up(place));
                    let turn = asked.with(Phase::Shared);
                    return match failure {
                        // The sender has been stopped in the middle: what it has is still there to be read.
                        Failure::Errno(Errno::ETIMEDOUT) => self.pull(&source, desk, turn, deadline),
                        failure => self.failed(desk, turn, failure, offer.bytes, deadline),
                    };
                }
            }
        }
        self.pull(&source, desk, asked, deadline)
    }

    /// From where the message of `offer` is to be copied; `None` when there is no way, which its sender is told.
    fn source(
        &mut self,
        mapped: Option<Source>,
        desk: &Desk,
        asked: Turn,
        offer: Offer,
        deadline: Deadline,
    ) -> Result<Option<Source>> {
        let link = Arc::clone(&self.link);
        if mapped.is_some() {
            return Ok(mapped);
        }
        match Source::of(desk, offer, &link, &mut self.seccomp) {
            Ok(source) => Ok(Some(source)),
            Err(failure) => self.failed(desk, asked, failure, offer.bytes, deadline),
        }
    }

    /// The message of `offer` in memory that this side has mapped. Where that cannot be looked for now, since the memory of loans came
    /// before and wants a descriptor, the message stays first in line; after any other error its sender waits for it no more.
    fn mapped_source(&mut self, desk: &Desk, asked: Turn, offer: Offer) -> Result<Option<Source>> {
        let spot = desk.source_spot.load();
        let found =
            self.link.look_for_buffers(Half::Receiver).and_then(|()| self.link.find(Half::Receiver, spot, offer.bytes));
        match found {
            Ok(mapped) => Ok(mapped.map(|mapped| Source::mapped(mapped, offer.bytes, spot.is_buffer()))),
            Err(error @ Error::Os { .. }) => Err(error),
            Err(error) => {
                self.ring.take_offer();
                self.refuse(desk, asked, Answer::Errno(libc::EPROTO));
                Err(error)
            }
        }
    }

    /// Copies a message alone.
    fn pull(&mut self, source: &Source, desk: &Desk, turn: Turn, deadline: Deadline) -> Result<Option<Message>> {
        let mut body = match self.landings.room(source.bytes) {
            Ok(body) => body,
            Err(error) => return self.failed(desk, turn, Failure::Here(error), source.bytes, deadline),
        };
        match source.pull(&self.link, desk, turn, &mut body, &mut self.seccomp) {
            Ok(()) => Ok(self.settle(desk, turn, source.path(Path::SingleCopy), body)),
            Err(failure) => self.failed(desk, turn, failure, source.bytes, deadline),
        }
    }

    /// The message, unless its sender has revoked it meanwhile.
    fn settle(&self, desk: &Desk, turn: Turn, path: Path, body: Body) -> Option<Message> {
        if !self.answer(desk, turn, Phase::Done) {
            return None;
        }
        self.link.counters.count_received(path, body.len());
        Some(Message::long(body))
    }

    fn answer(&self, desk: &Desk, turn: Turn, phase: Phase) -> bool {
        let changed = turn.change(desk, phase);
        self.link.wake_sender();
        changed
    }

    fn refuse(&self, desk: &Desk, turn: Turn, answer: Answer) {
        // Relaxed: the change of the turn publishes it.
        desk.answer.store(answer.to_bits(), Ordering::Relaxed);
        self.answer(desk, turn, Phase::Refused);
    }

    fn check_limit(&self, desk: &Desk, asked: Turn, bytes: usize) -> Result<()> {
        if bytes <= self.limit_bytes {
            return Ok(());
        }
        self.refuse(desk, asked, Answer::TooLong(self.limit_bytes));
        Err(Error::TooLong {
            object: self.link.object.clone(),
            message_bytes: bytes,
            limit_bytes: self.limit_bytes,
            remedy: Some("it was refused; set_limit_bytes raises the limit".into()),
        })
    }

    /// What a failed copy means: that the message comes through the ring, or that its sender is gone.
    pub(super) fn failed<T>(
        &mut self,
        desk: &Desk,
        turn: Turn,
        failure: Failure,
        bytes: usize,
        deadline: Deadline,
    ) -> Result<Option<T>> {
        let errno = match failure {
            Failure::Revoked => return Ok(None),
            Failure::Here(error) => {
                self.refuse(desk, turn, Answer::Errno(libc::ENOMEM));
                return Err(error);
            }
            Failure::Filtered => {
                self.refuse(desk, turn, Answer::Errno(libc::EPERM));
                return Ok(None);
            }
            // What lay there may have gone as soon as its sender had revoked it.
            Failure::Errno(_) if Turn::load(desk) != turn => return Ok(None),
            Failure::Errno(errno) => errno,
        };
        if matches!(errno, Errno::ESRCH | Errno::EFAULT) && self.has_lost_peer(deadline) {
            return Err(self.link.gone(format!("its process has exited, and a message of {bytes} bytes is lost")));
        }
        let error = self.link.peer.process().error(READ, 0, bytes, errno);
        self.link.counters.note_fallback(&error.to_string(), 1);
        self.refuse(desk, turn, Answer::Errno(errno as i32));
        Ok(None)
    }

    /// Whether the sender's process exits about now: its memory goes first. One that lived on after all is waited for no more.
    fn has_lost_peer(&mut self, deadline: Deadline) -> bool {
        let end = Instant::now() + if self.doubted { Duration::ZERO } else { EXIT_TIME };
        while !self.link.peer.is_gone() {
            if deadline.has_passed() || Instant::now() >= end {
                self.doubted = true;
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        true
    }

    /// Fails when the time is up for looking behind an offer that was none; without waiting, once all have been passed over that
    /// were there.
    fn check_time(&self, passed: &mut usize, deadline: Deadline) -> Result<()> {
        *passed += 1;
        match deadline {
            Deadline::Never => Ok(()),
            Deadline::Now if *passed < OFFERS => Ok(()),
            Deadline::At(_) if !deadline.has_passed() => Ok(()),
            _ => Err(Error::out_of_time("receive", &self.link.object, deadline)),
        }
    }
}

impl Receiver for ChannelReceiver {
    /// Receives a message straight into `buffer`, which this thread alone fills.
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.link.check_owner()?;
        self.disarm();
        if self.keeps() {
            return self.take_kept(buffer).map(Some);
        }
        let is_answer = || self.link.counters.has_sent_since(&mut self.sent);
        if let Some(len) = self.ring.take_short_into(buffer, deadline, is_answer) {
            self.link.counters.count_received(Path::Line, len);
            return Ok(Some(len));
        }
        if let Some(len) = self.ring.take_piece(buffer.len(), |len| &mut buffer[..len]) {
            self.count_ring(len);
            return Ok(Some(len));
        }
        self.receive_into(&mut Target::Plain(buffer), deadline)
    }

    fn object(&self) -> &str {
        &self.link.object
    }
}

impl ChannelReceiver {
    /// As [`Receiver::recv_into_by`], where both sides may copy.
    pub(super) fn receive_registered(
        &mut self,
        buffer: &mut RegisteredBuffer,
        deadline: Deadline,
    ) -> Result<Option<usize>> {
        self.link.check_owner()?;
        self.disarm();
        if self.keeps() {
            return self.take_kept(buffer).map(Some);
        }
        self.receive_into(&mut Target::Registered(buffer), deadline)
    }

    /// Copies the message that is kept, if it fits.
    #[cold]
    fn take_kept(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let (message_bytes, buffer_bytes) = (self.kept.as_deref().map_or(0, <[u8]>::len), buffer.len());
        let Some(target) = buffer.get_mut(..message_bytes) else {
            return Err(Error::BufferTooSmall { object: self.link.object.clone(), message_bytes, buffer_bytes });
        };
        self.kept.take().into_iter().for_each(|kept| copy_own(target, &kept));
        Ok(message_bytes)
    }

    /// Receives a message that did not come at once, or is long.
    fn receive_into(&mut self, target: &mut Target<'_>, deadline: Deadline) -> Result<Option<usize>> {
        if let Some(begun) = self.ring.begun()
            && let Some(target) = target.bytes().get_mut(..begun.bytes())
        {
            self.ring.take_begun(begun, target, deadline)?;
            self.count_ring(target.len());
            return Ok(Some(target.len()));
        }
        let mut passed = 0;
        loop {
            let offer = match self.ring.arrival(deadline)? {
                None => return Ok(None),
                Some(Arrival::Message(_)) => {
                    let received = self.ring.recv_into_by(target.bytes(), deadline)?;
                    received.into_iter().for_each(|bytes| self.count_ring(bytes));
                    return Ok(received);
                }
                Some(Arrival::Offer(words, len)) => {
                    if let Some(slip) = Slip::from_bytes(&words[..len]) {
                        return self.take_loan_into(slip, target.bytes()).map(Some);
                    }
                    if let Some(arrived) = Arrived::from_bytes(&words[..len]) {
                        if let Some(bytes) = self.take_arrived_into(arrived, target.bytes())? {
                            return Ok(Some(bytes));
                        }
                        self.check_time(&mut passed, deadline)?;
                        continue;
                    }
                    self.offer(&words[..len])?
                }
            };
            if let Some(bytes) = self.take_offered_into(offer, target, deadline)? {
                return Ok(Some(bytes));
            }
            self.check_time(&mut passed, deadline)?;
        }
    }

    /// As [`ChannelReceiver::take_offered`], into the caller's memory.
    fn take_offered_into(
        &mut self,
        offer: Offer,
        target: &mut Target<'_>,
        deadline: Deadline,
    ) -> Result<Option<usize>> {
        let link = Arc::clone(&self.link);
        let desk = link.desks.incoming();
        let asked = Turn::new(offer.number, Phase::Asked);
        if Turn::load(desk) != asked {
            self.ring.take_offer();
            return Ok(None);
        }
        let buffer_bytes = target.bytes().len();
        if buffer_bytes < offer.bytes && offer.bytes <= self.limit_bytes {
            let (object, message_bytes) = (link.object.clone(), offer.bytes);
            return Err(Error::BufferTooSmall { object, message_bytes, buffer_bytes });
        }
        let mapped = self.mapped_source(desk, asked, offer)?;
        self.ring.take_offer();
        self.landings.goes_on();
        self.check_limit(desk, asked, offer.bytes)?;
        let Some(source) = self.source(mapped, desk, asked, offer, deadline)? else { return Ok(None) };
        let mut turn = asked;
        if let Target::Registered(buffer) = target
            && self.may_share(buffer, offer.bytes)
        {
            turn = asked.with(Phase::Shared);
            match source.share_into(buffer, &link, desk, asked, &mut self.helper, &mut self.seccomp) {
                Ok(()) => return Ok(self.settle_into(desk, turn, source.path(Path::Cooperative), offer.bytes)),
                // The sender has been stopped in the middle: what it has is still there to be read.
                Err(Failure::Errno(Errno::ETIMEDOUT)) => {}
                Err(failure) => return self.failed(desk, turn, failure, offer.bytes, deadline),
            }
        }
        match source.pull(&link, desk, turn, &mut target.bytes()[..offer.bytes], &mut self.seccomp) {
            Ok(()) => Ok(self.settle_into(desk, turn, source.path(Path::SingleCopy), offer.bytes)),
            Err(failure) => self.failed(desk, turn, failure, offer.bytes, deadline),
        }
    }

    /// Whether the sender is to copy into `buffer` too. Another one than that of this channel could not be renewed.
    fn may_share(&self, buffer: &RegisteredBuffer, bytes: usize) -> bool {
        self.link.is_open && bytes >= self.cooperative_bytes && buffer.spot(&self.link, 0).is_somewhere()
    }

    fn settle_into(&self, desk: &Desk, turn: Turn, path: Path, bytes: usize) -> Option<usize> {
        let is_settled = self.answer(desk, turn, Phase::Done);
        is_settled.then(|| {
            self.link.counters.count_received(path, bytes);
            bytes
        })
    }
}

/// Memory of the caller's to receive into.
enum Target<'a> {
    Plain(&'a mut [u8]),
    Registered(&'a mut RegisteredBuffer),
}

impl Target<'_> {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Plain(buffer) => buffer,
            Self::Registered(buffer) => buffer,
        }
    }
}

impl AsFd for ChannelReceiver {
    /// The descriptor to poll for, see [`ChannelReceiver::arm`]; the sending half has the same.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.polling.as_fd()
    }
}
