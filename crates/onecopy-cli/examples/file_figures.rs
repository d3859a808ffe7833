//! A file through a channel beside its baselines; `just figures` runs it. By hand, `cargo build --release` comes first.
//!
//! Four rounds, two of them backwards, of four runs on the same file, whose pages are in memory: one process that copies the mapped
//! file piece by piece, `onecopy send -i` to `recv -o /dev/null`, `cp`, and `send -i` to `recv -o` another file. Neighbours are
//! compared: the median of the ratios. A last transfer is watched for the private memory of both sides, and its file is compared with
//! the first.
//!
//! Arguments: the directory for the three files, the temporary one unless said, and the length of each in MiB, 4096 unless said.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use onecopy::memory::file_mapping::FileMapping;

const ROUNDS: usize = 4;
/// How long a disk, and a host, may take to come to rest after a file was removed.
const SETTLING: Duration = Duration::from_secs(1);
/// What the single process copies at once: the fastest of 256 KiB to 16 MiB.
const PIECE_BYTES: usize = 1 << 20;
/// The limits: what a transfer to /dev/null reaches of the copy, and one to a file of `cp`, and what each side may need.
const MAPPED_RATIO: f64 = 0.9;
const CP_RATIO: f64 = 1.0;
const PRIVATE_KIB: u64 = 100 << 10;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mib: usize = arguments.next().map_or(4096, |mib| mib.parse().expect("a length in MiB"));
    let files = Files::new(&directory, mib << 20);
    let mut times = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        // Forwards and backwards: what one run leaves behind, pages of a removed file that a host takes back for a while, is not always
        // before the same other one.
        for index in (0..RUNS.len()).map(|index| if round % 2 == 0 { index } else { RUNS.len() - 1 - index }) {
            rustix::fs::sync();
            std::thread::sleep(SETTLING);
            let (_, run) = RUNS[index];
            times[index].push(run(&files));
            files.remove_outputs();
        }
    }
    // Of neighbours: the speed of a disk changes by the minute.
    let ratio = |of: usize, to: usize| median(times[of].iter().zip(&times[to]).map(|(of, to)| of / to).collect());
    let (null_ratio, file_ratio) = (ratio(0, 1), ratio(2, 3));
    for ((name, _), times) in RUNS.iter().zip(&times) {
        let time = median(times.clone());
        println!("{name:28} {:6.0} ms, {:5.2} GB/s", time * 1e3, files.bytes as f64 / time / 1e9);
    }
    let private_kib = watched_transfer(&files);
    println!("to /dev/null: {null_ratio:.2} of the mapped copy (limit {MAPPED_RATIO})");
    println!("to a file: {file_ratio:.2} of cp (limit {CP_RATIO})");
    println!("private memory: sender {} KiB, receiver {} KiB (limit {PRIVATE_KIB})", private_kib[0], private_kib[1]);
    let met = null_ratio >= MAPPED_RATIO && file_ratio >= CP_RATIO && private_kib.iter().all(|kib| *kib < PRIVATE_KIB);
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Run = (&'static str, fn(&Files) -> f64);

const RUNS: [Run; 4] = [
    ("mapped copy, one process", mapped_copy),
    ("send -i, recv -o /dev/null", |files| transfer(files, Path::new("/dev/null"))),
    ("cp", cp),
    ("send -i, recv -o FILE", |files| transfer(files, &files.received)),
];

/// The files, which go with this.
struct Files {
    bytes: usize,
    input: PathBuf,
    copy: PathBuf,
    received: PathBuf,
}

impl Files {
    fn new(directory: &Path, bytes: usize) -> Self {
        let path = |name| directory.join(format!("onecopy-{name}-{}", std::process::id()));
        let files = Self { bytes, input: path("input"), copy: path("copy"), received: path("received") };
        let mut input = File::create(&files.input).expect("the input");
        let mut piece = vec![0; PIECE_BYTES];
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut piece)).expect("random bytes");
        for number in 0..bytes.div_ceil(PIECE_BYTES) as u64 {
            piece[..8].copy_from_slice(&number.to_le_bytes());
            input.write_all(&piece).expect("room for the input");
        }
        files
    }

    fn remove_outputs(&self) {
        for path in [&self.copy, &self.received] {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove_outputs();
        let _ = std::fs::remove_file(&self.input);
    }
}

fn mapped_copy(files: &Files) -> f64 {
    let mut buffer = vec![1; PIECE_BYTES];
    let start = Instant::now();
    let region = FileMapping::open_read_only(&files.input).expect("a mapping").into_region().trusting_its_length();
    for offset in (0..region.len()).step_by(PIECE_BYTES) {
        let len = PIECE_BYTES.min(region.len() - offset);
        region.read_at(offset, &mut buffer[..len]).expect("the file stays");
        std::hint::black_box(&buffer);
    }
    start.elapsed().as_secs_f64()
}

fn cp(files: &Files) -> f64 {
    let start = Instant::now();
    let status = Command::new("cp").args([&files.input, &files.copy]).status().expect("cp");
    assert!(status.success(), "{status}");
    start.elapsed().as_secs_f64()
}

/// From the start of both commands to the end of both.
fn transfer(files: &Files, output: &Path) -> f64 {
    let start = Instant::now();
    let mut sides = start_transfer(files, output);
    end(&mut sides);
    start.elapsed().as_secs_f64()
}

/// The sender and the receiver.
fn start_transfer(files: &Files, output: &Path) -> [Child; 2] {
    let own = std::env::current_exe().expect("this program");
    let command = own.parent().and_then(Path::parent).expect("the target directory").join("onecopy");
    let address = format!("channel:figures-{}", std::process::id());
    let start = |verb: &str, option: &str, path: &Path| {
        let mut side = Command::new(std::env::var_os("ONECOPY").map_or_else(|| command.clone(), PathBuf::from));
        side.args([verb, &address, option]).arg(path);
        side.spawn().unwrap_or_else(|error| panic!("{}: {error}; build it first", command.display()))
    };
    let receiver = start("recv", "-o", output);
    [start("send", "-i", &files.input), receiver]
}

fn end(sides: &mut [Child; 2]) {
    for side in sides {
        let status = side.wait().expect("a child");
        assert!(status.success(), "{status}");
    }
}

/// The largest private memory of the sender and of the receiver, in KiB. The file that they made is compared with the input.
fn watched_transfer(files: &Files) -> [u64; 2] {
    let mut sides = start_transfer(files, &files.received);
    let mut largest = [0; 2];
    while sides.iter_mut().any(|side| side.try_wait().expect("a child").is_none()) {
        for (largest, side) in largest.iter_mut().zip(&sides) {
            *largest = private_kib(side.id()).max(*largest);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    end(&mut sides);
    let same = Command::new("cmp").args([&files.input, &files.received]).status().expect("cmp");
    assert!(same.success(), "what was received differs");
    largest
}

fn private_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    f64::midpoint(times[(times.len() - 1) / 2], times[times.len() / 2])
}
