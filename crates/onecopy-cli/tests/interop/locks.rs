//! Locks on files: flock(1), lslocks(8), sqlite3 and Python's fcntl take them beside us.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::support::{Scratch, eventually, hold, onecopy, program, python, skip, stay, watchdog};

/// Whether these programs are here; says so when not.
fn has(test: &str, programs: &[&str]) -> bool {
    let missing = |name: &&&str| {
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let found = programs.iter().find(missing);
    if let Some(name) = found {
        skip(test, &format!("no {name}"));
    }
    found.is_none()
}

/// A program that is spoken with, line by line. Dropping it kills it.
struct Partner {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Partner {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        self.stdin.flush().unwrap();
    }

    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn flock_keeps_us_out_and_we_keep_it_out() {
    if !has("locks::flock_keeps_us_out_and_we_keep_it_out", &["flock", "lslocks"]) {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let (path, mark) = (scratch.path("lock"), scratch.path("mark"));
    let (address, file) = (format!("flock:{}", path.display()), path.display().to_string());
    let (theirs, sleeper) = hold(program("flock", ["-x", &file, "sh", "-c", &stay(&mark)]), &mark);
    onecopy(["lock", "-n", &address, "--", "true"]).end().fails_with(1, &[&address]);
    onecopy(["lock", "-n", "-E", "75", &address, "--", "true"]).end().fails_with(75, &[&address]);
    onecopy(["lock", "--timeout", "50ms", &address, "--", "true"]).end().fails_with(124, &[&address]);
    drop((sleeper, theirs));
    onecopy(["lock", &address, "--", "true"]).end().succeeds();

    let (mut ours, sleeper) = hold(onecopy(["lock", "-s", &address, "--", "sh", "-c", &stay(&mark)]), &mark);
    let tried = |mode: &str| program("flock", ["-n", mode, &file, "true"]).end().status.code();
    assert_eq!((tried("-x"), tried("-s")), (Some(1), Some(0)), "shared with shared only");
    let listed = program("lslocks", ["-o", "TYPE,MODE,PATH", "--noheadings"]).end().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let line = listed.lines().find(|line| line.ends_with(&file));
    assert!(line.is_some_and(|line| line.contains("FLOCK") && line.contains("READ")), "{listed}");
    // The command has inherited the descriptor, and so the lock, when onecopy itself is killed.
    ours.kill();
    assert!(sleeper.is_alive());
    assert_eq!(tried("-x"), Some(1));
    drop(sleeper);
    assert_eq!(tried("-x"), Some(0));
}

#[test]
fn a_command_without_the_descriptor_ends_with_its_lock() {
    if !has("locks::a_command_without_the_descriptor_ends_with_its_lock", &["flock"]) {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let (path, mark) = (scratch.path("lock"), scratch.path("mark"));
    let (address, file) = (format!("flock:{}", path.display()), path.display().to_string());
    let (mut ours, sleeper) = hold(onecopy(["lock", "--close", &address, "--", "sh", "-c", &stay(&mark)]), &mark);
    assert_eq!(program("flock", ["-n", &file, "true"]).end().status.code(), Some(1));
    ours.kill();
    eventually("the command is killed", || !sleeper.is_alive());
    eventually("the lock is free", || program("flock", ["-n", &file, "true"]).end().status.success());
}

/// Where SQLite keeps its locks in a database file (its source, os.h): a byte for whoever is about to write, one for
/// whoever intends to, and a range for readers.
const RESERVED: u64 = 0x4000_0001;
const SHARED: u64 = 0x4000_0002;
const SHARED_BYTES: u64 = 510;

#[test]
fn sqlite_and_we_keep_each_other_out_of_a_database() {
    if !has("locks::sqlite_and_we_keep_each_other_out_of_a_database", &["sqlite3"]) {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let (path, mark) = (scratch.path("db"), scratch.path("mark"));
    let file = path.display().to_string();
    let sql = |text: &str| program("sqlite3", ["-bail", "-batch", &file, text]).end();
    assert!(sql("create table t (n); insert into t values (1);").status.success());
    for scheme in ["record", "ofd"] {
        let reserved = format!("{scheme}:{file}?start={RESERVED}&len=1");
        let readers = format!("{scheme}:{file}?start={SHARED}&len={SHARED_BYTES}");
        let (ours, sleeper) = hold(onecopy(["lock", &reserved, "--", "sh", "-c", &stay(&mark)]), &mark);
        let refused = sql("insert into t values (2);");
        assert!(!refused.status.success() && refused.stderr.contains("locked"), "{refused:?}");
        assert_eq!(sql("select count(*) > 0 from t;").stdout, b"1\n", "reading goes on");
        drop((sleeper, ours));
        let (ours, sleeper) = hold(onecopy(["lock", "-s", &readers, "--", "sh", "-c", &stay(&mark)]), &mark);
        let refused = sql("insert into t values (2);");
        assert!(!refused.status.success() && refused.stderr.contains("locked"), "we read: {refused:?}");
        drop((sleeper, ours));
        assert!(sql("insert into t values (2);").status.success());

        let mut theirs = Partner::start(Command::new("sqlite3").args(["-batch", &file]));
        theirs.say("begin exclusive; select 'begun';");
        assert_eq!(theirs.hears(), "begun");
        onecopy(["lock", "-n", "-s", &readers, "--", "true"]).end().fails_with(1, &[&theirs.child.id().to_string()]);
        theirs.say("commit; select 'done';");
        assert_eq!(theirs.hears(), "done");
        onecopy(["lock", "-n", "-s", &readers, "--", "true"]).end().succeeds();
    }
}

/// Takes locks on bytes 10 to 19 as it is told: `lockf` by fcntl.lockf, `ofd` by F_OFD_SETLK.
const PYTHON: &str = "
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
F_OFD_SETLK = 37
def ofd(kind):
    fcntl.fcntl(fd, F_OFD_SETLK, struct.pack('hhqqi4x', kind, os.SEEK_SET, 10, 10, 0))
for line in sys.stdin:
    how, what = line.split()
    try:
        if how == 'lockf':
            op = {'lock': fcntl.LOCK_EX | fcntl.LOCK_NB, 'share': fcntl.LOCK_SH | fcntl.LOCK_NB, 'unlock': fcntl.LOCK_UN}[what]
            fcntl.lockf(fd, op, 10, 10)
        else:
            ofd({'lock': fcntl.F_WRLCK, 'share': fcntl.F_RDLCK, 'unlock': fcntl.F_UNLCK}[what])
        print('done', flush=True)
    except OSError as error:
        print('refused', error.errno, flush=True)
";

#[test]
fn python_takes_both_kinds_of_record_locks_beside_us() {
    let test = "locks::python_takes_both_kinds_of_record_locks_beside_us";
    let Some(mut interpreter) = python(test, &["fcntl"]) else { return };
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let (path, mark) = (scratch.path("file"), scratch.path("mark"));
    let file = path.display().to_string();
    let mut theirs = Partner::start(interpreter.args(["-c", PYTHON, &file]));
    for (how, scheme) in [("lockf", "record"), ("lockf", "ofd"), ("ofd", "record"), ("ofd", "ofd")] {
        let range = |start: u64, len: u64| format!("{scheme}:{file}?start={start}&len={len}");
        let tried = |address: &str| onecopy(["lock", "-n", address, "--", "true"]).end();
        theirs.say(&format!("{how} lock"));
        assert_eq!(theirs.hears(), "done", "{how}");
        tried(&range(19, 1)).fails_with(1, &[&range(19, 1)]);
        tried(&range(20, 5)).succeeds();
        tried(&range(0, 10)).succeeds();
        theirs.say(&format!("{how} share"));
        assert_eq!(theirs.hears(), "done");
        assert!(!tried(&range(0, 0)).status.success(), "to the end of the file");
        onecopy(["lock", "-n", "-s", &range(0, 0), "--", "true"]).end().succeeds();
        theirs.say(&format!("{how} unlock"));
        assert_eq!(theirs.hears(), "done");

        let (ours, sleeper) = hold(onecopy(["lock", &range(15, 1), "--", "sh", "-c", &stay(&mark)]), &mark);
        theirs.say(&format!("{how} lock"));
        assert!(theirs.hears().starts_with("refused 11"), "EAGAIN");
        drop((sleeper, ours));
        theirs.say(&format!("{how} lock"));
        assert_eq!(theirs.hears(), "done");
        theirs.say(&format!("{how} unlock"));
        assert_eq!(theirs.hears(), "done");
    }
}
