//! From which size on each way through the channel is the fastest here: what the library's defaults should be.

use crate::control::{Forced, Meeting};
use crate::measure::Measurement;
use crate::options::{Wait, Workload};
use crate::plan::Case;
use crate::report::{Crossing, Crossovers, WayAtSize};
use crate::session::{Failure, Session, Setting, Terms};
use crate::stats::Summary;
use crate::transport::Transport;

const SIZES: [usize; 6] = [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20];
const WAYS: [Forced; 3] = [Forced::Ring, Forced::SingleCopy, Forced::Cooperative];
/// A share of the time of a row's run is enough, since many points make a crossing.
const SHARE: u32 = 4;

/// Measures each way at several sizes, one message at a time and back to back, hot: to fill 128 MiB for each point would take
/// longer than all rows of a quick run.
///
/// # Errors
///
/// [`Failure::Failed`] when a way is not to be had, as where the kernel refuses cross-memory attach.
pub(crate) fn measure(setting: &Setting) -> Result<Crossovers, Failure> {
    let mut points = Vec::new();
    for forced in WAYS {
        let terms =
            Terms { wait: Wait::Spin, forced: Some(forced), ..Terms::of(Meeting::Transport(Transport::Channel)) };
        let mut session = Session::open(setting, terms)?;
        for size_bytes in SIZES {
            points.push(point(setting, &mut session, forced, size_bytes)?);
        }
    }
    Ok(of(points))
}

fn point(
    setting: &Setting,
    session: &mut Session<'_>,
    forced: Forced,
    size_bytes: usize,
) -> Result<WayAtSize, Failure> {
    let mut figures = |workload| {
        let case =
            Case { transport: Transport::Channel, workload, size_bytes, cold: false, wait: Wait::Spin, channels: None };
        let mut measurement = Measurement::begin(session, setting, &case, setting.tuning.run_time / SHARE)?;
        for _ in 0..setting.tuning.runs {
            measurement.time()?;
        }
        let figures = measurement.end();
        match (&figures.mismatch, figures.path.as_deref()) {
            (Some(mismatch), _) => Err(Failure::Failed(mismatch.clone())),
            (None, Some(path)) if path == forced.path() => Ok(figures),
            (None, path) => Err(Failure::Failed(format!(
                "messages of {size_bytes} bytes went by {} and not by {}",
                path.unwrap_or("no way"),
                forced.path()
            ))),
        }
    };
    Ok(WayAtSize {
        size_bytes,
        path: forced.path().into(),
        fresh_ns: Summary::of(&figures(Workload::Fresh)?.medians_ns).median / 2.0,
        stream_bytes_per_s: figures(Workload::Stream)?.throughput().median,
    })
}

impl Forced {
    fn path(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::SingleCopy => "single-copy",
            Self::Cooperative => "cooperative",
        }
    }
}

/// What the points say.
fn of(points: Vec<WayAtSize>) -> Crossovers {
    let fresh = crossing(&points, |point| point.fresh_ns);
    let stream = crossing(&points, |point| -point.stream_bytes_per_s);
    let default = Crossing {
        single_copy_bytes: Some(onecopy::channel::DEFAULT_SINGLE_COPY_BYTES),
        cooperative_bytes: Some(onecopy::channel::DEFAULT_COOPERATIVE_BYTES),
    };
    Crossovers { fresh, stream, default, points }
}

/// Where one copy, by either or both sides, begins to be better than the ring, and both sides better than one. Less is better.
fn crossing(points: &[WayAtSize], cost: impl Fn(&WayAtSize) -> f64) -> Crossing {
    let at = |forced: Forced, size| {
        let found = points.iter().find(|point| point.path == forced.path() && point.size_bytes == size);
        found.map_or(f64::INFINITY, &cost)
    };
    let once = |size| at(Forced::SingleCopy, size).min(at(Forced::Cooperative, size));
    Crossing {
        single_copy_bytes: first_of_all(|size| once(size) < at(Forced::Ring, size)),
        cooperative_bytes: first_of_all(|size| at(Forced::Cooperative, size) < at(Forced::SingleCopy, size)),
    }
}

/// The size from which on `is_better` holds for all that were measured.
fn first_of_all(is_better: impl Fn(usize) -> bool) -> Option<usize> {
    let worse = SIZES.iter().rposition(|size| !is_better(*size));
    SIZES.get(worse.map_or(0, |last| last + 1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of a round trip and the rate of each way at each size, in the order of [`WAYS`].
    fn points(costs: [[f64; SIZES.len()]; 3]) -> Vec<WayAtSize> {
        let of_way = |(forced, costs): (Forced, [f64; SIZES.len()])| {
            SIZES.into_iter().zip(costs).map(move |(size_bytes, cost)| WayAtSize {
                size_bytes,
                path: forced.path().into(),
                fresh_ns: cost,
                stream_bytes_per_s: 1.0 / cost,
            })
        };
        WAYS.into_iter().zip(costs).flat_map(of_way).collect()
    }

    #[test]
    fn a_way_begins_where_it_stays_better() {
        let ring = [1.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let single = [2.0, 0.9, 2.5, 2.0, 3.0, 4.0];
        let both = [3.0, 2.0, 3.0, 1.0, 2.0, 6.0];
        let found = of(points([ring, single, both]));
        assert_eq!(found.fresh, Crossing { single_copy_bytes: Some(128 << 10), cooperative_bytes: None });
        assert_eq!(found.stream, found.fresh);
        let never = of(points([[1.0; 6], [2.0; 6], [0.5; 6]]));
        assert_eq!(never.fresh, Crossing { single_copy_bytes: Some(16 << 10), cooperative_bytes: Some(16 << 10) });
    }
}
