//! `onecopy doctor --pid`: each cause that this kernel can produce, and the name that it gets.

#[path = "../support/mod.rs"]
mod support;

mod credentials;
mod filters;
mod modules;
mod namespaces;
mod stage;
mod state;
