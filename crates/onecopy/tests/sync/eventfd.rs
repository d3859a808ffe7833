//! Row 21: the eventfd, and what eventfd(2) says of it.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use onecopy::open::{OpenOptions, open_notify, open_wait};
use onecopy::sync::eventfd::{EventFd, MAX_VALUE, Taking};
use onecopy::sync::{Notify as _, Wait as _};
use onecopy::{Deadline, Error};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::support::{Peer, role, skip, watchdog};

const LIMIT: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(30);

/// A second process that inherits `counter` as its standard input.
fn start(test: &str, counter: &EventFd) -> Peer {
    let fd = counter.as_fd().try_clone_to_owned().unwrap();
    Peer::configure(test, "peer", &[], |command| {
        command.stdin(Stdio::from(fd));
    })
}

fn inherited() -> onecopy::Address {
    "fd:0".parse().unwrap()
}

#[test]
fn each_addition_wakes_another_process_once_in_both_modes() {
    if role().is_some() {
        let mut wait = open_wait(&inherited(), &OpenOptions::default()).unwrap();
        for number in 0..5 {
            wait.wait_by(Deadline::after(LIMIT)).unwrap();
            println!("\nwoken {number}");
        }
        assert!(matches!(wait.wait_by(Deadline::Now), Err(Error::WouldBlock { .. })));
        return;
    }
    let _watchdog = watchdog(LIMIT);
    for taking in [Taking::All, Taking::One] {
        let mut counter = EventFd::new(0, taking).unwrap();
        let mut peer = start("eventfd::each_addition_wakes_another_process_once_in_both_modes", &counter);
        counter.notify_by(1, Deadline::Now).unwrap();
        assert_eq!(peer.line("woken "), "0");
        counter.notify_by(4, Deadline::Now).unwrap();
        (1..5).for_each(|number| assert_eq!(peer.line("woken "), number.to_string()));
        peer.succeed();
        assert_eq!(counter.value().unwrap(), 0);
    }
}

#[test]
fn a_take_brings_all_or_one() {
    let mut all = EventFd::new(3, Taking::All).unwrap();
    all.add_by(4, Deadline::Now).unwrap();
    assert_eq!((all.value().unwrap(), all.take_by(Deadline::Now).unwrap(), all.value().unwrap()), (7, 7, 0));
    let mut one = EventFd::new(2, Taking::One).unwrap();
    assert_eq!((one.take_by(Deadline::Now).unwrap(), one.value().unwrap()), (1, 1));
    assert_eq!(one.take_by(Deadline::Now).unwrap(), 1);
    let start = Instant::now();
    assert!(matches!(one.take_by(Deadline::after(MOMENT)), Err(Error::TimedOut { .. })));
    assert!(start.elapsed() >= MOMENT);
}

#[test]
fn the_counter_is_full_at_its_limit_and_nothing_is_half_added() {
    let _watchdog = watchdog(LIMIT);
    let mut counter = EventFd::new(0, Taking::All).unwrap();
    let error = counter.add_by(u64::MAX, Deadline::Never).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("18446744073709551614"), "{error}");
    counter.add_by(MAX_VALUE, Deadline::Now).unwrap();
    counter.add_by(0, Deadline::Now).unwrap();
    assert!(matches!(counter.add_by(1, Deadline::Now), Err(Error::WouldBlock { .. })));
    assert!(matches!(counter.add_by(1, Deadline::after(MOMENT)), Err(Error::TimedOut { .. })));
    assert_eq!(counter.take_by(Deadline::Now).unwrap(), MAX_VALUE);
    counter.add_by(MAX_VALUE - 2, Deadline::Now).unwrap();
    assert!(matches!(counter.add_by(3, Deadline::Now), Err(Error::WouldBlock { .. })), "one fits, and three do not");
    counter.add_by(2, Deadline::Now).unwrap();
    assert_eq!(counter.value().unwrap(), MAX_VALUE);
}

#[test]
fn an_addition_waits_for_room() {
    let _watchdog = watchdog(LIMIT);
    for deadline in [Deadline::Never, Deadline::after(LIMIT)] {
        let mut counter = EventFd::new(0, Taking::All).unwrap();
        counter.add_by(MAX_VALUE, Deadline::Now).unwrap();
        let other = EventFd::from_fd(counter.as_fd().try_clone_to_owned().unwrap(), "the same").unwrap();
        let adder = std::thread::spawn(move || other.add_by(5, deadline));
        std::thread::sleep(MOMENT);
        assert!(!adder.is_finished());
        assert_eq!(counter.take_by(Deadline::Now).unwrap(), MAX_VALUE);
        adder.join().unwrap().unwrap();
        assert_eq!(counter.take_by(Deadline::Never).unwrap(), 5);
    }
}

#[test]
fn what_others_do_to_o_nonblock_changes_nothing() {
    let _watchdog = watchdog(LIMIT);
    let mut counter = EventFd::new(0, Taking::All).unwrap();
    let flags = fcntl_getfl(&counter).unwrap();
    for flags in [flags | OFlags::NONBLOCK, flags - OFlags::NONBLOCK] {
        fcntl_setfl(&counter, flags).unwrap();
        assert!(matches!(counter.take_by(Deadline::Now), Err(Error::WouldBlock { .. })));
        let start = Instant::now();
        assert!(matches!(counter.take_by(Deadline::after(MOMENT)), Err(Error::TimedOut { .. })));
        assert!(start.elapsed() >= MOMENT);
        let other = EventFd::from_fd(counter.as_fd().try_clone_to_owned().unwrap(), "the same").unwrap();
        let adder = std::thread::spawn(move || {
            std::thread::sleep(MOMENT);
            other.add_by(1, Deadline::Never)
        });
        assert_eq!(counter.take_by(Deadline::Never).unwrap(), 1);
        adder.join().unwrap().unwrap();
        assert_eq!(fcntl_getfl(&counter).unwrap(), flags, "left as it was");
    }
}

#[test]
fn a_descriptor_of_another_process_is_the_same_counter() {
    if role().is_some() {
        let counter = EventFd::new(0, Taking::One).unwrap();
        println!("\nnumber {}", counter.as_fd().as_raw_fd());
        let mut counter = counter;
        counter.wait_by(Deadline::after(LIMIT)).unwrap();
        println!("woken");
        return;
    }
    let _watchdog = watchdog(LIMIT);
    let mut peer = Peer::start("eventfd::a_descriptor_of_another_process_is_the_same_counter", "peer", &[]);
    let address = format!("fd:{}:{}", peer.pid(), peer.line("number "));
    let mut notify = match open_notify(&address.parse().unwrap(), &OpenOptions::default()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            assert!(error.to_string().contains("Linux 5.6"), "{error}");
            return skip("eventfd::a_descriptor_of_another_process_is_the_same_counter", "no pidfd_getfd");
        }
        opened => opened.unwrap(),
    };
    notify.notify_by(1, Deadline::Now).unwrap();
    peer.line("woken");
    peer.succeed();
}

#[test]
fn a_killed_holder_leaves_nobody_hanging() {
    if role().is_some() {
        let mut wait = open_wait(&inherited(), &OpenOptions::default()).unwrap();
        println!("\nwaiting");
        loop {
            wait.wait_by(Deadline::Never).unwrap();
        }
    }
    let _watchdog = watchdog(LIMIT * 2);
    let rounds = if std::env::var_os("ONECOPY_SOAK").is_some() { 1000 } else { 50 };
    for round in 0..rounds {
        let mut counter = EventFd::new(0, Taking::One).unwrap();
        let mut peer = start("eventfd::a_killed_holder_leaves_nobody_hanging", &counter);
        peer.line("waiting");
        counter.notify_by(round % 3, Deadline::Now).unwrap();
        peer.kill();
        // It took what it took; what comes now is for this process.
        while counter.take_by(Deadline::Now).is_ok() {}
        counter.add_by(1, Deadline::Now).unwrap();
        assert_eq!(counter.take_by(Deadline::after(LIMIT)).unwrap(), 1);
    }
}

#[test]
fn another_descriptor_is_no_eventfd() {
    let (reader, _writer) = onecopy::stream::pipe::pair().unwrap();
    let error = EventFd::from_fd(reader.as_fd().try_clone_to_owned().unwrap(), "fd:7").unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("pipe:"), "{error}");
}
