//! Who is on the other side, and its end: noticed by one thread of this process for all its channels.
//!
//! The thread waits for the pidfds of all peers at once, and does nothing else: no timer ticks while nothing happens. A pidfd
//! becomes readable when the process has exited and the last of its threads is out of the kernel, so from then on it writes
//! nothing any more, neither to shared memory nor by process_vm_writev(2). That comes after its memory is torn down, about 25 ms
//! for each GiB.
//!
//! | Who | Does |
//! |---|---|
//! | [`PeerProcess::watch`] | registers a pidfd, and starts the thread if there is none in this process yet |
//! | the thread | sets the [`Alarm`] of a peer whose pidfd is readable, which wakes whoever sleeps |
//! | drop | takes the pidfd out again, by closing it |
//!
//! A child made by fork has no such thread, and no channels either: those of its parent do not work in it. It gets a thread of its
//! own with the first channel of its own.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::event::epoll;
use rustix::io::Errno;

use crate::memory::remote::RemoteProcess;
use crate::memory::wait::Alarm;
use crate::process::ProcessHandle;
use crate::sys::signal_mask::without_signals;
use crate::{Error, Result};

/// A process at the other end of one or more channels.
#[derive(Debug)]
pub(super) struct PeerProcess {
    process: RemoteProcess,
    alarm: Arc<Alarm>,
}

struct Watcher {
    /// The process whose thread it is.
    pid: u32,
    epoll: Arc<OwnedFd>,
    /// By the address of their handle, which all channels to one process share.
    peers: HashMap<usize, Weak<PeerProcess>>,
}

static WATCHER: Mutex<Option<Watcher>> = Mutex::new(None);

impl PeerProcess {
    /// The process, to be told of its end. All channels to one process share what this returns.
    ///
    /// # Errors
    ///
    /// EMFILE and ENFILE; EAGAIN when there can be no more threads.
    pub(super) fn watch(handle: &Arc<ProcessHandle>) -> Result<Arc<Self>> {
        let mut guard = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
        let watcher = Watcher::of_this_process(&mut guard)?;
        let key = Arc::as_ptr(handle).addr();
        if let Some(known) = watcher.peers.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        watcher.peers.retain(|_, peer| peer.strong_count() > 0);
        let peer = Arc::new(Self { process: RemoteProcess::of(Arc::clone(handle)), alarm: Arc::default() });
        let data = epoll::EventData::new_u64(key as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        let added = match epoll::add(&*watcher.epoll, handle.as_fd(), data, flags) {
            // An earlier channel to the same process, which is closed by now.
            Err(Errno::EXIST) => epoll::modify(&*watcher.epoll, handle.as_fd(), data, flags),
            added => added,
        };
        added.map_err(|errno| Error::os("epoll_ctl", format!("the pidfd of process {}", handle.pid()), errno))?;
        watcher.peers.insert(key, Arc::downgrade(&peer));
        Ok(peer)
    }

    pub(super) fn process(&self) -> &RemoteProcess {
        &self.process
    }

    pub(super) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// Whether it has exited.
    pub(super) fn is_gone(&self) -> bool {
        self.alarm.is_set() || self.process.has_exited()
    }
}

impl Watcher {
    fn of_this_process(slot: &mut Option<Self>) -> Result<&mut Self> {
        let pid = std::process::id();
        if slot.as_ref().is_none_or(|watcher| watcher.pid != pid) {
            *slot = Some(Self::start(pid)?);
        }
        slot.as_mut().ok_or_else(|| Error::os("clone", "the thread that watches peers", Errno::AGAIN))
    }

    fn start(pid: u32) -> Result<Self> {
        let object = "the thread that watches peers";
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| Error::os("epoll_create1", object, errno))?;
        let epoll = Arc::new(epoll);
        let theirs = Arc::clone(&epoll);
        // The program's signals are for the program's threads.
        without_signals(|| std::thread::Builder::new().name("onecopy-watch".into()).spawn(move || run(&theirs)))
            .map_err(|error| Error::os("clone", object, error))?;
        Ok(Self { pid, epoll, peers: HashMap::new() })
    }
}

/// The thread: sets the alarm of each peer that has exited.
fn run(epoll: &OwnedFd) {
    let mut events = [const { MaybeUninit::uninit() }; 64];
    loop {
        let Ok((ready, _)) = epoll::wait(epoll, &mut events, None) else { continue };
        let keys: Vec<u64> = ready.iter().map(|event| event.data.u64()).collect();
        let guard = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
        let peers = guard.iter().flat_map(|watcher| &watcher.peers).filter(|(key, _)| keys.contains(&(**key as u64)));
        let gone: Vec<_> =
            peers.filter_map(|(_, peer)| peer.upgrade()).filter(|peer| peer.process.has_exited()).collect();
        drop(guard);
        gone.iter().for_each(|peer| peer.alarm.set());
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_end_of_a_process_is_told_and_channels_to_it_share_one_watch() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let handle = Arc::new(ProcessHandle::open(child.id()).unwrap());
        let open = || PeerProcess::watch(&handle).unwrap();
        drop(open());
        let (one, other) = (open(), open());
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!one.alarm().is_set() && !one.is_gone());
        child.kill().unwrap();
        // A zombie has exited: nobody needs to wait for it first.
        let end = Instant::now() + Duration::from_secs(10);
        while !one.alarm().is_set() {
            assert!(Instant::now() < end, "nobody told that the process has exited");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
    }
}
