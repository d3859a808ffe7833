//! Messages of all sizes, both ways at once, and the memory that this takes.

use std::time::Duration;

use onecopy::channel::{ChannelReceiver, ChannelSender, Count, Path, Stats};
use onecopy::memory::buffer::{Buffer, set_pool_limit_bytes};
use onecopy::{Channel, Sender as _};

use crate::duo::{
    KIB, MIB, adopt, apart, content, hash, is_attachable, landings_bytes, receive, resident_bytes, rounds, send_all,
    soon, start,
};
use crate::support::{role, watchdog};

const SECONDS: Duration = Duration::from_secs(1800);

/// The limits of the ways, one less and one more, and what lies between.
fn sizes() -> Vec<usize> {
    let limits = [
        8,
        48,
        56,
        96,
        104,
        KIB,
        2 * KIB,
        4 * KIB,
        16 * KIB,
        32 * KIB,
        64 * KIB,
        128 * KIB,
        256 * KIB,
        MIB,
        2 * MIB,
        4 * MIB,
    ];
    let near = limits.into_iter().flat_map(|limit| [limit - 1, limit, limit + 1]);
    [0, 1, 16 * MIB - 1, 16 * MIB, 100_000, 5 * MIB + 3].into_iter().chain(near).collect()
}

/// The first message of the side that was the listener, and of the other one.
const FIRST: [u64; 2] = [0, 1 << 32];

/// A channel in two halves, which two threads use at once.
struct Halves(ChannelSender, ChannelReceiver);

impl Halves {
    fn of(channel: Channel) -> Self {
        let (sender, receiver) = channel.split();
        Self(sender, receiver)
    }

    /// Sends on one thread and receives on another until both are through. `into` is whether `index` is received into a buffer.
    fn both_ways(&mut self, first: [u64; 2], sizes: &[usize], into: impl Fn(usize) -> bool) {
        let mut buffer = vec![0; sizes.iter().max().unwrap() + 10];
        self.both_ways_with(&mut buffer, first, sizes, into);
    }

    /// The same into `buffer`, which is long enough.
    fn both_ways_with(&mut self, buffer: &mut [u8], first: [u64; 2], sizes: &[usize], into: impl Fn(usize) -> bool) {
        let Self(sender, receiver) = self;
        std::thread::scope(|scope| {
            scope.spawn(|| send_all(sender, first[0], sizes.iter().copied()));
            for (index, &size) in sizes.iter().enumerate() {
                receive(receiver, first[1] + index as u64, size, into(index).then_some(&mut *buffer));
            }
        });
    }

    /// Has everything be there that is kept for messages of up to 2 MiB: pages of the rings, which come when as much has gone through as
    /// they hold, memory that the senders have mapped, and the pool.
    fn warm_up(&mut self, first: [u64; 2], buffer: &mut [u8]) {
        let sizes = [[64 * KIB; 40], [2 * MIB; 40]].concat();
        // There are landings once a sender was seen to copy, which a busy machine may put off, and some keep from doing so.
        for _ in 0..10 {
            self.both_ways_with(buffer, first, &sizes, |_| false);
            let has_landings = landings_bytes("Size:") >= 2 * 6 * MIB;
            self.0.send_by(&[u8::from(has_landings)], soon()).unwrap();
            let told = self.1.recv_by(soon()).unwrap().unwrap();
            if has_landings && told[..] == [1] {
                break;
            }
        }
        let pool = [2 * MIB; POOL_BYTES / (2 * MIB)].map(|bytes| Buffer::warm(bytes).unwrap());
        drop(pool);
    }
}

#[test]
fn messages_of_every_size_both_ways_at_once_by_every_call() {
    let test = "transfer::messages_of_every_size_both_ways_at_once_by_every_call";
    let sizes = sizes();
    if role().is_some() {
        let mut halves = Halves::of(adopt());
        halves.both_ways([FIRST[1], FIRST[0]], &sizes, |_| false);
        halves.both_ways([FIRST[1], FIRST[0]], &sizes, |_| true);
        halves.both_ways([FIRST[1], FIRST[0]], &sizes, |index| index % 2 == 0);
        while halves.1.recv_by(soon()).unwrap().is_some() {
            send_all(&mut halves.0, 0, [MIB]);
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (channel, peer) = start(test, "child", &[]);
    let mut halves = Halves::of(channel);
    halves.both_ways(FIRST, &sizes, |_| false);
    halves.both_ways(FIRST, &sizes, |_| true);
    halves.both_ways(FIRST, &sizes, |index| index % 2 == 1);
    let stats = halves.0.stats();
    if is_attachable(test) {
        assert_eq!(stats.fallbacks(), []);
        assert!(
            stats.received(Path::SingleCopy).messages > 0 && stats.sent(Path::SingleCopy).messages > 0,
            "{stats:?}"
        );
    }
    let total =
        |count: fn(&Stats, Path) -> Count| Path::ALL.map(|path| count(&stats, path).messages).iter().sum::<u64>();
    assert_eq!([total(Stats::sent), total(Stats::received)], [3 * sizes.len() as u64; 2]);
    for path in [Path::Line, Path::Ring] {
        assert!(stats.sent(path).messages > 0 && stats.received(path).messages > 0, "{}: {stats:?}", path.name());
    }
    // A busy machine may have had the sender of each of these come too late to copy its part, but not for ever.
    while is_attachable(test) && halves.0.stats().received(Path::Cooperative).messages == 0 {
        send_all(&mut halves.0, 0, [8]);
        receive(&mut halves.1, 0, MIB, None);
    }
    drop(halves);
    peer.succeed();
}

#[test]
fn requests_and_replies_alternate_in_every_size() {
    let sizes = sizes();
    if role().is_some() {
        let mut channel = adopt();
        while let Some(message) = channel.recv().unwrap() {
            channel.send(&message).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start("transfer::requests_and_replies_alternate_in_every_size", "child", &[]);
    for (number, size) in (0..).zip(sizes) {
        channel.send(content(number, size)).unwrap();
        receive(channel.receiver(), number, size, None);
    }
    drop(channel);
    peer.succeed();
}

/// What the pool may keep in the long run, and for landings the same again: so much that the run needs no more.
const POOL_BYTES: usize = 8 * MIB;

/// The length of message `number` of the long run: most are short, one in thousands is of 2 MiB.
fn mixed(number: u64) -> usize {
    let draw = hash(number ^ 0xdead_beef);
    let limit = match draw >> 32 & 0xfff {
        0 => 2 * MIB,
        1..64 => 96 * KIB,
        64..512 => 8 * KIB,
        _ => 112,
    };
    draw as u32 as usize % limit
}

/// The long run on one side: once everything is there that may be kept, it needs no more memory, landings included.
fn long_run(channel: Channel, first: [u64; 2], messages: usize) {
    set_pool_limit_bytes(POOL_BYTES);
    let mut halves = Halves::of(channel);
    let mut buffer = vec![1; 16 * MIB];
    halves.warm_up(first.map(|first| first + messages as u64), &mut buffer);
    let batch = messages / 20;
    let (mut levels, mut landed) = (Vec::new(), Vec::new());
    for index in 0..20 {
        let start = (index * batch) as u64;
        let first = first.map(|first| first + start);
        // Both sides know all lengths, which are the same in both directions.
        let sizes: Vec<usize> = (0..batch as u64).map(|offset| mixed(start + offset)).collect();
        halves.both_ways_with(&mut buffer, first, &sizes, |index| index % 3 == 0);
        let [resident, mapped] = ["Rss:", "Size:"].map(landings_bytes);
        assert!(mapped <= 16 * MIB, "{mapped}");
        // All of what the landings of both have, be it mapped by now or not.
        levels.push((resident_bytes() - resident + mapped) / KIB);
        landed.push(mapped / KIB);
    }
    let (warm, most) = (levels[0], *levels.iter().max().unwrap());
    eprintln!(
        "{messages} messages each way: {warm} KiB after warm-up, {most} KiB at most, of which {landed:?} are landings"
    );
    assert!(most <= warm + 1024, "{} KiB more than after warm-up: {levels:?}", most - warm);
}

#[test]
fn a_stress_of_mixed_sizes_both_ways_keeps_every_byte_the_order_and_its_memory() {
    let messages = rounds(200_000, 10_000_000);
    let test = "transfer::a_stress_of_mixed_sizes_both_ways_keeps_every_byte_the_order_and_its_memory";
    match role().as_deref() {
        Some("parent") => {
            let (channel, peer) = start(test, "child", &[]);
            long_run(channel, FIRST, messages);
            peer.succeed();
        }
        Some(_) => long_run(adopt(), [FIRST[1], FIRST[0]], messages),
        None => apart(test, "parent", SECONDS),
    }
}
