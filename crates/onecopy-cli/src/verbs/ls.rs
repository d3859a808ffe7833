//! `onecopy ls`: which objects exist on this machine, who uses them, how full they are, and what the dead left behind.

mod dev_shm;
mod fifos;
mod filter;
mod inet_sockets;
mod json;
mod leftover;
mod locks;
mod mounts;
mod nameless;
mod object;
mod places;
mod posix_mq;
mod processes;
mod ptys;
pub(super) mod stale;
mod sysv;
mod sysv_mq;
mod sysv_sem;
mod sysv_shm;
mod text;
mod unix_sockets;
mod watch;

use onecopy::Mechanism;
use rustix::process::geteuid;

pub(super) use self::filter::{Filter, Selection};
use self::object::Object;
use self::places::Found;
use self::processes::Processes;
use crate::failure::{self, Failure, plain};

const EXAMPLES: &str = "\
Examples:
  onecopy ls                          what has a name
  onecopy ls --all --pid 1234         all that one process uses
  onecopy ls --kind posix-mq,sysv-mq  queues, and how full they are
  onecopy ls --watch                  what appears (+), changes (~) and goes (-)
  onecopy ls --json                   for a program to read

Shown are message queues, shared memory, semaphores, bound and listening sockets, channels, FIFOs that are open, published terminals \
and locks on files; with --all or --pid also what has no name: pipes, eventfds, memfds, connected sockets, files that several have mapped, \
terminals and FIFOs that nobody has open. An ADDRESS is good for every other verb. A channel at a path is a unix-seqpacket socket, as which it is shown; and one of \
another user is shown by its socket's name.

USED is an object that a process has open, mapped or bound; UNUSED one that none has; UNKNOWN, when some processes could not be looked \
at. For System V queues and semaphores the kernel does not say.

STALE, and removed by `rm --stale`, is only what is proved to be left by the dead: a socket file to which no socket is bound, for none ever \
can be again; a link to a pseudoterminal that is gone; System V shared memory without a key (IPC_PRIVATE) to which nobody is attached any more, whose \
creator and last user have exited; POSIX shared memory with a ring (or the like) whose sender was killed, and whose receiver was killed or has closed, \
or whose maker died over it; and a named semaphore whose maker died before it had its name. Other memory that nobody uses may be somebody's data, and is never stale; nor is a queue, another semaphore, a FIFO or \
a file with a lock.

Files are looked for in /tmp, /run, each directory of /run/user, $TMPDIR and $XDG_RUNTIME_DIR, and at most two directories below each, on the same file system; or with \
--in, there. Stale socket files are told on local file systems alone, and not below a directory into which an overlay writes, as that of a \
container does; whether other machines use a directory (NFS, virtiofs) cannot be seen where it is local.";

/// The options of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Also what has no name
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selection: Selection,
    /// Only what this process has open or mapped, is attached to, waits for or made; also what has no name
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// Go on, and tell what appears, changes and goes, one event a line
    #[arg(long)]
    watch: bool,
    /// Print one JSON object; with --watch, one for each event
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let filter = Filter::new(&arguments.selection)?.of_process(arguments.pid).with_nameless(arguments.all);
    if arguments.watch {
        return watch::run(&filter, arguments.json);
    }
    let survey = survey(&filter)?;
    if arguments.json {
        return failure::print(&json::text(&survey)?);
    }
    failure::print(&text::table(&survey.objects))?;
    survey.notes.iter().for_each(|note| failure::say(note));
    Ok(())
}

/// What was found, and what could not be.
#[derive(Debug)]
struct Survey {
    objects: Vec<Object>,
    /// How many processes could not be looked at; `None` where /proc does not even tell their number.
    unseen: Option<usize>,
    /// What is missing from `objects`, and how it could be had.
    notes: Vec<String>,
}

/// The mechanisms whose users are told by what they have mapped.
const MAPPED: &[Mechanism] = &[
    Mechanism::PosixShm,
    Mechanism::SysvShm,
    Mechanism::FileMapping,
    Mechanism::AnonymousMapping,
    Mechanism::PosixNamedSemaphore,
    Mechanism::PosixUnnamedSemaphore,
    Mechanism::Futex,
    Mechanism::Mutex,
    Mechanism::Condvar,
    Mechanism::Barrier,
    Mechanism::Rwlock,
];

/// More than are open at once while this command looks.
const DESCRIPTORS: usize = 16;

/// Looks at everything that `filter` may take.
fn survey(filter: &Filter) -> Result<Survey, Failure> {
    check_descriptors()?;
    // Files come first: whatever is bound to one of them is seen afterwards, if it still is.
    let (found, mut notes) = files(filter)?;
    let processes = Processes::look(filter.wants(MAPPED))?;
    filter.check_process(&processes)?;
    let mut objects = objects(filter, &found, &processes, &mut notes);
    objects.retain(|object| filter.takes(object));
    filter.pid.iter().for_each(|pid| objects.iter_mut().for_each(|object| object.seen_from(*pid)));
    sort_and_merge(&mut objects);
    notes.extend(unseen(&processes));
    let unseen = (!processes.hidden).then_some(processes.unseen);
    Ok(Survey { objects, unseen, notes })
}

/// Fails where there are too few descriptors: what cannot be opened for that reason would look as if it were not there.
fn check_descriptors() -> Result<(), Failure> {
    let spare: Result<Vec<_>, _> = (0..DESCRIPTORS).map(|_| std::fs::File::open("/")).collect();
    spare.map(drop).map_err(|error| Failure::failed(format!("cannot look at all there is: {}", plain(&error))))
}

fn files(filter: &Filter) -> Result<(Vec<Found>, Vec<String>), Failure> {
    use Mechanism::{Fifo, Pty, UnixDgram, UnixSeqpacket, UnixStream};
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    if !filter.wants(&[Fifo, Pty, UnixDgram, UnixSeqpacket, UnixStream]) {
        return Ok((found, notes));
    }
    let places = filter.directory.clone().map_or_else(places::usual, |directory| vec![directory]);
    for place in places {
        match places::look(&place) {
            Ok((files, is_cut)) => {
                found.extend(files);
                if is_cut {
                    notes.push(format!("{} holds too many files to look at all of them (see --in)", place.display()));
                }
            }
            Err(failure) if filter.directory.is_some() => return Err(failure),
            Err(_) => {}
        }
    }
    Ok((found, notes))
}

fn objects(filter: &Filter, found: &[Found], processes: &Processes, notes: &mut Vec<String>) -> Vec<Object> {
    use Mechanism::{
        AnonymousMapping, Barrier, Condvar, Eventfd, Fifo, FileLock, FileMapping, Futex, Mutex, Pipe, PosixMq,
        PosixNamedSemaphore, PosixShm, PosixUnnamedSemaphore, Pty, RecordLock, Rwlock, Sctp, SysvMq, SysvSemaphore,
        SysvShm, Tcp, Udp, UnixDgram, UnixSeqpacket, UnixStream,
    };
    let mut objects = Vec::new();
    if filter.wants(&[PosixMq]) {
        let (queues, note) = posix_mq::objects(processes);
        objects.extend(queues);
        notes.extend(note.filter(|_| filter.directory.is_none()));
    }
    if filter.wants(&[SysvMq]) {
        objects.extend(sysv_mq::objects());
    }
    if filter.wants(&[SysvShm]) {
        objects.extend(sysv_shm::objects(processes));
    }
    if filter.wants(&[SysvSemaphore]) {
        objects.extend(sysv_sem::objects());
    }
    if filter.wants(&[PosixShm, PosixNamedSemaphore, PosixUnnamedSemaphore, Futex, Mutex, Condvar, Barrier, Rwlock]) {
        objects.extend(dev_shm::objects(processes));
    }
    if filter.wants(&[UnixStream, UnixDgram, UnixSeqpacket]) {
        objects.extend(unix_sockets::objects(found, filter.wants_nameless(), processes));
    }
    if filter.wants(&[Tcp, Udp, Sctp]) {
        objects.extend(inet_sockets::objects(filter.wants_nameless(), processes));
    }
    if filter.wants(&[Fifo]) {
        objects.extend(fifos::objects(found, processes));
    }
    if filter.wants(&[Pty]) {
        objects.extend(ptys::objects(found, processes));
    }
    if filter.wants(&[RecordLock, FileLock]) {
        objects.extend(locks::objects(processes));
    }
    if filter.wants_nameless() && filter.wants(&[Pipe, Eventfd, AnonymousMapping, FileMapping, PosixShm]) {
        objects.extend(nameless::objects(processes));
    }
    objects
}

/// In the order of the mechanisms, and then of the addresses. Several sockets at one address (SO_REUSEPORT) are one object.
fn sort_and_merge(objects: &mut Vec<Object>) {
    objects.sort_by(|one, other| (one.kind, &one.label).cmp(&(other.kind, &other.label)));
    objects.dedup_by(|later, first| {
        let is_same = later.kind == first.kind && later.label == first.label && later.address.is_some();
        if is_same {
            for user in later.users.drain(..) {
                if !first.users.iter().any(|known| known.pid == user.pid) {
                    first.users.push(user);
                }
            }
        }
        is_same
    });
}

/// What is not seen, and why.
fn unseen(processes: &Processes) -> Vec<String> {
    let mut notes = Vec::new();
    if processes.unseen > 0 {
        let remedy = if geteuid().is_root() { "" } else { ": run as root to see all" };
        let processes = text::processes(processes.unseen);
        notes.push(format!("{processes} could not be looked at, and may use some of these{remedy}"));
    }
    if processes.hidden {
        notes.push("this /proc hides the processes of other users (hidepid): run as root to see all".into());
    }
    notes
}
