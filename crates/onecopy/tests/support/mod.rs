//! What the tests share: a second process by re-exec, watchdogs, private names, explicit skips.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this file")]

pub mod fork;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, mpsc};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "ONECOPY_TEST_ROLE";

/// How many times longer than it should everything may take before it counts as a hang: a machine may have much else to do. Only a
/// test that fails has to wait for it.
const BUSY: u32 = 4;

fn this_program() -> PathBuf {
    std::env::current_exe().expect("the path of this test binary")
}

/// The part that this process plays, when a test has started it as its second process.
///
/// A test begins with `if let Some(role) = support::role() { return second_process(&role); }`.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// The value of an argument that the test gave to [`Peer::start`].
pub fn argument(name: &str) -> String {
    std::env::var(format!("ONECOPY_TEST_{name}")).unwrap_or_else(|_| panic!("no argument {name}"))
}

static STARTING: RwLock<()> = RwLock::new(());

/// Keeps other tests from starting processes. Until such a process executes its program it has a copy of each descriptor, and what
/// this test closes would not be closed yet.
pub fn starting_nobody() -> RwLockReadGuard<'static, ()> {
    STARTING.read().unwrap_or_else(PoisonError::into_inner)
}

/// The second process of a test: the same binary, running the same test with a role.
///
/// Dropping it kills it, so a failing test leaves nothing behind.
pub struct Peer {
    child: Child,
}

impl Peer {
    /// Starts the test named `test` (its full path, as `cargo test` prints it) in a process of its own.
    pub fn start(test: &str, role: &str, arguments: &[(&str, &str)]) -> Self {
        Self::configure(test, role, arguments, |_| {})
    }

    /// As [`Peer::start`], with a last word on the command: descriptors to inherit, another user.
    pub fn configure(test: &str, role: &str, arguments: &[(&str, &str)], last: impl FnOnce(&mut Command)) -> Self {
        Self::launch(Command::new(this_program()), test, role, arguments, last)
    }

    /// As [`Peer::start`], in user, pid and mount namespaces of its own, where it may choose the next pid. Killing it kills
    /// all of them. `None` where the machine does not allow that.
    pub fn in_own_namespaces(test: &str, role: &str, arguments: &[(&str, &str)]) -> Option<Self> {
        Self::unshared(&["--mount-proc"], test, role, arguments)
    }

    /// As [`Peer::in_own_namespaces`], with the /proc that this process sees, in which it and its threads have other numbers.
    pub fn beside_proc(test: &str, role: &str, arguments: &[(&str, &str)]) -> Option<Self> {
        Self::unshared(&[], test, role, arguments)
    }

    fn unshared(more: &[&str], test: &str, role: &str, arguments: &[(&str, &str)]) -> Option<Self> {
        const PROGRAM: &str = "unshare";
        const OPTIONS: [&str; 5] = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
        let allowed = Command::new(PROGRAM).args(OPTIONS).args(more).arg("true").stderr(Stdio::null()).status();
        if !allowed.is_ok_and(|status| status.success()) {
            return None;
        }
        let mut command = Command::new(PROGRAM);
        command.args(OPTIONS).args(more).arg(this_program());
        Some(Self::launch(command, test, role, arguments, |command| {
            command.stdin(Stdio::piped());
        }))
    }

    fn launch(
        mut command: Command,
        test: &str,
        role: &str,
        arguments: &[(&str, &str)],
        last: impl FnOnce(&mut Command),
    ) -> Self {
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
        for (name, value) in arguments {
            command.env(format!("ONECOPY_TEST_{name}"), value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        last(&mut command);
        let _starting = STARTING.write().unwrap_or_else(PoisonError::into_inner);
        Self { child: command.spawn().expect("a second process") }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As [`Peer::start`], for one that is told what to do by [`Peer::say`].
    pub fn start_listening(test: &str, role: &str, arguments: &[(&str, &str)]) -> Self {
        Self::configure(test, role, arguments, |command| {
            command.stdin(Stdio::piped());
        })
    }

    /// Sends a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("the standard input of the second process");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the second process listens");
    }

    /// Waits for a line of its standard output that begins with `prefix`, and returns the rest of it.
    pub fn line(&mut self, prefix: &str) -> String {
        let stdout = self.child.stdout.as_mut().expect("the standard output of the second process");
        let (mut all, mut line, mut byte) = (Vec::new(), Vec::new(), [0]);
        loop {
            let more = stdout.read(&mut byte).expect("the standard output of the second process");
            if more == 0 {
                let mut errors = String::new();
                let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut errors));
                panic!("the second process ended before {prefix:?}:\n{}{errors}", String::from_utf8_lossy(&all));
            }
            all.push(byte[0]);
            if byte[0] != b'\n' {
                line.push(byte[0]);
            } else if let Some(rest) = line.strip_prefix(prefix.as_bytes()) {
                return String::from_utf8_lossy(rest).into_owned();
            } else {
                line.clear();
            }
        }
    }

    /// Waits until the process prints `line` and nothing else on a line of its standard output.
    pub fn wait_for_line(&mut self, line: &str) {
        let stdout = self.child.stdout.as_mut().expect("the standard output of the second process");
        let (mut read, mut byte) = (Vec::new(), [0]);
        while !read.ends_with(format!("\n{line}\n").as_bytes()) {
            let more = stdout.read(&mut byte).expect("the standard output of the second process");
            assert_eq!(more, 1, "the second process ended before {line:?}:\n{}", String::from_utf8_lossy(&read));
            read.push(byte[0]);
        }
    }

    /// Kills the process and reaps it.
    pub fn kill(&mut self) {
        // `wait` would close it, and a child of that process may still listen.
        let stdin = self.child.stdin.take();
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the killed process");
        self.child.stdin = stdin;
    }

    /// Waits for the end of the process, for a minute if the machine is idle, and demands that it succeeded; what it printed appears
    /// if not.
    pub fn succeed(self) {
        self.succeed_within(Duration::from_secs(60));
    }

    /// As [`Peer::succeed`], for what takes longer.
    pub fn succeed_within(mut self, limit: Duration) {
        drop(self.child.stdin.take());
        let status = self.wait(limit);
        let mut output = String::new();
        for stream in [
            self.child.stdout.take().map(|s| Box::new(s) as Box<dyn std::io::Read>),
            self.child.stderr.take().map(|s| Box::new(s) as Box<dyn std::io::Read>),
        ]
        .into_iter()
        .flatten()
        {
            let mut stream = stream;
            let _ = stream.read_to_string(&mut output);
        }
        assert!(status.success(), "the second process ended with {status}:\n{output}");
        assert!(
            output.contains("1 passed") || !output.contains("running"),
            "the second process ran no test:\n{output}"
        );
        output
            .lines()
            .filter_map(|line| line.strip_prefix("SKIP ")?.split_once(": "))
            .for_each(|said| skip(said.0, said.1));
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let limit = limit * BUSY;
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the second process") {
                return status;
            }
            assert!(Instant::now() < end, "the second process did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends the whole test process with a message when it is not dropped in time, which is `limit` on an idle machine: a hang becomes a
/// failure.
pub struct Watchdog {
    _alive: mpsc::Sender<()>,
}

pub fn watchdog(limit: Duration) -> Watchdog {
    let (alive, gone) = mpsc::channel::<()>();
    let limit = limit * BUSY;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if gone.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "{test} hangs: not finished after {limit:?}");
            kill_descendants();
            std::process::exit(99);
        }
    });
    Watchdog { _alive: alive }
}

/// Kills what this process has started, and what that has. Otherwise it would stay, and whoever reads what the tests print to its end
/// would wait for it.
fn kill_descendants() {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let (mut found, mut next) = (vec![std::process::id()], 0);
    while let Some(&of) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        next += 1;
    }
    for pid in found.into_iter().skip(1).filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Reports that a test could not run here. `.ci/run` compares these lines with `ci/expected-skips`.
pub fn skip(test: &str, reason: &str) {
    // Past the capture of the test harness, which hides what a passing test prints.
    // In one piece, since the harness writes a dot for each test that ends meanwhile.
    let _ = std::io::stderr().write_all(format!("SKIP {test}: {reason}\n").as_bytes());
}

/// A name that no other test and no other run uses.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("onecopy-test-{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory of its own, removed at the end of the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(unique("dir"));
        std::fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes that differ at every place where a mistake could shift or swap them. A word at a time: a debug build takes its time over
/// each.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A TCP port of 127.0.0.1 at which nobody listens, and that the kernel gives to nobody else while the socket is there. Whoever
/// names it can listen, by SO_REUSEADDR.
pub fn reserved_port() -> (OwnedFd, u16) {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let bound = SocketAddrV4::try_from(getsockname(&socket).unwrap()).unwrap();
    (socket, bound.port())
}

/// Waits until every thread of process `pid` has slept in the kernel for some time: it has got as far as it gets alone.
pub fn wait_until_asleep(pid: u32) {
    let sleeps = |stat: std::io::Result<String>| {
        stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S')))
    };
    let mut asleep = 0;
    eventually("the process sleeps", || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map(|tasks| tasks.flatten().collect::<Vec<_>>());
        let all = threads.is_ok_and(|threads| {
            threads.iter().all(|thread| sleeps(std::fs::read_to_string(thread.path().join("stat"))))
        });
        asleep = if all { asleep + 1 } else { 0 };
        asleep > 20
    });
}

/// Waits until `condition` holds, for at most thirty seconds if the machine is idle.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Duration::from_secs(30) * BUSY;
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
