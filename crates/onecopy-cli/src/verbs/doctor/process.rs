//! `onecopy doctor --pid`: may this process reach the memory of another one, and if not, which rule refuses?

mod json;

use std::io::IsTerminal as _;

use onecopy::memory::permission::{Cause, Diagnosis, Verdict};

use crate::failure::{Failure, print, visible};
use crate::verbs::explain::{width, wrap};

/// The width of the first column.
const LABEL: usize = 16;
/// The lines of a page without `--all`.
const LINES: usize = 24;
/// How many facts and how many remedies of each kind such a page shows: fewer when they don't fit.
const SHOWN: [(usize, usize); 4] = [(9, 3), (9, 2), (9, 1), (2, 1)];

pub(super) fn run(pid: u32, all: bool, json: bool) -> Result<(), Failure> {
    let diagnosis = Diagnosis::of(pid);
    if json {
        return print(&json::text(&diagnosis)?);
    }
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    print(&page(&diagnosis, width(), all, colour))
}

/// Everything that fits, or everything.
fn page(diagnosis: &Diagnosis, width: usize, all: bool, colour: bool) -> String {
    let draw = |facts, remedies| Page { text: String::new(), width, facts, remedies, all, colour }.fill(diagnosis);
    if all {
        return draw(usize::MAX, usize::MAX);
    }
    let [rest @ .., last] = SHOWN;
    let pages = rest.into_iter().map(|(facts, remedies)| draw(facts, remedies));
    pages.into_iter().find(|text| text.lines().count() <= LINES).unwrap_or_else(|| draw(last.0, last.1))
}

struct Page {
    text: String,
    width: usize,
    /// How many facts are shown, and how many remedies of each kind.
    facts: usize,
    remedies: usize,
    all: bool,
    colour: bool,
}

impl Page {
    fn fill(mut self, diagnosis: &Diagnosis) -> String {
        let Diagnosis { read, write, reverse, .. } = diagnosis;
        self.text += &headline(diagnosis);
        self.text += "\n\n";
        self.verdict("we read it", read);
        self.verdict("we write it", write);
        self.verdict("it reads us", reverse);
        // What holds in one direction mostly holds in the next: it is told once.
        let same = |one: &Verdict, other: &Verdict| (one.cause, &one.evidence) == (other.cause, &other.evidence);
        self.reasons("", read);
        if self.all || !same(read, write) {
            self.reasons("for writing: ", write);
        }
        if self.all || (read.cause == Cause::None && write.cause == Cause::None) {
            self.reasons("for the reverse: ", reverse);
        }
        self.text
    }

    /// One direction in one line.
    fn verdict(&mut self, direction: &str, verdict: &Verdict) {
        let (word, colour) = match verdict.allowed {
            Some(true) => ("yes", 32),
            Some(false) => ("no", 31),
            None => ("unknown", 33),
        };
        let word = if self.colour { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
        let cause = verdict.cause;
        let how = match (verdict.allowed, verdict.errno_name(), verdict.killed_by) {
            (Some(true), ..) if verdict.derived => ", by the rules: nobody can try it from here".to_owned(),
            (Some(false), Some(errno), _) if !verdict.derived => format!(": {cause} ({errno})"),
            (Some(false), _, Some(signal)) => format!(": {cause} (killed by signal {signal})"),
            (Some(false), ..) => format!(": {cause}"),
            _ => String::new(),
        };
        self.text += &format!("{direction:<LABEL$}{word}{how}\n");
    }

    /// Which rule refuses, what shows it, and what helps.
    fn reasons(&mut self, title: &str, verdict: &Verdict) {
        if verdict.cause == Cause::None {
            return;
        }
        self.text += "\n";
        self.entry("Rule", &format!("{title}{}", verdict.cause.rule()));
        for (index, fact) in verdict.evidence.iter().take(self.facts).enumerate() {
            self.entry(if index == 0 { "Evidence" } else { "" }, &visible(fact));
        }
        self.remedies("On a host", verdict.remedies.host);
        self.remedies("In a container", verdict.remedies.container);
    }

    fn remedies(&mut self, label: &str, remedies: &[&str]) {
        for (index, remedy) in remedies.iter().take(self.remedies).enumerate() {
            self.entry(if index == 0 { label } else { "" }, &format!("{}. {remedy}", index + 1));
        }
    }

    fn entry(&mut self, label: &str, text: &str) {
        for (index, line) in wrap(text, self.width.saturating_sub(LABEL)).iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.text += format!("{label:<LABEL$}{line}").trim_end();
            self.text += "\n";
        }
    }
}

/// The verdict in a sentence.
fn headline(diagnosis: &Diagnosis) -> String {
    let name = diagnosis.name.as_deref().map_or_else(String::new, |name| format!(" ({})", visible(name)));
    let verdict = match (diagnosis.read.allowed, diagnosis.write.allowed) {
        (Some(true), Some(true)) => "readable and writable from here",
        (Some(true), _) => "readable from here, and not writable",
        (_, Some(true)) => "writable from here, and not readable",
        (None, _) | (_, None) => "whether it is readable and writable is unknown",
        _ => "neither readable nor writable from here",
    };
    format!("Process {}{name}: {verdict}", diagnosis.pid)
}

#[cfg(test)]
mod tests {
    use onecopy::memory::permission::Remedies;

    use super::*;

    fn page(diagnosis: &Diagnosis, all: bool) -> String {
        super::page(diagnosis, 80, all, false)
    }

    /// A diagnosis of a process that cannot be used for this reason.
    fn refused(cause: Cause) -> Diagnosis {
        let mut diagnosis = Diagnosis::of(std::process::id());
        for verdict in [&mut diagnosis.read, &mut diagnosis.write] {
            verdict.allowed = Some(false);
            verdict.errno = Some(1);
            verdict.cause = cause;
            verdict.evidence = vec!["uid 1000/1000/1000, gid 1000/1000/1000 here, uid 33/33/33 there".to_owned(); 3];
            verdict.remedies = Remedies::of(cause);
        }
        diagnosis
    }

    #[test]
    fn every_cause_fits_a_terminal_and_has_its_remedies() {
        for cause in Cause::ALL.into_iter().filter(|cause| *cause != Cause::None) {
            let text = page(&refused(cause), false);
            assert!(text.lines().count() <= 24, "{} lines\n{text}", text.lines().count());
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.contains(&format!("no: {cause} (EPERM)")), "{text}");
            assert!(text.contains("On a host       1. ") && text.contains("In a container  1. "), "{text}");
        }
    }

    #[test]
    fn a_page_leaves_out_what_does_not_fit_and_all_of_it_nothing() {
        let mut diagnosis = refused(Cause::Capabilities);
        diagnosis.write = refused(Cause::SelfDenied).write;
        let text = page(&diagnosis, false);
        assert!(text.lines().count() <= 24 && text.matches("Rule").count() == 2, "{text}");
        let text = page(&diagnosis, true);
        let remedies = diagnosis.read.remedies.host.len() + diagnosis.write.remedies.host.len();
        assert!(text.lines().count() > 24 && text.matches("uid 33/33/33 there").count() == 6, "{text}");
        assert!(text.matches("CAP_SYS_PTRACE").count() >= 1 && text.matches(". ").count() >= remedies, "{text}");
    }

    #[test]
    fn directions_that_differ_are_both_explained() {
        let mut diagnosis = refused(Cause::OtherUid);
        assert_eq!(page(&diagnosis, false).matches("Rule").count(), 1);
        assert_eq!(page(&diagnosis, true).matches("Rule").count(), 2);
        diagnosis.write = refused(Cause::SelfDenied).write;
        assert_eq!(page(&diagnosis, false).matches("Rule").count(), 2);
        diagnosis.write = diagnosis.read.clone();
        diagnosis.reverse = diagnosis.read.clone();
        diagnosis.read = Diagnosis::of(std::process::id()).read;
        let text = page(&diagnosis, false);
        assert!(text.starts_with("Process ") && text.contains(": readable from here, and not writable"), "{text}");
    }
}
