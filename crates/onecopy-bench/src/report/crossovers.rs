//! Where the ways through the channel cross.

use serde::{Deserialize, Serialize};

use super::Report;
use super::table::{Columns, bytes, duration, rate};

/// From which size on each way through the channel is the fastest, as measured here, and what the library has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crossovers {
    /// One message at a time, hot.
    pub fresh: Crossing,
    /// Back to back, hot.
    pub stream: Crossing,
    /// What a channel does unless it is told otherwise.
    pub default: Crossing,
    /// What was measured.
    pub points: Vec<WayAtSize>,
}

/// The sizes at which the ways cross, in bytes; `None` where they did not within what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    /// From here on one copy is faster than the ring.
    pub single_copy_bytes: Option<usize>,
    /// From here on it is faster when both sides copy than when the receiver does alone.
    pub cooperative_bytes: Option<usize>,
}

/// One way at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayAtSize {
    /// The length of each message.
    pub size_bytes: usize,
    /// `ring`, `single-copy` or `cooperative`.
    pub path: String,
    /// Half of a round trip, hot: the median.
    pub fresh_ns: f64,
    /// One way, back to back, hot: the median.
    pub stream_bytes_per_s: f64,
}

const PATHS: [&str; 3] = ["ring", "single-copy", "cooperative"];

impl Report {
    /// The points, and what they say.
    pub(super) fn crossings(&self) -> Option<String> {
        let found = self.crossovers.as_ref()?;
        let mut table = Columns::new(&["from", "fresh", "stream", "default"]);
        let cell = |bytes_of: Option<usize>| bytes_of.map_or_else(|| "never".into(), bytes);
        let columns = [found.fresh, found.stream, found.default];
        for (name, of) in [
            ("one copy beats the ring", (|crossing| crossing.single_copy_bytes) as fn(Crossing) -> Option<usize>),
            ("both sides beat one", |crossing| crossing.cooperative_bytes),
        ] {
            let [fresh, stream, default] = columns.map(|crossing| cell(of(crossing)));
            table.add_line([name.into(), fresh, stream, default]);
        }
        let title = "channel: where the ways cross, measured here, and the library's defaults";
        Some(format!("{}\n\n{}", table.titled(title), points(found).titled("each way: fresh, and stream, hot")))
    }
}

fn points(found: &Crossovers) -> Columns {
    let mut table = Columns::new(&["size", "ring", "single-copy", "cooperative", "ring", "single-copy", "cooperative"]);
    let mut sizes: Vec<usize> = found.points.iter().map(|point| point.size_bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        let at = |path: &str| found.points.iter().find(|point| point.size_bytes == size && point.path == path);
        let cell = |path: &str, text: fn(&WayAtSize) -> String| at(path).map_or_else(|| "-".into(), text);
        let [a, b, c] = PATHS.map(|path| cell(path, |point| duration(point.fresh_ns)));
        let [d, e, f] = PATHS.map(|path| cell(path, |point| rate(point.stream_bytes_per_s)));
        table.add_line([bytes(size), a, b, c, d, e, f]);
    }
    table
}
