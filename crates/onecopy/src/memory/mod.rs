//! Memory that several processes share, and the ways to move data through it.
//!
//! | Row | Module | What names it | Can it be shortened? | What is left after everyone was killed |
//! |---|---|---|---|---|
//! | 12 | [`posix_shm`] | a name, `/dev/shm/NAME` | yes: checked copies | the object, until it is unlinked |
//! | 13 | [`sysv_shm`] | a key or an identifier | no | the segment, until it is removed |
//! | 14 | [`file_mapping`] | a path | yes: checked copies | the file |
//! | 15 | [`anonymous`] | a descriptor, inherited or passed | no: sealed | nothing |
//! | 16, 17 | [`remote`] | a process and an address there | a page can vanish: an exact partial count | nothing |
//!
//! [`ring`] sends messages through any of rows 12 to 15, [`attach`] sends them by rows 16 and 17. A [`window`] names memory
//! that others reach by rows 16 and 17, by a token that travels over any mechanism; [`buffer`] is memory that is good for it.
//! [`maps`] lists what a process has mapped, and so what rows 16 and 17 can reach; [`permission`] says why the kernel refuses those two.
//!
//! Rows 12 to 15 give a [`Region`]: a mapping that others can write at any time. So a region hands out copies and never a
//! reference to its bytes; the one exception is a [`Frozen`](anonymous::Frozen) mapping, whose bytes the kernel keeps from
//! ever changing again.

mod allocate;
pub mod anonymous;
pub mod attach;
pub(crate) mod bell;
pub mod buffer;
pub(crate) mod copy;
pub mod file_mapping;
mod guarded;
pub(crate) mod hints;
pub mod maps;
mod named_file;
pub(crate) mod nonce;
pub(crate) mod occupied;
pub mod permission;
pub mod posix_shm;
mod region;
pub mod remote;
pub mod ring;
mod role;
pub mod sysv_shm;
pub(crate) mod wait;
pub mod window;
mod writers;

pub use region::Region;
