//! The channel: messages of any size between two processes of one machine, as fast as the hardware.
//!
//! A channel is a connection in both directions that keeps messages whole and in order, each once. How a message goes is chosen
//! for each:
//!
//! | Message | Way | Copies |
//! |---|---|---|
//! | up to 56 bytes, and 64 | inside of one cache line of a ring in shared memory | 2, of that line |
//! | up to 104 bytes | inside of two of them | 2, of these lines |
//! | up to [`DEFAULT_SINGLE_COPY_BYTES`] | through the ring in pieces, both sides at the same time | 2, in the cache |
//! | from 64 KiB on, in a long stream, where that is faster | the sender writes it where the receiver has a place for it | 1 |
//! | from 64 KiB on, where it is waited for, as an answer is | both sides copy parts of it at the same time, by cross-memory attach | 1, by two processors |
//! | longer | the receiver reads it from the sender's memory, by cross-memory attach | 1 |
//! | from [`DEFAULT_COOPERATIVE_BYTES`] on, into a [`Message`] | both sides copy parts of it at the same time | 1, by two processors |
//! | from one [`RegisteredBuffer`] into another | as before, in user space, since both sides map both | 1, by two processors |
//! | made in a [`Loan`], received as a [`View`] | it stays where it was made, in memory that both map | 0 |
//!
//! A long message goes faster from memory on huge pages, since the kernel looks up and pins each page of the other process's: 1 MiB
//! at a time takes 29 us from there and 35 us from small pages, where memcpy takes 25; and cold, one side alone reads 9.4 GB/s for 5.3.
//! A [`Buffer`](crate::memory::buffer::Buffer) is such memory, and so is what was advised by madvise(2) with MADV_HUGEPAGE before it
//! was touched; a [`Message`] always is.
//!
//! Where the kernel refuses cross-memory attach, and between processes of two users, all messages go through the ring, and
//! [`ChannelSender::stats`] says why.
//!
//! Three programs show how it is used, each with its own second process: `examples/frames.rs`, a camera and a viewer of its frames;
//! `examples/request_reply.rs`, a server that listens at a name and a client of it; and `examples/worker_pool.rs`, processes that
//! return large results to one that polls for all of them.

mod ahead;
mod berths;
mod claims;
mod copying;
mod desk;
mod extents;
mod helper;
mod landing;
mod link;
mod liveness;
mod loan;
mod message;
#[cfg(loom)]
mod model;
mod name;
mod parts;
mod passing;
mod peer;
mod policy;
mod polling;
mod prompt;
mod receiver;
mod registered;
pub mod rendezvous;
mod seccomp;
mod sender;
mod stats;
#[cfg(test)]
mod tests;
mod view;

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;

use link::{Link, Parts};
use liveness::{Lifeline, PeerProcess, Word};
use polling::Polling;
use rendezvous::Connection;
use stats::Counters;

pub use loan::{DEFAULT_LOAN_LIMIT_BYTES, LOANS, Loan, Unsent};
pub use message::Message;
pub use peer::Peer;
pub use policy::{Policy, Tracer};
pub use polling::Arming;
pub use receiver::{ChannelReceiver, DEFAULT_COOPERATIVE_BYTES};
use registered::Spot;
pub use registered::{BUFFERS, RegisteredBuffer};
pub use sender::{ChannelSender, DEFAULT_SINGLE_COPY_BYTES, LINGER};
pub use stats::{Count, Fallback, Path, Stats};
pub use view::View;

pub use rendezvous::TurnedAway;

pub use crate::address::ChannelName;

use crate::memory::nonce::Nonce;
use crate::memory::permission::{Diagnosis, Verdict};
use crate::memory::remote::{READ, WRITE};
use crate::memory::ring::{RingReceiver, RingSender};
use crate::{Deadline, Error, Receiver, Result, Sender, WaitStrategy};

/// Why there is no cross-memory attach to a process of another user. The kernel lets a privileged process attach, and goes on doing so when
/// the other side executes a set-user-ID program: what tells this side where to read and write is still in the hands of the other user then.
const ANOTHER_USER: &str =
    "the other side is of another user: process_vm_readv and process_vm_writev are for processes of one";

/// One side of a connection.
#[derive(Debug)]
pub struct Channel {
    // Dropped in this order: what was sent is complete before the other side sees the end.
    sender: ChannelSender,
    receiver: ChannelReceiver,
}

impl Channel {
    /// Connects to the listener with this name, "frames" or "/run/frames", of the same user. Waits for one for as long as it takes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that can be none; otherwise as [`Channel::connect_by`].
    pub fn connect(name: &str) -> Result<Self> {
        Self::connect_by(&parse(name)?, &Policy::default(), Deadline::Never)
    }

    /// Connects to the listener with this name, whom `policy` must admit, waiting until `deadline` for one.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] and [`Error::WouldBlock`] with the places tried; [`Error::Refused`] when either side does not admit the
    /// other; otherwise as [`rendezvous::connect_by`].
    pub fn connect_by(name: &ChannelName, policy: &Policy, deadline: Deadline) -> Result<Self> {
        Self::over(rendezvous::connect_by(name, policy, deadline)?)
    }

    /// The parent's side of a channel to a child, and the end that the child is to [`adopt`](Channel::adopt_by): as one of its
    /// descriptors, by [`Command::stdin`](std::process::Command::stdin) for instance.
    ///
    /// # Errors
    ///
    /// EMFILE and ENFILE when there are too many descriptors.
    pub fn pair() -> Result<(Parent, OwnedFd)> {
        let (parent, end) = rendezvous::pair_for(&Policy::default(), link::memory())?;
        Ok((Parent(parent), end))
    }

    /// The child's side of a [`Channel::pair`], by the number of the descriptor that it inherited: 0 is standard input.
    ///
    /// That number stays open beside the channel, in children too, and keeps the other side from seeing that this process executes
    /// another program: who means to do that closes it, or puts something else in its place.
    ///
    /// # Errors
    ///
    /// As [`rendezvous::adopt_inherited_by`].
    pub fn adopt_by(number: i32, deadline: Deadline) -> Result<Self> {
        Self::over(rendezvous::adopt_inherited_by(number, &Policy::default(), deadline)?)
    }

    /// This side of a connection that a rendezvous has made.
    fn over(connection: Connection) -> Result<Self> {
        let Connection { mut socket, peer: identity, region, is_listener, attach, limit_bytes, .. } = connection;
        let object = socket.object().to_owned();
        socket.keep_from_children();
        let socket = Arc::new(socket);
        let Parts { to_listener, to_connector, desks } = Parts::of(region.named(&object))?;
        let (incoming, outgoing) = if is_listener { (to_listener, to_connector) } else { (to_connector, to_listener) };
        let handle = identity.handle().ok_or_else(|| unseen(&object))?;
        let (own, other) = Word::both(&desks, is_listener);
        let peer = PeerProcess::watch(handle, &socket, other.clone())?;
        let lifeline = Lifeline::begin(handle, &peer, own, other);
        let counters = Counters::default();
        let trusted = identity.uid() == geteuid().as_raw();
        let is_open = attach && trusted;
        let (attach, write) = match attach {
            true if trusted => {
                let (read, write) = may_attach(&identity, &counters);
                // Within one process the receiver copies alone: a channel of safe code may not write wherever its other end says.
                (read, write && !peer.process().is_own())
            }
            true => {
                counters.note_fallback(ANOTHER_USER, 0);
                (Err(ANOTHER_USER.into()), false)
            }
            false => (Err("the policy of a side keeps their memory apart".into()), false),
        };
        let link = Arc::new(Link {
            desks: desk::Desks::new(desks, is_listener),
            peer,
            _lifeline: lifeline,
            nonce: Nonce::draw()?,
            attach,
            write,
            trusted,
            is_open,
            buffers: Arc::default(),
            sites: Arc::default(),
            object,
            identity,
            polling: Polling::new(socket),
            counters,
        });
        // The listener has laid them out: who waits here waits for a peer that plays by no rules.
        let corrupt = |error: Error| match error.is_out_of_time() {
            true => Error::Corrupt { object: link.object.clone(), detail: "a ring that is not laid out".into() },
            false => error,
        };
        let ring = RingSender::attach(outgoing, Deadline::Now).map_err(corrupt)?;
        let sender = ChannelSender::new(ring, Arc::clone(&link));
        let ring = RingReceiver::attach(incoming, Deadline::Now).map_err(corrupt)?;
        let mut receiver = ChannelReceiver::new(ring, link);
        receiver.set_limit_bytes(limit_bytes);
        Ok(Self { sender, receiver })
    }

    /// Who is on the other side, as the kernel says.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.sender.peer()
    }

    /// Has the descriptor of this channel ([`AsFd`]) become readable when there is something to receive, for poll(2), epoll(7) and
    /// what is built on them. `self.sender().arm()` does the same for room.
    ///
    /// ```
    /// use std::os::fd::AsFd as _;
    ///
    /// use onecopy::channel::Arming;
    /// use onecopy::{Channel, Deadline, Error, Listener};
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// # let name = format!("onecopy-doc-arm-{}", std::process::id());
    /// # let listener = Listener::bind(&name)?;
    /// # let client = std::thread::spawn(move || Channel::connect(&name)?.send(b"a frame"));
    ///
    /// let mut channel = listener.accept()?;
    /// let frame = loop {
    ///     match channel.receiver().recv_by(Deadline::Now) {
    ///         Err(Error::WouldBlock { .. }) if channel.arm()? == Arming::Armed => {
    ///             // With the descriptors of other channels as well, where there are some.
    ///             let _ = poll(&mut [PollFd::new(&channel.as_fd(), PollFlags::IN)], None);
    ///         }
    ///         Err(Error::WouldBlock { .. }) => {}
    ///         received => break received?,
    ///     }
    /// };
    /// assert_eq!(frame.as_deref(), Some(&b"a frame"[..]));
    /// # client.join().unwrap()?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::arm`].
    pub fn arm(&mut self) -> Result<Arming> {
        self.receiver.arm()
    }

    /// The two halves, for two threads.
    #[must_use]
    pub fn split(mut self) -> (ChannelSender, ChannelReceiver) {
        self.sender.is_split = true;
        (self.sender, self.receiver)
    }

    /// Sends a message and receives one, at the same time: where both sides do that, neither waits for the other to receive first.
    /// `None` is the end: the other side has closed.
    ///
    /// # Errors
    ///
    /// As [`Channel::send`] and [`Channel::recv`]. When receiving fails, the message was or was not received by the other side. When
    /// sending fails, what was received meanwhile stays first in line. [`Error::WouldDeadlock`] where on both sides more than one message
    /// that was sent before waits for room: receive those first.
    pub fn exchange_by(&mut self, message: &[u8], deadline: Deadline) -> Result<Option<Message>> {
        if !self.sender.goes_from_here(message.len()) || !self.sender.is_free() {
            return self.exchange_through_ring(message, deadline);
        }
        self.sender.begin(deadline)?;
        let parts = [IoSlice::new(message)];
        let spot = self.sender.spot_of(message, Spot::NOWHERE);
        let mut offered = self.sender.offer_for_now(&parts, spot, message.len(), deadline)?;
        let received = self.receiver.recv_by(deadline);
        // Also after an error: from here on nobody reads the message any more.
        let until = if received.is_ok() { deadline } else { deadline.at_most(Duration::ZERO) };
        let finished = offered.finish(until);
        drop(offered);
        let sent = match finished {
            Ok(true) => Ok(()),
            Ok(false) => self.sender.send_by(message, deadline),
            // Of the other side something else was received than what it sends now: it is out of step.
            Err(Error::WouldDeadlock { .. }) => self.sender.send_copied_by(message, deadline),
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => received,
            Err(error) => Err(self.keep(received.ok(), error)),
        }
    }

    /// What does not fit the ring is kept, and goes as the other side takes what is there.
    fn exchange_through_ring(&mut self, message: &[u8], deadline: Deadline) -> Result<Option<Message>> {
        /// A side that sees nothing for so long looks whether there is room for more of what it sends.
        const SLICE: Duration = Duration::from_millis(1);
        let may_go_later = |error: &Error| error.is_out_of_time() || matches!(error, Error::WouldDeadlock { .. });
        let mut sent = false;
        let received = loop {
            match self.send_or_flush(message, sent, Deadline::Now) {
                Ok(()) => sent = true,
                // What was sent before may wait for the other side to receive, and that waits for this one.
                Err(error) if may_go_later(&error) && !deadline.has_passed() => {}
                Err(error) => return Err(error),
            }
            match self.receiver.recv_by(deadline.at_most(SLICE)) {
                Err(error) if error.is_out_of_time() && !deadline.has_passed() => {}
                received => break received?,
            }
        };
        match self.send_or_flush(message, sent, deadline) {
            Ok(()) => Ok(received),
            // It is accepted: what is kept of it goes later.
            Err(error) if sent && may_go_later(&error) => Ok(received),
            Err(error) => Err(self.keep(Some(received), error)),
        }
    }

    fn send_or_flush(&mut self, message: &[u8], sent: bool, deadline: Deadline) -> Result<()> {
        if sent { self.sender.flush_by(deadline) } else { self.sender.send_copied_by(message, deadline) }
    }

    /// Keeps what was received for the next call that receives, since this one has an error to return.
    #[cold]
    fn keep(&mut self, received: Option<Option<Message>>, error: Error) -> Error {
        received.flatten().into_iter().for_each(|message| self.receiver.keep(message));
        error
    }

    /// Has `receive` wait for a message for as long as it takes, while what was sent before and is kept here goes on: the other side may
    /// wait for that.
    #[cold]
    fn receive_and_go_on<T>(
        &mut self,
        mut receive: impl FnMut(&mut ChannelReceiver, Deadline) -> Result<T>,
    ) -> Result<T> {
        /// The first and the longest time until the next look, while nothing goes on.
        const SLICES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
        let [first, longest] = SLICES;
        let (mut slice, mut kept) = (first, None);
        while self.sender.keeps()
            && let Some(bytes) = self.sender.go_on()?
        {
            slice = if kept.replace(bytes) == Some(bytes) { longest.min(2 * slice) } else { first };
            match receive(&mut self.receiver, Deadline::after(slice)) {
                Err(error) if error.is_out_of_time() => {}
                received => return received,
            }
        }
        receive(&mut self.receiver, Deadline::Never)
    }

    /// Sets how to wait for the other side.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.sender.set_wait_strategy(strategy);
        self.receiver.set_wait_strategy(strategy);
    }

    /// The sending half.
    pub fn sender(&mut self) -> &mut ChannelSender {
        &mut self.sender
    }

    /// The receiving half. While it waits, what [`Channel::send`] and its like have accepted and could not send yet stays here, and the
    /// other side may wait for that: where there may be such, [`flush_by`](Sender::flush_by) before, or receive by the channel's own calls.
    pub fn receiver(&mut self) -> &mut ChannelReceiver {
        &mut self.receiver
    }

    /// Sends a message. When this returns the message no longer needs the caller's memory.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`].
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        self.sender.send_by(message, Deadline::Never)
    }

    /// Sends the parts one after the other as one message, without putting them together first.
    ///
    /// # Errors
    ///
    /// As [`ChannelSender::send_vectored_by`].
    pub fn send_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.sender.send_vectored(parts)
    }

    /// Receives a message into warm memory of the library; `None` is the end: the other side has closed.
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::recv_by`].
    #[inline]
    pub fn recv(&mut self) -> Result<Option<Message>> {
        if self.sender.keeps() {
            return self.receive_and_go_on(|receiver, deadline| receiver.recv_by(deadline));
        }
        self.receiver.recv_by(Deadline::Never)
    }

    /// Receives a message straight into `buffer`, and returns its length; `None` is the end.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`].
    pub fn recv_into(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        if self.sender.keeps() {
            return self.receive_and_go_on(|receiver, deadline| receiver.recv_into_by(buffer, deadline));
        }
        self.receiver.recv_into_by(buffer, Deadline::Never)
    }

    /// Lends `len` bytes of shared memory, in which a message is made and sent without a copy.
    ///
    /// # Errors
    ///
    /// As [`ChannelSender::loan_by`].
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>> {
        self.sender.loan(len)
    }

    /// Receives a message where its sender has made it, if it was lent; `None` is the end: the other side has closed.
    ///
    /// # Errors
    ///
    /// As [`ChannelReceiver::recv_view_by`].
    pub fn recv_view(&mut self) -> Result<Option<View>> {
        if self.sender.keeps() {
            return self.receive_and_go_on(|receiver, deadline| receiver.recv_view_by(deadline));
        }
        self.receiver.recv_view_by(Deadline::Never)
    }

    /// The address of the channel, for messages.
    #[must_use]
    pub fn object(&self) -> &str {
        self.sender.object()
    }

    /// What went which way until now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sender.stats()
    }
}

impl AsFd for Channel {
    /// The descriptor to poll for, see [`Channel::arm`]: the socket to the other side. Messages do not go through it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }
}

/// Waits for processes that connect.
///
/// ```
/// use onecopy::{Channel, Listener};
///
/// let name = format!("onecopy-doc-{}", std::process::id());
/// let listener = Listener::bind(&name)?;
/// # let client = std::thread::spawn(move || {
/// let mut channel = Channel::connect(&name)?; // in another process
/// channel.send(b"a frame")?;
/// # Ok::<(), onecopy::Error>(()) });
///
/// let mut channel = listener.accept()?;
/// assert_eq!(channel.recv()?.as_deref(), Some(&b"a frame"[..]));
/// # client.join().unwrap()?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener(rendezvous::Listener);

impl Listener {
    /// Listens at a name of this user's, "frames", or at a path, "/run/frames", for processes of this user.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that can be none; otherwise as [`Listener::bind_with`].
    pub fn bind(name: &str) -> Result<Self> {
        Self::bind_with(&parse(name)?, &Policy::default())
    }

    /// Listens at `name` for the processes that `policy` admits.
    ///
    /// # Errors
    ///
    /// EADDRINUSE when a process holds the name, or when the file is no socket.
    pub fn bind_with(name: &ChannelName, policy: &Policy) -> Result<Self> {
        rendezvous::Listener::bind_for(name, policy, link::memory()).map(Self)
    }

    /// Listens with the socket of a listener ([`AsFd`]) that this process inherited or was passed: several processes can accept at one
    /// name. `object` names it in errors. The file of a path goes with the listener that was bound to it. The socket becomes
    /// non-blocking for all of them.
    ///
    /// # Errors
    ///
    /// As [`rendezvous::Listener::from_fd`].
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>, policy: &Policy) -> Result<Self> {
        rendezvous::Listener::from_fd_for(fd, object, policy, link::memory()).map(Self)
    }

    /// Waits for the next process.
    ///
    /// # Errors
    ///
    /// As [`Listener::accept_by`].
    pub fn accept(&self) -> Result<Channel> {
        self.accept_by(Deadline::Never)
    }

    /// Waits until `deadline` for a process that connects and is admitted. One that cannot be watched, of another pid namespace before
    /// Linux 6.5, is turned away ([`Listener::turned_away`]), and the next one waited for.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when none came; EMFILE when there are too many descriptors; ENOMEM.
    pub fn accept_by(&self, deadline: Deadline) -> Result<Channel> {
        let mut turned_away = 0;
        loop {
            match Channel::over(self.0.accept_by(deadline)?) {
                // It has spoiled the memory, or cannot be watched: another one may do better.
                Err(error @ (Error::Corrupt { .. } | Error::Occupied { .. } | Error::Unsupported { .. })) => {
                    self.0.turn_away(error.to_string());
                }
                channel => return channel,
            }
            turned_away += 1;
            if turned_away >= rendezvous::MOST_AT_ONCE && deadline.has_passed() {
                return Err(self.0.out_of_time(deadline));
            }
        }
    }

    /// Has a descriptor ([`Listener::poll_fd`]) become readable when there is something to do for [`Listener::accept_by`] with
    /// [`Deadline::Now`], for poll(2), epoll(7) and what is built on them: when a process connects or goes on with its handshake,
    /// or has said nothing for too long. [`Arming::Ready`] says that there is such a thing already; so arm when that call finds
    /// nobody, and wait only if it is [`Arming::Armed`]. Handshakes go on in these calls alone, and in those of other threads
    /// that accept.
    ///
    /// ```
    /// use onecopy::channel::Arming;
    /// use onecopy::{Channel, Deadline, Error, Listener};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let name = format!("onecopy-doc-accept-{}", std::process::id());
    /// let listener = Listener::bind(&name)?;
    /// # let client = std::thread::spawn(move || {
    /// let mut channel = Channel::connect(&name)?; // in another process
    /// channel.send(b"a frame")?;
    /// # Ok::<(), onecopy::Error>(()) });
    ///
    /// let mut channel = loop {
    ///     match listener.accept_by(Deadline::Now) {
    ///         Err(Error::WouldBlock { .. }) if listener.arm()? == Arming::Armed => {
    ///             // With the descriptors of the channels that are there as well.
    ///             let _ = poll(&mut [PollFd::new(&listener.poll_fd()?, PollFlags::IN)], None);
    ///         }
    ///         Err(Error::WouldBlock { .. }) => {}
    ///         accepted => break accepted?,
    ///     }
    /// };
    /// assert_eq!(channel.recv()?.as_deref(), Some(&b"a frame"[..]));
    /// # client.join().unwrap()?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// EMFILE, ENFILE, ENOMEM, ENOSPC; [`Error::Unsupported`] in a child made by fork whose parent has called this or
    /// [`Listener::poll_fd`]: there [`Listener::from_fd`] makes another one.
    pub fn arm(&self) -> Result<Arming> {
        self.0.arm()
    }

    /// The descriptor to poll for, see [`Listener::arm`]: the same at each call. It is no socket, and of no use for anything else.
    ///
    /// # Errors
    ///
    /// As [`Listener::arm`].
    pub fn poll_fd(&self) -> Result<BorrowedFd<'_>> {
        self.0.poll_fd()
    }

    /// Those that connected in vain so far.
    #[must_use]
    pub fn turned_away(&self) -> TurnedAway {
        self.0.turned_away()
    }
}

impl AsFd for Listener {
    /// The listening socket: to hand it on to a process that will accept by [`Listener::from_fd`]. It is readable when a process
    /// connects. What that says afterwards comes over another socket: the one to poll for is [`Listener::poll_fd`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The parent's side of a [`Channel::pair`], before the child has adopted the other.
#[derive(Debug)]
pub struct Parent(rendezvous::Parent);

impl Parent {
    /// Waits until `deadline` for the child to adopt its end.
    ///
    /// # Errors
    ///
    /// As [`rendezvous::Parent::accept_by`].
    pub fn accept_by(self, deadline: Deadline) -> Result<Channel> {
        Channel::over(self.0.accept_by(deadline)?)
    }
}

fn parse(name: &str) -> Result<ChannelName> {
    if name.starts_with('/') { ChannelName::path(name) } else { ChannelName::name(name) }
}

fn unseen(object: &str) -> Error {
    let reason = "the kernel cannot tell of the end of a process in another pid namespace: Linux 6.5 does".into();
    Error::Unsupported { object: object.into(), reason }
}

/// Whether cross-memory attach may be tried, to read and to write: the other side has a number here, and no filter kills who tries.
fn may_attach(peer: &Peer, counters: &Counters) -> (Result<(), String>, bool) {
    if peer.pid() == 0 {
        let why = "the other side is in another pid namespace, and has no number in this one";
        counters.note_fallback(why, 0);
        return (Err(why.into()), false);
    }
    let own = Diagnosis::of(std::process::id());
    let may = |call: &str, verdict: &Verdict| {
        if verdict.allowed == Some(false) {
            let why = format!("this process may not use {call}: {verdict}");
            counters.note_fallback(&why, 0);
            return Err(why);
        }
        Ok(())
    };
    let write = may(WRITE, &own.write).is_ok();
    let read = may(READ, &own.read);
    let both = write && read.is_ok();
    (read, both)
}
