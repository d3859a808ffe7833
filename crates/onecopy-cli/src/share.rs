//! A window over a UNIX socket: its token, and its bytes for whom the kernel does not let attach.
//!
//! Both sides speak in lines of text that end with `\n`, of at most [`LINE_BYTES`](crate::lines::LINE_BYTES). This is protocol 1:
//!
//! | From | Line | Meaning |
//! |---|---|---|
//! | expose | `window:...` | the token, at once; who wants no more closes |
//! | fetch | `share 1` | asks for the bytes by shared memory, by this protocol |
//! | expose | `piece N` | the next N bytes lie at the begin of the memory, whose descriptor came with the first such line |
//! | fetch | `more` | they were taken, and the next are wanted; after the last ones it closes |
//! | expose | `failed REASON` | there is no piece, and none will come |
//!
//! The memory is a memfd that the other side can map for reading only: it is sealed against every way of writing but the mapping
//! of `expose` (F_SEAL_FUTURE_WRITE), so that opening it anew through /proc/self/fd gives nothing more, as it would with a
//! descriptor of a file whose mode is wider than that of its directory.

mod server;

use std::os::fd::OwnedFd;

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::memory::buffer::Buffer;
use onecopy::memory::window::Token;
use onecopy::stream::ByteWriter as _;
use onecopy::stream::unix::UnixStream;
use onecopy::{Deadline, UnixName};

pub(crate) use server::serve;

use crate::failure::Failure;
use crate::io::CHUNK_BYTES;
use crate::lines::next_line;

const ASK: &str = "share 1";
const MORE: &str = "more";
const PIECE: &str = "piece ";
const FAILED: &str = "failed ";

/// The side that fetches.
pub(crate) struct Connection {
    stream: UnixStream,
    object: String,
    ahead: Vec<u8>,
    fds: Vec<OwnedFd>,
    deadline: Deadline,
}

impl Connection {
    /// Connects to the side that exposes, waiting for it until `deadline`, which holds for all that follows.
    pub(crate) fn open(name: &UnixName, deadline: Deadline) -> Result<Self, Failure> {
        let stream = UnixStream::connect(name, deadline)?;
        Ok(Self { stream, object: format!("unix:{name}"), ahead: Vec::new(), fds: Vec::new(), deadline })
    }

    /// The token, with which the other side begins.
    pub(crate) fn token(&mut self) -> Result<Token, Failure> {
        let line = self.line()?.ok_or_else(|| Failure::failed(format!("{} closed without a token", self.object)))?;
        if let Some(reason) = line.strip_prefix(FAILED) {
            return Err(self.failed(reason));
        }
        line.parse().map_err(|error| Failure::failed(format!("{} sent no token: {error}", self.object)))
    }

    /// Has the other side share `len` bytes, and gives them to `take` one after the other. `false` is that it does not know how:
    /// another program passes tokens on there.
    pub(crate) fn share(
        mut self,
        len: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        if len == 0 {
            return Ok(true);
        }
        // Who has closed already may have said why.
        let _ = self.say(ASK);
        let mut line = match self.line() {
            Ok(Some(line)) => line,
            Err(late @ Failure::TimedOut(_)) => return Err(late),
            _ => return Ok(false),
        };
        let memory = match (self.fds.pop(), line.strip_prefix(FAILED)) {
            (_, Some(reason)) => return Err(self.failed(reason)),
            (Some(fd), None) => AnonymousMapping::from_fd(fd).map_err(|error| self.no_memory(&error))?.into_region(),
            (None, None) => return Ok(false),
        };
        let mut buffer = Buffer::warm(CHUNK_BYTES)?;
        let mut done = 0;
        loop {
            let bytes = self.piece(&line, memory.len().min(len - done))?;
            for start in (0..bytes).step_by(CHUNK_BYTES) {
                let chunk = &mut buffer[..CHUNK_BYTES.min(bytes - start)];
                memory.read_at(start, chunk)?;
                take(chunk)?;
            }
            done += bytes;
            if done == len {
                return Ok(true);
            }
            // Where it is gone the next read says that.
            let _ = self.say(MORE);
            let next = self.line().map_err(|failure| failure.after(done as u64, "bytes"))?;
            line =
                next.ok_or_else(|| Failure::failed(format!("{} closed after {done} of {len} bytes", self.object)))?;
        }
    }

    /// How many bytes `line` says that there are, of which `limit` are possible.
    fn piece(&self, line: &str, limit: usize) -> Result<usize, Failure> {
        if let Some(reason) = line.strip_prefix(FAILED) {
            return Err(self.failed(reason));
        }
        let bytes = line.strip_prefix(PIECE).and_then(|digits| digits.parse().ok());
        bytes.filter(|bytes| (1..=limit).contains(bytes)).ok_or_else(|| {
            Failure::failed(format!("{} sent `{line}` instead of a piece of at most {limit} bytes", self.object))
        })
    }

    /// What the other side sent is its fault, whatever the library takes it for.
    fn no_memory(&self, error: &onecopy::Error) -> Failure {
        Failure::failed(format!("{} sent no memory that can be read safely: {error}", self.object))
    }

    fn failed(&self, reason: &str) -> Failure {
        Failure::failed(format!("{} shares nothing: {reason}", self.object))
    }

    fn say(&mut self, line: &str) -> Result<(), Failure> {
        Ok(self.stream.write_all_by(format!("{line}\n").as_bytes(), self.deadline)?)
    }

    fn line(&mut self) -> Result<Option<String>, Failure> {
        let Self { stream, object, ahead, fds, deadline } = self;
        next_line(ahead, object, |buffer| {
            let (bytes, more) = stream.recv_with_fds_by(buffer, *deadline)?;
            fds.extend(more);
            Ok(bytes)
        })
    }
}
