//! Two processes with a channel between them, and messages that both can tell without having sent them.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use onecopy::channel::{ChannelReceiver, ChannelSender};
use onecopy::{Channel, Deadline, Receiver as _, Sender as _};

use crate::support::{Peer, skip, watchdog};

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;

/// Starts the second process of `test`, which has to [`adopt`] its side.
pub(crate) fn start(test: &str, role: &str, arguments: &[(&str, &str)]) -> (Channel, Peer) {
    start_with(test, role, arguments, |_| {})
}

/// As [`start`], with a last word on the command.
pub(crate) fn start_with(
    test: &str,
    role: &str,
    arguments: &[(&str, &str)],
    last: impl FnOnce(&mut Command),
) -> (Channel, Peer) {
    content(0, 0);
    let (parent, end): (_, OwnedFd) = Channel::pair().unwrap();
    let peer = Peer::configure(test, role, arguments, |command| {
        // What it has to complain about is seen even if this process fails first.
        command.stdin(end).stderr(Stdio::inherit());
        last(command);
    });
    (parent.accept_by(soon()).unwrap(), peer)
}

/// The side of the second process.
pub(crate) fn adopt() -> Channel {
    // So that it does not take its time later.
    content(0, 0);
    Channel::adopt_by(0, soon()).unwrap()
}

/// Plays `role` of a test in a process of its own, whose memory, descriptors and time no other test uses.
pub(crate) fn apart(test: &str, role: &str, limit: Duration) {
    let _watchdog = watchdog(limit);
    let peer = Peer::configure(test, role, &[], |command| {
        command.stderr(Stdio::inherit());
    });
    peer.succeed_within(limit);
}

/// Kills `peer` after `pause`, while this thread does something else.
pub(crate) fn kill_after(pause: Duration, mut peer: Peer) -> JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(pause);
        peer.kill();
    })
}

/// Long enough for what takes no time.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// Whether the long runs were asked for.
pub(crate) fn soak() -> bool {
    std::env::var_os("ONECOPY_SOAK").is_some()
}

/// `usual` rounds, or `long` in the long runs.
pub(crate) fn rounds(usual: usize, long: usize) -> usize {
    if soak() { long } else { usual }
}

/// A number that looks like a random one, the same in both processes.
pub(crate) fn hash(seed: u64) -> u64 {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ state >> 31
}

/// Where messages begin within what all of them are cut out of: more places than messages of one size.
const PLACES: usize = 64 * KIB;

/// The content of message `number` of a side: `bytes` of something that no other message near it begins with.
pub(crate) fn content(number: u64, bytes: usize) -> &'static [u8] {
    // The long one begins like the short one, and takes a while.
    static SHORT: OnceLock<Vec<u8>> = OnceLock::new();
    static LONG: OnceLock<Vec<u8>> = OnceLock::new();
    let make = |bytes: usize| {
        let mut all = Vec::with_capacity(bytes.next_multiple_of(8));
        let mut index = 0;
        while all.len() < bytes {
            all.extend_from_slice(&hash(index).to_le_bytes());
            index += 1;
        }
        all
    };
    let all = match bytes {
        0..=SHORT_BYTES => SHORT.get_or_init(|| make(PLACES + SHORT_BYTES)),
        _ => LONG.get_or_init(|| make(PLACES + 16 * MIB)),
    };
    let start = hash(number) as usize % PLACES;
    &all[start..][..bytes]
}

const SHORT_BYTES: usize = 3 * MIB;

/// Sends messages of these lengths, numbered from `first` on.
pub(crate) fn send_all(sender: &mut ChannelSender, first: u64, sizes: impl IntoIterator<Item = usize>) {
    for (number, size) in (first..).zip(sizes) {
        sender.send_by(content(number, size), soon()).unwrap_or_else(|error| panic!("{number}, {size} bytes: {error}"));
    }
}

/// Receives what [`send_all`] sends: `into` a buffer of the caller or as a message.
pub(crate) fn receive(receiver: &mut ChannelReceiver, number: u64, size: usize, into: Option<&mut [u8]>) {
    let expected = content(number, size);
    let context = || format!("message {number} of {size} bytes");
    match into {
        Some(buffer) => {
            let len = receiver.recv_into_by(buffer, soon()).unwrap_or_else(|error| panic!("{}: {error}", context()));
            assert_eq!(len, Some(size), "message {number}");
            assert!(&buffer[..size] == expected, "{}", context());
        }
        None => {
            let message = receiver.recv_by(soon()).unwrap_or_else(|error| panic!("{}: {error}", context()));
            let message = message.expect("no end yet");
            assert_eq!(message.len(), size, "message {number}");
            assert!(&message[..] == expected, "{}", context());
        }
    }
}

/// How much memory this process has.
pub(crate) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

/// How much of that is for messages that land, in both directions; `field` is how /proc/self/smaps calls what is meant.
pub(crate) fn landings_bytes(field: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let landings = maps.split("onecopy-landings").skip(1);
    let kib = landings.filter_map(|map| map.lines().find_map(|line| line.strip_prefix(field)));
    kib.map(|kib| kib.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * KIB).sum()
}

/// Whether nothing on this machine keeps a process from attaching to another one of its user. Otherwise says that a part of `test`
/// is skipped.
pub(crate) fn is_attachable(test: &str) -> bool {
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let refuses = !matches!(yama.trim(), "" | "0") && crate::own_uid() != 0;
    if refuses {
        skip(test, "Yama restricts cross-memory attach here");
    }
    !refuses
}
