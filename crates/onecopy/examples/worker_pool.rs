//! A pool of worker processes that return large results: `cargo run --release -p onecopy --example worker_pool`.
//!
//! The pool starts this program once for each worker, gives each a job, and waits for all of them at once: it arms their channels
//! and sits in a single poll(2). Whoever has a result gets the next job. A worker that dies would be an error of its own channel,
//! and of no other.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::process::{Child, Command};
use std::time::Duration;

use onecopy::channel::Arming;
use onecopy::{Channel, Deadline, Error};
use rustix::event::{PollFd, PollFlags, poll};

const WORKERS: usize = 3;
const JOBS: u32 = 60;
/// The numbers of one result, of 4 bytes each: 2 MiB.
const NUMBERS: u32 = 512 << 10;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Worker {
    process: Child,
    channel: Channel,
    jobs: u32,
}

fn main() -> Outcome<()> {
    match std::env::args().nth(1).as_deref() {
        Some("worker") => work(),
        _ => pool(),
    }
}

/// A worker: until the pool closes the channel.
fn work() -> Outcome<()> {
    let mut channel = Channel::adopt_by(0, soon())?;
    while let Some(job) = channel.recv()? {
        let job = u32::from_le_bytes(job[..].try_into()?);
        let result: Vec<u8> = (0..NUMBERS).flat_map(|index| entry(job, index).to_le_bytes()).collect();
        channel.send(&result)?;
    }
    Ok(())
}

/// One number of the result of a job.
fn entry(job: u32, index: u32) -> u32 {
    (job << 24 ^ index).wrapping_mul(0x9e37_79b9)
}

fn pool() -> Outcome<()> {
    let mut jobs: VecDeque<u32> = (0..JOBS).collect();
    let mut workers = (0..WORKERS).map(|_| start()).collect::<Outcome<Vec<_>>>()?;
    for worker in &mut workers {
        assign(worker, &mut jobs)?;
    }
    let mut done = 0;
    while done < JOBS {
        let mut all_armed = true;
        for worker in &mut workers {
            match worker.channel.receiver().recv_by(Deadline::Now) {
                Ok(Some(result)) => {
                    check(&result)?;
                    (done, worker.jobs) = (done + 1, worker.jobs + 1);
                    assign(worker, &mut jobs)?;
                    // There may be more to take.
                    all_armed = false;
                }
                Ok(None) => return Err("a worker has closed its channel".into()),
                Err(Error::WouldBlock { .. }) => all_armed &= worker.channel.arm()? == Arming::Armed,
                Err(error) => return Err(error.into()),
            }
        }
        if all_armed {
            let mut polled: Vec<_> =
                workers.iter().map(|worker| PollFd::from_borrowed_fd(worker.channel.as_fd(), PollFlags::IN)).collect();
            poll(&mut polled, None)?;
        }
    }
    for Worker { mut process, channel, jobs } in workers {
        drop(channel);
        let status = process.wait()?;
        println!("worker {} did {jobs} jobs and ended with {status}", process.id());
        if !status.success() {
            return Err("a worker failed".into());
        }
    }
    println!("{done} results of {} MiB, each looked at", NUMBERS >> 18);
    Ok(())
}

fn start() -> Outcome<Worker> {
    let (parent, end) = Channel::pair()?;
    let process = Command::new(std::env::current_exe()?).arg("worker").stdin(end).spawn()?;
    Ok(Worker { process, channel: parent.accept_by(soon())?, jobs: 0 })
}

fn assign(worker: &mut Worker, jobs: &mut VecDeque<u32>) -> Outcome<()> {
    if let Some(job) = jobs.pop_front() {
        worker.channel.send(&job.to_le_bytes())?;
    }
    Ok(())
}

/// The first number tells the job, and with it all others.
fn check(result: &[u8]) -> Outcome<()> {
    let numbers = result.as_chunks::<4>().0;
    let is_of = |job: u32| (0..).zip(numbers).all(|(index, bytes)| u32::from_le_bytes(*bytes) == entry(job, index));
    let first = numbers.first().map(|bytes| u32::from_le_bytes(*bytes));
    let job = (0..JOBS).find(|job| Some(entry(*job, 0)) == first);
    match job {
        Some(job) if numbers.len() == NUMBERS as usize && is_of(job) => Ok(()),
        _ => Err(format!("a result of {} bytes is not that of any job", result.len()).into()),
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}
