//! Windows that are not open any more: always an error for which `is_peer_gone` holds, and never wrong bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onecopy::memory::remote::RemoteProcess;
use onecopy::memory::window::{ReadWindow, RemoteWindow, Token, with_read_window};
use onecopy::{Error, Result};

use crate::support::{Peer, argument, role, skip, watchdog};
use crate::window_owner::{self as owner, address, content, expose};
use crate::{long_rounds, tell};

const BIG: usize = 16 << 20;
const LIMIT: Duration = Duration::from_secs(1800);

/// A moment within the time that some reads of [`BIG`] take.
fn moment_us(round: usize) -> usize {
    round * 7919 % 9000
}

/// Demands the error of a window that is not open any more.
fn assert_gone<T: std::fmt::Debug>(result: Result<T>, reason: &str) {
    let error = result.unwrap_err();
    assert!(error.is_peer_gone() && error.to_string().contains(reason), "{error}");
}

/// Reads the whole window again and again until it is not open any more. Each read that succeeds must be right.
fn read_until_gone(window: &RemoteWindow, expected: &[u8], buffer: &mut [u8]) {
    loop {
        match window.get(0, buffer) {
            Ok(()) => assert!(buffer == expected, "a read that succeeded brought wrong bytes"),
            Err(error) => {
                assert!(error.is_peer_gone(), "{error}");
                return assert_gone(window.get(0, &mut buffer[..1]), "");
            }
        }
    }
}

#[test]
fn closed_and_dropped_windows_are_refused() {
    if let Some(role) = role() {
        return owner::serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut peer = owner::start("window_stale::closed_and_dropped_windows_are_refused", "owner");
    for (rights, command, answer) in [
        ("read", "close 0", "@closed"),
        ("write", "close 0", "@closed"),
        ("read", "drop", "@dropped"),
        ("write", "drop", "@dropped"),
    ] {
        let token = expose(&mut peer, rights, 5000, 1);
        let window = RemoteWindow::open(&token).unwrap();
        let mut buffer = vec![0; 5000];
        window.get(0, &mut buffer).unwrap();
        assert!(buffer == content(5000, 1));
        peer.say(command);
        peer.line(answer);
        let reason = "the window was closed, or its process executed another program";
        assert_gone(window.get(0, &mut buffer), reason);
        assert_gone(window.get(0, &mut []), reason);
        assert_gone(window.get_vectored(&[0..1, 7..9], &mut [std::io::IoSliceMut::new(&mut buffer[..3])]), reason);
        if rights == "write" {
            assert_gone(window.put(0, &buffer), reason);
            assert_gone(window.put(0, &[]), reason);
        }
        assert_gone(RemoteWindow::open(&token), reason);
        // The next one may have the memory of this one, and the place of its number: still another window.
        let next = expose(&mut peer, rights, 5000, 2);
        assert_gone(window.get(0, &mut buffer), reason);
        RemoteWindow::open(&next).unwrap().get(0, &mut buffer).unwrap();
        assert!(buffer == content(5000, 2));
    }
}

#[test]
fn a_window_over_borrowed_bytes_ends_with_the_call_and_with_its_panic() {
    let bytes = [7_u8; 100];
    let token = with_read_window(&bytes, |token| {
        let mut copy = [0; 100];
        RemoteWindow::open(token).unwrap().get(0, &mut copy).unwrap();
        assert_eq!(copy, bytes);
        *token
    });
    assert_gone(RemoteWindow::open(&token.unwrap()), "was closed");

    let mut seen: Option<Token> = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        with_read_window(&bytes, |token| {
            seen = Some(*token);
            std::panic::resume_unwind(Box::new("a panic"));
        })
    }));
    assert!(panicked.is_err());
    assert_gone(RemoteWindow::open(&seen.unwrap()), "was closed");

    // One that is forgotten stays open, and its bytes stay.
    let forgotten = ReadWindow::expose(bytes.to_vec()).unwrap();
    let token = *forgotten.token();
    std::mem::forget(forgotten);
    let mut copy = [0; 100];
    RemoteWindow::open(&token).unwrap().get(0, &mut copy).unwrap();
    assert_eq!(copy, bytes);
}

#[test]
fn an_owner_that_closes_and_overwrites_during_reads() {
    if let Some(role) = role() {
        return owner::serve(&role);
    }
    let _watchdog = watchdog(LIMIT);
    let mut peer = owner::start("window_stale::an_owner_that_closes_and_overwrites_during_reads", "owner");
    let mut buffer = vec![0; BIG];
    for round in 0..long_rounds() {
        let rights = if round % 2 == 0 { "read" } else { "write" };
        let token = expose(&mut peer, rights, BIG, round as u64 % 7);
        let window = RemoteWindow::open(&token).unwrap();
        peer.say(&format!("close {}", moment_us(round)));
        read_until_gone(&window, &content(BIG, round as u64 % 7), &mut buffer);
        peer.line("@closed");
    }
}

#[test]
fn an_owner_that_executes_another_program_during_reads() {
    if let Some(role) = role() {
        return owner::serve(&role);
    }
    let _watchdog = watchdog(LIMIT);
    let test = "window_stale::an_owner_that_executes_another_program_during_reads";
    let mut peer = owner::start(test, "fixed addresses");
    let mut mapped_again = 0;
    for round in 0..long_rounds() {
        // Short reads come upon every moment of an execve(2), long ones last over it.
        let len = if round % 2 == 0 { BIG } else { 100 };
        let (expected, other) = (content(len, 1), content(len, 2));
        let mut buffer = vec![0; len];
        let old = expose(&mut peer, "read", len, 1);
        let window = RemoteWindow::open(&old).unwrap();
        // It exposes as much of other bytes, and at the same addresses where they are not random.
        peer.say(&format!("exec {} read {len} 2", moment_us(round)));
        read_until_gone(&window, &expected, &mut buffer);
        let new = owner::token(&mut peer);
        assert_eq!((new.pid(), new.len()), (old.pid(), old.len()));
        if address(&new) == address(&old) {
            mapped_again += 1;
            let process = RemoteProcess::open(old.pid()).unwrap();
            process.read_exact(address(&old), &mut buffer).unwrap();
            assert!(buffer == other, "without a window, the bytes of the other program are read there");
        }
        assert_gone(window.get(0, &mut buffer), "executed another program");
        assert_gone(RemoteWindow::open(&old), "executed another program");
        RemoteWindow::open(&new).unwrap().get(0, &mut buffer).unwrap();
        assert!(buffer == other);
    }
    let personality = std::fs::read_to_string(format!("/proc/{}/personality", peer.pid())).unwrap_or_default();
    let fixed = u64::from_str_radix(personality.trim(), 16).is_ok_and(|bits| bits & 0x004_0000 != 0);
    assert!(!fixed || mapped_again > 0, "never at the same address, though they are not random");
}

#[test]
fn an_owner_that_exits_or_is_killed_during_reads() {
    if let Some(role) = role() {
        return owner::serve(&role);
    }
    let _watchdog = watchdog(LIMIT);
    let expected = content(BIG, 1);
    let mut buffer = vec![0; BIG];
    for round in 0..long_rounds() {
        let mut peer = owner::start("window_stale::an_owner_that_exits_or_is_killed_during_reads", "owner");
        let token = expose(&mut peer, "read", BIG, 1);
        let window = RemoteWindow::open(&token).unwrap();
        std::thread::scope(|scope| {
            if round % 2 == 0 {
                peer.say(&format!("exit {}", moment_us(round)));
            } else {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_micros(moment_us(round) as u64));
                    peer.kill();
                });
            }
            read_until_gone(&window, &expected, &mut buffer);
        });
        peer.kill();
        assert_gone(window.get(0, &mut buffer), "its process has exited");
        assert_gone(RemoteWindow::open(&token), "");
    }
}

#[test]
fn a_process_that_was_given_the_number_of_the_owner() {
    let test = "window_stale::a_process_that_was_given_the_number_of_the_owner";
    match role().as_deref() {
        None => {
            let _watchdog = watchdog(LIMIT);
            match Peer::in_own_namespaces(test, "inside", &[]) {
                Some(peer) => peer.succeed_within(LIMIT),
                None => skip("a_process_that_was_given_the_number_of_the_owner", "no pid namespace can be made here"),
            }
        }
        Some("inside") => give_numbers_again(test),
        Some(role) => owner::serve(role),
    }
}

/// In a pid namespace of its own, where nobody else takes numbers.
fn give_numbers_again(test: &str) {
    let expected = content(BIG, 1);
    let mut buffer = vec![0; BIG];
    for round in 0..long_rounds() {
        let mut peer = owner::start(test, "fixed addresses");
        let token = expose(&mut peer, "read", BIG, 1);
        let window = RemoteWindow::open(&token).unwrap();
        window.get(0, &mut buffer).unwrap();
        assert!(buffer == expected);
        let copied = round % 2 == 0;
        if copied {
            peer.say("fork");
            peer.line("@forked");
        }
        let window = Arc::new(window);
        let stop = Arc::new(AtomicBool::new(false));
        let reader = std::thread::spawn({
            let (window, stop) = (Arc::clone(&window), Arc::clone(&stop));
            move || read_across_the_end(&window, &content(BIG, 1), &stop)
        });
        std::thread::sleep(Duration::from_micros(moment_us(round) as u64));
        peer.kill();
        // A thread takes a number too: none is made from here on. The reader reads on while the number is given again.
        std::fs::write("/proc/sys/kernel/ns_last_pid", (token.pid() - 1).to_string()).unwrap();
        let mut successor = None;
        let number = if copied {
            peer.say("");
            peer.line("@successor ").parse().unwrap()
        } else {
            let mut other = owner::start(test, "fixed addresses");
            expose(&mut other, "read", BIG, 2);
            successor.insert(other).pid()
        };
        assert_eq!(number, token.pid(), "the number was not given again");
        check_successor(&window, &token, copied, &mut buffer);
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        if copied {
            end(number);
        }
    }
}

/// Reads the whole window again and again until told to stop, whoever has the number of its owner by then. Each read that succeeds
/// must be right, and none succeeds after one that did not.
fn read_across_the_end(window: &RemoteWindow, expected: &[u8], stop: &AtomicBool) {
    let mut buffer = vec![0; BIG];
    let mut is_gone = false;
    while !(is_gone && stop.load(Ordering::Relaxed)) {
        match window.get(0, &mut buffer) {
            Ok(()) => assert!(!is_gone && buffer == expected, "a read that succeeded brought wrong bytes"),
            Err(error) => {
                assert!(error.is_peer_gone(), "{error}");
                is_gone = true;
            }
        }
    }
    assert_gone(window.get(0, &mut buffer), "");
}

/// The process that has the number now: a copy of the owner, or one with other bytes at the same addresses.
fn check_successor(window: &RemoteWindow, token: &Token, copied: bool, buffer: &mut [u8]) {
    let process = RemoteProcess::open(token.pid()).unwrap();
    let read = process.read_exact(address(token), buffer);
    if copied {
        read.unwrap();
        assert!(buffer == content(BIG, 1), "it has the very bytes, and yet it is not the owner");
    }
    assert_gone(window.get(0, buffer), "its process has exited");
    assert_gone(RemoteWindow::open(token), "");
}

/// Kills a process that was made by a child of this one, and reaps both: the first process of a namespace inherits orphans.
fn end(number: u32) {
    let pid = rustix::process::Pid::from_raw(number.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok() {}
}

#[test]
fn a_token_of_another_pid_namespace_is_refused() {
    let test = "window_stale::a_token_of_another_pid_namespace_is_refused";
    let refused = |token: &Token| {
        let error = RemoteWindow::open(token).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && !error.is_peer_gone(), "{error}");
        assert!(error.to_string().contains("counts in another pid namespace, or on another machine"), "{error}");
    };
    if role().is_some() {
        refused(&argument("TOKEN").parse().unwrap());
        let window = ReadWindow::expose(vec![1; 100]).unwrap();
        RemoteWindow::open(window.token()).unwrap();
        tell(&format!("token {}", window.token()));
        let mut end = String::new();
        std::io::stdin().read_line(&mut end).unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let window = ReadWindow::expose(vec![1; 100]).unwrap();
    let arguments = [("TOKEN", &*window.token().to_string())];
    let Some(mut peer) = Peer::in_own_namespaces(test, "inside", &arguments) else {
        return skip("a_token_of_another_pid_namespace_is_refused", "no pid namespace can be made here");
    };
    let token = owner::token(&mut peer);
    refused(&token);
    peer.say("done");
    peer.succeed();
}
