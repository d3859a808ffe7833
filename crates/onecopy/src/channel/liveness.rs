//! Who is on the other side, and its end: noticed by threads of this process for all its channels.
//!
//! | What tells | When | What it means |
//! |---|---|---|
//! | a word in shared memory, see [`keeper`] | at once when the process is killed or exits, however much memory it has | messages stop: that is reported |
//! | the pidfd | when the last thread is out of the kernel, after the memory is torn down, 25 to 150 ms for each GiB | the process writes no more, neither to shared memory nor by process_vm_writev(2) |
//! | the hang-up of the socket | about then, and when the process executes another program, which a pidfd does not tell; its other threads are gone by then, too | as the pidfd |
//!
//! A copy of the socket in a child of that process would delay the hang-up, so neither of the last two replaces the other, and a child
//! made by fork gives its copy up ([`at_fork`](crate::sys::at_fork)). Whatever tells first sets the [`Alarm`]. So that alone is never
//! a reason to use memory again that the other side may write: what is not known to be finished is retired.
//!
//! One thread waits for the pidfds and the sockets of all peers at once, and does nothing else: no timer ticks while nothing happens.
//!
//! | Who | Does |
//! |---|---|
//! | [`PeerProcess::watch`] | registers both, and starts the thread if there is none in this process yet |
//! | the thread | sets the alarm of a peer whose pidfd is readable or whose socket has hung up, which wakes whoever sleeps, and shuts the socket down, which wakes whoever polls |
//! | [`Alarm::look`] | looks at the word, for a side that is looking for messages in any case: the thread that would set the alarm may have to wait for its processor |
//! | drop | takes both out again, by closing them |
//!
//! A child made by fork has no such threads, and no channels either: those of its parent do not work in it. It gets threads of its
//! own with the first channel of its own.

mod keeper;
mod list;
mod lookout;
mod word;

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use crate::io::socket::Socket;
use crate::memory::remote::RemoteProcess;
use crate::memory::wait::Alarm;
use crate::process::{ProcessHandle, ProcessLock};
use crate::sys::signal_mask::without_signals;
use crate::{Error, Result};

pub(super) use keeper::Lifeline;
pub(super) use word::{WORDS_BYTES, Word};

use word::State;

/// The process at the other end of a channel.
#[derive(Debug)]
pub(super) struct PeerProcess {
    process: RemoteProcess,
    alarm: Arc<Alarm>,
    socket: Arc<Socket>,
}

struct Watcher {
    /// The process whose thread it is.
    pid: u32,
    epoll: Arc<OwnedFd>,
    /// By the number that the events of their sockets bear.
    peers: HashMap<u64, Weak<PeerProcess>>,
    last_number: u64,
    /// With how many peers those are forgotten that are closed by now.
    sweep_at: usize,
}

/// What the events of all pidfds bear: channels to one process share one.
const A_PROCESS: u64 = 0;

static WATCHER: ProcessLock<Option<Watcher>> = ProcessLock::new();

impl PeerProcess {
    /// The process at the other end of `socket`, to be told of its end. It shows in `word` first.
    ///
    /// # Errors
    ///
    /// EMFILE and ENFILE; EAGAIN when there can be no more threads.
    pub(super) fn watch(handle: &Arc<ProcessHandle>, socket: &Arc<Socket>, word: Word) -> Result<Arc<Self>> {
        let alarm = Arc::new(Alarm::looking(move || word.state() == State::Dead));
        let process = RemoteProcess::of(Arc::clone(handle)).with_alarm(Arc::clone(&alarm));
        let peer = Arc::new(Self { process, alarm, socket: Arc::clone(socket) });
        let mut guard = WATCHER.lock();
        let watcher = Watcher::of_this_process(&mut guard)?;
        let number = watcher.insert(&peer);
        watcher
            .add(handle.as_fd(), epoll::EventFlags::IN, A_PROCESS)
            .and_then(|()| watcher.add(socket.as_fd(), epoll::EventFlags::empty(), number))
            .map_err(|errno| Error::os("epoll_ctl", format!("the pidfd of process {}", handle.pid()), errno))?;
        Ok(peer)
    }

    /// The process at the other end of a channel in a model, which does not end.
    #[cfg(loom)]
    pub(super) fn of_model(handle: Arc<ProcessHandle>, socket: &Arc<Socket>) -> Self {
        Self { process: RemoteProcess::of(handle), alarm: Arc::default(), socket: Arc::clone(socket) }
    }

    pub(super) fn process(&self) -> &RemoteProcess {
        &self.process
    }

    pub(super) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// Tells that it is gone, to whoever sleeps and to whoever polls the socket, of which a child of it may have a copy.
    fn tell_end(&self) {
        self.alarm.set();
        // The only error is that it has hung up already.
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }

    /// Whether it has exited, or executed another program.
    pub(super) fn is_gone(&self) -> bool {
        self.alarm.look() || self.process.has_exited()
    }
}

impl Watcher {
    fn insert(&mut self, peer: &Arc<PeerProcess>) -> u64 {
        if self.peers.len() >= self.sweep_at {
            self.peers.retain(|_, peer| peer.strong_count() > 0);
            self.sweep_at = 2 * self.peers.len() + 16;
        }
        self.last_number += 1;
        self.peers.insert(self.last_number, Arc::downgrade(peer));
        self.last_number
    }

    /// Waits for `flags`, or for a hang-up, of `fd`, once.
    fn add(&self, fd: BorrowedFd<'_>, flags: epoll::EventFlags, number: u64) -> Result<(), Errno> {
        let (data, flags) = (epoll::EventData::new_u64(number), flags | epoll::EventFlags::ONESHOT);
        match epoll::add(&*self.epoll, fd, data, flags) {
            // The pidfd of an earlier channel to the same process.
            Err(Errno::EXIST) => epoll::modify(&*self.epoll, fd, data, flags),
            added => added,
        }
    }

    /// The peers that the events with these numbers are about, as far as they are gone.
    fn gone(&self, numbers: &[u64]) -> Vec<Arc<PeerProcess>> {
        let any_exited = numbers.contains(&A_PROCESS);
        let is_gone =
            |number: &u64, peer: &PeerProcess| numbers.contains(number) || (any_exited && peer.process.has_exited());
        let peers = self.peers.iter().filter_map(|(number, peer)| Some((number, peer.upgrade()?)));
        peers.filter(|(number, peer)| is_gone(number, peer)).map(|(_, peer)| peer).collect()
    }

    fn of_this_process(slot: &mut Option<Self>) -> Result<&mut Self> {
        let pid = std::process::id();
        if slot.as_ref().is_none_or(|watcher| watcher.pid != pid) {
            *slot = Some(Self::start(pid)?);
        }
        slot.as_mut().ok_or_else(|| Error::no_thread("clone", "the thread that watches peers", Errno::AGAIN))
    }

    fn start(pid: u32) -> Result<Self> {
        let object = "the thread that watches peers";
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| Error::os("epoll_create1", object, errno))?;
        let epoll = Arc::new(epoll);
        let theirs = Arc::clone(&epoll);
        // The program's signals are for the program's threads.
        without_signals(|| std::thread::Builder::new().name("onecopy-watch".into()).spawn(move || run(&theirs)))
            .map_err(|error| Error::no_thread("clone", object, error))?;
        Ok(Self { pid, epoll, peers: HashMap::new(), last_number: A_PROCESS, sweep_at: 16 })
    }
}

/// The thread: sets the alarm of each peer that is gone.
fn run(epoll: &OwnedFd) {
    let mut events = [const { MaybeUninit::uninit() }; 64];
    loop {
        let numbers: Vec<u64> = match epoll::wait(epoll, &mut events, None) {
            Ok((ready, _)) => ready.iter().map(|event| event.data.u64()).collect(),
            Err(Errno::INTR) => continue,
            // Somebody has closed the descriptor of this thread: it would never sleep again.
            Err(_) => return,
        };
        let guard = WATCHER.lock();
        let gone = guard.as_ref().map_or_else(Vec::new, |watcher| watcher.gone(&numbers));
        drop(guard);
        gone.iter().for_each(|peer| peer.tell_end());
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn sockets() -> (Arc<Socket>, OwnedFd) {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Arc::new(Socket::new(own, "channel:x")), other)
    }

    /// That of a process which has no keeper.
    fn word() -> Word {
        word::tests::words().1
    }

    fn is_told(peer: &PeerProcess) {
        let end = Instant::now() + Duration::from_secs(60);
        while !peer.alarm().is_set() {
            assert!(Instant::now() < end, "nobody told that the process is gone");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_end_of_a_process_is_told_to_all_channels_to_it_and_a_hang_up_to_its_own() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let handle = Arc::new(ProcessHandle::open(child.id()).unwrap());
        let mut ends: Vec<_> = (0..40).map(|_| sockets()).collect();
        drop(PeerProcess::watch(&handle, &ends[0].0, word()).unwrap());
        let peers: Vec<_> = ends.iter().map(|(own, _)| PeerProcess::watch(&handle, own, word()).unwrap()).collect();
        assert!(peers.iter().all(|peer| !peer.alarm().is_set() && !peer.is_gone()));
        let (_own, other) = ends.pop().unwrap();
        drop(other);
        is_told(&peers[39]);
        assert!(peers[..39].iter().all(|peer| !peer.is_gone()));
        child.kill().unwrap();
        // A zombie has exited: nobody needs to wait for it first.
        peers.iter().for_each(|peer| is_told(peer));
        child.wait().unwrap();
    }
}
