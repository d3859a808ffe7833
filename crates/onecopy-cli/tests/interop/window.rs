//! Programs that take the token of a window as text: Python's posix_ipc from a queue, socat from a socket, cat from a FIFO.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Cleanup, Running, Scratch, eventually, onecopy, program, python, skip, unique, watchdog};

const BYTES: &[u8] = b"the bytes behind the token";

fn expose(scratch: &Scratch, via: &str) -> Running {
    let path: PathBuf = scratch.path("file");
    std::fs::write(&path, BYTES).unwrap();
    onecopy(["expose", path.to_str().unwrap(), "--via", via]).start()
}

/// What the program printed is a token, alone on its line or without one, that opens the window.
#[track_caller]
fn is_token(printed: &[u8]) {
    let text = String::from_utf8(printed.to_vec()).unwrap();
    assert!(text.starts_with("window:") && text.lines().count() == 1, "{text}");
    assert_eq!(onecopy(["fetch", text.trim_end()]).end().succeeds(), BYTES);
}

#[test]
fn posix_ipc_takes_it_from_a_queue() {
    let Some(mut python) = python("posix_ipc_takes_it_from_a_queue", &["posix_ipc"]) else { return };
    let name = format!("/{}", unique("window"));
    let address = format!("mq:{name}");
    let _cleanup = Cleanup::new(&address);
    let scratch = Scratch::new();
    onecopy(["create", &address]).end().succeeds();
    let _exposer = expose(&scratch, &address);
    let script =
        "import posix_ipc, sys\nq = posix_ipc.MessageQueue(sys.argv[1])\nprint(q.receive(60)[0].decode(), end='')";
    let output = python.args(["-c", script, &name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.stdout.ends_with(b"\n"), "a message needs no end of line");
    is_token(&output.stdout);
}

#[test]
fn socat_takes_it_from_a_socket() {
    let _watchdog = watchdog(Duration::from_secs(100));
    if std::process::Command::new("socat").arg("-V").output().is_err() {
        return skip("socat_takes_it_from_a_socket", "no socat");
    }
    let scratch = Scratch::new();
    let socket = scratch.path("s");
    let _exposer = expose(&scratch, &format!("unix:{}", socket.display()));
    eventually("it listens", || socket.exists());
    let from = format!("UNIX-CONNECT:{}", socket.display());
    // Whose stdin is at its end: it shuts the direction down, and that ends the connection.
    for _ in 0..3 {
        let ended = program("socat", [&from, "-"]).end();
        assert!(ended.status.success(), "{ended:?}");
        is_token(&ended.stdout);
    }
}

#[test]
fn cat_takes_it_from_a_fifo_again_and_again() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let fifo = scratch.path("f");
    let _exposer = expose(&scratch, &format!("fifo:{}", fifo.display()));
    eventually("it is there", || fifo.exists());
    for _ in 0..5 {
        is_token(&program("cat", [&fifo]).end().succeeds());
    }
    // Who reads a line, as a shell does.
    let script = format!("read token <{}; echo $token", fifo.display());
    is_token(&program("sh", ["-c", &script]).end().succeeds());
}
