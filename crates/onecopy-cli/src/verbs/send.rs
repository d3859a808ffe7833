//! `onecopy send`: stdin or a file into any mechanism that moves data.

use std::path::PathBuf;
use std::time::Duration;

use onecopy::channel::{ChannelReceiver, ChannelSender};
use onecopy::memory::buffer::Buffer;
use onecopy::open::{BoxedWriter, Shape};
use onecopy::stream::ByteWriter as _;
use onecopy::{Address, Deadline, Sender};

use crate::channel;
use crate::endpoint::{self, Opening};
use crate::failure::Failure;
use crate::input::Input;
use crate::io::CHUNK_BYTES;
use crate::parts::PartSender;
use crate::progress::Progress;
use crate::queue::{self, Outgoing};
use crate::units;
use crate::whole_file::{self, Invitation, Kind, Offer, Range, Report};

const EXAMPLES: &str = "\
Examples:
  echo hello | onecopy send mq:/greetings              one message into a queue
  onecopy send unix:/run/user/1000/pour -i disk.img    a file down a stream; `onecopy recv` listens
  seq 10 | onecopy send sysv-mq:0x4d2 --lines --type 3 ten messages of type 3
  onecopy send mq:/jobs --frame -i big.iso             one message of any size, in fragments
  seq 10 | onecopy send fifo:/tmp/log --frame --lines  messages of any size, each whole
  onecopy send channel:film -i film.mkv                a file of any length, one copy
  onecopy send fifo:/tmp/f --timeout 2s </etc/hosts    give up (124) when nobody reads";

/// The longest message that is sent whole where the mechanism has no limit of its own: what receivers take by default.
const LONGEST_MESSAGE_BYTES: usize = 1 << 30;

/// The options of `send`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where to: mq:/name, fifo:/path, unix:/path, tcp:host:port, channel:NAME, ... (see `onecopy explain`)
    #[arg(value_name = "ADDRESS", value_parser = endpoint::address_parser())]
    address: Address,
    /// Read FILE instead of stdin, which - is too
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Send with this priority, from 0 to 32767 (mq: only)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=32_767))]
    priority: Option<u32>,
    /// Send with this type, from 1 up (sysv-mq: only)
    #[arg(long = "type", value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    message_type: Option<i64>,
    /// Fail rather than wait
    #[arg(long, conflicts_with = "timeout")]
    nonblock: bool,
    /// Give up after this time in all: 500ms, 2s, 1m
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    timeout: Option<Duration>,
    /// Send each line as a message of its own, without its end
    #[arg(long)]
    lines: bool,
    /// Send messages of any size, in frames or fragments that `onecopy recv --frame` joins
    #[arg(long)]
    frame: bool,
    /// Listen for the receiver, instead of connecting to it
    #[arg(long)]
    listen: bool,
    /// Tell on stderr where this side listens
    #[arg(short, long)]
    verbose: bool,
    /// Fail when the FIFO, queue or region is missing, instead of creating it
    #[arg(long)]
    no_create: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let address = &arguments.address;
    let shape = endpoint::shape(address, "send")?;
    let outgoing = Outgoing::new(address, arguments.priority, arguments.message_type)?;
    endpoint::check_turned(address, arguments.listen, "--listen")?;
    if arguments.nonblock && matches!(address, Address::Channel(_)) {
        return Err(Failure::usage(format!(
            "--nonblock does not fit {address}, whose two sides have to meet: use --timeout"
        )));
    }
    let deadline = match (arguments.nonblock, arguments.timeout) {
        (true, _) => Deadline::Now,
        (false, timeout) => timeout.map_or(Deadline::Never, Deadline::after),
    };
    let opening = Opening::new(address, shape, deadline)
        .listen(arguments.listen)
        .create(!arguments.no_create)
        .tell(arguments.verbose);
    let mut input = Input::open(arguments.input.as_deref(), arguments.timeout.map_or(Deadline::Never, |_| deadline))?;
    let mut transfer = Transfer { input: &mut input, deadline, address };
    if let (Address::Channel(name), false) = (address, arguments.frame) {
        return channel::send(opening.channel(name)?, deadline, |sender, receiver| match arguments.lines {
            true => transfer.lines(sender),
            false => transfer.stream(sender, receiver),
        });
    }
    match (shape, arguments.frame, arguments.lines) {
        (Shape::Bytes, false, _) => transfer.bytes(opening.writer()?),
        (_, true, false) => transfer.parts(opening.part_sender(outgoing)?),
        (_, true, true) => transfer.lines_in_parts(opening.part_sender(outgoing)?),
        (_, false, true) => transfer.lines(&mut *opening.sender(outgoing)?),
        (_, false, false) => transfer.message(&mut *opening.sender(outgoing)?),
    }
}

/// A transfer of the whole input.
struct Transfer<'a> {
    input: &'a mut Input,
    deadline: Deadline,
    address: &'a Address,
}

impl Transfer<'_> {
    /// Raw bytes.
    fn bytes(&mut self, mut writer: BoxedWriter) -> Result<(), Failure> {
        let mut progress = self.progress();
        let mut buffer = Buffer::warm(CHUNK_BYTES)?;
        let mut sent = 0;
        loop {
            let count = self.input.read_some(&mut buffer)?;
            if count == 0 {
                return Ok(writer.finish_by(self.deadline)?);
            }
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let count =
                    writer.write_by(rest, self.deadline).map_err(|error| Failure::from(error).after(sent, "bytes"))?;
                rest = &rest[count..];
                sent += count as u64;
                progress.advance(count);
            }
        }
    }

    /// A stream over a channel: messages as long as what is there, then an empty one.
    fn stream(&mut self, sender: &mut ChannelSender, receiver: &mut ChannelReceiver) -> Result<(), Failure> {
        let mut progress = self.progress();
        sender.set_loan_limit_bytes(channel::LENT_BYTES)?;
        // All of it, so that its pages are there.
        let lends = match sender.loan_by(channel::LENT_BYTES, self.deadline) {
            Err(error) if error.is_peer_gone() || error.is_out_of_time() => return Err(error.into()),
            // Before Linux 5.1, or without memory for it, or with a limit on files, the messages are copied.
            loan => loan.is_ok(),
        };
        let mut buffer = Buffer::warm(if lends { 0 } else { channel::MESSAGE_BYTES })?;
        let mut sent = 0;
        // A receiver that has given back the first of these messages had sent its invitation before.
        let mut looks = if self.input.place().is_some() { 2 * channel::LENT_BYTES / channel::MESSAGE_BYTES } else { 0 };
        let mut invited = None;
        loop {
            looks = looks.saturating_sub(1);
            if looks > 0
                && let Some(invitation) = Invitation::find(receiver)
                && let Some((fd, offset)) = self.input.place()
            {
                looks = 0;
                invited = Some(invitation);
                let piece_bytes = whole_file::piece_bytes(progress.is_watched(), self.deadline);
                let offer = Offer { invitation, fd, offset, piece_bytes };
                sent += self
                    .offer(offer, sender, receiver, &mut progress)
                    .map_err(|failure| failure.after(sent, "bytes"))?;
            }
            let invitation = invited.filter(|_| Report::asks(receiver));
            let count = match invitation.and_then(|invitation| self.range().map(|range| (invitation, range))) {
                Some((invitation, range)) => self.pass(invitation, range, sender),
                None if lends => self.lend(sender),
                None => self.copy(sender, &mut buffer),
            };
            let count = count.map_err(|failure| failure.after(sent, "bytes"))?;
            if count == 0 {
                return Ok(());
            }
            sent += count as u64;
            progress.advance(count);
        }
    }

    /// Has the receiver copy its input, and returns how much it has copied.
    fn offer(
        &mut self,
        offer: Offer,
        sender: &mut ChannelSender,
        receiver: &mut ChannelReceiver,
        progress: &mut Progress,
    ) -> Result<u64, Failure> {
        sender.send_by(&offer.to_bytes(), self.deadline)?;
        let mut copied = 0;
        // One that has closed meanwhile is told from the next message.
        while let Some(message) = receiver.recv_by(self.deadline).map_err(|error| self.uncopied(error, copied))? {
            let Some(report) = Report::from_bytes(&message) else { continue };
            progress.advance(usize::try_from(report.bytes.saturating_sub(copied)).unwrap_or(usize::MAX));
            copied = report.bytes;
            if report.kind == Kind::Last {
                break;
            }
        }
        self.input.go_to(offer.offset.saturating_add(copied))?;
        Ok(copied)
    }

    /// Why the receiver does not go on copying the input.
    fn uncopied(&self, error: onecopy::Error, bytes: u64) -> Failure {
        let Self { address, input, .. } = self;
        let of = format!("of which the receiver has copied {bytes} bytes");
        match error {
            error if error.is_out_of_time() => {
                Failure::TimedOut(format!("send of {} over {address} timed out, {of}", input.name()))
            }
            error if error.is_peer_gone() => {
                Failure::failed(format!("{address}: the receiver of {}, {of}, has exited", input.name()))
            }
            error => error.into(),
        }
    }

    /// The part of the input that comes next, if there is as much left as a message holds.
    fn range(&self) -> Option<Range> {
        let bytes = channel::MESSAGE_BYTES as u64;
        let (_, offset) = self.input.place().filter(|_| self.input.len().is_some_and(|len| len >= bytes))?;
        Some(Range { offset, bytes })
    }

    /// Leaves a part of the input to the receiver, and returns how much that is.
    fn pass(&mut self, invitation: Invitation, range: Range, sender: &mut ChannelSender) -> Result<usize, Failure> {
        sender.send_by(&range.to_bytes(invitation), self.deadline)?;
        self.input.go_to(range.offset.saturating_add(range.bytes))?;
        Ok(range.bytes as usize)
    }

    /// Sends what is there, read into memory that the receiver has too, and returns how much. Nothing is the end, and its mark.
    fn lend(&mut self, sender: &mut ChannelSender) -> Result<usize, Failure> {
        let mut loan = sender.loan_by(channel::MESSAGE_BYTES, self.deadline)?;
        let count = self.input.read_some(&mut loan)?;
        loan.truncate(count);
        loan.send_by(self.deadline).map_err(onecopy::Error::from)?;
        Ok(count)
    }

    /// As [`Transfer::lend`], through memory of this process alone.
    fn copy(&mut self, sender: &mut ChannelSender, buffer: &mut [u8]) -> Result<usize, Failure> {
        let count = self.input.read_some(buffer)?;
        sender.send_by(&buffer[..count], self.deadline)?;
        Ok(count)
    }

    /// All of the input as one message, which the mechanism carries whole.
    fn message(&mut self, sender: &mut dyn Sender) -> Result<(), Failure> {
        let limit = sender.limit_bytes().unwrap_or(LONGEST_MESSAGE_BYTES);
        if self.input.len().is_some_and(|len| len > limit as u64) {
            return Err(self.too_long(limit));
        }
        let Some(message) = self.input.read_all(limit)? else { return Err(self.too_long(limit)) };
        sender.send_by(&message, self.deadline).map_err(|error| unsent(self.address, error))?;
        Ok(sender.flush_by(self.rest_deadline())?)
    }

    /// Each line as a message.
    fn lines(&mut self, sender: &mut dyn Sender) -> Result<(), Failure> {
        let limit = sender.limit_bytes().unwrap_or(LONGEST_MESSAGE_BYTES);
        let mut progress = self.progress();
        let mut sent = 0;
        while let Some(line) = self.input.read_line(limit)? {
            let result = sender.send_by(line, self.deadline);
            result.map_err(|error| unsent(self.address, error).after(sent, "messages"))?;
            sent += 1;
            progress.advance(line.len() + 1);
        }
        Ok(sender.flush_by(self.rest_deadline())?)
    }

    /// Each line as a message, over a sender that splits and joins.
    fn lines_in_parts(&mut self, mut sender: Box<dyn PartSender>) -> Result<(), Failure> {
        self.lines(&mut *sender)?;
        Ok(sender.finish(true, self.rest_deadline())?)
    }

    /// All of the input as one message in parts.
    fn parts(&mut self, mut sender: Box<dyn PartSender>) -> Result<(), Failure> {
        let mut progress = self.progress();
        let mut buffer = vec![0; sender.part_bytes()?];
        let mut sent = 0;
        let mut deadline = self.deadline;
        loop {
            let count = self.input.read_full(&mut buffer)?;
            let last = count < buffer.len();
            sender
                .send_part(&buffer[..count], last, deadline)
                .map_err(|error| unsent(self.address, error).after(sent, "bytes"))?;
            progress.advance(count);
            sent += count as u64;
            if last {
                return Ok(sender.finish(false, self.rest_deadline())?);
            }
            deadline = self.rest_deadline();
        }
    }

    /// How long the rest of a message may take of which a part has gone: `--nonblock` decides before its first byte.
    fn rest_deadline(&self) -> Deadline {
        if self.deadline == Deadline::Now { Deadline::Never } else { self.deadline }
    }

    fn too_long(&self, limit: usize) -> Failure {
        let address = self.address;
        let len = self.input.len().map_or_else(String::new, |len| format!(" of {len} bytes"));
        let name = self.input.name();
        Failure::failed(format!(
            "{name}{len} does not fit a message of {address}, whose limit is {limit} bytes (--frame sends any size)"
        ))
    }

    fn progress(&self) -> Progress {
        Progress::new(self.input.len(), self.input.is_terminal())
    }
}

/// Why a message was not sent. What ran out of time at a queue is said with what waits there.
fn unsent(address: &Address, error: onecopy::Error) -> Failure {
    let backlog = if error.is_out_of_time() { queue::backlog(address) } else { None };
    match (backlog, Failure::from(error)) {
        (Some(backlog), Failure::TimedOut(text)) => Failure::TimedOut(format!("{text} ({backlog})")),
        (Some(backlog), Failure::Failed(text)) => Failure::Failed(format!("{text} ({backlog})")),
        (_, failure) => failure,
    }
}
