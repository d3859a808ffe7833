//! What one process tells another so that it can reach a window: as bytes, or as one word of text.
//!
//! The text is `window:PID:ADDRESS+LEN:RIGHTS:WHERE:START:NONCE-ADDRESS:NONCE:CHECK`, where all but PID and LEN are
//! hexadecimal and RIGHTS is `r` or `rw`. It has no character that a shell or an address would take for something else.

use std::fmt;
use std::str::FromStr;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::memory::nonce::{self, NONCE_BYTES, Nonce};
use crate::process::Origin;
use crate::{Error, Result};

/// The length of a token as bytes.
pub const TOKEN_BYTES: usize = 80;

/// The last byte is the version of the layout.
const MAGIC: [u8; 8] = *b"onewin\0\x01";
const PREFIX: &str = "window:";
/// PID, ADDRESS+LEN, RIGHTS, WHERE, START, NONCE-ADDRESS, NONCE and CHECK.
const FIELDS: usize = 8;

/// What a token permits. The kernel does not know of it: see [`window`](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// To read.
    Read,
    /// To read and to write.
    ReadWrite,
}

/// The way to a window of another process, or of this one.
///
/// It can be sent over any mechanism, kept and copied; whoever has one and the permission to attach to the process can use it.
/// It says where the memory is and never what is in it. A token of a window that is closed is refused when it is opened or used.
///
/// ```
/// use onecopy::memory::window::{ReadWindow, Rights, Token};
///
/// let window = ReadWindow::expose(b"some bytes".to_vec())?;
/// let token = *window.token();
/// assert_eq!((token.pid(), token.len(), token.rights()), (std::process::id(), 10, Rights::Read));
/// assert_eq!(Token::from_bytes(&token.to_bytes())?, token);
/// assert_eq!(token.to_string().parse::<Token>()?, token);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub(super) origin: Origin,
    pub(super) rights: Rights,
    pub(super) address: u64,
    pub(super) len: usize,
    pub(super) nonce_address: u64,
    pub(super) nonce: nonce::Value,
}

/// A token as bytes: little-endian, without gaps.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    pid: U32,
    rights: U32,
    place: U64,
    start_ticks: U64,
    address: U64,
    len: U64,
    nonce_address: U64,
    nonce: [U64; 2],
    check: U64,
}

const _: () = assert!(size_of::<Wire>() == TOKEN_BYTES && size_of::<[U64; 2]>() == NONCE_BYTES);

impl Token {
    /// The way to `len` bytes at `address` of this process, for as long as `nonce` lives.
    pub(super) fn new(rights: Rights, address: u64, len: usize, nonce: &Nonce) -> Result<Self> {
        let origin = Origin::current().map_err(|error| Error::os("open", "/proc/self", error))?;
        Ok(Self { origin, rights, address, len, nonce_address: nonce.address(), nonce: nonce.value() })
    }

    /// The process whose memory it is, by the number that its own pid namespace gives it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.origin.pid
    }

    /// Where the window begins in the memory of that process.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The length of the window in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the window has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it permits.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// The name of the window in errors.
    pub(super) fn object(&self) -> String {
        format!("{PREFIX}{}:{:#x}+{}", self.origin.pid, self.address, self.len)
    }

    /// The token as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TOKEN_BYTES] {
        let mut wire = Wire {
            magic: MAGIC,
            pid: self.origin.pid.into(),
            rights: match self.rights {
                Rights::Read => 1,
                Rights::ReadWrite => 3,
            }
            .into(),
            place: self.origin.place.into(),
            start_ticks: self.origin.start_ticks.into(),
            address: self.address.into(),
            len: (self.len as u64).into(),
            nonce_address: self.nonce_address.into(),
            nonce: self.nonce.map(U64::new),
            check: 0.into(),
        };
        wire.check = wire.sum().into();
        zerocopy::transmute!(wire)
    }

    /// The token that these bytes are.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when they are none: another length, another version, or changed on the way.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let Ok(wire) = Wire::read_from_bytes(bytes) else {
            return Err(invalid(format!("{} bytes are no token, which has {TOKEN_BYTES}", bytes.len())));
        };
        if wire.magic != MAGIC {
            return Err(invalid(format!(
                "a token begins with the bytes {MAGIC:02x?}, this with {:02x?}: is it of another version?",
                wire.magic
            )));
        }
        if wire.sum() != wire.check.get() {
            return Err(invalid("some of its bytes were changed on the way".into()));
        }
        wire.decode()
    }
}

impl Wire {
    /// FNV-1a, over all that stands before the sum: against what is cut or mistyped, not against forgers.
    fn sum(&self) -> u64 {
        let bytes = &self.as_bytes()[..TOKEN_BYTES - size_of::<U64>()];
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    }

    fn decode(&self) -> Result<Token> {
        let rights = match self.rights.get() {
            1 => Rights::Read,
            3 => Rights::ReadWrite,
            other => return Err(invalid(format!("it has the unknown rights {other:#x}"))),
        };
        let (address, len) = (self.address.get(), self.len.get());
        let Some(len) = usize::try_from(len).ok().filter(|_| address.checked_add(len).is_some()) else {
            return Err(invalid(format!("{len} bytes at {address:#x} reach beyond the end of an address space")));
        };
        Ok(Token {
            origin: Origin { pid: self.pid.get(), place: self.place.get(), start_ticks: self.start_ticks.get() },
            rights,
            address,
            len,
            nonce_address: self.nonce_address.get(),
            nonce: self.nonce.map(U64::get),
        })
    }
}

fn invalid(reason: String) -> Error {
    Error::Invalid { object: "a window's token".into(), reason }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, address, len, nonce_address, nonce, .. } = self;
        let rights = match self.rights {
            Rights::Read => "r",
            Rights::ReadWrite => "rw",
        };
        let wire: Wire = zerocopy::transmute!(self.to_bytes());
        write!(
            f,
            "{PREFIX}{}:{address:#x}+{len}:{rights}:{:x}:{:x}:{nonce_address:x}:{:016x}{:016x}:{:016x}",
            origin.pid,
            origin.place,
            origin.start_ticks,
            nonce[0],
            nonce[1],
            wire.check.get()
        )
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Err(invalid(format!("it begins with `{PREFIX}`, as `onecopy expose` prints it")));
        };
        let fields: Vec<&str> = rest.split(':').collect();
        let Ok(fields) = <[&str; FIELDS]>::try_from(fields) else {
            let found = rest.split(':').count();
            return Err(invalid(format!("{found} fields stand behind `{PREFIX}`, {FIELDS} are needed: is it whole?")));
        };
        parse(fields)
    }
}

fn parse([pid, range, rights, place, start, nonce_address, nonce, check]: [&str; FIELDS]) -> Result<Token> {
    let wrong = |what: &str, field: &str| invalid(format!("`{field}` is no {what}"));
    let hex = |what, field: &str| number(field, 16).ok_or_else(|| wrong(what, field));
    let (address, len) = range.split_once('+').ok_or_else(|| wrong("range, which is ADDRESS+LEN", range))?;
    let address = address.strip_prefix("0x").ok_or_else(|| wrong("address, which is 0x and hexadecimal", address))?;
    // Each half must be ASCII for the split to be at a character.
    let halves = nonce.is_ascii().then(|| nonce.split_at_checked(16)).flatten();
    let (high, low) = halves.filter(|_| nonce.len() == 32).ok_or_else(|| wrong("nonce of 32 digits", nonce))?;
    let wire = Wire {
        magic: MAGIC,
        pid: number(pid, 10).and_then(|pid| u32::try_from(pid).ok()).ok_or_else(|| wrong("pid", pid))?.into(),
        rights: match rights {
            "r" => 1,
            "rw" => 3,
            _ => return Err(wrong("rights, which are r or rw", rights)),
        }
        .into(),
        place: hex("place", place)?.into(),
        start_ticks: hex("start time", start)?.into(),
        address: hex("address", address)?.into(),
        len: number(len, 10).ok_or_else(|| wrong("length", len))?.into(),
        nonce_address: hex("address", nonce_address)?.into(),
        nonce: [hex("nonce", high)?.into(), hex("nonce", low)?.into()],
        check: hex("sum", check)?.into(),
    };
    Token::from_bytes(wire.as_bytes())
}

/// Digits alone: what `from_str_radix` takes may begin with a sign.
fn number(text: &str, radix: u32) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| char::from(byte).is_digit(radix));
    digits.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token {
            origin: Origin { pid: 4711, place: 0xf000_0001, start_ticks: 99 },
            rights: Rights::ReadWrite,
            address: 0x7f00_1234_0000,
            len: 1 << 20,
            nonce_address: 0x7f00_0000_0010,
            nonce: [1, u64::MAX],
        }
    }

    #[test]
    fn a_token_survives_both_forms() {
        let token = token();
        assert_eq!(Token::from_bytes(&token.to_bytes()).unwrap(), token);
        let text = token.to_string();
        assert!(text.starts_with("window:4711:0x7f0012340000+1048576:rw:f0000001:63:"), "{text}");
        assert_eq!(text.parse::<Token>().unwrap(), token);
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let bytes = token().to_bytes();
        for bit in 0..8 * TOKEN_BYTES {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Token::from_bytes(&changed).is_err(), "bit {bit}");
        }
        for len in 0..TOKEN_BYTES {
            assert!(Token::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn text_that_is_no_token_says_why() {
        let text = token().to_string();
        for (from, to, reason) in [
            ("window:", "windows:", "begins with `window:`"),
            (":rw:", ":x:", "`x` is no rights"),
            (":4711:", ":+4711:", "`+4711` is no pid"),
            (":4711:", ":4712:", "changed on the way"),
            ("0x7f0012340000+", "7f0012340000+", "is no address"),
            ("+1048576", "", "is no range"),
            (":63:", ":", "7 fields"),
            ("ffff:", "fff\u{e9}:", "is no nonce"),
        ] {
            let changed = text.replacen(from, to, 1);
            let error = changed.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(reason), "{changed}: {error}");
        }
        for end in 0..text.len() {
            assert!(text[..end].parse::<Token>().is_err(), "{}", &text[..end]);
        }
    }

    proptest! {
        #[test]
        fn any_text_and_any_bytes_are_refused_or_taken_without_a_panic(
            text in "(window:)?[0-9a-fx:+r]{0,120}",
            bytes in proptest::collection::vec(any::<u8>(), TOKEN_BYTES),
        ) {
            let _ = text.parse::<Token>();
            prop_assert!(Token::from_bytes(&bytes).is_err());
        }
    }
}
