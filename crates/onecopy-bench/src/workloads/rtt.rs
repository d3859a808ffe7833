//! The workload rtt: ping-pong. The guest sends, the host sends back what it received.

use std::ops::Range;

use onecopy::Deadline;

use super::{Go, Laps, Outcome, Stopwatch, flip, text, whole};
use crate::control::{Check, Run};
use crate::endpoints::Ends;
use crate::payload::{Arena, SAMPLE_BYTES, Slots, check_stamps};

/// The side that measures. What comes back is compared with what went out.
///
/// In a timed pass each message is ready before the answer to the one before it comes, and an answer is looked at when the next message
/// is under way: the time of a round trip is that of the transport, without what a program does with its messages.
pub(crate) fn ping(ends: &mut Ends, arena: &mut Arena, run: &Run, corrupt: bool, go: Go<'_>) -> Outcome {
    let mut outgoing = arena.outgoing(Slots::new(run.size_bytes, false), run.check)?;
    let mut buffer = vec![0; run.size_bytes];
    let mut mismatch = None;
    let mut laps = Laps::new();
    let Range { start: first, end } = run.sequences();
    let message = outgoing.message(first)?;
    if corrupt && run.is_first_checked(first) {
        flip(message);
    }
    let Ends { sender, intake } = ends;
    let sender = sender.any_mut();
    go()?;
    let watch = Stopwatch::start();
    laps.start();
    sender.send(outgoing.buffer(first)).map_err(text)?;
    for sequence in run.sequences() {
        if run.check == Check::Sampled {
            outgoing.message(sequence + 1)?;
        }
        let answer = whole(intake.receive(&mut buffer, Deadline::Never), run.size_bytes)?;
        if run.check == Check::Full {
            if answer != outgoing.buffer(sequence) {
                mismatch.get_or_insert_with(|| format!("message {sequence} came back changed"));
            }
            outgoing.message(sequence + 1)?;
        }
        if sequence + 1 < end {
            sender.send(outgoing.buffer(sequence + 1)).map_err(text)?;
        }
        if run.check == Check::Sampled
            && let Err(what) = check_stamps(sequence, answer)
        {
            mismatch.get_or_insert(what);
        }
        laps.lap();
    }
    Ok(laps.put_into(watch.stop(run.messages, 0, mismatch)))
}

/// The side that answers. Of a short message only the first pass looks at more than its length: the answer is checked.
pub(crate) fn pong(ends: &mut Ends, arena: &mut Arena, run: &Run, go: Go<'_>) -> Outcome {
    let mut buffer = vec![0; run.size_bytes];
    let mut mismatch = None;
    let (_, checker) = arena.incoming(Slots::new(run.size_bytes, false), run.check)?;
    let checks = run.check == Check::Full || run.size_bytes >= SAMPLE_BYTES;
    let Ends { sender, intake } = ends;
    let sender = sender.any_mut();
    go()?;
    let watch = Stopwatch::start();
    for sequence in run.sequences() {
        let message = whole(intake.receive(&mut buffer, Deadline::Never), run.size_bytes)?;
        if checks && let Err(what) = checker.verify(sequence, message) {
            mismatch.get_or_insert(what);
        }
        sender.send(message).map_err(text)?;
    }
    Ok(watch.stop(run.messages, 0, mismatch))
}
