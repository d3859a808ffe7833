//! Memory that several processes share, and the ways to move data through it.
//!
//! | Row | Module | What names it | What is left after everyone was killed |
//! |---|---|---|---|
//! | 15 | [`anonymous`] | a descriptor, inherited or passed | nothing |
//! | 16, 17 | [`remote`] | a process and an address there | nothing |
//!
//! Each gives a [`Region`]: a mapping that others can write at any time. So a region hands out copies and never a
//! reference to its bytes; the one exception is a [`Frozen`](anonymous::Frozen) mapping, whose bytes the kernel keeps from
//! ever changing again.

mod allocate;
pub mod anonymous;
mod copy;
mod region;
pub mod remote;

pub use region::Region;
