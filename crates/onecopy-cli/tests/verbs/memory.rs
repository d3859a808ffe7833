//! `read` and `write`: shared memory, and the memory of another process.

use std::io::Write as _;

use crate::expose_refused::{KILL_PROCESS, under_filter};
use crate::mechanisms::Object;
use crate::support::{Scratch, onecopy, pattern, program};

#[test]
fn a_region_is_created_written_and_read_back() {
    for mechanism in ["shm", "sysv-shm", "mmap"] {
        let region = Object::new(mechanism);
        let bytes = pattern(100_000, 1);
        onecopy(["write", &region.address, "--create", "1M", "--offset", "4K"]).input(bytes.clone()).end().succeeds();
        let read = |more: &[&str]| onecopy(["read", &region.address].iter().chain(more)).end().succeeds();
        assert!(read(&["--offset", "4K", "--len", "100000"]) == bytes, "{mechanism}");
        assert!(read(&["--offset", "4196", "--len", "10"]) == bytes[100..110], "{mechanism}");
        let whole = read(&[]);
        assert_eq!(whole.len(), 1 << 20, "{mechanism}");
        assert!(whole[..4096].iter().all(|byte| *byte == 0) && whole[4096..104_096] == bytes, "{mechanism}");
        assert!(read(&["--offset", "1M"]).is_empty(), "{mechanism}");
    }
}

#[test]
fn ranges_beyond_the_region_name_the_numbers() {
    let region = Object::new("shm");
    onecopy(["create", &region.address, "--size", "8192"]).end().succeeds();
    let address = &region.address;
    onecopy(["read", address, "--offset", "8193"]).end().fails(2, &format!("--offset 8193: {address} has 8192 bytes"));
    onecopy(["read", address, "--offset", "8000", "--len", "193"])
        .end()
        .fails(2, &format!("--len 193: {address} has 192 bytes from offset 8000 to its end"));
    onecopy(["write", address, "--offset", "9000"]).end().fails(2, &format!("--offset 9000: {address} has 8192 bytes"));
    onecopy(["write", address, "--offset", "8000"]).input([1; 193]).end().fails(
        1,
        &format!("stdin does not fit {address}, which has 192 bytes from offset 8000 to its end: they were written"),
    );
    let scratch = Scratch::new();
    std::fs::write(scratch.path("long"), [1; 8193]).unwrap();
    onecopy(["write", address]).input_file(&scratch.path("long")).end().fails(
        1,
        &format!("stdin of 8193 bytes does not fit {address}, which has 8192 bytes from offset 0 to its end"),
    );
}

#[test]
fn a_region_that_is_too_short_is_not_created() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("long"), [1; 100]).unwrap();
    for mechanism in ["shm", "sysv-shm", "mmap"] {
        let region = Object::new(mechanism);
        let address = &region.address;
        let write = |offset: &str| {
            let arguments = ["write", address, "--create", "4096", "--offset", offset];
            onecopy(arguments).input_file(&scratch.path("long")).end()
        };
        write("5000").fails(2, &format!("--offset 5000: {address} would have 4096 bytes"));
        let line =
            format!("stdin of 100 bytes does not fit {address}, which would have 96 bytes from offset 4000 to its end");
        write("4000").fails(1, &line);
        onecopy(["rm", address]).end().fails_with(1, &["No such file"]);
        // What exists may be longer.
        onecopy(["create", address, "--size", "8K"]).end().succeeds();
        write("5000").succeeds();
        write("9000").fails(2, &format!("--offset 9000: {address} has 8192 bytes"));
    }
}

#[test]
fn a_segment_that_a_limit_keeps_out_names_the_limit() {
    let segment = Object::new("sysv-shm");
    onecopy(["create", &segment.address, "--size", "1G"]).end().succeeds();
    let read =
        ["-c", "ulimit -v 900000; exec \"$0\" read \"$1\" --len 1", env!("CARGO_BIN_EXE_onecopy"), &segment.address];
    let words = [&*segment.address, "1073741824 bytes were to be mapped", "`ulimit -v`"];
    program("sh", read).end().fails_with(1, &words);
}

#[test]
fn a_memfd_of_another_process_is_memory_too() {
    let script = "import os, sys\nfd = os.memfd_create('oc', os.MFD_ALLOW_SEALING)\nos.write(fd, b'sealed memory')\n\
                  import fcntl\nfcntl.fcntl(fd, 1033, 2)\nprint(fd, flush=True)\nsys.stdin.read()";
    let Some(mut python) = crate::support::python("a_memfd_of_another_process_is_memory_too", &[]) else { return };
    python.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut holder = python.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut line).unwrap();
    let address = format!("fd:{}:{}", holder.id(), line.trim());
    let read = onecopy(["read", &address]).end();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    if read.stderr.contains("needs Linux 5.6") {
        return crate::support::skip("a_memfd_of_another_process_is_memory_too", "no pidfd_getfd");
    }
    assert_eq!(read.succeeds(), b"sealed memory");
}

#[test]
fn the_memory_of_a_process_is_read_and_written_and_holes_are_exact() {
    let Some(mut python) =
        crate::support::python("the_memory_of_a_process_is_read_and_written_and_holes_are_exact", &[])
    else {
        return;
    };
    // Two pages that are followed by a hole: the third is unmapped again.
    let script = "import ctypes, sys\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.mmap.restype = ctypes.c_void_p\n\
                  libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\n\
                  page = libc.mmap(None, 12288, 3, 0x22, -1, 0)\nlibc.munmap(page + 8192, 4096)\n\
                  ctypes.memmove(page, b'remote', 6)\nprint(hex(page), flush=True)\nsys.stdin.readline()\n\
                  print(ctypes.string_at(page, 6), flush=True)\n";
    python.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut owner = python.spawn().unwrap();
    let mut told = std::io::BufReader::new(owner.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut told, &mut line).unwrap();
    let address = |len: usize| format!("mem:{}:{}+{len}", owner.id(), line.trim());
    assert_eq!(onecopy(["read", &address(6)]).end().succeeds(), b"remote");
    let partial = onecopy(["read", &address(12_288)]).end();
    let nothing = onecopy(["read", &format!("mem:{}:0x10+8", owner.id())]).end();
    onecopy(["write", &address(6)]).input("writer").end().succeeds();
    onecopy(["write", &address(6)]).input("too long").end().fails_with(1, &["does not fit", "6 bytes"]);
    owner.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    std::io::BufRead::read_line(&mut told, &mut line).unwrap();
    owner.wait().unwrap();
    assert_eq!(line.trim(), "b'too lo'", "the part that fits is written, and the message says so");
    assert_eq!((partial.stdout.len(), partial.status.code()), (8192, Some(1)), "{}", partial.stderr);
    assert!(
        partial.stderr.contains("process_vm_readv") && partial.stderr.contains("after 8192 bytes"),
        "{}",
        partial.stderr
    );
    assert!(partial.stderr.contains("the nearest mapping ends there: "), "{}", partial.stderr);
    nothing.fails_with(1, &["process_vm_readv", "0x10+8", "the nearest mapping begins ", " bytes behind it: "]);
}

#[test]
fn a_filter_that_kills_is_told_by_a_message() {
    let test = "a_filter_that_kills_is_told_by_a_message";
    let address = format!("mem:{}:0x10+8", std::process::id());
    for (verb, call) in [("read", "process_vm_readv"), ("write", "process_vm_writev")] {
        let Some(command) = under_filter(test, KILL_PROCESS, &[verb, &address]) else { return };
        let words = ["a seccomp filter of this process ends whoever calls ", call, "let the filter allow"];
        command.input("x").end().fails_with(1, &words);
    }
}

#[test]
fn the_reader_of_our_output_may_leave() {
    let region = Object::new("shm");
    onecopy(["create", &region.address, "--size", "16M"]).end().succeeds();
    let script = format!("{} read {}; echo $? >&2", env!("CARGO_BIN_EXE_onecopy"), region.address);
    let ended = program("sh", ["-c", &format!("({script}) | head -c 10 | wc -c")]).end();
    assert_eq!((ended.stdout.trim_ascii(), ended.stderr.as_str()), (&b"10"[..], "0\n"), "a quiet end");
}
