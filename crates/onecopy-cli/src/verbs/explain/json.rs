//! `onecopy explain --json`.

use onecopy::Mechanism;
use onecopy::limits::{Limit, limits_of};
use onecopy::mechanism::{CHANNEL, Info};
use serde::Serialize;

use crate::failure::Failure;

#[derive(Serialize)]
struct All {
    version: u32,
    mechanisms: Vec<One>,
}

#[derive(Serialize)]
struct One {
    name: &'static str,
    title: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<usize>,
    kinds: Vec<&'static str>,
    addresses: &'static [&'static str],
    destination: &'static str,
    access: &'static str,
    copies: Answer,
    boundaries: Answer,
    full: &'static str,
    empty: &'static str,
    remains: Answer,
    traps: &'static [&'static str],
    man_pages: &'static [&'static str],
    #[serde(rename = "try")]
    try_it: &'static str,
    module: &'static str,
    available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable_because: Option<String>,
    limits: Vec<InForce>,
}

#[derive(Serialize)]
struct Answer {
    short: &'static str,
    text: &'static str,
}

/// A limit; `value` is null where there is none, and `state` says why.
#[derive(Serialize)]
pub(in crate::verbs) struct InForce {
    name: &'static str,
    value: Option<u64>,
    state: &'static str,
    unit: &'static str,
    meaning: &'static str,
    source: String,
    how_to_raise: String,
}

pub(super) fn one(mechanism: Mechanism) -> Result<String, Failure> {
    to_text(&One::of(mechanism))
}

pub(super) fn channel() -> Result<String, Failure> {
    to_text(&One::from(&CHANNEL, None))
}

pub(super) fn all() -> Result<String, Failure> {
    to_text(&All { version: 1, mechanisms: Mechanism::ALL.into_iter().map(One::of).collect() })
}

/// `value` as a text of one object, with the line's end.
pub(in crate::verbs) fn to_text(value: &impl Serialize) -> Result<String, Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure::failed(format!("cannot write JSON: {error}"))),
    }
}

impl One {
    fn of(mechanism: Mechanism) -> Self {
        Self {
            row: Some(mechanism.row()),
            limits: limits_of(mechanism).into_iter().map(InForce::from).collect(),
            ..Self::from(mechanism.info(), mechanism.availability().err())
        }
    }

    fn from(info: &Info, unavailable_because: Option<String>) -> Self {
        Self {
            name: info.name,
            title: info.title,
            row: None,
            kinds: info.kinds.iter().map(|kind| kind.name()).collect(),
            addresses: info.addresses,
            destination: info.destination,
            access: info.access,
            copies: info.copies.into(),
            boundaries: info.boundaries.into(),
            full: info.full,
            empty: info.empty,
            remains: info.remains.into(),
            traps: info.traps,
            man_pages: info.man_pages,
            try_it: info.try_it,
            module: info.module,
            available: unavailable_because.is_none(),
            unavailable_because,
            limits: Vec::new(),
        }
    }
}

impl From<onecopy::mechanism::Answer> for Answer {
    fn from(answer: onecopy::mechanism::Answer) -> Self {
        Self { short: answer.short, text: answer.long }
    }
}

impl From<Limit> for InForce {
    fn from(limit: Limit) -> Self {
        use onecopy::limits::Value;
        let state = match limit.value {
            Value::Number(_) => "limited",
            Value::Unlimited => "unlimited",
            Value::Absent => "absent",
            _ => "unreadable",
        };
        Self {
            name: limit.name,
            value: limit.value.number(),
            state,
            unit: limit.unit,
            meaning: limit.meaning,
            source: limit.source,
            how_to_raise: limit.how_to_raise,
        }
    }
}
