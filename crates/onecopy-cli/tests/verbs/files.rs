//! `-i` and `-o`: files that are whole or untouched, and what else can stand there.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::mechanisms::{MESSAGES, Object, STREAMS, is_available};
use crate::support::{Ended, Scratch, eventually, onecopy, pattern, program};

#[test]
fn a_file_is_replaced_when_everything_came_and_keeps_its_mode() {
    let scratch = Scratch::new();
    let (path, link) = (scratch.path("file"), scratch.path("link"));
    std::fs::write(&path, "before").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let queue = Object::new("mq");
    onecopy(["send", &queue.address]).input("after").end().succeeds();
    onecopy(["recv", &queue.address, "-o", link.to_str().unwrap()]).end().succeeds();
    assert_eq!(std::fs::read(&path).unwrap(), b"after");
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o604);
    assert!(link.symlink_metadata().unwrap().is_symlink(), "the file behind the link is replaced, not the link");
    assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn a_receiver_that_is_killed_or_interrupted_leaves_the_file_as_it_was() {
    for (signal, code) in [("KILL", None), ("INT", Some(130)), ("TERM", Some(143))] {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        std::fs::write(&path, "before").unwrap();
        let socket = format!("unix:{}", scratch.path("socket").display());
        let receiver = onecopy(["recv", &socket, "-o", path.to_str().unwrap()]).start();
        let mut sender = onecopy(["send", &socket]).silent_input().start();
        std::io::Write::write_all(sender.stdin.as_mut().unwrap(), &pattern(100_000, 1)).unwrap();
        sender.wait_until_asleep();
        receiver.wait_until_asleep();
        receiver.signal(signal);
        let ended = receiver.end();
        assert_eq!(ended.status.code(), code, "{ended:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"before", "{signal}");
        assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 1, "{signal}: nothing else is left");
    }
}

#[test]
fn a_new_file_appears_only_when_it_is_whole() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let queue = Object::new("mq");
    let recv = ["recv", &queue.address, "-o", path.to_str().unwrap(), "--timeout", "50ms"];
    onecopy(recv).end().fails(124, &format!("receive on {} timed out", queue.address));
    assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 0);
}

#[test]
fn what_came_before_the_time_was_up_is_kept() {
    for count in ["0", "3"] {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        let queue = Object::new("mq");
        onecopy(["send", &queue.address, "--lines"]).input("a\nb\n").end().succeeds();
        let recv = ["recv", &queue.address, "--count", count, "--lines", "-o", path.to_str().unwrap(), "--timeout"];
        let ended = onecopy(recv.iter().chain(&["50ms"])).end();
        ended.fails(124, &format!("receive on {} timed out, after 2 messages", queue.address));
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\n", "they are no longer in the queue");
    }
}

#[test]
fn what_came_before_the_sender_closed_or_was_killed_is_kept() {
    for is_killed in [false, true] {
        let (scratch, object) = (Scratch::new(), Object::new("unix-seqpacket"));
        let path = scratch.path("file");
        let base = ["recv", &object.address, "--count", "3", "--lines", "-v", "-o", path.to_str().unwrap()];
        let receiver = onecopy(base).start();
        let mut sender = onecopy(["send", &object.address, "--lines"]).silent_input().start();
        std::io::Write::write_all(sender.stdin.as_mut().unwrap(), b"a\nbc\n").unwrap();
        let told = || String::from_utf8(receiver.stderr_so_far()).unwrap();
        eventually("both came", || told().lines().any(|line| line.starts_with("2 bytes")));
        if is_killed {
            sender.kill();
        } else {
            drop(sender.stdin.take());
        }
        let ended = receiver.end();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains("closed after 2 of 3 messages"), "{ended:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nbc\n");
    }
}

#[test]
fn what_came_whole_before_an_interrupt_is_kept() {
    let test = "what_came_whole_before_an_interrupt_is_kept";
    for (count, more) in [("0", &[][..]), ("5", &[]), ("0", &["--frame"]), ("5", &["--frame"])] {
        for mechanism in MESSAGES.into_iter().chain(["fifo", "unix"]).filter(|name| is_available(test, name)) {
            if more.is_empty() && STREAMS.contains(&mechanism) {
                continue;
            }
            let (scratch, object) = (Scratch::new(), Object::new(mechanism));
            let path = scratch.path("file");
            let base = ["recv", &object.address, "--count", count, "--lines", "-v", "-o", path.to_str().unwrap()];
            let receiver = onecopy(base.iter().chain(more)).start();
            let mut sender = onecopy(["send", &object.address, "--lines"].iter().chain(more)).silent_input().start();
            std::io::Write::write_all(sender.stdin.as_mut().unwrap(), b"a\nbc\n").unwrap();
            let told = || String::from_utf8(receiver.stderr_so_far()).unwrap();
            eventually("both came", || told().lines().any(|line| line.starts_with("2 bytes")));
            receiver.signal("INT");
            let ended = receiver.end();
            assert_eq!(ended.status.code(), Some(130), "{mechanism}: {ended:?}");
            assert_eq!(std::fs::read(&path).unwrap(), b"a\nbc\n", "{mechanism} {more:?}: they are nowhere else");
            assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 1, "{mechanism}: nothing else is left");
        }
    }
}

#[test]
fn a_message_of_which_a_part_came_is_not_in_the_file() {
    let (scratch, object) = (Scratch::new(), Object::new("unix"));
    let path = scratch.path("file");
    let base = ["recv", &object.address, "--count", "0", "--frame", "-o", path.to_str().unwrap(), "--timeout", "60s"];
    let receiver = onecopy(base).start();
    let mut sender = onecopy(["send", &object.address, "--frame"]).silent_input().start();
    // More than a part, so that the message begins, and has no end.
    std::io::Write::write_all(sender.stdin.as_mut().unwrap(), &pattern(600_000, 1)).unwrap();
    let io = format!("/proc/{}/io", receiver.pid());
    eventually("it writes", || {
        let io = std::fs::read_to_string(&io).unwrap_or_default();
        let count = io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok());
        count.unwrap_or(0) > 100_000
    });
    receiver.signal("INT");
    assert_eq!(receiver.end().status.code(), Some(130));
    assert!(!path.exists(), "no message came whole");
}

#[test]
fn a_file_stays_where_no_message_came() {
    let (scratch, queue) = (Scratch::new(), Object::new("mq"));
    let path = scratch.path("file");
    std::fs::write(&path, "before").unwrap();
    let recv = ["recv", &queue.address, "--count", "0", "-o", path.to_str().unwrap(), "--timeout", "50ms"];
    onecopy(recv).end().fails(124, &format!("receive on {} timed out", queue.address));
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
}

#[test]
fn devices_and_pipes_are_written_directly() {
    let queue = Object::new("mq");
    onecopy(["send", &queue.address]).input("gone").end().succeeds();
    onecopy(["recv", &queue.address, "-o", "/dev/null"]).end().succeeds();
    onecopy(["send", &queue.address]).input("full").end().succeeds();
    onecopy(["recv", &queue.address, "-o", "/dev/full"])
        .end()
        .fails(1, "cannot write /dev/full: No space left on device");
}

#[test]
fn stdout_is_written_where_it_is_by_its_path_too() {
    for path in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let (scratch, queue) = (Scratch::new(), Object::new("mq"));
        onecopy(["send", &queue.address]).input("through\n").end().succeeds();
        let (bin, file) = (env!("CARGO_BIN_EXE_onecopy"), scratch.path("file"));
        let script = r#"(echo before; "$1" recv "$2" -o "$3"; echo after) >> "$4""#;
        program("sh", ["-c", script, "sh", bin, &queue.address, path, file.to_str().unwrap()]).end().succeeds();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "before\nthrough\nafter\n", "{path}");
    }
}

#[test]
fn a_fifo_whose_other_side_does_not_come_times_out() {
    let (scratch, queue) = (Scratch::new(), Object::new("mq"));
    let fifo = scratch.path("fifo");
    program("mkfifo", [&fifo]).end().succeeds();
    for verb in [["recv", "-o"], ["send", "-i"]] {
        let arguments = [verb[0], &queue.address, verb[1], fifo.to_str().unwrap(), "--timeout", "50ms"];
        onecopy(arguments).end().fails_with(124, &[fifo.to_str().unwrap(), "timed out"]);
    }
    // One that comes.
    onecopy(["send", &queue.address]).input("through").end().succeeds();
    let reader = program("cat", [&fifo]).start();
    onecopy(["recv", &queue.address, "-o", fifo.to_str().unwrap(), "--timeout", "20s"]).end().succeeds();
    assert_eq!(reader.end().succeeds(), b"through");
}

#[test]
fn an_input_that_is_shortened_meanwhile_is_an_error() {
    let (scratch, queue) = (Scratch::new(), Object::new("mq"));
    let path = scratch.path("input");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(20 << 20).unwrap();
    // It fills the queue.
    let sender = onecopy(["send", &queue.address, "--frame", "-i", path.to_str().unwrap()]).start();
    sender.wait_until_asleep();
    file.set_len(1000).unwrap();
    let receiver = onecopy(["recv", &queue.address, "--frame", "-o", "/dev/null", "--timeout", "20s"]).end();
    sender.end().fails_with(1, &["was shortened from 20971520 to 1000 bytes"]);
    receiver.fails_with(1, &["went after"]);
}

/// Runs `onecopy` by a shell, with `closed` behind its arguments.
fn without(closed: &str, arguments: &[&str]) -> Ended {
    let command = format!("exec \"$@\" {closed}");
    let words = ["-c", &command, "sh", env!("CARGO_BIN_EXE_onecopy")];
    program("sh", words.iter().chain(arguments)).end()
}

#[test]
fn a_receiver_without_stdout_takes_nothing() {
    let queue = Object::new("mq");
    onecopy(["send", &queue.address]).input("stays").end().succeeds();
    without(">&-", &["recv", &queue.address]).fails(1, "cannot write stdout: it is closed");
    without(">&-", &["recv", &queue.address, "-o", "-"]).fails(1, "cannot write stdout: it is closed");
    without(">&-", &["recv", &queue.address, "-o", "/dev/stdout"]).fails_with(1, &["/dev/stdout"]);
    without("1</dev/null", &["recv", &queue.address]).fails(1, "cannot write stdout: Bad file descriptor");
    assert_eq!(onecopy(["recv", &queue.address]).end().succeeds(), b"stays");
    for arguments in [&["ls"][..], &["--help"], &["explain"], &["doctor", "--json"]] {
        without(">&-", arguments).fails(1, "cannot write stdout: it is closed");
    }
}

#[test]
fn a_sender_without_stdin_sends_nothing() {
    let queue = Object::new("mq");
    without("<&-", &["send", &queue.address]).fails(1, "cannot read stdin: it is closed");
    without("<&- >&-", &["send", &queue.address, "-i", "-"]).fails(1, "cannot read stdin: it is closed");
    without("<&-", &["send", &queue.address, "-i", "/dev/stdin"]).fails_with(1, &["/dev/stdin"]);
    onecopy(["recv", &queue.address, "--timeout", "10ms"]).end().fails_with(124, &[&queue.address]);
    let scratch = Scratch::new();
    std::fs::write(scratch.path("file"), "there").unwrap();
    let arguments = ["send", &queue.address, "-i", scratch.path("file").to_str().unwrap()].map(str::to_owned);
    without("<&- >&-", &arguments.each_ref().map(String::as_str)).succeeds();
    assert_eq!(onecopy(["recv", &queue.address]).end().succeeds(), b"there", "which needs neither");
}

#[test]
fn a_reader_that_has_gone_loses_no_message_without_an_error() {
    let queue = Object::new("mq");
    onecopy(["send", &queue.address, "--lines"]).input("first\nsecond\n").end().succeeds();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = onecopy(["recv", &queue.address])
        .with(|command| {
            command.stdout(writer);
        })
        .end();
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), ""), "a quiet end: the message stays where it is");
    assert_eq!(onecopy(["recv", &queue.address]).end().succeeds(), b"first");
    // One that goes while it is waited for a message.
    onecopy(["recv", &queue.address]).end().succeeds();
    let (reader, writer) = std::io::pipe().unwrap();
    let receiver = onecopy(["recv", &queue.address])
        .with(|command| {
            command.stdout(writer);
        })
        .start();
    receiver.wait_until_asleep();
    drop(reader);
    onecopy(["send", &queue.address]).input("lost").end().succeeds();
    receiver.end().fails(1, "cannot write stdout: Broken pipe");
}

#[test]
fn a_full_stdout_is_an_error() {
    let queue = Object::new("mq");
    onecopy(["send", &queue.address]).input("lost").end().succeeds();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    onecopy(["recv", &queue.address])
        .with(|command| {
            command.stdout(full);
        })
        .end()
        .fails(1, "cannot write stdout: No space left on device");
}

#[test]
fn a_dash_is_stdin_and_stdout() {
    let (scratch, queue) = (Scratch::new(), Object::new("mq"));
    let there = |command: &mut std::process::Command| {
        command.current_dir(scratch.root());
    };
    onecopy(["send", &queue.address, "-i", "-"]).with(there).input("through").end().succeeds();
    assert_eq!(onecopy(["recv", &queue.address, "-o", "-"]).with(there).end().succeeds(), b"through");
    assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 0);
}

#[test]
fn input_comes_from_a_file_too() {
    let scratch = Scratch::new();
    let path = scratch.path("input");
    let bytes = pattern(5000, 2);
    std::fs::write(&path, &bytes).unwrap();
    let queue = Object::new("mq");
    onecopy(["send", &queue.address, "-i", path.to_str().unwrap()]).end().succeeds();
    assert!(onecopy(["recv", &queue.address]).end().succeeds() == bytes);
    onecopy(["send", &queue.address, "-i", "/proc/sys/kernel/ostype"]).end().succeeds();
    assert_eq!(onecopy(["recv", &queue.address]).end().succeeds(), b"Linux\n", "a file that says it is empty");
}

#[test]
fn a_file_that_is_too_long_is_refused_before_it_is_read() {
    let (scratch, region) = (Scratch::new(), Object::new("shm"));
    let path = scratch.path("input");
    std::fs::File::create(&path).unwrap().set_len((1 << 30) + 1).unwrap();
    let command = format!("ulimit -v 500000; exec {} send {} -i \"$1\"", env!("CARGO_BIN_EXE_onecopy"), region.address);
    let sender = program("sh", ["-c", &command, "sh", path.to_str().unwrap()]);
    let receiver = onecopy(["recv", &region.address]).start();
    sender.end().fails_with(1, &["1073741825 bytes does not fit", "limit is 1073741824 bytes"]);
    drop(receiver);
}

#[test]
fn an_output_beyond_the_limit_of_files_is_an_error() {
    let (scratch, queue) = (Scratch::new(), Object::new("mq"));
    let path = scratch.path("file");
    onecopy(["send", &queue.address, "--frame"]).input(vec![7; 20_000]).end().succeeds();
    let command =
        format!("ulimit -f 8; exec {} recv {} --frame -o \"$1\"", env!("CARGO_BIN_EXE_onecopy"), queue.address);
    let receiver = program("sh", ["-c", &command, "sh", path.to_str().unwrap()]);
    receiver.end().fails_with(1, &["cannot write", "File too large", "`ulimit -f`"]);
    assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 0);
}
