//! The copies of a message that does not go through the ring.
//!
//! # Safety
//!
//! While a message is SHARED the peer writes into a buffer of this process, and so do the calls of this side. No reference to the
//! buffer is formed meanwhile but to what this side has claimed, which the peer leaves alone by the protocol. A peer that
//! breaks it, as it may attach to this process, could as well write any other memory of it. The buffer is lent out when the peer
//! has said that it is done, and given [up](super::landing::Landings::give_up) when it never said so. Registered memory, which the peer may
//! have mapped, is retired then; its owner gets other memory in place of that.
#![expect(unsafe_code, reason = "forms slices of parts of a buffer that a peer writes too")]

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::uio::RemoteIoVec;

use super::claims::{self, Copied, End, Units};
use super::desk::{self, Desk, Offer, Phase, Turn};
use super::helper::{Helper, Reach, Share};
use super::link::Link;
use super::message::Body;
use super::parts::{self, ENTRY_BYTES, MOST_PARTS, Place, RANGES};
use super::registered::{Mapped, RegisteredBuffer, Spot, Stores};
use super::seccomp::Seccomp;
use super::stats::Path;
use crate::atomic::{AtomicU64, Ordering};
use crate::memory::nonce::{NONCE_BYTES, Value};
use crate::memory::remote::RemoteProcess;
use crate::{Error, Result};

/// How much is read between two looks at whether the message was revoked.
const PIECE_BYTES: usize = 4 << 20;
/// What is claimed at a time: so many units of this size, a page: with 32 KiB one side had to copy 64 KiB alone as soon as the shares were
/// not halves, in up to 8.5 us for 3.6. Measured on cores far from each other, one message at a time: 4 MiB takes 110 us, claimed by 2 MiB at
/// most, and 110 to 232 by 1 MiB.
const UNIT_BYTES: usize = if cfg!(loom) { 32 << 10 } else { 4 << 10 };
const MOST_UNITS: usize = (2 << 20) / UNIT_BYTES;
/// What stands for the place of a message whose receiver could not wait for its sender any longer: nothing lies there.
const TAKEN_AWAY: u64 = 0;

/// A message in the memory of its sender.
#[derive(Debug)]
pub(super) struct Source {
    place: Place,
    /// In memory that this side has mapped: then nothing else says where.
    mapped: Option<Mapped>,
    /// Whether the sender's user has registered that.
    is_registered: bool,
    pub(super) bytes: usize,
    nonce_address: u64,
    nonce: Value,
}

/// Why a message was not copied.
#[derive(Debug)]
pub(super) enum Failure {
    /// The sender has revoked it.
    Revoked,
    /// The kernel refused.
    Errno(Errno),
    /// A seccomp filter has come that may forbid it, which is told already.
    Filtered,
    /// This side has no memory.
    Here(Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Source {
    /// What `desk` says of the message of `offer`. The turn was ASKED with its number. Where it lies in parts, reads the list of them
    /// from the peer.
    pub(super) fn of(desk: &Desk, offer: Offer, link: &Link, seccomp: &mut Seccomp) -> Result<Self, Failure> {
        // Relaxed: the load of the turn ordered them.
        let address = desk.address.load(Ordering::Relaxed);
        let mut source = Self {
            place: Place::Whole(address),
            mapped: None,
            is_registered: false,
            bytes: offer.bytes,
            nonce_address: desk.nonce_address.load(Ordering::Relaxed),
            nonce: [desk.nonce[0].load(Ordering::Relaxed), desk.nonce[1].load(Ordering::Relaxed)],
        };
        let parts = desk.parts.load(Ordering::Relaxed);
        if parts != 0 {
            let parts = usize::try_from(parts).ok().filter(|parts| *parts <= MOST_PARTS).ok_or(Errno::EINVAL)?;
            if !link.may_attach(seccomp) {
                return Err(Failure::Filtered);
            }
            let mut list = vec![0; parts * ENTRY_BYTES];
            source.read(link.peer.process(), 0, &mut list)?;
            source.place = Place::of_list(&list, offer.bytes)?;
        }
        Ok(source)
    }

    /// A message in memory that this side has mapped, and perhaps that the sender's user has registered.
    pub(super) fn mapped(mapped: Mapped, bytes: usize, is_registered: bool) -> Self {
        let (place, nonce) = (Place::Whole(0), Default::default());
        Self { place, mapped: Some(mapped), bytes, is_registered, nonce_address: 0, nonce }
    }

    /// Whether it takes a system call to copy it.
    fn needs_attach(&self) -> bool {
        self.mapped.is_none()
    }

    /// The way of a message that is copied `otherwise` where its memory is not registered.
    pub(super) fn path(&self, otherwise: Path) -> Path {
        if self.is_registered { Path::Registered } else { otherwise }
    }

    /// Reads all of it into `target`, unless it is revoked meanwhile.
    pub(super) fn pull(
        &self,
        link: &Link,
        desk: &Desk,
        turn: Turn,
        target: &mut [u8],
        seccomp: &mut Seccomp,
    ) -> Result<(), Failure> {
        if self.needs_attach() && !link.may_attach(seccomp) {
            return Err(Failure::Filtered);
        }
        let mut offset = 0;
        for piece in target.chunks_mut(PIECE_BYTES) {
            if offset > 0 && Turn::load(desk) != turn {
                return Err(Failure::Revoked);
            }
            self.read(link.peer.process(), offset, piece)?;
            offset += piece.len();
        }
        Ok(())
    }

    /// Reads a piece, and behind it the sender's nonce: both come from one address space, so that a process that executed another
    /// program or has a recycled pid is told from the sender.
    fn read(&self, peer: &RemoteProcess, offset: usize, piece: &mut [u8]) -> Result<(), Errno> {
        if let Some(mapped) = &self.mapped {
            return mapped.read(offset, piece);
        }
        let mut done = 0;
        while done < piece.len() {
            let mut remote = [range(0, 0); RANGES + 1];
            let (count, len) = self.place.remote(offset + done..offset + piece.len(), &mut remote[..RANGES]);
            remote[count] = range(self.nonce_address, NONCE_BYTES);
            let mut found = [[0; 8]; 2];
            let mut local = [IoSliceMut::new(&mut piece[done..done + len]), IoSliceMut::new(found.as_flattened_mut())];
            let read = match peer.readv(&mut local, &remote[..=count]) {
                Ok(read) => read,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            done += match read {
                _ if read == len + NONCE_BYTES && found.map(u64::from_ne_bytes) == self.nonce => len,
                _ if read == len + NONCE_BYTES => return Err(Errno::ESRCH),
                _ if read == 0 || read >= len => return Err(Errno::EFAULT),
                _ => read,
            };
        }
        Ok(())
    }

    /// Copies it into `body`, of its length, together with the sender, the `helper`, which waits for that. Behind a failure comes the body
    /// if the sender may still be writing there.
    pub(super) fn share(
        &self,
        body: Body,
        link: &Link,
        desk: &Desk,
        asked: Turn,
        helper: &mut Helper,
        seccomp: &mut Seccomp,
    ) -> Result<Body, (Failure, Option<Body>)> {
        assert_eq!(body.len(), self.bytes, "the place for a message");
        // SAFETY: as many bytes that are not referred to, and that go back to the caller as such when the sender may be writing.
        match unsafe { self.share_at((body.base(), body.spot()), link, desk, asked, helper, seccomp) } {
            Ok(()) => Ok(body),
            Err(Failure::Revoked) => Err((Failure::Revoked, None)),
            Err(failure) => Err((failure, Some(body))),
        }
    }

    /// As [`Source::share`], into registered memory, which is long enough. Where the sender may be writing in the end, that is
    /// renewed.
    pub(super) fn share_into(
        &self,
        buffer: &mut RegisteredBuffer,
        link: &Link,
        desk: &Desk,
        asked: Turn,
        helper: &mut Helper,
        seccomp: &mut Seccomp,
    ) -> Result<(), Failure> {
        assert!(buffer.len() >= self.bytes, "a message of {} bytes", self.bytes);
        // SAFETY: as many bytes of a buffer of which this borrow is the only one, and that is renewed below when the sender may be
        // writing.
        let shared =
            unsafe { self.share_at((buffer.base(), buffer.spot(link, 0)), link, desk, asked, helper, seccomp) };
        if !matches!(shared, Ok(()) | Err(Failure::Revoked)) {
            buffer.renew(link).map_err(Failure::Here)?;
        }
        shared
    }

    /// Copies it to `target`, which may lie in registered memory, together with the sender. After [`Failure::Revoked`] that does not
    /// write there, after any other it may.
    ///
    /// # Safety
    ///
    /// `target` is the start of as many writable, initialised bytes as the message has, to which nobody refers meanwhile. They are
    /// the library's, and go to nobody else after a failure that is not `Revoked`.
    unsafe fn share_at(
        &self,
        (target, spot): (NonNull<u8>, Spot),
        link: &Link,
        desk: &Desk,
        asked: Turn,
        helper: &mut Helper,
        seccomp: &mut Seccomp,
    ) -> Result<(), Failure> {
        let end = link.desks.end();
        let reach = Reach { target: spot.is_somewhere(), source: self.mapped.is_some() };
        let share = helper.share(self.bytes, end, reach);
        let cut = Cut::new(self.bytes, share);
        let begun = Instant::now();
        desk::write(&desk.target, target.as_ptr().expose_provenance() as u64);
        desk.target_spot.store(spot);
        cut.write_to(desk);
        claims::open(desk);
        // Publishes the words above.
        if !asked.change(desk, Phase::Shared) {
            return Err(Failure::Revoked);
        }
        // One that is to copy nothing sleeps on until the message is here.
        if !cut.units.share_of(end.other()).is_empty() {
            link.wake_sender();
        }
        // Only now, when the sender is about to begin.
        let copied = match self.needs_attach() && !link.may_attach(seccomp) {
            true => Err(Failure::Filtered),
            // SAFETY: by the caller's promise.
            false => unsafe { self.copy_units(link, desk, target, &cut, helper.patience) },
        };
        if copied.is_err() {
            // Before it is taken away: a sender that is late and fails there knows why. The kernel orders the two, by its lock of this
            // process's mappings.
            desk.target.store(TAKEN_AWAY, Ordering::Relaxed);
        }
        helper.learn(self.bytes, cut.units, copied?, begun.elapsed(), end, reach);
        Ok(())
    }

    /// # Safety
    ///
    /// As [`Source::share_at`].
    unsafe fn copy_units(
        &self,
        link: &Link,
        desk: &Desk,
        target: NonNull<u8>,
        cut: &Cut,
        patience: Duration,
    ) -> Result<Copied, Failure> {
        let peer = &link.peer;
        let read = |units: Range<usize>| -> Result<(), Failure> {
            let part = cut.bytes_of(&units);
            // SAFETY: no unit begins behind the bytes of the caller's promise.
            let start = unsafe { target.add(part.start) };
            // SAFETY: so many initialised bytes that this side owns; the units were claimed by this side, or the sender
            // has said that it could not write them, so nobody else writes them while the slice lives.
            let slice = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), part.len()) };
            Ok(self.read(peer.process(), part.start, slice)?)
        };
        let mut until = None;
        claims::complete(desk, cut.units, link.desks.end(), read, || match peer.alarm().look() {
            true => Err(Errno::ESRCH.into()),
            false if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + patience) => {
                Err(Errno::ETIMEDOUT.into())
            }
            false => Ok(()),
        })
    }
}

/// How a message is cut into what is claimed.
#[derive(Clone, Copy, Debug)]
struct Cut {
    bytes: usize,
    unit_bytes: usize,
    units: Units,
}

impl Cut {
    fn new(bytes: usize, share: Share) -> Self {
        // Longer ones where there would be more than can be counted.
        let unit_bytes = (bytes >> 30).next_multiple_of(UNIT_BYTES).max(UNIT_BYTES);
        let count = bytes.div_ceil(unit_bytes);
        Self { bytes, unit_bytes, units: Units { count, front: share.of(count), most: MOST_UNITS } }
    }

    /// The caller publishes it by the turn.
    fn write_to(&self, desk: &Desk) {
        desk::write(&desk.unit_bytes, self.unit_bytes as u64);
        desk::write(&desk.front_units, self.units.front as u64);
    }

    /// What the receiver wrote for a message of so many bytes. Relaxed: the load of the turn, which is SHARED, ordered it.
    fn of(desk: &Desk, bytes: usize) -> Result<Self, Errno> {
        let load = |word: &AtomicU64| usize::try_from(word.load(Ordering::Relaxed)).map_err(|_| Errno::EINVAL);
        let unit_bytes = load(&desk.unit_bytes)?;
        if unit_bytes < UNIT_BYTES {
            return Err(Errno::EINVAL);
        }
        let units = Units { count: bytes.div_ceil(unit_bytes), front: load(&desk.front_units)?, most: MOST_UNITS };
        Ok(Self { bytes, unit_bytes, units })
    }

    /// Where `units` lie in the message.
    fn bytes_of(&self, units: &Range<usize>) -> Range<usize> {
        units.start * self.unit_bytes..self.bytes.min(units.end * self.unit_bytes)
    }
}

/// Writes units of a message into the receiver's buffer until all are claimed, by way of its registered memory where that is `mapped`;
/// the errno when the kernel refused some, and not for the reason that the receiver has taken its buffer away.
pub(super) fn help(
    peer: &RemoteProcess,
    desk: &Desk,
    end: End,
    message: &[IoSlice<'_>],
    bytes: usize,
    mapped: Option<(&Mapped, Stores)>,
) -> Result<(), Errno> {
    // Relaxed: as below.
    let target = desk.target.load(Ordering::Relaxed);
    let cut = Cut::of(desk, bytes)?;
    let written = claims::take_part(desk, cut.units, end, |units| {
        let wanted = cut.bytes_of(&units);
        match mapped {
            Some((mapped, stores)) => write_mapped(mapped, stores, message, wanted),
            None => write(peer, target, message, wanted),
        }
    });
    if desk.target.load(Ordering::Relaxed) == TAKEN_AWAY { Ok(()) } else { written }
}

/// Copies what lies at `wanted` of a message there in the receiver's registered memory.
fn write_mapped(
    mapped: &Mapped,
    stores: Stores,
    message: &[IoSlice<'_>],
    mut wanted: Range<usize>,
) -> Result<(), Errno> {
    while !wanted.is_empty() {
        let mut local = [IoSlice::new(&[]); RANGES];
        let count = parts::own(message, wanted.clone(), &mut local);
        for part in &local[..count] {
            mapped.write(wanted.start, part, stores)?;
            wanted.start += part.len();
        }
    }
    Ok(())
}

/// Writes what lies at `wanted` of a message there in the receiver's buffer at `target`.
fn write(peer: &RemoteProcess, target: u64, message: &[IoSlice<'_>], mut wanted: Range<usize>) -> Result<(), Errno> {
    while !wanted.is_empty() {
        let mut local = [IoSlice::new(&[]); RANGES];
        let count = parts::own(message, wanted.clone(), &mut local);
        match peer.writev(&local[..count], &[range(target.wrapping_add(wanted.start as u64), wanted.len())]) {
            Ok(0) => return Err(Errno::EFAULT),
            Ok(written) => wanted.start += written,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn range(address: u64, len: usize) -> RemoteIoVec {
    RemoteIoVec { base: address as usize, len }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::atomic::spin_loop;
    use crate::memory::buffer::Buffer;

    #[test]
    fn units_that_a_receiver_cannot_ask_for_are_refused() {
        let own = RemoteProcess::open(std::process::id()).unwrap();
        let desk = Desk::default();
        for unit_bytes in [0, 1, UNIT_BYTES as u64 - 1] {
            desk.unit_bytes.store(unit_bytes, Ordering::Relaxed);
            assert_eq!(help(&own, &desk, End::Back, &[IoSlice::new(&[1; 100])], 100, None), Err(Errno::EINVAL));
        }
        // At address 8 there is nothing.
        desk.target.store(8, Ordering::Relaxed);
        for unit_bytes in [UNIT_BYTES as u64, u64::MAX] {
            desk.unit_bytes.store(unit_bytes, Ordering::Relaxed);
            desk.claims.claimed.store(0, Ordering::Relaxed);
            assert_eq!(help(&own, &desk, End::Back, &[IoSlice::new(&[1; 100])], 100, None), Err(Errno::EFAULT));
        }
    }

    /// Its receiver has gone on alone, and the buffer is no more.
    #[test]
    fn a_sender_that_is_late_is_refused_nothing() {
        const BYTES: usize = 64 << 20;
        let own = RemoteProcess::open(std::process::id()).unwrap();
        let (desk, message, buffer) = (Desk::default(), vec![1; BYTES], Buffer::warm(BYTES).unwrap());
        Cut::new(BYTES, Share::half()).write_to(&desk);
        desk.target.store(buffer.base().as_ptr().expose_provenance() as u64, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| help(&own, &desk, End::Front, &[IoSlice::new(&message)], BYTES, None));
            while desk.claims.finished.load(Ordering::Acquire) == 0 {
                spin_loop();
            }
            desk.target.store(TAKEN_AWAY, Ordering::Relaxed);
            buffer.retire();
            assert_eq!(sender.join().unwrap(), Ok(()));
        });
    }
}
