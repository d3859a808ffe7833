//! `ls`: what is there, who uses it, and by which address.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;

use onecopy::Address;
use serde_json::Value;

use crate::permissions::is_root;
use crate::support::{Cleanup, Scratch, at, eventually, hold, key, listed, onecopy, pids, program, skip, stay, unique};

/// A name that belongs to this test, and what `ls` finds by it goes by the address that `ls` tells.
#[test]
fn objects_without_holders_are_found_with_what_they_hold_and_removed_by_their_address() {
    let name = unique("ls");
    let system_v = || format!("{:#x}", key());
    let cases = [
        (format!("mq:/{name}"), &["--max-messages", "3", "--message-size", "64"][..], "posix-mq"),
        (format!("sysv-mq:{}", system_v()), &[], "sysv-mq"),
        (format!("shm:/{name}"), &["--size", "64K"], "posix-shm"),
        (format!("sysv-shm:{}", system_v()), &["--size", "64K"], "sysv-shm"),
        (format!("sem:/{name}"), &["--initial", "3"], "posix-named-semaphore"),
        (format!("sysv-sem:{}", system_v()), &[], "sysv-semaphore"),
        (format!("mutex:shm:/{name}-m"), &[], "mutex"),
        (format!("rwlock:shm:/{name}-r"), &[], "rwlock"),
        (format!("condvar:shm:/{name}-c"), &[], "condvar"),
        (format!("barrier:shm:/{name}-b?parties=3"), &[], "barrier"),
        (format!("futex:shm:/{name}-f"), &["--initial", "7"], "futex"),
        (format!("sem:shm:/{name}-s"), &["--initial", "5"], "posix-unnamed-semaphore"),
    ];
    let _cleanups: Vec<Cleanup> = cases.iter().map(|(address, ..)| Cleanup::new(address)).collect();
    for (address, options, _) in &cases {
        let options = if address.starts_with("futex") { &[] } else { *options };
        onecopy(["create", address, "--mode", "0600"].iter().chain(options)).end().succeeds();
    }
    for address in [&cases[0].0, &cases[1].0] {
        onecopy(["send", address]).input("1234").end().succeeds();
    }
    let all = listed(&[]);
    for (address, _, kind) in &cases {
        if *kind == "posix-mq" && !finds_queues() {
            continue;
        }
        let object = at(&all, address);
        assert_eq!(object["kind"], *kind, "{object}");
        assert_eq!((object["mode"].as_str(), object["stale_because"].as_str()), (Some("0600"), None), "{object}");
        assert!(object["holders"].as_array().unwrap().is_empty(), "{object}");
        at(&listed(&["--kind", kind]), address);
    }
    let figure = |index: usize, name: &str| at(&all, &cases[index].0)[name].as_u64();
    if finds_queues() {
        assert_eq!(
            [figure(0, "messages"), figure(0, "max_messages"), figure(0, "message_size_bytes")],
            [1, 3, 64].map(Some)
        );
    }
    assert_eq!([figure(1, "messages"), figure(1, "size_bytes")], [1, 4].map(Some));
    assert_eq!([figure(2, "size_bytes"), figure(3, "size_bytes")], [65_536, 65_536].map(Some));
    assert_eq!([figure(3, "attached"), figure(4, "value"), figure(5, "semaphores")], [0, 3, 1].map(Some));
    assert!(at(&all, &cases[11].0)["description"].as_str().unwrap().contains("value 5"));
    // What lies in POSIX shared memory is that, too.
    at(&listed(&["--kind", "posix-shm"]), &cases[6].0);
    for (address, ..) in &cases {
        onecopy(["rm", address]).end().succeeds();
    }
    let left = listed(&[]);
    assert!(cases.iter().all(|(address, ..)| left.iter().all(|object| object["address"] != **address)));
}

/// Without a mount of the mqueue file system, root alone finds queues that nobody has open.
pub(crate) fn finds_queues() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    is_root() || mounts.contains(" - mqueue ")
}

#[test]
fn a_missing_mount_of_queues_is_said_once_with_the_remedy() {
    if finds_queues() {
        skip("ls::a_missing_mount_of_queues_is_said_once_with_the_remedy", "the queues can be listed");
        return;
    }
    let queue = format!("mq:/{}", unique("ls"));
    let _cleanup = Cleanup::new(&queue);
    let receiver = onecopy(["recv", &queue]).start();
    receiver.wait_until_asleep();
    let ended = onecopy(["ls", "--kind", "posix-mq"]).end();
    assert_eq!(ended.stderr.matches("mount -t mqueue").count(), 1, "{ended:?}");
    // One that somebody has open is found all the same.
    assert_eq!(pids(&at(&listed(&["--kind", "posix-mq"]), &queue), "holders"), [u64::from(receiver.pid())]);
}

#[test]
fn listeners_are_found_with_their_process() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path(name).display().to_string();
    let abstract_name = unique("ls");
    let cases = [
        (format!("unix:{}", path("s")), "unix-stream"),
        (format!("unix-dgram:{}", path("d")), "unix-dgram"),
        (format!("unix-seqpacket:{}", path("q")), "unix-seqpacket"),
        (format!("unix:@{abstract_name}"), "unix-stream"),
        (format!("channel:{abstract_name}"), "channel"),
        (format!("pty:{}", path("p")), "pty"),
        ("tcp:127.0.0.1:0".into(), "tcp"),
        ("udp:127.0.0.1:0".into(), "udp"),
    ];
    for (address, kind) in cases {
        let receiver = onecopy(["recv", &address, "--verbose"]).start();
        let address = receiver.listening_address();
        let own = u64::from(receiver.pid());
        let object = at(&listed(&["--kind", kind]), &address);
        assert_eq!((object["kind"].as_str(), object["state"].as_str()), (Some(kind), Some("used")), "{object}");
        assert_eq!(pids(&object, "holders"), [own], "{object}");
        let of_process = listed(&["--pid", &own.to_string()]);
        at(&of_process, &address);
        assert!(of_process.iter().all(|object| pids(object, "holders").contains(&own)), "{of_process:?}");
    }
}

#[test]
fn a_fifo_is_found_while_somebody_has_it_open() {
    let scratch = Scratch::new();
    let address = format!("fifo:{}", scratch.path("f").display());
    onecopy(["create", &address]).end().succeeds();
    let there = || listed(&["--kind", "fifo"]).into_iter().any(|object| object["address"] == *address);
    assert!(!there());
    at(&listed(&["--kind", "fifo", "--all", "--in", scratch.root().to_str().unwrap()]), &address);
    let script = format!("exec sleep 1000 <> '{}'", scratch.path("f").display());
    let reader = program("sh", ["-c", &script]).start();
    eventually("the FIFO is open", there);
    let object = at(&listed(&["--kind", "fifo"]), &address);
    assert_eq!(pids(&object, "holders"), [u64::from(reader.pid())]);
    // The name goes, and the FIFO stays with its reader.
    std::fs::remove_file(scratch.path("f")).unwrap();
    let descriptors = listed(&["--pid", &reader.pid().to_string(), "--kind", "fifo"]);
    let address = descriptors[0]["address"].as_str().unwrap();
    assert!(address.starts_with(&format!("fd:{}:", reader.pid())), "{descriptors:?}");
}

#[test]
fn locks_are_found_with_who_holds_them_and_who_waits() {
    let scratch = Scratch::new();
    for (scheme, range, kind) in
        [("flock", "", "file-lock"), ("record", "?start=10&len=5", "record-lock"), ("ofd", "?len=1", "record-lock")]
    {
        let address = format!("{scheme}:{}{range}", scratch.path(scheme).display());
        let mark = scratch.path("mark");
        let script = stay(&mark);
        let (holder, _command) = hold(onecopy(["lock", &address, "--", "sh", "-c", &script]), &mark);
        let waiter = onecopy(["lock", &address, "--", "true"]).start();
        waiter.wait_until_asleep();
        let all = listed(&["--kind", kind]);
        let object = at(&all, &address);
        assert!(pids(&object, "holders").contains(&u64::from(holder.pid())), "{object}");
        // This library waits for an OFD lock by a thread of its own in the kernel's queue, or looks again and again.
        if scheme != "ofd" && !pids(&object, "waiting").is_empty() {
            assert_eq!(pids(&object, "waiting"), [u64::from(waiter.pid())], "{object}");
        }
        at(&listed(&["--pid", &holder.pid().to_string()]), &address);
    }
}

#[test]
fn what_has_no_name_is_shown_on_demand_as_a_descriptor() {
    let mut shell = program("sh", ["-c", "read line"]).silent_input().start();
    shell.wait_until_asleep();
    let pid = shell.pid().to_string();
    let all = listed(&["--pid", &pid]);
    let stdin = at(&all, &format!("fd:{pid}:0"));
    assert_eq!((stdin["kind"].as_str(), stdin["description"].as_str()), (Some("pipe"), Some("1 reader, 1 writer")));
    assert!(listed(&[]).iter().all(|object| object["kind"] != "pipe"));
    assert!(listed(&["--all"]).iter().any(|object| object["kind"] == "pipe"));
    shell.kill();
    let message = format!("there is no process {pid}, or it is a thread of the kernel or has exited");
    onecopy(["ls", "--pid", &pid]).end().fails(1, &message);
}

#[test]
fn odd_names_are_one_line_and_parse_back() {
    let scratch = Scratch::new();
    let names: [&[u8]; 6] = [b"a b", b"new\nline", b"esc\x1b[31m", b"\xff\xfe", b"50%?x=1", "uml\u{e4}ut".as_bytes()];
    let directory = scratch.root().to_str().unwrap();
    let mut sockets = Vec::new();
    for name in names {
        let path = scratch.root().join(std::ffi::OsStr::from_bytes(name));
        sockets.push(UnixListener::bind(&path).unwrap());
        drop(UnixListener::bind(path.with_extension("dead")).unwrap());
        let fifo = path.with_extension("fifo");
        assert!(program("mkfifo", [&fifo]).end().status.success());
    }
    let all = listed(&["--in", directory, "--all"]);
    assert_eq!(all.len(), 3 * names.len(), "{all:?}");
    for object in &all {
        let text = object["address"].as_str().unwrap();
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        let path = match &address {
            Address::UnixStream(name) => name.as_path().unwrap().to_owned(),
            Address::Fifo(path) => path.as_path().to_owned(),
            other => panic!("{other}"),
        };
        assert!(path.symlink_metadata().is_ok(), "{text}");
        let is_dead = path.extension().is_some_and(|extension| extension == "dead");
        assert_eq!(object["state"] == "stale", is_dead, "{object}");
    }
    let shown = onecopy(["ls", "--all", "--in", directory]).end().stdout;
    assert_eq!(shown.iter().filter(|byte| **byte == b'\n').count(), 1 + all.len());
    assert!(!shown.contains(&0x1b) && std::str::from_utf8(&shown).is_ok());
    let addresses = all.iter().map(|object| object["address"].as_str().unwrap());
    addresses.for_each(|address| drop(onecopy(["rm", address]).end().succeeds()));
    assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 0);
}

#[test]
fn watching_tells_what_comes_and_goes_until_it_is_interrupted() {
    let scratch = Scratch::new();
    let directory = scratch.root().to_str().unwrap().to_owned();
    let text = onecopy(["ls", "--watch", "--in", &directory]).start();
    let json = onecopy(["ls", "--watch", "--json", "--in", &directory]).start();
    let path = scratch.path("s");
    let address = format!("unix:{}", path.display());
    let listener = UnixListener::bind(&path).unwrap();
    let said = |sign: char| {
        let out = String::from_utf8(text.stdout_so_far()).unwrap();
        out.lines().any(|line| line.starts_with(&format!("{sign} {address}  ")))
    };
    let told = |event: &str| {
        let out = String::from_utf8(json.stdout_so_far()).unwrap();
        let complete = out.lines().zip(out.split_inclusive('\n')).filter(|(_, line)| line.ends_with('\n'));
        let events: Vec<Value> = complete.map(|(line, _)| serde_json::from_str(line).expect("JSON")).collect();
        events.iter().any(|found| found["event"] == event && found["object"]["address"] == *address)
    };
    eventually("it came", || said('+') && told("appeared"));
    drop(listener);
    eventually("it changed", || said('~') && told("changed"));
    std::fs::remove_file(&path).unwrap();
    eventually("it went", || said('-') && told("gone"));
    for watcher in [text, json] {
        watcher.signal("INT");
        assert_eq!(watcher.end().status.code(), Some(130));
    }
}

#[test]
fn another_link_to_the_file_of_a_socket_is_bound_here() {
    let scratch = Scratch::new();
    let (path, link) = (scratch.path("bound"), scratch.path("link"));
    let _listener = UnixListener::bind(&path).unwrap();
    std::fs::hard_link(&path, &link).unwrap();
    let objects = listed(&["--in", scratch.root().to_str().unwrap()]);
    let told = |path: &std::path::Path| at(&objects, &format!("unix:{}", path.display()))["description"].clone();
    assert_eq!((told(&path), told(&link)), ("listening".into(), "bound by another name".into()));
}

#[test]
fn a_watcher_whose_reader_has_gone_ends() {
    let script = format!("{} ls --watch --kind pty | head -c 0; echo ended", env!("CARGO_BIN_EXE_onecopy"));
    assert_eq!(program("timeout", ["100", "sh", "-c", &script]).end().stdout, b"ended\n");
}

#[test]
fn a_process_that_proc_hides_is_not_called_missing() {
    let test = "ls::a_process_that_proc_hides_is_not_called_missing";
    let scratch = Scratch::new();
    let copy = scratch.path("onecopy");
    let hidden = |script: &str| {
        let script = format!("mount -t proc -o hidepid=2 proc /proc && {script}");
        program("unshare", ["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_onecopy"), copy.to_str().unwrap()]).end()
    };
    let tried = hidden("true");
    if !tried.status.success() {
        return skip(test, &tried.stderr);
    }
    let list = |pid: u32| {
        hidden(&format!("cp \"$0\" \"$1\" && setpriv --reuid 4321 --regid 4321 --clear-groups \"$1\" ls --pid {pid}"))
    };
    let own = std::process::id();
    list(own).fails_with(1, &[&format!("process {own} cannot be looked at: "), "hidepid", "run as root"]);
    // PID_MAX_LIMIT, which no number of a process reaches.
    list(1 << 22).fails_with(1, &["there is no process 4194304"]);
}

#[test]
fn what_a_process_has_open_is_found_when_its_first_thread_has_exited() {
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    assert!(program("mkfifo", [&fifo]).end().status.success());
    let name = unique("ls");
    let memory = format!("shm:/{name}");
    let _cleanup = Cleanup::new(&memory);
    onecopy(["create", &memory, "--size", "4K"]).end().succeeds();
    let script = "import ctypes, mmap, os, sys, threading
fifo, file = [os.open(path, os.O_RDWR) for path in sys.argv[1:]]
memory = mmap.mmap(file, 4096)
threading.Thread(target=lambda: os.read(0, 1)).start()
ctypes.CDLL(None).syscall({'x86_64': 60}.get(os.uname().machine, 93), 0)";
    let running = program("python3", ["-c", script, fifo.to_str().unwrap(), &format!("/dev/shm/{name}")]);
    let running = running.silent_input().start();
    let pid = running.pid();
    let status = format!("/proc/{pid}/status");
    eventually("its first thread has exited", || std::fs::read_to_string(&status).unwrap().contains("State:\tZ"));
    let found = listed(&["--pid", &pid.to_string()]);
    for address in [format!("fifo:{}", fifo.display()), memory.clone()] {
        assert!(pids(&at(&found, &address), "holders").contains(&pid.into()), "{address}: {found:?}");
    }
    drop(running);
}

#[test]
fn another_user_is_told_what_it_cannot_see() {
    if !is_root() {
        skip("ls::another_user_is_told_what_it_cannot_see", "only root can be another user");
        return;
    }
    let name = unique("ls");
    let (address, own) = (format!("shm:/{name}"), format!("mq:/{name}"));
    let _cleanup = Cleanup::new(&address).and(&own);
    onecopy(["create", &address, "--size", "4K"]).end().succeeds();
    let ended = crate::permissions::unprivileged(&["ls", "--kind", "posix-shm"]).end();
    assert!(
        ended.status.success()
            && ended.stderr.contains("could not be looked at")
            && ended.stderr.contains("run as root"),
        "{ended:?}"
    );
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    let ended = crate::permissions::unprivileged(&["ls", "--json", "--kind", "posix-shm"]).end();
    let found: Value = serde_json::from_slice(&ended.succeeds()).unwrap();
    assert!(found["unseen_processes"].as_u64().unwrap() > 0);
    let object = at(found["objects"].as_array().unwrap(), &address);
    assert_eq!((object["state"].as_str(), object["uid"].as_u64()), (Some("unknown"), Some(0)));
    crate::permissions::unprivileged(&["ls", "--pid", &std::process::id().to_string()])
        .end()
        .fails_with(1, &["cannot be looked at", "root"]);
}

#[test]
fn without_proc_it_says_so() {
    let test = "ls::without_proc_it_says_so";
    let script = "mount -t tmpfs none /proc && exec \"$0\" ls";
    let ended = program("unshare", ["-r", "-m", "sh", "-c", script, env!("CARGO_BIN_EXE_onecopy")]).end();
    if ended.stderr.contains("unshare") || ended.stderr.contains("mount:") {
        skip(test, "no namespace for mounts can be made here");
        return;
    }
    ended.fails_with(1, &["cannot read /proc", "mount -t proc"]);
}

#[test]
fn processes_that_come_and_go_and_many_sockets_disturb_nothing() {
    let scratch = Scratch::new();
    let sockets: Vec<UnixListener> =
        (0..300).map(|index| UnixListener::bind(scratch.path(&index.to_string())).unwrap()).collect();
    let churn = "while :; do true | sh -c 'exec 9<>/dev/null; exec sleep 0.01'; done";
    let churning = program("timeout", ["200", "sh", "-c", churn]).start();
    let own = u64::from(std::process::id());
    for _ in 0..20 {
        let all = listed(&["--all", "--in", scratch.root().to_str().unwrap()]);
        assert_eq!(all.iter().filter(|object| pids(object, "holders").contains(&own)).count(), sockets.len());
        assert!(listed(&["--all"]).len() > sockets.len());
    }
    churning.signal("TERM");
    churning.end();
}

/// serde_json, as most, takes the last of two keys that are the same.
#[test]
fn how_many_wait_for_a_semaphore_is_a_key_of_its_own() {
    let address = format!("sem:/{}", unique("keys"));
    let _cleanup = Cleanup::new(&address);
    onecopy(["create", &address, "--initial", "3"]).end().succeeds();
    let object = at(&listed(&["--kind", "posix-named-semaphore"]), &address);
    assert_eq!((object["value"].as_u64(), object["waiters"].as_u64()), (Some(3), Some(0)), "{object}");
    assert!(object["waiting"].is_array(), "{object}");
}
