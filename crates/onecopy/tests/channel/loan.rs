//! Loans between two processes: what is made in shared memory arrives as it was made, and the memory comes back.
//!
//! # Safety
//!
//! Views are read in place while the other process, which is this program too, leaves them alone.
#![expect(unsafe_code, reason = "reads views in place")]

use std::io::Read as _;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::time::Duration;

use onecopy::channel::{ChannelName, ChannelSender, DEFAULT_LOAN_LIMIT_BYTES, LOANS, Path, Policy, Unsent, View};
use onecopy::{Channel, Deadline, Error, Listener, Sender as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::duo::{KIB, MIB, adopt, content, hash, kill_after, rounds, soon, start};
use crate::support::{Peer, Scratch, argument, eventually, role, unique, watchdog};
use crate::{OTHER, as_other, is_root, open_descriptors};

const SECONDS: Duration = Duration::from_secs(600);

const SIZES: [usize; 14] = [0, 1, 55, 56, 104, 105, 4095, 4096, 4097, 100 * KIB, MIB, 3 * MIB + 7, 16 * MIB, 64 * MIB];

/// The content of message `number`, piece by piece, for messages longer than what `content` has.
fn fill(number: u64, target: &mut [u8]) {
    for (index, piece) in (0..).zip(target.chunks_mut(MIB)) {
        piece.copy_from_slice(content(number + index, piece.len()));
    }
}

fn is_filled(number: u64, bytes: &[u8]) -> bool {
    (0..).zip(bytes.chunks(MIB)).all(|(index, piece)| piece == content(number + index, piece.len()))
}

/// Sends message `number`: every third one from private memory.
fn send(sender: &mut ChannelSender, number: u64, size: usize) {
    if number % 3 == 2 {
        let mut message = vec![0; size];
        fill(number, &mut message);
        return sender.send_by(&message, soon()).unwrap();
    }
    let mut loan = sender.loan_by(size, soon()).unwrap();
    assert_eq!(loan.len(), size);
    fill(number, &mut loan);
    loan.send_by(soon()).map_err(Error::from).unwrap();
}

/// Receives message `number`, in one of the ways that there are.
fn receive(channel: &mut Channel, number: u64, size: usize) {
    let context = format!("message {number} of {size} bytes");
    match number % 5 {
        0 => {
            let message = channel.receiver().recv_by(soon()).unwrap().unwrap();
            assert!(message.len() == size && is_filled(number, &message), "{context}");
        }
        1 => {
            let mut buffer = vec![0; size];
            assert_eq!(channel.recv_into(&mut buffer).unwrap(), Some(size), "{context}");
            assert!(is_filled(number, &buffer), "{context}");
        }
        way => {
            let view = channel.receiver().recv_view_by(soon()).unwrap().unwrap();
            assert_eq!((view.len(), view.is_lent()), (size, number % 3 != 2), "{context}");
            look(&view, number, way == 2, &context);
        }
    }
}

fn look(view: &View, number: u64, in_place: bool, context: &str) {
    if in_place {
        // SAFETY: the other process leaves it alone until the view is dropped.
        let bytes = unsafe { view.as_slice() };
        return assert!(is_filled(number, bytes), "{context}");
    }
    let mut buffer = vec![0; view.len() + 1];
    view.copy_to(&mut buffer).unwrap();
    assert!(is_filled(number, &buffer[..view.len()]), "{context}");
    let middle = view.len() / 2;
    let mut end = vec![0; view.len() - middle];
    view.read_at(middle, &mut end).unwrap();
    assert!(end == buffer[middle..view.len()], "{context}");
    assert!(matches!(view.read_at(middle + 1, &mut end), Err(Error::Invalid { .. })) || end.is_empty(), "{context}");
}

/// All sizes, several times, so that memory is used again.
fn messages() -> impl Iterator<Item = (u64, usize)> {
    (0..).zip((0..5).flat_map(|_| SIZES))
}

/// The second process: answers each message with one of the same length.
fn answer(mut channel: Channel) {
    for (number, size) in messages() {
        receive(&mut channel, number, size);
        send(channel.sender(), number, size);
    }
    assert!(channel.recv_view().unwrap().is_none());
}

fn ask(mut channel: Channel) {
    for (number, size) in messages() {
        send(channel.sender(), number, size);
        receive(&mut channel, number, size);
    }
    let stats = channel.stats();
    let lent = messages().filter(|(number, _)| number % 3 != 2).count() as u64;
    assert_eq!([stats.sent(Path::Loan).messages, stats.received(Path::Loan).messages], [lent; 2], "{stats:?}");
}

#[test]
fn loans_of_every_size_arrive_between_other_messages_as_they_were_made() {
    if role().is_some() {
        return answer(adopt());
    }
    let _watchdog = watchdog(SECONDS);
    let (channel, peer) =
        start("loan::loans_of_every_size_arrive_between_other_messages_as_they_were_made", "child", &[]);
    ask(channel);
    peer.succeed();
}

#[test]
fn a_loan_for_whose_copy_there_is_no_memory_stays_first_in_line() {
    let test = "loan::a_loan_for_whose_copy_there_is_no_memory_stays_first_in_line";
    if role().is_some() {
        let mut channel = adopt();
        // With it comes the memory of the loans, which takes addresses.
        assert_eq!(channel.receiver().recv_by(soon()).unwrap().unwrap().len(), 1000);
        let used = std::fs::read_to_string("/proc/self/statm").unwrap();
        let used = used.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64;
        let limit = getrlimit(Resource::As);
        setrlimit(Resource::As, Rlimit { current: Some(used + 8 * MIB as u64), ..limit }).unwrap();
        let error = channel.receiver().recv_by(soon()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
        setrlimit(Resource::As, limit).unwrap();
        let message = channel.receiver().recv_by(soon()).unwrap().unwrap();
        return assert!(message.len() == 64 * MIB && is_filled(5, &message));
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "child", &[]);
    for (number, size) in [(4, 1000), (5, 64 * MIB)] {
        let mut loan = channel.loan(size).unwrap();
        fill(number, &mut loan);
        loan.send().unwrap();
    }
    peer.succeed();
}

#[test]
fn loans_need_no_cross_memory_attach() {
    let policy = Policy::same_user().separate();
    if role().is_some() {
        return answer(Channel::connect_by(&ChannelName::name(argument("NAME")).unwrap(), &policy, soon()).unwrap());
    }
    let _watchdog = watchdog(SECONDS);
    let name = unique("loan");
    let listener = Listener::bind_with(&ChannelName::name(&name).unwrap(), &policy).unwrap();
    let peer = Peer::configure("loan::loans_need_no_cross_memory_attach", "child", &[("NAME", &name)], |command| {
        command.stderr(Stdio::inherit());
    });
    ask(listener.accept_by(soon()).unwrap());
    peer.succeed();
}

#[test]
fn loans_go_between_two_users() {
    let test = "loan::loans_go_between_two_users";
    if !is_root(test) {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let directory = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(scratch.root(), directory).unwrap();
    let name = ChannelName::path(scratch.path("channel")).unwrap();
    let both = Policy::same_user().admit_user(0).admit_user(OTHER);
    let listener = Listener::bind_with(&name, &both).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| as_other(|| answer(Channel::connect_by(&name, &both, soon()).unwrap())));
        ask(listener.accept_by(soon()).unwrap());
    });
}

/// The second process: keeps what it gets, until it is told otherwise.
fn keep(mut channel: Channel) {
    let mut kept = Vec::new();
    loop {
        let view = channel.recv_view().unwrap().unwrap();
        let mut first = [0];
        match view.is_lent() {
            true => kept.push(view),
            false => {
                view.read_at(0, &mut first).unwrap();
                // How many it shall give back, or 255 for its end.
                if first == [255] {
                    return;
                }
                kept.drain(..usize::from(first[0]));
                channel.send(&first).unwrap();
            }
        }
    }
}

/// Has the second process give so many loans back.
fn release(channel: &mut Channel, loans: u8) {
    channel.send(&[loans]).unwrap();
    assert_eq!(channel.recv().unwrap().as_deref(), Some(&[loans][..]));
}

fn lend(channel: &mut Channel, bytes: usize) -> Result<(), Error> {
    let mut loan = channel.sender().loan_by(bytes, Deadline::Now)?;
    loan.fill(1);
    loan.send()
}

#[test]
fn a_peer_that_keeps_loans_stops_at_the_limits_and_its_end_is_an_error() {
    let test = "loan::a_peer_that_keeps_loans_stops_at_the_limits_and_its_end_is_an_error";
    if role().is_some() {
        return keep(adopt());
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start(test, "child", &[]);
    let too_many = |error: Error, expected: [usize; 4]| match &error {
        Error::LoansOut { loans, limit_loans: LOANS, loaned_bytes, limit_bytes, free_bytes, .. } => {
            assert!(error.is_out_of_time());
            assert_eq!([*loans, *loaned_bytes, *limit_bytes, *free_bytes], expected, "{error}");
            // Once there is a loan its limit stays.
            assert!(error.to_string().contains("before the first one set_loan_limit_bytes"), "{error}");
        }
        _ => panic!("{error}"),
    };
    let limit = MIB;
    channel.sender().set_loan_limit_bytes(limit).unwrap();
    let error = lend(&mut channel, limit + 1).unwrap_err();
    assert!(matches!(error, Error::TooLong { limit_bytes: MIB, .. }), "{error}");
    // By the bytes.
    for _ in 0..3 {
        lend(&mut channel, 256 * KIB).unwrap();
    }
    too_many(lend(&mut channel, 512 * KIB).unwrap_err(), [3, 768 * KIB, limit, 256 * KIB]);
    let error = channel.sender().loan_by(512 * KIB, Deadline::after(Duration::from_millis(30))).unwrap_err();
    too_many(error, [3, 768 * KIB, limit, 256 * KIB]);
    release(&mut channel, 3);
    // By their number.
    for _ in 0..LOANS {
        lend(&mut channel, 8).unwrap();
    }
    too_many(lend(&mut channel, 8).unwrap_err(), [LOANS, LOANS * 128, limit, limit - LOANS * 128]);
    release(&mut channel, 1);
    lend(&mut channel, limit / 2).unwrap();
    assert!(channel.sender().set_loan_limit_bytes(limit).is_err(), "loans have begun");
    // One that waits is woken by the end of the other process.
    let killer = kill_after(Duration::from_millis(50), peer);
    let error = channel.loan(limit).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
    killer.join().unwrap();
    assert!(channel.loan(8).unwrap_err().is_peer_gone());
}

#[test]
fn a_sender_that_waits_for_a_loan_goes_on_when_one_comes_back() {
    if role().is_some() {
        let mut channel = adopt();
        let mut kept: Vec<View> = Vec::new();
        while let Some(view) = channel.recv_view().unwrap() {
            kept.push(view);
            if kept.len() == LOANS || kept[0].len() > MIB {
                std::thread::sleep(Duration::from_millis(5));
                kept.clear();
            }
        }
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start("loan::a_sender_that_waits_for_a_loan_goes_on_when_one_comes_back", "child", &[]);
    for _ in 0..20 * LOANS {
        channel.loan(100).unwrap().send().unwrap();
    }
    for _ in 0..8 {
        channel.loan(DEFAULT_LOAN_LIMIT_BYTES / 16).unwrap().send().unwrap();
    }
    drop(channel);
    peer.succeed();
}

#[test]
fn a_loan_that_is_dropped_forgotten_or_not_sent_in_time_is_free_again() {
    if role().is_some() {
        let mut channel = adopt();
        let go = argument("GO");
        eventually("the ring is full", || std::fs::exists(&go).unwrap());
        // What was sent before the ring was full.
        for number in 0..256 {
            assert_eq!(channel.recv().unwrap().unwrap().len(), 8, "{number}");
        }
        assert_eq!(&*channel.recv().unwrap().unwrap(), b"kept until there was room");
        assert!(channel.recv().unwrap().is_none());
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let test = "loan::a_loan_that_is_dropped_forgotten_or_not_sent_in_time_is_free_again";
    let scratch = Scratch::new();
    let go = scratch.path("go");
    let (mut channel, peer) = start(test, "child", &[("GO", go.to_str().unwrap())]);
    channel.sender().set_loan_limit_bytes(64 * KIB).unwrap();
    for round in 0..1000 {
        let mut loan = channel.loan(40_000).unwrap();
        loan[0] = 1;
        if round % 2 == 0 {
            std::mem::forget(loan);
        }
    }
    for _ in 0..256 {
        channel.sender().send_by(&[7; 8], Deadline::Now).unwrap();
    }
    let mut loan = channel.loan(25).unwrap();
    loan.copy_from_slice(b"kept until there was room");
    let Unsent { error, loan, .. } = loan.send_by(Deadline::Now).unwrap_err();
    assert!(error.is_out_of_time(), "{error}");
    std::fs::write(go, "").unwrap();
    loan.send_by(soon()).map_err(Error::from).unwrap();
    assert_eq!(channel.stats().sent(Path::Loan).messages, 1);
    drop(channel);
    peer.succeed();
}

/// The second process: lends or views until it is killed.
fn lend_for_ever(role: &str) {
    let length: usize = argument("LENGTH").parse().unwrap();
    let mut channel = adopt();
    let mut kept = std::collections::VecDeque::new();
    for number in 0.. {
        if role == "lender" {
            let mut loan = channel.loan(length).unwrap();
            fill(number, &mut loan);
            loan.send().unwrap();
        } else {
            kept.push_back(channel.recv_view().unwrap().unwrap());
            kept.truncate(3);
        }
    }
}

/// Uses the channel until the other side is killed.
fn until_the_end(channel: &mut Channel, length: usize, receives: bool) -> Error {
    for number in 0.. {
        let step = match receives {
            true => channel.recv_view().map(|view| look(&view.unwrap(), number, number % 2 == 0, "a survivor's")),
            false => channel.loan(length).and_then(|mut loan| {
                fill(number, &mut loan);
                loan.send()
            }),
        };
        if let Err(error) = step {
            return error;
        }
    }
    unreachable!("it is killed before")
}

#[test]
fn either_side_may_be_killed_with_loans_in_flight() {
    const LENGTHS: [usize; 4] = [8, 5000, 200_000, 3 * MIB];
    let test = "loan::either_side_may_be_killed_with_loans_in_flight";
    if let Some(role) = role() {
        return lend_for_ever(&role);
    }
    let _watchdog = watchdog(SECONDS);
    for round in 0..rounds(50, 1000) as u64 {
        let length = LENGTHS[round as usize % LENGTHS.len()];
        let receives = (round / LENGTHS.len() as u64).is_multiple_of(2);
        let role = if receives { "lender" } else { "viewer" };
        let (mut channel, peer) = start(test, role, &[("LENGTH", &length.to_string())]);
        let killer = kill_after(Duration::from_micros(hash(round) % 20_000), peer);
        let error = until_the_end(&mut channel, length, receives);
        assert!(error.is_peer_gone(), "round {round}, {role} of {length} bytes: {error}");
        killer.join().unwrap();
        assert!(channel.loan(8).unwrap_err().is_peer_gone(), "round {round}");
        assert!(channel.recv_view().unwrap_err().is_peer_gone(), "round {round}");
    }
}

#[test]
fn what_was_lent_outlives_its_lender() {
    if role().is_some() {
        let mut channel = adopt();
        for number in 0..3 {
            let mut loan = channel.loan(MIB).unwrap();
            fill(number, &mut loan);
            loan.send().unwrap();
        }
        println!("\n@sent");
        std::thread::park();
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, mut peer) = start("loan::what_was_lent_outlives_its_lender", "child", &[]);
    peer.line("@sent");
    peer.kill();
    // Its memory is not even mapped here yet, and the channel need not outlive the views either.
    let views: Vec<View> = (0..3).map(|_| channel.recv_view().unwrap().unwrap()).collect();
    assert!(channel.recv_view().unwrap_err().is_peer_gone());
    drop(channel);
    for (number, view) in (0..).zip(views) {
        look(&view, number, number % 2 == 0, "a dead lender's");
    }
}

/// How many parts of memory for loans this process has mapped.
fn mapped() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:onecopy-loans").count()
}

/// Two hundred connections with a loan each way.
fn many_connections(test: &str) {
    let exchange = |channel: &mut Channel| {
        channel.loan(5000).unwrap().send().unwrap();
        let view = channel.recv_view().unwrap().unwrap();
        assert!(view.is_lent());
        view
    };
    if role().as_deref() == Some("other") {
        let listener = Listener::bind(&argument("NAME")).unwrap();
        for _ in 0..200 {
            let mut channel = listener.accept().unwrap();
            let view = exchange(&mut channel);
            drop((view, channel));
        }
        return;
    }
    let name = unique("loan");
    let peer = Peer::start(test, "other", &[("NAME", &name)]);
    // The first one starts a thread that stays.
    drop(exchange(&mut Channel::connect(&name).unwrap()));
    let before = open_descriptors();
    for round in 1..200 {
        let mut channel = Channel::connect(&name).unwrap();
        let view = exchange(&mut channel);
        assert_eq!(mapped(), 2, "one for each direction");
        // The socket and the pidfd. The thread that watches may still hold those of the last round for a moment.
        eventually("a channel with loans has no descriptors for them", || open_descriptors() <= before + 2);
        if round % 2 == 0 {
            drop(channel);
            drop(view);
        } else {
            drop(view);
            drop(channel);
        }
        assert_eq!(mapped(), 0);
        eventually("a closed channel has no descriptors", || open_descriptors() <= before);
    }
    peer.succeed();
}

#[test]
fn two_hundred_connections_with_loans_leave_neither_descriptors_nor_mappings() {
    let test = "loan::two_hundred_connections_with_loans_leave_neither_descriptors_nor_mappings";
    if role().is_some() {
        return many_connections(test);
    }
    let _watchdog = watchdog(SECONDS);
    // In a process of its own, where no other test has any.
    Peer::configure(test, "one", &[], |command| {
        command.stderr(Stdio::inherit());
    })
    .succeed_within(SECONDS);
}

/// What `write_to` writes of a view.
fn written(view: &View, range: Range<usize>) -> Vec<u8> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let count = view.write_to(range, writer.as_fd()).unwrap();
    drop(writer);
    let mut bytes = Vec::new();
    assert_eq!(reader.read_to_end(&mut bytes).unwrap(), count);
    bytes
}

#[test]
fn a_loan_is_shortened_and_its_view_written_from_where_it_is() {
    if role().is_some() {
        let mut channel = adopt();
        for number in 0..2 {
            let view = channel.recv_view().unwrap().unwrap();
            assert_eq!((view.len(), view.is_lent()), (1000, number == 0));
            assert!(is_filled(number, &written(&view, 0..1000)));
            assert_eq!(written(&view, 100..900), content(number, 1000)[100..900]);
            assert_eq!(written(&view, 900..usize::MAX), content(number, 1000)[900..]);
            let reversed = Range { start: 900, end: 100 };
            for empty in [1000..1001, usize::MAX - 1..usize::MAX, 100..100, reversed] {
                assert_eq!(written(&view, empty), b"");
            }
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            assert_eq!(view.write_to(0..1, full.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        }
        channel.send(b"seen").unwrap();
        // Nothing is lent to a side that has closed.
        assert_eq!(channel.recv().unwrap().as_deref(), None);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start("loan::a_loan_is_shortened_and_its_view_written_from_where_it_is", "child", &[]);
    channel.sender().set_loan_limit_bytes(MIB).unwrap();
    let mut loan = channel.loan(MIB).unwrap();
    loan.truncate(1000);
    loan.truncate(MIB);
    assert_eq!(loan.len(), 1000);
    fill(0, &mut loan);
    loan.send().unwrap();
    channel.send(content(1, 1000)).unwrap();
    assert_eq!(channel.recv().unwrap().as_deref(), Some(&b"seen"[..]));
    // What was cut off has come back with the rest.
    assert_eq!(channel.loan(MIB).unwrap().len(), MIB);
    drop(channel);
    peer.succeed();
}

#[test]
fn a_receiver_has_limits_of_its_own() {
    if role().is_some() {
        let mut channel = adopt();
        channel.receiver().set_limit_bytes(1000);
        for _ in 0..3 {
            let error = channel.recv_view().unwrap_err();
            assert!(matches!(error, Error::TooLong { message_bytes: 1001, limit_bytes: 1000, .. }), "{error}");
        }
        let error = channel.recv_into(&mut [0; 999]).unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message_bytes: 1000, buffer_bytes: 999, .. }), "{error}");
        assert_eq!(channel.recv_view().unwrap().unwrap().len(), 1000, "it stayed first in line");
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (mut channel, peer) = start("loan::a_receiver_has_limits_of_its_own", "child", &[]);
    for bytes in [1001, 1001, 1001, 1000] {
        channel.loan(bytes).unwrap().send().unwrap();
    }
    peer.succeed();
}
