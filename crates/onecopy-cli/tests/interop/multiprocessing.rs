//! Python's multiprocessing.shared_memory, which is POSIX shared memory without the slash.

use crate::support::{Cleanup, onecopy, pattern, python, unique};

#[test]
fn a_block_of_theirs_is_a_region_of_ours_and_the_other_way_round() {
    let test = "a_block_of_theirs_is_a_region_of_ours_and_the_other_way_round";
    let Some(mut theirs) = python(test, &["multiprocessing.shared_memory"]) else { return };
    let Some(mut ours) = python(test, &[]) else { return };
    let name = unique("multiprocessing");
    let address = format!("shm:/{name}");
    let _cleanup = Cleanup::new(&address);
    let bytes = pattern(20_000, 1);

    // The owner keeps it until its stdin ends, since its end removes the block.
    let script = "import sys\nfrom multiprocessing.shared_memory import SharedMemory\n\
                  m = SharedMemory(sys.argv[1], create=True, size=65536)\nm.buf[0:6] = b'python'\n\
                  print('ready', flush=True)\nsys.stdin.readline()\n\
                  assert bytes(m.buf[100:20100]) == open(sys.argv[2], 'rb').read()\nm.close()\nm.unlink()";
    let scratch = crate::support::Scratch::new();
    std::fs::write(scratch.path("expected"), &bytes).unwrap();
    let piped = || std::process::Stdio::piped();
    let arguments = ["-c", script, &name, scratch.path("expected").to_str().unwrap()].map(str::to_owned);
    let mut owner = theirs.args(arguments).stdin(piped()).stdout(piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(owner.stdout.take().unwrap()), &mut line).unwrap();
    let read = onecopy(["read", &address, "--len", "6"]).end();
    onecopy(["write", &address, "--offset", "100"]).input(bytes.clone()).end().succeeds();
    drop(owner.stdin.take());
    assert!(owner.wait().unwrap().success());
    assert_eq!(read.succeeds(), b"python");

    onecopy(["write", &address, "--create", "64K"]).input(bytes.clone()).end().succeeds();
    let script = "import sys\nfrom multiprocessing.shared_memory import SharedMemory\nm = SharedMemory(sys.argv[1])\n\
                  assert m.size == 65536\nsys.stdout.buffer.write(m.buf[:20000])\nm.close()";
    let output = ours.args(["-c", script, &name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == bytes);
}
