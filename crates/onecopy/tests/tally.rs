//! What the library counts, against what strace sees: the system calls of two processes, and what each returned.

#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use onecopy::memory::Region;
use onecopy::memory::attach::{CONTROL_BYTES, PullReceiver, PullSender, PushReceiver, PushSender};
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::ring::{RING_BYTES, RingReceiver, RingSender};
use onecopy::stream::fifo;
use onecopy::stream::framed::{FramedReceiver, FramedSender};
use onecopy::stream::unix::{UnixListener, UnixStream};
use onecopy::{Deadline, Receiver, Result, Sender, Tally, UnixName};
use support::{Peer, Scratch, argument, pattern, role, skip, watchdog};

const TEST: &str = "the_kernel_copies_what_is_counted";
const SIZES: [usize; 4] = [1, 100, 70_001, 3 << 20];
/// What headers may add: those of the messages, and the one with which a ring begins.
const HEADERS_BYTES: u64 = 1024;
/// What the receiver of a stream reads together with a short message, and so copies once more.
const READ_AHEAD_BYTES: u64 = 64 << 10;
/// All calls by which these mechanisms can move payload.
const CALLS: &str = "read,readv,pread64,preadv,preadv2,write,writev,pwrite64,pwritev,pwritev2,recvfrom,recvmsg,sendto,sendmsg,\
                     process_vm_readv,process_vm_writev,splice,vmsplice,sendfile";

/// The ways to move a message, and how often each side copies it: in user space and by the kernel, the sender first. Of
/// cross-memory attach the side that copies is the parent, which may attach to its child everywhere.
const WAYS: [(&str, bool, [[u64; 2]; 2]); 5] = [
    ("fifo", true, [[0, 1], [0, 1]]),
    ("unix", true, [[0, 1], [0, 1]]),
    ("ring", true, [[1, 0], [1, 0]]),
    ("pull", false, [[0, 0], [0, 1]]),
    ("push", true, [[0, 1], [0, 0]]),
];

#[test]
fn the_kernel_copies_what_is_counted() {
    if let Some(role) = role() {
        return play(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(100));
    match Command::new("strace").args(["-o", "/dev/null", "true"]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skip(TEST, &format!("strace: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => return skip(TEST, &format!("no strace: {error}")),
    }
    for (way, sender_is_parent, copies) in WAYS {
        let scratch = Scratch::new();
        prepare(way, &scratch);
        run_under_strace(way, sender_is_parent, &scratch);
        for (part, [user, kernel]) in ["sender", "receiver"].into_iter().zip(copies) {
            let (thread, counted) = report(&scratch.path(part));
            let seen = seen_bytes(&scratch.path(&format!("calls.{thread}")));
            assert_eq!(counted.kernel_bytes, seen, "{way}, the {part}: the kernel's copies, counted and seen");
            assert_near(counted.kernel_bytes, kernel, 0, &format!("{way}, the {part}, by the kernel"));
            let ahead = if matches!(way, "fifo" | "unix") { READ_AHEAD_BYTES } else { 0 };
            assert_near(counted.user_bytes, user, ahead, &format!("{way}, the {part}, in user space"));
        }
    }
}

/// The payload as many times as it should be, headers, and `more` at most.
fn assert_near(bytes: u64, copies: u64, more: u64, what: &str) {
    let payload: u64 = SIZES.iter().map(|size| *size as u64).sum();
    assert!(
        (payload * copies..=payload * copies + HEADERS_BYTES + more).contains(&bytes),
        "{what}: {bytes} of {payload} x {copies}"
    );
}

fn prepare(way: &str, scratch: &Scratch) {
    let bytes = if way == "ring" { RING_BYTES } else { CONTROL_BYTES };
    match way {
        "fifo" => fifo::create(&scratch.path("fifo"), 0o600).unwrap(),
        "unix" => {}
        _ => drop(FileMapping::create(&scratch.path("region"), bytes, 0o600).unwrap()),
    }
}

/// Runs this test as the parent of both sides, and writes down the calls of each thread.
fn run_under_strace(way: &str, sender_is_parent: bool, scratch: &Scratch) {
    let part = if sender_is_parent { "sender" } else { "receiver" };
    let output = Command::new("strace")
        // Each thread in a file of its own; no contents, but what the descriptors stand for.
        .args(["-ff", "-y", "-s", "0", "-e", "signal=none", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(scratch.path("calls"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env("ONECOPY_TEST_ROLE", format!("{way} {part} parent"))
        .env("ONECOPY_TEST_SCRATCH", scratch.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{way}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What one side wrote down: its thread and its tally.
fn report(path: &Path) -> (u64, Tally) {
    let text = std::fs::read_to_string(path).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [thread, user_bytes, kernel_bytes] = numbers[..] else { panic!("{text}") };
    (thread, Tally { user_bytes, kernel_bytes })
}

/// How many bytes the calls of one thread moved through what the sides share, as strace wrote them down.
fn seen_bytes(path: &Path) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| moves_payload(line)).map(returned).sum()
}

/// A call on another process, or on a FIFO or a socket that is no standard stream.
fn moves_payload(line: &str) -> bool {
    let Some((call, arguments)) = line.split_once('(') else { return false };
    if call.starts_with("process_vm_") {
        return true;
    }
    let Some((fd, rest)) = arguments.split_once('<') else { return false };
    let what = rest.split('>').next().unwrap_or_default();
    fd.parse::<u32>().is_ok_and(|fd| fd > 2)
        && (what.ends_with("/fifo") || what.contains("socket:") || what.contains("UNIX"))
}

/// What the call returned; a failed one moved nothing.
fn returned(line: &str) -> u64 {
    let value = line.rsplit(" = ").next().and_then(|result| result.split(' ').next());
    value.and_then(|value| value.parse::<i64>().ok()).map_or(0, |value| value.max(0).unsigned_abs())
}

/// One side: "pull receiver parent" and the like. The parent starts its child once it can be met.
fn play(role: &str) {
    let _watchdog = watchdog(Duration::from_secs(60));
    let words: Vec<_> = role.split(' ').collect();
    let [way, part, place] = words[..] else { panic!("no role {role}") };
    let scratch = PathBuf::from(argument("SCRATCH"));
    let child = (place == "parent").then(|| {
        let other = if part == "sender" { "receiver" } else { "sender" };
        Peer::start(TEST, &format!("{way} {other} child"), &[("SCRATCH", scratch.to_str().unwrap())])
    });
    if part == "sender" {
        send(&mut *sender(way, &scratch).unwrap());
    } else {
        receive(way, &scratch);
    }
    let Tally { user_bytes, kernel_bytes } = Tally::now();
    let thread = rustix::thread::gettid().as_raw_pid();
    std::fs::write(scratch.join(part), format!("{thread} {user_bytes} {kernel_bytes}")).unwrap();
    if let Some(child) = child {
        child.succeed();
    }
}

fn content(size: usize) -> Vec<u8> {
    pattern(size, size as u64)
}

fn send(sender: &mut dyn Sender) {
    for size in SIZES {
        sender.send(&content(size)).unwrap();
    }
    sender.flush_by(Deadline::Never).unwrap();
}

fn receive(way: &str, scratch: &Path) {
    if way == "push" {
        let mut receiver = PushReceiver::attach(region(scratch).unwrap()).unwrap();
        for size in SIZES {
            assert!(receiver.recv_borrowed_by(Deadline::Never).unwrap().unwrap() == content(size), "{size} bytes");
        }
        return;
    }
    let mut receiver = receiver(way, scratch).unwrap();
    let mut buffer = vec![0; 4 << 20];
    for size in SIZES {
        assert_eq!(receiver.recv_into_by(&mut buffer, Deadline::Never).unwrap(), Some(size));
        assert!(buffer[..size] == content(size), "{size} bytes");
    }
}

fn sender(way: &str, scratch: &Path) -> Result<Box<dyn Sender>> {
    Ok(match way {
        "fifo" => Box::new(FramedSender::new(fifo::open_writer(&scratch.join("fifo"), Deadline::Never)?)),
        "unix" => Box::new(FramedSender::new(UnixStream::connect(&socket(scratch), Deadline::Never)?)),
        "ring" => Box::new(RingSender::attach(region(scratch)?, Deadline::Never)?),
        "pull" => Box::new(PullSender::attach(region(scratch)?)?),
        _ => Box::new(PushSender::attach(region(scratch)?)?),
    })
}

fn receiver(way: &str, scratch: &Path) -> Result<Box<dyn Receiver>> {
    Ok(match way {
        "fifo" => Box::new(FramedReceiver::new(fifo::open_reader(&scratch.join("fifo"), Deadline::Never)?)),
        "unix" => {
            let listener = UnixListener::bind(&socket(scratch))?;
            Box::new(FramedReceiver::new(listener.accept_by(Deadline::Never)?))
        }
        "ring" => Box::new(RingReceiver::attach(region(scratch)?, Deadline::Never)?),
        _ => Box::new(PullReceiver::attach(region(scratch)?)?),
    })
}

fn socket(scratch: &Path) -> UnixName {
    UnixName::path(scratch.join("socket").as_os_str()).unwrap()
}

fn region(scratch: &Path) -> Result<Region> {
    Ok(FileMapping::open(&scratch.join("region"))?.into_region().trusting_its_length())
}
