//! The receiving side.

mod begun;
mod short;

use std::sync::Arc;

pub(crate) use begun::Begun;
use short::is_eager;

use super::bare::{BARE_BYTES, BareWords, last_word};
use super::create;
use super::layout::{
    BULK, FIRST, INLINE_BYTES, INLINE_FIRST_BYTES, INLINE_MESSAGE_BYTES, LAST, OFFER, Record, Ring, SLOTS, STREAMED,
    Sizes, whole_lines,
};
use crate::atomic::{AtomicU32, Ordering, fence};
use crate::memory::Region;
use crate::memory::bell::Bell;
use crate::memory::occupied::Occupied;
use crate::memory::role::{self, Status};
use crate::memory::wait::{Alarm, Wait, arm, is_asleep, wait, wake, wake_sleeper};
use crate::process::{Identity, Watch};
use crate::{Deadline, Error, Receiver, Result, WaitStrategy, tally};

/// The longest message that [`RingReceiver`] takes unless [`RingReceiver::set_limit_bytes`] says otherwise.
pub const DEFAULT_LIMIT_BYTES: usize = 1 << 30;
/// How much of the next message is brought to this core's cache in advance. Measured with streams of 1 KiB through a channel, where a
/// cache-line round trip takes 90 ns: 102 ns a message without, 96 with it, both with a copy that was slower than today's memcpy.
const PREFETCHED_BYTES: usize = 1024;
/// A stash above this is given back to the allocator once its message was delivered.
const KEPT_STASH_BYTES: usize = 1 << 20;

/// Receives messages from a ring in shared memory.
///
/// A message goes straight from the ring into the caller's buffer. When a deadline passes in the middle of a long one, what
/// came is kept here, and a later call goes on.
#[derive(Debug)]
pub struct RingReceiver {
    ring: Ring,
    /// That this process uses the bytes, where others of it may do so too.
    _occupied: Option<Occupied>,
    watch: Watch,
    strategy: WaitStrategy,
    /// Whether to look for a short message before anything else: not where `strategy` is to sleep at once.
    is_eager: bool,
    /// Whether the last short message stood in two slots, and so the next one is likely to.
    takes_two: bool,
    generation: u64,
    /// The number of the next record. Only this side changes it.
    slots: u64,
    /// The same when one was last not there at once.
    slots_at_wait: u64,
    /// Where the next piece should begin: the bulk before it is given back. Only this side changes it.
    bulk: u64,
    limit_bytes: usize,
    /// The message that is being received, when a call ended in the middle of it.
    message: Option<Message>,
    /// The begin of that message.
    stash: Vec<u8>,
    /// The address to which the last message went: who uses it again has it in the caches.
    last_target: usize,
    /// The generation of the sender whose end this receiver has told, or 0.
    ended: u64,
    /// Tells of the end of the sender's process, where somebody watches it.
    alarm: Option<Arc<Alarm>>,
    /// Tells a sender that waits for a descriptor.
    bell: Option<Bell>,
    /// Where messages may be bare.
    bare: Option<BareWords>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A message of so many bytes, to be received.
    Message(usize),
    /// What [`RingSender::send_offer`](super::RingSender) sent, and how much of it: to be taken with
    /// [`RingReceiver::take_offer`].
    Offer([u8; INLINE_BYTES], usize),
}

/// A message of which the first record was seen.
#[derive(Clone, Copy, Debug)]
struct Message {
    total: usize,
    received: usize,
    /// Of its sender: a record of another one is none of this message.
    generation: u8,
    /// What becomes of its bytes.
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Deliver,
    /// Longer than the limit was when it began.
    TooLong {
        limit_bytes: usize,
    },
    /// Its begin went to another receiver.
    Headless,
    /// It is no message.
    Offer,
}

/// What the ring has for a receiver.
enum Event {
    Record(Record),
    /// The sender has closed.
    End,
    /// The message that is being received has no more pieces: its sender is gone, and perhaps another one there.
    Torn,
}

impl RingReceiver {
    /// Becomes the receiver of the ring in `region`, which is laid out first if the region is new (all zeros). `deadline` is
    /// for the case that another process is doing that at this moment.
    ///
    /// # Errors
    ///
    /// [`Error::Occupied`] with the process that is the receiver already, unless that has exited. [`Error::Corrupt`] for a
    /// region that holds something else. [`Error::Invalid`] for one that is read-only or shorter than
    /// [`MIN_RING_BYTES`](super::MIN_RING_BYTES).
    pub fn attach(region: impl Into<Arc<Region>>, deadline: Deadline) -> Result<Self> {
        let region = region.into();
        let own = Identity::current().map_err(|error| Error::os("open", "/proc/self/stat", error))?;
        let mut watch = Watch::new(own);
        let (ring, occupied) = create::open_occupied(region, &mut watch, deadline)?;
        Self::of(ring, Some(occupied), watch)
    }

    /// Becomes the receiver of a ring that is laid out.
    pub(super) fn of(ring: Ring, occupied: Option<Occupied>, mut watch: Watch) -> Result<Self> {
        let header = ring.header();
        let generation = role::claim(&header.roles.receiver, "receiver", ring.object(), &mut watch)?;
        let (slots, bulk) =
            (header.received.slots.load(Ordering::Acquire), header.received.bulk.load(Ordering::Acquire));
        let mut receiver = Self {
            ring,
            _occupied: occupied,
            watch,
            strategy: WaitStrategy::default(),
            is_eager: is_eager(WaitStrategy::default()),
            takes_two: false,
            generation,
            slots,
            slots_at_wait: slots,
            bulk,
            limit_bytes: DEFAULT_LIMIT_BYTES,
            message: None,
            stash: Vec::new(),
            last_target: 0,
            ended: 0,
            alarm: None,
            bell: None,
            bare: None,
        };
        receiver.forget_served_sender();
        Ok(receiver)
    }

    /// A sender that has gone and whose last message an earlier receiver took is nothing to this one, which waits for the next:
    /// that receiver may have left before the end came. The end of a sender that sent nothing is still to be told.
    fn forget_served_sender(&mut self) {
        let header = self.ring.header();
        let role = &header.roles.sender;
        let status = Status::load(role);
        if !status.is_closed() && role::gone_owner(role, &mut self.watch).is_none() {
            return;
        }
        // Looked at after its end was seen, so nothing that it sent can be missed.
        let last_taken = self.slots.wrapping_sub(1);
        let served = self
            .ring
            .record(last_taken)
            .is_some_and(|record| record.generation() == status.generation() as u8 && record.has(LAST));
        if served && self.ring.record(self.slots).is_none() {
            header.roles.ended.store(status.generation(), Ordering::Release);
        }
    }

    /// Sets how to wait while the ring is empty.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.strategy = strategy;
        self.is_eager = is_eager(strategy);
    }

    /// Sets the longest message that is taken. A longer one is [`Error::TooLong`], and the one after it is received. One of which a part
    /// was taken already, or thrown away, goes on as it began.
    pub fn set_limit_bytes(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// Learns of the end of the sender's process by `alarm`, instead of looking for it, and reaches one that polls by `bell`. Neither
    /// side has a successor then, so messages may be bare.
    pub(crate) fn set_alarm(&mut self, alarm: Arc<Alarm>, bell: Bell) {
        (self.alarm, self.bell, self.bare) = (Some(alarm), Some(bell), Some(BareWords::new()));
        // Without the pidfd that it may have needed to attach: a channel has one descriptor.
        self.watch = Watch::new(self.watch.own());
    }

    /// Has the sender ring the bell when it sends, or ends. False: it has.
    pub(crate) fn arm(&mut self) -> bool {
        // For what was given back without it, see `release`.
        fence(Ordering::SeqCst);
        self.wake_sender();
        arm(&self.ring.header().sleepers.receiver, || self.has_news())
    }

    /// Whether there is a record, or will be no more, or a message that was collected waits for memory.
    fn has_news(&self) -> bool {
        let sender = Status::load(&self.ring.header().roles.sender);
        let ended = sender.is_closed() || self.alarm.as_ref().is_some_and(|alarm| alarm.is_set());
        let is_collected = self.message.is_some_and(|message| message.received == message.total);
        ended || is_collected || self.record(self.slots).is_some()
    }

    /// The record number `index`, once it is published, or what stands for that of a bare message.
    #[inline]
    fn record(&self, index: u64) -> Option<Record> {
        self.check_record(index, self.ring.slot(index).any_record())
    }

    /// What [`RingReceiver::record`] returns when it has found this. Whatever is not new is known by one comparison more.
    #[inline]
    fn check_record(&self, index: u64, found: Record) -> Option<Record> {
        match found.laps_after_last(index) {
            1 => Some(found),
            0 => None,
            _ => {
                let is_new = self.bare.as_ref()?.is_new(index, found.to_bits());
                is_new.then(|| Record::of_bare(index))
            }
        }
    }

    /// Copies a bare message into `target`, which has its length.
    #[inline]
    fn take_bare(&mut self, target: &mut [u8]) {
        let (head, last) = target.split_at_mut(INLINE_BYTES);
        self.ring.slot(self.slots).take(0, head);
        tally::count_user(last.len());
        let word = self.note_bare();
        last.copy_from_slice(&last_word(self.slots, word).to_le_bytes());
    }

    /// Remembers the word of the bare message that comes next. A peer may have changed it: then that peer's next one is not seen.
    #[inline]
    fn note_bare(&mut self) -> u64 {
        let word = self.ring.slot(self.slots).any_record().to_bits();
        if let Some(bare) = &mut self.bare {
            bare.note(self.slots, word);
        }
        word
    }

    /// So that the second cache line of a message that has two is under way while the first one is.
    #[inline]
    fn touch_next_slot(&self) {
        self.ring.slot(self.slots.wrapping_add(1)).touch();
    }

    /// What comes next, which stays there; `None` is the end.
    #[inline]
    pub(crate) fn arrival(&mut self, deadline: Deadline) -> Result<Option<Arrival>> {
        let Some(message) = self.begin(deadline)? else { return Ok(None) };
        if message.fate != Fate::Offer {
            return Ok(Some(Arrival::Message(message.total)));
        }
        // Whatever its record says of it, for a peer can write that too.
        if message.total > INLINE_BYTES {
            return Err(self.corrupt(format!("record {} is an offer of {} bytes", self.slots, message.total)));
        }
        let mut offer = [0; INLINE_BYTES];
        self.ring.slot(self.slots).take(0, &mut offer);
        Ok(Some(Arrival::Offer(offer, message.total)))
    }

    /// Takes the offer that came.
    pub(crate) fn take_offer(&mut self) {
        self.release(self.bulk, true);
    }

    /// The message that is being received, or the next one; `None` is the end.
    #[inline]
    fn begin(&mut self, deadline: Deadline) -> Result<Option<Message>> {
        if let Some(message) = self.message {
            return Ok(Some(message));
        }
        let record = match self.record(self.slots) {
            Some(record) => record,
            None => match self.wait_for_event(None, deadline)? {
                Event::Record(record) => record,
                Event::End | Event::Torn => return Ok(None),
            },
        };
        let total = self.total_bytes(record)?;
        let fate = match total {
            _ if !record.has(FIRST) => Fate::Headless,
            _ if record.has(OFFER) => Fate::Offer,
            total if total > self.limit_bytes => Fate::TooLong { limit_bytes: self.limit_bytes },
            _ => Fate::Deliver,
        };
        Ok(Some(Message { total, received: 0, generation: record.generation(), fate }))
    }

    /// The length of the message to which `record` belongs, checked as far as one record can be.
    #[inline]
    fn total_bytes(&self, record: Record) -> Result<usize> {
        let bytes = record.bytes();
        if record.is_bare() {
            return Ok(BARE_BYTES);
        }
        if !record.has(BULK) && record.has(FIRST | LAST) && bytes <= INLINE_BYTES {
            return Ok(bytes);
        }
        let total = self.ring.slot(self.slots).words[0].load(Ordering::Relaxed);
        let possible = match (record.has(BULK), record.has(FIRST)) {
            (true, _) => bytes <= self.ring.sizes.piece_bytes && bytes as u64 <= total,
            (false, true) => {
                bytes <= INLINE_FIRST_BYTES && total <= INLINE_MESSAGE_BYTES as u64 && bytes as u64 <= total
            }
            // The total stands in the first record, which another receiver has taken.
            (false, false) if bytes <= INLINE_BYTES => return Ok(bytes),
            (false, false) => false,
        };
        match usize::try_from(total) {
            Ok(total) if possible => Ok(total),
            _ => Err(self.corrupt(format!("record {} has {bytes} bytes of a message of {total}", self.slots))),
        }
    }

    fn wait_for_event(&mut self, inside: Option<Message>, deadline: Deadline) -> Result<Event> {
        // For what was given back without it, see `release`.
        fence(Ordering::SeqCst);
        self.wake_sender();
        let strategy = self.strategy;
        wait(&mut Waiting { receiver: self, inside }, strategy, deadline)
    }

    /// The next record of `message`.
    #[inline]
    fn next_record(&mut self, message: &Message, deadline: Deadline) -> Result<Record> {
        let record = match self.record(self.slots) {
            Some(record) => record,
            None => match self.wait_for_event(Some(*message), deadline)? {
                Event::Record(record) => record,
                Event::End | Event::Torn => return Err(self.torn(message)),
            },
        };
        let begins = message.received == 0 && message.fate != Fate::Headless;
        if record.generation() != message.generation || record.has(FIRST) != begins {
            return Err(self.torn(message));
        }
        let bytes = record.bytes();
        let room = match (record.has(BULK), record.has(FIRST) && !record.has(LAST)) {
            (true, _) => self.ring.sizes.piece_bytes,
            _ if record.is_bare() => BARE_BYTES,
            (false, true) => INLINE_FIRST_BYTES,
            (false, false) => INLINE_BYTES,
        };
        let left = message.total.saturating_sub(message.received);
        let fits = message.fate == Fate::Headless || (bytes <= left && record.has(LAST) == (bytes == left));
        if bytes > room || !fits || (bytes == 0 && !record.has(FIRST | LAST)) {
            return Err(self.corrupt(format!("record {} has {bytes} bytes, {left} are missing", self.slots)));
        }
        Ok(record)
    }

    /// Copies the bytes of a record, to memory that is warm in the caches or not, and gives its place back.
    #[inline]
    fn take(&mut self, record: Record, target: &mut [u8], is_warm: bool) -> Result<()> {
        if record.has(BULK) {
            let position = self.position(record)?;
            self.ring.take_bulk(position, target, is_warm && record.has(STREAMED));
            if record.has(FIRST | LAST) {
                self.prefetch_next();
            }
            self.release(position.wrapping_add(whole_lines(record.bytes())), record.has(LAST));
        } else if record.is_bare() {
            self.take_bare(target);
            self.release(self.bulk, true);
        } else {
            let names_total = record.has(FIRST) && !record.has(LAST);
            self.ring.slot(self.slots).take(usize::from(names_total), target);
            if names_total {
                // Its place is given back together with the next one's.
                self.slots = self.slots.wrapping_add(1);
            } else {
                self.release(self.bulk, true);
            }
        }
        Ok(())
    }

    /// Has the begin of the next message brought here, if it is there, while the caller is busy with a short one that it has received.
    /// After longer ones that is no gain: streams of 4 KiB took 325 ns a message and 300 without, measured in the same way.
    #[inline]
    fn prefetch_next(&self) {
        let next = self.slots.wrapping_add(1);
        if let Some(record) = self.ring.record(next)
            && record.has(BULK)
        {
            let position = self.ring.slot(next).words[1].load(Ordering::Relaxed);
            self.ring.prefetch_bulk(position, record.bytes().min(PREFETCHED_BYTES));
        }
    }

    /// Gives the place of a record back without a look at its bytes.
    fn skip(&mut self, record: Record) -> Result<()> {
        let end = match record.has(BULK) {
            true => self.position(record)?.wrapping_add(whole_lines(record.bytes())),
            false => {
                if record.is_bare() {
                    self.note_bare();
                }
                self.bulk
            }
        };
        self.release(end, true);
        Ok(())
    }

    /// Where the piece of a record lies, if it can lie there.
    #[inline]
    fn position(&self, record: Record) -> Result<u64> {
        let position = self.ring.slot(self.slots).words[1].load(Ordering::Relaxed);
        let Sizes { bulk_bytes, piece_bytes } = self.ring.sizes;
        let reach = position.wrapping_sub(self.bulk).saturating_add(whole_lines(record.bytes()));
        let inside = self.ring.sizes.offset_in_piece(position) + record.bytes() <= piece_bytes;
        // Two rounds, since the sender jumps over some, and an earlier receiver may have said of one record less than it took.
        if reach <= 2 * bulk_bytes && inside && position.is_multiple_of(whole_lines(1)) {
            return Ok(position);
        }
        Err(self.corrupt(format!("the {} bytes of record {} lie at {position}", record.bytes(), self.slots)))
    }

    /// Gives the next slot back to the sender, and the bulk before `bulk`.
    ///
    /// After the last record of a message the sender may be about to sleep for want of room (see `wait`), so a fence stands before
    /// the look at whether it does. For the others that would be a waste: it stalls until all bytes of the piece have left the
    /// core. The next release, or the fence before this side waits for a record, makes up for it. And a message that stood in
    /// slots alone, with nothing behind it, was all that there was: its sender lacks no room.
    #[inline]
    fn release(&mut self, bulk: u64, last: bool) {
        let gives_bulk = bulk != self.bulk;
        self.bulk = bulk;
        self.slots = self.slots.wrapping_add(1);
        let received = &self.ring.header().received;
        // The slot first: if this process is killed between the two, its successor finds the next record, whose bytes lie
        // behind some that nobody gave back. The other way round it would find one whose bytes may be overwritten already.
        received.slots.store(self.slots, Ordering::Release);
        if gives_bulk {
            received.bulk.store(self.bulk, Ordering::Release);
        } else if last && self.record(self.slots).is_none() {
            return;
        }
        if last {
            fence(Ordering::SeqCst);
        }
        self.wake_sender();
    }

    #[inline]
    fn wake_sender(&self) {
        let word = &self.ring.header().sleepers.sender;
        if is_asleep(word) && self.has_much_room() {
            wake_sleeper(word, self.bell.as_ref());
        }
    }

    /// Whether much of the ring is free: a sender woken for less would soon sleep again, at the price of a wake-up for
    /// every piece. One that waits for less looks by itself when its slice of sleep is over.
    #[cold]
    fn has_much_room(&self) -> bool {
        let sent = &self.ring.header().sent;
        let slots = sent.slots.load(Ordering::Relaxed).wrapping_sub(self.slots);
        let bulk = sent.bulk.load(Ordering::Relaxed).wrapping_sub(self.bulk);
        self.ring.sizes.is_much_room(slots, bulk)
    }

    /// Receives `message` into `target`, which is as long. What came of it when the time is up is kept.
    #[inline]
    fn fill(&mut self, mut message: Message, target: &mut [u8], deadline: Deadline) -> Result<()> {
        let address = target.as_ptr().addr();
        let is_warm = std::mem::replace(&mut self.last_target, address) == address;
        loop {
            let record = match self.next_record(&message, deadline) {
                Ok(record) => record,
                Err(error) => {
                    if error.is_out_of_time() && message.received > 0 {
                        tally::append(&mut self.stash, &target[..message.received]);
                        self.message = Some(message);
                    }
                    return Err(error);
                }
            };
            let end = message.received + record.bytes();
            self.take(record, &mut target[message.received..end], is_warm)?;
            message.received = end;
            if record.has(LAST) {
                return Ok(());
            }
        }
    }

    /// Whether the message of so many bytes that comes next is to be thrown away. One of which a part was taken already is what it was
    /// then: too long, or none at all, whatever its length.
    pub(crate) fn is_to_discard(&self, bytes: usize) -> bool {
        match self.message {
            Some(message) => message.fate != Fate::Deliver,
            None => bytes > self.limit_bytes,
        }
    }

    /// Whether a message of so many bytes, of which the ring never holds all, is to be collected before memory is taken for it: by a call
    /// that has no time.
    pub(crate) fn is_to_collect(&self, bytes: usize, deadline: Deadline) -> bool {
        bytes as u64 > self.ring.sizes.bulk_bytes && deadline.has_passed()
    }

    /// Puts what has come of a message into the stash: the rest of one that an earlier call began, and all of one that is to be collected
    /// ([`RingReceiver::is_to_collect`]). What is a message by itself is left.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`](crate::Receiver::recv_into_by), while it has not come as a whole.
    pub(crate) fn collect(&mut self, deadline: Deadline) -> Result<()> {
        let Some(mut message) = self.begin(deadline)? else { return Ok(()) };
        let is_wanted = message.received > 0 || self.is_to_collect(message.total, deadline);
        if message.fate != Fate::Deliver || !is_wanted {
            return Ok(());
        }
        let filled = self.fill_stash(&mut message, deadline);
        self.keep(message, filled)
    }

    /// Keeps a message in the stash of which there is a part at least, unless it has come to an end that is an error.
    fn keep(&mut self, message: Message, filled: Result<()>) -> Result<()> {
        let goes_on = filled.as_ref().err().is_none_or(Error::is_out_of_time);
        self.message = (goes_on && message.received > 0).then_some(message);
        if !goes_on {
            self.stash = Vec::new();
        }
        filled
    }

    /// Receives the rest of a message into the stash, where its begin is, if an earlier call has received that.
    fn fill_stash(&mut self, message: &mut Message, deadline: Deadline) -> Result<()> {
        let mut records = 0;
        while message.received < message.total {
            // A sender may keep up with this.
            if records >= SLOTS && deadline.has_passed() {
                return Err(Error::out_of_time("receive", self.ring.object(), deadline));
            }
            records += 1;
            let record = self.next_record(message, deadline)?;
            let mut stash = std::mem::take(&mut self.stash);
            stash.resize(message.received + record.bytes(), 0);
            let taken = self.take(record, &mut stash[message.received..], false);
            self.stash = stash;
            taken?;
            message.received += record.bytes();
        }
        Ok(())
    }

    /// Throws the rest of a message away, then says why.
    fn discard(&mut self, mut message: Message, deadline: Deadline) -> Result<Option<usize>> {
        let mut records = 0;
        loop {
            let record = match self.next_record(&message, deadline) {
                Ok(record) => record,
                Err(error) => {
                    self.message = error.is_out_of_time().then_some(message);
                    return Err(error);
                }
            };
            self.skip(record)?;
            message.received = message.received.saturating_add(record.bytes());
            if record.has(LAST) {
                break;
            }
            records += 1;
            // A message without an end, which a peer can send, must not outlast the deadline; without one, what the ring can hold.
            if deadline.has_passed() && (deadline != Deadline::Now || records >= SLOTS) {
                self.message = Some(message);
                return Err(Error::out_of_time("receive", self.ring.object(), deadline));
            }
        }
        self.message = None;
        let limit_bytes = match message.fate {
            Fate::Headless => return Err(self.torn(&message)),
            Fate::Offer => {
                return Err(self.corrupt(format!("record {} is an offer, which nobody takes here", self.slots)));
            }
            Fate::TooLong { limit_bytes } => limit_bytes,
            Fate::Deliver => self.limit_bytes,
        };
        Err(Error::TooLong {
            object: self.ring.object().into(),
            message_bytes: message.total,
            limit_bytes,
            remedy: Some("it was thrown away; set_limit_bytes raises the limit".into()),
        })
    }

    /// What remains of a message when it cannot be completed: an error, once.
    #[cold]
    fn torn(&mut self, message: &Message) -> Error {
        self.message = None;
        self.stash = Vec::new();
        let Message { total, received, .. } = message;
        let detail = match message.fate {
            Fate::Headless => format!(
                "the begin of a message of {total} bytes went to another receiver, and its last {received} were thrown away"
            ),
            _ => format!("a message broke off after {received} of {total} bytes"),
        };
        Error::PeerGone { object: self.ring.object().into(), detail }
    }

    #[cold]
    fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt { object: self.ring.object().into(), detail }
    }

    /// Remembers, for the next receiver too, that the end of a sender was told.
    fn tell_end(&mut self, generation: u64) {
        self.ended = generation;
        self.ring.header().roles.ended.store(generation, Ordering::Release);
    }

    /// Whether the end of the sender of this generation was told to an earlier receiver.
    fn is_old_news(&self, generation: u64) -> bool {
        self.ended != generation && self.ring.header().roles.ended.load(Ordering::Acquire) == generation
    }
}

impl Receiver for RingReceiver {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        role::check_own(self.watch.own(), self.ring.object())?;
        let Some(message) = self.begin(deadline)? else { return Ok(None) };
        if message.fate != Fate::Deliver {
            return self.discard(message, deadline);
        }
        let Some(target) = buffer.get_mut(..message.total) else {
            self.message = (message.received > 0).then_some(message);
            return Err(Error::BufferTooSmall {
                object: self.ring.object().into(),
                message_bytes: message.total,
                buffer_bytes: buffer.len(),
            });
        };
        if message.received > 0 {
            return self.finish(message, target, deadline);
        }
        self.fill(message, target, deadline)?;
        Ok(Some(message.total))
    }

    fn object(&self) -> &str {
        self.ring.object()
    }
}

impl RingReceiver {
    /// Completes a message that an earlier call began, and delivers it.
    #[cold]
    fn finish(&mut self, mut message: Message, target: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let filled = self.fill_stash(&mut message, deadline);
        self.keep(message, filled)?;
        self.message = None;
        tally::copy(target, &self.stash);
        self.stash.clear();
        if self.stash.capacity() > KEPT_STASH_BYTES {
            self.stash = Vec::new();
        }
        Ok(Some(message.total))
    }
}

impl Drop for RingReceiver {
    fn drop(&mut self) {
        // A child made by fork has a copy: nothing has closed that a sender should wake up for.
        if !self.watch.own().is_current() {
            return;
        }
        let header = self.ring.header();
        role::give_up(&header.roles.receiver, self.generation, self.watch.own());
        wake(&header.sleepers.sender, self.bell.as_ref());
    }
}

/// A receiver that waits for a record, or for news of the sender.
struct Waiting<'a> {
    receiver: &'a mut RingReceiver,
    /// The message that is being received.
    inside: Option<Message>,
}

impl Wait for Waiting<'_> {
    type Event = Event;

    #[inline]
    fn poll(&mut self) -> Result<Option<Event>> {
        let receiver = &mut *self.receiver;
        if let Some(record) = receiver.record(receiver.slots) {
            return Ok(Some(Event::Record(record)));
        }
        receiver.touch_next_slot();
        let status = Status::load(&receiver.ring.header().roles.sender);
        let torn =
            self.inside.is_some_and(|message| message.generation != status.generation() as u8 || status.is_closed());
        if !torn && !status.is_closed() {
            return Ok(None);
        }
        // What the sender published before it closed, or before its successor came, is seen now: the load above was a
        // SeqCst one of a word that was stored after those records.
        if let Some(record) = receiver.record(receiver.slots) {
            return Ok(Some(Event::Record(record)));
        }
        if torn {
            return Ok(Some(Event::Torn));
        }
        if receiver.is_old_news(status.generation()) {
            return Ok(None);
        }
        receiver.tell_end(status.generation());
        Ok(Some(Event::End))
    }

    fn check_peer(&mut self) -> Result<()> {
        let receiver = &mut *self.receiver;
        let role = &receiver.ring.header().roles.sender;
        // An alarm needs no owner: one that was killed may not have come so far as to be it.
        let owner = match &receiver.alarm {
            Some(alarm) if alarm.is_set() => None,
            Some(_) => return Ok(()),
            None => match role::gone_owner(role, &mut receiver.watch) {
                None => return Ok(()),
                owner => owner,
            },
        };
        let generation = Status::load(role).generation();
        if receiver.record(receiver.slots).is_some() {
            return Ok(());
        }
        if let Some(message) = self.inside {
            receiver.tell_end(generation);
            return Err(receiver.torn(&message));
        }
        // With an alarm nobody else comes, so it is told again and again.
        if owner.is_some() && receiver.is_old_news(generation) {
            return Ok(());
        }
        receiver.tell_end(generation);
        let sender = owner.map_or_else(|| "its sender".into(), |owner| format!("its sender, process {},", owner.pid()));
        Err(Error::PeerGone {
            object: receiver.ring.object().into(),
            detail: format!("{sender} has exited without closing"),
        })
    }

    fn is_urgent(&self) -> bool {
        // Between the pieces of a message there is no hurry: the ring has room for what comes meanwhile.
        self.inside.is_none()
    }

    fn alarm(&self) -> Option<&Alarm> {
        self.receiver.alarm.as_deref()
    }

    fn word(&self) -> &AtomicU32 {
        &self.receiver.ring.header().sleepers.receiver
    }

    fn out_of_time(&self, deadline: Deadline) -> Error {
        Error::out_of_time("receive", self.receiver.ring.object(), deadline)
    }
}
