//! Wrong usage: exit code 2 and one line that says what is wrong and what would be right.

use crate::mechanisms::Object;
use crate::support::{Scratch, onecopy, program, skip, unique};

#[test]
fn a_bare_command_shows_help_and_fails() {
    let ended = onecopy::<&str>([]).end();
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("Usage: onecopy"), "{ended:?}");
}

#[test]
fn help_and_version_succeed() {
    for verb in ["send", "recv", "read", "write", "expose", "fetch", "create", "rm", "pipe-safety"] {
        let help = String::from_utf8(onecopy([verb, "--help"]).end().succeeds()).unwrap();
        assert!(help.contains("Examples:\n  ") && help.contains(&format!("onecopy {verb} ")), "{help}");
    }
    assert!(onecopy(["--version"]).end().succeeds().starts_with(b"onecopy "));
}

#[test]
fn completions_and_man_pages_come_from_the_same_definition() {
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(onecopy(["completions", shell]).end().succeeds()).unwrap();
        for word in ["no-create", "expose", "fetch"] {
            assert!(script.contains(word), "{shell}: {script}");
        }
    }
    let scratch = Scratch::new();
    onecopy(["man", scratch.root().to_str().unwrap()]).end().succeeds();
    let page = std::fs::read_to_string(scratch.path("onecopy-send.1")).unwrap();
    assert!(page.contains("priority"), "{page}");
    let page = std::fs::read_to_string(scratch.path("onecopy-lock.1")).unwrap();
    assert!(page.contains(r"<LOCK\-ADDRESS> \-\- <COMMAND>..."), "{page}");
    for verb in ["expose", "fetch"] {
        let page = std::fs::read_to_string(scratch.path(&format!("onecopy-{verb}.1"))).unwrap();
        assert!(page.contains("via") && !page.contains("probe"), "{page}");
    }
}

#[test]
fn a_man_page_has_the_examples_line_by_line_and_all_ways_to_say_an_option() {
    let scratch = Scratch::new();
    onecopy(["man", scratch.root().to_str().unwrap()]).end().succeeds();
    for verb in ["bench", "send", "recv", "lock", "wait", "ls", "rm", "explain", "fetch"] {
        let help = String::from_utf8(onecopy([verb, "--help"]).end().succeeds()).unwrap();
        let examples = help.lines().skip_while(|line| *line != "Examples:").skip(1).take_while(|line| !line.is_empty());
        let page = std::fs::read_to_string(scratch.path(&format!("onecopy-{verb}.1"))).unwrap();
        let (_, page) = page.split_once(".SH \"EXAMPLES\"\n.nf\n").expect("lines that troff does not fill");
        let (page, _) = page.split_once("\n.fi\n").expect("an end of them");
        let page = page.replace("\\-", "-").replace("\\(aq", "'").replace("\\(ga", "`").replace("\\&", "");
        assert_eq!(page.lines().collect::<Vec<_>>(), examples.collect::<Vec<_>>(), "{verb}");
    }
    let lock = std::fs::read_to_string(scratch.path("onecopy-lock.1")).unwrap().replace('\\', "");
    for words in ["<LOCK-ADDRESS> -- <COMMAND>...", "[alias: --nb]", ".SH \"EXIT STATUS\""] {
        assert!(lock.contains(words), "{words}: {lock}");
    }
}

#[test]
fn bad_command_lines() {
    let cases: &[(&[&str], &str)] = &[
        (&["snd", "mq:/x"], "unrecognized subcommand 'snd'; a similar subcommand exists: 'send' (see onecopy --help)"),
        (&["send"], "the following required arguments were not provided: <ADDRESS> (see onecopy send --help)"),
        (
            &["send", "mq:/x", "--fram"],
            "unexpected argument '--fram' found; a similar argument exists: '--frame' (see onecopy send --help)",
        ),
        (
            &["recv", "mq:/x", "--timeout", "5"],
            "invalid value '5' for '--timeout <TIME>': no time: write it as 500ms, 2s, 1.5m or 1h (see onecopy recv --help)",
        ),
        (
            &["recv", "mq:/x", "--count", "-1"],
            "invalid value '-1' for '--count <N>': no number of messages: write 3, or 0 for all (see onecopy recv --help)",
        ),
        (
            &["send", "mq:/x", "--priority", "32768"],
            "invalid value '32768' for '--priority <N>': 32768 is not in 0..=32767 (see onecopy send --help)",
        ),
        (
            &["send", "mq:/x", "--priority", "x"],
            "invalid value 'x' for '--priority <N>': no number: write it in digits (see onecopy send --help)",
        ),
        (
            &["pipe-safety", "--messages", "0"],
            "invalid value '0' for '--messages <N>': the least is 1 (see onecopy pipe-safety --help)",
        ),
        (
            &["send", "sysv-mq:1", "--type", "0"],
            "invalid value '0' for '--type <N>': 0 is not in 1..9223372036854775807 (see onecopy send --help)",
        ),
        (
            &["recv", "sysv-mq:1", "--type", "x"],
            "invalid value 'x' for '--type <N>': no selection of types: write 3, -3 (up to 3), ^3 (all but 3) or 0 (any) \
             (see onecopy recv --help)",
        ),
        (
            &["create", "shm:/x", "--size", "64KB"],
            "invalid value '64KB' for '--size <BYTES>': no size: write bytes, or with a power of 1024 as 64K, 16M or 1GiB \
             (see onecopy create --help)",
        ),
        (
            &["create", "shm:/x", "--size", "-1"],
            "invalid value '-1' for '--size <BYTES>': no size: write bytes, or with a power of 1024 as 64K, 16M or 1GiB \
             (see onecopy create --help)",
        ),
        (
            &["create", "mq:/x", "--max-messages", "1K"],
            "invalid value '1K' for '--max-messages <N>': no number of messages: write it in digits, as 10 \
             (see onecopy create --help)",
        ),
        (
            &["create", "mq:/x", "--mode", "1777"],
            "invalid value '1777' for '--mode <MODE>': no permission bits: write them in octal, from 0 to 0777, as 0600 \
             (see onecopy create --help)",
        ),
        (
            &["send", "mq:/x", "--nonblock", "--timeout", "1s"],
            "the argument '--nonblock' cannot be used with '--timeout <TIME>' (see onecopy send --help)",
        ),
        (&["lock", "mq:/x", "--", "true"], "lock does not fit mq:/x, which is no lock: its verbs are send and recv"),
        (&["post", "shm:/x"], "post does not fit shm:/x, which wakes nobody: its verbs are read, write, send and recv"),
        (&["wait", "flock:/x"], "wait does not fit flock:/x, which is nothing to wait for: its verb is lock"),
        (
            &["wait", "mem:1:0x1000+8"],
            "wait does not fit mem:1:0x1000+8, which is nothing to wait for: its verbs are read and write",
        ),
        (
            &["lock", "-s", "sem:/x", "--", "true"],
            "--shared does not fit sem:/x, which one holds at a time: flock:, record:, ofd: and rwlock: have a shared mode",
        ),
        (&["rm", "shm:/x", "--kind", "posix-shm"], "--kind, --user and --in belong to --stale"),
        (
            &["ls", "--kind", "posix-mw"],
            "invalid value 'posix-mw' for '--kind <K,…>': posix-mw: no such mechanism; did you mean posix-mq? \
             (see onecopy ls --help)",
        ),
        (
            &["ls", "--kind", "cma-read"],
            "invalid value 'cma-read' for '--kind <K,…>': cma-read has no objects that could be listed \
             (see onecopy ls --help)",
        ),
        (
            &["rm", "--stale", "--user", "no-such-user"],
            "invalid value 'no-such-user' for '--user <U>': there is no such user: write a name or a number \
             (see onecopy rm --help)",
        ),
    ];
    for (arguments, line) in cases {
        onecopy(*arguments).end().fails(2, line);
    }
}

#[test]
fn arguments_that_are_no_utf8_are_wrong_usage_and_no_bug() {
    use std::os::unix::ffi::OsStrExt as _;
    for bytes in [&b"\xff"[..], b"-\xff", b"--\xff"] {
        onecopy([std::ffi::OsStr::from_bytes(bytes)]).end().fails_with(2, &["(see onecopy --help)"]);
    }
}

#[test]
fn names_that_would_break_a_line_or_command_a_terminal_are_shown_harmless() {
    let odd = "/nonexistent/a\nb\u{1b}[31mc";
    let in_file = "cannot open /nonexistent/a\\nb\\u{1b}[31mc: No such file or directory";
    onecopy(["send", "mq:/x", "-i", odd]).end().fails(1, in_file);
    onecopy(["recv", "mq:/x", "-o", odd]).end().fails(1, &in_file.replace("open", "create"));
    for mechanism in ["fifo", "pty", "mmap", "unix"] {
        let address = format!("{mechanism}:{odd}");
        onecopy(["send", &address, "--no-create", "--timeout", "20ms"]).end().fails_with_any(&["a%0Ab%1B[31mc"]);
    }
}

#[test]
fn what_is_not_there_is_named_with_what_helps() {
    let pid = std::process::id();
    onecopy(["send", "fd:1000"]).end().fails_with(1, &["fd:1000", "inherited no such descriptor"]);
    let has_none = onecopy(["send", &format!("fd:{pid}:100000")]).end();
    let takes_them = !has_none.stderr.contains("needs Linux 5.6");
    if takes_them {
        has_none.fails_with(1, &[&format!("/proc/{pid}/fd")]);
    }
    // PID_MAX_LIMIT, which no number of a process reaches.
    onecopy(["recv", "fd:4194304:0"]).end().fails_with(1, &["fd:4194304:0", "no process has this number"]);
    onecopy(["signal", "4194304", "USR1"])
        .end()
        .fails_with(1, &["signal:4194304?sig=USR1", "no process has this number"]);
    let of_thread = || {
        let own = std::fs::read_link("/proc/thread-self").unwrap();
        let address = format!("fd:{}:0", own.file_name().unwrap().to_str().unwrap());
        onecopy(["recv", &address]).end().fails_with(1, &[&address, "it is a thread: name its process"]);
    };
    std::thread::scope(|scope| scope.spawn(of_thread).join().unwrap());
    let scratch = Scratch::new();
    let file = std::fs::File::create(scratch.path("file")).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    let address = format!("fd:{pid}:{number}");
    if takes_them {
        onecopy(["read", &address]).end().fails_with(2, &[&format!("{address}: no memfd")]);
    }
}

/// What starts this program again finds it in /proc, and a command that is there must not be called missing.
#[test]
fn without_proc_it_is_asked_for() {
    let without_proc = |script: &str| {
        let script = format!("mount -t tmpfs none /proc && {script}");
        program("unshare", ["-U", "-r", "-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_onecopy")]).end()
    };
    let tried = without_proc("true");
    if !tried.status.success() {
        return skip("usage::without_proc_it_is_asked_for", &tried.stderr);
    }
    let scratch = Scratch::new();
    let lock = format!("\"$0\" lock record:{} -- sh -c true", scratch.path("lock").display());
    let needs = "onecopy needs /proc, which is not mounted here (mount -t proc proc /proc)";
    without_proc(&lock).fails(1, &format!("cannot run sh: {needs}"));
    without_proc("\"$0\" bench --only pipe --workload rtt")
        .fails(1, &format!("the baselines: a worker cannot be started: {needs}"));
    without_proc("\"$0\" pipe-safety").fails(1, &format!("cannot start a writer: {needs}"));
    let doctor = String::from_utf8(without_proc("\"$0\" doctor").stdout).unwrap();
    let words: Vec<&str> = doctor.split_whitespace().collect();
    assert!(words.join(" ").contains(&format!("no second process could be started: {needs}")), "{doctor}");
}

#[test]
fn two_receivers_of_one_queue_are_told_that_they_are_two() {
    let queue = Object::new("mq");
    onecopy(["send", &queue.address, "--frame"]).input(vec![7; 20_000]).end().succeeds();
    onecopy(["recv", &queue.address]).end();
    onecopy(["recv", &queue.address, "--frame"]).end().fails_with(1, &[&queue.address, "is there another receiver?"]);
}

#[test]
fn a_message_to_stderr_is_one_write() {
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let to_socket = |command: &mut std::process::Command| {
        command.stderr(std::os::fd::OwnedFd::from(theirs));
    };
    onecopy(["send"]).with(to_socket).end();
    let mut line = [0; 500];
    let len = ours.recv(&mut line).unwrap();
    assert!(line.starts_with(b"onecopy: ") && line[..len].ends_with(b"\n"), "others may write there at the same time");
}

#[test]
fn nobody_is_reached_at_port_0() {
    for mechanism in ["tcp", "udp"] {
        let address = format!("{mechanism}:127.0.0.1:0");
        onecopy(["send", &address]).end().fails_with(2, &[&address, "port 0"]);
    }
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    for arguments in [&["--help"][..], &["--version"], &["send", "--help"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let full_stdout = |command: &mut std::process::Command| {
            command.stdout(full);
        };
        onecopy(arguments).with(full_stdout).end().fails(1, "cannot write stdout: No space left on device");
    }
}

#[test]
fn too_few_descriptors_are_an_error_with_the_remedy() {
    let limited = |limit: &str| {
        let command = format!("ulimit -n {limit}; exec \"$@\"");
        let onecopy = env!("CARGO_BIN_EXE_onecopy");
        program("sh", ["-c", &command, "sh", onecopy, "recv", "unix:@no-descriptors", "--timeout", "10ms"]).end()
    };
    for limit in ["4", "5"] {
        limited(limit).fails_with(1, &["Too many open files", "ulimit -n"]);
    }
    limited("6").fails_with(1, &["unix:@no-descriptors", "Too many open files", "ulimit -n"]);
    for limit in ["6", "10", "16"] {
        let list = ["-c", &format!("ulimit -n {limit}; exec \"$0\" ls"), env!("CARGO_BIN_EXE_onecopy")];
        program("sh", list).end().fails_with(1, &["Too many open files", "ulimit -n"]);
    }
}

#[test]
fn a_descriptor_of_a_file_is_said_to_be_one() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let file = std::fs::File::create(&path).unwrap();
    let to_file = |command: &mut std::process::Command| {
        command.stdout(file);
    };
    let words = ["fd:1, which is the file ", path.to_str().unwrap(), "mmap:PATH"];
    onecopy(["send", "fd:1"]).with(to_file).end().fails_with(2, &words);
}

#[test]
fn bad_addresses_show_the_place() {
    let cases: &[(&str, &[&str])] = &[
        ("tcp:localhost", &["tcp:localhost: ", "port", "column 14", "tcp:localhost:7000"]),
        ("mq:jobs", &["mq:jobs: ", "slash", "column 4"]),
        ("nonsense", &["nonsense", "column 1"]),
        ("", &["empty"]),
        ("unix:", &["unix:", "column 6"]),
        ("tcp:host:99999", &["99999", "65535"]),
        ("mem:0:0x1+5", &["mem:0:0x1+5", "pid 0"]),
        ("sysv-mq:0", &["sysv-mq:0"]),
    ];
    for (address, words) in cases {
        for verb in ["send", "recv", "read", "write", "create", "rm"] {
            onecopy([verb, address]).end().fails_with(2, words);
        }
    }
}

#[test]
fn a_number_of_too_many_digits_is_too_large() {
    let digits = "99999999999999999999";
    for arguments in [
        &["recv", "mq:/x", "--count", digits][..],
        &["wait", "sem:/x", "--count", digits],
        &["create", "mq:/x", "--max-messages", digits],
        &["create", "shm:/x", "--size", digits],
        &["signal", digits, "USR1"],
    ] {
        onecopy(arguments).end().fails_with(2, &[&format!("'{digits}' for "), ": the number is too large (see "]);
    }
}

#[test]
fn an_unknown_kind_is_told_all_names() {
    onecopy(["ls", "--kind", "banana"]).end().fails_with(2, &["no such mechanism; one of pipe, ", ", channel (see"]);
}

#[test]
fn what_does_not_fit_the_mechanism_is_refused() {
    let cases: &[(&[&str], &str)] = &[
        (&["send", "fifo:/x", "--priority", "1"], "--priority does not fit fifo:/x: only mq: has priorities"),
        (&["send", "mq:/x", "--type", "1"], "--type does not fit mq:/x: only sysv-mq: has types"),
        (&["recv", "mq:/x", "--type", "-3"], "--type does not fit mq:/x: only sysv-mq: has types"),
        (
            &["recv", "fifo:/x", "--count", "2"],
            "--count: fifo:/x is a stream without messages (--frame makes messages)",
        ),
        (
            &["send", "mq:/x", "--listen"],
            "--listen does not fit mq:/x: nobody listens there, both sides open the same object",
        ),
        (
            &["recv", "mq:/x", "--connect"],
            "--connect does not fit mq:/x: nobody listens there, both sides open the same object",
        ),
        (
            &["send", "mem:1:0x1000+4"],
            "send does not fit mem:1:0x1000+4, which is the memory of a process: use `onecopy read` or `onecopy write`",
        ),
        (&["recv", "sem:/x"], "recv does not fit sem:/x, which moves no data: its verbs are post, wait and lock"),
        (&["send", "mutex:/x"], "send does not fit mutex:shm:/x, which moves no data: its verb is lock"),
        (&["read", "mq:/x"], "read does not fit mq:/x, which is no memory: use `onecopy recv`"),
        (&["write", "unix:/x"], "write does not fit unix:/x, which is no memory: use `onecopy send`"),
        (
            &["write", "mem:1:0x1000+4", "--create", "4K"],
            "--create does not fit mem:1:0x1000+4: it exists, or cannot be made by name",
        ),
        (
            &["create", "tcp:localhost:1"],
            "create does not fit tcp:localhost:1: it exists for as long as a process listens there; use `onecopy recv`",
        ),
        (&["create", "mq:/x", "--size", "4K"], "--size does not fit mq:/x: it is for shm:, sysv-shm: and mmap:"),
        (&["create", "fifo:/x", "--message-size", "4K"], "--message-size does not fit fifo:/x: it is for mq:"),
        (&["create", "shm:/x", "--initial", "1"], "--initial does not fit shm:/x: it is for semaphores"),
        (&["rm", "tcp:localhost:1"], "rm does not fit tcp:localhost:1: a port goes with the process that bound it"),
        (&["rm", "fd:0"], "rm does not fit fd:0: a descriptor goes with the processes that hold it"),
    ];
    for (arguments, line) in cases {
        onecopy(*arguments).end().fails(2, line);
    }
}

#[test]
fn missing_objects_are_named() {
    let name = unique("missing");
    for (arguments, words) in [
        (&["recv", "mq:/NAME", "--no-create"][..], &["mq_open on mq:/", "No such file", "--no-create"][..]),
        (&["send", "sysv-mq:0x7fffff11", "--no-create"], &["sysv-mq:0x7fffff11", "No such file", "--no-create"]),
        (&["send", "fifo:/tmp/NAME", "--no-create"], &["fifo:/tmp/", "No such file", "--no-create"]),
        (&["send", "fifo:/nonexistent/NAME"], &["fifo:/nonexistent/", "No such file"]),
        (&["recv", "unix:/nonexistent/NAME"], &["unix:/nonexistent/", "No such file"]),
        (&["send", "sysv-mq:id=123456789"], &["sysv-mq:id=123456789"]),
        (&["send", "sysv-mq:path:/nonexistent?id=1"], &["/nonexistent"]),
        (&["recv", "fd:99"], &["fd:99", "Bad file descriptor"]),
        (&["recv", "fd:4194305:0"], &["fd:4194305:0"]),
        (&["read", "shm:/NAME"], &["shm:/", "No such file"]),
        (&["read", "mmap:/tmp/NAME"], &["mmap:/tmp/", "No such file"]),
        (&["read", "sysv-shm:0x7fffff11"], &["sysv-shm:0x7fffff11", "No such file"]),
        (&["read", "mem:4194305:0x1000+16"], &["mem:4194305", "No such process"]),
        (&["rm", "mq:/NAME"], &["mq:/", "No such file"]),
        (&["rm", "shm:/NAME"], &["shm:/", "No such file"]),
        (&["rm", "sysv-mq:0x7fffff11"], &["sysv-mq:0x7fffff11", "No such file"]),
        (&["rm", "fifo:/tmp/NAME"], &["fifo:/tmp/", "No such file"]),
        (&["send", "mq:/NAME", "-i", "/nonexistent"], &["cannot open /nonexistent: No such file or directory"]),
        (&["send", "mq:/NAME", "-i", "/"], &["cannot read /: it is a directory"]),
        (
            &["recv", "mq:/NAME", "-o", "/nonexistent/file"],
            &["cannot create /nonexistent/file: No such file or directory"],
        ),
        (&["recv", "tcp:192.0.2.1:1"], &["tcp:192.0.2.1:1", "Cannot assign requested address"]),
    ] {
        let arguments = arguments.iter().map(|argument| argument.replace("NAME", &name));
        onecopy(arguments).end().fails_with(1, words);
    }
}

#[test]
fn messages_beyond_the_limit_name_both_numbers() {
    let queue = Object::new("mq");
    onecopy(["create", &queue.address, "--message-size", "100"]).end().succeeds();
    onecopy(["send", &queue.address]).input([0; 101]).end().fails(
        1,
        &format!(
            "stdin does not fit a message of {}, whose limit is 100 bytes (--frame sends any size)",
            queue.address
        ),
    );
    onecopy(["send", &queue.address, "-i", "/usr/bin/env"]).end().fails_with(1, &["/usr/bin/env of ", "100 bytes"]);
    onecopy(["send", &queue.address, "--lines"])
        .input(format!("short\n{}\n", "x".repeat(101)))
        .end()
        .fails_with(1, &["a line of stdin is longer than the 100 bytes of a message"]);
}
