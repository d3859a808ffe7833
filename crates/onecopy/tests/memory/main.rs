//! Shared memory and cross-memory attach, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod anonymous;
mod bounds;
mod buffer;
mod file_mapping;
mod maps;
mod posix_shm;
mod process_vm;
mod remote;
mod ring;
mod sysv_shm;
mod transfer;
mod window;
mod window_owner;
mod window_stale;
mod window_writer;

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use onecopy::Error;
use onecopy::memory::Region;
use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
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

/// Leaves this process room for mappings of 4 MiB more.
fn limit_mappings() {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let current = Some(pages * rustix::param::page_size() as u64 + (4 << 20));
    setrlimit(Resource::As, Rlimit { current, ..getrlimit(Resource::As) }).unwrap();
}

/// Stays until the test kills this process.
fn park() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Where the mappings begin whose lines in /proc/self/maps contain `name`.
fn mapped_at(name: &str) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter(|line| line.contains(name));
    let starts: Vec<String> = lines.map(|line| line.split('-').next().unwrap().to_owned()).collect();
    assert!(!starts.is_empty(), "no {name} in:\n{maps}");
    starts
}

/// What `region` holds.
fn contents(region: &Region) -> Vec<u8> {
    let mut found = vec![0; region.len()];
    region.read_at(0, &mut found).unwrap();
    found
}

/// Runs `work` without any privilege: where the tests run as root, on a thread that is another user for good.
fn unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let (uid, gid) = (Uid::from_raw(4321), Gid::from_raw(4321));
                set_thread_groups(&[]).unwrap();
                set_thread_res_gid(gid, gid, gid).unwrap();
                set_thread_res_uid(uid, uid, uid).unwrap();
            }
            work()
        });
        thread.join().unwrap()
    })
}

/// How many rounds a race is run: enough to be seen in a test, and many more in a soak.
fn rounds() -> usize {
    if std::env::var_os("ONECOPY_SOAK").is_some() { 20_000 } else { 50 }
}

/// As [`rounds`], for races that take milliseconds a round.
fn long_rounds() -> usize {
    if std::env::var_os("ONECOPY_SOAK").is_some() { 1000 } else { 50 }
}

/// Reads and writes all of a region that a peer shortens all the time: each call succeeds or reports that.
fn copy_against_an_attacker(region: &Region, rounds: usize) {
    let bytes = support::pattern(region.len(), 9);
    let mut buffer = vec![0; region.len()];
    for round in 0..rounds {
        let offset = round * 7919 % region.len();
        for result in [region.read_at(offset, &mut buffer[offset..]), region.write_at(offset, &bytes[offset..])] {
            match result {
                Ok(()) | Err(Error::Shortened { .. }) => {}
                // The file was long again when it was looked at: the second error that write_at documents.
                Err(error) => assert_eq!(error.raw_os_error(), Some(14), "EFAULT: {error}"),
            }
        }
    }
}

/// Whether a call failed since it was made in a child made by fork, with its copy of its parent's side.
fn is_forked(outcome: onecopy::Result<()>) -> bool {
    outcome.is_err_and(|error| matches!(error, Error::Invalid { .. }) && error.to_string().contains("forked"))
}
