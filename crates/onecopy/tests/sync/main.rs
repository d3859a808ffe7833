//! Locks and what wakes, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod barrier;
mod by_address;
mod c_program;
mod condvar;
mod creation;
mod death;
mod eventfd;
mod file_lock;
mod fork;
mod futex;
mod mutex;
mod mutex_death;
mod named_semaphore;
mod overlap;
mod record_lock;
mod refusal;
mod rwlock;
mod semaphore;
mod shared_death;
mod stage;
mod sysv_semaphore;

/// How many rounds a death or a race is run: enough to be seen in a test, and many more in a soak.
fn rounds() -> usize {
    if std::env::var_os("ONECOPY_SOAK").is_some() { 1000 } else { 50 }
}

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
