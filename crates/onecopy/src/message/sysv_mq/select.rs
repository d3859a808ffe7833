//! Choosing messages by their type.

/// Which message a receive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Select {
    /// The oldest.
    Any,
    /// The oldest of this type.
    Exact(i64),
    /// The oldest of the lowest type that is not above this one.
    UpTo(i64),
    /// The oldest of another type.
    Except(i64),
}

impl Select {
    /// The selector and the flags of msgrcv(2).
    pub(super) fn arguments(self) -> (i64, i32) {
        match self {
            Self::Any => (0, 0),
            Self::Exact(message_type) => (message_type, 0),
            Self::UpTo(message_type) => (-message_type, 0),
            Self::Except(message_type) => (message_type, libc::MSG_EXCEPT),
        }
    }

    pub(super) fn takes(self, message_type: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => message_type == wanted,
            Self::UpTo(highest) => message_type <= highest,
            Self::Except(unwanted) => message_type != unwanted,
        }
    }

    pub(super) fn message_type(self) -> Option<i64> {
        match self {
            Self::Any => None,
            Self::Exact(message_type) | Self::UpTo(message_type) | Self::Except(message_type) => Some(message_type),
        }
    }
}
