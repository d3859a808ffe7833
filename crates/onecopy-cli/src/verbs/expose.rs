//! `onecopy expose`: serves a window onto a file's bytes, which `onecopy fetch` copies out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use onecopy::channel::Policy;
use onecopy::message::unix_seqpacket::UnixSeqpacketListener;
use onecopy::open::Shape;
use onecopy::stream::pipe::PipeWriter;
use onecopy::stream::tcp::TcpListener;
use onecopy::stream::unix::UnixListener;
use onecopy::stream::{ByteWriter as _, fifo};
use onecopy::{Address, Deadline, Listener, Sender as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::{PTracer, set_ptracer};

use crate::endpoint::{self, Opening};
use crate::exposed::Exposed;
use crate::failure::{Failure, print};
use crate::interrupt;
use crate::queue::Outgoing;
use crate::share;

const AFTER_HELP: &str = "\
Examples:
  onecopy expose disk.img                              print the token, serve until interrupted
  onecopy expose disk.img --via unix:/run/user/1000/w  serve every `onecopy fetch` that connects
  onecopy expose disk.img --via mq:/windows --count 3  put three tokens into a queue
  pg_dump shop | onecopy expose - --via fifo:/tmp/f    a token for each reader of a FIFO

The other side takes the bytes out of this process by process_vm_readv(2), with one copy, which needs the permission that a \
debugger needs: the same user, or root. What it reads is the file as it is then.

Over unix: the bytes go by shared memory to whom the kernel does not permit that, another user for instance. So the mode of \
the socket's file (0777 less the umask), and that of its directory, say who gets them: `umask 0` lets everybody connect. They \
can read this file's bytes and nothing else. An abstract name, which has no mode, serves this user and root alone.

A token is a line of text, or a message. It tells an address and no data, and is worth nothing once this command has ended; \
one that nobody has taken by then stays in its queue or region, as that does until `onecopy rm`.";

/// How long who has its token may take to close. If it takes longer, it gets another one.
const CLOSING: Duration = Duration::from_millis(20);

/// The options of `expose`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The file; - is stdin, which is read to its end first, as everything is that has no length
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the token goes instead of stdout: unix:/path, fifo:/path, mq:/name, sysv-mq:KEY, shm:/name, ...
    #[arg(long, value_name = "ADDRESS", value_parser = endpoint::address_parser())]
    via: Option<Address>,
    /// How many tokens to send where each is taken by one reader (queues and regions); 1 unless said
    #[arg(long, value_name = "N", requires = "via", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Tell on stderr where this side listens
    #[arg(short, long)]
    verbose: bool,
    /// Fail when the FIFO, queue or region is missing, instead of creating it
    #[arg(long)]
    no_create: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let way = arguments.via.as_ref().map(|via| Way::new(via, arguments)).transpose()?;
    let exposed = Exposed::open(&arguments.file)?;
    permit_yama();
    match way {
        Some(way) => way.serve(exposed),
        None => {
            print(&format!("{}\n", exposed.token()))?;
            wait_for_the_end()
        }
    }
}

/// Where Yama restricts who attaches (ptrace_scope 1): this process exists to be read. It has the file's bytes and no others.
fn permit_yama() {
    // EINVAL is a kernel without Yama.
    let _ = set_ptracer(PTracer::Any);
}

/// The window is there for as long as the process, which a signal ends.
fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

/// How the token travels.
struct Way<'a> {
    address: &'a Address,
    opening: Opening<'a>,
    shape: Shape,
    count: u64,
    verbose: bool,
    create: bool,
}

impl<'a> Way<'a> {
    fn new(address: &'a Address, arguments: &Arguments) -> Result<Self, Failure> {
        let shape = endpoint::shape(address, "expose")?;
        if arguments.count.is_some() && is_for_each(address) {
            return Err(Failure::usage(format!("--count does not fit {address}, where each reader gets a token")));
        }
        let opening = Opening::new(address, shape, Deadline::Never)
            .listen(!endpoint::is_datagram(address))
            .create(!arguments.no_create)
            .tell(arguments.verbose);
        let (count, verbose, create) = (arguments.count.unwrap_or(1), arguments.verbose, !arguments.no_create);
        Ok(Self { address, opening, shape, count, verbose, create })
    }

    fn serve(&self, exposed: Exposed) -> Result<(), Failure> {
        let token = exposed.token().to_string();
        match self.address {
            Address::UnixStream(name) => {
                let listener = self.listen(|| UnixListener::bind(name))?;
                Err(share::serve(name, &listener, exposed))
            }
            Address::UnixSeqpacket(name) => {
                let listener = self.listen(|| UnixSeqpacketListener::bind(name))?;
                for_each(|| listener.accept_by(Deadline::Never)?.send(token.as_bytes()))
            }
            Address::Tcp(name) => {
                let listener = TcpListener::bind(name)?;
                endpoint::listening(&Address::Tcp(listener.local_address()?), self.verbose);
                for_each(|| listener.accept_by(Deadline::Never)?.write_all_by(&line(&token), Deadline::Never))
            }
            Address::Channel(name) => {
                let listener = self.listen(|| Listener::bind_with(name, &Policy::default()))?;
                for_each(|| listener.accept_by(Deadline::Never)?.send(token.as_bytes()))
            }
            Address::Fifo(path) => {
                self.create_fifo(path.as_path())?;
                for_each(|| fill_fifo(path.as_path(), &token))
            }
            address if is_for_each(address) => loop {
                self.once(&token)?;
                std::thread::sleep(CLOSING);
            },
            _ => self.counted(&token),
        }
    }

    /// Listens at the address by `bind`, which makes a file if that is a path.
    fn listen<T>(&self, bind: impl FnOnce() -> onecopy::Result<T>) -> Result<T, Failure> {
        interrupt::making(|| {
            let listener = bind()?;
            endpoint::listening(self.address, self.verbose);
            Ok(listener)
        })
    }

    fn create_fifo(&self, path: &Path) -> Result<(), Failure> {
        match self.create.then(|| fifo::create(path, 0o600)) {
            Some(Err(error)) if error.raw_os_error() != Some(Errno::EXIST.raw_os_error()) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The token for the next process that connects.
    fn once(&self, token: &str) -> Result<(), Failure> {
        let result = match self.shape {
            Shape::Bytes => {
                let mut writer = self.opening.writer()?;
                writer.write_all_by(&line(token), Deadline::Never).and_then(|()| writer.finish_by(Deadline::Never))
            }
            _ => {
                let mut sender = self.opening.sender(Outgoing::default())?;
                sender.send(token.as_bytes()).and_then(|()| sender.flush_by(Deadline::Never))
            }
        };
        Ok(unless_gone(result)?)
    }

    /// As many tokens as were asked for, for whoever takes them. The sender stays: who closes a ring says that no more comes.
    fn counted(&self, token: &str) -> Result<(), Failure> {
        if self.shape == Shape::Bytes {
            self.once(token)?;
            wait_for_the_end();
        }
        let mut sender = self.opening.sender(Outgoing::default())?;
        for _ in 0..self.count {
            match sender.send(token.as_bytes()).and_then(|()| sender.flush_by(Deadline::Never)) {
                // The one before has what it wanted; the next one waits elsewhere, or comes later.
                Err(error) if error.is_peer_gone() => {
                    drop(sender);
                    sender = self.opening.sender(Outgoing::default())?;
                    sender.send(token.as_bytes())?;
                }
                result => result?,
            }
        }
        wait_for_the_end()
    }
}

fn line(token: &str) -> Vec<u8> {
    format!("{token}\n").into_bytes()
}

/// Gives a token away again and again.
fn for_each(mut give: impl FnMut() -> onecopy::Result<()>) -> Result<(), Failure> {
    loop {
        unless_gone(give())?;
    }
}

/// Who went without its token wanted none.
fn unless_gone(result: onecopy::Result<()>) -> onecopy::Result<()> {
    match result {
        Err(error) if error.is_peer_gone() => Ok(()),
        result => result,
    }
}

/// A line for the reader that has the FIFO open. The end of the file comes after it, which a cat(1) waits for.
fn fill_fifo(path: &Path, token: &str) -> onecopy::Result<()> {
    let mut writer = fifo::open_writer(path, Deadline::Never)?;
    writer.write_all_by(&line(token), Deadline::Never)?;
    // Until it was read: a second line behind it would be one too many. Where the reader closes instead, it goes with the writer.
    while ioctl_fionread(&writer).is_ok_and(|bytes| bytes > 0) && has_reader(&writer) {
        std::thread::sleep(CLOSING);
    }
    drop(writer);
    std::thread::sleep(CLOSING);
    Ok(())
}

fn has_reader(writer: &PipeWriter) -> bool {
    let mut polled = [PollFd::new(writer, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    !poll(&mut polled, Some(&at_once)).is_ok_and(|_| polled[0].revents().contains(PollFlags::ERR))
}

/// Whether every reader meets this side by itself, so that each can be given a token.
fn is_for_each(address: &Address) -> bool {
    matches!(
        address,
        Address::Channel(_)
            | Address::Fifo(_)
            | Address::Pty(_)
            | Address::UnixStream(_)
            | Address::UnixDgram(_)
            | Address::UnixSeqpacket(_)
            | Address::Tcp(_)
            | Address::Sctp(_)
    )
}
