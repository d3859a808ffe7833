//! `expose` and `fetch`: a token over every mechanism, and the bytes by cross-memory attach.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::mechanisms::Object;
use crate::support::{Running, Scratch, eventually, onecopy, pattern, program, skip, watchdog};

const LARGE: usize = 64 << 20;
/// Where a token travels alone, beside unix:.
const WAYS: [&str; 10] =
    ["fifo", "unix", "unix-abstract", "mq", "sysv-mq", "shm", "sysv-shm", "mmap", "unix-dgram", "unix-seqpacket"];

/// A file with `bytes`.
pub(crate) fn file(scratch: &Scratch, bytes: &[u8]) -> PathBuf {
    let path = scratch.path("exposed");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A file of a length that nobody fetches before the test has looked, and that takes no room.
pub(crate) fn endless(scratch: &Scratch) -> PathBuf {
    let path = scratch.path("endless");
    std::fs::File::create(&path).unwrap().set_len(4 << 30).unwrap();
    path
}

/// An exposer that has printed its token, and that.
pub(crate) fn exposer(path: &Path) -> (Running, String) {
    let exposer = onecopy([Path::new("expose"), path]).start();
    let mut token = String::new();
    eventually("the token is printed", || {
        token = String::from_utf8(exposer.stdout_so_far()).unwrap();
        token.ends_with('\n')
    });
    assert_eq!(token.lines().count(), 1, "{token}");
    (exposer, token.trim_end().to_owned())
}

pub(crate) fn expose_via(path: &Path, address: &str) -> Running {
    onecopy(["expose", path.to_str().unwrap(), "--via", address]).start()
}

fn fetch_via(address: &str, output: &Path) -> Running {
    onecopy(["fetch", "--via", address, "--timeout", "60s", "-o", output.to_str().unwrap()]).start()
}

#[track_caller]
fn is_equal(one: &Path, other: &Path, what: &str) {
    let sum = |path| Sha256::digest(std::fs::read(path).unwrap());
    assert_eq!(sum(one), sum(other), "{what}");
}

#[test]
fn a_printed_token_moves_64_mib() {
    let scratch = Scratch::new();
    let source = file(&scratch, &pattern(LARGE, 1));
    let output = scratch.path("output");
    let (exposer, token) = exposer(&source);
    onecopy(["fetch", &token, "-o", output.to_str().unwrap()]).end().succeeds();
    is_equal(&source, &output, "to a file");
    let told = onecopy(["fetch", &token, "--verbose"]).end();
    assert_eq!(told.stderr, "onecopy: 67108864 bytes by cross-memory attach\n");
    assert_eq!(Sha256::digest(told.stdout), Sha256::digest(std::fs::read(&source).unwrap()));
    exposer.signal("INT");
    assert_eq!(exposer.end().status.code(), Some(130));
}

#[test]
fn a_token_over_each_mechanism_moves_64_mib_whoever_comes_first() {
    let _watchdog = watchdog(Duration::from_secs(250));
    let scratch = Scratch::new();
    let source = file(&scratch, &pattern(LARGE, 2));
    for mechanism in WAYS {
        for exposer_first in [true, false] {
            let what = format!("{mechanism}, exposer first: {exposer_first}");
            let object = Object::new(mechanism);
            let output = scratch.path("output");
            let (exposer, fetch) = if exposer_first {
                let exposer = expose_via(&source, &object.address);
                exposer.wait_until_asleep();
                (exposer, fetch_via(&object.address, &output))
            } else {
                let fetch = fetch_via(&object.address, &output);
                fetch.wait_until_asleep();
                (expose_via(&source, &object.address), fetch)
            };
            let ended = fetch.end();
            assert!(ended.status.success() && ended.stderr.is_empty(), "{what}: {ended:?}");
            is_equal(&source, &output, &what);
            exposer.signal("TERM");
            let ended = exposer.end();
            assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(143), ""), "{what}: {ended:?}");
            assert!(ended.stdout.is_empty(), "{what}: {ended:?}");
        }
    }
}

#[test]
fn each_reader_and_each_connection_gets_a_token() {
    let scratch = Scratch::new();
    let source = file(&scratch, b"for all");
    for mechanism in ["fifo", "unix", "unix-abstract", "unix-seqpacket", "unix-dgram", "pty", "channel"] {
        let object = Object::new(mechanism);
        let exposer = expose_via(&source, &object.address);
        for _ in 0..5 {
            let ended = onecopy(["fetch", "--via", &object.address, "--timeout", "60s"]).end();
            assert_eq!(ended.succeeds(), b"for all", "{mechanism}");
        }
        drop(exposer);
    }
    for mechanism in ["mq", "sysv-mq", "shm", "mmap"] {
        let object = Object::new(mechanism);
        let arguments = ["expose", source.to_str().unwrap(), "--via", &object.address, "--count", "3"];
        let exposer = onecopy(arguments).start();
        for _ in 0..3 {
            let ended = onecopy(["fetch", "--via", &object.address, "--timeout", "60s"]).end();
            assert_eq!(ended.succeeds(), b"for all", "{mechanism}");
        }
        onecopy(["fetch", "--via", &object.address, "--timeout", "100ms"]).end().fails_with(124, &["timed out"]);
        drop(exposer);
    }
}

#[test]
fn many_fetch_at_once() {
    let scratch = Scratch::new();
    let bytes = pattern(5 << 20, 3);
    let source = file(&scratch, &bytes);
    let object = Object::new("unix");
    let _exposer = expose_via(&source, &object.address);
    let fetches: Vec<_> = (0..8).map(|_| onecopy(["fetch", "--via", &object.address]).start()).collect();
    for fetch in fetches {
        assert!(fetch.end().succeeds() == bytes);
    }
}

#[test]
fn whatever_can_be_read_can_be_exposed() {
    let scratch = Scratch::new();
    let fetched = |exposer: &(Running, String)| onecopy(["fetch", &exposer.1]).end().succeeds();

    assert_eq!(fetched(&exposer(&file(&scratch, b""))), b"");
    assert_eq!(fetched(&exposer(&file(&scratch, b"x"))), b"x");
    // A length of 0 in stat(2), and bytes all the same.
    assert_eq!(fetched(&exposer(Path::new("/proc/version"))), std::fs::read("/proc/version").unwrap());

    let fifo = scratch.path("fifo");
    onecopy(["create", &format!("fifo:{}", fifo.display())]).end().succeeds();
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::write(fifo, pattern(300_000, 4)).unwrap()
    });
    assert!(fetched(&exposer(&fifo)) == pattern(300_000, 4));
    writer.join().unwrap();

    let object = Object::new("unix");
    let _exposer = onecopy(["expose", "-", "--via", &object.address]).input(pattern(300_000, 5)).start();
    assert!(onecopy(["fetch", "--via", &object.address, "--timeout", "60s"]).end().succeeds() == pattern(300_000, 5));
}

#[test]
fn what_cannot_be_read_is_refused_before_anything_is_made() {
    let scratch = Scratch::new();
    let socket = scratch.path("socket");
    let via = format!("unix:{}", socket.display());
    onecopy(["expose", scratch.root().to_str().unwrap(), "--via", &via]).end().fails_with(1, &["it is a directory"]);
    let missing = scratch.path("missing");
    onecopy(["expose", missing.to_str().unwrap(), "--via", &via]).end().fails_with(1, &["No such file"]);
    assert!(!socket.exists());
}

#[test]
fn wrong_usage() {
    let token = exposer(Path::new("/proc/version")).1;
    let cases: &[(&[&str], &str)] = &[
        (&["fetch"], "fetch needs the TOKEN that `onecopy expose` prints, or --via ADDRESS"),
        (&["fetch", "x"], "a window's token: it begins with `window:`, as `onecopy expose` prints it"),
        (
            &["fetch", &token, "--via", "mq:/x"],
            "the argument '[TOKEN]' cannot be used with '--via <ADDRESS>' (see onecopy fetch --help)",
        ),
        (
            &["fetch", "--via", "sem:/x"],
            "fetch does not fit sem:/x, which moves no data: its verbs are post, wait and lock",
        ),
        (
            &["expose", "/proc/version", "--via", "mem:1:0x1000+1"],
            "expose does not fit mem:1:0x1000+1, which is the memory of a process: use `onecopy read` or `onecopy write`",
        ),
        (
            &["expose", "/proc/version", "--via", "fifo:/x", "--count", "2"],
            "--count does not fit fifo:/x, where each reader gets a token",
        ),
        (
            &["expose", "/proc/version", "--count", "2"],
            "the following required arguments were not provided: --via <ADDRESS> (see onecopy expose --help)",
        ),
    ];
    for (arguments, line) in cases {
        onecopy(*arguments).end().fails(2, line);
    }
    for at in [8, token.len() / 2, token.len() - 1] {
        let mut changed = token.clone();
        let other = if &changed[at..=at] == "1" { "2" } else { "1" };
        changed.replace_range(at..=at, other);
        onecopy(["fetch", &changed]).end().fails_with(2, &["a window's token: "]);
        onecopy(["fetch", &token[..at]]).end().fails_with(2, &["a window's token: "]);
    }
}

#[test]
fn a_token_of_a_process_that_is_gone_says_what_to_do() {
    let scratch = Scratch::new();
    let (mut exposer, token) = exposer(&file(&scratch, b"gone"));
    exposer.kill();
    let output = scratch.path("output");
    onecopy(["fetch", &token, "-o", output.to_str().unwrap()])
        .end()
        .fails_with(1, &["expose it again and fetch with the new token"]);
    assert!(!output.exists());
    let queue = Object::new("mq");
    onecopy(["send", &queue.address]).input(token).end().succeeds();
    onecopy(["fetch", "--via", &queue.address]).end().fails_with(1, &["expose it again and fetch with the new token"]);
}

#[test]
fn what_is_no_token_is_named() {
    for (mechanism, message, words) in [
        ("mq", "hello".to_owned(), "brought no token: a window's token: it begins with `window:`"),
        ("sysv-mq", "\u{fe}".repeat(600), "brought no token"),
        ("shm", "x".repeat(100_000), "brought a message of 100000 bytes, which is no token"),
    ] {
        let object = Object::new(mechanism);
        let sender = onecopy(["send", &object.address]).input(message).start();
        onecopy(["fetch", "--via", &object.address]).end().fails_with(1, &[&object.address, words]);
        drop(sender);
    }
    for (said, words) in [
        (&b"hello\n"[..], "sent no token"),
        (b"", "closed without a token"),
        (b"\xff\n", "sent something else than text"),
        (&[b'x'; 2000], "sent a line of more than 512 bytes"),
        (b"failed for a reason\n", "shares nothing: for a reason"),
    ] {
        let scratch = Scratch::new();
        let listener = UnixListener::bind(scratch.path("s")).unwrap();
        let via = format!("unix:{}", scratch.path("s").display());
        let fetch = onecopy(["fetch", "--via", &via]).start();
        drop(listener.accept().unwrap().0.write_all(said));
        fetch.end().fails_with(1, &[&via, words]);
    }
}

#[test]
fn nobody_exposes_within_the_time() {
    for mechanism in WAYS {
        let object = Object::new(mechanism);
        let ended = onecopy(["fetch", "--via", &object.address, "--timeout", "100ms"]).end();
        ended.fails_with(124, &["timed out"]);
    }
    let missing = Object::new("mq");
    onecopy(["fetch", "--via", &missing.address, "--no-create"])
        .end()
        .fails_with(1, &["--no-create forbids creating it"]);
}

#[test]
fn an_exposer_that_is_killed_in_the_middle_is_an_error_and_leaves_no_half_file() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let (mut exposer, token) = exposer(&endless(&scratch));
    let output = scratch.path("output");
    let fetch = onecopy(["fetch", &token, "-o", output.to_str().unwrap()]).start();
    fetch.stop_in_the_middle();
    exposer.kill();
    fetch.signal("CONT");
    fetch.end().fails_with(1, &["is gone", ", after ", " bytes"]);
    assert!(!output.exists());
}

#[test]
fn time_that_passes_in_the_middle_is_124() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let (_exposer, token) = exposer(&endless(&scratch));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let fetch = onecopy(["fetch", &token, "--timeout", "300ms"]).with(|command| {
        command.stdout(writer);
    });
    let fetch = fetch.start();
    // Its first piece fills the pipe, and the rest waits until the time is over.
    std::thread::sleep(Duration::from_millis(300));
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    fetch.end().fails_with(124, &["fetch timed out"]);
}

#[test]
fn a_file_that_is_shortened_is_an_error() {
    let scratch = Scratch::new();
    let source = file(&scratch, &pattern(100_000, 6));
    let (_exposer, token) = exposer(&source);
    let shorten = |len| std::fs::File::options().write(true).open(&source).unwrap().set_len(len).unwrap();
    // Within its last page, the rest of which can be read.
    shorten(99_999);
    let output = scratch.path("output");
    let words = ["99999 of 100000 bytes are left", "if its file was shortened meanwhile, expose it again"];
    onecopy(["fetch", &token, "-o", output.to_str().unwrap()]).end().fails_with(1, &words);
    assert!(!output.exists());
    shorten(10);
    let words = ["4096 of 100000 bytes were transferred", "if its file was shortened meanwhile, expose it again"];
    onecopy(["fetch", &token]).end().fails_with(1, &words);
}

#[test]
fn a_stream_for_which_there_is_no_memory_is_an_error_with_its_numbers() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let command = format!("ulimit -v 400000 && exec {} expose /dev/zero", env!("CARGO_BIN_EXE_onecopy"));
    program("sh", ["-c", &command]).end().fails_with(1, &["cannot read /dev/zero: no memory for ", "`ulimit -v`"]);
}

#[test]
fn an_interrupt_leaves_the_object_and_no_socket() {
    let scratch = Scratch::new();
    let source = file(&scratch, b"x");
    for (mechanism, stays) in [("unix", false), ("fifo", true), ("unix-seqpacket", false), ("mmap", true)] {
        let path = scratch.path(mechanism);
        let exposer = expose_via(&source, &format!("{mechanism}:{}", path.display()));
        eventually("it is there", || path.exists());
        exposer.wait_until_asleep();
        exposer.signal("INT");
        let ended = exposer.end();
        assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(130), ""), "{mechanism}: {ended:?}");
        assert_eq!(path.exists(), stays, "{mechanism}");
    }
}

#[test]
fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
    let object = Object::new("unix");
    let scratch = Scratch::new();
    let source = file(&scratch, b"second");
    let mut first = expose_via(&source, &object.address);
    first.wait_until_asleep();
    onecopy(["expose", source.to_str().unwrap(), "--via", &object.address])
        .end()
        .fails_with(1, &[&object.address, "Address already in use"]);
    first.kill();
    let _second = expose_via(&source, &object.address);
    // Until then the file is that of the dead one, where nobody listens: that is waited for, too.
    let ended = onecopy(["fetch", "--via", &object.address, "--timeout", "60s"]).end();
    assert_eq!(ended.succeeds(), b"second");
}

#[test]
fn connections_that_ask_for_nothing_keep_nobody_from_the_token() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let source = file(&scratch, b"for the patient");
    let object = Object::new("unix");
    let _exposer = expose_via(&source, &object.address);
    let path = &object.address["unix:".len()..];
    eventually("it listens", || UnixStream::connect(path).is_ok());
    let idle: Vec<_> = (0..100).map(|_| UnixStream::connect(path).unwrap()).collect();
    for stream in &idle[..99] {
        let mut token = String::new();
        BufReader::new(stream).read_line(&mut token).unwrap();
        assert!(token.starts_with("window:") && token.ends_with('\n'), "{token}");
    }
    assert_eq!(onecopy(["fetch", "--via", &object.address]).end().succeeds(), b"for the patient");
    // More than it serves at once are told so.
    let mut last = String::new();
    (&idle[99]).read_to_string(&mut last).unwrap();
    let (token, refusal) = last.split_once('\n').unwrap();
    assert!(token.starts_with("window:"), "{last}");
    assert_eq!(refusal, "failed 32 others are being served, try again\n");
}

#[test]
fn a_request_that_makes_no_sense_is_answered_and_ends_nothing() {
    let scratch = Scratch::new();
    let source = file(&scratch, b"still there");
    let object = Object::new("unix");
    let _exposer = expose_via(&source, &object.address);
    let path = &object.address["unix:".len()..];
    eventually("it listens", || UnixStream::connect(path).is_ok());
    for (request, answer) in [
        (&b"share 2\n"[..], "failed `share 2` is no request of this version, which knows `share 1`\n"),
        (b"\x1b[2J\n", "failed `\\u{1b}[2J` is no request of this version, which knows `share 1`\n"),
        (b"\xff\n", ""),
        (&[b'x'; 5000], ""),
    ] {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(request).unwrap();
        let mut said = Vec::new();
        // What was not read of the request makes the end a reset.
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said.split_once('\n').map(|(_, rest)| rest), Some(answer));
    }
    assert_eq!(onecopy(["fetch", "--via", &object.address]).end().succeeds(), b"still there");
}

#[test]
fn the_bytes_go_by_process_vm_readv() {
    let test = "the_bytes_go_by_process_vm_readv";
    let scratch = Scratch::new();
    let source = file(&scratch, &pattern(LARGE, 7));
    let (_exposer, token) = exposer(&source);
    let output = scratch.path("output").display().to_string();
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        return skip(test, "no strace");
    }
    let command = env!("CARGO_BIN_EXE_onecopy");
    let calls = "trace=process_vm_readv,read,pread64,preadv,recvfrom,recvmsg";
    let traced =
        program("strace", ["-f", "-qq", "-s", "0", "-e", calls, "--", command, "fetch", &token, "-o", &output]).end();
    if !traced.status.success() && traced.stderr.contains("PTRACE") {
        return skip(test, "this user may not trace");
    }
    assert!(traced.status.success(), "{traced:?}");
    is_equal(&source, Path::new(&output), "traced");
    // A call during which another thread was traced is two lines, and the second one has the result.
    let is_of =
        |line: &&str, call: &str| line.contains(&format!("{call}(")) || line.contains(&format!("<... {call} resumed"));
    let returned = |call: &str| -> usize {
        let lines = traced.stderr.lines().filter(|line| is_of(line, call));
        lines.filter_map(|line| line.rsplit(" = ").next()?.split(' ').next()?.parse::<usize>().ok()).sum()
    };
    // The nonce comes with each piece, and once before.
    let read = returned("process_vm_readv");
    assert!((LARGE..LARGE + 4096).contains(&read), "{read}: {}", traced.stderr);
    for other in ["read", "pread64", "preadv", "recvfrom", "recvmsg"] {
        assert!(returned(other) < 1 << 20, "{other}: {}", traced.stderr);
    }
}
