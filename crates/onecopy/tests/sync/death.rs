//! A process is killed while it holds a lock, or while it waits for one: the kernel's locks are released, and nobody hangs.

use std::cell::OnceCell;
use std::time::Duration;

use onecopy::open::{BoxedLock, OpenOptions, open_lock, open_notify, open_wait};
use onecopy::sync::{Acquired, Lock as _, Mode, Notify as _, Wait as _};
use onecopy::{Address, Deadline};

use crate::named_semaphore::Name;
use crate::rounds;
use crate::support::{Peer, Scratch, argument, role, watchdog};
use crate::sysv_semaphore::Set;

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
        std::thread::sleep(Duration::from_micros((round * 37 % 1000) as u64));
        taker.kill();
        let _ = lock.acquire_by(Mode::Exclusive, Deadline::after(Duration::from_secs(60))).unwrap();
        lock.release().unwrap();
    }
}

#[test]
fn file_lock() {
    let scratch = OnceCell::new();
    let address = address_or(|| format!("flock:{}", scratch.get_or_init(Scratch::new).path("lock").display()));
    killed_holders_and_waiters_release("death::file_lock", &address);
}

/// The address that the test made, in both processes: only the first makes one, since nothing tidies up after one that is killed.
fn address_or(make: impl FnOnce() -> String) -> String {
    if role().is_some() { argument("ADDRESS") } else { make() }
}

#[test]
fn record_lock() {
    let scratch = OnceCell::new();
    let path = || scratch.get_or_init(Scratch::new).path("table");
    let address = address_or(|| format!("record:{}?start=5&len=10", path().display()));
    killed_holders_and_waiters_release("death::record_lock", &address);
}

#[test]
fn ofd_lock() {
    let scratch = OnceCell::new();
    let address = address_or(|| format!("ofd:{}", scratch.get_or_init(Scratch::new).path("table").display()));
    killed_holders_and_waiters_release("death::ofd_lock", &address);
}

#[test]
fn sysv_semaphore() {
    let set = OnceCell::new();
    let address = address_or(|| format!("sysv-sem:id={}", set.get_or_init(|| Set::new(&[1])).argument()));
    killed_holders_and_waiters_release("death::sysv_semaphore", &address);
}

/// A process that waits is killed, then one that posts without end: what was posted stays posted, and waits end.
fn killed_waiters_and_wakers_hang_nobody(test: &str, address: &str) {
    let parsed: Address = address.parse().unwrap();
    let mut notify = open_notify(&parsed, &OpenOptions::default()).unwrap();
    let mut wait = open_wait(&parsed, &OpenOptions::default()).unwrap();
    match role().as_deref() {
        Some("waiter") => {
            println!("\nready");
            return wait.wait_by(Deadline::Never).unwrap();
        }
        Some(_) => {
            println!("\nready");
            loop {
                notify.notify_by(1, Deadline::Never).unwrap();
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        None => {}
    }
    let _watchdog = watchdog(Duration::from_secs(240));
    let soon = || Deadline::after(Duration::from_secs(60));
    for round in 0..rounds() {
        let mut waiter = Peer::start(test, "waiter", &[("ADDRESS", address)]);
        waiter.line("ready");
        std::thread::sleep(Duration::from_micros((round * 37 % 1000) as u64));
        waiter.kill();
        assert!(wait.wait_by(Deadline::Now).unwrap_err().is_out_of_time(), "round {round}");
        notify.notify_by(2, Deadline::Now).unwrap();
        wait.wait_by(soon()).unwrap();
        wait.wait_by(Deadline::Never).unwrap();
        let mut waker = Peer::start(test, "waker", &[("ADDRESS", address)]);
        waker.line("ready");
        wait.wait_by(soon()).unwrap();
        waker.kill();
        while wait.wait_by(Deadline::after(Duration::from_millis(1))).is_ok() {}
    }
}

#[test]
fn named_semaphore_waiters() {
    let name = OnceCell::new();
    let address = address_or(|| format!("sem:{}", name.get_or_init(Name::new).0));
    killed_waiters_and_wakers_hang_nobody("death::named_semaphore_waiters", &address);
}

#[test]
fn sysv_semaphore_waiters() {
    let set = OnceCell::new();
    let address = address_or(|| format!("sysv-sem:id={}", set.get_or_init(|| Set::new(&[0])).argument()));
    killed_waiters_and_wakers_hang_nobody("death::sysv_semaphore_waiters", &address);
}
