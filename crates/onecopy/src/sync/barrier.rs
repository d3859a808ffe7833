//! Row 27, the barrier: [pthread_barrier_wait(3p)](https://man7.org/linux/man-pages/man3/pthread_barrier_wait.3p.html),
//! process-shared.
//!
//! Each round, as many meet as it was made for, and all go on at once; exactly one of them is the leader.
//!
//! ```
//! use onecopy::memory::anonymous::for_children;
//! use onecopy::sync::barrier::Barrier;
//! use onecopy::sync::shared::Place;
//!
//! let barrier = Barrier::create(&Place::new(for_children(4096)?)?, 2)?;
//! let leaders = std::thread::scope(|scope| {
//!     let other = scope.spawn(|| barrier.wait());
//!     Ok::<_, onecopy::Error>([barrier.wait()?, other.join().unwrap()?])
//! })?;
//! assert_eq!(leaders.iter().filter(|leader| **leader).count(), 1);
//! # Ok::<(), onecopy::Error>(())
//! ```
//!
//! **It counts the dead.** A process that is killed after it has arrived counts in that round; one that is killed before it
//! arrives keeps the others waiting for ever. Who cannot exclude that waits with a deadline.
//!
//! **Nobody can leave a barrier**, so POSIX knows no deadline here. In [`Barrier::wait_by`] a thread of this process waits, and
//! the caller waits for that: a call that ran out of time has arrived all the same, and the next one takes up that arrival.
//! When the process ends meanwhile, its arrival still counts. A child made by fork has not arrived.
//!
//! # Safety
//!
//! The slot keeps the barrier mapped, for the waiting thread too, and all who can write it are trusted, by the promise of the
//! [`Place`].
#![expect(unsafe_code, reason = "waits at pthread barriers")]

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use libc::pthread_barrier_t;
use rustix::io::Errno;

use super::Wait;
use super::shared::{Kind, Place, Slot, Spec, Wish, settled};
use crate::address::BarrierName;
use crate::process::own_id;
use crate::sys::pthread;
use crate::sys::signal_mask::without_signals;
use crate::{Deadline, Error, Result};

/// The answer to an arrival: whether this is the leader.
type Answer = Result<bool, Errno>;

/// A barrier in shared memory.
#[derive(Debug)]
pub struct Barrier {
    slot: Arc<Slot>,
    arrived: Mutex<Arrivals>,
}

/// Arrivals of calls that ran out of time.
#[derive(Debug, Default)]
struct Arrivals {
    /// The process that has arrived: a child made by fork has not.
    pid: u32,
    answers: Vec<Receiver<Answer>>,
}

impl Barrier {
    /// Creates a barrier at which `parties` meet, where nothing is yet.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for 0 parties and for more than 2147483646; otherwise as [`Mutex::create`](super::mutex::Mutex::create).
    pub fn create(place: &Place, parties: u32) -> Result<Self> {
        check(place, parties)?;
        Self::open(place, Wish::Create, settled(), Some(parties))
    }

    /// Attaches to one that exists, however many meet at it, waiting until `deadline` for it to be created.
    ///
    /// # Errors
    ///
    /// As [`Mutex::attach`](super::mutex::Mutex::attach).
    pub fn attach(place: &Place, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Attach, deadline, None)
    }

    /// Attaches to it if it exists, and creates it otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] with both numbers when it is for other than `parties`; otherwise as [`Barrier::create`] and
    /// [`Barrier::attach`].
    pub fn open_or_create(place: &Place, parties: u32, deadline: Deadline) -> Result<Self> {
        check(place, parties)?;
        Self::open(place, Wish::Either, deadline, Some(parties))
    }

    /// As [`Barrier::attach`], for one that is for `parties`.
    pub(crate) fn attach_for(place: &Place, parties: u32, deadline: Deadline) -> Result<Self> {
        Self::open(place, Wish::Attach, deadline, Some(parties))
    }

    fn open(place: &Place, wish: Wish, deadline: Deadline, parties: Option<u32>) -> Result<Self> {
        let spec = Spec::of::<pthread_barrier_t, ()>(Kind::Barrier, parties);
        let slot = Slot::open(place, &spec, wish, deadline, |slot| {
            // SAFETY: room for one, aligned to 64, that nobody else uses before the slot is ready.
            unsafe { pthread::barrier_init(slot.object().cast().as_ptr(), parties.unwrap_or(0)) }
                .map_err(|errno| Error::os("pthread_barrier_init", slot.name(), errno))
        })?;
        Ok(Self { slot: Arc::new(slot), arrived: Mutex::default() })
    }

    /// How many meet at it.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.slot.detail()
    }

    /// Arrives, and waits until all have. Whether this one is the leader of the round.
    ///
    /// # Errors
    ///
    /// None that the man page knows.
    pub fn wait(&self) -> Result<bool> {
        self.wait_by(Deadline::Never)
    }

    /// Arrives, and waits until all have or `deadline` passes. A call that ran out of time has arrived all the same: the next
    /// one on this value takes that up. [`Deadline::Now`] does not arrive, and only looks after such a call.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] and [`Error::WouldBlock`] when not all have arrived; EAGAIN when no thread can be made.
    pub fn wait_by(&self, deadline: Deadline) -> Result<bool> {
        let before = self.arrivals().answers.pop();
        let arrival = match (before, deadline) {
            (Some(arrival), _) => arrival,
            (None, Deadline::Now) if self.parties() > 1 => {
                return Err(Error::out_of_time("wait", self.slot.name(), deadline));
            }
            (None, Deadline::Now | Deadline::Never) => return self.answered(arrive(&self.slot)),
            (None, Deadline::At(_)) => self.arrive_beside()?,
        };
        let answer = match deadline.remaining() {
            Some(left) => arrival.recv_timeout(left),
            None => arrival.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match answer {
            Ok(answer) => self.answered(answer),
            Err(RecvTimeoutError::Timeout) => {
                self.arrivals().answers.push(arrival);
                Err(Error::out_of_time("wait", self.slot.name(), deadline))
            }
            Err(RecvTimeoutError::Disconnected) => self.answered(Err(Errno::CANCELED)),
        }
    }

    /// Arrives in a thread.
    fn arrive_beside(&self) -> Result<Receiver<Answer>> {
        let (sender, receiver) = channel();
        let slot = Arc::clone(&self.slot);
        let thread = thread::Builder::new().name("onecopy-barrier".to_owned());
        let arriving = move || {
            // Nobody listens any more when the value was dropped.
            let _ = sender.send(arrive(&slot));
        };
        without_signals(|| thread.spawn(arriving))
            .map_err(|error| Error::no_thread("pthread_create", self.slot.name(), error))?;
        Ok(receiver)
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if arrived.pid != own_id() {
            // Not dropped: a thread that this process lacks may have been in the middle of an answer when it was forked.
            std::mem::forget(std::mem::take(&mut arrived.answers));
            arrived.pid = own_id();
        }
        arrived
    }

    fn answered(&self, answer: Answer) -> Result<bool> {
        answer.map_err(|errno| Error::os("pthread_barrier_wait", self.slot.name(), errno))
    }

    /// What it is called in errors.
    #[must_use]
    pub fn object(&self) -> &str {
        self.slot.name()
    }
}

fn check(place: &Place, parties: u32) -> Result<()> {
    if (1..=BarrierName::MAX_PARTIES).contains(&parties) {
        return Ok(());
    }
    let reason = format!("{parties} parties are not between 1 and {}", BarrierName::MAX_PARTIES);
    Err(Error::Invalid { object: format!("barrier:{}", place.region().object()), reason })
}

fn arrive(slot: &Slot) -> Answer {
    // SAFETY: the slot keeps it, see above.
    unsafe { pthread::barrier_wait(slot.object().cast::<pthread_barrier_t>().as_ptr()) }
}

impl Wait for Barrier {
    /// As [`Barrier::wait_by`]: a call that ran out of time has arrived.
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        Barrier::wait_by(self, deadline).map(drop)
    }

    fn object(&self) -> &str {
        self.slot.name()
    }
}
