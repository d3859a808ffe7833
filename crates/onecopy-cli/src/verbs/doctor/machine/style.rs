//! Emphasis, for a terminal only.

use std::io::IsTerminal as _;

/// Whether text is emphasised by colour. Without it nothing is lost: every word stays the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colour: bool,
}

impl Style {
    /// What suits stdout: colour on a terminal that knows it, unless NO_COLOR (<https://no-color.org>) is set.
    pub(super) fn of_stdout() -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { colour: std::io::stdout().is_terminal() && !forbidden && !dumb }
    }

    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { colour: false }
    }

    /// A heading.
    pub(super) fn heading(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What is as it should be.
    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What is refused.
    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// What is low.
    pub(super) fn low(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
