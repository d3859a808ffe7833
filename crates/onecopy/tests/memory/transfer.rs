//! Messages by cross-memory attach, pulled and pushed, between real processes.
#![expect(unsafe_code, reason = "changes the credentials of one thread")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use onecopy::memory::Region;
use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::memory::attach::{CONTROL_BYTES, PullReceiver, PullSender, PushReceiver, PushSender};
use onecopy::memory::permission::Cause;
use onecopy::memory::ring::{RING_BYTES, RingSender};
use onecopy::{Deadline, Error, Receiver, Result, Sender, WaitStrategy};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::fork::in_child;
use crate::support::{Peer, pattern, role, watchdog};
use crate::{inheriting, is_forked, park, tell, wait_for_line};

const SIZES: [usize; 12] =
    [0, 1, 63, 64, 65, 4096, (64 << 10) - 1, (64 << 10) + 1, (1 << 20) + 3, 0, 5 << 20, 16 << 20];
const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::Adaptive, WaitStrategy::Block];
const SOON: Duration = Duration::from_secs(20);
const KINDS: [&str; 2] = ["pull", "push"];

fn memfd() -> AnonymousMapping {
    AnonymousMapping::create("transfer", CONTROL_BYTES).unwrap()
}

fn inherited() -> Region {
    AnonymousMapping::from_inherited(0).unwrap().into_region()
}

fn peer(test: &str, role: &str, mapping: &AnonymousMapping) -> Peer {
    inheriting(test, role, &[], mapping.try_clone_fd().unwrap())
}

fn attach_sender(kind: &str, region: impl Into<Arc<Region>>, strategy: WaitStrategy) -> Result<Box<dyn Sender + Send>> {
    Ok(if kind == "pull" {
        let mut sender = PullSender::attach(region)?;
        sender.set_wait_strategy(strategy);
        Box::new(sender)
    } else {
        let mut sender = PushSender::attach(region)?;
        sender.set_wait_strategy(strategy);
        Box::new(sender)
    })
}

fn attach_receiver(
    kind: &str,
    region: impl Into<Arc<Region>>,
    strategy: WaitStrategy,
) -> Result<Box<dyn Receiver + Send>> {
    Ok(if kind == "pull" {
        let mut receiver = PullReceiver::attach(region)?;
        receiver.set_wait_strategy(strategy);
        Box::new(receiver)
    } else {
        let mut receiver = PushReceiver::attach(region)?;
        receiver.set_wait_strategy(strategy);
        Box::new(receiver)
    })
}

/// The second process: "pull sender 1" and the like.
fn play(role: &str) {
    let mut words = role.split(' ');
    let (kind, part) = (words.next().unwrap(), words.next().unwrap());
    let strategy = STRATEGIES[words.next().unwrap().parse::<usize>().unwrap()];
    match part {
        "sender" => {
            let mut sender = attach_sender(kind, inherited(), strategy).unwrap();
            for (seed, size) in SIZES.into_iter().enumerate() {
                sender.send(&content(size, seed)).unwrap();
            }
        }
        "receiver" => {
            let mut receiver = attach_receiver(kind, inherited(), strategy).unwrap();
            receive_all(&mut *receiver);
        }
        "flood" => {
            let mut sender = attach_sender(kind, inherited(), strategy).unwrap();
            for number in 0.. {
                sender.send(&numbered(number)).unwrap();
            }
        }
        "drain" => {
            let mut receiver = attach_receiver(kind, inherited(), strategy).unwrap();
            let mut last = None;
            while let Some(message) = receiver.recv().unwrap() {
                let number = check_numbered(&message);
                assert!(last.is_none_or(|last| number > last), "message {number} came twice or late");
                last = Some(number);
            }
            tell(&format!("last {last:?}"));
        }
        other => panic!("no part {other}"),
    }
}

fn receive_all(receiver: &mut dyn Receiver) {
    let mut buffer = vec![0; 16 << 20];
    for (seed, size) in SIZES.into_iter().enumerate() {
        let len = loop {
            match receiver.recv_into_by(&mut buffer, Deadline::Never) {
                Ok(len) => break len.unwrap(),
                // Until its successor has attached the dead sender is what there is.
                Err(error) => assert!(error.is_peer_gone() && seed == 0, "{error}"),
            }
        };
        assert!(buffer[..len] == content(size, seed), "message of {size} bytes");
    }
    assert_eq!(receiver.recv_into_by(&mut buffer, Deadline::Never).unwrap(), None);
    assert_eq!(receiver.recv_into_by(&mut buffer, Deadline::Never).unwrap(), None, "the end stays the end");
}

fn content(size: usize, seed: usize) -> Vec<u8> {
    let mut content = pattern(size.min(70_001), seed as u64).repeat(size / 70_001 + 1);
    content.truncate(size);
    content
}

fn numbered(number: u64) -> Vec<u8> {
    const LENGTHS: [usize; 6] = [8, 64, 4096, 70_000, 300_000, 3 << 20];
    let mut message = vec![(number * 31) as u8; LENGTHS[(number % 6) as usize]];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

fn check_numbered(message: &[u8]) -> u64 {
    let number = u64::from_le_bytes(message[..8].try_into().unwrap());
    assert!(message == numbered(number), "message {number} of {} bytes arrived torn or mixed", message.len());
    number
}

#[test]
fn messages_of_all_sizes_from_the_second_process() {
    if let Some(role) = role() {
        return play(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    for kind in KINDS {
        for (index, strategy) in STRATEGIES.into_iter().enumerate() {
            let mapping = memfd();
            let role = format!("{kind} sender {}", (index + 1) % 3);
            let peer = peer("transfer::messages_of_all_sizes_from_the_second_process", &role, &mapping);
            let mut receiver = attach_receiver(kind, mapping.into_region(), strategy).unwrap();
            receive_all(&mut *receiver);
            peer.succeed();
        }
    }
}

#[test]
fn messages_of_all_sizes_to_the_second_process() {
    if let Some(role) = role() {
        return play(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    for kind in KINDS {
        let mapping = memfd();
        let peer =
            peer("transfer::messages_of_all_sizes_to_the_second_process", &format!("{kind} receiver 1"), &mapping);
        let mut sender = attach_sender(kind, mapping.into_region(), WaitStrategy::Adaptive).unwrap();
        for (seed, size) in SIZES.into_iter().enumerate() {
            sender.send(&content(size, seed)).unwrap();
        }
        drop(sender);
        peer.succeed();
    }
}

#[test]
fn a_pushed_message_is_lent_where_it_was_written() {
    if let Some(role) = role() {
        return play(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mapping = memfd();
    let peer = peer("transfer::a_pushed_message_is_lent_where_it_was_written", "push sender 1", &mapping);
    let mut receiver = PushReceiver::attach(mapping.into_region()).unwrap();
    for (seed, size) in SIZES.into_iter().enumerate() {
        let message = receiver.recv_borrowed_by(Deadline::Never).unwrap().unwrap();
        assert!(message == content(size, seed), "message of {size} bytes");
    }
    assert!(receiver.recv_borrowed_by(Deadline::Never).unwrap().is_none());
    peer.succeed();
}

#[test]
fn a_killed_sender_is_noticed_and_its_successor_served() {
    if let Some(role) = role() {
        return play(&role);
    }
    let test = "transfer::a_killed_sender_is_noticed_and_its_successor_served";
    let _watchdog = watchdog(Duration::from_secs(120));
    let mut buffer = vec![0; 4 << 20];
    for round in 0..50_u64 {
        let kind = KINDS[(round % 2) as usize];
        let mapping = memfd();
        let mut peer = peer(test, &format!("{kind} flood {}", round % 3), &mapping);
        let fd = mapping.try_clone_fd().unwrap();
        let mut receiver = attach_receiver(kind, mapping.into_region(), STRATEGIES[(round / 3 % 3) as usize]).unwrap();
        let mut expected = 0;
        let error = loop {
            match receiver.recv_into_by(&mut buffer, Deadline::after(SOON)) {
                Ok(len) => assert_eq!(check_numbered(&buffer[..len.unwrap()]), expected),
                Err(error) => break error,
            }
            expected += 1;
            if expected == 1 + round / 5 {
                let pid = Pid::from_raw(peer.pid().cast_signed()).unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(round * 29));
                    kill_process(pid, Signal::KILL).unwrap();
                });
            }
        };
        assert!(error.is_peer_gone(), "{kind}, round {round}: {error}");
        peer.kill();
        let successor = inheriting(test, &format!("{kind} sender 1"), &[], fd);
        receive_all(&mut *receiver);
        successor.succeed();
    }
}

#[test]
fn a_killed_receiver_is_noticed_and_its_successor_served() {
    if let Some(role) = role() {
        return play(&role);
    }
    let test = "transfer::a_killed_receiver_is_noticed_and_its_successor_served";
    let _watchdog = watchdog(Duration::from_secs(120));
    for round in 0..50_u64 {
        let kind = KINDS[(round % 2) as usize];
        let mapping = memfd();
        let mut peer = peer(test, &format!("{kind} drain {}", round % 3), &mapping);
        let fd = mapping.try_clone_fd().unwrap();
        let mut sender = attach_sender(kind, mapping.into_region(), STRATEGIES[(round / 3 % 3) as usize]).unwrap();
        let mut sent = 0;
        let start = Instant::now();
        let error = loop {
            if let Err(error) = sender.send_by(&numbered(sent), Deadline::after(SOON)) {
                break error;
            }
            sent += 1;
            if sent == 1 + round / 5 {
                let pid = Pid::from_raw(peer.pid().cast_signed()).unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(round * 29));
                    kill_process(pid, Signal::KILL).unwrap();
                });
            }
        };
        assert!(error.is_peer_gone() && start.elapsed() < SOON, "{kind}, round {round}: {error}");
        peer.kill();
        let mut successor = inheriting(test, &format!("{kind} drain 1"), &[], fd);
        // Until it has attached the dead one is what there is.
        let last = sent + 10;
        while sent <= last {
            match sender.send_by(&numbered(sent), Deadline::after(SOON)) {
                Ok(()) => sent += 1,
                Err(error) => assert!(error.is_peer_gone(), "{kind}, round {round}: {error}"),
            }
        }
        drop(sender);
        wait_for_line(&mut successor, &format!("last Some({last})"));
        successor.succeed();
    }
}

#[test]
fn a_message_that_timed_out_is_never_delivered() {
    if let Some(role) = role() {
        return play(&role);
    }
    let test = "transfer::a_message_that_timed_out_is_never_delivered";
    let _watchdog = watchdog(Duration::from_secs(120));
    for kind in KINDS {
        let mapping = memfd();
        let mut peer = peer(test, &format!("{kind} drain 1"), &mapping);
        let pid = Pid::from_raw(peer.pid().cast_signed()).unwrap();
        let mut sender = attach_sender(kind, mapping.into_region(), WaitStrategy::Adaptive).unwrap();
        // It is attached when it has taken two.
        sender.send(&numbered(0)).unwrap();
        sender.send(&numbered(1)).unwrap();
        let (mut accepted, mut refused) = (1, 0);
        for number in 2..60 {
            if number % 10 == 0 {
                kill_process(pid, Signal::STOP).unwrap();
            }
            let wait = Duration::from_millis(15);
            let start = Instant::now();
            match sender.send_by(&numbered(number), Deadline::after(wait)) {
                Ok(()) => accepted = number,
                Err(error) => {
                    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
                    assert!(start.elapsed() >= wait);
                    refused = number;
                }
            }
            if number % 10 == 3 {
                kill_process(pid, Signal::CONT).unwrap();
            }
        }
        assert!(refused > 0, "nothing timed out");
        kill_process(pid, Signal::CONT).unwrap();
        drop(sender);
        wait_for_line(&mut peer, &format!("last Some({accepted})"));
        peer.succeed();
    }
}

#[test]
fn limits_and_short_buffers_are_told_to_both_sides() {
    if let Some(role) = role() {
        let mut sender = attach_sender(&role, inherited(), WaitStrategy::Adaptive).unwrap();
        let error = sender.send(&vec![1; 3_000_000]).unwrap_err();
        let Error::TooLong { message_bytes, limit_bytes, .. } = error else { panic!("{error}") };
        assert_eq!((message_bytes, limit_bytes), (3_000_000, 2_000_000));
        return sender.send(&vec![2; 2_000_000]).unwrap();
    }
    let test = "transfer::limits_and_short_buffers_are_told_to_both_sides";
    let _watchdog = watchdog(Duration::from_secs(60));
    for kind in KINDS {
        let mapping = memfd();
        let peer = peer(test, kind, &mapping);
        let region = mapping.into_region();
        let mut receiver: Box<dyn Receiver> = if kind == "pull" {
            let mut receiver = PullReceiver::attach(region).unwrap();
            receiver.set_limit_bytes(2_000_000);
            Box::new(receiver)
        } else {
            let mut receiver = PushReceiver::attach(region).unwrap();
            receiver.set_limit_bytes(2_000_000);
            Box::new(receiver)
        };
        let error = receiver.recv_into(&mut [0; 64]).unwrap_err();
        assert!(matches!(error, Error::TooLong { message_bytes: 3_000_000, limit_bytes: 2_000_000, .. }), "{error}");
        let error = receiver.recv_into(&mut [0; 64]).unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message_bytes: 2_000_000, buffer_bytes: 64, .. }), "{error}");
        assert!(receiver.recv().unwrap().unwrap() == vec![2; 2_000_000]);
        assert_eq!(receiver.recv().unwrap(), None);
        peer.succeed();
    }
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    for kind in KINDS {
        for strategy in STRATEGIES {
            let wait = Duration::from_millis(60);
            let region = Arc::new(memfd().into_region());
            let mut sender = attach_sender(kind, Arc::clone(&region), strategy).unwrap();
            assert!(matches!(sender.try_send(b"x"), Err(Error::WouldBlock { .. })));
            let start = Instant::now();
            let error = sender.send_by(b"x", Deadline::after(wait)).unwrap_err();
            assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= wait, "{error}");
            let mut receiver = attach_receiver(kind, region, strategy).unwrap();
            assert!(matches!(receiver.try_recv_into(&mut [0; 8]), Err(Error::WouldBlock { .. })));
            let start = Instant::now();
            let error = receiver.recv_by(Deadline::after(wait)).unwrap_err();
            assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= wait, "{error}");
            drop(sender);
            assert_eq!(receiver.recv().unwrap(), None);
        }
    }
}

#[test]
fn without_permission_both_sides_are_told() {
    if let Some(role) = role() {
        // As an ordinary user the test cannot be refused by another user's process: so this one is none to attach to.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).unwrap();
        if role == "pull" {
            let mut sender = PullSender::attach(inherited()).unwrap();
            let error = sender.send(b"secret").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            return;
        }
        let _receiver = PushReceiver::attach(inherited()).unwrap();
        tell("ready");
        park();
    }
    let test = "transfer::without_permission_both_sides_are_told";
    let _watchdog = watchdog(Duration::from_secs(60));
    for kind in KINDS {
        let mapping = memfd();
        let mut peer = peer(test, kind, &mapping);
        let region = mapping.into_region();
        if kind == "push" {
            wait_for_line(&mut peer, "ready");
        }
        let error = std::thread::spawn(move || {
            if rustix::process::geteuid().is_root() {
                // SAFETY: the system call itself, unlike libc's function, changes the calling thread alone.
                unsafe { libc::syscall(libc::SYS_setresuid, 4321, 4321, 4321) };
            }
            if kind == "pull" {
                PullReceiver::attach(region).unwrap().recv().unwrap_err()
            } else {
                PushSender::attach(region).unwrap().send(b"x").unwrap_err()
            }
        })
        .join()
        .unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        let Error::NotPermitted { diagnosis, .. } = &error else { panic!("{error:?}") };
        let expected = if rustix::process::geteuid().is_root() { Cause::OtherUid } else { Cause::NotDumpable };
        assert_eq!(diagnosis.cause(), expected, "{error}");
        if kind == "pull" {
            peer.succeed();
        }
    }
}

#[test]
fn places_are_taken_once_and_regions_of_another_kind_refused() {
    if let Some(role) = role() {
        let _side = attach_sender(&role, inherited(), WaitStrategy::Adaptive).unwrap();
        tell("ready");
        park();
    }
    let test = "transfer::places_are_taken_once_and_regions_of_another_kind_refused";
    let _watchdog = watchdog(Duration::from_secs(60));
    for kind in KINDS {
        let mapping = memfd();
        let mut peer = peer(test, kind, &mapping);
        wait_for_line(&mut peer, "ready");
        let region = Arc::new(mapping.into_region());
        let error = attach_sender(kind, Arc::clone(&region), WaitStrategy::Adaptive).map(drop).unwrap_err();
        assert!(matches!(&error, Error::Occupied { pid, role: "sender", .. } if *pid == peer.pid()), "{error}");
        peer.kill();
        attach_sender(kind, Arc::clone(&region), WaitStrategy::Adaptive).unwrap();
        let other = if kind == "pull" { "push" } else { "pull" };
        let error = attach_sender(other, region, WaitStrategy::Adaptive).map(drop).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");

        let ring = Arc::new(AnonymousMapping::create("ring", RING_BYTES).unwrap().into_region());
        drop(RingSender::attach(Arc::clone(&ring), Deadline::Now).unwrap());
        let error = attach_receiver(kind, ring, WaitStrategy::Adaptive).map(drop).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let short = AnonymousMapping::create("short", CONTROL_BYTES - 1).unwrap().into_region();
        let error = attach_receiver(kind, short, WaitStrategy::Adaptive).map(drop).unwrap_err().to_string();
        assert!(error.contains("4095") && error.contains("4096"), "{error}");
    }
}

#[test]
fn nothing_is_written_where_no_window_is() {
    if let Some(role) = role() {
        let _receiver = PushReceiver::attach(inherited()).unwrap();
        tell(&role);
        park();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mapping = memfd();
    let mut peer = peer("transfer::nothing_is_written_where_no_window_is", "ready", &mapping);
    wait_for_line(&mut peer, "ready");
    // The address of the window, one page further.
    let mut word = [0; 8];
    mapping.region().read_at(384, &mut word).unwrap();
    mapping.region().write_at(384, &(u64::from_le_bytes(word) + 4096).to_le_bytes()).unwrap();
    let error = PushSender::attach(mapping.into_region()).unwrap().send(b"x").unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("no window"), "{error}");
}

#[test]
fn a_child_sends_and_receives_nothing_in_its_parents_place() {
    const TEST: &str = "transfer::a_child_sends_and_receives_nothing_in_its_parents_place";
    const STRATEGY: WaitStrategy = WaitStrategy::Block;
    if let Some(role) = role() {
        let (kind, part) = role.split_once(' ').unwrap();
        if part == "sender" {
            let mut sender = attach_sender(kind, inherited(), STRATEGY).unwrap();
            in_child(|| is_forked(sender.send_by(b"child", Deadline::Now)));
            sender.send(b"parent").unwrap();
        } else {
            let mut receiver = attach_receiver(kind, inherited(), STRATEGY).unwrap();
            in_child(|| is_forked(receiver.recv_by(Deadline::Now).map(drop)));
            assert_eq!(receiver.recv().unwrap().unwrap(), b"parent");
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    for kind in KINDS {
        let mapping = memfd();
        let peer = peer(TEST, &format!("{kind} sender"), &mapping);
        let mut receiver = attach_receiver(kind, mapping.into_region(), STRATEGY).unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), b"parent", "{kind}");
        peer.succeed();
        let mapping = memfd();
        let peer = self::peer(TEST, &format!("{kind} receiver"), &mapping);
        attach_sender(kind, mapping.into_region(), STRATEGY).unwrap().send(b"parent").unwrap();
        peer.succeed();
    }
}
