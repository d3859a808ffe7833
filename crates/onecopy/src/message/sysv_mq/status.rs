//! What the kernel knows of a queue.

/// What msgctl(2) says of a queue. Others may have changed all of it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// How many messages wait.
    pub messages: usize,
    /// How many bytes they have in all.
    pub used_bytes: usize,
    /// How many they may have.
    pub capacity_bytes: usize,
    /// The process that sent last; `None` when nobody has, or it is in another pid namespace. It may be gone.
    pub last_sender: Option<u32>,
    /// The process that received last; `None` as above. It may be gone. When the message was handed to a receiver that
    /// waited, the kernel notes the number of the thread, which differs from the process's in any thread but its first.
    pub last_receiver: Option<u32>,
    /// When somebody received last, in seconds since 1970; 0 is never.
    pub last_receive_time_s: i64,
    /// Who may read and write it, as in chmod(2).
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its owner's group.
    pub gid: u32,
}

impl QueueStatus {
    #[allow(clippy::useless_conversion, reason = "the mode has 16 bits with glibc on x86-64 and 32 elsewhere")]
    pub(super) fn of(found: &libc::msqid_ds) -> Self {
        let process = |pid: i32| u32::try_from(pid).ok().filter(|&pid| pid != 0);
        Self {
            messages: found.msg_qnum as usize,
            used_bytes: found.__msg_cbytes as usize,
            capacity_bytes: found.msg_qbytes as usize,
            last_sender: process(found.msg_lspid),
            last_receiver: process(found.msg_lrpid),
            last_receive_time_s: found.msg_rtime,
            mode: u32::from(found.msg_perm.mode) & 0o777,
            uid: found.msg_perm.uid,
            gid: found.msg_perm.gid,
        }
    }
}
