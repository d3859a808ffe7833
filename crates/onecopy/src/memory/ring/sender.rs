//! The sending side.

mod near;
mod reach;
mod short;
mod stores;
mod vectored;

use std::sync::Arc;

use near::{Gap, NEAR_BYTES};
use reach::Reach;
use stores::Stores;

use super::bare::BareWords;
use super::layout::{
    BULK, FIRST, Header, INLINE_MESSAGE_BYTES, LAST, OFFER, Record, Ring, SLOTS, STREAMED, whole_lines,
};
use super::{create, layout};
use crate::atomic::{AtomicU32, Ordering, fence};
use crate::memory::Region;
use crate::memory::bell::Bell;
use crate::memory::occupied::Occupied;
use crate::memory::role::{self, Status};
use crate::memory::wait::{Alarm, Wait, arm, is_asleep, wait, wake};
use crate::process::{Identity, Watch};
use crate::{Deadline, Error, Result, Sender, WaitStrategy, tally};

/// For how much of the bulk pages are taken at a time. A channel that no long messages go through needs no more.
const WARMED_BYTES: u64 = 64 << 10;

/// Sends messages through a ring in shared memory.
///
/// A message longer than the ring goes in pieces as the receiver takes them. From its first piece on it is accepted: what does
/// not go before the deadline is kept here, [`Sender::send_by`] returns success, and the rest goes before the next message or
/// in [`Sender::flush_by`]. So a call that fails for want of time has sent nothing. Who sends long messages with a deadline
/// calls `flush_by` before dropping the sender; otherwise the receiver is told of a message whose end never came.
#[derive(Debug)]
pub struct RingSender {
    ring: Ring,
    /// That this process uses the bytes, where others of it may do so too.
    _occupied: Option<Occupied>,
    watch: Watch,
    strategy: WaitStrategy,
    generation: u64,
    /// The number of the next record. Only this side changes it.
    slots: u64,
    /// The position of the next piece in the bulk. Only this side changes it.
    bulk: u64,
    /// Where the receiver was when this side last looked: `slots - SLOTS..=slots`, stale by what it took since.
    slots_taken: u64,
    /// The same for the bulk.
    bulk_taken: u64,
    /// How much of the bulk has pages for sure.
    warm_bytes: u64,
    /// The longest message that stays near, see `near`.
    near_message_bytes: u64,
    /// Whether the next message is likely to be waited for.
    is_awaited: bool,
    /// The part of the bulk through which short messages go.
    near_bytes: u64,
    /// Whether the lines of the next one are asked for in advance.
    asks_ahead: bool,
    reach: Reach,
    /// How many bytes are free for sure where the next short message begins, see `near`.
    near_room_bytes: u64,
    /// What was jumped over last, see `near`.
    gap: Option<Gap>,
    /// What the receiver has left of the bulk begins here, wherever it says that it is before it.
    floor: u64,
    /// The generation of a receiver that was gone before this side attached: to wait for its successor is right.
    absent: u64,
    /// The rest of an accepted message.
    rest: Option<Rest>,
    stores: Stores,
    /// Tells of the end of the receiver's process, where somebody watches it.
    alarm: Option<Arc<Alarm>>,
    /// Tells a receiver that waits for a descriptor.
    bell: Option<Bell>,
    /// Where messages may be bare.
    bare: Option<BareWords>,
}

#[derive(Debug)]
struct Rest {
    bytes: Vec<u8>,
    sent: usize,
    total: u64,
}

impl RingSender {
    /// Becomes the sender of the ring in `region`, which is laid out first if the region is new (all zeros). `deadline` is for
    /// the case that another process is doing that at this moment.
    ///
    /// # Errors
    ///
    /// [`Error::Occupied`] with the process that is the sender already, unless that has exited. [`Error::Corrupt`] for a
    /// region that holds something else. [`Error::Invalid`] for one that is read-only or shorter than
    /// [`MIN_RING_BYTES`](super::MIN_RING_BYTES).
    pub fn attach(region: impl Into<Arc<Region>>, deadline: Deadline) -> Result<Self> {
        let region = region.into();
        let own = Identity::current().map_err(|error| Error::os("open", "/proc/self/stat", error))?;
        let mut watch = Watch::new(own);
        let (ring, occupied) = create::open_occupied(region, &mut watch, deadline)?;
        Self::of(ring, Some(occupied), watch)
    }

    /// Becomes the sender of a ring that is laid out.
    pub(super) fn of(ring: Ring, occupied: Option<Occupied>, mut watch: Watch) -> Result<Self> {
        let roles = &ring.header().roles;
        let generation = role::claim(&roles.sender, "sender", ring.object(), &mut watch)?;
        let receiver = Status::load(&roles.receiver);
        let gone = receiver.is_closed() || role::gone_owner(&roles.receiver, &mut watch).is_some();
        let absent = if gone { receiver.generation() } else { 0 };
        let near_message_bytes = near::message_bytes(&ring);
        let (stores, reach) = (Stores::new(ring.sizes.bulk_bytes), Reach::new(ring.sizes.bulk_bytes));
        let mut sender = Self {
            ring,
            _occupied: occupied,
            watch,
            strategy: WaitStrategy::default(),
            generation,
            slots: 0,
            bulk: 0,
            slots_taken: 0,
            bulk_taken: 0,
            warm_bytes: 0,
            near_message_bytes,
            is_awaited: false,
            near_bytes: NEAR_BYTES,
            asks_ahead: true,
            reach,
            near_room_bytes: 0,
            gap: None,
            floor: 0,
            absent,
            rest: None,
            stores,
            alarm: None,
            bell: None,
            bare: None,
        };
        sender.find_place()?;
        Ok(sender)
    }

    /// Sets how to wait while the ring is full.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.strategy = strategy;
    }

    /// Learns of the end of the receiver's process by `alarm`, instead of looking for it, and reaches one that polls by `bell`. Neither
    /// side has a successor then, so messages may be bare.
    pub(crate) fn set_alarm(&mut self, alarm: Arc<Alarm>, bell: Bell) {
        (self.alarm, self.bell, self.bare) = (Some(alarm), Some(bell), Some(BareWords::new()));
        // Without the pidfd that it may have needed to attach: a channel has one descriptor.
        self.watch = Watch::new(self.watch.own());
    }

    /// Says whether the receiver is likely to wait for the next message, as for an answer: then it goes so that it is there soonest,
    /// which is not how the most of them go in a second.
    #[inline]
    pub(crate) fn set_awaited(&mut self, is_awaited: bool) {
        self.is_awaited = is_awaited;
    }

    /// How much of an accepted message is kept here, since there was no room for it.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.bytes.len() - rest.sent)
    }

    /// Has the receiver ring the bell when there is room. False: there is.
    pub(crate) fn arm(&mut self) -> bool {
        // For what was published without it, see `announce`.
        fence(Ordering::SeqCst);
        wake(&self.ring.header().sleepers.receiver, self.bell.as_ref());
        arm(&self.ring.header().sleepers.sender, || self.has_news())
    }

    /// Whether as much room is free as a receiver gives notice of, or there will be no more.
    fn has_news(&self) -> bool {
        let Header { received, roles, .. } = self.ring.header();
        let slots = self.slots.wrapping_sub(received.slots.load(Ordering::SeqCst));
        let bulk = self.bulk_in_use(received.bulk.load(Ordering::SeqCst));
        let ended = self.alarm.as_ref().is_some_and(|alarm| alarm.is_set());
        self.ring.sizes.is_much_room(slots, bulk) || Status::load(&roles.receiver).is_closed() || ended
    }

    /// Whether a message of `bytes` would go at once, with nothing of it left here.
    #[inline]
    pub(crate) fn fits(&mut self, bytes: usize) -> bool {
        let (records, bulk_bytes) = self.needs(bytes);
        self.rest.is_none()
            && (self.has_room(records, bulk_bytes) || self.finds_room(records, bulk_bytes).is_ok_and(|room| room))
    }

    /// Whether long messages are sent by stores past the caches, and it is not being measured whether they should be.
    #[inline]
    pub(crate) fn goes_past_caches(&self) -> bool {
        self.stores.long_past_caches()
    }

    /// Counts a long message that went past the caches elsewhere.
    #[inline]
    pub(crate) fn count_past_caches(&mut self, bytes: usize) {
        self.stores.end(None, u64::MAX, bytes);
    }

    /// Goes past the caches for good.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn pin_past_caches(&mut self) {
        self.stores.pin_past_caches();
    }

    /// How many records the receiver has not taken yet, as far as it says.
    pub(crate) fn records_under_way(&self) -> u64 {
        // Relaxed: nothing else depends on it.
        self.slots.wrapping_sub(self.ring.header().received.slots.load(Ordering::Relaxed))
    }

    /// Whether the receiver has closed.
    #[inline]
    pub(crate) fn is_receiver_closed(&self) -> bool {
        Status::load(&self.ring.header().roles.receiver).is_closed()
    }

    /// Whether the receiver sleeps, or waits for a descriptor.
    #[inline]
    pub(crate) fn is_receiver_asleep(&self) -> bool {
        is_asleep(&self.ring.header().sleepers.receiver)
    }

    /// Sends what is no message, of up to 56 bytes, and stands in line with the messages: the receiver finds it by
    /// [`RingReceiver::arrival`](super::RingReceiver).
    pub(crate) fn send_offer(&mut self, offer: &[u8], deadline: Deadline) -> Result<()> {
        self.flush_by(deadline)?;
        self.wait_for_room(1, 0, deadline)?;
        self.ring.slot(self.slots).put(0, offer);
        tally::count_user(offer.len());
        self.publish(FIRST | LAST | OFFER, offer.len());
        self.announce(true);
        Ok(())
    }

    /// Goes on where the last sender stopped. One that was killed may have published a record and not said so.
    fn find_place(&mut self) -> Result<()> {
        let sent = &self.ring.header().sent;
        let (mut slots, mut bulk) = (sent.slots.load(Ordering::Acquire), sent.bulk.load(Ordering::Acquire));
        for _ in 0..SLOTS {
            let Some(record) = self.ring.record(slots) else { break };
            if record.has(BULK) {
                let position = self.ring.slot(slots).words[1].load(Ordering::Relaxed);
                bulk = position.wrapping_add(whole_lines(record.bytes()));
            }
            slots = slots.wrapping_add(1);
        }
        (self.slots, self.bulk) = (slots, bulk);
        self.look_at_receiver()
    }

    /// Takes over how far the receiver says it is, if that can be.
    fn look_at_receiver(&mut self) -> Result<()> {
        let received = &self.ring.header().received;
        // Acquire pairs with the stores in `RingReceiver::release`: its copies out of the slots are over.
        let slots = received.slots.load(Ordering::Acquire);
        let bulk = received.bulk.load(Ordering::Acquire);
        let (slots_used, bulk_used) = (self.slots.wrapping_sub(slots), self.bulk.wrapping_sub(bulk));
        // Two rounds: see `near`.
        if slots_used > SLOTS || bulk_used > 2 * self.ring.sizes.bulk_bytes || !bulk.is_multiple_of(whole_lines(1)) {
            return Err(Error::Corrupt {
                object: self.ring.object().into(),
                detail: format!(
                    "the receiver is at record {slots} and byte {bulk}, of {} and {} sent",
                    self.slots, self.bulk
                ),
            });
        }
        (self.slots_taken, self.bulk_taken) = (slots, self.above_floor(bulk));
        Ok(())
    }

    /// Whether there is room for `slots` records, and for `bulk_bytes` in the bulk, as far as this side knows.
    #[inline]
    fn has_room(&self, slots: u64, bulk_bytes: u64) -> bool {
        self.slots.wrapping_sub(self.slots_taken) + slots <= SLOTS
            && self.bulk.wrapping_sub(self.bulk_taken) + bulk_bytes <= self.ring.sizes.bulk_bytes
    }

    #[inline]
    fn wait_for_room(&mut self, slots: u64, bulk_bytes: u64, deadline: Deadline) -> Result<()> {
        if self.has_room(slots, bulk_bytes) {
            return Ok(());
        }
        self.wait_for_more_room(slots, bulk_bytes, deadline)
    }

    #[cold]
    fn wait_for_more_room(&mut self, slots: u64, bulk_bytes: u64, deadline: Deadline) -> Result<()> {
        // For what was published without it, see `announce`.
        fence(Ordering::SeqCst);
        wake(&self.ring.header().sleepers.receiver, self.bell.as_ref());
        let strategy = self.strategy;
        wait(&mut Room { sender: self, slots, bulk_bytes }, strategy, deadline)
    }

    /// Publishes the record of the slot that was filled.
    #[inline]
    fn publish(&mut self, flags: u8, bytes: usize) {
        let index = self.slots;
        self.slots = index.wrapping_add(1);
        self.ring.slot(index).publish(Record::new(index, self.generation as u8, flags, bytes));
    }

    /// Says where this side is, and wakes the receiver if it sleeps.
    ///
    /// After a record that was not the last of its message this may miss a receiver that announces its sleep at the same
    /// moment. The next call does not, and there is one: after the next record, or before this side waits for room.
    #[inline]
    pub(crate) fn announce(&self, last: bool) {
        let header = self.ring.header();
        // For a successor. The bulk first: if this process is killed between the two, the records are found by their lap.
        header.sent.bulk.store(self.bulk, Ordering::Release);
        header.sent.slots.store(self.slots, Ordering::Release);
        if last {
            // The receiver may be about to sleep, see `wait`: it sees the record, or this side sees that it sleeps.
            fence(Ordering::SeqCst);
        }
        wake(&header.sleepers.receiver, self.bell.as_ref());
    }

    /// Sends a message that fits one slot or two.
    #[inline]
    fn send_inline(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.wait_for_room(short::slots(message), 0, deadline)?;
        self.put_short(message);
        self.announce(true);
        Ok(())
    }

    /// Sends the piece of a message of `total` bytes that begins with `rest`, and returns its length.
    fn send_piece(&mut self, rest: &[u8], first: bool, total: u64, deadline: Deadline) -> Result<usize> {
        let put = |ring: &Ring, past_caches, position, bytes| stores::put(ring, past_caches, position, &rest[..bytes]);
        self.send_piece_by(put, rest.len(), first, total, deadline)
    }

    /// Sends a piece of at most `rest_bytes`. `put` puts it into the bulk, past the caches or not.
    #[inline]
    fn send_piece_by(
        &mut self,
        put: impl FnOnce(&Ring, bool, u64, usize),
        rest_bytes: usize,
        first: bool,
        total: u64,
        deadline: Deadline,
    ) -> Result<usize> {
        // Those of a message that stays near have no choice.
        let choosing = if self.is_near(total) { 0 } else { total };
        let begin = self.stores.begin(choosing);
        self.stay_near(rest_bytes, total)?;
        let bytes = self.piece_bytes(rest_bytes, total);
        self.wait_for_room(1, whole_lines(bytes), deadline)?;
        // The wait may have ended at another position.
        let bytes = bytes.min(self.piece_bytes(rest_bytes, total));
        self.warm(bytes)?;
        let past_caches = self.stores.go_past_caches(choosing);
        let look = self.stores.begin_look(choosing, bytes);
        put(&self.ring, past_caches, self.bulk, bytes);
        if let Some(begin) = look {
            self.stores.end_look(begin, choosing, bytes);
        }
        let slot = self.ring.slot(self.slots);
        slot.words[0].store(total, Ordering::Relaxed);
        slot.words[1].store(self.bulk, Ordering::Relaxed);
        self.bulk = self.bulk.wrapping_add(whole_lines(bytes));
        let streamed = if past_caches { STREAMED } else { 0 };
        let flags = BULK | streamed | if first { FIRST } else { 0 } | if bytes == rest_bytes { LAST } else { 0 };
        self.publish(flags, bytes);
        self.look_near(total);
        self.announce(flags & LAST != 0);
        self.stores.end(begin, choosing, bytes);
        Ok(bytes)
    }

    /// Has pages for the next piece, of so many bytes.
    #[inline]
    fn warm(&mut self, bytes: usize) -> Result<()> {
        let end = self.bulk % self.ring.sizes.bulk_bytes + bytes as u64;
        if end <= self.warm_bytes { Ok(()) } else { self.warm_up_to(end) }
    }

    #[cold]
    fn warm_up_to(&mut self, end: u64) -> Result<()> {
        let end = end.next_multiple_of(WARMED_BYTES).min(self.ring.sizes.bulk_bytes);
        if !self.ring.is_on_disk() {
            self.ring.warm(self.warm_bytes, end - self.warm_bytes)?;
        }
        self.warm_bytes = end;
        Ok(())
    }

    #[cold]
    /// Sends a message, and waits for no more than room for the begin of it: what does not fit is kept, in the vector that it is in. That
    /// is empty then.
    pub(crate) fn send_owned_by(&mut self, message: &mut Vec<u8>, deadline: Deadline) -> Result<()> {
        if message.len() <= INLINE_MESSAGE_BYTES || self.has_near_room(message.len()) {
            return self.send_by(message, deadline);
        }
        self.flush_by(deadline)?;
        let total = message.len() as u64;
        let sent = self.send_piece(message, true, total, deadline)?;
        let rest = Rest { bytes: std::mem::take(message), sent, total };
        match self.send_rest(rest, Deadline::Now) {
            Err(error) if error.is_out_of_time() => Ok(()),
            sent => sent,
        }
    }

    fn send_rest(&mut self, mut rest: Rest, deadline: Deadline) -> Result<()> {
        while rest.sent < rest.bytes.len() {
            match self.send_piece(&rest.bytes[rest.sent..], false, rest.total, deadline) {
                Ok(bytes) => rest.sent += bytes,
                Err(error) => {
                    // Without a receiver the message is lost, and its successor sees that by the next first record.
                    self.rest = error.is_out_of_time().then_some(rest);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl Sender for RingSender {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.flush_by(deadline)?;
        if message.len() <= INLINE_MESSAGE_BYTES {
            return self.send_inline(message, deadline);
        }
        if self.has_near_room(message.len()) {
            self.put_near(message);
            self.announce(true);
            return Ok(());
        }
        let total = message.len() as u64;
        let mut sent = self.send_piece(message, true, total, deadline)?;
        while sent < message.len() {
            match self.send_piece(&message[sent..], false, total, deadline) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.is_out_of_time() => {
                    self.rest = Some(Rest { bytes: tally::to_vec(&message[sent..]), sent: 0, total });
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[inline]
    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        role::check_own(self.watch.own(), self.ring.object())?;
        match self.rest.take() {
            None => Ok(()),
            Some(rest) => self.send_rest(rest, deadline),
        }
    }

    fn object(&self) -> &str {
        self.ring.object()
    }
}

impl Drop for RingSender {
    fn drop(&mut self) {
        // A child made by fork has a copy, of the rest of a message too: that is its parent's to send.
        if !self.watch.own().is_current() {
            return;
        }
        // As much of an accepted message as there is room for: the receiver is told if that was not all.
        let _ = self.flush_by(Deadline::Now);
        let header = self.ring.header();
        role::give_up(&header.roles.sender, self.generation, self.watch.own());
        wake(&header.sleepers.receiver, self.bell.as_ref());
    }
}

/// A sender that waits for room.
struct Room<'a> {
    sender: &'a mut RingSender,
    slots: u64,
    bulk_bytes: u64,
}

impl Wait for Room<'_> {
    type Event = ();

    fn poll(&mut self) -> Result<Option<()>> {
        if self.sender.finds_room(self.slots, self.bulk_bytes)? {
            return Ok(Some(()));
        }
        let receiver = Status::load(&self.sender.ring.header().roles.receiver);
        if receiver.is_closed() && receiver.generation() != self.sender.absent {
            let object = self.sender.ring.object().into();
            return Err(Error::PeerGone { object, detail: "its receiver has closed, and it is full".into() });
        }
        Ok(None)
    }

    fn check_peer(&mut self) -> Result<()> {
        let RingSender { ring, watch, absent, alarm, .. } = &mut *self.sender;
        let role = &ring.header().roles.receiver;
        if let Some(alarm) = alarm {
            let detail = "its receiver's process has exited without closing, and it is full".into();
            return if alarm.is_set() { Err(Error::PeerGone { object: ring.object().into(), detail }) } else { Ok(()) };
        }
        match role::gone_owner(role, watch) {
            Some(owner) if Status::load(role).generation() != *absent => Err(Error::PeerGone {
                object: ring.object().into(),
                detail: format!("its receiver, process {}, has exited without closing, and it is full", owner.pid()),
            }),
            _ => Ok(()),
        }
    }

    fn is_urgent(&self) -> bool {
        false
    }

    fn alarm(&self) -> Option<&Alarm> {
        self.sender.alarm.as_deref()
    }

    /// A receiver wakes when there is much room, and less may do.
    fn needs_looks(&self) -> bool {
        true
    }

    fn word(&self) -> &AtomicU32 {
        &self.sender.ring.header().sleepers.sender
    }

    fn out_of_time(&self, deadline: Deadline) -> Error {
        Error::out_of_time("send", self.sender.ring.object(), deadline)
    }
}

const _: () = assert!(layout::PIECE_BYTES >= INLINE_MESSAGE_BYTES);
