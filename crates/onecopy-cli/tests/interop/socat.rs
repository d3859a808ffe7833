//! socat: UNIX sockets of three types, TCP, UDP, FIFOs, pseudoterminals.

use std::time::Duration;

use crate::support::{
    Ended, Run, Running, Scratch, eventually, onecopy, pattern, program, reserved_port, skip, watchdog,
};

/// All byte values, more than one buffer of a terminal, in one datagram.
const BYTES: usize = 30_000;

fn is_missing(test: &str) -> bool {
    let missing = std::process::Command::new("socat").arg("-V").output().is_err();
    if missing {
        skip(test, "no socat");
    }
    missing
}

/// socat from its stdin to `target`.
fn sends(target: &str) -> Run {
    program("socat", ["-u", "-", target])
}

/// socat from `source` to its stdout.
fn receives(source: &str) -> Run {
    program("socat", ["-u", "-b", "65536", source, "-"])
}

/// Our receiver, once it listens or waits, and its address.
fn our_receiver(address: &str) -> (Running, String) {
    let receiver = onecopy(["recv", address, "--timeout", "60s", "--verbose"]).start();
    let address = receiver.listening_address();
    (receiver, address)
}

#[track_caller]
fn came(ended: Ended, bytes: &[u8]) {
    assert!(ended.status.success(), "{:?}: {}", ended.status, ended.stderr);
    assert!(ended.stdout == bytes, "{} bytes came of {}: {}", ended.stdout.len(), bytes.len(), ended.stderr);
}

#[test]
fn unix_sockets() {
    let _watchdog = watchdog(Duration::from_secs(200));
    if is_missing("unix_sockets") {
        return;
    }
    let scratch = Scratch::new();
    for (scheme, connect, listen, options) in [
        ("unix", "UNIX-CONNECT", "UNIX-LISTEN", ""),
        ("unix-dgram", "UNIX-SENDTO", "UNIX-RECVFROM", ""),
        ("unix-seqpacket", "UNIX-CONNECT", "UNIX-LISTEN", ",type=5"),
    ] {
        let bytes = pattern(BYTES, 1);
        let path = scratch.path(&format!("to-us-{scheme}")).display().to_string();
        let (receiver, _) = our_receiver(&format!("{scheme}:{path}"));
        let target = format!("{connect}:{path}{options}");
        let sender = program("socat", ["-u", "-b", "65536", "-", &target]).input(bytes.clone()).end();
        assert!(sender.status.success(), "{scheme}: {sender:?}");
        came(receiver.end(), &bytes);

        let path = scratch.path(&format!("from-us-{scheme}")).display().to_string();
        let receiver = receives(&format!("{listen}:{path}{options}")).start();
        onecopy(["send", &format!("{scheme}:{path}"), "--timeout", "60s"]).input(bytes.clone()).end().succeeds();
        came(receiver.end(), &bytes);
    }
}

#[test]
fn an_abstract_unix_socket() {
    if is_missing("an_abstract_unix_socket") {
        return;
    }
    let name = crate::support::unique("socat");
    let bytes = pattern(BYTES, 2);
    let (receiver, _) = our_receiver(&format!("unix:@{name}"));
    assert!(sends(&format!("ABSTRACT-CONNECT:{name}")).input(bytes.clone()).end().status.success());
    came(receiver.end(), &bytes);
}

#[test]
fn tcp() {
    if is_missing("tcp") {
        return;
    }
    let bytes = pattern(1 << 20, 3);
    let (receiver, address) = our_receiver("tcp:127.0.0.1:0");
    assert!(sends(&address.replace("tcp:", "TCP4:")).input(bytes.clone()).end().status.success());
    came(receiver.end(), &bytes);

    let (_reserved, port) = reserved_port();
    let receiver = receives(&format!("TCP4-LISTEN:{port},bind=127.0.0.1,reuseaddr")).start();
    onecopy(["send", &format!("tcp:127.0.0.1:{port}"), "--timeout", "60s"]).input(bytes.clone()).end().succeeds();
    came(receiver.end(), &bytes);
}

/// The port of 127.0.0.1 to which a UDP socket of this process is bound.
fn bound_port(pid: u32) -> Option<u16> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let own: Vec<_> = links.filter_map(|link| std::fs::read_link(link.path()).ok()).collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/udp")).ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let port = fields.get(1)?.strip_prefix("0100007F:")?;
        let inode = format!("socket:[{}]", fields.get(9)?);
        own.iter().any(|link| link.as_os_str() == &*inode).then(|| u16::from_str_radix(port, 16).ok())?
    })
}

#[test]
fn udp() {
    if is_missing("udp") {
        return;
    }
    let bytes = pattern(BYTES, 4);
    let (receiver, address) = our_receiver("udp:127.0.0.1:0");
    let target = address.replace("udp:", "UDP4-SENDTO:");
    assert!(program("socat", ["-u", "-b", "65536", "-", &target]).input(bytes.clone()).end().status.success());
    came(receiver.end(), &bytes);

    let receiver = receives("UDP4-RECVFROM:0,bind=127.0.0.1").start();
    // Nobody refuses a datagram to a port that is not bound yet, so socat is waited for.
    let mut port = None;
    eventually("socat is bound", || {
        port = bound_port(receiver.pid());
        port.is_some()
    });
    let port = port.unwrap();
    onecopy(["send", &format!("udp:127.0.0.1:{port}")]).input(bytes.clone()).end().succeeds();
    came(receiver.end(), &bytes);
}

#[test]
fn a_fifo() {
    if is_missing("a_fifo") {
        return;
    }
    let scratch = Scratch::new();
    let bytes = pattern(1 << 20, 5);
    let path = scratch.path("fifo").display().to_string();
    let address = format!("fifo:{path}");
    onecopy(["create", &address]).end().succeeds();
    let receiver = onecopy(["recv", &address, "--timeout", "60s"]).start();
    assert!(sends(&format!("GOPEN:{path}")).input(bytes.clone()).end().status.success());
    came(receiver.end(), &bytes);

    let receiver = receives(&format!("OPEN:{path},rdonly")).start();
    onecopy(["send", &address, "--timeout", "60s"]).input(bytes.clone()).end().succeeds();
    came(receiver.end(), &bytes);
}

#[test]
fn a_pseudoterminal_carries_every_byte_unchanged() {
    let _watchdog = watchdog(Duration::from_secs(200));
    if is_missing("a_pseudoterminal_carries_every_byte_unchanged") {
        return;
    }
    let scratch = Scratch::new();
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(pattern(BYTES, 6));

    let link = scratch.path("ours").display().to_string();
    let (receiver, _) = our_receiver(&format!("pty:{link}"));
    let sender = sends(&format!("OPEN:{link},raw,echo=0")).input(bytes.clone()).end();
    assert!(sender.status.success(), "{sender:?}");
    came(receiver.end(), &bytes);

    let link = scratch.path("theirs").display().to_string();
    let receiver = receives(&format!("PTY,link={link},raw,echo=0,wait-slave")).start();
    onecopy(["send", &format!("pty:{link}"), "--timeout", "60s"]).input(bytes.clone()).end().succeeds();
    came(receiver.end(), &bytes);

    // socat closes without waiting for its reader, so its input stays open until everything came.
    let link = scratch.path("theirs-to-us").display().to_string();
    let mut sender = sends(&format!("PTY,link={link},raw,echo=0,wait-slave")).silent_input().start();
    let output = scratch.path("output");
    let file = std::fs::File::create(&output).unwrap();
    let receiver = onecopy(["recv", &format!("pty:{link}"), "--connect", "--timeout", "60s"]);
    let receiver = receiver
        .with(|command| {
            command.stdout(file);
        })
        .start();
    std::io::Write::write_all(sender.stdin.as_mut().unwrap(), &bytes).unwrap();
    eventually("everything came", || output.metadata().unwrap().len() >= bytes.len() as u64);
    drop(sender.end());
    receiver.end().succeeds();
    assert!(std::fs::read(&output).unwrap() == bytes);
}
