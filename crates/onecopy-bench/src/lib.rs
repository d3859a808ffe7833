//! Measurement of onecopy's mechanisms between real processes: workloads, baselines, statistics, reports.
//!
//! [`run`] measures; `onecopy bench` prints what it returns. Each figure comes from two processes of their own, started
//! from the binary that runs, each pinned to a core. This process only tells them what to do and waits, so that a process
//! that dies or hangs becomes a row with an error.
//!
//! A binary that calls [`run`] begins its `main` with [`run_peer_if_asked`].

mod affinity;
mod cache_line;
mod clock;
mod control;
mod cpu;
mod crossover;
mod endpoints;
mod host;
mod interrupt;
mod janitor;
mod links;
mod measure;
mod options;
mod pages;
mod payload;
mod peer;
mod plan;
mod primitive;
mod progress;
pub mod report;
mod runner;
mod session;
mod stats;
mod subject;
mod sync;
mod transport;
mod tuning;
mod work;
mod worker;
mod workloads;

pub use options::{Options, Usage, Wait, Workload};
pub use peer::run_peer_if_asked;
pub use primitive::Primitive;
pub use runner::{Error, run};
pub use subject::Subject;
pub use transport::Transport;
