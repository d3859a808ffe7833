//! The command `onecopy`.
fn main() {}
