//! Refused permissions: one line with the object, and nothing is changed. And objects that others may use.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use crate::mechanisms::Object;
use crate::support::{Ended, Run, Scratch, onecopy, program};

/// A user without a name and without rights.
const NOBODY: u32 = 4321;

/// Whether these tests run as root, who is refused nothing.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// The command as somebody who has no rights but those of the mode.
pub(crate) fn unprivileged(arguments: &[&str]) -> Run {
    let run = onecopy(arguments);
    if !is_root() {
        return run;
    }
    // The binary may lie where only root gets to. Another process copies it: were it open for writing here, the child of
    // another test could inherit that descriptor, and nobody could run the copy meanwhile (ETXTBSY).
    let scratch = Scratch::new();
    let copy = scratch.path("onecopy");
    program("cp", [env!("CARGO_BIN_EXE_onecopy").as_ref(), copy.as_os_str()]).end().succeeds();
    program(&copy, arguments).keeping(scratch).with(|command| {
        command.uid(NOBODY).gid(NOBODY);
    })
}

#[track_caller]
fn is_refused(ended: Ended, address: &str) {
    ended.fails_with(1, &[address, "Permission denied"]);
}

#[test]
fn an_object_without_rights_refuses_every_verb() {
    for mechanism in ["fifo", "mq", "sysv-mq", "shm", "sysv-shm", "mmap"] {
        let object = Object::new(mechanism);
        let address = &*object.address;
        let is_memory = matches!(mechanism, "shm" | "sysv-shm" | "mmap");
        let size: &[&str] = if is_memory { &["--size", "64K"] } else { &[] };
        onecopy(["create", address, "--mode", "0"].iter().chain(size)).end().succeeds();
        is_refused(unprivileged(&["recv", address, "--timeout", "5s"]).end(), address);
        is_refused(unprivileged(&["send", address, "--timeout", "5s"]).input("x").end(), address);
        if is_memory {
            is_refused(unprivileged(&["read", address]).end(), address);
            is_refused(unprivileged(&["write", address]).input("x").end(), address);
        }
    }
}

#[test]
fn a_right_to_one_direction_is_enough_for_it() {
    for mechanism in ["mq", "sysv-mq", "shm", "sysv-shm", "mmap"] {
        let object = Object::new(mechanism);
        let address = &*object.address;
        if matches!(mechanism, "mq" | "sysv-mq") {
            onecopy(["create", address, "--mode", "0222"]).end().succeeds();
            unprivileged(&["send", address]).input("in").end().succeeds();
            unprivileged(&["send", address, "--frame"]).input("in").end().succeeds();
            is_refused(unprivileged(&["recv", address]).end(), address);
        } else {
            onecopy(["create", address, "--mode", "0444", "--size", "4K"]).end().succeeds();
            assert_eq!(unprivileged(&["read", address]).end().succeeds(), [0; 4096]);
            is_refused(unprivileged(&["write", address]).input("x").end(), address);
        }
    }
}

#[test]
fn who_may_remove_a_file_is_told() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("file");
    std::fs::write(&path, "").unwrap();
    let address = format!("flock:{}", path.display());
    for (mode, line) in [
        (0o755, "Permission denied (only who may write its directory may remove it)"),
        (0o1777, "Operation not permitted (only its owner, the directory's owner and root may remove it)"),
    ] {
        std::fs::set_permissions(scratch.root(), Permissions::from_mode(mode)).unwrap();
        unprivileged(&["rm", &address]).end().fails(1, &format!("unlink on {address}: {line}"));
    }
}

#[test]
fn the_object_of_another_user_is_not_removed() {
    if !is_root() {
        return;
    }
    for mechanism in ["mq", "sysv-mq", "shm", "sysv-shm"] {
        let object = Object::new(mechanism);
        let size: &[&str] = if mechanism.ends_with("shm") { &["--size", "4K"] } else { &[] };
        onecopy(["create", &object.address, "--mode", "0666"].iter().chain(size)).end().succeeds();
        unprivileged(&["rm", &object.address]).end().fails_with(1, &[&object.address]);
        onecopy(["rm", &object.address]).end().succeeds();
    }
}

#[test]
fn the_memory_of_another_user_is_refused_by_the_kernel() {
    if !is_root() {
        return;
    }
    let address = format!("mem:{}:0x1000+16", std::process::id());
    unprivileged(&["read", &address]).end().fails_with(1, &[&address, "Operation not permitted"]);
}

#[test]
fn an_output_that_may_not_be_written_is_refused_before_anything_is_taken() {
    let queue = Object::new("mq");
    onecopy(["create", &queue.address, "--mode", "0666"]).end().succeeds();
    onecopy(["send", &queue.address]).input("still there").end().succeeds();
    unprivileged(&["recv", &queue.address, "-o", "/proc/version"])
        .end()
        .fails_with(1, &["cannot create /proc/version: "]);
    unprivileged(&["recv", &queue.address, "-o", "/file"]).end().fails_with(1, &["cannot create /file: "]);
    assert_eq!(onecopy(["recv", &queue.address]).end().succeeds(), b"still there");
}
