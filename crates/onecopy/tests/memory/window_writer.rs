//! Writers that were stopped or killed in the middle of a put, and what they change afterwards: nothing.

use std::time::Duration;

use onecopy::memory::buffer::{Buffer, set_pool_limit_bytes};
use onecopy::memory::remote::RemoteProcess;
use onecopy::memory::window::{RemoteWindow, Token, WriteWindow};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::support::{Peer, role, watchdog};
use crate::window_owner::{address, content};
use crate::{long_rounds, tell};

const WINDOW: usize = 64 << 20;
/// What the owner keeps in memory that it got after it had closed the window.
const CANARY: u8 = 0xc5;
const LIMIT: Duration = Duration::from_secs(1800);

/// The second process: writes all of each window that it is told, again and again until that fails, and tells why. It puts, or
/// in one system call writes to the addresses of the window, as no other user of the library would.
fn write_until_gone() {
    let bytes = content(WINDOW, 1);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (how, token) = line.split_once(' ').unwrap();
        let token: Token = token.parse().unwrap();
        let window = RemoteWindow::open(&token).unwrap();
        let process = RemoteProcess::open(token.pid()).unwrap();
        window.put(0, &bytes[..4096]).unwrap();
        tell("writing");
        let write = || match how {
            "put" => window.put(0, &bytes),
            _ => process.write_all(address(&token), &bytes),
        };
        // If the memory is used again, nothing tells the single calls so: they end, and the test looks what they did.
        match std::iter::repeat_with(write).take(if how == "put" { usize::MAX } else { 50 }).find_map(Result::err) {
            Some(error) => tell(&format!("ended {} {error}", error.is_peer_gone())),
            None => tell("ended without an error"),
        }
    }
}

fn writer(test: &str) -> (Peer, Pid) {
    let peer = Peer::start_listening(test, "writer", &[]);
    let pid = Pid::from_raw(peer.pid().cast_signed()).unwrap();
    (peer, pid)
}

/// Opens a window for `peer`, and lets it write for a while.
fn window_being_written(peer: &mut Peer, how: &str, round: usize) -> WriteWindow {
    // So much that the pool would keep the memory of the window, if it got it.
    set_pool_limit_bytes(8 * WINDOW);
    let window = WriteWindow::expose(Buffer::zeroed(WINDOW).unwrap()).unwrap();
    peer.say(&format!("{how} {}", window.token()));
    peer.line("@writing");
    std::thread::sleep(Duration::from_micros((round * 7919 % 20_000) as u64));
    window
}

/// Ends the window, with a look at what was written or at once, and takes memory for other things.
fn reuse(window: WriteWindow, look: bool, expected: &[u8]) -> Canaries {
    if look {
        assert_from_writer(&window.close().unwrap(), expected);
    } else {
        drop(window);
    }
    Canaries::new()
}

/// The memory of the library and of the allocator, in sizes for which that of the window would do.
struct Canaries {
    buffers: Vec<Buffer>,
    vectors: Vec<Vec<u8>>,
}

impl Canaries {
    fn new() -> Self {
        let sizes = [WINDOW, WINDOW, 4096, 100_000, 1 << 20, 16 << 20];
        let buffer = |&size| {
            let mut buffer = Buffer::warm(size).unwrap();
            buffer.fill(CANARY);
            buffer
        };
        Self {
            buffers: sizes.iter().map(buffer).collect(),
            vectors: sizes[1..].iter().map(|&size| vec![CANARY; size]).collect(),
        }
    }

    fn assert_whole(&self) {
        let slices = self.buffers.iter().map(|buffer| &buffer[..]).chain(self.vectors.iter().map(|vector| &vector[..]));
        for slice in slices {
            let (first, rest) = slice.split_first().unwrap();
            assert!(*first == CANARY && rest == &slice[..rest.len()], "{} bytes were written to", slice.len());
        }
    }
}

/// Demands that each page came from the writer or was not written yet.
fn assert_from_writer(bytes: &[u8], expected: &[u8]) {
    assert!(bytes[..4096] == expected[..4096], "a put that had returned is in the copy");
    for (page, written) in bytes.chunks(4096).zip(expected.chunks(4096)) {
        assert!(page == written || page.iter().all(|&byte| byte == 0) || partly(page, written), "bytes of nobody");
    }
}

/// Whether each byte was written or not.
fn partly(page: &[u8], written: &[u8]) -> bool {
    page.iter().zip(written).all(|(byte, written)| byte == written || *byte == 0)
}

#[test]
fn a_writer_stopped_in_the_middle_of_a_put_changes_nothing_after_the_close() {
    let test = "window_writer::a_writer_stopped_in_the_middle_of_a_put_changes_nothing_after_the_close";
    if role().is_some() {
        return write_until_gone();
    }
    let _watchdog = watchdog(LIMIT);
    let expected = content(WINDOW, 1);
    let (mut peer, pid) = writer(test);
    for round in 0..long_rounds() {
        let (how, look) = ([("put", true), ("call", false), ("call", true), ("put", false)])[round % 4];
        let window = window_being_written(&mut peer, how, round);
        kill_process(pid, Signal::STOP).unwrap();
        // A signal does not end a write that has begun, so sometimes it goes on for a while, and sometimes it has stopped.
        if round % 8 < 2 {
            waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
        }
        let canaries = reuse(window, look, &expected);
        kill_process(pid, Signal::CONT).unwrap();
        let end = peer.line("@ended ");
        canaries.assert_whole();
        assert!(end.starts_with("true ") || (how == "call" && end.starts_with("false ")), "round {round}: {end}");
    }
    peer.succeed();
}

#[test]
fn a_writer_killed_in_the_middle_of_a_put_changes_nothing_after_the_close() {
    let test = "window_writer::a_writer_killed_in_the_middle_of_a_put_changes_nothing_after_the_close";
    if role().is_some() {
        return write_until_gone();
    }
    let _watchdog = watchdog(LIMIT);
    let expected = content(WINDOW, 1);
    for round in 0..long_rounds() {
        let (mut peer, pid) = writer(test);
        let (how, look) = ([("put", true), ("call", false), ("call", true), ("put", false)])[round % 4];
        let window = window_being_written(&mut peer, how, round);
        kill_process(pid, Signal::KILL).unwrap();
        let canaries = reuse(window, look, &expected);
        peer.kill();
        canaries.assert_whole();
    }
}

#[test]
fn a_put_that_succeeded_before_the_close_is_in_the_copy() {
    let test = "window_writer::a_put_that_succeeded_before_the_close_is_in_the_copy";
    if role().is_some() {
        return count_until_gone();
    }
    let _watchdog = watchdog(LIMIT);
    let (mut peer, _) = writer(test);
    for round in 0..20 * long_rounds() {
        let window = WriteWindow::expose(Buffer::zeroed(8).unwrap()).unwrap();
        peer.say(&window.token().to_string());
        peer.line("@writing");
        for _ in 0..round * 31 % 500 {
            std::hint::spin_loop();
        }
        let copy = window.close().unwrap();
        let found = u64::from_le_bytes(copy[..].try_into().unwrap());
        let succeeded: u64 = peer.line("@succeeded ").parse().unwrap();
        assert!(found == succeeded || found == succeeded + 1, "round {round}: {found} after {succeeded} succeeded");
    }
    peer.succeed();
}

/// The second process: writes the numbers from 1 on until that fails, and tells the last one that succeeded.
fn count_until_gone() {
    for line in std::io::stdin().lines() {
        let token: Token = line.unwrap().parse().unwrap();
        let window = RemoteWindow::open(&token).unwrap();
        let mut succeeded = 0_u64;
        tell("writing");
        loop {
            match window.put(0, &(succeeded + 1).to_le_bytes()) {
                Ok(()) => succeeded += 1,
                Err(error) => break assert!(error.is_peer_gone(), "{error}"),
            }
        }
        tell(&format!("succeeded {succeeded}"));
    }
}
