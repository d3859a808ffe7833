//! Registered buffers: memory that both sides map, so that messages are copied out of it and into it in user space.
//!
//! | Step | Who | How |
//! |---|---|---|
//! | register | the side that makes it | passes the memory over the channel's socket, as a [packet](super::passing), and closes the descriptor |
//! | map | the other side | when it drains the socket, or looks there for a number that it does not know |
//! | name | a sender, for its message; a receiver, for where that is to go | a [`Spot`] at the [desk](super::desk), beside the address |
//! | end | the side that made it | sets the number in the memory to 0; the other side unmaps it when it looks next |
//!
//! Each side then copies its part of a message as it can: the receiver out of the sender's memory, if that is registered, the sender
//! into the receiver's, and either by a system call where it has no mapping. Who claims which part is the same as ever.
//!
//! There are [`BUFFERS`] places for what a side has registered, and as many for its [landings](super::landing). The number of a
//! registration says in which one it is, and what is registered there next takes the place of it on the other side too, so that keeps
//! no more mappings than that, and of 1 GiB together, and 256 MiB of landings. What it has not taken out of the socket is bounded likewise, by its word in
//! [`Desk::buffers_taken`](super::desk::Desk).
//!
//! **Who may write.** A side may write the memory of the other where the policies of both let them attach to each other and both are
//! of one user, so that each may write anywhere in the other in any case. Anywhere else the memory is sealed before it is passed, so
//! that the kernel lets the other side read it and no more: then a receiver copies out of it alone.
//!
//! **A late write.** A sender that was stopped in the middle of a copy may write when its message is long forgotten. So a buffer
//! whose transfer did not end as it should is given new memory, and the old one to whoever still writes there; see
//! [`copying`](super::copying).

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

use super::desk::write;
use super::landing;
use super::link::Link;
use super::passing::{Kind, pass};
use super::polling::Half;
use super::{Channel, ChannelReceiver, ChannelSender};
use crate::atomic::{AtomicU64, Ordering};
use crate::memory::anonymous::registered::{Children, MOST_BYTES, Own, Rights, Theirs};
use crate::memory::nonce::Mark;
use crate::{Deadline, Error, Result};

/// How many buffers one side of a channel can have registered at a time. The other side maps up to 1 GiB of them.
pub const BUFFERS: usize = 16;

/// How many places there are in all.
pub(super) const PLACES: usize = 2 * BUFFERS;

/// What is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A buffer of the user's.
    Buffer,
    /// Memory for messages that arrive, see [`landing`](super::landing).
    Landing,
}

impl Use {
    /// What stands at this place.
    pub(super) fn of_slot(slot: usize) -> Self {
        if slot < BUFFERS { Self::Buffer } else { Self::Landing }
    }

    /// How much of it the other side maps together.
    pub(super) fn most_bytes(self) -> usize {
        match self {
            Self::Buffer => MOST_BYTES,
            Self::Landing => landing::MOST_BYTES,
        }
    }

    /// A bit for each of its places.
    fn slots(self) -> u32 {
        match self {
            Self::Buffer => (1 << BUFFERS) - 1,
            Self::Landing => !((1 << BUFFERS) - 1),
        }
    }
}

/// Where a message, or the place for it, lies in registered memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// Of the registration; 0 is none.
    pub(super) number: u64,
    pub(super) offset: u64,
}

impl Spot {
    /// In no registered memory.
    pub(super) const NOWHERE: Self = Self { number: 0, offset: 0 };

    pub(super) fn is_somewhere(self) -> bool {
        self != Self::NOWHERE
    }

    /// Whether the receiver's user has registered what is there.
    pub(super) fn is_buffer(self) -> bool {
        self.is_somewhere() && Use::of_slot(slot_of(self.number)) == Use::Buffer
    }
}

/// A [`Spot`] at the desk.
#[derive(Default)]
#[repr(C)]
pub(super) struct SpotWords {
    number: AtomicU64,
    offset: AtomicU64,
}

impl SpotWords {
    /// The caller publishes it by the turn.
    pub(super) fn store(&self, spot: Spot) {
        write(&self.number, spot.number);
        write(&self.offset, spot.offset);
    }

    /// Relaxed: the load of the turn ordered it.
    pub(super) fn load(&self) -> Spot {
        Spot { number: self.number.load(Ordering::Relaxed), offset: self.offset.load(Ordering::Relaxed) }
    }
}

/// In which place the registration with this number is.
pub(super) fn slot_of(number: u64) -> usize {
    (number % PLACES as u64) as usize
}

/// The places for what one side registers.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// A bit for each that is taken.
    slots: u32,
    /// How many registrations there have been.
    registrations: u64,
    /// How many packets the other side has been sent.
    packets: u64,
}

impl Slots {
    fn with<T>(&self, work: impl FnOnce(&mut Taken) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Memory that the other side was passed.
#[derive(Debug)]
pub(super) struct Registration {
    slots: Arc<Slots>,
    number: u64,
    /// Is there in the process that has the channel, for as long as it has it.
    owner: Mark,
}

impl Registration {
    /// Passes `memory` to the other side; or says why that cannot be.
    pub(super) fn of(link: &Link, memory: &Own, fd: &OwnedFd, what: Use) -> Result<Self, String> {
        // Relaxed: nothing else depends on it. Whatever the other side writes there, it gets no more than what is registered.
        let seen = link.desks.outgoing().buffers_taken.load(Ordering::Relaxed);
        let number = link.buffers.with(|taken| {
            let slot = (!taken.slots & what.slots()).trailing_zeros();
            if slot as usize >= PLACES {
                return Err(format!("{BUFFERS} buffers of this side are registered already"));
            }
            if taken.packets.saturating_sub(seen) >= BUFFERS as u64 {
                return Err(format!("the other side has not looked at the last {BUFFERS} of this side's"));
            }
            taken.slots |= 1 << slot;
            taken.registrations += 1;
            taken.packets += 1;
            Ok(taken.registrations * PLACES as u64 + u64::from(slot))
        })?;
        let registration = Self { slots: Arc::clone(&link.buffers), number, owner: link.nonce.mark() };
        memory.set_number(number);
        pass(link, Kind::Registered, fd).map_err(|error| {
            memory.set_number(0);
            link.buffers.with(|taken| taken.packets -= 1);
            error.to_string()
        })?;
        // Relaxed: it tells no more than that there is news.
        link.desks.outgoing().buffers_passed.fetch_add(1, Ordering::Relaxed);
        Ok(registration)
    }

    /// What the other side knows the byte at `offset` by.
    pub(super) fn spot(&self, offset: usize) -> Spot {
        Spot { number: self.number, offset: offset as u64 }
    }

    fn is_with(&self, link: &Link) -> bool {
        Arc::ptr_eq(&self.slots, &link.buffers)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // In a child made by fork the lock may have been a thread's of its parent.
        if self.owner.is_intact() {
            self.slots.with(|taken| taken.slots &= !(1 << slot_of(self.number)));
        }
    }
}

/// Memory that both sides of a channel have mapped, for messages that are sent from it or received into it again and again.
///
/// A message that is sent from one by [`send_registered`](Channel::send_registered), or received into one by
/// [`recv_registered`](Channel::recv_registered), needs no system call for its bytes, and from
/// [`DEFAULT_COOPERATIVE_BYTES`](super::DEFAULT_COOPERATIVE_BYTES) on both sides copy at the same time. It is best where both are
/// registered, each by its own side; where one is, the other side copies its part by cross-memory attach, as it does with other
/// memory. Shorter messages go through the ring.
///
/// It belongs to the channel that made it, by either half of that side. With another one, or when it could not be registered
/// ([`is_registered`](Self::is_registered)), it is as good as any other memory. It can be kept beyond the channel.
///
/// The other side can read what is in it at any time, whether it is sent or not. It can write there, too, if both sides are of one user
/// and neither [`Policy`](super::Policy) is [`separate`](super::Policy::separate): then it can write all memory of this process, as
/// a rule, and what protects this one is that it plays by the rules. Where it may not write, nothing is received into the memory
/// by two.
///
/// ```
/// # use onecopy::{Channel, Deadline};
/// # let (parent, end) = Channel::pair()?;
/// # let number = std::os::fd::AsRawFd::as_raw_fd(&end);
/// # let child = std::thread::spawn(move || { let _end = end; Channel::adopt_by(number, Deadline::Never) });
/// # let mut sender = parent.accept_by(Deadline::Never)?;
/// # let mut receiver = child.join().unwrap()?; // usually in another process
/// let mut frame = sender.register(1 << 20)?;
/// # let viewer = std::thread::spawn(move || {
/// let mut buffer = receiver.register(1 << 20)?; // on the other side
/// # for number in 0..3 {
/// let received = receiver.recv_registered(&mut buffer)?; // again and again
/// assert_eq!(received, Some(1 << 20));
/// # assert!(buffer.iter().all(|&byte| byte == number));
/// # }
/// # Ok::<(), onecopy::Error>(()) });
///
/// for number in 0..3 {
///     frame.fill(number);
///     sender.send_registered(&frame, 0..1 << 20)?;
/// }
/// # viewer.join().unwrap()?;
/// # Ok::<(), onecopy::Error>(())
/// ```
///
/// # Panics
///
/// In a child made by fork, which does not have its parent's registered memory, each access does.
pub struct RegisteredBuffer {
    // Fields are dropped in this order: the place is free when the memory says that its registration is over.
    /// `None` when it is empty.
    memory: Option<Own>,
    registration: Option<Registration>,
    len: usize,
}

impl RegisteredBuffer {
    fn create(link: &Link, len: usize) -> Result<Self> {
        link.check_owner()?;
        if len == 0 {
            return Ok(Self { memory: None, registration: None, len });
        }
        let rights = if link.is_open { Rights::ReadWrite } else { Rights::Read };
        let (memory, fd) = Own::create(len, rights, Children::Without)?;
        let registration = Registration::of(link, &memory, &fd, Use::Buffer)
            .map_err(|why| link.counters.note_fallback(&format!("memory could not be registered: {why}"), 0))
            .ok();
        Ok(Self { memory: Some(memory), registration, len })
    }

    /// Whether the other side of the channel that made it can map it. It may not have done so yet. Otherwise
    /// [`Stats::fallbacks`](super::Stats::fallbacks) says why.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registration.is_some()
    }

    /// The first byte. Valid for as long as the buffer, until its memory is renewed.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.memory.as_ref().map_or(NonNull::dangling(), Own::base)
    }

    /// What the other side of `link` knows the byte at `offset` by.
    pub(super) fn spot(&self, link: &Link, offset: usize) -> Spot {
        match &self.registration {
            Some(registration) if registration.is_with(link) => registration.spot(offset),
            _ => Spot::NOWHERE,
        }
    }

    /// Takes the memory away from whoever may still write there, and takes new memory, of zeros. Without any it is empty.
    pub(super) fn renew(&mut self, link: &Link) -> Result<()> {
        let len = std::mem::take(&mut self.len);
        self.memory.take().into_iter().for_each(Own::retire);
        self.registration = None;
        *self = Self::create(link, len)?;
        Ok(())
    }

    fn range(&self, range: &Range<usize>) -> Result<&[u8]> {
        self.get(range.clone()).ok_or_else(|| {
            let reason = format!("{range:?} does not lie within its {} bytes", self.len);
            Error::Invalid { object: "a registered buffer".into(), reason }
        })
    }
}

impl Deref for RegisteredBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| memory.slice(0..self.len))
    }
}

impl DerefMut for RegisteredBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.memory.as_mut().map_or(&mut [], |memory| memory.slice_mut(0..len))
    }
}

impl AsRef<[u8]> for RegisteredBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for RegisteredBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for RegisteredBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegisteredBuffer({} bytes)", self.len)
    }
}

/// How to write memory that the other side will read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stores {
    Ordinary,
    /// Past the caches, in which what was there is not.
    PastCaches,
}

/// A part of what the other side has registered: a message, or the place for one.
#[derive(Debug)]
pub(super) struct Mapped {
    memory: Arc<Theirs>,
    offset: usize,
    bytes: usize,
}

impl Mapped {
    /// Copies what stands at `at` of it.
    pub(super) fn read(&self, at: usize, piece: &mut [u8]) -> Result<(), Errno> {
        let offset = self.check(at, piece.len())?;
        self.memory.region().read_beside_at(offset, piece).map_err(|_| Errno::EFAULT)
    }

    /// Copies `piece` to `at` of it.
    pub(super) fn write(&self, at: usize, piece: &[u8], stores: Stores) -> Result<(), Errno> {
        let offset = self.check(at, piece.len())?;
        let region = self.memory.region();
        let written = match stores {
            Stores::Ordinary => region.write_beside_at(offset, piece),
            Stores::PastCaches => region.write_past_caches_at(offset, piece),
        };
        written.map_err(|_| Errno::EFAULT)
    }

    /// Whether this side may write it.
    pub(super) fn is_writable(&self) -> bool {
        self.memory.region().is_writable()
    }

    fn check(&self, at: usize, len: usize) -> Result<usize, Errno> {
        let end = at.checked_add(len).filter(|end| *end <= self.bytes);
        end.map(|_| self.offset + at).ok_or(Errno::EFAULT)
    }
}

impl Link {
    /// What the other side says is at `spot`, for `half` of this one; `None` when it says nothing, or what cannot be.
    pub(super) fn find(&self, half: Half, spot: Spot, bytes: usize) -> Result<Option<Mapped>> {
        if !spot.is_somewhere() {
            return Ok(None);
        }
        let found = self.polling.buffer(half, spot.number)?;
        self.tell_taken();
        let fits = |memory: Arc<Theirs>| {
            if self.is_open && !spot.is_buffer() {
                memory.warm_up();
            }
            let offset = usize::try_from(spot.offset).ok()?;
            let is_within = offset.checked_add(bytes).is_some_and(|end| end <= memory.len());
            is_within.then_some(Mapped { memory, offset, bytes })
        };
        let mapped = found.and_then(|memory| fits(memory).ok_or_else(|| "a message reaches beyond it".into()));
        if let Err(why) = &mapped {
            self.counters.note_fallback(&format!("registered memory of the other side was not used: {why}"), 1);
        }
        Ok(mapped.ok())
    }

    /// Takes what the other side has registered since, so that it can register more.
    #[inline]
    pub(super) fn look_for_buffers(&self, half: Half) -> Result<()> {
        // Relaxed: whatever stands there, the socket has what it has.
        if self.desks.incoming().buffers_passed.load(Ordering::Relaxed) == self.polling.taken() {
            return Ok(());
        }
        let taken = self.polling.take(half);
        self.tell_taken();
        taken
    }

    /// Tells the other side which packets with registered memory this one has taken.
    pub(super) fn tell_taken(&self) {
        // Relaxed: nothing else depends on it.
        self.polling.tell_taken(|taken| self.desks.incoming().buffers_taken.store(taken, Ordering::Relaxed));
    }
}

impl Channel {
    /// Makes `len` bytes of memory that the other side maps as well: zeros at first. It lasts until it is dropped.
    ///
    /// # Errors
    ///
    /// ENOMEM, also when this machine cannot have so much memory free; [`Error::Unsupported`] in a child made by fork, and
    /// before Linux 5.1; EMFILE, ENFILE, ENOMEM.
    pub fn register(&self, len: usize) -> Result<RegisteredBuffer> {
        self.sender.register(len)
    }

    /// Sends `range` of a registered buffer as a message.
    ///
    /// # Errors
    ///
    /// As [`ChannelSender::send_registered_by`].
    pub fn send_registered(&mut self, buffer: &RegisteredBuffer, range: Range<usize>) -> Result<()> {
        self.sender.send_registered_by(buffer, range, Deadline::Never)
    }

    /// Receives a message into a registered buffer, and returns its length; `None` is the end.
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::recv_registered_by`].
    pub fn recv_registered(&mut self, buffer: &mut RegisteredBuffer) -> Result<Option<usize>> {
        if self.sender.keeps() {
            return self.receive_and_go_on(|receiver, deadline| receiver.recv_registered_by(buffer, deadline));
        }
        self.receiver.recv_registered_by(buffer, Deadline::Never)
    }
}

impl ChannelSender {
    /// As [`Channel::register`].
    ///
    /// # Errors
    ///
    /// As [`Channel::register`].
    pub fn register(&self, len: usize) -> Result<RegisteredBuffer> {
        RegisteredBuffer::create(&self.link, len)
    }

    /// Sends `range` of a registered buffer as a message. One that cannot be copied once goes as by
    /// [`send_by`](crate::Sender::send_by).
    ///
    /// # Errors
    ///
    /// As [`send_by`](crate::Sender::send_by); [`Error::Invalid`] when the range does not lie within the buffer.
    pub fn send_registered_by(
        &mut self,
        buffer: &RegisteredBuffer,
        range: Range<usize>,
        deadline: Deadline,
    ) -> Result<()> {
        self.link.check_owner()?;
        let spot = buffer.spot(&self.link, range.start);
        self.send_at(buffer.range(&range)?, spot, deadline)
    }
}

impl ChannelReceiver {
    /// As [`Channel::register`].
    ///
    /// # Errors
    ///
    /// As [`Channel::register`].
    pub fn register(&self, len: usize) -> Result<RegisteredBuffer> {
        RegisteredBuffer::create(&self.link, len)
    }

    /// Receives a message into a registered buffer, and returns its length; `None` is the end: the other side has closed.
    ///
    /// After an error the buffer holds anything. When its sender stops in the middle of a copy, or dies there, the buffer gets new
    /// memory, of zeros: what else it held is lost, and it may lie elsewhere.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`](crate::Receiver::recv_into_by). ENOMEM when there is no new memory; the buffer is empty then,
    /// and the message lost.
    pub fn recv_registered_by(&mut self, buffer: &mut RegisteredBuffer, deadline: Deadline) -> Result<Option<usize>> {
        self.receive_registered(buffer, deadline)
    }
}
