//! `onecopy post` and `wait`, and what creates and removes the objects.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{Cleanup, Running, Scratch, key, onecopy, program, signal_waiter, skip, unique, watchdog};

/// What counts its posts.
fn counters() -> Vec<String> {
    let key = key();
    vec![
        format!("sem:/{}", unique("sync")),
        format!("sem:shm:/{}", unique("sync")),
        format!("sysv-sem:{key:#x}"),
        format!("futex:shm:/{}", unique("sync")),
    ]
}

#[test]
fn a_post_lets_a_wait_go_on_whichever_comes_first() {
    let _watchdog = watchdog(Duration::from_secs(100));
    for address in counters() {
        let _cleanup = Cleanup::new(&address);
        let name = address.rsplit(['/', ':']).next().unwrap();
        onecopy(["wait", &address, "--no-create"]).end().fails_with(1, &[name, "No such file"]);
        onecopy(["post", &address, "--count", "3"]).end().succeeds();
        onecopy(["wait", &address, "--count", "3"]).end().succeeds();
        let start = Instant::now();
        onecopy(["wait", &address, "--timeout", "80ms"]).end().fails_with(124, &[&address]);
        assert!(start.elapsed() >= Duration::from_millis(80), "{address}");
        let waiter = onecopy(["wait", &address, "--count", "2"]).start();
        waiter.wait_until_asleep();
        onecopy(["post", &address]).end().succeeds();
        onecopy(["post", &address]).end().succeeds();
        waiter.end().succeeds();
        onecopy(["rm", &address]).end().succeeds();
        onecopy(["rm", &address]).end().fails_with(1, &[name]);
    }
}

#[test]
fn a_barrier_lets_all_go_when_the_last_one_has_come() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let address = format!("barrier:/{}?parties=3", unique("sync"));
    let _cleanup = Cleanup::new(&address);
    for _ in 0..2 {
        let first: Vec<Running> = (0..2).map(|_| onecopy(["wait", &address]).start()).collect();
        first.iter().for_each(Running::wait_until_asleep);
        onecopy(["wait", &address]).end().succeeds();
        for waiter in first {
            waiter.end().succeeds();
        }
    }
}

#[test]
fn who_ran_out_of_time_at_a_barrier_is_told_that_it_counts() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let barrier = format!("barrier:shm:/{}", unique("sync"));
    let address = format!("{barrier}?parties=2");
    let _cleanup = Cleanup::new(&address);
    onecopy(["wait", &address, "--timeout", "50ms"])
        .end()
        .fails(124, &format!("wait on {barrier} timed out (this process stays counted there)"));
    onecopy(["wait", &address]).end().succeeds();
    let help = String::from_utf8(onecopy(["wait", "--help"]).end().succeeds()).unwrap();
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains("stays counted there, also when its --timeout passes"), "{help}");
}

#[test]
fn what_was_created_has_the_value_that_was_asked_for() {
    let _watchdog = watchdog(Duration::from_secs(100));
    for address in counters().into_iter().filter(|address| !address.starts_with("futex")) {
        let _cleanup = Cleanup::new(&address);
        onecopy(["create", &address, "--initial", "2"]).end().succeeds();
        onecopy(["create", &address, "--initial", "2"]).end().fails_with(1, &["exists"]);
        onecopy(["wait", &address, "--count", "3", "--timeout", "50ms"])
            .end()
            .fails_with(124, &[&address, "after 2 times"]);
    }
}

#[test]
fn a_semaphore_that_finds_no_place_says_so() {
    let with_mount = |script: &str| {
        let script = format!("mount -t tmpfs -o size=8k none {script}");
        program("unshare", ["-U", "-r", "-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_onecopy")]).end()
    };
    let tried = with_mount("/dev/shm");
    if !tried.status.success() {
        return skip("sync::a_semaphore_that_finds_no_place_says_so", &tried.stderr);
    }
    with_mount("/dev/shm && head -c 8192 /dev/zero >/dev/shm/all && \"$0\" create sem:/full")
        .fails_with(1, &["sem_open on sem:/full: No space left on device", "/dev/shm, where semaphores lie, is full"]);
    with_mount("/dev && \"$0\" create sem:/none")
        .fails_with(1, &["sem:/none: there is no /dev/shm, where semaphores lie"]);
}

#[test]
fn a_wait_that_never_has_to_wait_ends_in_time() {
    let address = format!("sem:/{}", unique("sync"));
    let _cleanup = Cleanup::new(&address);
    onecopy(["create", &address, "--initial", "2147483647"]).end().succeeds();
    onecopy(["wait", &address, "--count", "0", "--timeout", "50ms"])
        .end()
        .fails_with(124, &[&address, "timed out, after"]);
    // Not because nothing was left.
    onecopy(["wait", &address, "--timeout", "1s"]).end().succeeds();
}

#[test]
fn signals_come_with_their_senders_and_values() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let waiter = signal_waiter(&["wait", "signal:self?sig=USR2,RTMIN+3,TERM", "--count", "4"]);
    let pid = waiter.pid().to_string();
    for (signal, value) in [("RTMIN+3", Some("-5")), ("SIGUSR2", None), ("TERM", None), ("RTMIN+3", Some("2147483647"))]
    {
        let value = value.into_iter().flat_map(|value| ["--value", value]);
        onecopy(["signal", &pid, signal].into_iter().chain(value)).end().succeeds();
    }
    let text = String::from_utf8(waiter.end().stdout).unwrap();
    let mut names: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["RTMIN+3", "RTMIN+3", "TERM", "USR2"]);
    let values: Vec<_> = text.lines().filter_map(|line| line.split("value=").nth(1)).collect();
    assert_eq!(values, ["-5", "2147483647"], "in the order of their sending: {text}");
}

#[test]
fn a_signal_to_nobody_is_an_error() {
    onecopy(["signal", "2147483647", "USR1"]).end().fails_with(1, &["2147483647", "No such process"]);
    onecopy(["signal", "0", "USR1"]).end().fails_with(2, &["pid 0"]);
    onecopy(["signal", "1", "USR77"]).end().fails_with(2, &["USR77"]);
    onecopy(["wait", "signal:self?sig=USR1", "--timeout", "50ms"]).end();
}

/// A full queue is told with what limits it, and a post does not wait for it.
#[test]
fn a_post_to_what_is_full_says_what_is_full() {
    let _watchdog = watchdog(Duration::from_secs(100));
    let receiver = signal_waiter(&["wait", "signal:self?sig=RTMIN+1", "--count", "0"]);
    receiver.signal("STOP");
    let few = Rlimit { current: Some(20), maximum: Some(20) };
    prlimit(Pid::from_raw(receiver.pid() as i32), Resource::Sigpending, few).unwrap();
    let address = format!("signal:{}?sig=RTMIN+1", receiver.pid());
    onecopy(["post", &address, "--count", "100000"]).end().fails_with(1, &[&address, "RLIMIT_SIGPENDING"]);
}

#[test]
fn what_neither_wakes_nor_waits_is_wrong_usage() {
    let scratch = Scratch::new();
    let lock = format!("flock:{}", scratch.path("lock").display());
    onecopy(["wait", &lock]).end().fails_with(2, &[&lock]);
    onecopy(["post", "mutex:/x"]).end().fails_with(2, &["mutex:shm:/x"]);
    onecopy(["post", "sem:/x", "--count", "0"]).end().fails_with(2, &["--count"]);
}
