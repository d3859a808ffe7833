//! Both sides of a channel in a model: the real halves, over words that loom follows. What they copy is copied by the kernel.

use std::fs::File;
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use loom::model::Builder;
use loom::thread;

use super::claims::End;
use super::desk::Desk;
use super::link::Link;
use super::liveness::PeerProcess;
use super::polling::Polling;
use super::registered::Spot;
use super::stats::Counters;
use super::{ChannelReceiver, ChannelSender, DEFAULT_COOPERATIVE_BYTES, Peer};
use crate::io::socket::Socket;
use crate::memory::Region;
use crate::memory::nonce::Nonce;
use crate::memory::ring;
use crate::process::ProcessHandle;
use crate::{Deadline, Error, Sender, WaitStrategy};

/// The two desks of a channel.
pub(super) struct Desks {
    desks: Arc<[Desk; 2]>,
    outgoing: usize,
}

impl std::fmt::Debug for Desks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desks")
    }
}

impl Desks {
    pub(super) fn new(_: Arc<Region>, _: bool) -> Self {
        unreachable!("a model has no region")
    }

    pub(super) fn end(&self) -> End {
        if self.outgoing == 0 { End::Front } else { End::Back }
    }

    pub(super) fn outgoing(&self) -> &Desk {
        &self.desks[self.outgoing]
    }

    pub(super) fn incoming(&self) -> &Desk {
        &self.desks[1 - self.outgoing]
    }
}

fn link(desks: &Arc<[Desk; 2]>, outgoing: usize) -> Arc<Link> {
    static OWN: OnceLock<Arc<ProcessHandle>> = OnceLock::new();
    let own = OWN.get_or_init(|| Arc::new(ProcessHandle::open(std::process::id()).unwrap()));
    let socket = Arc::new(Socket::new(File::open("/dev/null").unwrap().into(), "the socket of a model"));
    Arc::new(Link {
        desks: Desks { desks: Arc::clone(desks), outgoing },
        peer: Arc::new(PeerProcess::of_model(Arc::clone(own), &socket)),
        _lifeline: None,
        nonce: Nonce::draw().unwrap(),
        attach: Ok(()),
        write: true,
        trusted: true,
        is_open: true,
        buffers: Arc::default(),
        sites: Arc::default(),
        object: "the channel of a model".into(),
        identity: Peer::nobody_visible(0, 0),
        polling: Polling::new(socket),
        counters: Counters::default(),
    })
}

type Side = (ChannelSender, ChannelReceiver);

/// The two sides of a channel.
fn pair() -> (Side, Side) {
    let desks = Arc::default();
    let [one, other] = [0, 1].map(|outgoing| link(&desks, outgoing));
    let (to_other, from_one) = ring::pair();
    let (to_one, from_other) = ring::pair();
    let side = |sender, receiver, link: Arc<Link>| {
        let mut sender = ChannelSender::new(sender, Arc::clone(&link));
        let mut receiver = ChannelReceiver::new(receiver, link);
        sender.set_wait_strategy(WaitStrategy::Block);
        sender.set_single_copy_bytes(LONG);
        receiver.set_wait_strategy(WaitStrategy::Block);
        receiver.helper.patience = Duration::from_secs(3600);
        (sender, receiver)
    };
    (side(to_other, from_other, one), side(to_one, from_one, other))
}

/// Every order of what the threads of `model` do, with up to `switches` changes between them that are not for want of anything to do.
fn check(switches: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}

/// The shortest message that is copied by both sides.
const LONG: usize = DEFAULT_COOPERATIVE_BYTES;

/// How a receiver copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Alone.
    Alone,
    /// With the sender.
    Together,
    /// With a sender that seems to be stopped whenever it has not written its chunk yet.
    WithoutPatience,
}

impl Way {
    fn set(self, receiver: &mut ChannelReceiver) {
        match self {
            Self::Alone => receiver.set_cooperative_bytes(usize::MAX),
            Self::Together => {}
            Self::WithoutPatience => receiver.helper.patience = Duration::ZERO,
        }
    }
}

/// A sender that waits, and then writes over its message, as its caller may.
fn delivered(way: Way) {
    let ((mut sender, _other), (_sender, mut receiver)) = pair();
    way.set(&mut receiver);
    let receiving = thread::spawn(move || {
        let message = receiver.recv_by(Deadline::Never).unwrap().unwrap();
        assert!(message.len() == LONG && message.iter().all(|&byte| byte == 7));
        assert!(receiver.recv_by(Deadline::Never).unwrap().is_none());
    });
    let mut message = vec![7; LONG];
    sender.send_by(&message, Deadline::Never).unwrap();
    message.fill(9);
    drop(sender);
    receiving.join().unwrap();
}

#[test]
fn loom_a_message_that_the_receiver_copies_alone_arrives() {
    check(4, || delivered(Way::Alone));
}

#[test]
fn loom_a_message_that_both_sides_copy_arrives() {
    check(3, || delivered(Way::Together));
}

#[test]
fn loom_a_message_of_a_sender_that_is_late_with_its_chunk_arrives() {
    check(3, || delivered(Way::WithoutPatience));
}

/// A sender that revokes its message at any point: it is delivered as it was, or not at all, as the sender is told.
fn revoked(way: Way) {
    let ((mut sender, _other), (_sender, mut receiver)) = pair();
    way.set(&mut receiver);
    let receiving = thread::spawn(move || {
        let mut arrived = 0;
        while let Some(message) = receiver.recv_by(Deadline::Never).unwrap() {
            assert!(message.len() == LONG && message.iter().all(|&byte| byte == 7), "its bytes are those of later");
            arrived += 1;
        }
        arrived
    });
    let mut message = vec![7; LONG];
    let parts = [IoSlice::new(&message)];
    let sent = match sender.offer_for_now(&parts, Spot::NOWHERE, LONG, Deadline::Never).unwrap().finish(Deadline::Now) {
        Ok(true) => 1,
        Ok(false) => unreachable!("nobody refuses"),
        Err(error) => {
            assert!(error.is_out_of_time(), "{error}");
            0
        }
    };
    message.fill(9);
    drop(sender);
    assert_eq!(receiving.join().unwrap(), sent);
}

#[test]
fn loom_a_message_that_is_revoked_is_delivered_whole_or_not_at_all() {
    check(4, || revoked(Way::Alone));
}

#[test]
fn loom_a_message_that_both_sides_copy_is_revoked() {
    check(4, || revoked(Way::Together));
}

#[test]
fn loom_two_sides_that_send_at_once_and_receive_nothing_are_both_told() {
    check(4, || {
        let ((mut one, _one_receiver), (mut other, _other_receiver)) = pair();
        let would_deadlock = |error: Error| assert!(matches!(error, Error::WouldDeadlock { .. }), "{error}");
        let sending = thread::spawn(move || {
            would_deadlock(other.send_by(&[1; LONG], Deadline::Never).unwrap_err());
            other
        });
        would_deadlock(one.send_by(&[2; LONG], Deadline::Never).unwrap_err());
        drop(sending.join().unwrap());
    });
}

#[test]
fn loom_a_receiver_that_closes_ends_a_sender_that_waits() {
    check(4, || {
        let ((mut sender, _other), (_sender, receiver)) = pair();
        let closing = thread::spawn(move || drop(receiver));
        assert!(sender.send_by(&[7; LONG], Deadline::Never).unwrap_err().is_peer_gone());
        closing.join().unwrap();
    });
}
