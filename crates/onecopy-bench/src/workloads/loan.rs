//! The workload loan: a message is made in shared memory, every byte of it, and summed up there; or sent alone, to see what that
//! costs. The baseline is one process that does the same two steps in its own memory.
//!
//! # Safety
//!
//! The receiver refers to the bytes of a view. The sender, which is this program too, leaves them alone until the view is dropped.
#![expect(unsafe_code, reason = "reads views in place, as a program would that trusts the other side")]

use std::hint::black_box;

use onecopy::{Deadline, Sender as _};

use super::{Go, Outcome, Stopwatch, flip, text};
use crate::clock;
use crate::control::{Check, Memcpy, Run};
use crate::endpoints::{Intake, Outlet};
use crate::payload::{Arena, Outgoing, fill_words, sum_words};

/// The sender.
pub(crate) fn send(
    sender: &mut Outlet,
    arena: &mut Arena,
    run: &Run,
    is_touched: bool,
    corrupt: bool,
    go: Go<'_>,
) -> Outcome {
    let Outlet::Half(sender) = sender else { return Err("this transport does not lend".into()) };
    let mut outgoing = arena.outgoing(run.slots(), run.check)?;
    go()?;
    let watch = Stopwatch::start();
    for sequence in run.sequences() {
        let mut loan = sender.loan(run.size_bytes).map_err(text)?;
        if run.check == Check::Full {
            make(&mut outgoing, sequence, &mut loan)?;
        } else if is_touched {
            fill_words(sequence, &mut loan);
        }
        if corrupt && run.is_first_checked(sequence) {
            flip(&mut loan);
        }
        loan.send().map_err(text)?;
    }
    sender.flush_by(Deadline::Never).map_err(text)?;
    Ok(watch.stop(run.messages, 0, None))
}

fn make(outgoing: &mut Outgoing<'_>, sequence: u64, loan: &mut [u8]) -> Result<(), String> {
    loan.copy_from_slice(outgoing.message(sequence)?);
    Ok(())
}

/// The receiver. In a timed run it compares the sum with that of what was sent, every so often: to make that costs as much again.
pub(crate) fn receive(intake: &mut Intake, arena: &mut Arena, run: &Run, is_touched: bool, go: Go<'_>) -> Outcome {
    const COMPARED: u64 = 64;
    let Intake::Half(receiver) = intake else { return Err("this transport does not lend".into()) };
    let (mut room, checker) = arena.incoming(run.slots(), run.check)?;
    let mut mismatch = None;
    let mut sums = Vec::with_capacity((run.messages / COMPARED) as usize + 1);
    go()?;
    let watch = Stopwatch::start();
    for sequence in run.sequences() {
        let view = receiver.recv_view_by(Deadline::Never).map_err(text)?.ok_or("the other side ended too early")?;
        if view.len() != run.size_bytes || !view.is_lent() {
            return Err(format!("{} bytes came in the place of a loan of {} bytes", view.len(), run.size_bytes));
        }
        // SAFETY: the sender of this program does not write it until it is given back, when the view is dropped.
        let bytes = unsafe { view.as_slice() };
        if run.check == Check::Full {
            mismatch = mismatch.or(checker.verify(sequence, bytes).err());
        } else if is_touched {
            let sum = black_box(sum_words(bytes));
            if sequence.is_multiple_of(COMPARED) {
                sums.push((sequence, sum));
            }
        }
    }
    let sample = watch.stop(run.messages, 0, mismatch);
    let wrong = sums.into_iter().find(|(sequence, sum)| {
        let expected = room.buffer(*sequence);
        fill_words(*sequence, expected);
        sum_words(expected) != *sum
    });
    let wrong = wrong.map(|(sequence, _)| format!("the sum of message {sequence} is wrong"));
    Ok(crate::control::Sample { mismatch: sample.mismatch.clone().or(wrong), ..sample })
}

/// The baseline: both steps in one process.
pub(crate) fn measure_alone(order: &Memcpy) -> Outcome {
    /// How much is filled between two looks at the clock.
    const BATCH_BYTES: usize = 256 * 1024;
    let batch = (BATCH_BYTES / order.size_bytes).max(1) as u64;
    let mut memory = vec![1; order.size_bytes];
    let mut messages = 0;
    let watch = Stopwatch::start();
    let end_ns = clock::now_ns() + order.time_ns;
    while clock::now_ns() < end_ns {
        for sequence in messages..messages + batch {
            fill_words(sequence, black_box(&mut memory));
            black_box(sum_words(black_box(&memory)));
        }
        messages += batch;
    }
    Ok(watch.stop(messages, 0, None))
}
