//! How to wait for the other side of a connection in shared memory.

use std::sync::OnceLock;
use std::time::Duration;

/// How a side waits for the other one: by looking again and again, or asleep.
///
/// To look again notices a message within the time that a cache line needs from core to core, and uses a core up meanwhile.
/// A sleeper costs nothing, but waking it takes the sleeper and its waker tens of microseconds. On a machine with one core
/// nobody looks again and again, whatever the strategy: the other side could not run meanwhile. Where two processes are
/// confined to one core of a larger machine, [`WaitStrategy::Block`] is the right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Look again and again until something comes. For two processes with a core each, and for as long as they wait.
    Spin,
    /// Look again and again for about as long as a wake-up takes, then sleep: never much worse than either.
    #[default]
    Adaptive,
    /// Sleep at once. For waits that are usually long, and for machines with less cores than processes.
    Block,
}

/// Measured: a futex wake-up of a sleeper on another core takes about 30 us from the call to the sleeper's next step.
const ADAPTIVE_SPIN: Duration = Duration::from_micros(50);

impl WaitStrategy {
    /// How long to look again and again; `None` is without end.
    pub(crate) fn spin_time(self) -> Option<Duration> {
        match self {
            _ if has_one_core() => Some(Duration::ZERO),
            Self::Spin => None,
            Self::Adaptive => Some(ADAPTIVE_SPIN),
            Self::Block => Some(Duration::ZERO),
        }
    }
}

/// Whether this machine has one core only, as it was at the first wait. The affinity of this process says nothing: the
/// other one may be pinned to another core.
fn has_one_core() -> bool {
    static ONE: OnceLock<bool> = OnceLock::new();
    // A list like "0-3,5".
    *ONE.get_or_init(|| std::fs::read_to_string("/sys/devices/system/cpu/online").is_ok_and(|list| list.trim() == "0"))
}
