//! The machine and the build that measured.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::{affinity, pages};

/// Where the figures come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The kernel: name and release.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// How many cores the measurement was allowed to use.
    pub cores: usize,
    /// Whether payloads lay on memory for which huge pages had been asked, as they do unless `ONECOPY_BENCH_SMALL_PAGES` is set.
    #[serde(default)]
    pub huge_pages: bool,
    /// The version of onecopy.
    pub onecopy: String,
    /// The commit that was built; `None` when it was built outside a repository.
    pub commit: Option<String>,
}

impl Host {
    pub(crate) fn this() -> Self {
        let uname = rustix::system::uname();
        Self {
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            cpu: cpu_name(),
            cores: affinity::allowed().len(),
            huge_pages: pages::are_huge(),
            onecopy: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("ONECOPY_COMMIT").map(str::to_owned),
        }
    }
}

/// What `/proc/cpuinfo` calls the processor; on aarch64 it gives no name, so the architecture has to do.
fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
