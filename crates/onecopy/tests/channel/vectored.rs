//! Messages in several parts, by each way.

use std::io::IoSlice;
use std::time::Duration;

use onecopy::channel::Path;
use onecopy::{Channel, Sender as _};

use crate::duo::{KIB, MIB, adopt, content, hash, is_attachable, receive, rounds, soon, start};
use crate::support::{role, watchdog};

const SECONDS: Duration = Duration::from_secs(240);

/// The message of this number, cut into pieces at places that nobody would choose, some of them empty.
fn parts(number: u64, size: usize) -> Vec<IoSlice<'static>> {
    let mut rest = content(number, size);
    let mut parts = Vec::new();
    let count = hash(number) % 40;
    for index in 0..count {
        let cut = match hash(number << 8 | index) % 4 {
            0 => 0,
            1 => rest.len() / 3,
            2 => rest.len().min(17),
            _ => rest.len() / 20,
        };
        let (part, behind) = rest.split_at(cut);
        parts.push(IoSlice::new(part));
        rest = behind;
    }
    parts.push(IoSlice::new(rest));
    parts
}

/// Through each of the ways.
const SIZES: [usize; 10] = [0, 1, 56, 104, 105, 5000, 60 * KIB, 700 * KIB, MIB, 3 * MIB + 7];

fn size(number: u64) -> usize {
    SIZES[number as usize % SIZES.len()]
}

/// Receives `count` messages: into a buffer, or not.
fn receive_all(channel: &mut Channel, count: u64) {
    let mut buffer = vec![0; 4 * MIB];
    for number in 0..count {
        let into = if number / 10 % 2 == 0 { Some(&mut buffer[..]) } else { None };
        receive(channel.receiver(), number, size(number), into);
    }
}

#[test]
fn parts_of_any_number_and_size_arrive_as_one_message() {
    let test = "vectored::parts_of_any_number_and_size_arrive_as_one_message";
    let count = rounds(400, 10_000) as u64;
    if let Some(role) = role() {
        let mut channel = adopt();
        if role == "alone" {
            channel.receiver().set_cooperative_bytes(usize::MAX);
        }
        return receive_all(&mut channel, count);
    }
    let _watchdog = watchdog(SECONDS);
    for role in ["together", "alone"] {
        let (mut channel, peer) = start(test, role, &[]);
        for number in 0..count {
            let parts = parts(number, size(number));
            channel.sender().send_vectored_by(&parts, soon()).unwrap_or_else(|error| panic!("{number}: {error}"));
        }
        let stats = channel.stats();
        assert_eq!(Path::ALL.map(|path| stats.sent(path).messages).iter().sum::<u64>(), count);
        if is_attachable(test) {
            let paths = [Path::SingleCopy, Path::Cooperative];
            assert_eq!(paths.map(|path| stats.sent(path).messages).iter().sum::<u64>(), count / 10 * 3, "{stats:?}");
        }
        drop(channel);
        peer.succeed();
    }
}

#[test]
fn without_waiting_and_in_too_many_parts_it_goes_through_the_ring() {
    let test = "vectored::without_waiting_and_in_too_many_parts_it_goes_through_the_ring";
    let message = content(7, 200 * KIB);
    if role().is_some() {
        let mut channel = adopt();
        for _ in 0..3 {
            assert!(channel.recv().unwrap().is_some_and(|received| received[..] == *message));
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "child", &[]);
    let sender = channel.sender();
    let some: Vec<_> = message.chunks(1000).map(IoSlice::new).collect();
    let many: Vec<_> = message.chunks(100).map(IoSlice::new).collect();
    sender.try_send_vectored(&some).unwrap();
    sender.flush_by(soon()).unwrap();
    sender.send_vectored(&many).unwrap();
    sender.send_vectored(&some).unwrap();
    let stats = channel.stats();
    assert!(stats.sent(Path::Ring).messages >= 2 && many.len() > 1024, "{stats:?}");
    drop(channel);
    peer.succeed();
}
