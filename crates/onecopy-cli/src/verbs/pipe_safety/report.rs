//! What `pipe-safety` prints: promised beside seen, and what to do about it.

use onecopy::stream::pipe::PIPE_BUF;
use serde::Serialize;

use super::load::Seen;
use super::state::{Row, State};
use super::writer::Mode;
use crate::failure::Failure;

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) capacity_bytes: usize,
    pub(super) writers: usize,
    pub(super) messages: usize,
    pub(super) sizes: Vec<usize>,
    pub(super) rows: Vec<Row>,
    /// The same load through a message writer, that waits and that does not, by size.
    pub(super) safe: Vec<(Mode, Vec<Seen>)>,
}

const ADVICE: &str = "Write at most 4096 bytes with one write, and check for EAGAIN where you must not wait: then no other \
                      process's bytes come in between. For anything longer use MessageWriter and MessageReader of the \
                      library, or `onecopy send --frame` and `onecopy recv --frame`: they cut messages into frames of at most \
                      4096 bytes and put them together again, with any number of writers and without a lock.";

/// Where the text of an entry begins.
const INDENT: usize = 18;
const WIDTH: usize = 100;

impl Report {
    /// How many promises there are: one for each row, and one for each way of sending messages.
    pub(super) fn promises(&self) -> usize {
        self.rows.len() + self.safe.len()
    }

    /// How many of them did not hold.
    pub(super) fn broken(&self) -> usize {
        let rows = self.rows.iter().filter(|row| !row.is_kept()).count();
        rows + self.safe.iter().filter(|(_, seen)| !is_safe(&total(seen))).count()
    }

    pub(super) fn to_text(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(usize::to_string).collect();
        let mut text = wrapped(
            "",
            0,
            &format!(
                "A pipe is a buffer in the kernel: {} bytes here. When several processes write to one, three things decide whether \
             what one of them wrote stays in one piece: whether it is longer than PIPE_BUF ({PIPE_BUF} bytes), whether the write \
             may wait, and whether there is room. That makes four states, each with and without room.",
                self.capacity_bytes,
            ),
        );
        text += "\n";
        text += &wrapped(
            "",
            0,
            &format!(
                "Here {} processes at once wrote {} messages each, of {} bytes. A message is torn when another's bytes lie in it.",
                self.writers,
                self.messages,
                sizes.join(", "),
            ),
        );
        for state in State::ALL {
            let rows = || self.rows.iter().filter(|row| row.state == state);
            let verdict = if state.is_safe() { "SAFE" } else { "NOT SAFE" };
            text += &format!("\nState {}, {verdict}: {}\n", state.number(), state.title());
            rows().for_each(|row| text += &entries(row));
        }
        text += "\nThe same load in safe messages (MessageWriter):\n";
        for (mode, seen) in &self.safe {
            text += &wrapped(&format!("  {}", name(*mode)), INDENT, &safe_text(&total(seen)));
        }
        text += &format!("\n{}\n{}", self.verdict(), wrapped("What to do: ", 12, ADVICE));
        text
    }

    fn verdict(&self) -> String {
        match self.broken() {
            0 => format!("All {} promises held.", self.promises()),
            broken => format!("{broken} of {} promises DID NOT HOLD: see above.", self.promises()),
        }
    }

    pub(super) fn to_json(&self) -> Result<String, Failure> {
        let report = Json {
            version: 1,
            pipe_buf_bytes: PIPE_BUF,
            capacity_bytes: self.capacity_bytes,
            writers: self.writers,
            messages: self.messages,
            sizes_bytes: &self.sizes,
            states: self.rows.iter().map(JsonRow::new).collect(),
            message_writer: self.safe.iter().map(|(mode, seen)| JsonSafe::new(*mode, seen)).collect(),
            promises: self.promises(),
            broken: self.broken(),
            advice: ADVICE,
        };
        let text = serde_json::to_string_pretty(&report);
        text.map(|text| text + "\n").map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
    }
}

fn fill(full: bool) -> &'static str {
    if full { "full" } else { "room" }
}

fn name(mode: Mode) -> &'static str {
    if mode.is_nonblocking() { "not waiting" } else { "waiting" }
}

fn total(seen: &[Seen]) -> Seen {
    seen.iter().fold(Seen::default(), |sum, seen| sum.plus(seen))
}

fn is_safe(seen: &Seen) -> bool {
    seen.torn == 0 && seen.is_complete()
}

/// The lines of a state with one fill.
fn entries(row: &Row) -> String {
    let mut text = wrapped(&format!("  {:<5} promised", fill(row.full)), INDENT, row.state.promise(row.full));
    text += &wrapped("        seen", INDENT, &row.probe.text());
    let total = row.total();
    if total.sent == 0 {
        let which = if row.state.is_long() { "above" } else { "up to" };
        text += &wrapped("", INDENT, &format!("no length {which} {PIPE_BUF} bytes was asked for"));
    } else {
        text += &wrapped("", INDENT, &load_text(row, &total));
    }
    if !row.is_kept() {
        text += &wrapped("", INDENT, "THE PROMISE DID NOT HOLD");
    }
    text
}

/// What several writers have met.
fn load_text(row: &Row, total: &Seen) -> String {
    let Seen { sent, torn, .. } = *total;
    let mut text = format!("{sent} messages in {} writes: {torn} torn", total.writes);
    if row.state.is_nonblocking() {
        text += &format!(", {} times EAGAIN, {} partial writes", total.eagain, total.partial_writes);
    }
    if !total.is_complete() {
        text += &format!(", {} MISSING", sent.saturating_sub(total.arrived));
    }
    if !row.state.is_safe() && !row.hazard_seen() {
        text += " (torn messages: not seen in this run, and still not promised)";
    }
    text
}

fn safe_text(seen: &Seen) -> String {
    let Seen { sent, arrived, torn, .. } = *seen;
    let lost = sent.saturating_sub(arrived);
    format!("{sent} messages: {torn} torn, {lost} lost, {} times EAGAIN", seen.eagain)
}

/// `label` and beside it `text`, wrapped.
fn wrapped(label: &str, indent: usize, text: &str) -> String {
    let mut lines = vec![format!("{label:<indent$}")];
    let mut is_new = true;
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if !is_new && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(" ".repeat(indent) + word);
            continue;
        }
        if !is_new {
            line.push(' ');
        }
        line.push_str(word);
        is_new = false;
    }
    lines.join("\n") + "\n"
}

#[derive(Serialize)]
struct Json<'a> {
    version: u32,
    pipe_buf_bytes: usize,
    capacity_bytes: usize,
    writers: usize,
    messages: usize,
    sizes_bytes: &'a [usize],
    states: Vec<JsonRow>,
    message_writer: Vec<JsonSafe>,
    promises: usize,
    broken: usize,
    advice: &'static str,
}

/// A state with one fill.
#[derive(Serialize)]
struct JsonRow {
    state: usize,
    longer_than_pipe_buf: bool,
    nonblocking: bool,
    fill: &'static str,
    promised: &'static str,
    safe: bool,
    kept: bool,
    hazard: &'static str,
    one_write: JsonProbe,
    load: Vec<JsonSeen>,
}

#[derive(Serialize)]
struct JsonProbe {
    bytes: usize,
    /// Null is EAGAIN.
    written_bytes: Option<usize>,
    waited: bool,
}

#[derive(Serialize)]
struct JsonSeen {
    size_bytes: usize,
    messages: u64,
    arrived: u64,
    torn: u64,
    writes: u64,
    eagain: u64,
    partial_writes: u64,
}

#[derive(Serialize)]
struct JsonSafe {
    nonblocking: bool,
    kept: bool,
    load: Vec<JsonSeen>,
}

impl JsonRow {
    fn new(row: &Row) -> Self {
        let hazard = match (row.state.is_safe(), row.hazard_seen()) {
            (true, false) => "none",
            (_, true) => "seen",
            (false, false) => "not seen",
        };
        let probe = &row.probe;
        Self {
            state: row.state.number(),
            longer_than_pipe_buf: row.state.is_long(),
            nonblocking: row.state.is_nonblocking(),
            fill: fill(row.full),
            promised: row.state.promise(row.full),
            safe: row.state.is_safe(),
            kept: row.is_kept(),
            hazard,
            one_write: JsonProbe { bytes: probe.bytes, written_bytes: probe.written, waited: probe.waited },
            load: row.seen.iter().map(JsonSeen::new).collect(),
        }
    }
}

impl JsonSeen {
    fn new(seen: &Seen) -> Self {
        Self {
            size_bytes: seen.bytes,
            messages: seen.sent,
            arrived: seen.arrived,
            torn: seen.torn,
            writes: seen.writes,
            eagain: seen.eagain,
            partial_writes: seen.partial_writes,
        }
    }
}

impl JsonSafe {
    fn new(mode: Mode, seen: &[Seen]) -> Self {
        let kept = is_safe(&total(seen));
        Self { nonblocking: mode.is_nonblocking(), kept, load: seen.iter().map(JsonSeen::new).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_beside_their_label() {
        let text = wrapped("label", 8, &"word ".repeat(40));
        assert!(text.starts_with("label   word word"), "{text}");
        assert!(
            text.lines().all(|line| line.len() <= WIDTH)
                && text.lines().skip(1).all(|line| line.starts_with("        word"))
        );
        assert_eq!(text.split_whitespace().count(), 41);
    }
}
