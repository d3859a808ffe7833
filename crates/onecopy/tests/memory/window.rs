//! Windows: one-sided get and put between two processes, of every shape, by tokens that came by a real mechanism.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::time::Duration;

use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::window::{ReadWindow, RemoteWindow, Rights, Strided, TOKEN_BYTES, Token, WriteWindow};
use onecopy::memory::{Region, buffer::Buffer};
use onecopy::message::posix_mq::{self, PosixQueue, QueueAttributes};
use onecopy::stream::framed::{FramedReceiver, FramedSender};
use onecopy::stream::pipe;
use onecopy::{Error, PosixName, Receiver, Sender};

use crate::remote::repeated;
use crate::support::{Peer, Scratch, argument, pattern, role, unique, watchdog};
use crate::window_owner::{self as owner, content, expose};
use crate::{inheriting, tell};

const PAGE: usize = 4096;
const SIZES: [usize; 10] = [0, 1, 63, 64, 65, PAGE, (64 << 10) - 1, (64 << 10) + 1, (1 << 20) + 3, 16 << 20];

fn assert_invalid<T: std::fmt::Debug>(result: onecopy::Result<T>, reason: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(reason), "{error}");
}

#[test]
fn every_size_is_read_and_written_and_everything_beyond_it_refused() {
    if let Some(role) = role() {
        return owner::serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    let mut peer = owner::start("window::every_size_is_read_and_written_and_everything_beyond_it_refused", "owner");
    for (seed, len) in (1..).zip(SIZES) {
        for rights in ["read", "write"] {
            let token = expose(&mut peer, rights, len, seed);
            let window = RemoteWindow::open(&token).unwrap();
            assert_eq!((window.len(), window.is_empty(), token.pid()), (len, len == 0, peer.pid()));
            let mut buffer = vec![0; len];
            window.get(0, &mut buffer).unwrap();
            assert!(buffer == content(len, seed), "{len} bytes");
            window.get(len / 3, &mut buffer[..len - len / 3]).unwrap();
            assert!(buffer[..len - len / 3] == content(len, seed)[len / 3..], "{len} bytes from a third on");
            window.get(len, &mut []).unwrap();

            let reason = format!("get of 1 bytes at offset {len} reaches beyond its {len} bytes");
            assert_invalid(window.get(len, &mut [0]), &reason);
            assert_invalid(window.get(usize::MAX, &mut [0]), "reaches beyond");
            assert_invalid(window.get(0, &mut vec![0; len + 1]), "reaches beyond");
        }
        let window = RemoteWindow::open(&expose(&mut peer, "write", len, seed)).unwrap();
        let bytes = content(len, seed + 100);
        window.put(len / 3, &bytes[len / 3..]).unwrap();
        window.put(0, &bytes[..len / 3]).unwrap();
        assert_invalid(window.put(len, &[0]), "reaches beyond");
        peer.say(&format!("check {}", seed + 100));
        assert!(peer.line("@") == "same", "{len} bytes");
    }
}

/// Ranges of the window, in an order of their own, with empty ones between them.
fn scattered(count: usize) -> Vec<std::ops::Range<usize>> {
    (0..count)
        .flat_map(|index| [(index * 7919 % 5000) * 16, 80_000])
        .map(|start| start..(start + 11).min(80_000))
        .collect()
}

#[test]
fn any_number_of_ranges_and_buffers_of_any_shape() {
    if let Some(role) = role() {
        return owner::serve(&role);
    }
    const LEN: usize = 80_000;
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut peer = owner::start("window::any_number_of_ranges_and_buffers_of_any_shape", "owner");
    for (count, piece) in
        [(1, 3), (2, 100), (511, 11), (1022, 10), (1023, 11), (1024, 11), (1025, 12), (2500, 1), (5000, 7)]
    {
        let window = RemoteWindow::open(&expose(&mut peer, "write", LEN, 1)).unwrap();
        let (mut model, ranges) = (content(LEN, 1), scattered(count));
        let expected: Vec<u8> = ranges.iter().flat_map(|range| &model[range.clone()]).copied().collect();

        let mut buffer = vec![0; expected.len()];
        let mut slices: Vec<IoSliceMut<'_>> = (0..1500).map(|_| IoSliceMut::new(&mut [])).collect();
        slices.extend(buffer.chunks_mut(piece).map(IoSliceMut::new));
        window.get_vectored(&ranges, &mut slices).unwrap();
        assert!(buffer == expected, "{count} ranges into pieces of {piece}");

        let bytes = pattern(expected.len(), 5);
        // More empty buffers than one call takes come first.
        let empty = std::iter::repeat_with(|| IoSlice::new(&[])).take(1500);
        let slices: Vec<IoSlice<'_>> = empty.chain(bytes.chunks(piece).map(IoSlice::new)).collect();
        window.put_vectored(&ranges, &slices).unwrap();
        let mut left = &bytes[..];
        for range in ranges {
            let (head, tail) = left.split_at(range.len());
            model[range].copy_from_slice(head);
            left = tail;
        }
        let mut all = vec![0; LEN];
        window.get(0, &mut all).unwrap();
        assert!(all == model, "{count} ranges from pieces of {piece}");
    }
}

#[test]
fn blocks_at_equal_distances() {
    if let Some(role) = role() {
        return owner::serve(&role);
    }
    const LEN: usize = 60_000;
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut peer = owner::start("window::blocks_at_equal_distances", "owner");
    let window = RemoteWindow::open(&expose(&mut peer, "write", LEN, 1)).unwrap();
    let mut model = content(LEN, 1);
    for (offset, block_bytes, stride_bytes, count) in [
        (0, 1, 2, 3000),
        (7, 10, 20, 2990),
        (5, 3, 3, 19_998),
        (100, 8, 0, 4),
        (0, 40, 16, 1500),
        (LEN, 5, 5, 0),
        (9, 0, 1, 9),
    ] {
        let blocks = Strided { offset, block_bytes, stride_bytes, count };
        let starts = (0..count).map(|index| offset + index * stride_bytes);
        let expected: Vec<u8> = starts.clone().flat_map(|start| &model[start..start + block_bytes]).copied().collect();
        let mut buffer = vec![0; blocks.total_bytes().unwrap()];
        window.get_strided(&blocks, &mut buffer).unwrap();
        assert!(buffer == expected, "{blocks:?}");

        let bytes = pattern(expected.len(), 3);
        window.put_strided(&blocks, &bytes).unwrap();
        for (index, start) in starts.enumerate() {
            model[start..start + block_bytes].copy_from_slice(&bytes[index * block_bytes..][..block_bytes]);
        }
        let mut all = vec![0; LEN];
        window.get(0, &mut all).unwrap();
        assert!(all == model, "{blocks:?}");
    }
    let endless = Strided { offset: 0, block_bytes: 1, stride_bytes: 0, count: usize::MAX };
    assert_invalid(window.get_strided(&endless, &mut [0; 8]), "and a buffer of 8");
    let beyond = Strided { offset: 1, block_bytes: 1, stride_bytes: LEN - 1, count: 2 };
    assert_invalid(window.put_strided(&beyond, &[0; 2]), "reach beyond its 60000 bytes");
}

#[test]
fn bounds_and_rights_are_refused_before_anything_is_called() {
    if let Some(role) = role() {
        return owner::serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut peer = owner::start("window::bounds_and_rights_are_refused_before_anything_is_called", "owner");
    let window = RemoteWindow::open(&expose(&mut peer, "write", 100, 1)).unwrap();
    let read_only = RemoteWindow::open(&expose(&mut peer, "read", 100, 1)).unwrap();
    assert_eq!((window.token().rights(), read_only.token().rights()), (Rights::ReadWrite, Rights::Read));
    // Any call would say that it has exited.
    peer.kill();
    assert_invalid(window.get(1, &mut [0; 100]), "get of 100 bytes at offset 1 reaches beyond its 100 bytes");
    assert_invalid(window.put(101, &[]), "put of 0 bytes at offset 101");
    let mut byte = [0];
    let mut one = [IoSliceMut::new(&mut byte)];
    #[expect(clippy::reversed_empty_ranges, reason = "that it is refused is what is tested")]
    let reversed = 9..8;
    assert_invalid(window.get_vectored(&[reversed], &mut one), "ends before it begins: 9..8");
    assert_invalid(
        window.get_vectored(std::slice::from_ref(&(0..2)), &mut one),
        "get of 2 bytes in the window and 1 in the buffers",
    );
    assert_invalid(window.put_vectored(&[0..1, 99..101], &[IoSlice::new(&[0; 3])]), "put of 2 bytes at offset 99");
    assert_invalid(window.put_vectored(&[], &[IoSlice::new(&[0; 3])]), "put of 0 bytes in the window and 3");
    assert_invalid(read_only.put(0, &[1]), "its token permits no writing");
    assert_invalid(read_only.put(0, &[]), "its token permits no writing");
    assert!(window.get(0, &mut [0; 100]).unwrap_err().is_peer_gone());
}

#[test]
fn a_window_of_this_process_is_read_and_not_written() {
    let window = WriteWindow::expose(Buffer::copy_of(&content(10_000, 1)).unwrap()).unwrap();
    let remote = RemoteWindow::open(window.token()).unwrap();
    let mut buffer = vec![0; 10_000];
    remote.get(0, &mut buffer).unwrap();
    assert!(buffer == content(10_000, 1));
    assert_invalid(remote.put(0, &[1]), "this is the writing process itself");
    window.write_at(9_999, &[1]).unwrap();
    remote.get(9_999, &mut buffer[..1]).unwrap();
    assert_eq!(buffer[0], 1);
    assert_invalid(window.write_at(9_999, &[1, 2]), "write of 2 bytes at offset 9999");
    assert_invalid(window.read_at(10_001, &mut []), "read of 0 bytes at offset 10001");
}

#[test]
fn tokens_travel_as_bytes_and_as_text_over_a_pipe_and_a_queue() {
    let test = "window::tokens_travel_as_bytes_and_as_text_over_a_pipe_and_a_queue";
    if let Some(role) = role() {
        let token = match &*role {
            "pipe" => {
                let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
                let mut receiver = FramedReceiver::new(pipe::PipeReader::from_fd(stdin, "fd:0").unwrap());
                let text = receiver.recv().unwrap().unwrap();
                std::str::from_utf8(&text).unwrap().parse::<Token>().unwrap()
            }
            _ => {
                let mut queue = PosixQueue::open(&PosixName::new(argument("QUEUE")).unwrap()).unwrap();
                Token::from_bytes(&queue.recv().unwrap().unwrap()).unwrap()
            }
        };
        let mut buffer = vec![0; token.len()];
        RemoteWindow::open(&token).unwrap().get(0, &mut buffer).unwrap();
        assert!(buffer == content(1 << 20, 3));
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let window = ReadWindow::expose(content(1 << 20, 3)).unwrap();
    let (reader, writer) = pipe::pair().unwrap();
    let stdin = reader.as_fd().try_clone_to_owned().unwrap();
    let peer = inheriting(test, "pipe", &[], stdin);
    FramedSender::new(writer).send(window.token().to_string().as_bytes()).unwrap();
    peer.succeed();

    let name = PosixName::new(format!("/{}", unique("token"))).unwrap();
    let attributes = QueueAttributes { max_messages: 1, message_bytes: TOKEN_BYTES };
    let mut queue = PosixQueue::create(&name, &attributes, 0o600).unwrap();
    let peer = Peer::start(test, "queue", &[("QUEUE", &*name.to_string())]);
    queue.send(&window.token().to_bytes()).unwrap();
    peer.succeed();
    posix_mq::unlink(&name).unwrap();
}

#[test]
fn more_bytes_than_one_call_takes() {
    // Two calls of ours, and more than the kernel takes in one.
    const CALLS: usize = 2 << 30;
    let _watchdog = watchdog(Duration::from_secs(120));
    let source = repeated(CALLS + 10 * PAGE + 5);
    // Each piece of 2 MiB is the same memory: 2 MiB of pattern, whichever of them is looked at.
    source[..2 << 20].copy_from_slice(&content(2 << 20, 1));
    let source: &'static [u8] = source;
    let window = ReadWindow::expose(source).unwrap();
    let remote = RemoteWindow::open(window.token()).unwrap();
    let target = repeated(CALLS + 10 * PAGE);
    remote.get(3, target).unwrap();
    // The bytes that were read last stand there, on both sides of the place where one call ended and the next began.
    assert!(target[CALLS - PAGE..] == source[CALLS - PAGE + 3..][..11 * PAGE]);

    target.fill(0);
    let (head, tail) = target.split_at_mut(CALLS - 100);
    let ranges = [0..PAGE, PAGE + 7..CALLS + 10 * PAGE - 50];
    let (middle, end) = tail.split_at_mut(107);
    let middle = &mut middle[..50];
    let slices = &mut [IoSliceMut::new(head), IoSliceMut::new(middle), IoSliceMut::new(end)];
    remote.get_vectored(&ranges, slices).unwrap();
    assert!(middle == &source[CALLS - 93..][..50] && end == &source[CALLS - 43..][..10 * PAGE - 7]);
}

#[test]
fn a_file_that_is_shortened_under_a_window_gives_an_exact_count() {
    if role().is_some() {
        let region: Region = FileMapping::open(argument("PATH").as_ref()).unwrap().into_region();
        let window = ReadWindow::expose(region).unwrap();
        tell(&format!("token {}", window.token()));
        let mut end = String::new();
        std::io::stdin().read_line(&mut end).unwrap();
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let scratch = Scratch::new();
    let path = scratch.path("file");
    std::fs::write(&path, content(3 * PAGE, 1)).unwrap();
    let test = "window::a_file_that_is_shortened_under_a_window_gives_an_exact_count";
    let mut peer = Peer::start_listening(test, "owner", &[("PATH", path.to_str().unwrap())]);
    let token = owner::token(&mut peer);
    let window = RemoteWindow::open(&token).unwrap();
    let mut buffer = vec![0; 3 * PAGE];
    window.get(0, &mut buffer).unwrap();
    assert!(buffer == content(3 * PAGE, 1));

    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(PAGE as u64).unwrap();
    match window.get(10, &mut buffer[..2 * PAGE]).unwrap_err() {
        Error::PartialTransfer { transferred_bytes, total_bytes, address, source } => {
            assert_eq!((transferred_bytes, total_bytes), (PAGE - 10, 2 * PAGE));
            assert_eq!(address, owner::address(&token) + PAGE as u64);
            assert_eq!(source.raw_os_error(), Some(libc::EFAULT));
        }
        error => panic!("{error}"),
    }
    let error = window.get(PAGE, &mut buffer[..1]).unwrap_err();
    assert_eq!((error.raw_os_error(), error.is_peer_gone()), (Some(libc::EFAULT), false), "{error}");
    window.get(0, &mut buffer[..PAGE]).unwrap();
    peer.say("done");
    peer.succeed();
}
