//! A channel in memory of a model.

use std::sync::Arc;

use super::desk::Desk;
use crate::memory::Region;

/// The two desks of a channel.
pub(super) struct Desks {
    desks: Arc<[Desk; 2]>,
    outgoing: usize,
}

impl std::fmt::Debug for Desks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desks")
    }
}

impl Desks {
    pub(super) fn new(_: Region, _: bool) -> Self {
        unreachable!("a model has no region")
    }

    pub(super) fn outgoing(&self) -> &Desk {
        &self.desks[self.outgoing]
    }

    pub(super) fn incoming(&self) -> &Desk {
        &self.desks[1 - self.outgoing]
    }
}
