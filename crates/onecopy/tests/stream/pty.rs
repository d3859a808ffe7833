//! Row 3: the pseudoterminal, and what mechanisms.md and pty(7) say of it.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecopy::stream::framed::FramedReceiver;
use onecopy::stream::pipe::{PipeReader, PipeWriter};
use onecopy::stream::pty::{PtyMaster, PtySlave};
use onecopy::stream::{ByteReader, ByteWriter};
use onecopy::{Deadline, Error, Receiver};

use crate::exchange::{
    begin_a_message, notice_the_kill, receive_sizes, runs_out_of_time, runs_out_of_time_when_full, send_sizes,
    write_until_gone,
};
use crate::interrupt::{accept_interrupts, interrupt};
use crate::support::fork::child_leaves_the_file;
use crate::support::{Peer, Scratch, argument, eventually, role, watchdog};

const SECONDS: Duration = Duration::from_secs(60);

fn start(test: &str, role: &str, link: &Path) -> Peer {
    Peer::start(test, role, &[("LINK", link.to_str().unwrap())])
}

fn given_link() -> PathBuf {
    argument("LINK").into()
}

fn open_given() -> PtySlave {
    PtySlave::open(&given_link(), Deadline::Never).unwrap()
}

fn a_pair() -> (Scratch, PtyMaster, PtySlave) {
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let master = PtyMaster::create(&link).unwrap();
    let slave = PtySlave::open(&link, Deadline::Now).unwrap();
    (scratch, master, slave)
}

fn read_exactly(reader: &mut impl ByteReader, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let count = reader.read_by(&mut bytes[filled..], Deadline::Never).unwrap();
        assert_ne!(count, 0, "the end after {filled} of {len} bytes");
        filled += count;
    }
    bytes
}

#[test]
fn messages_of_all_sizes_between_two_processes() {
    match role().as_deref() {
        Some("reader") => return receive_sizes(open_given()),
        Some(_) => return send_sizes(open_given()),
        None => {}
    }
    let _watchdog = watchdog(SECONDS);
    let test = "pty::messages_of_all_sizes_between_two_processes";
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    // The second process comes first and waits for the link.
    let peer = start(test, "reader", &link);
    let master = PtyMaster::create(&link).unwrap();
    send_sizes(&master);
    master.drain_by(Deadline::Never).unwrap();
    drop(master);
    peer.succeed();

    let peer = start(test, "writer", &link);
    receive_sizes(PtyMaster::create(&link).unwrap());
    peer.succeed();
}

/// Every byte value after every other, so that no sequence means something to the terminal.
fn all_pairs_of_bytes() -> Vec<u8> {
    (0..=255).flat_map(|first| (0..=255).flat_map(move |second| [first, second])).collect()
}

#[test]
fn all_byte_values_pass_unchanged_in_both_directions() {
    let bytes = all_pairs_of_bytes();
    if role().is_some() {
        let mut slave = open_given();
        assert!(read_exactly(&mut slave, bytes.len()) == bytes, "from master to slave");
        return slave.write_all_by(&bytes, Deadline::Never).unwrap();
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let mut master = PtyMaster::create(&link).unwrap();
    let peer = start("pty::all_byte_values_pass_unchanged_in_both_directions", "echo", &link);
    master.write_all_by(&bytes, Deadline::Never).unwrap();
    assert!(read_exactly(&mut master, bytes.len()) == bytes, "from slave to master");
    assert_eq!(master.read_by(&mut [0; 1], Deadline::Never).unwrap(), 0, "no echo, and then the hang-up");
    peer.succeed();
}

#[test]
fn a_terminal_that_another_program_made_is_put_in_raw_mode() {
    let _watchdog = watchdog(SECONDS);
    let (_scratch, mut master, slave) = a_pair();
    let mut cooked = rustix::termios::tcgetattr(&slave).unwrap();
    cooked.local_modes |= rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO;
    cooked.output_modes |= rustix::termios::OutputModes::OPOST | rustix::termios::OutputModes::ONLCR;
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &cooked).unwrap();
    let mut second = PtySlave::open(master.slave_path(), Deadline::Now).unwrap();
    second.write_all_by(b"a\nb", Deadline::Never).unwrap();
    assert_eq!(read_exactly(&mut master, 3), b"a\nb");
    master.write_all_by(b"\x03\x04\r", Deadline::Never).unwrap();
    assert_eq!(read_exactly(&mut second, 3), b"\x03\x04\r");
}

#[test]
fn a_killed_slave_is_noticed_in_the_middle_of_a_message() {
    if role().is_some() {
        return begin_a_message(open_given());
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let master = PtyMaster::create(&link).unwrap();
    let mut peer = start("pty::a_killed_slave_is_noticed_in_the_middle_of_a_message", "writer", &link);
    notice_the_kill(&master, || peer.kill());
}

#[test]
fn a_killed_slave_is_an_error_for_who_writes() {
    if role().is_some() {
        read_exactly(&mut open_given(), 1);
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let mut master = PtyMaster::create(&link).unwrap();
    let mut peer = start("pty::a_killed_slave_is_an_error_for_who_writes", "reader", &link);
    write_until_gone(&master, || peer.kill());
    let error = master.write_by(b"x", Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::PeerGone { .. }), "{error}");
    let error = master.drain_by(Deadline::after(SECONDS)).unwrap_err();
    assert!(matches!(error, Error::PeerGone { .. }), "{error}");
}

#[test]
fn a_slave_that_is_killed_while_the_master_waits_for_it_is_noticed() {
    if role().is_some() {
        let _slave = open_given();
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let mut master = PtyMaster::create(&link).unwrap();
    let test = "pty::a_slave_that_is_killed_while_the_master_waits_for_it_is_noticed";
    let mut peer = start(test, "hanging", &link);
    master.wait_for_slave_by(Deadline::Never).unwrap();
    master.write_all_by(b"never read", Deadline::Never).unwrap();
    runs_out_of_time(|deadline| master.drain_by(deadline));
    let draining = std::thread::spawn(move || (master.drain_by(Deadline::Never), master));
    std::thread::sleep(Duration::from_millis(30));
    peer.kill();
    let (result, mut master) = draining.join().unwrap();
    let error = result.unwrap_err();
    assert!(error.is_peer_gone() && error.to_string().contains("10 bytes"), "{error}");
    assert_eq!(master.read_by(&mut [0; 1], Deadline::Never).unwrap(), 0);
}

#[test]
fn a_killed_master_is_the_end_for_its_slave_and_its_link_is_replaced() {
    if role().is_some() {
        let link = given_link();
        return begin_a_message(PtyMaster::create(&link).unwrap());
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let mut peer = start("pty::a_killed_master_is_the_end_for_its_slave_and_its_link_is_replaced", "master", &link);
    let mut receiver = FramedReceiver::new(PtySlave::open(&link, Deadline::Never).unwrap());
    let mut begin = 0;
    while begin < 1000 {
        begin += receiver.recv_part_by(&mut [0; 4096], Deadline::Never).unwrap().unwrap().bytes;
    }
    peer.kill();
    let error = receiver.recv_by(Deadline::after(SECONDS)).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
    let mut slave = receiver.into_inner();
    let error = slave.write_by(b"x", Deadline::Never).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
    drop(slave);
    assert!(link.is_symlink(), "SIGKILL leaves the link");

    // Another test may have got the number of that terminal: then the link is refused until it is free again.
    eventually("the link is replaced", || {
        PtyMaster::create(&link).is_ok_and(|mut master| {
            let mut slave = PtySlave::open(&link, Deadline::Now).unwrap();
            slave.write_all_by(b"new", Deadline::Never).unwrap();
            read_exactly(&mut master, 3) == b"new"
        })
    });
    assert!(!link.is_symlink(), "the link goes with the master");
}

#[test]
fn the_end_of_file_comes_when_the_last_slave_leaves_and_not_before_the_first_came() {
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let mut master = PtyMaster::create(&link).unwrap();
    runs_out_of_time(|deadline| master.read_by(&mut [0; 1], deadline));
    runs_out_of_time(|deadline| master.wait_for_slave_by(deadline));
    master.write_all_by(b"early", Deadline::Now).unwrap();
    runs_out_of_time(|deadline| master.drain_by(deadline));
    runs_out_of_time(|deadline| master.read_by(&mut [0; 1], deadline));

    let mut first = PtySlave::open(&link, Deadline::Now).unwrap();
    let mut second = PtySlave::open(&link, Deadline::Now).unwrap();
    assert_eq!(read_exactly(&mut first, 5), b"early");
    master.drain_by(Deadline::Never).unwrap();
    first.write_all_by(b"first", Deadline::Never).unwrap();
    drop(first);
    assert_eq!(read_exactly(&mut master, 5), b"first");
    runs_out_of_time(|deadline| master.read_by(&mut [0; 1], deadline));
    second.write_all_by(b"second", Deadline::Never).unwrap();
    drop(second);
    assert_eq!(read_exactly(&mut master, 6), b"second");
    assert_eq!(master.read_by(&mut [0; 1], Deadline::Never).unwrap(), 0);
    assert_eq!(master.read_by(&mut [0; 1], Deadline::Now).unwrap(), 0);
    assert!(master.write_by(b"x", Deadline::Now).unwrap_err().is_peer_gone());

    let mut later = PtySlave::open(&link, Deadline::Now).unwrap();
    later.write_all_by(b"later", Deadline::Never).unwrap();
    assert_eq!(read_exactly(&mut master, 5), b"later", "the stream goes on");
}

#[test]
fn draining_waits_until_the_slave_has_read_all() {
    let _watchdog = watchdog(SECONDS);
    for len in [1, 4095, 4096, 10_000] {
        let (_scratch, mut master, mut slave) = a_pair();
        master.drain_by(Deadline::Now).unwrap();
        master.write_all_by(&vec![7; len], Deadline::Never).unwrap();
        assert!(matches!(master.drain_by(Deadline::Now), Err(Error::WouldBlock { .. })), "{len} bytes");
        let reader = std::thread::spawn(move || {
            for _ in 0..len {
                std::thread::sleep(Duration::from_micros(1));
                read_exactly(&mut slave, 1);
            }
            slave
        });
        master.drain_by(Deadline::Never).unwrap();
        drop(master);
        let mut slave = reader.join().unwrap();
        assert_eq!(slave.read_by(&mut [0; 1], Deadline::Never).unwrap(), 0);
    }
}

#[test]
fn what_was_drained_was_read_however_fast_the_slave_reads() {
    // Between two reads the terminal looks empty while the kernel still holds bytes for it.
    let _watchdog = watchdog(SECONDS);
    for round in 0..50 {
        let (_scratch, mut master, mut slave) = a_pair();
        let len = 9_000 + round * 100;
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 20_000];
            let mut total = 0;
            loop {
                match slave.read_by(&mut buffer, Deadline::Never).unwrap() {
                    0 => return total,
                    count => total += count,
                }
            }
        });
        master.write_all_by(&vec![7; len], Deadline::Never).unwrap();
        master.drain_by(Deadline::Never).unwrap();
        drop(master);
        assert_eq!(reader.join().unwrap(), len, "round {round}");
    }
}

#[test]
fn a_slave_that_read_all_and_closed_was_drained() {
    let (_scratch, mut master, mut slave) = a_pair();
    master.write_all_by(b"all", Deadline::Never).unwrap();
    assert_eq!(read_exactly(&mut slave, 3), b"all");
    drop(slave);
    master.drain_by(Deadline::Now).unwrap();
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    let (_scratch, mut master, mut slave) = a_pair();
    runs_out_of_time(|deadline| slave.read_by(&mut [0; 1], deadline));
    runs_out_of_time_when_full(&slave);
    runs_out_of_time_when_full(&master);
    assert!(master.read_by(&mut [0; 4096], Deadline::Now).unwrap() > 0);
    assert!(slave.read_by(&mut [0; 4096], Deadline::Now).unwrap() > 0);
}

#[test]
fn two_threads_use_both_directions_at_once() {
    let _watchdog = watchdog(SECONDS);
    let (_scratch, mut master, mut slave) = a_pair();
    let bytes = crate::support::pattern(1 << 20, 3);
    std::thread::scope(|scope| {
        scope.spawn(|| (&master).write_all_by(&bytes, Deadline::Never).unwrap());
        scope.spawn(|| (&slave).write_all_by(&bytes, Deadline::Never).unwrap());
        scope.spawn(|| assert!(read_exactly(&mut &master, bytes.len()) == bytes));
        scope.spawn(|| assert!(read_exactly(&mut &slave, bytes.len()) == bytes));
    });
    assert!(master.read_by(&mut [0; 1], Deadline::Now).unwrap_err().is_out_of_time());
    assert!(slave.read_by(&mut [0; 1], Deadline::Now).unwrap_err().is_out_of_time());
}

#[test]
fn interrupted_waits_go_on() {
    if role().is_some() {
        accept_interrupts();
        std::fs::write(given_link().with_extension("ready"), "").unwrap();
        return receive_sizes(open_given());
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let peer = start("pty::interrupted_waits_go_on", "reader", &link);
    let ready = link.with_extension("ready");
    eventually("the second process", || ready.exists());
    interrupt(peer.pid());
    let master = PtyMaster::create(&link).unwrap();
    master.wait_for_slave_by(Deadline::Never).unwrap();
    interrupt(peer.pid());
    send_sizes(&master);
    master.drain_by(Deadline::Never).unwrap();
    drop(master);
    peer.succeed();
}

#[test]
fn nothing_but_a_dead_link_is_replaced() {
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let refused = |what: &str| {
        let error = PtyMaster::create(&link).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{what}: {error}");
    };
    std::fs::write(&link, "precious").unwrap();
    refused("a file");
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "precious");
    std::fs::remove_file(&link).unwrap();

    std::os::unix::fs::symlink("/nowhere", &link).unwrap();
    refused("a link to something else");
    std::fs::remove_file(&link).unwrap();

    let _living = PtyMaster::create(&link).unwrap();
    refused("a living terminal");
    PtySlave::open(&link, Deadline::Now).unwrap();
    let error = PtyMaster::create(&scratch.path("no/pty")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
}

#[test]
fn one_of_many_that_replace_a_dead_link_gets_it() {
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    for _ in 0..10 {
        std::os::unix::fs::symlink("/dev/pts/999999999", &link).unwrap();
        let masters: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| PtyMaster::create(&link))).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert_eq!(masters.iter().filter(|result| result.is_ok()).count(), 1, "{masters:?}");
        let master = masters.into_iter().find_map(Result::ok).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), master.slave_path());
        drop(master);
        assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 0, "nothing is left");
    }
}

#[test]
fn dropping_a_master_removes_no_link_but_its_own() {
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let master = PtyMaster::create(&link).unwrap();
    std::fs::remove_file(&link).unwrap();
    let _other = PtyMaster::create(&link).unwrap();
    drop(master);
    PtySlave::open(&link, Deadline::Now).unwrap();
}

#[test]
fn opening_waits_for_a_master_and_refuses_what_is_no_terminal() {
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    let link = scratch.path("pty");
    let error = PtySlave::open(&link, Deadline::Now).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    runs_out_of_time(|deadline| PtySlave::open(&link, deadline));
    std::os::unix::fs::symlink("/dev/pts/999999999", &link).unwrap();
    runs_out_of_time(|deadline| PtySlave::open(&link, deadline));
    for path in ["/dev/null", scratch.root().to_str().unwrap()] {
        let error = PtySlave::open(Path::new(path), Deadline::Never).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| PtySlave::open(&link, Deadline::after(SECONDS)));
        let _master = PtyMaster::create(&link).unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn the_slave_side_is_for_this_user_alone() {
    let (_scratch, master, _slave) = a_pair();
    let found = std::fs::metadata(master.slave_path()).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn neither_side_becomes_a_controlling_terminal() {
    if role().is_some() {
        // The leader of a session without a terminal gets the first one that it opens, unless it says no.
        rustix::process::setsid().unwrap();
        let link = given_link();
        let _master = PtyMaster::create(&link).unwrap();
        let _slave = PtySlave::open(&link, Deadline::Now).unwrap();
        let error = std::fs::File::open("/dev/tty").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "{error}");
        return;
    }
    let scratch = Scratch::new();
    start("pty::neither_side_becomes_a_controlling_terminal", "leader", &scratch.path("pty")).succeed();
}

#[test]
fn an_inherited_terminal_keeps_the_flags_of_its_other_holders() {
    let (_scratch, _master, slave) = a_pair();
    for access in ["a reader", "a writer"] {
        let own = || slave.as_fd().try_clone_to_owned().unwrap();
        let error = match access {
            "a reader" => PipeReader::from_fd(own(), "fd:0").unwrap().read_by(&mut [0; 1], Deadline::Now).unwrap_err(),
            _ => PipeWriter::from_fd(own(), "fd:1").unwrap().write_all_by(&[7; 1 << 20], Deadline::Now).unwrap_err(),
        };
        assert!(!error.to_string().contains("os error"), "{error}");
        let flags = flags_of(slave.as_fd());
        assert_eq!(flags & 0o4000, 0, "O_NONBLOCK of {access} leaked into the shared description");
    }
}

/// The flags of an open file description, as proc_pid_fdinfo(5) tells them.
fn flags_of(fd: BorrowedFd<'_>) -> i32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap()
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_link() {
    if role().is_some() {
        let scratch = Scratch::new();
        return child_leaves_the_file(&scratch.path("link"), |path| PtyMaster::create(path).unwrap());
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    Peer::start("pty::a_child_that_drops_its_copy_leaves_the_link", "parent", &[]).succeed();
}
