//! The baseline for throughput: one process copies from its private memory to its private memory.

use std::hint::black_box;

use super::{Outcome, Stopwatch};
use crate::clock;
use crate::control::{Check, Memcpy};
use crate::payload::{Arena, Content, Outgoing, Room, Slots};

/// How much is copied between two looks at the clock.
const BATCH_BYTES: usize = 256 * 1024;

/// Copies for as long as `order` says.
pub(crate) fn measure(from: &mut Arena, into: &mut Arena, order: &Memcpy) -> Outcome {
    let slots = Slots::new(order.size_bytes, order.cold);
    let batch = (BATCH_BYTES / order.size_bytes).max(1) as u64;
    let mut source = from.outgoing(slots, Check::Sampled)?;
    let (mut target, _) = into.incoming(slots, Check::Sampled)?;
    let mut copied = 0;
    copy(&mut source, &mut target, 0..batch);
    let watch = Stopwatch::start();
    let end_ns = clock::now_ns() + order.time_ns;
    while clock::now_ns() < end_ns {
        copy(&mut source, &mut target, copied..copied + batch);
        copied += batch;
    }
    Ok(watch.stop(copied, 0, None))
}

fn copy(source: &mut Outgoing<'_>, target: &mut Room<'_>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        target.buffer(number).copy_from_slice(black_box(source.buffer(number)));
        black_box(&mut *target);
    }
}

/// The two memories of the baseline.
pub(crate) fn arenas() -> [Arena; 2] {
    [Arena::new(Content::Pattern), Arena::new(Content::Pattern)]
}
