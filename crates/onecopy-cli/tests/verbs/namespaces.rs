//! Two sides that see different clocks, and a /proc that shows others' processes to nobody.

use std::time::Duration;

use crate::support::{Cleanup, onecopy, program, skip, unique, watchdog};

#[test]
fn a_peer_in_another_time_namespace_lives() {
    let test = "namespaces::a_peer_in_another_time_namespace_lives";
    let elsewhere = |arguments: &[&str]| {
        let unshare = ["--time", "--boottime", "100000", "--fork", env!("CARGO_BIN_EXE_onecopy")];
        program("unshare", unshare.iter().chain(arguments))
    };
    if !elsewhere(&["--version"]).end().status.success() {
        skip(test, "no time namespaces can be made here");
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    for receives_elsewhere in [false, true] {
        let address = format!("shm:/{}", unique("clocks"));
        let _cleanup = Cleanup::new(&address);
        let (send, recv) = (["send", &address, "--timeout", "30s"], ["recv", &address, "--timeout", "30s"]);
        let (sender, receiver) = match receives_elsewhere {
            true => (onecopy(send), elsewhere(&recv)),
            false => (elsewhere(&send), onecopy(recv)),
        };
        // It is there, and is looked for, before there is anything to receive.
        let mut sender = sender.silent_input().start();
        sender.wait_until_asleep();
        let receiver = receiver.start();
        receiver.wait_until_asleep();
        std::thread::sleep(Duration::from_millis(300));
        std::io::Write::write_all(&mut sender.stdin.take().unwrap(), b"later").unwrap();
        sender.end().succeeds();
        assert_eq!(receiver.end().succeeds(), b"later", "elsewhere: {receives_elsewhere}");
    }
}

/// kill(1) asks nobody but the kernel either.
#[test]
fn a_process_that_proc_does_not_show_gets_its_signal() {
    let test = "namespaces::a_process_that_proc_does_not_show_gets_its_signal";
    let script = "mount -t tmpfs none /proc && { sleep 60 & } && \"$0\" signal $! TERM && { wait $!; test $? = 143; }";
    let ended = program("unshare", ["-r", "-m", "sh", "-c", script, env!("CARGO_BIN_EXE_onecopy")]).end();
    if ended.stderr.contains("unshare") || ended.stderr.contains("mount:") {
        skip(test, "no namespace for mounts can be made here");
        return;
    }
    // The shell may say on stderr that it was terminated.
    assert!(ended.status.success(), "{ended:?}");
}
