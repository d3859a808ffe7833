//! Both directions with programs that we did not write: what they send we receive, and what we send they receive.

#[path = "../support/mod.rs"]
mod support;

mod ipcs;
mod locks;
mod ls;
mod multiprocessing;
mod posix_ipc;
mod semaphores;
mod signals;
mod socat;
mod sysv_ipc;
mod window;
