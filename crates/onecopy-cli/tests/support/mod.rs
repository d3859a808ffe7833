//! What the tests of the command share: running it, and looking at how it ended.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

#[path = "../../../onecopy/tests/support/mod.rs"]
mod library;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each test binary uses its own part of this file")]
pub(crate) use library::{Peer, Scratch, argument, eventually, pattern, reserved_port, role, skip, unique, watchdog};

/// How long a command may take before the test fails.
const LIMIT: Duration = Duration::from_secs(250);

/// The command with `arguments`, without input.
pub(crate) fn onecopy<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    program(env!("CARGO_BIN_EXE_onecopy"), arguments)
}

/// Another program.
pub(crate) fn program<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Run {
    let mut command = interruptible(program.as_ref());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Run { command, bytes: None, scratch: None }
}

/// A program that SIGINT ends, though a script that ran the tests in the background has them ignore it.
fn interruptible(program: &OsStr) -> Command {
    const SIGINT: u64 = 1 << 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.unwrap_or(0) & SIGINT == 0 {
        return Command::new(program);
    }
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,QUIT").arg(program);
    command
}

/// A program before it runs.
pub(crate) struct Run {
    command: Command,
    bytes: Option<Vec<u8>>,
    scratch: Option<Scratch>,
}

impl Run {
    /// Keeps a directory until it has ended.
    pub(crate) fn keeping(mut self, scratch: Scratch) -> Self {
        self.scratch = Some(scratch);
        self
    }

    /// Gives it these bytes as its stdin.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.command.stdin(Stdio::piped());
        self.bytes = Some(bytes.into());
        self
    }

    /// Keeps its stdin open and empty, so that a sender waits for what it should send.
    pub(crate) fn silent_input(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Gives it this file as its stdin.
    pub(crate) fn input_file(mut self, path: &Path) -> Self {
        self.command.stdin(File::open(path).expect("the input"));
        self
    }

    /// A last word on the command.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Starts it.
    pub(crate) fn start(mut self) -> Running {
        let mut child = self.command.spawn().expect("the command");
        let feeder = self.bytes.map(|bytes| {
            let mut stdin = child.stdin.take().expect("its stdin");
            // It may end without having read everything.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)))
        });
        let stdout = child.stdout.take().map(Collected::from);
        let stderr = child.stderr.take().map(Collected::from);
        Running { stdin: child.stdin.take(), child, feeder, stdout, stderr, _scratch: self.scratch }
    }

    /// Runs it to its end.
    pub(crate) fn end(self) -> Ended {
        self.start().end()
    }
}

/// What a stream brings, while it comes.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: JoinHandle<()>,
}

impl Collected {
    fn from(mut stream: impl std::io::Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let end = std::thread::spawn({
            let bytes = Arc::clone(&bytes);
            move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    bytes.lock().unwrap().extend_from_slice(&buffer[..count]);
                }
            }
        });
        Self { bytes, end }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    fn all(self) -> Vec<u8> {
        self.end.join().unwrap();
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}

/// A program that runs. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    feeder: Option<JoinHandle<()>>,
    stdout: Option<Collected>,
    stderr: Option<Collected>,
    _scratch: Option<Scratch>,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and the end of it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the killed command");
    }

    /// Sends a signal by kill(1), which needs no unsafe code here.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits until it has told, with `--verbose`, where it listens, and returns that address.
    pub(crate) fn listening_address(&self) -> String {
        let stderr = self.stderr.as_ref().expect("its stderr");
        let mut address = None;
        eventually("the command listens", || {
            let text = String::from_utf8_lossy(&stderr.so_far()).into_owned();
            let told = text.split_inclusive('\n').find_map(|line| line.strip_prefix("listening at "));
            address = told.and_then(|address| address.strip_suffix('\n')).map(str::to_owned);
            address.is_some()
        });
        address.unwrap()
    }

    /// What it has written to its stdout by now.
    pub(crate) fn stdout_so_far(&self) -> Vec<u8> {
        self.stdout.as_ref().expect("its stdout").so_far()
    }

    /// What it has written to its stderr by now.
    pub(crate) fn stderr_so_far(&self) -> Vec<u8> {
        self.stderr.as_ref().expect("its stderr").so_far()
    }

    /// Stops it by SIGSTOP once it has written some megabytes (proc_pid_io(5)), and waits until it stands still.
    pub(crate) fn stop_in_the_middle(&self) {
        let io = format!("/proc/{}/io", self.pid());
        eventually("it writes", || {
            let io = std::fs::read_to_string(&io).unwrap_or_default();
            let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
            line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0) > 8 << 20
        });
        self.signal("STOP");
        self.wait_until_stopped();
    }

    /// Waits until it stands still after SIGSTOP.
    pub(crate) fn wait_until_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.pid());
        eventually("it stands still", || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        });
    }

    /// Whether it runs still.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the command").is_none()
    }

    /// Waits until it sleeps in the kernel: it has got as far as it gets alone.
    pub(crate) fn wait_until_asleep(&self) {
        library::wait_until_asleep(self.pid());
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let end = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the command") {
                break status;
            }
            assert!(Instant::now() < end, "the command did not end within {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(1));
        };
        let stderr = self.stderr.take().map_or_else(Vec::new, Collected::all);
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let stdout = self.stdout.take().map_or_else(Vec::new, Collected::all);
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

/// A shell command that writes its number to `mark` and stays. It starts no other process, which would hold for a moment longer
/// what this one has inherited.
pub(crate) fn stay(mark: &Path) -> String {
    format!("echo $$ > '{}' && exec sleep 1000", mark.display())
}

/// Starts what holds something while its command, which is [`stay`], runs, and waits until that does.
pub(crate) fn hold(holder: Run, mark: &Path) -> (Running, Sleeper) {
    let holder = holder.start();
    let mut pid = String::new();
    eventually("it is held", || {
        pid = std::fs::read_to_string(mark).unwrap_or_default();
        pid.ends_with('\n')
    });
    std::fs::remove_file(mark).unwrap();
    (holder, Sleeper(pid.trim().to_owned()))
}

/// A command that stays. Dropping this kills it.
pub(crate) struct Sleeper(String);

impl Sleeper {
    pub(crate) fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        !matches!(stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()), None | Some('Z'))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "KILL", &self.0]).stderr(Stdio::null()).status();
        eventually("the command is gone", || !self.is_alive());
    }
}

/// Starts `onecopy wait` for signals, and waits until it says that it is ready.
pub(crate) fn signal_waiter(arguments: &[&str]) -> Running {
    let waiter = onecopy(arguments).start();
    let ready = format!("{}\n", waiter.pid());
    eventually("the waiter is ready", || waiter.stderr_so_far().ends_with(ready.as_bytes()));
    waiter
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// It succeeded and said nothing on stderr. Returns its stdout.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Vec<u8> {
        assert!(self.status.success() && self.stderr.is_empty(), "{self:?}");
        self.stdout
    }

    /// It ended with `code` and this one line on stderr, without "onecopy: ".
    #[track_caller]
    pub(crate) fn fails(self, code: i32, line: &str) {
        assert_eq!(
            (self.status.code(), self.stderr.as_str()),
            (Some(code), &*format!("onecopy: {line}\n")),
            "{self:?}"
        );
        assert!(self.stdout.is_empty(), "{self:?}");
    }

    /// It ended with `code` and one line on stderr that holds all of `words`.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "not one line: {self:?}");
        assert!(self.stderr.starts_with("onecopy: "), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:?}");
        }
    }

    /// It failed in whichever way, with one line on stderr that holds all of `words`.
    #[track_caller]
    pub(crate) fn fails_with_any(self, words: &[&str]) {
        let code = self.status.code().filter(|code| matches!(code, 1 | 2 | 124));
        self.fails_with(code.unwrap_or(1), words);
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// A key that nothing else uses, of eight hexadecimal digits, and positive in an i32.
pub(crate) fn key() -> u32 {
    let name = unique("key");
    name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) >> 3
        | 0x1000_0000
}

/// A POSIX object, System V object or file that goes at the end of the test, whatever happens: also when the tests are killed. A process of
/// its own removes it, which reads its address from a pipe that ends with this one.
pub(crate) struct Cleanup(Child);

impl Cleanup {
    pub(crate) fn new(address: &str) -> Self {
        let remove =
            r#"while IFS= read -r address; do set -- "$@" "$address"; done; for address; do "$0" rm "$address"; done"#;
        // Signals that end the tests go to their process group.
        let remover = Command::new("sh")
            .args(["-c", remove, env!("CARGO_BIN_EXE_onecopy")])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(remover.expect("a shell")).and(address)
    }

    pub(crate) fn and(mut self, address: &str) -> Self {
        writeln!(self.0.stdin.as_mut().expect("it reads"), "{address}").expect("it reads");
        self
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// What `onecopy ls --json` with `arguments` lists.
pub(crate) fn listed(arguments: &[&str]) -> Vec<serde_json::Value> {
    let text = onecopy(["ls", "--json"].iter().chain(arguments)).end().succeeds();
    let found: serde_json::Value = serde_json::from_slice(&text).expect("one JSON object");
    found["objects"].as_array().expect("the objects").clone()
}

/// That of `objects` whose address is `address`.
#[track_caller]
pub(crate) fn at(objects: &[serde_json::Value], address: &str) -> serde_json::Value {
    let found = objects.iter().find(|object| object["address"] == address);
    let known = || objects.iter().map(|object| object["address"].to_string()).collect::<Vec<_>>().join(" ");
    found.unwrap_or_else(|| panic!("no {address} among {}", known())).clone()
}

/// The pids of an object's `holders`, or of those `waiting`.
pub(crate) fn pids(object: &serde_json::Value, whose: &str) -> Vec<u64> {
    object[whose].as_array().expect("a list").iter().map(|user| user["pid"].as_u64().expect("a pid")).collect()
}

/// Python, from ONECOPY_PYTHON or the path, if it can import `modules`. A test that needs it says when it cannot.
pub(crate) fn python(test: &str, modules: &[&str]) -> Option<Command> {
    let interpreter = std::env::var_os("ONECOPY_PYTHON").unwrap_or_else(|| "python3".into());
    let imports: String = modules.iter().map(|module| format!("import {module}\n")).collect();
    let tried = Command::new(&interpreter).args(["-c", &imports]).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => Some(Command::new(interpreter)),
        Ok(_) => {
            skip(test, &format!("Python without the modules {}", modules.join(", ")));
            None
        }
        Err(error) => {
            skip(test, &format!("no Python: {error}"));
            None
        }
    }
}
