//! The second processes of `pipe-safety`: each writes its messages into the pipe that is its stdout.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::str::FromStr;

use onecopy::stream::pipe::{MessageWriter, PipeWriter, Written};
use onecopy::{Deadline, Error, Sender as _};
use rustix::event::{PollFd, PollFlags, poll};

use super::state::State;
use crate::failure::{Failure, plain};

/// How a writer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// write(2), which may wait.
    Blocking,
    /// write(2) with O_NONBLOCK, again and again until all of the message went.
    Nonblocking,
    /// A [`MessageWriter`] that may wait.
    Messages,
    /// A [`MessageWriter`] that must not.
    MessagesNonblocking,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Blocking, Self::Nonblocking, Self::Messages, Self::MessagesNonblocking];

    /// How the writers of a state write.
    pub(super) fn raw(state: State) -> Self {
        if state.is_nonblocking() { Self::Nonblocking } else { Self::Blocking }
    }

    pub(super) fn is_nonblocking(self) -> bool {
        matches!(self, Self::Nonblocking | Self::MessagesNonblocking)
    }
}

/// What a writer has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) writes: u64,
    pub(super) eagain: u64,
    pub(super) partial_writes: u64,
}

/// What a writer is told: its mode, its number, the length of its messages and how many it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) mode: Mode,
    pub(super) tag: u8,
    pub(super) bytes: usize,
    pub(super) messages: usize,
}

impl Role {
    pub(super) fn to_argument(self) -> String {
        format!("{},{},{},{}", self.mode as u8, self.tag, self.bytes, self.messages)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(',');
        let mode = *Mode::ALL.get(words.next()?.parse::<usize>().ok()?)?;
        let (tag, bytes, messages) =
            (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { mode, tag, bytes, messages })
    }
}

impl Counts {
    fn to_line(self) -> String {
        format!("{} {} {}", self.writes, self.eagain, self.partial_writes)
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let numbers: Vec<u64> = line.split_whitespace().map(u64::from_str).collect::<Result<_, _>>().ok()?;
        let [writes, eagain, partial_writes] = numbers[..] else { return None };
        Some(Self { writes, eagain, partial_writes })
    }
}

/// Waits for the end of stdin, which all writers share, writes the messages, and tells the counts on stderr.
pub(super) fn run(role: &str) -> Result<(), Failure> {
    let role = Role::parse(role).ok_or_else(|| Failure::usage("--writer-role is for this verb's own processes"))?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.map_err(|error| Failure::failed(format!("cannot take stdout: {}", plain(&error))))?;
    let writer = PipeWriter::from_fd(stdout, "fd:1")?;
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let counts = match role.mode {
        Mode::Blocking | Mode::Nonblocking => raw(role, writer)?,
        Mode::Messages | Mode::MessagesNonblocking => messages(role, writer)?,
    };
    let _ = writeln!(std::io::stderr(), "{}", counts.to_line());
    Ok(())
}

fn deadline(mode: Mode) -> Deadline {
    if mode.is_nonblocking() { Deadline::Now } else { Deadline::Never }
}

fn raw(role: Role, mut writer: PipeWriter) -> Result<Counts, Failure> {
    let message = vec![role.tag; role.bytes];
    let mut counts = Counts::default();
    for _ in 0..role.messages {
        let mut rest = &message[..];
        while !rest.is_empty() {
            counts.writes += 1;
            match writer.write_once_by(rest, deadline(role.mode)) {
                Ok(Written::Whole) => rest = &[],
                Ok(Written::Part { written_bytes, .. }) => {
                    counts.partial_writes += 1;
                    rest = &rest[written_bytes..];
                }
                Err(Error::WouldBlock { .. }) => {
                    counts.eagain += 1;
                    wait_for_room(&writer)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(counts)
}

fn messages(role: Role, writer: PipeWriter) -> Result<Counts, Failure> {
    let message = vec![role.tag; role.bytes];
    let mut counts = Counts::default();
    let mut writer = MessageWriter::new(writer);
    for _ in 0..role.messages {
        counts.writes += 1;
        while let Err(error) = writer.send_by(&message, deadline(role.mode)) {
            would_block(error, &writer, &mut counts)?;
        }
    }
    while let Err(error) = writer.flush_by(deadline(role.mode)) {
        would_block(error, &writer, &mut counts)?;
    }
    Ok(counts)
}

fn would_block(error: Error, writer: &MessageWriter, counts: &mut Counts) -> Result<(), Failure> {
    match error {
        Error::WouldBlock { .. } => {
            counts.eagain += 1;
            wait_for_room(writer.get_ref())
        }
        error => Err(error.into()),
    }
}

/// Waits as a program with an event loop does.
fn wait_for_room(writer: &PipeWriter) -> Result<(), Failure> {
    match poll(&mut [PollFd::new(writer, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(Failure::failed(format!("cannot wait for the pipe: {}", plain(&errno.into())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_counts_travel() {
        for mode in Mode::ALL {
            let role = Role { mode, tag: 7, bytes: 4097, messages: 3 };
            assert_eq!(Role::parse(&role.to_argument()), Some(role));
        }
        assert_eq!(Role::parse("4,1,1,1"), None);
        assert_eq!(Role::parse("0,1"), None);
        let counts = Counts { writes: 1, eagain: 2, partial_writes: 3 };
        assert_eq!(Counts::parse(&counts.to_line()), Some(counts));
        assert_eq!(Counts::parse("1 2"), None);
    }
}
