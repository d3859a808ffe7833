//! Listening at a name, and the handshakes of several that connect at the same time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{SocketType, listen};
use rustix::process::geteuid;

use super::handshake::Pending;
use super::packet::take_descriptors;
use super::readiness::Readiness;
use super::{Connection, Memory, name};
use crate::address::ChannelName;
use crate::channel::{Arming, Policy};
use crate::io::socket::{BACKLOG, Socket};
use crate::io::unix_name::{SocketFile, bind_to, new_socket};
use crate::{Deadline, Error, Result};

/// How many handshakes go on at once. Each holds a descriptor.
const MOST_PENDING: usize = 64;
/// How many connections are taken by a call that has no time, so that strangers who come as fast as they are turned away keep nobody.
pub(in crate::channel) const MOST_AT_ONCE: usize = 64;
/// How long a handshake is safe from others that need its place.
const GRACE: Duration = Duration::from_millis(100);

/// A name that processes connect to.
///
/// Several threads may accept at once; one of them looks after all handshakes that go on, and the others wait for their turn. A
/// process that connects and says nothing holds up nobody: it is turned away after five seconds, or as soon as
/// there are 64 like it and others wait.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::channel::{ChannelName, Policy};
/// use onecopy::channel::rendezvous::{Listener, connect_by};
///
/// let name = ChannelName::name(format!("example-{}", std::process::id()))?;
/// let listener = Listener::bind(&name, &Policy::default(), 65_536)?;
/// let other = {
///     let name = name.clone();
///     std::thread::spawn(move || connect_by(&name, &Policy::default(), Deadline::Never))
/// };
/// let connection = listener.accept_by(Deadline::Never)?;
/// assert_eq!(connection.peer().pid(), std::process::id());
/// assert_eq!(connection.region().len(), 65_536);
/// other.join().unwrap()?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    _file: Option<SocketFile>,
    socket: Socket,
    policy: Policy,
    memory: Memory,
    state: Mutex<State>,
    turn_free: Condvar,
    /// From the first time on that somebody is to poll.
    readiness: OnceLock<Readiness>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a thread looks after the handshakes, which it has taken out then.
    led: bool,
    pending: Vec<Pending>,
    turned_away: TurnedAway,
}

/// Those that connected and were not admitted, or did not complete the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TurnedAway {
    /// How many there were.
    pub count: u64,
    /// Why the last one was turned away; empty when there was none.
    pub last: String,
}

impl Listener {
    /// Listens at `name`, and gives each connection `memory_bytes` of shared memory.
    ///
    /// A socket file that no process holds any more is replaced; dropping the listener removes the file, unless another one has
    /// taken its place. The file has mode 0600, or 0666 when the policy admits others than this user.
    ///
    /// # Errors
    ///
    /// EADDRINUSE when a process holds the name, or when the file is no socket; [`Error::Invalid`] for a length of 0.
    pub fn bind(name: &ChannelName, policy: &Policy, memory_bytes: usize) -> Result<Self> {
        Self::bind_for(name, policy, Memory::zeros(memory_bytes))
    }

    /// As [`Listener::bind`], for connections with such memory.
    pub(in crate::channel) fn bind_for(name: &ChannelName, policy: &Policy, memory: Memory) -> Result<Self> {
        let object = name::object(name);
        let place = name::place(name, geteuid().as_raw())?;
        let fd = new_socket(SocketType::SEQPACKET, &object)?;
        fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(|errno| Error::os("fchmod", &object, errno))?;
        let file = bind_to(&fd, &place, &object)?;
        if let (Some(file), true) = (&file, policy.admits_others()) {
            // Nobody can connect before listen(2), and what keeps strangers away is the handshake.
            file.set_mode(Mode::from_raw_mode(0o666), &object)?;
        }
        let listener = Self::over(fd, file, object, policy, memory)?;
        listen(&listener.socket, BACKLOG).map_err(|errno| listener.socket.error("listen", errno))?;
        Ok(listener)
    }

    /// Listens with a socket that this process inherited, which listens already: a sequenced-packet socket, such as another
    /// process's [`Listener`] has. `object` names it in errors. Its file, if it has one, is the concern of whoever bound
    /// it.
    ///
    /// The socket becomes non-blocking, for all who share its open file description: accept(2) alone has no flag for that, and would
    /// wait beyond its deadline where another of them was faster. So who accepts there by other means has to expect EAGAIN.
    ///
    /// # Errors
    ///
    /// EBADF when `fd` is no descriptor; [`Error::Invalid`] for a length of 0.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>, policy: &Policy, memory_bytes: usize) -> Result<Self> {
        Self::from_fd_for(fd, object, policy, Memory::zeros(memory_bytes))
    }

    /// As [`Listener::from_fd`], for connections with such memory.
    pub(in crate::channel) fn from_fd_for(
        fd: OwnedFd,
        object: impl Into<String>,
        policy: &Policy,
        memory: Memory,
    ) -> Result<Self> {
        Self::over(fd, None, object.into(), policy, memory)
    }

    fn over(fd: OwnedFd, file: Option<SocketFile>, object: String, policy: &Policy, memory: Memory) -> Result<Self> {
        if memory.bytes == 0 {
            let reason = "0 bytes of shared memory are none".to_owned();
            return Err(Error::Invalid { object, reason });
        }
        let socket = Socket::listener(fd, object)?;
        // What those find that connect from now on.
        take_descriptors(&socket, false)?;
        Ok(Self {
            _file: file,
            socket,
            policy: policy.clone(),
            memory,
            state: Mutex::default(),
            turn_free: Condvar::new(),
            readiness: OnceLock::new(),
        })
    }

    /// Waits until `deadline` for a process that connects, is admitted and completes the handshake.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when none came; EMFILE when there are too many descriptors; ENOMEM. Those that are
    /// turned away are no error, but [`Listener::turned_away`] knows of them.
    pub fn accept_by(&self, deadline: Deadline) -> Result<Connection> {
        let mut turn = self.take_turn(deadline)?;
        loop {
            if let Some(connection) = turn.advance(deadline)? {
                return Ok(connection);
            }
            turn.wait(deadline)?;
        }
    }

    /// The descriptor to poll for, see [`Listener::arm`]: the same at each call.
    ///
    /// # Errors
    ///
    /// As [`Listener::arm`].
    pub fn poll_fd(&self) -> Result<BorrowedFd<'_>> {
        let guard = self.lock();
        let readiness = self.readiness()?;
        drop(guard);
        Ok(readiness.as_fd())
    }

    /// Has a descriptor ([`Listener::poll_fd`]) become readable when there is something to do for
    /// [`accept_by`](Listener::accept_by) with [`Deadline::Now`]: when somebody connects or goes on with a handshake, or has
    /// said nothing for too long. [`Arming::Ready`] says that there is such a thing already; so arm when that call finds nobody,
    /// and wait only if it is [`Arming::Armed`].
    ///
    /// # Errors
    ///
    /// EMFILE, ENFILE, ENOMEM, ENOSPC; [`Error::Unsupported`] in a child made by fork whose parent has called this.
    pub fn arm(&self) -> Result<Arming> {
        let mut state = self.lock();
        let readiness = self.readiness()?;
        // Who looks after the handshakes has the others watched when it ends.
        if !state.led {
            self.watch(readiness, &mut state.pending)?;
        }
        match readiness.is_ready() {
            Ok(true) => Ok(Arming::Ready),
            Ok(false) => Ok(Arming::Armed),
            Err(errno) => Err(self.socket.error("poll", errno)),
        }
    }

    /// What tells a poller, for a caller that has the lock: there is one of them.
    fn readiness(&self) -> Result<&Readiness> {
        let readiness = match self.readiness.get() {
            Some(readiness) => readiness,
            None => {
                let made = Readiness::of(&self.socket)?;
                self.readiness.get_or_init(|| made)
            }
        };
        if readiness.is_own() {
            return Ok(readiness);
        }
        let reason =
            "its parent polls for it, and this is a child made by fork: make another one of the same socket".into();
        Err(Error::Unsupported { object: self.socket.object().into(), reason })
    }

    /// Has a poller told of what these wait for, and of who connects.
    fn watch(&self, readiness: &Readiness, pending: &mut [Pending]) -> Result<()> {
        let (may_begin, wake) = (may_begin_another(pending), wake(pending));
        let watched = readiness.watch(&self.socket, may_begin, pending, wake);
        watched.map_err(|errno| self.socket.error("epoll_ctl", errno))
    }

    /// Those that connected in vain so far.
    #[must_use]
    pub fn turned_away(&self) -> TurnedAway {
        self.lock().turned_away.clone()
    }

    /// Counts one that is turned away.
    pub(in crate::channel) fn turn_away(&self, why: String) {
        let mut state = self.lock();
        state.turned_away.count += 1;
        state.turned_away.last = why;
    }

    /// Waits until no other thread looks after the handshakes.
    fn take_turn(&self, deadline: Deadline) -> Result<Turn<'_>> {
        let mut state = self.lock();
        while state.led {
            state = match deadline.remaining() {
                Some(Duration::ZERO) => return Err(self.out_of_time(deadline)),
                Some(left) => self.turn_free.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.turn_free.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.led = true;
        let pending = std::mem::take(&mut state.pending);
        Ok(Turn { listener: self, pending })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::channel) fn out_of_time(&self, deadline: Deadline) -> Error {
        Error::out_of_time("accept", self.socket.object(), deadline)
    }
}

impl AsFd for Listener {
    /// The listening socket: to hand it on to a process that will accept.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The right to look after the handshakes, and the handshakes.
struct Turn<'a> {
    listener: &'a Listener,
    pending: Vec<Pending>,
}

impl Turn<'_> {
    /// Takes in who waits, and goes on with every handshake for which something came, until one is complete. When the time is up, looks at no
    /// more than [`MOST_AT_ONCE`].
    fn advance(&mut self, deadline: Deadline) -> Result<Option<Connection>> {
        let (mut next, mut taken) = (0, 0);
        while next < self.pending.len() {
            if let Some(connection) = self.step(&mut next)? {
                return Ok(Some(connection));
            }
        }
        while may_begin_another(&self.pending) && (taken < MOST_AT_ONCE || !deadline.has_passed()) {
            taken += 1;
            if is_full(&self.pending) && !self.is_somebody_there()? {
                break;
            }
            if let Some(connection) = self.make_room()? {
                return Ok(Some(connection));
            }
            let fd = match self.listener.socket.accept_by(Deadline::Now) {
                Err(error) if error.is_out_of_time() => break,
                other => other?,
            };
            let mut last = self.pending.len();
            self.pending.push(Pending::new(Socket::new(fd, self.listener.socket.object()))?);
            if let Some(connection) = self.step(&mut last)? {
                return Ok(Some(connection));
            }
        }
        Ok(None)
    }

    /// Goes on with the handshake at `next`, which then is the one after it.
    fn step(&mut self, next: &mut usize) -> Result<Option<Connection>> {
        let Listener { policy, memory, socket, .. } = self.listener;
        let pending = &mut self.pending[*next];
        let outcome = match pending.advance(policy, *memory, Deadline::Now) {
            Ok(false) if Instant::now() < pending.expires() => {
                *next += 1;
                return Ok(None);
            }
            Ok(false) => {
                self.remove(*next);
                let silent = format!("{}: it said nothing more", socket.object());
                Err(Error::out_of_time("accept", silent, Deadline::Never))
            }
            Ok(true) => self.remove(*next).finish(policy),
            Err(error) => {
                self.remove(*next);
                Err(error)
            }
        };
        match outcome {
            Ok(connection) => Ok(Some(connection)),
            Err(error) if is_own(&error) => Err(error),
            Err(error) => {
                self.turn_away(error.to_string());
                Ok(None)
            }
        }
    }

    /// Takes a handshake out, of which no poller is told any more.
    fn remove(&mut self, index: usize) -> Pending {
        let pending = self.pending.remove(index);
        if pending.is_watched {
            self.listener.readiness.get().into_iter().for_each(|readiness| readiness.forget(&pending));
        }
        pending
    }

    /// Whether somebody has connected whose handshake has not begun.
    fn is_somebody_there(&self) -> Result<bool> {
        let socket = &self.listener.socket;
        let polled = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec::default()));
        polled.map(|count| count > 0).map_err(|errno| socket.error("poll", errno))
    }

    /// Has the oldest handshake give way where all places are taken. What it has said by now counts: after the last word its
    /// process takes itself for connected.
    fn make_room(&mut self) -> Result<Option<Connection>> {
        let mut oldest = 0;
        if !is_full(&self.pending) {
            return Ok(None);
        }
        if let Some(connection) = self.step(&mut oldest)? {
            return Ok(Some(connection));
        }
        if oldest > 0 {
            self.remove(0);
            self.turn_away(format!("{}: it said nothing, and others wait", self.listener.socket.object()));
        }
        Ok(None)
    }

    fn turn_away(&self, why: String) {
        self.listener.turn_away(why);
    }

    /// Waits until somebody connects or says something, or time has passed for one of them.
    fn wait(&self, deadline: Deadline) -> Result<()> {
        if deadline.has_passed() {
            return Err(self.listener.out_of_time(deadline));
        }
        let may_begin = may_begin_another(&self.pending);
        let until = wake(&self.pending).map_or(deadline, |wake| Deadline::At(deadline.earlier(wake)));
        let sockets = self.pending.iter().map(|pending| &pending.socket);
        let sockets = sockets.chain(may_begin.then_some(&self.listener.socket));
        let mut fds: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        match poll(&mut fds, until.timespec().as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(self.listener.socket.error("poll", errno)),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.listener.lock();
        state.pending = std::mem::take(&mut self.pending);
        state.led = false;
        let readiness = self.listener.readiness.get().filter(|readiness| readiness.is_own());
        if let Some(readiness) = readiness
            && self.listener.watch(readiness, &mut state.pending).is_err()
        {
            // Who arms finds out why.
            readiness.call();
        }
        drop(state);
        self.listener.turn_free.notify_one();
    }
}

/// Whether all places are taken.
fn is_full(pending: &[Pending]) -> bool {
    pending.len() >= MOST_PENDING
}

/// Whether another handshake may begin. Where all places are taken, the oldest one gives way after a moment.
fn may_begin_another(pending: &[Pending]) -> bool {
    !is_full(pending) || pending[0].since.elapsed() >= GRACE
}

/// When something is to be done for these, though nobody says anything.
fn wake(pending: &[Pending]) -> Option<Instant> {
    let oldest = pending.first()?;
    Some(if may_begin_another(pending) { oldest.expires() } else { oldest.since + GRACE })
}

/// Whether a handshake failed for want of something on this side, which its caller has to know.
pub(super) fn is_own(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSPC | libc::EFBIG))
        || matches!(error, Error::Invalid { .. })
}
