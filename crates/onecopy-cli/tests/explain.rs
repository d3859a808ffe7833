//! `onecopy explain`: every mechanism explains itself, to people and to programs, and what it says to try works.

#[path = "../../onecopy/tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use onecopy::Mechanism;
use serde_json::Value;
use support::{Scratch, reserved_port, unique, watchdog};

const ONECOPY: &str = env!("CARGO_BIN_EXE_onecopy");

fn run(arguments: &[&str], stdin: Stdio) -> Output {
    Command::new(ONECOPY).args(arguments).stdin(stdin).output().expect("the command")
}

/// It ends with code 2, nothing on stdout and one line on stderr that holds all of `words`.
#[track_caller]
fn refuses(arguments: &[&str], words: &[&str]) {
    let output = run(arguments, Stdio::null());
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len(), line.lines().count()), (Some(2), 0, 1), "{output:?}");
    for word in words {
        assert!(line.contains(word), "{line:?} does not contain {word:?}");
    }
}

fn text(arguments: &[&str]) -> String {
    let output = run(arguments, Stdio::null());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(arguments)).expect("JSON")
}

#[test]
fn without_a_name_there_is_a_line_for_each_of_the_thirty() {
    let table = text(&["explain"]);
    let names: Vec<&str> =
        table.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, Mechanism::ALL.map(Mechanism::name));
    assert!(table.starts_with("MECHANISM  "));
    let remains = table.find("REMAINS").unwrap();
    for line in table.lines().skip(1).take(names.len()) {
        assert!(line.is_char_boundary(remains) && line[..remains].ends_with("  "), "out of its column: {line}");
    }
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        assert!(!line.ends_with(' '), "{line:?}");
    }
}

#[test]
fn every_mechanism_has_a_page() {
    let labels = [
        "Address",
        "Named by",
        "Access",
        "Copies",
        "Boundaries",
        "When full",
        "When empty",
        "Remains",
        "Traps",
        "Man pages",
        "Library",
        "Try",
    ];
    for mechanism in Mechanism::ALL {
        let page = text(&["explain", mechanism.name()]);
        assert!(page.starts_with(&format!("{mechanism}: ")), "{page}");
        for label in labels {
            assert!(page.lines().any(|line| line.starts_with(label)), "{mechanism} says nothing of {label}:\n{page}");
        }
        for line in page.lines().filter(|line| !line.starts_with("Try ")) {
            assert!(line.chars().count() <= 80, "{mechanism}: {line}");
        }
    }
}

#[test]
fn json_is_one_object_with_every_answer() {
    let keys = [
        "name",
        "title",
        "row",
        "kinds",
        "addresses",
        "destination",
        "access",
        "copies",
        "boundaries",
        "full",
        "empty",
        "remains",
        "traps",
        "man_pages",
        "try",
        "module",
        "available",
        "limits",
    ];
    for mechanism in Mechanism::ALL {
        let object = json(&["explain", mechanism.name(), "--json"]);
        for key in keys {
            assert!(!object[key].is_null(), "{mechanism} has no {key}");
        }
        assert_eq!(object["name"], mechanism.name());
        assert_eq!(object["row"], mechanism.row());
        assert_eq!(object["available"].as_bool(), Some(object["unavailable_because"].is_null()));
    }
    let all = json(&["explain", "--json"]);
    assert_eq!(all["mechanisms"].as_array().map(Vec::len), Some(30));
}

#[test]
fn the_limits_are_those_in_force() {
    let Ok(in_force) = std::fs::read_to_string("/proc/sys/fs/pipe-max-size") else { return };
    let object = json(&["explain", "pipe", "--json"]);
    let limits = object["limits"].as_array().expect("a list");
    let size = limits.iter().find(|limit| limit["name"] == "fs.pipe-max-size").expect("the capacity");
    assert_eq!(size["value"].to_string(), in_force.trim());
    assert_eq!(size["source"], "/proc/sys/fs/pipe-max-size");
    assert_eq!(size["how_to_raise"], "as root: sysctl -w fs.pipe-max-size=N");
}

#[test]
fn a_limit_of_several_numbers_is_not_said_to_take_one() {
    let pages = [
        ("sysv-semaphore", "To raise kernel.sem, as root: sysctl -w kernel.sem='SEMMSL SEMMNS SEMOPM SEMMNI'"),
        ("tcp", "To raise net.ipv4.tcp_wmem, as root: sysctl -w net.ipv4.tcp_wmem='MIN DEFAULT MAX'"),
        ("tcp", "To raise another dotted name, as root: sysctl -w NAME=VALUE"),
        ("pipe", "To raise a dotted name, as root: sysctl -w NAME=VALUE"),
    ];
    for (mechanism, remedy) in pages {
        let page = text(&["explain", mechanism]);
        let words: Vec<&str> = page.split_whitespace().collect();
        // A kernel that was built without the limit has nothing to say of it.
        let name = remedy.split(' ').find(|word| word.contains('.')).unwrap_or("Limits").trim_end_matches(',');
        assert!(words.join(" ").contains(remedy) || !page.contains(name), "{page}");
        assert!(mechanism != "sysv-semaphore" || !page.contains("NAME=VALUE"), "{page}");
    }
}

#[test]
fn an_address_is_explained_as_its_mechanism() {
    let addresses = [
        ("mq:/jobs", "posix-mq"),
        ("unix:@frames", "unix-stream"),
        ("mem:1:0x1000+16", "cma-read"),
        ("barrier:/b?parties=2", "barrier"),
        ("ofd:/tmp/table?start=1", "record-lock"),
        ("signal:self?sig=RTMIN", "signal-realtime"),
    ];
    for (address, name) in addresses {
        assert!(text(&["explain", address]).starts_with(&format!("{name}: ")), "{address}");
    }
}

#[test]
fn a_descriptor_is_explained_as_what_it_is() {
    let output = run(&["explain", "fd:0"], Stdio::piped());
    assert!(output.stdout.starts_with(b"pipe: "), "{output:?}");
    refuses(&["explain", "fd:0"], &["fd:0", "pipe, eventfd or anonymous-mapping"]);
}

#[test]
fn the_channel_has_a_page_too() {
    let page = text(&["explain", "channel"]);
    assert_eq!(text(&["explain", "channel:frames"]), page);
    for label in ["Address", "Access", "Copies", "Remains", "Traps", "Library", "Try"] {
        assert!(page.contains(&format!("\n{label}")), "{label} in {page}");
    }
    let object = json(&["explain", "channel:/run/frames", "--json"]);
    assert_eq!((&object["name"], &object["available"]), (&"channel".into(), &true.into()));
    assert!(object.get("row").is_none(), "it is none of the thirty: {object}");
}

#[test]
fn a_wrong_name_is_one_line_with_the_nearest() {
    refuses(&["explain", "futx"], &["onecopy: futx: no such mechanism; did you mean futex?"]);
    refuses(&["explain", "shm"], &["shm: no such mechanism; did you mean posix-shm or sysv-shm?"]);
    refuses(&["explain", "banana"], &["banana: no such mechanism", "pipe, fifo, pty", ", channel\n"]);
    refuses(&["explain", ""], &["no such mechanism"]);
    refuses(&["explain", "mq:jobs"], &["column 4", "mq:/NAME"]);
    refuses(&["explain", "/tmp/x"], &["a path without a scheme", "fifo:/tmp/x"]);
    refuses(&["explain", "pipe", "fifo"], &["fifo"]);
}

/// Removes an object at the end of a test, whatever happens.
struct Cleanup(String);

impl Drop for Cleanup {
    fn drop(&mut self) {
        run(&["rm", &self.0], Stdio::null());
    }
}

/// The command to try of `mechanism`, with names, paths, keys and ports of this test's own.
fn try_it(mechanism: Mechanism) {
    assert_eq!(tried(mechanism), "hello", "{}", mechanism.info().try_it);
}

/// What it says to try, with other names, and what that prints.
fn tried(mechanism: Mechanism) -> String {
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let name = unique(mechanism.name());
    let key = format!("0x{:x}", std::process::id() << 8 | u32::try_from(mechanism.row()).unwrap());
    let line = mechanism.info().try_it;
    let (_reserved, port) = reserved_port();
    let own = line
        .replace("/tmp/", &format!("{}/", scratch.root().display()))
        .replace("mq:/jobs", &format!("mq:/{name}"))
        .replace("shm:/", &format!("shm:/{name}-"))
        .replace("sem:/", &format!("sem:/{name}-"))
        .replace("0x4d2", &key)
        .replace("localhost:7000", &format!("127.0.0.1:{port}"));
    let object = own.split(' ').find(|word| word.contains(':')).expect("an address");
    let _cleanup = Cleanup(object.trim_matches('\'').to_owned());
    let folder = Path::new(ONECOPY).parent().expect("its folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{own}; wait")]).env("PATH", path).stdin(Stdio::null());
    let output = shell.output().expect("a shell");
    assert!(output.status.success(), "{own}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

// Not udp: nothing tells when its receiver is there, and the second that the command waits is too short on a busy machine.
macro_rules! commands_to_try {
    ($($test:ident: $mechanism:ident,)*) => {
        $(
            #[test]
            fn $test() {
                try_it(Mechanism::$mechanism);
            }
        )*
    };
}

commands_to_try! {
    what_to_try_with_a_pipe_works: Pipe,
    what_to_try_with_a_fifo_works: Fifo,
    what_to_try_with_a_pty_works: Pty,
    what_to_try_with_unix_stream_works: UnixStream,
    what_to_try_with_unix_dgram_works: UnixDgram,
    what_to_try_with_unix_seqpacket_works: UnixSeqpacket,
    what_to_try_with_tcp_works: Tcp,
    what_to_try_with_posix_mq_works: PosixMq,
    what_to_try_with_sysv_mq_works: SysvMq,
    what_to_try_with_posix_shm_works: PosixShm,
    what_to_try_with_sysv_shm_works: SysvShm,
    what_to_try_with_a_file_mapping_works: FileMapping,
}

#[test]
fn what_to_try_with_locks_works() {
    use Mechanism::{FileLock, Mutex, PosixNamedSemaphore, RecordLock, Rwlock, SysvSemaphore};
    for mechanism in [PosixNamedSemaphore, SysvSemaphore, RecordLock, FileLock, Mutex, Rwlock] {
        assert_eq!(tried(mechanism), "held\n", "{mechanism}");
    }
}

#[test]
fn what_to_try_with_what_wakes_works() {
    use Mechanism::{Barrier, Condvar, Futex, PosixUnnamedSemaphore};
    for mechanism in [PosixUnnamedSemaphore, Futex, Condvar, Barrier] {
        assert_eq!(tried(mechanism), "", "{mechanism}");
    }
}

#[test]
fn what_to_try_with_an_eventfd_works() {
    let python = Command::new("python3").args(["-c", "import os; os.eventfd"]).output();
    if !python.is_ok_and(|output| output.status.success()) {
        support::skip("what_to_try_with_an_eventfd_works", "no Python 3.10");
        return;
    }
    assert_eq!(tried(Mechanism::Eventfd), "1\n");
}

/// The second that the command waits may be too short on a busy machine: then the signal ends the receiver.
#[test]
fn what_to_try_with_signals_works() {
    for (mechanism, start, end) in
        [(Mechanism::SignalStandard, "USR1 pid=", "\n"), (Mechanism::SignalRealtime, "RTMIN+1 pid=", " value=7\n")]
    {
        let told = (0..5).map(|_| tried(mechanism)).find(|told| !told.is_empty()).unwrap_or_default();
        assert!(told.starts_with(start) && told.ends_with(end), "{mechanism}: {told:?}");
    }
}
