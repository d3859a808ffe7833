//! Sockets that keep boundaries.

use std::os::fd::AsFd;

use onecopy::message::sctp::{self, SctpListener, SctpSocket};
use onecopy::message::udp::UdpSocket;
use onecopy::message::unix_dgram::UnixDatagram;
use onecopy::message::unix_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
use onecopy::{Deadline, HostPort, Receiver, Result, Sender, UnixName};

use super::streams::{LOOPBACK, host_port};
use super::{Accept, Ends, Way, missing, plain, shared};
use crate::control::{Layer, Link};

/// Both directions over a connected socket.
fn connected<T: Sender + Receiver + AsFd + 'static>(socket: T, layer: Layer) -> Ends {
    match layer {
        Layer::Ours => shared::ends(socket),
        Layer::Plain => shared::ends(plain::Datagrams(socket)),
    }
}

/// Both directions over a socket each.
fn ends<S, R>(sender: S, receiver: R, layer: Layer) -> Ends
where
    S: Sender + AsFd + 'static,
    R: Receiver + AsFd + 'static,
{
    match layer {
        Layer::Ours => Ends::new(sender, receiver),
        Layer::Plain => Ends::new(plain::Datagrams(sender), plain::Datagrams(receiver)),
    }
}

/// Each side receives at a name of its own.
pub(super) fn host_dgram(link: &Link, layer: Layer) -> Result<(String, Accept)> {
    let receiver = UnixDatagram::bind(&name(link, Way::Forth)?)?;
    let back = name(link, Way::Back)?;
    let accept = move || Ok(ends(UnixDatagram::connect(&back, Deadline::Never)?, receiver, layer));
    Ok((String::new(), Box::new(accept)))
}

pub(super) fn guest_dgram(link: &Link, layer: Layer) -> Result<Ends> {
    let receiver = UnixDatagram::bind(&name(link, Way::Back)?)?;
    Ok(ends(UnixDatagram::connect(&name(link, Way::Forth)?, Deadline::Never)?, receiver, layer))
}

fn name(link: &Link, way: Way) -> Result<UnixName> {
    UnixName::abstract_name(format!("{}-{}", link.stem, way.name()))
}

pub(super) fn host_seqpacket(link: &Link, layer: Layer) -> Result<(String, Accept)> {
    let listener = UnixSeqpacketListener::bind(&UnixName::abstract_name(&link.stem)?)?;
    Ok((String::new(), Box::new(move || Ok(connected(listener.accept_by(Deadline::Never)?, layer)))))
}

pub(super) fn guest_seqpacket(link: &Link, layer: Layer) -> Result<Ends> {
    let socket = UnixSeqpacket::connect(&UnixName::abstract_name(&link.stem)?, Deadline::Never)?;
    Ok(connected(socket, layer))
}

/// The first datagram tells the host where the guest receives.
pub(super) fn host_udp(layer: Layer) -> Result<(String, Accept)> {
    let mut receiver = UdpSocket::bind(&HostPort::new(LOOPBACK, 0)?)?;
    let address = receiver.local_address()?.to_string();
    let accept = move || {
        let hello = receiver.recv()?.ok_or_else(|| missing("the guest's address"))?;
        let sender = UdpSocket::connect(&host_port(&String::from_utf8_lossy(&hello))?)?;
        Ok(ends(sender, receiver, layer))
    };
    Ok((address, Box::new(accept)))
}

pub(super) fn guest_udp(address: &str, layer: Layer) -> Result<Ends> {
    let receiver = UdpSocket::bind(&HostPort::new(LOOPBACK, 0)?)?;
    let mut sender = UdpSocket::connect(&host_port(address)?)?;
    sender.send(receiver.local_address()?.to_string().as_bytes())?;
    Ok(ends(sender, receiver, layer))
}

pub(super) fn host_sctp(layer: Layer) -> Result<(String, Accept)> {
    sctp::is_available()?;
    let listener = SctpListener::bind(&HostPort::new(LOOPBACK, 0)?)?;
    let address = listener.local_address()?.to_string();
    Ok((address, Box::new(move || Ok(connected(listener.accept_by(Deadline::Never)?, layer)))))
}

pub(super) fn guest_sctp(address: &str, layer: Layer) -> Result<Ends> {
    Ok(connected(SctpSocket::connect(&host_port(address)?, Deadline::Never)?, layer))
}
