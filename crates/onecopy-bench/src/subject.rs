//! What a user can ask to have measured.

use std::fmt;
use std::str::FromStr;

use crate::options::Usage;
use crate::primitive::Primitive;
use crate::transport::Transport;

/// A mechanism, by the name of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One that moves data.
    Transport(Transport),
    /// One that wakes or locks.
    Primitive(Primitive),
}

impl Subject {
    /// All of them, in the order of the mechanisms.
    pub fn all() -> impl Iterator<Item = Self> {
        let transports = Transport::ALL.iter().copied().map(Self::Transport);
        transports.chain(Primitive::ALL.iter().copied().map(Self::Primitive))
    }

    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transport(transport) => transport.name(),
            Self::Primitive(primitive) => primitive.name(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Subject {
    type Err = Usage;

    fn from_str(name: &str) -> Result<Self, Usage> {
        Self::all().find(|subject| subject.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::all().map(Self::name).collect();
            Usage::new(format!("`{name}` is not measured; choose from {}", names.join(", ")))
        })
    }
}
