//! A process that forks in the middle of a connection: the child's copy of the channel is of no use, and does no harm.
//!
//! # Safety
//!
//! The processes that fork are second processes of tests and have other threads, which the child lacks: one that waits for peers.
//! The child uses its copy of the channel, which takes no lock of theirs, and ends by `_exit`.
#![expect(unsafe_code, reason = "fork, which nothing in the standard library does without exec")]

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use onecopy::channel::{Arming, ChannelName, ChannelReceiver, ChannelSender, Policy};
use onecopy::memory::buffer::Buffer;
use onecopy::memory::window::WriteWindow;
use onecopy::{Channel, Deadline, Error, Listener, Receiver as _, Sender as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::getpeername;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::duo::{KIB, MIB, adopt, apart, content, receive, rounds, send_all, soon, start};
use crate::support::fork::{in_child, leave_a_child};
use crate::support::{Peer, argument, eventually, role, unique, watchdog};

const SECONDS: Duration = Duration::from_secs(120);

fn is_forked(outcome: Result<(), Error>) -> bool {
    outcome.is_err_and(|error| matches!(error, Error::Unsupported { .. }) && error.to_string().contains("fork"))
}

/// Every call, and none that waits.
fn all_calls_fail(sender: &mut ChannelSender, receiver: &mut ChannelReceiver) -> bool {
    let deadlines = [Deadline::Now, Deadline::Never];
    let sends = |bytes: usize| deadlines.map(|deadline| is_forked(sender.send_by(content(0, bytes), deadline)));
    let sent = [0, 8, 100, 5000, MIB].map(sends).as_flattened().iter().all(|failed| *failed);
    let flushed = deadlines.map(|deadline| is_forked(sender.flush_by(deadline)));
    let received = deadlines.map(|deadline| is_forked(receiver.recv_by(deadline).map(drop)));
    let into = deadlines.map(|deadline| is_forked(receiver.recv_into_by(&mut [0; 10], deadline).map(drop)));
    let lent = deadlines.map(|deadline| is_forked(sender.loan_by(8, deadline).map(drop)));
    let viewed = deadlines.map(|deadline| is_forked(receiver.recv_view_by(deadline).map(drop)));
    sent && [flushed, received, into, lent, viewed].as_flattened().iter().all(|failed| *failed)
}

const SIZES: [usize; 8] = [8, 100, 5000, 100 * KIB, MIB, 0, 60, 3 * MIB];

/// Sends and receives something of each size.
fn talk(sender: &mut ChannelSender, receiver: &mut ChannelReceiver, round: u64) {
    for (number, size) in (round * 100..).zip(SIZES) {
        send_all(sender, number, [size]);
        receive(receiver, number, size, None);
    }
}

/// The second process: forks between two messages. One child uses what it has, another one drops it while a third process waits.
fn fork_in_between() {
    let mut channel = adopt();
    in_child(|| {
        let cases = [(8, Deadline::Never), (MIB, Deadline::Never), (MIB, Deadline::Now)];
        cases.iter().all(|(bytes, deadline)| is_forked(channel.exchange_by(content(0, *bytes), *deadline).map(drop)))
    });
    let (mut sender, mut receiver) = channel.split();
    talk(&mut sender, &mut receiver, 0);
    in_child(|| all_calls_fail(&mut sender, &mut receiver));
    talk(&mut sender, &mut receiver, 1);
    let mut halves = Some((sender, receiver));
    in_child(|| {
        drop(halves.take());
        true
    });
    // A child has its own copy of the variable as well.
    let (mut sender, mut receiver) = halves.unwrap();
    talk(&mut sender, &mut receiver, 2);
}

fn answer(channel: Channel) {
    let (mut sender, mut receiver) = channel.split();
    let mut message = receiver.recv_by(Deadline::Never).unwrap();
    while let Some(bytes) = message {
        sender.send_by(&bytes, Deadline::Never).unwrap();
        message = receiver.recv_by(Deadline::Never).unwrap();
    }
}

#[test]
fn a_child_has_an_error_from_every_call_and_its_parent_goes_on() {
    let test = "fork::a_child_has_an_error_from_every_call_and_its_parent_goes_on";
    if role().is_some() {
        return fork_in_between();
    }
    let _watchdog = watchdog(SECONDS);
    let (channel, peer) = start(test, "forks", &[]);
    answer(channel);
    peer.succeed();
}

/// The second process: a child drops its copy while the other side waits by its descriptor for room; then this one makes some.
fn fork_with_an_armed_peer() {
    let mut slot = Some(adopt());
    eventually("the other side is armed", || Path::new(&argument("armed")).exists());
    in_child(|| {
        drop(slot.take());
        true
    });
    let mut channel = slot.unwrap();
    while channel.recv().unwrap().is_some() {}
}

#[test]
fn a_child_that_drops_its_copy_takes_no_wake_up_from_who_waits_by_a_descriptor() {
    let test = "fork::a_child_that_drops_its_copy_takes_no_wake_up_from_who_waits_by_a_descriptor";
    if role().is_some() {
        return fork_with_an_armed_peer();
    }
    let _watchdog = watchdog(SECONDS);
    for is_owned in [false, true] {
        let armed = std::env::temp_dir().join(unique("armed"));
        let (mut channel, peer) = start(test, "forks", &[("armed", armed.to_str().unwrap())]);
        if is_owned {
            channel.sender().send_owned_by(content(1, MIB).to_vec(), Deadline::Now).unwrap();
        } else {
            while channel.sender().send_by(&[1; 56], Deadline::Now).is_ok() {}
        }
        assert_eq!(channel.sender().arm().unwrap(), Arming::Armed);
        std::fs::write(&armed, "").unwrap();
        let mut polled = [PollFd::new(&channel, PollFlags::IN)];
        let came = poll(&mut polled, Some(&Timespec { tv_sec: 20, tv_nsec: 0 }));
        std::fs::remove_file(&armed).unwrap();
        assert_eq!(came, Ok(1), "owned: {is_owned}");
        channel.sender().flush_by(soon()).unwrap();
        drop(channel);
        peer.succeed();
    }
}

/// The second process: forks with a loan that it fills, and with a view.
fn fork_with_loans() {
    let (mut sender, mut receiver) = adopt().split();
    let mut loan = sender.loan(MIB).unwrap();
    loan.copy_from_slice(content(1, MIB));
    in_child(|| {
        // It is expected.
        std::panic::set_hook(Box::new(|_| {}));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loan[0])).is_err()
    });
    let mut slot = Some(loan);
    in_child(|| slot.take().unwrap().send_by(Deadline::Never).is_err_and(|unsent| is_forked(Err(unsent.error))));
    slot.unwrap().send().unwrap();
    let mut view = receiver.recv_view_by(Deadline::Never).unwrap();
    in_child(|| {
        let view = view.take().unwrap();
        let is_refused = is_forked(view.read_at(0, &mut [0]));
        // It is not the child's to give back.
        drop(view);
        is_refused
    });
    let view = view.unwrap();
    sender.send_by(b"make the next one", Deadline::Never).unwrap();
    let next = receiver.recv_view_by(Deadline::Never).unwrap().unwrap();
    for (number, view) in [(1, view), (2, next)] {
        assert!(view.is_lent());
        assert!(&view.into_message().unwrap()[..] == content(number, MIB), "{number}");
    }
}

#[test]
fn a_child_has_neither_its_parents_loans_nor_its_views() {
    let test = "fork::a_child_has_neither_its_parents_loans_nor_its_views";
    if role().is_some() {
        return fork_with_loans();
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "forks", &[]);
    let message = channel.recv().unwrap().unwrap();
    assert!(&message[..] == content(1, MIB));
    for number in [1, 2] {
        let mut loan = channel.loan(MIB).unwrap();
        loan.copy_from_slice(content(number, MIB));
        loan.send().unwrap();
        if number == 1 {
            assert_eq!(&*channel.recv().unwrap().unwrap(), b"make the next one");
        }
    }
    assert!(channel.recv().unwrap().is_none());
    peer.succeed();
}

/// The second process: forks with a registered buffer that it uses before and afterwards.
fn fork_with_a_registered_buffer() {
    let mut channel = adopt();
    let mut buffer = channel.register(MIB).unwrap();
    buffer.copy_from_slice(content(1, MIB));
    in_child(|| {
        // It is expected.
        std::panic::set_hook(Box::new(|_| {}));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| buffer[0])).is_err()
            && is_forked(channel.send_registered(&buffer, 0..MIB))
            && is_forked(channel.recv_registered(&mut buffer).map(drop))
            && is_forked(channel.register(5000).map(drop))
    });
    let mut slot = Some(buffer);
    in_child(|| {
        // Something else may lie there by now, which the drop leaves alone.
        drop(slot.take());
        true
    });
    let mut buffer = slot.unwrap();
    assert!(buffer[..] == *content(1, MIB));
    channel.send_registered(&buffer, 0..MIB).unwrap();
    assert_eq!(channel.recv_registered(&mut buffer).unwrap(), Some(MIB));
    assert!(buffer[..] == *content(2, MIB));
}

#[test]
fn a_child_does_not_have_its_parents_registered_buffers() {
    let test = "fork::a_child_does_not_have_its_parents_registered_buffers";
    if role().is_some() {
        return fork_with_a_registered_buffer();
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "forks", &[]);
    let mut buffer = channel.register(MIB).unwrap();
    assert_eq!(channel.recv_registered(&mut buffer).unwrap(), Some(MIB));
    assert!(buffer[..] == *content(1, MIB));
    buffer.copy_from_slice(content(2, MIB));
    channel.send_registered(&buffer, 0..MIB).unwrap();
    peer.succeed();
}

#[test]
fn a_child_that_lives_on_does_not_hide_the_end_of_its_parent() {
    let test = "fork::a_child_that_lives_on_does_not_hide_the_end_of_its_parent";
    if role().is_some() {
        let channel = adopt();
        leave_a_child();
        println!("\n@forked");
        std::thread::sleep(Duration::from_millis(20));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        return drop(channel);
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, mut peer) = start(test, "forks", &[]);
    peer.line("@forked");
    let error = channel.recv().unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
    assert!(channel.send(b"hello").unwrap_err().is_peer_gone());
}

#[test]
fn a_child_that_lives_on_does_not_hide_that_its_parent_executes_another_program() {
    let test = "fork::a_child_that_lives_on_does_not_hide_that_its_parent_executes_another_program";
    if role().is_some() {
        let channel = Channel::connect(&argument("NAME")).unwrap();
        // SAFETY: see above; the child does nothing but wait for the end of the test.
        if unsafe { libc::fork() } == 0 {
            set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
            std::thread::sleep(Duration::from_secs(600));
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
        let error = Command::new("sleep").arg("600").stdin(Stdio::null()).exec();
        drop(channel);
        panic!("{error}");
    }
    let _watchdog = watchdog(SECONDS);
    // By name: the number of an end that was inherited stays open in the child.
    let name = unique("forks");
    let listener = Listener::bind(&name).unwrap();
    let mut peer = Peer::start(test, "forks and executes", &[("NAME", &name)]);
    let mut channel = listener.accept_by(soon()).unwrap();
    let error = channel.receiver().recv_by(soon()).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
    peer.kill();
}

#[test]
fn a_child_may_close_its_copies_and_reuse_their_numbers() {
    let test = "fork::a_child_may_close_its_copies_and_reuse_their_numbers";
    if role().is_some() {
        let mut halves = Some(adopt().split());
        in_child(|| {
            let (sender, receiver) = halves.take().unwrap();
            let number = sender.as_fd().as_raw_fd();
            let is_unconnected = getpeername(&sender).is_err();
            drop((sender, receiver));
            let file = File::open("/dev/null").unwrap();
            is_unconnected && file.as_raw_fd() == number && file.metadata().is_ok()
        });
        let (mut sender, mut receiver) = halves.unwrap();
        return talk(&mut sender, &mut receiver, 0);
    }
    let _watchdog = watchdog(SECONDS);
    let (channel, peer) = start(test, "forks", &[]);
    answer(channel);
    peer.succeed();
}

/// Takes memory of each kind from the library, and gives it back: of a block that buffers share, small pages and huge ones; and gives
/// some up for good.
fn take_and_give_memory() {
    for bytes in [5000, 100_000, MIB, 3 * MIB] {
        drop([Buffer::warm(bytes), Buffer::warm(bytes)].map(Result::unwrap));
        drop(WriteWindow::expose(Buffer::warm(bytes).unwrap()).unwrap());
    }
}

/// Opens and closes a channel from this process to itself.
fn open_and_close(listener: &Listener, name: &str) {
    std::thread::scope(|scope| {
        scope.spawn(|| drop(Channel::connect(name).unwrap()));
        drop(listener.accept_by(soon()).unwrap());
    });
}

/// The second process: forks again and again while other threads open and close channels and take memory. These threads are there before: std itself
/// has a lock while it starts one, which a child would find locked.
fn fork_meanwhile() {
    let name = unique("busy");
    let listener = Listener::bind(&name).unwrap();
    let (is_over, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let again = |open: &dyn Fn() -> onecopy::Result<Channel>| {
        while !is_over.load(Ordering::Relaxed) {
            opened.fetch_add(usize::from(open().is_ok()), Ordering::Relaxed);
        }
    };
    // In the end one of the two waits for the other.
    let time = || Deadline::after(Duration::from_millis(200));
    std::thread::scope(|scope| {
        scope.spawn(|| again(&|| listener.accept_by(time())));
        scope.spawn(|| {
            let name = ChannelName::name(&name).unwrap();
            again(&|| Channel::connect_by(&name, &Policy::default(), time()));
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                take_and_give_memory();
                // These alone take no longer than the library holds a lock for them.
                (0..1000).for_each(|_| drop(Buffer::warm(100_000).unwrap()));
            }
        });
        eventually("the library has its threads", || opened.load(Ordering::Relaxed) >= 2);
        let rounds = rounds(100, 1000);
        // A busy machine may let these threads run late: they open something about once a round all the same.
        for _ in (0..).take_while(|&round| round < rounds || opened.load(Ordering::Relaxed) <= rounds) {
            in_child(|| {
                // One that waits for a thread of its parent waits for ever.
                set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
                let name = unique("forked");
                open_and_close(&Listener::bind(&name).unwrap(), &name);
                take_and_give_memory();
                true
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_child_of_a_process_that_opens_channels_opens_its_own_and_has_memory() {
    let test = "fork::a_child_of_a_process_that_opens_channels_opens_its_own_and_has_memory";
    match role() {
        Some(_) => fork_meanwhile(),
        None => apart(test, "forks", SECONDS),
    }
}
