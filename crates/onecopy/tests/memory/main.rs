//! Shared memory and cross-memory attach, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod anonymous;
mod remote;

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use support::Peer;

/// A second process whose standard input is `fd`.
fn inheriting(test: &str, role: &str, arguments: &[(&str, &str)], fd: impl Into<OwnedFd>) -> Peer {
    let stdin = Stdio::from(fd.into());
    Peer::configure(test, role, arguments, |command| {
        command.stdin(stdin);
    })
}

/// The argument that the test gave to this second process.
fn told(name: &str) -> String {
    support::argument(name)
}

/// A line from the second process to its test, past the capture of the harness.
fn tell(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("\n@{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

/// Waits for a line of [`tell`].
fn wait_for_line(peer: &mut Peer, line: &str) {
    peer.wait_for_line(&format!("@{line}"));
}

/// Stays until the test kills this process.
fn park() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Where the only mapping whose line in /proc/self/maps contains `name` begins.
fn mapped_at(name: &str) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name} in:\n{maps}"));
    line.split('-').next().unwrap().to_owned()
}
