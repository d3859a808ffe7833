//! An object, whatever its source: what every line says.

use std::fmt;
use std::str::FromStr;

use onecopy::{Address, Mechanism};

use super::leftover::Leftover;
use super::processes::{Processes, User};
use crate::verbs::explain;

/// What an object is: a mechanism, or the channel, which is made of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Mechanism(Mechanism),
    Channel,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mechanism(mechanism) => mechanism.name(),
            Self::Channel => onecopy::mechanism::CHANNEL.name,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Mechanism> for Kind {
    fn from(mechanism: Mechanism) -> Self {
        Self::Mechanism(mechanism)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        use Mechanism::{CmaRead, CmaWrite, SignalRealtime, SignalStandard};
        if name == onecopy::mechanism::CHANNEL.name {
            return Ok(Self::Channel);
        }
        match explain::named(name)? {
            none @ (CmaRead | CmaWrite | SignalStandard | SignalRealtime) => {
                Err(format!("{none} has no objects that could be listed"))
            }
            mechanism => Ok(Self::Mechanism(mechanism)),
        }
    }
}

/// Whether somebody uses an object, so far as can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Somebody has it open, mapped, locked or bound.
    Used,
    /// All processes were looked at, and none uses it.
    Unused,
    /// Nobody is seen to use it, but not all could be looked at.
    Unknown,
    /// The kernel does not say who uses objects of this kind.
    Untold,
    /// It is proved that the dead left it: why.
    Stale(String),
}

impl State {
    /// The state of what is used by `users` and by nobody else.
    pub(super) fn of(users: &[User], processes: &Processes) -> Self {
        match users {
            [] if processes.is_complete() => Self::Unused,
            [] => Self::Unknown,
            _ => Self::Used,
        }
    }

    pub(super) fn name(&self) -> Option<&'static str> {
        match self {
            Self::Used => Some("used"),
            Self::Unused => Some("unused"),
            Self::Unknown => Some("unknown"),
            Self::Untold => None,
            Self::Stale(_) => Some("stale"),
        }
    }
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    /// The memory in which it lies, for what lies in some.
    pub(super) memory: Option<Mechanism>,
    /// `None` for what no address leads to from here; `label` tells what it is then.
    pub(super) address: Option<Address>,
    pub(super) label: String,
    /// Shown without --all.
    pub(super) is_named: bool,
    pub(super) uid: Option<u32>,
    pub(super) mode: Option<u32>,
    pub(super) state: State,
    /// Numbers, each with a name that ends in its unit.
    pub(super) figures: Vec<(&'static str, u64)>,
    /// How full it is, and what else there is to say, in a few words.
    pub(super) words: String,
    pub(super) users: Vec<User>,
    pub(super) waiting: Vec<User>,
    /// Those who made it or used it last, by what the kernel has noted.
    pub(super) noted: Vec<u32>,
    /// How `rm --stale` looks again and removes it.
    pub(super) leftover: Option<Leftover>,
}

impl Object {
    /// An object with a name and nothing else yet.
    pub(super) fn new(kind: impl Into<Kind>, address: Address) -> Self {
        let label = address.to_string();
        Self { address: Some(address), ..Self::without_address(kind, label) }
    }

    /// An object that no address leads to.
    pub(super) fn without_address(kind: impl Into<Kind>, label: String) -> Self {
        Self {
            kind: kind.into(),
            memory: None,
            address: None,
            label,
            is_named: true,
            uid: None,
            mode: None,
            state: State::Untold,
            figures: Vec::new(),
            words: String::new(),
            users: Vec::new(),
            waiting: Vec::new(),
            noted: Vec::new(),
            leftover: None,
        }
    }

    /// Sets who uses it, and the state that follows.
    pub(super) fn used_by(mut self, users: Vec<User>, processes: &Processes) -> Self {
        self.state = State::of(&users, processes);
        self.users = users;
        self
    }

    pub(super) fn owned_by(mut self, uid: u32, mode: u32) -> Self {
        self.uid = Some(uid);
        self.mode = Some(mode);
        self
    }

    /// Adds a number.
    pub(super) fn figure(mut self, name: &'static str, value: u64) -> Self {
        self.figures.push((name, value));
        self
    }

    pub(super) fn says(mut self, words: impl Into<String>) -> Self {
        self.words = words.into();
        self
    }

    /// Names what has no name by a descriptor of this process, if it has one.
    pub(super) fn seen_from(&mut self, pid: u32) {
        let user = self.users.iter().find(|user| user.pid == pid);
        if let (Some(Address::Descriptor(_)), Some(address)) = (&self.address, user.and_then(User::address)) {
            self.label = address.to_string();
            self.address = Some(address);
        }
    }

    /// Whether the process has anything to do with it.
    pub(super) fn concerns(&self, pid: u32) -> bool {
        self.users.iter().chain(&self.waiting).any(|user| user.pid == pid) || self.noted.contains(&pid)
    }

    /// Whether `--kind` means it.
    pub(super) fn is_of(&self, kind: Kind) -> bool {
        self.kind == kind || self.memory.is_some_and(|memory| kind == memory.into())
    }
}
