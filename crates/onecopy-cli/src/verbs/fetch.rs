//! `onecopy fetch`: copies out what `onecopy expose` serves, by cross-memory attach.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use onecopy::memory::buffer::Buffer;
use onecopy::memory::maps::{MemoryMap, maps};
use onecopy::memory::window::{RemoteWindow, Token};
use onecopy::open::Shape;
use onecopy::stream::ByteReader as _;
use onecopy::{Address, Deadline, Error, UnixName};
use rustix::fs::{major, minor};
use rustix::io::Errno;

use crate::endpoint::{self, Opening};
use crate::failure::{Failure, say};
use crate::lines::{LINE_BYTES, next_line};
use crate::output::Output;
use crate::probe;
use crate::progress::Progress;
use crate::queue::{Note, Wanted};
use crate::share::Connection;
use crate::units;

const EXAMPLES: &str = "\
Examples:
  onecopy fetch window:1234:0x7f55…:c0ffee -o copy.img  by the token that `expose` printed
  onecopy fetch --via unix:/run/user/1000/w -o copy.img wait for `expose --via`, connect
  onecopy fetch --via mq:/windows --timeout 2s | wc -c  the next token of a queue, or give up (124)

The bytes come out of the other process by process_vm_readv(2), with one copy. Where the kernel does not permit that, \
--via unix: delivers them by shared memory, and says so on stderr.";

/// How much is read at once, and kept.
const PIECE_BYTES: usize = 4 << 20;

/// The options of `fetch`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The token that `onecopy expose` printed: window:PID:...
    #[arg(value_name = "TOKEN")]
    token: Option<String>,
    /// Where the token comes from: unix:/path, fifo:/path, mq:/name, sysv-mq:KEY, shm:/name, ...
    #[arg(long, value_name = "ADDRESS", conflicts_with = "token", value_parser = endpoint::address_parser())]
    via: Option<Address>,
    /// Write FILE instead of stdout, which - is too; it appears when it is complete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Give up after this time in all: 500ms, 2s, 1m
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    timeout: Option<Duration>,
    /// Tell on stderr where this side listens, and how many bytes came which way
    #[arg(short, long)]
    verbose: bool,
    /// Fail when the FIFO, queue or region is missing, instead of creating it
    #[arg(long)]
    no_create: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let source = Source::new(arguments)?;
    let deadline = arguments.timeout.map_or(Deadline::Never, Deadline::after);
    let output = Output::open(arguments.output.as_deref(), deadline)?;
    let mut fetch = Fetch { output, deadline, verbose: arguments.verbose };
    match source {
        Source::Token(token) => fetch.attach(&token)?,
        Source::Socket(name) => fetch.over_socket(Connection::open(name, deadline)?)?,
        Source::Via(via, shape) => {
            let opening = Opening::new(via, shape, deadline)
                .listen(endpoint::is_datagram(via))
                .create(!arguments.no_create)
                .tell(arguments.verbose);
            fetch.attach(&receive(&opening, via, shape, deadline)?)?;
        }
    }
    fetch.output.commit()
}

/// What says where the window is.
enum Source<'a> {
    Token(Token),
    /// A connection to the process that has it.
    Socket(&'a UnixName),
    /// A line or a message that somebody sends.
    Via(&'a Address, Shape),
}

impl<'a> Source<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self, Failure> {
        match (&arguments.token, &arguments.via) {
            (_, Some(Address::UnixStream(name))) => Ok(Self::Socket(name)),
            (_, Some(via)) => Ok(Self::Via(via, endpoint::shape(via, "fetch")?)),
            (Some(text), None) => Ok(Self::Token(text.trim().parse()?)),
            (None, None) => Err(Failure::usage("fetch needs the TOKEN that `onecopy expose` prints, or --via ADDRESS")),
        }
    }
}

/// The next token of `via`.
fn receive(opening: &Opening<'_>, via: &Address, shape: Shape, deadline: Deadline) -> Result<Token, Failure> {
    let text = if shape == Shape::Bytes { line(opening, via, deadline)? } else { message(opening, via, deadline)? };
    text.trim().parse().map_err(|error| Failure::failed(format!("{via} brought no token: {error}")))
}

fn message(opening: &Opening<'_>, via: &Address, deadline: Deadline) -> Result<String, Failure> {
    let no_token = |what: String| Failure::failed(format!("{via} brought {what}, which is no token"));
    let mut receiver = opening.receiver(Wanted::Any, &Note::default())?;
    let mut buffer = vec![0; receiver.usual_bytes().max(LINE_BYTES)];
    match receiver.recv_into_by(&mut buffer, deadline) {
        Ok(Some(len)) => {
            buffer.truncate(len);
            String::from_utf8(buffer).map_err(|_| no_token(format!("a message of {len} bytes")))
        }
        Ok(None) => Err(Failure::failed(format!("the sender of {via} closed without a token"))),
        Err(Error::BufferTooSmall { message_bytes, .. }) => {
            Err(no_token(format!("a message of {message_bytes} bytes")))
        }
        Err(error) => Err(error.into()),
    }
}

fn line(opening: &Opening<'_>, via: &Address, deadline: Deadline) -> Result<String, Failure> {
    loop {
        let mut reader = opening.reader()?;
        match next_line(&mut Vec::new(), &via.to_string(), |buffer| reader.read_by(buffer, deadline))? {
            Some(line) => return Ok(line),
            // Another reader took the line of this writer, or it had come for the terminal that was here before.
            None if matches!(via, Address::Fifo(_) | Address::Pty(_)) => {}
            None => return Err(Failure::failed(format!("the sender of {via} closed without a token"))),
        }
    }
}

/// A transfer to the output.
struct Fetch {
    output: Output,
    deadline: Deadline,
    verbose: bool,
}

impl Fetch {
    /// The window of `token`, which came without a connection to its owner.
    fn attach(&mut self, token: &Token) -> Result<(), Failure> {
        let window = open(token).map_err(|error| unreachable(&error))?;
        self.copy(token, &window)
    }

    /// The window of the process that is connected, which gives its bytes even where the kernel refuses.
    fn over_socket(&mut self, mut connection: Connection) -> Result<(), Failure> {
        let token = connection.token()?;
        match open(&token) {
            Ok(window) => {
                drop(connection);
                self.copy(&token, &window)
            }
            // The process lives, since it is connected: a filter may have the kernel say anything else.
            Err(error) => self.share(connection, &token, &error),
        }
    }

    fn copy(&mut self, token: &Token, window: &RemoteWindow) -> Result<(), Failure> {
        let len = window.len();
        let mut progress = Progress::new(Some(len as u64), self.output.is_terminal());
        let mut buffer = Buffer::warm(len.min(PIECE_BYTES))?;
        let mut done = 0;
        while done < len {
            self.check_time(done)?;
            let piece = &mut buffer[..PIECE_BYTES.min(len - done)];
            window.get(done, piece).map_err(|error| lost(&error).after(done as u64, "bytes"))?;
            self.output.write(piece)?;
            done += piece.len();
            progress.advance(piece.len());
        }
        if let Some(left) = file_left(token) {
            return Err(Failure::failed(format!("{left} of {len} bytes are left of the window{SHORTENED}")));
        }
        self.tell(len, "by cross-memory attach");
        Ok(())
    }

    fn share(&mut self, connection: Connection, token: &Token, refusal: &Error) -> Result<(), Failure> {
        let mut progress = Progress::new(Some(token.len() as u64), self.output.is_terminal());
        let note = format!("by shared memory, since cross-memory attach is refused: {refusal}");
        let mut note = Some(note);
        let shared = connection.share(token.len(), |bytes| {
            note.take().iter().for_each(|note| say(note));
            self.output.write(bytes)?;
            progress.advance(bytes.len());
            Ok(())
        })?;
        if !shared {
            return Err(unreachable(refusal));
        }
        // Where there was not one byte.
        note.iter().for_each(|note| say(note));
        self.tell(token.len(), "by shared memory");
        Ok(())
    }

    fn check_time(&self, done: usize) -> Result<(), Failure> {
        match self.deadline.has_passed() {
            true => Err(Failure::TimedOut("fetch timed out".into()).after(done as u64, "bytes")),
            false => Ok(()),
        }
    }

    fn tell(&self, bytes: usize, way: &str) {
        if self.verbose {
            say(&format!("{bytes} bytes {way}"));
        }
    }
}

/// The window of `token`, unless a filter would end this process for that.
fn open(token: &Token) -> onecopy::Result<RemoteWindow> {
    probe::check(token.pid(), probe::Wanted::Read)?;
    RemoteWindow::open(token)
}

/// Whether the kernel keeps this process from a window that is there, rather than that it is not there any more.
fn is_refusal(error: &Error) -> bool {
    let refusals = [Errno::PERM, Errno::ACCESS, Errno::NOSYS];
    matches!(error, Error::Unsupported { .. })
        || refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A window that cannot be opened, and what helps.
fn unreachable(error: &Error) -> Failure {
    if !is_refusal(error) {
        return lost(error);
    }
    Failure::failed(format!(
        "{error}; with `onecopy expose --via unix:/path` and `onecopy fetch --via unix:/path` the bytes come by shared memory"
    ))
}

/// How much of the window its file still has, where that is less: the rest of the page in which a file ends are zeros, which come without
/// an error. The process that exposes a file has it open.
fn file_left(token: &Token) -> Option<u64> {
    let has_window = |map: &MemoryMap| map.shared && map.inode != 0 && map.range().contains(&token.address());
    let map = maps(token.pid()).ok()?.flatten().find(has_window)?;
    let is_mapped =
        |file: &Metadata| (major(file.dev()), minor(file.dev()), file.ino()) == (map.device.0, map.device.1, map.inode);
    let descriptors = fs::read_dir(format!("/proc/{}/fd", token.pid())).ok()?.flatten();
    let file = descriptors.filter_map(|entry| fs::metadata(entry.path()).ok()).find(is_mapped)?;
    let begin = map.offset.saturating_add(token.address() - map.start);
    Some(file.len().saturating_sub(begin)).filter(|left| *left < token.len() as u64)
}

/// The process is there, its window is open, and there is no memory: so it is with a mapped file's lost pages.
const SHORTENED: &str = "; if its file was shortened meanwhile, expose it again and fetch with the new token";

/// A window that is not there any more, or a part of it.
fn lost(error: &Error) -> Failure {
    let remedy = match error {
        _ if error.is_peer_gone() => "; expose it again and fetch with the new token",
        Error::PartialTransfer { .. } => SHORTENED,
        _ if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) => SHORTENED,
        _ => "",
    };
    Failure::failed(format!("{error}{remedy}"))
}
