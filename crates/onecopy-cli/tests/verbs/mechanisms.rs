//! An address of each mechanism that moves data, which nothing else uses.

use crate::support::{Cleanup, Scratch, key, program, skip, unique};

/// An object to send over. What the test leaves of it goes with this.
pub(crate) struct Object {
    pub(crate) address: String,
    _cleanup: Cleanup,
    _scratch: Option<Scratch>,
}

impl Object {
    pub(crate) fn new(mechanism: &str) -> Self {
        let name = unique("cli");
        let in_scratch = |form: &str| {
            let scratch = Scratch::new();
            (format!("{form}:{}", scratch.path("o").display()), Some(scratch))
        };
        let (address, scratch) = match mechanism {
            "fifo" | "pty" | "unix" | "unix-dgram" | "unix-seqpacket" | "mmap" => in_scratch(mechanism),
            "unix-abstract" => (format!("unix:@{name}"), None),
            "tcp" | "udp" | "sctp" => (format!("{mechanism}:127.0.0.1:0"), None),
            "tcp6" => ("tcp:[::1]:0".into(), None),
            "mq" | "shm" => (format!("{mechanism}:/{name}"), None),
            "channel" => (format!("channel:{name}"), None),
            "sysv-mq" | "sysv-shm" => (format!("{mechanism}:{:#x}", key()), None),
            other => panic!("no mechanism {other}"),
        };
        Self { _cleanup: Cleanup::new(&address), address, _scratch: scratch }
    }

    /// Whether the kernel chooses a part of the address, so that the sender has to be told.
    pub(crate) fn has_port(&self) -> bool {
        self.address.ends_with(":0")
    }
}

/// Byte streams.
pub(crate) const STREAMS: [&str; 6] = ["fifo", "pty", "unix", "unix-abstract", "tcp", "tcp6"];
/// Mechanisms whose messages arrive whole, each once.
pub(crate) const MESSAGES: [&str; 7] = ["unix-dgram", "unix-seqpacket", "mq", "sysv-mq", "shm", "sysv-shm", "mmap"];

/// Whether this machine has it. A test that cannot run says so.
pub(crate) fn is_available(test: &str, mechanism: &str) -> bool {
    if mechanism == "tcp6" && program("cat", ["/proc/sys/net/ipv6/conf/lo/disable_ipv6"]).end().stdout != b"0\n" {
        skip(test, "this machine has no IPv6 loopback");
        return false;
    }
    true
}
