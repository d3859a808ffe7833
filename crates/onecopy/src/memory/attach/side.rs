//! What a sender and a receiver by cross-memory attach have in common: their role, their peer, and waiting for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::{Control, Kind, Link};
use crate::atomic::{AtomicU32, Ordering};
use crate::memory::Region;
use crate::memory::occupied::Occupied;
use crate::memory::remote::RemoteProcess;
use crate::memory::role::{self, Role, Status};
use crate::memory::wait::{Wait, wait, wake};
use crate::process::{Identity, Watch};
use crate::{Deadline, Error, Result, WaitStrategy};

/// How long a process that has lost its memory may take to become one that has exited.
const EXIT_TIME: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Sender,
    Receiver,
}

/// One side of a [`Link`].
#[derive(Debug)]
pub(super) struct Side {
    pub(super) link: Link,
    /// That this process uses its bytes.
    _occupied: Occupied,
    pub(super) strategy: WaitStrategy,
    part: Part,
    watch: Watch,
    generation: u64,
    /// Of the other side: the generation that was gone before a sender attached, or whose end a receiver has told.
    past: u64,
    /// Whether what was waited for last came while this side looked without a pause: the other side lived at that moment.
    saw_change: bool,
    /// The other side's process, as it was opened last.
    peer: Option<(Identity, Arc<RemoteProcess>)>,
}

/// The errno behind a failed transfer.
pub(super) fn errno_of(error: &Error) -> Option<i32> {
    match error {
        Error::PartialTransfer { source, .. } => source.raw_os_error(),
        other => other.raw_os_error(),
    }
}

/// What came of waiting.
pub(super) enum News<T> {
    Found(T),
    /// The sender has closed.
    End,
}

impl Side {
    pub(super) fn attach(region: Arc<Region>, kind: Kind, part: Part) -> Result<Self> {
        let own = Identity::current().map_err(|error| Error::os("open", "/proc/self/stat", error))?;
        let mut watch = Watch::new(own);
        let occupied = region.occupy_words(size_of::<Control>().min(region.len()), "the words of a transport")?;
        let link = Link::open(region, kind)?;
        let roles = &link.control().roles;
        let (name, own_role) = match part {
            Part::Sender => ("sender", &roles.sender),
            Part::Receiver => ("receiver", &roles.receiver),
        };
        let generation = role::claim(own_role, name, link.object(), &mut watch)?;
        let mut side = Self {
            link,
            _occupied: occupied,
            strategy: WaitStrategy::default(),
            part,
            watch,
            generation,
            past: 0,
            saw_change: false,
            peer: None,
        };
        if part == Part::Sender {
            let Self { link, watch, .. } = &mut side;
            let receiver = &link.control().roles.receiver;
            let status = Status::load(receiver);
            if status.is_closed() || role::gone_owner(receiver, watch).is_some() {
                side.past = status.generation();
            }
        }
        Ok(side)
    }

    pub(super) fn control(&self) -> &Control {
        self.link.control()
    }

    pub(super) fn object(&self) -> &str {
        self.link.object()
    }

    /// Wakes the other side. The caller has changed `turn`.
    pub(super) fn wake_peer(&self) {
        let sleepers = &self.control().sleepers;
        let word = match self.part {
            Part::Sender => &sleepers.receiver,
            Part::Receiver => &sleepers.sender,
        };
        wake(word, None);
    }

    /// Waits until `look` finds what it looks for.
    pub(super) fn wait_until<T>(
        &mut self,
        deadline: Deadline,
        look: impl FnMut(&Control) -> Result<Option<T>>,
    ) -> Result<News<T>> {
        let strategy = self.strategy;
        let mut waiting = Waiting { side: self, look, looks: 0, slept: false };
        let news = wait(&mut waiting, strategy, deadline);
        let saw_change = waiting.looks > 1 && !waiting.slept;
        self.saw_change = saw_change;
        news
    }

    /// Fails unless the other side, which is `process`, lives at this moment or did when it was last heard of: a moment ago.
    pub(super) fn check_alive(&self, process: &RemoteProcess) -> Result<()> {
        if self.saw_change { Ok(()) } else { process.confirm("process_vm_writev", 0) }
    }

    /// Whether this is the process that attached, and not a child made by fork that has a copy.
    pub(super) fn is_own(&self) -> bool {
        self.watch.own().is_current()
    }

    /// Fails in such a child: its memory is not the one that the other side reads or writes.
    pub(super) fn check_own(&self) -> Result<()> {
        role::check_own(self.watch.own(), self.object())
    }

    /// This process, as the other side has to know it.
    pub(super) fn own_bits(&self) -> u64 {
        self.watch.own().to_bits()
    }

    /// The process with this identity, to be reached by cross-memory attach.
    pub(super) fn process(&mut self, bits: u64) -> Result<Arc<RemoteProcess>> {
        let Some(identity) = Identity::from_bits(bits) else {
            return Err(self.corrupt("an address without a process".into()));
        };
        match &self.peer {
            Some((known, process)) if *known == identity => Ok(Arc::clone(process)),
            _ => {
                let process = Arc::new(self.open_peer(identity)?);
                self.peer = Some((identity, Arc::clone(&process)));
                Ok(process)
            }
        }
    }

    fn open_peer(&self, identity: Identity) -> Result<RemoteProcess> {
        if !identity.shares_namespace_with(self.watch.own()) {
            return Err(Error::Unsupported {
                object: self.object().into(),
                reason: format!(
                    "the other side, process {}, is in another pid namespace, where its number means nothing",
                    identity.pid()
                ),
            });
        }
        let process = RemoteProcess::open(identity.pid())?;
        match identity.has_started_at(process.start_ticks()) {
            true => Ok(process),
            false => Err(self.gone("it has exited, and another process has its number")),
        }
    }

    /// What a failed transfer means. The memory of a process goes before the process does, so it is given a moment.
    pub(super) fn explain(&self, error: Error, process: &RemoteProcess) -> Error {
        let end = Instant::now() + EXIT_TIME;
        while matches!(errno_of(&error), Some(libc::EFAULT | libc::ESRCH)) && Instant::now() < end {
            if process.has_exited() {
                return self.gone(&format!("process {} exited during a transfer: {error}", process.pid()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        error
    }

    fn peer_has_exited(&mut self) -> bool {
        let Self { link, watch, part, .. } = self;
        let roles = &link.control().roles;
        let role = if *part == Part::Sender { &roles.receiver } else { &roles.sender };
        role::gone_owner(role, watch).is_some()
    }

    fn peer_role(&self) -> &Role {
        let roles = &self.control().roles;
        if self.part == Part::Sender { &roles.receiver } else { &roles.sender }
    }

    pub(super) fn gone(&self, detail: &str) -> Error {
        Error::PeerGone { object: self.object().into(), detail: detail.into() }
    }

    pub(super) fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt { object: self.object().into(), detail }
    }

    /// Whether the other side's end needs no mention: a receiver's, before this sender came; a sender's, that was told to an
    /// earlier receiver.
    fn is_old_news(&self, generation: u64) -> bool {
        match self.part {
            Part::Sender => self.past == generation,
            Part::Receiver => {
                self.past != generation && self.control().roles.ended.load(Ordering::Acquire) == generation
            }
        }
    }

    fn tell_end(&mut self, generation: u64) {
        if self.part == Part::Receiver {
            self.past = generation;
            self.control().roles.ended.store(generation, Ordering::Release);
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let roles = &self.control().roles;
        let own_role = if self.part == Part::Sender { &roles.sender } else { &roles.receiver };
        role::give_up(own_role, self.generation, self.watch.own());
        self.wake_peer();
    }
}

struct Waiting<'a, F> {
    side: &'a mut Side,
    look: F,
    looks: u32,
    slept: bool,
}

impl<T, F: FnMut(&Control) -> Result<Option<T>>> Wait for Waiting<'_, F> {
    type Event = News<T>;

    fn poll(&mut self) -> Result<Option<News<T>>> {
        self.looks = self.looks.saturating_add(1);
        if let Some(found) = (self.look)(self.side.control())? {
            return Ok(Some(News::Found(found)));
        }
        let status = Status::load(self.side.peer_role());
        if !status.is_closed() || self.side.is_old_news(status.generation()) {
            return Ok(None);
        }
        // What it did before it closed is seen now.
        if let Some(found) = (self.look)(self.side.control())? {
            return Ok(Some(News::Found(found)));
        }
        if self.side.part == Part::Sender {
            return Err(self.side.gone("its receiver has closed"));
        }
        self.side.tell_end(status.generation());
        Ok(Some(News::End))
    }

    fn check_peer(&mut self) -> Result<()> {
        let side = &mut *self.side;
        if !side.peer_has_exited() {
            return Ok(());
        }
        let role = side.peer_role();
        let (status, owner) = (Status::load(role), Identity::from_bits(role.owner.load(Ordering::Acquire)));
        if side.is_old_news(status.generation()) {
            return Ok(());
        }
        side.tell_end(status.generation());
        let who = if side.part == Part::Sender { "receiver" } else { "sender" };
        let pid = owner.map_or(0, Identity::pid);
        Err(side.gone(&format!("its {who}, process {pid}, has exited without closing")))
    }

    fn before_sleep(&mut self) {
        self.slept = true;
    }

    fn word(&self) -> &AtomicU32 {
        let sleepers = &self.side.control().sleepers;
        if self.side.part == Part::Sender { &sleepers.sender } else { &sleepers.receiver }
    }

    fn out_of_time(&self, deadline: Deadline) -> Error {
        let operation = if self.side.part == Part::Sender { "send" } else { "receive" };
        Error::out_of_time(operation, self.side.object(), deadline)
    }
}
