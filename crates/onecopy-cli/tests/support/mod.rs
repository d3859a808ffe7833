//! What the tests of the command share: running it, and looking at how it ended.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

#[path = "../../../onecopy/tests/support/mod.rs"]
mod library;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use library::{Scratch, eventually, pattern, skip, unique, watchdog};

/// How long a command may take before the test fails.
const LIMIT: Duration = Duration::from_secs(100);

/// The command with `arguments`, without input.
pub fn onecopy<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    program(env!("CARGO_BIN_EXE_onecopy"), arguments)
}

/// Another program.
pub fn program<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Run {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Run { command, bytes: None }
}

/// A program before it runs.
pub struct Run {
    command: Command,
    bytes: Option<Vec<u8>>,
}

impl Run {
    /// Gives it these bytes as its stdin.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.command.stdin(Stdio::piped());
        self.bytes = Some(bytes.into());
        self
    }

    /// Keeps its stdin open and empty, so that a sender waits for what it should send.
    pub fn silent_input(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Gives it this file as its stdin.
    pub fn input_file(mut self, path: &Path) -> Self {
        self.command.stdin(File::open(path).expect("the input"));
        self
    }

    /// A last word on the command.
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let mut child = self.command.spawn().expect("the command");
        let feeder = self.bytes.map(|bytes| {
            let mut stdin = child.stdin.take().expect("its stdin");
            // It may end without having read everything.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)))
        });
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Running { stdin: child.stdin.take(), child, feeder, stdout, stderr }
    }

    /// Runs it to its end.
    pub fn end(self) -> Ended {
        self.start().end()
    }
}

fn collect(mut stream: impl std::io::Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// A program that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    pub stdin: Option<ChildStdin>,
    feeder: Option<JoinHandle<()>>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the killed command");
    }

    /// Sends a signal by kill(1), which needs no unsafe code here.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the command").is_none()
    }

    /// Waits until it sleeps in the kernel: it has got as far as it gets alone.
    pub fn wait_until_asleep(&self) {
        let path = format!("/proc/{}/stat", self.pid());
        let mut asleep = 0;
        eventually("the command sleeps", || {
            let stat = std::fs::read_to_string(&path).unwrap_or_default();
            let sleeps = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'));
            asleep = if sleeps { asleep + 1 } else { 0 };
            asleep > 20
        });
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let end = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the command") {
                break status;
            }
            assert!(Instant::now() < end, "the command did not end within {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(1));
        };
        let join = |stream: Option<JoinHandle<Vec<u8>>>| stream.map_or_else(Vec::new, |thread| thread.join().unwrap());
        let stderr = String::from_utf8_lossy(&join(self.stderr.take())).into_owned();
        let stdout = join(self.stdout.take());
        if let Some(feeder) = self.feeder.take() {
            feeder.join().unwrap();
        }
        Ended { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    /// It succeeded and said nothing on stderr. Returns its stdout.
    #[track_caller]
    pub fn succeeds(self) -> Vec<u8> {
        assert!(self.status.success() && self.stderr.is_empty(), "{self:?}");
        self.stdout
    }

    /// It ended with `code` and this one line on stderr, without "onecopy: ".
    #[track_caller]
    pub fn fails(self, code: i32, line: &str) {
        assert_eq!(
            (self.status.code(), self.stderr.as_str()),
            (Some(code), &*format!("onecopy: {line}\n")),
            "{self:?}"
        );
        assert!(self.stdout.is_empty(), "{self:?}");
    }

    /// It ended with `code` and one line on stderr that holds all of `words`.
    #[track_caller]
    pub fn fails_with(self, code: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "not one line: {self:?}");
        assert!(self.stderr.starts_with("onecopy: "), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:?}");
        }
    }

    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// A POSIX object, System V object or file that goes at the end of the test, whatever happens.
pub struct Cleanup(Vec<String>);

impl Cleanup {
    pub fn new(address: &str) -> Self {
        Self(vec![address.into()])
    }

    pub fn and(mut self, address: &str) -> Self {
        self.0.push(address.into());
        self
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        for address in &self.0 {
            let _ = onecopy(["rm", address]).end();
        }
    }
}
