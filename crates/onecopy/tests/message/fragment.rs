//! Messages of any size over both queues, between real processes.

use std::time::Duration;

use onecopy::message::fragment::{FragmentReceiver, FragmentSender};
use onecopy::message::posix_mq::{self, Access, PosixQueue, QueueAttributes};
use onecopy::message::sysv_mq::{self, SysvQueue};
use onecopy::message::unix_dgram::UnixDatagram;
use onecopy::{Deadline, Receiver, Sender, SysvName, UnixName};

use crate::support::fork::in_child;
use crate::support::{Peer, Scratch, argument, eventually, pattern, role, watchdog};
use crate::{posix_mq as posix, sysv_mq as sysv};

const SIZES: [usize; 8] = [0, 1, 63, 64, 8192, 65_537, 1_000_003, 8 << 20];
/// 32 KiB of what RLIMIT_MSGQUEUE counts.
const QUEUE: QueueAttributes = QueueAttributes { max_messages: 4, message_bytes: 8192 };

/// A death is reported within a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(10);

type Watch<Q> = Box<dyn FnMut(&mut Q) -> onecopy::Result<()> + Send>;

/// What the tests need of either queue.
trait Queue: Sender + Receiver + Send + 'static {
    const MODULE: &'static str;
    /// Removes the queue at the end of the test.
    type Guard;
    fn make() -> Self::Guard;
    fn open(guard: &Self::Guard) -> Self;
    fn inherit(access: Access) -> Self;
    fn argument(guard: &Self::Guard) -> String;
    fn announce(&self) {}
    fn queued(&self) -> usize;
    fn watch() -> Watch<Self>;
}

impl Queue for PosixQueue {
    const MODULE: &'static str = "over_posix";
    type Guard = posix::Name;

    fn make() -> posix::Name {
        let name = posix::Name::new();
        name.queue(QUEUE);
        name
    }

    fn open(guard: &posix::Name) -> Self {
        PosixQueue::open(&guard.0).unwrap()
    }

    fn inherit(access: Access) -> Self {
        posix::inherited(access)
    }

    fn argument(guard: &posix::Name) -> String {
        guard.0.to_string()
    }

    fn announce(&self) {
        self.announce_receiver().unwrap();
    }

    fn queued(&self) -> usize {
        self.queued_messages().unwrap()
    }

    fn watch() -> Watch<Self> {
        Box::new(posix_mq::receiver_watch())
    }
}

impl Queue for SysvQueue {
    const MODULE: &'static str = "over_sysv";
    type Guard = sysv::Queue;

    fn make() -> sysv::Queue {
        sysv::Queue::new()
    }

    fn open(guard: &sysv::Queue) -> Self {
        SysvQueue::open(&SysvName::id(guard.0.id()).unwrap()).unwrap()
    }

    fn inherit(_: Access) -> Self {
        sysv::inherited()
    }

    fn argument(guard: &sysv::Queue) -> String {
        guard.argument()
    }

    fn queued(&self) -> usize {
        self.status().unwrap().messages
    }

    fn watch() -> Watch<Self> {
        Box::new(sysv_mq::receiver_watch())
    }
}

/// Starts the second process of the test `name` of this queue.
fn start<Q: Queue>(name: &str, role: &str, guard: &Q::Guard) -> Peer {
    Peer::start(&format!("fragment::{}::{name}", Q::MODULE), role, &[("QUEUE", &Q::argument(guard))])
}

macro_rules! over {
    ($($module:ident $queue:ty)*) => {$(
        mod $module {
            #[test]
            fn messages_of_all_sizes() {
                super::messages_of_all_sizes::<$queue>();
            }

            #[test]
            fn a_killed_sender_is_noticed() {
                super::a_killed_sender_is_noticed::<$queue>();
            }

            #[test]
            fn a_sender_that_goes_without_an_end_mark_is_noticed() {
                super::a_sender_that_goes_without_an_end_mark_is_noticed::<$queue>();
            }

            #[test]
            fn a_killed_receiver_is_noticed() {
                super::a_killed_receiver_is_noticed::<$queue>();
            }

            #[test]
            fn a_receiver_that_was_gone_before_does_not_count() {
                super::a_receiver_that_was_gone_before_does_not_count::<$queue>();
            }

            #[test]
            fn two_senders_do_not_mix() {
                super::two_senders_do_not_mix::<$queue>();
            }

            #[test]
            fn a_deadline_keeps_every_byte() {
                super::a_deadline_keeps_every_byte::<$queue>();
            }

            #[test]
            fn a_child_is_a_sender_of_its_own() {
                super::a_child_is_a_sender_of_its_own::<$queue>();
            }
        }
    )*};
}

over! {
    over_posix onecopy::message::posix_mq::PosixQueue
    over_sysv onecopy::message::sysv_mq::SysvQueue
}

fn messages_of_all_sizes<Q: Queue>() {
    if role().is_some() {
        let mut sender = FragmentSender::new(Q::inherit(Access::Send));
        for (seed, size) in SIZES.into_iter().enumerate() {
            sender.send(&pattern(size, seed as u64)).unwrap();
        }
        sender.finish_by(Deadline::Never).unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let guard = Q::make();
    let peer = start::<Q>("messages_of_all_sizes", "sender", &guard);
    let mut receiver = FragmentReceiver::new(Q::open(&guard));
    for (seed, size) in SIZES.into_iter().enumerate() {
        assert_eq!(receiver.recv().unwrap().unwrap(), pattern(size, seed as u64), "message of {size} bytes");
    }
    assert_eq!(receiver.recv().unwrap(), None);
    peer.succeed();
}

fn a_killed_sender_is_noticed<Q: Queue>() {
    if role().is_some() {
        let mut sender = FragmentSender::new(Q::inherit(Access::Send));
        sender.send_part_by(&pattern(100_000, 1), false, Deadline::Never).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let guard = Q::make();
    let mut peer = start::<Q>("a_killed_sender_is_noticed", "sender", &guard);
    let mut receiver = FragmentReceiver::new(Q::open(&guard));
    let mut buffer = vec![0; 100_000];
    let mut received = 0;
    // The last fragment stays behind: it comes although its sender is dead.
    while received < 97_000 {
        received += receiver.recv_part_by(&mut buffer[received..], Deadline::Never).unwrap().unwrap().bytes;
    }
    eventually("the last fragment lies in the queue", || receiver.get_ref().queued() == 1);
    peer.kill();
    let _soon = watchdog(SOON);
    received += receiver.recv_part_by(&mut buffer[received..], Deadline::Never).unwrap().unwrap().bytes;
    assert_eq!((received, &buffer), (100_000, &pattern(100_000, 1)));
    let error = receiver.recv_part_by(&mut [0; 1], Deadline::Never).unwrap_err();
    assert!(error.is_peer_gone() && error.to_string().contains("after 100000 bytes"), "{error}");

    FragmentSender::new(Q::open(&guard)).send(b"next").unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), b"next");
}

fn a_sender_that_goes_without_an_end_mark_is_noticed<Q: Queue>() {
    if role().is_some() {
        let mut sender = FragmentSender::new(Q::inherit(Access::Send));
        sender.send(&pattern(10_000, 1)).unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let guard = Q::make();
    let peer = start::<Q>("a_sender_that_goes_without_an_end_mark_is_noticed", "sender", &guard);
    let mut receiver = FragmentReceiver::new(Q::open(&guard));
    receiver.expect_end();
    assert_eq!(receiver.recv().unwrap().unwrap(), pattern(10_000, 1));
    peer.succeed();
    let _soon = watchdog(SOON);
    let error = receiver.recv().unwrap_err();
    assert!(error.is_peer_gone() && error.to_string().contains("end mark"), "{error}");
}

fn a_killed_receiver_is_noticed<Q: Queue>() {
    if role().is_some() {
        let queue = Q::inherit(Access::Receive);
        queue.announce();
        let mut receiver = FragmentReceiver::new(queue);
        receiver.recv_part_by(&mut [0; 100], Deadline::Never).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let guard = Q::make();
    let mut peer = start::<Q>("a_killed_receiver_is_noticed", "receiver", &guard);
    let mut sender = FragmentSender::new(Q::open(&guard)).with_watch(Q::watch());
    let queue = Q::open(&guard);
    sender.send_part_by(b"begin", false, Deadline::Never).unwrap();
    eventually("the receiver took the first fragment", || queue.queued() == 0);
    let blocked =
        std::thread::spawn(move || sender.send_part_by(&pattern(1 << 20, 1), true, Deadline::Never).unwrap_err());
    // The queue takes some fragments, then it is full.
    eventually("the queue is full", || queue.queued() >= 2);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!blocked.is_finished(), "a receiver that lives is waited for");
    peer.kill();
    let _soon = watchdog(SOON);
    let error = blocked.join().unwrap();
    assert!(error.is_peer_gone(), "{error}");
}

fn a_receiver_that_was_gone_before_does_not_count<Q: Queue>() {
    if role().is_some() {
        let mut queue = Q::inherit(Access::Receive);
        queue.announce();
        queue.recv().unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let guard = Q::make();
    let peer = start::<Q>("a_receiver_that_was_gone_before_does_not_count", "receiver", &guard);
    Q::open(&guard).send(b"for the first receiver").unwrap();
    peer.succeed();
    let mut sender = FragmentSender::new(Q::open(&guard)).with_watch(Q::watch());
    sender.send_by(&pattern(100_000, 1), Deadline::after(Duration::from_millis(50))).unwrap();
    let error = sender.flush_by(Deadline::after(Duration::from_millis(500))).unwrap_err();
    assert!(error.is_out_of_time(), "{error}");
}

fn two_senders_do_not_mix<Q: Queue>() {
    const MESSAGES: u64 = 20;
    const BYTES: usize = 50_000;
    if let Some(role) = role() {
        let mut sender = FragmentSender::new(Q::inherit(Access::Send));
        let first = role.parse::<u64>().unwrap() * MESSAGES;
        for seed in first..first + MESSAGES {
            sender.send(&[&seed.to_le_bytes()[..], &pattern(BYTES, seed)].concat()).unwrap();
        }
        sender.finish_by(Deadline::Never).unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let guard = Q::make();
    let peers = ["0", "1"].map(|role| start::<Q>("two_senders_do_not_mix", role, &guard));
    let mut receiver = FragmentReceiver::new(Q::open(&guard));
    let mut next = [0, MESSAGES];
    let mut ends = 0;
    while ends < 2 {
        let Some(message) = receiver.recv().unwrap() else {
            ends += 1;
            continue;
        };
        let seed = u64::from_le_bytes(message[..8].try_into().unwrap());
        let sender = usize::from(seed >= MESSAGES);
        assert_eq!(seed, next[sender], "each sender's messages come in order");
        assert!(message[8..] == pattern(BYTES, seed), "message {seed}");
        next[sender] += 1;
    }
    assert_eq!(next, [MESSAGES, 2 * MESSAGES]);
    for peer in peers {
        peer.succeed();
    }
}

fn a_deadline_keeps_every_byte<Q: Queue>() {
    const BYTES: usize = 300_000;
    if role().is_some() {
        let mut sender = FragmentSender::new(Q::inherit(Access::Send));
        let deadline = || Deadline::after(Duration::from_millis(3));
        while let Err(error) = sender.send_by(&pattern(BYTES, 1), deadline()) {
            assert!(error.is_out_of_time(), "{error}");
        }
        while let Err(error) = sender.flush_by(deadline()) {
            assert!(error.is_out_of_time(), "{error}");
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let guard = Q::make();
    let peer = start::<Q>("a_deadline_keeps_every_byte", "sender", &guard);
    let mut receiver = FragmentReceiver::new(Q::open(&guard));
    let mut buffer = vec![0; BYTES];
    let len = loop {
        match receiver.try_recv_into(&mut buffer) {
            Ok(len) => break len.unwrap(),
            Err(error) => assert!(error.is_out_of_time(), "{error}"),
        }
        std::thread::sleep(Duration::from_micros(300));
    };
    assert!(buffer[..len] == pattern(BYTES, 1));
    peer.succeed();
}

fn a_child_is_a_sender_of_its_own<Q: Queue>() {
    if role().is_some() {
        let mut sender = FragmentSender::new(Q::inherit(Access::Send));
        sender.send(b"parent 0").unwrap();
        in_child(|| (0..3).all(|number| sender.send(format!("child {number}").as_bytes()).is_ok()));
        for number in 1..4 {
            sender.send(format!("parent {number}").as_bytes()).unwrap();
        }
        sender.send_part_by(b"parent ", false, Deadline::Never).unwrap();
        in_child(|| {
            let part = |sender: &mut FragmentSender<Q>, last| sender.send_part_by(b"5", last, Deadline::Never);
            let refusals = [part(&mut sender, false), part(&mut sender, true)].map(Result::unwrap_err);
            refusals.iter().all(|error| error.is_peer_gone() && error.to_string().contains("forked"))
                && sender.send(b"child 3").is_ok()
        });
        sender.send_part_by(b"4", true, Deadline::Never).unwrap();
        // Accepted, and too long for what is left of the queue: its rest is the parent's to send.
        let long = pattern(100_000, 5);
        while let Err(error) = sender.send_by(&long, Deadline::Now) {
            assert!(error.is_out_of_time(), "{error}");
        }
        in_child(|| sender.flush_by(Deadline::Now).is_ok() && sender.finish_by(Deadline::Never).is_ok());
        sender.finish_by(Deadline::Never).unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let guard = Q::make();
    let peer = start::<Q>("a_child_is_a_sender_of_its_own", "sender", &guard);
    let mut receiver = FragmentReceiver::new(Q::open(&guard));
    let (mut parents, mut childrens, mut long, mut ends) = (0, 0, None, 0);
    while ends < 2 {
        match receiver.recv().unwrap() {
            None => ends += 1,
            Some(message) if message == format!("parent {parents}").as_bytes() => parents += 1,
            Some(message) if message == format!("child {childrens}").as_bytes() => childrens += 1,
            Some(message) => assert_eq!(long.replace(message), None),
        }
    }
    assert_eq!((parents, childrens), (5, 4));
    assert!(long.unwrap() == pattern(100_000, 5));
    peer.succeed();
}

/// Datagrams that get lost are the business of the unit tests: these are not, and their sender leaves no sign when it dies.
#[test]
fn over_unix_datagrams() {
    if role().is_some() {
        let name = UnixName::path(argument("SOCKET")).unwrap();
        let mut sender = FragmentSender::new(UnixDatagram::connect(&name, Deadline::Never).unwrap());
        for (seed, size) in SIZES.into_iter().enumerate() {
            sender.send(&pattern(size, seed as u64)).unwrap();
        }
        sender.send_part_by(b"begin", false, Deadline::Never).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let mut receiver = FragmentReceiver::new(UnixDatagram::bind(&UnixName::path(&path).unwrap()).unwrap());
    let mut peer = Peer::start("fragment::over_unix_datagrams", "sender", &[("SOCKET", path.to_str().unwrap())]);
    for (seed, size) in SIZES.into_iter().enumerate() {
        assert_eq!(receiver.recv().unwrap().unwrap(), pattern(size, seed as u64), "message of {size} bytes");
    }
    let mut buffer = [0; 16];
    let part = receiver.recv_part_by(&mut buffer, Deadline::Never).unwrap().unwrap();
    assert_eq!((part.bytes, part.last), (5, false));
    peer.kill();
    let _soon = watchdog(SOON);
    let error = receiver.recv().unwrap_err();
    assert!(error.is_peer_gone() && error.to_string().contains("after 5 bytes"), "{error}");
}
