//! Semaphores of Python's posix_ipc and sysv_ipc, and what ipcs(1) reads of ours.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Cleanup, Scratch, eventually, key, onecopy, program, python, skip, unique, watchdog};

/// Runs a script with arguments, and returns what it printed.
#[track_caller]
fn run(python: &mut Command, script: &str, arguments: &[&str]) -> String {
    let output = python.args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_named_semaphore_is_the_same_for_python_and_for_us() {
    let test = "semaphores::a_named_semaphore_is_the_same_for_python_and_for_us";
    let interpreter = || python(test, &["posix_ipc"]);
    if interpreter().is_none() {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(100));
    let python = |script: &str, name: &str| run(&mut interpreter().unwrap(), script, &[name]);
    let name = format!("/{}", unique("sem"));
    let address = format!("sem:{name}");
    let _cleanup = Cleanup::new(&address);
    python(
        "import posix_ipc, sys\nposix_ipc.Semaphore(sys.argv[1], posix_ipc.O_CREX, mode=0o600, initial_value=2)",
        &name,
    );
    onecopy(["wait", &address, "--count", "2", "--no-create"]).end().succeeds();
    onecopy(["wait", &address, "--timeout", "20ms"]).end().fails_with(124, &[&address]);
    let waiter = onecopy(["wait", &address]).start();
    waiter.wait_until_asleep();
    python("import posix_ipc, sys\nposix_ipc.Semaphore(sys.argv[1]).release()", &name);
    waiter.end().succeeds();
    onecopy(["post", &address, "--count", "3"]).end().succeeds();
    let left =
        python("import posix_ipc, sys\ns = posix_ipc.Semaphore(sys.argv[1])\ns.acquire(1)\nprint(s.value)", &name);
    assert_eq!(left, "2\n");
    onecopy(["rm", &address]).end().succeeds();
    onecopy(["create", &address, "--initial", "7", "--mode", "0640"]).end().succeeds();
    let script = "import posix_ipc, sys, os, stat\nprint(posix_ipc.Semaphore(sys.argv[1]).value)\n\
                  print(oct(stat.S_IMODE(os.stat('/dev/shm/sem.' + sys.argv[1][1:]).st_mode)))";
    assert_eq!(python(script, &name), "7\n0o640\n");
    onecopy(["create", &address]).end().fails_with(1, &[&address, "File exists"]);
}

/// The value of a System V semaphore, as ipcs(1) tells it.
fn value(id: &str) -> String {
    let text = String::from_utf8(program("ipcs", ["-s", "-i", id]).end().stdout).unwrap();
    let line = text.lines().skip_while(|line| !line.starts_with("semnum")).nth(1).expect("a line for semaphore 0");
    line.split_whitespace().nth(1).expect("its value").to_owned()
}

/// The identifier of the set with this key.
fn id(key: u32) -> String {
    let text = String::from_utf8(program("ipcs", ["-s"]).end().stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{key:#010x}"))).expect("the set");
    line.split_whitespace().nth(1).expect("its identifier").to_owned()
}

#[test]
fn a_system_v_semaphore_is_the_same_for_python_and_for_us_and_undone_for_both() {
    let test = "semaphores::a_system_v_semaphore_is_the_same_for_python_and_for_us_and_undone_for_both";
    if Command::new("ipcs").arg("--version").stdout(Stdio::null()).status().is_err() {
        skip(test, "no ipcs");
        return;
    }
    let interpreter = || python(test, &["sysv_ipc"]);
    if interpreter().is_none() {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(100));
    let key = key();
    let (address, number) = (format!("sysv-sem:{key:#x}"), key.to_string());
    let _cleanup = Cleanup::new(&address);
    let script = "import sysv_ipc, sys\n\
                  sysv_ipc.Semaphore(int(sys.argv[1]), sysv_ipc.IPC_CREX, mode=0o600, initial_value=1).release()";
    run(&mut interpreter().unwrap(), script, &[&number]);
    let id = id(key);
    assert_eq!(value(&id), "2");
    onecopy(["wait", &address, "--count", "2"]).end().succeeds();
    assert_eq!(value(&id), "0");
    onecopy(["post", &address]).end().succeeds();

    // Ours is undone when we are killed.
    let scratch = Scratch::new();
    let mark = scratch.path("mark");
    let stay = format!("touch '{}' && exec sleep 1000", mark.display());
    let mut ours = onecopy(["lock", &address, "--", "sh", "-c", &stay]).start();
    eventually("we hold it", || mark.exists());
    assert_eq!(value(&id), "0");
    let script = "import sysv_ipc, sys\ns = sysv_ipc.Semaphore(int(sys.argv[1]))\ns.block = False\n\
                  try:\n    s.acquire()\n    print('taken')\nexcept sysv_ipc.BusyError:\n    print('busy')";
    assert_eq!(run(&mut interpreter().unwrap(), script, &[&number]), "busy\n");
    ours.kill();
    eventually("it is undone", || value(&id) == "1");

    // Theirs, too.
    let script = "import sysv_ipc, sys, time\ns = sysv_ipc.Semaphore(int(sys.argv[1]))\ns.undo = True\ns.acquire()\n\
                  open(sys.argv[2], 'w').close()\ntime.sleep(1000)";
    let mark = scratch.path("theirs");
    let mut theirs =
        interpreter().unwrap().args(["-c", script, &number]).arg(&mark).stdin(Stdio::null()).spawn().unwrap();
    eventually("they hold it", || mark.exists());
    onecopy(["lock", "-n", &address, "--", "true"]).end().fails_with(1, &[&address]);
    theirs.kill().unwrap();
    theirs.wait().unwrap();
    onecopy(["lock", &address, "--", "true"]).end().succeeds();
    assert_eq!(value(&id), "1");
}
