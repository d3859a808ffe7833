//! Several senders on one FIFO: `--frame` keeps each message whole.

use std::io::Write as _;
use std::time::Duration;

use crate::mechanisms::Object;
use crate::support::{Scratch, eventually, onecopy, program, watchdog};

const SENDERS: usize = 8;
const MESSAGES: usize = 10_000;

/// A line, by its sender and its number: most are short, some are longer than PIPE_BUF, and some longer than a pipe.
fn line(sender: usize, number: usize) -> String {
    let bytes = match number % 100 {
        0 => 4000 + number % 200,
        50 => 20_000 + sender,
        99 if number % 1000 == 999 => 100_000 + number,
        short => short * 3,
    };
    let filler = (b'a' + ((sender * 7 + number) % 26) as u8) as char;
    format!("{sender} {number} {}", filler.to_string().repeat(bytes))
}

#[test]
fn eight_senders_at_once_with_ten_thousand_messages_of_mixed_sizes_each() {
    let _watchdog = watchdog(Duration::from_secs(280));
    let (object, scratch) = (Object::new("fifo"), Scratch::new());
    let inputs: Vec<_> = (0..SENDERS).map(|sender| scratch.path(&format!("in{sender}"))).collect();
    for (sender, input) in inputs.iter().enumerate() {
        let lines: Vec<String> = (0..MESSAGES).map(|number| line(sender, number) + "\n").collect();
        std::fs::write(input, lines.concat()).unwrap();
    }
    let output = scratch.path("out");
    let count = (SENDERS * MESSAGES).to_string();
    let receiver = ["recv", &object.address, "--frame", "--lines", "--count", &count, "-o", output.to_str().unwrap()];
    let receiver = onecopy(receiver).start();
    let send = |input: &std::path::PathBuf| {
        onecopy(["send", &object.address, "--frame", "--lines", "-i", input.to_str().unwrap()]).start()
    };
    let senders: Vec<_> = inputs.iter().map(send).collect();
    senders.into_iter().for_each(|sender| drop(sender.end().succeeds()));
    receiver.end().succeeds();
    let received = std::fs::read_to_string(&output).unwrap();
    let mut next = [0; SENDERS];
    for text in received.lines() {
        let sender: usize = text.split(' ').next().unwrap().parse().unwrap();
        assert!(text == line(sender, next[sender]), "message {} of sender {sender} is not the next one", next[sender]);
        next[sender] += 1;
    }
    assert_eq!(next, [MESSAGES; SENDERS]);
}

#[test]
fn a_killed_sender_and_a_foreign_program_are_told_and_the_others_messages_come() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let object = Object::new("fifo");
    let receiver = onecopy(["recv", &object.address, "--frame", "--lines", "--count", "0"]).start();
    let mut broken = onecopy(["send", &object.address, "--frame"]).silent_input().start();
    // More than a part, so that the message begins, and has no end.
    broken.stdin.as_mut().unwrap().write_all(&[b'x'; 300_000]).unwrap();
    eventually("a part of the message was sent", || written_bytes(broken.pid()) > 200_000);
    onecopy(["send", &object.address, "--frame", "--lines"]).input("one\ntwo\n").end().succeeds();
    let path = object.address.strip_prefix("fifo:").unwrap();
    program("sh", ["-c", "printf 'no frame' > \"$1\"", "sh", path]).end().succeeds();
    broken.kill();
    let ended = receiver.end();
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(1), &b"one\ntwo\n"[..]), "{ended:?}");
    for told in ["8 bytes that are no frame were skipped", "message 0 of process ", "was left after ", "not everything"]
    {
        assert!(ended.stderr.contains(told), "no {told:?} in {ended:?}");
    }
    assert!(ended.stderr.lines().all(|line| line.starts_with("onecopy: ")), "{ended:?}");
}

/// How many bytes the process has passed to write calls (proc_pid_io(5)).
fn written_bytes(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn inherited_pipes_are_framed_safely_too() {
    let onecopy = env!("CARGO_BIN_EXE_onecopy");
    let script = format!(
        "{{ for i in 1 2 3 4; do seq -f \"$i %020g\" 500 | {onecopy} send fd:9 --frame --lines 9>&1 & done; wait; }} \
         | {onecopy} recv fd:0 --frame --lines --count 2000 | sort | uniq | wc -l"
    );
    assert_eq!(String::from_utf8(program("sh", ["-c", &script]).end().succeeds()).unwrap().trim(), "2000");
}
