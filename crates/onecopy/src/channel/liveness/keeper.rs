//! The threads that tell of the end of this process, and notice that of others, while the kernel is still taking memory apart.
//!
//! | Who | Does |
//! |---|---|
//! | the first thread, the keeper | has the [`List`] of this process's words, and is a lookout |
//! | each further one | is a lookout for more than 127 other processes |
//! | [`Lifeline::begin`] | puts this side's word on the list and has the other one's watched; starts the threads that this needs |
//! | drop | takes both out again |
//!
//! None of them is a thread of the program, whose own robust mutexes stay on the lists of its own threads. They sleep until something
//! happens, and then get a processor soon ([`slices`](crate::sys::slices)).
//!
//! When SIGKILL, exit(2) or execve(2) ends the keeper, every other thread of the process has been told to end as well, and is
//! interrupted where it runs. One that is in a system call goes on with that, and may write memory of other processes for a while. So what
//! is noticed here is for telling it: that nothing is written any more, only a pidfd says. What a thread publishes in the microseconds
//! until the interrupt reaches it may come after the error, and is received then. A process that dumps its core comes to all of this
//! after that.
//!
//! The kernel reaches the first 2048 open channels of a process ([`robust_list`](crate::sys::robust_list)). Those beyond, those whose
//! thread could not be started, and before Linux 5.16 those whose side sleeps, are left to the pidfd.
//!
//! A child made by fork has none of these threads, and leaves the words of its parent alone. It gets its own with its first channel, also
//! if a thread of its parent held the lock just then.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use super::PeerProcess;
use super::list::List;
use super::lookout::Lookout;
use super::word::Word;
use crate::channel::seccomp::is_filtered;
use crate::process::{ProcessHandle, ProcessLock};
use crate::sys::signal_mask::without_signals;
use crate::sys::slices::take_short_slices;

struct Keeper {
    /// The process whose threads they are.
    pid: u32,
    list: Option<List>,
    /// That of each thread.
    lookouts: Vec<Lookout>,
}

static KEEPER: ProcessLock<Option<Keeper>> = ProcessLock::new();

/// What tells the other side of a channel of the end of this process, and this one of the end of the other.
#[derive(Debug)]
pub(in crate::channel) struct Lifeline {
    pid: u32,
    process: Arc<ProcessHandle>,
    own: Word,
    other: Word,
}

impl Lifeline {
    /// `None` where there can be no thread for it: then the pidfd tells.
    pub(in crate::channel) fn begin(
        process: &Arc<ProcessHandle>,
        peer: &Arc<PeerProcess>,
        own: Word,
        other: Word,
    ) -> Option<Self> {
        let mut guard = KEEPER.lock();
        let keeper = Keeper::of_this_process(&mut guard)?;
        if let Some(list) = &mut keeper.list {
            list.add(own.clone());
        }
        if let Some(lookout) = keeper.lookout_for(process) {
            lookout.add(process, other.clone(), peer);
        }
        let pid = keeper.pid;
        drop(guard);
        own.wake();
        Some(Self { pid, process: Arc::clone(process), own, other })
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        // A copy in a child made by fork.
        if std::process::id() != self.pid {
            return;
        }
        if let Some(keeper) = &mut *KEEPER.lock() {
            if let Some(list) = &mut keeper.list {
                list.remove(&self.own);
            }
            keeper.lookouts.iter_mut().for_each(|lookout| lookout.remove(&self.process, &self.other));
        }
        self.own.wake();
    }
}

impl Keeper {
    fn of_this_process(slot: &mut Option<Self>) -> Option<&mut Self> {
        let pid = std::process::id();
        if slot.as_ref().is_none_or(|keeper| keeper.pid != pid) {
            *slot = Self::start(pid);
        }
        slot.as_mut()
    }

    fn start(pid: u32) -> Option<Self> {
        let lookout = Lookout::default();
        let (tell, told) = mpsc::channel();
        start(&lookout, 0, move || drop(tell.send(List::of_this_thread().ok())))?;
        Some(Self { pid, list: told.recv().ok()?, lookouts: vec![lookout] })
    }

    /// The one that watches `process`, or is to.
    fn lookout_for(&mut self, process: &Arc<ProcessHandle>) -> Option<&mut Lookout> {
        let index = self.lookouts.iter().position(|lookout| lookout.has(process));
        let index = match index.or_else(|| self.lookouts.iter().position(Lookout::has_room)) {
            Some(index) => index,
            None => {
                let lookout = Lookout::default();
                start(&lookout, self.lookouts.len(), || {})?;
                self.lookouts.push(lookout);
                self.lookouts.len() - 1
            }
        };
        self.lookouts.get_mut(index)
    }
}

/// Starts the thread of `lookout`, which has this number or will have it when the caller unlocks; it does `first` at first.
fn start(lookout: &Lookout, number: usize, first: impl FnOnce() + Send + 'static) -> Option<()> {
    let news = Arc::clone(&lookout.news);
    let thread = move || {
        first();
        // A filter may kill who makes a call that it does not know.
        if !is_filtered() {
            take_short_slices();
        }
        run(number, &news);
    };
    // The program's signals are for the program's threads.
    without_signals(|| std::thread::Builder::new().name("onecopy-keep".into()).spawn(thread)).ok().map(drop)
}

/// A thread: tells of each peer that is gone.
fn run(number: usize, news: &AtomicU32) {
    let mut caller: Option<Word> = None;
    loop {
        // Acquire: what is to be watched was changed before.
        let seen = news.load(Ordering::Acquire);
        let mut keeper = KEEPER.lock();
        let lookout = keeper.as_mut().and_then(|keeper| keeper.lookouts.get_mut(number));
        let mut look = lookout.map(|lookout| lookout.look(caller.as_ref())).unwrap_or_default();
        drop(keeper);
        look.gone.drain(..).for_each(|peer| peer.tell_end());
        // It would keep the memory of its channel while the thread sleeps.
        drop(caller);
        caller = look.sleep(news, seen);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::thread::futex;

    use super::super::word::{State, tests::words};
    use super::*;
    use crate::io::socket::Socket;

    /// This side of a channel, to a process that has the other one's word.
    struct Side {
        peer: Arc<PeerProcess>,
        lifeline: Option<Lifeline>,
        own: Word,
        other: Word,
        _end: OwnedFd,
    }

    impl Side {
        fn of(process: &Arc<ProcessHandle>) -> Self {
            let (own, other) = words();
            let (socket, end) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
            let socket = Arc::new(Socket::new(socket, "channel:x"));
            let peer = PeerProcess::watch(process, &socket, other.clone()).unwrap();
            let lifeline = Lifeline::begin(process, &peer, own.clone(), other.clone());
            assert!(lifeline.is_some() && matches!(own.state(), State::Silent(1..)), "{:?}", own.state());
            Self { peer, lifeline, own, other, _end: end }
        }

        /// What the kernel does.
        fn mark(&self) {
            self.other.shared().store(futex::OWNER_DIED | futex::WAITERS, Ordering::Release);
            self.other.wake();
        }

        /// Whether somebody has set the alarm; nobody who looks does.
        fn is_told(&self) -> bool {
            self.peer.alarm().is_set()
        }

        fn becomes_told(&self) {
            let end = Instant::now() + Duration::from_secs(60);
            while !self.is_told() {
                assert!(Instant::now() < end, "nobody told that the process is gone");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Another process, as far as the lookouts know.
    fn process() -> Arc<ProcessHandle> {
        Arc::new(ProcessHandle::open(std::process::id()).unwrap())
    }

    #[test]
    fn a_mark_tells_the_end_of_its_own_channel_whichever_of_those_to_a_process_it_is() {
        let process = process();
        let sides: Vec<Side> = (0..4).map(|_| Side::of(&process)).collect();
        // The first one is slept on.
        sides[0].mark();
        sides[0].becomes_told();
        // Then the next one, whose word comes late and then says that it has closed.
        for value in [7 | futex::WAITERS, futex::WAITERS] {
            sides[1].other.shared().store(value, Ordering::Release);
            sides[1].other.wake();
        }
        sides[2].mark();
        sides[2].becomes_told();
        assert!(!sides[1].is_told() && !sides[3].is_told());
        sides[3].mark();
        sides[3].becomes_told();
    }

    #[test]
    fn a_channel_that_is_closed_says_so_and_is_watched_no_more() {
        let process = process();
        let mut sides: Vec<Side> = (0..3).map(|_| Side::of(&process)).collect();
        drop(sides[0].lifeline.take());
        assert_eq!(sides[0].own.state(), State::Closed);
        sides[0].mark();
        sides[1].mark();
        sides[1].becomes_told();
        assert!(!sides[0].is_told() && !sides[2].is_told());
        sides.iter_mut().for_each(|side| drop(side.lifeline.take()));
        assert!(sides.iter().all(|side| side.own.state() == State::Closed));
        let keeper = KEEPER.lock();
        assert!(keeper.as_ref().unwrap().lookouts.iter().all(|lookout| !lookout.has(&process)));
    }

    #[test]
    fn more_processes_are_watched_than_one_thread_can_sleep_on() {
        let no_words = futex::waitv(&[], futex::WaitvFlags::empty(), None, rustix::time::ClockId::Monotonic);
        if no_words == Err(rustix::io::Errno::NOSYS) {
            return eprintln!("no futex_waitv: the pidfds tell");
        }
        let sides: Vec<Side> = (0..300).map(|_| Side::of(&process())).collect();
        assert!(KEEPER.lock().as_ref().unwrap().lookouts.len() >= 3);
        for index in [299, 0, 126, 127, 200] {
            assert!(!sides[index].is_told());
            sides[index].mark();
            sides[index].becomes_told();
        }
        assert_eq!(sides.iter().filter(|side| side.is_told()).count(), 5);
    }

    #[test]
    fn a_peer_that_changes_its_word_all_the_time_keeps_nobody_busy() {
        let process = process();
        let (_, other) = words();
        let side = Side::of(&process);
        let mut lookout = Lookout::default();
        lookout.add(&process, other.clone(), &side.peer);
        let mut looks = 0;
        while lookout.has(&process) {
            assert!(looks < 4, "it is still watched");
            other.shared().store(looks, Ordering::Release);
            assert!(lookout.look(None).gone.is_empty());
            looks += 1;
        }
    }

    #[test]
    fn a_peer_that_wakes_for_nothing_all_the_time_keeps_nobody_busy() {
        let process = process();
        let (_, other) = words();
        let side = Side::of(&process);
        let mut lookout = Lookout::default();
        lookout.add(&process, other.clone(), &side.peer);
        lookout.add(&process, side.other.clone(), &side.peer);
        for _ in 0..1000 {
            assert!(lookout.look(None).gone.is_empty());
            assert!(lookout.look(Some(&side.other)).gone.is_empty());
        }
        assert!(lookout.has(&process));
        for _ in 0..100 {
            assert!(lookout.look(Some(&other)).gone.is_empty());
        }
        // The next one to the same process, which nobody has called by, is slept on.
        assert!(lookout.has(&process));
        side.other.shared().store(futex::OWNER_DIED, Ordering::Release);
        assert_eq!(lookout.look(None).gone.len(), 1);
    }
}
