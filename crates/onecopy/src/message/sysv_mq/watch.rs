//! Whether the receiver of a queue still lives: the kernel notes who received last.

use super::SysvQueue;
use crate::process::{self, ProcessHandle};
use crate::{Error, Result};

/// A watch for [`FragmentSender::with_watch`](crate::message::fragment::FragmentSender::with_watch): when the process that received last
/// is gone, it fails with [`Error::PeerGone`]; one that was gone before the first send does not count. As long as nobody
/// received, senders wait; a receiver in another pid namespace is not seen, nor is any where the mode of the queue lets this
/// user send and not read.
pub fn receiver_watch() -> impl FnMut(&mut SysvQueue) -> Result<()> + Send + use<> {
    let mut before = None;
    let mut known = None;
    move |queue| {
        let status = match queue.status() {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => return Ok(()),
            other => other?,
        };
        let found = (status.last_receiver, status.last_receive_time_s);
        let since_before = *before.get_or_insert(found) != found;
        let Some(noted) = status.last_receiver else { return Ok(()) };
        if !is_gone(noted, since_before, &mut known) {
            return Ok(());
        }
        let detail = format!("process {noted}, which received last, is gone");
        Err(Error::PeerGone { object: queue.object().into(), detail })
    }
}

/// Whether the receiver that the kernel noted is gone: one that was `known` while it lived, or one that received after we
/// began and cannot be found any more.
fn is_gone(noted: u32, since_before: bool, known: &mut Option<(u32, ProcessHandle)>) -> bool {
    if known.as_ref().is_none_or(|(number, _)| *number != noted) {
        match ProcessHandle::open_hidden(process_of(noted)) {
            Ok(process) => *known = Some((noted, process)),
            Err(error) => return since_before && error.raw_os_error() == Some(libc::ESRCH),
        }
    }
    known.as_ref().is_some_and(|(_, process)| process.has_exited().unwrap_or(false))
}

/// The process to which a thread belongs, or the number itself where /proc does not say.
fn process_of(thread: u32) -> u32 {
    let status = process::status(thread).unwrap_or_default();
    let number = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(thread)
}
