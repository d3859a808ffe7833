//! Reading addresses, and saying what is wrong with them.

use std::fmt;

use super::percent::is_unsafe;
use crate::Error;

/// How an address of one kind is written.
pub(super) struct Form {
    pub(super) form: &'static str,
    pub(super) example: &'static str,
}

/// What is wrong, at which byte of the input.
#[derive(Debug)]
pub(super) struct Problem {
    at: usize,
    what: String,
}

impl Problem {
    pub(super) fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }

    pub(super) fn into_error(self, input: &str, form: &Form) -> ParseAddressError {
        self.with_correct_form(input, format!("{}, for example {}", form.form, form.example))
    }

    pub(super) fn with_correct_form(self, input: &str, correct_form: String) -> ParseAddressError {
        ParseAddressError { input: input.to_owned(), position: self.at, problem: printable(&self.what), correct_form }
    }
}

/// Why a text is no address: the place, what is wrong there, and how it would be right.
///
/// ```
/// let error = "localhost:http".parse::<onecopy::HostPort>().unwrap_err();
/// assert_eq!(error.position(), 10);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddressError {
    input: String,
    position: usize,
    problem: String,
    correct_form: String,
}

impl ParseAddressError {
    /// The text that was to be parsed.
    #[must_use]
    pub fn input(&self) -> &str {
        &self.input
    }

    /// The byte of the input, counted from 0, at which it goes wrong; its length when something is missing at the end.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// What is wrong there.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// How such an address is written, with an example.
    #[must_use]
    pub fn correct_form(&self) -> &str {
        &self.correct_form
    }

    /// The column as a reader counts it: characters, from 1.
    fn column(&self) -> usize {
        let before = self.input.get(..self.position).unwrap_or(&self.input);
        before.chars().count() + 1
    }

    fn reason(&self) -> String {
        format!("{} at column {}; write {}", self.problem, self.column(), self.correct_form)
    }

    fn shown(&self) -> String {
        if self.input.is_empty() { "an empty address".into() } else { printable(&self.input) }
    }
}

/// `text` in one line of bearable length, without what a terminal would hide or obey.
pub(crate) fn printable(text: &str) -> String {
    const CHARACTERS: usize = 100;
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == CHARACTERS {
            shown.push_str("...");
            break;
        }
        if is_unsafe(character) && !matches!(character, '%' | '?') {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shown(), self.reason())
    }
}

impl std::error::Error for ParseAddressError {}

impl From<ParseAddressError> for Error {
    fn from(error: ParseAddressError) -> Self {
        Self::Invalid { object: error.shown(), reason: error.reason() }
    }
}
