//! What tells that a listener has something to do, for poll(2), epoll(7) and what is built on them.
//!
//! Behind the socket that listens each handshake goes on over one of its own, and has its time. So it is an epoll of those sockets and of a
//! timer for the next time that is up. All of them tell by level: what was not looked at shows again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::handshake::Pending;
use crate::io::socket::Socket;
use crate::memory::nonce::Nonce;
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Readiness {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// Is there in the process that made it. A child made by fork has the same epoll, and leaves it alone.
    owner: Nonce,
}

impl Readiness {
    /// For a socket that listens, of which it tells from the first [`Readiness::watch`] on.
    pub(super) fn of(listener: &Socket) -> Result<Self> {
        let os = |call| move |errno| Error::os(call, listener.object(), errno);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(os("epoll_create1"))?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(os("timerfd_create"))?;
        epoll::add(&epoll, &timer, EventData::new_u64(0), EventFlags::IN).map_err(os("epoll_ctl"))?;
        epoll::add(&epoll, listener, EventData::new_u64(0), EventFlags::IN).map_err(os("epoll_ctl"))?;
        Ok(Self { epoll, timer, owner: Nonce::draw()? })
    }

    pub(super) fn is_own(&self) -> bool {
        self.owner.is_intact()
    }

    /// Tells of the socket that listens, if anybody `may_begin`, of all handshakes, and of the time to `wake` for them.
    pub(super) fn watch(
        &self,
        listener: &Socket,
        may_begin: bool,
        pending: &mut [Pending],
        wake: Option<Instant>,
    ) -> Result<(), Errno> {
        for new in pending.iter_mut().filter(|pending| !pending.is_watched) {
            epoll::add(&self.epoll, &new.socket, EventData::new_u64(0), EventFlags::IN)?;
            new.is_watched = true;
        }
        let events = if may_begin { EventFlags::IN } else { EventFlags::empty() };
        epoll::modify(&self.epoll, listener, EventData::new_u64(0), events)?;
        self.set_timer(wake.map(|wake| wake.saturating_duration_since(Instant::now())))
    }

    /// Tells no more of a handshake whose socket goes on to be something else.
    pub(super) fn forget(&self, pending: &Pending) {
        if self.is_own() {
            // It is there.
            let _ = epoll::delete(&self.epoll, &pending.socket);
        }
    }

    /// Tells at once that there is something.
    pub(super) fn call(&self) {
        // The only errors are of bad arguments.
        let _ = self.set_timer(Some(Duration::ZERO));
    }

    /// Whether there is something now.
    pub(super) fn is_ready(&self) -> Result<bool, Errno> {
        poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&Timespec::default())).map(|count| count > 0)
    }

    /// Has the timer tell after `left`, or never.
    fn set_timer(&self, left: Option<Duration>) -> Result<(), Errno> {
        // Nothing at all would be never.
        let left = left.map_or(Duration::ZERO, |left| left.max(Duration::from_nanos(1)));
        let it_value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).map(drop)
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
