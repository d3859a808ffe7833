//! What the workloads ask of each contender.

use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use crate::order::Order;
use crate::payload::{Pass, Room, Source};

/// One side of a connection in both directions.
pub(crate) trait Endpoint: Sized {
    /// Makes message number `sequence`, which is the next to be sent: in `source`, where it is not made in memory that a library lends.
    fn make(&mut self, source: &mut Source, sequence: u64, pass: Pass) -> Result<(), String> {
        source.make(sequence, pass);
        Ok(())
    }

    /// Sends message number `sequence`, which was made last.
    fn send(&mut self, source: &Source, sequence: u64) -> Result<(), String>;

    /// Receives message number `sequence` into `room`, or into other private memory of this process.
    fn receive(&mut self, room: &mut Room, sequence: u64) -> Result<(), String>;

    /// Checks the message that was received last, where it is, and lets it go.
    fn check(&mut self, room: &Room, sequence: u64, pass: Pass) -> Result<(), String> {
        room.check(sequence, pass).verify(room.bytes(sequence))
    }

    /// What is to be told of how the messages went.
    fn remark(&self) -> Option<String> {
        None
    }
}

/// The guest, which the host starts when it can be found. A host that spins would not notice the end of a guest that failed, so
/// a thread waits for it, and ends the host.
#[derive(Debug)]
pub(crate) struct Guest(JoinHandle<()>);

impl Guest {
    /// Starts it without descriptors for the connection.
    pub(crate) fn start(order: &Order) -> Result<Self, String> {
        Self::start_with(order, Stdio::null(), Stdio::null())
    }

    /// Starts it with two descriptors for the connection.
    pub(crate) fn start_with(order: &Order, input: Stdio, output: Stdio) -> Result<Self, String> {
        let mut guest = Command::new("/proc/self/exe")
            .args(order.for_guest())
            .stdin(input)
            .stdout(output)
            .spawn()
            .map_err(|error| format!("the second process cannot be started: {error}"))?;
        Ok(Self(std::thread::spawn(move || match guest.wait() {
            Ok(status) if status.success() => {}
            ended => {
                // The guest has said on standard error what went wrong.
                eprintln!("the second process failed: {ended:?}");
                std::process::exit(1);
            }
        })))
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Result<(), String> {
        self.0.join().map_err(|_| "the thread that waits for the second process panicked".into())
    }
}

/// A message of so many bytes came into memory for one of another length.
pub(crate) fn complete(bytes: usize, buffer: &[u8]) -> Result<(), String> {
    if bytes == buffer.len() { Ok(()) } else { Err(format!("a message has {bytes} bytes, not {}", buffer.len())) }
}

/// Says which call failed.
pub(crate) fn failed<E: std::fmt::Display>(call: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{call}: {error}")
}

/// As [`failed`], for errors that can only be debugged.
pub(crate) fn failed_debug<E: std::fmt::Debug>(call: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{call}: {error:?}")
}
