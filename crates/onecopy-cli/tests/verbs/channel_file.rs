//! A file through a channel: its exact bytes, what becomes of it when somebody changes the file, and what else can be named as one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::permissions::is_root;
use crate::support::{Running, Scratch, eventually, onecopy, pattern, program, skip, unique, watchdog};

const LIMIT: Duration = Duration::from_secs(280);
const MIB: usize = 1 << 20;

/// A channel, and two files.
struct Stage {
    address: String,
    input: PathBuf,
    output: PathBuf,
    _scratch: Scratch,
}

impl Stage {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (input, output) = (scratch.path("input"), scratch.path("output"));
        Self { address: format!("channel:{}", unique("file")), input, output, _scratch: scratch }
    }

    /// One with an input of `bytes`.
    fn with(bytes: &[u8]) -> Self {
        let stage = Self::new();
        std::fs::write(&stage.input, bytes).unwrap();
        stage
    }

    fn recv(&self) -> Running {
        let output = self.output.as_os_str();
        onecopy(["recv".as_ref(), self.address.as_ref(), "--timeout".as_ref(), "60s".as_ref(), "-o".as_ref(), output])
            .start()
    }

    fn send(&self, timeout: &str) -> Running {
        let input = self.input.as_os_str();
        onecopy(["send".as_ref(), self.address.as_ref(), "--timeout".as_ref(), timeout.as_ref(), "-i".as_ref(), input])
            .start()
    }

    /// A transfer that stands still in the middle: into a FIFO that nobody reads further.
    fn stopped(&self, timeout: &str) -> (Running, Running, File) {
        program("mkfifo", [&self.output]).end().succeeds();
        let (receiver, sender) = (self.recv(), self.send(timeout));
        let mut fifo = File::open(&self.output).unwrap();
        fifo.read_exact(&mut [0]).unwrap();
        sender.wait_until_asleep();
        (receiver, sender, fifo)
    }
}

/// What is left in a FIFO.
fn rest(mut fifo: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    fifo.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Without the bytes themselves, which nobody wants to see when they differ.
fn digest(path: &Path) -> (u64, String) {
    let bytes = std::fs::read(path).unwrap();
    (bytes.len() as u64, format!("{:x?}", Sha256::digest(&bytes)))
}

#[test]
fn files_of_all_sizes_arrive_as_they_are() {
    let _watchdog = watchdog(LIMIT);
    for size in [0, 1, 4095, 4096, 4097, 65_536, (256 << 10) + 1, MIB - 1, MIB, MIB + 1, 64 * MIB + 3] {
        let stage = Stage::with(&pattern(size, 5));
        let receiver = stage.recv();
        stage.send("60s").end().succeeds();
        // The sender ends when the receiver has done its part.
        assert_eq!(digest(&stage.output), digest(&stage.input), "{size} bytes");
        receiver.end().succeeds();
    }
}

#[test]
fn a_longer_file_is_replaced_by_the_one_that_came_and_stays_if_the_receiver_is_killed() {
    let _watchdog = watchdog(LIMIT);
    let stage = Stage::with(&pattern(5 * MIB + 7, 15));
    std::fs::write(&stage.output, pattern(9 * MIB, 16)).unwrap();
    let before = digest(&stage.output);
    let mut receiver = stage.recv();
    let mut sender = onecopy(["send", &stage.address, "--timeout", "60s"]).silent_input().start();
    sender.stdin.as_mut().unwrap().write_all(&pattern(3 * MIB, 17)).unwrap();
    sender.wait_until_asleep();
    receiver.kill();
    sender.end().fails_with(1, &[&stage.address]);
    assert_eq!(digest(&stage.output), before);

    let receiver = stage.recv();
    stage.send("60s").end().succeeds();
    receiver.end().succeeds();
    assert_eq!(digest(&stage.output), digest(&stage.input));
    assert_eq!(std::fs::read_dir(stage.output.parent().unwrap()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn a_file_that_is_shortened_is_an_error_on_both_sides() {
    let _watchdog = watchdog(LIMIT);
    for (bytes, told) in [(100, "from 67108864 to 100 bytes"), (0, "from 67108864 to 0 bytes")] {
        let stage = Stage::with(&pattern(64 * MIB, 6));
        let (receiver, sender, fifo) = stage.stopped("60s");
        File::options().write(true).open(&stage.input).unwrap().set_len(bytes).unwrap();
        let received = rest(fifo);
        assert!(received == pattern(64 * MIB, 6)[1..=received.len()], "what came is what was there");
        // Both read it, and who comes to its end first says so; the other one may hear no more than that this one has gone.
        let [sender, receiver] = [sender.end(), receiver.end()];
        let is_told = [&sender, &receiver].map(|side| side.stderr.contains("was shortened"));
        assert!(is_told.contains(&true), "{sender:?} {receiver:?}");
        match is_told[0] {
            true => sender.fails_with(1, &["input was shortened", told]),
            false => sender.fails_with(1, &[&stage.address]),
        }
        match is_told[1] {
            true => receiver.fails_with(1, &[&stage.address, "the sender's file has ended"]),
            false => receiver.fails_with(1, &[&stage.address, "exited"]),
        }
    }
}

#[test]
fn what_a_file_has_gained_meanwhile_arrives_too() {
    let _watchdog = watchdog(LIMIT);
    let stage = Stage::with(&pattern(64 * MIB, 7));
    let (receiver, sender, fifo) = stage.stopped("60s");
    File::options().append(true).open(&stage.input).unwrap().write_all(&pattern(MIB + 7, 8)).unwrap();
    assert!(rest(fifo) == std::fs::read(&stage.input).unwrap()[1..]);
    sender.end().succeeds();
    receiver.end().succeeds();
}

#[test]
fn the_end_of_either_side_in_the_middle_is_noticed_by_the_other() {
    let _watchdog = watchdog(LIMIT);
    let stage = Stage::with(&pattern(64 * MIB, 9));
    let (receiver, mut sender, fifo) = stage.stopped("60s");
    sender.kill();
    // What was sent before is still there.
    let received = rest(fifo);
    assert!(received == pattern(64 * MIB, 9)[1..=received.len()] && received.len() >= MIB);
    receiver.end().fails_with(1, &[&stage.address, "exited"]);

    let stage = Stage::with(&pattern(64 * MIB, 9));
    let (mut receiver, sender, _fifo) = stage.stopped("60s");
    receiver.kill();
    sender.end().fails_with(1, &[&stage.address, "exited"]);
}

#[test]
fn a_receiver_that_takes_nothing_stops_its_sender_in_time() {
    let _watchdog = watchdog(LIMIT);
    let stage = Stage::with(&pattern(64 * MIB, 10));
    let (_receiver, sender, _fifo) = stage.stopped("10s");
    sender.end().fails_with(124, &[&stage.address, "timed out", "4194304 bytes"]);
}

#[test]
fn a_fifo_and_a_pipe_are_read_to_their_end() {
    let _watchdog = watchdog(LIMIT);
    let stage = Stage::new();
    program("mkfifo", [&stage.input]).end().succeeds();
    let receiver = stage.recv();
    let sender = stage.send("60s");
    let mut fifo = File::options().write(true).open(&stage.input).unwrap();
    for piece in pattern(3 * MIB + 1, 11).chunks(700_001) {
        fifo.write_all(piece).unwrap();
    }
    drop(fifo);
    sender.end().succeeds();
    receiver.end().succeeds();
    assert!(std::fs::read(&stage.output).unwrap() == pattern(3 * MIB + 1, 11));

    let receiver = stage.recv();
    let script = "head -c 3000001 /dev/zero | \"$0\" send \"$1\" --timeout 60s";
    program("sh", ["-c", script, env!("CARGO_BIN_EXE_onecopy"), &stage.address]).end().succeeds();
    receiver.end().succeeds();
    assert!(std::fs::read(&stage.output).unwrap() == vec![0; 3_000_001]);
}

#[test]
fn what_comes_through_a_pipe_arrives_before_there_is_more() {
    let _watchdog = watchdog(LIMIT);
    let stage = Stage::new();
    let receiver = onecopy(["recv", &stage.address, "--timeout", "60s"]).start();
    let mut sender = onecopy(["send", &stage.address, "--timeout", "60s"]).silent_input().start();
    for (rounds, piece) in (1..).zip([b"one".to_vec(), pattern(100_000, 12), b"two".to_vec()]) {
        let before = receiver.stdout_so_far().len();
        sender.stdin.as_mut().unwrap().write_all(&piece).unwrap();
        eventually("the piece arrives", || receiver.stdout_so_far().len() == before + piece.len());
        assert!(receiver.stdout_so_far().ends_with(&piece), "piece {rounds}");
    }
    sender.end().succeeds();
    receiver.end().succeeds();
}

#[test]
fn a_sender_that_may_make_no_memory_for_both_copies() {
    let _watchdog = watchdog(LIMIT);
    let stage = Stage::with(&pattern(5 * MIB + 3, 13));
    let receiver = stage.recv();
    // A limit on the length of files is one on memory that has a descriptor.
    let script = "ulimit -f 1; exec \"$0\" send \"$1\" -i \"$2\" --timeout 60s";
    let arguments = ["-c".as_ref(), script.as_ref(), env!("CARGO_BIN_EXE_onecopy").as_ref(), stage.address.as_ref()];
    program("sh", arguments.into_iter().chain([stage.input.as_os_str()])).end().succeeds();
    receiver.end().succeeds();
    assert_eq!(digest(&stage.output), digest(&stage.input));
}

#[test]
fn a_full_disk_is_told_to_both_sides() {
    let test = "a_full_disk_is_told_to_both_sides";
    let _watchdog = watchdog(LIMIT);
    if !is_root() {
        return skip(test, "only root mounts a small file system");
    }
    let stage = Stage::with(&pattern(8 * MIB, 14));
    let scratch = Scratch::new();
    let directory = scratch.path("mount");
    std::fs::create_dir(&directory).unwrap();
    // It goes with the last process of the name space.
    let script =
        "mount -t tmpfs -o size=1m none \"$2\" || exit 77; exec \"$0\" recv \"$1\" -o \"$2/file\" --timeout 60s";
    let arguments = ["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_onecopy"), &stage.address];
    let receiver =
        program("unshare", arguments.iter().map(std::ffi::OsStr::new).chain([directory.as_os_str()])).start();
    let sender = stage.send("60s");
    let ended = receiver.end();
    if !matches!(ended.status.code(), Some(0 | 1)) || ended.stderr.contains("unshare") {
        return skip(test, "no mount name space");
    }
    ended.fails_with(1, &["cannot write", "No space left"]);
    sender.end().fails_with(1, &[&stage.address]);
}
