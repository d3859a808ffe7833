//! A file that the kernel copies from the sender's to the receiver's: with a side that is this test, and goes its own ways.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use onecopy::{Channel, Listener};

use crate::support::{Running, Scratch, eventually, onecopy, pattern, program, skip, unique, watchdog};

const LIMIT: Duration = Duration::from_secs(280);
const MIB: usize = 1 << 20;
const INVITATION: [u8; 16] = *b"sixteen bytes...";

fn offer(invitation: &[u8], fd: RawFd, offset: u64) -> Vec<u8> {
    [invitation, &i64::from(fd).to_le_bytes(), &offset.to_le_bytes(), &u64::MAX.to_le_bytes()].concat()
}

/// This side of the channel of a receiver that was just started.
fn connected(name: &str) -> Channel {
    let mut channel = None;
    eventually("the receiver listens", || {
        channel = Channel::connect(name).ok();
        channel.is_some()
    });
    channel.unwrap()
}

/// A receiver into a file, and this side of its channel.
fn receiver(name: &str, output: &Path) -> (Running, Channel) {
    let address = format!("channel:{name}");
    let receiver = onecopy(["recv".as_ref(), address.as_ref(), "-o".as_ref(), output.as_os_str()]).start();
    (receiver, connected(name))
}

/// How many bytes were copied of what was offered.
fn copied(channel: &mut Channel, offer: &[u8]) -> u64 {
    channel.send(offer).unwrap();
    loop {
        let report = channel.recv().unwrap().expect("a report");
        let (bytes, kind) = report.split_first_chunk::<8>().unwrap();
        match kind {
            [0] => {}
            [1] => return u64::from_le_bytes(*bytes),
            _ => panic!("it reads what was offered before: {report:?}"),
        }
    }
}

/// Whether a process that this one has started may attach to it.
fn may_attach(test: &str) -> bool {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let may = scope.trim().parse().unwrap_or(0) == 0 && status.contains("Seccomp:\t0");
    if !may {
        skip(test, "Yama or a seccomp filter stands between the two processes");
    }
    may
}

/// Whether strace is there besides, to look on.
fn may_trace(test: &str) -> bool {
    let is_there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !is_there {
        skip(test, "no strace");
    }
    is_there && may_attach(test)
}

#[test]
fn a_receiver_has_the_kernel_copy_what_is_offered_and_goes_on_from_there() {
    let _watchdog = watchdog(LIMIT);
    if !may_attach("whole_file::a_receiver_has_the_kernel_copy_what_is_offered_and_goes_on_from_there") {
        return;
    }
    let scratch = Scratch::new();
    let (input, output) = (scratch.path("input"), scratch.path("output"));
    std::fs::write(&input, pattern(9 * MIB + 5, 1)).unwrap();
    let file = File::open(&input).unwrap();
    let (receiver, mut channel) = receiver(&unique("whole"), &output);
    let invitation = channel.recv().unwrap().expect("an invitation").to_vec();
    assert_eq!(invitation.len(), 16);
    channel.send(b"begin").unwrap();
    assert_eq!(copied(&mut channel, &offer(&invitation, file.as_raw_fd(), 1000)), (9 * MIB + 5 - 1000) as u64);
    channel.send(b"end").unwrap();
    channel.send(b"").unwrap();
    assert!(channel.recv().unwrap().is_none(), "it closes when it has everything");
    receiver.end().succeeds();
    assert!(std::fs::read(&output).unwrap() == [b"begin", &pattern(9 * MIB + 5, 1)[1000..], b"end"].concat());
}

#[test]
fn a_receiver_copies_no_more_than_what_it_is_safe_to_copy() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let (input, output) = (scratch.path("input"), scratch.path("output"));
    std::fs::write(&input, pattern(100, 2)).unwrap();
    let file = File::open(&input).unwrap();
    let unreadable = File::options().write(true).open(&input).unwrap();
    // Of another file system, without a length, without an end.
    let others = ["/proc/self/status", "/dev/zero", "/"].map(|path| File::open(path).unwrap());
    let (receiver, mut channel) = receiver(&unique("whole"), &output);
    let invitation = channel.recv().unwrap().expect("an invitation").to_vec();
    for other in others.iter().chain([&unreadable]) {
        assert_eq!(copied(&mut channel, &offer(&invitation, other.as_raw_fd(), 0)), 0, "{other:?}");
    }
    for fd in [-1, i32::MAX] {
        assert_eq!(copied(&mut channel, &offer(&invitation, fd, 0)), 0, "{fd}");
    }
    for offset in [100, u64::MAX] {
        assert_eq!(copied(&mut channel, &offer(&invitation, file.as_raw_fd(), offset)), 0, "{offset}");
    }
    // Without the invitation it is data.
    let data = offer(&INVITATION, file.as_raw_fd(), 0);
    channel.send(&data).unwrap();
    channel.send(b"").unwrap();
    assert!(channel.recv().unwrap().is_none());
    receiver.end().succeeds();
    assert_eq!(std::fs::read(&output).unwrap(), data);
}

/// How much a receiver reads at most for a range: what a message holds.
const MOST_BYTES: usize = 512 << 10;

/// The bytes of a report by which a receiver asks for a range.
const ASKS: [u8; 9] = [0, 0, 0, 0, 0, 0, 0, 0, 2];

fn range(invitation: &[u8], offset: u64, bytes: u64) -> Vec<u8> {
    [invitation, &offset.to_le_bytes(), &bytes.to_le_bytes()].concat()
}

/// A receiver whose stdout is a pipe to a thread, which returns what came.
fn receiver_to_pipe(name: &str) -> (Child, JoinHandle<Vec<u8>>, Channel) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onecopy"));
    command.args(["recv", &format!("channel:{name}")]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut receiver = command.spawn().unwrap();
    let mut stdout = receiver.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).unwrap();
        all
    });
    (receiver, reader, connected(name))
}

#[test]
fn a_receiver_that_writes_to_no_file_reads_the_ranges_that_it_is_given() {
    let _watchdog = watchdog(LIMIT);
    if !may_attach("whole_file::a_receiver_that_writes_to_no_file_reads_the_ranges_that_it_is_given") {
        return;
    }
    let scratch = Scratch::new();
    let input = scratch.path("input");
    let bytes = pattern(2 * MIB + 5, 6);
    std::fs::write(&input, &bytes).unwrap();
    let file = File::open(&input).unwrap();
    let (mut receiver, reader, mut channel) = receiver_to_pipe(&unique("whole"));
    let invitation = channel.recv().unwrap().expect("an invitation").to_vec();
    // Before an offer, of another one, and with a byte more it is data.
    let early = [range(&invitation, 0, 7), range(&INVITATION, 0, 8), [&range(&invitation, 0, 9)[..], b"."].concat()];
    channel.send(&early[0]).unwrap();
    assert_eq!(copied(&mut channel, &offer(&invitation, file.as_raw_fd(), 0)), 0);
    assert_eq!(channel.recv().unwrap().expect("a report")[..], ASKS);
    let parts = [(0, 300_000), (2 * MIB + 4, 1), (77, 0), (5, MOST_BYTES)];
    for (offset, count) in parts {
        channel.send(&range(&invitation, offset as u64, count as u64)).unwrap();
        // Nothing is behind that one.
        assert_eq!(channel.recv().unwrap().expect("a report")[..], ASKS);
        channel.send(b"between").unwrap();
    }
    channel.send(&early[1]).unwrap();
    channel.send(&early[2]).unwrap();
    channel.send(b"").unwrap();
    assert!(channel.recv().unwrap().is_none(), "it asks once");
    assert!(receiver.wait().unwrap().success());
    let mut expected = early[0].clone();
    for (offset, count) in parts {
        expected.extend_from_slice(&bytes[offset..offset + count]);
        expected.extend_from_slice(b"between");
    }
    expected.extend_from_slice(&early[1]);
    expected.extend_from_slice(&early[2]);
    assert!(reader.join().unwrap() == expected);
}

#[test]
fn a_range_that_is_not_there_is_an_error() {
    let _watchdog = watchdog(LIMIT);
    if !may_attach("whole_file::a_range_that_is_not_there_is_an_error") {
        return;
    }
    let scratch = Scratch::new();
    let input = scratch.path("input");
    std::fs::write(&input, pattern(MIB, 7)).unwrap();
    let file = File::open(&input).unwrap();
    let (at_end, nowhere, long) = ((MIB as u64 - 9, 10), (u64::MAX, 10), (0, MOST_BYTES as u64 + 1));
    let cases = [
        (at_end, "has ended 1 bytes before"),
        (nowhere, "cannot read the sender's file"),
        (long, "524289 bytes read at once, and 524288 are the most"),
    ];
    for ((offset, bytes), error) in cases {
        let name = unique("whole");
        let (receiver, reader, mut channel) = receiver_to_pipe(&name);
        let invitation = channel.recv().unwrap().expect("an invitation").to_vec();
        assert_eq!(copied(&mut channel, &offer(&invitation, file.as_raw_fd(), 0)), 0);
        channel.send(&range(&invitation, offset, bytes)).unwrap();
        let output = receiver.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(error) && text.contains(&name), "{output:?}");
        reader.join().unwrap();
    }
}

#[test]
fn a_range_that_nobody_wants_is_a_failure_as_a_message_is() {
    let _watchdog = watchdog(LIMIT);
    if !may_attach("whole_file::a_range_that_nobody_wants_is_a_failure_as_a_message_is") {
        return;
    }
    let scratch = Scratch::new();
    let input = scratch.path("input");
    std::fs::write(&input, pattern(MIB, 9)).unwrap();
    let file = File::open(&input).unwrap();
    for ranged in [false, true] {
        let name = unique("whole");
        let script = "{ \"$0\" recv \"$1\"; echo $? >&2; } | :";
        let receiver = program("sh", ["-c", script, env!("CARGO_BIN_EXE_onecopy"), &format!("channel:{name}")]).start();
        let mut channel = connected(&name);
        let invitation = channel.recv().unwrap().expect("an invitation").to_vec();
        assert_eq!(copied(&mut channel, &offer(&invitation, file.as_raw_fd(), 0)), 0);
        let message = if ranged { range(&invitation, 0, 512 << 10) } else { pattern(512 << 10, 9) };
        channel.send(&message).unwrap();
        let ended = receiver.end();
        assert!(
            ended.stderr.contains("cannot write stdout: Broken pipe") && ended.stderr.ends_with("\n1\n"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_receiver_reads_only_what_keeps_it_waiting_for_nobody() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let input = scratch.path("input");
    std::fs::write(&input, pattern(MIB, 8)).unwrap();
    let unreadable = File::options().write(true).open(&input).unwrap();
    let nameless = rustix::fs::open(&input, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    // Of a file system that is none, without a length, without data.
    let others = ["/proc/self/status", "/proc/kcore", "/dev/zero", "/"];
    let others = others.into_iter().filter_map(|path| File::open(path).ok()).chain([unreadable, nameless.into()]);
    let (mut receiver, reader, mut channel) = receiver_to_pipe(&unique("whole"));
    let invitation = channel.recv().unwrap().expect("an invitation").to_vec();
    for other in others {
        assert_eq!(copied(&mut channel, &offer(&invitation, other.as_raw_fd(), 0)), 0, "{other:?}");
    }
    channel.send(b"").unwrap();
    assert!(channel.recv().unwrap().is_none(), "it asks for nothing");
    assert!(receiver.wait().unwrap().success());
    assert!(reader.join().unwrap().is_empty());
}

#[test]
fn a_sender_goes_on_where_its_receiver_has_stopped() {
    let _watchdog = watchdog(LIMIT);
    let bytes = pattern(16 * MIB + 3, 3);
    for (copied, asks) in [(0, false), (1, true), (5 * MIB + 1, false), (0, true)] {
        let scratch = Scratch::new();
        let input = scratch.path("input");
        std::fs::write(&input, &bytes).unwrap();
        let mut file = File::open(&input).unwrap();
        file.seek(SeekFrom::Start(7)).unwrap();
        let name = unique("whole");
        let listener = Listener::bind(&name).unwrap();
        let address = format!("channel:{name}");
        // Somebody has read seven bytes of its stdin.
        let stdin = |command: &mut Command| {
            command.stdin(file);
        };
        let sender = onecopy(["send", &address]).with(stdin).start();
        let mut channel = listener.accept().unwrap();
        channel.send(&INVITATION).unwrap();
        let mut received = Vec::new();
        let (mut offers, mut ranges) = (0, 0);
        loop {
            let message = channel.recv().unwrap().expect("an end mark first");
            match &message[..] {
                [] => break,
                range if range.starts_with(&INVITATION) && range.len() == 32 => {
                    let word = |at: usize| u64::from_le_bytes(range[at..at + 8].try_into().unwrap()) as usize;
                    let (offset, count) = (word(16), word(24));
                    assert_eq!(offset, received.len() + 7);
                    received.extend_from_slice(&bytes[offset..offset + count]);
                    ranges += 1;
                    channel.send(&ASKS).unwrap();
                }
                offer if offer.starts_with(&INVITATION) => {
                    offers += 1;
                    let offset = u64::from_le_bytes(offer[24..32].try_into().unwrap());
                    assert_eq!(offset, received.len() as u64 + 7);
                    received.extend_from_slice(&bytes[offset as usize..][..copied]);
                    for (bytes, is_last) in [(copied as u64 / 2, 0), (copied as u64, 1)] {
                        channel.send(&[&bytes.to_le_bytes()[..], &[is_last]].concat()).unwrap();
                    }
                    if asks {
                        channel.send(&ASKS).unwrap();
                    }
                }
                data => received.extend_from_slice(data),
            }
        }
        assert_eq!((offers, ranges > 0), (1, asks));
        assert!(received == bytes[7..], "{} bytes came", received.len());
        drop(channel);
        sender.end().succeeds();
    }
}

#[test]
fn a_sender_tells_of_a_receiver_that_ends_during_the_copy() {
    let _watchdog = watchdog(LIMIT);
    let scratch = Scratch::new();
    let input = scratch.path("input");
    std::fs::write(&input, pattern(16 * MIB, 4)).unwrap();
    let name = unique("whole");
    let listener = Listener::bind(&name).unwrap();
    let address = format!("channel:{name}");
    let sender = onecopy(["send".as_ref(), address.as_ref(), "-i".as_ref(), input.as_os_str()]).start();
    let mut channel = listener.accept().unwrap();
    channel.send(&INVITATION).unwrap();
    while !channel.recv().unwrap().expect("no end yet").starts_with(&INVITATION) {}
    // It has closed, and so has everything that it wanted; but not all was sent.
    drop(channel);
    sender.end().fails_with(1, &[&address, "it has closed"]);
}

#[test]
fn two_commands_read_a_file_for_a_pipe() {
    let test = "whole_file::two_commands_read_a_file_for_a_pipe";
    let _watchdog = watchdog(LIMIT);
    if !may_trace(test) {
        return;
    }
    let scratch = Scratch::new();
    let [input, calls] = ["input", "calls"].map(|name| scratch.path(name));
    let bytes = pattern(64 * MIB + 1, 9);
    std::fs::write(&input, &bytes).unwrap();
    let address = format!("channel:{}", unique("whole"));
    let command = env!("CARGO_BIN_EXE_onecopy");
    let arguments = ["-f", "-e", "trace=pread64", "-o", calls.to_str().unwrap(), command, "recv", &address];
    let receiver = program("strace", arguments).start();
    onecopy(["send", &address, "-i", input.to_str().unwrap()]).end().succeeds();
    let received = receiver.end().succeeds();
    assert!(received == bytes);
    let calls = std::fs::read_to_string(&calls).unwrap();
    assert!(calls.lines().any(|line| line.contains(", 131072, ") && line.ends_with(" = 131072")), "{calls}");
}

#[test]
fn two_commands_do_it() {
    let test = "whole_file::two_commands_do_it";
    let _watchdog = watchdog(LIMIT);
    if !may_trace(test) {
        return;
    }
    let scratch = Scratch::new();
    let [input, output, redirected, calls] = ["input", "output", "redirected", "calls"].map(|name| scratch.path(name));
    File::create(&input).unwrap().write_all(&pattern(16 * MIB + 1, 5)).unwrap();
    let address = format!("channel:{}", unique("whole"));
    let command = env!("CARGO_BIN_EXE_onecopy");
    let arguments = ["-f", "-e", "trace=copy_file_range", "-o", calls.to_str().unwrap(), command, "recv", &address];
    let to_file = program("strace", arguments.into_iter().chain(["-o", output.to_str().unwrap()]));
    let stdout = |command: &mut Command| {
        command.stdout(File::create(&redirected).unwrap());
    };
    for (receiver, output) in [(to_file, &output), (program("strace", arguments).with(stdout), &redirected)] {
        let receiver = receiver.start();
        onecopy(["send", &address, "-i", input.to_str().unwrap()]).end().succeeds();
        receiver.end().succeeds();
        assert!(std::fs::read(output).unwrap() == pattern(16 * MIB + 1, 5));
        let calls = std::fs::read_to_string(&calls).unwrap();
        assert!(calls.contains("copy_file_range("), "{calls}");
    }
}
