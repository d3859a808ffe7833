//! What comes after an end in the middle of something: memory that is used again stays whole, and the end of a large process is known
//! soon.

use std::time::{Duration, Instant};

use onecopy::memory::buffer::set_pool_limit_bytes;
use onecopy::{Channel, Deadline, Error, Result, Sender as _};
use rustix::process::Signal;

use crate::death::{CANARY, LENGTHS, canaries, is_whole, receive_by, signal};
use crate::duo::{MIB, adopt, apart, content, hash, rounds, soak, start};
use crate::support::{argument, role, watchdog};

const SECONDS: Duration = Duration::from_secs(1800);

/// The next message in one or the other direction; false is the end.
fn step(channel: &mut Channel, sends: bool, number: u64, length: usize, deadline: Deadline) -> Result<bool> {
    match sends {
        true => channel.sender().send_by(content(number, length), deadline).map(|()| true),
        false => receive_by(channel, number, length, number % 3 == 2, deadline),
    }
}

/// The second process: goes on until the other side has gone.
fn exchange_to_the_end(role: &str) {
    let length = argument("LENGTH").parse().unwrap();
    let mut channel = adopt();
    for number in 0.. {
        match step(&mut channel, role == "sender", number, length, Deadline::Never) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return assert!(error.is_peer_gone(), "{error}"),
        }
    }
}

/// One round: stops the second process after some microseconds, closes the channel, uses the memory again, and lets it go on.
fn left_while_stopped(test: &str, round: u64) {
    // Mostly such as are copied once: nothing is written late through the ring.
    let least = if round.is_multiple_of(2) { 0 } else { 70_000 };
    let length = LENGTHS[round as usize % LENGTHS.len()].max(least);
    let receives = (round / 2).is_multiple_of(2);
    let (mut channel, peer) =
        start(test, if receives { "sender" } else { "receiver" }, &[("LENGTH", &length.to_string())]);
    let pause = Duration::from_micros(hash(round) % 10_000);
    let mut own = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(pause);
            signal(&peer, Signal::STOP);
        });
        // Until the other side does nothing any more: the call that sees that was in the middle of something, perhaps.
        let deadline = || Deadline::after(Duration::from_millis(15));
        for number in 0.. {
            let outcome = match receives {
                true => step(&mut channel, false, number, length, deadline()),
                false => {
                    own.clear();
                    own.extend_from_slice(content(number, length));
                    channel.sender().send_by(&own, deadline()).map(|()| true)
                }
            };
            match outcome {
                Ok(more) => assert!(more, "the end"),
                Err(error) => return assert!(error.is_out_of_time(), "{error}"),
            }
        }
    });
    // The caller's own memory too: a receiver that goes on must not deliver what stands there from now on.
    own.fill(CANARY);
    let closes_first = !round.is_multiple_of(3);
    let channel = if closes_first {
        drop(channel);
        None
    } else {
        Some(channel)
    };
    let canaries = canaries(length);
    signal(&peer, Signal::CONT);
    drop(channel);
    // When it has ended it writes no more.
    peer.succeed();
    for buffer in &canaries {
        assert!(is_whole(buffer), "a late write of {length} bytes, round {round}");
    }
}

#[test]
fn memory_that_is_used_again_after_a_stopped_peer_was_left_stays_whole() {
    let test = "aftermath::memory_that_is_used_again_after_a_stopped_peer_was_left_stays_whole";
    match role().as_deref() {
        // In a process of its own, whose pool of buffers no other test uses.
        None => apart(test, "survivor", SECONDS),
        Some("survivor") => {
            set_pool_limit_bytes(64 * MIB);
            (0..rounds(50, 1000) as u64).for_each(|round| left_while_stopped(test, round));
        }
        Some(role) => exchange_to_the_end(role),
    }
}

/// How long it took from the kill until the error: of a call that was waiting, or of the next one.
fn time_to_know(test: &str, size: usize, waits: bool) -> Duration {
    let (mut channel, mut peer) = start(test, "large", &[("SIZE", &size.to_string())]);
    assert_eq!(channel.recv().unwrap().as_deref(), Some(&b"large"[..]));
    let kill = move || {
        std::thread::sleep(Duration::from_millis(20));
        let at = Instant::now();
        signal(&peer, Signal::KILL);
        if waits {
            peer.kill();
        }
        (at, peer)
    };
    let fails = |channel: &mut Channel| -> Error {
        loop {
            if let Err(error) = channel.send(content(0, 100_000)) {
                return error;
            }
        }
    };
    if waits {
        let killer = std::thread::spawn(kill);
        let error = channel.recv().unwrap_err();
        assert!(error.is_peer_gone(), "{error}");
        let known = Instant::now();
        return known.saturating_duration_since(killer.join().unwrap().0);
    }
    let (at, _peer) = kill();
    let error = fails(&mut channel);
    assert!(error.is_peer_gone(), "{error}");
    at.elapsed()
}

#[test]
fn the_end_of_a_process_with_much_memory_is_known() {
    let test = "aftermath::the_end_of_a_process_with_much_memory_is_known";
    if role().is_some() {
        let memory = vec![1_u8; argument("SIZE").parse().unwrap()];
        let mut channel = adopt();
        channel.send(b"large").unwrap();
        std::thread::park();
        drop(std::hint::black_box(memory));
        return;
    }
    let _watchdog = watchdog(SECONDS);
    // The design says 10 ms for 64 MiB and 100 ms for 1 GiB; a machine with other things to do may take longer.
    let sizes: &[usize] = if soak() { &[64 * MIB, 1024 * MIB] } else { &[64 * MIB] };
    for &size in sizes {
        for waits in [true, false] {
            let mut times: Vec<_> = (0..rounds(5, 50)).map(|_| time_to_know(test, size, waits)).collect();
            times.sort_unstable();
            let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
            let what = if waits { "while it waited" } else { "at the next call" };
            eprintln!("the end of {} MiB was known {what} after {median:?} (median), {longest:?} at most", size / MIB);
            assert!(median < Duration::from_secs(2), "{median:?}");
        }
    }
}
