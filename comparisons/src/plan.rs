//! What is measured: the rows, and who meets in each.

use serde::Serialize;

use crate::options::Options;
use crate::order::{Contender, Wait, Workload};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const RTT_SIZES: [usize; 3] = [8, 64, KIB];
const STREAM_SIZES: [usize; 5] = [KIB, 4 * KIB, 64 * KIB, MIB, 16 * MIB];
const FRESH_SIZES: [usize; 4] = [64 * KIB, 256 * KIB, MIB, 4 * MIB];
/// What an answer takes that is not there at once, and how long its message is.
const WORK_US: u32 = 50;
const WORK_BYTES: usize = 64;
/// From here on a library's way for large messages takes part, too.
const LARGE_BYTES: usize = 64 * KIB;
/// The sizes whose time for a message is compared with the cache line, not with a copy: a copy of so little says nothing.
const SMALL_BYTES: usize = KIB;

/// A row: the same work for each contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) workload: Workload,
    pub(crate) wait: Wait,
    pub(crate) size_bytes: usize,
    pub(crate) cold: bool,
    /// How long the guest works before it answers.
    pub(crate) work_us: u32,
}

/// All rows that the options ask for.
pub(crate) fn cases(options: &Options) -> Vec<Case> {
    let case = |workload, wait, cold| {
        move |size_bytes: &usize| Case { workload, wait, size_bytes: *size_bytes, cold, work_us: 0 }
    };
    let work = Case { work_us: WORK_US, ..case(Workload::Rtt, Wait::Block, false)(&WORK_BYTES) };
    let rtt =
        [Wait::Spin, Wait::Block].into_iter().flat_map(|wait| RTT_SIZES.iter().map(case(Workload::Rtt, wait, false)));
    let stream =
        [false, true].into_iter().flat_map(|cold| STREAM_SIZES.iter().map(case(Workload::Stream, Wait::Spin, cold)));
    let fresh = FRESH_SIZES.iter().map(case(Workload::Fresh, Wait::Spin, false));
    rtt.chain([work])
        .chain(stream)
        .chain(fresh)
        .filter(|case| options.wants(case.workload) && options.wants_size(case.size_bytes))
        .collect()
}

impl Case {
    /// Who meets in this row, the baseline last.
    pub(crate) fn contenders(self) -> Vec<Contender> {
        let takes_part = |contender: &Contender| match contender {
            Contender::IpcShared => self.size_bytes >= LARGE_BYTES,
            Contender::ChannelInto => self.workload != Workload::Rtt,
            _ => true,
        };
        let baseline = Some(self.baseline()).filter(|baseline| !Contender::ALL.contains(baseline));
        Contender::ALL.into_iter().filter(takes_part).chain(baseline).collect()
    }

    /// Who sleeps is compared with a pipe, which is a contender as well.
    pub(crate) fn baseline(self) -> Contender {
        match self.wait {
            Wait::Block => Contender::Pipe,
            Wait::Spin if self.size_bytes <= SMALL_BYTES => Contender::Line,
            Wait::Spin => Contender::Memcpy,
        }
    }

    /// How the figures are given.
    pub(crate) fn unit(self) -> Unit {
        match self.workload {
            Workload::Stream if self.baseline() == Contender::Memcpy => Unit::Rate,
            _ => Unit::Time,
        }
    }

    /// How a contender waits in this row. Sockets and pipes wait in the kernel in streams of large messages: looking again and
    /// again, each time by a call, takes the lock of the queue from the side that fills it.
    pub(crate) fn wait_of(self, contender: Contender) -> Wait {
        match contender.library() {
            "ipc-channel" | "interprocess" if self.workload != Workload::Rtt => Wait::Block,
            _ => self.wait,
        }
    }

    /// How many messages a run times.
    pub(crate) fn messages(self, contender: Contender, quick: bool) -> u64 {
        let (budget, most) = if quick { (96 * MIB, 20_000) } else { (384 * MIB, 60_000) };
        let fitting = (budget / self.size_bytes) as u64;
        match self.workload {
            _ if contender == Contender::Line => most,
            Workload::Rtt if self.wait == Wait::Block => most / 25,
            Workload::Rtt => most / 4,
            Workload::Fresh => fitting.clamp(24, most / 25),
            Workload::Stream | Workload::Killed => fitting.clamp(8, most),
        }
    }

    pub(crate) fn label(self) -> String {
        let size = size(self.size_bytes);
        match (self.workload, self.wait) {
            (Workload::Rtt, Wait::Spin) => format!("rtt {size}, spinning"),
            (Workload::Rtt, Wait::Block) if self.work_us > 0 => format!("rtt {size}, {} us of work", self.work_us),
            (Workload::Rtt, Wait::Block) => format!("rtt {size}, blocking"),
            (Workload::Stream, _) => format!("stream {size}, {}", if self.cold { "cold" } else { "hot" }),
            (Workload::Fresh, _) => format!("fresh {size}"),
            (Workload::Killed, _) => format!("killed {size}"),
        }
    }
}

/// What the figures of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// Times as long as the baseline: less is better.
    Time,
    /// Times as fast as the baseline: more is better.
    Rate,
}

pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= MIB => format!("{} MiB", bytes / MIB),
        bytes if bytes >= KIB => format!("{} KiB", bytes / KIB),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn rows_follow_the_options() {
        let all = cases(&Options::parse_from(["compare"]));
        assert_eq!(all.len(), 7 + 10 + 4);
        let some = cases(&Options::parse_from(["compare", "--workload", "stream", "--size", "1048576"]));
        assert_eq!(
            some.iter().map(|case| case.label()).collect::<Vec<_>>(),
            ["stream 1 MiB, hot", "stream 1 MiB, cold"]
        );
    }

    #[test]
    fn small_rows_are_times_and_large_streams_are_rates() {
        let of = |workload, size_bytes| Case { workload, wait: Wait::Spin, size_bytes, cold: false, work_us: 0 };
        assert_eq!(of(Workload::Stream, KIB).unit(), Unit::Time);
        assert_eq!(of(Workload::Stream, 4 * KIB).unit(), Unit::Rate);
        assert_eq!(of(Workload::Fresh, MIB).unit(), Unit::Time);
        assert!(!of(Workload::Rtt, 8).contenders().contains(&Contender::IpcShared));
    }
}
