//! One file per verb: its `Arguments` and its `run`.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod expose;
pub(crate) mod fetch;
pub(crate) mod lock;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod pipe_safety;
pub(crate) mod post;
pub(crate) mod read;
pub(crate) mod recv;
pub(crate) mod rm;
pub(crate) mod send;
pub(crate) mod signal;
pub(crate) mod wait;
pub(crate) mod write;
