//! The workload stream over a transport that may lose messages.
//!
//! The receiver acknowledges, so that the sender never has more under way than a socket buffer holds: a quick run loses
//! nothing that way. What is lost all the same is counted, by the sequence numbers.

use std::ops::Range;
use std::time::Duration;

use onecopy::Deadline;

use super::{Go, Outcome, Stopwatch, flip, text, whole};
use crate::control::Run;
use crate::endpoints::{Ends, Intake};
use crate::payload::{Arena, sequence};

/// How long the sender waits for an acknowledgement before it takes what is under way for lost.
const LOST_AFTER: Duration = Duration::from_millis(50);
/// How long the receiver waits for the next message before it takes the rest for lost: longer, so that the sender goes on
/// first.
const ENDED_AFTER: Duration = Duration::from_millis(500);
/// What the kernel holds for each message beside its bytes, about.
const OVERHEAD_BYTES: usize = 1024;
/// A quarter of the usual socket buffer (net.core.rmem_default).
const WINDOW_BYTES: usize = 48 * 1024;
const ACKNOWLEDGEMENT_BYTES: usize = 8;

/// How many messages may be under way.
fn window(size_bytes: usize) -> u64 {
    (WINDOW_BYTES / (size_bytes + OVERHEAD_BYTES)).max(1) as u64
}

/// After how many messages the receiver acknowledges.
fn every(size_bytes: usize) -> u64 {
    (window(size_bytes) / 2).max(1)
}

/// The sender.
pub(crate) fn send(ends: &mut Ends, arena: &mut Arena, run: &Run, corrupt: bool, go: Go<'_>) -> Outcome {
    let mut outgoing = arena.outgoing(run.slots(), run.check)?;
    let mut acknowledged = run.first_sequence;
    go()?;
    let watch = Stopwatch::start();
    for sequence in run.sequences() {
        while sequence - acknowledged >= window(run.size_bytes) {
            acknowledged = acknowledgement(&mut ends.intake)?.unwrap_or(sequence).clamp(acknowledged, sequence);
        }
        let message = outgoing.message(sequence)?;
        if corrupt && run.is_first_checked(sequence) {
            flip(message);
        }
        ends.sender.any_mut().send(message).map_err(text)?;
    }
    let sample = watch.stop(run.messages, 0, None);
    while acknowledged < run.sequences().end {
        acknowledged = acknowledgement(&mut ends.intake)?.unwrap_or(u64::MAX).max(acknowledged);
    }
    Ok(sample)
}

/// The number of the message up to which all arrived or were lost; `None` when no acknowledgement came in time.
fn acknowledgement(intake: &mut Intake) -> Result<Option<u64>, String> {
    let mut buffer = [0; ACKNOWLEDGEMENT_BYTES];
    match intake.receive(&mut buffer, Deadline::after(LOST_AFTER)) {
        Ok(_) => Ok(Some(u64::from_le_bytes(buffer))),
        Err(error) if error.is_out_of_time() => Ok(None),
        Err(error) => Err(text(error)),
    }
}

/// The receiver.
pub(crate) fn receive(ends: &mut Ends, arena: &mut Arena, run: &Run, go: Go<'_>) -> Outcome {
    let (mut room, checker) = arena.incoming(run.slots(), run.check)?;
    let Range { start, end } = run.sequences();
    let (mut next, mut arrived, mut unacknowledged, mut mismatch) = (start, 0, 0, None);
    go()?;
    let watch = Stopwatch::start();
    while next < end {
        let message = match ends.intake.receive(room.buffer(next), Deadline::after(ENDED_AFTER)) {
            Err(error) if error.is_out_of_time() => break,
            received => whole(received, run.size_bytes)?,
        };
        let found = sequence(message);
        if found < start {
            // A straggler of an earlier run, which counted it as lost.
            continue;
        }
        let checked = checker.verify(found, message).and(check_range(found, next, end));
        if let Err(what) = checked {
            mismatch.get_or_insert(what);
        }
        (arrived, next, unacknowledged) = (arrived + 1, (found + 1).clamp(next, end), unacknowledged + 1);
        if unacknowledged >= every(run.size_bytes) || next == end {
            ends.sender.any_mut().send(&next.to_le_bytes()).map_err(text)?;
            unacknowledged = 0;
        }
    }
    Ok(watch.stop(arrived, run.messages.saturating_sub(arrived), mismatch))
}

/// A number that was never sent was corrupted on the way; one that came before `next` came twice, or out of order.
fn check_range(found: u64, next: u64, end: u64) -> Result<(), String> {
    match (next..end).contains(&found) {
        true => Ok(()),
        false => Err(format!("message {found} came in the place of message {next}")),
    }
}
