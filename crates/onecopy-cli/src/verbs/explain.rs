//! `onecopy explain`: what a mechanism is, who may reach it, what it costs, its limits here, and where it bites.

use std::ffi::OsString;

use onecopy::limits::{Limit, Value, limits_of};
use onecopy::mechanism::{CHANNEL, Info};
use onecopy::{Address, Mechanism};
use rustix::termios::tcgetwinsize;

use crate::failure::{Failure, print};

pub(super) mod json;

const EXAMPLES: &str = "\
Examples:
  onecopy explain                 all thirty, one a line
  onecopy explain posix-mq        everything about one
  onecopy explain mq:/jobs        the same, by an address
  onecopy explain channel         what is made of several of them
  onecopy explain pipe --json     for a program to read";

/// The width of the first column of a page.
const LABEL: usize = 12;

/// The options of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The name of a mechanism, or an address of one; all of them unless said
    #[arg(value_name = "MECHANISM")]
    topic: Option<OsString>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.topic.as_ref().is_some_and(is_channel) {
        let text = if arguments.json { json::channel()? } else { page_of(&CHANNEL, &[], None, width()) };
        return print(&text);
    }
    let topic = arguments.topic.as_ref().map(mechanism_of).transpose()?;
    let text = match (topic, arguments.json) {
        (Some(mechanism), true) => json::one(mechanism)?,
        (None, true) => json::all()?,
        (Some(mechanism), false) => page(mechanism, width()),
        (None, false) => table(),
    };
    print(&text)
}

/// Whether it is the channel that is meant, by its name or by an address.
fn is_channel(topic: &OsString) -> bool {
    topic == CHANNEL.name || matches!(Address::from_os_str(topic), Ok(Address::Channel(_)))
}

/// The mechanism that a name or an address means.
fn mechanism_of(topic: &OsString) -> Result<Mechanism, Failure> {
    let text = topic.to_string_lossy();
    if !text.contains([':', '/']) {
        return named(&text).map_err(Failure::usage);
    }
    let address = Address::from_os_str(topic).map_err(|error| Failure::usage(error.to_string()))?;
    match address.mechanism() {
        Some(mechanism) => Ok(mechanism),
        None => behind_descriptor(&address).ok_or_else(|| {
            Failure::usage(format!(
                "{address}: a descriptor may be of any kind; did you mean pipe, eventfd or anonymous-mapping?"
            ))
        }),
    }
}

/// The mechanism of this name, where the channel has been looked for already.
pub(super) fn named(name: &str) -> Result<Mechanism, String> {
    name.parse().map_err(|error: onecopy::Error| {
        let text = error.to_string();
        // The library lists the mechanisms alone, of which the channel is none.
        let channel = if text.contains("; one of ") { format!(", {}", CHANNEL.name) } else { String::new() };
        text + &channel
    })
}

/// What a descriptor is, as far as its link in /proc tells.
fn behind_descriptor(address: &Address) -> Option<Mechanism> {
    let Address::Descriptor(descriptor) = address else { return None };
    let owner = descriptor.owner().map_or_else(|| "self".into(), |pid| pid.to_string());
    let link = std::fs::read_link(format!("/proc/{owner}/fd/{}", descriptor.number())).ok()?;
    let link = link.to_string_lossy();
    match link.split_once([':', '[']).map_or(&*link, |(kind, _)| kind) {
        "pipe" => Some(Mechanism::Pipe),
        "/memfd" => Some(Mechanism::AnonymousMapping),
        _ if link == "anon_inode:[eventfd]" => Some(Mechanism::Eventfd),
        _ => None,
    }
}

/// The columns of the terminal, so far as lines are good to read.
pub(super) fn width() -> usize {
    let columns = tcgetwinsize(std::io::stdout()).map_or(80, |size| usize::from(size.ws_col));
    if columns == 0 { 80 } else { columns.clamp(40, 100) }
}

/// All thirty, one a line.
fn table() -> String {
    let line = |cells: [&str; 5]| {
        let [name, address, copies, bounds, remains] = cells;
        format!("{name:<23}  {address:<24}  {copies:<6}  {bounds:<6}  {remains}").trim_end().to_owned() + "\n"
    };
    let mut text = line(["MECHANISM", "ADDRESS", "COPIES", "BOUNDS", "REMAINS"]);
    for mechanism in Mechanism::ALL {
        let info = mechanism.info();
        text += &line([info.name, info.addresses[0], info.copies.short, info.boundaries.short, info.remains.short]);
    }
    text + "\nCOPIES of a message on its way; BOUNDS between messages: do they survive;\nREMAINS when everybody has died. \
            onecopy explain MECHANISM tells the rest.\n"
}

/// Everything about one mechanism.
fn page(mechanism: Mechanism, width: usize) -> String {
    page_of(mechanism.info(), &limits_of(mechanism), mechanism.availability().err(), width)
}

fn page_of(info: &Info, limits: &[Limit], unavailable_because: Option<String>, width: usize) -> String {
    let kinds: Vec<&str> = info.kinds.iter().map(|kind| kind.name()).collect();
    let mut page = Page { text: String::new(), width };
    page.text += &format!("{}: {}\n\n", info.name, info.title);
    page.entry("For", &kinds.join(", "));
    page.entry("Address", info.addresses[0]);
    info.addresses[1..].iter().for_each(|address| page.entry("", address));
    page.entry("Named by", info.destination);
    page.entry("Access", info.access);
    page.entry("Copies", info.copies.long);
    page.entry("Boundaries", info.boundaries.long);
    page.entry("When full", info.full);
    page.entry("When empty", info.empty);
    page.entry("Remains", info.remains.long);
    page.items("Traps", info.traps.iter().copied());
    page.limits(limits);
    if let Some(reason) = unavailable_because {
        page.entry("Not here", &reason);
    }
    page.entry("Man pages", &info.man_pages.join(", "));
    page.entry("Library", &format!("onecopy::{}", info.module));
    page.command(info.try_it);
    page.text
}

struct Page {
    text: String,
    width: usize,
}

impl Page {
    /// A label, and beside it a text that is wrapped.
    fn entry(&mut self, label: &str, text: &str) {
        self.indented(label, LABEL, text);
    }

    /// A list.
    fn items<'a>(&mut self, label: &str, items: impl IntoIterator<Item = &'a str>) {
        for (index, item) in items.into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.indented(&format!("{label:<LABEL$}- "), LABEL + 2, item);
        }
    }

    fn indented(&mut self, label: &str, indent: usize, text: &str) {
        for (index, line) in wrap(text, self.width.saturating_sub(indent)).iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.text += format!("{label:<indent$}{line}").trim_end();
            self.text += "\n";
        }
    }

    /// The limits in force, and how to raise those that can be raised.
    fn limits(&mut self, limits: &[Limit]) {
        let values: Vec<(String, &str)> = limits.iter().map(shown).collect();
        let widest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        // A name that is longer than this stands out instead of moving all others' values.
        let names = widest(&mut limits.iter().map(|limit| limit.name.len()).filter(|len| *len <= 24));
        let numbers = widest(&mut values.iter().map(|(number, _)| number.len()));
        let units = widest(&mut values.iter().map(|(_, unit)| unit.len()));
        for (index, (limit, (number, unit))) in limits.iter().zip(&values).enumerate() {
            let label = if index == 0 { "Limits here" } else { "" };
            let head = format!("{label:<LABEL$}{:<names$}  {number:>numbers$} {unit:<units$}  ", limit.name);
            // Beside the value where there is room for some words, else below it.
            if head.len() + 24 <= self.width {
                self.indented(&head, head.len(), limit.meaning);
            } else {
                self.text += head.trim_end();
                self.text += "\n";
                self.indented("", LABEL + 2, limit.meaning);
            }
        }
        self.remedies(limits);
    }

    fn remedies(&mut self, limits: &[Limit]) {
        let takes_a_number = |limit: &Limit| limit.how_to_raise == format!("as root: sysctl -w {}=N", limit.name);
        let mut others: Vec<&Limit> = limits.iter().filter(|limit| !takes_a_number(limit)).collect();
        others.retain(|limit| limit.source != "a constant" && limit.value != Value::Absent);
        // Several fields of one sysctl are set together.
        others.dedup_by_key(|limit| &limit.how_to_raise);
        if limits.iter().any(takes_a_number) {
            let is_said_below = |limit: &&Limit| limit.source.starts_with("/proc/sys/");
            let which = if others.iter().any(is_said_below) { "another" } else { "a" };
            self.entry("", &format!("To raise {which} dotted name, as root: sysctl -w NAME=VALUE"));
        }
        for limit in others {
            let (name, how) = (limit.name.split(' ').next().unwrap_or(limit.name), &limit.how_to_raise);
            let raises = how.starts_with("as root") || how.starts_with("prlimit");
            self.entry("", &if raises { format!("To raise {name}, {how}") } else { format!("{name}: {how}") });
        }
    }

    /// A command, unwrapped, so that it can be copied.
    fn command(&mut self, command: &str) {
        self.text += &format!("{:<LABEL$}{command}\n", "Try");
    }
}

/// A value and its unit, round numbers of bytes in larger units.
pub(super) fn shown(limit: &Limit) -> (String, &'static str) {
    match limit.value {
        // What the kernel calls unlimited here is a page or so below 2^64.
        Value::Number(number) if number >= 1 << 60 && matches!(limit.unit, "bytes" | "pages") => {
            ("unlimited".into(), "")
        }
        Value::Number(number) if limit.unit == "bytes" => bytes(number),
        Value::Number(number) => (number.to_string(), limit.unit),
        Value::Absent => ("not present".into(), ""),
        other => (other.to_string(), ""),
    }
}

fn bytes(number: u64) -> (String, &'static str) {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = UNITS.into_iter().find(|&(shift, _)| {
        let count = number >> shift;
        (1..10_000).contains(&count) && count << shift == number && number >= 0x1_0000
    });
    unit.map_or((number.to_string(), "bytes"), |(shift, name)| ((number >> shift).to_string(), name))
}

/// `text` in lines of at most `width` characters, so far as its words allow.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.into());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    /// The calls of this command in a line for the shell, as argument vectors.
    fn commands(line: &str) -> Vec<Vec<String>> {
        split(line).into_iter().filter(|words| words.first().is_some_and(|word| word == "onecopy")).collect()
    }

    /// The words of each command in a line, without their quotes; what separates commands stands alone, a semicolon at the end
    /// of a word.
    fn split(line: &str) -> Vec<Vec<String>> {
        let mut commands = vec![Vec::new()];
        for word in line.split_whitespace() {
            let (word, ends) = match word.strip_suffix(';') {
                Some(word) => (word, true),
                None => (word, false),
            };
            if matches!(word, "|" | "&" | "&&") {
                commands.push(Vec::new());
                continue;
            }
            commands.last_mut().expect("there is always one").push(word.replace('\'', ""));
            if ends {
                commands.push(Vec::new());
            }
        }
        commands
    }

    #[test]
    fn every_command_to_try_is_one() {
        for mechanism in Mechanism::ALL {
            let line = mechanism.info().try_it;
            let commands = commands(line);
            // What makes an eventfd is another program, which starts this one.
            assert!(!commands.is_empty() || mechanism == Mechanism::Eventfd, "{mechanism}: {line}");
            for words in commands {
                // The shell puts the number of the last process in the place of this.
                let words = words.iter().map(|word| word.replace("$!", "4711"));
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{mechanism}: {line}: {error}"));
            }
        }
    }

    #[test]
    fn the_addresses_of_every_command_to_try_belong_to_its_mechanism() {
        for mechanism in Mechanism::ALL {
            let words: Vec<String> = commands(mechanism.info().try_it).into_iter().flatten().collect();
            for word in words.iter().filter(|word| word.contains(':')) {
                let address: Address = word.parse().unwrap_or_else(|error| panic!("{mechanism}: {error}"));
                let found = address.mechanism();
                let expected = if mechanism == Mechanism::CmaWrite { Mechanism::CmaRead } else { mechanism };
                assert!(found.is_none_or(|found| found == expected), "{mechanism}: {word}");
            }
        }
    }

    #[test]
    fn lines_are_split_into_commands() {
        let line = "onecopy recv 'a:b?c=d&e' & sleep 1; printf hello | onecopy send x && onecopy rm x";
        assert_eq!(
            commands(line),
            [vec!["onecopy", "recv", "a:b?c=d&e"], vec!["onecopy", "send", "x"], vec!["onecopy", "rm", "x"]]
        );
    }

    #[test]
    fn pages_fit_their_width() {
        for mechanism in Mechanism::ALL {
            for width in [40, 60, 80, 100] {
                let page = page(mechanism, width);
                for line in page.lines().filter(|line| !line.starts_with("Try ")) {
                    let unbreakable = line.split_whitespace().map(str::len).max().unwrap_or(0) + LABEL + 2 >= width;
                    let fits = line.chars().count() <= width || (width < 80 && (unbreakable || line.len() < 80));
                    assert!(fits, "{mechanism} at {width}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn numbers_can_be_read() {
        let text = |number| format!("{} {}", bytes(number).0, bytes(number).1);
        assert_eq!(text(8192), "8192 bytes");
        assert_eq!(text(212_992), "208 KiB");
        assert_eq!(text(1 << 20), "1 MiB");
        assert_eq!(text(3 << 30), "3 GiB");
        assert_eq!(text(819_201), "819201 bytes");
        assert_eq!(text(0x7fff_f000), "2147479552 bytes");
    }
}
