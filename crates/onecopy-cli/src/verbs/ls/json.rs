//! `onecopy ls --json`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Survey;
use super::object::{Object, State};
use super::processes::User;
use super::text::Accounts;
use crate::failure::Failure;

#[derive(Serialize)]
struct All<'a> {
    version: u32,
    objects: Vec<Row<'a>>,
    /// How many processes could not be looked at: they may use some of the objects. Null where not even their number is known.
    unseen_processes: Option<usize>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    object: Row<'a>,
}

/// What is unknown is null. The figures have keys that end in their unit; one that an object has not is left out.
#[derive(Serialize)]
struct Row<'a> {
    address: Option<String>,
    /// What it is, where no address leads to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    kind: &'static str,
    memory: Option<&'static str>,
    state: Option<&'static str>,
    stale_because: Option<&'a str>,
    uid: Option<u32>,
    user: Option<String>,
    mode: Option<String>,
    description: &'a str,
    #[serde(flatten)]
    figures: BTreeMap<&'static str, u64>,
    holders: Vec<Holder<'a>>,
    waiting: Vec<Holder<'a>>,
    /// Those whom the object itself names: who made it, who used it last. They may have exited.
    noted_pids: &'a [u32],
}

#[derive(Serialize)]
struct Holder<'a> {
    pid: u32,
    name: Option<&'a str>,
    descriptors: &'a [u32],
}

/// One JSON object with all that was found.
pub(super) fn text(survey: &Survey) -> Result<String, Failure> {
    let mut accounts = Accounts::default();
    let all = All {
        version: 1,
        objects: survey.objects.iter().map(|object| row(object, &mut accounts)).collect(),
        unseen_processes: survey.unseen,
        notes: &survey.notes,
    };
    to_text(&all, serde_json::to_string_pretty)
}

/// One event, on one line.
pub(super) fn event(event: &'static str, object: &Object, accounts: &mut Accounts) -> Result<String, Failure> {
    to_text(&Event { event, object: row(object, accounts) }, serde_json::to_string)
}

fn to_text<T: Serialize>(value: &T, write: fn(&T) -> serde_json::Result<String>) -> Result<String, Failure> {
    match write(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure::failed(format!("cannot write JSON: {error}"))),
    }
}

fn row<'a>(object: &'a Object, accounts: &mut Accounts) -> Row<'a> {
    let stale_because = match &object.state {
        State::Stale(reason) => Some(reason.as_str()),
        _ => None,
    };
    Row {
        address: object.address.as_ref().map(ToString::to_string),
        label: object.address.is_none().then_some(&object.label),
        kind: object.kind.name(),
        memory: object.memory.map(onecopy::Mechanism::name),
        state: object.state.name(),
        stale_because,
        uid: object.uid,
        user: object.uid.and_then(|uid| accounts.name(uid)),
        mode: object.mode.map(|mode| format!("{mode:04o}")),
        description: &object.words,
        figures: object.figures.iter().copied().collect(),
        holders: object.users.iter().map(holder).collect(),
        waiting: object.waiting.iter().map(holder).collect(),
        noted_pids: &object.noted,
    }
}

fn holder(user: &User) -> Holder<'_> {
    let name = Some(&*user.name).filter(|name| !name.is_empty());
    Holder { pid: user.pid, name, descriptors: &user.descriptors }
}
