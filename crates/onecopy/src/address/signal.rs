//! Signals, by name and number.

use std::ffi::OsStr;
use std::fmt;

use super::Pid;
use super::name::invalid;
use crate::Result;

/// The standard signals. Where two names share a number, the first is printed.
const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    #[cfg(not(any(target_arch = "mips64", target_arch = "sparc64")))]
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// A signal ([signal(7)](https://man7.org/linux/man-pages/man7/signal.7.html)).
///
/// ```
/// use onecopy::address::SignalNumber;
///
/// assert_eq!(SignalNumber::named("SIGUSR1")?.to_string(), "USR1");
/// assert_eq!(SignalNumber::named("RTMIN+1")?.to_string(), "RTMIN+1");
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalNumber(i32);

impl SignalNumber {
    /// The signal numbered `number`: a standard signal, or SIGRTMIN to SIGRTMAX.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for numbers without a signal, and for those that the C library keeps for
    /// itself (below SIGRTMIN).
    pub fn new(number: i32) -> Result<Self> {
        Self::checked(number).map_err(|reason| invalid(OsStr::new(&format!("signal {number}")), reason))
    }

    /// The signal named `name`: `USR1`, `SIGUSR1`, `RTMIN`, `RTMIN+1`, `RTMAX-2` or a number; in any case of letters.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for a name that no signal has.
    pub fn named(name: &str) -> Result<Self> {
        Self::checked_name(name).map_err(|reason| invalid(OsStr::new(name), reason))
    }

    fn checked(number: i32) -> Result<Self, String> {
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        if NAMES.iter().any(|&(_, known)| known == number) || real_time.contains(&number) {
            Ok(Self(number))
        } else if (32..*real_time.start()).contains(&number) {
            Err(format!("signal {number} belongs to the C library: real-time signals begin at {}", real_time.start()))
        } else {
            Err(format!("there is no signal {number}"))
        }
    }

    pub(super) fn checked_name(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("the name of a signal is missing".into());
        }
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(&(_, number)) = NAMES.iter().find(|(known, _)| *known == short) {
            return Ok(Self(number));
        }
        if let Some(number) = real_time(short) {
            return number.and_then(Self::checked);
        }
        if !short.is_empty() && short.bytes().all(|byte| byte.is_ascii_digit()) {
            return short.parse().map_err(|_| format!("there is no signal {short}")).and_then(Self::checked);
        }
        Err(unknown(name, short))
    }

    /// The number, as kill(2) takes it.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }

    /// Whether it is a real-time signal: queued, in order, with a payload.
    #[must_use]
    pub fn is_real_time(self) -> bool {
        self.0 >= libc::SIGRTMIN()
    }
}

/// `RTMIN`, `RTMIN+N`, `RTMAX` and `RTMAX-N`; `None` for anything else.
fn real_time(name: &str) -> Option<Result<i32, String>> {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => {
            text.strip_prefix(sign).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse::<i32>().ok()
        }
    };
    let (number, shown) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (offset(rest, '+').and_then(|offset| first.checked_add(offset)), "RTMIN to RTMIN+")
    } else {
        (offset(name.strip_prefix("RTMAX")?, '-').and_then(|offset| last.checked_sub(offset)), "RTMAX to RTMAX-")
    };
    let range = first..=last;
    let found = number.filter(|number| range.contains(number));
    Some(found.ok_or_else(|| format!("{name} is none of the real-time signals, {shown}{}", last - first)))
}

fn unknown(name: &str, short: &str) -> String {
    let near = crate::suggest::nearest(short, NAMES.iter().map(|&(known, _)| known));
    if near.is_empty() {
        format!("no signal is named {name}")
    } else {
        format!("no signal is named {name} (near: {})", near.join(", "))
    }
}

impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = NAMES.iter().find(|&&(_, number)| number == self.0) {
            return f.write_str(name);
        }
        match self.0 - libc::SIGRTMIN() {
            0 => f.write_str("RTMIN"),
            offset => write!(f, "RTMIN+{offset}"),
        }
    }
}

/// To whom a signal goes, or which signals this process receives: `PID?sig=USR1`, `self?sig=USR1,RTMIN+1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SignalName {
    target: Option<Pid>,
    /// In the order of their numbers, each once, never empty.
    signals: Vec<SignalNumber>,
}

impl SignalName {
    /// `signal` for process `target`.
    #[must_use]
    pub fn to(target: Pid, signal: SignalNumber) -> Self {
        Self { target: Some(target), signals: vec![signal] }
    }

    /// `signals` that this process receives.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for none at all, and for SIGKILL and SIGSTOP, which nobody can receive.
    pub fn received(signals: impl IntoIterator<Item = SignalNumber>) -> Result<Self> {
        Self::checked(signals.into_iter().collect()).map_err(|reason| invalid(OsStr::new("signal:self"), reason))
    }

    pub(super) fn checked(mut signals: Vec<SignalNumber>) -> Result<Self, String> {
        if signals.is_empty() {
            return Err("no signal is named".into());
        }
        if let Some(deaf) = signals.iter().find(|signal| matches!(signal.0, libc::SIGKILL | libc::SIGSTOP)) {
            return Err(format!("no process can receive {deaf}"));
        }
        signals.sort_unstable();
        signals.dedup();
        Ok(Self { target: None, signals })
    }

    /// The process that gets it; `None` is this one, which receives.
    #[must_use]
    pub fn target(&self) -> Option<Pid> {
        self.target
    }

    /// The signals, in the order of their numbers; exactly one when there is a target.
    #[must_use]
    pub fn signals(&self) -> &[SignalNumber] {
        &self.signals
    }
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Some(pid) => write!(f, "{pid}?sig=")?,
            None => f.write_str("self?sig=")?,
        }
        for (index, signal) in self.signals.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{signal}")?;
        }
        Ok(())
    }
}
