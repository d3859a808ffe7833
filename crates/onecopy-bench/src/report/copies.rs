//! The workload copies: who copied how much, with whose processor.

use serde::{Deserialize, Serialize};

use super::table::{Columns, duration, verified, wrap};
use super::{Report, Row, table};
use crate::measure::Figures;
use crate::options::Workload;
use crate::plan::Case;
use crate::stats::Summary;

/// What one side did to move the payload, in all timed runs: counted by the process itself while it did it
/// ([`onecopy::Tally`]), headers and all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SideWork {
    /// Bytes of messages that this side sent, or that it received.
    pub payload_bytes: u64,
    /// Bytes that this side copied in user space.
    pub user_copied_bytes: u64,
    /// Bytes that the kernel copied in this side's system calls.
    pub kernel_copied_bytes: u64,
    /// This side's processor time for each GiB of payload, in nanoseconds, waiting included: the median of the runs.
    pub cpu_ns_per_gib: f64,
}

impl SideWork {
    /// How many bytes were copied for each byte of payload.
    #[must_use]
    pub fn copies(&self) -> f64 {
        self.user_copies() + self.kernel_copies()
    }

    fn user_copies(&self) -> f64 {
        self.user_copied_bytes as f64 / self.payload_bytes.max(1) as f64
    }

    fn kernel_copies(&self) -> f64 {
        self.kernel_copied_bytes as f64 / self.payload_bytes.max(1) as f64
    }

    /// In user space, and by the kernel.
    pub(super) fn split(&self) -> String {
        format!("{:.2}+{:.2}", self.user_copies(), self.kernel_copies())
    }

    pub(super) fn cpu(&self) -> String {
        duration(self.cpu_ns_per_gib)
    }
}

impl Row {
    pub(crate) fn counted(case: &Case, figures: &Figures) -> Self {
        let throughput = figures.throughput();
        Self {
            bytes_per_s: Some(throughput.median),
            cpu_ns_per_kib: Some(Summary::of(&figures.cpu_ns_per_kib).median),
            spread: Some(throughput.spread),
            sender: Some(figures.sender.summary()),
            receiver: Some(figures.receiver.summary()),
            ..Self::with_figures(case, figures)
        }
    }

    /// How many bytes both sides copied for each byte of payload.
    pub(super) fn counted_copies(&self) -> Option<f64> {
        Some(self.sender?.copies() + self.receiver?.copies())
    }

    /// How often each side copied, as far as it matters.
    fn shares(&self) -> Option<Shares> {
        Some(Shares { sender: Times::of(self.sender?.copies()), receiver: Times::of(self.receiver?.copies()) })
    }
}

impl Report {
    /// The table of the workload, and what it shows in words.
    pub(super) fn copies(&self) -> Option<String> {
        // By hundredths, so that headers do not decide.
        let by = |row: &Row| (row.counted_copies().unwrap_or(f64::MAX) * 100.0).round();
        let rows = self.rows_of(Workload::Copies, |_| true, by);
        let mut columns = Columns::new(&["mechanism", "size", "sender", "its CPU", "receiver", "its CPU", "sum", "ok"]);
        for row in &rows {
            let (sender, receiver) = (row.sender?, row.receiver?);
            columns.add([
                row.mechanism.clone(),
                table::size(row),
                sender.split(),
                sender.cpu(),
                receiver.split(),
                receiver.cpu(),
                table::ratio(row.counted_copies()),
                verified(row),
            ]);
        }
        let title = "copies: bytes copied for each byte of payload, user space + kernel; CPU per GiB";
        let text = columns.under(title, &rows)?;
        Some(in_words(&rows).iter().fold(text, |text, sentence| format!("{text}\n{}", wrap(sentence, ""))))
    }
}

/// What the rows show, a sentence each.
pub(super) fn in_words(rows: &[&Row]) -> Vec<String> {
    copies_in_words(rows).into_iter().chain(beyond_counting(rows)).collect()
}

/// Who copied each byte how often: mechanisms with the same answer together, each with its longest messages.
fn copies_in_words(rows: &[&Row]) -> Option<String> {
    let mut groups: Vec<(Shares, Vec<&str>)> = Vec::new();
    for row in rows.iter().filter(|row| row.verified == Some(true) && is_longest(row, rows)) {
        let shares = row.shares()?;
        match groups.iter_mut().find(|(of, _)| *of == shares) {
            Some((_, names)) => names.push(&row.mechanism),
            None => groups.push((shares, vec![&row.mechanism])),
        }
    }
    let part = |(index, (shares, names)): (usize, &(Shares, Vec<&str>))| {
        let verb = if index == 0 { " copied each byte" } else { "" };
        format!("{}{verb} {}", list(names), shares.in_words())
    };
    let parts: Vec<_> = groups.iter().enumerate().map(part).collect();
    (!parts.is_empty()).then(|| parts.join("; ") + ".")
}

/// Which mechanisms are known to copy more often than can be counted from outside the kernel.
fn beyond_counting(rows: &[&Row]) -> Option<String> {
    let beyond = |row: &&&Row| {
        let counted = row.counted_copies().unwrap_or_default().round();
        row.copies.is_some_and(|known| f64::from(known) > counted) && is_longest(row, rows)
    };
    let names: Vec<_> = rows.iter().filter(beyond).map(|row| row.mechanism.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!("The kernel copies between buffers of its own, too, for {}, where nobody can count it.", list(&names))
    })
}

fn is_longest(row: &Row, rows: &[&Row]) -> bool {
    rows.iter().all(|other| other.mechanism != row.mechanism || other.size_bytes <= row.size_bytes)
}

/// `a`, `a and b`, `a, b and c`.
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => (*name).to_owned(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

/// How often the two sides copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    sender: Times,
    receiver: Times,
}

impl Shares {
    fn in_words(self) -> String {
        let Self { sender, receiver } = self;
        let sum = Times(sender.0 + receiver.0).in_words();
        match (sender.0, receiver.0) {
            (0, 0) => "not at all".into(),
            (0, _) => format!("{sum}, by the receiver's processor"),
            (_, 0) => format!("{sum}, by the sender's processor"),
            _ if sender == receiver => format!("{sum}, {} on each side", sender.in_words()),
            _ => format!(
                "{sum}, {} on the sender's side and {} on the receiver's",
                sender.in_words(),
                receiver.in_words()
            ),
        }
    }
}

/// A number of copies in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times(u64);

impl Times {
    /// What headers add to long messages is left away.
    fn of(copies: f64) -> Self {
        let nearest = copies.round();
        let counted = if (copies - nearest).abs() < 0.05 { nearest } else { copies };
        Self((counted * 100.0).round() as u64)
    }

    fn in_words(self) -> String {
        match self.0 {
            100 => "once".into(),
            200 => "twice".into(),
            hundredths if hundredths % 100 == 0 => format!("{} times", hundredths / 100),
            hundredths => format!("{:.2} times", hundredths as f64 / 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(mechanism: &str, sender: (u64, u64), receiver: (u64, u64)) -> Row {
        let side = |(user_copied_bytes, kernel_copied_bytes)| {
            Some(SideWork { payload_bytes: 1000, user_copied_bytes, kernel_copied_bytes, cpu_ns_per_gib: 1.0 })
        };
        let (sender, receiver) = (side(sender), side(receiver));
        let (mechanism, copies) = (mechanism.into(), Some(2));
        Row { mechanism, copies, sender, receiver, size_bytes: Some(1000), verified: Some(true), ..Row::default() }
    }

    #[test]
    fn who_copied_is_said_in_words() {
        let rows = [
            row("a", (0, 0), (0, 1000)),
            row("b", (1000, 0), (0, 0)),
            row("c", (1000, 0), (1000, 0)),
            row("d", (0, 1000), (16, 1000)),
            row("e", (1000, 1000), (1000, 2000)),
            row("f", (0, 1250), (0, 1250)),
        ];
        let rows: Vec<_> = rows.iter().collect();
        let said = copies_in_words(&rows).unwrap();
        let expected = "a copied each byte once, by the receiver's processor; b once, by the sender's processor; c and d twice, \
                        once on each side; e 5 times, twice on the sender's side and 3 times on the receiver's; f 2.50 times, \
                        1.25 times on each side.";
        assert_eq!(said, expected);
        assert!(beyond_counting(&rows).unwrap().contains("for a and b,"), "of two copies one was seen");
        assert_eq!(beyond_counting(&rows[2..]), None);
    }

    #[test]
    fn the_longest_messages_speak_for_a_mechanism() {
        let short = Row { size_bytes: Some(10), ..row("a", (0, 5000), (0, 5000)) };
        let long = row("a", (0, 1000), (0, 1000));
        assert_eq!(copies_in_words(&[&short, &long]).unwrap(), "a copied each byte twice, once on each side.");
        assert_eq!(copies_in_words(&[]), None);
    }
}
