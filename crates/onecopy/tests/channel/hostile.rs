//! A peer that writes anything into the shared memory at any time, while it also takes part: no panic, no hang, no access beyond the
//! shared memory, whose parts lie between pages that nobody can access, and no more memory than the limit allows.
//!
//! The hostile process uses the channel with the library's own calls, so that the memory holds what it usually does, and beside
//! that changes words of it. Since both sides map the same memory, its own calls meet the same.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onecopy::channel::{ChannelName, ChannelReceiver, ChannelSender, Policy, View};
use onecopy::memory::buffer::set_pool_limit_bytes;
use onecopy::{Channel, Deadline, Error, Listener, Receiver as _, Result, Sender as _};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::duo::{KIB, MIB, content, hash, soak, soon};
use crate::filter;
use crate::heap::take_largest_bytes;
use crate::support::{Peer, argument, role, unique, watchdog};

const LIMIT: Duration = Duration::from_secs(1800);
/// The longest message that the survivor takes.
const LIMIT_BYTES: usize = MIB;
/// How much memory each side has for loans.
const LOAN_BYTES: usize = 3 * MIB;
/// Where the hostile process notes that one of its own calls has panicked.
const PANICKED_AT: u64 = 4096;

/// A sequence of numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        hash(self.0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn one_of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u64) as usize]
    }

    /// A length of a message: mostly within the limit.
    fn length(&mut self) -> usize {
        let limit = self.one_of(&[60, 120, 5000, 100 * KIB, MIB, 2 * MIB]);
        self.below(limit as u64) as usize
    }
}

/// The shared memory, as this process has it mapped. It is reached through /proc/self/mem, as a debugger would.
struct Target {
    memory: File,
    /// Two rings, then the desks.
    parts: [Range<u64>; 3],
}

impl Target {
    fn find() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let lines = maps.lines().filter(|line| line.contains("memfd:onecopy-channel"));
        // Start and end, rights, offset in the memfd.
        let mut parts: Vec<(u64, Range<u64>)> = lines
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let (start, end) = words[0].split_once('-').unwrap();
                (number(words[2]), number(start)..number(end))
            })
            .collect();
        parts.sort_unstable_by_key(|(offset, _)| *offset);
        let parts: Vec<_> = parts.into_iter().map(|(_, range)| range).collect();
        let memory = File::options().read(true).write(true).open("/proc/self/mem").unwrap();
        Self { memory, parts: parts.try_into().expect("the memory of one channel, in three parts") }
    }

    /// Some word: of the desks, of the rings, whose headers and slots come first.
    fn place(&self, dice: &mut Dice) -> u64 {
        let [one, other, desks] = &self.parts;
        let ring = if dice.below(2) == 0 { one } else { other };
        let place = match dice.below(20) {
            0..8 => desks.start + dice.below(1536),
            8..13 => ring.start + dice.below(640),
            13..19 => ring.start + 1024 + dice.below(16 * 1024),
            _ => ring.start + dice.below(ring.end - ring.start),
        };
        place / 8 * 8
    }

    /// Puts something there that is wrong, and often not by much.
    fn spoil(&self, dice: &mut Dice) {
        let place = self.place(dice);
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, place).unwrap();
        let old = u64::from_ne_bytes(bytes);
        let new = match dice.below(8) {
            0 => dice.roll(),
            1 => dice.one_of(&[0, 1, 2, 3, 4, 8, 104, u64::MAX, 1 << 63, 1 << 32, u64::from(u32::MAX), 1 << 40]),
            2 => old.wrapping_add(dice.below(20)).wrapping_sub(10),
            3 => old ^ 1 << 16 << dice.below(8),
            4 => old & !0xffff | dice.below(1 << 16),
            _ => old ^ 1 << dice.below(64),
        };
        self.memory.write_all_at(&new.to_ne_bytes(), place).unwrap();
    }
}

/// The second process.
fn spoil_for_ever(role: &str) {
    // It would go on for ever.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    set_pool_limit_bytes(4 * MIB);
    let seed: u64 = argument("SEED").parse().unwrap();
    let mut policy = Policy::same_user();
    match role {
        "separate" => policy = policy.separate(),
        // Its calls would write where a spoiled word says, into memory of the other side: as who may attach can do anyway.
        _ => filter::install(&[filter::WRITE], libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
    }
    let name = ChannelName::name(argument("NAME")).unwrap();
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("in the hostile process: {panic}");
        rustix::io::pwrite(std::io::stdout(), b"panicked", PANICKED_AT).unwrap();
    }));
    let (mut sender, mut receiver) = Channel::connect_by(&name, &policy, soon()).unwrap().split();
    receiver.set_limit_bytes(LIMIT_BYTES);
    sender.set_loan_limit_bytes(LOAN_BYTES).unwrap();
    let target = Target::find();
    std::thread::scope(|scope| {
        scope.spawn(|| send_always(&mut sender, Dice(seed), short, || true));
        scope.spawn(|| receive_always(&mut receiver, Dice(!seed), short, || true));
        let mut dice = Dice(seed << 20);
        let pause = Duration::from_micros(dice.one_of(&[0, 0, 50, 1000, 20_000]));
        loop {
            target.spoil(&mut dice);
            if pause > Duration::ZERO {
                std::thread::sleep(pause);
            }
        }
    });
}

fn short() -> Deadline {
    Deadline::after(Duration::from_millis(5))
}

/// Whatever comes of it, it is one of the errors that may be.
fn check<T>(outcome: Result<T>) {
    if let Err(error) = outcome {
        let known = matches!(
            error,
            Error::TimedOut { .. }
                | Error::PeerGone { .. }
                | Error::Corrupt { .. }
                | Error::TooLong { .. }
                | Error::LoansOut { .. }
                | Error::BufferTooSmall { .. }
                | Error::Occupied { .. }
        );
        assert!(known, "{error}");
    }
}

fn send_always(sender: &mut ChannelSender, mut dice: Dice, deadline: fn() -> Deadline, goes_on: impl Fn() -> bool) {
    while goes_on() {
        let bytes = dice.length();
        if dice.below(3) > 0 {
            check(sender.send_by(content(1, bytes), deadline()));
            continue;
        }
        check(sender.loan_by(bytes, deadline()).and_then(|mut loan| {
            loan.copy_from_slice(content(2, bytes));
            // Whatever the other side says of loans that were sent, this one is not.
            assert!(*loan == *content(2, bytes));
            if dice.below(4) > 0 { loan.send_by(deadline()).map_err(|unsent| unsent.error) } else { Ok(()) }
        }));
    }
}

fn receive_always(
    receiver: &mut ChannelReceiver,
    mut dice: Dice,
    deadline: fn() -> Deadline,
    goes_on: impl Fn() -> bool,
) {
    let mut buffer = vec![0; LIMIT_BYTES];
    let mut views = VecDeque::new();
    while goes_on() {
        if dice.below(3) == 0 {
            check(receiver.recv_view_by(deadline()).and_then(|view| {
                views.extend(view);
                views.truncate(dice.below(4) as usize);
                views.back().map_or(Ok(()), |view: &View| view.copy_to(&mut buffer))
            }));
        } else if dice.below(2) == 0 {
            check(receiver.recv_by(deadline()).inspect(|message| {
                assert!(message.as_ref().is_none_or(|message| message.len() <= LIMIT_BYTES));
            }));
        } else {
            let bytes = dice.one_of(&[100, 5000, LIMIT_BYTES]);
            check(receiver.recv_into_by(&mut buffer[..bytes], deadline()));
        }
    }
}

/// One hostile process, for a while. The calls of this side have a deadline, or end with that process.
fn round(test: &str, role: &str, seed: u64, deadline: fn() -> Deadline) {
    let name = unique("hostile");
    let policy = if role == "separate" { Policy::same_user().separate() } else { Policy::same_user() };
    let listener = Listener::bind_with(&ChannelName::name(&name).unwrap(), &policy).unwrap();
    let note = memfd_create("note", MemfdFlags::CLOEXEC).unwrap();
    let theirs = note.try_clone().unwrap();
    let mut peer = Peer::configure(test, role, &[("NAME", &name), ("SEED", &seed.to_string())], |command| {
        command.stdout(theirs).stderr(Stdio::inherit());
    });
    let channel = match listener.accept_by(soon()) {
        Ok(channel) => channel,
        // The other side was quick: it spoiled what this one was about to take.
        error => return check(error),
    };
    let (mut sender, mut receiver) = channel.split();
    receiver.set_limit_bytes(LIMIT_BYTES);
    sender.set_loan_limit_bytes(LOAN_BYTES).unwrap();
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| send_always(&mut sender, Dice(seed), deadline, || goes_on.load(Ordering::Relaxed)));
        scope.spawn(|| receive_always(&mut receiver, Dice(!seed), deadline, || goes_on.load(Ordering::Relaxed)));
        std::thread::sleep(Duration::from_millis(60 + hash(seed) % 100));
        goes_on.store(false, Ordering::Relaxed);
        peer.kill();
    });
    let mut bytes = [0; 8];
    let noted = rustix::io::pread(&note, &mut bytes, PANICKED_AT).unwrap();
    assert_eq!(noted, 0, "a call of the hostile process panicked, seed {seed}");
}

/// The most memory that this process has ever had.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * KIB
}

/// How long, for each of the two kinds of peer. `ci/hostile` asks for a minute together.
fn seconds() -> u64 {
    match (soak(), std::env::var_os("ONECOPY_HOSTILE")) {
        (true, _) => 300,
        (false, Some(_)) => 30,
        (false, None) => 5,
    }
}

/// The side that has to survive, in a process of its own.
fn survive(test: &str, role: &str) {
    set_pool_limit_bytes(4 * MIB);
    // It counts as memory of before.
    content(1, 2 * MIB);
    let before = peak_bytes();
    take_largest_bytes();
    let end = Instant::now() + Duration::from_secs(seconds());
    let first: u64 = argument("SEED").parse().unwrap();
    let mut rounds = 0;
    while Instant::now() < end {
        let seed = hash(first + rounds);
        eprintln!("{role}, round {rounds}, seed {seed}");
        round(test, role, seed, if rounds % 3 == 2 { || Deadline::Never } else { short });
        rounds += 1;
    }
    let more = peak_bytes() - before;
    let largest = take_largest_bytes();
    eprintln!(
        "{rounds} hostile processes, {role}: at most {} KiB more than before, and {} KiB at once from the heap",
        more / KIB,
        largest / KIB
    );
    // The pool, a message under way and one kept on each of two threads, whose heaps keep some of what was freed, and loans
    // both ways. What a peer could ask for without a limit is a thousand times that.
    assert!(more < 4 * MIB + 16 * LIMIT_BYTES + 2 * LOAN_BYTES, "{} KiB", more / KIB);
    // Beside what the limit allows there is a message of this side that is kept while there is no room.
    assert!(largest <= 2 * LIMIT_BYTES, "{} KiB", largest / KIB);
}

fn survives(test: &str, role: &str) {
    let _watchdog = watchdog(LIMIT);
    let seed = std::env::var("ONECOPY_SEED").unwrap_or_else(|_| "1".into());
    Peer::configure(test, &format!("survivor {role}"), &[("SEED", &seed)], |command| {
        command.stdout(Stdio::null());
    })
    .succeed_within(Duration::from_secs(120 + 2 * seconds()));
}

fn run(test: &str, kind: &str) {
    match role() {
        Some(role) if role.starts_with("survivor") => survive(test, kind),
        Some(role) => spoil_for_ever(&role),
        None => survives(test, kind),
    }
}

#[test]
fn a_separate_peer_that_writes_anything_anywhere_breaks_nothing() {
    run("hostile::a_separate_peer_that_writes_anything_anywhere_breaks_nothing", "separate");
}

#[test]
fn an_attachable_peer_that_writes_anything_anywhere_breaks_nothing() {
    run("hostile::an_attachable_peer_that_writes_anything_anywhere_breaks_nothing", "attachable");
}
