//! The workload registered: one way, back to back, from one registered buffer into another, which are hot. Otherwise as stream.

use onecopy::{Deadline, Sender as _};

use super::{Go, Outcome, Stopwatch, flip, text};
use crate::control::{Check, Run};
use crate::endpoints::{Intake, Outlet};
use crate::payload::{Arena, stamp};

const NOT_HERE: &str = "this transport has no registered memory";

/// The sender.
pub(crate) fn send(sender: &mut Outlet, arena: &mut Arena, run: &Run, corrupt: bool, go: Go<'_>) -> Outcome {
    let Outlet::Half(sender) = sender else { return Err(NOT_HERE.into()) };
    let mut outgoing = arena.outgoing(run.slots(), run.check)?;
    let mut buffer = sender.register(run.size_bytes).map_err(text)?;
    buffer.copy_from_slice(outgoing.message(run.first_sequence)?);
    go()?;
    let watch = Stopwatch::start();
    for sequence in run.sequences() {
        match run.check {
            Check::Full => buffer.copy_from_slice(outgoing.message(sequence)?),
            Check::Sampled => stamp(sequence, &mut buffer),
        }
        if corrupt && run.is_first_checked(sequence) {
            flip(&mut buffer);
        }
        sender.send_registered_by(&buffer, 0..run.size_bytes, Deadline::Never).map_err(text)?;
    }
    sender.flush_by(Deadline::Never).map_err(text)?;
    Ok(watch.stop(run.messages, 0, None))
}

/// The receiver.
pub(crate) fn receive(intake: &mut Intake, arena: &mut Arena, run: &Run, go: Go<'_>) -> Outcome {
    let Intake::Half(receiver) = intake else { return Err(NOT_HERE.into()) };
    let (_, checker) = arena.incoming(run.slots(), run.check)?;
    let mut buffer = receiver.register(run.size_bytes).map_err(text)?;
    let mut mismatch = None;
    go()?;
    let watch = Stopwatch::start();
    for sequence in run.sequences() {
        let received = receiver.recv_registered_by(&mut buffer, Deadline::Never).map_err(text)?;
        if received != Some(run.size_bytes) {
            return Err(format!("{received:?} came in the place of a message of {} bytes", run.size_bytes));
        }
        if let Err(what) = checker.verify(sequence, &buffer) {
            mismatch.get_or_insert(what);
        }
    }
    Ok(watch.stop(run.messages, 0, mismatch))
}
