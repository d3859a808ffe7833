//! Timeouts, refusals to wait, interrupts.

use std::time::{Duration, Instant};

use crate::mechanisms::{MESSAGES, Object, STREAMS, is_available};
use crate::support::{Scratch, onecopy, program, watchdog};

#[test]
fn a_receiver_without_a_sender_times_out() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let test = "a_receiver_without_a_sender_times_out";
    for mechanism in STREAMS.into_iter().chain(MESSAGES).chain(["udp"]).filter(|name| is_available(test, name)) {
        let object = Object::new(mechanism);
        let start = Instant::now();
        let ended = onecopy(["recv", &object.address, "--timeout", "100ms"]).end();
        assert!(start.elapsed() >= Duration::from_millis(100), "{mechanism}");
        let missing = if mechanism == "fifo" { "(no process has it open to write) timed out" } else { "timed out" };
        ended.fails_with(124, &[missing]);
    }
}

#[test]
fn a_sender_without_a_receiver_times_out() {
    let _watchdog = watchdog(Duration::from_secs(100));
    for mechanism in ["fifo", "pty", "unix", "unix-abstract", "unix-dgram", "unix-seqpacket"] {
        let object = Object::new(mechanism);
        let start = Instant::now();
        let ended = onecopy(["send", &object.address, "--timeout", "100ms"]).input("x").end();
        assert!(start.elapsed() >= Duration::from_millis(100), "{mechanism}");
        let missing = match mechanism {
            "fifo" => "no process has it open to read",
            "pty" => "no pseudoterminal is published there",
            _ => "no process has bound this name",
        };
        ended.fails_with(124, &[&object.address, &format!("({missing}) timed out")]);
    }
    let ended = onecopy(["send", "tcp:127.0.0.1:1", "--timeout", "100ms"]).end();
    ended.fails(124, "connect on tcp:127.0.0.1:1 (nobody listens there) timed out");
}

#[test]
fn a_sender_to_a_full_queue_times_out() {
    for mechanism in ["mq", "sysv-mq"] {
        let object = Object::new(mechanism);
        let lines = "x".repeat(8000) + "\n";
        let ended = onecopy(["send", &object.address, "--lines", "--timeout", "200ms"]).input(lines.repeat(100)).end();
        let timed_out = format!("send on {} timed out (1", object.address);
        ended.fails_with(124, &[&timed_out, " of at most ", "receive some first), after ", " messages"]);
    }
}

#[test]
fn who_must_not_wait_fails_at_once() {
    for mechanism in ["unix", "unix-abstract", "unix-dgram", "unix-seqpacket", "fifo", "pty"] {
        let object = Object::new(mechanism);
        onecopy(["send", &object.address, "--nonblock"]).end().fails_with(1, &[&object.address]);
    }
    onecopy(["send", "tcp:127.0.0.1:1", "--nonblock"]).end().fails_with(1, &["tcp:127.0.0.1:1", "Connection refused"]);
}

/// The sender is faster than who reads the output, so that something is there whenever the receiver looks.
#[test]
fn a_receiver_gives_up_in_time_though_more_comes_all_the_time() {
    let scratch = Scratch::new();
    let input = scratch.path("input");
    std::fs::File::create(&input).unwrap().set_len(48 << 20).unwrap();
    for mechanism in ["unix", "channel"] {
        let (object, code) = (Object::new(mechanism), scratch.path(mechanism));
        let script = "{ \"$0\" recv \"$1\" --timeout 200ms; echo $? >\"$2\"; } | \
                      while [ \"$(head -c 65536 | wc -c)\" -gt 0 ]; do sleep 0.01; done";
        let receiver = ["-c", script, env!("CARGO_BIN_EXE_onecopy"), &object.address, code.to_str().unwrap()];
        let receiver = program("sh", receiver).start();
        let _ = onecopy(["send", &object.address]).input_file(&input).end();
        let told = receiver.end().stderr;
        assert!(told.contains("timed out, after"), "{mechanism}: {told}");
        assert_eq!(std::fs::read_to_string(code).unwrap(), "124\n", "{mechanism}");
    }
}

#[test]
fn an_interrupt_is_130_and_leaves_nothing_that_the_verb_made_for_itself() {
    for mechanism in ["pty", "unix", "unix-dgram", "unix-seqpacket"] {
        for (signal, code) in [("INT", 130), ("QUIT", 131)] {
            let scratch = Scratch::new();
            let address = format!("{mechanism}:{}", scratch.path("o").display());
            let receiver = onecopy(["recv", &address, "--verbose"]).start();
            receiver.listening_address();
            receiver.wait_until_asleep();
            receiver.signal(signal);
            let ended = receiver.end();
            assert_eq!(ended.status.code(), Some(code), "{ended:?}");
            assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 0, "{mechanism}: {signal}");
        }
    }
}

#[test]
fn an_interrupt_ends_every_wait() {
    let test = "an_interrupt_ends_every_wait";
    for mechanism in STREAMS.into_iter().chain(MESSAGES).filter(|name| is_available(test, name)) {
        let object = Object::new(mechanism);
        let receiver = onecopy(["recv", &object.address]).start();
        receiver.wait_until_asleep();
        receiver.signal("INT");
        let ended = receiver.end();
        assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(130), ""), "{mechanism}: {ended:?}");
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let scratch = Scratch::new();
    let address = format!("unix:{}", scratch.path("o").display());
    let script = format!("trap '' HUP; exec {} recv {address}", env!("CARGO_BIN_EXE_onecopy"));
    let mut receiver = crate::support::program("sh", ["-c", &script]).start();
    crate::support::eventually("it listens", || scratch.path("o").exists());
    receiver.wait_until_asleep();
    receiver.signal("HUP");
    receiver.wait_until_asleep();
    assert!(receiver.is_running());
    onecopy(["send", &address]).input("still there").end().succeeds();
    assert_eq!(receiver.end().succeeds(), b"still there");
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let scratch = Scratch::new();
    for mechanism in ["unix", "unix-dgram", "unix-seqpacket", "pty"] {
        let address = format!("{mechanism}:{}", scratch.path(mechanism).display());
        let first = onecopy(["recv", &address, "--verbose"]).start();
        first.listening_address();
        onecopy(["recv", &address]).end().fails_with(1, &[&address]);
        drop(first);
    }
    let first = onecopy(["recv", "tcp:127.0.0.1:0", "--verbose"]).start();
    let address = first.listening_address();
    onecopy(["recv", &address]).end().fails_with(1, &[&address, "Address already in use"]);
}

#[test]
fn a_ring_has_one_receiver_and_one_sender() {
    let region = Object::new("shm");
    let receiver = onecopy(["recv", &region.address]).start();
    receiver.wait_until_asleep();
    onecopy(["recv", &region.address]).end().fails_with(1, &[&region.address, &receiver.pid().to_string()]);
}

#[test]
fn a_silent_input_times_out() {
    for more in [&[][..], &["--lines"], &["--frame"]] {
        let queue = Object::new("mq");
        let start = Instant::now();
        let arguments = ["send", &queue.address, "--timeout", "100ms"];
        let mut sender = onecopy(arguments.iter().chain(more)).silent_input().start();
        let stdin = sender.stdin.take();
        sender.end().fails(124, "read of stdin timed out");
        assert!(start.elapsed() >= Duration::from_millis(100));
        drop(stdin);
    }
}
