//! The channel. Its receiver takes messages into memory of the library's, warm and given back, as a program would.

use std::collections::VecDeque;

use onecopy::channel::{ChannelName, ChannelReceiver, Message, Path, Policy};
use onecopy::{Channel, Deadline, Listener, Result};

use super::crowd::Crowd;
use super::regions::strategy;
use super::{Accept, Ends, Intake, Outlet};
use crate::control::{Forced, Join, Run, Side};
use crate::payload::Slots;
use crate::transport::Transport;

/// How many messages a cold run keeps at most: each may be a mapping of its own, of which a process has some 65,000.
const MOST_KEPT: usize = 16_384;

/// Listens at the name of the link, which nobody can guess: another process of this user could take the guest's place.
pub(super) fn host(transport: Transport, join: &Join) -> Result<(String, Accept)> {
    let name = join.link.stem.clone();
    let listener = Listener::bind_with(&ChannelName::name(&name)?, &policy(transport))?;
    let join = join.clone();
    let accept = move || all(transport, &join, || listener.accept_by(Deadline::Never));
    Ok((name, Box::new(accept)))
}

pub(super) fn guest(transport: Transport, join: &Join) -> Result<Ends> {
    let name = ChannelName::name(&join.announced)?;
    all(transport, join, || Channel::connect_by(&name, &policy(transport), Deadline::Never))
}

/// The ends of the first channel that `open` opens. Of many the host waits for all at once.
fn all(transport: Transport, join: &Join, mut open: impl FnMut() -> Result<Channel>) -> Result<Ends> {
    let first = open()?;
    let others = (1..join.channels.unwrap_or(1)).map(|_| open()).collect::<Result<Vec<_>>>()?;
    ends(first, others, transport, join)
}

fn policy(transport: Transport) -> Policy {
    match transport {
        Transport::ChannelNoCma => Policy::same_user().separate(),
        _ => Policy::same_user(),
    }
}

fn ends(mut channel: Channel, others: Vec<Channel>, transport: Transport, join: &Join) -> Result<Ends> {
    channel.set_wait_strategy(strategy(join.wait));
    if let Some(forced) = join.forced {
        let (single, both) = match forced {
            Forced::Ring => (usize::MAX, usize::MAX),
            Forced::SingleCopy => (0, usize::MAX),
            Forced::Cooperative => (0, 0),
        };
        channel.sender().set_single_copy_bytes(single);
        channel.receiver().set_cooperative_bytes(both);
    }
    let (sender, receiver) = channel.split();
    if matches!(transport, Transport::ChannelLoan | Transport::ChannelRegistered) {
        return Ok(Ends { sender: Outlet::Half(Box::new(sender)), intake: Intake::Half(receiver) });
    }
    let waits_for_all = join.channels.is_some() && join.side == Side::Host;
    let (crowd, idle) = match waits_for_all {
        true => (Some(Crowd::new(&receiver, others)?), Vec::new()),
        false => (None, others),
    };
    let inbox = Inbox { receiver, crowd, _idle: idle, latest: None, kept: VecDeque::new(), keep: 0 };
    Ok(Ends { sender: Outlet::Any(Box::new(sender)), intake: Intake::Channel(inbox) })
}

/// How many messages came by each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received([u64; Path::ALL.len()]);

/// The receiver with the messages that it has not given back.
pub(crate) struct Inbox {
    receiver: ChannelReceiver,
    /// Where it is one of many.
    crowd: Option<Crowd>,
    /// The channels on which nothing is sent.
    _idle: Vec<Channel>,
    /// The message that is looked at, where no others are kept.
    latest: Option<Message>,
    kept: VecDeque<Message>,
    /// How many messages stay beside the one that is looked at, so that their memory is cold when it is used again.
    keep: usize,
}

impl Inbox {
    /// Prepares for a run.
    pub(super) fn begin(&mut self, run: &Run) -> Received {
        let slots = Slots::new(run.size_bytes, run.cold).count;
        self.keep = (slots - 1).min(MOST_KEPT);
        if self.kept.back().is_some_and(|message| message.len() != run.size_bytes) {
            self.kept.clear();
        }
        self.received()
    }

    /// The next message.
    #[inline(always)]
    pub(super) fn receive(&mut self, deadline: Deadline) -> Result<Option<&[u8]>> {
        // Given back before the next one comes: an answer waits for what is done after that.
        self.latest = None;
        let excess = self.kept.len().saturating_sub(self.keep);
        if excess > 0 {
            self.kept.drain(..excess);
        }
        let received = match &mut self.crowd {
            None => self.receiver.recv_by(deadline)?,
            Some(crowd) => crowd.receive(&mut self.receiver)?,
        };
        let Some(message) = received else { return Ok(None) };
        if self.keep == 0 {
            return Ok(Some(self.latest.insert(message)));
        }
        self.kept.push_back(message);
        Ok(self.kept.back().map(|message| &**message))
    }

    fn received(&self) -> Received {
        Received::by(&self.receiver)
    }

    pub(super) fn way_since(&self, before: &Received) -> Option<String> {
        self.received().way_since(before)
    }
}

impl Received {
    pub(super) fn by(receiver: &ChannelReceiver) -> Self {
        let stats = receiver.stats();
        Self(Path::ALL.map(|path| stats.received(path).messages))
    }

    /// The way that most messages came since `before`.
    pub(super) fn way_since(&self, before: &Self) -> Option<String> {
        let now = self;
        let came = |path: &Path| now.0[*path as usize] - before.0[*path as usize];
        let most = Path::ALL.into_iter().max_by_key(came)?;
        (came(&most) > 0).then(|| most.name().to_owned())
    }
}
