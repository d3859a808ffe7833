//! `send` and `recv` over a channel: a stream with its end mark, messages, deaths on either side, and who may not.

use std::io::Write as _;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::permissions::{is_root, unprivileged};
use crate::support::{Running, Scratch, eventually, onecopy, pattern, program, skip, unique, watchdog};

const LIMIT: Duration = Duration::from_secs(280);

/// A channel by its name, and one by a path.
fn addresses(scratch: &Scratch) -> [String; 2] {
    [format!("channel:{}", unique("cli")), format!("channel:{}", scratch.path("socket").display())]
}

fn recv(address: &str, more: &[&str]) -> Running {
    onecopy(["recv", address, "--timeout", "60s"].iter().chain(more)).start()
}

/// What is left of a channel at a path.
fn files(scratch: &Scratch) -> Vec<String> {
    let entries = std::fs::read_dir(scratch.path(".")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_stream_of_any_length() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    for address in addresses(&scratch) {
        for size in [0, 1, 104, 105, 65_535, 65_536, (1 << 20) - 1, 1 << 20, (5 << 20) + 7] {
            let receiver = recv(&address, &[]);
            onecopy(["send", &address, "--timeout", "60s"]).input(pattern(size, 1)).end().succeeds();
            let received = receiver.end().succeeds();
            assert!(received == pattern(size, 1), "{address}: {} bytes came of {size}", received.len());
        }
    }
    assert_eq!(files(&scratch), [""; 0], "the socket goes with the receiver");
}

#[test]
fn sixty_four_mebibytes_from_file_to_file() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    let bytes = pattern(64 << 20, 2);
    std::fs::write(&source, &bytes).unwrap();
    let [address, _] = addresses(&scratch);
    let receiver = recv(&address, &["-o", copy.to_str().unwrap()]);
    onecopy(["send", &address, "-i", source.to_str().unwrap(), "--timeout", "60s"]).end().succeeds();
    // The sender ends when the receiver has done its part: the file is there, and whole.
    assert_eq!(Sha256::digest(std::fs::read(&copy).unwrap()), Sha256::digest(&bytes));
    receiver.end().succeeds();
}

#[test]
fn either_side_may_start_first_and_either_may_listen() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    for address in addresses(&scratch) {
        let sender = onecopy(["send", &address, "--timeout", "60s"]).input("waited").start();
        sender.wait_until_asleep();
        assert_eq!(recv(&address, &[]).end().succeeds(), b"waited");
        sender.end().succeeds();

        let sender = onecopy(["send", &address, "--listen", "--timeout", "60s"]).input("turned").start();
        assert_eq!(recv(&address, &["--connect"]).end().succeeds(), b"turned");
        sender.end().succeeds();
    }
}

#[test]
fn lines_are_messages() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let [address, _] = addresses(&scratch);
    let long = "x".repeat(300_000);
    let text = format!("one\n\n{long}\nfour\n");
    let receiver = recv(&address, &["--lines", "--count", "0", "--verbose"]);
    onecopy(["send", &address, "--lines", "--timeout", "60s"]).input(text.clone()).end().succeeds();
    let ended = receiver.end();
    assert!(ended.status.success() && ended.stdout == text.as_bytes(), "{:?} {}", ended.status, ended.stderr);
    assert!(ended.stderr.ends_with("3 bytes\n0 bytes\n300000 bytes\n4 bytes\n"), "{}", ended.stderr);

    let receiver = recv(&address, &["--lines", "--count", "5"]);
    let sender = onecopy(["send", &address, "--lines", "--timeout", "60s"]).input("a\nb").end();
    sender.fails_with(1, &[&address, "exited without closing"]);
    let ended = receiver.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the sender closed after 2 of 5 messages"), "{ended:?}");

    let receiver = recv(&address, &["--frame"]);
    onecopy(["send", &address, "--frame", "--timeout", "60s"]).input(pattern(700_000, 3)).end().succeeds();
    assert!(receiver.end().succeeds() == pattern(700_000, 3));
}

#[test]
fn a_stream_of_messages_has_no_end_mark_and_is_refused() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let [address, _] = addresses(&scratch);
    let receiver = recv(&address, &[]);
    let sender = onecopy(["send", &address, "--lines", "--timeout", "60s"]).input("abc").start();
    let ended = receiver.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("without the end mark"), "{ended:?}");
    drop(sender);
}

#[test]
fn a_killed_sender_is_no_end_of_the_stream() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let copy = scratch.path("copy");
    for (size, address) in [9, 3 << 20].into_iter().zip(addresses(&scratch)) {
        let receiver = recv(&address, &["-o", copy.to_str().unwrap()]);
        let mut sender = onecopy(["send", &address, "--timeout", "60s"]).silent_input().start();
        sender.stdin.as_mut().unwrap().write_all(&pattern(size, 4)).unwrap();
        sender.wait_until_asleep();
        sender.kill();
        receiver.end().fails_with(1, &[&address, "exited"]);
        assert!(!copy.exists(), "half a stream is no file");
    }
    assert_eq!(files(&scratch), [""; 0]);
}

#[test]
fn a_sender_that_fails_is_no_end_of_the_stream_either() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let [address, _] = addresses(&scratch);
    let receiver = recv(&address, &[]);
    let mut sender = onecopy(["send", &address, "--timeout", "2s"]).silent_input().start();
    sender.stdin.as_mut().unwrap().write_all(b"the begin").unwrap();
    let stdin = sender.stdin.take();
    assert_eq!(sender.end().status.code(), Some(124), "its input came no further");
    drop(stdin);
    let ended = receiver.end();
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), &b"the begin"[..]), "{ended:?}");
    assert!(ended.stderr.contains("exited"), "{ended:?}");
}

#[test]
fn a_sender_notices_that_its_receiver_was_killed_or_failed() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    for address in addresses(&scratch) {
        let mut receiver = recv(&address, &["-o", "/dev/null"]);
        let sender = onecopy(["send", &address, "--timeout", "60s", "-i", "/dev/zero"]).start();
        let path = format!("/proc/{}/io", receiver.pid());
        eventually("the transfer goes on", || {
            let io = std::fs::read_to_string(&path).unwrap_or_default();
            let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
            written.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > 8 << 20)
        });
        receiver.kill();
        sender.end().fails_with(1, &[&address]);

        let receiver = recv(&address, &["-o", "/dev/full"]);
        let sender = onecopy(["send", &address, "--timeout", "60s"]).input("short enough for the ring").start();
        receiver.end().fails_with(1, &["/dev/full"]);
        sender.end().fails_with(1, &[&address]);
    }
}

#[test]
fn another_user_is_refused() {
    let _watchdog = watchdog(LIMIT);
    if !is_root() {
        skip("another_user_is_refused", "only root can be two users");
        return;
    }
    let scratch = Scratch::new();
    program("chmod", ["755".as_ref(), scratch.path(".").as_os_str()]).end().succeeds();
    let [name, path] = addresses(&scratch);
    let receiver = recv(&path, &[]);
    eventually("it listens", || scratch.path("socket").exists());
    unprivileged(&["send", &path, "--timeout", "10s"]).input("x").end().fails_with(1, &[&path, "Permission denied"]);
    onecopy(["send", &path, "--timeout", "60s"]).input("own").end().succeeds();
    assert_eq!(receiver.end().succeeds(), b"own", "the refused one has not taken the place of the other");
    // A name belongs to its user: another one's is another name.
    let receiver = recv(&name, &[]);
    receiver.wait_until_asleep();
    unprivileged(&["send", &name, "--timeout", "300ms"]).input("x").end().fails_with(124, &[&name, "nobody listens"]);
}

#[test]
fn what_does_not_fit_a_channel_is_said() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let [name, path] = addresses(&scratch);
    onecopy(["send", &name, "--nonblock"]).end().fails_with(2, &["--nonblock does not fit", "--timeout"]);
    onecopy(["send", &name, "--timeout", "100ms"]).end().fails_with(124, &[&name, "nobody listens"]);
    onecopy(["create", &name]).end().fails_with(2, &["a process listens there", "onecopy recv"]);
    onecopy(["rm", &name]).end().fails_with(2, &["an abstract name goes with the process"]);
    onecopy(["read", &name]).end().fails_with(2, &[&name]);
    onecopy(["rm", &path]).end().fails_with(1, &[&path, "No such file"]);
    let mut receiver = recv(&path, &[]);
    eventually("it listens", || scratch.path("socket").exists());
    receiver.kill();
    onecopy(["rm", &path]).end().succeeds();
    assert_eq!(files(&scratch), [""; 0]);
}

#[test]
fn an_interrupted_receiver_takes_its_socket_along() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let [_, path] = addresses(&scratch);
    let receiver = recv(&path, &[]);
    eventually("it listens", || scratch.path("socket").exists());
    receiver.signal("INT");
    assert_eq!(receiver.end().status.code(), Some(130));
    assert_eq!(files(&scratch), [""; 0]);
}
