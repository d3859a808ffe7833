//! A camera in one process and a viewer in another: `cargo run --release -p onecopy --example frames`.
//!
//! The viewer starts this program a second time as the camera, which inherits one end of the channel as its standard input. A frame
//! and its header lie apart in the camera's memory and go as one message, by `send_vectored`. The viewer looks at every pixel, and
//! tells at the end by which way they came.

use std::io::IoSlice;
use std::process::Command;
use std::time::{Duration, Instant};

use onecopy::channel::Path;
use onecopy::{Channel, Deadline};

const FRAMES: u64 = 100;
const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const PIXEL_BYTES: usize = 3;
/// The number of the frame, and when it was taken: nanoseconds after the first.
const HEADER_BYTES: usize = 16;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    match std::env::args().nth(1).as_deref() {
        Some("camera") => camera(),
        _ => viewer(),
    }
}

fn camera() -> Outcome<()> {
    let mut channel = Channel::adopt_by(0, soon())?;
    let begin = Instant::now();
    let mut pixels = vec![0; WIDTH * HEIGHT * PIXEL_BYTES];
    for number in 0..FRAMES {
        expose(&mut pixels, number);
        let taken_ns = begin.elapsed().as_nanos() as u64;
        let header = [number.to_le_bytes(), taken_ns.to_le_bytes()];
        channel.send_vectored(&[IoSlice::new(header.as_flattened()), IoSlice::new(&pixels)])?;
    }
    Ok(())
}

/// Each row of a frame has one colour, which moves on with the next frame.
fn expose(pixels: &mut [u8], number: u64) {
    for (row, line) in pixels.chunks_mut(WIDTH * PIXEL_BYTES).enumerate() {
        line.fill(colour(number, row));
    }
}

fn colour(number: u64, row: usize) -> u8 {
    (number as usize + row) as u8
}

fn viewer() -> Outcome<()> {
    let (parent, end) = Channel::pair()?;
    let mut camera = Command::new(std::env::current_exe()?).arg("camera").stdin(end).spawn()?;
    let mut channel = parent.accept_by(soon())?;
    let begin = Instant::now();
    let (mut frames, mut last_ns) = (0, 0);
    while let Some(frame) = channel.recv()? {
        let (header, pixels) = frame.split_at(HEADER_BYTES);
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes);
        let (number, taken_ns) = (word(&header[..8])?, word(&header[8..])?);
        if number != frames || taken_ns < last_ns {
            return Err(format!("frame {number} of {taken_ns} ns came as number {frames}").into());
        }
        let mut rows = pixels.chunks(WIDTH * PIXEL_BYTES).enumerate();
        if pixels.len() != WIDTH * HEIGHT * PIXEL_BYTES
            || !rows.all(|(row, line)| line.iter().all(|&byte| byte == colour(number, row)))
        {
            return Err(format!("frame {number} of {} bytes is spoiled", pixels.len()).into());
        }
        (frames, last_ns) = (frames + 1, taken_ns);
        // Dropped here, the frame's memory is warm for the next one.
    }
    let seconds = begin.elapsed().as_secs_f64();
    let status = camera.wait()?;
    if frames != FRAMES || !status.success() {
        return Err(format!("{frames} of {FRAMES} frames came, and the camera ended with {status}").into());
    }
    println!("{frames} frames of {WIDTH} x {HEIGHT} pixels, each looked at: {:.0} a second", frames as f64 / seconds);
    let stats = channel.stats();
    for path in Path::ALL {
        println!("  {}: {} frames", path.name(), stats.received(path).messages);
    }
    for fallback in stats.fallbacks() {
        println!("  {} messages: {}", fallback.messages, fallback.reason);
    }
    Ok(())
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}
