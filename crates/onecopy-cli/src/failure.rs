//! Why a verb did not succeed, and with which exit code the command ends.

use std::error::Error as _;
use std::io::Write as _;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use onecopy::ParseAddressError;
use rustix::io::Errno;

use crate::cli::Cli;
use crate::output;

/// The end of a verb that did not do what was asked for. The text is one line without a full stop.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operation failed: exit code 1.
    Failed(String),
    /// The command line asks for something that cannot be: exit code 2.
    Usage(String),
    /// `--timeout` passed: exit code 124.
    TimedOut(String),
    /// A signal ended it: exit code 128 and the signal's number.
    Interrupted(i32),
    /// An end with an exit code that the verb gives a meaning.
    Coded(u8, String),
    /// The command that was run has ended with this exit code, and has said itself what there was to say.
    Ended(u8),
    /// Whoever read our output has seen enough: a quiet end.
    OutputClosed,
    /// clap has printed what there is to say (help on a bare command line): exit code 2.
    Printed,
}

impl Failure {
    /// The operation failed.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// The command line asks for something that cannot be.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// An end with an exit code of its own.
    pub(crate) fn with_code(code: u8, text: impl Into<String>) -> Self {
        Self::Coded(code, text.into())
    }

    /// What clap found wrong, in one line; or the help that was asked for, which is a success.
    pub(crate) fn of_usage(error: &clap::Error) -> Result<(), Self> {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                output::stdout()?;
                error.print().map_err(|error| Self::of_output("stdout", &error))
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                Err(Self::Printed)
            }
            _ => Err(Self::Usage(usage_text(error))),
        }
    }

    /// Writing the output failed. A closed pipe is no failure: its reader has what it wanted.
    pub(crate) fn of_output(name: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("cannot write {name}: {}", plain(error))),
        }
    }

    /// The same where what was to be written to `name` is nowhere else: a reader that has gone is no quiet end then.
    pub(crate) fn with_loss(self, name: &str) -> Self {
        match self {
            Self::OutputClosed => Self::Failed(format!("cannot write {name}: Broken pipe")),
            other => other,
        }
    }

    /// The same failure after `count` of `what`, which stay done.
    pub(crate) fn after(self, count: u64, what: &str) -> Self {
        let what = if count == 1 { what.strip_suffix('s').unwrap_or(what) } else { what };
        let told = |text: String| if count == 0 { text } else { format!("{text}, after {count} {what}") };
        match self {
            Self::Failed(text) => Self::Failed(told(text)),
            Self::Usage(text) => Self::Usage(told(text)),
            Self::TimedOut(text) => Self::TimedOut(told(text)),
            Self::Coded(code, text) => Self::Coded(code, told(text)),
            quiet => quiet,
        }
    }

    /// What to print, if anything.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::TimedOut(text) | Self::Coded(_, text) => Some(text),
            Self::Interrupted(_) | Self::Ended(_) | Self::OutputClosed | Self::Printed => None,
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Coded(code, _) | Self::Ended(code) => *code,
            Self::Failed(_) => 1,
            Self::Usage(_) | Self::Printed => 2,
            Self::TimedOut(_) => 124,
            Self::Interrupted(signal) => 128_i32.saturating_add(*signal).try_into().unwrap_or(u8::MAX),
        }
    }
}

impl From<onecopy::Error> for Failure {
    fn from(error: onecopy::Error) -> Self {
        match &error {
            onecopy::Error::TimedOut { .. } => Self::TimedOut(error.to_string()),
            onecopy::Error::LoansOut { object, loaned_bytes, .. } => Self::TimedOut(format!(
                "send on {object} timed out: the receiver has not written the last {loaned_bytes} bytes that it got"
            )),
            onecopy::Error::PartialWrite { source, .. } if matches!(**source, onecopy::Error::TimedOut { .. }) => {
                Self::TimedOut(error.to_string())
            }
            onecopy::Error::Invalid { .. } => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Prints `text`, which a program or a person asked for, to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    crate::io::write_all(&output::stdout()?, text.as_bytes()).map_err(|error| Failure::of_output("stdout", &error))
}

/// Says `text` to whoever runs this command, in one line.
pub(crate) fn say(text: &str) {
    tell(&format!("onecopy: {}", visible(text)));
}

/// Writes a line to stderr, at once: other processes may write there too.
pub(crate) fn tell(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// `text` in one line, and without what a terminal would obey: names of files may hold anything.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The words of the operating system, without Rust's "(os error N)", and what helps against a limit.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let limit = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => " (raise the limit of descriptors with `ulimit -n`)",
        Some(Errno::FBIG) => " (raise the limit of files with `ulimit -f`, unless it is the file system's)",
        _ => "",
    };
    format!("{words}{limit}")
}

/// Why a thread or a process could not be started.
pub(crate) fn unstarted(error: &std::io::Error) -> String {
    let remedy = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::AGAIN) => " (`ulimit -u` limits those of this user, and pids.max those of a container)",
        Some(Errno::PERM | Errno::NOSYS) => " (a filter of system calls, seccomp, forbids it)",
        _ => "",
    };
    format!("{}{remedy}", plain(error))
}

/// What clap found wrong. An address that does not parse says everything itself.
fn usage_text(error: &clap::Error) -> String {
    if let Some(address) = error.source().and_then(|source| source.downcast_ref::<ParseAddressError>()) {
        return address.to_string();
    }
    // The arguments need not be UTF-8, which `std::env::args` panics about.
    let verb = std::env::args_os().nth(1).and_then(|word| word.into_string().ok());
    let known = verb.filter(|verb| Cli::command().find_subcommand(verb).is_some());
    one_line(&error.to_string(), known.as_deref())
}

/// What the standard library says of numbers, and what it means to who wrote one.
const NUMBERS: [(&str, &str); 5] = [
    ("invalid digit found in string", "no number: write it in digits"),
    ("cannot parse integer from empty string", "no number: write it in digits"),
    ("number too large to fit in target type", "the number is too large"),
    ("number too small to fit in target type", "the number is too small"),
    ("number would be zero for non-zero type", "the least is 1"),
];

/// clap's report is several lines: the problem, tips, the usage. The problem and the tips fit one line; the usage is a
/// `--help` away.
fn one_line(report: &str, verb: Option<&str>) -> String {
    let report = report.strip_prefix("error: ").unwrap_or(report);
    let said =
        report.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let text =
        said.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ").replace(" tip: ", "; ");
    let text = NUMBERS.iter().fold(text, |text, (said, meant)| text.replace(said, meant));
    let verb = verb.map_or_else(String::new, |verb| format!(" {verb}"));
    format!("{text} (see onecopy{verb} --help)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_clap_become_one_line() {
        let report = "error: unexpected argument '--fram' found\n\n  tip: a similar argument exists: '--frame'\n\n\
                      Usage: onecopy send <ADDRESS>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(report, Some("send")),
            "unexpected argument '--fram' found; a similar argument exists: '--frame' (see onecopy send --help)"
        );
        let report =
            "error: the following required arguments were not provided:\n  <ADDRESS>\n\nUsage: onecopy rm <ADDRESS>\n";
        assert_eq!(
            one_line(report, Some("rm")),
            "the following required arguments were not provided: <ADDRESS> (see onecopy rm --help)"
        );
    }

    #[test]
    fn the_words_of_the_system_come_without_the_number() {
        assert_eq!(plain(&std::io::Error::from_raw_os_error(2)), "No such file or directory");
        let text = "Too many open files (raise the limit of descriptors with `ulimit -n`)";
        assert_eq!(plain(&std::io::Error::from_raw_os_error(24)), text);
    }

    #[test]
    fn what_cannot_be_started_is_told_by_what_forbids_it() {
        let told = |errno: Errno| unstarted(&errno.into());
        assert!(told(Errno::AGAIN).contains("`ulimit -u`") && told(Errno::AGAIN).contains("pids.max"));
        for errno in [Errno::PERM, Errno::NOSYS] {
            assert!(told(errno).contains("seccomp") && !told(errno).contains("ulimit"), "{}", told(errno));
        }
        assert_eq!(told(Errno::NOMEM), "Cannot allocate memory");
    }
}
