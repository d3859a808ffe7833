//! System V semaphores.

use onecopy::Address;

use super::object::Object;
use super::sysv::{self, Row};
use super::text::count;

/// All sets. The kernel does not say who uses one.
pub(super) fn objects() -> Vec<Object> {
    sysv::rows("sem", object)
}

fn object(row: &Row<'_>) -> Option<Object> {
    let semaphores = row.number("nsems");
    let object = row.object(Address::SysvSemaphore(row.name("semid")?))?;
    Some(object.figure("semaphores", semaphores).says(count(semaphores, "semaphore")))
}
