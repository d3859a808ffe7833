//! Why a queue cannot be created or opened, with the limits in force.

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::{Access, QueueAttributes};
use crate::Error;
use crate::sys::sysctl::sysctl;

pub(super) fn creation_error(object: &str, wanted: QueueAttributes, errno: Errno) -> Error {
    let QueueAttributes { max_messages, message_bytes } = wanted;
    let error = Error::os("mq_open", object, errno);
    match errno {
        Errno::EXIST => error.with_remedy("a queue of this name exists: open it, or remove it first"),
        Errno::INVAL => error.with_remedy(format!(
            "{max_messages} messages of {message_bytes} bytes were asked for; from 1 to {} of 1 to {} bytes are allowed: ask \
             for less, or raise /proc/sys/fs/mqueue/msg_max and msgsize_max",
            sysctl("fs/mqueue/msg_max", 10),
            sysctl("fs/mqueue/msgsize_max", 8192)
        )),
        Errno::MFILE => error.with_remedy(format!(
            "this queue counts {} bytes, and all queues of a user may count {} (RLIMIT_MSGQUEUE): remove queues that nobody \
             uses, ask for less, or raise it with `ulimit -q`; else this process has as many descriptors as RLIMIT_NOFILE \
             allows",
            wanted.counted_bytes(),
            getrlimit(Resource::Msgqueue).current.map_or_else(|| "any number".into(), |limit| limit.to_string())
        )),
        Errno::NOSPC => error.with_remedy(format!(
            "there are {} queues, as many as /proc/sys/fs/mqueue/queues_max allows: remove some or raise it",
            sysctl("fs/mqueue/queues_max", 256)
        )),
        Errno::ACCESS => error.with_remedy("only root may create a queue here"),
        _ => unsupported_or(error, object, errno),
    }
}

pub(super) fn opening_error(object: &str, access: Access, errno: Errno) -> Error {
    let error = Error::os("mq_open", object, errno);
    match errno {
        Errno::NOENT => error.with_remedy("there is no such queue: create it first"),
        Errno::ACCESS => error.with_remedy(match access {
            Access::Send => "its mode does not let this user send",
            Access::Receive => "its mode does not let this user receive",
            Access::Both => "its mode does not let this user both send and receive: open it for one of them",
        }),
        _ => unsupported_or(error, object, errno),
    }
}

fn unsupported_or(error: Error, object: &str, errno: Errno) -> Error {
    if errno == Errno::NOSYS {
        let reason = format!("this kernel has no POSIX message queues: {error}");
        return Error::Unsupported { object: object.into(), reason };
    }
    error
}
