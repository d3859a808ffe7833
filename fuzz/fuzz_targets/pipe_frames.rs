//! The reader of safe messages on pipes, fed with frames that were changed, cut, repeated, lost and exchanged.
#![no_main]

#[path = "../../crates/onecopy/tests/stream/frame_fuzz.rs"]
mod frame_fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| frame_fuzz::run(input));
