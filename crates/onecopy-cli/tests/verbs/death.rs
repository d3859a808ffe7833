//! SIGKILL in the middle of a transfer: the other side ends with 1 and one line, and nothing is left behind.

use std::io::Write as _;
use std::time::Duration;

use crate::mechanisms::{MESSAGES, Object, STREAMS, is_available};
use crate::support::{Ended, Running, eventually, onecopy, pattern, watchdog};

/// A receiver, and the address for its sender.
fn receive(object: &Object, more: &[&str]) -> (Running, String) {
    let base = ["recv", &object.address, "--timeout", "60s", "-o", "/dev/null"];
    let receiver = onecopy(base.iter().chain(more).chain(object.has_port().then_some(&"--verbose"))).start();
    let address = if object.has_port() { receiver.listening_address() } else { object.address.clone() };
    (receiver, address)
}

/// It failed for the death of the other side, and not because its time was up.
#[track_caller]
fn fails(ended: &Ended, mechanism: &str) {
    let lines = ended.stderr.lines().filter(|line| !line.starts_with("listening at "));
    assert_eq!((ended.status.code(), lines.count()), (Some(1), 1), "{mechanism}: {ended:?}");
    assert!(ended.stderr.contains("onecopy: "), "{mechanism}: {ended:?}");
}

/// Waits until the process has moved at least `bytes` through read and write calls of any kind, or seems to be waiting.
fn wait_until_settled(running: &Running) {
    std::thread::sleep(Duration::from_millis(50));
    running.wait_until_asleep();
}

#[test]
fn a_receiver_notices_that_its_sender_was_killed_in_the_middle_of_a_message() {
    let _watchdog = watchdog(Duration::from_secs(250));
    let test = "a_receiver_notices_that_its_sender_was_killed_in_the_middle_of_a_message";
    for mechanism in STREAMS.into_iter().chain(MESSAGES).filter(|name| is_available(test, name)) {
        let object = Object::new(mechanism);
        let (receiver, address) = receive(&object, &["--frame"]);
        let mut sender = onecopy(["send", &address, "--frame", "--timeout", "60s"]).silent_input().start();
        // More than a part, so that the message begins, and has no end.
        sender.stdin.as_mut().unwrap().write_all(&pattern(600_000, 1)).unwrap();
        wait_until_settled(&sender);
        sender.kill();
        fails(&receiver.end(), mechanism);
    }
}

#[test]
fn a_sender_notices_that_its_receiver_was_killed() {
    let _watchdog = watchdog(Duration::from_secs(250));
    let test = "a_sender_notices_that_its_receiver_was_killed";
    for mechanism in STREAMS.into_iter().chain(MESSAGES).filter(|name| is_available(test, name)) {
        let object = Object::new(mechanism);
        let (mut receiver, address) = receive(&object, &["--frame"]);
        let sender = onecopy(["send", &address, "--frame", "--timeout", "60s", "-i", "/dev/zero"]).start();
        let moved = || bytes_written(receiver.pid());
        eventually("the transfer goes on", || moved() > 1 << 20);
        receiver.kill();
        fails(&sender.end(), mechanism);
    }
}

#[test]
fn a_raw_stream_whose_reader_was_killed_is_an_error_and_one_whose_writer_was_killed_ends() {
    let _watchdog = watchdog(Duration::from_secs(250));
    for mechanism in STREAMS.into_iter().filter(|name| is_available("a_raw_stream_whose_reader_was_killed", name)) {
        let object = Object::new(mechanism);
        let (mut receiver, address) = receive(&object, &[]);
        let sender = onecopy(["send", &address, "--timeout", "60s", "-i", "/dev/zero"]).start();
        eventually("the transfer goes on", || bytes_written(receiver.pid()) > 1 << 20);
        receiver.kill();
        fails(&sender.end(), mechanism);

        let object = Object::new(mechanism);
        let (receiver, address) = receive(&object, &[]);
        let mut sender = onecopy(["send", &address, "--timeout", "60s"]).silent_input().start();
        sender.stdin.as_mut().unwrap().write_all(b"the begin").unwrap();
        wait_until_settled(&sender);
        sender.kill();
        let ended = receiver.end();
        assert!(ended.status.success(), "{mechanism}: a stream has no mark for its end: {ended:?}");
    }
}

#[test]
fn what_a_killed_side_leaves_does_not_stand_in_the_way() {
    let _watchdog = watchdog(Duration::from_secs(250));
    // Not a pseudoterminal: its link stands in the way while another test has a terminal that got the same number.
    for mechanism in ["unix", "unix-dgram", "unix-seqpacket", "fifo", "shm", "mq"] {
        let object = Object::new(mechanism);
        let (mut receiver, _) = receive(&object, &[]);
        wait_until_settled(&receiver);
        receiver.kill();
        let (receiver, address) = receive(&object, &[]);
        onecopy(["send", &address, "--timeout", "60s"]).input("second").end().succeeds();
        let ended = receiver.end();
        assert!(ended.status.success(), "{mechanism}: {ended:?}");
    }
}

#[test]
fn nothing_but_the_named_object_is_left() {
    let object = Object::new("shm");
    let name = object.address.rsplit('/').next().unwrap().to_owned();
    let (mut receiver, address) = receive(&object, &["--frame"]);
    let mut sender = onecopy(["send", &address, "--frame", "-i", "/dev/zero"]).start();
    eventually("the transfer goes on", || bytes_written(receiver.pid()) > 1 << 20);
    let (receiver_pid, sender_pid) = (receiver.pid(), sender.pid());
    receiver.kill();
    sender.kill();
    let left = std::fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let of_them = left.filter(|file| {
        file.contains(&name) || [receiver_pid, sender_pid].iter().any(|pid| file.contains(&format!("-{pid}")))
    });
    assert_eq!(of_them.collect::<Vec<_>>(), [name]);
}

/// How many bytes the process has passed to write calls (proc_pid_io(5)).
fn bytes_written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn what_is_left_of_a_message_whose_begin_somebody_took_does_not_stand_in_the_way() {
    let queue = Object::new("mq");
    onecopy(["send", &queue.address, "--frame"]).input(pattern(30_000, 1)).end().succeeds();
    // Whoever took it is gone.
    onecopy(["recv", &queue.address]).end().succeeds();
    onecopy(["send", &queue.address, "--frame"]).input("next").end().succeeds();
    let receive = || onecopy(["recv", &queue.address, "--frame", "--timeout", "20s"]).end();
    let ended = receive();
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(0), &b"next"[..]), "{ended:?}");
    assert!(ended.stderr.contains("its first ") && ended.stderr.lines().count() == 1, "{ended:?}");
    // Where nothing is behind it nobody waits.
    onecopy(["send", &queue.address, "--frame"]).input(pattern(30_000, 1)).end().succeeds();
    onecopy(["recv", &queue.address]).end().succeeds();
    receive().fails_with(1, &["its first "]);
}
