//! Cross-memory attach that the kernel refuses, from the start or in the middle of a connection: every message arrives all the same,
//! once and in order, and the channel says why.

use std::process::{Command, Stdio};
use std::time::Duration;

use onecopy::channel::{ChannelName, Path, Policy, Stats};
use onecopy::{Channel, Deadline, Listener};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::duo::{MIB, adopt, receive, send_all, soon, start};
use crate::filter::{self, READ, WRITE};
use crate::support::{Peer, Scratch, argument, role, skip, unique, watchdog};
use crate::{OTHER, is_root};

const SECONDS: Duration = Duration::from_secs(120);

/// Through each of the ways, were they open.
const SIZES: [usize; 9] = [8, 100, 300_000, 5000, MIB, 70_000, 3 * MIB, 8, 2 * MIB];
const FIRST_OF_CHILD: u64 = 1 << 32;

/// Sends all sizes and receives as many: first this side, or first the other.
fn exchange(channel: &mut Channel, own: u64, other: u64, begins: bool) {
    let mut buffer = vec![0; 4 * MIB];
    let take = |channel: &mut Channel, buffer: &mut [u8]| {
        for (index, size) in SIZES.into_iter().enumerate() {
            let into = if index % 2 == 0 { Some(&mut buffer[..]) } else { None };
            receive(channel.receiver(), other + index as u64, size, into);
        }
    };
    if !begins {
        take(channel, &mut buffer);
    }
    send_all(channel.sender(), own, SIZES);
    if begins {
        take(channel, &mut buffer);
    }
}

/// Three exchanges of the side that was started first, with what happens after the first one.
fn three_as_parent(channel: &mut Channel) -> Stats {
    for round in 0..3 {
        exchange(channel, round * 100, FIRST_OF_CHILD + round * 100, true);
    }
    channel.stats()
}

fn three_as_child(channel: &mut Channel, mut change: impl FnMut()) -> Stats {
    for round in 0..3 {
        exchange(channel, FIRST_OF_CHILD + round * 100, round * 100, false);
        if round == 0 {
            change();
        }
    }
    channel.stats()
}

fn once(stats: &Stats) -> u64 {
    let paths = [Path::SingleCopy, Path::Cooperative];
    paths.map(|path| stats.sent(path).messages + stats.received(path).messages).iter().sum()
}

/// Whether it tells a reason with these words that messages had.
fn tells(stats: &Stats, words: &str) -> bool {
    stats.fallbacks().iter().any(|one| one.reason.contains(words) && one.messages > 0)
}

#[test]
fn a_separate_channel_copies_nothing_from_the_other_side() {
    let _watchdog = watchdog(SECONDS);
    for separate_listener in [true, false] {
        // A child that another test is starting may hold the name of the last one for a moment.
        let name = ChannelName::name(unique("separate")).unwrap();
        let policy = |separate| if separate { Policy::same_user().separate() } else { Policy::same_user() };
        let listener = Listener::bind_with(&name, &policy(separate_listener)).unwrap();
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut channel = Channel::connect_by(&name, &policy(!separate_listener), soon()).unwrap();
                three_as_child(&mut channel, || {})
            });
            let stats = three_as_parent(&mut listener.accept_by(soon()).unwrap());
            assert_eq!((once(&stats), once(&client.join().unwrap())), (0, 0));
        });
    }
}

/// The ways to lose the permission that a test can bring about.
pub(crate) fn lose_permission(how: &str) {
    let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
    match how {
        "eperm" => filter::install(&[READ, WRITE], errno(libc::EPERM)),
        "enosys" => filter::install(&[READ, WRITE], errno(libc::ENOSYS)),
        "read" => filter::install(&[READ], errno(libc::EPERM)),
        "write" => filter::install(&[WRITE], errno(libc::EACCES)),
        "kill" => filter::install(&[READ, WRITE], libc::SECCOMP_RET_KILL_PROCESS),
        "kill-write" => filter::install(&[WRITE], libc::SECCOMP_RET_KILL_PROCESS),
        "dumpable" => set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap(),
        "setuid" => become_other(),
        _ => panic!("{how}"),
    }
}

/// The whole process, whose threads beside this one wait for nothing but the end of the other side.
fn become_other() {
    let (uid, gid) = (rustix::fs::Uid::from_raw(OTHER), rustix::fs::Gid::from_raw(OTHER));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
}

/// Whether a filter stands before the calls of this process.
pub(crate) fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Seccomp:") && !line.ends_with('0'))
}

/// What the faults of all children of this process were that have ended.
fn faults_of_children() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, behind_name) = stat.rsplit_once(')').unwrap();
    behind_name.split_whitespace().nth(8).unwrap().parse().unwrap()
}

#[test]
fn a_filter_is_tried_by_a_child_once_and_not_for_each_channel() {
    if role().is_some() {
        filter::install(&[], libc::SECCOMP_RET_ALLOW);
        let name = ChannelName::name(unique("tried-once")).unwrap();
        let listener = Listener::bind_with(&name, &Policy::same_user()).unwrap();
        std::thread::scope(|scope| {
            let (order, orders) = std::sync::mpsc::channel();
            let name = &name;
            let client = scope.spawn(move || {
                orders
                    .iter()
                    .map(|()| Channel::connect_by(name, &Policy::same_user(), soon()).unwrap())
                    .collect::<Vec<_>>()
            });
            let accept = || {
                order.send(()).unwrap();
                listener.accept_by(soon()).unwrap()
            };
            // What the client has learnt shows in its first channel, which is complete when it has the second.
            let mut channels = vec![accept(), accept()];
            let tried = faults_of_children();
            assert!(tried > 0);
            channels.extend([accept(), accept()]);
            assert_eq!(faults_of_children(), tried);
            filter::install(&[READ, WRITE], libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
            let channel = accept();
            assert!(faults_of_children() > tried);
            let fallbacks = channel.stats();
            let fallbacks = fallbacks.fallbacks();
            assert!(fallbacks.iter().any(|one| one.reason.contains("process_vm_readv")), "{fallbacks:?}");
            drop(order);
            assert_eq!(client.join().unwrap().len(), channels.len() + 1);
        });
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let test = "refusal::a_filter_is_tried_by_a_child_once_and_not_for_each_channel";
    if !std::fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp_filters:") {
        return skip(test, "Linux before 5.9 does not count filters");
    }
    Peer::start(test, "filtered", &[]).succeed();
}

fn lost_before(test: &str, how: &str) -> (Stats, Peer) {
    let (mut channel, peer) = start(test, how, &[]);
    (three_as_parent(&mut channel), peer)
}

#[test]
fn a_filter_from_the_start_that_answers_or_kills_loses_no_message() {
    let test = "refusal::a_filter_from_the_start_that_answers_or_kills_loses_no_message";
    if let Some(how) = role() {
        lose_permission(&how);
        let stats = three_as_child(&mut adopt(), || {});
        if how == "kill-write" || how == "write" {
            return assert!(stats.received(Path::SingleCopy).messages > 0, "{stats:?}");
        }
        assert_eq!(stats.received(Path::SingleCopy).messages, 0, "{stats:?}");
        assert!(tells(&stats, "process_vm_readv"), "{stats:?}");
        return;
    }
    let _watchdog = watchdog(SECONDS);
    for how in ["eperm", "enosys", "read", "kill", "write", "kill-write"] {
        let (stats, peer) = lost_before(test, how);
        peer.succeed();
        if how != "write" && how != "kill-write" {
            assert!(tells(&stats, "could not read this process's memory"), "{how}: {stats:?}");
        }
    }
}

#[test]
fn permission_that_is_lost_in_the_middle_loses_no_message() {
    let test = "refusal::permission_that_is_lost_in_the_middle_loses_no_message";
    if let Some(how) = role() {
        let stats = three_as_child(&mut adopt(), || lose_permission(&how));
        assert!(stats.received(Path::SingleCopy).messages > 0, "the first exchange: {stats:?}");
        let came = tells(&stats, "a seccomp filter was installed");
        match &how[..] {
            "kill" => assert!(came, "{stats:?}"),
            "read" | "eperm" | "enosys" => assert!(came || tells(&stats, "process_vm_readv"), "{stats:?}"),
            // A receiver that is quick copies all by itself.
            "write" => {
                let could_not = tells(&stats, "could not write the receiver's memory");
                assert!(came || could_not || stats.fallbacks().is_empty(), "{stats:?}");
            }
            _ => {}
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let is_root = crate::own_uid() == 0;
    for how in ["eperm", "enosys", "read", "write", "kill", "kill-write", "dumpable", "setuid"] {
        if how.starts_with("kill") && is_filtered() {
            skip(test, "behind a seccomp filter a further one goes unnoticed");
            continue;
        }
        if how == "setuid" && !is_root {
            skip(test, "only root can become another user");
            continue;
        }
        let (stats, peer) = lost_before(test, how);
        peer.succeed();
        match how {
            "eperm" | "enosys" | "read" | "kill" | "setuid" => {
                assert!(tells(&stats, "could not read this process's memory"), "{how}: {stats:?}");
            }
            // This side reads, and the other one that cannot write is of no help; root reads all.
            "dumpable" if !is_root => assert!(tells(&stats, "process_vm_readv"), "{how}: {stats:?}"),
            _ => {}
        }
    }
}

#[test]
fn another_user_that_the_policy_admits_gets_every_message_and_the_reason() {
    let test = "refusal::another_user_that_the_policy_admits_gets_every_message_and_the_reason";
    if role().is_some() {
        become_other();
        let name = ChannelName::name(argument("NAME")).unwrap();
        let mut channel = Channel::connect_by(&name, &Policy::default().admit_user(0), soon()).unwrap();
        let stats = three_as_child(&mut channel, || {});
        assert!(tells(&stats, "of another user"), "{stats:?}");
        return;
    }
    if !is_root(test) {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = unique("user");
    let listener =
        Listener::bind_with(&ChannelName::name(&name).unwrap(), &Policy::default().admit_user(OTHER)).unwrap();
    let peer = Peer::configure(test, "other", &[("NAME", &name)], |command| {
        command.stderr(Stdio::inherit());
    });
    let stats = three_as_parent(&mut listener.accept_by(soon()).unwrap());
    peer.succeed();
    assert!(tells(&stats, "of another user"), "{stats:?}");
    // Root may attach to any process, and so to a set-user-ID program that the other side executes: what says where its memory is comes from
    // that user all the same.
    for path in [Path::SingleCopy, Path::Cooperative] {
        assert_eq!((stats.received(path).messages, stats.sent(path).messages), (0, 0), "{path:?}: {stats:?}");
    }
}

/// Whether the kernel passes pidfds with messages, as a channel needs it between pid namespaces (Linux 6.5).
fn passes_pidfds() -> bool {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    nix::sys::socket::getsockopt(&one, nix::sys::socket::sockopt::PeerPidfd).is_ok()
}

/// Runs the second process in namespaces of its own; `None` where the machine does not allow that.
fn unshared(options: &[&str], test: &str, role: &str, path: &str) -> Option<Command> {
    let allowed = Command::new("unshare").args(options).arg("true").stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(options).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env("ONECOPY_TEST_ROLE", role).env("ONECOPY_TEST_PATH", path).stdin(Stdio::null()).stdout(Stdio::null());
    Some(command)
}

#[test]
fn in_other_namespaces_every_message_arrives() {
    let test = "refusal::in_other_namespaces_every_message_arrives";
    if role().is_some() {
        let name = ChannelName::path(argument("PATH")).unwrap();
        let policy = Policy::default().admit_user(0).admit_user(OTHER);
        let mut channel = Channel::connect_by(&name, &policy, soon()).unwrap();
        three_as_child(&mut channel, || {});
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let kinds: [(&str, &[&str]); 3] = [
        ("user", &["--user", "--map-root-user"]),
        ("user and pid", &["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]),
        ("user, pid and network", &["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--net"]),
    ];
    for (kind, options) in kinds {
        if options.contains(&"--pid") && !passes_pidfds() {
            skip(test, "no pidfds with messages");
            continue;
        }
        let path = scratch.path("channel");
        let listener = Listener::bind_with(&ChannelName::path(&path).unwrap(), &Policy::default()).unwrap();
        let Some(mut command) = unshared(options, test, "inside", path.to_str().unwrap()) else {
            skip(test, "no namespaces of that kind here");
            continue;
        };
        let mut child = command.spawn().unwrap();
        let mut channel = match listener.accept_by(Deadline::after(Duration::from_secs(20))) {
            Ok(channel) => channel,
            Err(error) => panic!("{kind}: {error}, {:?}", listener.turned_away()),
        };
        let stats = three_as_parent(&mut channel);
        println!("{kind}: {} copied once, {:?}", once(&stats), stats.fallbacks());
        assert!(once(&stats) > 0 || !stats.fallbacks().is_empty(), "{kind}: {stats:?}");
        drop(channel);
        assert!(child.wait().unwrap().success(), "{kind}");
    }
}
