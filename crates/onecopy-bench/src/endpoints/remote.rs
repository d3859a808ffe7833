//! Cross-memory attach: who copies is told by a small region of shared memory where the bytes lie.

use std::os::fd::OwnedFd;

use onecopy::Result;
use onecopy::memory::attach::{PullReceiver, PullSender, PushReceiver, PushSender};

use super::regions::{anonymous, strategy};
use super::{Ends, Intake, Outlet, missing, plain};
use crate::control::{Join, Layer};
use crate::transport::Transport;

/// Either side.
pub(super) fn ends(transport: Transport, join: &Join, fds: Vec<OwnedFd>) -> Result<Ends> {
    match (join.layer, transport) {
        (Layer::Plain, _) => plain_ends(transport, join, &fds),
        (Layer::Ours, Transport::CmaWrite) => push(join, fds),
        (Layer::Ours, _) => pull(join, fds),
    }
}

fn pull(join: &Join, fds: Vec<OwnedFd>) -> Result<Ends> {
    let [send, receive] = join.side.ways();
    let mut fds: Vec<_> = fds.into_iter().map(Some).collect();
    let mut sender = PullSender::attach(anonymous(send, &mut fds)?)?;
    let mut receiver = PullReceiver::attach(anonymous(receive, &mut fds)?)?;
    sender.set_wait_strategy(strategy(join.wait));
    receiver.set_wait_strategy(strategy(join.wait));
    Ok(Ends::new(sender, receiver))
}

/// The receiver looks at messages where their sender wrote them: one copy, as the mechanism has it.
fn push(join: &Join, fds: Vec<OwnedFd>) -> Result<Ends> {
    let [send, receive] = join.side.ways();
    let mut fds: Vec<_> = fds.into_iter().map(Some).collect();
    let mut sender = PushSender::attach(anonymous(send, &mut fds)?)?;
    let mut receiver = PushReceiver::attach(anonymous(receive, &mut fds)?)?;
    sender.set_wait_strategy(strategy(join.wait));
    receiver.set_wait_strategy(strategy(join.wait));
    Ok(Ends { sender: Outlet::Any(Box::new(sender)), intake: Intake::Window(receiver) })
}

fn plain_ends(transport: Transport, join: &Join, fds: &[OwnedFd]) -> Result<Ends> {
    let [send, receive] = join.side.ways();
    let map = |way| match fds.get(way as usize) {
        Some(fd) => plain::Board::map(fd, join.wait),
        None => Err(missing("a memfd")),
    };
    let (sending, receiving) = (map(send)?, map(receive)?);
    Ok(match transport {
        Transport::CmaWrite => Ends::new(plain::PushSender(sending), plain::PushReceiver(receiving)),
        _ => Ends::new(plain::PullSender(sending), plain::PullReceiver(receiving)),
    })
}
