//! The second process that has the window: it does what the test says, line by line.
//!
//! # Safety
//!
//! A child made by fork calls nothing but what a signal handler may call.
#![expect(unsafe_code, reason = "forks, and asks for addresses that are not random")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use onecopy::memory::buffer::Buffer;
use onecopy::memory::window::{ReadWindow, Token, WriteWindow};

use crate::support::{Peer, pattern};
use crate::tell;

/// What an owner writes over the bytes that it exposed.
const OVERWRITTEN: u8 = 0xee;
/// What a process is told to do first, after it replaced another.
const FIRST: &str = "ONECOPY_TEST_FIRST";

/// `len` bytes that differ from those of other seeds at almost every place.
pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let unit = pattern(len.clamp(1, (64 << 10) + 1), seed);
    let mut bytes = unit.repeat(len.div_ceil(unit.len()));
    bytes.truncate(len);
    bytes
}

/// Starts an owner. One with the role `fixed addresses` has its memory where all such processes have it.
pub(crate) fn start(test: &str, role: &str) -> Peer {
    Peer::start_listening(test, role, &[])
}

/// Has `owner` expose `content(len, seed)`, for reading or for writing.
pub(crate) fn expose(owner: &mut Peer, rights: &str, len: usize, seed: u64) -> Token {
    owner.say(&format!("{rights} {len} {seed}"));
    token(owner)
}

/// The token that the owner tells.
pub(crate) fn token(owner: &mut Peer) -> Token {
    owner.line("@token ").parse().unwrap()
}

/// Where the window is, as the text of its token says.
pub(crate) fn address(token: &Token) -> u64 {
    let text = token.to_string();
    let range = text.split(':').nth(2).unwrap();
    u64::from_str_radix(range.split('+').next().unwrap().trim_start_matches("0x"), 16).unwrap()
}

enum Window {
    Read(ReadWindow<Buffer>),
    Write(WriteWindow),
}

/// The second process, until its standard input ends.
pub(crate) fn serve(role: &str) {
    if role == "fixed addresses" {
        without_random_addresses();
    }
    let mut window = None;
    if let Ok(first) = std::env::var(FIRST) {
        obey(&first, &mut window);
    }
    for line in std::io::stdin().lines() {
        obey(&line.unwrap(), &mut window);
    }
}

fn obey(line: &str, window: &mut Option<Window>) {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let number = |index: usize| rest.split(' ').nth(index).unwrap().parse::<u64>().unwrap();
    match command {
        "read" | "write" => {
            let buffer = Buffer::copy_of(&content(number(0) as usize, number(1))).unwrap();
            let new = match command {
                "read" => Window::Read(ReadWindow::expose(buffer).unwrap()),
                _ => Window::Write(WriteWindow::expose(buffer).unwrap()),
            };
            tell(&format!("token {}", new.token()));
            *window = Some(new);
        }
        "check" => {
            let Some(Window::Write(window)) = window.take() else { panic!("no window to be written") };
            let bytes = window.close().unwrap();
            tell(if bytes[..] == content(bytes.len(), number(0)) { "same" } else { "different" });
        }
        "close" => {
            sleep_us(number(0));
            close(window.take().expect("a window to close"));
            tell("closed");
        }
        "drop" => {
            *window = None;
            tell("dropped");
        }
        "exit" => {
            sleep_us(number(0));
            std::process::exit(0);
        }
        "exec" => {
            sleep_us(number(0));
            replace(rest.split_once(' ').unwrap().1);
        }
        "fork" => fork_to_be_the_successor(),
        _ => panic!("unknown command {line:?}"),
    }
}

impl Window {
    fn token(&self) -> &Token {
        match self {
            Self::Read(window) => window.token(),
            Self::Write(window) => window.token(),
        }
    }
}

fn sleep_us(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}

/// Ends the window and changes its bytes at once.
fn close(window: Window) {
    let mut bytes = match window {
        Window::Read(window) => window.close(),
        Window::Write(window) => window.close().unwrap(),
    };
    bytes.fill(OVERWRITTEN);
}

/// Executes this program again, which begins with `first`.
fn replace(first: &str) -> ! {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let error = command.args(std::env::args().skip(1)).env(FIRST, first).exec();
    panic!("exec: {error}");
}

/// Executes this program again where addresses are not drawn at random, unless they are not already, or cannot be.
fn without_random_addresses() {
    const QUERY: libc::c_ulong = 0xffff_ffff;
    const NO_RANDOM_ADDRESSES: libc::c_ulong = libc::ADDR_NO_RANDOMIZE as libc::c_ulong;
    // SAFETY: asks only.
    let now = unsafe { libc::personality(QUERY) };
    if now as libc::c_ulong & NO_RANDOM_ADDRESSES != 0 {
        return;
    }
    // SAFETY: takes effect at the next exec.
    if unsafe { libc::personality(NO_RANDOM_ADDRESSES) } != -1 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let error = command.args(std::env::args().skip(1)).exec();
        panic!("exec: {error}");
    }
}

/// Makes a child that has all of this memory and waits for one byte; then it makes another one and tells the number of that.
fn fork_to_be_the_successor() {
    // SAFETY: the child calls only what a signal handler may call, and never returns.
    if unsafe { libc::fork() } == 0 {
        let mut byte = 0_u8;
        // SAFETY: reads into a byte of this function.
        unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
        // SAFETY: as above.
        let successor = unsafe { libc::fork() };
        if successor != 0 {
            tell_without_allocating(successor.cast_unsigned());
            // SAFETY: ends this process, which has nothing to clean up.
            unsafe { libc::_exit(0) };
        }
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    tell("forked");
}

fn tell_without_allocating(mut number: u32) {
    let mut line = *b"\n@successor 0000000000\n";
    for digit in line[12..22].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    // SAFETY: writes the bytes of this function.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}
