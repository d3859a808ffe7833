//! `onecopy recv`: what comes over any mechanism that moves data to stdout or a file.

use std::path::PathBuf;
use std::time::Duration;

use onecopy::memory::buffer::Buffer;
use onecopy::open::{self, BoxedReader, Shape};
use onecopy::stream::ByteReader as _;
use onecopy::{Address, Channel, Deadline, Error, Receiver};

use crate::channel;
use crate::endpoint::{self, Opening};
use crate::failure::{self, Failure};
use crate::interrupt;
use crate::io::{CHUNK_BYTES, resize};
use crate::output::Output;
use crate::parts::{PART_BYTES, PartReceiver, is_about_one_message};
use crate::progress::Progress;
use crate::queue::{self, Note, Wanted};
use crate::units;
use crate::whole_file::{self, Invitation, Offer, Shared};

const EXAMPLES: &str = "\
Examples:
  onecopy recv mq:/greetings                           the next message of a queue
  onecopy recv unix:/run/user/1000/pour -o disk.img    listen, and write what one sender pours in
  onecopy recv sysv-mq:0x4d2 --type -3 --lines         the next of types up to 3, as a line
  onecopy recv mq:/jobs --frame -o big.iso             one message of any size from its fragments
  onecopy recv fifo:/tmp/log --frame --lines --count 0 messages of any number of senders, each whole
  onecopy recv channel:film -o film.mkv                a file of any length, one copy
  onecopy recv unix-dgram:/tmp/log --count 0 --lines   every datagram, until interrupted";

/// The options of `recv`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where from: mq:/name, fifo:/path, unix:/path, tcp:host:port, channel:NAME, ... (see `onecopy explain`)
    #[arg(value_name = "ADDRESS", value_parser = endpoint::address_parser())]
    address: Address,
    /// Write FILE instead of stdout, which - is too; it appears when it is complete, and of several messages with those that came whole,
    /// however it ends
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How many messages to receive, 0 for all until the end; 1 unless said. From a channel, messages are what `onecopy send --lines`
    /// sends: without it a stream comes, for which leave out --count, and whose pieces and end would be counted
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = units::count)]
    count: Option<u64>,
    /// Which messages (sysv-mq: only): N this type, -N the lowest type up to N, ^N any type but N, 0 any
    #[arg(long = "type", value_name = "N", allow_hyphen_values = true, value_parser = queue::wanted)]
    wanted: Option<Wanted>,
    /// Give up after this time in all: 500ms, 2s, 1m
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    timeout: Option<Duration>,
    /// Write each message as a line
    #[arg(long)]
    lines: bool,
    /// Join the frames or fragments that `onecopy send --frame` sends
    #[arg(long)]
    frame: bool,
    /// Tell the length of each message on stderr, and its priority, type or sender
    #[arg(short, long)]
    verbose: bool,
    /// Connect to the sender, instead of listening for it
    #[arg(long)]
    connect: bool,
    /// Fail when the FIFO, queue or region is missing, instead of creating it
    #[arg(long)]
    no_create: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let address = &arguments.address;
    let shape = endpoint::shape(address, "recv")?;
    let raw = shape == Shape::Bytes && !arguments.frame;
    if raw && arguments.count.is_some() {
        return Err(Failure::usage(format!(
            "--count: {address} is a stream without messages (--frame makes messages)"
        )));
    }
    endpoint::check_turned(address, arguments.connect, "--connect")?;
    let wanted = queue::check_wanted(address, arguments.wanted)?;
    let deadline = arguments.timeout.map_or(Deadline::Never, Deadline::after);
    let opening = Opening::new(address, shape, deadline)
        .listen(!arguments.connect)
        .create(!arguments.no_create)
        .tell(arguments.verbose);
    let shared = !raw && open::is_pipe(address)?;
    let output = Output::open(arguments.output.as_deref(), deadline)?;
    let mut transfer = Transfer {
        progress: Progress::new(None, output.is_terminal() || arguments.verbose),
        output,
        deadline,
        count: arguments.count.unwrap_or(1),
        tells_end: endpoint::tells_end(address),
        lines: arguments.lines,
        verbose: arguments.verbose,
        shared,
        troubles: 0,
        whole_bytes: None,
        note: Note::default(),
    };
    if let (Address::Channel(name), false) = (address, arguments.frame) {
        let is_stream = arguments.count.is_none() && !arguments.lines;
        return channel::receive(opening.channel(name)?, |channel| transfer.channel(channel, is_stream, address));
    }
    if raw {
        transfer.bytes(opening.reader()?, address)?;
        transfer.output.commit()
    } else if arguments.frame && !(shared && arguments.lines) {
        let receiver = opening.part_receiver(wanted, &transfer.note)?;
        transfer.whole_messages(address, |transfer| transfer.parts(receiver))
    } else {
        let mut receiver = opening.receiver(wanted, &transfer.note)?;
        transfer.whole_messages(address, |transfer| transfer.messages(&mut *receiver))
    }
}

/// A transfer to the output.
struct Transfer {
    output: Output,
    deadline: Deadline,
    /// How many messages, 0 for all.
    count: u64,
    /// Whether an end is the end, or the mark of one of several senders.
    tells_end: bool,
    lines: bool,
    verbose: bool,
    /// Whether several may send, so that what is wrong with a message of one does not keep those of the others away.
    shared: bool,
    /// How many errors of that kind were told.
    troubles: u64,
    /// How much of the output is whole messages, once there is one.
    whole_bytes: Option<u64>,
    /// What the receiver knows about its latest message.
    note: Note,
    progress: Progress,
}

impl Transfer {
    /// Raw bytes, until the end.
    fn bytes(&mut self, mut reader: BoxedReader, address: &Address) -> Result<(), Failure> {
        let mut buffer = Buffer::warm(CHUNK_BYTES)?;
        let mut received = 0;
        loop {
            let count = reader
                .read_by(&mut buffer, self.deadline)
                .map_err(|error| Failure::from(error).after(received, "bytes"))?;
            if count == 0 {
                return Ok(());
            }
            self.write(&buffer[..count])?;
            received += count as u64;
            self.progress.advance(count);
            self.check_time(address, received)?;
        }
    }

    /// Fails when the time is up. What is there already is received without a look at it, and from a sender that is faster than the
    /// output something always is.
    fn check_time(&self, address: &Address, received: u64) -> Result<(), Failure> {
        if !self.deadline.has_passed() {
            return Ok(());
        }
        Err(Failure::TimedOut(format!("receive on {address} timed out")).after(received, "bytes"))
    }

    /// A stream to its end mark, or whole messages.
    fn channel(mut self, channel: &mut Channel, is_stream: bool, address: &Address) -> Result<(), Failure> {
        if !is_stream {
            return self.whole_messages(address, |transfer| transfer.messages(channel.receiver()));
        }
        let mut received = 0;
        let invitation = Invitation::send(channel, self.deadline)?;
        let mut shared: Option<Shared> = None;
        let mut next = None;
        loop {
            let message = match next.take() {
                Some(message) => Ok(Some(message)),
                None => channel.receiver().recv_view_by(self.deadline),
            };
            let Some(message) = message.map_err(|error| Failure::from(error).after(received, "bytes"))? else {
                let text = "the sender closed without the end mark of a stream (--count takes messages)";
                return Err(Failure::failed(text).after(received, "bytes"));
            };
            if message.is_empty() {
                return self.output.commit();
            }
            if let Some(offer) = Offer::from_message(invitation, &message) {
                drop(message);
                let Self { output, progress, deadline, .. } = &mut self;
                let most = whole_file::piece_bytes(progress.is_watched(), *deadline);
                let advance = |count| {
                    received += count as u64;
                    progress.advance(count);
                };
                let copied = whole_file::copy(offer, channel, output, *deadline, most, advance);
                shared = copied.map_err(|failure| failure.after(received, "bytes"))?;
                shared.iter_mut().for_each(|shared| shared.ask(channel));
                continue;
            }
            let range = shared.as_mut().and_then(|shared| shared.range(&message));
            if let Some(shared) = &mut shared {
                // Before this one is done, so that the next one is there then. What is wrong with the channel the next look tells.
                next = channel.receiver().recv_view_by(Deadline::Now).ok().flatten();
                if next.is_none() {
                    shared.ask(channel);
                }
            }
            let bytes = match (range, &mut shared) {
                (Some(range), Some(shared)) => {
                    let read = shared.read(range, &mut self.output, address);
                    read.map_err(|failure| self.with_loss(failure).after(received, "bytes"))?;
                    range.bytes
                }
                _ => {
                    self.output.write_view(&message).map_err(|failure| self.with_loss(failure))?;
                    message.len() as u64
                }
            };
            received += bytes;
            self.progress.advance(bytes as usize);
            self.check_time(address, received)?;
        }
    }

    /// Messages to the output by `receive`, and then its name. Who wants several gets those that came whole, however it ends: they are
    /// nowhere else any more.
    fn whole_messages(
        mut self,
        address: &Address,
        receive: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.keeps() {
            interrupt::put_off_signals();
        }
        let result = receive(&mut self);
        match (&result, self.whole_bytes) {
            (Ok(()), _) => {}
            (Err(_), Some(whole_bytes)) if self.keeps() => self.output.shorten(whole_bytes)?,
            (Err(_), _) => return result,
        }
        let verdict = self.verdict(address);
        self.output.commit()?;
        result.and(verdict)
    }

    /// Whether an end that is no success is none to the messages before it.
    fn keeps(&self) -> bool {
        self.count != 1 && !self.output.is_direct()
    }

    /// Writes what was received.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.output.write(bytes).map_err(|failure| self.with_loss(failure))
    }

    /// What was received is nowhere else.
    fn with_loss(&self, failure: Failure) -> Failure {
        failure.with_loss(self.output.name())
    }

    /// Receives by `once`, if somebody reads what comes. A signal that was put off ends that.
    fn once<T>(&self, mut once: impl FnMut(Deadline) -> onecopy::Result<T>) -> Result<onecopy::Result<T>, Failure> {
        if self.output.is_unread() {
            return Err(Failure::OutputClosed);
        }
        if !self.keeps() {
            return Ok(once(self.deadline));
        }
        loop {
            if let Some(interrupted) = interrupt::put_off() {
                return Err(interrupted);
            }
            match once(self.deadline.at_most(interrupt::SLICE)) {
                Err(error) if error.is_out_of_time() && !self.deadline.has_passed() => {}
                result => return Ok(result),
            }
        }
    }

    /// The output ends with a whole message.
    fn ends_whole(&mut self, message_bytes: u64) {
        *self.whole_bytes.get_or_insert(0) += message_bytes;
    }

    /// Whole messages.
    fn messages(&mut self, receiver: &mut dyn Receiver) -> Result<(), Failure> {
        let mut buffer = vec![0; receiver.usual_bytes()];
        let mut received = 0;
        while self.count == 0 || received < self.count {
            match self.once(|deadline| receiver.recv_into_by(&mut buffer, deadline))? {
                Ok(Some(len)) => self.deliver(&mut buffer, len)?,
                Ok(None) => return self.ended(received),
                Err(Error::BufferTooSmall { message_bytes, .. }) => {
                    grow(&mut buffer, message_bytes).map_err(|failure| failure.after(received, "messages"))?;
                    continue;
                }
                Err(error) if self.shared && is_about_one_message(&error) => {
                    self.tell_trouble(&error);
                    continue;
                }
                Err(error) => return Err(Failure::from(error).after(received, "messages")),
            }
            received += 1;
        }
        Ok(())
    }

    /// One message, with the end of its line in the same write: others may write to the same pipe.
    fn deliver(&mut self, buffer: &mut Vec<u8>, len: usize) -> Result<(), Failure> {
        let end = len + usize::from(self.lines);
        if self.lines {
            let room = buffer.len().max(end);
            grow(buffer, room)?;
            buffer[len] = b'\n';
        }
        self.write(&buffer[..end])?;
        self.ends_whole(end as u64);
        self.progress.advance(len);
        self.tell(len as u64);
        Ok(())
    }

    /// Messages of any size, part by part.
    fn parts(&mut self, mut receiver: Box<dyn PartReceiver>) -> Result<(), Failure> {
        let mut buffer = vec![0; PART_BYTES];
        let mut received = 0;
        let mut bytes = 0;
        // Where nothing is behind what a killed receiver left, another one may live, and take what would come.
        let mut passed_over: Option<Error> = None;
        while self.count == 0 || received < self.count {
            let came = match &passed_over {
                None => self.once(|deadline| receiver.recv_part(&mut buffer, deadline))?,
                Some(_) => receiver.recv_part(&mut buffer, Deadline::Now),
            };
            let part = match came {
                Err(error) if bytes == 0 && receiver.has_passed_over() => {
                    passed_over.replace(error).iter().for_each(|before| self.tell_trouble(before));
                    continue;
                }
                Err(error) if passed_over.is_some() && error.is_out_of_time() => {
                    return Err(Failure::from(passed_over.unwrap_or(error)).after(received, "messages"));
                }
                Err(error) if receiver.goes_on(&error, bytes > 0) => {
                    self.tell_trouble(&error);
                    continue;
                }
                Err(error) if bytes == 0 => return Err(Failure::from(error).after(received, "messages")),
                Err(error) => return Err(Failure::from(error).after(bytes, "bytes of a message")),
                Ok(part) => part,
            };
            passed_over.take().iter().for_each(|before| self.tell_trouble(before));
            let Some(part) = part else {
                if self.count == 0 || self.tells_end {
                    return self.ended(received);
                }
                // The mark of a sender whose messages went to an earlier receiver.
                continue;
            };
            self.write(&buffer[..part.bytes])?;
            self.progress.advance(part.bytes);
            bytes += part.bytes as u64;
            if part.last {
                if self.lines {
                    self.write(b"\n")?;
                }
                self.ends_whole(bytes + u64::from(self.lines));
                self.tell(bytes);
                received += 1;
                bytes = 0;
            }
        }
        Ok(())
    }

    fn tell(&self, bytes: u64) {
        let note = self.note.take();
        if self.verbose {
            failure::tell(&format!("{bytes} bytes{note}"));
        }
    }

    /// What is wrong with one of many messages is told, and the others are received.
    fn tell_trouble(&mut self, error: &Error) {
        self.troubles += 1;
        failure::say(&error.to_string());
    }

    /// Who wanted all messages learns by the exit code that not all was well; who wanted a number of them has them.
    fn verdict(&self, address: &Address) -> Result<(), Failure> {
        match self.troubles {
            1.. if self.count == 0 => {
                Err(Failure::failed(format!("not everything that came over {address} was received")))
            }
            _ => Ok(()),
        }
    }

    /// The sender closed after `received` messages.
    fn ended(&self, received: u64) -> Result<(), Failure> {
        match self.count {
            0 => Ok(()),
            count => Err(Failure::failed(format!("the sender closed after {received} of {count} messages"))),
        }
    }
}

/// Makes room in `buffer` for a message of so many bytes.
fn grow(buffer: &mut Vec<u8>, bytes: usize) -> Result<(), Failure> {
    resize(buffer, bytes).map_err(|limit| Failure::failed(format!("no memory for a message of {bytes} bytes; {limit}")))
}
