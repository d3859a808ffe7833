//! What is measured: the mechanisms that move data, by the names of the command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::options::{Usage, Wait};

/// A way to move messages from one process to another that `bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Row 1: a pipe.
    Pipe,
}

impl Transport {
    /// All that can be measured, in the order of the mechanisms.
    pub const ALL: &'static [Self] = &[Self::Pipe];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
        }
    }

    /// How many times the bytes of a message are copied on their way from the sender's memory to the receiver's.
    #[must_use]
    pub fn copies(self) -> u32 {
        match self {
            Self::Pipe => 2,
        }
    }

    /// Whether messages can be lost on the way, so that the receiver has to count them.
    pub(crate) fn is_lossy(self) -> bool {
        false
    }

    /// The ways of waiting that this transport offers.
    pub(crate) fn waits(self) -> &'static [Wait] {
        &[Wait::Block]
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Transport {
    type Err = Usage;

    fn from_str(name: &str) -> Result<Self, Usage> {
        Self::ALL.iter().copied().find(|transport| transport.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|transport| transport.name()).collect();
            Usage::new(format!("`{name}` is not measured; choose from {}", names.join(", ")))
        })
    }
}
