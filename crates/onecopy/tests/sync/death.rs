//! A process is killed while it holds a lock, or while it waits for one: the kernel's locks are released, and nobody hangs.

use std::time::Duration;

use onecopy::open::{BoxedLock, OpenOptions, open_lock};
use onecopy::sync::{Acquired, Lock as _, Mode};
use onecopy::{Address, Deadline};

use crate::support::{Peer, Scratch, argument, role, watchdog};

const ROUNDS: u32 = 50;

fn rounds() -> u32 {
    if std::env::var_os("ONECOPY_SOAK").is_some() { 1000 } else { ROUNDS }
}

fn lock(address: &str) -> BoxedLock {
    let address: Address = address.parse().unwrap();
    open_lock(&address, &OpenOptions::default()).unwrap()
}

/// In the second process: holds the lock until the end, or takes and releases it for as long as it lives.
fn second_process(role: &str) {
    let mut lock = lock(&argument("ADDRESS"));
    if role == "holder" {
        let _ = lock.acquire_by(Mode::Exclusive, Deadline::Never).unwrap();
        println!("\nheld");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    println!("\ntaking");
    loop {
        let _ = lock.acquire_by(Mode::Exclusive, Deadline::Never).unwrap();
        lock.release().unwrap();
    }
}

/// The holder is killed while this process waits for the lock; then a process that takes and releases it without end is
/// killed wherever it is: in the middle of a wait, of a release, while it holds it.
fn killed_holders_and_waiters_release(test: &str, address: &str) {
    if let Some(role) = role() {
        return second_process(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(240));
    let mut lock = lock(address);
    let arguments = [("ADDRESS", address)];
    for round in 0..rounds() {
        let mut holder = Peer::start(test, "holder", &arguments);
        holder.line("held");
        assert!(lock.acquire_by(Mode::Exclusive, Deadline::Now).unwrap_err().is_out_of_time(), "round {round}");
        let mut taker = Peer::start(test, "taker", &arguments);
        taker.line("taking");
        let killer = std::thread::spawn(move || holder.kill());
        let deadline = if round % 2 == 0 { Deadline::Never } else { Deadline::after(Duration::from_secs(60)) };
        assert_eq!(lock.acquire_by(Mode::Exclusive, deadline).unwrap(), Acquired::Clean, "round {round}");
        killer.join().unwrap();
        lock.release().unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(round * 37 % 1000)));
        taker.kill();
        let _ = lock.acquire_by(Mode::Exclusive, Deadline::after(Duration::from_secs(60))).unwrap();
        lock.release().unwrap();
    }
}

#[test]
fn file_lock() {
    let scratch = Scratch::new();
    let address = format!("flock:{}", scratch.path("lock").display());
    killed_holders_and_waiters_release("death::file_lock", &address);
}
