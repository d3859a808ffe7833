//! What a reader of safe messages makes of any bytes: the body of the fuzz target `pipe_frames`, which the tests run too.
//!
//! The input is a program: which writers send what, which frames are then changed, cut, repeated, lost or exchanged, what foreign
//! bytes come between them, in which pieces the stream is read, and how. The reader must deliver every message whose frames
//! came as they were sent, whole, once and in its writer's order; nothing else, ever; and hold nothing in the end.
#![allow(unreachable_pub, reason = "the fuzz target includes this file as a module")]

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::rc::Rc;

use onecopy::stream::pipe::{MessageReader, MessageWriter, PIPE_BUF};
use onecopy::stream::{ByteReader, ByteWriter};
use onecopy::{Deadline, Error, Receiver, Result, Sender};

const WRITERS: usize = 4;
const MOST_STEPS: usize = 96;
const NUMBER_BYTES: usize = 2;
const OBJECT: &str = "a fuzzed pipe";

/// Runs one input.
///
/// # Panics
///
/// When the reader has done something wrong.
pub fn run(input: &[u8]) {
    let mut program = Program(input);
    if program.byte() % 16 == 15 {
        // Nothing but foreign bytes.
        let mut reader = MessageReader::new(Source::new(program.0.to_vec(), 7));
        return drop(receive_all(&mut reader, 0, 2 * program.0.len()));
    }
    let how = program.byte();
    let seed = u64::from(program.byte());
    let mut world = World::new();
    for _ in 0..MOST_STEPS {
        if program.0.is_empty() {
            break;
        }
        world.step(&mut program);
    }
    world.finish();
    let stream = world.stream();
    let mut reader = MessageReader::new(Source::new(stream.clone(), seed));
    let received = receive_all(&mut reader, how, 2 * stream.len());
    assert_eq!((reader.held_bytes(), reader.unfinished_messages()), (0, 0), "something is left");
    world.check(&received);
}

struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        let number = usize::from(self.byte()) << 8 | usize::from(self.byte());
        number % limit.max(1)
    }
}

/// What a writer's frames go to; now and then it has no room.
#[derive(Clone)]
struct Sink {
    frames: Rc<RefCell<Vec<Vec<u8>>>>,
    room: Rc<RefCell<usize>>,
}

impl ByteWriter for Sink {
    fn write_vectored_by(&mut self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        let mut room = self.room.borrow_mut();
        if *room == 0 && deadline == Deadline::Now {
            *room = 3;
            return Err(Error::WouldBlock { operation: "send", object: OBJECT.into() });
        }
        let bytes = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect::<Vec<u8>>();
        let is_whole = bytes.len() <= PIPE_BUF || bytes.len().is_multiple_of(PIPE_BUF);
        assert!(is_whole, "a write of {} bytes can tear a frame", bytes.len());
        let mut frames: Vec<Vec<u8>> = bytes.chunks(PIPE_BUF).map(<[u8]>::to_vec).collect();
        frames.truncate((*room).max(1));
        *room = room.saturating_sub(frames.len());
        let written = frames.iter().map(Vec::len).sum();
        self.frames.borrow_mut().extend(frames);
        Ok(written)
    }

    fn keeps_pages_whole(&self) -> bool {
        true
    }

    fn object(&self) -> &str {
        OBJECT
    }
}

/// The byte at `at` of a message, which begins with its number.
fn byte_of(number: usize, at: usize) -> u8 {
    match at {
        0 | 1 => (number >> (8 * at)) as u8,
        _ => (at * 7 + number * 31 + at / 251) as u8,
    }
}

/// What lies in the stream.
struct Piece {
    bytes: Vec<u8>,
    /// The message that it is a frame of, unless it is foreign or comes a second time.
    message: Option<usize>,
}

struct Message {
    writer: usize,
    bytes: Vec<u8>,
    /// Whether all its frames came as they were sent.
    is_whole: bool,
}

struct World {
    writers: Vec<(MessageWriter<Sink>, Sink, Option<usize>)>,
    messages: Vec<Message>,
    pieces: Vec<Piece>,
}

impl World {
    fn new() -> Self {
        let writer = |_| {
            let sink = Sink { frames: Rc::default(), room: Rc::new(RefCell::new(2)) };
            (MessageWriter::new(sink.clone()), sink, None)
        };
        Self { writers: (0..WRITERS).map(writer).collect(), messages: Vec::new(), pieces: Vec::new() }
    }

    fn step(&mut self, program: &mut Program<'_>) {
        let step = program.byte();
        let writer = usize::from(step >> 4) % WRITERS;
        match step % 16 {
            0..=5 => self.send(writer, program.below(3 * PIPE_BUF), true),
            6 | 7 => self.send(writer, program.below(2 * PIPE_BUF), false),
            8 => self.send(writer, program.below(64 * PIPE_BUF), true),
            9 => {
                let bytes = (0..program.below(300)).map(|_| program.byte()).collect();
                self.pieces.push(Piece { bytes, message: None });
            }
            // Half a frame, which looks like one.
            10 => self.tamper(program, |bytes, at| bytes.truncate(at)),
            11 => self.tamper(program, |bytes, at| bytes[at] ^= 1 << (at % 8)),
            12 => self.tamper(program, |bytes, _| bytes.clear()),
            13 => self.repeat(program, |bytes, _| bytes),
            14 => self.repeat(program, |mut bytes, at| {
                bytes.truncate(at);
                bytes
            }),
            _ => self.exchange(program),
        }
    }

    /// A writer sends a message or a part of one, and whatever of that it may has gone into the stream at once.
    fn send(&mut self, writer: usize, bytes: usize, last: bool) {
        let (sender, sink, open) = &mut self.writers[writer];
        let number = *open.get_or_insert_with(|| {
            self.messages.push(Message { writer, bytes: Vec::new(), is_whole: true });
            self.messages.len() - 1
        });
        let begin = self.messages[number].bytes.len();
        let part: Vec<u8> = (begin..begin + bytes).map(|at| byte_of(number, at)).collect();
        while let Err(error) = sender.send_part_by(&part, last, Deadline::Now) {
            assert!(error.is_out_of_time(), "{error}");
        }
        // The rest, if it did not fit, belongs to the same message.
        while let Err(error) = sender.flush_by(Deadline::Now) {
            assert!(error.is_out_of_time(), "{error}");
        }
        self.messages[number].bytes.extend_from_slice(&part);
        let frames = std::mem::take(&mut *sink.frames.borrow_mut());
        self.pieces.extend(frames.into_iter().map(|bytes| Piece { bytes, message: Some(number) }));
        if last {
            *open = None;
        }
    }

    fn tamper(&mut self, program: &mut Program<'_>, change: impl FnOnce(&mut Vec<u8>, usize)) {
        let piece = program.below(self.pieces.len());
        let Some(piece) = self.pieces.get_mut(piece).filter(|piece| !piece.bytes.is_empty()) else { return };
        let at = program.below(piece.bytes.len());
        change(&mut piece.bytes, at);
        if let Some(message) = piece.message.take() {
            self.messages[message].is_whole = false;
        }
    }

    /// Something of the stream comes once more, whole or in part, anywhere behind.
    fn repeat(&mut self, program: &mut Program<'_>, change: impl FnOnce(Vec<u8>, usize) -> Vec<u8>) {
        let from = program.below(self.pieces.len());
        let Some(bytes) = self.pieces.get(from).map(|piece| piece.bytes.clone()) else { return };
        let to = from + 1 + program.below(self.pieces.len() - from);
        let at = program.below(bytes.len().max(1));
        let bytes = change(bytes, at);
        self.pieces.insert(to.min(self.pieces.len()), Piece { bytes, message: None });
    }

    /// Two pieces change places; their messages, and those that they now come before, may be lost.
    fn exchange(&mut self, program: &mut Program<'_>) {
        let (one, other) = (program.below(self.pieces.len()), program.below(self.pieces.len()));
        if one.max(other) >= self.pieces.len() || one == other {
            return;
        }
        let (first, second) = (one.min(other), one.max(other));
        for piece in &mut self.pieces[first..=second] {
            if let Some(message) = piece.message {
                self.messages[message].is_whole = false;
            }
        }
        self.pieces.swap(first, second);
    }

    /// Messages without an end do not count.
    fn finish(&mut self) {
        for (_, _, open) in &self.writers {
            if let Some(message) = open {
                self.messages[*message].is_whole = false;
            }
        }
    }

    fn stream(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect()
    }

    /// Every message that came whole was delivered once, those of a writer in their order, and nothing else.
    fn check(&self, received: &[Vec<u8>]) {
        let mut latest = [None; WRITERS];
        let mut came = vec![false; self.messages.len()];
        for message in received.iter().filter(|message| message.len() >= NUMBER_BYTES) {
            let number = usize::from(u16::from_le_bytes([message[0], message[1]]));
            let sent = self.messages.get(number).filter(|sent| sent.bytes == *message);
            let sent = sent.unwrap_or_else(|| panic!("a message of {} bytes that nobody sent", message.len()));
            assert!(latest[sent.writer] < Some(number), "message {number} came twice, or after a later one");
            latest[sent.writer] = Some(number);
            came[number] = true;
        }
        let is_short = |message: &&Message| message.bytes.len() < NUMBER_BYTES;
        for (number, message) in self.messages.iter().enumerate().filter(|(_, message)| !is_short(message)) {
            assert!(came[number] || !message.is_whole, "message {number} of {} bytes is missing", message.bytes.len());
        }
        // Those have no room for a number.
        let short = received.iter().filter(|message| message.len() < NUMBER_BYTES).count();
        assert!(short >= self.messages.iter().filter(is_short).filter(|message| message.is_whole).count());
        assert!(short <= self.messages.iter().filter(is_short).count());
    }
}

/// A stream that comes in pieces, and now and then not at once.
struct Source {
    bytes: Vec<u8>,
    at: usize,
    state: u64,
}

impl Source {
    fn new(bytes: Vec<u8>, seed: u64) -> Self {
        Self { bytes, at: 0, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    fn random(&mut self) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) as usize
    }
}

impl ByteReader for Source {
    fn read_vectored_by(&mut self, buffers: &mut [IoSliceMut<'_>], _deadline: Deadline) -> Result<usize> {
        let mut room = match self.random() % 8 {
            0 => return Err(Error::WouldBlock { operation: "receive", object: OBJECT.into() }),
            1 => 1 + self.random() % 100,
            2 => 1 + self.random() % 5000,
            _ => usize::MAX,
        };
        let before = self.at;
        for buffer in buffers {
            let bytes = buffer.len().min(room).min(self.bytes.len() - self.at);
            buffer[..bytes].copy_from_slice(&self.bytes[self.at..self.at + bytes]);
            self.at += bytes;
            room -= bytes;
        }
        Ok(self.at - before)
    }

    fn object(&self) -> &str {
        OBJECT
    }
}

/// Receives until the end, in one of the ways that there are. What is reported ends after a number of reports that the length of
/// the stream bounds.
fn receive_all(reader: &mut MessageReader<Source>, how: u8, stream_bytes: usize) -> Vec<Vec<u8>> {
    let mut received = Vec::new();
    let mut buffer = vec![0; [0, 100, 5000, 300_000][usize::from(how >> 4) % 4]];
    let mut reports = 0;
    loop {
        let result = match how % 4 {
            0 => reader.recv_by(Deadline::Now),
            1 => receive_into(reader, &mut buffer),
            2 => receive_parts(reader, &mut buffer),
            _ => {
                let mut message = std::mem::take(&mut buffer);
                let more = reader.recv_exchange_by(&mut message, Deadline::Now);
                more.map(|more| more.then_some(message))
            }
        };
        match result {
            Ok(Some(message)) => received.push(message),
            Ok(None) => return received,
            Err(error) if error.is_out_of_time() => {}
            Err(Error::Corrupt { .. } | Error::PeerGone { .. }) => reports += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(reports <= 16 + stream_bytes, "reports without end");
    }
}

fn receive_into(reader: &mut MessageReader<Source>, buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    loop {
        match reader.recv_into_by(buffer, Deadline::Now) {
            Err(Error::BufferTooSmall { message_bytes, buffer_bytes, .. }) => {
                assert!(buffer_bytes == buffer.len() && message_bytes > buffer_bytes);
                buffer.resize(message_bytes, 0);
            }
            result => return result.map(|bytes| bytes.map(|bytes| buffer[..bytes].to_vec())),
        }
    }
}

fn receive_parts(reader: &mut MessageReader<Source>, buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    if buffer.is_empty() {
        buffer.push(0);
    }
    let mut message = Vec::new();
    loop {
        let was_inside = reader.is_inside();
        match reader.recv_part_by(buffer, Deadline::Now) {
            Ok(Some(part)) => {
                message.extend_from_slice(&buffer[..part.bytes]);
                if part.last {
                    return Ok(Some(message));
                }
            }
            Ok(None) => {
                assert!(message.is_empty(), "the end in the middle of a message");
                return Ok(None);
            }
            Err(error) if was_inside && !reader.is_inside() => return Err(error),
            Err(error) if was_inside => {
                assert!(matches!(error, Error::WouldBlock { .. } | Error::Corrupt { .. } | Error::PeerGone { .. }))
            }
            Err(error) => return Err(error),
        }
    }
}
