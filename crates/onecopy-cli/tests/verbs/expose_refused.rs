//! `fetch` where the kernel does not permit cross-memory attach: over unix: the bytes come all the same.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::Duration;

use onecopy::stream::unix::UnixStream;
use onecopy::{Deadline, UnixName};
use sha2::{Digest as _, Sha256};

use crate::expose::{endless, expose_via, exposer, file};
use crate::permissions::{is_root, unprivileged};
use crate::support::{Ended, Run, Running, Scratch, eventually, onecopy, pattern, program, python, skip, watchdog};

const LARGE: usize = 64 << 20;
const ERRNO: u32 = 0x5_0000;
pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;

/// A file that is exposed at a socket which everybody may connect to.
struct Shared {
    exposer: Running,
    via: String,
    scratch: Scratch,
}

impl Shared {
    fn new(make: impl FnOnce(&Scratch) -> std::path::PathBuf) -> Self {
        let scratch = Scratch::new();
        let via = format!("unix:{}", scratch.path("s").display());
        let exposer = expose_via(&make(&scratch), &via);
        eventually("it listens", || scratch.path("s").exists());
        open(&scratch, 0o666);
        Self { exposer, via, scratch }
    }

    fn of(bytes: &[u8]) -> Self {
        Self::new(|scratch| file(scratch, bytes))
    }
}

fn open(scratch: &Scratch, mode: u32) {
    std::fs::set_permissions(scratch.path("s"), std::fs::Permissions::from_mode(mode)).unwrap();
}

/// `fetch` under a filter, as [`under_filter`].
fn filtered(test: &str, action: u32, arguments: &[&str]) -> Option<Run> {
    under_filter(test, action, &[&["fetch"], arguments].concat())
}

/// The command under a seccomp filter that has `action` for cross-memory attach. `None`, and a line, without Python.
pub(crate) fn under_filter(test: &str, action: u32, arguments: &[&str]) -> Option<Run> {
    let python = python(test, &["ctypes"])?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/filter.py");
    let action = action.to_string();
    let command = [script, &action, env!("CARGO_BIN_EXE_onecopy")];
    Some(program(python.get_program(), command.iter().chain(arguments)))
}

/// The bytes came by shared memory, for this reason.
#[track_caller]
fn shared(ended: Ended, bytes: &[u8], reason: &str) {
    assert!(ended.status.success(), "{:?}: {}", ended.status, ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with("onecopy: by shared memory, since cross-memory attach is refused: "),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    assert_eq!(Sha256::digest(ended.stdout), Sha256::digest(bytes));
}

#[test]
fn another_user_gets_the_bytes_where_the_socket_lets_it() {
    if !is_root() {
        return;
    }
    let bytes = pattern(LARGE, 1);
    let shared_file = Shared::of(&bytes);
    shared(unprivileged(&["fetch", "--via", &shared_file.via]).end(), &bytes, "Operation not permitted");
    open(&shared_file.scratch, 0o600);
    unprivileged(&["fetch", "--via", &shared_file.via]).end().fails_with(1, &[&shared_file.via, "Permission denied"]);
}

#[test]
fn an_abstract_socket_has_no_mode_and_serves_its_own_user_alone() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let via = format!("unix:@{}", crate::support::unique("expose"));
    let _exposer = expose_via(&file(&scratch, b"mine"), &via);
    unprivileged(&["fetch", "--via", &via, "--timeout", "60s"])
        .end()
        .fails_with(1, &[&via, "an abstract name serves the user of its process and root alone"]);
    assert_eq!(onecopy(["fetch", "--via", &via]).end().succeeds(), b"mine");
}

#[test]
fn another_user_or_pid_namespace_gets_the_bytes() {
    let bytes = pattern(LARGE, 2);
    let shared_file = Shared::of(&bytes);
    for (flags, reason) in [("-Ur", "Operation not permitted"), ("-Urpf", "counts in another pid namespace")] {
        if !program("unshare", [flags, "true"]).end().status.success() {
            skip("another_user_or_pid_namespace_gets_the_bytes", "no user namespaces");
            return;
        }
        let command = [flags, env!("CARGO_BIN_EXE_onecopy"), "fetch", "--via", &shared_file.via];
        shared(program("unshare", command).end(), &bytes, reason);
    }
}

#[test]
fn a_filtered_process_gets_the_bytes() {
    let test = "a_filtered_process_gets_the_bytes";
    let bytes = pattern(LARGE, 3);
    let shared_file = Shared::of(&bytes);
    for (action, reason) in [
        (ERRNO | 1, "Operation not permitted"),
        (ERRNO | 38, "Function not implemented"),
        (ERRNO | 3, ""),
        (KILL_PROCESS, "a seccomp filter of this process ends whoever calls process_vm_readv(2)"),
    ] {
        let Some(fetch) = filtered(test, action, &["--via", &shared_file.via]) else { return };
        shared(fetch.end(), &bytes, reason);
    }
}

#[test]
fn what_comes_from_memory_is_shared_too_and_nothing_as_well() {
    let test = "what_comes_from_memory_is_shared_too_and_nothing_as_well";
    for bytes in [pattern(9 << 20, 4), Vec::new()] {
        let scratch = Scratch::new();
        let via = format!("unix:{}", scratch.path("s").display());
        let _exposer = onecopy(["expose", "-", "--via", &via]).input(bytes.clone()).start();
        let Some(fetch) = filtered(test, ERRNO | 1, &["--via", &via, "--timeout", "60s"]) else { return };
        shared(fetch.end(), &bytes, "Operation not permitted");
    }
}

#[test]
fn without_a_socket_a_refusal_names_what_would_deliver() {
    let test = "without_a_socket_a_refusal_names_what_would_deliver";
    let (_exposer, token) = exposer(std::path::Path::new("/proc/version"));
    for action in [ERRNO | 1, ERRNO | 38, KILL_PROCESS] {
        let Some(fetch) = filtered(test, action, &[&token]) else { return };
        fetch
            .end()
            .fails_with(1, &["process_vm_readv", "`onecopy fetch --via unix:/path` the bytes come by shared memory"]);
    }
}

#[test]
fn a_token_that_another_program_passes_on_has_nothing_to_fall_back_on() {
    let test = "a_token_that_another_program_passes_on_has_nothing_to_fall_back_on";
    let (_exposer, token) = exposer(std::path::Path::new("/proc/version"));
    let scratch = Scratch::new();
    let listener = std::os::unix::net::UnixListener::bind(scratch.path("s")).unwrap();
    let via = format!("unix:{}", scratch.path("s").display());
    let Some(fetch) = filtered(test, ERRNO | 1, &["--via", &via]) else { return };
    let fetch = fetch.start();
    std::io::Write::write_all(&mut listener.accept().unwrap().0, format!("{token}\n").as_bytes()).unwrap();
    fetch.end().fails_with(1, &["Operation not permitted", "onecopy expose --via unix:/path"]);
}

#[test]
fn a_file_that_is_shortened_while_it_is_shared_is_an_error_with_whole_numbers() {
    let test = "a_file_that_is_shortened_while_it_is_shared_is_an_error_with_whole_numbers";
    let shared_file = Shared::of(&pattern(100_000, 7));
    let source = std::fs::File::options().write(true).open(shared_file.scratch.path("exposed")).unwrap();
    source.set_len(45_678).unwrap();
    let Some(fetch) = filtered(test, ERRNO | 1, &["--via", &shared_file.via]) else { return };
    fetch.end().fails_with(1, &["shortened it from 100000 bytes, which are mapped, to 45678"]);
}

#[test]
fn memory_that_could_be_taken_away_is_refused_in_the_name_of_who_sent_it() {
    let test = "memory_that_could_be_taken_away_is_refused_in_the_name_of_who_sent_it";
    let (_exposer, token) = exposer(std::path::Path::new("/proc/version"));
    let scratch = Scratch::new();
    std::fs::write(scratch.path("plain"), [7; 4096]).unwrap();
    let name = UnixName::path(scratch.path("s")).unwrap();
    let listener = onecopy::stream::unix::UnixListener::bind(&name).unwrap();
    let via = format!("unix:{name}");
    let Some(fetch) = filtered(test, ERRNO | 1, &["--via", &via]) else { return };
    let fetch = fetch.start();
    let mut stream = listener.accept_by(Deadline::after(Duration::from_secs(60))).unwrap();
    onecopy::stream::ByteWriter::write_all_by(&mut stream, format!("{token}\n").as_bytes(), Deadline::Never).unwrap();
    stream.recv_with_fds(&mut [0; 512]).unwrap();
    let plain = std::fs::File::open(scratch.path("plain")).unwrap();
    stream.send_with_fds_by(b"piece 10\n", &[std::os::fd::AsFd::as_fd(&plain)], Deadline::Never).unwrap();
    fetch.end().fails_with(1, &[&via, "sent no memory that can be read safely", "only a memfd can be sealed"]);
}

#[test]
fn an_exposer_that_is_killed_while_it_shares_is_an_error_and_leaves_no_half_file() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let test = "an_exposer_that_is_killed_while_it_shares_is_an_error_and_leaves_no_half_file";
    let mut shared_file = Shared::new(endless);
    let output = shared_file.scratch.path("output");
    let arguments = ["--via", &shared_file.via, "-o", output.to_str().unwrap()];
    let Some(fetch) = filtered(test, ERRNO | 1, &arguments) else { return };
    let fetch = fetch.start();
    fetch.stop_in_the_middle();
    shared_file.exposer.kill();
    fetch.signal("CONT");
    let ended = fetch.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.lines().last().unwrap().contains(&shared_file.via), "{ended:?}");
    assert!(!output.exists());
}

#[test]
fn the_memory_that_is_shared_cannot_be_written() {
    let bytes = pattern(100_000, 5);
    let shared_file = Shared::of(&bytes);
    let name = UnixName::path(shared_file.scratch.path("s")).unwrap();
    for _ in 0..3 {
        let mut stream = UnixStream::connect(&name, Deadline::Never).unwrap();
        let mut buffer = [0; 512];
        let (_, none) = stream.recv_with_fds(&mut buffer).unwrap();
        assert!(none.is_empty());
        onecopy::stream::ByteWriter::write_all_by(&mut stream, b"share 1\n", Deadline::Never).unwrap();
        let (len, fds) = stream.recv_with_fds(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"piece 100000\n");
        let [fd] = <[_; 1]>::try_from(fds).unwrap();
        // Opened anew for writing, if its mode allows that, and written: both ways are closed.
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let anew = std::fs::File::options().read(true).write(true).open(again);
        let original = std::fs::File::from(fd);
        for file in anew.iter().chain([&original]) {
            assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(1));
            assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(1));
        }
        let mut shown = vec![0; bytes.len()];
        original.read_exact_at(&mut shown, 0).unwrap();
        assert!(shown == bytes);
    }
}
