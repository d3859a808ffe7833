//! Messages of any size on one pipe with several writing processes: whole, once, in each writer's order, whatever happens.

use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use onecopy::stream::ByteWriter as _;
use onecopy::stream::pipe::{self, MessageReader, MessageWriter, PipeReader, PipeWriter};
use onecopy::{Deadline, Error, Receiver as _, Sender as _};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::interrupt::accept_interrupts;
use crate::support::{Peer, argument, pattern, role, watchdog};

/// In front of each message that has room for it: its writer and its number.
const MARK_BYTES: usize = 5;

fn message(writer: u8, number: u32, bytes: usize) -> Vec<u8> {
    let mut message = pattern(bytes, u64::from(writer) << 32 | u64::from(number));
    if bytes >= MARK_BYTES {
        message[0] = writer;
        message[1..MARK_BYTES].copy_from_slice(&number.to_le_bytes());
    }
    message
}

fn mark(message: &[u8]) -> (u8, u32) {
    (message[0], u32::from_le_bytes(message[1..MARK_BYTES].try_into().unwrap()))
}

/// Starts this test in a process that writes to `pipe`, which it has as its stdin, where the harness prints nothing.
fn writer_process(test: &str, role: &str, pipe: &PipeWriter, arguments: &[(&str, &str)]) -> Peer {
    Peer::configure(test, role, arguments, |command| {
        command.stdin(Stdio::from(pipe.as_fd().try_clone_to_owned().unwrap()));
    })
}

fn inherited_pipe() -> PipeWriter {
    PipeWriter::from_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap(), "fd:0").unwrap()
}

/// What one writer of a case does.
#[derive(Clone, Debug)]
struct Plan {
    /// How long a call may wait: not at all, some microseconds, or for as long as it takes.
    patience_us: Option<u64>,
    sizes: Vec<usize>,
}

impl Plan {
    fn any() -> impl Strategy<Value = Self> {
        let size = prop_oneof![Just(0), 1..100usize, 4000..4200usize, 0..100_000usize, 1_000_000..=1_048_576usize,];
        let patience = prop_oneof![Just(None), Just(Some(0)), Just(Some(300))];
        (patience, prop::collection::vec(size, 0..7)).prop_map(|(patience_us, sizes)| Self { patience_us, sizes })
    }

    fn run(&self, tag: u8) {
        let mut writer = MessageWriter::new(inherited_pipe());
        let deadline = || match self.patience_us {
            None => Deadline::Never,
            Some(0) => Deadline::Now,
            Some(us) => Deadline::after(Duration::from_micros(us)),
        };
        let again = |result: onecopy::Result<()>| match result {
            Err(error) => {
                assert!(error.is_out_of_time(), "{error}");
                std::thread::sleep(Duration::from_micros(50));
                true
            }
            Ok(()) => false,
        };
        for (number, size) in self.sizes.iter().enumerate() {
            let message = message(tag, number as u32, *size);
            while again(writer.send_by(&message, deadline())) {}
        }
        while again(writer.flush_by(deadline())) {}
    }
}

#[derive(Clone, Debug)]
struct Case {
    writers: Vec<Plan>,
    capacity_log2: u32,
    slow: bool,
    signals: bool,
    way: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let writers = prop::collection::vec(Plan::any(), 1..=8);
    (writers, 12..=20u32, any::<bool>(), any::<bool>(), 0..4usize)
        .prop_map(|(writers, capacity_log2, slow, signals, way)| Case { writers, capacity_log2, slow, signals, way })
}

const PROPERTY: &str = "pipe_messages::every_message_comes_whole_once_and_in_the_order_of_its_writer";

#[test]
fn every_message_comes_whole_once_and_in_the_order_of_its_writer() {
    if role().is_some() {
        accept_interrupts();
        let numbers =
            |name: &str| argument(name).split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<u64>>();
        let sizes = numbers("sizes").into_iter().map(|size| size as usize).collect();
        let plan = Plan { patience_us: numbers("patience").first().copied(), sizes };
        return plan.run(argument("tag").parse().unwrap());
    }
    let _watchdog = watchdog(Duration::from_secs(900));
    let cases_to_run = if std::env::var_os("ONECOPY_SOAK").is_some() { 400 } else { 24 };
    let mut runner = TestRunner::new(Config { cases: cases_to_run, max_shrink_iters: 60, ..Config::default() });
    runner.run(&cases(), |case| check(&case)).unwrap_or_else(|error| panic!("{error}"));
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let (reader, writer) = pipe::pair().unwrap();
    // Without CAP_SYS_RESOURCE a user with many pipes may not enlarge one.
    let _ = writer.set_capacity_bytes(1 << case.capacity_log2);
    let start = |(tag, plan): (usize, &Plan)| {
        let sizes = plan.sizes.iter().map(|size| size.to_string()).collect::<Vec<_>>().join(" ");
        let patience = plan.patience_us.map_or_else(String::new, |us| us.to_string());
        let arguments = [("tag", &*tag.to_string()), ("sizes", &sizes), ("patience", &patience)];
        writer_process(PROPERTY, "writer", &writer, &arguments)
    };
    let peers: Vec<Peer> = case.writers.iter().enumerate().map(start).collect();
    drop(writer);
    let received = std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let pids: Vec<u32> = peers.iter().filter(|_| case.signals).map(Peer::pid).collect();
        scope.spawn(move || annoy(&pids, &stopped));
        let received = receive_all(case, reader);
        drop(stop);
        received
    });
    for peer in peers {
        peer.succeed();
    }
    let mut expected: Vec<std::collections::VecDeque<Vec<u8>>> = (case.writers.iter().enumerate())
        .map(|(tag, plan)| plan.sizes.iter().enumerate().map(|(n, size)| message(tag as u8, n as u32, *size)).collect())
        .collect();
    let marked = |message: &Vec<u8>| message.len() >= MARK_BYTES;
    for messages in &mut expected {
        messages.retain(marked);
    }
    for message in received.iter().filter(|message| marked(message)) {
        let (tag, number) = mark(message);
        let next = expected.get_mut(usize::from(tag)).and_then(std::collections::VecDeque::pop_front);
        prop_assert!(next.as_ref() == Some(message), "message {number} of writer {tag} is not the next one");
    }
    prop_assert!(expected.iter().all(std::collections::VecDeque::is_empty), "messages are missing");
    let short = case.writers.iter().flat_map(|plan| &plan.sizes).filter(|size| **size < MARK_BYTES).count();
    prop_assert_eq!(received.iter().filter(|message| !marked(message)).count(), short);
    Ok(())
}

/// Interrupts the writers again and again.
fn annoy(pids: &[u32], stopped: &std::sync::mpsc::Receiver<()>) {
    // A process that has no handler yet would die of the signal.
    std::thread::sleep(Duration::from_millis(1));
    while stopped.recv_timeout(Duration::from_micros(300)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        for pid in pids.iter().filter(|pid| handles_sigusr1(**pid)) {
            let process = rustix::process::Pid::from_raw(*pid as i32).unwrap();
            let _ = rustix::process::kill_process(process, rustix::process::Signal::USR1);
        }
    }
}

/// Whether the process catches SIGUSR1, the signal 10 (proc_pid_status(5)).
fn handles_sigusr1(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & (1 << 9) != 0)
}

fn receive_all(case: &Case, reader: PipeReader) -> Vec<Vec<u8>> {
    let mut reader = MessageReader::new(reader);
    let mut received = Vec::new();
    loop {
        if case.slow {
            std::thread::sleep(Duration::from_micros(500));
        }
        let deadline = Deadline::after(Duration::from_secs(60));
        let next = match case.way {
            0 => reader.recv(),
            1 => reader.recv_by(deadline),
            2 => receive_into(&mut reader),
            _ => receive_parts(&mut reader),
        };
        match next.unwrap_or_else(|error| panic!("after {} messages: {error}", received.len())) {
            Some(message) => received.push(message),
            None => return received,
        }
    }
}

fn receive_into(reader: &mut MessageReader) -> onecopy::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 1 << 19];
    loop {
        match reader.recv_into(&mut buffer) {
            Err(Error::BufferTooSmall { message_bytes, .. }) => buffer.resize(message_bytes, 0),
            result => return result.map(|bytes| bytes.map(|bytes| buffer[..bytes].to_vec())),
        }
    }
}

fn receive_parts(reader: &mut MessageReader) -> onecopy::Result<Option<Vec<u8>>> {
    let (mut message, mut buffer) = (Vec::new(), vec![0; 10_000]);
    while let Some(part) = reader.recv_part_by(&mut buffer, Deadline::Never)? {
        message.extend_from_slice(&buffer[..part.bytes]);
        if part.last {
            return Ok(Some(message));
        }
    }
    assert!(message.is_empty(), "the end in the middle of a message");
    Ok(None)
}

const MIXED: &str = "pipe_messages::long_messages_that_share_writes_and_short_ones_in_between_leave_each_other_whole";
const SHORT_WRITERS: u8 = 4;
const WRITERS: u8 = 8;

/// The messages of writer `tag`: short ones, of which many share a page of the pipe, or long ones, of which many pages share a
/// write.
fn mixed(tag: u8) -> Vec<Vec<u8>> {
    let sizes: Vec<usize> = match tag {
        0..SHORT_WRITERS => (0..1000).map(|number| MARK_BYTES + number * 37 % 700).collect(),
        _ => (0..12).map(|number| 4032 * (1 + number * 3) + [0, 1, 4031][number % 3]).collect(),
    };
    sizes.iter().enumerate().map(|(number, size)| message(tag, number as u32, *size)).collect()
}

#[test]
fn long_messages_that_share_writes_and_short_ones_in_between_leave_each_other_whole() {
    if role().is_some() {
        let mut writer = MessageWriter::new(inherited_pipe());
        let messages = mixed(argument("tag").parse().unwrap());
        for _ in 0..argument("times").parse().unwrap() {
            messages.iter().for_each(|message| writer.send(message).unwrap());
        }
        return;
    }
    let times = if std::env::var_os("ONECOPY_SOAK").is_some() { 100 } else { 2 };
    let _watchdog = watchdog(Duration::from_secs(120 + 4 * times));
    for capacity_bytes in [4096, 8192, 1 << 16, 1 << 20] {
        let (reader, writer) = pipe::pair().unwrap();
        // Without CAP_SYS_RESOURCE a user with many pipes may not enlarge one.
        let _ = writer.set_capacity_bytes(capacity_bytes);
        let start = |tag: u8| {
            writer_process(MIXED, "writer", &writer, &[("tag", &*tag.to_string()), ("times", &times.to_string())])
        };
        let peers: Vec<Peer> = (0..WRITERS).map(start).collect();
        drop(writer);
        let expected: Vec<Vec<Vec<u8>>> = (0..WRITERS).map(mixed).collect();
        let mut next = [0; WRITERS as usize];
        let mut reader = MessageReader::new(reader);
        while let Some(received) = reader.recv().unwrap_or_else(|error| panic!("capacity {capacity_bytes}: {error}")) {
            let tag = usize::from(mark(&received).0);
            let number = next[tag] % expected[tag].len();
            assert!(received == expected[tag][number], "message {number} of writer {tag}, capacity {capacity_bytes}");
            next[tag] += 1;
        }
        let sent = expected.iter().map(|messages| messages.len() * times as usize);
        assert!(next.into_iter().eq(sent), "{next:?}, capacity {capacity_bytes}");
        peers.into_iter().for_each(Peer::succeed);
    }
}

const KILLS: &str = "pipe_messages::killed_writers_are_reported_once_and_stand_in_nobodys_way";
const SURVIVORS: u8 = 2;
const SURVIVOR_MESSAGES: u32 = 6;
/// More than all that the writers of a round can have under way.
const MEMORY_BYTES: usize = 4 << 20;

#[test]
fn killed_writers_are_reported_once_and_stand_in_nobodys_way() {
    match role().as_deref() {
        Some("survivor") => {
            let mut writer = MessageWriter::new(inherited_pipe());
            let (tag, round): (u8, u32) = (argument("tag").parse().unwrap(), argument("round").parse().unwrap());
            for number in 0..SURVIVOR_MESSAGES {
                writer.send(&message(tag, round * SURVIVOR_MESSAGES + number, survivor_bytes(tag, number))).unwrap();
            }
            return;
        }
        Some(_) => {
            let mut writer = MessageWriter::new(inherited_pipe());
            for number in 0.. {
                // Whoever started this process is gone: so is the pipe.
                if writer.send(&message(u8::MAX, number, 1 << 20)).is_err() {
                    return;
                }
            }
            return;
        }
        None => {}
    }
    let rounds = if std::env::var_os("ONECOPY_SOAK").is_some() { 1000 } else { 50 };
    let _watchdog = watchdog(Duration::from_secs(120 + u64::from(rounds)));
    // The pipe is never at its end, so nothing but a look at the processes can tell that a message has no end.
    let (reader, writer) = pipe::pair().unwrap();
    let mut reader = MessageReader::new(reader);
    reader.set_total_limit_bytes(MEMORY_BYTES);
    // Nearly all are killed in the middle of a message; a busy machine may need some more rounds.
    let (mut round, mut reports) = (0, 0);
    while round < rounds || reports <= rounds / 4 {
        reports += kill_round(&mut reader, &writer, round);
        round += 1;
    }
    drop(writer);
    assert_eq!(reader.recv().unwrap(), None);
    println!("{round} rounds, {reports} messages without an end");
}

fn survivor_bytes(tag: u8, number: u32) -> usize {
    [64, 5000, 300_000, 0, 4032, 100_000][(usize::from(tag) + number as usize) % 6].max(MARK_BYTES)
}

/// Kills one of three writers some time while they all write, and returns how many messages were reported as broken.
fn kill_round(reader: &mut MessageReader, pipe: &PipeWriter, round: u32) -> u32 {
    let argument = round.to_string();
    let start =
        |role: &str, tag: u8| writer_process(KILLS, role, pipe, &[("tag", &*tag.to_string()), ("round", &argument)]);
    let mut victim = start("victim", u8::MAX);
    let survivors: Vec<Peer> = (0..SURVIVORS).map(|tag| start("survivor", tag)).collect();
    let (begun, begins) = std::sync::mpsc::channel();
    let kill = std::thread::spawn(move || {
        let _ = begins.recv_timeout(Duration::from_secs(20));
        std::thread::sleep(Duration::from_micros(u64::from(round * 7919 % 5000)));
        victim.kill();
    });
    let (mut left, mut reports, mut victims_next) = (u32::from(SURVIVORS) * SURVIVOR_MESSAGES, 0, 0);
    let mut next = [round * SURVIVOR_MESSAGES; SURVIVORS as usize];
    loop {
        // The killed one's last whole message and its broken one may come after everything else, and its begin last of all.
        let is_settled = left == 0 && kill.is_finished() && reader.unfinished_messages() == 0;
        let patience = if is_settled { 20 } else { 300 };
        match reader.recv_by(Deadline::after(Duration::from_millis(patience))) {
            Ok(Some(received)) => {
                let (tag, number) = mark(&received);
                if tag == u8::MAX {
                    assert!(number == victims_next && received == message(tag, number, 1 << 20), "{number}");
                    victims_next += 1;
                    let _ = begun.send(());
                } else {
                    let place = number % SURVIVOR_MESSAGES;
                    assert_eq!(number, next[usize::from(tag)], "message {place} of writer {tag}, round {round}");
                    assert!(received == message(tag, number, survivor_bytes(tag, place)), "message {place} of {tag}");
                    next[usize::from(tag)] += 1;
                    left -= 1;
                }
            }
            Ok(None) => panic!("the end, though this process has the pipe open"),
            Err(error) if error.is_out_of_time() && is_settled && reader.unfinished_messages() == 0 => break,
            Err(error) if error.is_out_of_time() => {}
            Err(error) => {
                assert!(error.is_peer_gone() && error.to_string().contains("of 1048576 bytes"), "{error}");
                reports += 1;
            }
        }
        assert!(reader.held_bytes() <= MEMORY_BYTES, "{} bytes are held", reader.held_bytes());
    }
    kill.join().unwrap();
    survivors.into_iter().for_each(Peer::succeed);
    assert!(reports <= 1, "one broken message was reported {reports} times");
    assert_eq!((reader.held_bytes(), reader.unfinished_messages()), (0, 0), "round {round}");
    reports
}

const GARBAGE: &str = "pipe_messages::what_another_program_writes_into_the_pipe_is_skipped_and_told";

#[test]
fn what_another_program_writes_into_the_pipe_is_skipped_and_told() {
    match role().as_deref() {
        Some("writer") => {
            let mut writer = MessageWriter::new(inherited_pipe());
            return (0..40).for_each(|number| writer.send(&message(1, number, 100_000)).unwrap());
        }
        Some(_) => {
            let mut pipe = inherited_pipe();
            for number in 0..300 {
                // Of all lengths, also of those that the kernel tears, and with what a frame begins with.
                let garbage = [&b"1cpm\x01"[..], &pattern(1 + number * 37 % 9000, number as u64)].concat();
                pipe.write_all_by(&garbage, Deadline::Never).unwrap();
            }
            return;
        }
        None => {}
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    let (reader, writer) = pipe::pair().unwrap();
    let peers = [writer_process(GARBAGE, "garbage", &writer, &[]), writer_process(GARBAGE, "writer", &writer, &[])];
    drop(writer);
    let mut reader = MessageReader::new(reader);
    let (mut next, mut skipped) = (0, 0);
    loop {
        match reader.recv() {
            Ok(Some(received)) => {
                assert!(received == message(1, next, 100_000), "message {next}");
                next += 1;
            }
            Ok(None) => break,
            Err(Error::Corrupt { detail, .. }) => {
                assert!(detail.contains("no frame"), "{detail}");
                skipped += detail.split_whitespace().next().unwrap().parse::<usize>().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    let written: usize = (0..300).map(|number| 5 + 1 + number * 37 % 9000).sum();
    assert_eq!((next, skipped), (40, written), "each message, and each foreign byte");
    peers.into_iter().for_each(Peer::succeed);
}

#[test]
fn a_reader_that_comes_late_tells_what_it_missed_and_takes_what_comes() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (reader, writer) = pipe::pair().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send_part_by(&pattern(9000, 1), false, Deadline::Never).unwrap();
    let mut first = MessageReader::new(reader);
    let mut taken = 0;
    while taken < 9000 {
        taken += first.recv_part_by(&mut [0; 9000], Deadline::Never).unwrap().unwrap().bytes;
    }
    let mut late = MessageReader::new(first.into_inner());
    writer.send_part_by(&pattern(9000, 2), true, Deadline::Never).unwrap();
    writer.send(b"whole").unwrap();
    let error = late.recv().unwrap_err();
    assert!(error.to_string().contains("message 0 of process") && error.to_string().contains("missing"), "{error}");
    assert_eq!(late.recv().unwrap().as_deref(), Some(&b"whole"[..]));
    drop(writer);
    assert_eq!(late.recv().unwrap(), None);
}

#[test]
fn a_killed_writer_is_reported_at_the_end_of_file_after_all_that_was_whole() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (reader, writer) = pipe::pair().unwrap();
    let mut broken = MessageWriter::new(writer.try_clone().unwrap());
    let mut whole = MessageWriter::new(writer);
    broken.send_part_by(&[1; 5000], false, Deadline::Never).unwrap();
    whole.send(b"whole").unwrap();
    drop((broken, whole));
    let mut reader = MessageReader::new(reader);
    assert_eq!(reader.recv().unwrap().as_deref(), Some(&b"whole"[..]));
    let error = reader.recv().unwrap_err();
    assert!(error.is_peer_gone() && error.to_string().contains("after 5000 bytes"), "{error}");
    assert_eq!(reader.recv().unwrap(), None);
}

#[test]
fn limits_are_errors_with_both_numbers_and_other_messages_come() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (reader, writer) = pipe::pair().unwrap();
    writer.set_capacity_bytes(1 << 18).unwrap();
    let mut one = MessageWriter::new(writer.try_clone().unwrap());
    let mut other = MessageWriter::new(writer);
    let mut reader = MessageReader::new(reader);
    reader.set_limit_bytes(50_000);
    reader.set_total_limit_bytes(60_000);
    one.send(&[1; 50_001]).unwrap();
    other.send(&[2; 50_000]).unwrap();
    one.send_part_by(&[3; 40_000], false, Deadline::Never).unwrap();
    other.send(&[4; 30_000]).unwrap();
    one.send_part_by(&[3; 4000], true, Deadline::Never).unwrap();
    let long = reader.recv().unwrap_err();
    assert!(matches!(long, Error::TooLong { message_bytes: 50_001, limit_bytes: 50_000, .. }), "{long}");
    assert_eq!(reader.recv().unwrap(), Some(vec![2; 50_000]));
    let beside = reader.recv().unwrap_err();
    assert!(matches!(beside, Error::TooLong { message_bytes: 30_000, limit_bytes: 60_000, .. }), "{beside}");
    assert!(beside.to_string().contains("set_total_limit_bytes"), "{beside}");
    assert_eq!(reader.recv().unwrap(), Some(vec![3; 44_000]));
    one.send_part_by(&[5; 50_000], false, Deadline::Never).unwrap();
    one.send_part_by(&[5; 1], true, Deadline::Never).unwrap();
    let grown = reader.recv().unwrap_err();
    assert!(matches!(grown, Error::TooLong { limit_bytes: 50_000, .. }), "{grown}");
    assert_eq!(reader.held_bytes(), 0);
    one.send(b"after").unwrap();
    assert_eq!(reader.recv().unwrap().as_deref(), Some(&b"after"[..]));
}

#[test]
fn a_message_that_did_not_fit_is_gone_on_with_and_no_byte_is_lost_or_doubled() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (reader, writer) = pipe::pair().unwrap();
    writer.set_capacity_bytes(4096).unwrap();
    let mut writer = MessageWriter::new(writer);
    let mut reader = MessageReader::new(reader);
    let (first, second) = (pattern(100_000, 1), pattern(20_000, 2));
    writer.send_by(&first, Deadline::Now).unwrap();
    assert!(writer.pending_bytes() > 0, "accepted with its first frame");
    assert!(writer.send_by(&second, Deadline::Now).unwrap_err().is_out_of_time(), "nothing of this one went");
    let mut received = Vec::new();
    let mut sent = false;
    while received.len() < 2 {
        match reader.recv_by(Deadline::Now) {
            Ok(message) => received.extend(message),
            Err(error) => assert!(error.is_out_of_time(), "{error}"),
        }
        sent = sent || writer.send_by(&second, Deadline::Now).is_ok();
        let _ = writer.flush_by(Deadline::Now);
    }
    assert!(received == [first, second]);
    drop(writer);
    assert_eq!(reader.recv().unwrap(), None);
}

#[test]
fn a_reader_with_a_deadline_waits_as_long_as_it_says_and_loses_nothing() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (reader, writer) = pipe::pair().unwrap();
    let mut writer = MessageWriter::new(writer);
    let mut reader = MessageReader::new(reader);
    writer.send_part_by(&[1; 10_000], false, Deadline::Never).unwrap();
    let (start, mut buffer) = (Instant::now(), vec![0; 65_536]);
    let error = reader.recv_into_by(&mut buffer, Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
    writer.send_part_by(&[2; 10], true, Deadline::Never).unwrap();
    let error = reader.recv_into_by(&mut [0; 100], Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { message_bytes: 10_010, buffer_bytes: 100, .. }), "{error}");
    assert_eq!(reader.recv_into_by(&mut buffer, Deadline::Now).unwrap(), Some(10_010));
    assert!(buffer[..10_000] == [1; 10_000] && buffer[10_000..10_010] == [2; 10]);
}

#[test]
fn each_byte_is_copied_once_by_each_side() {
    let _watchdog = watchdog(Duration::from_secs(60));
    use onecopy::Tally;
    let (reader, writer) = pipe::pair().unwrap();
    writer.set_capacity_bytes(1 << 20).unwrap();
    let mut writers = [MessageWriter::new(writer.try_clone().unwrap()), MessageWriter::new(writer)];
    let mut reader = MessageReader::new(reader);
    let mut buffer = vec![0; 1 << 20];
    let before = Tally::now();
    for round in 0..4 {
        writers[0].send(&vec![round; 500_000]).unwrap();
        assert_eq!(reader.recv_into(&mut buffer).unwrap(), Some(500_000));
    }
    let copied = Tally::now().since(before).user_bytes;
    assert!(copied < 4096, "one writer, into the caller's buffer: {copied} bytes were copied in user space");
    let before = Tally::now();
    for part in 0..30 {
        for writer in &mut writers {
            writer.send_part_by(&[part; 4000], part == 29, Deadline::Never).unwrap();
        }
    }
    let messages = [reader.recv().unwrap().unwrap(), reader.recv().unwrap().unwrap()];
    assert_eq!(messages.map(|message| message.len()), [120_000; 2]);
    let copied = Tally::now().since(before).user_bytes;
    assert!(copied < 8192, "two writers in turns: {copied} bytes were copied in user space");
}
