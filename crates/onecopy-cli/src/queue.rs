//! What is special to some mechanisms and can be said on the command line: priorities, types, who sent.

use std::cell::RefCell;
use std::rc::Rc;

use onecopy::message::fragment::FragmentSender;
use onecopy::message::posix_mq::{self, Access, PosixQueue};
use onecopy::message::sysv_mq::{self, Select, SysvQueue};
use onecopy::message::udp::UdpSocket;
use onecopy::message::unix_dgram::UnixDatagram;
use onecopy::open::{self, OpenOptions};
use onecopy::{Address, Deadline, PosixName, Receiver, Result, Sender, SysvName};

use crate::failure::Failure;
use crate::parts::PartSender;

/// What a message is sent with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outgoing {
    priority: Option<u32>,
    message_type: Option<i64>,
}

impl Outgoing {
    /// Refuses a priority where there are none, and a type likewise.
    pub(crate) fn new(address: &Address, priority: Option<u32>, message_type: Option<i64>) -> Result<Self, Failure> {
        if priority.is_some() && !matches!(address, Address::PosixMq(_)) {
            return Err(Failure::usage(format!("--priority does not fit {address}: only mq: has priorities")));
        }
        if message_type.is_some() && !matches!(address, Address::SysvMq(_)) {
            return Err(no_types(address));
        }
        Ok(Self { priority, message_type })
    }
}

/// A sender to `address`, with the priority or the type that was asked for.
pub(crate) fn sender(address: &Address, outgoing: Outgoing, options: &OpenOptions) -> Result<Box<dyn Sender>> {
    Ok(match address {
        Address::PosixMq(name) => Box::new(prioritised(name, outgoing, options)?),
        Address::SysvMq(name) => Box::new(typed(name, outgoing, options)?),
        _ => open::open_sender(address, options)?,
    })
}

/// As [`sender`], for messages of any size. Queues do not tell that their receiver is gone, so it is watched.
pub(crate) fn fragment_sender(
    address: &Address,
    outgoing: Outgoing,
    options: &OpenOptions,
) -> Result<Box<dyn PartSender>> {
    Ok(match address {
        Address::PosixMq(name) => {
            let queue = prioritised(name, outgoing, options)?;
            Box::new(FragmentSender::new(queue).with_watch(posix_mq::receiver_watch()))
        }
        Address::SysvMq(name) => {
            Box::new(FragmentSender::new(typed(name, outgoing, options)?).with_watch(sysv_mq::receiver_watch()))
        }
        _ => Box::new(FragmentSender::new(open::open_sender(address, options)?)),
    })
}

fn prioritised(name: &PosixName, outgoing: Outgoing, options: &OpenOptions) -> Result<PosixQueue> {
    let mut queue = open::posix_queue(name, Access::Send, options)?;
    queue.set_priority(outgoing.priority.unwrap_or(0))?;
    Ok(queue)
}

fn typed(name: &SysvName, outgoing: Outgoing, options: &OpenOptions) -> Result<SysvQueue> {
    let mut queue = open::sysv_queue(name, options)?;
    queue.set_send_type(outgoing.message_type.unwrap_or(1))?;
    Ok(queue)
}

/// What waits in a queue, for a sender that has no room there.
pub(crate) fn backlog(address: &Address) -> Option<String> {
    match address {
        Address::PosixMq(name) => {
            let queue = PosixQueue::open_for(name, Access::Send).ok()?;
            let (queued, limit) = (queue.queued_messages().ok()?, queue.attributes().max_messages);
            Some(format!("{queued} of at most {limit} messages wait in it: receive some first"))
        }
        Address::SysvMq(name) => {
            let status = SysvQueue::open(name).and_then(|queue| queue.status()).ok()?;
            let (queued, limit) = (status.used_bytes, status.capacity_bytes);
            Some(format!("{queued} of at most {limit} bytes wait in it: receive some first"))
        }
        _ => None,
    }
}

/// Which messages a receiver takes.
pub(crate) type Wanted = Select;

/// `N`, `-N`, `^N` or 0, as `recv --type` takes them.
pub(crate) fn wanted(text: &str) -> Result<Wanted, String> {
    let number = |digits: &str| digits.parse::<i64>().ok().filter(|number| *number >= 1);
    let selection = match (text.strip_prefix('-'), text.strip_prefix('^')) {
        _ if text == "0" => Some(Select::Any),
        (Some(digits), _) => number(digits).map(Select::UpTo),
        (_, Some(digits)) => number(digits).map(Select::Except),
        _ => number(text).map(Select::Exact),
    };
    selection.ok_or_else(|| "no selection of types: write 3, -3 (up to 3), ^3 (all but 3) or 0 (any)".into())
}

/// Refuses a selection of types where there are none.
pub(crate) fn check_wanted(address: &Address, wanted: Option<Wanted>) -> Result<Wanted, Failure> {
    match wanted {
        Some(_) if !matches!(address, Address::SysvMq(_)) => Err(no_types(address)),
        wanted => Ok(wanted.unwrap_or(Select::Any)),
    }
}

fn no_types(address: &Address) -> Failure {
    Failure::usage(format!("--type does not fit {address}: only sysv-mq: has types"))
}

/// What a receiver knows about its latest message, beside the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note(Rc<RefCell<String>>);

impl Note {
    fn set(&self, text: String) {
        self.0.replace(text);
    }

    /// The text, which begins with a comma, and is empty where there is nothing to tell.
    pub(crate) fn take(&self) -> String {
        self.0.take()
    }
}

/// A receiver that notes what it knows about each message.
struct Noting<R> {
    receiver: R,
    note: Note,
    wanted: Wanted,
}

impl Receiver for Noting<PosixQueue> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let (len, priority) = self.receiver.recv_with_priority_by(buffer, deadline)?;
        self.note.set(format!(", priority {priority}"));
        Ok(Some(len))
    }

    fn usual_bytes(&self) -> usize {
        self.receiver.usual_bytes()
    }

    fn object(&self) -> &str {
        Receiver::object(&self.receiver)
    }
}

impl Receiver for Noting<SysvQueue> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let (len, message_type) = self.receiver.recv_select_by(self.wanted, buffer, deadline)?;
        self.note.set(format!(", type {message_type}"));
        Ok(Some(len))
    }

    fn usual_bytes(&self) -> usize {
        self.receiver.usual_bytes()
    }

    fn object(&self) -> &str {
        Receiver::object(&self.receiver)
    }
}

impl Receiver for Noting<UnixDatagram> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let (len, sender) = self.receiver.recv_with_credentials_by(buffer, deadline)?;
        self.note.set(format!(", from pid {} uid {} gid {}", sender.pid, sender.uid, sender.gid));
        Ok(Some(len))
    }

    fn usual_bytes(&self) -> usize {
        self.receiver.usual_bytes()
    }

    fn object(&self) -> &str {
        Receiver::object(&self.receiver)
    }
}

impl Receiver for Noting<UdpSocket> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let (len, sender) = self.receiver.recv_from_by(buffer, deadline)?;
        self.note.set(format!(", from {sender}"));
        Ok(Some(len))
    }

    fn usual_bytes(&self) -> usize {
        self.receiver.usual_bytes()
    }

    fn object(&self) -> &str {
        Receiver::object(&self.receiver)
    }
}

/// A receiver for `address`. Where its mechanism knows more of a message than its bytes, `note` has that after each.
pub(crate) fn receiver(
    address: &Address,
    wanted: Wanted,
    note: &Note,
    options: &OpenOptions,
) -> Result<Box<dyn Receiver>> {
    let note = note.clone();
    Ok(match address {
        Address::PosixMq(name) => {
            let receiver = open::posix_queue(name, Access::Receive, options)?;
            receiver.announce_receiver()?;
            Box::new(Noting { receiver, note, wanted })
        }
        Address::SysvMq(name) => Box::new(Noting { receiver: open::sysv_queue(name, options)?, note, wanted }),
        Address::UnixDgram(name) => Box::new(Noting { receiver: open::unix_datagram(name, options)?, note, wanted }),
        Address::Udp(name) => Box::new(Noting { receiver: open::udp(name, options)?, note, wanted }),
        _ => open::open_receiver(address, options)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_of_types() {
        assert_eq!(wanted("0"), Ok(Select::Any));
        assert_eq!(wanted("3"), Ok(Select::Exact(3)));
        assert_eq!(wanted("-3"), Ok(Select::UpTo(3)));
        assert_eq!(wanted("^3"), Ok(Select::Except(3)));
        for text in ["", "-", "^", "^-3", "-0", "--3", "x", "9223372036854775808"] {
            assert!(wanted(text).is_err(), "{text}");
        }
    }
}
