//! Message queues: one for each direction, made by the measuring process.

use std::rc::Rc;

use onecopy::message::posix_mq::{PosixQueue, QueueAttributes};
use onecopy::message::sysv_mq::SysvQueue;
use onecopy::{PosixName, Result, SysvName};

use super::{Ends, Prepared, Way, missing, plain};
use crate::control::{Layer, Link, Side};
use crate::janitor::{Janitor, Leftover};

/// Queues of the size that every user may have.
pub(super) fn prepare_posix(link: &Link, janitor: &Rc<Janitor>) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    for way in Way::BOTH {
        let name = posix_name(link, way)?;
        PosixQueue::create(&name, &QueueAttributes::system_default(), 0o600)?;
        prepared.remove_when_joined(janitor.guard(Leftover::PosixQueue(name.to_string())));
    }
    Ok(prepared)
}

pub(super) fn posix(link: &Link, side: Side, layer: Layer) -> Result<Ends> {
    let [send, receive] = side.ways();
    let (send, receive) = (posix_name(link, send)?, posix_name(link, receive)?);
    Ok(match layer {
        Layer::Ours => Ends::new(PosixQueue::open(&send)?, PosixQueue::open(&receive)?),
        Layer::Plain => Ends::new(plain::PosixQueue::open(&send)?, plain::PosixQueue::open(&receive)?),
    })
}

fn posix_name(link: &Link, way: Way) -> Result<PosixName> {
    PosixName::new(format!("/{}-{}", link.stem, way.name()))
}

/// Queues without keys. Removing one wakes whoever uses it, so they stay to the end.
pub(super) fn prepare_sysv(link: &mut Link, janitor: &Rc<Janitor>) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    for _ in Way::BOTH {
        let queue = SysvQueue::create_private(0o600)?;
        link.ids.push(queue.id());
        prepared.remove_at_the_end(janitor.guard(Leftover::SysvQueue(queue.id())));
    }
    Ok(prepared)
}

pub(super) fn sysv(link: &Link, side: Side, layer: Layer) -> Result<Ends> {
    let [send, receive] = side.ways();
    let (send, receive) = (id(link, send)?, id(link, receive)?);
    let open = |id| SysvQueue::open(&SysvName::id(id)?);
    Ok(match layer {
        Layer::Ours => Ends::new(open(send)?, open(receive)?),
        Layer::Plain => Ends::new(plain::SysvQueue::new(send), plain::SysvQueue::new(receive)),
    })
}

/// The identifier of the object for one direction, as [`prepare_sysv`] numbered them.
pub(super) fn id(link: &Link, way: Way) -> Result<i32> {
    link.ids.get(way as usize).copied().ok_or_else(|| missing("the identifier of a System V object"))
}
