//! Locks and what wakes in shared memory, by address.

use std::process::Command;
use std::time::Duration;

use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::memory::posix_shm::PosixShm;
use onecopy::open::{OpenOptions, open_lock, open_notify, open_wait};
use onecopy::sync::mutex::Mutex;
use onecopy::sync::rwlock::Rwlock;
use onecopy::sync::shared::Place;
use onecopy::sync::{Acquired, Mode};
use onecopy::{Address, Deadline, Error, PosixName};

use crate::support::{Scratch, unique, watchdog};

const SECOND: Duration = Duration::from_secs(1);

struct Name(PosixName);

impl Name {
    fn new() -> Self {
        Self(PosixName::new(format!("/{}", unique("address"))).unwrap())
    }

    fn address(&self, scheme: &str, options: &str) -> Address {
        format!("{scheme}:shm:{}{options}", self.0).parse().unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = PosixShm::unlink(&self.0);
    }
}

fn existing() -> OpenOptions {
    OpenOptions { create: false, ..OpenOptions::default() }
}

#[test]
fn locks_are_created_and_exclude_each_other() {
    let _watchdog = watchdog(60 * SECOND);
    for scheme in ["mutex", "rwlock", "sem"] {
        let name = Name::new();
        let address = name.address(scheme, "");
        assert_eq!(open_lock(&address, &existing()).map(drop).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let mut one = open_lock(&address, &OpenOptions::default()).unwrap();
        assert_eq!(one.acquire_by(Mode::Exclusive, Deadline::Now).unwrap(), Acquired::Clean);
        let other_thread = || {
            let mut other = open_lock(&address, &existing()).unwrap();
            other.acquire_by(Mode::Exclusive, Deadline::Now).inspect(|_| other.release().unwrap())
        };
        let tried = std::thread::scope(|scope| scope.spawn(other_thread).join().unwrap());
        assert!(matches!(tried, Err(Error::WouldBlock { .. })), "{scheme}");
        one.release().unwrap();
        let tried = std::thread::scope(|scope| scope.spawn(other_thread).join().unwrap());
        assert_eq!(tried.unwrap(), Acquired::Clean, "{scheme}");
    }
}

#[test]
fn what_wakes_is_created_and_counts() {
    let _watchdog = watchdog(60 * SECOND);
    for scheme in ["sem", "futex", "condvar"] {
        let name = Name::new();
        let address = name.address(scheme, "");
        let mut wait = open_wait(&address, &OpenOptions::default()).unwrap();
        let mut notify = open_notify(&address, &existing()).unwrap();
        assert!(wait.wait_by(Deadline::Now).unwrap_err().is_out_of_time(), "{scheme}");
        notify.notify_by(2, Deadline::Now).unwrap();
        wait.wait_by(Deadline::Now).unwrap();
        wait.wait_by(Deadline::Never).unwrap();
        assert!(wait.wait_by(Deadline::after(SECOND / 50)).unwrap_err().is_out_of_time(), "{scheme}");
        assert!(open_lock(&name.address("mutex", ""), &OpenOptions::default()).is_err(), "{scheme} lies there");
    }
}

#[test]
fn a_barrier_has_as_many_parties_as_its_address_says() {
    let _watchdog = watchdog(60 * SECOND);
    let name = Name::new();
    let address = name.address("barrier", "?parties=2");
    let mut one = open_wait(&address, &OpenOptions::default()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| open_wait(&address, &existing()).unwrap().wait_by(Deadline::Never).unwrap());
        one.wait_by(Deadline::Never).unwrap();
    });
    let error = open_wait(&name.address("barrier", "?parties=3"), &OpenOptions::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("2 parties meet at it, and 3 are expected"), "{error}");
}

#[test]
fn the_value_beside_a_lock_does_not_matter_by_address() {
    let _watchdog = watchdog(60 * SECOND);
    let scratch = Scratch::new();
    for (scheme, create) in [
        ("mutex", (|place| drop(Mutex::create(place, [1_u64; 9]).unwrap())) as fn(&Place)),
        ("rwlock", |place| drop(Rwlock::create(place, [1_u64; 9]).unwrap())),
    ] {
        let path = scratch.path(scheme);
        let region = onecopy::memory::file_mapping::FileMapping::create(&path, 4096, 0o600).unwrap().into_region();
        create(&Place::new(region).unwrap());
        let address: Address = format!("{scheme}:mmap:{}", path.display()).parse().unwrap();
        let mut lock = open_lock(&address, &OpenOptions::default()).unwrap();
        assert_eq!(lock.acquire_by(Mode::Exclusive, Deadline::Now).unwrap(), Acquired::Clean);
        lock.release().unwrap();
    }
}

#[test]
fn memory_that_others_may_write_is_refused() {
    let _watchdog = watchdog(60 * SECOND);
    let name = Name::new();
    let address = name.address("mutex", "");
    let options = OpenOptions { mode: 0o660, ..OpenOptions::default() };
    let error = open_lock(&address, &options).map(drop).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    for part in ["mode 660", "Place::trusting", &name.0.to_string()] {
        assert!(error.to_string().contains(part), "{error}");
    }
    if rustix::process::geteuid().is_root() {
        let path = format!("/dev/shm{}", name.0);
        assert!(Command::new("chmod").args(["600", &path]).status().unwrap().success());
        assert!(Command::new("chown").args(["4321", &path]).status().unwrap().success());
        let error = open_lock(&address, &OpenOptions::default()).map(drop).unwrap_err();
        assert!(error.to_string().contains("it belongs to user 4321, and this process is user 0"), "{error}");
    }
}

#[test]
fn an_inherited_memfd_is_named_by_its_number() {
    use std::os::fd::AsRawFd as _;
    let _watchdog = watchdog(60 * SECOND);
    let mapping = AnonymousMapping::create("address", 4096).unwrap();
    let fd = mapping.try_clone_fd().unwrap();
    let address: Address = format!("futex:fd:{}", fd.as_raw_fd()).parse().unwrap();
    open_notify(&address, &OpenOptions::default()).unwrap().notify_by(1, Deadline::Now).unwrap();
    open_wait(&address, &existing()).unwrap().wait_by(Deadline::Now).unwrap();
}

/// To create an object takes a moment, which is no wait for the object.
#[test]
fn who_does_not_wait_has_the_moment_that_a_creation_takes() {
    let _watchdog = watchdog(60 * SECOND);
    for scheme in ["sem", "futex", "condvar"] {
        for _ in 0..50 {
            let name = Name::new();
            let (address, start) = (name.address(scheme, ""), std::sync::Barrier::new(3));
            let post = || {
                let options = OpenOptions { deadline: Deadline::Now, ..OpenOptions::default() };
                start.wait();
                open_notify(&address, &options)?.notify_by(1, Deadline::Now)
            };
            std::thread::scope(|scope| {
                let posts = [(); 3].map(|()| scope.spawn(post));
                posts.into_iter().for_each(|post| post.join().unwrap().unwrap());
            });
            let mut wait = open_wait(&address, &existing()).unwrap();
            (0..3).for_each(|_| wait.wait_by(Deadline::Now).unwrap());
        }
    }
}
