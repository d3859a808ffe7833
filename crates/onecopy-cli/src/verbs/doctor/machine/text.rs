//! The report for people: a summary that fits a terminal of 24 lines, and everything as tables.

use onecopy::limits::{Advice, Limit, Value};

use super::style::Style;
use super::{Outcome, Report};
use crate::verbs::explain::{shown, width, wrap};

/// What fits a terminal of 24 lines above the next prompt.
const LINES: usize = 23;
/// The last lines of the summary, with an empty one before.
const FOOTER: usize = 2;
const COLUMNS: usize = 80;
const INDENT: &str = "  ";

/// A part of the summary: a heading and lines below it.
struct Section {
    heading: String,
    lines: Vec<String>,
}

impl Section {
    /// The lines that are kept for it whatever comes before.
    fn least(&self) -> usize {
        if self.lines.is_empty() { 0 } else { (2 + self.lines.len()).min(6) }
    }

    /// Its lines if there are any, in at most `room` lines with the empty one before; what does not fit is counted.
    fn fit(self, room: usize, style: Style) -> Vec<String> {
        if self.lines.is_empty() || room < 4 {
            return Vec::new();
        }
        let mut lines = vec![String::new(), style.heading(&self.heading)];
        let fits = room - lines.len();
        let left_out = self.lines.len().saturating_sub(fits);
        if left_out == 0 {
            lines.extend(self.lines);
        } else {
            lines.extend(self.lines.into_iter().take(fits - 1));
            lines.push(format!("{INDENT}and {} lines more: onecopy doctor --all", left_out + 1));
        }
        lines
    }
}

/// What is refused and what is low, in at most 23 lines.
pub(super) fn summary(report: &Report, style: Style) -> String {
    let mut lines = verdict(report, style);
    let (refused, low, notes) = (refused(report, style), low(report, style), notes(report));
    let room = |lines: &[String], others: usize| LINES.saturating_sub(FOOTER + lines.len() + others);
    lines.extend(refused.fit(room(&lines, low.least()), style));
    lines.extend(low.fit(room(&lines, 0), style));
    lines.extend(notes.fit(room(&lines, 0), style));
    lines.push(String::new());
    lines.push("Every mechanism and limit: onecopy doctor --all. One process: --pid PID.".into());
    lines.join("\n") + "\n"
}

fn columns() -> usize {
    width().min(COLUMNS)
}

fn verdict(report: &Report, style: Style) -> Vec<String> {
    let works = report.attach.all_work();
    let lines = wrap(&report.verdict(), columns());
    lines.iter().map(|line| if works { style.good(line) } else { style.bad(line) }).collect()
}

/// Mechanisms that are refused for the same reason stand together.
fn refused(report: &Report, style: Style) -> Section {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (mechanism, reason) in report.refused() {
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(mechanism.name()),
            None => groups.push((reason, vec![mechanism.name()])),
        }
    }
    let texts = groups.iter().map(|(reason, names)| format!("{}: {reason}", names.join(", ")));
    let lines = texts.flat_map(|text| hanging(&text, style)).collect();
    Section { heading: "Refused".into(), lines }
}

/// A text whose words before the colon are emphasised; further lines are indented deeper.
fn hanging(text: &str, style: Style) -> Vec<String> {
    let names = text.find(':').unwrap_or(0);
    let lines = wrap(text, columns() - 2 * INDENT.len());
    let place = |(index, line): (usize, &String)| match index {
        0 if names <= line.len() => format!("{INDENT}{}{}", style.bad(&line[..names]), &line[names..]),
        0 => format!("{INDENT}{}", style.bad(line)),
        _ => format!("{INDENT}{INDENT}{line}"),
    };
    lines.iter().enumerate().map(place).collect()
}

/// A line for each low limit: its name, its value, and the command that raises it.
fn low(report: &Report, style: Style) -> Section {
    let rows: Vec<[String; 3]> = report.low().filter_map(|limit| Some(row(limit, limit.advice.as_ref()?))).collect();
    // A name that is longer than this stands out instead of pushing all commands below their limits.
    let widest = |column: usize| rows.iter().map(|row| row[column].len()).filter(|len| *len <= 24).max().unwrap_or(0);
    let (names, values) = (widest(0).max("Low limits".len() - INDENT.len()), widest(1).max("now".len()));
    let lines = rows.iter().flat_map(|[name, value, command]| {
        let start = format!("{name:<names$}  {value:>values$}");
        let painted = format!("{INDENT}{}", style.low(&start));
        if INDENT.len() + start.len() + 2 + command.len() <= COLUMNS {
            vec![format!("{painted}  {command}")]
        } else {
            vec![painted, format!("{INDENT}{INDENT}{command}")]
        }
    });
    let heading =
        format!("{:<1$}  {2:>3$}  raised by ($: yourself, #: root)", "Low limits", names + INDENT.len(), "now", values);
    Section { heading, lines: lines.collect() }
}

fn row(limit: &Limit, advice: &Advice) -> [String; 3] {
    // A command for a sysctl or a resource limit takes the plain number, mount(8) takes MiB.
    let (number, unit) = shown(limit);
    let value = if limit.source.starts_with("statvfs") { format!("{number} {unit}") } else { limit.value.to_string() };
    [limit.name.into(), value, prompted(advice)]
}

/// A command behind the prompt of who may run it.
fn prompted(advice: &Advice) -> String {
    format!("{} {}", if advice.remedy.as_root { '#' } else { '$' }, advice.remedy.command)
}

fn notes(report: &Report) -> Section {
    let notes = report.surroundings.notes();
    let lines = notes.iter().flat_map(|note| indented(note, INDENT.len())).collect();
    Section { heading: "Around this process".into(), lines }
}

fn indented(text: &str, indent: usize) -> Vec<String> {
    wrap(text, columns() - indent).iter().map(|line| format!("{:indent$}{line}", "")).collect()
}

/// Everything.
pub(super) fn all(report: &Report, style: Style) -> String {
    let mut lines = verdict(report, style);
    lines.extend(heading("Mechanisms", style));
    for (mechanism, result) in &report.mechanisms {
        let name = format!("{INDENT}{:<23}", mechanism.name());
        match result {
            Ok(()) => lines.push(format!("{name}  {}", style.good("works"))),
            Err(reason) => lines.extend(beside(&format!("{name}  "), &style.bad("refused"), reason)),
        }
    }
    lines.extend(heading("Cross-memory attach, tried between this process and a child", style));
    lines.extend(attach(report, style));
    lines.extend(heading("Limits", style));
    lines.extend(report.limits.iter().flat_map(|limit| limit_lines(limit, style)));
    lines.extend(heading("Around this process", style));
    lines.extend(surroundings(report));
    lines.join("\n") + "\n"
}

fn heading(text: &str, style: Style) -> [String; 2] {
    [String::new(), style.heading(text)]
}

/// A word in a column of 7, and a text beside it.
fn beside(start: &str, word: &str, text: &str) -> Vec<String> {
    let indent = start.len() + "refused  ".len();
    let mut lines = indented(text, indent);
    lines[0] = format!("{start}{word}  {}", lines[0].trim_start());
    lines
}

fn attach(report: &Report, style: Style) -> Vec<String> {
    let rows = report.attach.named();
    let line = |(what, outcome): (&str, &Outcome)| match outcome {
        Outcome::Works => vec![format!("{INDENT}{what:<23}  {}", style.good("works"))],
        other => {
            beside(&format!("{INDENT}{what:<23}  "), &style.bad(other.word()), &other.reason(&report.surroundings))
        }
    };
    rows.into_iter().flat_map(line).collect()
}

/// A limit and its value; below it what it limits, what is wrong with that value, and what raises it.
fn limit_lines(limit: &Limit, style: Style) -> Vec<String> {
    let (number, unit) = shown(limit);
    let head = format!("{INDENT}{:<29}  {number} {unit}", limit.name);
    let mut lines = vec![head.trim_end().to_owned()];
    let mut below = |text: &str| lines.extend(indented(text, 2 * INDENT.len()));
    below(limit.meaning);
    match &limit.advice {
        Some(advice) if limit.is_low() => {
            below(&format!("low, as it is {}: {}", advice.low_if, advice.because));
            lines[0] = style.low(&lines[0]);
            // Unwrapped, so that it can be copied.
            lines.push(format!("{INDENT}{INDENT}{}", prompted(advice)));
        }
        _ if limit.value == Value::Absent || limit.source == "a constant" => {}
        _ => below(&limit.how_to_raise),
    }
    lines
}

fn surroundings(report: &Report) -> Vec<String> {
    let around = &report.surroundings;
    let told = |value: Option<bool>| value.map_or("unknown", |yes| if yes { "yes" } else { "no" }).to_owned();
    let seccomp = match around.seccomp_mode {
        Some(0) => "none".into(),
        Some(1) => "strict".into(),
        Some(2) => around.seccomp_filters.map_or("a filter".into(), |count| format!("filters: {count}")),
        _ => "unknown".to_owned(),
    };
    let quota = around.cpu_quota.map_or("none".into(), |quota| format!("{quota:.2} processors"));
    let rows = [
        ("kernel", around.kernel.clone()),
        ("seccomp", seccomp),
        ("own user namespace", told(around.own_user_namespace)),
        ("own pid namespace", told(around.own_pid_namespace)),
        ("own IPC namespace", told(around.own_ipc_namespace)),
        ("CAP_SYS_PTRACE", told(around.cap_sys_ptrace)),
        ("quota of cpu.max", quota),
    ];
    let mut lines: Vec<String> = rows.iter().map(|(name, value)| format!("{INDENT}{name:<29}  {value}")).collect();
    lines.extend(around.notes().iter().flat_map(|note| indented(note, INDENT.len())));
    lines
}

#[cfg(test)]
mod tests {
    use onecopy::Mechanism;
    use onecopy::limits::limits;

    use super::super::Attach;
    use super::super::surroundings::Surroundings;
    use super::*;

    #[test]
    fn the_worst_of_machines_fits_a_terminal_too() {
        let why =
            |mechanism: Mechanism| format!("{mechanism} is refused for a reason of its own, which takes two lines");
        let surroundings = Surroundings {
            seccomp_mode: Some(2),
            own_pid_namespace: Some(true),
            own_ipc_namespace: Some(true),
            ..Surroundings::nowhere()
        };
        let report = Report {
            mechanisms: Mechanism::ALL.map(|mechanism| (mechanism, Err(why(mechanism)))).into(),
            attach: Attach::all(&Outcome::Refused(1)),
            limits: limits(),
            surroundings,
        };
        let summary = summary(&report, Style::plain());
        let lines: Vec<&str> = summary.lines().collect();
        assert!(lines.len() <= LINES, "{} lines:\n{summary}", lines.len());
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{summary}");
        assert!(summary.starts_with("0 of the 30 mechanisms work here."), "{summary}");
        assert!(summary.contains(" lines more: onecopy doctor --all"), "{summary}");
        assert_eq!(summary.contains("Low limits"), report.low().count() > 0, "{summary}");
    }

    #[test]
    fn a_section_counts_what_does_not_fit() {
        let section = |count: usize| Section {
            heading: "Numbers".into(),
            lines: (0..count).map(|number| format!("  {number}")).collect(),
        };
        let style = Style::plain();
        assert_eq!(section(2).fit(4, style), ["", "Numbers", "  0", "  1"]);
        assert_eq!(section(3).fit(4, style), ["", "Numbers", "  0", "  and 2 lines more: onecopy doctor --all"]);
        assert!(section(0).fit(20, style).is_empty() && section(3).fit(3, style).is_empty());
    }
}
