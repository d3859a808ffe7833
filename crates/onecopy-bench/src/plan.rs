//! Which rows there will be.

use crate::options::{Options, Wait, Workload};
use crate::subject::Subject;
use crate::transport::Transport;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What the workload copies shows unless the user chooses.
const WAYS_OF_COPYING: &[Transport] =
    &[Transport::Pipe, Transport::UnixStream, Transport::PosixShm, Transport::CmaRead, Transport::CmaWrite];
/// Where the workload fresh belongs unless the user chooses it: long messages between processes that share memory.
const WAYS_OF_LONG_MESSAGES: &[Transport] =
    &[Transport::PosixShm, Transport::CmaRead, Transport::Channel, Transport::ChannelNoCma];

/// One row to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) transport: Transport,
    pub(crate) workload: Workload,
    pub(crate) size_bytes: usize,
    /// Whether the payload comes from and goes to memory that no cache holds; a ping-pong never does.
    pub(crate) cold: bool,
    pub(crate) wait: Wait,
    /// Workload many: how many channels the receiver has.
    pub(crate) channels: Option<u32>,
}

/// All rows, those of one link together. Where both processes share a core nobody spins: the other one could not run.
pub(crate) fn cases(options: &Options, has_cores: bool) -> Vec<Case> {
    let transports = transports(options);
    let workloads = workloads(options);
    let mut cases: Vec<Case> = Vec::new();
    for transport in transports {
        let waits = if has_cores { transport.waits() } else { &[Wait::Block] };
        for &wait in waits {
            for &workload in &workloads {
                if is_measured_by(workload, wait, waits) && is_wanted(workload, transport, options) {
                    add(&mut cases, options, (transport, wait, workload));
                }
            }
        }
    }
    cases
}

/// Whether the crossover points of the channel belong to the report: unless the user chose sizes, and where both sides spin.
pub(crate) fn shows_crossovers(cases: &[Case], options: &Options) -> bool {
    let is_one = |case: &Case| case.transport == Transport::Channel && case.workload == Workload::Fresh;
    options.sizes_bytes.is_empty() && cases.iter().any(|case| is_one(case) && case.wait == Wait::Spin)
}

/// How one waits matters to a ping-pong; a stream hardly waits, and does it in the usual way. Where the processor time of
/// each side counts nobody spins: that would look like work.
fn is_measured_by(workload: Workload, wait: Wait, waits: &[Wait]) -> bool {
    match workload {
        Workload::Rtt => true,
        // A sleeping side would be woken for each message, and that is what would be measured.
        Workload::Fresh => wait == if waits.contains(&Wait::Spin) { Wait::Spin } else { waits[0] },
        Workload::Copies | Workload::Many => wait == Wait::Block,
        Workload::Loan | Workload::LoanUntouched => {
            wait == if waits.contains(&Wait::Spin) { Wait::Spin } else { waits[0] }
        }
        Workload::Stream | Workload::Cpu | Workload::Layer | Workload::Registered => wait == waits[0],
        Workload::Uncontended | Workload::Contended => false,
    }
}

/// Of each way of copying one mechanism or two are enough, unless the user chooses. Beside the channel there is no plain loop
/// over the same system calls.
fn is_wanted(workload: Workload, transport: Transport, options: &Options) -> bool {
    if workload.is_in_place() || transport == Transport::ChannelLoan {
        return workload.is_in_place() && transport == Transport::ChannelLoan;
    }
    if workload == Workload::Registered || transport == Transport::ChannelRegistered {
        return workload == Workload::Registered && transport == Transport::ChannelRegistered;
    }
    match workload {
        Workload::Copies => !options.only.is_empty() || WAYS_OF_COPYING.contains(&transport),
        Workload::Fresh => !options.workloads.is_empty() || WAYS_OF_LONG_MESSAGES.contains(&transport),
        Workload::Layer => !transport.is_channel(),
        Workload::Many => transport == Transport::Channel,
        Workload::Rtt | Workload::Stream | Workload::Cpu => true,
        Workload::Loan | Workload::LoanUntouched | Workload::Registered => true,
        Workload::Uncontended | Workload::Contended => false,
    }
}

/// The transports that are asked for.
fn transports(options: &Options) -> Vec<Transport> {
    let asked = options.only.iter().filter_map(|subject| match subject {
        Subject::Transport(transport) => Some(*transport),
        Subject::Primitive(_) => None,
    });
    if options.only.is_empty() { Transport::ALL.to_vec() } else { asked.collect() }
}

/// What is measured unless the user chooses. A file is streamed, never sent to and fro.
fn workloads(options: &Options) -> Vec<Workload> {
    match (options.workloads.is_empty(), &options.input) {
        (false, _) => options.workloads.clone(),
        (true, None) => {
            let is_usual =
                |workload: &Workload| *workload != Workload::Layer && !(options.quick && *workload == Workload::Many);
            Workload::ALL.iter().copied().filter(is_usual).collect()
        }
        (true, Some(_)) => vec![Workload::Stream, Workload::Cpu],
    }
}

fn add(cases: &mut Vec<Case>, options: &Options, (transport, wait, workload): (Transport, Wait, Workload)) {
    let usual = sizes(workload, options.quick);
    let sizes = if options.sizes_bytes.is_empty() { usual } else { &options.sizes_bytes };
    for &size_bytes in sizes {
        // Of the usual sizes a mechanism with a limit gets those that fit, and its limit in the place of the others.
        let limit = transport.hard_limit_bytes().filter(|_| options.sizes_bytes.is_empty());
        let size_bytes = limit.map_or(size_bytes, |limit| size_bytes.min(limit));
        for &cold in temperatures(workload, options.quick) {
            for &channels in counts(workload) {
                let case = Case { transport, workload, size_bytes, cold, wait, channels };
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
        }
    }
}

/// How many channels there are.
fn counts(workload: Workload) -> &'static [Option<u32>] {
    if workload == Workload::Many { &[Some(1), Some(10), Some(100), Some(1000)] } else { &[None] }
}

/// The sizes that are measured unless the user chooses.
fn sizes(workload: Workload, quick: bool) -> &'static [usize] {
    match (workload, quick) {
        (Workload::Rtt, true) => &[64],
        (Workload::Rtt, false) => &[8, 64, KIB],
        (Workload::Stream, true) => &[4 * KIB, 64 * KIB, MIB],
        (Workload::Stream, false) => &[64, KIB, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB],
        (Workload::Fresh, true) => &[64 * KIB, MIB],
        (Workload::Fresh, false) => &[64 * KIB, 256 * KIB, MIB, 4 * MIB],
        (Workload::Cpu, true) => &[64 * KIB],
        (Workload::Cpu, false) => &[64 * KIB, MIB],
        (Workload::Layer, _) => &[4 * KIB, 64 * KIB],
        (Workload::Copies, _) => &[MIB],
        (Workload::Loan, true) => &[MIB],
        (Workload::Loan, false) => &[4 * KIB, 64 * KIB, MIB, 16 * MIB],
        (Workload::LoanUntouched, _) => &[4 * KIB],
        (Workload::Registered, true) => &[MIB],
        (Workload::Registered, false) => &[MIB, 4 * MIB, 16 * MIB],
        (Workload::Many, _) => &[64],
        (Workload::Uncontended | Workload::Contended, _) => &[],
    }
}

/// Cold figures are the honest ones, since real payloads are rarely in the cache already; what a layer costs shows best
/// when nothing else does.
fn temperatures(workload: Workload, quick: bool) -> &'static [bool] {
    match (workload, quick) {
        (
            Workload::Rtt
            | Workload::Fresh
            | Workload::Layer
            | Workload::Loan
            | Workload::LoanUntouched
            | Workload::Registered
            | Workload::Many
            | Workload::Uncontended
            | Workload::Contended,
            _,
        ) => &[false],
        (Workload::Stream, false) => &[true, false],
        (Workload::Stream, true) | (Workload::Cpu | Workload::Copies, _) => &[true],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_planned_once() {
        let options = Options { sizes_bytes: vec![64, 64, 128], ..Options::default() };
        let cases = cases(&options, true);
        assert!(cases.iter().all(|case| cases.iter().filter(|other| *other == case).count() == 1));
        assert!(cases.iter().any(|case| case.size_bytes == 128 && case.workload == Workload::Cpu));
    }

    #[test]
    fn a_file_is_streamed_only() {
        let options = Options { input: Some("/etc/hostname".into()), ..Options::default() };
        assert!(cases(&options, true).iter().all(|case| !case.workload.is_ping_pong()));
    }

    #[test]
    fn quick_keeps_a_row_of_each_workload_and_transport() {
        let cases = cases(&Options { quick: true, ..Options::default() }, true);
        for transport in Transport::ALL {
            let in_place = [Workload::Loan, Workload::LoanUntouched];
            let moving = [Workload::Rtt, Workload::Stream, Workload::Cpu];
            let workloads = match transport {
                Transport::ChannelLoan => &in_place[..],
                Transport::ChannelRegistered => &[Workload::Registered],
                _ => &moving,
            };
            for workload in workloads {
                assert!(cases.iter().any(|case| case.transport == *transport && case.workload == *workload));
            }
        }
        let copies = || cases.iter().filter(|case| case.workload == Workload::Copies);
        assert!(copies().map(|case| case.transport).eq(WAYS_OF_COPYING.iter().copied()));
        assert!(copies().all(|case| case.wait == Wait::Block && case.cold));
    }

    #[test]
    fn long_messages_go_to_and_fro_where_memory_is_shared_and_both_sides_spin() {
        let cases = cases(&Options::default(), true);
        let mut fresh: Vec<_> = cases.iter().filter(|case| case.workload == Workload::Fresh).collect();
        assert!(fresh.iter().all(|case| case.wait == Wait::Spin && !case.cold));
        fresh.dedup_by_key(|case| case.transport);
        assert!(fresh.iter().map(|case| case.transport).eq(WAYS_OF_LONG_MESSAGES.iter().copied()));
    }

    #[test]
    fn copies_of_every_transport_are_counted_when_it_is_chosen() {
        let workloads = vec![Workload::Copies];
        let cases = cases(&Options { only: Subject::all().collect(), workloads, ..Options::default() }, true);
        let copying = Transport::ALL
            .iter()
            .copied()
            .filter(|transport| !matches!(transport, Transport::ChannelLoan | Transport::ChannelRegistered));
        assert!(cases.iter().map(|case| case.transport).eq(copying));
    }
}
