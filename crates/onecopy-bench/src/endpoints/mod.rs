//! The two ends of each transport: what both sides share, how the host creates it, how the guest reaches it.
//!
//! One table with a row for each transport: [`prepare`], [`host`] and [`guest`]. The files beside this one hold what the rows
//! do, by kind.

mod channel;
mod crowd;
mod messages;
mod plain;
pub(crate) mod primitives;
mod queues;
mod regions;
mod remote;
mod shared;
mod streams;

use std::collections::hash_map::RandomState;
use std::fs::DirBuilder;
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::rc::Rc;

use onecopy::channel::{ChannelReceiver, ChannelSender};
use onecopy::memory::attach::{self, PushReceiver};
use onecopy::memory::ring::RING_BYTES;
use onecopy::message::fragment::{FragmentReceiver, FragmentSender};
use onecopy::{Deadline, Error, Receiver, Result, Sender};

use crate::control::{Join, Link, Run, Side};
use crate::janitor::{Guard, Janitor, Leftover};
use crate::transport::Transport;

/// Keys that are tried before the creation of a segment fails because they are taken.
const KEYS: u32 = 16;

/// Both directions of one side.
pub(crate) struct Ends {
    pub(crate) sender: Outlet,
    pub(crate) intake: Intake,
}

/// How messages go out.
pub(crate) enum Outlet {
    Any(Box<dyn Sender>),
    /// A channel's, for loans and registered memory.
    Half(Box<ChannelSender>),
}

impl Outlet {
    pub(crate) fn any(&self) -> &dyn Sender {
        match self {
            Self::Any(sender) => &**sender,
            Self::Half(sender) => &**sender,
        }
    }

    pub(crate) fn any_mut(&mut self) -> &mut dyn Sender {
        match self {
            Self::Any(sender) => &mut **sender,
            Self::Half(sender) => &mut **sender,
        }
    }
}

/// How messages come in.
pub(crate) enum Intake {
    /// Into a buffer of the caller's.
    Buffer(Box<dyn Receiver>),
    /// Into a window that the library owns, where the caller looks at them.
    Window(PushReceiver),
    /// Into memory of the library's, a part of it for each.
    Channel(channel::Inbox),
    /// A channel's, for loans and registered memory.
    Half(ChannelReceiver),
}

impl Intake {
    /// The next message, in `buffer` or in the window.
    #[inline(always)]
    pub(crate) fn receive<'a>(&'a mut self, buffer: &'a mut [u8], deadline: Deadline) -> Result<Option<&'a [u8]>> {
        match self {
            Self::Buffer(receiver) => {
                receiver.recv_into_by(buffer, deadline).map(|received| received.map(|len| &buffer[..len]))
            }
            Self::Window(receiver) => receiver.recv_borrowed_by(deadline),
            Self::Channel(inbox) => inbox.receive(deadline),
            Self::Half(receiver) => {
                receiver.recv_into_by(buffer, deadline).map(|received| received.map(|len| &buffer[..len]))
            }
        }
    }
}

impl Ends {
    fn new(sender: impl Sender + 'static, receiver: impl Receiver + 'static) -> Self {
        Self { sender: Outlet::Any(Box::new(sender)), intake: Intake::Buffer(Box::new(receiver)) }
    }

    /// The same ends, for messages of any size.
    pub(crate) fn fragmented(self) -> Self {
        let intake = match self.intake {
            Intake::Buffer(receiver) => Intake::Buffer(Box::new(FragmentReceiver::new(receiver))),
            // Neither has a longest message.
            intake @ (Intake::Window(_) | Intake::Channel(_) | Intake::Half(_)) => intake,
        };
        let sender = match self.sender {
            Outlet::Any(sender) => Outlet::Any(Box::new(FragmentSender::new(sender))),
            sender @ Outlet::Half(_) => sender,
        };
        Self { sender, intake }
    }

    /// Prepares for a run. What came until now, by its way.
    pub(crate) fn begin(&mut self, run: &Run) -> channel::Received {
        match &mut self.intake {
            Intake::Channel(inbox) => inbox.begin(run),
            Intake::Half(receiver) => channel::Received::by(receiver),
            Intake::Buffer(_) | Intake::Window(_) => channel::Received::default(),
        }
    }

    /// The way that most messages came since `before`; `None` where there is but one.
    pub(crate) fn way_since(&self, before: &channel::Received) -> Option<String> {
        match &self.intake {
            Intake::Channel(inbox) => inbox.way_since(before),
            Intake::Half(receiver) => channel::Received::by(receiver).way_since(before),
            Intake::Buffer(_) | Intake::Window(_) => None,
        }
    }
}

/// What the host does once the guest is on its way.
pub(crate) type Accept = Box<dyn FnOnce() -> Result<Ends>>;

/// Makes what must be inherited, and what has a name.
pub(crate) fn prepare(transport: Transport, link: &mut Link, janitor: &Rc<Janitor>) -> Result<Prepared> {
    match transport {
        Transport::Pipe => streams::prepare_pipes(),
        Transport::Fifo => streams::prepare_fifos(link, janitor),
        Transport::Pty => Prepared::with_directory(link, janitor),
        Transport::PosixMq => queues::prepare_posix(link, janitor),
        Transport::SysvMq => queues::prepare_sysv(link, janitor),
        Transport::PosixShm => regions::prepare_posix(link, janitor),
        Transport::SysvShm => regions::prepare_sysv(link, janitor),
        Transport::FileMapping => regions::prepare_files(link, janitor),
        Transport::AnonymousMapping => regions::prepare_anonymous(RING_BYTES),
        Transport::CmaRead | Transport::CmaWrite => regions::prepare_anonymous(attach::CONTROL_BYTES),
        Transport::UnixStream
        | Transport::UnixDgram
        | Transport::UnixSeqpacket
        | Transport::Tcp
        | Transport::Udp
        | Transport::Sctp
        | Transport::Channel
        | Transport::ChannelNoCma
        | Transport::ChannelLoan
        | Transport::ChannelRegistered => Ok(Prepared::default()),
    }
}

/// The host's side: what it announces to the guest, and how it takes the guest in.
pub(crate) fn host(transport: Transport, join: &Join, fds: Vec<OwnedFd>) -> Result<(String, Accept)> {
    let layer = join.layer;
    match transport {
        Transport::Pty => streams::host_pty(&join.link, layer),
        Transport::UnixStream => streams::host_unix(&join.link, layer),
        Transport::Tcp => streams::host_tcp(layer),
        Transport::UnixDgram => messages::host_dgram(&join.link, layer),
        Transport::UnixSeqpacket => messages::host_seqpacket(&join.link, layer),
        Transport::Udp => messages::host_udp(layer),
        Transport::Sctp => messages::host_sctp(layer),
        Transport::Channel | Transport::ChannelNoCma | Transport::ChannelLoan | Transport::ChannelRegistered => {
            channel::host(transport, join)
        }
        _ => {
            let join = join.clone();
            Ok((String::new(), Box::new(move || open(transport, &join, fds))))
        }
    }
}

/// The guest's side.
pub(crate) fn guest(transport: Transport, join: &Join, fds: Vec<OwnedFd>) -> Result<Ends> {
    let (layer, announced) = (join.layer, join.announced.as_str());
    match transport {
        Transport::Pty => streams::guest_pty(&join.link, layer),
        Transport::UnixStream => streams::guest_unix(&join.link, layer),
        Transport::Tcp => streams::guest_tcp(announced, layer),
        Transport::UnixDgram => messages::guest_dgram(&join.link, layer),
        Transport::UnixSeqpacket => messages::guest_seqpacket(&join.link, layer),
        Transport::Udp => messages::guest_udp(announced, layer),
        Transport::Sctp => messages::guest_sctp(announced, layer),
        Transport::Channel | Transport::ChannelNoCma | Transport::ChannelLoan | Transport::ChannelRegistered => {
            channel::guest(transport, join)
        }
        _ => open(transport, join, fds),
    }
}

/// Either side, where both open what was prepared.
fn open(transport: Transport, join: &Join, fds: Vec<OwnedFd>) -> Result<Ends> {
    let (link, side, layer) = (&join.link, join.side, join.layer);
    match transport {
        Transport::Pipe => streams::pipes(fds, layer),
        Transport::Fifo => streams::fifos(link, side, layer),
        Transport::PosixMq => queues::posix(link, side, layer),
        Transport::SysvMq => queues::sysv(link, side, layer),
        Transport::PosixShm | Transport::SysvShm | Transport::FileMapping | Transport::AnonymousMapping => {
            regions::ends(transport, join, fds)
        }
        Transport::CmaRead | Transport::CmaWrite => remote::ends(transport, join, fds),
        Transport::Pty
        | Transport::UnixStream
        | Transport::UnixDgram
        | Transport::UnixSeqpacket
        | Transport::Tcp
        | Transport::Udp
        | Transport::Sctp
        | Transport::Channel
        | Transport::ChannelNoCma
        | Transport::ChannelLoan
        | Transport::ChannelRegistered => Err(missing("anything to open")),
    }
}

/// What the measuring process makes before the workers begin, because it must be inherited or has a name: so the name is
/// removed whatever happens to the workers.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) host: Vec<OwnedFd>,
    pub(crate) guest: Vec<OwnedFd>,
    /// Names that may go as soon as both sides have what they name.
    names: Vec<Guard>,
    /// What both sides need to the end.
    objects: Vec<Guard>,
}

impl Prepared {
    /// Descriptors for the host and for the guest, and nothing with a name.
    pub(crate) fn inherited(host: Vec<OwnedFd>, guest: Vec<OwnedFd>) -> Self {
        Self { host, guest, ..Self::default() }
    }

    /// Both sides have what they need: closes the descriptors here and removes the names.
    pub(crate) fn joined(&mut self) {
        self.host.clear();
        self.guest.clear();
        self.names.clear();
    }

    /// Removes `name` when both sides have what it stands for, or when that failed.
    fn remove_when_joined(&mut self, name: Guard) {
        self.names.push(name);
    }

    /// Removes `object` when both sides have ended.
    fn remove_at_the_end(&mut self, object: Guard) {
        self.objects.push(object);
    }

    /// A directory for the names of this link, removed with all that is in it.
    fn with_directory(link: &Link, janitor: &Rc<Janitor>) -> Result<Self> {
        let mut prepared = Self::default();
        let directory = create_directory(link, janitor)?;
        prepared.remove_when_joined(directory);
        Ok(prepared)
    }

    /// Makes the directory of the paths, which stays as long as this.
    fn keep_directory(&mut self, link: &Link, janitor: &Rc<Janitor>) -> Result<()> {
        self.remove_at_the_end(create_directory(link, janitor)?);
        Ok(())
    }
}

/// The two directions of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From the guest to the host.
    Forth,
    /// From the host to the guest.
    Back,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Forth, Self::Back];

    fn name(self) -> &'static str {
        match self {
            Self::Forth => "forth",
            Self::Back => "back",
        }
    }
}

impl Side {
    /// The way that this side sends, and the way that it receives.
    fn ways(self) -> [Way; 2] {
        match self {
            Self::Host => [Way::Back, Way::Forth],
            Self::Guest => [Way::Forth, Way::Back],
        }
    }
}

fn create_directory(link: &Link, janitor: &Rc<Janitor>) -> Result<Guard> {
    let path = link.directory.clone();
    let object = path.display().to_string();
    DirBuilder::new().mode(0o700).create(&path).map_err(|error| os("mkdir", &object, error))?;
    Ok(janitor.guard(Leftover::Directory(path)))
}

/// A key for a System V object of our own, which both sides then open by its identifier. All 31 bits are random: with a sign in
/// them, half of all keys would have to be changed to the same one.
fn random_key() -> i32 {
    ((RandomState::new().build_hasher().finish() >> 33) as i32).max(1)
}

fn missing(what: &str) -> Error {
    Error::Invalid { object: "bench".into(), reason: format!("{what} did not come with the order to join") }
}

fn os(call: &'static str, object: &str, source: impl Into<std::io::Error>) -> Error {
    Error::Os { call, object: object.into(), source: source.into(), remedy: None }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::random_key;

    #[test]
    fn hardly_two_random_keys_are_the_same() {
        let keys: HashSet<i32> = (0..1000).map(|_| random_key()).collect();
        assert!(keys.len() > 990 && keys.iter().all(|key| *key > 0), "{} keys", keys.len());
    }
}
