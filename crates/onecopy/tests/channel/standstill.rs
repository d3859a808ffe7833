//! Two sides that wait for each other: an error where neither can go on, and nothing is lost.

use std::io::IoSlice;
use std::os::fd::AsRawFd as _;
use std::sync::Barrier;
use std::time::Duration;

use onecopy::channel::{Arming, ChannelReceiver};
use onecopy::{Channel, Deadline, Error, Sender as _};

use crate::duo::{MIB, content, soon};
use crate::support::watchdog;

const SECONDS: Duration = Duration::from_secs(120);

fn pair() -> [Channel; 2] {
    let (parent, end) = Channel::pair().unwrap();
    std::thread::scope(|scope| {
        let child = scope.spawn(|| Channel::adopt_by(end.as_raw_fd(), soon()).unwrap());
        [parent.accept_by(soon()).unwrap(), child.join().unwrap()]
    })
}

/// Does that on both sides at once, and says what came of it on each.
fn on_both<T: Send>(sides: &mut [Channel; 2], work: impl Fn(&mut Channel) -> T + Sync) -> [T; 2] {
    // One whose call was refused waits no more: only while both wait neither can go on.
    let both_have_begun = Barrier::new(2);
    std::thread::scope(|scope| {
        let (work, both_have_begun) = (&work, &both_have_begun);
        let both = sides.each_mut().map(|side| {
            scope.spawn(move || {
                both_have_begun.wait();
                work(side)
            })
        });
        both.map(|one| one.join().unwrap())
    })
}

fn receive_until_the_end(receiver: &mut ChannelReceiver) -> Vec<usize> {
    std::iter::from_fn(|| receiver.recv_by(soon()).unwrap().map(|message| message.len())).collect()
}

/// Both sides have received and sent what was accepted, and then messages of these lengths.
fn go_on(sides: [Channel; 2], expected: [&[usize]; 2]) {
    std::thread::scope(|scope| {
        for (side, expected) in sides.into_iter().zip(expected) {
            let (mut sender, mut receiver) = side.split();
            scope.spawn(move || sender.flush_by(soon()).unwrap());
            scope.spawn(move || assert_eq!(receive_until_the_end(&mut receiver), expected));
        }
    });
}

/// A message with which something is left for later.
const LONG: usize = 8 * MIB;

fn send_without_waiting(channel: &mut Channel) {
    channel.sender().send_by(content(0, LONG), Deadline::Now).unwrap();
}

#[test]
fn who_waits_behind_what_was_accepted_is_told_that_nobody_receives() {
    type Call = fn(&mut Channel) -> onecopy::Result<()>;
    let calls: [Call; 7] = [
        |channel| channel.sender().flush_by(Deadline::Never),
        |channel| channel.send(b"short"),
        |channel| channel.send(content(1, MIB / 4)),
        |channel| channel.send(content(1, MIB)),
        |channel| channel.send_vectored(&[IoSlice::new(content(1, MIB)), IoSlice::new(b"short")]),
        |channel| channel.sender().send_owned_by(content(1, MIB).to_vec(), Deadline::Never),
        |channel| channel.loan(5000)?.send(),
    ];
    for (index, call) in calls.into_iter().enumerate() {
        let _watchdog = watchdog(SECONDS);
        let mut sides = pair();
        sides.iter_mut().for_each(send_without_waiting);
        for outcome in on_both(&mut sides, call) {
            assert!(matches!(outcome, Err(Error::WouldDeadlock { .. })), "call {index}: {outcome:?}");
        }
        go_on(sides, [&[LONG], &[LONG]]);
    }
}

#[test]
fn two_sides_without_room_for_anything_are_told_so() {
    type Call = fn(&mut Channel) -> onecopy::Result<()>;
    let calls: [Call; 4] = [
        |channel| channel.send(b"short"),
        |channel| channel.send(&[5; 100]),
        |channel| channel.send(content(1, MIB)),
        |channel| channel.loan(5000)?.send(),
    ];
    for (index, call) in calls.into_iter().enumerate() {
        let _watchdog = watchdog(SECONDS);
        let mut sides = pair();
        let [first, second] = sides
            .each_mut()
            .map(|side| (0..).take_while(|_| side.sender().send_by(b"x", Deadline::Now).is_ok()).count());
        for outcome in on_both(&mut sides, call) {
            assert!(matches!(outcome, Err(Error::WouldDeadlock { .. })), "call {index}: {outcome:?}");
        }
        go_on(sides, [&vec![1; second], &vec![1; first]]);
    }
}

#[test]
fn exchanges_behind_what_was_accepted_go_on() {
    let _watchdog = watchdog(SECONDS);
    for bytes in [5, MIB / 4, 2 * MIB] {
        let mut sides = pair();
        sides.iter_mut().for_each(send_without_waiting);
        let exchange =
            |side: &mut Channel| side.exchange_by(content(1, bytes), Deadline::Never).unwrap().unwrap().len();
        let lengths = on_both(&mut sides, |side| [exchange(side), exchange(side), side.recv().unwrap().unwrap().len()]);
        assert_eq!(lengths, [[LONG, bytes, bytes]; 2]);
    }
}

/// Has the first side fail to send in an exchange, in which it has received.
fn exchange_in_vain(why: &str) -> [Channel; 2] {
    let mut sides = pair();
    let [one, other] = &mut sides;
    other.send(content(7, 5000)).unwrap();
    if why == "too long" {
        other.receiver().set_limit_bytes(MIB);
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(matches!(other.recv(), Err(Error::TooLong { .. }))));
            let error = one.exchange_by(content(8, 2 * MIB), Deadline::Never).unwrap_err();
            assert!(matches!(error, Error::TooLong { limit_bytes: MIB, .. }), "{error}");
        });
        return sides;
    }
    if why == "no room" {
        while one.sender().send_by(b"x", Deadline::Now).is_ok() {}
    }
    let error = one.exchange_by(content(8, 2 * MIB), Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(error.is_out_of_time(), "{why}: {error}");
    sides
}

#[test]
fn what_an_exchange_has_received_whose_sending_failed_is_first_in_line() {
    let _watchdog = watchdog(SECONDS);
    for why in ["too long", "no time", "no room"] {
        for call in 0..4 {
            let [mut one, mut other] = exchange_in_vain(why);
            other.send(b"behind it").unwrap();
            let mut buffer = one.register(5000).unwrap();
            assert_eq!(one.arm().unwrap(), Arming::Ready);
            for expected in [content(7, 5000), b"behind it"] {
                match call {
                    0 => assert!(one.recv().unwrap().unwrap()[..] == *expected),
                    1 => {
                        let small = one.recv_into(&mut buffer[..expected.len() - 1]).unwrap_err();
                        assert!(
                            matches!(small, Error::BufferTooSmall { message_bytes, .. } if message_bytes == expected.len())
                        );
                        assert_eq!(one.recv_into(&mut buffer).unwrap(), Some(expected.len()));
                        assert!(buffer[..expected.len()] == *expected);
                    }
                    2 => {
                        assert_eq!(one.recv_registered(&mut buffer).unwrap(), Some(expected.len()));
                        assert!(buffer[..expected.len()] == *expected);
                    }
                    _ => assert!(one.recv_view().unwrap().unwrap().into_message().unwrap()[..] == *expected),
                }
            }
            let error = one.receiver().recv_by(Deadline::Now).unwrap_err();
            assert!(matches!(error, Error::WouldBlock { .. }), "{error}");
            assert_eq!(one.arm().unwrap(), Arming::Armed);
        }
    }
}
