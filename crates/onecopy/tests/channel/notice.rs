//! The death of a process that has much memory is known before the kernel has taken that apart, in whatever way this one waits.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use onecopy::channel::Arming;
use onecopy::memory::file_mapping::FileMapping;
use onecopy::{Channel, Deadline, Error, WaitStrategy};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::futex;

use crate::death::signal;
use crate::duo::{MIB, adopt, apart, content, kill_after, start};
use crate::filter;
use crate::support::fork::in_child;
use crate::support::{argument, role, skip, watchdog};

const SECONDS: Duration = Duration::from_secs(600);

/// What the process has that dies, in pages of the usual size: the kernel takes it apart for 10 ms at least.
const BYTES: usize = 512 * MIB;

/// A busy machine lets this process run late.
const ATTEMPTS: usize = 10;

/// Memory that a process has mapped to write, as the kernel knows, until all of what it had has been taken apart. Only then are its
/// descriptors closed, and only then does its pidfd tell.
struct Held(OwnedFd);

impl Held {
    fn new() -> Self {
        let memory = memfd_create("held", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, 4096).unwrap();
        Self(memory)
    }

    /// Where another process finds it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    fn is_mapped(&self) -> bool {
        match fcntl_add_seals(&self.0, SealFlags::WRITE) {
            Err(Errno::BUSY) => true,
            done => done.map(|()| false).unwrap(),
        }
    }
}

/// The second process: has much memory, and waits to be killed or, for a message, exits without closing.
fn wait_for_death(role: &str) {
    let mut channel = adopt();
    nix::sys::prctl::set_thp_disable(true).unwrap();
    let memory = vec![1_u8; BYTES];
    if role == "forks" {
        let mut copy = Some(channel);
        in_child(|| {
            drop(copy.take());
            true
        });
        channel = copy.unwrap();
    }
    let held = FileMapping::open(argument("HELD").as_ref()).unwrap();
    println!("\n@ready");
    match role {
        "exits" => drop(channel.recv().unwrap()),
        "receives" => while channel.recv().unwrap().is_some() {},
        _ => std::thread::sleep(SECONDS),
    }
    // They are still there when the process exits.
    std::hint::black_box((&memory, &held));
    std::process::exit(0);
}

/// Lets a process die while this one is in `wait`. Whether that told before the kernel had taken its memory apart.
fn is_told_sooner(test: &str, role: &str, wait: Way) -> bool {
    let held = Held::new();
    let (mut channel, mut peer) = start(test, role, &[("HELD", &held.path())]);
    peer.line("@ready");
    assert!(held.is_mapped());
    let dies = std::thread::spawn({
        let exits = role == "exits";
        if exits {
            channel.send(b"exit").unwrap();
        }
        move || {
            std::thread::sleep(Duration::from_millis(20));
            if !exits {
                signal(&peer, Signal::KILL);
            }
            peer
        }
    });
    let error = wait(&mut channel);
    let sooner = held.is_mapped();
    assert!(error.is_peer_gone(), "{role}: {error}");
    drop(dies.join().unwrap());
    sooner
}

fn receive(channel: &mut Channel, strategy: WaitStrategy) -> Error {
    channel.set_wait_strategy(strategy);
    channel.recv().unwrap_err()
}

fn send(channel: &mut Channel, bytes: usize) -> Error {
    loop {
        if let Err(error) = channel.send(content(0, bytes)) {
            return error;
        }
    }
}

fn polled(channel: &mut Channel) -> Error {
    loop {
        if channel.arm().unwrap() == Arming::Armed {
            poll(&mut [PollFd::new(&*channel, PollFlags::IN)], None).unwrap();
        }
        match channel.receiver().recv_by(Deadline::Now) {
            Err(Error::WouldBlock { .. }) => {}
            other => return other.unwrap_err(),
        }
    }
}

fn now_and_then(channel: &mut Channel) -> Error {
    loop {
        match channel.receiver().recv_by(Deadline::Now) {
            Err(Error::WouldBlock { .. }) => std::thread::sleep(Duration::from_micros(100)),
            other => return other.unwrap_err(),
        }
    }
}

/// What ends by an error when the other process dies.
type Way = fn(&mut Channel) -> Error;

/// What the other process does, and how this one learns of its death.
const WAYS: [(&str, Way); 10] = [
    ("waits", |channel| receive(channel, WaitStrategy::Block)),
    ("waits", |channel| receive(channel, WaitStrategy::default())),
    ("waits", |channel| receive(channel, WaitStrategy::Spin)),
    ("exits", |channel| receive(channel, WaitStrategy::Block)),
    ("forks", |channel| receive(channel, WaitStrategy::Block)),
    ("waits", |channel| send(channel, 1000)),
    ("waits", |channel| send(channel, MIB)),
    ("receives", |channel| send(channel, 4 * MIB)),
    ("waits", polled),
    ("waits", now_and_then),
];

#[test]
fn a_death_is_known_before_the_memory_is_taken_apart_in_every_way_to_wait() {
    let test = "notice::a_death_is_known_before_the_memory_is_taken_apart_in_every_way_to_wait";
    if let Some(role) = role() {
        return wait_for_death(&role);
    }
    let no_words = futex::waitv(&[], futex::WaitvFlags::empty(), None, rustix::time::ClockId::Monotonic);
    if no_words == Err(Errno::NOSYS) {
        return skip(test, "no futex_waitv");
    }
    let _watchdog = watchdog(SECONDS);
    // So that it does not take its time while a process dies.
    content(0, 4 * MIB);
    for (way, (role, wait)) in WAYS.into_iter().enumerate() {
        let sooner = (0..ATTEMPTS).position(|_| is_told_sooner(test, role, wait));
        assert!(sooner.is_some(), "way {way}, a process that {role}: known when its memory had gone, {ATTEMPTS} times");
    }
}

/// A process under a filter that answers with `errno` to the calls that newer kernels have: it sleeps, is woken, and learns of a death.
fn do_without(test: &str, errno: u32) {
    let calls = [libc::SYS_futex_waitv, libc::SYS_set_robust_list, libc::SYS_sched_setattr];
    filter::install(&calls, libc::SECCOMP_RET_ERRNO | errno);
    let (mut channel, peer) = start(test, "echoes", &[]);
    channel.set_wait_strategy(WaitStrategy::Block);
    for round in 0..5 {
        channel.send(&[round]).unwrap();
        assert_eq!(&*channel.recv().unwrap().unwrap(), [round]);
    }
    let killing = kill_after(Duration::from_millis(20), peer);
    let error = channel.recv().unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
    killing.join().unwrap();
}

#[test]
fn a_channel_does_without_the_calls_that_tell_a_death_soon() {
    let test = "notice::a_channel_does_without_the_calls_that_tell_a_death_soon";
    match role().as_deref() {
        Some("echoes") => {
            let mut channel = adopt();
            channel.set_wait_strategy(WaitStrategy::Block);
            while let Some(message) = channel.recv().unwrap() {
                channel.send(&message).unwrap();
            }
        }
        Some(errno) => do_without(test, errno.parse().unwrap()),
        // What an old kernel says, and what the filter of an old container manager does.
        None => [libc::ENOSYS, libc::EPERM].iter().for_each(|errno| apart(test, &errno.to_string(), SECONDS)),
    }
}
