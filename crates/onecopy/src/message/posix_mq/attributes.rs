//! How much a queue holds.

use crate::sys::sysctl::sysctl;

/// What the kernel counts for each message besides its bytes: `struct msg_msg` and a node of the tree of priorities.
const MESSAGE_OVERHEAD_BYTES: usize = 96;

/// How much a queue holds. Fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAttributes {
    /// The most messages that wait in the queue; then senders wait.
    pub max_messages: usize,
    /// The longest message, in bytes.
    pub message_bytes: usize,
}

impl QueueAttributes {
    /// What this kernel gives a queue whose creator asks for nothing: 10 messages of 8192 bytes unless somebody changed
    /// `/proc/sys/fs/mqueue/{msg_default,msgsize_default}`.
    #[must_use]
    pub fn system_default() -> Self {
        Self {
            max_messages: sysctl("fs/mqueue/msg_default", 10).min(sysctl("fs/mqueue/msg_max", 10)),
            message_bytes: sysctl("fs/mqueue/msgsize_default", 8192).min(sysctl("fs/mqueue/msgsize_max", 8192)),
        }
    }

    /// What RLIMIT_MSGQUEUE counts for such a queue, in bytes.
    pub(super) fn counted_bytes(self) -> usize {
        self.max_messages.saturating_mul(self.message_bytes.saturating_add(MESSAGE_OVERHEAD_BYTES))
    }
}

impl Default for QueueAttributes {
    fn default() -> Self {
        Self::system_default()
    }
}
