//! `onecopy ls --watch`: what appears, changes and goes, one event a line.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::filter::Filter;
use super::json;
use super::object::Object;
use super::text::{Accounts, Line};
use super::{Survey, survey};
use crate::failure::{self, Failure};

/// Between two looks. /proc tells nobody of changes.
const INTERVAL: Duration = Duration::from_millis(500);

/// What an object is known by from one look to the next, and in which order objects are told.
type Key = (super::object::Kind, String);

/// Tells what is there, and then what changes, until the output is closed or a signal comes.
pub(super) fn run(filter: &Filter, as_json: bool) -> Result<(), Failure> {
    let mut known: BTreeMap<Key, (String, Object)> = BTreeMap::new();
    let mut accounts = Accounts::default();
    let mut is_first = true;
    loop {
        let Survey { objects, notes, .. } = survey(filter)?;
        if std::mem::take(&mut is_first) {
            notes.iter().for_each(|note| failure::say(note));
        }
        let mut found = BTreeMap::new();
        for object in objects {
            let line = Line::of(&object, &mut accounts).alone();
            found.insert((object.kind, object.label.clone()), (line, object));
        }
        let mut tell = |sign: char, name: &'static str, (line, object): &(String, Object)| {
            let text = if as_json { json::event(name, object, &mut accounts)? } else { format!("{sign} {line}\n") };
            failure::print(&text)
        };
        for (_, gone) in known.iter().filter(|(key, _)| !found.contains_key(*key)) {
            tell('-', "gone", gone)?;
        }
        for (key, now) in &found {
            match known.get(key) {
                None => tell('+', "appeared", now)?,
                Some((before, _)) if *before != now.0 => tell('~', "changed", now)?,
                Some(_) => {}
            }
        }
        known = found;
        pause()?;
    }
}

/// Waits, or notices that nobody reads the output any more.
fn pause() -> Result<(), Failure> {
    let stdout = std::io::stdout();
    let interval = Timespec::try_from(INTERVAL).ok();
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    match poll(&mut watched, interval.as_ref()) {
        Ok(1..) if watched[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL) => Err(Failure::OutputClosed),
        Ok(1..) => {
            std::thread::sleep(INTERVAL);
            Ok(())
        }
        _ => Ok(()),
    }
}
