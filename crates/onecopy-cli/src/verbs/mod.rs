//! One file per verb: its `Arguments` and its `run`.

pub(crate) mod completions;
pub(crate) mod man;
