//! What `send` takes, `recv` gives: over every mechanism, at sizes around the edges.

use crate::mechanisms::{MESSAGES, Object, STREAMS, is_available};
use crate::support::{Ended, Running, Scratch, onecopy, pattern, watchdog};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(280);

/// Starts a receiver, and gives the address that a sender uses.
fn receive(object: &Object, more: &[&str]) -> (Running, String) {
    let base = ["recv", &object.address, "--timeout", "60s"];
    let receiver = onecopy(base.iter().chain(more).chain(object.has_port().then_some(&"--verbose"))).start();
    let address = if object.has_port() { receiver.listening_address() } else { object.address.clone() };
    (receiver, address)
}

/// Its stdout, when it succeeded; `--verbose` may have told on stderr where it listened.
#[track_caller]
fn stdout_of(ended: Ended) -> Vec<u8> {
    assert!(ended.status.success(), "{ended:?}");
    ended.stdout
}

fn transfer(mechanism: &str, bytes: &[u8], more: &[&str]) {
    let object = Object::new(mechanism);
    let (receiver, address) = receive(&object, more);
    onecopy(["send", &address, "--timeout", "60s"].iter().chain(more)).input(bytes).end().succeeds();
    let received = stdout_of(receiver.end());
    assert!(received == bytes, "{mechanism} {more:?}: {} bytes came of {}", received.len(), bytes.len());
}

#[test]
fn raw_bytes_over_every_stream() {
    let _watchdog = watchdog(LIMIT);
    for mechanism in STREAMS.into_iter().filter(|stream| is_available("raw_bytes_over_every_stream", stream)) {
        for size in [0, 1, 8192, 1 << 20] {
            transfer(mechanism, &pattern(size, 1), &[]);
        }
    }
}

#[test]
fn one_message_over_every_message_mechanism() {
    let _watchdog = watchdog(LIMIT);
    for mechanism in MESSAGES {
        for size in [0, 1, 8192] {
            transfer(mechanism, &pattern(size, 2), &[]);
        }
    }
}

#[test]
fn a_datagram_over_udp() {
    let _watchdog = watchdog(LIMIT);
    for size in [0, 1, 8192, 65_507] {
        transfer("udp", &pattern(size, 3), &[]);
    }
}

#[test]
fn a_framed_message_of_any_size_over_every_mechanism() {
    let _watchdog = watchdog(LIMIT);
    let test = "a_framed_message_of_any_size_over_every_mechanism";
    for mechanism in STREAMS.into_iter().chain(MESSAGES).filter(|mechanism| is_available(test, mechanism)) {
        for size in [0, 1, 8192, 1 << 20] {
            transfer(mechanism, &pattern(size, 4), &["--frame"]);
        }
    }
}

#[test]
fn sixty_four_mebibytes_in_one_framed_message() {
    let _watchdog = watchdog(LIMIT);
    let test = "sixty_four_mebibytes_in_one_framed_message";
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    let bytes = pattern(64 << 20, 5);
    std::fs::write(&source, &bytes).unwrap();
    for mechanism in STREAMS.into_iter().chain(MESSAGES).filter(|mechanism| is_available(test, mechanism)) {
        let object = Object::new(mechanism);
        let (receiver, address) = receive(&object, &["--frame", "-o", copy.to_str().unwrap()]);
        let options = ["--frame", "--timeout", "60s", "-i", source.to_str().unwrap()];
        onecopy(["send", &address].iter().chain(&options)).end().succeeds();
        stdout_of(receiver.end());
        assert!(std::fs::read(&copy).unwrap() == bytes, "{mechanism}");
        std::fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn lines_are_messages() {
    let _watchdog = watchdog(LIMIT);
    for mechanism in MESSAGES {
        let object = Object::new(mechanism);
        let (receiver, address) = receive(&object, &["--lines", "--count", "4"]);
        let text = "one\n\n three\nlast without an end";
        onecopy(["send", &address, "--lines", "--timeout", "60s"]).input(text).end().succeeds();
        assert_eq!(String::from_utf8(stdout_of(receiver.end())).unwrap(), format!("{text}\n"), "{mechanism}");
    }
}

#[test]
fn one_object_serves_transfer_after_transfer() {
    let _watchdog = watchdog(LIMIT);
    for mechanism in STREAMS.into_iter().chain(MESSAGES).filter(|mechanism| is_available("transfers", mechanism)) {
        let object = Object::new(mechanism);
        for text in ["first", "", "third"] {
            let (receiver, address) = receive(&object, &[]);
            // The receiver is there before the sender, and so cannot miss that the sender before that one is gone.
            receiver.wait_until_asleep();
            onecopy(["send", &address, "--timeout", "60s"]).input(text).end().succeeds();
            assert_eq!(String::from_utf8(stdout_of(receiver.end())).unwrap(), text, "{mechanism}");
        }
    }
}

#[test]
fn a_receiver_that_has_all_its_lines_may_leave_before_the_sender_ends() {
    let _watchdog = watchdog(LIMIT);
    for mechanism in MESSAGES {
        let object = Object::new(mechanism);
        let (receiver, address) = receive(&object, &["--frame", "--lines", "--count", "2"]);
        let mut sender = onecopy(["send", &address, "--frame", "--lines", "--timeout", "60s"]).silent_input().start();
        std::io::Write::write_all(sender.stdin.as_mut().unwrap(), b"a\nb\n").unwrap();
        assert_eq!(stdout_of(receiver.end()), b"a\nb\n", "{mechanism}");
        // As long as a sender may take to look for its receiver again.
        std::thread::sleep(std::time::Duration::from_millis(250));
        sender.end().succeeds();
    }
}

#[test]
fn framed_lines_are_messages_over_streams_and_end_with_them() {
    let _watchdog = watchdog(LIMIT);
    for mechanism in STREAMS.into_iter().filter(|stream| is_available("framed_lines", stream)) {
        let object = Object::new(mechanism);
        let (receiver, address) = receive(&object, &["--frame", "--lines", "--count", "0"]);
        onecopy(["send", &address, "--frame", "--lines", "--timeout", "60s"]).input("a\n\nccc\n").end().succeeds();
        assert_eq!(stdout_of(receiver.end()), b"a\n\nccc\n", "{mechanism}");
    }
}

#[test]
fn the_roles_can_be_turned_round() {
    let _watchdog = watchdog(LIMIT);
    for mechanism in ["pty", "unix", "unix-seqpacket", "tcp"] {
        let object = Object::new(mechanism);
        let bytes = pattern(8192, 6);
        let sender = onecopy(["send", &object.address, "--listen", "--verbose", "--timeout", "60s"]);
        let sender = sender.input(bytes.clone()).start();
        let address = sender.listening_address();
        let received = onecopy(["recv", &address, "--connect", "--timeout", "60s"]).end().succeeds();
        assert!(received == bytes, "{mechanism}");
        let ended = sender.end();
        assert!(ended.status.success(), "{mechanism}: {ended:?}");
    }
}

#[test]
fn priorities_come_highest_first_and_are_told() {
    let object = Object::new("mq");
    for (text, priority) in [("low", "0"), ("high", "32767"), ("middle", "9")] {
        onecopy(["send", &object.address, "--priority", priority]).input(text).end().succeeds();
    }
    let ended = onecopy(["recv", &object.address, "--count", "3", "--lines", "--verbose"]).end();
    assert_eq!(ended.stdout, b"high\nmiddle\nlow\n");
    assert_eq!(ended.stderr, "4 bytes, priority 32767\n6 bytes, priority 9\n3 bytes, priority 0\n");
}

#[test]
fn types_are_selected_and_told() {
    let object = Object::new("sysv-mq");
    for message_type in ["5", "3", "7", "3"] {
        onecopy(["send", &object.address, "--type", message_type]).input(format!("of {message_type}")).end().succeeds();
    }
    let select = |selection: &str| {
        let ended = onecopy(["recv", &object.address, "--type", selection, "--verbose", "--timeout", "10s"]).end();
        (String::from_utf8(ended.stdout).unwrap(), ended.stderr)
    };
    assert_eq!(select("7"), ("of 7".into(), "4 bytes, type 7\n".into()));
    assert_eq!(select("-5"), ("of 3".into(), "4 bytes, type 3\n".into()));
    assert_eq!(select("^3"), ("of 5".into(), "4 bytes, type 5\n".into()));
    assert_eq!(select("0"), ("of 3".into(), "4 bytes, type 3\n".into()));
}

#[test]
fn an_inherited_pipe_is_an_address() {
    let script = format!("printf inherited | {} recv fd:0", env!("CARGO_BIN_EXE_onecopy"));
    assert_eq!(crate::support::program("sh", ["-c", &script]).end().succeeds(), b"inherited");
    let script = format!("{} send fd:9 9>&1 </etc/hostname | cat", env!("CARGO_BIN_EXE_onecopy"));
    let hostname = std::fs::read("/etc/hostname").unwrap();
    assert_eq!(crate::support::program("sh", ["-c", &script]).end().succeeds(), hostname);
}

#[test]
fn inherited_sockets_are_addresses_by_their_type() {
    let test = "inherited_sockets_are_addresses_by_their_type";
    let Some(mut python) = crate::support::python(test, &[]) else { return };
    let script = "import socket, subprocess, sys\n\
                  for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):\n    \
                      one, other = socket.socketpair(socket.AF_UNIX, kind)\n    \
                      def run(verb, fd, **more):\n        \
                          return subprocess.run([sys.argv[1], verb, f'fd:{fd.fileno()}', '--timeout', '30s'],\n            \
                              pass_fds=[fd.fileno()], check=True, **more)\n    \
                      run('send', one, input=b'over ' + kind.name.encode())\n    \
                      one.shutdown(socket.SHUT_WR)\n    \
                      print(run('recv', other, capture_output=True).stdout)\n    \
                      assert one.getblocking() and other.getblocking()\n";
    let output = python.args(["-c", script, env!("CARGO_BIN_EXE_onecopy")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = "b'over SOCK_STREAM'\nb'over SOCK_DGRAM'\nb'over SOCK_SEQPACKET'\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), lines);
}

#[test]
fn sctp_works_where_the_kernel_has_it_and_says_so_elsewhere() {
    let _watchdog = watchdog(LIMIT);
    let tried = onecopy(["recv", "sctp:127.0.0.1:0", "--timeout", "1ms"]).end();
    if tried.status.code() == Some(124) {
        transfer("sctp", &pattern(8192, 7), &[]);
        transfer("sctp", &pattern(1 << 20, 8), &["--frame"]);
        return;
    }
    tried.fails_with(1, &["sctp:127.0.0.1:0", "no SCTP"]);
}
