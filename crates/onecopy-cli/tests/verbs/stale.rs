//! `rm --stale`: what the dead left goes, and nothing else.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{OFlags, fcntl_setfl};

use crate::permissions::{is_root, unprivileged};
use crate::support::{Cleanup, Scratch, at, eventually, key, listed, onecopy, pids, program, skip, unique};

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn dead_socket_files_go_and_all_else_stays() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path(name);
    std::fs::create_dir_all(path("below/two/three")).unwrap();
    for dead in ["dead", "below/dead", "below/two/dead", "below/two/three/too-deep"] {
        drop(UnixListener::bind(path(dead)).unwrap());
    }
    drop(UnixDatagram::bind(path("dead-dgram")).unwrap());
    let _living = (UnixListener::bind(path("living")).unwrap(), UnixDatagram::bind(path("living-dgram")).unwrap());
    // A socket that is bound and does not listen yet.
    let bound = program(
        "python3",
        [
            "-c",
            "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\nprint(flush=True)\ninput()",
            path("bound").to_str().unwrap(),
        ],
    );
    let bound = bound.silent_input().start();
    eventually("it is bound", || path("bound").exists());
    std::fs::write(path("file"), "precious").unwrap();
    assert!(program("mkfifo", [path("fifo")]).end().status.success());
    symlink(path("nowhere"), path("link")).unwrap();
    symlink("/dev/pts/ptmx", path("terminals")).unwrap();
    let directory = scratch.root().to_str().unwrap();
    let stale = || listed(&["--in", directory]).into_iter().filter(|object| object["state"] == "stale").count();
    // A child of another test may have a socket until it executes its program.
    eventually("they are dead", || stale() == 4);
    let before = names(scratch.root());
    let removed = String::from_utf8(onecopy(["rm", "--stale", "--in", directory]).end().succeeds()).unwrap();
    let mut lines: Vec<&str> = removed.lines().collect();
    lines.sort_unstable();
    let address = |name: &str| format!("unix:{}", path(name).canonicalize().unwrap_or(path(name)).display());
    assert_eq!(lines, ["below/dead", "below/two/dead", "dead", "dead-dgram"].map(address));
    let gone: Vec<String> = before.into_iter().filter(|name| !name.starts_with("dead")).collect();
    assert_eq!(names(scratch.root()), gone);
    assert!(path("below/two/three/too-deep").exists() && stale() == 0);
    assert!(onecopy(["rm", "--stale", "--in", directory]).end().succeeds().is_empty());
    drop(bound);
}

#[test]
fn a_killed_receiver_leaves_its_file_and_it_goes() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path(name).display().to_string();
    let directory = scratch.root().to_str().unwrap();
    for address in [format!("unix:{}", path("s")), format!("channel:{}", path("c")), format!("pty:{}", path("p"))] {
        let mut receiver = onecopy(["recv", &address, "--verbose"]).start();
        receiver.listening_address();
        onecopy(["rm", "--stale", &address]).end().fails_with(1, &[&address, "is not stale, and stays"]);
        assert!(onecopy(["rm", "--stale", "--in", directory]).end().succeeds().is_empty());
        receiver.kill();
        assert_eq!(names(scratch.root()).len(), 1, "{address}");
        // A path may be relative, too; that of a channel may not.
        let (scheme, path) =
            address.rsplit_once('/').map(|(start, name)| (start.split(':').next().unwrap(), name)).unwrap();
        let short = if scheme == "channel" { address.clone() } else { format!("{scheme}:{path}") };
        // Another process may have a terminal of the same number for a while.
        eventually("it is stale", || {
            listed(&["--in", directory]).iter().any(|object| object["state"] == "stale")
                && onecopy(["rm", "--stale", &short])
                    .with(|command| {
                        command.current_dir(scratch.root());
                    })
                    .end()
                    .stdout
                    == format!("{short}\n").as_bytes()
        });
        assert!(names(scratch.root()).is_empty(), "{address}");
        onecopy(["rm", "--stale", &address]).end().fails_with(1, &[&address, "is not among"]);
    }
}

#[test]
fn a_ring_goes_when_both_sides_were_killed() {
    let address = format!("shm:/{}", unique("stale"));
    let _cleanup = Cleanup::new(&address);
    let mut receiver = onecopy(["recv", &address, "--count", "0", "--lines"]).start();
    let mut sender = onecopy(["send", &address, "--lines"]).silent_input().start();
    let state = || at(&listed(&["--kind", "posix-shm"]), &address)["state"].clone();
    eventually("both use it", || {
        let found = listed(&["--kind", "posix-shm"]);
        found.iter().any(|object| object["address"] == *address && object["noted_pids"].as_array().unwrap().len() == 2)
    });
    let stays = || onecopy(["rm", "--stale", &address]).end().fails_with(1, &[&address, "is not stale, and stays"]);
    assert_eq!(state(), "used");
    stays();
    // So that it does not notice, and close.
    receiver.signal("STOP");
    receiver.wait_until_stopped();
    sender.kill();
    assert_eq!(state(), "used");
    stays();
    receiver.kill();
    let object = at(&listed(&["--kind", "posix-shm"]), &address);
    assert_eq!(object["state"], "stale", "{object}");
    assert!(object["stale_because"].as_str().unwrap().contains("have exited without closing it"), "{object}");
    onecopy(["rm", "--stale", &address]).end().succeeds();
    onecopy(["rm", &address]).end().fails_with(1, &[&address, "No such file"]);
}

#[test]
fn a_semaphore_whose_maker_is_killed_before_it_has_its_name_goes() {
    let test = "stale::a_semaphore_whose_maker_is_killed_before_it_has_its_name_goes";
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip(test, "no strace");
    }
    let address = format!("sem:/{}", unique("stale"));
    let _cleanup = Cleanup::new(&address);
    let left = || -> Vec<serde_json::Value> {
        let found = listed(&["--kind", "posix-named-semaphore"]).into_iter();
        let is_unfinished = |object: &serde_json::Value| {
            object["state"] == "stale" && object["address"].as_str().unwrap().starts_with("sem:/onecopy-new-")
        };
        found.filter(is_unfinished).collect()
    };
    let before = left();
    // It has its mode before its name.
    let calls = "inject=?chmod,?fchmodat,?fchmodat2:signal=KILL";
    let command = env!("CARGO_BIN_EXE_onecopy");
    let ended = program("strace", ["-f", "-qq", "-e", calls, "--", command, "create", &address]).end();
    if ended.signal() != Some(9) {
        return skip(test, "strace kills nobody here");
    }
    let ours = left().into_iter().find(|object| before.iter().all(|old| old["address"] != object["address"])).unwrap();
    assert!(ours["stale_because"].as_str().unwrap().contains("has exited while it made it"), "{ours}");
    let address = ours["address"].as_str().unwrap();
    assert_eq!(
        String::from_utf8(onecopy(["rm", "--stale", address]).end().succeeds()).unwrap(),
        format!("{address}\n")
    );
    assert!(left().iter().all(|object| object["address"] != address));
    // Of a process that lives, this one.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start: u64 = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
    let namespace = std::fs::metadata("/proc/self/ns/pid").unwrap().ino() & 0xffff;
    let maker = u64::from(std::process::id()) | namespace << 22 | start << 38;
    let address = format!("sem:/onecopy-new-{maker:016x}-0");
    let _cleanup = Cleanup::new(&address);
    onecopy(["create", &address]).end().succeeds();
    onecopy(["rm", "--stale", &address]).end().fails_with(1, &[&address, "is not stale, and stays"]);
}

/// Messages may wait there, and a lock for its next user.
#[test]
fn memory_that_may_be_wanted_stays() {
    let name = unique("stale");
    let [ring, plain, mutex] = [format!("shm:/{name}-r"), format!("shm:/{name}-p"), format!("mutex:shm:/{name}-m")];
    let _cleanup = Cleanup::new(&ring).and(&plain).and(&mutex);
    onecopy(["create", &plain, "--size", "4K"]).end().succeeds();
    onecopy(["create", &mutex]).end().succeeds();
    let mut holder = onecopy(["lock", &mutex, "--", "sleep", "1000"]).start();
    eventually("it is held", || {
        at(&listed(&["--kind", "mutex"]), &mutex)["description"].as_str().unwrap().contains("held by thread")
    });
    holder.kill();
    // No receiver has come yet.
    let mut sender = onecopy(["send", &ring, "--lines"]).silent_input().start();
    eventually("the sender has it", || {
        let found = listed(&["--kind", "posix-shm"]);
        found.iter().any(|object| object["address"] == *ring && object["noted_pids"].as_array().unwrap().len() == 1)
    });
    sender.kill();
    for address in [&ring, &plain, &mutex] {
        onecopy(["rm", "--stale", address]).end().fails_with(1, &[address, "is not stale, and stays"]);
        at(&listed(&["--kind", "posix-shm"]), address);
    }
}

/// A segment without a key, of a program that we did not write; `sys.argv` says whether it attaches.
const SEGMENT: &str = "
import ctypes, sys
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
id = libc.shmget(0, 4096, 0o600)
if sys.argv[1] == 'attach':
    assert libc.shmat(id, None, 0) not in (None, ctypes.c_void_p(-1).value)
print(id, flush=True)
input()
";

#[test]
fn a_segment_without_a_key_goes_when_its_users_have_exited_and_others_stay() {
    let test = "stale::a_segment_without_a_key_goes_when_its_users_have_exited_and_others_stay";
    let keyed = format!("sysv-shm:{:#x}", key());
    let mut cleanup = Cleanup::new(&keyed);
    // Its maker attaches to it and has exited: it waits for whoever knows the key.
    onecopy(["create", &keyed, "--size", "4K"]).end().succeeds();
    let mut segments = Vec::new();
    for attach in ["attach", "keep"] {
        let Some(python) = crate::support::python(test, &["ctypes"]) else { return };
        let run = program(python.get_program(), ["-c", SEGMENT, attach]).silent_input().start();
        eventually("it has a segment", || run.stdout_so_far().ends_with(b"\n"));
        let id = String::from_utf8(run.stdout_so_far()).unwrap();
        let address = format!("sysv-shm:id={}", id.trim());
        cleanup = cleanup.and(&address);
        segments.push((address, run));
    }
    let state = |address: &str| at(&listed(&["--kind", "sysv-shm"]), address)["state"].clone();
    let stays =
        |address: &str| onecopy(["rm", "--stale", address]).end().fails_with(1, &[address, "is not stale, and stays"]);
    let object = at(&listed(&["--kind", "sysv-shm"]), &segments[0].0);
    assert_eq!(
        (object["attached"].as_u64(), pids(&object, "holders")),
        (Some(1), vec![u64::from(segments[0].1.pid())])
    );
    assert_eq!([state(&segments[0].0), state(&segments[1].0), state(&keyed)], ["used", "unused", "unused"]);
    [&segments[0].0, &segments[1].0, &keyed].into_iter().for_each(|address| stays(address));
    segments.iter_mut().for_each(|(_, run)| run.kill());
    assert_eq!([state(&segments[0].0), state(&segments[1].0), state(&keyed)], ["stale", "unused", "unused"]);
    // Nobody has attached to it yet: whoever was told of it may.
    [&segments[1].0, &keyed].into_iter().for_each(|address| stays(address));
    onecopy(["rm", "--stale", &segments[0].0]).end().succeeds();
    onecopy(["rm", &segments[0].0]).end().fails_with_any(&[&segments[0].0]);
    drop(cleanup);
}

#[test]
fn what_may_not_be_removed_is_said_and_the_code_is_1() {
    if !is_root() {
        skip("stale::what_may_not_be_removed_is_said_and_the_code_is_1", "only root can be another user");
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("dead");
    drop(UnixListener::bind(&path).unwrap());
    assert!(program("chmod", ["777", path.to_str().unwrap()]).end().status.success());
    let ended = unprivileged(&["rm", "--stale", "--in", scratch.root().to_str().unwrap()]).end();
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), &b""[..]), "{ended:?}");
    assert!(ended.stderr.contains(&format!("cannot remove unix:{}: Permission denied", path.display())), "{ended:?}");
    assert!(ended.stderr.ends_with("onecopy: 1 of 1 stale objects could not be removed\n"), "{ended:?}");
    assert!(path.exists());
}

#[test]
fn all_that_is_stale_goes_though_what_is_printed_cannot_be_written() {
    let scratch = Scratch::new();
    for name in ["a", "b", "c"] {
        drop(UnixListener::bind(scratch.path(name)).unwrap());
    }
    let directory = scratch.root().to_str().unwrap();
    let stale = || listed(&["--in", directory]).into_iter().filter(|object| object["state"] == "stale").count();
    // A child of another test may have a socket until it executes its program.
    eventually("they are dead", || stale() == 3);
    let command = |redirection: &str| {
        let script = format!("\"$0\" rm --stale --in \"$1\" {redirection}");
        program("sh", ["-c", &script, env!("CARGO_BIN_EXE_onecopy"), directory]).end()
    };
    command(">&-").fails(1, "cannot write stdout: it is closed");
    assert_eq!(names(scratch.root()).len(), 3);
    command(">/dev/full").fails(1, "cannot write stdout: No space left on device");
    assert_eq!(names(scratch.root()), [""; 0]);
}

#[test]
fn what_has_changed_since_it_was_found_stays() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path(name);
    let bind = |name: &str| UnixListener::bind(path(name)).unwrap();
    ["a", "b-living", "c-another", "d-dead"].into_iter().for_each(|name| drop(bind(name)));
    let directory = scratch.root().to_str().unwrap();
    let stale = || listed(&["--in", directory]).into_iter().filter(|object| object["state"] == "stale").count();
    // A child of another test may have a socket until it executes its program.
    eventually("they are dead", || stale() == 4);
    // It stands still when it has removed the first one, whose address has no room.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    let stdout = |command: &mut Command| {
        command.stdout(writer);
    };
    let remover = onecopy(["rm", "--stale", "--in", directory]).with(stdout).start();
    eventually("the first one is gone", || !path("a").exists());
    ["b-living", "c-another"].into_iter().for_each(|name| std::fs::remove_file(path(name)).unwrap());
    let _living = bind("b-living");
    drop(bind("c-another"));
    let mut printed = String::new();
    reader.read_to_string(&mut printed).unwrap();
    remover.end().succeeds();
    assert_eq!(names(scratch.root()), ["b-living", "c-another"]);
    let removed = ["a", "d-dead"].map(|name| format!("unix:{}\n", path(name).display())).concat();
    assert_eq!(printed.trim_start(), removed);
}

/// Whoever binds and replaces a socket file all the time must never lose a living one.
#[test]
fn sockets_that_come_and_go_are_never_taken_from_the_living() {
    let scratch = Scratch::new();
    let path = scratch.path("s");
    let directory = scratch.root().to_str().unwrap().to_owned();
    let name = onecopy::UnixName::path(&path).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                let ended = onecopy(["rm", "--stale", "--in", &directory]).end();
                assert!(ended.status.success(), "{ended:?}");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            // A program that exits without removing its file, and one of ours that takes its place.
            drop(UnixListener::bind(&path).unwrap());
            let Ok(listener) = onecopy::stream::unix::UnixListener::bind(&name) else {
                // A child of another test has the dead one until it executes its program.
                std::fs::remove_file(&path).unwrap();
                continue;
            };
            std::thread::sleep(std::time::Duration::from_micros(200));
            assert!(path.exists(), "a living socket lost its file");
            drop(listener);
        }
    });
}

/// Through an overlay, as the file system of a container is one, a socket is bound to another inode than the file has in the directory
/// into which the overlay writes.
#[test]
fn a_socket_that_is_bound_through_an_overlay_keeps_its_file() {
    let test = "stale::a_socket_that_is_bound_through_an_overlay_keeps_its_file";
    let scratch = Scratch::new();
    let user = "
        mount -t overlay none -o \"lowerdir=lower,upperdir=$PWD/upper dir,workdir=work\" merged || { echo failed >ready; exit; }
        exec python3 -c \"import socket; s = socket.socket(socket.AF_UNIX); s.bind('merged/s')
open('ready', 'w').write('bound'); open('done').read()\"";
    let script = "
        mount -t tmpfs none \"$1\" && cd \"$1\" && mkdir lower 'upper dir' work merged && mkfifo ready done || exit
        $3 sh -c \"$2\" &
        [ \"$(cat ready)\" = bound ] || exit
        python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('dead')\"
        \"$0\" rm --stale --in \"$1\"
        echo \"code $?\"
        ls 'upper dir'
        echo >done; wait";
    // The overlay is mounted where the command is, or in a name space of its own.
    for space in ["", "unshare -m"] {
        let root = scratch.root().to_str().unwrap();
        let ended =
            program("unshare", ["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_onecopy"), root, user, space]).end();
        let said = String::from_utf8(ended.stdout).unwrap();
        if said.is_empty() {
            skip(test, &format!("needs root and overlays: {}", ended.stderr));
            return;
        }
        let dead = scratch.path("dead");
        assert_eq!(said, format!("unix:{}\ncode 0\ns\n", dead.display()), "{space}: {}", ended.stderr);
    }
}

/// Somebody else's directory may become a link while root looks.
#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path(name);
    std::fs::create_dir_all(path("theirs/d")).unwrap();
    std::fs::create_dir_all(path("mine")).unwrap();
    drop(UnixListener::bind(path("mine/s")).unwrap());
    // A dead file of the same name, reached by a link: what lies behind a link is not looked at.
    symlink(path("mine"), path("theirs/d/link")).unwrap();
    let theirs = path("theirs");
    assert!(onecopy(["rm", "--stale", "--in", theirs.to_str().unwrap()]).end().succeeds().is_empty());
    assert!(path("mine/s").exists());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                assert!(onecopy(["rm", "--stale", "--in", theirs.to_str().unwrap()]).end().status.success());
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let _ = UnixListener::bind(path("theirs/d/s"));
            std::thread::sleep(std::time::Duration::from_micros(300));
            std::fs::rename(path("theirs/d"), path("theirs/e")).unwrap();
            symlink(path("mine"), path("theirs/d")).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(300));
            std::fs::remove_file(path("theirs/d")).unwrap();
            std::fs::rename(path("theirs/e"), path("theirs/d")).unwrap();
        }
    });
    assert!(path("mine/s").exists());
}
