//! Row 11: the System V message queue, and what semantics.md and msgop(2) say of it.

use std::time::{Duration, Instant};

use onecopy::message::sysv_mq::{Select, SysvQueue};
use onecopy::{Deadline, Error, Receiver, Sender, SysvName};

use crate::support::{Peer, Scratch, argument, eventually, pattern, role, watchdog};

/// A queue that is removed at the end of the test.
pub(crate) struct Queue(pub(crate) SysvQueue);

impl Queue {
    pub(crate) fn new() -> Self {
        Self(SysvQueue::create_private(0o600).unwrap())
    }

    /// The argument by which a second process finds it.
    pub(crate) fn argument(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

/// In the second process: the queue that the test made.
pub(crate) fn inherited() -> SysvQueue {
    SysvQueue::open(&SysvName::id(argument("QUEUE").parse().unwrap()).unwrap()).unwrap()
}

/// A key that no other test and no other run uses.
fn unique_key(number: u32) -> SysvName {
    SysvName::key((0x2000_0000 + std::process::id() * 64 + number).cast_signed()).unwrap()
}

const SIZES: [usize; 6] = [0, 1, 7, 8, 4097, 8192];

#[test]
fn messages_of_all_sizes_between_two_processes() {
    if role().is_some() {
        let mut queue = inherited();
        for size in SIZES {
            queue.send_type_by(1 + size as i64, &pattern(size, size as u64), Deadline::Never).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut queue = Queue::new();
    let test = "sysv_mq::messages_of_all_sizes_between_two_processes";
    let peer = Peer::start(test, "sender", &[("QUEUE", &queue.argument())]);
    let mut buffer = vec![0; 8192];
    for size in SIZES {
        let (len, message_type) = queue.0.recv_select_by(Select::Any, &mut buffer, Deadline::Never).unwrap();
        assert_eq!((len, message_type), (size, 1 + size as i64));
        assert_eq!(buffer[..len], pattern(size, size as u64), "message of {size} bytes");
    }
    let status = queue.0.status().unwrap();
    assert_eq!(status.last_sender, Some(peer.pid()));
    assert_eq!((status.messages, status.used_bytes, status.mode), (0, 0, 0o600));
    peer.succeed();
    queue.0.send(b"back").unwrap();
    let status = queue.0.status().unwrap();
    assert_eq!((status.messages, status.used_bytes, status.last_sender), (1, 4, Some(std::process::id())));
    queue.0.try_recv_into(&mut buffer).unwrap();
    assert_eq!(queue.0.status().unwrap().last_receiver, Some(std::process::id()));
}

#[test]
fn a_receiver_chooses_by_type() {
    if role().is_some() {
        let mut queue = inherited();
        for (message_type, message) in [(5, b"a"), (3, b"b"), (9, b"c"), (3, b"d"), (5, b"e"), (1, b"f")] {
            queue.send_type_by(message_type, message, Deadline::Now).unwrap();
        }
        return;
    }
    let mut queue = Queue::new();
    Peer::start("sysv_mq::a_receiver_chooses_by_type", "sender", &[("QUEUE", &queue.argument())]).succeed();
    let mut take = |select| {
        let mut buffer = [0; 8];
        let (len, message_type) = queue.0.recv_select_by(select, &mut buffer, Deadline::Now)?;
        assert_eq!(len, 1);
        Ok::<_, Error>((buffer[0], message_type))
    };
    assert_eq!(take(Select::Exact(9)).unwrap(), (b'c', 9));
    assert_eq!(take(Select::UpTo(4)).unwrap(), (b'f', 1), "the lowest type, not the oldest message");
    assert_eq!(take(Select::UpTo(4)).unwrap(), (b'b', 3), "the oldest of it");
    assert_eq!(take(Select::Except(5)).unwrap(), (b'd', 3));
    assert!(take(Select::Except(5)).unwrap_err().is_out_of_time(), "ENOMSG");
    assert!(take(Select::Exact(4)).unwrap_err().is_out_of_time());
    assert_eq!(take(Select::Any).unwrap(), (b'a', 5));
    assert_eq!(take(Select::Any).unwrap(), (b'e', 5));
}

#[test]
fn types_below_1_are_refused() {
    let mut queue = Queue::new();
    for message_type in [0, -1, i64::MIN] {
        let error = queue.0.send_type_by(message_type, b"x", Deadline::Now).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        for select in [Select::Exact(message_type), Select::UpTo(message_type), Select::Except(message_type)] {
            let error = queue.0.recv_select_by(select, &mut [0; 8], Deadline::Now).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
        assert!(queue.0.set_send_type(message_type).is_err());
    }
    queue.0.set_send_type(4).unwrap();
    queue.0.set_selection(Select::Except(4)).unwrap();
    queue.0.send(b"four").unwrap();
    assert!(queue.0.try_recv_into(&mut [0; 8]).unwrap_err().is_out_of_time());
    queue.0.set_selection(Select::Exact(4)).unwrap();
    assert_eq!(queue.0.recv().unwrap().unwrap(), b"four");
}

#[test]
fn a_message_that_does_not_fit_stays_first_in_line() {
    let mut queue = Queue::new();
    queue.0.send_type_by(2, &pattern(100, 1), Deadline::Now).unwrap();
    queue.0.send_type_by(3, b"other", Deadline::Now).unwrap();
    let mut buffer = [0; 100];
    for _ in 0..2 {
        let error = queue.0.recv_select_by(Select::UpTo(2), &mut buffer[..99], Deadline::Now).unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message_bytes: 100, buffer_bytes: 99, .. }), "{error}");
    }
    assert_eq!(queue.0.recv_select_by(Select::Exact(3), &mut buffer, Deadline::Now).unwrap(), (5, 3));
    assert_eq!(queue.0.recv_select_by(Select::Any, &mut buffer, Deadline::Now).unwrap(), (100, 2));
    assert_eq!(buffer[..], pattern(100, 1));
    assert_eq!(queue.0.status().unwrap().messages, 0);
}

#[test]
fn truncation_happens_on_request_and_says_so() {
    let mut queue = Queue::new();
    for size in [10, 11, 10] {
        queue.0.send(&pattern(size, 1)).unwrap();
    }
    let mut buffer = [0; 10];
    let received = queue.0.recv_truncated_by(Select::Any, &mut buffer, Deadline::Now).unwrap();
    assert_eq!((received.bytes, received.message_type, received.tail_lost), (10, 1, false));
    let received = queue.0.recv_truncated_by(Select::Any, &mut buffer, Deadline::Now).unwrap();
    assert_eq!((received.bytes, received.tail_lost), (10, true));
    assert_eq!(buffer[..], pattern(11, 1)[..10]);
    assert!(matches!(queue.0.try_recv_into(&mut buffer[..9]), Err(Error::BufferTooSmall { .. })));
    let received = queue.0.recv_truncated_by(Select::Any, &mut buffer[..9], Deadline::Now).unwrap();
    assert_eq!((received.bytes, received.tail_lost), (9, true), "also of a message that did not fit before");
    assert!(queue.0.recv_truncated_by(Select::Any, &mut buffer, Deadline::Now).unwrap_err().is_out_of_time());
}

#[test]
fn keys_are_created_once_opened_and_removed() {
    let name = unique_key(0);
    let missing = SysvQueue::open(&name).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT), "{missing}");
    assert!(missing.to_string().contains("create it first"), "{missing}");
    let queue = Queue(SysvQueue::create(&name, 0o622).unwrap());
    assert_eq!(queue.0.status().unwrap().mode, 0o622, "the umask does not count");
    let twice = SysvQueue::create(&name, 0o600).unwrap_err();
    assert_eq!(twice.raw_os_error(), Some(libc::EEXIST), "{twice}");
    assert_eq!(SysvQueue::open(&name).unwrap().id(), queue.0.id());
    assert_eq!(SysvQueue::open_or_create(&name, 0o600).unwrap().id(), queue.0.id());
    let by_id = SysvName::id(queue.0.id()).unwrap();
    assert!(matches!(SysvQueue::create(&by_id, 0o600), Err(Error::Invalid { .. })));
    for mode in [0o1600, u32::MAX] {
        let refused = [SysvQueue::create(&name, mode), SysvQueue::open_or_create(&name, mode)];
        assert!(refused.iter().all(|result| matches!(result, Err(Error::Invalid { .. }))));
    }
    SysvQueue::open(&by_id).unwrap().remove().unwrap();
    let gone = SysvQueue::open(&by_id).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::EINVAL), "{gone}");
    assert!(gone.to_string().contains("ipcs -q"), "{gone}");
}

#[test]
fn a_file_and_a_number_make_a_key() {
    let scratch = Scratch::new();
    let path = scratch.path("key");
    std::fs::write(&path, "").unwrap();
    let name = SysvName::path(&path, 7).unwrap();
    let queue = Queue(SysvQueue::create(&name, 0o600).unwrap());
    assert_eq!(SysvQueue::open(&name).unwrap().id(), queue.0.id());
    assert_eq!(SysvQueue::open(&SysvName::path(&path, 8).unwrap()).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    std::fs::remove_file(&path).unwrap();
    let error = SysvQueue::open(&name).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn limits_are_reported_with_their_numbers() {
    let mut queue = Queue::new();
    let limit = queue.0.limit_bytes().unwrap();
    let error = queue.0.send(&vec![0; limit + 1]).unwrap_err();
    assert!(matches!(error, Error::TooLong { limit_bytes, .. } if limit_bytes == limit), "{error}");
    assert!(error.to_string().contains("kernel.msgmax"), "{error}");
    queue.0.set_capacity_bytes(1000).unwrap();
    assert_eq!(queue.0.status().unwrap().capacity_bytes, 1000);
    assert_eq!(queue.0.limit_bytes(), Some(1000), "a longer message would wait for ever");
    queue.0.send(&[0; 600]).unwrap();
    assert!(matches!(queue.0.try_send(&[0; 401]), Err(Error::WouldBlock { .. })));
    queue.0.try_send(&[0; 400]).unwrap();
    match queue.0.set_capacity_bytes(1 << 30) {
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            assert!(error.to_string().contains("kernel.msgmnb"), "{error}");
        }
        Ok(()) => assert!(rustix::process::geteuid().is_root(), "only CAP_SYS_RESOURCE passes by kernel.msgmnb"),
    }
}

#[test]
fn a_capacity_that_another_one_changes_is_seen() {
    let _watchdog = watchdog(Duration::from_secs(20));
    let mut queue = Queue::new();
    let mut other = SysvQueue::open(&SysvName::id(queue.0.id()).unwrap()).unwrap();
    let before = queue.0.status().unwrap().capacity_bytes;
    for deadline in [Deadline::Never, Deadline::Now, Deadline::after(Duration::from_secs(600))] {
        other.set_capacity_bytes(100).unwrap();
        match queue.0.send_by(&[0; 101], deadline) {
            Err(Error::TooLong { message_bytes: 101, limit_bytes: 100, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(Sender::limit_bytes(&queue.0), Some(100));
        other.set_capacity_bytes(before).unwrap();
        queue.0.send_by(&[7; 101], deadline).unwrap();
        assert_eq!(queue.0.recv().unwrap().as_deref(), Some(&[7; 101][..]));
    }
    // What waits there already may be more than fits from now on.
    queue.0.send(&[0; 101]).unwrap();
    other.set_capacity_bytes(100).unwrap();
    let full = queue.0.send_by(&[0; 100], Deadline::Now);
    assert!(matches!(full, Err(Error::WouldBlock { .. })), "{full:?}");
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut queue = Queue::new();
    assert!(matches!(queue.0.try_recv_into(&mut [0; 8]), Err(Error::WouldBlock { .. })));
    let start = Instant::now();
    let error = queue.0.recv_into_by(&mut [0; 8], Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
    while queue.0.try_send(&[0; 4096]).is_ok() {}
    let start = Instant::now();
    let error = queue.0.send_by(&[0; 4096], Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && start.elapsed() >= Duration::from_millis(50), "{error}");
}

#[test]
fn removal_ends_every_wait() {
    if let Some(role) = role() {
        let mut queue = inherited();
        println!("\nopened");
        let deadline = if role.contains("timed") { Deadline::after(Duration::from_secs(50)) } else { Deadline::Never };
        let error = if role.contains("receiver") {
            queue.recv_select_by(Select::Exact(99), &mut [0; 8], deadline).unwrap_err()
        } else {
            queue.send_by(&[0; 4096], deadline).unwrap_err()
        };
        assert!(error.is_peer_gone(), "{error}");
        assert!(error.to_string().contains("the queue was removed"), "{error}");
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    for role in ["receiver", "sender", "timed receiver", "timed sender"] {
        let mut queue = Queue::new();
        while queue.0.try_send(&[0; 4096]).is_ok() {}
        let mut peer = Peer::start("sysv_mq::removal_ends_every_wait", role, &[("QUEUE", &queue.argument())]);
        peer.line("opened");
        // Nothing shows that a process waits in the kernel but its own file, whose wording is not fixed: give it time. Should
        // it come later, it finds the queue gone, and the test holds as well.
        std::thread::sleep(Duration::from_millis(150));
        queue.0.remove().unwrap();
        peer.succeed();
        let error = queue.0.try_recv_into(&mut [0; 8]).unwrap_err();
        assert!(error.is_peer_gone() && error.to_string().contains("removed"), "{error}");
        assert!(queue.0.status().unwrap_err().is_peer_gone());
        assert!(queue.0.try_send(b"x").unwrap_err().is_peer_gone());
    }
}

#[test]
fn killed_processes_leave_whole_messages_and_a_queue_that_works() {
    if let Some(role) = role() {
        let mut queue = inherited();
        if role == "receiver" {
            loop {
                queue.recv().unwrap();
            }
        }
        for seed in 0.. {
            queue.send(&pattern(3000, seed)).unwrap();
        }
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let test = "sysv_mq::killed_processes_leave_whole_messages_and_a_queue_that_works";
    for round in 0..5 {
        let mut queue = Queue::new();
        let mut peer = Peer::start(test, "sender", &[("QUEUE", &queue.argument())]);
        let end = Instant::now() + Duration::from_millis(5 * round);
        let mut seed = 0;
        while seed == 0 || Instant::now() < end {
            assert_eq!(queue.0.recv().unwrap().unwrap(), pattern(3000, seed));
            seed += 1;
        }
        peer.kill();
        let mut buffer = [0; 3000];
        while queue.0.try_recv_into(&mut buffer).is_ok() {
            assert_eq!(buffer[..], pattern(3000, seed));
            seed += 1;
        }
    }
    let mut queue = Queue::new();
    let mut peer = Peer::start(test, "receiver", &[("QUEUE", &queue.argument())]);
    queue.0.send(b"taken").unwrap();
    eventually("it received", || queue.0.status().unwrap().messages == 0);
    peer.kill();
    queue.0.send(b"kept").unwrap();
    assert_eq!(queue.0.recv().unwrap().unwrap(), b"kept");
}

#[test]
fn a_queue_that_another_one_removes_meanwhile_is_made_anew() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let name = unique_key(20);
    let open = || SysvQueue::open_or_create(&name, 0o600).unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| (0..3000).for_each(|_| drop(open())));
        while !opening.is_finished() {
            let _ = open().remove();
        }
    });
    open().remove().unwrap();
}
