//! What a window costs: `cargo run --release -p onecopy --example window_figures`.
//!
//! Reads the memory of a second process through a window and by a bare loop of process_vm_readv(2), in turns, checks what
//! arrived, and prints the ratio of the two; it fails when that of a large read is below [`LEAST`]. `onecopy bench` is the tool
//! for users; this one is for whoever changes the window.

use std::io::{BufRead as _, BufReader, IoSliceMut, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use onecopy::memory::buffer::Buffer;
use onecopy::memory::window::{ReadWindow, RemoteWindow, Token};

/// What the second process exposes. Reads go through all of it, so no cache holds what they want next.
const EXPOSED_BYTES: usize = 128 << 20;
const SIZES: [usize; 5] = [64, 4 << 10, 64 << 10, 1 << 20, 16 << 20];
/// Pairs of runs: the ratio is the median of theirs, since others may use the machine.
const PAIRS: usize = 41;
/// What a window has to reach of the bare call's throughput, from [`LARGE`] bytes on.
const LEAST: f64 = 0.98;
const LARGE: usize = 1 << 20;
const RUN: Duration = Duration::from_millis(25);

fn main() {
    if std::env::args().nth(1).as_deref() == Some("owner") {
        return owner();
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .arg("owner")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut words = line.split_whitespace();
    let token: Token = words.next().unwrap().parse().unwrap();
    let address = words.next().unwrap().parse().unwrap();
    let window = RemoteWindow::open(&token).unwrap();
    let bare = Bare { pid: Pid::from_raw(owner.id().cast_signed()), address };
    let ratios = SIZES.map(|size| (size, compare(size, &window, &bare)));
    drop(owner.stdin.take());
    owner.wait().unwrap();
    for (size, ratio) in ratios {
        assert!(size < LARGE || ratio >= LEAST, "{size} B: {ratio:.3} of the bare call, at least {LEAST} are wanted");
    }
}

/// The second process: exposes a pattern and stays until its standard input ends.
fn owner() {
    let mut buffer = Buffer::warm(EXPOSED_BYTES).unwrap();
    for (index, word) in buffer.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&pattern(index).to_le_bytes());
    }
    let window = ReadWindow::expose(buffer).unwrap();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{} {}", window.token(), window.as_ptr().expose_provenance()).unwrap();
    stdout.flush().unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// The word at `index` of what is exposed.
fn pattern(index: usize) -> u64 {
    (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The memory of a process as a plain program reads it.
struct Bare {
    pid: Pid,
    address: usize,
}

impl Bare {
    fn get(&self, offset: usize, buffer: &mut [u8]) {
        let mut done = 0;
        while done < buffer.len() {
            let remote = RemoteIoVec { base: self.address + offset + done, len: buffer.len() - done };
            done += process_vm_readv(self.pid, &mut [IoSliceMut::new(&mut buffer[done..])], &[remote]).unwrap();
        }
    }
}

/// The ratio of the throughput of `window` to that of the bare call.
fn compare(size: usize, window: &RemoteWindow, bare: &Bare) -> f64 {
    let mut buffer = Buffer::warm(size).unwrap();
    let mut offset = 0;
    let mut ours = |buffer: &mut [u8], offset| window.get(offset, buffer).unwrap();
    let mut plain = |buffer: &mut [u8], offset| bare.get(offset, buffer);
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let [our_rate, plain_rate] = if pair % 2 == 0 {
            let first = run(&mut buffer, &mut offset, &mut ours);
            [first, run(&mut buffer, &mut offset, &mut plain)]
        } else {
            let first = run(&mut buffer, &mut offset, &mut plain);
            [run(&mut buffer, &mut offset, &mut ours), first]
        };
        ratios.push(our_rate / plain_rate);
        rates.push((our_rate, plain_rate));
    }
    ratios.sort_by(f64::total_cmp);
    rates.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (our_rate, plain_rate) = rates[PAIRS / 2];
    println!(
        "get {size:9} B: {:6.2} GB/s, process_vm_readv {:6.2} GB/s, ratio {:.3}",
        our_rate / 1e9,
        plain_rate / 1e9,
        ratios[PAIRS / 2]
    );
    ratios[PAIRS / 2]
}

/// Reads for a while, and returns the bytes a second. The last that was read is checked as a whole.
fn run(buffer: &mut [u8], offset: &mut usize, get: &mut impl FnMut(&mut [u8], usize)) -> f64 {
    let (start, mut bytes, mut last) = (Instant::now(), 0, 0);
    while start.elapsed() < RUN {
        last = *offset;
        get(buffer, last);
        bytes += buffer.len();
        *offset = (last + buffer.len()) % EXPOSED_BYTES;
        if *offset + buffer.len() > EXPOSED_BYTES {
            *offset = 0;
        }
    }
    let rate = bytes as f64 / start.elapsed().as_secs_f64();
    for (index, word) in buffer.chunks_exact(8).enumerate() {
        assert_eq!(word, pattern(last / 8 + index).to_le_bytes(), "wrong bytes at {}", last + 8 * index);
    }
    rate
}
