//! The side that exposes. Who connects may be anybody whom the mode of the socket's file lets in, so nothing that one does keeps
//! the others from their tokens or takes more memory than is set aside.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onecopy::memory::anonymous::{AnonymousMapping, Sealing};
use onecopy::memory::buffer::Buffer;
use onecopy::stream::unix::{UnixListener, UnixStream};
use onecopy::stream::{ByteReader as _, ByteWriter as _};
use onecopy::{Deadline, Error, UnixName};
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{ASK, FAILED, MORE, PIECE};
use crate::exposed::Exposed;
use crate::failure::{Failure, visible};
use crate::io::CHUNK_BYTES;
use crate::lines::{LINE_BYTES, next_line};

/// How much is shared at once: a millisecond of copying, beside which the lines cost nothing.
const PIECE_BYTES: usize = 4 << 20;
/// How many connections are served at once, each by a thread and with a memory of [`PIECE_BYTES`]. Others get the token alone.
const CONNECTIONS: usize = 32;
/// How long the other side may take to ask for the bytes once it has the token.
const ASK_TIME: Duration = Duration::from_secs(10);
/// How long it may take over a piece: its output may be a pipe at whose end a person reads.
const TAKE_TIME: Duration = Duration::from_secs(600);
/// How long to wait for others to close descriptors when there are no more.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest reason, in bytes, that fits a line of [`LINE_BYTES`] with [`FAILED`] before it and [`CUT`] behind it.
const REASON_BYTES: usize = LINE_BYTES - FAILED.len() - CUT.len();
/// What stands for the rest of a reason, lest half a number is taken for a whole one.
const CUT: &str = "...";

/// Gives the token to every process that connects, and the bytes to those that ask, until accept(2) fails.
pub(crate) fn serve(name: &UnixName, listener: &UnixListener, exposed: Exposed) -> Failure {
    let server = Arc::new(Server {
        exposed,
        has_mode: name.as_path().is_some(),
        connections: AtomicUsize::new(0),
        idle: Mutex::new(Vec::new()),
    });
    loop {
        match listener.accept_by(Deadline::Never) {
            Ok(stream) => server.welcome(stream),
            // The connections that are open end by themselves.
            Err(error) if is_shortage(&error) => std::thread::sleep(PAUSE),
            Err(error) => return error.into(),
        }
    }
}

/// Whether a call failed for want of descriptors or memory.
fn is_shortage(error: &Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortages.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

struct Server {
    exposed: Exposed,
    /// Whether the socket is a file, whose mode says who may connect.
    has_mode: bool,
    /// How many are served by threads.
    connections: AtomicUsize,
    /// Memory that was shared and that nobody reads any more. It is used again, so that who keeps its descriptor, and comes
    /// again for another, keeps no more than there are connections.
    idle: Mutex<Vec<AnonymousMapping>>,
}

impl Server {
    /// The token for a new connection, without waiting, and a thread for what it may ask.
    fn welcome(self: &Arc<Self>, mut stream: UnixStream) {
        if !self.has_mode && !is_own_user_or_root(&stream) {
            return refuse(&mut stream, "an abstract name serves the user of its process and root alone");
        }
        tell(&mut stream, &self.exposed.token().to_string());
        let Some(place) = Place::take(self) else {
            return refuse(&mut stream, &format!("{CONNECTIONS} others are being served, try again"));
        };
        let start = |own| {
            let thread = std::thread::Builder::new().name("connection".into());
            thread.spawn(move || place.0.answer(own)).map(drop).map_err(|error| error.to_string())
        };
        if let Err(reason) = stream.try_clone().map_err(|error| error.to_string()).and_then(start) {
            refuse(&mut stream, &format!("nothing is left to serve it with: {reason}"));
        }
    }

    /// Serves a connection to its end. What goes wrong there concerns the other side alone, which is told why if it listens.
    fn answer(&self, stream: UnixStream) {
        let mut client = Client { stream, ahead: Vec::new(), closed: false };
        let result = match client.request(ASK_TIME).as_deref() {
            Some(ASK) => self.share(&mut client),
            Some(other) => Err(format!("`{other}` is no request of this version, which knows `{ASK}`")),
            None => Ok(()),
        };
        if let Err(reason) = result {
            refuse(&mut client.stream, &reason);
        }
    }

    /// All of the bytes, piece by piece.
    fn share(&self, client: &mut Client) -> Result<(), String> {
        let memory = self.memory().map_err(|error| error.to_string())?;
        let len = self.exposed.token().len();
        let mut offset = 0;
        while offset < len {
            let bytes = memory.region().len().min(len - offset);
            self.fill(&memory, offset, bytes).map_err(|error| error.to_string())?;
            let line = format!("{PIECE}{bytes}\n");
            let fds = [memory.as_fd()];
            let fds = if offset == 0 { &fds[..] } else { &[] };
            let sent = client.stream.send_with_fds_by(line.as_bytes(), fds, Deadline::after(ASK_TIME));
            if sent.is_err() || client.request(TAKE_TIME).as_deref() != Some(MORE) {
                break;
            }
            offset += bytes;
        }
        if client.closed {
            self.idle().push(memory);
        }
        // Else it may still be read, and must not change.
        Ok(())
    }

    /// Memory for a piece: used before, or new.
    fn memory(&self) -> onecopy::Result<AnonymousMapping> {
        if let Some(memory) = self.idle().pop() {
            return Ok(memory);
        }
        let bytes = self.exposed.token().len().clamp(1, PIECE_BYTES);
        let memory = AnonymousMapping::create_sealed("onecopy-expose", bytes, Sealing::Size)?;
        // The mapping that exists is the last that can be written through.
        fcntl_add_seals(&memory, SealFlags::FUTURE_WRITE | SealFlags::SEAL)
            .map_err(|errno| sealing_error(errno, memory.region().object()))?;
        Ok(memory)
    }

    fn fill(&self, memory: &AnonymousMapping, offset: usize, bytes: usize) -> onecopy::Result<()> {
        let mut buffer = Buffer::warm(CHUNK_BYTES.min(bytes))?;
        for start in (0..bytes).step_by(CHUNK_BYTES) {
            let chunk = &mut buffer[..CHUNK_BYTES.min(bytes - start)];
            self.exposed.read_at(offset + start, chunk)?;
            memory.region().write_at(start, chunk)?;
        }
        Ok(())
    }

    fn idle(&self) -> MutexGuard<'_, Vec<AnonymousMapping>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sealing_error(errno: Errno, object: &str) -> Error {
    Error::Unsupported {
        object: object.into(),
        reason: format!("it cannot be sealed against writing by others, {errno}: that needs Linux 5.1"),
    }
}

/// One of the [`CONNECTIONS`], given back on drop.
struct Place(Arc<Server>);

impl Place {
    fn take(server: &Arc<Server>) -> Option<Self> {
        // Relaxed: a count, which orders nothing else. Only one thread adds to it.
        if server.connections.load(Ordering::Relaxed) >= CONNECTIONS {
            return None;
        }
        server.connections.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(server)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The other side of a connection.
struct Client {
    stream: UnixStream,
    ahead: Vec<u8>,
    /// Whether it has closed its side, as it does when it has everything.
    closed: bool,
}

impl Client {
    /// What it asks within `time`, if anything. Descriptors that come with it are not taken.
    fn request(&mut self, time: Duration) -> Option<String> {
        let Self { stream, ahead, closed } = self;
        let deadline = Deadline::after(time);
        let line = next_line(ahead, "the other side", |buffer| stream.read_by(buffer, deadline));
        *closed = matches!(line, Ok(None));
        line.ok().flatten()
    }
}

/// Says that there will be no piece, and why.
fn refuse(stream: &mut UnixStream, reason: &str) {
    tell(stream, &format!("{FAILED}{}", cut(&visible(reason))));
}

/// `reason`, or as much of it as fits a line.
fn cut(reason: &str) -> String {
    if reason.len() <= REASON_BYTES {
        return reason.to_owned();
    }
    let ends = reason.char_indices().map(|(start, character)| start + character.len_utf8());
    let end = ends.take_while(|end| *end <= REASON_BYTES).last().unwrap_or(0);
    format!("{}{CUT}", &reason[..end])
}

/// Sends a line, if there is room for it and somebody to read it: a new socket has room for a few.
fn tell(stream: &mut UnixStream, line: &str) {
    let _ = stream.write_all_by(format!("{line}\n").as_bytes(), Deadline::Now);
}

fn is_own_user_or_root(stream: &UnixStream) -> bool {
    stream.peer_credentials().is_ok_and(|peer| peer.uid == geteuid().as_raw() || peer.uid == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_whole_or_with_a_sign_that_it_is_not() {
        let longest = "x".repeat(REASON_BYTES);
        assert_eq!(cut(&longest), longest);
        let reason = cut(&format!("{longest}y"));
        assert!(reason.ends_with("x...") && FAILED.len() + reason.len() <= LINE_BYTES, "{reason}");
        let wide = cut(&"\u{20ac}".repeat(LINE_BYTES));
        assert!(wide.ends_with("\u{20ac}...") && FAILED.len() + wide.len() <= LINE_BYTES, "{wide}");
    }
}
