//! Interrupts: whatever a verb created for itself goes, then the process ends with 128 and the signal's number.
//!
//! A thread waits for the signals, so no handler runs code of ours.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use signal_hook::iterator::{Handle, SignalsInfo};

use crate::failure::{Failure, plain, unstarted};

/// How long a signal that is put off may wait.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// What a signal of the kernel itself, a terminal's for instance, came by (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// The files to remove when a signal ends the process.
static FILES: Mutex<Vec<Transient>> = Mutex::new(Vec::new());
/// Whether a file is being made that is not remembered yet.
static MAKING: AtomicBool = AtomicBool::new(false);
/// Adds signals to those that are waited for.
static HANDLE: OnceLock<Handle> = OnceLock::new();
/// What a signal does.
static TARGET: Mutex<Target> = Mutex::new(Target::Process);

/// Whom a signal is for.
#[derive(Debug)]
enum Target {
    /// This process, which ends.
    Process,
    /// This process, which ends by itself as soon as it can: what came first.
    Later(Option<i32>),
    /// The command that gets the signals in the place of this process.
    Command(OwnedFd),
}

/// A file that a verb made for itself. The inode tells it from one that somebody else put there since.
#[derive(Debug, PartialEq, Eq)]
struct Transient {
    path: PathBuf,
    inode: (u64, u64),
}

/// Starts to wait for SIGINT, SIGTERM, SIGHUP and SIGQUIT; one that is ignored, as nohup(1) does, stays ignored.
pub(crate) fn watch() -> Result<(), Failure> {
    let mut signals = SignalsInfo::<WithRawSiginfo>::new(unless_ignored(&[SIGHUP, SIGINT, SIGQUIT, SIGTERM]))
        .map_err(|error| Failure::failed(format!("cannot handle signals: {}", plain(&error))))?;
    let _ = HANDLE.set(signals.handle());
    let wait = move || {
        for signal in signals.forever() {
            if !forward(signal.si_signo, signal.si_code) {
                let end = Instant::now() + SLICE;
                while MAKING.load(Ordering::SeqCst) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(1));
                }
                remove_all();
                signal_hook::low_level::exit(128 + signal.si_signo);
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .map(|_| ())
        .map_err(|error| Failure::failed(format!("cannot start a thread: {}", unstarted(&error))))
}

/// Has a write beyond the limit of files (`ulimit -f`) fail, where SIGXFSZ would end this process before it could say so. A handler,
/// which a command that is run does not inherit, does that as well as ignoring the signal.
pub(crate) fn survive_long_files() -> Result<(), Failure> {
    unless_ignored(&[SIGXFSZ]).into_iter().try_for_each(|signal| {
        signal_hook::flag::register(signal, Arc::default())
            .map(drop)
            .map_err(|error| Failure::failed(format!("cannot handle signals: {}", plain(&error))))
    })
}

/// From now on a signal does not end this process, which may come to hold what does not come back by that: it has to ask for
/// [`put_off`] again and again, or to start a command.
pub(crate) fn put_off_signals() {
    *target() = Target::Later(None);
}

/// The signal that has come since, if one has.
pub(crate) fn put_off() -> Option<Failure> {
    match *target() {
        Target::Later(signal) => signal.map(Failure::Interrupted),
        _ => None,
    }
}

fn target() -> MutexGuard<'static, Target> {
    TARGET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a command by `spawn`, and from then on passes the signals on to it, whose end then ends this process. These are more
/// then than those that end other verbs: what this process holds for the command it keeps until that has ended.
///
/// # Errors
///
/// [`Failure::Interrupted`] by a signal that was put off; and within that what `spawn` says.
pub(crate) fn spawn_and_forward(spawn: impl FnOnce() -> io::Result<Child>) -> Result<io::Result<Child>, Failure> {
    // Held across the start, so that no signal ends this process between the two steps.
    let mut target = target();
    if let Target::Later(Some(signal)) = *target {
        return Err(Failure::Interrupted(signal));
    }
    Ok(spawn_for(&mut target, spawn))
}

fn spawn_for(target: &mut Target, spawn: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    if let Some(handle) = HANDLE.get() {
        unless_ignored(&[SIGUSR1, SIGUSR2]).into_iter().try_for_each(|signal| handle.add_signal(signal))?;
    }
    let mut child = spawn()?;
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(fd) => *target = Target::Command(fd),
        Err(errno) => {
            // Nothing could reach it. It may have ended by itself meanwhile.
            let _ = child.kill();
            child.wait()?;
            return Err(errno.into());
        }
    }
    Ok(child)
}

/// Whether there is a command that gets the signal, or this process ends by itself. `code` says what the signal came by.
fn forward(signal: i32, code: i32) -> bool {
    let mut target = target();
    let command = match &mut *target {
        Target::Process => return false,
        Target::Later(first) => {
            first.get_or_insert(signal);
            return true;
        }
        Target::Command(command) => command,
    };
    // ^C and ^\ on the terminal reach the command by themselves, since it belongs to the same foreground group.
    let is_typed = matches!(signal, SIGINT | SIGQUIT) && code == SI_KERNEL;
    if let Some(signal) = Signal::from_named_raw(signal).filter(|_| !is_typed) {
        // A command that has ended is noticed by whoever waits for it.
        let _ = pidfd_send_signal(command, signal);
    }
    true
}

/// A file that goes when this is dropped, and when a signal ends the process.
#[derive(Debug)]
pub(crate) struct Guard(PathBuf);

/// Guards the file at `path`, which this process has just created.
pub(crate) fn guard(path: &Path) -> Guard {
    remember(path);
    Guard(path.to_owned())
}

/// Calls `make`, which may make a file, and have it remembered by [`remember`] at once: a signal that comes in between ends the process a
/// moment later.
pub(crate) fn making<T>(make: impl FnOnce() -> T) -> T {
    MAKING.store(true, Ordering::SeqCst);
    let made = make();
    MAKING.store(false, Ordering::SeqCst);
    made
}

/// Has a signal that ends the process remove the file at `path`, which this process has just created and otherwise removes
/// by itself.
pub(crate) fn remember(path: &Path) {
    if let Some(inode) = inode(path) {
        lock().push(Transient { path: path.to_owned(), inode });
    }
    MAKING.store(false, Ordering::SeqCst);
}

impl Guard {
    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves the file where it is.
    pub(crate) fn keep(self) {
        lock().retain(|file| file.path != self.0);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock().retain(|file| {
            if file.path == self.0 {
                file.remove();
            }
            file.path != self.0
        });
    }
}

impl Transient {
    fn remove(&self) {
        if inode(&self.path) == Some(self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn remove_all() {
    for file in lock().drain(..) {
        file.remove();
    }
}

fn lock() -> MutexGuard<'static, Vec<Transient>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()))
}

/// Those of `signals` that this process did not inherit as ignored.
fn unless_ignored(signals: &[i32]) -> Vec<i32> {
    let ignored = ignored_signals();
    signals.iter().copied().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect()
}

/// The signals that this process inherited as ignored, as a mask whose bit 0 is signal 1 (proc_pid_status(5)).
fn ignored_signals() -> u64 {
    let status = crate::io::own_status().unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_file_goes_and_a_kept_or_replaced_one_stays() {
        let path = std::env::temp_dir().join(format!("onecopy-guard-{}", std::process::id()));
        std::fs::write(&path, "mine").unwrap();
        drop(guard(&path));
        assert!(!path.exists());
        std::fs::write(&path, "kept").unwrap();
        guard(&path).keep();
        let guarded = guard(&path);
        let other = path.with_extension("other");
        std::fs::write(&other, "somebody else's").unwrap();
        std::fs::rename(&other, &path).unwrap();
        drop(guarded);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody else's");
        std::fs::remove_file(&path).unwrap();
    }
}
