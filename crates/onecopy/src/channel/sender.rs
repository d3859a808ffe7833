//! The sending half.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::Peer;
use super::ahead::Ahead;
use super::copying::help;
use super::desk::{Answer, Desk, NO_ROOM, Offer, Phase, Turn};
use super::landing::Targets;
use super::link::Link;
use super::loan::Lender;
use super::message::SHORT_BYTES;
use super::parts::{self, MOST_PARTS};
use super::polling::{Arming, Half};
use super::prompt::Prompt;
use super::registered::{Mapped, Spot};
use super::seccomp::Seccomp;
use super::stats::{Path, Stats};
use crate::atomic::{AtomicU32, Ordering};
use crate::memory::nonce::Mark;
use crate::memory::ring::{INLINE_BYTES, RingSender};
use crate::memory::wait::{Alarm, Wait, arm, wait};
use crate::{Deadline, Error, Result, Sender, WaitStrategy};

/// From how many bytes on a message is copied once, unless the user sets it. Measured by two pinned processes back to back, the ring, both
/// sides together and, where it is faster than the ring, what a receiver holds ready for a stream, of memcpy. Where a cache-line round trip
/// takes 520 ns: hot 64 KiB 0.26, 0.30 and 0.43, 128 KiB 0.27, 0.39 and 0.45, 256 KiB 0.29, 0.48 and 0.53; cold 0.97, 0.87 and 1.26, 1.10,
/// 1.13 and 1.50, 1.10, 1.35 and 1.46. Where it takes 100: hot 0.50 and 0.47, 0.57 and 0.58, 0.63 and 0.80; cold 1.12 and 0.96, 1.06 and 0.98,
/// 1.08 and 1.10. The first and the last way wait for nobody. At 1 MiB both sides together are ahead at both distances.
pub const DEFAULT_SINGLE_COPY_BYTES: usize = 512 << 10;
/// The same for a message in registered memory, which no system call copies.
const DEFAULT_REGISTERED_COPY_BYTES: usize = 64 << 10;

/// How long a side waits for room in the ring before it tells the other one so.
const SLICE: Duration = Duration::from_millis(50);
/// How often a sender that does not sleep at once looks for an answer before it looks for what may be wrong: those words are the other
/// side's, which will have to fetch them back when it sends next. Less than the looks before a sleep.
const EAGER_POLLS: u32 = 200;
/// How long dropping a sender waits for the receiver to take what is kept for it: a message, or the rest of one that goes through the ring.
pub const LINGER: Duration = Duration::from_secs(1);

/// Sends messages over a channel.
#[derive(Debug)]
pub struct ChannelSender {
    pub(super) ring: RingSender,
    pub(super) link: Arc<Link>,
    pub(super) strategy: WaitStrategy,
    /// The number of the last message that was not sent through the ring.
    number: u64,
    pub(super) single_copy_bytes: usize,
    registered_copy_bytes: usize,
    pub(super) prompt: Prompt,
    pub(super) ahead: Ahead,
    /// Why the receiver could not read this process's memory: it will not try again.
    pub(super) refused: Option<String>,
    /// Why it could not for now, which is told of the message that goes through the ring for that.
    refused_once: Option<String>,
    /// Whether the receiver could copy a message neither out of registered memory nor otherwise.
    cannot_map: bool,
    /// Whether this side could not write the receiver's memory.
    pub(super) cannot_help: bool,
    /// With which message this side has helped last, as far as it could.
    helped: Option<Turn>,
    /// Whether the receiving half is in other hands, which may receive while this one waits.
    pub(super) is_split: bool,
    /// How long dropping it waits, [`LINGER`]; tests have more.
    pub(super) linger_time: Duration,
    /// A message that the receiver may still be copying.
    owned: Option<Owned>,
    seccomp: Seccomp,
    /// Whether it may be waiting for the descriptor.
    is_armed: bool,
    /// Is there in the process that opened the channel.
    owner: Mark,
    pub(super) lender: Lender,
    targets: Targets,
}

/// A message that [`ChannelSender::send_owned`] was given.
#[derive(Debug)]
struct Owned {
    asked: Turn,
    message: Vec<u8>,
}

/// What a sender sees that waits for a receiver to copy its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Delivered,
    Refused,
    /// The receiver wants help.
    Shared,
}

impl ChannelSender {
    pub(super) fn new(mut ring: RingSender, link: Arc<Link>) -> Self {
        ring.set_alarm(Arc::clone(link.peer.alarm()), link.polling.bell(Half::Receiver));
        let (cannot_help, owner) = (!link.write, link.nonce.mark());
        Self {
            ring,
            link,
            strategy: WaitStrategy::default(),
            number: 0,
            single_copy_bytes: DEFAULT_SINGLE_COPY_BYTES,
            registered_copy_bytes: DEFAULT_REGISTERED_COPY_BYTES,
            prompt: Prompt::default(),
            ahead: Ahead::default(),
            refused: None,
            refused_once: None,
            cannot_map: false,
            cannot_help,
            helped: None,
            is_split: false,
            linger_time: LINGER,
            owned: None,
            seccomp: Seccomp::of_this_thread(),
            is_armed: false,
            owner,
            lender: Lender::default(),
            targets: Targets::default(),
        }
    }

    /// Sets how to wait for the receiver.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.strategy = strategy;
        self.ring.set_wait_strategy(strategy);
    }

    /// Sets from how many bytes on a message is copied once, from this process's memory into the receiver's, while
    /// [`send_by`](Sender::send_by) waits for that; shorter ones go through the ring. `usize::MAX` is never. Until it is set that is
    /// [`DEFAULT_SINGLE_COPY_BYTES`], and 64 KiB where messages go to and fro and the receiver takes this one at once. From 64 KiB on
    /// messages of a long stream are copied once as well, without waiting, where that is faster than the ring: into 3 MiB and more that the
    /// receiver holds ready for them.
    pub fn set_single_copy_bytes(&mut self, bytes: usize) {
        (self.single_copy_bytes, self.registered_copy_bytes, self.prompt.copy_bytes) = (bytes, bytes, bytes);
    }

    /// What went which way until now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.link.counters.snapshot()
    }

    /// Who is on the other side, as the kernel says.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.link.identity
    }

    /// Has the descriptor ([`AsFd`]) become readable when a message that could not be sent may be tried again: when a quarter of the
    /// ring is free, when the receiver has the message that [`send_owned_by`](Self::send_owned_by) keeps or wants help with it, or
    /// when nobody will receive any more. Otherwise as [`ChannelReceiver::arm`](super::ChannelReceiver::arm).
    ///
    /// What [`Sender::send_by`] has accepted and could not put into the ring goes with the next message or by
    /// [`Sender::flush_by`], and so does the help: call one of them when the descriptor is readable.
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::arm`](super::ChannelReceiver::arm).
    pub fn arm(&mut self) -> Result<Arming> {
        self.link.check_owner()?;
        let Self { ring, link, owned, helped, .. } = self;
        let desk = link.desks.outgoing();
        let is_news =
            |turn: Turn, asked: Turn| turn != asked && !(*helped == Some(asked) && turn == asked.with(Phase::Shared));
        let arm_ring = || match &*owned {
            None => ring.arm(),
            Some(owned) => {
                let is_ready =
                    || is_news(Turn::load(desk), owned.asked) || ring.is_receiver_closed() || link.peer.is_gone();
                arm(&desk.sleepers.sender, is_ready)
            }
        };
        let arming = link.polling.arm(Half::Sender, arm_ring, || link.peer.alarm().set())?;
        link.tell_taken();
        self.is_armed = arming == Arming::Armed;
        Ok(arming)
    }

    /// Does not wait for the descriptor any more, since it is called.
    #[inline]
    pub(super) fn disarm(&mut self) {
        if self.is_armed {
            self.is_armed = false;
            self.link.polling.disarm(Half::Sender);
        }
    }

    /// Sends a short message if nothing has to be done before. False: it was not sent.
    fn send_short(&mut self, message: &[u8]) -> bool {
        if message.len() > INLINE_BYTES {
            return self.send_in_two(message);
        }
        let is_free = self.is_ready() & self.ring.has_slots(1);
        if !is_free {
            return false;
        }
        self.ring.put_one(message);
        self.conclude(Path::Line, message.len())
    }

    /// The same, where it is too long for one slot. It would be in the way of those that are not.
    #[inline(never)]
    fn send_in_two(&mut self, message: &[u8]) -> bool {
        if message.len() > SHORT_BYTES {
            return self.send_near(message);
        }
        let is_free = self.is_ready() & self.ring.has_slots(2);
        if !is_free {
            return false;
        }
        self.ring.put_two(message);
        self.conclude(Path::Line, message.len())
    }

    /// The same for one that is a little longer, and fits where the last one ended.
    fn send_near(&mut self, message: &[u8]) -> bool {
        let goes_by_ring = message.len() < self.single_copy_bytes;
        let is_free = goes_by_ring & self.is_ready() & self.ring.has_near_room(message.len());
        if !is_free {
            return false;
        }
        self.prompt.is_answer_by_ring(&self.link);
        self.ring.put_near(message);
        self.conclude(Path::Ring, message.len())
    }

    /// Whether a message may go into the ring at once, if somebody is there to take it. Without a branch for each condition: where a
    /// message is waited for, branches cost more than loads.
    #[inline]
    fn is_ready(&self) -> bool {
        !self.is_armed & self.owned.is_none() & self.owner.is_intact()
    }

    /// Announces a message of so many bytes that was put into the ring by itself, and looks whether somebody is there to take it. Not
    /// before that: the message leaves this core when all loads before it have ended. Measured with round trips of 8 bytes, in turns, in
    /// ns with the look before and after: 173 and 156 where a cache-line round trip takes 175, 580 and 518 where it takes 740.
    #[inline]
    fn conclude(&self, path: Path, bytes: usize) -> bool {
        self.ring.announce(true);
        let is_gone = self.ring.is_receiver_closed() | self.link.peer.alarm().is_set();
        if is_gone && !self.is_all_taken() {
            return false;
        }
        self.link.counters.count_sent(path, bytes);
        true
    }

    /// Whether a receiver that is gone has taken all that is in the ring: it has said so before its end, and who found that sees it.
    #[cold]
    pub(super) fn is_all_taken(&self) -> bool {
        self.ring.records_under_way() == 0
    }

    /// Fails when nobody will take what is sent from here on. Two loads of words that seldom change.
    #[inline]
    pub(super) fn check_receiver(&self) -> Result<()> {
        if self.ring.is_receiver_closed() {
            return Err(self.link.gone("it has closed"));
        }
        match self.link.peer.alarm().is_set() {
            true => Err(self.link.gone("its process has exited without closing")),
            false => Ok(()),
        }
    }

    /// Before a message is sent that is not a short one: what was accepted before goes first.
    #[inline]
    pub(super) fn begin(&mut self, deadline: Deadline) -> Result<()> {
        self.link.check_owner()?;
        self.disarm();
        self.check_receiver()?;
        self.finish_accepted(deadline)
    }

    /// Sends a message through the ring, however long it is.
    pub(super) fn send_copied_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.begin(deadline)?;
        self.send_through_ring(message, deadline)
    }

    pub(super) fn send_through_ring(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.send_with(message.len(), deadline, |ring, deadline| ring.send_by(message, deadline))
    }

    /// Sends a message through the ring, of which what does not fit is kept.
    fn send_owned_through_ring(&mut self, mut message: Vec<u8>, deadline: Deadline) -> Result<()> {
        let bytes = message.len();
        self.ring.set_awaited(bytes > SHORT_BYTES && self.prompt.is_answer_by_ring(&self.link));
        let mut send = |ring: &mut RingSender, deadline| ring.send_owned_by(&mut message, deadline);
        match send(&mut self.ring, Deadline::Now) {
            Err(error) if error.is_out_of_time() && deadline != Deadline::Now => {
                self.put_in_ring(bytes, deadline, send)?;
            }
            sent => sent?,
        }
        self.count_by_ring(bytes);
        Ok(())
    }

    /// Sends a message of so many bytes by `send`, which puts it into the ring.
    #[inline]
    fn send_with(
        &mut self,
        bytes: usize,
        deadline: Deadline,
        mut send: impl FnMut(&mut RingSender, Deadline) -> Result<()>,
    ) -> Result<()> {
        self.ring.set_awaited(bytes > SHORT_BYTES && self.prompt.is_answer_by_ring(&self.link));
        if self.is_split || deadline == Deadline::Now || self.ring.fits(bytes) {
            send(&mut self.ring, deadline)?;
        } else if bytes <= SHORT_BYTES {
            self.put_in_ring(bytes, deadline, send)?;
        } else {
            self.send_unless_in_vain(bytes, deadline, send)?;
        }
        self.count_by_ring(bytes);
        Ok(())
    }

    #[inline]
    fn count_by_ring(&mut self, bytes: usize) {
        let path = if bytes <= SHORT_BYTES { Path::Line } else { Path::Ring };
        self.link.counters.count_sent(path, bytes);
        if bytes >= self.single_copy_bytes {
            self.note_fallback();
        }
    }

    /// Says why a message went through the ring that is long enough to be copied once.
    #[cold]
    fn note_fallback(&mut self) {
        let refused_once = self.refused_once.take();
        let why = match (refused_once.as_ref().or(self.refused.as_ref()), &self.link.attach) {
            (Some(why), _) | (None, Err(why)) => why,
            (None, Ok(())) => "it was sent without waiting for the receiver to copy it, or in too many parts",
        };
        self.link.counters.note_fallback(why, 1);
    }

    /// Sends a message through the ring, and looks now and then whether the other side waits for room as well, and neither
    /// receives. A message of which a part is in the ring already is accepted then: the rest is kept here and goes later.
    fn send_unless_in_vain(
        &mut self,
        bytes: usize,
        deadline: Deadline,
        send: impl FnMut(&mut RingSender, Deadline) -> Result<()>,
    ) -> Result<()> {
        self.wait_for_room(bytes, deadline, send)?;
        match self.wait_for_room(bytes, deadline, |ring, slice| ring.flush_by(slice)) {
            // Accepted, and so kept.
            Err(Error::WouldDeadlock { .. }) => Ok(()),
            Err(error) if error.is_out_of_time() => Ok(()),
            result => result,
        }
    }

    /// Calls `step`, which puts two slots into the ring at most or what was kept for it. Where it waits long for room, looks now and then
    /// whether the other side waits as well.
    pub(super) fn put_in_ring(
        &mut self,
        bytes: usize,
        deadline: Deadline,
        mut step: impl FnMut(&mut RingSender, Deadline) -> Result<()>,
    ) -> Result<()> {
        if self.is_split || deadline == Deadline::Now || self.ring.fits(SHORT_BYTES) {
            return step(&mut self.ring, deadline);
        }
        match step(&mut self.ring, deadline.at_most(SLICE)) {
            Err(error) if error.is_out_of_time() && !deadline.has_passed() => self.wait_for_room(bytes, deadline, step),
            result => result,
        }
    }

    /// Calls `step` for a slice of time after the other until it succeeds.
    fn wait_for_room(
        &mut self,
        message_bytes: usize,
        deadline: Deadline,
        mut step: impl FnMut(&mut RingSender, Deadline) -> Result<()>,
    ) -> Result<()> {
        let link = Arc::clone(&self.link);
        let desk = link.desks.outgoing();
        // What was told of an earlier wait, here and by the other side, which may have got room since and not have run. If it has not, it
        // says so again.
        desk.deadlock.store(0, Ordering::SeqCst);
        let _ = link.desks.incoming().waiting.compare_exchange(NO_ROOM, 0, Ordering::SeqCst, Ordering::SeqCst);
        let mut suspected = false;
        let result = loop {
            let kept = self.ring.kept_bytes();
            match step(&mut self.ring, deadline.at_most(SLICE)) {
                Err(error) if error.is_out_of_time() && !deadline.has_passed() => {}
                result => break result,
            }
            if self.ring.kept_bytes() != kept {
                suspected = false;
                desk.waiting.store(0, Ordering::SeqCst);
                desk.deadlock.store(0, Ordering::SeqCst);
                continue;
            }
            desk.waiting.store(NO_ROOM, Ordering::SeqCst);
            let is_in_vain = is_in_vain(&link, NO_ROOM);
            if is_in_vain && suspected {
                tell_deadlock(&link);
                break Err(Error::WouldDeadlock { object: link.object.clone(), message_bytes });
            }
            suspected = is_in_vain;
        };
        desk.waiting.store(0, Ordering::SeqCst);
        desk.deadlock.store(0, Ordering::SeqCst);
        result
    }

    /// Has the receiver copy `message` from here. False: it cannot, and nothing was sent.
    fn send_from_here(&mut self, message: &[IoSlice<'_>], bytes: usize, deadline: Deadline) -> Result<bool> {
        self.offer_for_now(message, Spot::NOWHERE, bytes, deadline)?.finish(deadline)
    }

    /// Tells the receiver where `message` lies, perhaps in memory that it has mapped, until what this returns is dropped.
    pub(super) fn offer_for_now<'a>(
        &'a mut self,
        message: &'a [IoSlice<'a>],
        spot: Spot,
        bytes: usize,
        deadline: Deadline,
    ) -> Result<Offered<'a>> {
        let asked = self.offer(message, spot, bytes, deadline)?;
        Ok(Offered { sender: self, asked, message, bytes, is_settled: false })
    }

    /// Tells the receiver where `message` lies. It stays there until [`ChannelSender::settle`].
    fn offer(&mut self, message: &[IoSlice<'_>], spot: Spot, bytes: usize, deadline: Deadline) -> Result<Turn> {
        let link = Arc::clone(&self.link);
        let desk = link.desks.outgoing();
        self.number = self.number.wrapping_add(1) & (u64::MAX >> 3);
        let asked = Turn::new(self.number, Phase::Asked);
        desk.write_source(message, spot, link.nonce.address(), link.nonce.value());
        asked.store(desk);
        let offer = Offer { number: self.number, bytes }.to_bytes();
        match self.put_in_ring(bytes, deadline, |ring, slice| ring.send_offer(&offer, slice)) {
            Ok(()) => Ok(asked),
            Err(error) => {
                asked.with(Phase::Idle).replace(desk);
                Err(error)
            }
        }
    }

    /// Waits for the receiver, and lets the other side know meanwhile that this one receives nothing.
    fn wait_openly(&mut self, asked: Turn, message: &[IoSlice<'_>], bytes: usize, deadline: Deadline) -> Result<Path> {
        let link = Arc::clone(&self.link);
        let desk = link.desks.outgoing();
        if self.is_to_wait(deadline) {
            desk.waiting.store(asked.to_bits(), Ordering::SeqCst);
        }
        let waited = self.wait(desk, asked, message, bytes, None, deadline);
        desk.waiting.store(0, Ordering::SeqCst);
        waited
    }

    /// Whether this side, which does not receive meanwhile, is to wait for so long that it may keep the other one waiting in vain. One that
    /// looks in now and then receives again in a moment.
    fn is_to_wait(&self, deadline: Deadline) -> bool {
        !self.is_split && deadline.remaining().is_none_or(|left| left >= 2 * SLICE)
    }

    /// Takes back what was offered, and says what had become of it by then.
    fn settle(&mut self, asked: Turn, bytes: usize, waited: Result<Path>) -> Result<bool> {
        let link = Arc::clone(&self.link);
        let desk = link.desks.outgoing();
        let before = asked.with(Phase::Idle).replace(desk);
        match waited {
            _ if before == asked.with(Phase::Done) => {
                link.counters.count_sent(waited.unwrap_or(Path::SingleCopy), bytes);
                Ok(true)
            }
            _ if before == asked.with(Phase::Refused) => self.refused(desk, bytes),
            Ok(_) => Err(Error::Corrupt {
                object: link.object.clone(),
                detail: "a message was taken and then was not".into(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Waits until the receiver has its copy or refuses, and helps it where it wants that; says how the message went, if it did. Does not
    /// wait longer than for `patience` until the receiver begins.
    fn wait(
        &mut self,
        desk: &Desk,
        asked: Turn,
        message: &[IoSlice<'_>],
        bytes: usize,
        patience: Option<Duration>,
        deadline: Deadline,
    ) -> Result<Path> {
        let strategy = self.strategy;
        if !self.cannot_help && self.link.attach.is_ok() {
            // While the receiver has not answered yet.
            self.seccomp.look();
        }
        let looks_once = strategy.spin_time() == Some(Duration::ZERO) || deadline == Deadline::Now;
        let eager = if looks_once { 0 } else { EAGER_POLLS };
        let prompt = patience.is_some();
        let gives_up = self.is_to_wait(deadline);
        let until = patience.map_or(deadline, |patience| deadline.at_most(patience));
        let waiting = &mut Waiting { sender: self, desk, asked, bytes, shared: false, prompt, gives_up, eager };
        let event = wait(waiting, strategy, until)?;
        if event == Event::Shared {
            desk.fetch_claims();
            let path = self.take_part(desk, asked, message, bytes);
            self.helped = Some(asked);
            wait(
                &mut Waiting { sender: self, desk, asked, bytes, shared: true, prompt, gives_up, eager },
                strategy,
                deadline,
            )?;
            return Ok(path);
        }
        Ok(Path::SingleCopy)
    }

    /// Copies what it can of a message into the receiver's buffer.
    fn take_part(&mut self, desk: &Desk, asked: Turn, message: &[IoSlice<'_>], bytes: usize) -> Path {
        // What is wrong with it is for the receiving half to tell.
        let spot = desk.target_spot.load();
        let mapped = self.link.find(Half::Sender, spot, bytes).ok().flatten();
        let mapped = mapped.filter(Mapped::is_writable);
        let path = if mapped.is_some() && spot.is_buffer() { Path::Registered } else { Path::Cooperative };
        if mapped.is_none() {
            self.cannot_help = self.cannot_help || !self.link.may_attach(&mut self.seccomp);
            if self.cannot_help {
                return path;
            }
        }
        let Self { link, targets, .. } = self;
        let written = targets.copy(spot, bytes, |stores| {
            let mapped = mapped.as_ref().map(|mapped| (mapped, stores));
            help(link.peer.process(), desk, link.desks.end(), message, bytes, mapped)
        });
        if let Err(errno) = written
            // A receiver that could not wait any longer has taken its buffer away: that is no refusal.
            && Turn::load(desk) == asked.with(Phase::Shared)
        {
            // It may have memory for the next one.
            self.cannot_help |= errno != Errno::ENOMEM;
            let error = std::io::Error::from(errno);
            let why = format!("this process could not write the receiver's memory: {error}");
            self.link.counters.note_fallback(&why, 1);
        }
        path
    }

    /// Whether a message could be offered at once: nothing stands before it that only a receiver can make room for.
    pub(super) fn is_free(&mut self) -> bool {
        self.owned.is_none() && self.ring.fits(SHORT_BYTES)
    }

    /// Whether a message goes from here, and not through the ring.
    pub(super) fn goes_from_here(&self, bytes: usize) -> bool {
        bytes >= self.single_copy_bytes.max(SHORT_BYTES + 1) && self.link.attach.is_ok() && self.refused.is_none()
    }

    /// Whether a message at `spot` is copied from there: its receiver may have that mapped, and need no permission.
    fn goes_from(&self, spot: Spot, bytes: usize) -> bool {
        let is_mapped = spot.is_somewhere() && !self.cannot_map && bytes >= self.registered_copy_bytes;
        is_mapped || self.goes_from_here(bytes)
    }

    /// Sends the parts one after the other as one message, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`ChannelSender::send_vectored_by`].
    pub fn send_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.send_vectored_by(parts, Deadline::Never)
    }

    /// As [`ChannelSender::send_vectored`], without waiting.
    ///
    /// # Errors
    ///
    /// As [`ChannelSender::send_vectored_by`].
    pub fn try_send_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.send_vectored_by(parts, Deadline::Now)
    }

    /// Sends the parts one after the other as one message, as writev(2) does. They are not put together first: the receiver reads
    /// up to 1024 of them from where they are, and any number goes through the ring. The receiver cannot tell it from a message of
    /// one part.
    ///
    /// ```
    /// # let name = format!("onecopy-doc-parts-{}", std::process::id());
    /// # let listener = onecopy::Listener::bind(&name)?;
    /// # let client = std::thread::spawn(move || -> onecopy::Result<()> {
    /// use std::io::IoSlice;
    ///
    /// let mut channel = onecopy::Channel::connect(&name)?;
    /// channel.send_vectored(&[IoSlice::new(b"a header, "), IoSlice::new(&[b'x'; 200_000])])?;
    /// # Ok(()) });
    /// # let message = listener.accept()?.recv()?.expect("a message");
    /// # assert!(message.starts_with(b"a header, xxx") && message.len() == 200_010);
    /// # client.join().unwrap()?;
    /// # Ok::<(), onecopy::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; [`Error::TooLong`] when the parts are longer together than any message can be.
    pub fn send_vectored_by(&mut self, parts: &[IoSlice<'_>], deadline: Deadline) -> Result<()> {
        self.begin(deadline)?;
        let bytes = parts::total(parts).ok_or_else(|| self.too_long())?;
        let may = deadline != Deadline::Now && parts.len() <= MOST_PARTS;
        if may && self.goes_from_here(bytes) && self.send_from_here(parts, bytes, deadline)? {
            return Ok(());
        }
        if may && self.is_awaited(bytes) && self.send_promptly(parts, Spot::NOWHERE, bytes, deadline)? {
            return Ok(());
        }
        self.send_with(bytes, deadline, |ring, deadline| ring.send_vectored_by(parts, bytes, deadline))
    }

    #[cold]
    fn too_long(&self) -> Error {
        Error::TooLong {
            object: self.link.object.clone(),
            message_bytes: usize::MAX,
            limit_bytes: isize::MAX as usize,
            remedy: Some("its parts must overlap in memory: send them one by one".into()),
        }
    }

    /// Sends a message and returns at once, keeping it until the receiver has it, or what does not fit the ring of one that is not copied
    /// once. There is one such message at a time: whatever is sent next waits for it first, and so keeps the order; for that alone, and
    /// while the ring is full of what was sent before, this waits until `deadline`. [`flush_by`](Sender::flush_by) waits for it too, and so
    /// does dropping this half, for [`LINGER`]; a message that was not taken by then is lost.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; a message that was kept before and failed since is told here too, and then this one was not sent.
    pub fn send_owned_by(&mut self, message: Vec<u8>, deadline: Deadline) -> Result<()> {
        self.begin(deadline)?;
        if !self.goes_from_here(message.len()) {
            return self.send_owned_through_ring(message, deadline);
        }
        // The bytes of a vector stay where they are when it is moved.
        let asked = self.offer(&[IoSlice::new(&message)], Spot::NOWHERE, message.len(), deadline)?;
        self.owned = Some(Owned { asked, message });
        Ok(())
    }

    /// Waits until what was accepted before is the receiver's, or in the ring. When the time is up, or nobody receives, it is kept on.
    #[inline]
    pub(super) fn finish_accepted(&mut self, deadline: Deadline) -> Result<()> {
        self.finish_owned(deadline)?;
        match self.ring.kept_bytes() {
            0 => Ok(()),
            bytes => self.put_in_ring(bytes, deadline, RingSender::flush_by),
        }
    }

    /// Whether something that was accepted may not be all the receiver's, or in the ring.
    #[inline]
    pub(super) fn keeps(&self) -> bool {
        self.owned.is_some() | (self.ring.kept_bytes() > 0)
    }

    /// Has what was accepted go on without waiting, for a side that waits for a message, and returns how much of it is to go into the
    /// ring. `None`: there is nothing to be done now that would help the receiver. What went wrong is told by the next call that sends.
    pub(super) fn go_on(&mut self) -> Result<Option<usize>> {
        self.link.check_owner()?;
        if self.check_receiver().is_err() {
            return Ok(None);
        }
        if let Some(Owned { asked, .. }) = &self.owned {
            let desk = self.link.desks.outgoing();
            let turn = Turn::load(desk);
            // One that wants help does without.
            if turn == *asked || turn == asked.with(Phase::Shared) {
                return Ok(Some(0));
            }
            // Relaxed: the load of the turn ordered it.
            let answer = Answer::from_bits(desk.answer.load(Ordering::Relaxed));
            if turn == asked.with(Phase::Refused) && matches!(answer, Answer::TooLong(_)) {
                return Ok(None);
            }
        }
        match self.finish_accepted(Deadline::Now) {
            // What it has sent before it went comes first.
            Err(error) if error.is_peer_gone() => Ok(None),
            Err(error) if !error.is_out_of_time() => Err(error),
            _ => Ok(self.keeps().then(|| self.ring.kept_bytes())),
        }
    }

    /// Waits until the receiver has the message that was kept.
    #[inline]
    fn finish_owned(&mut self, deadline: Deadline) -> Result<()> {
        match self.owned.take() {
            None => Ok(()),
            Some(owned) => self.finish_kept(owned, deadline),
        }
    }

    #[cold]
    fn finish_kept(&mut self, Owned { asked, message }: Owned, deadline: Deadline) -> Result<()> {
        let waited = self.wait_openly(asked, &[IoSlice::new(&message)], message.len(), deadline);
        let waited = match waited {
            Err(error) if error.is_out_of_time() || matches!(error, Error::WouldDeadlock { .. }) => {
                self.owned = Some(Owned { asked, message });
                return Err(error);
            }
            waited => waited,
        };
        match self.settle(asked, message.len(), waited)? {
            true => Ok(()),
            false => self.send_through_ring(&message, deadline),
        }
    }

    /// Waits for the receiver to take what was accepted before. One that waits in a send as well is told that, and may receive then.
    fn linger(&mut self, deadline: Deadline) {
        if let Err(Error::WouldDeadlock { .. }) = self.finish_accepted(deadline) {
            // From here on it makes no difference that nobody receives here. Who drops it has no use for an error.
            self.is_split = true;
            let _ = self.finish_accepted(deadline);
        }
    }

    /// Sends a message that may lie in registered memory, at `spot`.
    pub(super) fn send_at(&mut self, message: &[u8], spot: Spot, deadline: Deadline) -> Result<()> {
        self.begin(deadline)?;
        if message.len() <= SHORT_BYTES {
            return self.send_through_ring(message, deadline);
        }
        // Without waiting nobody can copy it from here.
        let may = self.goes_from(spot, message.len()) && deadline != Deadline::Now;
        let parts = [IoSlice::new(message)];
        if may {
            self.link.look_for_buffers(Half::Sender)?;
            let spot = self.spot_of(message, spot);
            if self.offer_for_now(&parts, spot, message.len(), deadline)?.finish(deadline)? {
                return Ok(());
            }
        }
        if deadline != Deadline::Now
            && self.is_awaited(message.len())
            && self.send_promptly(&parts, self.spot_of(message, spot), message.len(), deadline)?
        {
            return Ok(());
        }
        self.send_ahead(message, deadline)
    }

    /// Where the other side may have `message` mapped, which is registered at `spot` or has come from there.
    pub(super) fn spot_of(&self, message: &[u8], spot: Spot) -> Spot {
        match spot.is_somewhere() || self.cannot_map {
            true => spot,
            false => self.link.sites.spot(message),
        }
    }

    fn refused(&mut self, desk: &Desk, message_bytes: usize) -> Result<bool> {
        match Answer::from_bits(desk.answer.load(Ordering::Relaxed)) {
            Answer::TooLong(limit_bytes) => Err(Error::TooLong {
                object: self.link.object.clone(),
                message_bytes,
                limit_bytes,
                remedy: Some("the receiver set it".into()),
            }),
            // It may have some for the next message.
            Answer::Errno(libc::ENOMEM) => {
                self.refused_once = Some("the receiver had no memory to copy it".into());
                Ok(false)
            }
            Answer::Errno(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                self.cannot_map |= desk.source_spot.load().is_somewhere();
                self.refused = Some(format!("the receiver could not read this process's memory: {error}"));
                Ok(false)
            }
        }
    }
}

impl Sender for ChannelSender {
    /// Sends a message. When this returns the message no longer needs the caller's memory.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`] when the other side waits in a send too, for room or for its message to be taken, and neither has split
    /// the channel. [`Error::TooLong`] with the receiver's limit. An error for which [`Error::is_peer_gone`] holds when
    /// the other side has closed or exited; what was sent before was received or is lost. [`Error::WouldBlock`] and
    /// [`Error::TimedOut`], and then nothing was sent.
    #[inline]
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        match self.send_short(message) {
            true => Ok(()),
            // Where nobody is there to take it, that is an error.
            false => self.send_at(message, Spot::NOWHERE, deadline),
        }
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        self.link.check_owner()?;
        self.disarm();
        self.finish_accepted(deadline)
    }

    fn object(&self) -> &str {
        &self.link.object
    }
}

/// A message of the caller that the receiver may be copying. After a drop it does not touch it any more, whatever made the caller
/// leave.
#[derive(Debug)]
pub(super) struct Offered<'a> {
    sender: &'a mut ChannelSender,
    asked: Turn,
    message: &'a [IoSlice<'a>],
    bytes: usize,
    is_settled: bool,
}

impl Offered<'_> {
    /// Waits until the receiver has its copy of what was offered. False: it cannot copy it. Whatever comes of it, the receiver
    /// does not touch the message any more.
    pub(super) fn finish(&mut self, deadline: Deadline) -> Result<bool> {
        let waited = self.sender.wait_openly(self.asked, self.message, self.bytes, deadline);
        self.is_settled = true;
        self.sender.settle(self.asked, self.bytes, waited)
    }

    /// The same for a message that can go through the ring as well: so the other side is not told that this one waits, and that does not
    /// wait for longer than `patience` until the receiver begins.
    pub(super) fn finish_within(&mut self, patience: Duration, deadline: Deadline) -> Result<bool> {
        let link = Arc::clone(&self.sender.link);
        let desk = link.desks.outgoing();
        let waited = self.sender.wait(desk, self.asked, self.message, self.bytes, Some(patience), deadline);
        self.is_settled = true;
        self.sender.settle(self.asked, self.bytes, waited)
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.asked.with(Phase::Idle).replace(self.sender.link.desks.outgoing());
        }
    }
}

/// A sender that waits for its receiver to copy.
struct Waiting<'a> {
    sender: &'a ChannelSender,
    desk: &'a Desk,
    asked: Turn,
    bytes: usize,
    /// Whether it has helped already.
    shared: bool,
    /// Whether there is another way, by the ring.
    prompt: bool,
    /// Whether it gives up when the other side waits for this one.
    gives_up: bool,
    /// How often it looks for the receiver's answer alone.
    eager: u32,
}

/// Whether the other side waits in a send as well, or has found that this one does, whose desk has `own` for waiting. What this
/// side waits for may have come meanwhile: the caller looks again.
fn is_in_vain(link: &Link, own: u64) -> bool {
    if link.desks.outgoing().deadlock.load(Ordering::SeqCst) == own {
        return true;
    }
    let other = link.desks.incoming();
    let turn = Turn::load(other);
    let waiting = other.waiting.load(Ordering::SeqCst);
    // One that lacks room may have got some a moment ago: only another one that has lacked it for as long believes it.
    let has_no_room = waiting == NO_ROOM && own == NO_ROOM;
    has_no_room || (turn.is(Phase::Asked) && waiting == turn.to_bits())
}

/// Tells the other side that it waits in vain.
fn tell_deadlock(link: &Link) {
    let other = link.desks.incoming();
    other.deadlock.store(other.waiting.load(Ordering::SeqCst), Ordering::SeqCst);
    link.wake_sender();
}

impl Waiting<'_> {
    fn is_in_vain(&self) -> bool {
        let link = &self.sender.link;
        match self.prompt {
            false => is_in_vain(link, self.asked.to_bits()),
            // Whatever the other side is about, this one can do without.
            true => !self.shared && Turn::load(link.desks.incoming()).is(Phase::Asked),
        }
    }

    #[cold]
    fn in_vain(&self) -> Error {
        let link = &self.sender.link;
        if !self.prompt {
            tell_deadlock(link);
        }
        Error::WouldDeadlock { object: link.object.clone(), message_bytes: self.bytes }
    }
}

impl Wait for Waiting<'_> {
    type Event = Event;

    fn poll(&mut self) -> Result<Option<Event>> {
        let turn = Turn::load(self.desk);
        if turn == self.asked || (self.shared && turn == self.asked.with(Phase::Shared)) {
            if self.eager > 0 {
                self.eager -= 1;
                return Ok(None);
            }
            let link = &self.sender.link;
            let is_closed = self.sender.ring.is_receiver_closed();
            let is_in_vain = self.gives_up && self.is_in_vain();
            // What one that is gone said last stands at its desk for ever.
            if is_in_vain && link.peer.is_gone() {
                self.check_peer()?;
            }
            // A receiver that has closed, or sends and waits, changes the turn no more.
            if (is_closed || is_in_vain) && Turn::load(self.desk) == turn {
                return Err(if is_closed { link.gone("it has closed") } else { self.in_vain() });
            }
            return Ok(None);
        }
        Ok(Some(match turn {
            turn if turn == self.asked.with(Phase::Done) => Event::Delivered,
            turn if turn == self.asked.with(Phase::Shared) => Event::Shared,
            _ => Event::Refused,
        }))
    }

    fn check_peer(&mut self) -> Result<()> {
        match self.sender.link.peer.is_gone() {
            true => Err(self.sender.link.gone("its process has exited without closing, before it had the message")),
            false => Ok(()),
        }
    }

    fn alarm(&self) -> Option<&Alarm> {
        Some(self.sender.link.peer.alarm())
    }

    fn word(&self) -> &AtomicU32 {
        &self.desk.sleepers.sender
    }

    fn out_of_time(&self, deadline: Deadline) -> Error {
        Error::out_of_time("send", &self.sender.link.object, deadline)
    }
}

impl AsFd for ChannelSender {
    /// The descriptor to poll for, see [`ChannelSender::arm`]; the receiving half has the same.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.polling.as_fd()
    }
}

impl Drop for ChannelSender {
    fn drop(&mut self) {
        if self.link.check_owner().is_err() {
            return;
        }
        self.disarm();
        self.linger(Deadline::after(self.linger_time));
        if let Some(Owned { asked, message }) = self.owned.take() {
            // Before its memory goes.
            asked.with(Phase::Idle).replace(self.link.desks.outgoing());
            drop(message);
        }
    }
}
