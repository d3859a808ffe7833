//! The messages of the handshake, each one packet of a sequenced-packet socket.
//!
//! | From | Message | With it | Meaning |
//! |---|---|---|---|
//! | whoever connects | hello | credentials | who I am, what I offer |
//! | the listener | accept | credentials, the memory | the same of me; here is our memory |
//! | whoever connects | ready | credentials | the memory is mapped: the channel begins |
//! | either | refuse, and a text | credentials | instead of any of these; the end |
//!
//! The prefix and the refusal stay as they are in every version, so that versions can tell each other apart.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::printable;
use crate::process::Origin;

/// "onecopy" and a byte that no text has.
const MAGIC: [u8; 8] = *b"onecopy\xc1";
/// The version of the handshake and of what follows it.
const VERSION: u32 = 2;
/// The longest text of a refusal, in bytes.
const TEXT_BYTES: usize = 448;

const HELLO: u32 = 1;
const ACCEPT: u32 = 2;
const READY: u32 = 3;
const REFUSE: u32 = 4;

/// The flag of a side that lets the other one attach.
const ATTACHABLE: u64 = 1;

/// The longest message, in bytes.
pub(super) const MESSAGE_BYTES: usize = PREFIX_BYTES + TEXT_BYTES;
const PREFIX_BYTES: usize = size_of::<Prefix>();

/// What each message begins with.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Prefix {
    magic: [u8; 8],
    version: u32,
    kind: u32,
}

/// What each side says of itself.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Body {
    page_bytes: u64,
    place: u64,
    start_ticks: u64,
    pid: u64,
    flags: u64,
    memory_bytes: u64,
    limit_bytes: u64,
}

const _: () = assert!(size_of::<Prefix>() == 16 && size_of::<Body>() == 56);

/// What each side says of itself. Who it is the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) origin: Origin,
    /// Whether it lets the other side attach.
    pub(super) attachable: bool,
    /// The longest message that it takes.
    pub(super) limit_bytes: u64,
    /// The length of the memory, from the listener; otherwise 0.
    pub(super) memory_bytes: u64,
}

/// A message, taken apart and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Hello(Greeting),
    Accept(Greeting),
    Ready,
    /// In the other side's words, made harmless.
    Refuse(String),
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, rest) = match self {
            Self::Hello(greeting) => (HELLO, greeting.encode()),
            Self::Accept(greeting) => (ACCEPT, greeting.encode()),
            Self::Ready => (READY, Vec::new()),
            Self::Refuse(text) => (REFUSE, text.as_bytes()[..text.len().min(TEXT_BYTES)].to_vec()),
        };
        [Prefix { magic: MAGIC, version: VERSION, kind }.as_bytes(), &rest].concat()
    }

    /// The message in `bytes`, which may come from anybody; or what is wrong with them.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Ok((prefix, rest)) = Prefix::read_from_prefix(bytes) else {
            return Err(format!("{} bytes are no message of a handshake", bytes.len()));
        };
        match (prefix.magic, prefix.version, prefix.kind) {
            (MAGIC, _, REFUSE) => Ok(Self::Refuse(text(rest))),
            (MAGIC, VERSION, HELLO) => Greeting::decode(rest).map(Self::Hello),
            (MAGIC, VERSION, ACCEPT) => Greeting::decode(rest).map(Self::Accept),
            (MAGIC, VERSION, READY) if rest.is_empty() => Ok(Self::Ready),
            (MAGIC, VERSION, kind) => {
                Err(format!("{} bytes of kind {kind} are no message of a handshake", bytes.len()))
            }
            (MAGIC, version, _) => Err(format!(
                "it speaks version {version} of the channel and this side version {VERSION}: use the same release of \
                 onecopy on both"
            )),
            _ => Err("what it sent is no handshake of a channel".into()),
        }
    }
}

impl Greeting {
    fn encode(self) -> Vec<u8> {
        let Self { origin, attachable, limit_bytes, memory_bytes } = self;
        let body = Body {
            page_bytes: page_bytes(),
            place: origin.place,
            start_ticks: origin.start_ticks,
            pid: origin.pid.into(),
            flags: if attachable { ATTACHABLE } else { 0 },
            memory_bytes,
            limit_bytes,
        };
        body.as_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Ok(body) = Body::read_from_bytes(bytes) else {
            return Err(format!("a greeting of {} bytes instead of {}", bytes.len(), size_of::<Body>()));
        };
        if body.page_bytes != page_bytes() {
            return Err(format!("its pages have {} bytes and this side's {}", body.page_bytes, page_bytes()));
        }
        let Ok(pid) = u32::try_from(body.pid) else { return Err(format!("the pid {} is none", body.pid)) };
        Ok(Self {
            origin: Origin { pid, start_ticks: body.start_ticks, place: body.place },
            attachable: body.flags & ATTACHABLE != 0,
            limit_bytes: body.limit_bytes,
            memory_bytes: body.memory_bytes,
        })
    }
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// The other side's text as an error can show it: whole lines of any length become one harmless one.
fn text(bytes: &[u8]) -> String {
    printable_whole(&String::from_utf8_lossy(bytes))
}

/// As [`printable`], piece by piece, since a refusal is longer than what that shows at once.
fn printable_whole(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(50).map(|piece| printable(&piece.iter().collect::<String>())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        let origin = Origin { pid: 7, start_ticks: 8, place: 9 };
        Greeting { origin, attachable: true, limit_bytes: 1 << 30, memory_bytes: 4096 }
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        let separate = Greeting { attachable: false, ..greeting() };
        let long = "user 4321 is not admitted ".repeat(10);
        for message in
            [Message::Hello(greeting()), Message::Accept(separate), Message::Ready, Message::Refuse(long.clone())]
        {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_what_was_found() {
        let hello = Message::Hello(greeting()).encode();
        let changed = |at: usize, byte: u8| {
            let mut bytes = hello.clone();
            bytes[at] = byte;
            bytes
        };
        let cases = [
            (Vec::new(), "0 bytes"),
            (hello[..15].to_vec(), "15 bytes"),
            (hello[..71].to_vec(), "a greeting of 55 bytes instead of 56"),
            ([&hello[..], &[0]].concat(), "a greeting of 57 bytes"),
            (changed(0, b'x'), "no handshake"),
            (changed(8, 3), "version 3 of the channel and this side version 2"),
            (changed(12, 9), "kind 9"),
            (changed(16, 1), "its pages have"),
            (changed(47, 1), "is none"),
            (vec![0xff; MESSAGE_BYTES], "no handshake"),
        ];
        for (bytes, part) in cases {
            let problem = Message::decode(&bytes).unwrap_err();
            assert!(problem.contains(part), "{problem:?} does not contain {part:?}");
        }
    }

    #[test]
    fn a_refusal_is_understood_in_every_version_and_made_harmless() {
        let mut bytes = Message::Refuse("no\n\u{202e}".into()).encode();
        bytes[8] = 200;
        assert_eq!(Message::decode(&bytes), Ok(Message::Refuse("no\\n\\u{202e}".into())));
        let long = Message::Refuse("ä".repeat(1000)).encode();
        assert!(long.len() <= MESSAGE_BYTES);
        assert!(matches!(Message::decode(&long), Ok(Message::Refuse(_))));
    }
}
