//! mq_send(3) and mq_receive(3).

use std::os::fd::AsRawFd as _;

use nix::mqueue::{MQ_OFlag, MqdT, mq_getattr, mq_open, mq_receive, mq_send};
use nix::sys::stat::Mode;
use onecopy::{Deadline, PosixName, Receiver, Result, Sender};

use super::os;

pub(crate) struct PosixQueue {
    queue: MqdT,
    /// Where messages come in: the kernel wants room for the longest, whatever comes.
    incoming: Vec<u8>,
}

impl PosixQueue {
    pub(crate) fn open(name: &PosixName) -> Result<Self> {
        let failed = |errno: nix::Error| os("mq_open", "a plain queue", errno);
        let queue = mq_open(name.as_os_str(), MQ_OFlag::O_RDWR, Mode::empty(), None).map_err(failed)?;
        debug_assert!(queue.as_raw_fd() >= 0);
        let longest = mq_getattr(&queue).map_err(failed)?.msgsize();
        Ok(Self { queue, incoming: vec![0; usize::try_from(longest).unwrap_or_default()] })
    }
}

impl Sender for PosixQueue {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        mq_send(&self.queue, message, 0).map_err(|errno| os("mq_send", "a plain queue", errno))
    }
}

impl Receiver for PosixQueue {
    /// A buffer that is long enough takes the message at once, as a program would do it that has such buffers.
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        let failed = |errno| os("mq_receive", "a plain queue", errno);
        let mut priority = 0;
        if buffer.len() >= self.incoming.len() {
            return mq_receive(&self.queue, buffer, &mut priority).map(Some).map_err(failed);
        }
        let len = mq_receive(&self.queue, &mut self.incoming, &mut priority).map_err(failed)?;
        buffer[..len].copy_from_slice(&self.incoming[..len]);
        Ok(Some(len))
    }
}
