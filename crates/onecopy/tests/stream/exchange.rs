//! What the tests of every stream do alike.
#![allow(unreachable_pub, reason = "as in the support that all tests share")]

use std::time::{Duration, Instant};

use onecopy::stream::framed::{FramedReceiver, FramedSender};
use onecopy::stream::{ByteReader, ByteWriter};
use onecopy::{Deadline, Error, Receiver, Sender};

use crate::support::pattern;

pub const SIZES: [usize; 7] = [0, 1, 4096, 4097, 65_536, 1_000_003, 8 << 20];

/// Sends one message of every size.
pub fn send_sizes(writer: impl ByteWriter) {
    let mut sender = FramedSender::new(writer);
    for (seed, size) in SIZES.into_iter().enumerate() {
        sender.send(&pattern(size, seed as u64)).unwrap();
    }
    sender.flush_by(Deadline::Never).unwrap();
}

/// Receives what [`send_sizes`] sends, and then the end.
pub fn receive_sizes(reader: impl ByteReader) {
    let mut receiver = FramedReceiver::new(reader);
    for (seed, size) in SIZES.into_iter().enumerate() {
        let message = receiver.recv().unwrap().unwrap();
        assert!(message == pattern(size, seed as u64), "message of {size} bytes");
    }
    assert!(receiver.recv().unwrap().is_none(), "the end");
}

/// Sends the begin of a message and goes on sleeping, to be killed.
pub fn begin_a_message(writer: impl ByteWriter) {
    let mut sender = FramedSender::new(writer);
    sender.send_part_by(&pattern(1000, 1), false, Deadline::Never).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// Receives the begin that [`begin_a_message`] sends, calls `kill`, and demands the error.
pub fn notice_the_kill(reader: impl ByteReader, kill: impl FnOnce()) {
    let mut receiver = FramedReceiver::new(reader);
    let mut begin = 0;
    while begin < 1000 {
        begin += receiver.recv_part_by(&mut [0; 4096], Deadline::Never).unwrap().unwrap().bytes;
    }
    kill();
    let error = receiver.recv_by(Deadline::after(Duration::from_secs(20))).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
}

/// Writes into `writer`, whose reader is killed meanwhile, until that is noticed.
pub fn write_until_gone(mut writer: impl ByteWriter, kill: impl FnOnce() + Send) -> Error {
    let flood = pattern(1 << 20, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            kill();
        });
        loop {
            if let Err(error) = writer.write_all_by(&flood, Deadline::after(Duration::from_secs(30))) {
                assert!(error.is_peer_gone(), "{error}");
                return error;
            }
        }
    })
}

/// Demands that `operation` waits for its deadline and then reports it.
pub fn runs_out_of_time<T: std::fmt::Debug>(operation: impl FnOnce(Deadline) -> onecopy::Result<T>) {
    let wait = Duration::from_millis(50);
    let start = Instant::now();
    let error = operation(Deadline::after(wait)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(start.elapsed() >= wait, "only {:?}", start.elapsed());
}

/// Fills `writer`, and demands that a write into the full stream waits for its deadline and then reports it. The kernel may find
/// room for a little more now and then, so this goes on until it finds none.
pub fn runs_out_of_time_when_full(mut writer: impl ByteWriter) {
    let wait = Duration::from_millis(100);
    loop {
        let start = Instant::now();
        if let Err(error) = writer.write_by(&[1; 65_536], Deadline::after(wait)) {
            assert!(matches!(error, Error::TimedOut { .. }), "{error}");
            assert!(start.elapsed() >= wait, "only {:?}", start.elapsed());
            return;
        }
    }
}
