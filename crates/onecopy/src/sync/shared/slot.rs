//! An object in its place: found, waited for, or created once.
//!
//! # The state word
//!
//! | Value | Meaning | Who sets it |
//! |---|---|---|
//! | 0 | nothing is there | fresh memory; whoever failed to create |
//! | an [`Identity`] | that process creates the object | it, by compare-and-swap from 0, or from the identity of a dead one |
//! | [`READY`] | the object can be used | its creator, with Release; whoever uses it has loaded that with Acquire |
//! | [`BROKEN`] | a death has left the object in a state that nobody can repair | whoever finds out |
//!
//! # Safety
//!
//! A [`Slot`] keeps its region mapped, whose first `offset + total` bytes it has checked. Those who can write them are trusted
//! (see [`Place`]), and nothing else of this process does, for as long as `occupied` lives. Its pointers are valid for as long as it
//! does.
#![expect(unsafe_code, reason = "points to words and objects in shared memory")]

use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::header::{Header, MAGIC, PAYLOAD_OFFSET, STATE_OFFSET, Spec};
use super::{HEADER_BYTES, Place};
use crate::memory::Region;
use crate::memory::occupied::{Conflict, Occupied, Use};
use crate::process::{Identity, Watch};
use crate::sync::overdue::{self, Reset};
use crate::{Deadline, Error, Result};

const EMPTY: u64 = 0;
/// No identity: those have a pid in their low bits.
pub(super) const READY: u64 = 1 << 63;
pub(super) const BROKEN: u64 = 1 << 62;
/// Between two looks at an object that another process creates.
const PAUSE: Duration = Duration::from_millis(1);

/// What to do with an object that is there, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It must not be there.
    Create,
    /// It must be there, or appear.
    Attach,
    Either,
}

/// What is in a place.
enum Found {
    Nothing,
    Unfinished { creator: u32, dead: bool },
    Object,
}

/// An object of one of the kinds, in shared memory.
#[derive(Debug)]
pub(crate) struct Slot {
    /// That this process uses it. Before the memory, whose inode is another one's as soon as it has gone.
    occupied: Option<Occupied>,
    region: Arc<Region>,
    offset: usize,
    name: String,
    detail: u32,
}

impl Slot {
    /// Finds the object that `spec` tells, or makes it with `init`, as `wish` says, waiting until `deadline` for others.
    ///
    /// `init` gets a slot whose object and payload are zeros that nobody else uses.
    pub(crate) fn open(
        place: &Place,
        spec: &Spec,
        wish: Wish,
        deadline: Deadline,
        init: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        let mut slot = Self::at(place, spec)?;
        let own = Identity::current().map_err(|error| Error::os("stat", "/proc/self", error))?;
        let mut watch = Watch::new(own);
        loop {
            // Before the look at what is there: nothing else of this process changes it from then on.
            let occupied = slot.occupy(spec)?;
            let state = slot.state().load(Ordering::Acquire);
            let missing = match slot.look(state, &mut watch)? {
                Found::Object => {
                    let mut slot = slot.verified(spec, wish)?;
                    slot.occupied = Some(occupied.map_err(|conflict| slot.overlap(spec, &conflict))?);
                    return Ok(slot);
                }
                Found::Nothing if wish == Wish::Attach => slot.invalid("nothing is there: create it first"),
                Found::Unfinished { dead: true, creator } if wish == Wish::Attach => {
                    return Err(
                        slot.invalid(&format!("process {creator} has died while it created it: create it anew"))
                    );
                }
                Found::Nothing | Found::Unfinished { dead: true, .. } => {
                    let occupied = occupied.map_err(|conflict| slot.overlap(spec, &conflict))?;
                    if (state != EMPTY || slot.is_blank(spec)?) && slot.claim(state, own) {
                        slot.occupied = Some(occupied);
                        return slot.made(spec, init);
                    }
                    continue;
                }
                Found::Unfinished { creator, .. } => slot.invalid(&format!("process {creator} still creates it")),
            };
            // Another thread may create it.
            drop(occupied);
            if !pause(deadline) {
                let waited = matches!(deadline, Deadline::At(_));
                return Err(if waited { Error::out_of_time("attach", &slot.name, deadline) } else { missing });
            }
        }
    }

    /// What is there, by its state.
    fn look(&self, state: u64, watch: &mut Watch) -> Result<Found> {
        match (state, Identity::from_bits(state)) {
            (READY | BROKEN, _) => Ok(Found::Object),
            (EMPTY, _) => Ok(Found::Nothing),
            (_, None) => Err(self.foreign()?),
            (_, Some(creator)) => {
                self.check_unfinished()?;
                Ok(Found::Unfinished { creator: creator.pid(), dead: watch.is_gone(creator) })
            }
        }
    }

    fn at(place: &Place, spec: &Spec) -> Result<Self> {
        let (region, offset) = (place.region(), place.offset());
        let name = match offset {
            0 => format!("{}:{}", spec.kind.scheme(), region.object()),
            _ => format!("{}:{} at byte {offset}", spec.kind.scheme(), region.object()),
        };
        let wanted = spec.total_bytes();
        if wanted > region.len() - offset {
            let reason = format!("{} needs {wanted} bytes, and {} are there", spec.kind, region.len() - offset);
            return Err(Error::Invalid { object: name, reason });
        }
        region.secure(offset + wanted)?;
        Ok(Self { region: Arc::clone(region), offset, name, detail: 0, occupied: None })
    }

    /// Says that this process uses the object. Another one that begins where it does is left to the look at its header; one that
    /// begins elsewhere is an error.
    fn occupy(&self, spec: &Spec) -> Result<Result<Occupied, Conflict>> {
        let range = self.offset..self.offset + spec.total_bytes();
        match self.region.occupy(&range, Use::Lock(spec.kind.name())) {
            Err(conflict) if conflict.range.start != self.offset => Err(self.overlap(spec, &conflict)),
            occupied => Ok(occupied),
        }
    }

    fn overlap(&self, spec: &Spec, conflict: &Conflict) -> Error {
        self.invalid(&conflict.reason(&format!("its {} bytes reach", spec.total_bytes())))
    }

    fn claim(&self, found: u64, own: Identity) -> bool {
        // Acquire: what a dead creator wrote before is overwritten after.
        self.state().compare_exchange(found, own.to_bits(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Makes the object; this process alone may.
    fn made(mut self, spec: &Spec, init: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        self.detail = spec.detail.unwrap_or(0);
        let done = Header::new(spec).and_then(|header| {
            self.write_header(&header)?;
            self.clear(HEADER_BYTES, spec.total_bytes())?;
            init(&self)
        });
        match done {
            // Release: whoever reads it with Acquire sees the header, the object and the payload.
            Ok(()) => self.state().store(READY, Ordering::Release),
            Err(error) => {
                let blank = self
                    .write_header(&Header::new_zeroed())
                    .and_then(|()| self.clear(HEADER_BYTES, spec.total_bytes()));
                if blank.is_ok() {
                    self.state().store(EMPTY, Ordering::Release);
                }
                return Err(error);
            }
        }
        Ok(self)
    }

    /// All but the state. The magic number goes first, in one piece: what stands behind it is then known as ours.
    fn write_header(&self, header: &Header) -> Result<()> {
        let bytes = header.as_bytes();
        let (magic, rest) = (0..MAGIC.len(), MAGIC.len()..STATE_OFFSET);
        self.region.write_occupied_at(self.offset, &bytes[magic])?;
        self.region.write_occupied_at(self.offset + rest.start, &bytes[rest])?;
        let behind = offset_of!(Header, total_bytes);
        self.region.write_occupied_at(self.offset + behind, &bytes[behind..])
    }

    fn clear(&self, from: usize, to: usize) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        (from..to)
            .step_by(ZEROS.len())
            .try_for_each(|at| self.region.write_occupied_at(self.offset + at, &ZEROS[..ZEROS.len().min(to - at)]))
    }

    fn header(&self) -> Result<Header> {
        let mut header = Header::new_zeroed();
        self.region.read_at(self.offset, header.as_mut_bytes())?;
        Ok(header)
    }

    /// Whether all the bytes are zeros in which the object shall lie. An error when something else lies there.
    fn is_blank(&self, spec: &Spec) -> Result<bool> {
        let mut buffer = [0; 4096];
        for at in (0..spec.total_bytes()).step_by(buffer.len()) {
            let part = buffer.len().min(spec.total_bytes() - at);
            self.region.read_at(self.offset + at, &mut buffer[..part])?;
            if let Some(place) = buffer[..part].iter().position(|&byte| byte != 0) {
                // Somebody else may have begun meanwhile.
                return match self.state().load(Ordering::Acquire) {
                    EMPTY => Err(self.corrupt(match self.header()?.foreign() {
                        Some(foreign) if at + place < MAGIC.len() => foreign,
                        _ => format!("its byte {} is {:#04x}, where nothing should be yet", at + place, buffer[place]),
                    })),
                    _ => Ok(false),
                };
            }
        }
        Ok(true)
    }

    /// Refuses what looks like an object that somebody creates and is something else: its header is ours, or not yet written.
    fn check_unfinished(&self) -> Result<()> {
        let mut found = self.header()?;
        found.state = 0;
        if found == Header::new_zeroed() || found.foreign().is_none() { Ok(()) } else { Err(self.foreign()?) }
    }

    fn foreign(&self) -> Result<Error> {
        let header = self.header()?;
        let strange = || format!("its state is {:#x}, which means nothing", header.state);
        Ok(self.corrupt(header.foreign().unwrap_or_else(strange)))
    }

    /// The object is there: is it the one that `spec` tells?
    fn verified(mut self, spec: &Spec, wish: Wish) -> Result<Self> {
        let found = self.header()?;
        if let Some(refusal) = found.refusal(&Header::new(spec)?, spec) {
            return Err(self.corrupt(refusal));
        }
        if wish == Wish::Create {
            return Err(self.invalid("it is there already: attach to it, or remove it first"));
        }
        self.detail = found.detail;
        self.check_whole()?;
        Ok(self)
    }

    /// Fails when a death has left the object in a state that nobody can repair.
    pub(crate) fn check_whole(&self) -> Result<()> {
        if self.state().load(Ordering::Acquire) != BROKEN {
            return Ok(());
        }
        let detail = "a process has died in the middle of an operation on it, or was stopped there for a minute, and no other one \
                      can repair it: remove it, and create it again";
        let detail = detail.to_owned();
        Err(Error::PeerGone { object: self.name.clone(), detail })
    }

    /// Calls `call`, which has a deadline of its own, and makes sure that it ends a second after `due` at the latest (see [`overdue`] for timers that are late), or a
    /// minute later where a process that maps the object is stopped: where the C library still waits for a process that died in the
    /// middle of an operation, the object is declared broken, made anew by
    /// `reset`, and its waiters are woken (see [`overdue`]). So the caller asks [`Slot::check_whole`] afterwards.
    pub(crate) fn watched<R>(&self, due: Instant, reset: Reset, call: impl FnOnce() -> R) -> R {
        let _watching = overdue::watch(due, self.object(), self.state(), BROKEN, reset);
        call()
    }

    /// The state word.
    fn state(&self) -> &AtomicU64 {
        let state = self.pointer(STATE_OFFSET).cast::<AtomicU64>();
        // SAFETY: within the mapping, which lives as long as `self`, and aligned: the region is at a page, the offset a
        // multiple of 64. All who reach it do so atomically, or are trusted not to.
        unsafe { state.as_ref() }
    }

    /// Where the object lies: valid for [`OBJECT_ROOM_BYTES`](super::OBJECT_ROOM_BYTES) bytes while the slot lives, aligned to
    /// 64.
    pub(crate) fn object(&self) -> NonNull<u8> {
        self.pointer(HEADER_BYTES)
    }

    /// Where the payload lies: valid for the bytes of its [`Spec`] while the slot lives, aligned to 64.
    pub(crate) fn payload(&self) -> NonNull<u8> {
        self.pointer(PAYLOAD_OFFSET)
    }

    /// Copies `bytes` to the payload.
    pub(crate) fn write_payload(&self, bytes: &[u8]) -> Result<()> {
        self.region.write_occupied_at(self.offset + PAYLOAD_OFFSET, bytes)
    }

    fn pointer(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: `at` has checked that the region is long enough for the object and its payload behind `self.offset`.
        unsafe { self.region.base().add(self.offset + offset) }
    }

    /// What the object is called in errors.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The parties of a barrier, the protocol of a mutex.
    pub(crate) fn detail(&self) -> u32 {
        self.detail
    }

    /// Keeps the memory mapped, and what lies there as it is, for as long as the process lives.
    pub(crate) fn keep_mapped(&mut self) {
        std::mem::forget((Arc::clone(&self.region), self.occupied.take()));
    }

    fn invalid(&self, reason: &str) -> Error {
        Error::Invalid { object: self.name.clone(), reason: reason.to_owned() }
    }

    fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt { object: self.name.clone(), detail }
    }
}

/// Sleeps a little, unless `deadline` has passed.
fn pause(deadline: Deadline) -> bool {
    if deadline.has_passed() {
        return false;
    }
    std::thread::sleep(deadline.remaining().map_or(PAUSE, |left| left.min(PAUSE)));
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
    use rustix::thread::futex;

    use super::super::Kind;
    use super::*;
    use crate::memory::anonymous::for_children;

    const SPEC: Spec = Spec {
        kind: Kind::Mutex,
        object_bytes: 40,
        payload_bytes: 16,
        payload_align: 8,
        any_payload: false,
        detail: Some(0),
    };
    const WHOLE: [u8; 16] = *b"all of the value";

    fn fill(slot: &Slot) -> Result<()> {
        slot.write_payload(&WHOLE)
    }

    fn value(slot: &Slot) -> [u8; 16] {
        let mut value = [0; 16];
        slot.region.read_at(slot.offset + PAYLOAD_OFFSET, &mut value).unwrap();
        value
    }

    /// A child that creates an object and comes to `middle` in the middle.
    fn creator(place: &Place, middle: impl FnOnce(&Slot)) -> Pid {
        // SAFETY: the child does nothing that depends on other threads.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let made = Slot::open(place, &SPEC, Wish::Create, Deadline::Now, |slot| {
                middle(slot);
                fill(slot)
            });
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(made.is_err())) };
        }
        Pid::from_raw(child).unwrap()
    }

    fn die() {
        kill_process(getpid(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_creator_killed_in_the_middle_is_reported_and_the_next_one_begins_anew() {
        let middles: [fn(&Slot); 3] = [
            |_| die(),
            |slot| {
                slot.write_payload(b"half").unwrap();
                die();
            },
            |slot| {
                slot.write_header(&Header::new_zeroed()).unwrap();
                die();
            },
        ];
        for middle in middles {
            let place = Place::new(for_children(4096).unwrap()).unwrap();
            let child = creator(&place, middle);
            waitpid(Some(child), WaitOptions::empty()).unwrap();
            let attached = Slot::open(&place, &SPEC, Wish::Attach, Deadline::Never, fill).unwrap_err();
            assert!(attached.to_string().contains("has died while it created it"), "{attached}");
            let slot = Slot::open(&place, &SPEC, Wish::Either, Deadline::Now, fill).unwrap();
            assert_eq!(value(&slot), WHOLE);
            let slot = Slot::open(&place, &SPEC, Wish::Attach, Deadline::Now, fill).unwrap();
            assert_eq!(value(&slot), WHOLE);
        }
    }

    #[test]
    fn while_somebody_creates_it_the_others_wait_or_fail() {
        let place = Place::new(for_children(4096).unwrap()).unwrap();
        let child = creator(&place, |_| kill_process(getpid(), Signal::STOP).unwrap());
        waitpid(Some(child), WaitOptions::UNTRACED).unwrap();
        for wish in [Wish::Create, Wish::Attach, Wish::Either] {
            let error = Slot::open(&place, &SPEC, wish, Deadline::Now, fill).unwrap_err();
            assert!(error.to_string().contains("still creates it"), "{error}");
            let (start, wait) = (Instant::now(), Duration::from_millis(10));
            let error = Slot::open(&place, &SPEC, wish, Deadline::after(wait), fill).unwrap_err();
            assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= wait, "{error}");
        }
        kill_process(child, Signal::CONT).unwrap();
        let slot = Slot::open(&place, &SPEC, Wish::Attach, Deadline::Never, fill).unwrap();
        assert_eq!(value(&slot), WHOLE);
        waitpid(Some(child), WaitOptions::empty()).unwrap();
    }

    /// A timer that never comes, as that of a processor that stands still.
    #[test]
    fn an_overdue_call_that_a_wake_up_ends_breaks_nothing() {
        if std::fs::read("/proc/thread-self/syscall").is_err() {
            // Nobody looks then.
            return;
        }
        let place = Place::new(for_children(4096).unwrap()).unwrap();
        let slot = Slot::open(&place, &SPEC, Wish::Create, Deadline::Now, fill).unwrap();
        // SAFETY: mapped while the slot lives, aligned to 64; everybody reaches it atomically.
        let word = unsafe { slot.object().cast::<AtomicU32>().as_ref() };
        let sleep = || futex::wait(word, futex::Flags::empty(), 0, None);
        slot.watched(Instant::now(), |_| Ok(()), sleep).unwrap();
        slot.check_whole().unwrap();
    }

    #[test]
    fn a_creation_that_fails_leaves_nothing() {
        let place = Place::new(for_children(4096).unwrap()).unwrap();
        let refuse = |slot: &Slot| Err(slot.invalid("no"));
        assert!(Slot::open(&place, &SPEC, Wish::Create, Deadline::Now, refuse).is_err());
        Slot::open(&place, &SPEC, Wish::Create, Deadline::Now, fill).unwrap();
    }
}
