//! A gibibyte through each of the mechanisms that the project promises it for: behind ONECOPY_SOAK=1.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::mechanisms::Object;
use crate::support::{Scratch, onecopy, pattern, watchdog};

const BYTES: usize = 1 << 30;

fn digest(path: &Path) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while let count @ 1.. = file.read(&mut buffer).unwrap() {
        hash.update(&buffer[..count]);
    }
    hash.finalize().into()
}

#[test]
fn a_gibibyte_arrives_with_the_same_digest() {
    if std::env::var_os("ONECOPY_SOAK").is_none() {
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(1800));
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    let mut file = File::create(&source).unwrap();
    for part in 0..64 {
        file.write_all(&pattern(BYTES / 64, part)).unwrap();
    }
    drop(file);
    let expected = digest(&source);
    for (mechanism, more) in [
        ("fifo", &[][..]),
        ("pty", &[]),
        ("unix", &[]),
        ("unix-seqpacket", &["--frame"]),
        ("tcp", &[]),
        ("mq", &["--frame"]),
        ("sysv-mq", &["--frame"]),
        ("unix-dgram", &["--frame"]),
        ("shm", &["--frame"]),
    ] {
        let object = Object::new(mechanism);
        let receiver = ["recv", &object.address, "--verbose", "-o", copy.to_str().unwrap()];
        let receiver = onecopy(receiver.iter().chain(more)).start();
        let address = if object.has_port() { receiver.listening_address() } else { object.address.clone() };
        let start = Instant::now();
        onecopy(["send", &address, "-i", source.to_str().unwrap()].iter().chain(more)).end().succeeds();
        let ended = receiver.end();
        let took = start.elapsed();
        assert!(ended.status.success(), "{mechanism}: {ended:?}");
        assert_eq!(digest(&copy), expected, "{mechanism}");
        eprintln!("{mechanism}: 1 GiB in {:.2} s", took.as_secs_f64());
        std::fs::remove_file(&copy).unwrap();
    }
}
