//! A host and a port.

use std::ffi::OsStr;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::error::{Form, ParseAddressError, Problem};
use super::name::invalid;
use crate::Result;

/// The longest host name, in bytes (RFC 1035).
const HOST_BYTES: usize = 253;

/// A host and a port: `host:port`, an IPv6 address in brackets.
///
/// ```
/// use onecopy::HostPort;
///
/// let local: HostPort = "[::1]:7000".parse()?;
/// assert_eq!((local.host(), local.port()), ("::1", 7000));
/// assert_eq!(HostPort::new("localhost", 0)?.to_string(), "localhost:0");
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an address, an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl HostPort {
    /// A host, which is a name, an IPv4 address or an IPv6 address (with `%scope` where it needs one), and a port. Port 0
    /// lets a listener take any that is free.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for a host that is neither a name nor an address.
    pub fn new(host: impl AsRef<str>, port: u16) -> Result<Self> {
        let host = host.as_ref();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let checked = if bare.contains(':') { check_ipv6(bare) } else { check_name(bare) };
        checked.map(|host| Self { host, port }).map_err(|reason| invalid(OsStr::new(host), reason))
    }

    /// The name or address; an IPv6 address has no brackets here.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Parses `HOST:PORT`, which begins at `at` in the whole input.
    pub(super) fn parse(text: &str, at: usize) -> Result<Self, Problem> {
        let (host, end) = match text.strip_prefix('[') {
            Some(rest) => {
                let Some(len) = rest.find(']') else {
                    return Err(Problem::new(at + text.len(), "] missing"));
                };
                (check_ipv6(&rest[..len]), len + 2)
            }
            None => {
                let len = text.find(':').unwrap_or(text.len());
                (check_name(&text[..len]), len)
            }
        };
        let host = host.map_err(|what| Problem::new(at, what))?;
        let port = parse_port(&text[end..], at + end)?;
        Ok(Self { host, port })
    }
}

fn parse_port(text: &str, at: usize) -> Result<u16, Problem> {
    let Some(digits) = text.strip_prefix(':').filter(|digits| !digits.is_empty()) else {
        let what = if text.is_empty() || text == ":" { "port missing" } else { "a colon and the port belong here" };
        return Err(Problem::new(at + usize::from(text == ":"), what));
    };
    if digits.contains(':') {
        return Err(Problem::new(at, "more than one colon (an IPv6 address stands in brackets)"));
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::new(at + 1, "the port is no number"));
    }
    digits.parse().map_err(|_| Problem::new(at + 1, format!("port {digits} is above 65535")))
}

fn check_ipv6(text: &str) -> Result<String, String> {
    let (address, scope) = match text.split_once('%') {
        Some((address, scope)) => (address, Some(scope)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| "this is no IPv6 address".to_owned())?;
    match scope {
        None => Ok(address.to_string()),
        Some(scope) if is_interface(scope) => Ok(format!("{address}%{scope}")),
        Some(_) => Err("what follows the % is no name of an interface".into()),
    }
}

/// An interface's name has at most 15 bytes (IFNAMSIZ); a number is at most 10 digits.
fn is_interface(scope: &str) -> bool {
    (1..=15).contains(&scope.len())
        && scope.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn check_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("host missing".into());
    }
    if text.len() > HOST_BYTES {
        return Err(format!("a host of {} bytes is longer than {HOST_BYTES}", text.len()));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err("a host's name consists of ASCII letters, digits, '-', '_' and '.'".into());
    }
    // The resolver would read 1.2 or 300 as an old form of an address, never as a name.
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    if numeric && text.parse::<Ipv4Addr>().is_err() {
        return Err("this is no IPv4 address".into());
    }
    Ok(text.to_owned())
}

impl FromStr for HostPort {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        const FORM: Form = Form { form: "HOST:PORT", example: "localhost:7000" };
        Self::parse(text, 0).map_err(|problem| problem.into_error(text, &FORM))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
