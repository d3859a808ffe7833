//! Row 20, the System V semaphore: [sysvipc(7)](https://man7.org/linux/man-pages/man7/sysvipc.7.html),
//! [semop(2)](https://man7.org/linux/man-pages/man2/semop.2.html).
//!
//! A set of counters with a key and an identifier, which lives until it is removed or the machine stops (`ipcs -s` lists all,
//! `ipcrm` removes). One call changes several of a set, all at one moment or none; a counter can be waited for to become 0.
//!
//! **A process that dies** gives back what it had taken with undo ([`Operation::with_undo`], and [`Lock`] always): the kernel
//! adds up what it owes for each process, its threads together, and pays when it ends, however it ends. That is not inherited
//! by fork, is kept over exec, is forgotten when a value is set, and never takes a value below 0. What was done without undo
//! stays done. A waiter that dies leaves nothing.
//!
//! **Whoever may change the set** can take and add without end, set any value, which makes the kernel forget all undo of it, and
//! whoever owns or created it can remove it, upon which all who wait get EIDRM. Give it a mode that lets in only whom you
//! trust with that.
//!
//! **A new set is there before it has its values.** This library sets them and ends with a semop, as semget(2) proposes, and
//! waits for that when it opens a set: for two seconds at most, for the sake of creators that never call semop. So sets of
//! this library and of others can be opened in either direction.

mod errors;
mod initialise;
mod operation;
mod status;

use std::io;

use super::{Acquired, Held, Lock, Mode, Notify, Wait, held_already, no_shared_mode, not_held};
use crate::io::mode::permissions;
use crate::sys::sysv::{Ident, is_removed};
use crate::sys::sysv_sem::{self, ANY_COUNT, Values};
use crate::{Deadline, Error, Result, SysvName};

use errors::getting_error;
use initialise::Found;
pub use operation::Operation;
pub use status::SetStatus;

/// The highest value (SEMVMX).
const VALUE_MAX: u16 = 32_767;
/// The right of the owner to read and to change.
const OWNER_MODE: u32 = 0o600;

/// A set of System V semaphores.
///
/// [`Lock`], [`Notify`] and [`Wait`] use one of them, the first unless [`SysvSemaphore::set_index`] chooses another.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::sync::sysv_semaphore::{Operation, SysvSemaphore};
///
/// let set = SysvSemaphore::create_private(&[1, 5], 0o600)?;
/// set.operate_by(&[Operation::new(0, -1).with_undo(), Operation::new(1, -2).with_undo()], Deadline::Never)?;
/// assert_eq!(set.values()?, [0, 3]);
/// set.remove()?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct SysvSemaphore {
    id: i32,
    object: String,
    /// `None` where this user may not know.
    count: Option<usize>,
    /// The one that the traits use.
    index: u16,
    /// Whether [`Lock`] has taken one.
    held: Held,
}

impl SysvSemaphore {
    /// Creates a set that must not exist yet, with a semaphore for each of `values`. The mode is taken exactly.
    ///
    /// # Errors
    ///
    /// EEXIST when there is a set with this key; EINVAL and ENOSPC beyond kernel.sem, with the numbers; [`Error::Invalid`] for
    /// no values, for one above 32767, for a mode beyond 0777 and for an identifier, which only the kernel chooses; ENOENT when
    /// the file that makes the key is missing.
    pub fn create(name: &SysvName, values: &[u16], mode: u32) -> Result<Self> {
        let object = object_of(name);
        let key = key_of(name, &object)?;
        Self::create_by(key, values, mode, object)
    }

    /// Creates a set without a key (IPC_PRIVATE): others open it by its [`SysvSemaphore::id`].
    ///
    /// # Errors
    ///
    /// As [`SysvSemaphore::create`].
    pub fn create_private(values: &[u16], mode: u32) -> Result<Self> {
        let mut set = Self::create_by(libc::IPC_PRIVATE, values, mode, "sysv-sem: a private set".into())?;
        set.object = format!("sysv-sem:id={}", set.id);
        Ok(set)
    }

    fn create_by(key: i32, values: &[u16], mode: u32, object: String) -> Result<Self> {
        check_values(values, &object)?;
        let mode = permissions(mode, &object)?.bits();
        // The kernel would not let its own creator give it values otherwise.
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | (mode | OWNER_MODE).cast_signed();
        let count = values.len();
        let id = sysv_sem::get(key, i32::try_from(count).unwrap_or(i32::MAX), flags)
            .map_err(|error| getting_error(&object, count, error))?;
        let made = initialise::set(id, values).and_then(|()| match mode & OWNER_MODE {
            OWNER_MODE => Ok(()),
            _ => sysv_sem::set_mode(id, mode as u16),
        });
        match made {
            Ok(()) => Ok(Self { id, object, count: Some(count), index: 0, held: Held::default() }),
            Err(error) => {
                // Without its values it is of no use to anybody.
                let _ = sysv_sem::remove(id);
                Err(Error::os("semctl", object, error))
            }
        }
    }

    /// Opens a set that exists, and waits until its creator has given it its values: see the module.
    ///
    /// # Errors
    ///
    /// ENOENT when no set has the key; EINVAL when none has the identifier; EACCES.
    pub fn open(name: &SysvName) -> Result<Self> {
        let object = object_of(name);
        let id = match name.resolve(&object)? {
            Ident::Key(key) => sysv_sem::get(key, ANY_COUNT, 0).map_err(|error| getting_error(&object, 0, error))?,
            Ident::Id(id) => id,
        };
        let Found { count, .. } = initialise::wait(id, &object)?;
        Ok(Self { id, object, count, index: 0, held: Held::default() })
    }

    /// Opens the set if it exists, whatever its values, and creates it with `values` and `mode` otherwise. Any number of
    /// processes may do so at once; all get the same one.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with both numbers when it exists and has fewer semaphores; [`Error::Corrupt`] when nobody has ever
    /// given it a value, though `values` are not 0: its creator has died of it; otherwise as [`SysvSemaphore::create`] and
    /// [`SysvSemaphore::open`].
    pub fn open_or_create(name: &SysvName, values: &[u16], mode: u32) -> Result<Self> {
        let object = object_of(name);
        let key = key_of(name, &object)?;
        loop {
            // At any point another process may remove it or create it: then the turn starts again.
            match sysv_sem::get(key, ANY_COUNT, 0) {
                Ok(id) => match Self::join(id, values, object.clone()) {
                    Err(error) if is_removed(&error) => continue,
                    result => return result,
                },
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(getting_error(&object, values.len(), error)),
            }
            match Self::create_by(key, values, mode, object.clone()) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) || is_removed(&error) => {}
                result => return result,
            }
        }
    }

    fn join(id: i32, values: &[u16], object: String) -> Result<Self> {
        check_values(values, &object)?;
        let Found { count, has_values } = initialise::wait(id, &object)?;
        if let Some(count) = count.filter(|count| *count < values.len()) {
            let reason = format!("the set exists with {count} semaphores, and {} were asked for", values.len());
            return Err(Error::Invalid { object, reason });
        }
        if !has_values && values.iter().any(|value| *value != 0) {
            let detail = "a set to which nobody has ever given a value, so its creator has died of it, or leaves that to \
                          others: remove it, or open it as it is and set its values";
            return Err(Error::Corrupt { object, detail: detail.into() });
        }
        Ok(Self { id, object, count, index: 0, held: Held::default() })
    }

    /// The identifier, by which any process can open the set.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The address of the set.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Chooses the semaphore that [`Lock`], [`Notify`] and [`Wait`] use from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the set has none of this number, and while the lock is held.
    pub fn set_index(&mut self, index: u16) -> Result<()> {
        if self.held.is_held() {
            return Err(held_already(&self.object));
        }
        if let Some(count) = self.count.filter(|count| usize::from(index) >= *count) {
            let reason = format!("semaphore {index} was asked for, and the set has {count}, which count from 0");
            return Err(Error::Invalid { object: self.object.clone(), reason });
        }
        self.index = index;
        Ok(())
    }

    /// Removes the set. Every process that waits for it gets EIDRM.
    ///
    /// # Errors
    ///
    /// EPERM unless this process belongs to its owner, its creator or root; an error for which [`Error::is_peer_gone`] holds when
    /// it is gone already.
    pub fn remove(&self) -> Result<()> {
        sysv_sem::remove(self.id).map_err(|error| self.error("semctl(IPC_RMID)", error))
    }

    /// Does all `operations` at one moment, in their order, or none of them; waits until `deadline` for a moment at which all
    /// can be done.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`], with nothing done; E2BIG for more than kernel.sem allows in one call; EFBIG
    /// for a semaphore that the set has not; ERANGE when a value would go above 32767; EACCES; [`Error::Invalid`] for no
    /// operations. An error for which [`Error::is_peer_gone`] holds (EIDRM) when the set is removed, also while this call waits.
    pub fn operate_by(&self, operations: &[Operation], deadline: Deadline) -> Result<()> {
        if operations.is_empty() {
            return Err(Error::Invalid { object: self.object.clone(), reason: "no operations were given".into() });
        }
        let mut raw: Vec<_> = operations.iter().map(|operation| operation.raw()).collect();
        self.operate(&mut raw, deadline)
    }

    fn operate(&self, operations: &mut [libc::sembuf], deadline: Deadline) -> Result<()> {
        const NO_WAIT: libc::c_short = libc::IPC_NOWAIT as libc::c_short;
        let fails_at_once = operations.iter().any(|operation| operation.sem_flg & NO_WAIT != 0);
        if deadline == Deadline::Now {
            operations.iter_mut().for_each(|operation| operation.sem_flg |= NO_WAIT);
        }
        loop {
            let timeout = if deadline == Deadline::Now { None } else { deadline.timespec() };
            let Err(error) = sysv_sem::operate(self.id, operations, timeout.as_ref()) else { return Ok(()) };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) if fails_at_once && !deadline.has_passed() => {
                    return Err(Error::out_of_time("wait", &self.object, Deadline::Now));
                }
                Some(libc::EAGAIN) => return Err(Error::out_of_time("wait", &self.object, deadline)),
                _ => return Err(self.operation_error(operations.len(), error)),
            }
        }
    }

    /// Changes the semaphore of the traits.
    fn change(&self, change: i16, undo: bool, deadline: Deadline) -> Result<()> {
        let operation = Operation::new(self.index, change);
        self.operate(&mut [if undo { operation.with_undo() } else { operation }.raw()], deadline)
    }

    /// The value of semaphore `index` (GETVAL). Others may change it at any time.
    ///
    /// # Errors
    ///
    /// EINVAL for a semaphore that the set has not; EACCES; an error for which [`Error::is_peer_gone`] holds when it was removed.
    pub fn value(&self, index: u16) -> Result<u16> {
        self.ask(index, libc::GETVAL).map(|value| u16::try_from(value).unwrap_or(u16::MAX))
    }

    /// All values, as they were at one moment (GETALL).
    ///
    /// # Errors
    ///
    /// As [`SysvSemaphore::status`].
    pub fn values(&self) -> Result<Vec<u16>> {
        let count = self.status()?.count;
        let values = sysv_sem::values(self.id).map_err(|error| self.error("semctl(GETALL)", error))?;
        Ok(values.into_first(count))
    }

    /// Sets the value of semaphore `index` (SETVAL). The kernel forgets what it should undo of it, for all processes, and wakes
    /// those who can go on.
    ///
    /// # Errors
    ///
    /// ERANGE above 32767; otherwise as [`SysvSemaphore::value`].
    pub fn set_value(&self, index: u16, value: u16) -> Result<()> {
        sysv_sem::set_value(self.id, index.into(), value.into()).map_err(|error| self.control_error(index, error))
    }

    /// Sets all values at one moment (SETALL), and makes the kernel forget all undo, as [`SysvSemaphore::set_value`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for another number of values than the set has; ERANGE above 32767; otherwise as
    /// [`SysvSemaphore::status`].
    pub fn set_values(&self, values: &[u16]) -> Result<()> {
        let count = self.status()?.count;
        if count != values.len() {
            let reason = format!("{} values were given, and the set has {count} semaphores", values.len());
            return Err(Error::Invalid { object: self.object.clone(), reason });
        }
        sysv_sem::set_values(self.id, Values::new(values)).map_err(|error| self.control_error(0, error))
    }

    /// The process that operated last on semaphore `index` (GETPID), or set its value; `None` when none has, or it is in
    /// another pid namespace. It may be gone.
    ///
    /// # Errors
    ///
    /// As [`SysvSemaphore::value`].
    pub fn last_process(&self, index: u16) -> Result<Option<u32>> {
        self.ask(index, libc::GETPID).map(|pid| u32::try_from(pid).ok().filter(|pid| *pid != 0))
    }

    /// How many wait for semaphore `index` to grow (GETNCNT). One that waits for several is counted at the one that stops it.
    ///
    /// # Errors
    ///
    /// As [`SysvSemaphore::value`].
    pub fn waiting(&self, index: u16) -> Result<usize> {
        self.ask(index, libc::GETNCNT).map(|count| usize::try_from(count).unwrap_or(0))
    }

    /// How many wait for semaphore `index` to become 0 (GETZCNT).
    ///
    /// # Errors
    ///
    /// As [`SysvSemaphore::value`].
    pub fn waiting_for_zero(&self, index: u16) -> Result<usize> {
        self.ask(index, libc::GETZCNT).map(|count| usize::try_from(count).unwrap_or(0))
    }

    fn ask(&self, index: u16, command: i32) -> Result<i32> {
        sysv_sem::ask(self.id, index.into(), command).map_err(|error| self.control_error(index, error))
    }

    /// What the kernel says of the set now.
    ///
    /// # Errors
    ///
    /// EACCES when its mode does not let this user read; an error for which [`Error::is_peer_gone`] holds when it was removed.
    pub fn status(&self) -> Result<SetStatus> {
        let found = sysv_sem::stat(self.id).map_err(|error| self.error("semctl(IPC_STAT)", error))?;
        Ok(SetStatus::of(&found))
    }
}

/// Used as a lock, the semaphore begins with the value 1. It is taken with undo, so the kernel releases it when its holder
/// dies; nothing is told of that. A child made by fork does not hold what its parent holds.
impl Lock for SysvSemaphore {
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        match mode {
            _ if self.held.is_held() => return Err(held_already(&self.object)),
            Mode::Shared => return Err(no_shared_mode(&self.object)),
            Mode::Exclusive => {}
        }
        self.change(-1, true, deadline)?;
        self.held.take();
        Ok(Acquired::Clean)
    }

    fn release(&mut self) -> Result<()> {
        if !self.held.is_held() {
            return Err(not_held(&self.object));
        }
        self.change(1, true, Deadline::Now)?;
        self.held.give_up();
        Ok(())
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl Notify for SysvSemaphore {
    /// Adds `count` at one moment, without undo; ERANGE above 32767, with nothing added.
    fn notify_by(&mut self, count: u32, deadline: Deadline) -> Result<()> {
        match i16::try_from(count) {
            Ok(0) => Ok(()),
            Ok(count) => self.change(count, false, deadline),
            Err(_) => Err(self.operation_error(1, io::Error::from_raw_os_error(libc::ERANGE))),
        }
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl Wait for SysvSemaphore {
    /// Takes 1, without undo.
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        self.change(-1, false, deadline)
    }

    fn object(&self) -> &str {
        &self.object
    }
}

fn object_of(name: &SysvName) -> String {
    format!("sysv-sem:{name}")
}

/// The key of a set that may have to be created.
fn key_of(name: &SysvName, object: &str) -> Result<i32> {
    match name.resolve(object)? {
        Ident::Key(key) => Ok(key),
        Ident::Id(_) => Err(Error::Invalid {
            object: object.into(),
            reason: "the kernel chooses identifiers: create the set with a key".into(),
        }),
    }
}

fn check_values(values: &[u16], object: &str) -> Result<()> {
    let invalid = |reason| Err(Error::Invalid { object: object.into(), reason });
    if values.is_empty() {
        return invalid("a set has at least one semaphore".into());
    }
    match values.iter().find(|value| **value > VALUE_MAX) {
        Some(value) => invalid(format!("the value {value} is above the highest, which is {VALUE_MAX} (SEMVMX)")),
        None => Ok(()),
    }
}
