//! Landings: memory of a receiver for messages that both sides copy, which its sender has mapped as well.
//!
//! A sender that writes there needs no system call for that, and stores take half the time of the kernel's copy between processes. The
//! receiver makes such memory once it has seen that the sender does its part, passes it as it passes what is
//! [registered](super::registered), and names the place for a message at the [desk](super::desk). It goes on by process_vm_readv(2)
//! itself. A sender that cannot map it writes there by process_vm_writev(2), as into any other buffer.
//!
//! A sender of a stream writes whole messages there without being asked: see [`berths`](super::berths). What comes through the ring is copied
//! there too, by the receiver, where places are left over: messages that are kept need no memory of both kinds.
//!
//! A message that is sent back from where it has landed lies in memory that its receiver has mapped: that copies it without calls, too.
//!
//! The memory is cut from arenas: each as large as all before it, so that a few registrations are enough. A message gives its place
//! back when it is dropped; an arena in which none is left goes when the process keeps more than
//! [`pool_limit_bytes`] of unused ones.
//!
//! The first one has room for all berths behind that for messages: whether a stream goes to berths depends on where the processors are, and
//! may begin after hours. Messages of one size took 2 MiB until then, and 6 from then on, with berths and messages between each other.
//!
//! A place at which the sender may still be writing, since the receiver could not wait for it any longer, is used again when that sender sends
//! something else: by then it has done what it had begun. If it never does, the place is given up for good.
//!
//! **Who may write.** Only a sender of the same user that may write all memory of this process in any case, by the policies of both
//! and as it has shown: the receiver makes no landing for another one. It can write to a message that was received, as it could by
//! process_vm_writev(2).
//!
//! **Forks.** A child made by fork(2) has the messages that its parent had. Their memory is shared with the parent, so nothing else
//! arrives in an arena of which a child may have a part: the next message makes another one.
//!
//! # Safety
//!
//! A [`Landing`] is the only owner of its range of the arena, from when that is taken until it is given back. Who else may write it is
//! said above; the bytes are initialised, since the memory begins as zeros.
#![expect(unsafe_code, reason = "lends out parts of shared memory")]

use std::mem;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::berths::{BERTH_BYTES, BERTHS_BYTES};
use super::extents::Extents;
use super::helper::{Helper, draw_near};
use super::link::Link;
use super::message::Body;
use super::registered::{Registration, Spot, Stores, Use};
use crate::Result;
use crate::memory::anonymous::registered::{Children, Own, Rights};
use crate::memory::buffer::{Buffer, HUGE_BYTES, give_back, pool_limit_bytes};
use crate::memory::nonce::Nonce;
use crate::process::own_id;

/// How much of it the sender maps: what all arenas of one direction have together, and the longest message that lands.
pub(super) const MOST_BYTES: usize = 256 << 20;
/// How many messages the sender has to have helped with. The first ones of a channel are not delayed.
pub(super) const HELPED_MESSAGES: u64 = 2;
/// An arena is worth its while when messages of so many times its length have landed in it: to make it takes as long as to copy as much,
/// 8 ms for 128 MiB, and five times as long and more where a virtual machine has to get the memory first. When one ends before, or there
/// could be none, messages of what is missing do without a new one.
const WORTH: u64 = 16;
/// Where landings begin and end: on pages of any machine.
pub(super) const GRAIN_BYTES: usize = 64 << 10;

/// How much of all arenas that can be used again is unused, and above that the number of the process for which that is so: a child made by
/// fork uses none of its parent's again.
static UNUSED: AtomicU64 = AtomicU64::new(0);
const BYTES_BITS: u32 = 42;

fn unused_bytes() -> usize {
    (UNUSED.load(Ordering::Relaxed) & ((1 << BYTES_BITS) - 1)) as usize
}

/// Before this process counts anything.
fn begin_to_count() {
    let own = u64::from(own_id());
    let is_others = |counted: u64| (counted >> BYTES_BITS != own).then_some(own << BYTES_BITS);
    let _ = UNUSED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_others);
}

/// The arenas of a receiver.
#[derive(Debug, Default)]
pub(super) struct Landings {
    arenas: Vec<Arc<Arena>>,
    /// Those where nothing arrives any more: the sender has them mapped while messages are there.
    ended: Vec<Weak<Arena>>,
    /// A place to which the sender may still be writing.
    torn: Option<Torn>,
    /// How many bytes of messages do without a new arena.
    pause: u64,
}

impl Landings {
    /// A place for a message of `bytes`, if its sender is one that should have it mapped, and there can be one.
    pub(super) fn take(&mut self, link: &Link, bytes: usize, helper: &Helper) -> Option<Landing> {
        let wanted = bytes.max(1).next_multiple_of(GRAIN_BYTES);
        self.find_or_add(link, wanted, helper, u64::MAX, |arena| Landing::take(arena, wanted, bytes))
    }

    /// A berth, where messages of `streamed` bytes in all could have come to berths until now, had there been any: no more memory is taken
    /// for them than is worth its while.
    pub(super) fn take_berth(&mut self, link: &Link, helper: &Helper, streamed: u64) -> Option<Landing> {
        self.find_or_add(link, BERTH_BYTES, helper, streamed, Landing::take_berth)
    }

    fn find_or_add(
        &mut self,
        link: &Link,
        wanted: usize,
        helper: &Helper,
        streamed: u64,
        take: impl Fn(&Arc<Arena>) -> Option<Landing>,
    ) -> Option<Landing> {
        if !link.is_open || helper.helped < HELPED_MESSAGES || wanted > MOST_BYTES {
            return None;
        }
        self.end_useless();
        let found = self.arenas.iter().find_map(&take);
        found.or_else(|| take(&self.add(link, wanted, streamed)?))
    }

    /// Gives up the place of a message, to which its sender may still be writing.
    pub(super) fn give_up(&mut self, place: Body) {
        match place {
            Body::Landing(landing) => self.torn = Some(Torn(Some(landing))),
            buffer @ Body::Buffer(_) => buffer.retire(),
        }
    }

    /// The sender has sent something behind what it may have been writing.
    #[inline]
    pub(super) fn goes_on(&mut self) {
        if let Some(mut torn) = self.torn.take() {
            drop(torn.0.take());
        }
    }

    /// Memory for a message that this side copies: a place that is left over, where there is one.
    pub(super) fn room(&mut self, bytes: usize) -> Result<Body> {
        let may_be = bytes >= GRAIN_BYTES && !self.arenas.is_empty() && unused_bytes() >= bytes;
        let wanted = bytes.next_multiple_of(GRAIN_BYTES);
        let mut arenas = self.arenas.iter().filter(|_| may_be);
        let landing = arenas.find_map(|arena| Landing::take(arena, wanted, bytes));
        landing.map_or_else(|| Buffer::warm(bytes).map(Body::Buffer), |landing| Ok(Body::Landing(landing)))
    }

    fn end_useless(&mut self) {
        let Self { arenas, ended, pause, .. } = self;
        arenas.retain(|arena| {
            let is_of_use = arena.is_of_use(unused_bytes() > pool_limit_bytes());
            if !is_of_use {
                ended.push(Arc::downgrade(arena));
                // Perhaps the next one would end as soon: where there is a fork for each message, or no time for the sender.
                *pause = pause.saturating_add(arena.missing_bytes());
            }
            is_of_use
        });
    }

    #[cold]
    fn add(&mut self, link: &Link, wanted: usize, streamed: u64) -> Option<Arc<Arena>> {
        let (bytes, messages_bytes) = self.new_bytes(wanted)?;
        if WORTH * (self.open_bytes() + bytes) as u64 > streamed {
            return None;
        }
        self.pause = self.pause.saturating_sub(wanted as u64);
        if self.pause > 0 {
            return None;
        }
        // What lands needs no buffer. A virtual machine that gets memory back at once need not ask its host for other pages.
        give_back(bytes);
        let arena = Arena::new(link, bytes, messages_bytes).map(Arc::new);
        match &arena {
            Some(arena) => self.arenas.push(Arc::clone(arena)),
            None => self.pause = WORTH * bytes as u64,
        }
        arena
    }

    /// How long an arena with room for `wanted` bytes should be, and how much of it is for messages: as all others together, or a half, a
    /// quarter and so on of that, as long as it may. None that would have to go as soon as its message does.
    fn new_bytes(&mut self, wanted: usize) -> Option<(usize, usize)> {
        begin_to_count();
        let (all, ended) = (self.open_bytes(), self.ended_bytes());
        let unused = unused_bytes();
        let fits = |bytes: &usize| ended + all + bytes <= MOST_BYTES && unused + bytes <= pool_limit_bytes();
        let first = (wanted + BERTHS_BYTES).next_multiple_of(HUGE_BYTES);
        if self.arenas.iter().all(|arena| arena.messages_bytes == arena.bytes) && fits(&first) {
            return Some((first, first - BERTHS_BYTES));
        }
        let there: usize = self.arenas.iter().map(|arena| arena.messages_bytes).sum();
        let least = wanted.next_multiple_of(HUGE_BYTES);
        // Few large ones: a receiver that keeps 128 MiB had used up the places for them with those of 2 MiB.
        let most = least.max(there.next_multiple_of(HUGE_BYTES));
        let lengths = std::iter::successors(Some(most), |bytes| {
            (*bytes > least).then(|| (bytes / 2).next_multiple_of(HUGE_BYTES).max(least))
        });
        lengths.into_iter().find(fits).map(|bytes| (bytes, bytes))
    }

    fn open_bytes(&self) -> usize {
        self.arenas.iter().map(|arena| arena.bytes).sum()
    }

    fn ended_bytes(&mut self) -> usize {
        self.ended.retain(|arena| arena.strong_count() > 0);
        self.ended.iter().filter_map(Weak::upgrade).map(|arena| arena.bytes).sum()
    }
}

impl Drop for Landings {
    fn drop(&mut self) {
        for arena in self.arenas.drain(..) {
            match arena.owner.is_intact() {
                true => arena.close(),
                // What its parts are registered in may be locked for good.
                false => mem::forget(arena),
            }
        }
    }
}

/// Memory that the sender was passed.
#[derive(Debug)]
struct Arena {
    base: NonNull<u8>,
    bytes: usize,
    /// How much of it messages take. Behind that is room for berths.
    messages_bytes: usize,
    number: Spot,
    /// Is there in the process that made it, and in no child of it.
    owner: Nonce,
    state: Mutex<State>,
}

// SAFETY: the memory belongs to the process, not to a thread; `base` is reached through landings, each the only owner of its part.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

#[derive(Debug)]
struct State {
    /// `None` once there is no use for it.
    memory: Option<Memory>,
    free: Extents,
    free_bytes: usize,
    landed_bytes: u64,
    /// How much of it is counted as unused: nothing when no more messages will come.
    counted: Option<usize>,
    /// Whether a sender may still write to a part that was given up.
    is_torn: bool,
}

/// Fields are dropped in this order: the place is free when the memory says that its registration is over.
#[derive(Debug)]
struct Memory {
    _site: Site,
    own: Own,
    _registration: Registration,
}

impl Arena {
    fn new(link: &Link, bytes: usize, messages_bytes: usize) -> Option<Self> {
        let owner = Nonce::draw().ok()?;
        let (own, fd) = Own::create(bytes, Rights::ReadWrite, Children::With).ok()?;
        let registration = Registration::of(link, &own, &fd, Use::Landing).ok()?;
        let (base, number) = (own.base(), registration.spot(0));
        let site = Site::new(&link.sites, base.as_ptr().addr()..base.as_ptr().addr() + bytes, number);
        let mut state = State {
            memory: Some(Memory { _site: site, own, _registration: registration }),
            free: Extents::new(bytes),
            free_bytes: bytes,
            landed_bytes: 0,
            counted: Some(0),
            is_torn: false,
        };
        state.count();
        Some(Self { base, bytes, messages_bytes, number, owner, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a message may arrive there; `is_too_much` is whether what is empty should go.
    fn is_of_use(&self, is_too_much: bool) -> bool {
        let mut state = self.state();
        let is_empty = state.free_bytes == self.bytes;
        let is_of_use = state.is_open() && !(is_too_much && is_empty);
        if !is_of_use {
            state.close();
        }
        is_of_use
    }

    /// What has not landed in it that should have.
    fn missing_bytes(&self) -> u64 {
        (WORTH * self.bytes as u64).saturating_sub(self.state().landed_bytes)
    }

    /// No more messages arrive there.
    fn close(&self) {
        self.state().close();
    }
}

impl State {
    /// Whether messages may arrive there, and no child has a copy of what lay in parts that are free now.
    fn is_open(&self) -> bool {
        self.counted.is_some() && self.memory.as_ref().is_some_and(|memory| !memory.own.has_heirs())
    }

    /// Counts what is unused as it is now.
    fn count(&mut self) {
        if let Some(counted) = &mut self.counted {
            let before = mem::replace(counted, self.free_bytes);
            // Wraps round and back where it grows less.
            UNUSED.fetch_add((self.free_bytes as u64).wrapping_sub(before as u64), Ordering::Relaxed);
        }
    }

    fn close(&mut self) {
        if let Some(counted) = self.counted.take() {
            UNUSED.fetch_sub(counted as u64, Ordering::Relaxed);
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.close();
        if self.is_torn {
            self.memory.take().into_iter().for_each(|memory| memory.own.retire());
        }
    }
}

/// Where the arenas of one side of a channel are.
#[derive(Debug, Default)]
pub(super) struct Sites(Mutex<Vec<(Range<usize>, Spot)>>);

impl Sites {
    fn all(&self) -> MutexGuard<'_, Vec<(Range<usize>, Spot)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the other side knows `message` by, if that is what has landed here.
    pub(super) fn spot(&self, message: &[u8]) -> Spot {
        let Range { start, end } = message.as_ptr_range();
        let (start, end) = (start.addr(), end.addr());
        let sites = self.all();
        let site = sites.iter().find(|(range, _)| range.start <= start && end <= range.end);
        site.map_or(Spot::NOWHERE, |(range, spot)| Spot { offset: (start - range.start) as u64, ..*spot })
    }
}

/// An entry of [`Sites`].
#[derive(Debug)]
struct Site {
    sites: Arc<Sites>,
    start: usize,
}

impl Site {
    fn new(sites: &Arc<Sites>, range: Range<usize>, spot: Spot) -> Self {
        let start = range.start;
        sites.all().push((range, spot));
        Self { sites: Arc::clone(sites), start }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.sites.all().retain(|(range, _)| range.start != self.start);
    }
}

/// The place for a message, and the message.
#[derive(Debug)]
pub(super) struct Landing {
    arena: Arc<Arena>,
    range: Range<usize>,
    bytes: usize,
}

impl Landing {
    fn take(arena: &Arc<Arena>, wanted: usize, bytes: usize) -> Option<Self> {
        Self::take_within(arena, &(0..arena.messages_bytes), wanted, bytes)
    }

    /// Where there is room for berths, or else for messages.
    fn take_berth(arena: &Arc<Arena>) -> Option<Self> {
        let parts = [arena.messages_bytes..arena.bytes, 0..arena.messages_bytes];
        parts.iter().find_map(|part| Self::take_within(arena, part, BERTH_BYTES, BERTH_BYTES))
    }

    fn take_within(arena: &Arc<Arena>, part: &Range<usize>, wanted: usize, bytes: usize) -> Option<Self> {
        let mut state = arena.state();
        // Under the lock: another thread that drops a message may end the arena, and what it gives back a child may have had.
        let range = if state.is_open() { state.free.take_within(part, wanted)? } else { return None };
        state.free_bytes -= range.len();
        state.landed_bytes += range.len() as u64;
        state.count();
        Some(Self { arena: Arc::clone(arena), range, bytes })
    }

    /// The first byte. Valid for as long as the landing, wherever that is moved.
    pub(super) fn base(&self) -> NonNull<u8> {
        // SAFETY: within the arena's memory, which stays while there is a landing in it.
        unsafe { self.arena.base.add(self.range.start) }
    }

    /// What the sender knows it by.
    pub(super) fn spot(&self) -> Spot {
        Spot { offset: self.range.start as u64, ..self.arena.number }
    }

    /// Cuts off a message of `bytes` in front, which takes `room`, if that is left.
    pub(super) fn cut(&mut self, bytes: usize, room: usize) -> Option<Self> {
        if bytes == 0 || bytes > room || room > self.range.len() {
            return None;
        }
        let range = self.range.start..self.range.start + room;
        self.range.start = range.end;
        self.bytes = self.range.len();
        Some(Self { arena: Arc::clone(&self.arena), range, bytes })
    }

    /// Gives it up for good, since a sender may still write there. Its neighbours stay, and nothing else arrives beside them.
    pub(super) fn retire(mut self) {
        let mut state = self.arena.state();
        state.is_torn = true;
        state.close();
        drop(state);
        self.range = 0..0;
    }
}

/// The place of a message to which its sender may still be writing, until that is known to have gone on.
#[derive(Debug)]
struct Torn(Option<Landing>);

impl Drop for Torn {
    fn drop(&mut self) {
        match self.0.take() {
            Some(landing) if landing.arena.owner.is_intact() => landing.retire(),
            // A child's copy.
            landing => drop(landing),
        }
    }
}

impl Deref for Landing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many initialised bytes that this landing owns; who else may write there is said at the head of the file.
        unsafe { std::slice::from_raw_parts(self.base().as_ptr(), self.bytes) }
    }
}

impl DerefMut for Landing {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the unique borrow of `self` makes it the only reference of this process.
        unsafe { std::slice::from_raw_parts_mut(self.base().as_ptr(), self.bytes) }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.arena.owner.is_intact() {
            // A child's copy: its parent's arena is not to be touched, and may be locked for good.
            mem::forget(Arc::clone(&self.arena));
            return;
        }
        if self.range.is_empty() {
            return;
        }
        let mut state = self.arena.state();
        state.free.give(self.range.clone());
        state.free_bytes += self.range.len();
        state.count();
        let is_surplus =
            state.free_bytes == self.arena.bytes && state.counted.is_some() && unused_bytes() > pool_limit_bytes();
        let surplus = is_surplus.then(|| {
            state.close();
            state.memory.take()
        });
        drop(state);
        // It takes a while.
        drop(surplus);
    }
}

/// Where a sender's last messages went.
#[derive(Debug, Default)]
pub(super) struct Targets {
    latest: [Spot; TARGETS],
    next: usize,
    long: LongBuffers,
}

/// A receiver that keeps a few messages at a time uses their memory in turns.
const TARGETS: usize = 4;
/// From how many bytes on what is written is in no cache when it is written again, or read. Measured bare, hot, the best parts of both, in
/// ms: 16 MiB by ordinary stores 0.68 and past the caches 0.52, 4 MiB 0.14 and 0.11 where a cache-line round trip takes 500 ns, 0.069
/// and 0.11 where it takes 120.
const UNCACHED_BYTES: usize = 8 << 20;

impl Targets {
    /// How to write a message of `bytes` to `spot`. Where nothing was written lately it is in no cache, and to fetch it only to overwrite it
    /// takes as long as the copy: streams over 128 MiB go by both at 1.4 to 1.5 times memcpy, and past the caches at 1.8.
    fn stores(&mut self, spot: Spot, bytes: usize) -> Stores {
        let is_warm = self.latest.contains(&spot);
        if !is_warm {
            self.latest[self.next] = spot;
            self.next = (self.next + 1) % TARGETS;
        }
        match is_warm {
            true if LongBuffers::are_at(spot, bytes) => self.long.stores(),
            // What the user registers both copy, and each has its part in its cache.
            true if bytes < UNCACHED_BYTES || spot.is_buffer() => Stores::Ordinary,
            _ => Stores::PastCaches,
        }
    }

    /// Has `copy` copy a message of `bytes` to `spot` by what [`Targets::stores`] says, and keeps in mind how long it takes where that
    /// depends on it.
    pub(super) fn copy<T>(&mut self, spot: Spot, bytes: usize, copy: impl FnOnce(Stores) -> T) -> T {
        let stores = self.stores(spot, bytes);
        if !LongBuffers::are_at(spot, bytes) {
            return copy(stores);
        }
        let begun = Instant::now();
        let copied = copy(stores);
        self.long.learn(stores, bytes, begun.elapsed());
        copied
    }
}

/// What is known of messages into registered buffers that are so long that the caches may not hold both sides' parts.
///
/// Whether they do depends on the machine, and on whether the two processors have one last cache: 16 MiB take 1.40 ms by ordinary stores of
/// the sender and 1.09 past the caches where two cores share 32 MiB, and 1.15 and 0.68 where each has as much to itself; there a cache-line
/// round trip takes 130 and 540 ns. Elsewhere ordinary stores were the faster ones. So the sender measures both again and again.
#[derive(Debug, Default)]
struct LongBuffers {
    /// In picoseconds for a byte, by ordinary stores and past the caches. 0 is not measured yet.
    times: [u64; 2],
    messages: u32,
}

/// From how many bytes on they are that long. With a pass that reads them afterwards, 8 MiB take twice as long past the caches of 32 MiB as
/// by ordinary stores, and 16 MiB as long or less: 2.2 to 2.4 ms, and 2.4 to 2.6.
const LONG_BUFFER_BYTES: usize = 16 << 20;
/// Of so many messages the first ones go the other way.
const LONG_TRIAL: u32 = 64;
/// As many as that: the first one finds in the caches what the way before left there, and tells nothing.
const LONG_TRIALS: u32 = 2;

impl LongBuffers {
    fn are_at(spot: Spot, bytes: usize) -> bool {
        spot.is_buffer() && bytes >= LONG_BUFFER_BYTES
    }

    fn stores(&self) -> Stores {
        let [ordinary, past_caches] = self.times;
        let is_trial = self.messages % LONG_TRIAL < LONG_TRIALS;
        match (ordinary <= past_caches) != is_trial {
            true => Stores::Ordinary,
            false => Stores::PastCaches,
        }
    }

    fn learn(&mut self, stores: Stores, bytes: usize, took: Duration) {
        let before = self.messages % LONG_TRIAL;
        self.messages = self.messages.wrapping_add(1);
        if before != 0 && before != LONG_TRIALS {
            draw_near(&mut self.times[stores as usize], bytes, took);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::{Channel, Deadline};

    fn pair() -> (Channel, Channel) {
        let (parent, end) = Channel::pair().unwrap();
        std::thread::scope(|scope| {
            let child = scope.spawn(|| Channel::adopt_by(end.as_raw_fd(), Deadline::Never).unwrap());
            let parent = parent.accept_by(Deadline::Never).unwrap();
            (parent, child.join().unwrap())
        })
    }

    /// An arena and two places in it. Other tests of this process fork at any time.
    fn places(link: &Link) -> (Arc<Arena>, [Landing; 2]) {
        let places = || {
            let arena = Arc::new(Arena::new(link, HUGE_BYTES, HUGE_BYTES)?);
            let take = || Landing::take(&arena, GRAIN_BYTES, 5);
            let places = [take()?, take()?];
            Some((arena, places))
        };
        (0..16).find_map(|_| places()).expect("an arena")
    }

    /// The exit status of a child that does this, which needs no lock.
    fn status_of_child(work: impl FnOnce() -> bool) -> Option<i32> {
        // SAFETY: the child does what needs no other thread, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let done = work();
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(!done)) };
        }
        let pid = rustix::process::Pid::from_raw(child);
        let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        status.exit_status()
    }

    #[test]
    fn an_arena_gives_no_more_places_once_it_is_closed_or_a_child_may_have_it() {
        let (one, _other) = pair();
        let ends: [fn(&Arena); 2] = [Arena::close, |_| assert_eq!(status_of_child(|| true), Some(0))];
        for end in ends {
            let (arena, [kept, given_back]) = places(&one.receiver.link);
            end(&arena);
            drop(given_back);
            assert!(Landing::take(&arena, GRAIN_BYTES, 5).is_none());
            assert_eq!(kept[..], [0; 5]);
        }
    }

    #[test]
    fn a_place_that_was_given_up_is_not_given_again_and_its_neighbour_stays() {
        let (one, _other) = pair();
        let (arena, [kept, torn]) = places(&one.receiver.link);
        torn.retire();
        assert!(Landing::take(&arena, GRAIN_BYTES, 5).is_none() && !arena.is_of_use(false));
        assert_eq!(kept[..], [0; 5]);
        drop(kept);
        assert!(Landing::take(&arena, GRAIN_BYTES, 5).is_none() && arena.state().free_bytes < arena.bytes);
    }

    #[test]
    fn a_place_that_was_given_up_is_given_again_once_the_sender_goes_on() {
        let (one, _other) = pair();
        let (arena, [_kept, torn]) = places(&one.receiver.link);
        let spot = torn.spot();
        let mut landings = Landings::default();
        landings.give_up(Body::Landing(torn));
        let next = || Landing::take(&arena, GRAIN_BYTES, 5).map(|place| place.spot());
        assert!(next().is_some_and(|next| next != spot));
        landings.goes_on();
        assert_eq!(next(), Some(spot));
        // And never if that does not come.
        landings.give_up(Body::Landing(Landing::take(&arena, GRAIN_BYTES, 5).unwrap()));
        drop(landings);
        assert!(next().is_none() && arena.state().is_torn);
    }

    #[test]
    fn berths_leave_room_for_messages_and_messages_for_berths() {
        let (one, _other) = pair();
        let bytes = BERTH_BYTES + BERTHS_BYTES;
        let filled = || {
            let arena = Arc::new(Arena::new(&one.receiver.link, bytes, BERTH_BYTES)?);
            let message = Landing::take(&arena, BERTH_BYTES, 5)?;
            let berths: Vec<_> = std::iter::from_fn(|| Landing::take_berth(&arena)).collect();
            (berths.len() == BERTHS_BYTES / BERTH_BYTES).then_some((arena, message, berths))
        };
        let (arena, message, mut berths) = (0..16).find_map(|_| filled()).expect("an arena");
        assert!(Landing::take(&arena, GRAIN_BYTES, 5).is_none());
        berths.clear();
        assert!(Landing::take(&arena, GRAIN_BYTES, 5).is_none(), "there will be others");
        drop(message);
        assert!(Landing::take(&arena, GRAIN_BYTES, 5).is_some_and(|place| place.spot().offset == 0));
    }

    #[test]
    fn an_arena_that_would_go_with_its_message_is_not_made() {
        let (one, _other) = pair();
        let mut landings = Landings::default();
        assert!(landings.add(&one.receiver.link, pool_limit_bytes() + 1, u64::MAX).is_none());
        assert_eq!(landings.pause, 0, "it is not for want of memory");
    }

    #[test]
    fn what_the_sender_still_has_mapped_counts_though_nothing_arrives_there() {
        let (one, _other) = pair();
        let (arena, places) = places(&one.receiver.link);
        let mut landings = Landings::default();
        landings.arenas.push(arena);
        assert_eq!((landings.open_bytes(), landings.ended_bytes()), (HUGE_BYTES, 0));
        landings.arenas[0].close();
        landings.end_useless();
        assert_eq!((landings.open_bytes(), landings.ended_bytes()), (0, HUGE_BYTES));
        drop(places);
        assert_eq!(landings.ended_bytes(), 0);
    }

    #[test]
    fn into_long_buffers_the_faster_stores_are_taken_and_the_others_tried_now_and_then() {
        let mut long = LongBuffers::default();
        let mut run = |times: [u64; 2]| {
            let mut taken = [0; 2];
            for _ in 0..10 * LONG_TRIAL {
                let stores = long.stores();
                taken[stores as usize] += 1;
                long.learn(stores, LONG_BUFFER_BYTES, Duration::from_micros(times[stores as usize]));
            }
            taken
        };
        let rare = 10 * LONG_TRIALS as usize - 2..=10 * LONG_TRIALS as usize + 2;
        assert!(rare.contains(&run([1400, 1090])[0]));
        run([700, 1090]);
        assert!(rare.contains(&run([700, 1090])[1]), "after the processors have moved");
    }

    #[test]
    fn a_child_does_not_count_what_its_parent_has_unused() {
        let (one, _other) = pair();
        begin_to_count();
        let _places = places(&one.receiver.link);
        assert!(unused_bytes() >= HUGE_BYTES - 2 * GRAIN_BYTES);
        let counts_none = || {
            begin_to_count();
            unused_bytes() == 0
        };
        assert_eq!(status_of_child(counts_none), Some(0));
    }
}
