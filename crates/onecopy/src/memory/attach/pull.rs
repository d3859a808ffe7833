//! Row 16 as a transport: the receiver reads the sender's memory.

use std::sync::Arc;

use super::DEFAULT_LIMIT_BYTES;
use super::control::{Control, Kind, Phase, Turn};
use super::side::{News, Part, Side, errno_of};
use crate::atomic::Ordering;
use crate::memory::Region;
use crate::memory::remote::RemoteProcess;
use crate::memory::role::Status;
use crate::{Deadline, Error, Receiver, Result, Sender, WaitStrategy};

/// How often a receiver looks whether the sender has gone on before it asks the kernel whether that lives, which costs 0.3 us.
/// One that spins goes on within a cache line's way to and fro.
const NOTE_LOOKS: u32 = 64;

/// Sends messages that their receiver reads out of this process's memory.
///
/// [`Sender::send_by`] returns when the receiver has the message. One that fails, for want of time or otherwise, was not
/// delivered: what the receiver has read of it by then is thrown away. So there is nothing that could be sent without
/// waiting: with [`Deadline::Now`] every message fails, unless the receiver is faster than one look at the region.
///
/// ```no_run
/// use onecopy::memory::{anonymous::AnonymousMapping, attach};
/// use onecopy::{Deadline, Sender};
///
/// let mapping = AnonymousMapping::create("pull", attach::CONTROL_BYTES)?;
/// // mapping.try_clone_fd()? goes to the other process, which attaches a PullReceiver.
/// let mut sender = attach::PullSender::attach(mapping.into_region())?;
/// sender.send(&vec![1; 16 << 20])?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct PullSender {
    side: Side,
}

/// Receives messages by reading them out of their sender's memory, straight into the caller's buffer.
#[derive(Debug)]
pub struct PullReceiver {
    side: Side,
    limit_bytes: usize,
}

impl PullSender {
    /// Becomes the sender of `region`, which is new (all zeros) or was used for pulling before.
    ///
    /// # Errors
    ///
    /// [`Error::Occupied`] with the process that is the sender already, unless that has exited. [`Error::Corrupt`] for a
    /// region that holds something else. [`Error::Invalid`] for one that is read-only or shorter than
    /// [`CONTROL_BYTES`](super::CONTROL_BYTES).
    pub fn attach(region: impl Into<Arc<Region>>) -> Result<Self> {
        let side = Side::attach(region.into(), Kind::Pull, Part::Sender)?;
        // What a sender that was killed had published is nobody's any more.
        let sender = Self { side };
        sender.revoke();
        Ok(sender)
    }

    /// Sets how to wait for the receiver.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.side.strategy = strategy;
    }

    /// Makes sure that what was published is not delivered any more; returns what became of it if it is too late.
    fn revoke(&self) -> Option<Phase> {
        let control = self.side.control();
        let before = Turn::load(control).replace(control, Phase::Idle);
        before.phase().filter(|phase| matches!(phase, Phase::Done | Phase::Refused))
    }

    /// Tells where `message` lies. The turn is IDLE, from which nobody else changes it.
    fn publish(&self, message: &[u8]) -> Turn {
        let control = self.side.control();
        // Relaxed: the change of `turn` publishes them.
        control.mail.address.store(message.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
        control.mail.bytes.store(message.len() as u64, Ordering::Relaxed);
        control.mail.owner.store(self.side.own_bits(), Ordering::Relaxed);
        let published = Turn::load(control).next(Phase::Asked);
        published.store(control);
        self.side.wake_peer();
        published
    }

    fn outcome(&self, delivered: bool, message: &[u8]) -> Result<()> {
        if delivered {
            return Ok(());
        }
        let object = self.side.object();
        let answer = self.side.control().mail.answer.load(Ordering::Relaxed);
        Err(match Answer::from_bits(answer) {
            Answer::TooLong(limit_bytes) => Error::TooLong {
                object: object.into(),
                message_bytes: message.len(),
                limit_bytes,
                remedy: Some("the receiver set it".into()),
            },
            Answer::Errno(errno) => Error::os("process_vm_readv", object, std::io::Error::from_raw_os_error(errno))
                .with_remedy("the receiver may not read this process's memory; a ring does without"),
        })
    }
}

/// Why a receiver does not take a message: a limit, or with the highest bit an errno.
enum Answer {
    TooLong(usize),
    Errno(i32),
}

impl Answer {
    const ERRNO: u64 = 1 << 63;

    fn to_bits(&self) -> u64 {
        match self {
            Self::TooLong(limit) => *limit as u64 & !Self::ERRNO,
            Self::Errno(errno) => u64::from(errno.unsigned_abs()) | Self::ERRNO,
        }
    }

    fn from_bits(bits: u64) -> Self {
        match bits & Self::ERRNO {
            0 => Self::TooLong(bits as usize),
            _ => Self::Errno(bits as u32 as i32 & 0xfff),
        }
    }
}

impl Sender for PullSender {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.side.check_own()?;
        let published = self.publish(message);
        let (done, refused) = (published.with(Phase::Done), published.with(Phase::Refused));
        let waited = self.side.wait_until(deadline, |control| {
            Ok(Some(Turn::load(control)).filter(|turn| *turn == done || *turn == refused))
        });
        match (waited, self.side.control()) {
            (Ok(News::Found(turn)), control) => {
                // Takes note of it. The receiver changes the turn no more, and nobody waits for this.
                turn.with(Phase::Idle).store_quietly(control);
                self.outcome(turn == done, message)
            }
            (Ok(News::End), _) => Err(self.side.gone("its receiver has closed")),
            (Err(error), _) => match self.revoke() {
                Some(phase) => self.outcome(phase == Phase::Done, message),
                None => Err(error),
            },
        }
    }

    fn object(&self) -> &str {
        self.side.object()
    }
}

impl PullReceiver {
    /// Becomes the receiver of `region`, which is new (all zeros) or was used for pulling before.
    ///
    /// # Errors
    ///
    /// As [`PullSender::attach`].
    pub fn attach(region: impl Into<Arc<Region>>) -> Result<Self> {
        let side = Side::attach(region.into(), Kind::Pull, Part::Receiver)?;
        Ok(Self { side, limit_bytes: DEFAULT_LIMIT_BYTES })
    }

    /// Sets how to wait for the sender.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.side.strategy = strategy;
    }

    /// Sets the longest message that is taken. A longer one is [`Error::TooLong`] here and at its sender.
    pub fn set_limit_bytes(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// The message that is published, or `None` at the end of the sender.
    fn next_message(&mut self, deadline: Deadline) -> Result<Option<Published>> {
        match self.side.wait_until(deadline, Published::find)? {
            News::Found(message) => Ok(Some(message)),
            News::End => Ok(None),
        }
    }

    /// Ends a message. False: the sender has revoked it meanwhile.
    fn settle(&self, published: Turn, phase: Phase) -> bool {
        let settled = published.change(self.side.control(), published.with(phase));
        self.side.wake_peer();
        settled
    }

    fn refuse(&self, published: Turn, answer: &Answer) -> bool {
        self.side.control().mail.answer.store(answer.to_bits(), Ordering::Relaxed);
        self.settle(published, Phase::Refused)
    }

    /// Reads `message` into `target`; `None` when the sender has revoked it.
    fn pull(&mut self, message: &Published, target: &mut [u8]) -> Result<Option<()>> {
        let error = match self.read(message, target) {
            // The sender goes on while this side asks whether it lived until now.
            Ok(_) if !self.settle(message.turn, Phase::Done) => return Ok(None),
            Ok(process) => return self.confirm(message, &process).map(Some),
            Err(error) => error,
        };
        let errno = errno_of(&error).unwrap_or(libc::EPERM);
        // Who revoked the message had reason to take its memory away.
        match self.refuse(message.turn, &Answer::Errno(errno)) {
            false if !error.is_peer_gone() => Ok(None),
            _ => Err(error),
        }
    }

    fn read(&mut self, message: &Published, target: &mut [u8]) -> Result<Arc<RemoteProcess>> {
        let process = self.side.process(message.owner)?;
        match process.read_unconfirmed(message.address, target) {
            Ok(()) => Ok(process),
            Err(error) => Err(self.side.explain(error, &process)),
        }
    }

    /// Fails unless it was the sender whose memory was read, and not a process that was given its number since: the sender
    /// has taken note of the end of its message, as no other process can have done, or it lives.
    fn confirm(&self, message: &Published, process: &RemoteProcess) -> Result<()> {
        if (0..NOTE_LOOKS).any(|_| self.is_noted(message)) {
            return Ok(());
        }
        match process.confirm("process_vm_readv", message.bytes as usize) {
            // Noted before it exited.
            Err(_) if self.is_noted(message) => Ok(()),
            alive => alive,
        }
    }

    /// Whether the sender of `message`, which is DONE, has gone on since.
    fn is_noted(&self, message: &Published) -> bool {
        let control = self.side.control();
        Turn::load(control) != message.turn.with(Phase::Done)
            // A successor changes the turn too, after its generation has begun.
            && Status::load(&control.roles.sender).generation() == message.generation
    }
}

/// A message that its sender has published.
struct Published {
    turn: Turn,
    address: u64,
    bytes: u64,
    owner: u64,
    /// Of the sender.
    generation: u64,
}

impl Published {
    fn find(control: &Control) -> Result<Option<Self>> {
        let turn = Turn::load(control);
        if !turn.is(Phase::Asked) {
            return Ok(None);
        }
        let address = control.mail.address.load(Ordering::Relaxed);
        let bytes = control.mail.bytes.load(Ordering::Relaxed);
        let owner = control.mail.owner.load(Ordering::Relaxed);
        let generation = Status::load(&control.roles.sender).generation();
        Ok(Some(Self { turn, address, bytes, owner, generation }))
    }
}

impl Receiver for PullReceiver {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.side.check_own()?;
        loop {
            let Some(message) = self.next_message(deadline)? else { return Ok(None) };
            let bytes = usize::try_from(message.bytes).unwrap_or(usize::MAX);
            if bytes > self.limit_bytes {
                if self.refuse(message.turn, &Answer::TooLong(self.limit_bytes)) {
                    return Err(Error::TooLong {
                        object: self.side.object().into(),
                        message_bytes: bytes,
                        limit_bytes: self.limit_bytes,
                        remedy: Some("it was refused; set_limit_bytes raises the limit".into()),
                    });
                }
                continue;
            }
            let Some(target) = buffer.get_mut(..bytes) else {
                // Unless the sender has revoked it meanwhile, and its words belong to another message.
                if Turn::load(self.side.control()) != message.turn {
                    continue;
                }
                return Err(Error::BufferTooSmall {
                    object: self.side.object().into(),
                    message_bytes: bytes,
                    buffer_bytes: buffer.len(),
                });
            };
            if self.pull(&message, target)?.is_some() {
                return Ok(Some(bytes));
            }
            if deadline.has_passed() {
                return Err(Error::out_of_time("receive", self.side.object(), deadline));
            }
        }
    }

    fn object(&self) -> &str {
        self.side.object()
    }
}
