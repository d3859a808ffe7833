//! Row 3, the pseudoterminal: [pty(7)](https://man7.org/linux/man-pages/man7/pty.7.html).
//!
//! The master makes the terminal and publishes its slave side under a link; any program that opens the link talks with the
//! master. Both sides are in raw mode: every byte passes unchanged, and neither ^C nor ^Z is a signal. Neither side becomes
//! anybody's controlling terminal. The slave side has mode 0600: only the same user can open it.
//!
//! The master reads the end of file when the last slave has closed, and not before the first came; a slave that comes later
//! makes the stream go on, and it finds what the slave before it left unread. The other way it is different: **what a slave
//! has not read when the master closes is thrown away** by the kernel. [`PtyMaster::drain_by`] waits until everything was
//! read.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::PollFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags, chmod, open, stat};
use rustix::io::{Errno, ioctl_fionread};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, SpecialCodeIndex, isatty, tcgetattr, tcsetattr};

use super::duplex::duplex_stream;
use crate::address::path_text;
use crate::io::descriptor::Descriptor;
use crate::io::published_link::PublishedLink;
use crate::io::socket::set_nonblocking;
use crate::io::wait::{Backoff, wait_events, wait_for};
use crate::{Deadline, Error, Result};

/// How often the terminal must look empty before it is.
///
/// The kernel keeps 4095 bytes in the terminal and up to 8 KiB and a remainder in the buffer before it, which FIONREAD does
/// not count. A reader that empties the terminal asks for the rest to be moved only at the end of its read, so for a moment
/// nothing seems to be there. FIONREAD waits for the end of such a read, and poll(2) for the move: each look that finds
/// nothing has moved 4095 bytes to a reader that was faster, or there were none. Sixteen looks are enough for 64 KiB;
/// measured were 14 KiB in all.
const EMPTY_LOOKS: usize = 16;

/// The side of a pseudoterminal that made it.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::stream::pty::{PtyMaster, PtySlave};
/// use onecopy::stream::{ByteReader, ByteWriter};
///
/// let link = std::env::temp_dir().join(format!("onecopy-example-pty-{}", std::process::id()));
/// let mut master = PtyMaster::create(&link)?;
/// let mut slave = PtySlave::open(&link, Deadline::Never)?;
/// master.write_all_by(b"raw\r\n\x03", Deadline::Never)?;
/// let mut buffer = [0; 16];
/// assert_eq!(slave.read_by(&mut buffer, Deadline::Never)?, 6);
/// assert_eq!(&buffer[..6], b"raw\r\n\x03");
/// master.drain_by(Deadline::Never)?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct PtyMaster {
    /// Dropped first, so that the link never leads to another terminal that got the same number.
    link: PublishedLink,
    master: Master,
}

impl PtyMaster {
    /// Makes a pseudoterminal whose slave side is found under `link`. A link that a killed process left is replaced; dropping
    /// the master removes the link, unless it leads elsewhere by then.
    ///
    /// # Errors
    ///
    /// EEXIST when anything has the path but a link to a terminal that is gone; EAGAIN when there are no more
    /// pseudoterminals (`/proc/sys/kernel/pty/max`).
    pub fn create(link: &Path) -> Result<Self> {
        let object = object_of(link);
        let fd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .map_err(|errno| open_master_error(&object, errno))?;
        set_raw(&fd, &object)?;
        let slave = slave_of(&fd, &object)?;
        // Nobody can open the slave before it is unlocked.
        chmod(&slave, Mode::RUSR | Mode::WUSR).map_err(|errno| Error::os("chmod", &object, errno))?;
        unlockpt(&fd).map_err(|errno| Error::os("ioctl(TIOCSPTLCK)", &object, errno))?;
        // A write that waits for room would not be woken when the last slave closes, so it waits in poll(2).
        set_nonblocking(&fd, true, &object)?;
        let opened = OpenWatch::new(&slave);
        let link = PublishedLink::create(link, slave, &object)?;
        let terminal = Descriptor::terminal(fd, object)?;
        Ok(Self { link, master: Master { terminal, opened, written: AtomicBool::new(false) } })
    }

    /// The file of the slave side, `/dev/pts/N`.
    #[must_use]
    pub fn slave_path(&self) -> &Path {
        self.link.target()
    }

    /// Waits until `deadline` for the first process that opens the slave side.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when none came.
    pub fn wait_for_slave_by(&self, deadline: Deadline) -> Result<()> {
        self.master.opened.wait(deadline, self.master.object())
    }

    /// Waits until the other side has read everything that was written, or `deadline`. Without that, bytes that are not yet
    /// read are lost when the master is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::PeerGone`] when no process has the slave side open any more and bytes are left;
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when bytes are left, or no slave came yet.
    pub fn drain_by(&self, deadline: Deadline) -> Result<()> {
        self.master.drain_by(deadline)
    }
}

duplex_stream!(master: PtyMaster, &PtyMaster);

impl AsFd for PtyMaster {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.terminal.as_fd()
    }
}

#[derive(Debug)]
struct Master {
    terminal: Descriptor,
    opened: OpenWatch,
    /// Whether anything was written. Relaxed: it only spares a drain that has nothing to wait for.
    written: AtomicBool,
}

impl Master {
    fn object(&self) -> &str {
        self.terminal.object()
    }

    fn read_stream_by(&self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
        read_to_hang_up(&self.terminal, buffers, deadline)
    }

    /// The kernel would take bytes although nobody has the slave open any more, so that is asked first.
    fn write_stream_by(&self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        self.written.store(true, Ordering::Relaxed);
        loop {
            let events = wait_events(self.terminal.as_fd(), PollFlags::OUT, deadline, "send", self.object())?;
            if events.contains(PollFlags::HUP) {
                return Err(self.gone("no process has the slave side open any more"));
            }
            match self.terminal.write_vectored_by(buffers, Deadline::Now) {
                Err(error) if error.is_out_of_time() && deadline != Deadline::Now => {}
                result => return result,
            }
        }
    }

    fn finish_stream_by(&self, deadline: Deadline) -> Result<()> {
        self.drain_by(deadline)
    }

    fn drain_by(&self, deadline: Deadline) -> Result<()> {
        if !self.written.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.opened.wait(deadline, self.object())?;
        let mut backoff = Backoff::new();
        loop {
            // Asked before the count: what a slave reads last, it reads before it closes.
            let hung_up = self.is_hung_up()?;
            let unread_bytes = self.unread_bytes()?;
            if unread_bytes == 0 {
                return Ok(());
            }
            if hung_up {
                return Err(self.gone(&format!("it left at least {unread_bytes} bytes unread")));
            }
            backoff.pause(deadline, "drain", self.object())?;
        }
    }

    fn is_hung_up(&self) -> Result<bool> {
        match wait_events(self.terminal.as_fd(), PollFlags::empty(), Deadline::Now, "drain", self.object()) {
            Ok(events) => Ok(events.contains(PollFlags::HUP)),
            Err(error) if error.is_out_of_time() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How many bytes wait for a slave, as far as the terminal counts them: there may be more in the buffer before it. Only the
    /// slave side can be asked, so it is opened for a moment.
    ///
    /// Not to be called before a slave came: closing this one would look like the end of file.
    fn unread_bytes(&self) -> Result<u64> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&self.terminal, flags)
            .map_err(|errno| Error::os("ioctl(TIOCGPTPEER)", self.object(), errno))?;
        let count = || ioctl_fionread(&slave).map_err(|errno| Error::os("ioctl(FIONREAD)", self.object(), errno));
        for _ in 0..EMPTY_LOOKS {
            let bytes = count()?;
            if bytes > 0 {
                return Ok(bytes);
            }
            match wait_for(slave.as_fd(), PollFlags::IN, Deadline::Now, "drain", self.object()) {
                Err(error) if !error.is_out_of_time() => return Err(error),
                _ => {}
            }
        }
        count()
    }

    fn gone(&self, detail: &str) -> Error {
        Error::PeerGone { object: self.object().into(), detail: detail.into() }
    }
}

/// Tells whether the slave side was ever opened, which the master itself cannot say. Without inotify, of which a user has
/// `/proc/sys/fs/inotify/max_user_instances`, it says yes.
#[derive(Debug)]
struct OpenWatch(Option<OwnedFd>);

impl OpenWatch {
    fn new(slave: &Path) -> Self {
        let watch = || {
            let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            inotify::add_watch(&fd, slave, WatchFlags::OPEN)?;
            Ok::<_, Errno>(fd)
        };
        Self(watch().ok())
    }

    /// The event is left where it is: once opened stays once opened.
    fn wait(&self, deadline: Deadline, object: &str) -> Result<()> {
        match &self.0 {
            Some(fd) => wait_for(fd.as_fd(), PollFlags::IN, deadline, "wait for the slave", object),
            None => Ok(()),
        }
    }
}

/// The side of a pseudoterminal that finds it by its link.
#[derive(Debug)]
pub struct PtySlave {
    slave: Slave,
}

impl PtySlave {
    /// Opens the slave side under `link` (or `/dev/pts/N` itself), waiting until `deadline` for a master to publish it, and puts it
    /// in raw mode, whoever made it.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none appeared in time, and with [`Deadline::Now`] ENOENT; [`Error::Invalid`] when the file is no
    /// terminal; EACCES for another user's.
    pub fn open(link: &Path, deadline: Deadline) -> Result<Self> {
        let object = object_of(link);
        let mut backoff = Backoff::new();
        let fd = loop {
            match open_slave(link, &object) {
                Ok(fd) => break fd,
                Err(error) if !may_come(&error) || deadline == Deadline::Now => return Err(error),
                Err(_) => backoff.pause_for(UNPUBLISHED, deadline, "open", &object)?,
            }
        };
        set_raw(&fd, &object)?;
        set_nonblocking(&fd, false, &object)?;
        Ok(Self { slave: Slave { terminal: Descriptor::terminal(fd, object)? } })
    }
}

duplex_stream!(slave: PtySlave, &PtySlave);

impl AsFd for PtySlave {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.slave.terminal.as_fd()
    }
}

#[derive(Debug)]
struct Slave {
    terminal: Descriptor,
}

impl Slave {
    fn object(&self) -> &str {
        self.terminal.object()
    }

    fn read_stream_by(&self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
        read_to_hang_up(&self.terminal, buffers, deadline)
    }

    fn write_stream_by(&self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        self.terminal.write_vectored_by(buffers, deadline).map_err(|error| match error.raw_os_error() {
            Some(libc::EIO) => Error::PeerGone { object: self.object().into(), detail: "the master is closed".into() },
            _ => error,
        })
    }

    /// The master finds what a slave wrote before it closed.
    fn finish_stream_by(&self, _deadline: Deadline) -> Result<()> {
        Ok(())
    }
}

/// A hang-up is the end of file. The master is told EIO, after all that the slaves wrote; a slave is told either.
fn read_to_hang_up(terminal: &Descriptor, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
    match terminal.read_vectored_by(buffers, deadline) {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
        result => result,
    }
}

fn object_of(link: &Path) -> String {
    format!("pty:{}", path_text(link))
}

fn open_master_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("posix_openpt", object, errno);
    match errno {
        Errno::AGAIN | Errno::NOSPC => {
            error.with_remedy("there are no more pseudoterminals: raise /proc/sys/kernel/pty/max")
        }
        _ => error,
    }
}

/// Every byte unchanged, a read as soon as there is one. On the master's descriptor this sets the slave's mode too.
fn set_raw(fd: &OwnedFd, object: &str) -> Result<()> {
    let mut attributes = tcgetattr(fd).map_err(|errno| Error::os("tcgetattr", object, errno))?;
    attributes.make_raw();
    attributes.special_codes[SpecialCodeIndex::VMIN] = 1;
    attributes.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(fd, OptionalActions::Now, &attributes).map_err(|errno| Error::os("tcsetattr", object, errno))
}

fn slave_of(master: &OwnedFd, object: &str) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let name = ptsname(master, Vec::new()).map_err(|errno| Error::os("ptsname", object, errno))?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes())))
}

/// Opens the slave, and refuses before and after what is no terminal: opening another device could do something.
fn open_slave(link: &Path, object: &str) -> Result<OwnedFd> {
    let no_terminal = || Error::Invalid { object: object.into(), reason: "the file there is no terminal".into() };
    let found = stat(link).map_err(|errno| open_slave_error(object, errno))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice {
        return Err(no_terminal());
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = open(link, flags, Mode::empty()).map_err(|errno| open_slave_error(object, errno))?;
    if isatty(&fd) { Ok(fd) } else { Err(no_terminal()) }
}

const UNPUBLISHED: &str = "no pseudoterminal is published there";

fn open_slave_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("open", object, errno);
    match errno {
        Errno::NOENT => error.with_remedy(UNPUBLISHED),
        _ => error,
    }
}

/// Whether a master may publish it yet: there is nothing, a link that a dead one left, or a terminal that closes.
fn may_come(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EIO | libc::EINTR))
}
