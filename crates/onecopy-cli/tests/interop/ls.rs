//! `ls` beside ipcs(1), lslocks(8), ss(8): the same objects; and the objects of programs that we did not write.

use std::process::Command;

use crate::support::{
    Cleanup, Run, Running, Scratch, at, eventually, key, listed, onecopy, pids, program, python, skip, unique,
};

/// Whether this program is here; says so when not.
fn has(test: &str, name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        skip(test, &format!("no {name}"));
    }
    found
}

fn lines(run: Run) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(&run.end().stdout).into_owned();
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Starts a script of Python, and waits until it has printed a line.
fn script(test: &str, modules: &[&str], code: &str, arguments: &[&str]) -> Option<Running> {
    let python = python(test, modules)?;
    let run = program(python.get_program(), ["-c", code].iter().chain(arguments)).silent_input().start();
    eventually("the script is ready", || run.stdout_so_far().ends_with(b"\n"));
    Some(run)
}

#[test]
fn system_v_objects_are_those_of_ipcs() {
    let test = "ls::system_v_objects_are_those_of_ipcs";
    if !has(test, "ipcs") || !has(test, "ipcmk") {
        return;
    }
    let made = |option: &[&str]| {
        let text = String::from_utf8(program("ipcmk", option).end().succeeds()).unwrap();
        text.trim().rsplit(' ').next().unwrap().to_owned()
    };
    let cases = [
        ("sysv-mq", made(&["-Q", "-p", "0640"]), "-q"),
        ("sysv-shm", made(&["-M", "4096", "-p", "0640"]), "-m"),
        ("sysv-sem", made(&["-S", "3", "-p", "0640"]), "-s"),
    ];
    let ids = cases.iter().map(|(scheme, id, _)| format!("{scheme}:id={id}"));
    let _cleanups: Vec<Cleanup> = ids.map(|address| Cleanup::new(&address)).collect();
    for (scheme, id, option) in &cases {
        // key id owner perms ...
        let row =
            lines(program("ipcs", [*option])).into_iter().find(|row| row.get(1) == Some(id)).expect("a row of ipcs");
        let key = u32::from_str_radix(row[0].trim_start_matches("0x"), 16).unwrap();
        let kind = if *scheme == "sysv-sem" { "sysv-semaphore" } else { scheme };
        let object = at(&listed(&["--kind", kind]), &format!("{scheme}:{key:#x}"));
        // A user without a name has a number.
        let owner = object["user"].as_str().map_or_else(|| object["uid"].to_string(), str::to_owned);
        assert_eq!((&*owner, object["mode"].as_str()), (&*row[2], Some("0640")), "{object}");
        match *scheme {
            "sysv-mq" => assert_eq!((object["size_bytes"].as_u64(), object["messages"].as_u64()), (Some(0), Some(0))),
            "sysv-shm" => assert_eq!(object["size_bytes"].as_u64(), row[4].parse().ok()),
            _ => assert_eq!(object["semaphores"].as_u64(), row[4].parse().ok()),
        }
        let address = object["address"].as_str().unwrap();
        assert!(onecopy(["rm", "--stale", address]).end().status.code() == Some(1), "nobody used it yet");
        onecopy(["rm", address]).end().succeeds();
        assert!(lines(program("ipcs", [*option])).iter().all(|row| row.get(1) != Some(id)));
    }
}

#[test]
fn locks_are_those_of_lslocks() {
    let test = "ls::locks_are_those_of_lslocks";
    let scratch = Scratch::new();
    let path = scratch.path("lock").canonicalize().unwrap_or_else(|_| scratch.path("lock"));
    let path = path.to_str().unwrap();
    std::fs::write(path, "0123456789").unwrap();
    if !has(test, "lslocks") || !has(test, "flock") {
        return;
    }
    let code = "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\nfcntl.lockf(file, fcntl.LOCK_EX, 5, 3)\nprint(flush=True)\ninput()";
    let Some(record) = script(test, &["fcntl"], code, &[path]) else { return };
    let whole = program("flock", ["-s", path, "sleep", "1000"]).start();
    let flocks =
        || listed(&["--kind", "file-lock"]).into_iter().find(|object| object["address"] == format!("flock:{path}"));
    // The command inherits the descriptor, so both hold the lock.
    eventually("both hold it", || flocks().is_some_and(|object| pids(&object, "holders").len() == 2));
    let object = flocks().unwrap();
    assert!(
        pids(&object, "holders").contains(&u64::from(whole.pid())) && object["description"] == "shared",
        "{object}"
    );
    let object = at(&listed(&["--kind", "record-lock"]), &format!("record:{path}?start=3&len=5"));
    assert_eq!(pids(&object, "holders"), [u64::from(record.pid())]);
    let rows = lines(program("lslocks", ["-n", "-u", "-o", "PID,TYPE,MODE,START,END,PATH"]));
    let has_row = |pid: u32, rest: &[&str]| {
        rows.iter().any(|row| row[0] == pid.to_string() && row[1..].iter().zip(rest).all(|(one, other)| one == other))
    };
    assert!(has_row(whole.pid(), &["FLOCK", "READ", "0", "0", path]), "{rows:?}");
    assert!(has_row(record.pid(), &["POSIX", "WRITE", "3", "7", path]), "{rows:?}");
    // A third one waits.
    let waiter = program("flock", [path, "true"]).start();
    waiter.wait_until_asleep();
    assert_eq!(pids(&flocks().unwrap(), "waiting"), [u64::from(waiter.pid())]);
    at(&listed(&["--pid", &waiter.pid().to_string()]), &format!("flock:{path}"));
    let sleeper = pids(&flocks().unwrap(), "holders").into_iter().find(|pid| *pid != u64::from(whole.pid())).unwrap();
    drop(whole);
    assert!(Command::new("kill").arg(sleeper.to_string()).status().unwrap().success());
}

#[test]
fn sockets_are_those_of_ss_and_socat() {
    let test = "ls::sockets_are_those_of_ss_and_socat";
    if !has(test, "socat") {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("s").display().to_string();
    let name = unique("ls");
    let (_reserved, port) = crate::support::reserved_port();
    let cases = [
        (format!("UNIX-LISTEN:{path}"), format!("unix:{path}")),
        (format!("UNIX-RECV:{path}.d"), format!("unix-dgram:{path}.d")),
        (format!("ABSTRACT-LISTEN:{name}"), format!("unix:@{name}")),
        (format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"), format!("tcp:127.0.0.1:{port}")),
        (format!("UDP-RECV:{port},bind=127.0.0.1"), format!("udp:127.0.0.1:{port}")),
        (format!("PTY,link={path}.p"), format!("pty:{path}.p")),
    ];
    for (socat, address) in &cases {
        let run = program("socat", ["-u", socat, "-"]).start();
        let found = || listed(&[]).into_iter().find(|object| object["address"] == **address);
        eventually("it is listed", || found().is_some());
        assert_eq!(pids(&found().unwrap(), "holders"), [u64::from(run.pid())], "{address}");
        if address.starts_with("unix:") && has(test, "ss") {
            let shown = address.trim_start_matches("unix:");
            let rows = lines(program("ss", ["-x", "-l", "-a", "-n"]));
            assert!(rows.is_empty() || rows.iter().any(|row| row.iter().any(|word| word == shown)), "{rows:?}");
        }
    }
    // socat was killed, so it has left its files.
    let directory = scratch.root().to_str().unwrap();
    let left = || listed(&["--in", directory]);
    assert_eq!(left().len(), 3, "{:?}", left());
    // Another process may have a terminal of the same number for a while.
    eventually("they are stale, and go", || {
        left().iter().all(|object| object["state"] == "stale") && {
            onecopy(["rm", "--stale", "--in", directory]).end().succeeds();
            std::fs::read_dir(scratch.root()).unwrap().count() == 0
        }
    });
}

#[test]
fn objects_of_posix_ipc_are_found_with_who_has_them_open() {
    let test = "ls::objects_of_posix_ipc_are_found_with_who_has_them_open";
    let name = format!("/{}", unique("ls"));
    let code = "import posix_ipc, sys\nname = sys.argv[1]\nflags = posix_ipc.O_CREX\n\
                memory = posix_ipc.SharedMemory(name, flags, size=4096)\n\
                queue = posix_ipc.MessageQueue(name, flags, max_messages=2, max_message_size=64)\nqueue.send(b'one')\n\
                semaphore = posix_ipc.Semaphore(name, flags, initial_value=2)\nprint(flush=True)\ninput()";
    let [shm, queue, semaphore] = [format!("shm:{name}"), format!("mq:{name}"), format!("sem:{name}")];
    let _cleanup = Cleanup::new(&shm).and(&queue).and(&semaphore);
    let Some(mut run) = script(test, &["posix_ipc"], code, &[&name]) else { return };
    let all = listed(&[]);
    for address in [&shm, &queue, &semaphore] {
        assert_eq!(pids(&at(&all, address), "holders"), [u64::from(run.pid())], "{address}");
    }
    assert_eq!(at(&all, &semaphore)["value"], 2);
    let object = at(&all, &queue);
    assert_eq!((object["messages"].as_u64(), object["max_messages"].as_u64()), (Some(1), Some(2)), "{object}");
    run.kill();
    let left = listed(&["--kind", "posix-shm,posix-named-semaphore"]);
    for address in [&shm, &semaphore] {
        assert!(pids(&at(&left, address), "holders").is_empty() && at(&left, address)["state"] != "stale");
        onecopy(["rm", "--stale", address]).end().fails_with(1, &[address, "is not stale"]);
    }
}

#[test]
fn segments_of_sysv_ipc_are_found_while_they_are_attached() {
    let test = "ls::segments_of_sysv_ipc_are_found_while_they_are_attached";
    let key = key();
    let address = format!("sysv-shm:{key:#x}");
    let _cleanup = Cleanup::new(&address);
    let code = "import sysv_ipc, sys\nmemory = sysv_ipc.SharedMemory(int(sys.argv[1]), sysv_ipc.IPC_CREX, size=4096)\n\
                print(flush=True)\ninput()";
    let Some(mut run) = script(test, &["sysv_ipc"], code, &[&key.to_string()]) else { return };
    let object = at(&listed(&["--pid", &run.pid().to_string()]), &address);
    assert_eq!((pids(&object, "holders"), object["attached"].as_u64()), (vec![u64::from(run.pid())], Some(1)));
    run.kill();
    // It has a key: its bytes may be wanted.
    assert_eq!(at(&listed(&["--kind", "sysv-shm"]), &address)["state"], "unused");
}
