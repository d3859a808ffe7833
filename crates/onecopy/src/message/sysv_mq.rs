//! Row 11, the System V message queue: [sysvipc(7)](https://man7.org/linux/man-pages/man7/sysvipc.7.html),
//! [msgop(2)](https://man7.org/linux/man-pages/man2/msgop.2.html).
//!
//! A queue has a key and an identifier, and lives until it is removed or the machine stops. Each message has a type of at
//! least 1, by which a receiver can choose: see [`Select`]. The queue is full when the bytes in it would exceed its capacity.
//!
//! The kernel has no timed call and no descriptor to poll here. With [`Deadline::Never`] a call waits in the kernel. With an
//! instant this library tries, gives way to other processes a few times, then sleeps between tries, at first 50 µs, at last
//! 1 ms: waking up may take that long. Each message is copied once more in user space than the kernel would, since its calls
//! demand the type and the bytes in one piece of memory.

mod pause;
mod select;
mod status;
mod watch;

use rustix::io::Errno;

use crate::io::mode::permissions;
use crate::sys::msg::{self, Msgbuf};
use crate::sys::sysctl::sysctl;
use crate::sys::sysv::{Ident, is_removed};
use crate::{Deadline, Error, Receiver, Result, Sender, SysvName, tally};

use pause::Pause;
pub use select::Select;
pub use status::QueueStatus;
pub use watch::receiver_watch;

/// What [`SysvQueue::recv_truncated_by`] received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Truncated {
    /// How many bytes came into the buffer.
    pub bytes: usize,
    /// The message's type.
    pub message_type: i64,
    /// Whether the message had more; they are lost.
    pub tail_lost: bool,
}

/// A System V message queue.
///
/// ```
/// use onecopy::message::sysv_mq::{Select, SysvQueue};
/// use onecopy::{Deadline, Receiver, Sender};
///
/// let mut queue = SysvQueue::create_private(0o600)?;
/// queue.send(b"of type 1")?;
/// queue.send_type_by(7, b"of type 7", Deadline::Never)?;
/// let mut buffer = [0; 128];
/// assert_eq!(queue.recv_select_by(Select::Exact(7), &mut buffer, Deadline::Never)?, (9, 7));
/// assert_eq!(queue.recv()?.as_deref(), Some(&b"of type 1"[..]));
/// queue.remove()?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct SysvQueue {
    id: i32,
    object: String,
    /// The longest message, in bytes: what kernel.msgmax and the queue's capacity said when last asked. Others may change both.
    limit_bytes: usize,
    /// What [`Sender`] sends with.
    send_type: i64,
    /// What [`Receiver`] takes.
    selection: Select,
    outgoing: Msgbuf,
    incoming: Msgbuf,
    /// Messages that did not fit the caller's buffer, and their types, in the order in which they came.
    stash: Vec<(i64, Vec<u8>)>,
}

impl SysvQueue {
    /// Creates a queue that must not exist yet. System V objects ignore the umask: the mode is taken exactly.
    ///
    /// # Errors
    ///
    /// EEXIST when there is a queue with this key; ENOSPC beyond kernel.msgmni; [`Error::Invalid`] for a mode beyond 0777 and
    /// for an identifier, which only the kernel chooses; ENOENT when the file that makes the key is missing.
    pub fn create(name: &SysvName, mode: u32) -> Result<Self> {
        Self::create_with(name, mode, libc::IPC_CREAT | libc::IPC_EXCL)
    }

    /// Creates a queue without a key (IPC_PRIVATE): others open it by its [`SysvQueue::id`].
    ///
    /// # Errors
    ///
    /// ENOSPC beyond kernel.msgmni.
    pub fn create_private(mode: u32) -> Result<Self> {
        let object = "sysv-mq: a private queue";
        let flags = libc::IPC_CREAT | permissions(mode, object)?.bits().cast_signed();
        let id = msg::get(libc::IPC_PRIVATE, flags).map_err(|errno| getting_error(object, flags, errno))?;
        Self::from_id(id, format!("sysv-mq:id={id}"))
    }

    /// Opens the queue, creating it when it does not exist. One that exists keeps its mode and its capacity.
    ///
    /// # Errors
    ///
    /// As [`SysvQueue::create`] and [`SysvQueue::open`].
    pub fn open_or_create(name: &SysvName, mode: u32) -> Result<Self> {
        Self::create_with(name, mode, libc::IPC_CREAT)
    }

    /// Opens a queue that exists.
    ///
    /// # Errors
    ///
    /// ENOENT when no queue has the key; EINVAL when none has the identifier.
    pub fn open(name: &SysvName) -> Result<Self> {
        Self::get(name, 0)
    }

    fn create_with(name: &SysvName, mode: u32, flags: i32) -> Result<Self> {
        let mode = permissions(mode, &format!("sysv-mq:{name}"))?;
        Self::get(name, flags | mode.bits().cast_signed())
    }

    fn get(name: &SysvName, flags: i32) -> Result<Self> {
        let object = format!("sysv-mq:{name}");
        match name.resolve(&object)? {
            Ident::Key(key) => loop {
                let id = msg::get(key, flags).map_err(|errno| getting_error(&object, flags, errno))?;
                match Self::from_id(id, object.clone()) {
                    Err(error) if is_removed(&error) => {}
                    result => return result,
                }
            },
            Ident::Id(_) if flags & libc::IPC_EXCL != 0 => Err(Error::Invalid {
                object,
                reason: "the kernel chooses identifiers: create the queue with a key".into(),
            }),
            Ident::Id(id) => Self::from_id(id, object),
        }
    }

    fn from_id(id: i32, object: String) -> Result<Self> {
        let limit_bytes = limit_of(id).map_err(|errno| {
            let error = Error::os("msgctl(IPC_STAT)", &object, errno);
            match errno {
                Errno::INVAL | Errno::IDRM => {
                    error.with_remedy(format!("no queue has the identifier {id}: `ipcs -q` lists those that exist"))
                }
                _ => error,
            }
        })?;
        Ok(Self {
            id,
            object,
            limit_bytes,
            send_type: 1,
            selection: Select::Any,
            outgoing: Msgbuf::default(),
            incoming: Msgbuf::default(),
            stash: Vec::new(),
        })
    }

    /// The identifier, by which any process can open the queue.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The address of the queue.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Removes the queue with all that is in it. Every process that waits for it gets EIDRM.
    ///
    /// # Errors
    ///
    /// EPERM unless this process belongs to its owner, its creator or root; an error for which [`Error::is_peer_gone`] holds when
    /// it is gone already.
    pub fn remove(&self) -> Result<()> {
        msg::remove(self.id).map_err(|errno| match errno {
            Errno::PERM => self
                .error("msgctl(IPC_RMID)", errno)
                .with_remedy("only its owner, its creator and root may remove a queue"),
            _ => self.error("msgctl(IPC_RMID)", errno),
        })
    }

    /// What the kernel says of the queue now.
    ///
    /// # Errors
    ///
    /// EACCES when its mode does not let this user read; an error for which [`Error::is_peer_gone`] holds when it was removed.
    pub fn status(&self) -> Result<QueueStatus> {
        let found = msg::status(self.id).map_err(|errno| self.error("msgctl(IPC_STAT)", errno))?;
        Ok(QueueStatus::of(&found))
    }

    /// Sets how many bytes the messages in the queue may have in all. What is in it already stays.
    ///
    /// # Errors
    ///
    /// EPERM above kernel.msgmnb without CAP_SYS_RESOURCE, and unless this process belongs to the queue's owner or creator.
    pub fn set_capacity_bytes(&mut self, bytes: usize) -> Result<()> {
        let mut wanted = msg::status(self.id).map_err(|errno| self.error("msgctl(IPC_STAT)", errno))?;
        wanted.msg_qbytes = bytes as libc::msglen_t;
        msg::set(self.id, &mut wanted).map_err(|errno| match errno {
            Errno::PERM => self.error("msgctl(IPC_SET)", errno).with_remedy(format!(
                "{bytes} bytes were asked for, and kernel.msgmnb allows {} without CAP_SYS_RESOURCE; and only its owner and \
                 its creator may change a queue",
                sysctl("kernel/msgmnb", 16_384)
            )),
            _ => self.error("msgctl(IPC_SET)", errno),
        })?;
        self.limit_bytes = sysctl("kernel/msgmax", 8192).min(bytes);
        Ok(())
    }

    /// Sets the type with which [`Sender`] sends from now on; it is 1 before.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] below 1.
    pub fn set_send_type(&mut self, message_type: i64) -> Result<()> {
        self.check_type(message_type)?;
        self.send_type = message_type;
        Ok(())
    }

    /// Sets which messages [`Receiver`] takes from now on; it is [`Select::Any`] before.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a type below 1.
    pub fn set_selection(&mut self, selection: Select) -> Result<()> {
        self.check_selection(selection)?;
        self.selection = selection;
        Ok(())
    }

    /// Sends one message of a type of at least 1, waiting until `deadline` while the queue is full.
    ///
    /// The kernel lets a message wait for ever that is longer than the capacity of the queue. So who finds a queue full asks for
    /// its capacity, which others may have lowered, where the mode lets this user read it. One that is lowered while a call without
    /// a deadline already waits is seen when a signal interrupts that.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for another type; else as [`Sender::send_by`].
    pub fn send_type_by(&mut self, message_type: i64, message: &[u8], deadline: Deadline) -> Result<()> {
        self.check_type(message_type)?;
        let len = message.len();
        if len > self.limit_bytes {
            self.limit_bytes = limit_of(self.id).map_err(|errno| self.error("msgctl(IPC_STAT)", errno))?;
        }
        if len > self.limit_bytes {
            return Err(self.too_long(len));
        }
        self.outgoing.fill(message_type, message);
        tally::count_user(len);
        let sent = self.retry(Errno::AGAIN, deadline, ("send", "msgsnd"), |flags| {
            let errno = match msg::send(self.id, &self.outgoing, len, libc::IPC_NOWAIT) {
                Ok(()) => return Ok(Ok(())),
                Err(errno) => errno,
            };
            match exceeded(self.id, len, errno) {
                Some(limit_bytes) => Ok(Err(limit_bytes)),
                None if errno == Errno::AGAIN && flags == 0 => msg::send(self.id, &self.outgoing, len, 0).map(Ok),
                None => Err(errno),
            }
        })?;
        sent.map_err(|limit_bytes| {
            self.limit_bytes = limit_bytes;
            self.too_long(len)
        })?;
        tally::count_kernel(len);
        Ok(())
    }

    /// Receives the message that `select` chooses, waiting until `deadline` for one, and returns its length and its type.
    ///
    /// A message that does not fit `buffer` is kept in this handle, and the next receive that takes its type gets it first.
    /// Other handles do not see it; it is lost when this one is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a type below 1; else as [`Receiver::recv_into_by`]. An error for which [`Error::is_peer_gone`]
    /// holds (EIDRM) when the queue is removed, also while this call waits.
    pub fn recv_select_by(&mut self, select: Select, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, i64)> {
        self.check_selection(select)?;
        if let Some(index) = self.stashed(select) {
            return self.deliver_stash(index, buffer);
        }
        match self.receive(select, 0, buffer.len().min(self.limit_bytes), deadline)? {
            Some((len, message_type)) => {
                tally::copy(&mut buffer[..len], &self.incoming.bytes()[..len]);
                Ok((len, message_type))
            }
            None => {
                self.stash_next(select, buffer.len(), deadline)?;
                self.deliver_stash(self.stash.len() - 1, buffer)
            }
        }
    }

    /// As [`SysvQueue::recv_select_by`], but cuts a message that is longer than `buffer` (MSG_NOERROR): its tail is lost, and
    /// the result says so.
    ///
    /// # Errors
    ///
    /// As [`SysvQueue::recv_select_by`], without [`Error::BufferTooSmall`].
    pub fn recv_truncated_by(&mut self, select: Select, buffer: &mut [u8], deadline: Deadline) -> Result<Truncated> {
        self.check_selection(select)?;
        if let Some(index) = self.stashed(select) {
            let (message_type, message) = self.stash.remove(index);
            return Ok(cut(&message, message_type, buffer));
        }
        // One byte more than the buffer has tells whether there was a tail.
        let received = self.receive(select, libc::MSG_NOERROR, buffer.len() + 1, deadline)?;
        let (len, message_type) = received.unwrap_or_default();
        Ok(cut(&self.incoming.bytes()[..len], message_type, buffer))
    }

    /// Receives into `incoming`; `None` says that the message has more than `len` bytes (E2BIG), and is still in the queue.
    fn receive(&mut self, select: Select, flags: i32, len: usize, deadline: Deadline) -> Result<Option<(usize, i64)>> {
        let (selector, select_flags) = select.arguments();
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.reserve(len);
        let received = self.retry(Errno::NOMSG, deadline, ("receive", "msgrcv"), |wait| {
            match msg::receive(self.id, &mut incoming, len, selector, flags | select_flags | wait) {
                Err(Errno::TOOBIG) => Ok(None),
                other => other.map(Some),
            }
        });
        self.incoming = incoming;
        received.inspect(|received| tally::count_kernel(received.map_or(0, |(len, _)| len)))
    }

    /// Moves the message that has more than `buffer_bytes` bytes from the queue to the stash. Another receiver may take it
    /// first: then this is the next one, and it may be short.
    fn stash_next(&mut self, select: Select, buffer_bytes: usize, deadline: Deadline) -> Result<()> {
        let mut room = self.limit_bytes.max(buffer_bytes);
        loop {
            if let Some((len, message_type)) = self.receive(select, 0, room, deadline)? {
                self.stash.push((message_type, tally::to_vec(&self.incoming.bytes()[..len])));
                return Ok(());
            }
            // Sent when kernel.msgmax was higher.
            room *= 2;
        }
    }

    fn stashed(&self, select: Select) -> Option<usize> {
        self.stash.iter().position(|(message_type, _)| select.takes(*message_type))
    }

    fn deliver_stash(&mut self, index: usize, buffer: &mut [u8]) -> Result<(usize, i64)> {
        let (message_type, message) = &self.stash[index];
        let (len, message_type) = (message.len(), *message_type);
        let Some(target) = buffer.get_mut(..len) else {
            return Err(Error::BufferTooSmall {
                object: self.object.clone(),
                message_bytes: len,
                buffer_bytes: buffer.len(),
            });
        };
        tally::copy(target, message);
        self.stash.remove(index);
        Ok((len, message_type))
    }

    /// Calls `attempt` with IPC_NOWAIT until it answers something else than `busy`; for [`Deadline::Never`] the kernel waits.
    fn retry<T>(
        &self,
        busy: Errno,
        deadline: Deadline,
        (operation, call): (&'static str, &'static str),
        mut attempt: impl FnMut(i32) -> Result<T, Errno>,
    ) -> Result<T> {
        let flags = if deadline == Deadline::Never { 0 } else { libc::IPC_NOWAIT };
        let mut pause = Pause::default();
        loop {
            match attempt(flags) {
                Err(Errno::INTR) => {}
                Err(errno) if errno == busy && !deadline.has_passed() => pause.wait(deadline),
                Err(errno) if errno == busy => return Err(Error::out_of_time(operation, &self.object, deadline)),
                result => return result.map_err(|errno| self.error(call, errno)),
            }
        }
    }

    fn check_type(&self, message_type: i64) -> Result<()> {
        if message_type >= 1 {
            return Ok(());
        }
        let reason = format!("message type {message_type} is below the lowest, which is 1");
        Err(Error::Invalid { object: self.object.clone(), reason })
    }

    fn check_selection(&self, select: Select) -> Result<()> {
        select.message_type().map_or(Ok(()), |message_type| self.check_type(message_type))
    }

    fn too_long(&self, message_bytes: usize) -> Error {
        Error::TooLong {
            object: self.object.clone(),
            message_bytes,
            limit_bytes: self.limit_bytes,
            remedy: Some("send it in fragments, or raise kernel.msgmax and the capacity of the queue".into()),
        }
    }

    /// An error of a call on this queue. An identifier that was good when the queue was opened is wrong for one reason only.
    fn error(&self, call: &'static str, errno: Errno) -> Error {
        match errno {
            Errno::IDRM => Error::os(call, &self.object, errno).with_remedy("the queue was removed"),
            Errno::INVAL if matches!(msg::status(self.id), Err(Errno::INVAL | Errno::IDRM)) => Error::PeerGone {
                object: self.object.clone(),
                detail: format!("the queue was removed, {call} says EINVAL"),
            },
            Errno::ACCESS => {
                Error::os(call, &self.object, errno).with_remedy("the mode of the queue does not let this user do that")
            }
            _ => Error::os(call, &self.object, errno),
        }
    }
}

impl Sender for SysvQueue {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.send_type_by(self.send_type, message, deadline)
    }

    fn limit_bytes(&self) -> Option<usize> {
        Some(self.limit_bytes)
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl Receiver for SysvQueue {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.recv_select_by(self.selection, buffer, deadline).map(|(len, _)| Some(len))
    }

    fn usual_bytes(&self) -> usize {
        self.limit_bytes
    }

    fn object(&self) -> &str {
        &self.object
    }
}

fn cut(message: &[u8], message_type: i64, buffer: &mut [u8]) -> Truncated {
    let bytes = message.len().min(buffer.len());
    tally::copy(&mut buffer[..bytes], &message[..bytes]);
    Truncated { bytes, message_type, tail_lost: bytes < message.len() }
}

/// The longest message that the queue takes now.
fn limit_of(id: i32) -> Result<usize, Errno> {
    let capacity_bytes = match msg::status(id) {
        Ok(status) => status.msg_qbytes as usize,
        // The queue is there, and may only be written.
        Err(Errno::ACCESS) => sysctl("kernel/msgmnb", 16_384),
        Err(errno) => return Err(errno),
    };
    Ok(sysctl("kernel/msgmax", 8192).min(capacity_bytes))
}

/// The limit for which a message of `len` bytes was not taken, where that was why.
fn exceeded(id: i32, len: usize, errno: Errno) -> Option<usize> {
    let limit_bytes = match errno {
        Errno::AGAIN => msg::status(id).ok()?.msg_qbytes as usize,
        Errno::INVAL => sysctl("kernel/msgmax", 8192),
        _ => return None,
    };
    (limit_bytes < len).then_some(limit_bytes)
}

fn getting_error(object: &str, flags: i32, errno: Errno) -> Error {
    let error = Error::os("msgget", object, errno);
    match errno {
        Errno::EXIST => error.with_remedy("a queue with this key exists: open it, or remove it first"),
        Errno::NOENT => error.with_remedy("no queue has this key: create it first (`ipcs -q` lists those that exist)"),
        Errno::ACCESS => error.with_remedy(format!(
            "the queue exists, and its mode does not let this user have {:o}",
            flags.cast_unsigned() & 0o777
        )),
        Errno::NOSPC => error.with_remedy(format!(
            "there are {} queues, as many as kernel.msgmni allows: remove some (`ipcs -q`, `ipcrm -q ID`) or raise it",
            sysctl("kernel/msgmni", 32_000)
        )),
        Errno::NOSYS => Error::Unsupported {
            object: object.into(),
            reason: format!("this kernel has no System V message queues: {error}"),
        },
        _ => error,
    }
}
