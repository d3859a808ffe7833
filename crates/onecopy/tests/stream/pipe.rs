//! Row 1: the pipe, and what semantics.md and pipe(7) say of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use onecopy::stream::framed::{FramedReceiver, FramedSender};
use onecopy::stream::pipe::Written;
use onecopy::stream::{ByteReader, ByteWriter, StdIo, pipe};
use onecopy::{Deadline, Error, Receiver, Sender};

use crate::support::fork::in_child;
use crate::support::{Peer, pattern, role, starting_nobody, watchdog};

const SIZES: [usize; 7] = [0, 1, 4096, 4097, 65_536, 1_000_003, 8 << 20];

/// The standard output of a second process is a pipe whose other end we hold.
fn peer_writing(test: &str, role: &str) -> (Peer, pipe::PipeReader) {
    let (reader, writer) = pipe::pair().unwrap();
    let stdout = Stdio::from(writer.as_fd().try_clone_to_owned().unwrap());
    let peer = Peer::configure(test, role, &[], |command| {
        command.stdin(stdout);
    });
    (peer, reader)
}

/// The pipe that the test put in the place of our standard input, so that the harness cannot print into it.
fn inherited_writer() -> pipe::PipeWriter {
    pipe::PipeWriter::from_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap(), "fd:0").unwrap()
}

#[test]
fn messages_of_all_sizes_between_two_processes() {
    if role().is_some() {
        let mut sender = FramedSender::new(inherited_writer());
        for (seed, size) in SIZES.into_iter().enumerate() {
            sender.send(&pattern(size, seed as u64)).unwrap();
        }
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (peer, reader) = peer_writing("pipe::messages_of_all_sizes_between_two_processes", "writer");
    let mut receiver = FramedReceiver::new(reader);
    for (seed, size) in SIZES.into_iter().enumerate() {
        assert_eq!(receiver.recv().unwrap().unwrap(), pattern(size, seed as u64), "message of {size} bytes");
    }
    assert_eq!(receiver.recv().unwrap(), None);
    peer.succeed();
}

#[test]
fn a_killed_writer_is_noticed_in_the_middle_of_a_message() {
    if role().is_some() {
        let mut sender = FramedSender::new(inherited_writer());
        sender.send_part_by(&pattern(1000, 1), false, Deadline::Never).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (mut peer, reader) = peer_writing("pipe::a_killed_writer_is_noticed_in_the_middle_of_a_message", "writer");
    let mut receiver = FramedReceiver::new(reader);
    let mut buffer = [0; 4096];
    assert_eq!(receiver.recv_part_by(&mut buffer, Deadline::Never).unwrap().unwrap().bytes, 1000);
    peer.kill();
    let error = receiver.recv_by(Deadline::after(Duration::from_secs(30))).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
}

#[test]
fn a_killed_reader_is_an_error_and_never_a_signal() {
    if role().is_some() {
        let mut byte = [0];
        std::io::Read::read_exact(&mut std::io::stdin(), &mut byte).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (reader, mut writer) = pipe::pair().unwrap();
    let mut peer = Peer::configure("pipe::a_killed_reader_is_an_error_and_never_a_signal", "reader", &[], |command| {
        command.stdin(Stdio::from(reader.as_fd().try_clone_to_owned().unwrap()));
    });
    drop(reader);
    let flood = pattern(1 << 20, 1);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        peer.kill();
    });
    let error = writer.write_all_by(&flood, Deadline::Never).unwrap_err();
    killer.join().unwrap();
    assert!(error.is_peer_gone(), "{error}");
    assert_eq!(writer.write_by(b"x", Deadline::Never).unwrap_err().raw_os_error(), Some(32), "EPIPE");
}

#[test]
fn partial_and_refused_writes_are_those_of_the_kernel() {
    let (mut reader, mut writer) = pipe::pair().unwrap();
    assert_eq!(writer.set_capacity_bytes(8192).unwrap(), 8192);
    assert_eq!(reader.capacity_bytes().unwrap(), 8192);
    assert_eq!(writer.write_by(&[1; 20_000], Deadline::Now).unwrap(), 8192, "n = 20000 into 8192 free");
    assert!(writer.write_by(&[1; 1], Deadline::Now).unwrap_err().is_out_of_time());
    assert_eq!(reader.available_bytes().unwrap(), 8192);
    let mut buffer = [0; 4096];
    assert_eq!(reader.read_by(&mut buffer, Deadline::Now).unwrap(), 4096);
    assert_eq!(writer.write_by(&[2; 1], Deadline::Now).unwrap(), 1);
    assert!(
        writer.write_by(&[2; 4096], Deadline::Now).unwrap_err().is_out_of_time(),
        "n <= PIPE_BUF is all or nothing"
    );
    // Only what goes beyond whole pages is merged into the last page that is in use.
    assert_eq!(writer.write_by(&[2; 4097], Deadline::Now).unwrap(), 1, "n > PIPE_BUF is what fits");
}

#[test]
fn shrinking_a_full_pipe_and_growing_beyond_the_limit_are_refused() {
    let (_reader, mut writer) = pipe::pair().unwrap();
    writer.write_all_by(&[1; 65_536], Deadline::Now).unwrap();
    let error = writer.set_capacity_bytes(4096).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(16), "EBUSY: {error}");
    let limit: usize = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").unwrap().trim().parse().unwrap();
    match writer.set_capacity_bytes(limit * 2) {
        Err(error) => assert_eq!(error.raw_os_error(), Some(1), "EPERM: {error}"),
        Ok(bytes) => crate::support::skip(
            "shrinking_a_full_pipe_and_growing_beyond_the_limit_are_refused",
            &format!("CAP_SYS_RESOURCE allows {bytes} bytes"),
        ),
    }
}

#[test]
fn deadlines_wait_as_long_as_they_say() {
    let (mut reader, mut writer) = pipe::pair().unwrap();
    let start = Instant::now();
    let error = reader.read_by(&mut [0; 1], Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(error.is_out_of_time() && start.elapsed() >= Duration::from_millis(50), "{error}");
    writer.write_all_by(&[1; 65_536], Deadline::Now).unwrap();
    let start = Instant::now();
    let error = writer.write_by(&[1], Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(error.is_out_of_time() && start.elapsed() >= Duration::from_millis(50), "{error}");
}

#[test]
fn an_inherited_end_keeps_the_flags_of_its_other_holders() {
    let (reader, _writer) = pipe::pair().unwrap();
    let shared = reader.as_fd().try_clone_to_owned().unwrap();
    let mut adopted = pipe::PipeReader::from_fd(reader.as_fd().try_clone_to_owned().unwrap(), "fd:3").unwrap();
    assert!(adopted.read_by(&mut [0; 1], Deadline::Now).unwrap_err().is_out_of_time());
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", shared.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    let flags = i32::from_str_radix(flags, 8).unwrap();
    assert_eq!(flags & 0o4000, 0, "O_NONBLOCK leaked into the shared description: {info}");
}

#[test]
fn an_atomic_write_is_whole_or_nothing_and_a_longer_one_is_refused_with_both_numbers() {
    let _alone = starting_nobody();
    let (mut reader, mut writer) = pipe::pair().unwrap();
    writer.set_capacity_bytes(8192).unwrap();
    let error = writer.write_atomic(&[1; pipe::PIPE_BUF + 1]).unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes: 4097, limit_bytes: 4096, .. }), "{error}");
    assert!(error.to_string().contains("4097") && error.to_string().contains("MessageWriter"), "{error}");
    writer.write_atomic(&[]).unwrap();
    writer.write_atomic(&[1; 4096]).unwrap();
    writer.write_atomic_by(&[2; 100], Deadline::Now).unwrap();
    assert_eq!((writer.room_bytes().unwrap(), writer.available_bytes().unwrap()), (3996, 4196));
    let error = writer.write_atomic_by(&[3; 4096], Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::WouldBlock { .. }), "{error}");
    assert_eq!(reader.available_bytes().unwrap(), 4196, "nothing was written");
    assert_eq!(reader.read_by(&mut [0; 4096], Deadline::Now).unwrap(), 4096);
    writer.write_atomic_by(&[3; 4096], Deadline::Now).unwrap();
    drop(reader);
    assert_eq!(writer.write_atomic(b"x").unwrap_err().raw_os_error(), Some(32), "EPIPE, and no signal");
}

#[test]
fn one_write_tells_how_much_of_it_went() {
    let (_reader, mut writer) = pipe::pair().unwrap();
    writer.set_capacity_bytes(8192).unwrap();
    let part = Written::Part { written_bytes: 8192, total_bytes: 20_000 };
    assert_eq!(writer.write_once_by(&[1; 20_000], Deadline::Now).unwrap(), part);
    assert!(matches!(writer.write_once_by(&[1; 1], Deadline::Now), Err(Error::WouldBlock { .. })));
}

#[test]
fn room_is_counted_in_pages_and_so_the_write_itself_is_the_test() {
    let (_reader, mut writer) = pipe::pair().unwrap();
    if writer.capacity_bytes().unwrap() != 65_536 {
        writer.set_capacity_bytes(65_536).unwrap();
    }
    for _ in 0..16 {
        writer.write_atomic_by(&[1; 2049], Deadline::Now).unwrap();
    }
    assert_eq!(writer.room_bytes().unwrap(), 65_536 - 16 * 2049);
    assert!(writer.write_atomic_by(&[1; 4096], Deadline::Now).unwrap_err().is_out_of_time());
}

#[test]
fn std_io_copies_to_the_end_and_keeps_deadlines_and_errors() {
    let (reader, writer) = pipe::pair().unwrap();
    let (mut reader, mut writer) = (StdIo::new(reader), StdIo::new(writer));
    let start = Instant::now();
    reader.set_deadline(Deadline::after(Duration::from_millis(20)));
    let error = reader.read(&mut [0; 1]).unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::TimedOut, "receive on pipe timed out"));
    assert!(start.elapsed() >= Duration::from_millis(20) && reader.get_ref().available_bytes().unwrap() == 0);
    let bytes = vec![7; 300_000];
    let copying = std::thread::spawn({
        let bytes = bytes.clone();
        move || std::io::copy(&mut &bytes[..], &mut writer).unwrap()
    });
    reader.set_deadline(Deadline::Never);
    let mut copy = Vec::new();
    assert_eq!(reader.read_to_end(&mut copy).unwrap() as u64, copying.join().unwrap());
    assert!(copy == bytes);
    let (reader, writer) = pipe::pair().unwrap();
    drop(reader);
    assert_eq!(StdIo::new(writer).write_all(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn the_rest_of_a_framed_message_is_not_the_childs_to_send() {
    if role().is_some() {
        let (reader, writer) = pipe::pair().unwrap();
        let (mut sender, mut receiver) = (FramedSender::new(writer), FramedReceiver::new(reader));
        in_child(|| sender.send(b"child").is_ok());
        assert_eq!(receiver.recv().unwrap().unwrap(), b"child");
        // A part went as a whole, and its message goes on.
        sender.send_part_by(b"pa", false, Deadline::Now).unwrap();
        in_child(|| sender.send(b"child").unwrap_err().to_string().contains("forked"));
        sender.send_part_by(b"rent", true, Deadline::Now).unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), b"parent");
        let long = pattern(1 << 20, 1);
        sender.send_by(&long, Deadline::Now).unwrap();
        in_child(|| {
            let outcomes = [sender.flush_by(Deadline::Now), sender.send_by(b"child", Deadline::Now)];
            outcomes
                .into_iter()
                .map(Result::unwrap_err)
                .all(|error| error.is_peer_gone() && error.to_string().contains("forked"))
        });
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(b"next").unwrap());
            assert!(receiver.recv().unwrap().unwrap() == long);
            assert_eq!(receiver.recv().unwrap().unwrap(), b"next");
        });
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    Peer::start("pipe::the_rest_of_a_framed_message_is_not_the_childs_to_send", "parent", &[]).succeed();
}
