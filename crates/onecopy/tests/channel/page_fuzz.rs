//! What a channel makes of any bytes in its shared pages: the body of the fuzz target `shared_pages`, which the tests run too.
//!
//! The input is a program: what the two sides do, without waiting, and what is written into the pages in between. Whatever that is, the
//! side under test gets an error or a message within its limit, and no call panics, hangs or reaches beyond the pages. Both sides are
//! in this process; a filter keeps them from writing where the pages say.
#![allow(unreachable_pub, reason = "the fuzz target includes this file as a module")]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Once, OnceLock};
use std::time::Duration;

use onecopy::channel::{ChannelName, ChannelReceiver, ChannelSender, Policy};
use onecopy::{Channel, Deadline, Error, Listener, Receiver as _, Result, Sender as _, WaitStrategy};

use super::filter;

const MOST_STEPS: usize = 256;
/// The longest message that the side under test takes.
const LIMIT_BYTES: usize = 100_000;
const LENGTHS: [usize; 16] =
    [0, 1, 8, 48, 56, 57, 104, 105, 4000, 16_384, 16_385, 60_000, 65_536, 99_999, 100_001, 300_000];

/// Runs one input. The process that does so cannot write other processes' memory any more.
///
/// # Panics
///
/// When the side under test has done something wrong.
pub fn run(input: &[u8]) {
    static FILTER: Once = Once::new();
    FILTER.call_once(|| filter::install(&[filter::WRITE], libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()));
    let mut program = Program(input);
    // One that may attach takes long to begin: under a filter it tries that in a child.
    let mut world = World::new(program.byte() % 16 == 0);
    for _ in 0..MOST_STEPS {
        if program.0.is_empty() {
            break;
        }
        world.step(&mut program);
    }
    world.end();
}

struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    fn length(&mut self) -> usize {
        LENGTHS[usize::from(self.byte()) % LENGTHS.len()]
    }
}

/// One side, in halves.
struct Side(ChannelSender, ChannelReceiver);

impl Side {
    fn of(channel: Channel) -> Self {
        let (mut sender, mut receiver) = channel.split();
        sender.set_wait_strategy(WaitStrategy::Block);
        receiver.set_wait_strategy(WaitStrategy::Block);
        receiver.set_limit_bytes(LIMIT_BYTES);
        Self(sender, receiver)
    }

    /// Does something that its user might do.
    fn act(&mut self, program: &mut Program<'_>) {
        let Self(sender, receiver) = self;
        let message = |length: usize| vec![0x5a; length];
        match program.byte() % 10 {
            0 | 1 => check(receiver.recv_by(Deadline::Now).inspect(|message| {
                assert!(message.as_ref().is_none_or(|message| message.len() <= LIMIT_BYTES));
            })),
            2 => {
                let mut buffer = vec![0; program.length()];
                let received = receiver.recv_into_by(&mut buffer, Deadline::Now);
                check(received.inspect(|bytes| assert!(bytes.is_none_or(|bytes| bytes <= buffer.len()))));
            }
            3 => check(receiver.recv_view_by(Deadline::Now).map(|view| {
                let view = view.into_iter().collect::<Vec<_>>();
                view.iter().for_each(|view| check(view.copy_to(&mut vec![0; view.len()])));
            })),
            4 | 5 => check(sender.send_by(&message(program.length()), Deadline::Now)),
            // Long enough to be offered, and to be taken back.
            6 => {
                check(sender.send_by(&message(program.length()), Deadline::after(Duration::from_micros(50))));
            }
            7 => check(sender.send_owned_by(message(program.length()), Deadline::Now)),
            8 => {
                let bytes = program.length();
                check(sender.loan_by(bytes, Deadline::Now).and_then(|mut loan| {
                    loan.fill(7);
                    loan.send_by(Deadline::Now).map_err(|unsent| unsent.error)
                }));
            }
            _ => {
                check(sender.flush_by(Deadline::Now));
                check(sender.arm());
                check(receiver.arm());
            }
        }
    }
}

/// Whatever comes of a call, it is one of the errors that may be.
fn check<T>(outcome: Result<T>) {
    if let Err(error) = outcome {
        let known = matches!(
            error,
            Error::WouldBlock { .. }
                | Error::TimedOut { .. }
                | Error::PeerGone { .. }
                | Error::Corrupt { .. }
                | Error::TooLong { .. }
                | Error::BufferTooSmall { .. }
                | Error::Invalid { .. }
        );
        assert!(known, "{error:?}");
    }
}

struct World {
    sides: [Side; 2],
    /// The pages as one of the sides has them mapped: two rings, and the desks.
    parts: [Range<u64>; 3],
    memory: File,
}

impl World {
    fn new(attachable: bool) -> Self {
        static LISTENERS: [OnceLock<Listener>; 2] = [const { OnceLock::new() }; 2];
        let deadline = || Deadline::after(Duration::from_secs(20));
        let name = ChannelName::name(format!("onecopy-fuzz-{}-{attachable}", std::process::id())).unwrap();
        let policy = if attachable { Policy::same_user() } else { Policy::same_user().separate() };
        let listener = LISTENERS[usize::from(attachable)].get_or_init(|| Listener::bind_with(&name, &policy).unwrap());
        let before = mapped();
        let sides = std::thread::scope(|scope| {
            let other = scope.spawn(|| Channel::connect_by(&name, &policy, deadline()).unwrap());
            [listener.accept_by(deadline()).unwrap(), other.join().unwrap()]
        });
        let memory = File::options().read(true).write(true).open("/proc/self/mem").unwrap();
        Self { sides: sides.map(Side::of), parts: parts(&before), memory }
    }

    fn step(&mut self, program: &mut Program<'_>) {
        match program.byte() % 4 {
            0 => self.sides[0].act(program),
            1 => self.sides[1].act(program),
            2 => self.forge(program),
            _ => self.spoil(program),
        }
    }

    /// Changes some word.
    fn spoil(&self, program: &mut Program<'_>) {
        let part = &self.parts[usize::from(program.byte()) % 3];
        let word = u64::from(program.byte()) | u64::from(program.byte()) << 8;
        let place = part.start + word * 8 % (part.end - part.start);
        let old = self.load(place);
        let new = match program.byte() % 5 {
            0 => program.word(),
            1 => u64::from(program.byte()),
            2 => old.wrapping_add(u64::from(program.byte())).wrapping_sub(128),
            3 => old ^ 1 << (program.byte() % 64),
            _ => u64::MAX - u64::from(program.byte()),
        };
        self.store(place, new);
    }

    /// Writes a record that a receiver takes for the next one: its number is right, and nothing else has to be.
    fn forge(&self, program: &mut Program<'_>) {
        const SLOTS: u64 = 256;
        let ring = &self.parts[usize::from(program.byte()) % 2];
        let received = self.load(ring.start + 384);
        let ahead = u64::from(program.byte() % 3);
        let number = received.wrapping_add(ahead);
        let slot = ring.start + 1024 + number % SLOTS * 64;
        let generation = self.load(ring.start + 128 + 8) >> 1 & 0xff;
        let (flags, bytes) = (u64::from(program.byte()), u64::from(program.byte()) | u64::from(program.byte()) << 8);
        let words = program.byte();
        for index in 0..u64::from(words % 4) {
            self.store(slot + 8 + index * 8, if words < 128 { u64::from(program.byte()) } else { program.word() });
        }
        let lap = (number / SLOTS + 1) & u64::from(u32::MAX);
        self.store(slot, lap << 32 | generation << 24 | flags << 16 | bytes);
    }

    fn load(&self, place: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, place).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn store(&self, place: u64, value: u64) {
        self.memory.write_all_at(&value.to_ne_bytes(), place).unwrap();
    }

    /// Closes both sides. The receivers go first: nobody lingers for them.
    fn end(self) {
        let [Side(one, one_receiver), Side(other, other_receiver)] = self.sides;
        drop((one_receiver, other_receiver));
        drop((one, other));
    }
}

/// The memory of channels that is mapped here: the number of its memfd, the offset there, and where it is.
fn mapped() -> Vec<(u64, u64, Range<u64>)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let of = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (start, end) = words[0].split_once('-').unwrap();
        (words[4].parse().unwrap(), number(words[2]), number(start)..number(end))
    };
    maps.lines().filter(|line| line.contains("memfd:onecopy-channel")).map(of).collect()
}

/// The parts of the one channel whose memory was not there `before`. That of an earlier one may stay for a moment: until the thread
/// that was looking whether its peer is there lets go of it.
fn parts(before: &[(u64, u64, Range<u64>)]) -> [Range<u64>; 3] {
    let is_new = |memfd: u64| before.iter().all(|(old, ..)| *old != memfd);
    let mut parts = mapped();
    parts.retain(|(memfd, ..)| is_new(*memfd));
    parts.sort_unstable_by_key(|(_, offset, range)| (*offset, range.start));
    parts.dedup_by_key(|(_, offset, _)| *offset);
    let parts: Vec<_> = parts.into_iter().map(|(.., range)| range).collect();
    parts.try_into().expect("the memory of one channel, in three parts")
}
