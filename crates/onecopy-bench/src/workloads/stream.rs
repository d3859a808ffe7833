//! The workload stream: one way, back to back. The payload begins in private memory of the sender and ends in private
//! memory of the receiver.

use onecopy::{Deadline, Sender};

use super::{Go, Outcome, Stopwatch, flip, text, whole};
use crate::control::Run;
use crate::endpoints::Intake;
use crate::payload::Arena;

/// The sender.
pub(crate) fn send(sender: &mut dyn Sender, arena: &mut Arena, run: &Run, corrupt: bool, go: Go<'_>) -> Outcome {
    let mut outgoing = arena.outgoing(run.slots(), run.check)?;
    go()?;
    let watch = Stopwatch::start();
    for sequence in run.sequences() {
        let message = outgoing.message(sequence)?;
        if corrupt && run.is_first_checked(sequence) {
            flip(message);
        }
        sender.send(message).map_err(text)?;
    }
    sender.flush_by(Deadline::Never).map_err(text)?;
    Ok(watch.stop(run.messages, 0, None))
}

/// The receiver.
pub(crate) fn receive(intake: &mut Intake, arena: &mut Arena, run: &Run, go: Go<'_>) -> Outcome {
    let (mut room, checker) = arena.incoming(run.slots(), run.check)?;
    let mut mismatch = None;
    go()?;
    let watch = Stopwatch::start();
    for sequence in run.sequences() {
        let message = whole(intake.receive(room.buffer(sequence), Deadline::Never), run.size_bytes)?;
        if let Err(what) = checker.verify(sequence, message) {
            mismatch.get_or_insert(what);
        }
    }
    Ok(watch.stop(run.messages, 0, mismatch))
}
