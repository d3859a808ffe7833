//! `onecopy ls` for people: one object a line.

use std::collections::HashMap;

use nix::unistd::{Uid, User as Account};
use onecopy::Address;

use super::object::{Object, State};
use super::processes::User;
use crate::failure::visible;

/// The longest address, and the longest description, that move the columns of all other lines.
const ADDRESS_COLUMNS: usize = 36;
const WORDS_COLUMNS: usize = 32;
/// How many processes are named; the others are counted.
const NAMED_USERS: usize = 4;

/// The names of users, asked for once.
#[derive(Debug, Default)]
pub(super) struct Accounts(HashMap<u32, Option<String>>);

impl Accounts {
    /// The name of a user; `None` when the number has none.
    pub(super) fn name(&mut self, uid: u32) -> Option<String> {
        let look = || Account::from_uid(Uid::from_raw(uid)).ok().flatten().map(|account| account.name);
        self.0.entry(uid).or_insert_with(look).clone()
    }

    fn shown(&mut self, uid: Option<u32>) -> String {
        uid.map_or_else(|| "-".into(), |uid| self.name(uid).map_or_else(|| uid.to_string(), |name| visible(&name)))
    }
}

/// The cells of a line.
pub(super) struct Line {
    address: String,
    state: &'static str,
    user: String,
    words: String,
    users: String,
}

impl Line {
    pub(super) fn of(object: &Object, accounts: &mut Accounts) -> Self {
        Self {
            address: visible(&object.label),
            state: object.state.name().unwrap_or("-"),
            user: accounts.shown(object.uid),
            words: visible(&words(object)),
            users: visible(&users(object)),
        }
    }

    fn text(&self, address: usize, user: usize, words: usize) -> String {
        let Self { address: name, state, user: owner, words: what, users } = self;
        let line = format!("{name:<address$}  {state:<7}  {owner:<user$}  {what:<words$}  {users}");
        line.trim_end().to_owned() + "\n"
    }

    /// The line by itself, its cells two blanks apart.
    pub(super) fn alone(&self) -> String {
        let cells = [&*self.address, self.state, &self.user, &self.words, &self.users];
        cells.into_iter().filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("  ")
    }
}

/// A table with a head; nothing for no objects.
pub(super) fn table(objects: &[Object]) -> String {
    if objects.is_empty() {
        return String::new();
    }
    let mut accounts = Accounts::default();
    let head = Line {
        address: "ADDRESS".into(),
        state: "STATE",
        user: "OWNER".into(),
        words: "WHAT".into(),
        users: "USED BY".into(),
    };
    let lines: Vec<Line> =
        std::iter::once(head).chain(objects.iter().map(|object| Line::of(object, &mut accounts))).collect();
    let widest = |cell: fn(&Line) -> &str, limit: usize| {
        lines.iter().map(|line| cell(line).chars().count()).filter(|len| *len <= limit).max().unwrap_or(0)
    };
    let address = widest(|line| &line.address, ADDRESS_COLUMNS);
    let (user, words) = (widest(|line| &line.user, 16), widest(|line| &line.words, WORDS_COLUMNS));
    lines.iter().map(|line| line.text(address, user, words)).collect()
}

/// What the address does not tell comes first.
fn words(object: &Object) -> String {
    let is_told = !matches!(object.address, Some(Address::Descriptor(_)));
    match (is_told, object.words.is_empty()) {
        (true, _) => object.words.clone(),
        (false, true) => object.kind.to_string(),
        (false, false) => format!("{}, {}", object.kind, object.words),
    }
}

fn users(object: &Object) -> String {
    let mut text = match &object.state {
        State::Stale(reason) => reason.clone(),
        _ => list(&object.users),
    };
    if !object.waiting.is_empty() {
        let gap = if text.is_empty() { "" } else { "; " };
        text += &format!("{gap}waiting: {}", list(&object.waiting));
    }
    text
}

fn list(users: &[User]) -> String {
    let named = users.iter().take(NAMED_USERS).map(|user| format!("{} {}", user.pid, user.name).trim_end().to_owned());
    let mut text = named.collect::<Vec<_>>().join(", ");
    if users.len() > NAMED_USERS {
        text += &format!(", and {} more", users.len() - NAMED_USERS);
    }
    text
}

/// `3 messages`, `1 message`.
pub(super) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

pub(super) fn processes(number: usize) -> String {
    if number == 1 { "1 process".into() } else { format!("{number} processes") }
}

/// A number of bytes in the largest unit of which it is a whole number, or with one digit behind the point.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.into_iter().find(|(shift, _)| number >> shift > 0) {
        None => count(number, "byte"),
        Some((shift, unit)) => {
            let (whole, tenths) = (number >> shift, ((number & ((1 << shift) - 1)) * 10) >> shift);
            if tenths == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenths} {unit}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes() {
        let shown = [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB")];
        for (number, text) in shown.into_iter().chain([(64 << 20, "64 MiB"), (u64::MAX, "16777215.9 TiB")]) {
            assert_eq!(bytes(number), text);
        }
    }
}
