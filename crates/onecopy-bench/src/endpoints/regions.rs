//! Shared memory: a ring in a region for each direction, mapped by each side on its own.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use onecopy::memory::Region;
use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::posix_shm::PosixShm;
use onecopy::memory::ring::{RING_BYTES, RingReceiver, RingSender};
use onecopy::memory::sysv_shm::SysvShm;
use onecopy::{Deadline, PosixName, Result, SysvName, WaitStrategy};
use rustix::fs::Mode;
use rustix::shm;

use super::queues::id;
use super::{Ends, KEYS, Prepared, Way, missing, os, plain, random_key};
use crate::control::{Join, Layer, Link};
use crate::janitor::{Janitor, Leftover};
use crate::options::Wait;
use crate::transport::Transport;

pub(super) fn prepare_posix(link: &Link, janitor: &Rc<Janitor>) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    for way in Way::BOTH {
        let name = posix_name(link, way)?;
        PosixShm::create(&name, RING_BYTES, 0o600)?;
        prepared.remove_when_joined(janitor.guard(Leftover::PosixShm(name.to_string())));
    }
    Ok(prepared)
}

/// A segment that is marked for removal lives on for those who have it attached.
pub(super) fn prepare_sysv(link: &mut Link, janitor: &Rc<Janitor>) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    for _ in Way::BOTH {
        let segment = create_sysv()?;
        link.ids.push(segment.id());
        prepared.remove_when_joined(janitor.guard(Leftover::SysvShm(segment.id())));
    }
    Ok(prepared)
}

/// Under a random key, since the sides open it by its identifier.
fn create_sysv() -> Result<SysvShm> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match SysvShm::create(&SysvName::key(random_key())?, RING_BYTES, 0o600) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && attempt < KEYS => {}
            created => return created,
        }
    }
}

pub(super) fn prepare_files(link: &Link, janitor: &Rc<Janitor>) -> Result<Prepared> {
    let prepared = Prepared::with_directory(link, janitor)?;
    for way in Way::BOTH {
        FileMapping::create(&file(link, way), RING_BYTES, 0o600)?;
    }
    Ok(prepared)
}

/// Both sides get both memfds: forth, then back.
pub(super) fn prepare_anonymous(bytes: usize) -> Result<Prepared> {
    let [forth, back] = Way::BOTH.map(|way| AnonymousMapping::create(way.name(), bytes));
    let (forth, back) = (forth?, back?);
    let both = || Ok::<_, onecopy::Error>(vec![forth.try_clone_fd()?, back.try_clone_fd()?]);
    Ok(Prepared::inherited(both()?, both()?))
}

/// Either side of both rings.
pub(super) fn ends(transport: Transport, join: &Join, fds: Vec<OwnedFd>) -> Result<Ends> {
    match join.layer {
        Layer::Ours => rings(transport, join, fds),
        Layer::Plain => plain_rings(transport, join, &fds),
    }
}

fn plain_rings(transport: Transport, join: &Join, fds: &[OwnedFd]) -> Result<Ends> {
    let [send, receive] = join.side.ways();
    let ring = |way| plain_mapping(transport, &join.link, way, fds).map(|memory| plain::Ring::new(memory, join.wait));
    Ok(Ends::new(ring(send)?, ring(receive)?))
}

/// The memory for one direction, by the calls that a plain program makes.
fn plain_mapping(transport: Transport, link: &Link, way: Way, fds: &[OwnedFd]) -> Result<plain::Mapping> {
    let bytes = plain::RING_MAPPING_BYTES;
    match transport {
        Transport::PosixShm => {
            let name = posix_name(link, way)?;
            let fd = shm::open(name.as_os_str(), shm::OFlags::RDWR, Mode::empty());
            plain::Mapping::map(fd.map_err(|errno| os("shm_open", "plain memory", errno))?, bytes)
        }
        Transport::SysvShm => plain::Mapping::attach(id(link, way)?, bytes),
        Transport::FileMapping => {
            let file = File::options().read(true).write(true).open(file(link, way));
            plain::Mapping::map(file.map_err(|error| os("open", "plain memory", error))?, bytes)
        }
        _ => plain::Mapping::map(fds.get(way as usize).ok_or_else(|| missing("a memfd"))?, bytes),
    }
}

fn rings(transport: Transport, join: &Join, fds: Vec<OwnedFd>) -> Result<Ends> {
    let [send, receive] = join.side.ways();
    let mut fds: Vec<_> = fds.into_iter().map(Some).collect();
    let mut sender = RingSender::attach(region(transport, &join.link, send, &mut fds)?, Deadline::Never)?;
    let mut receiver = RingReceiver::attach(region(transport, &join.link, receive, &mut fds)?, Deadline::Never)?;
    sender.set_wait_strategy(strategy(join.wait));
    receiver.set_wait_strategy(strategy(join.wait));
    Ok(Ends::new(sender, receiver))
}

/// The memory for one direction. Nobody shortens it, so its length can be trusted.
fn region(transport: Transport, link: &Link, way: Way, fds: &mut [Option<OwnedFd>]) -> Result<Region> {
    let region = match transport {
        Transport::PosixShm => PosixShm::open(&posix_name(link, way)?)?.into_region(),
        Transport::SysvShm => SysvShm::open(&SysvName::id(id(link, way)?)?)?.into_region(),
        Transport::FileMapping => FileMapping::open(&file(link, way))?.into_region(),
        _ => anonymous(way, fds)?,
    };
    Ok(region.trusting_its_length())
}

/// The memory of the memfd for one direction.
pub(super) fn anonymous(way: Way, fds: &mut [Option<OwnedFd>]) -> Result<Region> {
    let fd = fds.get_mut(way as usize).and_then(Option::take).ok_or_else(|| missing("a memfd"))?;
    Ok(AnonymousMapping::from_fd(fd)?.into_region())
}

pub(super) fn strategy(wait: Wait) -> WaitStrategy {
    match wait {
        Wait::Block => WaitStrategy::Block,
        Wait::Spin => WaitStrategy::Spin,
        Wait::Adaptive => WaitStrategy::Adaptive,
    }
}

fn posix_name(link: &Link, way: Way) -> Result<PosixName> {
    PosixName::new(format!("/{}-{}", link.stem, way.name()))
}

fn file(link: &Link, way: Way) -> PathBuf {
    link.directory.join(way.name())
}
