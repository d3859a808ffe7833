//! `create` and `rm`.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use crate::ls::finds_queues;
use crate::mechanisms::Object;
use crate::support::{Cleanup, Scratch, at, listed, onecopy, program, python, unique};

#[test]
fn an_object_is_created_once_and_removed_once() {
    for mechanism in ["fifo", "mq", "sysv-mq", "shm", "sysv-shm", "mmap"] {
        let object = Object::new(mechanism);
        let size: &[&str] = if matches!(mechanism, "shm" | "sysv-shm" | "mmap") { &["--size", "64K"] } else { &[] };
        let create = || onecopy(["create", &object.address].iter().chain(size)).end();
        create().succeeds();
        create().fails_with(1, &[&object.address, "File exists"]);
        onecopy(["rm", &object.address]).end().succeeds();
        onecopy(["rm", &object.address]).end().fails_with(1, &[&object.address, "No such file"]);
    }
}

#[test]
fn the_mode_is_exact_whatever_the_umask() {
    let scratch = Scratch::new();
    let path = scratch.path("fifo");
    let script = format!("umask 077; {} create fifo:{} --mode 0624", env!("CARGO_BIN_EXE_onecopy"), path.display());
    program("sh", ["-c", &script]).end().succeeds();
    let found = path.symlink_metadata().unwrap();
    assert!(found.file_type().is_fifo());
    assert_eq!(found.permissions().mode() & 0o7777, 0o624);
}

#[test]
fn attributes_of_a_queue_are_those_that_were_asked_for() {
    let queue = Object::new("mq");
    onecopy(["create", &queue.address, "--max-messages", "2", "--message-size", "1K"]).end().succeeds();
    onecopy(["send", &queue.address]).input([7; 1024]).end().succeeds();
    onecopy(["send", &queue.address]).input([7; 1]).end().succeeds();
    onecopy(["send", &queue.address, "--nonblock"])
        .input([7; 1])
        .end()
        .fails_with(1, &[&format!("send on {} would have to wait (2 of at most 2 messages wait", queue.address)]);
}

#[test]
fn attributes_beyond_the_limits_name_them() {
    let queue = Object::new("mq");
    onecopy(["create", &queue.address, "--message-size", "1T"]).end().fails_with(1, &[&queue.address, "msgsize_max"]);
    onecopy(["create", &queue.address, "--max-messages", "0"]).end().fails_with(1, &[&queue.address, "msg_max"]);
}

#[test]
fn memory_needs_a_size() {
    for mechanism in ["shm", "sysv-shm", "mmap"] {
        let object = Object::new(mechanism);
        let line = format!("create {} needs --size, as 64K or 1GiB", object.address);
        onecopy(["create", &object.address]).end().fails(2, &line);
        onecopy(["create", &object.address, "--size", "0"]).end().fails_with(2, &[&object.address]);
        onecopy(["create", &object.address, "--size", "16000000T"]).end().fails_with(2, &[&object.address]);
    }
}

#[test]
fn what_the_machine_has_not_or_a_limit_forbids_is_no_wrong_usage() {
    for mechanism in ["shm", "sysv-shm"] {
        let object = Object::new(mechanism);
        let words = [&*object.address, "1125899906842624 bytes of memory were asked for"];
        onecopy(["create", &object.address, "--size", "1024T"]).end().fails_with(1, &words);
    }
    let (onecopy, object) = (env!("CARGO_BIN_EXE_onecopy"), Object::new("mmap"));
    let command = "ulimit -f 8; exec \"$0\" create \"$1\" --size 1M";
    program("sh", ["-c", command, onecopy, &object.address]).end().fails_with(1, &[&object.address, "`ulimit -f`"]);
}

#[test]
fn names_may_be_as_long_as_the_kernel_takes_them() {
    for (scheme, longest) in [("mq", 255), ("shm", 255), ("sem", 251)] {
        let name = unique("long");
        let address = format!("{scheme}:/{name}{}", "x".repeat(longest - name.len()));
        let _cleanup = Cleanup::new(&address);
        let size: &[&str] = if scheme == "shm" { &["--size", "1"] } else { &[] };
        onecopy(["create", &address].iter().chain(size)).end().succeeds();
        if scheme != "mq" || finds_queues() {
            at(&listed(&[]), &address);
        }
        onecopy(["rm", &address]).end().succeeds();
        onecopy(["create", &format!("{address}x")].iter().chain(size)).end().fails_with(2, &[&longest.to_string()]);
    }
}

#[test]
fn rm_removes_only_what_the_address_says() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    std::fs::write(&path, "precious").unwrap();
    let path = path.to_str().unwrap();
    for scheme in ["fifo", "unix", "unix-dgram", "unix-seqpacket", "pty"] {
        onecopy(["rm", &format!("{scheme}:{path}")]).end().fails_with(1, &[path, "and stays"]);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "precious", "{scheme}");
    }
    onecopy(["rm", &format!("mmap:{path}")]).end().succeeds();
    onecopy(["rm", &format!("pty:{path}")]).end().fails_with(1, &[path, "(there is no such file)"]);
    assert!(!scratch.path("file").exists());
}

#[test]
fn a_socket_file_that_a_crash_left_is_removed() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    onecopy(["rm", &format!("unix:{}", path.display())]).end().succeeds();
    assert!(!path.exists());
}

#[test]
fn what_lives_in_inherited_memory_is_created_once_and_in_its_length() {
    let test = "what_lives_in_inherited_memory_is_created_once_and_in_its_length";
    // A sealed memfd of 4096 bytes as descriptor 3, in which the command is to do something twice.
    let script = "import fcntl, os, subprocess, sys\nfd = os.memfd_create('oc', os.MFD_ALLOW_SEALING)\n\
                  os.ftruncate(fd, 4096)\nfcntl.fcntl(fd, 1033, 2)\nos.dup2(fd, 3)\n\
                  print([subprocess.run(sys.argv[1:], pass_fds=[3]).returncode for _ in range(2)])\n";
    let twice = |arguments: &[&str]| {
        let python = python(test, &[])?;
        let before = ["-c", script, env!("CARGO_BIN_EXE_onecopy"), "create"];
        let ended = program(python.get_program(), before.iter().chain(arguments)).end();
        Some((String::from_utf8(ended.stdout).unwrap(), ended.stderr))
    };
    for object in ["sem:fd:3", "futex:fd:3", "mutex:fd:3", "rwlock:fd:3", "condvar:fd:3", "barrier:fd:3?parties=2"] {
        for size in [&[][..], &["--size", "4K"]] {
            let Some((codes, told)) = twice(&[&[object], size].concat()) else { return };
            assert_eq!(codes, "[0, 1]\n", "{object}: {told}");
            assert!(told.contains("it is there already") && told.lines().count() == 1, "{told}");
        }
        let Some((codes, told)) = twice(&[object, "--size", "8K"]) else { return };
        assert_eq!(codes, "[2, 2]\n", "{object}: {told}");
        assert!(told.starts_with("onecopy: --size 8192: fd:3 has 4096 bytes, and keeps its length\n"), "{told}");
    }
}

/// Memory without its object would be in the way of the next one.
#[test]
fn an_object_that_cannot_be_made_leaves_no_memory() {
    let scratch = Scratch::new();
    let file = format!("rwlock:mmap:{}", scratch.path("object").display());
    let name = unique("left");
    for address in [format!("mutex:/{name}"), format!("sem:shm:/{name}"), format!("condvar:/{name}"), file] {
        let _cleanup = Cleanup::new(&address);
        onecopy(["create", &address, "--size", "10"]).end().fails_with(2, &[]);
        onecopy(["create", &address, "--mode", "0666"]).end().fails_with(1, &["mode 666", "mode 0600"]);
        onecopy(["create", &address]).end().succeeds();
        onecopy(["create", &address]).end().fails_with(1, &["exists"]);
    }
}
