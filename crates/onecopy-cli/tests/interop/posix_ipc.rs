//! Python's posix_ipc: message queues and shared memory of the C library's names.

use crate::support::{Cleanup, onecopy, pattern, python, unique};

/// Runs a script with arguments, and returns what it printed.
#[track_caller]
fn run(mut python: std::process::Command, script: &str, arguments: &[&str]) -> Vec<u8> {
    let output = python.args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn its_messages_come_to_us_by_priority() {
    let Some(python) = python("its_messages_come_to_us_by_priority", &["posix_ipc"]) else { return };
    let name = format!("/{}", unique("posix-ipc"));
    let address = format!("mq:{name}");
    let _cleanup = Cleanup::new(&address);
    let script = "import posix_ipc, sys\nq = posix_ipc.MessageQueue(sys.argv[1], posix_ipc.O_CREX, mode=0o600)\n\
                  q.send(b'low', priority=1)\nq.send(bytes(range(256)), priority=7)\nq.close()";
    run(python, script, &[&name]);
    let all: Vec<u8> = (0..=255).collect();
    let first = onecopy(["recv", &address, "--verbose"]).end();
    assert_eq!((first.stdout, first.stderr.as_str()), (all, "256 bytes, priority 7\n"));
    assert_eq!(onecopy(["recv", &address]).end().succeeds(), b"low");
}

#[test]
fn our_messages_go_to_it_by_priority() {
    let Some(python) = python("our_messages_go_to_it_by_priority", &["posix_ipc"]) else { return };
    let name = format!("/{}", unique("posix-ipc"));
    let address = format!("mq:{name}");
    let _cleanup = Cleanup::new(&address);
    onecopy(["create", &address, "--max-messages", "4", "--message-size", "1000"]).end().succeeds();
    onecopy(["send", &address, "--priority", "1"]).input("low").end().succeeds();
    onecopy(["send", &address, "--priority", "31"]).input((0..=255).collect::<Vec<u8>>()).end().succeeds();
    let script = "import posix_ipc, sys\nq = posix_ipc.MessageQueue(sys.argv[1])\n\
                  assert (q.max_messages, q.max_message_size) == (4, 1000)\n\
                  assert q.receive() == (bytes(range(256)), 31)\nassert q.receive() == (b'low', 1)";
    run(python, script, &[&name]);
}

#[test]
fn shared_memory_is_the_same_object() {
    let Some(interpreter) = python("shared_memory_is_the_same_object", &["posix_ipc"]) else { return };
    let name = format!("/{}", unique("posix-ipc"));
    let address = format!("shm:{name}");
    let _cleanup = Cleanup::new(&address);
    let bytes = pattern(70_000, 1);
    onecopy(["write", &address, "--create", "128K", "--offset", "100"]).input(bytes.clone()).end().succeeds();
    let script = "import posix_ipc, sys, mmap\nm = posix_ipc.SharedMemory(sys.argv[1])\n\
                  v = mmap.mmap(m.fd, m.size)\nassert m.size == 131072\nsys.stdout.buffer.write(v[100:70100])\n\
                  v[0:6] = b'python'";
    assert!(run(interpreter, script, &[&name]) == bytes);
    assert_eq!(onecopy(["read", &address, "--len", "6"]).end().succeeds(), b"python");
}
