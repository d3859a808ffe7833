//! Calls of the C library that can wait for ever beside their deadline.
//!
//! glibc's condition variable waits, without a limit, for whoever was in the middle of an operation on it: a process that was
//! killed there, asleep in a wait, keeps the next signal waiting for good, that signal holds an inner lock, and a
//! timed wait needs that lock to give up when its time is up. Its read-write lock turns round and round, asleep or not, when a
//! writer is killed while it waits its turn. No call of the interface shows or ends such a state.
//!
//! A wait on its condition variable ends with the mutex, for which it can wait for ever though that is free: whoever unlocks it wakes
//! one of those who sleep, the next owner comes in between and knows of none, and when the one that was woken is killed at that
//! moment, nobody wakes another. The kernel does so, on behalf of the dead, only where it finds the mutex without an owner
//! (handle_futex_death in its kernel/futex/core.c, by the list_op_pending of get_robust_list(2)).
//!
//! So a thread of this process looks at the calls that are a second overdue, counted from when the timer of their thread is due with its
//! slack (PR_SET_TIMERSLACK). One that sleeps on a word of the object itself, as `/proc/self/task/TID/syscall` tells, is woken, since a timer
//! can be later than that where the processor of a virtual machine stood still. One that sleeps there again waits for the dead, and so does
//! one that has used the processor for a while since. Then the object is declared broken in its header, made anew, and all its words are woken until the call has returned. It is of no use from
//! then on, and everybody is told so. A process that is stopped in the middle of an operation, by ^Z or a debugger, looks the same, and
//! goes on some time: while one that maps the object is stopped, nothing is done for a minute. Where a call sleeps on another word, which is that of the mutex, whoever comes first there is woken:
//! it locks the mutex, or marks it as waited for. The thread starts with the first such call, and sleeps while there are none.
//!
//! # Safety
//!
//! The addresses in an [`Entry`] are valid until its [`Watching`] is dropped, which takes the lock under which they are used.
//! Neither the condition variable nor the read-write lock of a C library holds addresses, so whatever the others make of one
//! that is made anew under them, they reach no other memory.
#![expect(unsafe_code, reason = "makes an object anew that other calls still use")]

use std::fs;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::c_long;
use rustix::io::Errno;
use rustix::thread::{futex, gettid};

use super::shared::OBJECT_ROOM_BYTES;
use crate::memory::maps::{self, MemoryMap};
use crate::process;
use crate::sys::signal_mask::without_signals;

/// How late a call may be before anybody looks. Whoever it waits for may be stopped, or have no processor.
const GRACE: Duration = Duration::from_secs(1);
/// Between two looks at a call that is overdue.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// For how long a stopped process may be what a call waits for, and between two looks meanwhile.
const STOPPED: Duration = Duration::from_secs(60);
const LOOK_FOR_STOPPED: Duration = Duration::from_millis(200);

/// How long a call that is overdue may run: it needs a microsecond or two to return.
const RUN: Duration = Duration::from_millis(50);

/// Makes an object anew in its place.
pub(super) type Reset = unsafe fn(NonNull<u8>) -> Result<(), Errno>;

/// A call under way.
struct Entry {
    number: u64,
    look_at: Instant,
    /// When the object is broken open though it may be a stopped process that the call waits for.
    patient_until: Instant,
    /// How long its thread had used the processor when it was first found overdue.
    had_run: Option<Duration>,
    /// Whether those who sleep in the object were woken since then.
    was_woken: bool,
    thread: i32,
    object: NonNull<u8>,
    state: NonNull<AtomicU64>,
    broken: u64,
    reset: Reset,
}

// SAFETY: the addresses are those of shared memory, which belongs to no thread.
unsafe impl Send for Entry {}

/// The calls under way in a process. A child of a fork has a table of its own: a thread that it does not have may hold the lock
/// of its parent's.
struct Table {
    process: u32,
    calls: Mutex<Calls>,
    changed: Condvar,
}

#[derive(Default)]
struct Calls {
    entries: Vec<Entry>,
    next: u64,
    /// When the thread that looks does so next.
    look_at: Option<Instant>,
}

/// Null until the first call; what it points to is never freed.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());

impl Table {
    /// That of this process, whose thread looks from the first call on.
    fn of_this_process() -> &'static Self {
        let process = std::process::id();
        let current = TABLE.load(Ordering::Acquire);
        // SAFETY: null, or made below and never freed.
        if let Some(table) = unsafe { current.as_ref() }.filter(|table| table.process == process) {
            return table;
        }
        let table = Box::leak(Box::new(Self { process, calls: Mutex::default(), changed: Condvar::new() }));
        // A thread that comes second has made its table in vain, once in the life of a process.
        match TABLE.compare_exchange(current, table, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                let table = &*table;
                // Without the thread a call is as good as that of the C library.
                let _ = without_signals(|| {
                    thread::Builder::new().name("onecopy-overdue".to_owned()).spawn(|| table.look())
                });
                table
            }
            // SAFETY: the first thread's, and never freed.
            Err(first) => unsafe { &*first },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does.
    fn look(&self) {
        let mut calls = self.lock();
        loop {
            let now = Instant::now();
            let mut doubtful = Vec::new();
            for entry in calls.entries.iter_mut().filter(|entry| entry.look_at <= now) {
                entry.look_at = now + LOOK_AGAIN;
                match entry.is_in_vain() {
                    true if now < entry.patient_until => doubtful.push((entry.number, entry.object.as_ptr().addr())),
                    true => entry.break_open(),
                    false => {}
                }
            }
            if !doubtful.is_empty() {
                // Without the lock: /proc may be long, and other calls begin and end meanwhile.
                drop(calls);
                let held_up: Vec<_> = doubtful.iter().map(|(_, object)| has_stopped_user(*object)).collect();
                calls = self.lock();
                for ((number, _), is_held_up) in doubtful.into_iter().zip(held_up) {
                    let Some(entry) = calls.entries.iter_mut().find(|entry| entry.number == number) else { continue };
                    match is_held_up {
                        true => entry.look_at = Instant::now() + LOOK_FOR_STOPPED,
                        false if entry.is_in_vain() => entry.break_open(),
                        false => {}
                    }
                }
            }
            calls.look_at = calls.entries.iter().map(|entry| entry.look_at).min();
            calls = match calls.look_at {
                None => self.changed.wait(calls).unwrap_or_else(PoisonError::into_inner),
                Some(then) => {
                    let left = then.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(calls, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Ends the watch over a call.
pub(super) struct Watching {
    table: &'static Table,
    number: u64,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.table.lock().entries.retain(|entry| entry.number != self.number);
    }
}

/// Watches the call that this thread makes next on `object`, which ends at `due`; [`timer_slack`] counts where a timer ends it. The addresses
/// stay valid until the result is dropped.
pub(super) fn watch(due: Instant, object: NonNull<u8>, state: &AtomicU64, broken: u64, reset: Reset) -> Watching {
    let look_at = due + GRACE;
    let thread = gettid().as_raw_nonzero().get();
    let table = Table::of_this_process();
    let mut calls = table.lock();
    let number = calls.next;
    calls.next += 1;
    calls.entries.push(Entry {
        number,
        look_at,
        patient_until: look_at + STOPPED,
        had_run: None,
        was_woken: false,
        thread,
        object,
        state: state.into(),
        broken,
        reset,
    });
    if calls.look_at.is_none_or(|planned| look_at < planned) {
        table.changed.notify_one();
    }
    Watching { table, number }
}

impl Entry {
    /// Whether the call sleeps in the object, or goes round and round. Wakes who waits for the mutex.
    fn is_in_vain(&mut self) -> bool {
        let text = fs::read_to_string(format!("/proc/self/task/{}/syscall", self.thread)).unwrap_or_default();
        let start = self.object.as_ptr().addr();
        match futex_address(&text) {
            Some(address) if !(start..start + OBJECT_ROOM_BYTES).contains(&address) => {
                wake_one(address);
                // To look at the mutex is not to go round and round.
                self.had_run = None;
                false
            }
            Some(_) if self.was_woken => true,
            Some(_) => {
                self.was_woken = true;
                self.wake_all();
                false
            }
            None => self.keeps_running(),
        }
    }

    /// Whether the call goes round and round.
    fn keeps_running(&mut self) -> bool {
        let Some(run) = fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.thread))
            .ok()
            .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
            .map(Duration::from_nanos)
        else {
            return false;
        };
        run.saturating_sub(*self.had_run.get_or_insert(run)) >= RUN
    }

    fn break_open(&self) {
        // SAFETY: valid, see above.
        let state = unsafe { self.state.as_ref() };
        state.store(self.broken, Ordering::Release);
        // Before what follows: whoever gets the object as it is made now sees that it is broken.
        fence(Ordering::SeqCst);
        // SAFETY: valid, see above. An error leaves it as it was, and is tried again.
        let _ = unsafe { (self.reset)(self.object) };
        self.wake_all();
    }

    /// Wakes all who sleep on a word of the object: for a C library's call that is a wake-up without a cause, after which it looks again.
    fn wake_all(&self) {
        for word in 0..OBJECT_ROOM_BYTES / size_of::<AtomicU32>() {
            // SAFETY: within the room of the object, aligned to 64.
            let word = unsafe { self.object.cast::<AtomicU32>().add(word) };
            // SAFETY: as above; the C library uses it atomically too.
            let _ = futex::wake(unsafe { word.as_ref() }, futex::Flags::empty(), i32::MAX.cast_unsigned());
        }
    }
}

/// How much later than asked for the timers of this thread may end its waits.
pub(super) fn timer_slack() -> Duration {
    /// Enough for anybody, and not so much that adding it to a point in time fails.
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    // Not prctl(2) by way of a library: that makes an int of the answer.
    // SAFETY: the call takes no further argument, and tells a number.
    let nanos = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_TIMERSLACK) };
    u64::try_from(nanos).map_or(Duration::ZERO, |nanos| Duration::from_nanos(nanos).min(LONGEST))
}

/// Whether a process that has mapped what lies at `object` here is stopped or traced, its first thread at least, as far as /proc shows it.
fn has_stopped_user(object: usize) -> bool {
    let own = std::process::id();
    let Ok(Some(ours)) = maps::nearest(own, object as u64) else { return false };
    let is_it = |map: &MemoryMap| map.shared && (map.device, map.inode) == (ours.device, ours.inode);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut others = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| *pid != own);
    others.any(|pid| is_stopped(pid) && maps::maps(pid).is_ok_and(|maps| maps.flatten().any(|map| is_it(&map))))
}

/// T or t of proc_pid_status(5). Not D: to look at the mappings of a process that a disk keeps waiting may take as long.
fn is_stopped(pid: u32) -> bool {
    let is_so = |state: &str| state.trim_start().starts_with(['T', 't']);
    process::status(pid)
        .is_ok_and(|status| status.lines().find_map(|line| line.strip_prefix("State:")).is_some_and(is_so))
}

/// The address of the futex(2) that `/proc/PID/syscall` tells of: its number, then its arguments in hexadecimal.
fn futex_address(text: &str) -> Option<usize> {
    let mut words = text.split_ascii_whitespace();
    let number: c_long = words.next()?.parse().ok()?;
    let address = usize::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
    (number == libc::SYS_futex).then_some(address)
}

/// Wakes one of those who sleep on a word that processes share.
fn wake_one(address: usize) {
    // SAFETY: the kernel looks for who sleeps there, and does not use what lies there.
    unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_another_process_is_left_alone_though_its_lock_is_held() {
        let parents = Box::leak(Box::new(Table { process: 0, calls: Mutex::default(), changed: Condvar::new() }));
        std::mem::forget(parents.lock());
        TABLE.store(parents, Ordering::Release);
        let own = Table::of_this_process();
        assert_eq!(own.process, std::process::id());
        assert!(ptr::eq(own, Table::of_this_process()));
        drop(own.lock());
    }

    #[test]
    fn a_sleep_on_a_word_is_told_from_others() {
        let number = libc::SYS_futex;
        let told = format!("{number} 0x7f000080 0x80 0x1 0x0 0x0 0x0 0x7ffd 0x7f8c\n");
        assert_eq!(futex_address(&told), Some(0x7f00_0080));
        for other in ["1 0x7f000080 0x80 0x1 0x0 0x0 0x0 0x7ffd 0x7f8c\n", "running\n", "", "-1 0x7ffd 0x7f8c\n"] {
            assert_eq!(futex_address(other), None, "{other}");
        }
    }
}
