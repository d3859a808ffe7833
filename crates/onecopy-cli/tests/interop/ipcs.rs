//! ipcs(1) sees our System V objects, and ipcrm(1) removes them.

use crate::support::{Cleanup, key, onecopy, program, skip};

#[test]
fn our_queue_and_our_memory_are_listed_and_removed() {
    let test = "our_queue_and_our_memory_are_listed_and_removed";
    for tool in ["ipcs", "ipcrm"] {
        if std::process::Command::new(tool).arg("--version").output().is_err() {
            skip(test, &format!("no {tool}"));
            return;
        }
    }
    for (scheme, list, remove, size) in [("sysv-mq", "-q", "-Q", None), ("sysv-shm", "-m", "-M", Some("64K"))] {
        let key = format!("{:#010x}", key());
        let address = format!("{scheme}:{key}");
        let _cleanup = Cleanup::new(&address);
        let size = size.into_iter().flat_map(|size| ["--size", size]);
        onecopy(["create", &address, "--mode", "0640"].into_iter().chain(size)).end().succeeds();
        let listed = || String::from_utf8(program("ipcs", [list]).end().stdout).unwrap();
        let line = listed().lines().find(|line| line.starts_with(&key)).map(str::to_owned);
        assert!(line.as_ref().is_some_and(|line| line.contains(" 640 ")), "{line:?}");
        assert!(program("ipcrm", [remove, &key]).end().status.success());
        assert!(!listed().contains(&key));
        onecopy(["rm", &address]).end().fails_with(1, &[&address, "No such file"]);
    }
}

#[test]
fn a_queue_that_is_removed_under_a_receiver_ends_it() {
    if std::process::Command::new("ipcrm").arg("--version").output().is_err() {
        skip("a_queue_that_is_removed_under_a_receiver_ends_it", "no ipcrm");
        return;
    }
    let key = format!("{:#010x}", key());
    let address = format!("sysv-mq:{key}");
    let _cleanup = Cleanup::new(&address);
    let receiver = onecopy(["recv", &address]).start();
    receiver.wait_until_asleep();
    assert!(program("ipcrm", ["-Q", &key]).end().status.success());
    receiver.end().fails_with(1, &[&address, "msgrcv", "Identifier removed"]);
}
