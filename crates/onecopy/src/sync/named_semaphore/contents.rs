//! A semaphore that has not got its name yet, told from the one under which it is made.

use super::NEW;
use crate::Mechanism;
use crate::contents::{Contents, owner, unfinished};
use crate::process::Watch;

/// What the file called `name` is, if a semaphore is made under that name or was: it got or gets another one at the end.
pub(crate) fn contents(name: &[u8], watch: &mut Watch) -> Option<Contents> {
    let name = str::from_utf8(name).ok()?;
    let (maker, number) = name.strip_prefix("sem.").unwrap_or(name).strip_prefix(NEW)?.split_once('-')?;
    let [maker, _] = [maker, number].map(|number| u64::from_str_radix(number, 16));
    let maker = owner("maker", maker.ok()?, watch)?;
    Some(unfinished("semaphore", Some(Mechanism::PosixNamedSemaphore), maker))
}
