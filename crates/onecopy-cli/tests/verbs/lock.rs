//! `onecopy lock`: exit codes, signals, and that two never hold it at once.

use std::path::Path;
use std::time::{Duration, Instant};

use onecopy::Deadline;
use onecopy::open::{OpenOptions, open_lock};
use onecopy::sync::Mode;

use crate::support::{
    Cleanup, Running, Scratch, eventually, hold, key, onecopy, program, python, stay, unique, watchdog,
};

const ONECOPY: &str = env!("CARGO_BIN_EXE_onecopy");

/// An address of each kind of lock.
fn addresses(scratch: &Scratch) -> Vec<String> {
    let path = |name: &str| scratch.path(name).display().to_string();
    let key = key();
    vec![
        format!("flock:{}", path("flock")),
        format!("record:{}?start=5&len=1", path("record")),
        format!("ofd:{}", path("ofd")),
        format!("sem:/{}", unique("lock")),
        format!("sysv-sem:{key:#x}"),
        format!("mutex:shm:/{}", unique("lock")),
        format!("rwlock:shm:/{}", unique("lock")),
    ]
}

/// Starts `onecopy lock` with a shell that goes on with `then` once it runs, and waits until it does. Its input stays open.
fn holding(lock: &[&str], mark: &Path, then: &str) -> Running {
    let script = format!("touch '{}'; {then}", mark.display());
    holding_script(lock, mark, &script)
}

/// As [`holding`], with a shell that catches `signals` and then ends with 9.
fn catching(signals: &str, lock: &[&str], mark: &Path) -> Running {
    let script = format!("trap 'exit 9' {signals}; touch '{}'; while :; do sleep 0.05; done", mark.display());
    holding_script(lock, mark, &script)
}

fn holding_script(lock: &[&str], mark: &Path, script: &str) -> Running {
    let command = ["--", "sh", "-c", script];
    let holder = onecopy(["lock"].iter().chain(lock).chain(&command)).silent_input().start();
    eventually("it is held", || mark.exists());
    holder
}

#[test]
fn the_commands_own_exit_code_comes_out() {
    let scratch = Scratch::new();
    for address in addresses(&scratch) {
        let _cleanup = Cleanup::new(&address);
        let code = |command: &[&str]| {
            let ended = onecopy(["lock", &address, "--"].iter().chain(command)).end();
            (ended.status.code(), ended.stderr)
        };
        assert_eq!(code(&["sh", "-c", "exit 7"]), (Some(7), String::new()), "{address}");
        assert_eq!(code(&["true"]).0, Some(0), "{address}");
        assert_eq!(code(&["sh", "-c", "kill -TERM $$"]).0, Some(128 + 15), "{address}");
        let (status, told) = code(&["/nonexistent/program"]);
        assert_eq!(status, Some(127), "{address}");
        assert!(told.contains("cannot run /nonexistent/program: No such file"), "{told}");
        assert_eq!(code(&["/etc/passwd"]).0, Some(126), "{address}");
        assert_eq!(onecopy(["lock", &address, "--", "echo", "-n", "hi"]).end().succeeds(), b"hi", "{address}");
    }
}

#[test]
fn what_it_was_started_without_the_command_lacks_too() {
    let scratch = Scratch::new();
    for address in addresses(&scratch) {
        let _cleanup = Cleanup::new(&address);
        for (number, closed) in [(0, "<&-"), (1, ">&-")] {
            let script = format!("\"$0\" lock '{address}' -- sh -c '! [ -e /proc/$$/fd/{number} ]' {closed}");
            program("sh", ["-c", &script, ONECOPY]).end().succeeds();
        }
    }
}

#[test]
fn it_is_taken_while_the_command_runs_and_free_afterwards() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    for (index, address) in addresses(&scratch).into_iter().enumerate() {
        let _cleanup = Cleanup::new(&address);
        let mark = scratch.path(&format!("mark{index}"));
        let mut holder = holding(&[&address], &mark, "read line");
        let start = Instant::now();
        onecopy(["lock", "-n", &address, "--", "true"]).end().fails_with(1, &[&address]);
        onecopy(["lock", "-n", "-E", "33", &address, "--", "true"]).end().fails_with(33, &[&address]);
        onecopy(["lock", "--timeout", "100ms", &address, "--", "true"]).end().fails_with(124, &[&address]);
        assert!(start.elapsed() >= Duration::from_millis(100), "{address}");
        let waiter = onecopy(["lock", &address, "--", "echo", "now"]).start();
        waiter.wait_until_asleep();
        assert!(waiter.stdout_so_far().is_empty(), "{address}");
        drop(holder.stdin.take());
        assert_eq!(waiter.end().succeeds(), b"now\n", "{address}");
        assert!(holder.end().status.code().is_some());
    }
}

/// Shells that take the lock again and again, each to be alone in a directory that only one can make.
#[track_caller]
fn never_overlap(address: &str, scratch: &Scratch) {
    const SHELLS: usize = 4;
    let rounds = if std::env::var_os("ONECOPY_SOAK").is_some() { 500 } else { 50 };
    let (alone, log) = (scratch.path("alone"), scratch.path("log"));
    let script = format!(
        "i=0; while [ $i -lt {rounds} ]; do '{ONECOPY}' lock '{address}' -- sh -c 'mkdir \"{0}\" && rmdir \"{0}\" && echo x >> \"{1}\"' \
         || exit 1; i=$((i+1)); done",
        alone.display(),
        log.display()
    );
    let shells: Vec<_> = (0..SHELLS).map(|_| program("sh", ["-c", &script]).start()).collect();
    for shell in shells {
        let ended = shell.end();
        assert!(ended.status.success(), "{address}: {ended:?}");
    }
    assert_eq!(std::fs::read_to_string(log).unwrap().len(), SHELLS * rounds * 2, "{address}");
}

macro_rules! never_overlap {
    ($($name:ident: $index:expr;)*) => { $(
        #[test]
        fn $name() {
            let _watchdog = watchdog(Duration::from_secs(300));
            let scratch = Scratch::new();
            let address = addresses(&scratch).swap_remove($index);
            let _cleanup = Cleanup::new(&address);
            never_overlap(&address, &scratch);
        }
    )* };
}

never_overlap! {
    two_never_hold_a_file_lock: 0;
    two_never_hold_a_record_lock: 1;
    two_never_hold_an_open_file_description_lock: 2;
    two_never_hold_a_named_semaphore: 3;
    two_never_hold_a_system_v_semaphore: 4;
    two_never_hold_a_mutex: 5;
    two_never_hold_a_read_write_lock: 6;
}

#[test]
fn readers_share_and_keep_writers_out() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    for (index, address) in addresses(&scratch).into_iter().enumerate() {
        let _cleanup = Cleanup::new(&address);
        if ["sem:", "sysv-sem:", "mutex:"].iter().any(|scheme| address.starts_with(scheme)) {
            onecopy(["lock", "-s", &address, "--", "true"]).end().fails_with_any(&[&address, "shared"]);
            continue;
        }
        let mark = scratch.path(&format!("mark{index}"));
        let reader = holding(&["-s", &address], &mark, "read line");
        onecopy(["lock", "-n", "-s", &address, "--", "true"]).end().succeeds();
        onecopy(["lock", "-n", &address, "--", "true"]).end().fails_with(1, &[&address]);
        drop(reader);
    }
}

#[test]
fn after_sigkill_the_next_one_gets_it_or_is_told_how_to_repair_it() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    for (index, address) in addresses(&scratch).into_iter().enumerate() {
        let _cleanup = Cleanup::new(&address);
        let mark = scratch.path(&format!("mark{index}"));
        let (mut holder, command) = hold(onecopy(["lock", &address, "--", "sh", "-c", &stay(&mark)]), &mark);
        holder.kill();
        if address.starts_with("flock:") || address.starts_with("ofd:") {
            assert!(command.is_alive(), "{address}");
            onecopy(["lock", "-n", &address, "--", "true"]).end().fails_with(1, &[&address]);
            drop(command);
        } else {
            eventually("the command is gone", || !command.is_alive());
        }
        let next = onecopy(["lock", "--timeout", "300ms", &address, "--", "true"]).end();
        match address.split(':').next().unwrap() {
            "mutex" => {
                assert!(next.status.success() && next.stderr.contains("warning"), "{next:?}");
                onecopy(["lock", &address, "--", "true"]).end().succeeds();
            }
            "sem" => {
                next.fails_with(124, &[&address, "onecopy post sem:"]);
                onecopy(["post", &address]).end().succeeds();
                onecopy(["lock", &address, "--", "true"]).end().succeeds();
            }
            "rwlock" => {
                next.fails_with(124, &[&address, "onecopy rm rwlock:"]);
                onecopy(["rm", &address]).end().succeeds();
                onecopy(["lock", &address, "--", "true"]).end().succeeds();
            }
            _ => drop(next.succeeds()),
        }
    }
}

/// The kernel drops the wish to be killed with `onecopy` when a command gains privileges.
#[test]
fn the_help_says_which_commands_outlive_it() {
    let help = String::from_utf8(onecopy(["lock", "--help"]).end().succeeds()).unwrap();
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains("killed when onecopy is, except a set-user-ID or set-group-ID program"), "{help}");
}

#[test]
fn signals_go_to_the_command_whose_end_counts() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    for (index, address) in addresses(&scratch).into_iter().enumerate() {
        let _cleanup = Cleanup::new(&address);
        let mark = scratch.path(&format!("mark{index}"));
        let holder = catching("TERM", &[&address], &mark);
        holder.signal("TERM");
        assert_eq!(holder.end().status.code(), Some(9), "{address}");
        onecopy(["lock", "-n", &address, "--", "true"]).end().succeeds();
    }
}

/// A terminal sends what is typed to the command as well; what another process sends goes to `onecopy` alone.
#[test]
fn on_a_terminal_a_key_and_a_signal_both_reach_the_command() {
    let test = "on_a_terminal_a_key_and_a_signal_both_reach_the_command";
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    let script = "import os, pty, signal, sys, time\npid, terminal = pty.fork()\n\
                  if pid == 0: os.execv(sys.argv[3], sys.argv[3:])\n\
                  while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n\
                  os.write(terminal, b'\\x03') if sys.argv[2] == 'key' else os.kill(pid, signal.SIGINT)\n\
                  print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n";
    let lock = format!("flock:{}", scratch.path("lock").display());
    for how in ["key", "kill"] {
        let Some(python) = python(test, &[]) else { return };
        let mark = scratch.path(how);
        // It ends in time, with another code, when nothing comes.
        let command =
            format!("trap 'exit 9' INT; touch '{}'; for i in $(seq 200); do sleep 0.05; done", mark.display());
        let arguments = ["-c", script, mark.to_str().unwrap(), how, ONECOPY, "lock", &lock, "--", "sh", "-c", &command];
        let said = program(python.get_program(), arguments).end().succeeds();
        assert_eq!(String::from_utf8(said).unwrap(), "9\n", "{how}");
    }
}

/// Signals that would end `onecopy` alone would leave a semaphore taken.
#[test]
fn quit_and_the_users_signals_go_to_the_command_too() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    for (index, address) in addresses(&scratch).into_iter().enumerate() {
        let _cleanup = Cleanup::new(&address);
        let mark = scratch.path(&format!("mark{index}"));
        let holder = catching("QUIT USR1 USR2", &[&address], &mark);
        holder.signal(["QUIT", "USR1", "USR2"][index % 3]);
        assert_eq!(holder.end().status.code(), Some(9), "{address}");
        onecopy(["lock", "-n", &address, "--", "true"]).end().succeeds();
    }
}

#[test]
fn an_interrupt_while_it_waits_is_130() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let scratch = Scratch::new();
    for (index, address) in addresses(&scratch).into_iter().enumerate() {
        let _cleanup = Cleanup::new(&address);
        let mark = scratch.path(&format!("mark{index}"));
        let holder = holding(&[&address], &mark, "read line");
        let waiter = onecopy(["lock", &address, "--", "true"]).start();
        waiter.wait_until_asleep();
        waiter.signal("INT");
        assert_eq!(waiter.end().status.code(), Some(130), "{address}");
        drop(holder);
    }
}

/// The lock and the signal come while the process is stopped, so that it gets both at once when it goes on.
#[test]
fn a_signal_that_comes_with_the_lock_leaves_it_free() {
    let _watchdog = watchdog(Duration::from_secs(200));
    let rounds = if std::env::var_os("ONECOPY_SOAK").is_some() { 500 } else { 25 };
    for address in [format!("sem:/{}", unique("lock")), format!("rwlock:shm:/{}", unique("lock"))] {
        let _cleanup = Cleanup::new(&address);
        let mut ours = open_lock(&address.parse().unwrap(), &OpenOptions::default()).unwrap();
        for round in 0..rounds {
            let _ = ours.acquire_by(Mode::Exclusive, Deadline::Now).expect("nobody has it");
            let waiter = onecopy(["lock", &address, "--", "true"]).start();
            waiter.wait_until_asleep();
            waiter.signal("STOP");
            waiter.wait_until_stopped();
            ours.release().unwrap();
            let signal = ["TERM", "INT"][round % 2];
            waiter.signal(signal);
            waiter.signal("CONT");
            let ended = waiter.end();
            let code = ended.status.code().unwrap();
            assert!([0, 130, 143].contains(&code) && ended.stderr.is_empty(), "{address}, round {round}: {ended:?}");
        }
        let _ = ours.acquire_by(Mode::Exclusive, Deadline::Now).expect("nobody has it");
        ours.release().unwrap();
    }
}

#[test]
fn wrong_usage_says_what_is_right() {
    onecopy(["lock", "pipe:/x", "--", "true"]).end().fails_with(2, &[]);
    onecopy(["lock", "fifo:/tmp/f", "--", "true"]).end().fails_with(2, &["fifo:/tmp/f"]);
    onecopy(["lock", "flock:/tmp/x"]).end().fails_with(2, &["COMMAND"]);
    onecopy(["lock", "-n", "--timeout", "1s", "flock:/tmp/x", "--", "true"]).end().fails_with(2, &["--timeout"]);
    onecopy(["lock", "flock:/nonexistent/x", "--", "true"]).end().fails_with(1, &["/nonexistent/x", "No such file"]);
}
