//! What `onecopy rm --stale` removes: exactly what `ls` calls stale.

use onecopy::Address;

use super::leftover::Outcome;
use super::object::{Object, State};
use super::{Filter, Survey, survey};
use crate::failure::{self, Failure};
use crate::output;

/// Removes what is stale of all that `filter` takes, and prints the address of each that is removed. What is not stale any more when
/// it is looked at again, immediately before, stays.
pub(crate) fn remove(filter: &Filter) -> Result<(), Failure> {
    let Survey { objects, .. } = survey(filter)?;
    let stale: Vec<&Object> = objects.iter().filter(|object| matches!(object.state, State::Stale(_))).collect();
    output::stdout()?;
    let mut failed = 0_usize;
    // Nobody may read what is printed to its end; the others are removed all the same.
    let mut printed = Ok(());
    for object in &stale {
        match object.leftover.as_ref().map_or(Outcome::Alive, super::leftover::Leftover::remove) {
            Outcome::Removed => printed = printed.and_then(|()| failure::print(&format!("{}\n", object.label))),
            Outcome::Alive => {}
            Outcome::Failed(reason) => {
                failed += 1;
                failure::say(&format!("cannot remove {}: {reason}", object.label));
            }
        }
    }
    match failed {
        0 => printed,
        _ => Err(Failure::failed(format!("{failed} of {} stale objects could not be removed", stale.len()))),
    }
}

/// Removes the one object at `address` if it is stale, and refuses otherwise.
pub(crate) fn remove_one(filter: Filter, address: &Address) -> Result<(), Failure> {
    let filter = filter.of_address(address.clone());
    let Survey { objects, .. } = survey(&filter)?;
    let Some(object) = objects.first() else {
        return Err(Failure::failed(format!(
            "{address} is not among what `onecopy ls --all` finds, and stays if it is there"
        )));
    };
    let stays = || Failure::failed(format!("{address} is not stale, and stays ({})", why(object)));
    match object.leftover.as_ref().map(super::leftover::Leftover::remove) {
        Some(Outcome::Removed) => failure::print(&format!("{address}\n")),
        Some(Outcome::Failed(reason)) => Err(Failure::failed(format!("cannot remove {address}: {reason}"))),
        Some(Outcome::Alive) | None => Err(stays()),
    }
}

fn why(object: &Object) -> String {
    match (&object.state, object.users.first()) {
        (_, Some(user)) => format!("process {} uses it", user.pid),
        (State::Stale(_), _) => "it was when it was found".into(),
        (State::Used, _) => "it is in use".into(),
        _ => "nothing proves that whoever used it is gone for good".into(),
    }
}
