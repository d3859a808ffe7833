//! Both sides of a channel in one process, on two threads.

use std::io::IoSlice;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::claims::{Copied, End, Units};
use super::copying::{Failure, Source};
use super::desk::{Offer, Phase, Turn};
use super::helper::{Helper, Reach};
use super::message::Body;
use super::registered::{Spot, Stores};
use super::seccomp::Seccomp;
use super::*;
use crate::Error;
use crate::atomic::Ordering;
use crate::memory::buffer::Buffer;
use crate::memory::ring::Arrival;
use crate::memory::wait::is_asleep;
use crate::tally::Tally;

/// The parent's side of a pair, and the child's.
fn pair() -> (Channel, Channel) {
    pair_with(&Policy::default())
}

fn pair_with(policy: &Policy) -> (Channel, Channel) {
    let (parent, end) = rendezvous::pair_for(policy, link::memory()).unwrap();
    let deadline = Deadline::after(Duration::from_secs(60));
    std::thread::scope(|scope| {
        let child = scope.spawn(|| Channel::over(rendezvous::adopt_by(end, policy, deadline).unwrap()).unwrap());
        let parent = Channel::over(parent.accept_by(deadline).unwrap()).unwrap();
        // Which way a message takes is not for a busy machine to decide, which has a sender come late.
        [parent, child.join().unwrap()].map(|mut side| {
            side.receiver.helper.patience = Duration::from_secs(3600);
            side
        })
    })
    .into()
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ seed as u8).collect()
}

const SIZES: [usize; 17] = [
    0,
    1,
    56,
    57,
    63,
    64,
    65,
    104,
    105,
    4096,
    (64 << 10) + 1,
    DEFAULT_SINGLE_COPY_BYTES - 1,
    DEFAULT_SINGLE_COPY_BYTES,
    DEFAULT_COOPERATIVE_BYTES - 1,
    DEFAULT_COOPERATIVE_BYTES,
    (5 << 20) + 3,
    16 << 20,
];

#[test]
fn messages_of_every_size_arrive_in_order_both_ways() {
    let (mut one, mut other) = pair();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (index, size) in SIZES.into_iter().enumerate() {
                let message = other.recv().unwrap().unwrap();
                assert_eq!(message.len(), size);
                assert!(message[..] == pattern(size, index as u64), "{size}");
                other.send(&message).unwrap();
            }
            assert!(other.recv().unwrap().is_none());
        });
        for (index, size) in SIZES.into_iter().enumerate() {
            let message = pattern(size, index as u64);
            one.send(&message).unwrap();
            let mut buffer = vec![0; size + 1];
            assert_eq!(one.recv_into(&mut buffer).unwrap(), Some(size));
            assert!(buffer[..size] == message, "{size}");
        }
        let stats = one.stats();
        assert_eq!(stats.sent(Path::Line).messages, 8);
        assert_eq!(stats.received(Path::SingleCopy).messages, 3, "into a buffer of the caller: alone");
        assert_eq!(stats.fallbacks(), []);
        drop(one);
    });
}

#[test]
fn without_permission_messages_go_through_the_ring() {
    let (mut one, mut other) = pair_with(&Policy::same_user().separate());
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(other.recv().unwrap().unwrap().len(), 3 << 20));
        one.send(&vec![7; 3 << 20]).unwrap();
    });
    assert_eq!(one.stats().sent(Path::Ring), Count { messages: 1, bytes: 3 << 20 });
    let reason = "the policy of a side keeps their memory apart".into();
    assert_eq!(one.stats().fallbacks(), [Fallback { reason, messages: 1 }]);
}

#[test]
fn a_message_that_runs_out_of_time_is_revoked_and_passed_over() {
    let (mut one, mut other) = pair();
    let big = vec![1; 4 << 20];
    for _ in 0..3 {
        let error = one.sender.send_by(&big, Deadline::after(Duration::from_millis(5))).unwrap_err();
        assert!(error.is_out_of_time(), "{error}");
    }
    one.send(b"small").unwrap();
    assert_eq!(&*other.recv().unwrap().unwrap(), b"small");
}

#[test]
fn a_message_beyond_the_limit_is_an_error_on_both_sides_and_the_next_arrives() {
    let (mut one, mut other) = pair();
    other.receiver.set_limit_bytes(1000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let error = other.recv().unwrap_err();
                assert!(matches!(error, Error::TooLong { limit_bytes: 1000, .. }), "{error}");
            }
            assert_eq!(&*other.recv().unwrap().unwrap(), b"short");
        });
        one.send(&[0; 1001]).unwrap();
        let error = one.send(&vec![0; 2 << 20]).unwrap_err();
        assert!(matches!(error, Error::TooLong { message_bytes, limit_bytes: 1000, .. } if message_bytes == 2 << 20));
        one.send(b"short").unwrap();
    });
}

#[test]
fn a_buffer_that_is_too_small_leaves_the_message_first_in_line() {
    let (mut one, mut other) = pair();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for size in [10, 1000, 2 << 20] {
                one.send(&vec![3; size]).unwrap();
            }
        });
        for size in [10, 1000, 2 << 20] {
            let error = other.recv_into(&mut vec![0; size - 1]).unwrap_err();
            assert!(matches!(error, Error::BufferTooSmall { message_bytes, .. } if message_bytes == size), "{error}");
            assert_eq!(other.recv_into(&mut vec![0; size]).unwrap(), Some(size));
        }
    });
}

#[test]
fn the_end_of_the_other_side_ends_a_send_that_waits() {
    let (mut one, other) = pair();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            drop(other);
        });
        let error = one.send(&vec![0; 4 << 20]).unwrap_err();
        assert!(error.is_peer_gone(), "{error}");
    });
    assert!(one.recv().unwrap().is_none());
}

#[test]
fn a_short_message_is_sent_if_it_was_taken_before_the_receiver_closed_and_an_error_if_not() {
    for bytes in [8, 64, 100, 1024] {
        let (mut one, mut other) = pair();
        one.send(&vec![1; bytes]).unwrap();
        assert_eq!(other.recv().unwrap().as_deref(), Some(&vec![1; bytes][..]));
        drop(other);
        // As if it had closed while the message was being sent.
        assert!(one.sender.is_all_taken());
        let error = one.send(&vec![2; bytes]).unwrap_err();
        assert!(matches!(error, Error::PeerGone { .. }), "{error}");
        let sent: u64 = Path::ALL.map(|path| one.stats().sent(path).messages).iter().sum();
        assert_eq!(sent, 1, "of {bytes} bytes");

        let (mut one, other) = pair();
        one.send(&vec![3; bytes]).unwrap();
        drop(other);
        assert!(!one.sender.is_all_taken());
    }
}

#[test]
fn two_long_sends_at_once_are_an_error_on_both_sides_and_lose_nothing() {
    for _ in 0..20 {
        let (mut one, mut other) = pair();
        let big = vec![5; 2 << 20];
        std::thread::scope(|scope| {
            let second = scope.spawn(|| other.send(&big).unwrap_err());
            let error = one.send(&big).unwrap_err();
            for error in [error, second.join().unwrap()] {
                assert!(
                    matches!(error, Error::WouldDeadlock { message_bytes, .. } if message_bytes == 2 << 20),
                    "{error}"
                );
            }
        });
        one.send(b"after that").unwrap();
        assert_eq!(&*other.recv().unwrap().unwrap(), b"after that");
    }
}

#[test]
fn a_side_that_only_looks_whether_its_message_was_taken_keeps_nobody_waiting() {
    for deadline in [|| Deadline::Now, || Deadline::after(Duration::from_millis(2))] {
        let (mut one, mut other) = pair();
        one.sender().send_owned_by(vec![6; 1 << 20], Deadline::Now).unwrap();
        std::thread::scope(|scope| {
            let sends = scope.spawn(|| {
                (0..300).for_each(|_| other.send(&[5; 1 << 20]).unwrap());
                other
            });
            let mut received = 0;
            while received < 300 {
                match one.receiver().recv_by(Deadline::Now) {
                    Ok(message) => received += message.into_iter().len(),
                    Err(error) => assert!(error.is_out_of_time(), "{error}"),
                }
                let error = one.sender().flush_by(deadline()).unwrap_err();
                assert!(error.is_out_of_time(), "{error}");
            }
            sends.join().unwrap();
        });
    }
}

#[test]
fn without_waiting_a_long_message_comes_in_many_short_calls() {
    use rustix::time::{ClockId, clock_gettime};
    const BYTES: usize = 128 << 20;
    let (mut one, mut other) = pair_with(&Policy::same_user().separate());
    let own_time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let long = [vec![1; BYTES - 1], vec![2]].concat();
    std::thread::scope(|scope| {
        scope.spawn(|| one.send(&long).unwrap());
        let (mut calls, mut longest) = (0, Duration::ZERO);
        let message = loop {
            let before = own_time();
            match other.receiver().recv_by(Deadline::Now) {
                Ok(message) => break message.unwrap(),
                Err(error) => assert!(error.is_out_of_time(), "{error}"),
            }
            longest = longest.max(own_time() - before);
            calls += 1;
            std::thread::yield_now();
        };
        assert!(message[..] == long);
        // To take memory for all of it takes longer.
        assert!(calls > 10 && longest < Duration::from_millis(100), "{calls} calls, of {longest:?} at most");
    });
}

#[test]
fn a_message_that_was_collected_and_found_no_memory_is_news() {
    let (mut one, mut other) = pair_with(&Policy::same_user().separate());
    let long = vec![3; 8 << 20];
    std::thread::scope(|scope| {
        scope.spawn(|| one.send(&long).unwrap());
        while let Err(error) = other.receiver.ring.collect(Deadline::Now) {
            assert!(error.is_out_of_time(), "{error}");
        }
    });
    // As when the memory for it was not there.
    assert_eq!(other.receiver.arm().unwrap(), Arming::Ready);
    assert!(other.receiver().recv_by(Deadline::Now).unwrap().unwrap()[..] == long);
    assert_eq!(other.receiver.arm().unwrap(), Arming::Armed);
}

#[test]
fn a_message_above_the_limit_that_is_there_is_thrown_away_by_one_call() {
    let (mut one, mut other) = pair_with(&Policy::same_user().separate());
    one.send(&pattern(150_000, 1)).unwrap();
    one.send(b"behind it").unwrap();
    other.receiver().set_limit_bytes(1000);
    let error = other.receiver().recv_by(Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes: 150_000, .. }), "{error}");
    assert_eq!(other.receiver().recv_by(Deadline::Now).unwrap().as_deref(), Some(&b"behind it"[..]));
}

#[test]
fn a_limit_that_changes_in_the_middle_of_a_message_is_for_those_behind_it() {
    let (mut one, mut other) = pair_with(&Policy::same_user().separate());
    let long = pattern(5 << 20, 1);
    for (before, then) in [(long.len(), 1000), (1000, long.len())] {
        other.receiver().set_limit_bytes(before);
        one.sender().send_by(&long, Deadline::Now).unwrap();
        assert!(other.receiver().recv_by(Deadline::Now).unwrap_err().is_out_of_time());
        other.receiver().set_limit_bytes(then);
        let received = loop {
            let _ = one.sender().flush_by(Deadline::Now);
            match other.receiver().recv_by(Deadline::Now) {
                Err(error) if error.is_out_of_time() => {}
                received => break received,
            }
        };
        match received {
            Ok(message) => assert!(before > 1000 && message.unwrap()[..] == long),
            Err(Error::TooLong { limit_bytes: 1000, .. }) => assert_eq!(before, 1000),
            Err(error) => panic!("{error}"),
        }
        one.sender().send_by(b"behind it", Deadline::Now).unwrap();
        assert_eq!(other.receiver().recv_by(Deadline::Now).unwrap().as_deref(), Some(&b"behind it"[..]));
    }
}

#[test]
fn memory_for_loans_that_comes_while_its_receiver_looks_is_not_lost() {
    for _ in 0..100 {
        let (mut one, mut other) = pair();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(300));
                one.loan(100).unwrap().send().unwrap();
            });
            loop {
                let _ = other.arm().unwrap();
                match other.receiver().recv_view_by(Deadline::Now) {
                    Ok(view) => break assert_eq!(view.unwrap().len(), 100),
                    Err(error) => assert!(error.is_out_of_time(), "{error}"),
                }
            }
        });
    }
}

#[test]
fn a_side_that_lacked_room_and_has_not_run_since_is_waited_for() {
    let (mut one, other) = pair_with(&Policy::same_user().separate());
    let long = vec![5; 8 << 20];
    one.sender().send_by(&long, Deadline::after(Duration::from_millis(100))).expect("a part of it has room");
    // As one that was stopped in a send before `one` received.
    other.sender.link.desks.outgoing().waiting.store(desk::NO_ROOM, Ordering::SeqCst);
    let start = Instant::now();
    let error = one.sender().send_by(&long, Deadline::after(Duration::from_secs(1))).unwrap_err();
    assert!(error.is_out_of_time() && start.elapsed() >= Duration::from_secs(1), "{error}");
}

#[test]
fn two_long_sends_through_the_ring_are_kept_as_far_as_they_began_and_then_refused() {
    let (mut one, mut other) = pair_with(&Policy::same_user().separate());
    let big = vec![5; 2 << 20];
    // One whose send was refused waits no more, and may receive: only while both wait neither can go on.
    let both_have_begun = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let both = [&mut one, &mut other].map(|side| {
            scope.spawn(|| {
                side.send(&big).unwrap();
                both_have_begun.wait();
                let error = side.send(&big).unwrap_err();
                assert!(matches!(error, Error::WouldDeadlock { .. }), "{error}");
                side
            })
        });
        let [one, other] = both.map(|side| side.join().unwrap());
        scope.spawn(|| assert!(*other.recv().unwrap().unwrap() == big));
        one.sender().flush_by(Deadline::Never).unwrap();
    });
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(*one.recv().unwrap().unwrap() == big));
        other.sender().flush_by(Deadline::Never).unwrap();
    });
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(*one.exchange_by(&big, Deadline::Never).unwrap().unwrap() == big));
        assert!(*other.exchange_by(&big, Deadline::Never).unwrap().unwrap() == big);
    });
}

#[test]
fn what_lay_where_a_message_was_revoked_is_no_refusal() {
    let (one, mut other) = pair();
    let link = Arc::clone(&other.receiver.link);
    let asked = Turn::new(1, Phase::Asked);
    for errno in [nix::errno::Errno::EFAULT, nix::errno::Errno::EINVAL] {
        asked.with(Phase::Idle).store(one.sender.link.desks.outgoing());
        let (desk, failure) = (link.desks.incoming(), copying::Failure::Errno(errno));
        let failed = other.receiver.failed::<()>(desk, asked, failure, 5000, Deadline::Never);
        assert!(failed.unwrap().is_none() && other.stats().fallbacks().is_empty());
    }
}

#[test]
fn an_exchange_and_the_halves_of_a_split_channel_never_deadlock() {
    let (mut one, mut other) = pair();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for size in SIZES {
                assert_eq!(other.exchange_by(&vec![1; size], Deadline::Never).unwrap().unwrap().len(), size);
            }
        });
        for size in SIZES {
            assert_eq!(one.exchange_by(&vec![2; size], Deadline::Never).unwrap().unwrap().len(), size);
        }
    });
    let (mut sender, mut receiver) = one.split();
    let (mut other_sender, mut other_receiver) = other.split();
    std::thread::scope(|scope| {
        scope.spawn(move || (0..20).for_each(|_| sender.send(&vec![1; 2 << 20]).unwrap()));
        scope.spawn(move || (0..20).for_each(|_| other_sender.send(&vec![2; 2 << 20]).unwrap()));
        scope
            .spawn(move || (0..20).for_each(|_| assert_eq!(receiver.recv_by(Deadline::Never).unwrap().unwrap()[7], 2)));
        (0..20).for_each(|_| assert_eq!(other_receiver.recv_by(Deadline::Never).unwrap().unwrap()[7], 1));
    });
}

#[test]
fn an_exchange_of_a_long_message_ends_the_wait_for_a_descriptor() {
    let (mut one, mut other) = pair();
    while one.sender().send_by(&[1; 56], Deadline::Now).is_ok() {}
    assert_eq!(one.sender().arm().unwrap(), Arming::Armed);
    while other.receiver().try_recv().is_ok() {}
    std::thread::scope(|scope| {
        scope.spawn(|| other.exchange_by(&vec![1; 1 << 20], Deadline::Never).unwrap());
        one.exchange_by(&vec![2; 1 << 20], Deadline::Never).unwrap();
    });
    assert_eq!(one.receiver().arm().unwrap(), Arming::Armed);
    let mut polled = [PollFd::new(&one, PollFlags::IN)];
    assert_eq!(poll(&mut polled, Some(&Timespec::default())), Ok(0), "nothing is left there for the other half");
}

#[test]
fn who_flushes_without_waiting_learns_that_the_receiver_has_closed() {
    for strategy in [WaitStrategy::Spin, WaitStrategy::default(), WaitStrategy::Block] {
        let (mut one, other) = pair();
        one.set_wait_strategy(strategy);
        one.sender().send_owned_by(pattern(1 << 20, 1), Deadline::Never).unwrap();
        let (_sender, receiver) = other.split();
        drop(receiver);
        let error = one.sender().flush_by(Deadline::Now).unwrap_err();
        assert!(matches!(error, Error::PeerGone { .. }), "{strategy:?}: {error}");
    }
}

#[test]
fn an_owned_message_is_kept_until_it_is_taken_or_the_time_to_linger_is_over() {
    let (mut one, mut other) = pair();
    one.sender().send_owned_by(pattern(2 << 20, 1), Deadline::Never).unwrap();
    // What is sent behind it waits for it, and neither is lost when the time is up.
    for deadline in [Deadline::Now, Deadline::after(Duration::from_millis(5))] {
        assert!(one.sender().send_by(b"behind it", deadline).unwrap_err().is_out_of_time());
        assert!(one.sender().flush_by(deadline).unwrap_err().is_out_of_time());
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(other.recv().unwrap().unwrap()[..] == pattern(2 << 20, 1));
            assert_eq!(&*other.recv().unwrap().unwrap(), b"behind it");
        });
        one.send(b"behind it").unwrap();
    });
    one.sender().flush_by(Deadline::Now).unwrap();
    one.sender().send_owned_by(vec![3; 2 << 20], Deadline::Never).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(other.recv().unwrap().unwrap()[9], 3);
            assert!(other.recv().unwrap().is_none());
        });
        drop(one);
    });
}

#[test]
fn the_rest_of_what_goes_through_the_ring_is_waited_for_when_its_sender_goes() {
    let long = pattern(5 << 20, 1);
    for is_owned in [true, false] {
        let (mut one, mut other) = pair_with(&Policy::same_user().separate());
        one.sender.linger_time = Duration::from_secs(60);
        match is_owned {
            true => one.sender().send_owned_by(long.clone(), Deadline::Now).unwrap(),
            false => one.sender().send_by(&long, Deadline::Now).unwrap(),
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                assert!(other.recv().unwrap().unwrap()[..] == long);
                assert!(other.recv().unwrap().is_none());
            });
            drop(one);
        });
    }
}

/// What `side` receives by one call, which has no deadline, and the side, with nothing of its own left.
fn received_in_time(mut side: Channel) -> impl FnOnce() -> (Channel, Vec<u8>) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let received = side.recv().unwrap().unwrap().into_vec();
        side.sender().flush_by(Deadline::Never).unwrap();
        let _ = tell.send((side, received));
    });
    move || told.recv_timeout(Duration::from_secs(60)).expect("a side that waits for ever")
}

#[test]
fn of_two_sides_that_receive_both_have_what_they_sent_go_on() {
    let (mut one, mut other) = pair_with(&Policy::same_user().separate());
    let long = pattern(9 << 20, 1);
    for side in [&mut one, &mut other] {
        // More than the ring takes.
        side.sender().send_by(&long, Deadline::Now).unwrap();
    }
    let both = [one, other].map(received_in_time);
    assert!(both.map(|received| received().1 == long) == [true; 2]);
}

#[test]
fn what_a_receiver_refuses_goes_through_the_ring_while_its_sender_waits_for_the_answer() {
    let (mut one, other) = pair();
    let long = pattern(9 << 20, 1);
    one.sender().send_owned_by(long.clone(), Deadline::Now).unwrap();
    // There is nothing.
    one.sender.link.desks.outgoing().address.store(8, Ordering::Relaxed);
    let answer = received_in_time(one);
    let (mut other, received) = received_in_time(other)();
    assert!(received == long);
    other.send(b"answer").unwrap();
    assert_eq!(answer().1, b"answer");
}

#[test]
fn what_became_of_a_message_that_was_kept_is_told_by_a_call_that_sends() {
    let (mut one, mut other) = pair();
    other.receiver().set_limit_bytes(1000);
    one.sender().send_owned_by(vec![1; 2 << 20], Deadline::Now).unwrap();
    let error = other.recv().unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    other.send(b"all the same").unwrap();
    assert_eq!(one.recv().unwrap().as_deref(), Some(&b"all the same"[..]));
    let error = one.sender().flush_by(Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes, .. } if message_bytes == 2 << 20), "{error}");
    one.sender().send_owned_by(vec![1; 2 << 20], Deadline::Now).unwrap();
    other.send(b"the last one").unwrap();
    drop(other);
    assert_eq!(one.recv().unwrap().as_deref(), Some(&b"the last one"[..]));
    assert!(one.sender().flush_by(Deadline::Now).unwrap_err().is_peer_gone());
}

#[test]
fn a_sender_that_goes_while_the_other_side_sends_too_has_it_receive() {
    let long = pattern(5 << 20, 1);
    for policy in [Policy::same_user(), Policy::same_user().separate()] {
        let (mut one, mut other) = pair_with(&policy);
        one.sender.linger_time = Duration::from_secs(60);
        one.sender().send_owned_by(long.clone(), Deadline::Now).unwrap();
        let incoming = Arc::clone(&one.sender.link);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                match other.send(&long) {
                    // Of what went into the ring the rest is kept.
                    Ok(()) | Err(Error::WouldDeadlock { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                assert!(other.recv().unwrap().unwrap()[..] == long);
            });
            while incoming.desks.incoming().waiting.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(one);
        });
    }
}

#[test]
fn loans_given_back_early_twice_or_without_having_been_sent_do_not_touch_what_is_being_filled() {
    let (mut one, mut other) = pair();
    let forged = |other: &Channel| (0..64).for_each(|ticket| other.sender.link.desks.incoming().loans.give(ticket));
    for round in 0..200_u64 {
        let mut loan = one.loan(5000).unwrap();
        loan.copy_from_slice(&pattern(5000, round));
        forged(&other);
        // It is not lent a second time: the one that was sent before may be.
        assert!(*loan == pattern(5000, round));
        loan.send().unwrap();
        if round % 3 == 0 {
            forged(&other);
        }
        let view = other.recv_view().unwrap().unwrap();
        assert!(view.is_lent() && view.len() == 5000);
        assert!(view.into_message().unwrap()[..] == pattern(5000, round));
    }
    assert_eq!(one.stats().sent(Path::Loan), Count { messages: 200, bytes: 1_000_000 });
    assert_eq!(other.stats().received(Path::Loan), Count { messages: 200, bytes: 1_000_000 });
}

#[test]
fn slips_of_what_was_not_lent_are_errors_and_the_next_message_arrives() {
    use super::desk::Offer;
    let (mut one, mut other) = pair();
    let slip =
        |ticket: u64, offset: u64, bytes: u64| [ticket, offset, bytes].map(u64::to_le_bytes).as_flattened().to_vec();
    // Before there is memory.
    one.sender.ring.send_offer(&slip(0, 0, 10), Deadline::Now).unwrap();
    let error = other.recv().unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("not passed"), "{error}");
    one.loan(10).unwrap().send().unwrap();
    assert_eq!(other.recv().unwrap().unwrap().len(), 10);
    let end = DEFAULT_LOAN_LIMIT_BYTES as u64;
    for (ticket, offset, bytes) in [(64, 0, 1), (0, end, 1), (0, end - 9, 10), (0, u64::MAX, 2), (0, 1, u64::MAX)] {
        for into in [false, true] {
            one.sender.ring.send_offer(&slip(ticket, offset, bytes), Deadline::Now).unwrap();
            let error = match into {
                false => other.recv_view().map(drop).unwrap_err(),
                true => other.recv_into(&mut [0; 100]).unwrap_err(),
            };
            let is_known = matches!(error, Error::Corrupt { .. } | Error::TooLong { .. });
            assert!(is_known || (into && bytes > 100), "{error}");
        }
    }
    // A ticket beyond any number, and something that is neither a slip nor an offer.
    one.sender.ring.send_offer(&slip(u64::MAX, 0, 1), Deadline::Now).unwrap();
    assert!(matches!(other.recv().unwrap_err(), Error::Corrupt { .. }));
    one.sender.ring.send_offer(&Offer { number: 9, bytes: 9 }.to_bytes()[..15], Deadline::Now).unwrap();
}

#[test]
fn the_memory_for_loans_is_found_behind_what_a_waiting_half_was_told() {
    let (mut one, mut other) = pair();
    while one.sender.send_by(b"until there is no room", Deadline::Now).is_ok() {}
    assert_eq!(one.sender.arm().unwrap(), Arming::Armed);
    while other.receiver.recv_by(Deadline::Now).is_ok() {}
    // The byte for the sender of `one` is in its socket, and now the memory comes behind it.
    for number in 0..3 {
        let mut loan = other.loan(100).unwrap();
        loan.fill(number);
        loan.send().unwrap();
    }
    let view = one.recv_view().unwrap().unwrap();
    assert!(view.is_lent() && view.into_message().unwrap()[..] == [0; 100]);
    // It is still there, and so is the packet, which no arming asked for.
    let mut polled = [rustix::event::PollFd::new(&one, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default())).unwrap(), 1);
    assert_eq!(one.sender.arm().unwrap(), Arming::Ready);
    assert_eq!(one.receiver.arm().unwrap(), Arming::Ready);
    assert!(one.recv().unwrap().unwrap()[..] == [1; 100]);
    assert!(one.recv().unwrap().unwrap()[..] == [2; 100]);
    assert_eq!(one.receiver.arm().unwrap(), Arming::Armed);
    // In the other direction it comes while a receiver waits.
    assert_eq!(other.receiver.arm().unwrap(), Arming::Armed);
    one.loan(1).unwrap().send().unwrap();
    assert_eq!(other.receiver.arm().unwrap(), Arming::Ready);
    assert_eq!(other.recv_view().unwrap().unwrap().len(), 1);
    assert_eq!(other.receiver.arm().unwrap(), Arming::Armed);
}

#[test]
fn what_a_half_is_told_does_not_pile_up_behind_the_other_half() {
    let (mut one, mut other) = pair();
    while one.sender.send_by(b"until there is no room", Deadline::Now).is_ok() {}
    assert_eq!(one.sender.arm().unwrap(), Arming::Armed);
    while other.receiver.recv_by(Deadline::Now).is_ok() {}
    // The sender of `one` has been told, and is not called for long.
    let mut armed = 0;
    for number in 0..400_u32 {
        armed += u32::from(one.receiver.arm().unwrap() == Arming::Armed);
        other.send(&number.to_ne_bytes()).unwrap();
        let mut polled = [PollFd::new(&one, PollFlags::IN)];
        assert_eq!(poll(&mut polled, Some(&Timespec::default())), Ok(1));
        assert_eq!(&one.recv().unwrap().unwrap()[..], number.to_ne_bytes());
    }
    assert!(armed > 0 && armed < 10, "{armed}");
    other.loan(100).unwrap().send().unwrap();
    assert_eq!(one.recv_view().unwrap().unwrap().len(), 100);
    assert_eq!(one.sender.arm().unwrap(), Arming::Ready);
    assert_eq!(one.receiver.arm().unwrap(), Arming::Armed);
}

/// Sends the packet of this kind without memory.
fn say(channel: &Channel, kind: passing::Kind) {
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut []);
    let socket = channel.sender.link.polling.socket();
    socket.send_by(&[IoSlice::new(&[kind.tone()])], &mut control, Deadline::Now).unwrap();
}

#[test]
fn a_second_memory_for_loans_is_what_nobody_asked_for() {
    let (mut one, mut other) = pair();
    one.loan(1).unwrap().send().unwrap();
    assert_eq!(other.recv().unwrap().unwrap().len(), 1);
    assert_eq!(other.receiver.arm().unwrap(), Arming::Armed);
    (0..3).for_each(|_| say(&one, passing::Kind::Loans));
    let error = (0..3).find_map(|_| other.receiver.arm().err()).expect("one arming asks for one byte");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn an_offer_ends_with_the_call_that_made_it_even_when_that_panics() {
    let (mut one, mut other) = pair();
    let message = pattern(1 << 20, 1);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let parts = [IoSlice::new(&message)];
        let _offered = one.sender.offer_for_now(&parts, Spot::NOWHERE, message.len(), Deadline::Now).unwrap();
        std::panic::resume_unwind(Box::new("in the middle of an exchange"));
    }));
    assert!(panicked.is_err());
    assert!(Turn::load(other.sender.link.desks.incoming()).is(Phase::Idle));
    assert!(other.receiver().recv_by(Deadline::Now).unwrap_err().is_out_of_time());
}

#[test]
fn a_bad_address_costs_no_time_beyond_the_deadline_and_little_without_one() {
    const OFFERS: u32 = 20;
    for deadline in [Deadline::Now, Deadline::Never] {
        let (mut one, mut other) = pair();
        let link = Arc::clone(&other.sender.link);
        let message = pattern(1 << 20, 1);
        let mut buffer = vec![0; 2 << 20];
        let mut shortest = Duration::MAX;
        for number in 0..OFFERS {
            let begin = Instant::now();
            // Not revoked: a peer that lies about addresses need not.
            std::mem::forget(
                one.sender
                    .offer_for_now(&[IoSlice::new(&message)], Spot::NOWHERE, message.len(), Deadline::Now)
                    .unwrap(),
            );
            link.desks.incoming().address.store(8, Ordering::SeqCst);
            if deadline == Deadline::Now {
                let error = other.receiver().recv_into_by(&mut buffer, deadline).unwrap_err();
                assert!(error.is_out_of_time(), "{number}: {error}");
                shortest = shortest.min(begin.elapsed());
                continue;
            }
            std::thread::scope(|scope| {
                let receiving = scope.spawn(|| other.receiver().recv_into_by(&mut buffer, deadline));
                while !Turn::load(link.desks.incoming()).is(Phase::Refused) {
                    std::thread::yield_now();
                }
                one.send(b"next").unwrap();
                assert_eq!(receiving.join().unwrap().unwrap(), Some(4), "{number}");
            });
            shortest = shortest.min(begin.elapsed());
        }
        // Once in vain for a process that might be exiting, which takes 300 ms. On a busy machine some take longer anyway.
        assert!(shortest < Duration::from_millis(300), "{shortest:?}");
    }
}

#[test]
fn without_waiting_a_receiver_passes_over_no_more_offers_than_the_ring_holds() {
    let (mut one, mut other) = pair();
    let message = pattern(1 << 20, 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ =
                    one.sender.offer_for_now(&[IoSlice::new(&message)], Spot::NOWHERE, message.len(), Deadline::Now);
            }
        });
        for _ in 0..500 {
            let error = other.receiver().recv_by(Deadline::Now).unwrap_err();
            assert!(error.is_out_of_time(), "{error}");
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_list_of_parts_that_cannot_be_is_refused_and_the_next_message_arrives() {
    let (mut one, mut other) = pair();
    let link = Arc::clone(&other.sender.link);
    let message = pattern(1 << 20, 1);
    for (list, count) in [(&message[..], 2), (&message, 1024), (&message, 1025), (&message, u64::MAX), (&[], 1)] {
        std::mem::forget(
            one.sender.offer_for_now(&[IoSlice::new(&message)], Spot::NOWHERE, message.len(), Deadline::Now).unwrap(),
        );
        let desk = link.desks.incoming();
        desk.address.store(list.as_ptr().expose_provenance() as u64, Ordering::SeqCst);
        desk.parts.store(count, Ordering::SeqCst);
        assert!(other.receiver.recv_by(Deadline::Now).unwrap_err().is_out_of_time());
        assert!(Turn::load(desk).is(Phase::Refused), "{count} parts");
        one.send(b"next").unwrap();
        assert_eq!(other.recv().unwrap().as_deref(), Some(&b"next"[..]));
    }
}

/// Sends a message that the sender says is at `spot`, and returns how it was received.
fn received_from(one: &mut Channel, other: &mut Channel, spot: registered::Spot, message: &[u8]) -> Path {
    let before = other.stats();
    std::thread::scope(|scope| {
        scope.spawn(|| one.sender.send_at(message, spot, Deadline::Never).unwrap());
        assert!(other.recv().unwrap().unwrap()[..] == *message);
    });
    let after = other.stats();
    Path::ALL.into_iter().find(|path| after.received(*path) != before.received(*path)).unwrap()
}

/// Has a receiver copy messages of `bytes`, which are not registered, alone.
fn teach_to_copy_alone(helper: &mut Helper, bytes: usize, end: End) {
    let reach = Reach { target: false, source: false };
    for own in [1, 0, 2] {
        let units = Units { count: 2, front: if end == End::Front { own } else { 2 - own }, most: 2 };
        let took = Duration::from_micros(if own == 2 { 1 } else { 1000 });
        helper.learn(bytes, units, Copied { own, waited: false }, took, end, reach);
    }
}

#[test]
fn a_sender_that_is_to_copy_nothing_is_not_woken_before_the_message_is_there() {
    const BYTES: usize = DEFAULT_SINGLE_COPY_BYTES;
    let (mut one, mut other) = pair();
    let link = Arc::clone(&other.receiver.link);
    let (desk, end) = (link.desks.incoming(), link.desks.end());
    let word = &desk.sleepers.sender;
    for is_alone in [false, true] {
        let mut helper = Helper::new(end);
        if is_alone {
            teach_to_copy_alone(&mut helper, BYTES, end);
        }
        one.sender.send_owned_by(pattern(BYTES, 1), Deadline::Never).unwrap();
        assert_eq!(one.sender.arm().unwrap(), Arming::Armed);
        let Some(Arrival::Offer(words, len)) = other.receiver.ring.arrival(Deadline::Never).unwrap() else { panic!() };
        let offer = Offer::from_bytes(&words[..len]).unwrap();
        other.receiver.ring.take_offer();
        let asked = Turn::load(desk);
        let mut seccomp = Seccomp::of_this_thread();
        let source = Source::of(desk, offer, &link, &mut seccomp).unwrap();
        let body = Body::Buffer(Buffer::warm(BYTES).unwrap());
        // The sender, which is in no call, claims nothing: this side goes on alone, and not for want of patience, which may leave it
        // while it has no processor.
        helper.patience = Duration::from_secs(3600);
        let shared = source.share(body, &link, desk, asked, &mut helper, &mut seccomp);
        assert!(shared.is_ok() && is_asleep(word) == is_alone, "alone: {is_alone}");
        asked.with(Phase::Shared).change(desk, Phase::Done);
        one.sender.flush_by(Deadline::Never).unwrap();
    }
}

#[test]
fn where_a_copy_has_failed_a_sender_that_is_late_finds_that_the_place_was_taken_away() {
    const BYTES: usize = DEFAULT_SINGLE_COPY_BYTES;
    let (mut one, mut other) = pair();
    let link = Arc::clone(&other.receiver.link);
    let (desk, end) = (link.desks.incoming(), link.desks.end());
    one.sender.send_owned_by(pattern(BYTES, 1), Deadline::Never).unwrap();
    let Some(Arrival::Offer(words, len)) = other.receiver.ring.arrival(Deadline::Never).unwrap() else { panic!() };
    let offer = Offer::from_bytes(&words[..len]).unwrap();
    other.receiver.ring.take_offer();
    // Where nothing lies.
    desk.address.store(8, Ordering::SeqCst);
    let asked = Turn::load(desk);
    let mut seccomp = Seccomp::of_this_thread();
    let source = Source::of(desk, offer, &link, &mut seccomp).unwrap();
    let body = Body::Buffer(Buffer::warm(BYTES).unwrap());
    let shared = source.share(body, &link, desk, asked, &mut Helper::new(end), &mut seccomp);
    assert!(matches!(shared, Err((Failure::Errno(_), Some(_)))), "{shared:?}");
    assert_eq!(desk.target.load(Ordering::SeqCst), 0);
    asked.with(Phase::Shared).change(desk, Phase::Done);
    one.sender.flush_by(Deadline::Never).unwrap();
}

#[test]
fn places_in_registered_memory_that_cannot_be_are_not_read_and_the_message_arrives_from_its_address() {
    let (mut one, mut other) = pair();
    let mut buffer = one.register(1 << 20).unwrap();
    buffer.fill(7);
    let good = buffer.spot(&one.sender.link, 0);
    let message = vec![7; 300_000];
    assert_eq!(received_from(&mut one, &mut other, good, &message), Path::Registered);
    let end = 1 << 20;
    let offsets = [end - 299_999, end, end + 4096, u64::MAX - 299_999, u64::MAX];
    let numbers = [1, good.number + 16, good.number + 1, u64::MAX];
    let spots = offsets.map(|offset| Spot { offset, ..good }).into_iter();
    for spot in spots.chain(numbers.map(|number| Spot { number, ..good })).chain([Spot { number: 0, offset: 1 }]) {
        assert_eq!(received_from(&mut one, &mut other, spot, &message), Path::Cooperative, "{spot:?}");
        assert!(other.sender.link.find(polling::Half::Sender, spot, 300_000).unwrap().is_none(), "{spot:?}");
    }
    let why: Vec<_> = other.stats().fallbacks().iter().map(|one| one.reason.clone()).collect();
    assert!(why.iter().any(|why| why.contains("reaches beyond")) && why.iter().any(|why| why.contains("not passed")));
    // In the last place there is room for the last byte.
    let last = Spot { offset: end - 300_000, ..good };
    assert_eq!(received_from(&mut one, &mut other, last, &message), Path::Registered);
    // What is over is not used any more, whatever is said of it.
    drop(buffer);
    assert_eq!(received_from(&mut one, &mut other, good, &message), Path::Cooperative);
}

#[test]
fn what_is_passed_as_registered_memory_and_is_none_is_of_no_use_and_does_no_harm() {
    use std::os::fd::OwnedFd;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    let (mut one, mut other) = pair();
    let memfd = |bytes: u64, seals: SealFlags| {
        let fd = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, bytes).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    };
    let page = rustix::param::page_size() as u64;
    let most = crate::memory::anonymous::registered::MOST_BYTES as u64;
    let bad: [OwnedFd; 7] = [
        std::fs::File::open("/dev/null").unwrap().into(),
        memfd(100 * page, SealFlags::empty()),
        memfd(0, SealFlags::SHRINK),
        memfd(page, SealFlags::SHRINK),
        memfd(100 * page + 1, SealFlags::SHRINK),
        memfd(most + page, SealFlags::SHRINK),
        memfd(1 << 50, SealFlags::SHRINK),
    ];
    let message = vec![7; 300_000];
    for (number, fd) in (0..).zip(&bad) {
        passing::pass(&one.sender.link, passing::Kind::Registered, fd).unwrap();
        let spot = Spot { number: 16 + number, offset: 0 };
        assert_eq!(received_from(&mut one, &mut other, spot, &message), Path::Cooperative, "{number}");
    }
    say(&one, passing::Kind::Registered);
    assert_eq!(received_from(&mut one, &mut other, Spot { number: 17, offset: 0 }, &message), Path::Cooperative);
    let why: Vec<_> = other.stats().fallbacks().iter().map(|one| one.reason.clone()).collect();
    for what in ["/dev/null", "F_SEAL_SHRINK", "length 0", "in whole pages", "without a descriptor"] {
        assert!(why.iter().any(|why| why.contains(what)), "{what}: {why:?}");
    }
    // One that says it is over, and more than the limit together with what is there.
    passing::pass(&one.sender.link, passing::Kind::Registered, &memfd(100 * page, SealFlags::SHRINK)).unwrap();
    let link = Arc::clone(&one.sender.link);
    let numbered = |number: u64, bytes: u64| {
        let fd = memfd(bytes, SealFlags::SHRINK);
        rustix::io::pwrite(&fd, &number.to_ne_bytes(), bytes - page).unwrap();
        passing::pass(&link, passing::Kind::Registered, &fd).unwrap();
    };
    numbered(32 + 3, most);
    numbered(32 + 4, most);
    assert_eq!(
        received_from(&mut one, &mut other, Spot { number: 35, offset: 0 }, &vec![0; 300_000]),
        Path::Registered
    );
    assert_eq!(received_from(&mut one, &mut other, Spot { number: 36, offset: 0 }, &message), Path::Cooperative);
    assert!(other.stats().fallbacks().iter().any(|one| one.reason.contains("more than the limit")));
    numbered(64 + 3, 100 * page);
    let buffer = one.register(1 << 20).unwrap();
    let spot = buffer.spot(&one.sender.link, 0);
    assert_eq!(received_from(&mut one, &mut other, spot, &vec![0; 300_000]), Path::Registered);
}

#[test]
fn more_registered_memory_than_there_are_places_is_what_nobody_asked_for() {
    let (one, mut other) = pair();
    assert_eq!(other.receiver.arm().unwrap(), Arming::Armed);
    (0..2 * BUFFERS).for_each(|_| say(&one, passing::Kind::Registered));
    let error = other.receiver.arm().unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn registered_memory_is_found_behind_what_a_waiting_half_was_told() {
    let (mut one, mut other) = pair();
    while one.sender.send_by(b"until there is no room", Deadline::Now).is_ok() {}
    assert_eq!(one.sender.arm().unwrap(), Arming::Armed);
    while other.receiver.recv_by(Deadline::Now).is_ok() {}
    // The byte for the sender of `one` is in its socket, and now memory of both kinds comes behind it.
    let mut buffer = other.register(1 << 20).unwrap();
    buffer.fill(7);
    other.loan(100).unwrap().send().unwrap();
    let last = other.register(1 << 20).unwrap();
    assert!(one.recv_view().unwrap().unwrap().is_lent());
    for (buffer, content) in [(&last, 0), (&buffer, 7), (&last, 0)] {
        let spot = buffer.spot(&other.sender.link, 5);
        assert_eq!(received_from(&mut other, &mut one, spot, &vec![content; 300_000]), Path::Registered);
    }
    assert_eq!(one.sender.arm().unwrap(), Arming::Ready);
    assert_eq!(one.receiver.arm().unwrap(), Arming::Armed);
    let spot = last.spot(&other.sender.link, 0);
    assert_eq!(received_from(&mut other, &mut one, spot, &[0; 300_000]), Path::Registered);
}

#[test]
fn a_buffer_that_is_dropped_while_the_other_side_has_it_mapped_harms_nobody() {
    let (one, other) = pair();
    for open in [true, false] {
        let (one, other) = if open { (&one, &other) } else { (&other, &one) };
        let mut buffer = one.register(3 << 20).unwrap();
        buffer.fill(7);
        let spot = buffer.spot(&one.sender.link, 0);
        let mapped = other.sender.link.find(polling::Half::Sender, spot, 3 << 20).unwrap().unwrap();
        drop(buffer);
        // A late write goes to memory that is nobody's any more.
        mapped.write(1 << 20, &[9; 5000], Stores::Ordinary).unwrap();
        let mut found = vec![1; 2 << 20];
        mapped.read(0, &mut found).unwrap();
        assert!(found[..1 << 20].iter().all(|&byte| byte == 0), "its pages are given back");
        let mut next = one.register(3 << 20).unwrap();
        assert!(next.iter().all(|&byte| byte == 0));
        next.fill(5);
        mapped.write(0, &vec![9; 3 << 20], Stores::Ordinary).unwrap();
        assert!(next.iter().all(|&byte| byte == 5));
        assert!(
            mapped.write(3 << 20, &[1], Stores::Ordinary).is_err() && mapped.read(usize::MAX, &mut [0; 2]).is_err()
        );
        assert!(other.sender.link.find(polling::Half::Sender, spot, 1).unwrap().is_none());
    }
}

#[test]
fn what_a_separate_channel_registers_is_read_and_never_written() {
    let (one, other) = pair_with(&Policy::same_user().separate());
    let mut buffer = one.register(1 << 20).unwrap();
    let spot = buffer.spot(&one.sender.link, 0);
    let mapped = other.sender.link.find(polling::Half::Sender, spot, 1 << 20).unwrap().unwrap();
    buffer.fill(7);
    let mut found = [0; 100];
    mapped.read(5000, &mut found).unwrap();
    assert_eq!(found, [7; 100]);
    assert!(!mapped.is_writable() && mapped.write(5000, &[9], Stores::Ordinary).is_err());
    assert!(buffer.iter().all(|&byte| byte == 7));
}

#[test]
fn memory_that_was_renewed_is_other_memory_at_another_place() {
    let (mut one, mut other) = pair();
    let mut buffer = other.register(1 << 20).unwrap();
    let (old, place) = (buffer.spot(&other.sender.link, 0), buffer.base());
    let mapped = one.sender.link.find(polling::Half::Sender, old, 1 << 20).unwrap().unwrap();
    buffer.renew(&other.sender.link).unwrap();
    assert!(buffer.is_registered() && buffer.base() != place && buffer.len() == 1 << 20);
    mapped.write(0, &vec![9; 1 << 20], Stores::Ordinary).unwrap();
    assert!(buffer.iter().all(|&byte| byte == 0));
    // By its address it is nowhere either.
    let own = crate::memory::remote::RemoteProcess::open(std::process::id()).unwrap();
    assert!(own.write_all(place.as_ptr().addr() as u64, &[1]).is_err());
    std::thread::scope(|scope| {
        scope.spawn(|| one.send(&pattern(1 << 20, 3)).unwrap());
        assert_eq!(other.recv_registered(&mut buffer).unwrap(), Some(1 << 20));
    });
    assert!(buffer[..] == pattern(1 << 20, 3));
}

/// The other end of a channel can be written by hand in the same process, and name any memory of it.
#[test]
fn within_one_process_a_sender_writes_nowhere_because_the_other_end_says_so() {
    const BYTES: usize = 1 << 20;
    let (mut one, mut other) = pair();
    let victim = vec![7_u8; BYTES];
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let error = one.send(&vec![1; BYTES]).unwrap_err();
            assert!(error.is_peer_gone(), "{error}");
        });
        let Some(Arrival::Offer(words, len)) = other.receiver.ring.arrival(Deadline::Never).unwrap() else {
            panic!("no offer")
        };
        let offer = Offer::from_bytes(&words[..len]).unwrap();
        let (link, asked) = (Arc::clone(&other.receiver.link), Turn::new(offer.number, Phase::Asked));
        let desk = link.desks.incoming();
        desk.target.store(victim.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
        desk.unit_bytes.store(4096, Ordering::Relaxed);
        // All for the sender, whichever end it has.
        let front = if link.desks.end() == End::Front { 0 } else { BYTES / 4096 };
        desk.front_units.store(front as u64, Ordering::Relaxed);
        super::claims::open(desk);
        assert!(asked.change(desk, Phase::Shared));
        link.wake_sender();
        std::thread::sleep(Duration::from_millis(50));
        drop((other, link));
        sending.join().unwrap();
    });
    assert!(victim.iter().all(|&byte| byte == 7));
}

#[test]
fn an_owned_message_is_kept_that_goes_through_the_ring_too() {
    const BYTES: usize = 3 << 20;
    let (mut one, mut other) = pair_with(&Policy::same_user().separate());
    let (done, sent) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let message = pattern(BYTES, 5);
        let before = Tally::now();
        one.sender().send_owned_by(message, Deadline::Never).unwrap();
        let _ = done.send((one, Tally::now().since(before).user_bytes));
    });
    let sent = sent.recv_timeout(Duration::from_secs(60));
    let (mut one, copied) = sent.expect("it returns though nobody receives");
    assert!(copied < BYTES as u64, "no more than goes into the ring: {copied}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(other.recv().unwrap().as_deref() == Some(&pattern(BYTES, 5)[..]));
            // Through a full ring as well, whose receiver stops in the middle then.
            assert!(other.recv().unwrap().as_deref() == Some(&pattern(BYTES, 6)[..]));
        });
        for seed in [6, 7] {
            one.sender().send_owned_by(pattern(BYTES, seed), Deadline::Never).unwrap();
        }
    });
    let error = one.sender().send_owned_by(vec![8; 200], Deadline::after(Duration::from_millis(10))).unwrap_err();
    assert!(error.is_out_of_time(), "{error}");
    assert_eq!(one.stats().sent(Path::Ring).messages, 3);
}

#[test]
fn a_receiver_that_had_no_memory_once_is_asked_again() {
    const BYTES: usize = 1 << 20;
    let (mut one, mut other) = pair();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let receiver = &mut other.receiver;
            let Some(Arrival::Offer(words, len)) = receiver.ring.arrival(Deadline::Never).unwrap() else {
                panic!("no offer")
            };
            receiver.ring.take_offer();
            let offer = Offer::from_bytes(&words[..len]).unwrap();
            let (link, asked) = (Arc::clone(&receiver.link), Turn::new(offer.number, Phase::Asked));
            let no_memory = Error::os("mmap", "a message", rustix::io::Errno::NOMEM);
            let failure = super::copying::Failure::Here(no_memory);
            let failed = receiver.failed::<()>(link.desks.incoming(), asked, failure, BYTES, Deadline::Never);
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
            for _ in 0..2 {
                assert_eq!(other.recv().unwrap().map(|message| message.len()), Some(BYTES));
            }
        });
        for _ in 0..2 {
            one.send(&[1; BYTES]).unwrap();
        }
    });
    let stats = one.stats();
    assert_eq!(stats.sent(Path::Ring).messages, 1);
    assert_eq!(stats.sent(Path::SingleCopy).messages + stats.sent(Path::Cooperative).messages, 1);
    let reason = "the receiver had no memory to copy it".into();
    assert_eq!(stats.fallbacks(), [Fallback { reason, messages: 1 }]);
}
