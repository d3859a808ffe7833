//! Row 10: the POSIX message queue, and what semantics.md and mq_overview(7) say of it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use onecopy::message::posix_mq::{self, Access, MAX_PRIORITY, PosixQueue, QueueAttributes};
use onecopy::{Deadline, Error, PosixName, Receiver, Sender};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Peer, argument, eventually, pattern, role, unique, watchdog};

const OWNER_ONLY: u32 = 0o600;
const SMALL: QueueAttributes = QueueAttributes { max_messages: 4, message_bytes: 128 };

/// A name that is removed at the end of the test.
pub(crate) struct Name(pub(crate) PosixName);

impl Name {
    pub(crate) fn new() -> Self {
        Self(PosixName::new(format!("/{}", unique("mq"))).unwrap())
    }

    pub(crate) fn queue(&self, attributes: QueueAttributes) -> PosixQueue {
        PosixQueue::create(&self.0, &attributes, OWNER_ONLY).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = posix_mq::unlink(&self.0);
    }
}

/// In the second process: the queue that the test made.
pub(crate) fn inherited(access: Access) -> PosixQueue {
    PosixQueue::open_for(&PosixName::new(argument("QUEUE")).unwrap(), access).unwrap()
}

#[test]
fn messages_of_all_sizes_between_two_processes() {
    if role().is_some() {
        let mut queue = inherited(Access::Send);
        for size in 0..=SMALL.message_bytes {
            queue.send(&pattern(size, size as u64)).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    let test = "posix_mq::messages_of_all_sizes_between_two_processes";
    let peer = Peer::start(test, "sender", &[("QUEUE", &name.0.to_string())]);
    for size in 0..=SMALL.message_bytes {
        assert_eq!(queue.recv().unwrap().unwrap(), pattern(size, size as u64), "message of {size} bytes");
    }
    peer.succeed();
}

#[test]
fn the_highest_priority_comes_first_and_within_one_the_oldest() {
    if role().is_some() {
        let queue = inherited(Access::Send);
        for (message, priority) in [(b"c", 1), (b"a", MAX_PRIORITY), (b"d", 1), (b"b", 7)] {
            queue.send_with_priority_by(message, priority, Deadline::Now).unwrap();
        }
        return;
    }
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    let test = "posix_mq::the_highest_priority_comes_first_and_within_one_the_oldest";
    Peer::start(test, "sender", &[("QUEUE", &name.0.to_string())]).succeed();
    let mut buffer = [0; 128];
    for (message, priority) in [(b'a', MAX_PRIORITY), (b'b', 7), (b'c', 1), (b'd', 1)] {
        assert_eq!(queue.recv_with_priority_by(&mut buffer, Deadline::Now).unwrap(), (1, priority));
        assert_eq!(buffer[0], message);
    }
    let error = queue.send_with_priority_by(b"x", MAX_PRIORITY + 1, Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("32768") && error.to_string().contains("32767"), "{error}");
}

#[test]
fn names_are_created_once_opened_and_removed() {
    let name = Name::new();
    let missing = PosixQueue::open(&name.0).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT), "{missing}");
    assert!(missing.to_string().contains("create it first"), "{missing}");
    assert_eq!(posix_mq::unlink(&name.0).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let mode = PosixQueue::create(&name.0, &SMALL, 0o1600).unwrap_err().to_string();
    assert!(mode.contains("mode 1600 has more than the nine permission bits"), "{mode}");

    let mut queue = PosixQueue::open_or_create(&name.0, &SMALL, 0o600).unwrap();
    assert_eq!(queue.attributes(), SMALL);
    let twice = PosixQueue::create(&name.0, &SMALL, 0o600).unwrap_err();
    assert_eq!(twice.raw_os_error(), Some(libc::EEXIST), "{twice}");
    let other = QueueAttributes { max_messages: 2, message_bytes: 64 };
    let mut same = PosixQueue::open_or_create(&name.0, &other, 0o600).unwrap();
    assert_eq!(same.attributes(), SMALL, "one that exists keeps its attributes");

    posix_mq::unlink(&name.0).unwrap();
    queue.send(b"still open").unwrap();
    assert_eq!(same.queued_messages().unwrap(), 1);
    assert_eq!(same.recv().unwrap().unwrap(), b"still open");
}

#[test]
fn the_mode_is_exact_and_rights_are_checked_one_by_one() {
    let name = Name::new();
    let queue = PosixQueue::create(&name.0, &SMALL, 0o666).unwrap();
    let mode = rustix::fs::fstat(queue.as_fd()).unwrap().st_mode & 0o777;
    assert_eq!(mode, 0o666, "the umask took bits away");

    let write_only = Name::new();
    PosixQueue::create(&write_only.0, &SMALL, 0o200).unwrap();
    let mut sender = PosixQueue::open_for(&write_only.0, Access::Send).unwrap();
    let error = sender.announce_receiver().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(9), "EBADF");
    assert!(error.to_string().contains("open it for receiving"), "{error}");
    sender.send(b"in").unwrap();
    match PosixQueue::open(&write_only.0) {
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}"),
        Ok(_) => assert!(rustix::process::geteuid().is_root(), "only root passes by the mode"),
    }
    let error = sender.try_recv_into(&mut [0; 128]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
}

#[test]
fn limits_are_reported_with_their_numbers() {
    let name = Name::new();
    for attributes in [
        QueueAttributes { max_messages: 0, message_bytes: 128 },
        QueueAttributes { max_messages: 4, message_bytes: 0 },
        QueueAttributes { max_messages: 70_000, message_bytes: 128 },
        QueueAttributes { max_messages: 4, message_bytes: 17 << 20 },
    ] {
        let error = PosixQueue::create(&name.0, &attributes, 0o600).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        let text = error.to_string();
        let asked = format!("{} messages of {} bytes", attributes.max_messages, attributes.message_bytes);
        assert!(text.contains(&asked) && text.contains("/proc/sys/fs/mqueue/msg_max"), "{text}");
    }
    let mut queue = name.queue(SMALL);
    let error = queue.send(&[0; 129]).unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes: 129, limit_bytes: 128, .. }), "{error}");
    assert!(error.to_string().contains("msgsize_max"), "{error}");
    assert_eq!(queue.limit_bytes(), Some(128));
}

#[test]
fn a_user_who_has_too_many_queues_is_told_the_limit() {
    if role().is_some() {
        let maximum = getrlimit(Resource::Msgqueue).maximum;
        setrlimit(Resource::Msgqueue, Rlimit { current: Some(1000), maximum }).unwrap();
        let name = Name::new();
        let error = PosixQueue::create(&name.0, &QueueAttributes::system_default(), 0o600).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        let text = error.to_string();
        assert!(text.contains("RLIMIT_MSGQUEUE") && text.contains(" 1000 "), "{text}");
        return;
    }
    Peer::start("posix_mq::a_user_who_has_too_many_queues_is_told_the_limit", "limited", &[]).succeed();
}

#[test]
fn the_default_is_what_the_kernel_gives() {
    let name = Name::new();
    let queue = name.queue(QueueAttributes::default());
    assert_eq!(queue.attributes(), QueueAttributes::system_default());
    assert_eq!(queue.usual_bytes(), queue.attributes().message_bytes);
}

#[test]
fn a_message_that_does_not_fit_stays_first_in_line() {
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    queue.send_with_priority_by(&pattern(100, 1), 3, Deadline::Now).unwrap();
    let error = queue.try_recv_into(&mut [0; 99]).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { message_bytes: 100, buffer_bytes: 99, .. }), "{error}");
    queue.send_with_priority_by(b"higher", 9, Deadline::Now).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(queue.recv_with_priority_by(&mut buffer, Deadline::Now).unwrap(), (100, 3));
    assert_eq!(buffer[..], pattern(100, 1));
    assert_eq!(
        queue.recv_with_priority_by(&mut buffer, Deadline::Now).unwrap(),
        (6, 9),
        "a short buffer that suffices"
    );
    assert_eq!(buffer[..6], *b"higher");
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    assert!(matches!(queue.try_recv_into(&mut [0; 128]), Err(Error::WouldBlock { .. })));
    let start = Instant::now();
    let error = queue.recv_into_by(&mut [0; 128], Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
    for _ in 0..SMALL.max_messages {
        queue.try_send(b"full").unwrap();
    }
    assert!(matches!(queue.try_send(b"x"), Err(Error::WouldBlock { .. })));
    let start = Instant::now();
    let error = queue.send_by(b"x", Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
}

#[test]
fn a_wait_ends_when_the_other_side_comes_before_the_deadline() {
    if role().is_some() {
        let mut queue = inherited(Access::Both);
        std::thread::sleep(Duration::from_millis(100));
        queue.send(b"hello").unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    let test = "posix_mq::a_wait_ends_when_the_other_side_comes_before_the_deadline";
    let peer = Peer::start(test, "sender", &[("QUEUE", &name.0.to_string())]);
    let message = queue.recv_by(Deadline::after(Duration::from_secs(50))).unwrap();
    assert_eq!(message.unwrap(), b"hello");
    peer.succeed();
}

#[test]
fn one_process_is_notified_once() {
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    let other = PosixQueue::open(&name.0).unwrap();
    // SIGURG is ignored unless a program wants it.
    queue.notify_signal(libc::SIGURG).unwrap();
    let error = other.notify_signal(libc::SIGURG).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
    queue.send(b"arrives in the empty queue").unwrap();
    other.notify_signal(libc::SIGURG).expect("the first registration was used up");
    other.cancel_notification().unwrap();
    queue.notify_signal(libc::SIGURG).expect("the second was taken back");
    queue.cancel_notification().unwrap();
    for signal in [i32::MIN, -1, 0, 65] {
        let error = queue.notify_signal(signal).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("between 1 and 64"), "{error}");
    }
    queue.notify_signal(64).unwrap();
    queue.cancel_notification().unwrap();
}

#[test]
fn the_notification_reaches_the_process_that_asked_for_it() {
    if role().is_some() {
        let queue = inherited(Access::Receive);
        queue.notify_signal(libc::SIGUSR1).unwrap();
        queue.announce_receiver().unwrap();
        // The default action of SIGUSR1 ends this process.
        std::thread::sleep(Duration::from_secs(60));
        panic!("no signal came");
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    let test = "posix_mq::the_notification_reaches_the_process_that_asked_for_it";
    let _peer = Peer::start(test, "registrant", &[("QUEUE", &name.0.to_string())]);
    eventually("the second process registered", || queue.has_receiver().unwrap());
    queue.send(b"wake up").unwrap();
    eventually("the signal ended it", || !queue.has_receiver().unwrap());
}

#[test]
fn the_descriptor_can_be_polled() {
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    let ready = |queue: &PosixQueue| {
        let mut fds = [PollFd::new(queue, PollFlags::IN | PollFlags::OUT)];
        poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap();
        fds[0].revents()
    };
    assert_eq!(ready(&queue), PollFlags::OUT);
    for _ in 0..SMALL.max_messages {
        queue.send(b"full").unwrap();
    }
    assert_eq!(ready(&queue), PollFlags::IN);
}

#[test]
fn a_receiver_that_is_killed_is_no_longer_announced() {
    if role().is_some() {
        let mut queue = inherited(Access::Receive);
        queue.announce_receiver().unwrap();
        loop {
            queue.recv().unwrap();
        }
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = Name::new();
    let mut queue = name.queue(SMALL);
    assert!(!queue.has_receiver().unwrap());
    let test = "posix_mq::a_receiver_that_is_killed_is_no_longer_announced";
    let mut peer = Peer::start(test, "receiver", &[("QUEUE", &name.0.to_string())]);
    let sender = PosixQueue::open_for(&name.0, Access::Send).unwrap();
    eventually("the receiver announced itself", || sender.has_receiver().unwrap());
    queue.send(b"taken").unwrap();
    eventually("it received", || queue.queued_messages().unwrap() == 0);
    peer.kill();
    eventually("the kernel took the sign back", || !sender.has_receiver().unwrap());
    queue.send(b"kept").unwrap();
    assert_eq!(queue.recv().unwrap().unwrap(), b"kept", "the queue works on after the death of a waiting receiver");
}

#[test]
fn a_killed_sender_leaves_whole_messages_only() {
    if role().is_some() {
        let mut queue = inherited(Access::Send);
        for seed in 0.. {
            queue.send(&pattern(120, seed)).unwrap();
        }
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let test = "posix_mq::a_killed_sender_leaves_whole_messages_only";
    for round in 0..5 {
        let name = Name::new();
        let mut queue = name.queue(SMALL);
        let mut peer = Peer::start(test, "sender", &[("QUEUE", &name.0.to_string())]);
        let mut seed = 0;
        let end = Instant::now() + Duration::from_millis(5 * round);
        loop {
            assert_eq!(queue.recv().unwrap().unwrap(), pattern(120, seed));
            seed += 1;
            if Instant::now() >= end {
                break;
            }
        }
        peer.kill();
        let mut buffer = [0; 128];
        while let Ok(len) = queue.try_recv_into(&mut buffer) {
            assert_eq!(buffer[..len.unwrap()], pattern(120, seed));
            seed += 1;
        }
    }
}
