//! Messages, whole and in parts, over a pipe.

use std::io::IoSliceMut;
use std::time::Duration;

use zerocopy::IntoBytes;

use super::{FramedReceiver, FramedSender, Header};
use crate::stream::{ByteReader, ByteWriter, pipe};
use crate::{Deadline, Error, Receiver, Sender};

fn over_pipe() -> (FramedSender<pipe::PipeWriter>, FramedReceiver<pipe::PipeReader>) {
    let (reader, writer) = pipe::pair().unwrap();
    (FramedSender::new(writer), FramedReceiver::new(reader))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + index / 251) as u8).collect()
}

#[test]
fn messages_keep_their_boundaries_and_an_empty_one_is_not_the_end() {
    let (mut sender, mut receiver) = over_pipe();
    for message in [&b"first"[..], b"", b"third"] {
        sender.send(message).unwrap();
    }
    drop(sender);
    assert_eq!(receiver.recv().unwrap().unwrap(), b"first");
    assert_eq!(receiver.recv().unwrap().unwrap(), b"");
    assert_eq!(receiver.recv().unwrap().unwrap(), b"third");
    assert_eq!(receiver.recv().unwrap(), None);
}

#[test]
fn a_buffer_that_is_too_small_leaves_the_message_first_in_line() {
    let (mut sender, mut receiver) = over_pipe();
    sender.send(&pattern(300)).unwrap();
    let mut small = [0; 299];
    let error = receiver.recv_into(&mut small).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { message_bytes: 300, buffer_bytes: 299, .. }), "{error}");
    assert_eq!(receiver.recv().unwrap().unwrap(), pattern(300));
}

#[test]
fn a_message_that_the_pipe_takes_in_part_is_accepted_and_flushed_later() {
    let (mut sender, mut receiver) = over_pipe();
    let message = pattern(200_000);
    sender.try_send(&message).unwrap();
    assert!(sender.try_send(b"next").unwrap_err().is_out_of_time());
    let mut buffer = vec![0; message.len()];
    assert!(receiver.try_recv_into(&mut buffer).unwrap_err().is_out_of_time());
    while sender.flush_by(Deadline::Now).is_err() {
        let result = receiver.try_recv_into(&mut buffer);
        assert!(result.is_ok() || result.unwrap_err().is_out_of_time());
    }
    assert_eq!(receiver.recv().unwrap().unwrap(), message);
    sender.try_send(b"next").unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), b"next");
}

#[test]
fn parts_join_to_one_message_even_when_it_outgrows_the_buffer() {
    let (mut sender, mut receiver) = over_pipe();
    for (part, last) in [(&b"one "[..], false), (b"two ", false), (b"", true)] {
        sender.send_part_by(part, last, Deadline::Never).unwrap();
    }
    let mut small = [0; 6];
    let error = receiver.recv_into(&mut small).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { message_bytes: 8, .. }), "{error}");
    assert_eq!(receiver.recv().unwrap().unwrap(), b"one two ");
}

#[test]
fn a_message_beyond_the_limit_is_reported_and_the_next_one_comes() {
    let (mut sender, mut receiver) = over_pipe();
    receiver.set_limit_bytes(100);
    sender.send(&pattern(101)).unwrap();
    sender.send(b"short").unwrap();
    let error = receiver.recv().unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes: 101, limit_bytes: 100, .. }), "{error}");
    assert_eq!(receiver.recv().unwrap().unwrap(), b"short");
}

#[test]
fn a_writer_that_goes_in_the_middle_of_a_message_is_an_error() {
    let (mut sender, mut receiver) = over_pipe();
    sender.send_part_by(b"begin", false, Deadline::Never).unwrap();
    drop(sender);
    assert!(receiver.recv().unwrap_err().is_peer_gone());
}

#[test]
fn lengths_that_were_guessed_wrong_lose_and_double_nothing() {
    let (mut sender, mut receiver) = over_pipe();
    let lens = [5000, 5000, 3000, 9000, 0, 5000, 1, 2, 20_000, 4096, 4096, 4097, 2048, 2047, 5000, 5000];
    let mut buffer = vec![0; 9000];
    for window in [1, 2, 3] {
        for chunk in lens.chunks(window) {
            chunk.iter().for_each(|len| sender.send(&pattern(*len)).unwrap());
            for len in chunk {
                match receiver.recv_into(&mut buffer) {
                    Ok(received) => assert_eq!(buffer[..received.unwrap()], pattern(*len), "of {chunk:?}"),
                    Err(Error::BufferTooSmall { message_bytes: 20_000, .. }) => {
                        assert_eq!(receiver.recv().unwrap().unwrap(), pattern(20_000));
                    }
                    Err(error) => panic!("{error} for {len} of {chunk:?}"),
                }
            }
        }
    }
    drop(sender);
    assert_eq!(receiver.recv_into(&mut buffer).unwrap(), None);
}

#[test]
fn a_long_message_that_comes_late_is_kept_over_a_deadline() {
    let (mut sender, mut receiver) = over_pipe();
    let mut buffer = vec![0; 8000];
    sender.send(&pattern(6000)).unwrap();
    assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(6000));
    sender.send_part_by(&pattern(6000)[..2500], false, Deadline::Never).unwrap();
    assert!(receiver.try_recv_into(&mut buffer).unwrap_err().is_out_of_time());
    sender.send_part_by(&pattern(6000)[2500..], true, Deadline::Never).unwrap();
    assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(6000));
    assert_eq!(buffer[..6000], pattern(6000));
    receiver.set_limit_bytes(5000);
    sender.send(&pattern(6000)).unwrap();
    sender.send(b"next").unwrap();
    let error = receiver.recv_into(&mut buffer).unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes: 6000, limit_bytes: 5000, .. }), "{error}");
    assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(4));
}

#[test]
fn raw_bytes_are_refused_and_shown() {
    let (reader, mut writer) = pipe::pair().unwrap();
    writer.write_all_by(b"GET / HTTP/1.0", Deadline::Never).unwrap();
    let error = FramedReceiver::new(reader).recv().unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn what_a_message_that_did_not_fit_has_brought_already_comes_with_its_first_parts() {
    let (mut sender, mut receiver) = over_pipe();
    let mut buffer = vec![0; 9000];
    // The receiver guesses the length of the second message from the first, and has read its begin by then.
    for len in [5000, 20_000, 7] {
        sender.send(&pattern(len)).unwrap();
    }
    assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(5000));
    let error = receiver.recv_into(&mut buffer).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { message_bytes: 20_000, .. }), "{error}");
    let mut message = Vec::new();
    loop {
        let part = receiver.recv_part_by(&mut buffer[..3000], Deadline::Never).unwrap().unwrap();
        message.extend_from_slice(&buffer[..part.bytes]);
        if part.last {
            break;
        }
    }
    assert_eq!(message, pattern(20_000));
    assert_eq!(receiver.recv().unwrap().unwrap(), pattern(7));
}

#[test]
fn a_message_that_was_begun_in_parts_is_finished_whole_and_the_other_way_round() {
    let (mut sender, mut receiver) = over_pipe();
    let mut buffer = vec![0; 100];
    sender.send_part_by(&pattern(60), false, Deadline::Never).unwrap();
    assert!(receiver.try_recv_into(&mut buffer).unwrap_err().is_out_of_time());
    let part = receiver.recv_part_by(&mut buffer[..50], Deadline::Never).unwrap().unwrap();
    assert_eq!((part.bytes, part.last, &buffer[..50]), (50, false, &pattern(50)[..]));
    sender.send_part_by(b"end", true, Deadline::Never).unwrap();
    assert_eq!(receiver.recv_into(&mut buffer).unwrap(), Some(13));
    assert_eq!((&buffer[..10], &buffer[10..13]), (&pattern(60)[50..], &b"end"[..]));
}

#[test]
fn parts_of_a_message_that_is_being_thrown_away_are_not_delivered() {
    let (mut sender, mut receiver) = over_pipe();
    receiver.set_limit_bytes(10);
    sender.send_part_by(&pattern(60), false, Deadline::Never).unwrap();
    assert!(receiver.try_recv_into(&mut [0; 100]).unwrap_err().is_out_of_time());
    sender.send_part_by(b"end", true, Deadline::Never).unwrap();
    sender.send(b"next").unwrap();
    let error = receiver.recv_part_by(&mut [0; 100], Deadline::Never).unwrap_err();
    assert!(matches!(error, Error::TooLong { message_bytes: 63, limit_bytes: 10, .. }), "{error}");
    assert_eq!(receiver.recv().unwrap().unwrap(), b"next");
}

/// A stream that always has the same bytes to read.
struct Endless(Vec<u8>);

impl ByteReader for Endless {
    fn read_vectored_by(&mut self, buffers: &mut [IoSliceMut<'_>], _deadline: Deadline) -> crate::Result<usize> {
        let mut count = 0;
        for buffer in buffers {
            let whole = buffer.len() / self.0.len() * self.0.len();
            buffer[..whole].chunks_mut(self.0.len()).for_each(|chunk| chunk.copy_from_slice(&self.0));
            count += whole;
            if whole < buffer.len() {
                break;
            }
        }
        Ok(count)
    }

    fn object(&self) -> &str {
        "endless"
    }
}

#[test]
fn a_message_that_never_ends_does_not_outlast_the_deadline() {
    let soon = || Deadline::after(Duration::from_millis(20));
    let empty_frame = Header::new(b"", false).as_bytes().to_vec();
    for frame in [empty_frame.clone(), [Header::new(&[0; 8], false).as_bytes(), &[0; 8]].concat()] {
        let mut receiver = FramedReceiver::new(Endless(frame));
        receiver.set_limit_bytes(1 << 16);
        for deadline in [Deadline::Now, soon(), soon()] {
            let error = receiver.recv_into_by(&mut [0; 100], deadline).unwrap_err();
            assert!(error.is_out_of_time(), "{error}");
        }
    }
}
