//! Pieces of an address that know their place, so that errors can name it.

use super::error::Problem;
use super::percent::decode;

pub(super) type Parsed<T> = Result<T, Problem>;

/// A piece of the input that knows where it begins.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl<'a> Part<'a> {
    pub(super) fn end(self) -> usize {
        self.at + self.text.len()
    }

    pub(super) fn problem(self, what: impl Into<String>) -> Problem {
        Problem::new(self.at, what)
    }

    /// What stands before and after the first `separator`.
    pub(super) fn split(self, separator: char) -> Option<(Self, Self)> {
        let len = self.text.find(separator)?;
        Some((self.before(len), self.after(len + separator.len_utf8())))
    }

    fn before(self, len: usize) -> Self {
        Self { text: &self.text[..len], at: self.at }
    }

    fn after(self, len: usize) -> Self {
        Self { text: &self.text[len..], at: self.at + len }
    }

    pub(super) fn without(self, prefix: &str) -> Option<Self> {
        self.text.starts_with(prefix).then(|| self.after(prefix.len()))
    }

    /// A number that `what` names: decimal digits, or hexadecimal ones after `0x`.
    pub(super) fn number(self, what: &str) -> Parsed<u64> {
        if self.text.is_empty() {
            return Err(self.problem(format!("{what} missing")));
        }
        let (digits, radix) = match self.text.strip_prefix("0x").or_else(|| self.text.strip_prefix("0X")) {
            Some(digits) => (digits, 16),
            None => (self.text, 10),
        };
        if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
            return Err(self.problem(format!("the {what} is no number")));
        }
        u64::from_str_radix(digits, radix).map_err(|_| self.problem(format!("the {what} is above {}", u64::MAX)))
    }

    /// The bytes that the part stands for, made into a name by `make`.
    pub(super) fn name<T>(self, make: impl FnOnce(Vec<u8>) -> Result<T, String>) -> Parsed<T> {
        make(decode(self.text, self.at)?).map_err(|what| self.problem(what))
    }
}

/// What follows the question mark: `key=value`, joined by `&`.
pub(super) struct Options<'a>(Vec<(Part<'a>, Part<'a>)>);

impl<'a> Options<'a> {
    /// Splits `part` at its question mark.
    pub(super) fn split(part: Part<'a>) -> Parsed<(Part<'a>, Self)> {
        let Some((before, mut rest)) = part.split('?') else {
            return Ok((part, Self(Vec::new())));
        };
        let mut pairs: Vec<(Part<'a>, Part<'a>)> = Vec::new();
        loop {
            let (pair, next) = rest.split('&').map_or((rest, None), |(pair, next)| (pair, Some(next)));
            let Some((key, value)) = pair.split('=') else {
                return Err(pair.problem("key=value missing after ? (a ? in a path is written %3F)"));
            };
            if pairs.iter().any(|(known, _)| known.text == key.text) {
                return Err(key.problem(format!("{} stands twice", key.text)));
            }
            pairs.push((key, value));
            match next {
                Some(next) => rest = next,
                None => return Ok((before, Self(pairs))),
            }
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Part<'a>> {
        let index = self.0.iter().position(|(known, _)| known.text == key)?;
        Some(self.0.swap_remove(index).1)
    }

    /// The value of an option that must be there; `end` is where it would stand.
    pub(super) fn demand(&mut self, key: &str, end: usize) -> Parsed<Part<'a>> {
        self.take(key).ok_or_else(|| Problem::new(end, format!("{key} missing")))
    }

    pub(super) fn number(&mut self, key: &str) -> Parsed<Option<u64>> {
        self.take(key).map(|value| value.number(key)).transpose()
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Parsed<()> {
        match self.0.into_iter().min_by_key(|(key, _)| key.at) {
            Some((key, _)) => Err(key.problem(format!("unknown option {}", key.text))),
            None => Ok(()),
        }
    }
}
