//! What safe messages cost on a pipe: `cargo run --release -p onecopy --example pipe_message_figures`. It ends with 1 when reader
//! and writer have a core each and messages reach less than 0.85 of plain writes of the same length.
//!
//! A second process writes the same bytes into a pipe of the default capacity, by [`MessageWriter`] and by plain write(2) calls of
//! a whole message each, in turns and in both orders, and this process reads them, by [`MessageReader`] and by plain read(2).
//! It prints the ratio of the two, and for comparison that to plain writes of 4096 bytes, and both once more with reader and writer
//! on one core: there nothing hides the processor time of headers and checksums. Each message has its number in each of its pages, which are checked; after the timed runs, one of each kind is
//! checked to the byte.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Instant;

use onecopy::stream::pipe::{self, MessageReader, MessageWriter, PipeReader, PipeWriter};
use onecopy::{Receiver as _, Sender as _, Tally};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const SIZES: [usize; 2] = [64 << 10, 1 << 20];
/// How much each run moves.
const RUN_BYTES: usize = 64 << 20;
/// Pairs of runs: the ratio is the median of theirs, since others may use the machine.
const PAIRS: usize = 9;
const PAGE: usize = 4096;

/// How the bytes go through the pipe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Safe with several writers.
    Frames,
    /// write(2) of a whole message, read(2) of what is there.
    Whole,
    /// write(2) of a page, read(2) of what is there.
    Pages,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [way, size, count, core] = &arguments[..] {
        pin(core.parse().unwrap());
        return write(way, size.parse().unwrap(), count.parse().unwrap());
    }
    let allowed = sched_getaffinity(None).unwrap();
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let reader = cores.next().unwrap();
    pin(reader);
    let mut is_good = true;
    match cores.next() {
        Some(writer) => SIZES.into_iter().for_each(|size| is_good &= show(size, writer, "a core each") >= 0.85),
        None => println!("there is one core only, so there is nothing to compare with a limit"),
    }
    for size in SIZES {
        show(size, reader, "one core");
    }
    std::process::exit(i32::from(!is_good));
}

/// Prints what messages of `size` bytes reach, and returns the ratio to plain writes as long, with the writer on the core `writer`.
fn show(size: usize, writer: usize, how: &str) -> f64 {
    let whole = compare(size, Way::Whole, writer);
    let pages = compare(size, Way::Pages, writer);
    println!(
        "{size:8} B, {how}: messages reach {whole:.2} of plain writes of {size} B, {pages:.2} of plain writes of {PAGE} B"
    );
    for way in [Way::Frames, Way::Whole, Way::Pages] {
        run(way, size, true, writer);
    }
    whole
}

/// Keeps this process on one core.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).unwrap();
}

/// The median ratio of the rates of frames and of `plain`, in pairs of runs.
fn compare(size: usize, plain: Way, writer: usize) -> f64 {
    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        let (ours, theirs) = if pair % 2 == 0 {
            let first = run(Way::Frames, size, false, writer);
            (first, run(plain, size, false, writer))
        } else {
            let first = run(plain, size, false, writer);
            (run(Way::Frames, size, false, writer), first)
        };
        pairs.push((ours / theirs, ours, theirs));
    }
    pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (ratio, ours, theirs) = pairs[PAIRS / 2];
    println!("{size:8} B: {:.2} GB/s in messages, {:.2} GB/s {}", ours / 1e9, theirs / 1e9, plain.name());
    ratio
}

impl Way {
    const ALL: [Self; 3] = [Self::Frames, Self::Whole, Self::Pages];

    fn name(self) -> &'static str {
        match self {
            Self::Frames => "in messages",
            Self::Whole => "in plain writes of a message",
            Self::Pages => "in plain writes of a page",
        }
    }
}

/// Reads what a second process writes on `core`, and returns the bytes a second.
fn run(way: Way, size: usize, check_all: bool, core: usize) -> f64 {
    let (reader, writer) = pipe::pair().unwrap();
    let count = RUN_BYTES / size;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([way.name(), &size.to_string(), &count.to_string(), &core.to_string()])
        .stdout(Stdio::from(writer.as_fd().try_clone_to_owned().unwrap()))
        .spawn()
        .unwrap();
    drop(writer);
    let mut buffer = vec![0; size];
    let mut source = Source::new(way, reader);
    let mut start = Instant::now();
    for number in 0..count {
        source.read(&mut buffer);
        if number == 0 {
            // Both are there.
            start = Instant::now();
        }
        assert!(stamped(&buffer, number as u64), "message {number} is another one");
        assert!(!check_all || buffer == message(size, number as u64), "message {number} is not as it was");
    }
    let rate = ((count - 1) * size) as f64 / start.elapsed().as_secs_f64();
    assert!(child.wait().unwrap().success());
    rate
}

enum Source {
    Frames(Box<MessageReader>),
    Plain(File),
}

impl Source {
    fn new(way: Way, reader: PipeReader) -> Self {
        match way {
            Way::Frames => Self::Frames(Box::new(MessageReader::new(reader))),
            Way::Whole | Way::Pages => Self::Plain(File::from(reader.as_fd().try_clone_to_owned().unwrap())),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) {
        match self {
            Self::Plain(file) => file.read_exact(buffer).unwrap(),
            Self::Frames(reader) => {
                let before = Tally::now();
                assert_eq!(reader.recv_into(buffer).unwrap(), Some(buffer.len()));
                let copied = Tally::now().since(before);
                assert!(copied.user_bytes < PAGE as u64, "{} bytes were copied a second time", copied.user_bytes);
            }
        }
    }
}

/// The second process.
fn write(way: &str, size: usize, count: usize) {
    let way = Way::ALL.into_iter().find(|known| known.name() == way).unwrap();
    let stdout: OwnedFd = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let mut buffer = message(size, 0);
    if way == Way::Frames {
        let mut writer = MessageWriter::new(PipeWriter::from_fd(stdout, "fd:1").unwrap());
        return (0..count).for_each(|number| {
            stamp(&mut buffer, number as u64);
            writer.send(&buffer).unwrap();
        });
    }
    let mut file = File::from(stdout);
    let bytes = if way == Way::Pages { PAGE } else { size };
    for number in 0..count {
        stamp(&mut buffer, number as u64);
        buffer.chunks(bytes).for_each(|chunk| file.write_all(chunk).unwrap());
    }
}

fn message(size: usize, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    stamp(&mut bytes, number);
    bytes
}

/// Puts the number of the message into each of its pages.
fn stamp(bytes: &mut [u8], number: u64) {
    bytes.chunks_mut(PAGE).for_each(|page| page[..8].copy_from_slice(&number.to_le_bytes()));
}

fn stamped(bytes: &[u8], number: u64) -> bool {
    bytes.chunks(PAGE).all(|page| page[..8] == number.to_le_bytes())
}
