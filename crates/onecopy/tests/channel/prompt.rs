//! Messages of some 100 KiB, which go through the ring unless the other side waits for them.

use std::time::Duration;

use onecopy::channel::{Path, Stats};
use onecopy::{Channel, WaitStrategy};

use crate::duo::{KIB, adopt, content, is_attachable, receive, rounds, send_all, start};
use crate::support::{role, skip, watchdog};

const SECONDS: Duration = Duration::from_secs(600);
const BYTES: usize = 100 * KIB;

/// How many messages went through the ring, and how many from where they were: whoever copied those, the receiver decides.
fn sent(stats: &Stats) -> [u64; 2] {
    let sent = |path| stats.sent(path).messages;
    [sent(Path::Ring), sent(Path::SingleCopy) + sent(Path::Cooperative)]
}

/// Whether this machine has one core only, where nobody waits awake.
pub(crate) fn has_one_core(test: &str) -> bool {
    let one = std::fs::read_to_string("/sys/devices/system/cpu/online").is_ok_and(|list| list.trim() == "0");
    if one {
        skip(test, "this machine has one core");
    }
    one
}

#[test]
fn a_reply_is_copied_once_and_a_stream_goes_through_the_ring() {
    let test = "prompt::a_reply_is_copied_once_and_a_stream_goes_through_the_ring";
    if role().is_some() {
        let mut channel = adopt();
        channel.set_wait_strategy(WaitStrategy::Spin);
        while let Some(message) = channel.recv().unwrap() {
            if message.len() == BYTES {
                channel.send(&message).unwrap();
            }
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "child", &[]);
    channel.set_wait_strategy(WaitStrategy::Spin);
    let may_share = is_attachable(test) && !has_one_core(test);
    // On a machine that is busy otherwise it may take a while until both sides run at the same time.
    let mut number = 0;
    while number < 50 || (may_share && sent(&channel.stats())[1] == 0) {
        channel.send(content(number, BYTES)).unwrap();
        receive(channel.receiver(), number, BYTES, None);
        number += 1;
    }
    let before = sent(&channel.stats());
    assert_eq!(before[0] + before[1], number);
    send_all(channel.sender(), number, [BYTES - 1; 50]);
    let [ring, shared] = sent(&channel.stats());
    assert!(ring >= before[0] + 49 && shared <= before[1] + 1, "one at most was an answer: {:?}", channel.stats());
    drop(channel);
    peer.succeed();
}

/// Sends and then receives, as the other side does too.
fn send_first(mut channel: Channel) {
    for number in 0..rounds(250, 10_000) as u64 {
        channel.send(content(number, BYTES)).unwrap();
        receive(channel.receiver(), number, BYTES, None);
    }
}

#[test]
fn two_sides_that_answer_at_the_same_time_need_not_wait_for_each_other() {
    if role().is_some() {
        return send_first(adopt());
    }
    let _watchdog = watchdog(SECONDS);
    let (channel, peer) =
        start("prompt::two_sides_that_answer_at_the_same_time_need_not_wait_for_each_other", "child", &[]);
    send_first(channel);
    peer.succeed();
}
