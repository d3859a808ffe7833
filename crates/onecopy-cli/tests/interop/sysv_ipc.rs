//! Python's sysv_ipc: System V queues and shared memory by key.

use crate::support::{Cleanup, key, onecopy, pattern, python};

/// Runs a script with arguments, and returns what it printed.
#[track_caller]
fn run(mut python: std::process::Command, script: &str, arguments: &[&str]) -> Vec<u8> {
    let output = python.args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn its_messages_come_to_us_by_type() {
    let Some(python) = python("its_messages_come_to_us_by_type", &["sysv_ipc"]) else { return };
    let key = key();
    let address = format!("sysv-mq:{key}");
    let _cleanup = Cleanup::new(&address);
    let script = "import sysv_ipc, sys\nq = sysv_ipc.MessageQueue(int(sys.argv[1]), sysv_ipc.IPC_CREX, mode=0o600)\n\
                  q.send(b'of type 5', type=5)\nq.send(bytes(range(256)), type=2)";
    run(python, script, &[&key.to_string()]);
    let second = onecopy(["recv", &address, "--type", "2", "--verbose"]).end();
    assert_eq!((second.stdout, second.stderr.as_str()), ((0..=255).collect(), "256 bytes, type 2\n"));
    assert_eq!(onecopy(["recv", &address]).end().succeeds(), b"of type 5");
}

#[test]
fn our_messages_go_to_it_by_type() {
    let Some(python) = python("our_messages_go_to_it_by_type", &["sysv_ipc"]) else { return };
    let key = key();
    let address = format!("sysv-mq:{key:#x}");
    let _cleanup = Cleanup::new(&address);
    onecopy(["send", &address, "--type", "9"]).input("of type 9").end().succeeds();
    onecopy(["send", &address, "--type", "4"]).input((0..=255).collect::<Vec<u8>>()).end().succeeds();
    let script = "import sysv_ipc, sys\nq = sysv_ipc.MessageQueue(int(sys.argv[1]))\n\
                  assert q.receive(type=4) == (bytes(range(256)), 4)\nassert q.receive() == (b'of type 9', 9)";
    run(python, script, &[&key.to_string()]);
}

#[test]
fn shared_memory_is_the_same_segment() {
    let Some(interpreter) = python("shared_memory_is_the_same_segment", &["sysv_ipc"]) else { return };
    let key = key();
    let address = format!("sysv-shm:{key:#x}");
    let _cleanup = Cleanup::new(&address);
    let bytes = pattern(70_000, 1);
    onecopy(["write", &address, "--create", "128K", "--offset", "100"]).input(bytes.clone()).end().succeeds();
    let script = "import sysv_ipc, sys\nm = sysv_ipc.SharedMemory(int(sys.argv[1]))\nassert m.size == 131072\n\
                  sys.stdout.buffer.write(m.read(70000, 100))\nm.write(b'python', 0)";
    assert!(run(interpreter, script, &[&key.to_string()]) == bytes);
    assert_eq!(onecopy(["read", &address, "--len", "6"]).end().succeeds(), b"python");
}
