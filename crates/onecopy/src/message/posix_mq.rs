//! Row 10, the POSIX message queue: [mq_overview(7)](https://man7.org/linux/man-pages/man7/mq_overview.7.html).
//!
//! A queue has a name and lives until it is unlinked or the machine stops, whether or not anybody has it open. Messages have
//! priorities: the highest comes first, and within one priority the oldest. The queue's attributes are fixed when it is
//! created. /dev/mqueue shows the queues where it is mounted; it need not be.
//!
//! The kernel does not tell a sender whether anybody will ever receive: see [`PosixQueue::announce_receiver`].

mod attributes;
mod errors;
mod watch;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::io::mode::{create_exact, permissions, restore};
use crate::io::wait::retry;
use crate::sys::mq::{self, Wait};
use crate::sys::sysctl::sysctl;
use crate::{Deadline, Error, PosixName, Receiver, Result, Sender, tally};

pub use attributes::QueueAttributes;
use errors::{creation_error, opening_error};
pub use watch::receiver_watch;

/// The highest priority: one less than `MQ_PRIO_MAX`.
pub const MAX_PRIORITY: u32 = 32_767;
/// The byte of the queue's file that receivers lock to announce themselves.
const RECEIVER_BYTE: i64 = 1;
/// What a queue is opened for: the mode of a queue may allow one and not the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To send only (O_WRONLY).
    Send,
    /// To receive only (O_RDONLY).
    Receive,
    /// Both (O_RDWR).
    Both,
}

impl Access {
    fn flags(self) -> OFlags {
        match self {
            Self::Send => OFlags::WRONLY,
            Self::Receive => OFlags::RDONLY,
            Self::Both => OFlags::RDWR,
        }
    }
}

/// A POSIX message queue.
///
/// ```
/// use onecopy::message::posix_mq::{self, PosixQueue, QueueAttributes};
/// use onecopy::{Deadline, PosixName, Receiver, Sender};
///
/// let name = PosixName::new(format!("/onecopy-doc-{}", std::process::id()))?;
/// let mut queue = PosixQueue::create(&name, &QueueAttributes { max_messages: 4, message_bytes: 128 }, 0o600)?;
/// queue.send(b"later")?;
/// queue.send_with_priority_by(b"urgent", 9, Deadline::Never)?;
/// let mut buffer = [0; 128];
/// assert_eq!(queue.recv_with_priority_by(&mut buffer, Deadline::Never)?, (6, 9));
/// assert_eq!(queue.recv()?.as_deref(), Some(&b"later"[..]));
/// posix_mq::unlink(&name)?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct PosixQueue {
    fd: OwnedFd,
    object: String,
    attributes: QueueAttributes,
    /// What [`Sender`] sends with.
    priority: u32,
    /// Receives for buffers that are shorter than the longest message, since the kernel refuses those (EMSGSIZE).
    scratch: Vec<u8>,
    /// The length and the priority of a message in `scratch` that did not fit the caller's buffer.
    stash: Option<(usize, u32)>,
}

impl PosixQueue {
    /// Creates a queue that must not exist yet, and opens it for both. The mode is taken exactly, whatever the umask.
    ///
    /// # Errors
    ///
    /// EEXIST when there is a queue of this name; [`Error::Invalid`] for a mode beyond 0777; EINVAL for attributes of 0 or beyond `/proc/sys/fs/mqueue/msg_max` and
    /// `msgsize_max`; EMFILE beyond RLIMIT_MSGQUEUE; ENOSPC beyond `/proc/sys/fs/mqueue/queues_max`. The messages give the
    /// numbers.
    pub fn create(name: &PosixName, attributes: &QueueAttributes, mode: u32) -> Result<Self> {
        let object = object_of(name);
        let mode = permissions(mode, &object)?;
        let fd = create(name, *attributes, mode).map_err(|errno| creation_error(&object, *attributes, errno))?;
        Self::from_fd(fd, object)
    }

    /// Opens the queue for both, creating it when it does not exist. One that exists keeps its attributes and its mode.
    ///
    /// # Errors
    ///
    /// As [`PosixQueue::create`] and [`PosixQueue::open`].
    pub fn open_or_create(name: &PosixName, attributes: &QueueAttributes, mode: u32) -> Result<Self> {
        loop {
            // Between the two calls another process may unlink the queue or create it: then the turn starts again.
            match Self::open(name) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                other => return other,
            }
            match Self::create(name, attributes, mode) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                other => return other,
            }
        }
    }

    /// Opens a queue that exists, for both.
    ///
    /// # Errors
    ///
    /// ENOENT when there is none; EACCES when its mode forbids sending or receiving: see [`PosixQueue::open_for`].
    pub fn open(name: &PosixName) -> Result<Self> {
        Self::open_for(name, Access::Both)
    }

    /// Opens a queue that exists for what `access` says.
    ///
    /// # Errors
    ///
    /// ENOENT when there is none; EACCES when its mode forbids it.
    pub fn open_for(name: &PosixName, access: Access) -> Result<Self> {
        let object = object_of(name);
        let fd = mq::open(&c_name(name), access.flags()).map_err(|errno| opening_error(&object, access, errno))?;
        Self::from_fd(fd, object)
    }

    fn from_fd(fd: OwnedFd, object: String) -> Result<Self> {
        let found = mq::attributes(fd.as_fd()).map_err(|errno| Error::os("mq_getattr", &object, errno))?;
        let attributes = QueueAttributes { max_messages: found.max_messages, message_bytes: found.message_bytes };
        Ok(Self { fd, object, attributes, priority: 0, scratch: Vec::new(), stash: None })
    }

    /// The attributes that the queue was created with.
    #[must_use]
    pub fn attributes(&self) -> QueueAttributes {
        self.attributes
    }

    /// How many messages wait in the queue. Others may add to them or take them at any time.
    ///
    /// # Errors
    ///
    /// EBADF when the descriptor is none.
    pub fn queued_messages(&self) -> Result<usize> {
        mq::attributes(self.as_fd()).map(|found| found.queued).map_err(|errno| self.error("mq_getattr", errno))
    }

    /// The address of the queue.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Sets the priority with which [`Sender`] sends from now on; it is 0 before.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] above [`MAX_PRIORITY`].
    pub fn set_priority(&mut self, priority: u32) -> Result<()> {
        self.check_priority(priority)?;
        self.priority = priority;
        Ok(())
    }

    /// Sends one message with a priority of at most [`MAX_PRIORITY`], waiting until `deadline` while the queue is full.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for another priority; else as [`Sender::send_by`].
    pub fn send_with_priority_by(&self, message: &[u8], priority: u32, deadline: Deadline) -> Result<()> {
        self.check_priority(priority)?;
        if message.len() > self.attributes.message_bytes {
            return Err(self.too_long(message.len()));
        }
        let wait = wait_of(deadline);
        retry(self.as_fd(), PollFlags::OUT, deadline, ("send", "mq_timedsend", &self.object), || {
            mq::send(self.fd.as_fd(), message, priority, wait)
        })
        .inspect(|()| tally::count_kernel(message.len()))
    }

    /// Receives the oldest message of the highest priority, waiting until `deadline` for one, and returns its length and its
    /// priority.
    ///
    /// A message that does not fit `buffer` is kept in this handle and stays its first, even when one of higher priority
    /// arrives meanwhile. Other handles do not see it; it is lost when this one is dropped. A buffer as long as
    /// [`QueueAttributes::message_bytes`] fits every message, and spares a copy.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`].
    pub fn recv_with_priority_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, u32)> {
        if self.stash.is_none() {
            if buffer.len() >= self.attributes.message_bytes {
                return self.receive(buffer, deadline);
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.resize(self.attributes.message_bytes, 0);
            let received = self.receive(&mut scratch, deadline);
            self.scratch = scratch;
            self.stash = Some(received?);
        }
        self.deliver_stash(buffer)
    }

    /// Asks for one signal when a message arrives while the queue is empty and nobody waits in a receive
    /// ([mq_notify(3)](https://man7.org/linux/man-pages/man3/mq_notify.3.html)). It is sent once: register again before
    /// emptying the queue. One process at a time can be registered; closing any descriptor of the queue ends it.
    ///
    /// The signal's default action applies: block it in all threads and take it from a signalfd. Who only wants to wait in
    /// an event loop needs none of this: the descriptor ([`AsFd`]) can be polled.
    ///
    /// # Errors
    ///
    /// EBUSY when a process is registered already; [`Error::Invalid`] for a number that is no signal.
    pub fn notify_signal(&self, signal: i32) -> Result<()> {
        // The kernel takes 0, and sends nothing.
        if !(1..=64).contains(&signal) {
            let reason = format!("signal {signal} is not between 1 and 64");
            return Err(Error::Invalid { object: self.object.clone(), reason });
        }
        mq::notify(self.as_fd(), Some(signal)).map_err(|errno| match errno {
            Errno::BUSY => self
                .error("mq_notify", errno)
                .with_remedy("a process is registered already, and the kernel keeps one: poll the descriptor instead"),
            _ => self.error("mq_notify", errno),
        })
    }

    /// Takes this process's registration back, if there is one.
    ///
    /// # Errors
    ///
    /// EBADF when the descriptor is none.
    pub fn cancel_notification(&self) -> Result<()> {
        mq::notify(self.as_fd(), None).map_err(|errno| self.error("mq_notify", errno))
    }

    /// Announces to senders that this handle receives, until it is dropped or its process dies, however it dies.
    ///
    /// The sign is a shared lock of this open file description on one byte of the queue's file
    /// ([F_OFD_SETLK](https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html)): the kernel takes it back by itself.
    /// Programs that know nothing of it neither see it nor disturb it. A child forked without exec keeps it alive.
    ///
    /// # Errors
    ///
    /// EBADF when the queue is not open for receiving.
    pub fn announce_receiver(&self) -> Result<()> {
        let announced = self.lock(FcntlArg::F_OFD_SETLK(&lock_of_receivers(libc::F_RDLCK)), "fcntl(F_OFD_SETLK)");
        announced.map_err(|error| match error.raw_os_error() {
            Some(libc::EBADF) => error.with_remedy("the queue is open for sending alone: open it for receiving"),
            _ => error,
        })
    }

    /// Whether another handle, here or in another process, has announced that it receives. It may go at any time.
    ///
    /// # Errors
    ///
    /// EBADF when the descriptor is none.
    pub fn has_receiver(&self) -> Result<bool> {
        let mut lock = lock_of_receivers(libc::F_WRLCK);
        self.lock(FcntlArg::F_OFD_GETLK(&mut lock), "fcntl(F_OFD_GETLK)")?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }

    fn lock(&self, argument: FcntlArg<'_>, call: &'static str) -> Result<()> {
        fcntl(&self.fd, argument).map(drop).map_err(|errno| Error::os(call, &self.object, errno))
    }

    fn receive(&self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, u32)> {
        let wait = wait_of(deadline);
        retry(self.as_fd(), PollFlags::IN, deadline, ("receive", "mq_timedreceive", &self.object), || {
            mq::receive(self.fd.as_fd(), buffer, wait)
        })
        .inspect(|(len, _)| tally::count_kernel(*len))
    }

    fn deliver_stash(&mut self, buffer: &mut [u8]) -> Result<(usize, u32)> {
        let (len, priority) = self.stash.unwrap_or_default();
        let Some(target) = buffer.get_mut(..len) else {
            return Err(Error::BufferTooSmall {
                object: self.object.clone(),
                message_bytes: len,
                buffer_bytes: buffer.len(),
            });
        };
        tally::copy(target, &self.scratch[..len]);
        self.stash = None;
        Ok((len, priority))
    }

    fn check_priority(&self, priority: u32) -> Result<()> {
        if priority <= MAX_PRIORITY {
            return Ok(());
        }
        let reason = format!("priority {priority} is above the highest, which is {MAX_PRIORITY}");
        Err(Error::Invalid { object: self.object.clone(), reason })
    }

    fn too_long(&self, message_bytes: usize) -> Error {
        Error::TooLong {
            object: self.object.clone(),
            message_bytes,
            limit_bytes: self.attributes.message_bytes,
            remedy: Some(format!(
                "send it in fragments, or create the queue with longer messages: up to {} bytes, as \
                 /proc/sys/fs/mqueue/msgsize_max says",
                sysctl("fs/mqueue/msgsize_max", 8192)
            )),
        }
    }

    fn error(&self, call: &'static str, errno: Errno) -> Error {
        Error::os(call, &self.object, errno)
    }
}

impl AsFd for PosixQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Sender for PosixQueue {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.send_with_priority_by(message, self.priority, deadline)
    }

    fn limit_bytes(&self) -> Option<usize> {
        Some(self.attributes.message_bytes)
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl Receiver for PosixQueue {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.recv_with_priority_by(buffer, deadline).map(|(len, _)| Some(len))
    }

    fn usual_bytes(&self) -> usize {
        self.attributes.message_bytes
    }

    fn object(&self) -> &str {
        &self.object
    }
}

/// Removes the name of a queue. Who has it open goes on with it; it is gone when the last of them is.
///
/// # Errors
///
/// ENOENT when there is none; EACCES when it belongs to another user (the directory is sticky).
pub fn unlink(name: &PosixName) -> Result<()> {
    mq::unlink(&c_name(name)).map_err(|errno| {
        let error = Error::os("mq_unlink", object_of(name), errno);
        match errno {
            Errno::NOENT => error.with_remedy("there is no such queue"),
            Errno::ACCESS | Errno::PERM => error.with_remedy("only its owner and root may remove a queue"),
            _ => error,
        }
    })
}

fn wait_of(deadline: Deadline) -> Wait {
    if deadline == Deadline::Never { Wait::Forever } else { Wait::No }
}

fn object_of(name: &PosixName) -> String {
    format!("mq:{name}")
}

/// A checked name holds no NUL.
fn c_name(name: &PosixName) -> CString {
    CString::new(name.as_bytes()).unwrap_or_default()
}

/// A new queue with exactly `mode`.
fn create(name: &PosixName, attributes: QueueAttributes, mode: Mode) -> Result<OwnedFd, Errno> {
    let QueueAttributes { max_messages, message_bytes } = attributes;
    let wanted = mq::Attributes { max_messages, message_bytes, queued: 0 };
    let c_name = c_name(name);
    let fd = create_exact(mode, || mq::create(&c_name, OFlags::RDWR, mode, wanted))?;
    match restore(&fd, mode) {
        Ok(()) => Ok(fd),
        Err(errno) => mq::unlink(&c_name).and(Err(errno)),
    }
}

fn lock_of_receivers(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: RECEIVER_BYTE,
        l_len: 1,
        l_pid: 0,
    }
}
